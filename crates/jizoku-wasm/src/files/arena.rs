//! The arena: numbered blocks of 4 KiB that files are made of.
//!
//! Blocks are shared with captures under way: a block is copied only when it is written to while
//! a capture still holds it.
//!
//! Invariants
//! - Block 0 is never given out.
//! - A block is owned exactly when its content is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Ino;

const BLOCK: usize = jizoku_types::limits::BLOCK;

/// The content of one block.
pub(crate) type Block = Arc<[u8; BLOCK]>;

/// Whose a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// 0: nobody's.
    pub(super) ino: Ino,
    /// Which of the file's blocks it is.
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct Arena {
    slots: Vec<Option<(Owner, Block)>>,
    free: BTreeSet<u32>,
    /// Blocks whose content or owner changed since the last capture.
    dirty: BTreeSet<u32>,
}

impl Default for Arena {
    fn default() -> Arena {
        Arena { slots: vec![None], free: BTreeSet::new(), dirty: BTreeSet::new() }
    }
}

impl Arena {
    /// An arena of `slots` blocks, block 0 included, none of them in use yet.
    pub(super) fn with_slots(slots: usize) -> Arena {
        let slots = slots.max(1);
        Arena {
            slots: vec![None; slots],
            free: (1..slots as u32).collect(),
            dirty: BTreeSet::new(),
        }
    }

    /// Puts back a block of a restored state. False if it is not free.
    pub(super) fn put(&mut self, number: u32, owner: Owner, block: Block) -> bool {
        if !self.free.remove(&number) {
            return false;
        }
        self.slots[number as usize] = Some((owner, block));
        true
    }

    /// Blocks in use.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - 1 - self.free.len()
    }

    /// How many block numbers there are, block 0 included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.dirty)
    }

    /// A zeroed block for `ino`.
    pub(super) fn allocate(&mut self, ino: Ino, index: u32) -> u32 {
        let number = match self.free.pop_first() {
            Some(number) => number,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[number as usize] = Some((Owner { ino, index }, Arc::new([0; BLOCK])));
        self.dirty.insert(number);
        number
    }

    pub(super) fn release(&mut self, blocks: impl IntoIterator<Item = u32>) {
        for number in blocks {
            self.slots[number as usize] = None;
            self.free.insert(number);
            self.dirty.insert(number);
        }
    }

    /// Whose the block is, and what is in it.
    pub(super) fn get(&self, number: u32) -> Option<&(Owner, Block)> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(super) fn block(&self, number: u32) -> &[u8; BLOCK] {
        &self.get(number).expect("a file's map names blocks that it owns").1
    }

    /// The block's content, to be changed.
    pub(super) fn block_mut(&mut self, number: u32) -> &mut [u8; BLOCK] {
        self.dirty.insert(number);
        let slot = self.slots[number as usize].as_mut();
        Arc::make_mut(&mut slot.expect("a file's map names blocks that it owns").1)
    }
}
