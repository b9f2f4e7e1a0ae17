//! Second copies of important records: a record counts once another node holds it in memory.
//!
//! ```text
//!   owner: Copier ──Copies (a group)──> partner: Copies
//!                 <──────Held───────────
//! ```
//!
//! The owner numbers its important records by *places* (1, 2, ..) and sends groups of them to one
//! partner. A group goes at once if none is under way, else when that is acknowledged or
//! [`GROUP_WITHIN`] is over. The partner answers up to which place it holds all. When the partner
//! dies or starts anew, another one gets everything that the owner still has.
//!
//! What it does not know: pools, links, which records are important.
//!
//! Invariants
//! - A record counts only after another node, in one incarnation, said that it holds it and
//!   everything before it.
//! - What counts stays counted. Places never go back.
//!
//! Limits: [`OWN_MAX`] bytes of records that the owner keeps to copy again, of which those that
//! don't count yet are never left out: with too many of them it [is full](Copier::is_full).
//! [`HELD_MAX`] bytes for all owners together at the holder, the oldest go first.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};
use serde::{Deserialize, Serialize};

use crate::expr::Filter;
use crate::record::Record;

/// How long a record waits for others to go with it.
pub const GROUP_WITHIN: Span = Span::millis(50);
/// After which silence a group is sent again.
pub const AGAIN_AFTER: Span = Span::millis(250);
/// Most records of a group.
pub const GROUP_MAX: usize = 1024;
/// Bytes of records in a group after which it is closed.
pub const GROUP_BYTES: usize = 256 * 1024;
/// Most places that are under way.
const UNDER_WAY_MAX: u64 = 8 * GROUP_MAX as u64;
/// Most bytes of an owner's records that are kept for another copy.
pub const OWN_MAX: usize = 16 << 20;
/// Most bytes that a holder keeps, of all owners.
pub const HELD_MAX: usize = 64 << 20;

/// What owner and holder say to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// To a holder: keep these.
    Copies {
        /// The owner's incarnation.
        incarnation: Incarnation,
        /// The lowest place that the owner still has.
        floor: u64,
        /// The place of the first of these.
        first: u64,
        /// In the order of their places.
        records: Vec<Record>,
    },
    /// To the owner: all are here from its floor up to this place.
    Held {
        /// The owner's incarnation.
        owner: Incarnation,
        /// The holder's.
        holder: Incarnation,
        /// The highest place.
        place: u64,
    },
}

#[derive(Debug)]
struct Own {
    record: Record,
    bytes: usize,
}

/// The owner's side.
#[derive(Debug)]
pub struct Copier {
    me: Member,
    /// The records from place `floor` on.
    own: VecDeque<Own>,
    bytes: usize,
    floor: u64,
    others: Vec<Member>,
    partner: Option<Member>,
    /// The highest place that was sent to the partner, that it holds, and that counts.
    sent: u64,
    held: u64,
    counted: u64,
    sent_at: Instant,
    /// Since when a record waits that wasn't sent.
    waits: Option<Instant>,
    out: VecDeque<(NodeId, Message)>,
    #[cfg(test)]
    plant: tests::Plant,
}

impl Copier {
    /// Of this node.
    pub fn new(me: Member) -> Copier {
        Copier {
            me,
            own: VecDeque::new(),
            bytes: 0,
            floor: 1,
            others: Vec::new(),
            partner: None,
            sent: 0,
            held: 0,
            counted: 0,
            sent_at: Instant::ORIGIN,
            waits: None,
            out: VecDeque::new(),
            #[cfg(test)]
            plant: tests::Plant::None,
        }
    }

    /// The place that the next record gets.
    fn next(&self) -> u64 {
        self.floor + self.own.len() as u64
    }

    /// Whether no more can be taken until some count: the partner is too slow, or there is none.
    pub fn is_full(&self) -> bool {
        self.bytes >= OWN_MAX && self.floor > self.counted
    }

