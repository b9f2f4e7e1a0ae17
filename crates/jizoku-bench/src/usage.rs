//! What processes take from the machine, as Linux counts it.
//!
//! Processor time is the scheduler's own sum for each thread, in nanoseconds: it isn't sampled, so
//! that also thousands of short bursts are counted. Threads that ended meanwhile are missing.

use std::fs;

/// The machine's load average over the last minute; NaN if it isn't told.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
    first.unwrap_or(f64::NAN)
}

/// Processor time of a process and its threads, in seconds; none once it has ended.
pub(crate) fn cpu(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let spent = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let nanos: u64 = threads.filter_map(spent).sum();
    Some(nanos as f64 / 1e9)
}

/// Of several processes together.
pub(crate) fn cpu_of_all(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| cpu(*pid)).sum()
}

/// Resident memory of a process in MiB; none once it has ended.
pub(crate) fn memory(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Processes that a process started, and those that they did, without itself.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse().ok());
            for child in children.collect::<Vec<u32>>() {
                found.push(child);
                open.push(child);
            }
        }
    }
    found
}

/// What a process was started as, without its folder.
pub(crate) fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let own = std::process::id();
        assert!(cpu(own).is_some_and(|seconds| seconds > 0.0));
        assert!(memory(own).is_some_and(|mib| mib > 0.0));
        assert!(!name(own).is_empty() && load() >= 0.0);
        assert_eq!(cpu(u32::MAX), None);
    }
}
