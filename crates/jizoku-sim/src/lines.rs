//! The lines of one service: its main line, and the branches that sides without a majority opened.
//!
//! Each epoch goes on from another one, at some checkpoint: together they are a tree. What clients
//! were told in an epoch must be in every epoch that goes on from a checkpoint at or above it.
//!
//! What it does not know: nodes, catalogs; who may open a branch, and who wins.
//!
//! Rules (the checker's number before each)
//! - 3: the main line never goes on from less than what it released;
//! - 10: a branch begins from no less than what was released when the set was the one that its
//!   opener knew: every member of that set has it;
//! - 10: where the main line goes on from a branch, it has all that the branch released.

use std::collections::{BTreeMap, BTreeSet};

use jizoku_types::{BranchId, CheckpointId, Epoch, Instant};

use crate::net::HostId;

/// An epoch, in an order.
type Key = (BranchId, u64);

fn key(epoch: Epoch) -> Key {
    (epoch.branch, epoch.counter)
}

/// What a node that shall run an epoch knows.
#[derive(Clone, Copy, Debug)]
pub struct Assigned {
    /// On which machine, in which life.
    pub place: (HostId, u64),
    /// The branch that it goes on from, if that has another name.
    pub fork: Option<BranchId>,
    /// The version of the main line's holder set in its catalog.
    pub version: u64,
}

/// What an instance begins from.
#[derive(Clone, Debug)]
pub struct Started {
    /// On which machine, in which life.
    pub place: (HostId, u64),
    /// The checkpoint; 0: none.
    pub seq: u64,
    /// The counters, as they stand there.
    pub values: Vec<u64>,
}

/// From what an epoch must go on at least, and by which checker's rule.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The checkpoint.
    pub id: CheckpointId,
    /// The number of the checker.
    pub rule: u8,
}

#[derive(Debug)]
struct Reign {
    assigned: Assigned,
    /// Which epoch it goes on from.
    parent: Option<Key>,
    collected: CheckpointId,
    /// From when on an instance ran, and what it began with.
    instance: Option<(Instant, Started)>,
    from: CheckpointId,
    captured: Option<(u64, Instant)>,
    /// What was released, by the version of the set that had acknowledged it.
    releases: BTreeMap<u64, CheckpointId>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Lines {
    reigns: BTreeMap<Key, Reign>,
    released: BTreeMap<BranchId, CheckpointId>,
    /// Branches that the main line went on from.
    merged: BTreeSet<BranchId>,
}

impl Lines {
    /// Whether there ever was a branch.
    pub fn has_branched(&self) -> bool {
        self.reigns.keys().any(|(branch, _)| *branch != BranchId::MAIN)
    }

    /// Who opened a branch, on which machine and in which life.
    pub fn opener(&self, branch: BranchId) -> Option<(HostId, u64)> {
        let of = |((one, _), reign): (&Key, &Reign)| (*one == branch).then_some(reign.assigned);
        self.reigns.iter().find_map(of).map(|assigned| assigned.place)
    }

    /// The highest checkpoint of a line that was released.
    pub fn released(&self, branch: BranchId) -> CheckpointId {
        self.released.get(&branch).copied().unwrap_or_default()
    }

    /// The highest checkpoint that was released in an epoch.
    pub fn released_in(&self, epoch: Epoch) -> CheckpointId {
        let reign = self.reigns.get(&key(epoch));
        let most = reign.and_then(|reign| reign.releases.values().max());
        most.copied().unwrap_or_default()
    }

    /// A node shall run this epoch.
    pub fn assigned(&mut self, epoch: Epoch, assigned: Assigned) {
        let parent = self.parent_of(epoch, assigned.fork);
        let new = Reign {
            assigned,
            parent,
            collected: CheckpointId::default(),
            instance: None,
            from: CheckpointId::default(),
            captured: None,
            releases: BTreeMap::new(),
        };
        self.reigns.entry(key(epoch)).or_insert(new);
    }

    fn parent_of(&self, epoch: Epoch, fork: Option<BranchId>) -> Option<Key> {
        let line = fork.unwrap_or(epoch.branch);
        let below = self.reigns.range((line, 0)..(line, epoch.counter));
        below.map(|(key, _)| *key).next_back()
    }

