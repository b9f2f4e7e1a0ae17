//! The newest record of each trace: a table of eight bytes a slot, that grows in small steps.
//!
//! A slot holds half a hash and the low half of the record's number; the trace itself is looked
//! up in the record. Slots of records that are gone are passed over, used again, and left behind
//! when the table grows.
//!
//! What it does not know: records; it asks its owner for a record's trace.
//!
//! Invariants
//! - Of a trace there is at most one slot in both tables together that isn't empty or dead.
//! - No step takes longer than a few slots: while it grows, each insertion moves [`MOVED`].

use alloc::vec::Vec;
use core::mem;

const EMPTY: u64 = 0;
const DEAD: u64 = 1;
/// Slots that an insertion moves into the larger table.
const MOVED: usize = 16;
const LEAST: usize = 1024;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Latest {
    table: Vec<u64>,
    /// Slots that aren't empty.
    used: usize,
    /// The table that is being left, and up to where.
    old: Vec<u64>,
    moved: usize,
}

/// What the table asks of its owner.
pub(crate) trait Numbers {
    /// The whole number of a record that may be there, from its low half.
    fn whole(&self, low: u32) -> Option<u64>;
    /// The trace of a record that is there.
    fn trace(&self, seq: u64) -> u128;
}

fn half(hash: u64) -> u64 {
    // Not 0 or 1, the marks of slots.
    u64::from((hash >> 32) as u32 | 2) << 32
}

fn place(hash: u64, table: &[u64]) -> usize {
    // The half of the hash in the slot must do to place it anew.
    let mixed = ((half(hash) >> 32) * 0x9e37_79b1) as usize;
    mixed >> 24 & (table.len() - 1)
}

impl Latest {
    pub(crate) fn new() -> Latest {
        Latest { table: alloc::vec![EMPTY; LEAST], used: 0, old: Vec::new(), moved: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.table.len() + self.old.len()) * 8
    }

    /// Where the trace is in a table.
    fn find(table: &[u64], hash: u64, trace: u128, numbers: &impl Numbers) -> Option<(usize, u64)> {
        if table.is_empty() {
            return None;
        }
        let mut at = place(hash, table);
        loop {
            let slot = table[at];
            if slot == EMPTY {
                return None;
            }
            if slot & !0xffff_ffff == half(hash)
                && let Some(seq) = numbers.whole(slot as u32)
                && numbers.trace(seq) == trace
            {
                return Some((at, seq));
            }
            at = (at + 1) & (table.len() - 1);
        }
    }

    pub(crate) fn get(&self, hash: u64, trace: u128, numbers: &impl Numbers) -> Option<u64> {
        let newer = Self::find(&self.table, hash, trace, numbers);
        newer.or_else(|| Self::find(&self.old, hash, trace, numbers)).map(|(_, seq)| seq)
    }

    /// Notes a record; gives the one before it. `alive`: how many records there are.
    pub(crate) fn put(
        &mut self,
        hash: u64,
        (trace, seq): (u128, u64),
        alive: usize,
        numbers: &impl Numbers,
    ) -> Option<u64> {
        let slot = half(hash) | u64::from(seq as u32);
        if let Some((at, before)) = Self::find(&self.table, hash, trace, numbers) {
            self.table[at] = slot;
            return Some(before);
        }
        let before = Self::find(&self.old, hash, trace, numbers).map(|(at, before)| {
            self.old[at] = DEAD;
            before
        });
        self.grow(alive, numbers);
        self.insert(slot, numbers);
        before
    }

    /// Puts a slot in whose trace isn't in the table.
    fn insert(&mut self, slot: u64, numbers: &impl Numbers) {
        let mask = self.table.len() - 1;
        let mut at = place(slot, &self.table);
        loop {
            let found = self.table[at];
            if found == EMPTY {
                self.used += 1;
                break;
            }
            if found == DEAD || numbers.whole(found as u32).is_none() {
                break;
            }
            at = (at + 1) & mask;
        }
        self.table[at] = slot;
    }

    fn grow(&mut self, alive: usize, numbers: &impl Numbers) {
        if self.old.is_empty() && self.used * 10 >= self.table.len() * 7 {
            // Most slots may be of records that are gone: then it needn't be larger.
            let enough = (alive * 2).next_power_of_two();
            // Half of it at the least: what comes while it is left has to fit, too.
            let length = enough.clamp(self.table.len() / 2, self.table.len() * 2).max(LEAST);
            self.old = mem::replace(&mut self.table, alloc::vec![EMPTY; length]);
            self.used = 0;
            self.moved = 0;
        }
        if self.old.is_empty() {
            return;
        }
        let end = (self.moved + MOVED).min(self.old.len());
        for at in self.moved..end {
            let slot = self.old[at];
            if slot != EMPTY && slot != DEAD {
                // Dead rather than empty: others' way may lead over it.
                self.old[at] = DEAD;
                if numbers.whole(slot as u32).is_some() {
                    self.insert(slot, numbers);
                }
            }
        }
        self.moved = end;
        if end == self.old.len() {
            self.old = Vec::new();
        }
    }
}
