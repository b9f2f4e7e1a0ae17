//! The checkpoints of one line that one holder has: the ready image, and what is not yet committed.
//!
//! What it does not know: epochs that are sealed, messages, disks.
//!
//! Invariants
//! - Each checkpoint is based on the one before it; the first on nothing or on what was folded.
//! - Only the ready image is committed; a commit moves it forward and never back.
//! - Images share what is equal, so a checkpoint costs no more than its changed blocks.

use alloc::vec::Vec;

use jizoku_types::CheckpointId;

use crate::image::{Digest, Image};

/// No checkpoint: what the first diff of a service, and every whole image, is based on.
pub const NONE: CheckpointId = CheckpointId { epoch: 0, seq: 0 };

/// A checkpoint: its number and the whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which.
    pub id: CheckpointId,
    /// The state.
    pub image: Image,
}

impl Point {
    /// The beginning of every service: no checkpoint, the empty image.
    pub fn none() -> Point {
        Point { id: NONE, image: Image::empty() }
    }

    /// The root of its state.
    pub fn root(&self) -> Digest {
        self.image.root()
    }
}

/// What one holder has of one line.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    ready: Option<Point>,
    pending: Vec<Point>,
}

impl Chain {
    /// The highest committed checkpoint.
    pub fn ready(&self) -> Option<&Point> {
        self.ready.as_ref()
    }

    /// Complete checkpoints above the committed one, lowest first.
    pub fn pending(&self) -> &[Point] {
        &self.pending
    }

    /// The highest complete checkpoint.
    pub fn top(&self) -> Option<&Point> {
        self.pending.last().or(self.ready.as_ref())
    }

    /// The number of the highest complete checkpoint, or [`NONE`].
    pub fn top_id(&self) -> CheckpointId {
        self.top().map_or(NONE, |point| point.id)
    }

    /// The number of the committed checkpoint, or [`NONE`].
    pub fn committed_id(&self) -> CheckpointId {
        self.ready.as_ref().map_or(NONE, |point| point.id)
    }

    /// All checkpoints, lowest first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.ready.iter().chain(&self.pending)
    }

    /// The checkpoint `id`, if it is here.
    pub fn find(&self, id: CheckpointId) -> Option<&Point> {
        self.points().rev().find(|point| point.id == id)
    }

    /// The state that a diff based on `id` applies to.
    pub fn base(&self, id: CheckpointId) -> Option<Image> {
        if id == NONE { Some(Image::empty()) } else { Some(self.find(id)?.image.clone()) }
    }

    /// Adds a complete checkpoint based on `base`: what lies above the base is gone. One that is
    /// based on nothing replaces all.
    ///
    /// # Panics
    /// If the base isn't here.
    pub fn push(&mut self, base: CheckpointId, point: Point) {
        if base == NONE {
            self.ready = None;
            self.pending.clear();
        } else {
            assert!(self.find(base).is_some(), "the base is here");
            self.drop_above(base);
        }
        self.pending.push(point);
    }

    /// Notes that `id` is committed, and everything that it came from. True if the ready image
    /// moved. What comes from elsewhere than `id`, or can't be told, stays uncommitted.
    pub fn commit(&mut self, id: CheckpointId) -> bool {
        // What the same epoch made below `id` is what `id` came from: an epoch has one author.
        let same_line = |p: &Point| p.id == id || (p.id.epoch == id.epoch && p.id.seq < id.seq);
        let Some(at) = self.pending.iter().rposition(same_line) else { return false };
        self.ready = self.pending.drain(..=at).next_back();
        true
    }

    /// Drops what is above `id`. True if there was anything. The committed checkpoint is dropped
    /// only if `id` is [`NONE`].
    pub fn drop_above(&mut self, id: CheckpointId) -> bool {
        let had_ready = id == NONE && self.ready.take().is_some();
        let keep = self.pending.iter().position(|point| point.id == id).map_or(0, |at| at + 1);
        let had = self.pending.len();
        self.pending.truncate(keep);
        keep < had || had_ready
    }

    /// Puts another state under the ready image's number: a mistake that a test plants.
    #[cfg(feature = "faults")]
    pub(crate) fn spoil_ready(&mut self, image: Image) {
        if let Some(ready) = &mut self.ready {
            ready.image = image;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn id(epoch: u64, seq: u64) -> CheckpointId {
        CheckpointId { epoch, seq }
    }

    fn chain(ids: &[(u64, u64)]) -> Chain {
        let mut chain = Chain::default();
        let mut base = NONE;
        for (epoch, seq) in ids {
            let point = Point { id: id(*epoch, *seq), image: Image::empty() };
            chain.push(base, point.clone());
            base = point.id;
        }
        chain
    }

    fn ids(chain: &Chain) -> (CheckpointId, Vec<CheckpointId>) {
        (chain.committed_id(), chain.pending().iter().map(|point| point.id).collect())
    }

    #[test]
    fn a_commit_folds_what_the_committed_one_came_from() {
        for (commit, ready, pending) in [
            (id(1, 2), id(1, 2), alloc::vec![id(1, 3), id(2, 4)]),
            (id(2, 4), id(2, 4), alloc::vec![]),
            // A later one of the same epoch, not here yet: all of that epoch below it.
            (id(1, 9), id(1, 3), alloc::vec![id(2, 4)]),
            (id(2, 9), id(2, 4), alloc::vec![]),
            // Of another epoch and not here: whether it came from these can't be told.
            (id(3, 5), NONE, alloc::vec![id(1, 1), id(1, 2), id(1, 3), id(2, 4)]),
            (id(0, 1), NONE, alloc::vec![id(1, 1), id(1, 2), id(1, 3), id(2, 4)]),
        ] {
            let mut chain = chain(&[(1, 1), (1, 2), (1, 3), (2, 4)]);
            assert_eq!(chain.commit(commit), ready != NONE);
            assert_eq!(ids(&chain), (ready, pending), "commit {commit}");
        }
    }

    #[test]
    fn what_is_above_a_new_base_is_gone_but_never_the_committed_one() {
        let mut chain = chain(&[(1, 1), (1, 2), (1, 3)]);
        chain.commit(id(1, 1));
        chain.push(id(1, 2), Point { id: id(2, 3), image: Image::empty() });
        assert_eq!(ids(&chain), (id(1, 1), alloc::vec![id(1, 2), id(2, 3)]));
        assert!(chain.drop_above(id(1, 1)));
        assert!(!chain.drop_above(id(1, 1)));
        assert_eq!(ids(&chain), (id(1, 1), alloc::vec![]));
        assert_eq!(chain.top_id(), id(1, 1));
        assert!(chain.drop_above(NONE));
        assert_eq!(ids(&chain), (NONE, alloc::vec![]));
    }

    #[test]
    fn a_whole_image_replaces_all() {
        let mut chain = chain(&[(1, 1), (1, 2)]);
        chain.commit(id(1, 1));
        chain.push(NONE, Point { id: id(3, 9), image: Image::empty() });
        assert_eq!(ids(&chain), (NONE, alloc::vec![id(3, 9)]));
    }
}
