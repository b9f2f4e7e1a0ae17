//! Calls on descriptors: files, printing, and what all descriptors have in common.

use super::clock::real_time;
use super::descriptors::{Descriptor, FIRST_LISTENER, Fd, Target};
use super::errno::{Errno, Fail};
use super::guest::{Guest, Pointer, Slice};
use crate::files::{Ino, Kind, NAME_MAX, ROOT, RealTime, Stat};
use crate::host::Host;

/// Flags of a descriptor.
pub(super) const APPEND: u16 = 1;
pub(super) const NONBLOCK: u16 = 4;
/// Flags that change nothing here, since files live in memory: DSYNC, RSYNC, SYNC.
pub(super) const SYNC_FLAGS: u16 = 2 | 8 | 16;

const RIGHTS_ALL: u64 = (1 << 30) - 1;
const RIGHT_SEEK: u64 = 1 << 2;
const RIGHT_TELL: u64 = 1 << 5;

const TYPE_CHARACTER_DEVICE: u8 = 2;
const TYPE_DIRECTORY: u8 = 3;
const TYPE_REGULAR_FILE: u8 = 4;
const TYPE_SOCKET_STREAM: u8 = 6;

/// Kinds of what a program finds open at its start. The standard knows only directories; C
/// libraries stop looking at the first descriptor that is not open, and skip unknown kinds, so
/// that listeners, which come first, must be of another kind.
const PRESTAT_DIRECTORY: u8 = 0;
const PRESTAT_LISTENER: u8 = 1;
const ROOT_NAME: &[u8] = b"/";

const SET_ACCESSED: u32 = 1;
const SET_ACCESSED_NOW: u32 = 2;
const SET_MODIFIED: u32 = 4;
const SET_MODIFIED_NOW: u32 = 8;

const DIRENT_SIZE: usize = 24;

impl Host {
    pub(super) fn fd_advise(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        _offset: u64,
        _length: u64,
        _advice: u32,
    ) -> Result<(), Fail> {
        self.file(fd)?;
        Ok(())
    }

    pub(super) fn fd_allocate(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        offset: u64,
        length: u64,
    ) -> Result<(), Fail> {
        let ino = self.file(fd)?;
        let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
        if end > self.files.stat(ino)?.size {
            self.files.set_size(ino, end, real_time())?;
        }
        Ok(())
    }

    pub(super) fn fd_close(&mut self, _: &mut Guest<'_>, fd: Fd) -> Result<(), Fail> {
        let target = self.descriptors.close(fd)?;
        self.closed(target);
        Ok(())
    }

    pub(super) fn fd_datasync(&mut self, _: &mut Guest<'_>, fd: Fd) -> Result<(), Fail> {
        // A checkpoint is what makes state safe; there is no disk below.
        self.descriptors.get(fd)?;
        Ok(())
    }

    pub(super) fn fd_sync(&mut self, guest: &mut Guest<'_>, fd: Fd) -> Result<(), Fail> {
        self.fd_datasync(guest, fd)
    }

