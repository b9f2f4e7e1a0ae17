//! Instants and spans of time, in nanoseconds.
//!
//! Unlike the standard library's, an [`Instant`] can be made from a number: it can be printed,
//! written down and reproduced. An instant counts from an origin that its node chose (the agent
//! uses CLOCK_BOOTTIME; the simulator its own zero). Instants of two nodes are never compared.
//!
//! Arithmetic saturates: a time that far away is never reached, and must not stop the agent.

use core::fmt;
use core::ops::{Add, AddAssign, Div, Mul, Sub};

use serde::{Deserialize, Serialize};

/// A moment on one node's clock, in nanoseconds since that clock's origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Instant(u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span(u64);

impl Instant {
    /// The clock's origin.
    pub const ORIGIN: Instant = Instant(0);
    /// A moment that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The moment `nanos` after the origin.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` before this one, or the origin.
    pub const fn before(self, span: Span) -> Instant {
        Instant(self.0.saturating_sub(span.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// Longer than anything.
    pub const MAX: Span = Span(u64::MAX);

    /// A span of `n` nanoseconds.
    pub const fn nanos(n: u64) -> Span {
        Span(n)
    }

    /// A span of `n` microseconds.
    pub const fn micros(n: u64) -> Span {
        Span(n.saturating_mul(1_000))
    }

    /// A span of `n` milliseconds.
    pub const fn millis(n: u64) -> Span {
        Span(n.saturating_mul(1_000_000))
    }

    /// A span of `n` seconds.
    pub const fn secs(n: u64) -> Span {
        Span(n.saturating_mul(1_000_000_000))
    }

    /// Whole nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds, rounded down.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// `n` thousandths of this span: `permille(900)` is nine tenths of it.
    pub const fn permille(self, n: u64) -> Span {
        Span((self.0 / 1000).saturating_mul(n))
    }
}

impl Add<Span> for Instant {
    type Output = Instant;
    fn add(self, span: Span) -> Instant {
        Instant(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Instant {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl Mul<u64> for Span {
    type Output = Span;
    fn mul(self, n: u64) -> Span {
        Span(self.0.saturating_mul(n))
    }
}

impl Div<u64> for Span {
    type Output = Span;
    fn div(self, n: u64) -> Span {
        Span(self.0 / n)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            n if n >= 10_000_000_000 => (1_000_000_000, "s"),
            n if n >= 10_000_000 => (1_000_000, "ms"),
            n if n >= 10_000 => (1_000, "us"),
            _ => (1, "ns"),
        };
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Instant::NEVER + Span::secs(1), Instant::NEVER);
        assert_eq!(Instant::ORIGIN.since(Instant::NEVER), Span::ZERO);
        assert_eq!(Span::ZERO - Span::secs(1), Span::ZERO);
    }

    #[test]
    fn prints_in_the_unit_that_reads_best() {
        for (span, text) in [
            (Span::nanos(9_999), "9999ns"),
            (Span::micros(10), "10us"),
            (Span::millis(400), "400ms"),
            (Span::secs(61), "61s"),
        ] {
            assert_eq!(span.to_string(), text);
        }
        assert_eq!(Instant::from_nanos(1_500_000_000).to_string(), "1.500000");
    }
}
