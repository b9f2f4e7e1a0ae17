//! What a holder has of one line: its seal, its chain, an unfinished transfer, how its disk is.
//!
//! What it does not know: other lines, who asks, tokens' answers.
//!
//! Invariants
//! - `sealed` only grows.
//! - An unfinished transfer changes nothing until it is complete and verified.
//! - `behind` is set while the disk, and what it was given, may lack something; then the next to be
//!   written is a snapshot.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use jizoku_types::limits::CHAIN_MAX;
use jizoku_types::spec::Durability;
use jizoku_types::{ByteCount, CheckpointId, Instant};

use super::{STORES_MAX, Token, UNFINISHED_MAX};
use crate::chain::{Chain, NONE, Point};
use crate::fault::{Fault, Planted};
use crate::image::{Assembler, Digest, Part};
use crate::message::{Line, Report, Ship, Terms, Why};
use crate::record::{Head, Loaded, Record};

/// A snapshot is written when the log since the last has this many bytes, or the image's size if
/// that is more.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// And when it has this many records.
const LOG_RECORDS_MAX: u32 = 4096;

/// What became of a part.
pub(super) enum Taken {
    /// Of an older transfer, or nobody asked to be told.
    Nothing,
    /// It is here, and its sender wants to know.
    Part {
        have: u32,
    },
    /// The checkpoint was here already.
    Known,
    /// The checkpoint is complete now.
    Complete {
        head: Head,
        parts: Vec<Part>,
    },
    Refused(Why),
}

struct Unfinished {
    counter: u64,
    transfer: u64,
    id: CheckpointId,
    base: CheckpointId,
    root: Digest,
    assembler: Assembler,
    parts: BTreeMap<u32, Part>,
    heard: Instant,
}

pub(super) struct Held {
    /// The highest epoch seen; lower ones are refused.
    pub(super) sealed: u64,
    /// The seal that the records say.
    pub(super) written_seal: u64,
    /// How acknowledgements are given, by the last message.
    pub(super) durable: Durability,
    /// How they were given, by what is surely on disk.
    flushed: Durability,
    /// See [`Report::kept`].
    kept: bool,
    /// Something that was acknowledged before a restart is not here, and nothing was taken since
    /// that makes up for it. While it is so, records say "memory": the next restart must not
    /// believe in this copy either, though nothing looks damaged then.
    lapsed: bool,
    pub(super) chain: Chain,
    unfinished: Option<Unfinished>,
    /// Records that the disk hasn't answered for.
    pub(super) outstanding: usize,
    /// The last record that was given to the disk.
    pub(super) last_token: Token,
    /// Records up to this one don't count: one before them failed.
    void_until: Token,
    pub(super) snapshot_token: Option<Token>,
    pub(super) behind: bool,
    pub(super) retry_at: Instant,
    log_bytes: u64,
    log_records: u32,
}

impl Held {
    pub(super) fn new() -> Held {
        Held {
            sealed: 0,
            written_seal: 0,
            durable: Durability::Memory,
            flushed: Durability::Memory,
            kept: false,
            lapsed: false,
            chain: Chain::default(),
            unfinished: None,
            outstanding: 0,
            last_token: 0,
            void_until: 0,
            snapshot_token: None,
            behind: false,
            retry_at: Instant::ORIGIN,
            log_bytes: 0,
            log_records: 0,
        }
    }

    pub(super) fn of(loaded: Loaded) -> Held {
        let Loaded { line: _, counter, durable, chain, whole } = loaded;
        let kept = whole && durable == Durability::Disk;
        Held {
            sealed: counter,
            written_seal: counter,
            durable,
            flushed: durable,
            kept,
            lapsed: !kept,
            chain,
            // A damaged log can't be continued: it is written anew with the next record.
            behind: !whole,
            ..Held::new()
        }
    }

    /// Raises the seal to this epoch; the error is a higher one that was seen.
    pub(super) fn admit(&mut self, terms: Terms, planted: Planted) -> Result<(), u64> {
        let counter = terms.epoch.counter;
        if counter < self.sealed && !planted.has(Fault::TakesOldEpoch) {
            return Err(self.sealed);
        }
        if counter > self.sealed {
            self.sealed = counter;
            self.unfinished = None;
        }
        self.durable = terms.durable;
        Ok(())
    }