    /// Takes a record; gives its place. It counts once [`Copier::counted`] reaches that.
    pub fn take(&mut self, now: Instant, record: Record) -> u64 {
        let place = self.next();
        let bytes = record.bytes();
        self.bytes += bytes;
        self.own.push_back(Own { record, bytes });
        while self.bytes > OWN_MAX && self.floor <= self.counted {
            self.forget();
        }
        self.waits.get_or_insert(now);
        self.work(now);
        place
    }

    fn forget(&mut self) {
        if let Some(oldest) = self.own.pop_front() {
            self.bytes -= oldest.bytes;
            self.floor += 1;
        }
    }

    /// Up to which place all records count.
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// Whether there is another node that could hold copies.
    pub fn has_partner(&self) -> bool {
        self.partner.is_some()
    }

    /// These nodes can be reached, in these incarnations.
    pub fn reach(&mut self, now: Instant, members: &[Member]) {
        self.others = members.iter().copied().filter(|one| one.node != self.me.node).collect();
        // The next ones in the ring of all, so that not all choose the same.
        self.others.sort_by_key(|one| (one.node < self.me.node, one.node));
        if self.partner.is_some_and(|partner| self.others.contains(&partner)) {
            return;
        }
        self.partner = self.others.first().copied();
        (self.sent, self.held) = (0, 0);
        if !self.own.is_empty() {
            self.waits.get_or_insert(now);
        }
        self.work(now);
    }

    /// Takes what a holder says.
    pub fn held(&mut self, now: Instant, from: NodeId, message: &Message) {
        let Message::Held { owner, holder, place } = message else { return };
        let partner = Member { node: from, incarnation: *holder };
        if *owner != self.me.incarnation || self.partner != Some(partner) {
            return;
        }
        // What it says of places that were never sent is nonsense.
        let place = (*place).min(self.next() - 1);
        if place > self.held {
            self.held = place;
            self.sent_at = now;
        }
        self.sent = self.sent.max(self.held);
        self.counted = self.counted.max(self.held);
        self.work(now);
    }

    /// Does what time asks for.
    pub fn tick(&mut self, now: Instant) {
        if self.held < self.sent && now.since(self.sent_at) >= AGAIN_AFTER {
            self.sent = self.held;
            self.waits.get_or_insert(now);
        }
        self.work(now);
    }

    /// When there is something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.partner?;
        let again = (self.held < self.sent).then(|| self.sent_at + AGAIN_AFTER);
        let group = self.waits.map(|since| since + GROUP_WITHIN);
        again.into_iter().chain(group).min()
    }

    /// What is to be sent.
    pub fn poll(&mut self) -> Option<(NodeId, Message)> {
        self.out.pop_front()
    }

    fn work(&mut self, now: Instant) {
        #[cfg(test)]
        if self.plant == tests::Plant::CountsWhenSent {
            self.counted = self.sent;
        }
        let Some(partner) = self.partner else { return };
        while self.sent.max(self.floor - 1) + 1 < self.next() {
            let idle = self.sent <= self.held;
            let late = self.waits.is_none_or(|since| now.since(since) >= GROUP_WITHIN);
            if !idle && !late || self.sent.saturating_sub(self.held) >= UNDER_WAY_MAX {
                return;
            }
            self.send(now, partner.node);
        }
        self.waits = None;
    }

    /// Sends the next group.
    fn send(&mut self, now: Instant, to: NodeId) {
        let first = self.sent.max(self.floor - 1) + 1;
        let skip = usize::try_from(first - self.floor).unwrap_or(usize::MAX);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for own in self.own.iter().skip(skip).take(GROUP_MAX) {
            if bytes + own.bytes > GROUP_BYTES && !records.is_empty() {
                break;
            }
            bytes += own.bytes;
            records.push(own.record.clone());
        }
        self.sent = first + records.len() as u64 - 1;
        self.sent_at = now;
        let (incarnation, floor) = (self.me.incarnation, self.floor);
        self.out.push_back((to, Message::Copies { incarnation, floor, first, records }));
    }
}