    pub(super) fn fd_fdstat_get(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        stat: Pointer,
    ) -> Result<(), Fail> {
        let descriptor = self.descriptors.get(fd)?;
        let mut flags = if descriptor.nonblocking { NONBLOCK } else { 0 };
        if matches!(descriptor.target, Target::File { append: true, .. }) {
            flags |= APPEND;
        }
        let rights = match descriptor.target {
            // Without these two a C library takes it for a terminal, and writes line by line.
            Target::Input | Target::Printer(_) => RIGHTS_ALL & !(RIGHT_SEEK | RIGHT_TELL),
            _ => RIGHTS_ALL,
        };
        let mut bytes = [0; 24];
        bytes[0] = file_type(&descriptor.target);
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&rights.to_le_bytes());
        bytes[16..24].copy_from_slice(&RIGHTS_ALL.to_le_bytes());
        Ok(guest.write(stat, &bytes)?)
    }

    pub(super) fn fd_fdstat_set_flags(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        flags: u32,
    ) -> Result<(), Fail> {
        let flags = descriptor_flags(flags)?;
        let descriptor = self.descriptors.get_mut(fd)?;
        descriptor.nonblocking = flags & NONBLOCK != 0;
        if let Target::File { append, .. } = &mut descriptor.target {
            *append = flags & APPEND != 0;
        }
        Ok(())
    }

    pub(super) fn fd_fdstat_set_rights(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        _rights: u64,
        _inheriting: u64,
    ) -> Result<(), Fail> {
        // Giving rights up is accepted; everything here is the program's own anyway.
        self.descriptors.get(fd)?;
        Ok(())
    }

    pub(super) fn fd_filestat_get(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        stat: Pointer,
    ) -> Result<(), Fail> {
        let target = &self.descriptors.get(fd)?.target;
        let bytes = match target {
            Target::File { ino, .. } | Target::Directory(ino) => filestat(&self.files.stat(*ino)?),
            other => {
                let mut bytes = [0; 64];
                bytes[16] = file_type(other);
                bytes[24..32].copy_from_slice(&1u64.to_le_bytes());
                bytes
            }
        };
        Ok(guest.write(stat, &bytes)?)
    }

    pub(super) fn fd_filestat_set_size(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        size: u64,
    ) -> Result<(), Fail> {
        let ino = self.file(fd)?;
        Ok(self.files.set_size(ino, size, real_time())?)
    }

    pub(super) fn fd_filestat_set_times(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Result<(), Fail> {
        match self.descriptors.get(fd)?.target {
            Target::File { ino, .. } | Target::Directory(ino) => {
                self.set_times(ino, accessed, modified, flags)
            }
            _ => Err(Errno::INVAL.into()),
        }
    }

    pub(super) fn fd_pread(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        data: Pointer,
        count: u32,
        offset: u64,
        length: Pointer,
    ) -> Result<(), Fail> {
        let buffers = guest.buffers(data, count)?;
        let Target::File { ino, readable, .. } = self.descriptors.get(fd)?.target else {
            return Err(Errno::SPIPE.into());
        };
        let done = self.read_file(guest, ino, readable, offset, &buffers)?;
        Ok(guest.set_u32(length, done as u32)?)
    }

    pub(super) fn fd_pwrite(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        data: Pointer,
        count: u32,
        offset: u64,
        length: Pointer,
    ) -> Result<(), Fail> {
        let buffers = guest.buffers(data, count)?;
        guest.slice(length, 4)?;
        let Target::File { ino, writable, .. } = self.descriptors.get(fd)?.target else {
            return Err(Errno::SPIPE.into());
        };
        let done = self.write_file(guest, ino, writable, offset, &buffers)?;
        Ok(guest.set_u32(length, done as u32)?)
    }

    pub(super) fn fd_prestat_get(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        stat: Pointer,
    ) -> Result<(), Fail> {
        let (kind, length) = match self.descriptors.get(fd)?.target {
            Target::Directory(ROOT) if fd >= FIRST_LISTENER => {
                (PRESTAT_DIRECTORY, ROOT_NAME.len() as u32)
            }
            Target::Listener(_) => (PRESTAT_LISTENER, 0),
            _ => return Err(Errno::BADF.into()),
        };
        let mut bytes = [0; 8];
        bytes[0] = kind;
        bytes[4..].copy_from_slice(&length.to_le_bytes());
        Ok(guest.write(stat, &bytes)?)
    }

    pub(super) fn fd_prestat_dir_name(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        path: Pointer,
        length: u32,
    ) -> Result<(), Fail> {
        if self.descriptors.directory(fd)? != ROOT {
            return Err(Errno::BADF.into());
        }
        if (length as usize) < ROOT_NAME.len() {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(guest.write(path, ROOT_NAME)?)
    }

    pub(super) fn fd_read(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        data: Pointer,
        count: u32,
        length: Pointer,
    ) -> Result<(), Fail> {
        let buffers = guest.buffers(data, count)?;
        guest.slice(length, 4)?;
        let Descriptor { target, nonblocking } = self.descriptors.get(fd)?;
        let done = match *target {
            Target::Connection(socket) => {
                let nonblocking = *nonblocking;
                self.receive(guest, socket, nonblocking, false, &buffers)?
            }
            Target::File { ino, offset, readable, .. } => {
                let done = self.read_file(guest, ino, readable, offset, &buffers)?;
                self.moved(fd, offset + done as u64);
                done
            }
            Target::Input => 0,
            Target::Directory(_) => return Err(Errno::ISDIR.into()),
            Target::Listener(_) => return Err(Errno::INVAL.into()),
            Target::Printer(_) => return Err(Errno::BADF.into()),
        };
        Ok(guest.set_u32(length, done as u32)?)
    }

    pub(super) fn fd_write(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        data: Pointer,
        count: u32,
        length: Pointer,
    ) -> Result<(), Fail> {
        let buffers = guest.buffers(data, count)?;
        guest.slice(length, 4)?;
        let Descriptor { target, nonblocking } = self.descriptors.get(fd)?;
        let done = match *target {
            Target::Connection(socket) => {
                let nonblocking = *nonblocking;
                self.send(guest, socket, nonblocking, &buffers)?
            }
            Target::File { ino, offset, append, writable, .. } => {
                let offset = if append { self.files.stat(ino)?.size } else { offset };
                let done = self.write_file(guest, ino, writable, offset, &buffers)?;
                self.moved(fd, offset + done as u64);
                done
            }
            Target::Printer(stream) => {
                for &buffer in &buffers {
                    self.print(stream, guest.bytes(buffer));
                }
                buffers.iter().map(|&buffer| guest.bytes(buffer).len()).sum()
            }
            Target::Directory(_) => return Err(Errno::ISDIR.into()),
            Target::Listener(_) => return Err(Errno::INVAL.into()),
            Target::Input => return Err(Errno::BADF.into()),
        };
        Ok(guest.set_u32(length, done as u32)?)
    }

    pub(super) fn fd_readdir(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        buffer: Pointer,
        size: u32,
        cookie: u64,
        length: Pointer,
    ) -> Result<(), Fail> {
        let directory = self.descriptors.directory(fd)?;
        let slice = guest.slice(buffer, size)?;
        let target = guest.bytes_mut(slice);
        let mut used = 0;
        for entry in self.files.entries(directory, cookie)? {
            let mut bytes = [0; DIRENT_SIZE + NAME_MAX];
            bytes[..8].copy_from_slice(&entry.next.to_le_bytes());
            bytes[8..16].copy_from_slice(&u64::from(entry.ino).to_le_bytes());
            bytes[16..20].copy_from_slice(&(entry.name.len() as u32).to_le_bytes());
            bytes[20] = kind_type(entry.kind);
            bytes[DIRENT_SIZE..DIRENT_SIZE + entry.name.len()]
                .copy_from_slice(entry.name.as_bytes());
            // The last entry may be cut: a full buffer tells the program to come again.
            let part = (DIRENT_SIZE + entry.name.len()).min(target.len() - used);
            target[used..used + part].copy_from_slice(&bytes[..part]);
            used += part;
            if used == target.len() {
                break;
            }
        }
        Ok(guest.set_u32(length, used as u32)?)
    }

    pub(super) fn fd_renumber(&mut self, _: &mut Guest<'_>, from: Fd, to: Fd) -> Result<(), Fail> {
        if let Some(old) = self.descriptors.renumber(from, to)? {
            self.closed(old);
        }
        Ok(())
    }

    pub(super) fn fd_seek(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        delta: u64,
        whence: u32,
        offset: Pointer,
    ) -> Result<(), Fail> {
        let Target::File { ino, offset: now, .. } = self.descriptors.get(fd)?.target else {
            return Err(Errno::SPIPE.into());
        };
        let from = match whence {
            0 => 0,
            1 => now,
            2 => self.files.stat(ino)?.size,
            _ => return Err(Errno::INVAL.into()),
        };
        let to = from.checked_add_signed(delta as i64).ok_or(Errno::INVAL)?;
        guest.set_u64(offset, to)?;
        self.moved(fd, to);
        Ok(())
    }

    pub(super) fn fd_tell(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        offset: Pointer,
    ) -> Result<(), Fail> {
        let Target::File { offset: now, .. } = self.descriptors.get(fd)?.target else {
            return Err(Errno::SPIPE.into());
        };
        Ok(guest.set_u64(offset, now)?)
    }

    pub(super) fn set_times(
        &mut self,
        ino: Ino,
        accessed: RealTime,
        modified: RealTime,
        flags: u32,
    ) -> Result<(), Fail> {
        let now = real_time();
        let choose = |given: u64, set: u32, set_now: u32| match flags & (set | set_now) {
            0 => Ok(None),
            which if which == set => Ok(Some(given)),
            which if which == set_now => Ok(Some(now)),
            _ => Err(Errno::INVAL),
        };
        let accessed = choose(accessed, SET_ACCESSED, SET_ACCESSED_NOW)?;
        let modified = choose(modified, SET_MODIFIED, SET_MODIFIED_NOW)?;
        Ok(self.files.set_times(ino, accessed, modified, now)?)
    }

    /// Lets go of what a closed descriptor referred to.
    fn closed(&mut self, target: Target) {
        match target {
            Target::Connection(socket) => self.close_socket(socket),
            Target::File { ino, .. } | Target::Directory(ino) => self.files.closed(ino),
            Target::Input | Target::Printer(_) | Target::Listener(_) => {}
        }
    }

    fn file(&self, fd: Fd) -> Result<Ino, Errno> {
        match self.descriptors.get(fd)?.target {
            Target::File { ino, .. } => Ok(ino),
            Target::Directory(_) => Err(Errno::ISDIR),
            _ => Err(Errno::SPIPE),
        }
    }

    fn moved(&mut self, fd: Fd, to: u64) {
        if let Ok(Descriptor { target: Target::File { offset, .. }, .. }) =
            self.descriptors.get_mut(fd)
        {
            *offset = to;
        }
    }

    fn read_file(
        &mut self,
        guest: &mut Guest<'_>,
        ino: Ino,
        readable: bool,
        offset: u64,
        buffers: &[Slice],
    ) -> Result<usize, Errno> {
        if !readable {
            return Err(Errno::BADF);
        }
        let mut done = 0;
        for &buffer in buffers {
            let into = guest.bytes_mut(buffer);
            let read = self.files.read(ino, offset.saturating_add(done as u64), into)?;
            done += read;
            if read < into.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write_file(
        &mut self,
        guest: &Guest<'_>,
        ino: Ino,
        writable: bool,
        offset: u64,
        buffers: &[Slice],
    ) -> Result<usize, Errno> {
        if !writable {
            return Err(Errno::BADF);
        }
        let now = real_time();
        let mut done = 0;
        for &buffer in buffers {
            let bytes = guest.bytes(buffer);
            match self.files.write(ino, offset.saturating_add(done as u64), bytes, now) {
                Ok(written) => done += written,
                // What fitted counts; the next call tells why there was no more.
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
}

/// The flags of a descriptor, if there are no others among them.
pub(super) fn descriptor_flags(flags: u32) -> Result<u16, Errno> {
    let known = APPEND | NONBLOCK | SYNC_FLAGS;
    u16::try_from(flags).ok().filter(|flags| flags & !known == 0).ok_or(Errno::INVAL)
}

/// The 64 bytes of a `filestat`.
pub(super) fn filestat(stat: &Stat) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[8..16].copy_from_slice(&u64::from(stat.ino).to_le_bytes());
    bytes[16] = kind_type(stat.kind);
    let longs = [1, stat.size, stat.accessed, stat.modified, stat.changed];
    for (field, long) in bytes[24..].chunks_exact_mut(8).zip(longs) {
        field.copy_from_slice(&long.to_le_bytes());
    }
    bytes
}

fn file_type(target: &Target) -> u8 {
    match target {
        Target::Input | Target::Printer(_) => TYPE_CHARACTER_DEVICE,
        Target::Listener(_) | Target::Connection(_) => TYPE_SOCKET_STREAM,
        Target::File { .. } => TYPE_REGULAR_FILE,
        Target::Directory(_) => TYPE_DIRECTORY,
    }
}

fn kind_type(kind: Kind) -> u8 {
    match kind {
        Kind::File => TYPE_REGULAR_FILE,
        Kind::Directory => TYPE_DIRECTORY,
    }
}
