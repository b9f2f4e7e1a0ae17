//! What this machine has to spare, read from /proc and the file system.

use std::fs;
use std::path::Path;

use jizoku_node::node::Load;
use jizoku_store::room;
use jizoku_types::ByteCount;

/// Busy and total processor time, in ticks since boot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    idle: u64,
    total: u64,
}

/// Reads the load; `before` is the last reading of the processors.
pub(crate) fn read(data: &Path, reserve: ByteCount, before: &mut CpuTime) -> Load {
    let mut load = Load::default();
    if let Some(now) = CpuTime::now() {
        let (idle, total) = now.since(*before);
        load.cpu_free_permille = u16::try_from(idle * 1000 / total.max(1)).unwrap_or(1000);
        *before = now;
    }
    if let Some(free) = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available) {
        load.memory_free = free;
    }
    match room::free_at(data) {
        Ok(free) => {
            load.disk_free = ByteCount(free.0.saturating_sub(reserve.0));
            load.disk_ok = free > reserve;
        }
        Err(_) => load.disk_ok = false,
    }
    load
}

impl CpuTime {
    /// The time now, if it can be read.
    pub(crate) fn now() -> Option<CpuTime> {
        fs::read_to_string("/proc/stat").ok().as_deref().and_then(cpu_time)
    }

    /// The share of busy time since an earlier reading, in percent; none: no tick went by.
    #[allow(clippy::cast_precision_loss, reason = "a share is wanted")]
    pub(crate) fn busy_since(self, before: CpuTime) -> Option<f64> {
        let (idle, total) = self.since(before);
        (total > 0).then(|| (total - idle) as f64 * 100.0 / total as f64)
    }

    /// Idle and total ticks since an earlier reading.
    fn since(self, before: CpuTime) -> (u64, u64) {
        let total = self.total.saturating_sub(before.total);
        (self.idle.saturating_sub(before.idle).min(total), total)
    }
}

fn cpu_time(stat: &str) -> Option<CpuTime> {
    let numbers: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|number| number.parse().ok())
        .collect();
    // proc(5): user nice system idle iowait ...
    Some(CpuTime { idle: numbers.get(3)? + numbers.get(4)?, total: numbers.iter().sum() })
}

fn available(meminfo: &str) -> Option<ByteCount> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(ByteCount::kib(kib))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let time = cpu_time("cpu  10 0 20 60 10 0 0 0 0 0\ncpu0 1\n").expect("a reading");
        assert_eq!((time.idle, time.total), (70, 100));
        let meminfo = "MemTotal: 9 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available(meminfo), Some(ByteCount::mib(2)));
        assert!(cpu_time("").is_none() && available("").is_none());
    }
}
