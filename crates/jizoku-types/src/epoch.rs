//! Epochs and checkpoint ids: who may speak for a service, and which state is newer.
//!
//! Invariants
//! - The counter of an epoch grows at every change of the active instance, by catalog decision.
//! - Epochs of different branches are never compared: they have no order, so there is no `Ord`.
//! - Checkpoint ids are ordered within one branch: first by the epoch that made them, then by
//!   their number. A checkpoint of a newer epoch supersedes uncommitted ones of an older epoch,
//!   even if those have a higher number.

use core::fmt;

use serde::{Deserialize, Serialize};

/// One line of a service's history. `MAIN` until a side without a majority opens another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BranchId(pub [u8; 16]);

impl BranchId {
    /// The line that the catalog's majority goes on with.
    pub const MAIN: BranchId = BranchId([0; 16]);
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == BranchId::MAIN {
            return f.write_str("main");
        }
        f.write_str("br_")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The reign of one active instance of a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// The branch it belongs to.
    pub branch: BranchId,
    /// Grows at each change of the active instance; 0 means "never ran".
    pub counter: u64,
}

impl Epoch {
    /// The epoch `counter` of the main branch.
    pub const fn main(counter: u64) -> Epoch {
        Epoch { branch: BranchId::MAIN, counter }
    }

    /// Whether this epoch makes `other` stale: same branch and a higher counter.
    pub fn supersedes(&self, other: &Epoch) -> bool {
        self.branch == other.branch && self.counter > other.counter
    }

    /// The next epoch of the same branch.
    pub fn next(&self) -> Epoch {
        Epoch { branch: self.branch, counter: self.counter + 1 }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.branch == BranchId::MAIN {
            write!(f, "e{}", self.counter)
        } else {
            write!(f, "{}/e{}", self.branch, self.counter)
        }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One checkpoint of a service, within a branch.
///
/// `seq` goes on across epochs: an instance restored from `seq` n makes n + 1 next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct CheckpointId {
    /// The counter of the epoch whose active instance made it.
    pub epoch: u64,
    /// Its number; 0 means "none".
    pub seq: u64,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl fmt::Debug for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_no_order() {
        let other = Epoch { branch: BranchId([1; 16]), counter: 9 };
        assert!(!other.supersedes(&Epoch::main(1)));
        assert!(!Epoch::main(10).supersedes(&other));
        assert!(Epoch::main(2).supersedes(&Epoch::main(1)));
        assert!(!Epoch::main(2).supersedes(&Epoch::main(2)));
    }

    #[test]
    fn a_newer_epoch_beats_a_higher_number() {
        let uncommitted = CheckpointId { epoch: 1, seq: 9 };
        let restored = CheckpointId { epoch: 2, seq: 8 };
        assert!(restored > uncommitted);
    }
}
