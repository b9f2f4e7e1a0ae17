//! The program's clocks.
//!
//! Invariant: the monotonic clock never goes back, not even when the program goes on at another
//! node: its value travels with the state, and goes on from there.

use super::errno::Errno;

/// What the monotonic clock shows when a program begins: an hour, so that programs that look back
/// some time from their start do not get below zero.
const BEGINNING: u64 = 3_600_000_000_000;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

/// The program's clocks on this node.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// Added to the node's clock, wrapping.
    offset: u64,
}

impl Clocks {
    pub(crate) fn fresh() -> Clocks {
        Clocks::going_on_from(BEGINNING)
    }

    /// Clocks whose monotonic one shows `monotonic` now.
    pub(crate) fn going_on_from(monotonic: u64) -> Clocks {
        Clocks { offset: monotonic.wrapping_sub(node_now()) }
    }

    /// Nanoseconds since the program's beginning, nearly.
    pub(crate) fn monotonic(&self) -> u64 {
        node_now().wrapping_add(self.offset)
    }

    pub(crate) fn read(&self, clock: u32) -> Result<u64, Errno> {
        match clock {
            REALTIME => Ok(real_time()),
            MONOTONIC => Ok(self.monotonic()),
            _ => Err(Errno::INVAL),
        }
    }

    pub(crate) fn resolution(&self, clock: u32) -> Result<u64, Errno> {
        match clock {
            REALTIME | MONOTONIC => Ok(1),
            _ => Err(Errno::INVAL),
        }
    }

    /// When, on the monotonic clock, a `timeout` of `clock` is over that began at `began`.
    pub(crate) fn due(
        &self,
        clock: u32,
        timeout: u64,
        absolute: bool,
        began: u64,
    ) -> Result<u64, Errno> {
        match (clock, absolute) {
            (REALTIME | MONOTONIC, false) => Ok(began.saturating_add(timeout)),
            (MONOTONIC, true) => Ok(timeout),
            (REALTIME, true) => {
                let left = timeout.saturating_sub(real_time());
                Ok(self.monotonic().saturating_add(left))
            }
            _ => Err(Errno::INVAL),
        }
    }
}

/// This node's clock in nanoseconds: it goes on while the machine sleeps, and is never set.
pub(crate) fn node_now() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds since 1970.
pub(crate) fn real_time() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write one timespec to.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "Linux has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
