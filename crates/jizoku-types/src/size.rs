//! Byte counts: a number of bytes is not an offset and not a number of things.

use core::fmt;
use core::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// `n` bytes times 1024.
    pub const fn kib(n: u64) -> ByteCount {
        ByteCount(n << 10)
    }

    /// `n` bytes times 1024 squared.
    pub const fn mib(n: u64) -> ByteCount {
        ByteCount(n << 20)
    }

    /// `n` bytes times 1024 cubed.
    pub const fn gib(n: u64) -> ByteCount {
        ByteCount(n << 30)
    }

    /// The count as a length in memory; saturates where `usize` is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Add for ByteCount {
    type Output = ByteCount;
    fn add(self, other: ByteCount) -> ByteCount {
        ByteCount(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: ByteCount) {
        *self = *self + other;
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 10 << 30 => write!(f, "{} GiB", n >> 30),
            n if n >= 10 << 20 => write!(f, "{} MiB", n >> 20),
            n if n >= 10 << 10 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} B"),
        }
    }
}

impl fmt::Debug for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