    /// The epoch's state is there.
    pub fn collected(&mut self, epoch: Epoch, checkpoint: CheckpointId) {
        if let Some(reign) = self.reigns.get_mut(&key(epoch)) {
            reign.collected = checkpoint;
        }
    }

    /// An instance was made. Gives what it goes on from, and from what it must at least.
    ///
    /// # Errors
    /// If there was one already: where both were made.
    #[allow(clippy::type_complexity)]
    pub fn started(
        &mut self,
        at: Instant,
        epoch: Epoch,
        started: Started,
    ) -> Result<(CheckpointId, Bound), ((HostId, u64), (HostId, u64))> {
        let Some(reign) = self.reigns.get_mut(&key(epoch)) else {
            return Ok(Default::default());
        };
        if let Some((_, other)) = &reign.instance {
            return Err((other.place, started.place));
        }
        let from = if started.seq == 0 { CheckpointId::default() } else { reign.collected };
        reign.instance = Some((at, started));
        reign.from = from;
        let (assigned, parent) = (reign.assigned, reign.parent);
        let bound = self.bound(epoch, assigned, parent);
        if epoch.branch != BranchId::MAIN {
            self.released.insert(epoch.branch, from);
        } else if let Some(fork) = assigned.fork
            && self.merged.insert(fork)
        {
            // What the main line had released since it was left lost against the branch.
            self.released.insert(BranchId::MAIN, from);
        } else if let Some(fork) = assigned.fork
            && from.epoch > self.counter_of(fork)
        {
            // An epoch between had already taken the branch over, and went on.
            let parent = (BranchId::MAIN, from.epoch);
            if let Some(reign) = self.reigns.get_mut(&key(epoch)) {
                reign.parent = Some(parent);
            }
        }
        Ok((from, bound))
    }

    fn counter_of(&self, branch: BranchId) -> u64 {
        self.reigns.keys().find(|(one, _)| *one == branch).map_or(0, |(_, counter)| *counter)
    }

    fn bound(&self, epoch: Epoch, assigned: Assigned, parent: Option<Key>) -> Bound {
        if epoch.branch == BranchId::MAIN {
            if let Some(fork) = assigned.fork.filter(|fork| !self.merged.contains(fork)) {
                return Bound { id: self.released(fork), rule: 10 };
            }
            let id = self.released(BranchId::MAIN);
            // A later epoch went on meanwhile: this one can't know, and may release nothing.
            let late = id.epoch > epoch.counter;
            return Bound { id: if late { CheckpointId::default() } else { id }, rule: 3 };
        }
        let mut id = CheckpointId::default();
        let mut next = parent;
        while let Some(reign) = next.and_then(|key| self.reigns.get(&key)) {
            // The set of a branch is known by its first version; later ones only if one was told.
            let main = next.is_some_and(|(branch, _)| branch == BranchId::MAIN);
            let version = if main { assigned.version } else { 1 };
            let most = reign.releases.range(..=version).map(|(_, id)| *id).max();
            id = id.max(most.unwrap_or_default());
            next = reign.parent;
        }
        Bound { id, rule: 10 }
    }

    /// The line goes on from this, as it may: what was above it is lost.
    pub fn lower(&mut self, branch: BranchId, id: CheckpointId) {
        self.released.insert(branch, id);
    }

    /// A state was captured.
    pub fn captured(&mut self, at: Instant, epoch: Epoch, seq: u64) {
        if let Some(reign) = self.reigns.get_mut(&key(epoch)) {
            reign.captured = Some((seq, at));
        }
    }

    /// When this was captured, if it was the last of its epoch.
    pub fn when_captured(&self, epoch: Epoch, seq: u64) -> Option<Instant> {
        let (last, at) = self.reigns.get(&key(epoch))?.captured?;
        (last == seq).then_some(at)
    }

    /// What an instance of this epoch goes on from is in checkpoint `seq`.
    pub fn id_of(&self, epoch: Epoch, seq: u64) -> CheckpointId {
        let from = self.reigns.get(&key(epoch)).map(|reign| reign.from).unwrap_or_default();
        if seq > from.seq { CheckpointId { epoch: epoch.counter, seq } } else { from }
    }

