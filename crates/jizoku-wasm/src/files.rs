//! A program's private file tree: bounded, in memory, part of its state.
//!
//! It is kept so that a small change makes a small diff. Everything lies in three byte spaces:
//! - `files`: the arena, blocks of 4 KiB that hold the files' contents;
//! - `owners`: for each block of the arena, 8 bytes: whose it is, and which of its blocks;
//! - `inodes`: for each file or directory, a record of 512 bytes with its name and its parent.
//!
//! A directory has no content of its own: who is in it follows from the records. So there are no
//! hard links, and each file has exactly one name or none.
//!
//! What it does not know: descriptors, pointers of the program, clocks (times are handed in).
//!
//! Invariants
//! - Inode 1 is the root; it is always there, and it is its own parent.
//! - Number 0 means "none", as a block and as an inode.
//! - What the tree takes in memory is in proportion to `used`, however sparse a file is.
//! - A block of the arena without an owner is all zeros.
//! - An inode without a name (removed) lives until it is not open any more.
//! - `used` is the sum of all blocks and records, and never above the limit.

mod arena;
mod codec;
#[cfg(any(test, feature = "fuzz"))]
mod listing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jizoku_types::limits::STATE_MAX;

use self::arena::Arena;
#[cfg(test)]
use self::arena::Block;
pub(crate) use self::codec::{Changes, Damaged, SPACES};
use crate::wasi::errno::Errno;

/// Number of a file or directory.
pub(crate) type Ino = u32;

/// The root directory.
pub(crate) const ROOT: Ino = 1;
/// Longest name of one path component, in bytes.
pub(crate) const NAME_MAX: usize = 255;
/// Longest path, in bytes.
pub(crate) const PATH_MAX: usize = 4096;
/// Most files and directories.
pub(crate) const INODES_MAX: usize = 65_536;

const BLOCK: usize = jizoku_types::limits::BLOCK;
const RECORD: usize = codec::RECORD;

/// Nanoseconds since 1970, as the program's real-time clock tells them.
pub(crate) type RealTime = u64;

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes.
    File,
    /// Names.
    Directory,
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) accessed: RealTime,
    pub(crate) modified: RealTime,
    pub(crate) changed: RealTime,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where to go on after it.
    pub(crate) next: u64,
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

#[derive(Clone, Debug)]
struct Inode {
    parent: Ino,
    name: String,
    size: u64,
    accessed: RealTime,
    modified: RealTime,
    changed: RealTime,
    body: Body,
    /// Descriptors that refer to it; not part of the state, recounted after a restore.
    open: u32,
}

#[derive(Clone, Debug)]
enum Body {
    /// Arena blocks by position in the file; what has none is a hole, which reads as zeros.
    File(BTreeMap<u32, u32>),
    Directory {
        by_name: BTreeMap<String, Ino>,
        by_number: BTreeSet<Ino>,
    },
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// By number; 0 is never used.
    inodes: Vec<Option<Inode>>,
    free: BTreeSet<Ino>,
    count: usize,
    arena: Arena,
    limit: u64,
    /// Inodes whose record changed since the last capture.
    dirty: BTreeSet<Ino>,
}

impl Tree {
    /// An empty tree that takes at most `limit` bytes, and never more than a state may have.
    pub(crate) fn new(limit: u64, now: RealTime) -> Tree {
        // The arena has one block more than are in use.
        let limit = limit.min(STATE_MAX.0 - BLOCK as u64);
        let root = Inode::new(ROOT, String::new(), Kind::Directory, now);
        Tree {
            inodes: vec![None, Some(root)],
            free: BTreeSet::new(),
            count: 1,
            arena: Arena::default(),
            limit,
            dirty: BTreeSet::from([ROOT]),
        }
    }

    /// Bytes that count against the limit.
    pub(crate) fn used(&self) -> u64 {
        (self.arena.used() * BLOCK + self.count * RECORD) as u64
    }

