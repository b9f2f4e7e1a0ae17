//! Calls on paths of the private file tree. There are no links in it, hard or symbolic.

use super::clock::real_time;
use super::descriptors::{Fd, Target};
use super::errno::{Errno, Fail};
use super::file_calls::{APPEND, NONBLOCK, descriptor_flags, filestat};
use super::guest::{Guest, Pointer};
use crate::files::Kind;
use crate::host::Host;

const OPEN_CREATE: u32 = 1;
const OPEN_DIRECTORY: u32 = 2;
const OPEN_EXCLUSIVE: u32 = 4;
const OPEN_TRUNCATE: u32 = 8;

const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;

impl Host {
    pub(super) fn path_create_directory(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        path: Pointer,
        length: u32,
    ) -> Result<(), Fail> {
        let from = self.descriptors.directory(fd)?;
        let path = guest.text(path, length)?;
        self.files.create(from, path, Kind::Directory, real_time())?;
        Ok(())
    }

    pub(super) fn path_filestat_get(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        _follow: u32,
        path: Pointer,
        length: u32,
        stat: Pointer,
    ) -> Result<(), Fail> {
        let from = self.descriptors.directory(fd)?;
        let ino = self.files.lookup(from, guest.text(path, length)?)?;
        Ok(guest.write(stat, &filestat(&self.files.stat(ino)?))?)
    }

    #[expect(clippy::too_many_arguments, reason = "the standard's call has so many")]
    pub(super) fn path_filestat_set_times(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        _follow: u32,
        path: Pointer,
        length: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Result<(), Fail> {
        let from = self.descriptors.directory(fd)?;
        let ino = self.files.lookup(from, guest.text(path, length)?)?;
        self.set_times(ino, accessed, modified, flags)
    }

    #[expect(clippy::too_many_arguments, reason = "the standard's call has so many")]
    pub(super) fn path_link(
        &mut self,
        _: &mut Guest<'_>,
        _fd: Fd,
        _follow: u32,
        _path: Pointer,
        _length: u32,
        _new_fd: Fd,
        _new_path: Pointer,
        _new_length: u32,
    ) -> Result<(), Fail> {
        Err(Errno::NOTSUP.into())
    }

    #[expect(clippy::too_many_arguments, reason = "the standard's call has so many")]
    pub(super) fn path_open(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        _follow: u32,
        path: Pointer,
        length: u32,
        how: u32,
        rights: u64,
        _inheriting: u64,
        flags: u32,
        opened: Pointer,
    ) -> Result<(), Fail> {
        let flags = descriptor_flags(flags)?;
        let from = self.descriptors.directory(fd)?;
        guest.slice(opened, 4)?;
        if !self.descriptors.has_room() {
            return Err(Errno::MFILE.into());
        }
        let path = guest.text(path, length)?;
        let now = real_time();
        let ino = match self.files.lookup(from, path) {
            Ok(_) if how & (OPEN_CREATE | OPEN_EXCLUSIVE) == OPEN_CREATE | OPEN_EXCLUSIVE => {
                return Err(Errno::EXIST.into());
            }
            Err(Errno::NOENT) if how & (OPEN_CREATE | OPEN_DIRECTORY) == OPEN_CREATE => {
                self.files.create(from, path, Kind::File, now)?
            }
            found => found?,
        };
        let (readable, writable) = (rights & RIGHT_READ != 0, rights & RIGHT_WRITE != 0);
        let target = match self.files.stat(ino)?.kind {
            Kind::File if how & OPEN_DIRECTORY != 0 => return Err(Errno::NOTDIR.into()),
            Kind::File => {
                let append = flags & APPEND != 0;
                Target::File { ino, offset: 0, append, readable, writable }
            }
            // Opened without saying that it is a directory: it can be read, and nothing else.
            Kind::Directory if how & OPEN_DIRECTORY == 0 && writable && !readable => {
                return Err(Errno::ISDIR.into());
            }
            Kind::Directory if how & OPEN_TRUNCATE != 0 => return Err(Errno::ISDIR.into()),
            Kind::Directory => Target::Directory(ino),
        };
        if how & OPEN_TRUNCATE != 0 {
            self.files.set_size(ino, 0, now)?;
        }
        let new = self.descriptors.open(target, flags & NONBLOCK != 0)?;
        self.files.opened(ino)?;
        Ok(guest.set_u32(opened, new)?)
    }

    #[expect(clippy::too_many_arguments, reason = "the standard's call has so many")]
    pub(super) fn path_readlink(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        path: Pointer,
        length: u32,
        _buffer: Pointer,
        _size: u32,
        _used: Pointer,
    ) -> Result<(), Fail> {
        let from = self.descriptors.directory(fd)?;
        self.files.lookup(from, guest.text(path, length)?)?;
        // It is there, and it is no link.
        Err(Errno::INVAL.into())
    }

    pub(super) fn path_remove_directory(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        path: Pointer,
        length: u32,
    ) -> Result<(), Fail> {
        let from = self.descriptors.directory(fd)?;
        Ok(self.files.remove_directory(from, guest.text(path, length)?, real_time())?)
    }

    #[expect(clippy::too_many_arguments, reason = "the standard's call has so many")]
    pub(super) fn path_rename(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        path: Pointer,
        length: u32,
        new_fd: Fd,
        new_path: Pointer,
        new_length: u32,
    ) -> Result<(), Fail> {
        let from = (self.descriptors.directory(fd)?, guest.text(path, length)?);
        let to = (self.descriptors.directory(new_fd)?, guest.text(new_path, new_length)?);
        Ok(self.files.rename(from, to, real_time())?)
    }

    pub(super) fn path_symlink(
        &mut self,
        _: &mut Guest<'_>,
        _content: Pointer,
        _content_length: u32,
        _fd: Fd,
        _path: Pointer,
        _length: u32,
    ) -> Result<(), Fail> {
        Err(Errno::NOTSUP.into())
    }

    pub(super) fn path_unlink_file(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        path: Pointer,
        length: u32,
    ) -> Result<(), Fail> {
        let from = self.descriptors.directory(fd)?;
        Ok(self.files.unlink(from, guest.text(path, length)?, real_time())?)
    }
}
