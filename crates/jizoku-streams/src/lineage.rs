//! Whether what a client has seen lies in the history of the state that goes on.
//!
//! A *reign* is an epoch together with the number of the checkpoint that it was restored from. A
//! state remembers the reigns that it went through, oldest first, its own last. Reign `i` made
//! the checkpoints from its own restored number, exclusive, to that of reign `i + 1`, inclusive.
//! Everything else that it made is not part of this history, whatever numbers it bore.
//!
//! What it does not know: connections, who decided on the takeovers.
//!
//! Invariants
//! - A mark `(epoch, cover)` is in the line iff its epoch is one of the reigns, and `cover` is not
//!   above the number that the next reign was restored from. An epoch that is no reign of this
//!   state left nothing in it, even if the numbers would fit.
//! - At most [`LINEAGE_MAX`] reigns; the oldest is forgotten, and marks of it are not in the line.
//! - Epochs are only compared for equality: branches need no order.

use alloc::vec::Vec;

use jizoku_types::Epoch;
use serde::{Deserialize, Serialize};

use crate::limits::LINEAGE_MAX;

/// An epoch, and the checkpoint that its instance began from (0: the program's beginning).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// The epoch.
    pub epoch: Epoch,
    /// Number of the checkpoint that it was restored from.
    pub restored: u64,
}

/// When something was produced: in which epoch, and before which of its checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The epoch of the instance that made, or would have made, the checkpoint `cover`.
    pub epoch: Epoch,
    /// Number of the first checkpoint that holds it.
    pub cover: u64,
}

/// The reigns that a state went through, oldest first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    reigns: Vec<Reign>,
}

impl Lineage {
    /// Of a program at its beginning.
    pub fn fresh(epoch: Epoch) -> Lineage {
        Lineage { reigns: alloc::vec![Reign { epoch, restored: 0 }] }
    }

    /// From reigns that came from the wire or a state; none if there is none. Of too many, the
    /// newest are kept.
    pub fn from_reigns(mut reigns: Vec<Reign>) -> Option<Lineage> {
        let excess = reigns.len().saturating_sub(LINEAGE_MAX);
        reigns.drain(..excess);
        (!reigns.is_empty()).then_some(Lineage { reigns })
    }

    /// Goes on in `epoch` from the checkpoint `restored` of the newest reign.
    pub fn go_on(&mut self, epoch: Epoch, restored: u64) {
        if self.reigns.len() == LINEAGE_MAX {
            self.reigns.remove(0);
        }
        self.reigns.push(Reign { epoch, restored });
    }

    /// All reigns, oldest first.
    pub fn reigns(&self) -> &[Reign] {
        &self.reigns
    }

    /// The reign that goes on.
    pub fn newest(&self) -> Reign {
        *self.reigns.last().expect("a lineage is never empty")
    }

    /// The mark of something that the newest instance sent with this cover. What it only
    /// repeats from the restored state was covered in an earlier reign.
    pub fn mark(&self, cover: u64) -> Mark {
        let maker = self.reigns.iter().rev().find(|reign| reign.restored < cover);
        let reign = maker.unwrap_or(&self.reigns[0]);
        Mark { epoch: reign.epoch, cover }
    }

    /// Whether the state that goes on has what this mark stands for.
    pub fn holds(&self, mark: Mark) -> bool {
        let Some(at) = self.reigns.iter().position(|reign| reign.epoch == mark.epoch) else {
            return false;
        };
        self.reigns.get(at + 1).is_none_or(|next| mark.cover <= next.restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use jizoku_types::BranchId;

    fn line(reigns: &[(u64, u64)]) -> Lineage {
        let of = |&(counter, restored)| Reign { epoch: Epoch::main(counter), restored };
        Lineage::from_reigns(reigns.iter().map(of).collect()).expect("not empty")
    }

    fn at(counter: u64, cover: u64) -> Mark {
        Mark { epoch: Epoch::main(counter), cover }
    }

    #[test]
    fn a_mark_is_in_the_line_iff_the_next_reign_began_after_it() {
        // Epoch 2 made 8 to 11; epoch 3 was lost whole; epoch 5 went on from 11.
        let line = line(&[(1, 0), (2, 7), (5, 11)]);
        for (mark, held) in [
            (at(1, 7), true),
            (at(1, 8), false),
            (at(2, 8), true),
            (at(2, 11), true),
            (at(2, 12), false),
            (at(3, 1), false),
            (at(3, 11), false),
            (at(5, 12), true),
            (at(5, 400), true),
            (at(6, 1), false),
        ] {
            assert_eq!(line.holds(mark), held, "{mark:?}");
        }
    }

    #[test]
    fn repeated_output_is_marked_with_the_reign_that_covered_it() {
        let line = line(&[(1, 0), (2, 7), (5, 11)]);
        assert_eq!(line.mark(12), at(5, 12));
        assert_eq!(line.mark(11), at(2, 11));
        assert_eq!(line.mark(7), at(1, 7));
        assert_eq!(line.mark(0), at(1, 0));
    }

    #[test]
    fn repeated_output_stays_in_line_although_its_sender_left_nothing() {
        // Epoch 2 went on from 7, repeated output, and died before its first checkpoint.
        let second = line(&[(1, 0), (2, 7)]);
        let third = line(&[(1, 0), (3, 7)]);
        assert!(third.holds(second.mark(7)));
        assert!(!third.holds(second.mark(8)));
    }

    #[test]
    fn another_branch_with_the_same_counter_is_another_reign() {
        let mut line = line(&[(1, 0)]);
        let branch = Epoch { branch: BranchId([3; 16]), counter: 2 };
        line.go_on(branch, 5);
        assert!(line.holds(Mark { epoch: branch, cover: 9 }));
        assert!(!line.holds(at(2, 1)));
        assert!(line.holds(at(1, 5)));
    }

    #[test]
    fn the_oldest_reign_is_forgotten_and_then_not_in_line() {
        let mut line = Lineage::fresh(Epoch::main(1));
        for n in 0..LINEAGE_MAX as u64 {
            line.go_on(Epoch::main(n + 2), n + 1);
        }
        assert_eq!(line.reigns().len(), LINEAGE_MAX);
        assert!(!line.holds(at(1, 1)));
        assert!(line.holds(at(2, 2)));
        assert_eq!(Lineage::from_reigns(vec![]), None);
        let many = vec![line.newest(); LINEAGE_MAX + 9];
        assert_eq!(Lineage::from_reigns(many).map(|l| l.reigns().len()), Some(LINEAGE_MAX));
    }
}
