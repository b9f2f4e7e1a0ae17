//! A simulated machine's clock: an origin and a rate of its own.
//!
//! Invariant: it never goes back, and [`Clock::global`] is the first moment at which the clock
//! shows at least what was asked for.

use jizoku_types::Instant;

/// A second by this clock is `1_000_000 / rate` seconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: u64,
    rate: u64,
}

/// The rate of a clock that is right.
pub const RIGHT: u64 = 1_000_000;

impl Clock {
    /// A clock that shows `origin` at the beginning.
    pub fn new(origin: u64, rate: u64) -> Clock {
        Clock { origin, rate }
    }

    /// What it shows at the global moment `at`.
    pub fn local(&self, at: Instant) -> Instant {
        let passed = u128::from(at.as_nanos()) * u128::from(self.rate) / u128::from(RIGHT);
        Instant::from_nanos(self.origin + u64::try_from(passed).unwrap_or(u64::MAX / 2))
    }

    /// When it shows at least `local`.
    pub fn global(&self, local: Instant) -> Instant {
        let passed = u128::from(local.as_nanos().saturating_sub(self.origin));
        let nanos = (passed * u128::from(RIGHT)).div_ceil(u128::from(self.rate));
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_never_too_early() {
        for rate in [960_000, 999_999, RIGHT, 1_040_000] {
            let clock = Clock::new(12_345, rate);
            for nanos in [0, 1, 2, 999, 1_000_001, 600_000_000_007] {
                let local = Instant::from_nanos(12_345 + nanos);
                assert!(clock.local(clock.global(local)) >= local, "{rate} {nanos}");
            }
        }
    }
}