    /// Takes a part of an admitted epoch. `full`: there is no room for more.
    pub(super) fn take(
        &mut self,
        now: Instant,
        terms: Terms,
        ship: Ship,
        full: bool,
        planted: Planted,
    ) -> Taken {
        let counter = terms.epoch.counter;
        let based = ship.base != NONE;
        let sane = ship.id.seq > 0 && ship.id.epoch <= counter && (!based || ship.base < ship.id);
        if !sane || ship.part >= ship.parts {
            return Taken::Refused(Why::Malformed);
        }
        let top = self.chain.top_id();
        match self.chain.find(ship.id) {
            Some(point) if point.root() == ship.root => return Taken::Known,
            Some(_) if based => return Taken::Refused(Why::Corrupt),
            // A late copy: what this epoch made later came from it, and must not be lost to it.
            _ if top.epoch == counter && ship.id < top => return Taken::Known,
            _ => {}
        }
        if full {
            return Taken::Refused(Why::NoRoom);
        }
        if let Err(why) = self.check_base(counter, ship.base) {
            return Taken::Refused(why);
        }
        if self.unfinished.as_ref().is_some_and(|u| u.transfer > ship.transfer) {
            return Taken::Nothing;
        }
        let (part, tell) = (ship.part, ship.tell);
        let Some(unfinished) = self.unfinished_for(now, counter, ship) else {
            return Taken::Refused(Why::Corrupt);
        };
        if unfinished.assembler.is_complete() {
            return self.complete(terms, planted);
        }
        let have = unfinished.assembler.received();
        debug_assert!(unfinished.assembler.has(part));
        if tell { Taken::Part { have } } else { Taken::Nothing }
    }

    fn check_base(&self, counter: u64, base: CheckpointId) -> Result<(), Why> {
        if base == NONE {
            return Ok(());
        }
        let top = self.chain.top_id();
        // What this very epoch made is never dropped for another base.
        let allowed = base == top || top.epoch < counter;
        if self.chain.find(base).is_none() || !allowed {
            return Err(self.base_missing());
        }
        if base == top && self.chain.pending().len() >= CHAIN_MAX {
            return Err(Why::NoRoom);
        }
        Ok(())
    }

    fn base_missing(&self) -> Why {
        let top = self.chain.top();
        let root = top.map_or(Digest::default(), Point::root);
        Why::BaseMissing { have: self.chain.top_id(), root }
    }

    /// Adds the part to the unfinished transfer that it belongs to. `None` if it is damaged.
    fn unfinished_for(&mut self, now: Instant, counter: u64, ship: Ship) -> Option<&Unfinished> {
        let current = self.unfinished.take().filter(|u| u.transfer == ship.transfer);
        let mut unfinished = match current {
            Some(unfinished) => unfinished,
            None => Unfinished {
                counter,
                transfer: ship.transfer,
                id: ship.id,
                base: ship.base,
                root: ship.root,
                assembler: Assembler::new(ship.parts)?,
                parts: BTreeMap::new(),
                heard: now,
            },
        };
        unfinished.assembler.add(ship.part, &ship.body).ok()?;
        // What is written down must be what was verified: the first to come, as in the assembler.
        unfinished.parts.entry(ship.part).or_insert(ship.body);
        unfinished.heard = now;
        self.unfinished = Some(unfinished);
        self.unfinished.as_ref()
    }

    fn complete(&mut self, terms: Terms, planted: Planted) -> Taken {
        let Unfinished { counter, id, base, root, assembler, parts, .. } =
            self.unfinished.take().expect("a transfer was completed");
        debug_assert_eq!(counter, terms.epoch.counter);
        let Some(mut image) = self.chain.base(base) else {
            return Taken::Refused(self.base_missing());
        };
        let applied = assembler.finish().map(|diff| image.apply(&diff, root));
        if !matches!(applied, Ok(Ok(()))) {
            return Taken::Refused(Why::Corrupt);
        }
        #[cfg(feature = "faults")]
        if planted.has(Fault::FoldsUncommitted) {
            self.chain.spoil_ready(image.clone());
        }
        let _ = planted;
        self.chain.push(base, Point { id, image });
        let parts: Vec<Part> = parts.into_values().collect();
        let (count, durable) = (parts.len() as u32, terms.durable);
        let head = Head { id, base, root, counter: self.sealed, durable, parts: count };
        Taken::Complete { head, parts }
    }

    /// Whether this copy outlived a restart as a whole.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// How acknowledgements are given, as a record is to say it.
    pub(super) fn durable_to_write(&self) -> Durability {
        if self.lapsed { Durability::Memory } else { self.durable }
    }

    /// What is here now is all that counts: an active node gave it. True if that is news.
    pub(super) fn made_up(&mut self) -> bool {
        core::mem::take(&mut self.lapsed)
    }

