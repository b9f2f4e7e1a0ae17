//! A query on one pool, in steps, so that nobody has to hold the pool for long.
//!
//! What it does not know: other pools, how its answers travel.
//!
//! Invariants
//! - A step looks at no more than [`BUDGET`] records, but for the newest ones (`latest`, `last`
//!   without `by`), which are looked for from the end.
//! - Records come in the order of their numbers.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::groups::{GROUPS_MAX, Groups, Key};
use super::{KEPT_MAX, Mode, Query, Reduce};
use crate::expr::Filter;
use crate::pool::{Pool, View};
use crate::record::Record;

/// Most records that one step looks at.
pub const BUDGET: u64 = 65_536;

/// What a pool has to say at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Records.
    Records(Vec<Record>),
    /// Groups.
    Groups(Groups),
}

/// How far a step came.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is more to do. These records are the next ones.
    More(Vec<Record>),
    /// That is all; go on from this cursor to learn of what comes later.
    Done(Part, u64),
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Run<'q> {
    query: &'q Query,
    /// The next number to look at, and where to end.
    from: u64,
    end: u64,
    shown: usize,
    groups: Groups,
    last: BTreeMap<Vec<Key>, VecDeque<Record>>,
    last_kept: usize,
    /// For `around`: windows of time, and the next of them.
    windows: Option<Vec<(u64, u64)>>,
    found: Vec<(u64, u64)>,
    /// Records that were left out at a limit.
    pub left_out: u64,
}

impl<'q> Run<'q> {
    /// Begins. `now` is the moment that `since` counts from; `from` a cursor, for a query that
    /// goes on.
    pub fn new(query: &'q Query, pool: &Pool, now: u64, from: Option<u64>) -> Run<'q> {
        let oldest = query.since.map(|since| pool.seek(now.saturating_sub(since)));
        let start = match (from, query.mode) {
            (Some(from), _) => from,
            // What was there before is wanted only where it is said how far back.
            (None, Mode::Follow) if query.since.is_none() => pool.next(),
            (None, _) => oldest.unwrap_or(0),
        };
        Run {
            query,
            from: start.max(pool.first()),
            end: pool.next(),
            shown: 0,
            groups: Groups::default(),
            last: BTreeMap::new(),
            last_kept: 0,
            windows: None,
            found: Vec::new(),
            left_out: 0,
        }
    }

    /// The next number that would be looked at: a cursor.
    pub fn cursor(&self) -> u64 {
        self.from
    }

    /// Goes on, and shows at most `most` records.
    pub fn step(&mut self, pool: &Pool, most: usize) -> Step {
        if let Some(span) = self.query.around()
            && self.windows.is_none()
        {
            return self.find_windows(pool, span);
        }
        match self.query.reduce().0 {
            Reduce::Group(grouping) => {
                let to = self.limit();
                let groups = &mut self.groups;
                self.from = scan(pool, self.query, &self.windows, self.from, to, |view| {
                    groups.add(grouping, &view);
                    true
                });
                if !self.is_over() {
                    return Step::More(Vec::new());
                }
                let groups = core::mem::take(&mut self.groups);
                self.done(Part::Groups(groups))
            }
            Reduce::Last(count, []) => self.newest(pool, count),
            Reduce::Last(count, by) => {
                self.keep_last(pool, count, by);
                if !self.is_over() {
                    return Step::More(Vec::new());
                }
                let kept = core::mem::take(&mut self.last);
                let mut records: Vec<Record> = kept.into_values().flatten().collect();
                records.sort_by_key(|record| record.seq);
                self.done(Part::Records(records))
            }
            Reduce::First(count) => self.show(pool, most.min(count - self.shown), Some(count)),
            Reduce::All => self.show(pool, most, None),
        }
    }

    fn limit(&self) -> u64 {
        self.end.min(self.from.saturating_add(BUDGET))
    }

    fn is_over(&self) -> bool {
        self.from >= self.end
    }

    fn done(&self, part: Part) -> Step {
        Step::Done(part, self.from)
    }

    fn show(&mut self, pool: &Pool, most: usize, all: Option<usize>) -> Step {
        let mut records = Vec::new();
        let to = self.limit();
        self.from = scan(pool, self.query, &self.windows, self.from, to, |view| {
            records.push(view.to_record());
            records.len() < most
        });
        self.shown += records.len();
        if self.is_over() || all.is_some_and(|all| self.shown >= all) {
            return self.done(Part::Records(records));
        }
        Step::More(records)
    }

    fn newest(&mut self, pool: &Pool, count: usize) -> Step {
        let mut records = Vec::new();
        let (from, end) = (self.from, self.end);
        let windows = &self.windows;
        let all = Filter::all();
        let filter = if windows.is_some() { &all } else { &self.query.filter };
        pool.scan_back(filter, |view| {
            if view.seq() < from {
                return false;
            }
            if view.seq() < end && is_within(windows, view.time()) {
                records.push(view.to_record());
            }
            records.len() < count
        });
        records.reverse();
        self.from = self.end;
        self.done(Part::Records(records))
    }

    fn keep_last(&mut self, pool: &Pool, count: usize, by: &[super::Name]) {
        let (last, kept, left_out) = (&mut self.last, &mut self.last_kept, &mut self.left_out);
        let to = self.end.min(self.from.saturating_add(BUDGET));
        self.from = scan(pool, self.query, &self.windows, self.from, to, |view| {
            let key: Vec<Key> = by.iter().map(|name| Key::of(name.of(&view))).collect();
            if last.len() >= GROUPS_MAX && !last.contains_key(&key) {
                *left_out += 1;
                return true;
            }
            let ring = last.entry(key).or_default();
            if ring.len() == count || *kept >= KEPT_MAX {
                *left_out += u64::from(ring.len() < count);
                if ring.pop_front().is_none() {
                    return true;
                }
                *kept -= 1;
            }
            ring.push_back(view.to_record());
            *kept += 1;
            true
        });
    }

    /// The first pass of `around`: the times of the matches, as windows that don't overlap.
    fn find_windows(&mut self, pool: &Pool, span: u64) -> Step {
        let to = self.limit();
        let (found, left_out) = (&mut self.found, &mut self.left_out);
        self.from = scan(pool, self.query, &None, self.from, to, |view| {
            let (start, end) = (view.time().saturating_sub(span), view.time().saturating_add(span));
            if let Some(last) = found.last_mut().filter(|last| last.1 >= start) {
                last.1 = end;
            } else if found.len() < KEPT_MAX {
                found.push((start, end));
            } else {
                *left_out += 1;
            }
            true
        });
        if self.is_over() {
            let windows = core::mem::take(&mut self.found);
            self.from = match windows.first() {
                Some((start, _)) => pool.seek(*start),
                None => self.end,
            };
            self.windows = Some(windows);
        }
        Step::More(Vec::new())
    }
}

fn is_within(windows: &Option<Vec<(u64, u64)>>, time: u64) -> bool {
    let Some(windows) = windows else { return true };
    let at = windows.partition_point(|(_, end)| *end < time);
    windows.get(at).is_some_and(|(start, _)| *start <= time)
}

/// Shows records that a query wants, with numbers from `from` up to `to`.
fn scan(
    pool: &Pool,
    query: &Query,
    windows: &Option<Vec<(u64, u64)>>,
    from: u64,
    to: u64,
    mut seen: impl FnMut(View<'_>) -> bool,
) -> u64 {
    let all = Filter::all();
    let filter = if windows.is_some() { &all } else { &query.filter };
    pool.scan_to(filter, from, to, |view| !is_within(windows, view.time()) || seen(view))
}
