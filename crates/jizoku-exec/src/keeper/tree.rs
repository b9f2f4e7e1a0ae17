//! The program's processes: the first one, and whatever it has started.
//!
//! What it does not know: why they have to go.
//!
//! Invariant: the keeper adopts processes whose parent died. So killing children again and again
//! until there are none reaches everything, in whatever session or group it hides.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open,
    wait,
};
use rustix::time::Timespec;

use crate::clock::boot_nanos;
use crate::message::End;

/// How long killed processes may take to vanish: one that is stuck in the system can't be
/// killed, and the keeper must not wait for it for ever.
const VANISH_WITHIN_NANOS: u64 = 5_000_000_000;

pub(super) struct Tree {
    main: Pid,
    /// How the first process ended, once it was reaped.
    ended: Option<End>,
}

impl Tree {
    pub(super) fn new(main: Pid) -> Tree {
        Tree { main, ended: None }
    }

    /// Asks the program's own group to end.
    pub(super) fn ask_to_end(&self) {
        // If there is nobody left to ask, reaping will find that out.
        let _ = kill_process_group(self.main, Signal::TERM);
    }

    /// Reaps everything that has ended; how the first process did, once it has.
    pub(super) fn reap(&mut self) -> Option<End> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.main {
                let end = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => End::Status(code),
                    (None, Some(signal)) => End::Signal(signal),
                    (None, None) => continue,
                };
                self.ended = Some(end);
            }
        }
        self.ended
    }

    /// Kills everything, and waits until nothing is left.
    pub(super) fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = kill_process_group(self.main, Signal::KILL);
        }
        let give_up = boot_nanos().saturating_add(VANISH_WITHIN_NANOS);
        loop {
            self.reap();
            let left = children();
            if left.is_empty() || boot_nanos() >= give_up {
                return;
            }
            for child in &left {
                let _ = kill_process(*child, Signal::KILL);
            }
            wait_for_one(&left);
        }
    }
}

/// Waits until one of these has ended, or a tenth of a second.
fn wait_for_one(children: &[Pid]) {
    let open = |child: &Pid| pidfd_open(*child, PidfdFlags::empty()).ok();
    let fds: Vec<OwnedFd> = children.iter().take(64).filter_map(open).collect();
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // Woken early or not, the caller looks for itself.
    let _ = poll(&mut polled, Some(&patience));
}

/// The keeper's children that have not been reaped.
fn children() -> Vec<Pid> {
    let own = getpid();
    let listed = fs::read_to_string(format!("/proc/self/task/{}/children", own.as_raw_pid()));
    let pid = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    match listed {
        Ok(listed) => listed.split_ascii_whitespace().filter_map(pid).collect(),
        // The kernel was built without that list: look at everybody.
        Err(_) => processes().into_iter().filter(|child| parent_of(*child) == Some(own)).collect(),
    }
}

fn processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |name: std::ffi::OsString| name.to_str()?.parse().ok().and_then(Pid::from_raw);
    entries.filter_map(|entry| pid(entry.ok()?.file_name())).collect()
}

fn parent_of(process: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).ok()?;
    // The name may hold anything; the last bracket ends it. Then come state and parent.
    let after = &stat[stat.rfind(')')? + 1..];
    Pid::from_raw(after.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_whatever_the_name() {
        assert_eq!(parent_of(getpid()), rustix::process::getppid());
        assert!(processes().contains(&getpid()));
    }
}