    pub(super) fn has_lapsed(&self) -> bool {
        self.lapsed
    }

    /// What another line has takes the place of what is here. A transfer under way was based on
    /// what was here. `kept`: all that was ever acknowledged of either line is in it, also before
    /// a restart. `lapsed`: something isn't.
    pub(super) fn go_on_from(
        &mut self,
        chain: Chain,
        durable: Durability,
        (kept, lapsed): (bool, bool),
    ) {
        (self.chain, self.unfinished) = (chain, None);
        (self.kept, self.lapsed, self.durable) = (kept, lapsed, durable);
    }

    /// Drops what is above `id`. True if there was something.
    pub(super) fn adopt(
        &mut self,
        terms: Terms,
        id: CheckpointId,
        root: Digest,
        joins: bool,
        planted: Planted,
    ) -> Result<bool, Why> {
        // A late copy: what this epoch has made since came from it, and must not be lost to it.
        let top = self.chain.top_id();
        if top.epoch == terms.epoch.counter && id < top {
            return Ok(false);
        }
        match self.chain.find(id) {
            Some(point) if point.root() == root => {}
            Some(_) => return Err(Why::Corrupt),
            None if joins && id == NONE => {}
            None if self.chain.committed_id() > id => {
                return Err(Why::Ahead { committed: self.chain.committed_id() });
            }
            None if id != NONE => return Err(self.base_missing()),
            None => {}
        }
        if planted.has(Fault::AdoptKeepsLater) {
            return Ok(false);
        }
        Ok(self.chain.drop_above(id))
    }

    pub(super) fn report(&self) -> Report {
        let top = self.chain.top();
        Report {
            top: self.chain.top_id(),
            root: top.map_or(Digest::default(), Point::root),
            size: top.map_or(ByteCount(0), |point| point.image.size()),
            committed: self.chain.committed_id(),
            kept: self.kept,
        }
    }

    pub(super) fn unfinished_bytes(&self) -> u64 {
        let parts = self.unfinished.iter().flat_map(|unfinished| unfinished.parts.values());
        parts.map(|part| part.bytes().len() as u64).sum()
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        self.unfinished.as_ref().map(|unfinished| unfinished.heard + UNFINISHED_MAX)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.expires().is_some_and(|at| at <= now) {
            self.unfinished = None;
        }
    }

    /// Whether an answer under these terms has to wait until all that was written is flushed.
    pub(super) fn must_flush(&self, durable: Durability) -> bool {
        durable == Durability::Disk || self.flushed == Durability::Disk
    }

    /// False if the record doesn't count, because one before it failed.
    pub(super) fn stored(&mut self, token: Token, durable: Durability) -> bool {
        self.outstanding -= 1;
        if token <= self.void_until {
            return false;
        }
        if self.snapshot_token == Some(token) {
            self.snapshot_token = None;
        }
        self.flushed = durable;
        true
    }

    pub(super) fn store_failed(&mut self, retry_at: Instant) {
        self.outstanding -= 1;
        self.void_until = self.last_token;
        self.snapshot_token = None;
        self.behind = true;
        self.retry_at = retry_at;
    }

    /// Whether the disk lacks something, and a snapshot can make up for it now.
    pub(super) fn may_catch_up(&self, now: Instant) -> bool {
        let idle = self.snapshot_token.is_none() && self.outstanding < STORES_MAX;
        self.behind && idle && now >= self.retry_at
    }

    pub(super) fn log_grows(&mut self, record: &Record) {
        self.log_records += 1;
        if let Record::Checkpoint { parts, .. } = record {
            self.log_bytes += parts.iter().map(|part| part.bytes().len() as u64).sum::<u64>();
        }
    }

    pub(super) fn log_is_long(&self) -> bool {
        let size = self.chain.ready().map_or(0, |point| point.image.size().0);
        let long = self.log_bytes > size.max(LOG_BYTES_MIN) || self.log_records > LOG_RECORDS_MAX;
        long && self.snapshot_token.is_none() && !self.behind
    }

    /// All of the line, to be written down. What comes after it can be written one by one again.
    pub(super) fn snapshot(&mut self, line: Line) -> Record {
        self.behind = false;
        self.log_bytes = 0;
        self.log_records = 0;
        self.written_seal = self.sealed;
        let (counter, durable) = (self.sealed, self.durable_to_write());
        let chain = self.chain.clone();
        Record::Snapshot { line, counter, durable, chain }
    }
}
