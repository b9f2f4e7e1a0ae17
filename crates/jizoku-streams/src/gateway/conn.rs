//! One connection at the gateway.
//!
//! What it does not know: messages, sessions' numbers, other connections.
//!
//! Invariants
//! - `input.base() <= sent <= input.end()` while attached.
//! - `confirmed <= written <= released <= have`: what the instance was told, what the client took,
//!   what was given to it, what arrived. `pending` holds exactly `[released, have)`, in order.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use jizoku_types::Epoch;

use crate::buffer::StreamBuffer;
use crate::lineage::Mark;

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) port: u8,
    pub(super) peer: SocketAddr,
    /// Input that no committed checkpoint has consumed.
    pub(super) input: StreamBuffer,
    /// Nothing follows the input.
    pub(super) fin: bool,
    /// Input sent in this session.
    pub(super) sent: u64,
    pub(super) fin_sent: bool,
    /// The instance of this session has it.
    pub(super) opened: bool,
    /// Some instance may have it, and how much input it was ever sent.
    pub(super) offered: bool,
    pub(super) sent_ever: u64,
    pub(super) fin_sent_ever: bool,
    /// The stateless instance's epoch that got input last.
    pub(super) used_by: Option<Epoch>,
    /// Output that arrived and isn't released, each with its cover.
    pub(super) pending: VecDeque<(u64, Pending)>,
    pub(super) have: u64,
    /// Where the output ends, and whether `Close` and `Reset` arrived.
    pub(super) end: Option<u64>,
    pub(super) close_had: bool,
    pub(super) reset_had: bool,
    pub(super) released: u64,
    pub(super) fin_released: bool,
    /// When the last released output was produced.
    pub(super) mark: Option<Mark>,
    pub(super) written: u64,
    pub(super) confirmed: u64,
    /// Highest cover for which it is in the gateway's list.
    pub(super) listed_cover: u64,
    pub(super) queued: bool,
    pub(super) confirm_queued: bool,
    pub(super) paused: bool,
}

/// Output that isn't released yet.
#[derive(Debug)]
pub(super) enum Pending {
    Bytes(Vec<u8>),
    Fin,
    Close,
    Reset,
}

impl Conn {
    pub(super) fn new(port: u8, peer: SocketAddr) -> Conn {
        Conn {
            port,
            peer,
            input: StreamBuffer::default(),
            fin: false,
            sent: 0,
            fin_sent: false,
            opened: false,
            offered: false,
            sent_ever: 0,
            fin_sent_ever: false,
            used_by: None,
            pending: VecDeque::new(),
            have: 0,
            end: None,
            close_had: false,
            reset_had: false,
            released: 0,
            fin_released: false,
            mark: None,
            written: 0,
            confirmed: 0,
            listed_cover: 0,
            queued: false,
            confirm_queued: false,
            paused: false,
        }
    }

    /// Drops output that wasn't released: another instance will produce its own.
    pub(super) fn drop_pending(&mut self) {
        self.pending.clear();
        self.have = self.released;
        self.end = self.fin_released.then_some(self.released);
        self.close_had = false;
        self.reset_had = false;
    }

    /// Whether there is something to send.
    pub(super) fn has_input(&self) -> bool {
        !self.opened || self.sent < self.input.end() || (self.fin && !self.fin_sent)
    }

    /// Whether nothing of it was ever used up: it can begin anew with all its input.
    pub(super) fn is_untouched(&self) -> bool {
        self.input.base() == 0 && self.released == 0 && !self.fin_released
    }

    /// The next pending output if it is covered.
    pub(super) fn next_covered(&mut self, committed: u64) -> Option<(u64, Pending)> {
        if self.pending.front()?.0 > committed {
            return None;
        }
        self.pending.pop_front()
    }
}