    /// A later epoch of the same line that went on from less than `id`, and that `id` is lost
    /// for. Where a branch became the main line, what it replaced may have gone on.
    pub fn left_behind(&self, epoch: Epoch, id: CheckpointId) -> Option<(Epoch, CheckpointId)> {
        let later = self.reigns.range((epoch.branch, epoch.counter + 1)..=(epoch.branch, u64::MAX));
        let begun = later.filter(|(_, reign)| reign.instance.is_some());
        for ((branch, counter), reign) in begun {
            if reign.assigned.fork.is_some() {
                return None;
            }
            if reign.from < id {
                return Some((Epoch { branch: *branch, counter: *counter }, reign.from));
            }
        }
        None
    }

    /// This is committed, and clients may see it. `version`: of the set that has it.
    pub fn release(&mut self, epoch: Epoch, id: CheckpointId, version: u64) {
        let Some(reign) = self.reigns.get_mut(&key(epoch)) else { return };
        reign.releases.insert(version, id);
        let merged = self.merged.iter().any(|fork| {
            let taken = |reign: &Reign| reign.assigned.fork == Some(*fork);
            let later = (BranchId::MAIN, epoch.counter + 1)..;
            self.reigns.range(later).any(|((line, _), one)| *line == BranchId::MAIN && taken(one))
        });
        // What a line does that has been replaced by a branch counts for nobody after it.
        if epoch.branch != BranchId::MAIN || !merged {
            let released = self.released.entry(epoch.branch).or_default();
            *released = (*released).max(id);
        }
    }

    /// All epochs that had an instance.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> {
        let begun = self.reigns.iter().filter(|(_, reign)| reign.instance.is_some());
        begun.map(|((branch, counter), _)| Epoch { branch: *branch, counter: *counter })
    }

    /// The way to an epoch, itself first: each epoch on it, and up to which checkpoint it counts.
    pub fn path(&self, epoch: Epoch) -> BTreeMap<Key, CheckpointId> {
        let mut path = BTreeMap::new();
        let mut most = CheckpointId { epoch: u64::MAX, seq: u64::MAX };
        let mut next = Some(key(epoch));
        while let Some((key, reign)) = next.and_then(|key| Some((key, self.reigns.get(&key)?))) {
            if path.insert(key, most).is_some() {
                break;
            }
            if reign.instance.is_some() {
                most = most.min(reign.from);
            }
            next = reign.parent;
        }
        path
    }

    /// Whether this branch goes on from `id` of an epoch of another line: its state has that.
    pub fn is_heir(&self, branch: BranchId, epoch: Epoch, id: CheckpointId) -> bool {
        let reigns = self.reigns.range((branch, 0)..=(branch, u64::MAX));
        let begun = reigns.filter(|(_, reign)| reign.instance.is_some());
        let mut epochs = begun.map(|((branch, counter), _)| (*branch, *counter));
        branch != epoch.branch
            && epochs.any(|(branch, counter)| {
                Lines::is_on(&self.path(Epoch { branch, counter }), epoch, id)
            })
    }

    /// When the instance of an epoch began, and the counters that it began with, if that was from
    /// no more than `most`.
    pub fn beginning(&self, epoch: Key, most: CheckpointId) -> Option<(Instant, &[u64])> {
        let reign = self.reigns.get(&epoch).filter(|reign| reign.from <= most)?;
        let (at, started) = reign.instance.as_ref()?;
        Some((*at, &started.values))
    }

    /// Whether an answer that left in `epoch`, when `covered` was released, is in the epoch whose
    /// path this is.
    pub fn is_on(path: &BTreeMap<Key, CheckpointId>, epoch: Epoch, covered: CheckpointId) -> bool {
        path.get(&key(epoch)).is_some_and(|most| covered <= *most)
    }
}

