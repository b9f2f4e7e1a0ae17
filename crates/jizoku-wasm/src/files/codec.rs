//! The tree as bytes: what a capture takes out of it and a restore puts back.
//!
//! All numbers are little endian. A record of `inodes` (512 bytes): kind (0 none, 1 file,
//! 2 directory), length of the name, 2 bytes unused, parent (4), size (8), times of access,
//! modification and change (8 each), name (255), zeros. A record of `owners` (8 bytes): inode,
//! index.
//!
//! Nothing here panics on damaged bytes.

use std::sync::Arc;

use super::arena::{Arena, Block, Owner};
use super::{BTreeSet, Body, INODES_MAX, Ino, Inode, Kind, NAME_MAX, ROOT, Tree};

const BLOCK: usize = jizoku_types::limits::BLOCK;
/// Size of an inode's record.
pub(super) const RECORD: usize = 512;
const RECORDS_PER_BLOCK: usize = BLOCK / RECORD;
const NAME_AT: usize = 40;
/// Size of an owner's record.
const OWNER: usize = 8;
const OWNERS_PER_BLOCK: usize = BLOCK / OWNER;

const _: () = assert!(NAME_AT + NAME_MAX <= RECORD, "a record holds the longest name");

/// Names of the tree's byte spaces: contents, owners, inodes.
pub(crate) const SPACES: [&str; 3] = ["files", "owners", "inodes"];

/// What changed in the tree since the last capture.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// For each space its length in bytes, whether it changed or not.
    pub(crate) lengths: [u64; 3],
    /// For each space the changed blocks; `None` is a block of zeros.
    pub(crate) blocks: [Vec<(u64, Option<Block>)>; 3],
}

/// The bytes are not those of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) &'static str);

impl Tree {
    /// Takes what changed since the last capture. Cheap: contents are shared, not copied.
    pub(crate) fn capture(&mut self) -> Changes {
        let mut changes = Changes {
            lengths: [
                (self.arena.len() * BLOCK) as u64,
                (self.arena.len() * OWNER) as u64,
                (self.inodes.len() * RECORD) as u64,
            ],
            ..Changes::default()
        };
        let mut owner_blocks = BTreeSet::new();
        for number in self.arena.take_dirty() {
            let block = self.arena.get(number).map(|(_, block)| block.clone());
            changes.blocks[0].push((u64::from(number), block));
            owner_blocks.insert(number as usize / OWNERS_PER_BLOCK);
        }
        for at in owner_blocks {
            changes.blocks[1].push((at as u64, Some(self.owner_block(at))));
        }
        let dirty = std::mem::take(&mut self.dirty);
        let blocks: BTreeSet<_> =
            dirty.into_iter().map(|ino| ino as usize / RECORDS_PER_BLOCK).collect();
        for at in blocks {
            changes.blocks[2].push((at as u64, Some(self.inode_block(at))));
        }
        changes
    }

    /// Builds the tree again. `read` gives the bytes of a block of a space, `lengths` are theirs.
    /// Nothing counts as changed afterwards, nor as open.
    pub(crate) fn restore(
        limit: u64,
        lengths: [u64; 3],
        mut read: impl FnMut(usize, u64) -> Block,
    ) -> Result<Tree, Damaged> {
        let slots = usize::try_from(lengths[0] / BLOCK as u64).map_err(|_| Damaged("too long"))?;
        let inodes = usize::try_from(lengths[2]).map_err(|_| Damaged("too long"))? / RECORD;
        if slots > u32::MAX as usize || inodes > INODES_MAX + 1 {
            return Err(Damaged("more blocks or inodes than there can be"));
        }
        if lengths[1] != (slots * OWNER) as u64 {
            return Err(Damaged("the number of owners is not that of the blocks"));
        }
        let mut tree = Tree::new(limit, 0);
        tree.dirty.clear();
        tree.inodes = vec![None; inodes.max(2)];
        tree.read_inodes(inodes, |at| read(2, at))?;
        tree.link()?;
        tree.arena = Arena::with_slots(slots);
        tree.read_blocks(slots, read)?;
        tree.free = (1..tree.inodes.len() as Ino)
            .filter(|&ino| tree.inodes[ino as usize].is_none())
            .collect();
        tree.count = tree.inodes.iter().flatten().count();
        Ok(tree)
    }

    /// Frees what was removed and is not open. To be called once after a restore, when the
    /// descriptors have been counted.
    pub(crate) fn free_orphans(&mut self) {
        for ino in 2..self.inodes.len() as Ino {
            self.free_if_unused(ino);
        }
    }

    fn owner_block(&self, at: usize) -> Block {
        let mut bytes = [0; BLOCK];
        for (number, record) in (at * OWNERS_PER_BLOCK..).zip(bytes.chunks_exact_mut(OWNER)) {
            if let Some((owner, _)) = self.arena.get(number as u32) {
                record[..4].copy_from_slice(&owner.ino.to_le_bytes());
                record[4..].copy_from_slice(&owner.index.to_le_bytes());
            }
        }
        Arc::new(bytes)
    }

    fn inode_block(&self, at: usize) -> Block {
        let mut bytes = [0; BLOCK];
        for (ino, record) in (at * RECORDS_PER_BLOCK..).zip(bytes.chunks_exact_mut(RECORD)) {
            if let Some(Some(inode)) = self.inodes.get(ino) {
                inode.write(record);
            }
        }
        Arc::new(bytes)
    }

