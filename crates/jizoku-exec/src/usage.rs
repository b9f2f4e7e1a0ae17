//! What a program and all that it has started use, as the system's `/proc` tells it.
//!
//! What it does not know: what the processes are for.
//!
//! Invariants
//! - A process that ends while it is being looked at is left out, and counts in its parent's
//!   children from then on.
//! - Nothing here fails: what can't be read counts as nothing.
//!
//! Limits: [`PROCESSES_MAX`] processes are looked at.

use std::fs;

use jizoku_types::{ByteCount, Span};

/// Most processes of one program that are looked at.
pub(crate) const PROCESSES_MAX: usize = 1024;

/// Time and memory of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// In user and system mode, with that of children that have ended.
    pub(crate) cpu: Span,
    /// Resident memory. What processes share counts for each of them.
    pub(crate) memory: ByteCount,
}

/// What is used by all processes below `keeper`, without the keeper itself.
pub(crate) fn below(keeper: u32) -> Used {
    let (ticks, page) = (setting(libc::_SC_CLK_TCK), setting(libc::_SC_PAGESIZE));
    let mut used = Used::default();
    let mut left = children(keeper);
    let mut looked_at = 0;
    // The keeper has adopted and reaped what the program had left behind.
    let mut time = stat(keeper).map_or(0, |stat| stat.of_children);
    while let Some(process) = left.pop() {
        looked_at += 1;
        if looked_at > PROCESSES_MAX {
            break;
        }
        let Some(stat) = stat(process) else { continue };
        time += stat.own + stat.of_children;
        used.memory += ByteCount(pages(process).saturating_mul(page));
        left.extend(children(process));
    }
    used.cpu = Span::nanos(time.saturating_mul(1_000_000_000) / ticks.max(1));
    used
}

/// What `/proc/PID/stat` says: times in ticks of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    own: u64,
    of_children: u64,
}

/// Resident pages of a process. Exact, unlike those in its `stat`.
fn pages(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

fn stat(process: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name may hold anything; the last bracket ends it. The state follows, as field 3.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        own: field(14)?.saturating_add(field(15)?),
        of_children: field(16)?.saturating_add(field(17)?),
    })
}

/// The processes that this one has started or adopted.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let mut all = Vec::new();
    for thread in threads.flatten() {
        let listed = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        all.extend(listed.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    all
}

fn setting(name: libc::c_int) -> u64 {
    // SAFETY: no memory is passed.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 11 22 3 4 20 0 1 0 5 6000 77 18";
        assert_eq!(parse(line), Some(Stat { own: 33, of_children: 7 }));
        assert_eq!(parse(""), None);
        assert_eq!(parse("7 (a) S 1 2"), None);
    }

    #[test]
    fn children_are_found_and_add_up() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(below(std::process::id()).memory > ByteCount(0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
    }
}