    /// Whether anything changed since the last capture.
    #[cfg(test)]
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.arena.is_dirty()
    }

    /// Finds what `path` names, seen from the directory `from`.
    pub(crate) fn lookup(&self, from: Ino, path: &str) -> Result<Ino, Errno> {
        let walk = self.walk(from, path)?;
        match walk.last {
            None => Ok(walk.directory),
            Some(name) => self.child(walk.directory, name)?.ok_or(Errno::NOENT),
        }
    }

    /// Makes a file or a directory.
    pub(crate) fn create(
        &mut self,
        from: Ino,
        path: &str,
        kind: Kind,
        now: RealTime,
    ) -> Result<Ino, Errno> {
        let walk = self.walk(from, path)?;
        let name = walk.last.ok_or(Errno::EXIST)?;
        if self.child(walk.directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        if walk.must_be_directory && kind == Kind::File {
            return Err(Errno::ISDIR);
        }
        // A directory that was removed while it was open takes no new names.
        if self.inode(walk.directory)?.name.is_empty() && walk.directory != ROOT {
            return Err(Errno::NOENT);
        }
        if self.count >= INODES_MAX || self.used() + RECORD as u64 > self.limit {
            return Err(Errno::NOSPC);
        }
        let ino = match self.free.pop_first() {
            Some(ino) => ino,
            None => {
                self.inodes.push(None);
                (self.inodes.len() - 1) as Ino
            }
        };
        let name = name.to_string();
        self.inodes[ino as usize] = Some(Inode::new(walk.directory, name.clone(), kind, now));
        self.count += 1;
        self.dirty.insert(ino);
        self.enter(walk.directory, name, ino, now);
        Ok(ino)
    }

    /// Removes a file's name. Its content stays while it is open.
    pub(crate) fn unlink(&mut self, from: Ino, path: &str, now: RealTime) -> Result<(), Errno> {
        let ino = self.lookup(from, path)?;
        if self.inode(ino)?.kind() == Kind::Directory {
            return Err(Errno::ISDIR);
        }
        if path.ends_with('/') {
            return Err(Errno::NOTDIR);
        }
        self.forget(ino, now);
        Ok(())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(
        &mut self,
        from: Ino,
        path: &str,
        now: RealTime,
    ) -> Result<(), Errno> {
        let ino = self.lookup(from, path)?;
        match &self.inode(ino)?.body {
            Body::File(_) => return Err(Errno::NOTDIR),
            Body::Directory { by_number, .. } if !by_number.is_empty() => {
                return Err(Errno::NOTEMPTY);
            }
            Body::Directory { .. } if ino == ROOT => return Err(Errno::PERM),
            Body::Directory { .. } => {}
        }
        self.forget(ino, now);
        Ok(())
    }

    /// Gives what `path` names another name; what had that name is removed.
    pub(crate) fn rename(
        &mut self,
        from: (Ino, &str),
        to: (Ino, &str),
        now: RealTime,
    ) -> Result<(), Errno> {
        let ino = self.lookup(from.0, from.1)?;
        let walk = self.walk(to.0, to.1)?;
        let name = walk.last.ok_or(Errno::EXIST)?.to_string();
        if ino == ROOT {
            return Err(Errno::PERM);
        }
        let kind = self.inode(ino)?.kind();
        if kind == Kind::File && (walk.must_be_directory || from.1.ends_with('/')) {
            return Err(Errno::NOTDIR);
        }
        if self.lies_within(walk.directory, ino) {
            return Err(Errno::INVAL);
        }
        if self.inode(walk.directory)?.name.is_empty() && walk.directory != ROOT {
            return Err(Errno::NOENT);
        }
        if let Some(old) = self.child(walk.directory, &name)? {
            if old == ino {
                return Ok(());
            }
            match (kind, &self.inode(old)?.body) {
                (Kind::File, Body::Directory { .. }) => return Err(Errno::ISDIR),
                (Kind::Directory, Body::File(_)) => return Err(Errno::NOTDIR),
                (_, Body::Directory { by_number, .. }) if !by_number.is_empty() => {
                    return Err(Errno::NOTEMPTY);
                }
                _ => self.forget(old, now),
            }
        }
        self.leave(ino, now);
        let inode = self.inode_mut(ino)?;
        inode.parent = walk.directory;
        inode.name = name.clone();
        inode.changed = now;
        self.enter(walk.directory, name, ino, now);
        Ok(())
    }

    /// What is known of an inode.
    pub(crate) fn stat(&self, ino: Ino) -> Result<Stat, Errno> {
        let inode = self.inode(ino)?;
        Ok(Stat {
            ino,
            kind: inode.kind(),
            size: inode.size,
            accessed: inode.accessed,
            modified: inode.modified,
            changed: inode.changed,
        })
    }

    /// Sets the times that are given.
    pub(crate) fn set_times(
        &mut self,
        ino: Ino,
        accessed: Option<RealTime>,
        modified: Option<RealTime>,
        now: RealTime,
    ) -> Result<(), Errno> {
        let inode = self.inode_mut(ino)?;
        inode.accessed = accessed.unwrap_or(inode.accessed);
        inode.modified = modified.unwrap_or(inode.modified);
        inode.changed = now;
        Ok(())
    }

    /// Reads from `offset`; a short count means the end of the file. Access times are not kept up:
    /// reading does not change the state.
    pub(crate) fn read(&self, ino: Ino, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let inode = self.inode(ino)?;
        let Body::File(map) = &inode.body else { return Err(Errno::ISDIR) };
        let left = inode.size.saturating_sub(offset);
        let length = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < length {
            let at = offset as usize + done;
            let within = at % BLOCK;
            let part = (BLOCK - within).min(length - done);
            let target = &mut into[done..done + part];
            match map.get(&((at / BLOCK) as u32)) {
                Some(&block) => {
                    target.copy_from_slice(&self.arena.block(block)[within..within + part]);
                }
                None => target.fill(0),
            }
            done += part;
        }
        Ok(length)
    }

    /// Writes at `offset`, as much as there is room for.
    ///
    /// `NOSPC` or `FBIG`: nothing was written.
    pub(crate) fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        now: RealTime,
    ) -> Result<usize, Errno> {
        if self.inode(ino)?.kind() == Kind::Directory {
            return Err(Errno::ISDIR);
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = self.limit.saturating_sub(offset);
        let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if length == 0 {
            return Err(Errno::FBIG);
        }
        let mut done = 0;
        while done < length {
            let at = offset as usize + done;
            let within = at % BLOCK;
            let part = (BLOCK - within).min(length - done);
            let Some(block) = self.block_for_writing(ino, (at / BLOCK) as u32) else { break };
            self.arena.block_mut(block)[within..within + part]
                .copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        if done == 0 {
            return Err(Errno::NOSPC);
        }
        let inode = self.inode_mut(ino)?;
        inode.size = inode.size.max(offset + done as u64);
        inode.modified = now;
        inode.changed = now;
        Ok(done)
    }

    /// Cuts a file, or lengthens it with a hole.
    pub(crate) fn set_size(&mut self, ino: Ino, size: u64, now: RealTime) -> Result<(), Errno> {
        if size > self.limit {
            return Err(Errno::FBIG);
        }
        let inode = self.inode_mut(ino)?;
        let Body::File(map) = &mut inode.body else { return Err(Errno::ISDIR) };
        let cut = map.split_off(&((size as usize).div_ceil(BLOCK) as u32));
        let last = map.get(&((size as usize / BLOCK) as u32)).copied();
        let shorter = size < inode.size;
        inode.size = size;
        inode.modified = now;
        inode.changed = now;
        self.arena.release(cut.into_values());
        if let Some(last) = last
            && shorter
        {
            // What lies behind the end must read as zeros if the file grows again.
            self.arena.block_mut(last)[size as usize % BLOCK..].fill(0);
        }
        Ok(())
    }

    /// The directory's entries after `from` (0: the beginning), in a stable order: "." and "..",
    /// then by number, so that names that come or go meanwhile disturb no reader.
    pub(crate) fn entries(
        &self,
        directory: Ino,
        from: u64,
    ) -> Result<impl Iterator<Item = Entry>, Errno> {
        let inode = self.inode(directory)?;
        let Body::Directory { by_number, .. } = &inode.body else { return Err(Errno::NOTDIR) };
        let dots = [(".", directory), ("..", inode.parent)].into_iter().zip(1..);
        let dots = dots.filter(move |(_, next)| *next > from).map(|((name, ino), next)| Entry {
            next,
            ino,
            kind: Kind::Directory,
            name: name.to_string(),
        });
        // Child numbers start at 2, so that the cookie of a child is above those of the dots.
        let first = Ino::try_from(from.saturating_sub(1)).unwrap_or(Ino::MAX);
        let children = by_number.range(first.max(ROOT + 1)..).filter_map(|&ino| {
            let child = self.inode(ino).ok()?;
            let (kind, name) = (child.kind(), child.name.clone());
            Some(Entry { next: u64::from(ino) + 2, ino, kind, name })
        });
        Ok(dots.chain(children))
    }

    /// Counts a descriptor that refers to `ino`.
    pub(crate) fn opened(&mut self, ino: Ino) -> Result<(), Errno> {
        // Not through `inode_mut`: who has it open is no part of its record.
        let inode = self.inodes.get_mut(ino as usize).and_then(Option::as_mut);
        inode.ok_or(Errno::NOENT)?.open += 1;
        Ok(())
    }

    /// Counts off a descriptor; what nobody names nor uses is freed.
    pub(crate) fn closed(&mut self, ino: Ino) {
        if let Some(Some(inode)) = self.inodes.get_mut(ino as usize) {
            inode.open = inode.open.saturating_sub(1);
            self.free_if_unused(ino);
        }
    }

    fn walk<'p>(&self, from: Ino, path: &'p str) -> Result<Walk<'p>, Errno> {
        if path.len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.contains('\0') {
            return Err(Errno::ILSEQ);
        }
        let mut directory = if path.starts_with('/') { ROOT } else { from };
        let mut last = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if part.len() > NAME_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            if let Some(name) = last.take() {
                directory = self.child(directory, name)?.ok_or(Errno::NOENT)?;
            }
            let inode = self.inode(directory)?;
            match part {
                _ if inode.kind() == Kind::File => return Err(Errno::NOTDIR),
                "." => {}
                // The whole tree belongs to the program: above the root is the root.
                ".." => directory = inode.parent,
                name => last = Some(name),
            }
        }
        let must_be_directory = path.ends_with('/') || path.ends_with("/.");
        if must_be_directory
            && let Some(name) = last
            && let Some(ino) = self.child(directory, name)?
            && self.inode(ino)?.kind() == Kind::File
        {
            return Err(Errno::NOTDIR);
        }
        Ok(Walk { directory, last, must_be_directory })
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(ino as usize).and_then(Option::as_ref).ok_or(Errno::NOENT)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        let inode = self.inodes.get_mut(ino as usize).and_then(Option::as_mut);
        let inode = inode.ok_or(Errno::NOENT)?;
        self.dirty.insert(ino);
        Ok(inode)
    }

    fn child(&self, directory: Ino, name: &str) -> Result<Option<Ino>, Errno> {
        match &self.inode(directory)?.body {
            Body::Directory { by_name, .. } => Ok(by_name.get(name).copied()),
            Body::File(_) => Err(Errno::NOTDIR),
        }
    }

    /// Whether `ino` is `above` or lies somewhere below it.
    fn lies_within(&self, mut ino: Ino, above: Ino) -> bool {
        while ino != above && ino != ROOT {
            match self.inode(ino) {
                Ok(inode) => ino = inode.parent,
                Err(_) => return false,
            }
        }
        ino == above
    }

    fn enter(&mut self, directory: Ino, name: String, ino: Ino, now: RealTime) {
        let inode = self.inode_mut(directory).expect("a directory that was walked to is there");
        inode.modified = now;
        inode.changed = now;
        let Body::Directory { by_name, by_number } = &mut inode.body else {
            unreachable!("a walk ends in a directory")
        };
        by_name.insert(name, ino);
        by_number.insert(ino);
    }

    /// Takes `ino` out of its directory.
    fn leave(&mut self, ino: Ino, now: RealTime) {
        let Ok(inode) = self.inode(ino) else { return };
        let (parent, name) = (inode.parent, inode.name.clone());
        let Ok(directory) = self.inode_mut(parent) else { return };
        directory.modified = now;
        directory.changed = now;
        if let Body::Directory { by_name, by_number } = &mut directory.body {
            by_name.remove(&name);
            by_number.remove(&ino);
        }
    }

    fn forget(&mut self, ino: Ino, now: RealTime) {
        self.leave(ino, now);
        if let Ok(inode) = self.inode_mut(ino) {
            inode.parent = ROOT;
            inode.name.clear();
            inode.changed = now;
        }
        self.free_if_unused(ino);
    }

    fn free_if_unused(&mut self, ino: Ino) {
        let unused = |inode: &Inode| inode.name.is_empty() && inode.open == 0;
        if ino == ROOT || !self.inode(ino).is_ok_and(unused) {
            return;
        }
        let Some(inode) = self.inodes[ino as usize].take() else { return };
        if let Body::File(map) = inode.body {
            self.arena.release(map.into_values());
        }
        self.free.insert(ino);
        self.count -= 1;
        self.dirty.insert(ino);
    }

    /// The arena block behind position `index` of a file, made if there is none and room for it.
    fn block_for_writing(&mut self, ino: Ino, index: u32) -> Option<u32> {
        let room = self.used() + BLOCK as u64 <= self.limit;
        let inode = self.inodes.get_mut(ino as usize)?.as_mut()?;
        let Body::File(map) = &mut inode.body else { return None };
        if let Some(&block) = map.get(&index) {
            return Some(block);
        }
        let block = room.then(|| self.arena.allocate(ino, index))?;
        map.insert(index, block);
        Some(block)
    }
}

impl Inode {
    fn new(parent: Ino, name: String, kind: Kind, now: RealTime) -> Inode {
        let body = match kind {
            Kind::File => Body::File(BTreeMap::new()),
            Kind::Directory => {
                Body::Directory { by_name: BTreeMap::new(), by_number: BTreeSet::new() }
            }
        };
        let (size, open) = (0, 0);
        Inode { parent, name, size, accessed: now, modified: now, changed: now, body, open }
    }

    fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory { .. } => Kind::Directory,
        }
    }
}

/// Where a path leads.
struct Walk<'p> {
    /// The directory that holds, or would hold, the last name.
    directory: Ino,
    /// The last name; none if the path ends in a directory itself ("/", ".", "..").
    last: Option<&'p str>,
    /// The path ends in a slash.
    must_be_directory: bool,
}
