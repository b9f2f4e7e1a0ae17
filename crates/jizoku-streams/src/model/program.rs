//! The program of the model: it transforms what clients send, in random pieces.
//!
//! For each input byte it writes [`UNIT`] bytes: the byte changed, and two that differ at each
//! execution, as those of a program do that reads the clock. Beside that, each written byte has a
//! stamp that no execution gives again: by it the checks know which history a byte is of, even if
//! two histories chance to agree.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::ConnId;

use crate::dice::Dice;
use crate::instance::{InstanceEnd, Read, ReadInto, Shutdown, Socket, Write};

/// Output bytes for one input byte.
pub(super) const UNIT: usize = 3;

/// What the program remembers of a connection, closed ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) input: Vec<u8>,
    pub(super) eof: bool,
    pub(super) output: Vec<u8>,
    /// Of each output byte, and of its end.
    pub(super) stamps: Vec<u32>,
    pub(super) fin_stamp: u32,
    /// Computed and not written yet.
    unwritten: Vec<u8>,
    pub(super) fin: bool,
    pub(super) closed: bool,
    pub(super) reset: bool,
    /// The program found the connection broken.
    pub(super) broken: bool,
}

/// The program's memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    sockets: Vec<(Socket, ConnId)>,
    pub(super) logs: BTreeMap<ConnId, Log>,
}

impl Program {
    /// Does one random thing. `stamp` differs at each use. Without `wild`, it only serves.
    /// Says which connection it used.
    pub(super) fn step(
        &mut self,
        end: &mut InstanceEnd,
        dice: &mut Dice,
        stamp: &mut u32,
        wild: bool,
    ) -> Result<Option<ConnId>, String> {
        let port = dice.below(3);
        if (dice.permille(300) || !wild)
            && let Some(socket) = end.accept(port)
        {
            let id = end.conn_id(socket).ok_or("an accepted socket has no connection")?;
            if self.sockets.iter().any(|&(other, _)| other == socket) {
                return Err(format!("{socket:?} was given out twice"));
            }
            if self.logs.contains_key(&id) {
                return Err(format!("{id:?} was opened twice"));
            }
            self.sockets.push((socket, id));
            self.logs.insert(id, Log::default());
        }
        if self.sockets.is_empty() {
            return Ok(None);
        }
        let at = dice.below(self.sockets.len());
        let id = self.sockets[at].1;
        self.serve(at, end, dice, stamp, wild)?;
        Ok(Some(id))
    }

    fn serve(
        &mut self,
        at: usize,
        end: &mut InstanceEnd,
        dice: &mut Dice,
        stamp: &mut u32,
        wild: bool,
    ) -> Result<(), String> {
        let (socket, id) = self.sockets[at];
        let log = self.logs.get_mut(&id).expect("each socket has a log");
        if end.conn_id(socket) != Some(id) {
            return Err(format!("{socket:?} became another connection than {id:?}"));
        }
        if wild && dice.permille(15) {
            match dice.below(3) {
                0 => {
                    end.reset(socket);
                    log.reset = true;
                    self.sockets.swap_remove(at);
                    return Ok(());
                }
                1 => {
                    end.shutdown(socket, Shutdown::Write);
                    log.finish(stamp);
                    log.unwritten.clear();
                }
                _ => return self.close(at, end, stamp),
            }
        }
        read(socket, log, end, dice, stamp)?;
        if !log.fin && !log.broken {
            write(socket, log, end, dice, stamp)?;
        }
        let done = log.eof && (log.unwritten.is_empty() || log.fin);
        if log.broken || (done && (!wild || dice.permille(300))) {
            return self.close(at, end, stamp);
        }
        Ok(())
    }

    fn close(&mut self, at: usize, end: &mut InstanceEnd, stamp: &mut u32) -> Result<(), String> {
        let (socket, id) = self.sockets.swap_remove(at);
        end.close(socket);
        if end.conn_id(socket).is_some() {
            return Err(format!("{socket:?} is open after it was closed"));
        }
        let log = self.logs.get_mut(&id).expect("each socket has a log");
        log.closed = true;
        log.finish(stamp);
        Ok(())
    }
}

impl Log {
    fn finish(&mut self, stamp: &mut u32) {
        if !core::mem::replace(&mut self.fin, true) {
            *stamp += 1;
            self.fin_stamp = *stamp;
        }
    }
}

fn read(
    socket: Socket,
    log: &mut Log,
    end: &mut InstanceEnd,
    dice: &mut Dice,
    stamp: &mut u32,
) -> Result<(), String> {
    let max = 1 + dice.below(40);
    let mut peeked = alloc::vec![0; max];
    let peek = end.read_into(socket, &mut peeked, true);
    let ready = end.readable(socket);
    match end.read(socket, max) {
        Read::Data(bytes) => {
            if peek != ReadInto::Data(bytes.len()) || peeked[..bytes.len()] != bytes {
                return Err(format!("peeking gave {peek:?}, reading {} bytes", bytes.len()));
            }
            if ready.bytes < bytes.len() || log.eof || bytes.is_empty() {
                return Err(format!("read {} bytes, ready were {ready:?}", bytes.len()));
            }
            for &byte in &bytes {
                *stamp += 1;
                let [low, high, ..] = stamp.to_le_bytes();
                log.unwritten.extend([byte ^ 0x5a, low, high]);
            }
            log.input.extend(bytes);
        }
        Read::Eof => log.eof = true,
        Read::Reset => log.broken = true,
        Read::WouldBlock if ready.ready() => return Err(format!("blocks though {ready:?}")),
        Read::WouldBlock => {}
    }
    Ok(())
}

fn write(
    socket: Socket,
    log: &mut Log,
    end: &mut InstanceEnd,
    dice: &mut Dice,
    stamp: &mut u32,
) -> Result<(), String> {
    let wanted = dice.below(60).min(log.unwritten.len());
    let room = end.writable(socket);
    match end.write(socket, &log.unwritten[..wanted]) {
        Write::Written(count) => {
            if count != wanted.min(room) {
                return Err(format!("wrote {count} of {wanted} with room for {room}"));
            }
            *stamp += 1;
            log.output.extend(log.unwritten.drain(..count));
            log.stamps.resize(log.output.len(), *stamp);
        }
        Write::WouldBlock if room == 0 => {}
        Write::Reset => log.broken = true,
        other => return Err(format!("{other:?} with room for {room}")),
    }
    Ok(())
}
