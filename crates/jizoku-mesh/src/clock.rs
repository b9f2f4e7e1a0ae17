//! The one clock of the agent: CLOCK_BOOTTIME, which goes on while the machine sleeps.
//!
//! What it does not know: wall clock time; nothing in jizoku decides by it.

use jizoku_types::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds since this machine's boot.
pub fn boottime_now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_run_backwards() {
        let first = boottime_now();
        let second = boottime_now();
        assert!(first > Instant::ORIGIN);
        assert!(second >= first);
    }
}