/// What is held of one owner's incarnation.
#[derive(Debug, Default)]
struct Line {
    records: VecDeque<(u64, Record)>,
    bytes: usize,
    /// All places up to this one are here, from the owner's floor on.
    place: u64,
}

/// The holder's side.
#[derive(Debug)]
pub struct Copies {
    me: Member,
    lines: BTreeMap<Member, Line>,
    bytes: usize,
    /// Records that were left out at the limit.
    pub left_out: u64,
    #[cfg(test)]
    plant: tests::Plant,
}

impl Copies {
    /// Of this node.
    pub fn new(me: Member) -> Copies {
        #[cfg(test)]
        let plant = tests::Plant::None;
        Copies {
            me,
            lines: BTreeMap::new(),
            bytes: 0,
            left_out: 0,
            #[cfg(test)]
            plant,
        }
    }

    /// Takes what an owner sends; gives what it is to be told.
    pub fn take(&mut self, from: NodeId, message: Message) -> Option<Message> {
        let Message::Copies { incarnation, floor, first, records } = message else { return None };
        // Places that far are never reached: nonsense.
        first.checked_add(records.len() as u64 + 1)?;
        let owner = Member { node: from, incarnation };
        let line = self.lines.entry(owner).or_default();
        // What the owner no longer has, nobody needs to fill a gap.
        let below = floor.saturating_sub(1);
        #[allow(unused_mut, reason = "tests plant mistakes")]
        let mut gap = first > line.place.max(below).saturating_add(1);
        #[cfg(test)]
        if self.plant == tests::Plant::AcceptsGaps {
            gap = false;
        }
        line.place = line.place.max(below);
        if !gap {
            for (place, record) in (first..).zip(records) {
                if place > line.place {
                    line.place = place;
                    let bytes = record.bytes();
                    line.bytes += bytes;
                    self.bytes += bytes;
                    line.records.push_back((place, record));
                }
            }
        }
        let place = line.place;
        while line.records.front().is_some_and(|(place, _)| *place < floor) {
            Copies::drop_oldest(line, &mut self.bytes);
        }
        self.shrink();
        Some(Message::Held { owner: incarnation, holder: self.me.incarnation, place })
    }

    fn drop_oldest(line: &mut Line, all: &mut usize) {
        if let Some((_, record)) = line.records.pop_front() {
            line.bytes -= record.bytes();
            *all -= record.bytes();
        }
    }

    fn shrink(&mut self) {
        while self.bytes > HELD_MAX {
            let largest = self.lines.values_mut().max_by_key(|line| line.bytes);
            let Some(line) = largest.filter(|line| !line.records.is_empty()) else { return };
            Copies::drop_oldest(line, &mut self.bytes);
            self.left_out += 1;
        }
    }

    /// Forgets what came before this moment (microseconds of Unix time).
    pub fn forget(&mut self, before: u64) {
        for line in self.lines.values_mut() {
            while line.records.front().is_some_and(|(_, record)| record.time < before) {
                Copies::drop_oldest(line, &mut self.bytes);
            }
        }
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records that are held.
    pub fn len(&self) -> usize {
        self.lines.values().map(|line| line.records.len()).sum()
    }

    /// Whether none are held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that a filter accepts of owners that are wanted, in the order of time.
    pub fn find(&self, filter: &Filter, wanted: impl Fn(Member) -> bool) -> Vec<(Member, &Record)> {
        let lines = self.lines.iter().filter(|(owner, _)| wanted(**owner));
        let records = lines
            .flat_map(|(owner, line)| line.records.iter().map(move |(_, record)| (*owner, record)));
        let mut found: Vec<_> = records.filter(|(_, record)| filter.accepts(*record)).collect();
        found.sort_by_key(|(owner, record)| (record.time, owner.node, record.seq));
        found
    }
}