    fn read_inodes(
        &mut self,
        count: usize,
        mut read: impl FnMut(u64) -> Block,
    ) -> Result<(), Damaged> {
        for at in 0..count.div_ceil(RECORDS_PER_BLOCK) {
            let block = read(at as u64);
            for (ino, record) in (at * RECORDS_PER_BLOCK..count).zip(block.chunks_exact(RECORD)) {
                self.inodes[ino] = Inode::read(record)?;
            }
        }
        let root = self.inodes[ROOT as usize].as_ref();
        if self.inodes[0].is_some() || root.is_none_or(|root| root.kind() != Kind::Directory) {
            return Err(Damaged("there is no root directory"));
        }
        Ok(())
    }

    /// Enters every inode that has a name into its parent.
    fn link(&mut self) -> Result<(), Damaged> {
        let named: Vec<(Ino, Ino, String)> = (2..)
            .zip(&self.inodes[2..])
            .filter_map(|(ino, inode)| Some((ino, inode.as_ref()?)))
            .filter(|(_, inode)| !inode.name.is_empty())
            .map(|(ino, inode)| (ino, inode.parent, inode.name.clone()))
            .collect();
        for (ino, parent, name) in named {
            let directory = self.inodes.get_mut(parent as usize).and_then(Option::as_mut);
            let Some(Body::Directory { by_name, by_number }) =
                directory.map(|inode| &mut inode.body)
            else {
                return Err(Damaged("a parent is not a directory"));
            };
            by_number.insert(ino);
            if by_name.insert(name, ino).is_some() {
                return Err(Damaged("two files have one name"));
            }
        }
        self.check_no_circle()
    }

    /// Every directory must be reachable from the root: walking up from any ends there.
    fn check_no_circle(&self) -> Result<(), Damaged> {
        let mut reached = 0;
        let mut waiting = vec![ROOT];
        while let Some(ino) = waiting.pop() {
            reached += 1;
            if let Some(Some(Inode { body: Body::Directory { by_number, .. }, .. })) =
                self.inodes.get(ino as usize)
            {
                waiting.extend(by_number);
            }
        }
        let named = |inode: &&Inode| !inode.name.is_empty();
        if reached != 1 + self.inodes[2..].iter().flatten().filter(named).count() {
            return Err(Damaged("a directory lies within itself"));
        }
        Ok(())
    }

    fn read_blocks(
        &mut self,
        slots: usize,
        mut read: impl FnMut(usize, u64) -> Block,
    ) -> Result<(), Damaged> {
        for at in 0..slots.div_ceil(OWNERS_PER_BLOCK) {
            let block = read(1, at as u64);
            for (number, record) in (at * OWNERS_PER_BLOCK..slots).zip(block.chunks_exact(OWNER)) {
                let owner = Owner { ino: word(record, 0), index: word(record, 4) };
                if owner.ino != 0 {
                    self.give_block(number as u32, owner, read(0, number as u64))?;
                }
            }
        }
        Ok(())
    }

    fn give_block(&mut self, number: u32, owner: Owner, block: Block) -> Result<(), Damaged> {
        let inode = self.inodes.get_mut(owner.ino as usize).and_then(Option::as_mut);
        let inode = inode.ok_or(Damaged("a block's owner is not there"))?;
        let within = u64::from(owner.index) * (BLOCK as u64) < inode.size;
        let Body::File(map) = &mut inode.body else {
            return Err(Damaged("a block's owner is a directory"));
        };
        if !within || map.insert(owner.index, number).is_some() {
            return Err(Damaged("a block lies outside of its file, or twice in it"));
        }
        if !self.arena.put(number, owner, block) {
            return Err(Damaged("block 0 has an owner"));
        }
        Ok(())
    }
}

impl Inode {
    fn write(&self, record: &mut [u8]) {
        record[0] = match self.kind() {
            Kind::File => 1,
            Kind::Directory => 2,
        };
        record[1] = self.name.len() as u8;
        record[4..8].copy_from_slice(&self.parent.to_le_bytes());
        let longs = [self.size, self.accessed, self.modified, self.changed];
        for (bytes, long) in record[8..NAME_AT].chunks_exact_mut(8).zip(longs) {
            bytes.copy_from_slice(&long.to_le_bytes());
        }
        record[NAME_AT..NAME_AT + self.name.len()].copy_from_slice(self.name.as_bytes());
    }

    fn read(record: &[u8]) -> Result<Option<Inode>, Damaged> {
        let kind = match record[0] {
            0 => return Ok(None),
            1 => Kind::File,
            2 => Kind::Directory,
            _ => return Err(Damaged("an inode is neither a file nor a directory")),
        };
        let name = &record[NAME_AT..NAME_AT + usize::from(record[1])];
        let name = std::str::from_utf8(name).map_err(|_| Damaged("a name is not UTF-8"))?;
        let mut inode = Inode::new(word(record, 4), name.to_string(), kind, long(record, 16));
        inode.size = long(record, 8);
        inode.modified = long(record, 24);
        inode.changed = long(record, 32);
        Ok(Some(inode))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
