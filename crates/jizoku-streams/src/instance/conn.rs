//! One connection at the instance, and the table of all of them.
//!
//! What it does not know: messages, gateways, when a checkpoint is taken.
//!
//! Invariants
//! - `safe <= captured <= input.base()`: committed, captured and consumed input.
//! - `output.base() <= sent <= output.end()` while its gateway is attached.
//! - `covers` is in growing order, in both numbers, and speaks of unconfirmed bytes only.
//! - A freed slot is given out again, lowest first, so the table stays dense.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use crate::buffer::StreamBuffer;
use crate::limits::{COVERS_MAX, MESSAGE_FRAMES_MAX};
use crate::message::{Bytes, GatewayFrame};

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    /// Index of its gateway.
    pub(super) peer: u16,
    pub(super) counter: u64,
    pub(super) port: u8,
    pub(super) address: SocketAddr,
    /// Differs for each connection that a slot ever had.
    pub(super) serial: u64,
    /// Received and not consumed; its base is what the program has consumed.
    pub(super) input: StreamBuffer,
    /// Where the input ends, once known.
    pub(super) input_end: Option<u64>,
    /// Produced and not confirmed; its base is what the gateway has confirmed.
    pub(super) output: StreamBuffer,
    /// For output in captures: up to which offset which capture is the first to hold it.
    pub(super) covers: VecDeque<(u64, u64)>,
    /// The program ended its output; which checkpoint holds that.
    pub(super) fin: Option<u64>,
    /// The program closed or reset it; which checkpoint holds that.
    pub(super) closed: Option<u64>,
    /// The program reset it; which checkpoint holds that.
    pub(super) reset: Option<u64>,
    /// Output sent in this session.
    pub(super) sent: u64,
    pub(super) fin_sent: bool,
    pub(super) close_sent: bool,
    pub(super) reset_sent: bool,
    /// Consumed input in the last capture.
    pub(super) captured: u64,
    /// Consumed input in the last committed capture.
    pub(super) safe: u64,
    pub(super) accepted: bool,
    /// The gateway no longer has it: broken for the program.
    pub(super) gone: bool,
    pub(super) eof_read: bool,
    pub(super) read_shut: bool,
    /// It got input in this epoch.
    pub(super) had_input: bool,
    /// It is in its peer's queue of output.
    pub(super) queued: bool,
    /// It is in its peer's queue of consumption news.
    pub(super) news: bool,
}

impl Conn {
    pub(super) fn new(peer: u16, counter: u64, port: u8, address: SocketAddr) -> Conn {
        Conn {
            peer,
            counter,
            port,
            address,
            serial: 0,
            input: StreamBuffer::default(),
            input_end: None,
            output: StreamBuffer::default(),
            covers: VecDeque::new(),
            fin: None,
            closed: None,
            reset: None,
            sent: 0,
            fin_sent: false,
            close_sent: false,
            reset_sent: false,
            captured: 0,
            safe: 0,
            accepted: false,
            gone: false,
            eof_read: false,
            read_shut: false,
            had_input: false,
            queued: false,
            news: false,
        }
    }

    /// All output so far is held by the capture `seq`, or by earlier ones as noted.
    pub(super) fn cover_output(&mut self, seq: u64) {
        let end = self.output.end();
        let covered = self.covers.back().map_or(self.output.base(), |&(end, _)| end);
        if end > covered {
            if self.covers.len() == COVERS_MAX {
                self.covers.pop_front();
            }
            self.covers.push_back((end, seq));
        }
    }

    /// The client has the output up to `offset`. Returns how many bytes were dropped.
    pub(super) fn confirm(&mut self, offset: u64) -> usize {
        let count = self.output.discard_to(offset);
        let base = self.output.base();
        while self.covers.front().is_some_and(|&(end, _)| end <= base) {
            self.covers.pop_front();
        }
        count
    }

