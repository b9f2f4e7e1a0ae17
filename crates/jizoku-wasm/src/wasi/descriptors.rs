//! The table of what the program has open.
//!
//! Invariants
//! - 0 is an input that has ended, 1 and 2 are printed; from 3 on there is a listener for each
//!   published port, then the root of the file tree.
//! - A new descriptor gets the lowest free number.
//! - At [`DESCRIPTORS_MAX`] nothing more is opened: `MFILE`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::errno::Errno;
use crate::files::{Ino, ROOT, Tree};
use crate::sockets::Socket;

/// Most descriptors of one program.
pub(crate) const DESCRIPTORS_MAX: usize = 65_536;
/// The first listener.
pub(crate) const FIRST_LISTENER: u32 = 3;

/// A descriptor's number.
pub(crate) type Fd = u32;

/// What a descriptor refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// Standard input: always at its end.
    Input,
    /// Standard output (0) or error (1).
    Printer(u8),
    /// A published port, by its index.
    Listener(u8),
    /// A client's connection.
    Connection(Socket),
    /// A file of the private tree.
    File { ino: Ino, offset: u64, append: bool, readable: bool, writable: bool },
    /// A directory of the private tree.
    Directory(Ino),
}

/// One descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) target: Target,
    /// Calls on it never wait.
    pub(crate) nonblocking: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    slots: Vec<Option<Descriptor>>,
    free: BTreeSet<Fd>,
}

impl Descriptors {
    /// What a program begins with.
    pub(crate) fn fresh(ports: u8, files: &mut Tree) -> Descriptors {
        let mut table = Descriptors::default();
        let listeners = (0..ports).map(Target::Listener);
        let standard = [Target::Input, Target::Printer(0), Target::Printer(1)];
        for target in standard.into_iter().chain(listeners).chain([Target::Directory(ROOT)]) {
            table.open(target, false).expect("the table has room for its beginning");
        }
        files.opened(ROOT).expect("the root is there");
        table
    }

    /// The table of a restored state; counts what is open in `files`.
    pub(crate) fn restore(
        entries: Vec<(Fd, Descriptor)>,
        files: &mut Tree,
    ) -> Result<Descriptors, &'static str> {
        let mut table = Descriptors::default();
        for (fd, descriptor) in entries {
            if fd as usize >= DESCRIPTORS_MAX || (fd as usize) < table.slots.len() {
                return Err("the descriptors are not in order");
            }
            if let Target::File { ino, .. } | Target::Directory(ino) = descriptor.target {
                files.opened(ino).map_err(|_| "an open file is not there")?;
            }
            while table.slots.len() < fd as usize {
                table.free.insert(table.slots.len() as Fd);
                table.slots.push(None);
            }
            table.slots.push(Some(descriptor));
        }
        Ok(table)
    }

    /// All that is open, for the state.
    pub(crate) fn entries(&self) -> Vec<(Fd, Descriptor)> {
        let open = |(fd, slot): (Fd, &Option<Descriptor>)| Some((fd, slot.clone()?));
        (0..).zip(&self.slots).filter_map(open).collect()
    }

    pub(crate) fn get(&self, fd: Fd) -> Result<&Descriptor, Errno> {
        self.slots.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::BADF)
    }

    pub(crate) fn get_mut(&mut self, fd: Fd) -> Result<&mut Descriptor, Errno> {
        self.slots.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::BADF)
    }

    /// The directory behind `fd`.
    pub(crate) fn directory(&self, fd: Fd) -> Result<Ino, Errno> {
        match self.get(fd)?.target {
            Target::Directory(ino) => Ok(ino),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Whether another one can be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < DESCRIPTORS_MAX || !self.free.is_empty()
    }

    pub(crate) fn open(&mut self, target: Target, nonblocking: bool) -> Result<Fd, Errno> {
        if !self.has_room() {
            return Err(Errno::MFILE);
        }
        let fd = self.free.pop_first().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as Fd
        });
        self.slots[fd as usize] = Some(Descriptor { target, nonblocking });
        Ok(fd)
    }

    pub(crate) fn close(&mut self, fd: Fd) -> Result<Target, Errno> {
        let slot = self.slots.get_mut(fd as usize).ok_or(Errno::BADF)?;
        let descriptor = slot.take().ok_or(Errno::BADF)?;
        self.free.insert(fd);
        Ok(descriptor.target)
    }

    /// Gives `from` the number `to`; what had it is returned, to be closed.
    pub(crate) fn renumber(&mut self, from: Fd, to: Fd) -> Result<Option<Target>, Errno> {
        self.get(to)?;
        self.get(from)?;
        if from == to {
            return Ok(None);
        }
        let moved = self.slots[from as usize].take();
        self.free.insert(from);
        Ok(std::mem::replace(&mut self.slots[to as usize], moved).map(|old| old.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_lowest_first_and_restored_as_they_were() {
        let mut files = Tree::new(1 << 20, 0);
        let mut table = Descriptors::fresh(2, &mut files);
        assert_eq!(table.get(4).unwrap().target, Target::Listener(1));
        assert_eq!(table.directory(5), Ok(ROOT));
        assert_eq!(table.directory(6), Err(Errno::BADF));
        assert_eq!(table.open(Target::Input, true), Ok(6));
        assert_eq!(table.close(3), Ok(Target::Listener(0)));
        assert_eq!(table.close(3), Err(Errno::BADF));
        let mut restored = Descriptors::restore(table.entries(), &mut files).unwrap();
        assert_eq!(restored.entries(), table.entries());
        assert_eq!(restored.open(Target::Input, false), Ok(3));
        assert_eq!(restored.open(Target::Input, false), Ok(7));
        assert_eq!(restored.renumber(7, 3), Ok(Some(Target::Input)));
        assert_eq!(restored.renumber(7, 3), Err(Errno::BADF));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut files = Tree::new(1 << 20, 0);
        let mut table = Descriptors::fresh(0, &mut files);
        while table.has_room() {
            table.open(Target::Input, false).unwrap();
        }
        assert_eq!(table.entries().len(), DESCRIPTORS_MAX);
        assert_eq!(table.open(Target::Input, false), Err(Errno::MFILE));
        table.close(9).unwrap();
        assert_eq!(table.open(Target::Input, false), Ok(9));
        let unordered = vec![table.entries()[1].clone(), table.entries()[0].clone()];
        assert!(Descriptors::restore(unordered, &mut files).is_err());
    }
}
