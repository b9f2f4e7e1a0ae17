//! The catalog as bytes: two bytes of version (little-endian), then postcard.
//!
//! Damage in storage or transport is found by whoever stores or carries it; here only form and
//! invariants are checked.

use alloc::vec::Vec;
use core::fmt;

use super::Catalog;

/// The version that this build writes, and the only one it reads.
pub const SNAPSHOT_VERSION: u16 = 1;
/// Longest snapshot, in bytes: above what the limits of the parts allow.
pub const SNAPSHOT_MAX: usize = 64 << 20;

/// Why bytes are not a catalog. Nothing was taken from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// Longer than [`SNAPSHOT_MAX`].
    TooLong,
    /// Of another version than [`SNAPSHOT_VERSION`].
    Version {
        /// Which.
        found: u16,
    },
    /// Not of the expected form.
    Malformed,
    /// Of the right form, but it can't be true.
    Broken {
        /// The invariant.
        what: &'static str,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::TooLong => f.write_str("longer than a catalog may be"),
            SnapshotError::Version { found } => {
                write!(f, "a catalog of version {found}; this build reads {SNAPSHOT_VERSION}")
            }
            SnapshotError::Malformed => f.write_str("not of the form of a catalog"),
            SnapshotError::Broken { what } => write!(f, "not a catalog that can be: {what}"),
        }
    }
}

impl core::error::Error for SnapshotError {}

impl Catalog {
    /// The whole state as bytes. The same state gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = SNAPSHOT_VERSION.to_le_bytes().to_vec();
        bytes.extend(jizoku_types::encode(self));
        bytes
    }

    /// Reads what [`Catalog::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Catalog, SnapshotError> {
        if bytes.len() > SNAPSHOT_MAX {
            return Err(SnapshotError::TooLong);
        }
        let (version, body) = bytes.split_first_chunk().ok_or(SnapshotError::Malformed)?;
        let found = u16::from_le_bytes(*version);
        if found != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found });
        }
        let catalog: Catalog = match postcard::take_from_bytes(body) {
            Ok((catalog, [])) => catalog,
            _ => return Err(SnapshotError::Malformed),
        };
        match catalog.check() {
            Ok(()) => Ok(catalog),
            Err(what) => Err(SnapshotError::Broken { what }),
        }
    }
}