    /// Which capture is the first to hold the byte at `offset`, and up to where that is so.
    fn cover_of(&self, offset: u64, next: u64) -> (u64, u64) {
        let mark = self.covers.iter().find(|&&(end, _)| end > offset);
        mark.map_or((next, u64::MAX), |&(end, seq)| (seq, end))
    }

    /// Begins to send again from `have` on, in a new session.
    pub(super) fn rewind(&mut self, have: u64) {
        self.sent = have.clamp(self.output.base(), self.output.end());
        self.fin_sent = false;
        self.close_sent = false;
        self.reset_sent = false;
    }

    /// Whether there is something to send.
    pub(super) fn has_output(&self) -> bool {
        if self.gone {
            return false;
        }
        if self.reset.is_some() {
            return !self.reset_sent;
        }
        self.sent < self.output.end()
            || (self.fin.is_some() && !self.fin_sent)
            || (self.closed.is_some() && !self.close_sent)
    }

    /// Adds what is to be sent: at most `room` bytes, in parts of at most `chunk`. `next` is the
    /// number of the next capture.
    pub(super) fn send(
        &mut self,
        frames: &mut Vec<GatewayFrame>,
        room: &mut usize,
        chunk: usize,
        next: u64,
    ) {
        let counter = self.counter;
        if let Some(cover) = self.reset {
            frames.push(GatewayFrame::Reset { counter, cover });
            self.reset_sent = true;
            return;
        }
        // Two places are left for the ends.
        while self.sent < self.output.end() && *room > 0 && frames.len() + 2 < MESSAGE_FRAMES_MAX {
            let offset = self.sent;
            let (cover, until) = self.cover_of(offset, next);
            let most = usize::try_from(until - offset).unwrap_or(usize::MAX);
            let bytes = self.output.copy_from(offset, chunk.min(*room).min(most));
            *room -= bytes.len();
            self.sent += bytes.len() as u64;
            frames.push(GatewayFrame::Data { counter, offset, cover, bytes: Bytes(bytes) });
        }
        if self.sent < self.output.end() {
            return;
        }
        if let Some(cover) = self.fin.filter(|_| !self.fin_sent) {
            frames.push(GatewayFrame::Fin { counter, offset: self.output.end(), cover });
            self.fin_sent = true;
        }
        if let Some(cover) = self.closed.filter(|_| !self.close_sent) {
            frames.push(GatewayFrame::Close { counter, cover });
            self.close_sent = true;
        }
    }
}

/// All connections, by the number that is also their socket.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Conn>>,
    free: BinaryHeap<Reverse<u32>>,
    serials: u64,
}

impl Slots {
    pub(super) fn get(&self, slot: u32) -> Option<&Conn> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// How many slots there are, with empty ones.
    pub(super) fn extent(&self) -> usize {
        self.slots.len()
    }

    /// Puts a connection into the lowest free slot.
    pub(super) fn insert(&mut self, conn: Conn) -> u32 {
        let slot = match self.free.pop() {
            Some(Reverse(slot)) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("limits keep the table small")
            }
        };
        self.put(slot, conn);
        slot
    }

    /// Puts a connection into a slot that is empty, extending the table if need be. The holes
    /// become free by [`Slots::close_holes`].
    pub(super) fn put(&mut self, slot: u32, mut conn: Conn) {
        let index = slot as usize;
        while self.slots.len() <= index {
            self.slots.push(None);
        }
        self.serials += 1;
        conn.serial = self.serials;
        debug_assert!(self.slots[index].is_none(), "the slot is taken");
        self.slots[index] = Some(conn);
    }

    /// Makes all empty slots free, after the table was filled by `put`.
    pub(super) fn close_holes(&mut self) {
        let empty = |slot: &u32| self.slots[*slot as usize].is_none();
        self.free = (0..self.slots.len() as u32).filter(empty).map(Reverse).collect();
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Conn> {
        let conn = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(Reverse(slot));
        Some(conn)
    }

    /// All connections with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(slot, conn)| conn.as_ref().map(|conn| (slot as u32, conn)))
    }
}
