//! Calls on connections: they are streams of the gateways, not sockets of this machine.

use super::descriptors::{Descriptor, Fd, Target};
use super::errno::{Errno, Fail};
use super::file_calls::NONBLOCK;
use super::guest::{Guest, Pointer, Slice};
use crate::host::{Host, Patience};
use crate::sockets::{Received, Sent, Socket, Sockets};

const RECEIVE_PEEK: u32 = 1;
const SHUT_READ: u32 = 1;
const SHUT_WRITE: u32 = 2;

impl Host {
    pub(super) fn sock_accept(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        flags: u32,
        connection: Pointer,
    ) -> Result<(), Fail> {
        guest.slice(connection, 4)?;
        if flags & !u32::from(NONBLOCK) != 0 {
            return Err(Errno::INVAL.into());
        }
        let Descriptor { target, nonblocking } = self.descriptors.get(fd)?;
        let port = match *target {
            Target::Listener(port) => port,
            Target::Connection(_) => return Err(Errno::INVAL.into()),
            _ => return Err(Errno::NOTSOCK.into()),
        };
        if !self.descriptors.has_room() {
            return Err(Errno::MFILE.into());
        }
        let patience = patience(*nonblocking);
        let accepted = self.wait(patience, |sockets| sockets.accept(port))?;
        let socket = accepted.ok_or(Errno::AGAIN)?;
        let accepted = Target::Connection(socket);
        let new = self.descriptors.open(accepted, flags & u32::from(NONBLOCK) != 0)?;
        Ok(guest.set_u32(connection, new)?)
    }

    #[allow(clippy::too_many_arguments, reason = "WASI's own list")]
    pub(super) fn sock_recv(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        data: Pointer,
        count: u32,
        flags: u32,
        length: Pointer,
        roflags: Pointer,
    ) -> Result<(), Fail> {
        let buffers = guest.buffers(data, count)?;
        guest.slice(length, 4)?;
        guest.slice(roflags, 2)?;
        // Waiting for a full buffer is not offered: it is no more than a loop in the program.
        if flags & !RECEIVE_PEEK != 0 {
            return Err(Errno::NOTSUP.into());
        }
        let (socket, nonblocking) = self.connection(fd)?;
        let done = self.receive(guest, socket, nonblocking, flags & RECEIVE_PEEK != 0, &buffers)?;
        guest.set_u32(length, done as u32)?;
        Ok(guest.write(roflags, &[0, 0])?)
    }

    pub(super) fn sock_send(
        &mut self,
        guest: &mut Guest<'_>,
        fd: Fd,
        data: Pointer,
        count: u32,
        flags: u32,
        length: Pointer,
    ) -> Result<(), Fail> {
        let buffers = guest.buffers(data, count)?;
        guest.slice(length, 4)?;
        if flags != 0 {
            return Err(Errno::NOTSUP.into());
        }
        let (socket, nonblocking) = self.connection(fd)?;
        let done = self.send(guest, socket, nonblocking, &buffers)?;
        Ok(guest.set_u32(length, done as u32)?)
    }

    pub(super) fn sock_shutdown(
        &mut self,
        _: &mut Guest<'_>,
        fd: Fd,
        how: u32,
    ) -> Result<(), Fail> {
        if how == 0 || how & !(SHUT_READ | SHUT_WRITE) != 0 {
            return Err(Errno::INVAL.into());
        }
        let (socket, _) = self.connection(fd)?;
        let (read, write) = (how & SHUT_READ != 0, how & SHUT_WRITE != 0);
        self.at_sockets(|sockets| sockets.shut_down(socket, read, write));
        Ok(())
    }

    /// Reads what is there, into as many buffers as it fills.
    pub(super) fn receive(
        &mut self,
        guest: &mut Guest<'_>,
        socket: Socket,
        nonblocking: bool,
        peek: bool,
        buffers: &[Slice],
    ) -> Result<usize, Fail> {
        let Some((&first, rest)) = buffers.split_first() else { return Ok(0) };
        // Only the first buffer is ever peeked into; a short count is allowed.
        let rest = if peek { &[] } else { rest };
        let read = |sockets: &mut Sockets| {
            let into = guest.bytes_mut(first);
            let mut done = match sockets.read(socket, peek, into) {
                Received::Bytes(done) => done,
                Received::Nothing => return None,
                Received::End => return Some(Ok(0)),
                Received::Reset => return Some(Err(Errno::CONNRESET)),
            };
            let mut full = done == guest.bytes(first).len();
            for &buffer in rest {
                if !full {
                    break;
                }
                let into = guest.bytes_mut(buffer);
                match sockets.read(socket, false, into) {
                    Received::Bytes(more) => {
                        done += more;
                        full = more == guest.bytes(buffer).len();
                    }
                    _ => break,
                }
            }
            Some(Ok(done))
        };
        let done = self.wait(patience(nonblocking), read)?;
        Ok(done.ok_or(Errno::AGAIN)??)
    }

    /// Writes as much as there is room for.
    pub(super) fn send(
        &mut self,
        guest: &Guest<'_>,
        socket: Socket,
        nonblocking: bool,
        buffers: &[Slice],
    ) -> Result<usize, Fail> {
        if buffers.is_empty() {
            return Ok(0);
        }
        let write = |sockets: &mut Sockets| {
            let mut done = 0;
            for &buffer in buffers {
                let bytes = guest.bytes(buffer);
                match sockets.write(socket, bytes) {
                    Sent::Bytes(written) => {
                        done += written;
                        if written < bytes.len() {
                            break;
                        }
                    }
                    _ if done > 0 => break,
                    Sent::Nothing => return None,
                    Sent::Broken => return Some(Err(Errno::PIPE)),
                }
            }
            Some(Ok(done))
        };
        let done = self.wait(patience(nonblocking), write)?;
        Ok(done.ok_or(Errno::AGAIN)??)
    }

    pub(super) fn close_socket(&mut self, socket: Socket) {
        self.at_sockets(|sockets| sockets.close(socket));
    }

    fn connection(&self, fd: Fd) -> Result<(Socket, bool), Errno> {
        let descriptor = self.descriptors.get(fd)?;
        match descriptor.target {
            Target::Connection(socket) => Ok((socket, descriptor.nonblocking)),
            _ => Err(Errno::NOTSOCK),
        }
    }
}

fn patience(nonblocking: bool) -> Patience {
    if nonblocking { Patience::None } else { Patience::Endless }
}
