//! The answers of several pools as one stream in the order of time.
//!
//! Each pool's records stay in their order, whatever their clocks say: the stream whose next
//! record has the earliest time goes first. A record that two nodes hold comes once.
//!
//! What it does not know: nodes, how answers travel.
//!
//! Invariants
//! - A record is given out only once every pool's next one is known, or the pool has ended.
//! - Between a pool's record and its next one the order of that pool holds.

use alloc::collections::{BTreeMap, VecDeque};
use core::borrow::Borrow;

use crate::record::Record;

/// A record, and which pool took it first.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned<O> {
    /// The pool that gave it its number.
    pub owner: O,
    /// The record.
    pub record: Record,
}

impl<O> Borrow<Record> for Owned<O> {
    fn borrow(&self) -> &Record {
        &self.record
    }
}

#[derive(Debug)]
struct Line<O> {
    waiting: VecDeque<Owned<O>>,
    ended: bool,
}

/// See the module's header. `L` names a stream, `O` the pool that a record is from.
#[derive(Debug)]
pub struct Merge<L, O> {
    lines: BTreeMap<L, Line<O>>,
    /// The number that was given out last, of each pool.
    given: BTreeMap<O, u64>,
}

impl<L: Ord + Clone, O: Ord + Clone> Merge<L, O> {
    /// Of these streams.
    pub fn new(lines: impl IntoIterator<Item = L>) -> Merge<L, O> {
        let line = |name| (name, Line { waiting: VecDeque::new(), ended: false });
        let lines = lines.into_iter().map(line).collect();
        Merge { lines, given: BTreeMap::new() }
    }

    /// One stream more, which is waited for from now on.
    pub fn add(&mut self, line: L) {
        self.lines.entry(line).or_insert(Line { waiting: VecDeque::new(), ended: false });
    }

    /// Takes records of a stream, in their order.
    pub fn push(&mut self, line: &L, records: impl IntoIterator<Item = Owned<O>>) {
        if let Some(line) = self.lines.get_mut(line) {
            line.waiting.extend(records);
        }
    }

    /// A stream has no more.
    pub fn end(&mut self, line: &L) {
        if let Some(line) = self.lines.get_mut(line) {
            line.ended = true;
        }
    }

    /// The streams whose next record isn't known: without them nothing can be given out.
    pub fn wanted(&self) -> impl Iterator<Item = &L> {
        let is_wanted = |line: &Line<O>| line.waiting.is_empty() && !line.ended;
        self.lines.iter().filter(move |(_, line)| is_wanted(line)).map(|(name, _)| name)
    }

    /// Whether all streams have ended and everything was given out.
    pub fn is_over(&self) -> bool {
        self.lines.values().all(|line| line.ended && line.waiting.is_empty())
    }

    /// The next record.
    pub fn poll(&mut self) -> Option<Owned<O>> {
        if self.wanted().next().is_some() {
            return None;
        }
        self.poll_now()
    }

    /// Takes whatever is there, without waiting for streams whose next record isn't known.
    pub fn poll_now(&mut self) -> Option<Owned<O>> {
        loop {
            let owned = self.take()?;
            // The same record in two streams has the same time and number: it comes at once again.
            let before = self.given.insert(owned.owner.clone(), owned.record.seq);
            if before != Some(owned.record.seq) {
                return Some(owned);
            }
        }
    }

    fn take(&mut self) -> Option<Owned<O>> {
        let key = |owned: &Owned<O>| (owned.record.time, owned.owner.clone(), owned.record.seq);
        let first = self
            .lines
            .iter()
            .filter_map(|(name, line)| line.waiting.front().map(|owned| (key(owned), name)))
            .min()?;
        let name = first.1.clone();
        self.lines.get_mut(&name).expect("it was found there").waiting.pop_front()
    }
}