impl Default for Bound {
    fn default() -> Bound {
        Bound { id: CheckpointId::default(), rule: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: BranchId = BranchId([1; 16]);
    const PLACE: (HostId, u64) = (0, 1);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn id(epoch: u64, seq: u64) -> CheckpointId {
        CheckpointId { epoch, seq }
    }

    fn begin(
        lines: &mut Lines,
        millis: u64,
        (epoch, fork): (Epoch, Option<BranchId>),
        from: CheckpointId,
        value: u64,
    ) -> Bound {
        lines.assigned(epoch, Assigned { place: PLACE, fork, version: 5 });
        lines.collected(epoch, from);
        let started = Started { place: PLACE, seq: from.seq, values: vec![value] };
        lines.started(at(millis), epoch, started).expect("the first instance").1
    }

    /// The main line released 1.3 to set 5 and 1.4 to set 6; a branch left it at 1.3.
    fn forked() -> (Lines, Epoch) {
        let mut lines = Lines::default();
        begin(&mut lines, 0, (Epoch::main(1), None), id(0, 0), 0);
        lines.release(Epoch::main(1), id(1, 3), 5);
        lines.release(Epoch::main(1), id(1, 4), 6);
        let branch = Epoch { branch: OTHER, counter: 2 };
        let bound = begin(&mut lines, 10, (branch, Some(BranchId::MAIN)), id(1, 3), 7);
        assert_eq!((bound.id, bound.rule), (id(1, 3), 10), "what the opener's set has");
        (lines, branch)
    }

    #[test]
    fn what_a_branch_released_counts_where_the_main_line_goes_on_from_it() {
        let (mut lines, branch) = forked();
        lines.release(branch, id(2, 6), 1);
        let bound = begin(&mut lines, 20, (Epoch::main(3), Some(OTHER)), id(2, 6), 9);
        assert_eq!((bound.id, bound.rule), (id(2, 6), 10));
        // The epoch that it replaced may have gone on, and counts no more.
        assert_eq!(lines.left_behind(Epoch::main(1), id(1, 9)), None);
        lines.release(Epoch::main(1), id(1, 9), 6);
        assert_eq!(lines.released(BranchId::MAIN), id(2, 6));
        let bound = begin(&mut lines, 30, (Epoch::main(4), None), id(3, 7), 9);
        assert_eq!((bound.id, bound.rule), (id(2, 6), 3));
    }

    #[test]
    fn a_branch_has_what_it_went_on_from() {
        let (mut lines, branch) = forked();
        lines.release(branch, id(2, 6), 1);
        let next = BranchId([2; 16]);
        let heir = Epoch { branch: next, counter: 3 };
        assert!(!lines.is_heir(next, branch, id(2, 6)));
        begin(&mut lines, 20, (heir, Some(OTHER)), id(2, 6), 9);
        assert!(lines.is_heir(next, branch, id(2, 6)));
        assert!(!lines.is_heir(next, branch, id(2, 7)), "that came later");
        assert!(!lines.is_heir(OTHER, branch, id(2, 6)), "not of itself");
    }

    #[test]
    fn a_main_line_that_went_on_is_not_left_behind() {
        let (mut lines, _) = forked();
        begin(&mut lines, 20, (Epoch::main(2), None), id(1, 4), 8);
        assert_eq!(lines.left_behind(Epoch::main(1), id(1, 4)), None);
        let by = Some((Epoch::main(2), id(1, 4)));
        assert_eq!(lines.left_behind(Epoch::main(1), id(1, 5)), by);
    }

    #[test]
    fn an_epoch_that_begins_late_releases_nothing() {
        let mut lines = Lines::default();
        begin(&mut lines, 0, (Epoch::main(1), None), id(0, 0), 0);
        lines.release(Epoch::main(1), id(1, 4), 5);
        // Epoch 2 is won by a node that stands still; 3 goes on.
        begin(&mut lines, 10, (Epoch::main(3), None), id(1, 4), 4);
        lines.release(Epoch::main(3), id(3, 9), 6);
        let bound = begin(&mut lines, 20, (Epoch::main(2), None), id(1, 4), 4);
        assert_eq!(bound.id, id(0, 0), "what it can't know doesn't count");
        assert_eq!(lines.left_behind(Epoch::main(2), id(1, 4)), None, "3 has that too");
        assert_eq!(lines.left_behind(Epoch::main(2), id(2, 5)), Some((Epoch::main(3), id(1, 4))));
    }

    #[test]
    fn a_way_leaves_out_what_came_after_it_was_taken() {
        let (lines, branch) = forked();
        let path = lines.path(branch);
        assert!(Lines::is_on(&path, Epoch::main(1), id(1, 3)));
        assert!(!Lines::is_on(&path, Epoch::main(1), id(1, 4)));
        assert!(Lines::is_on(&path, branch, id(2, 9)));
        assert!(!Lines::is_on(&lines.path(Epoch::main(1)), branch, id(2, 9)));
        assert_eq!(lines.beginning((OTHER, 2), id(1, 3)), Some((at(10), &[7][..])));
        assert_eq!(lines.beginning((OTHER, 2), id(1, 2)), None, "more than what was gone on from");
    }
}
