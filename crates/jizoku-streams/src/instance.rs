//! The end beside the program: it is the program's socket table.
//!
//! It lives in the engine's thread. The engine serves each socket call of the program from it,
//! gives it the gateways' messages, and drains [`InstanceEnd::poll`] after either. A checkpoint
//! takes its state with the program's, so both always fit together.
//!
//! What it does not know: the program, descriptors, checkpoints' blocks, who is a holder, leases.
//!
//! Invariants
//! - The state holds what the program believes and what clients may still lack: for each connection
//!   the input consumed, the output produced, and the output's bytes that no gateway has confirmed.
//!   Input that the program hasn't read is not in it: the gateway still has that.
//! - Output is marked with the first checkpoint that holds its having been produced (`cover`).
//! - A gateway is told to forget input only when a committed checkpoint has consumed it.
//! - A [`Socket`] keeps its number until the program closes it; numbers depend on the order of
//!   calls and messages only, and are part of the state.
//! - A connection leaves the table when the program has closed it and its gateway is done with it.
//!
//! Limits: [`Limits`]; `CONNS_PER_GATEWAY_MAX` connections of each gateway (more are refused),
//! [`GATEWAYS_MAX`](crate::limits::GATEWAYS_MAX) gateways (messages of more are dropped).
//!
//! Driven by: the program's calls and `handle`, `gateway_gone`, `advance`; then `poll` until
//! `None`.
//! [`InstanceEnd::deadline`] says when to call `advance` although nothing happened.

mod conn;
mod exchange;
mod peer;
mod state;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use jizoku_types::{ConnId, Epoch, GatewayId, Instant, ServiceId};

use self::conn::{Conn, Slots};
use self::peer::{Peer, Timer};
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::limits::Limits;
use crate::lineage::Lineage;

pub use self::state::RestoreError;

/// Who an instance is, for its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its service.
    pub service: ServiceId,
    /// Its epoch: of this one run of the program, and no other.
    pub epoch: Epoch,
    /// Whether clients get output only when it is committed.
    pub held: bool,
    /// Whether its state is checkpointed. If not (`exec`), input counts as consumed for good when
    /// it is read, and no connection that was used goes on after it.
    pub survives: bool,
}

/// A connection, as the program's side names it. Given out again after the program closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket(pub u32);

/// What reading gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes; none only if none were asked for.
    Data(Vec<u8>),
    /// The client sends nothing more, or the program shut this direction.
    Eof,
    /// The connection is broken.
    Reset,
    /// Nothing there yet.
    WouldBlock,
}

/// What reading into a place gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadInto {
    /// So many bytes were put there; none only if there was no room.
    Data(usize),
    /// As [`Read::Eof`].
    Eof,
    /// As [`Read::Reset`].
    Reset,
    /// As [`Read::WouldBlock`].
    WouldBlock,
}

/// What writing gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// So many of the bytes were taken; fewer than given if the window is nearly full.
    Written(usize),
    /// The window is full.
    WouldBlock,
    /// The program itself has shut this direction.
    Closed,
    /// The connection is broken.
    Reset,
}

/// What reading would find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes that are there.
    pub bytes: usize,
    /// After these bytes the input ends.
    pub eof: bool,
    /// The connection is broken.
    pub reset: bool,
}

impl Readiness {
    /// Whether a read would not block.
    pub fn ready(&self) -> bool {
        self.bytes > 0 || self.eof || self.reset
    }
}

/// Which direction to shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The program reads nothing more.
    Read,
    /// The program writes nothing more: the client sees the end.
    Write,
    /// Both.
    Both,
}

/// What came in that was dropped, since this end was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Messages of another service, epoch or session, or of a replaced gateway.
    pub stale: u64,
    /// Messages that had already been taken.
    pub duplicates: u64,
    /// Messages after a missing one; the session is begun anew.
    pub gaps: u64,
    /// Breaches of the protocol: each cost a connection, or the message if it named none.
    pub violations: u64,
}

/// The instance's end of all its connections.
#[derive(Debug)]
pub struct InstanceEnd {
    identity: Identity,
    limits: Limits,
    lineage: Lineage,
    ports: Vec<Port>,
    slots: Slots,
    peers: Vec<Peer>,
    peer_index: BTreeMap<GatewayId, u16>,
    /// Peers that may have something to say.
    ready: VecDeque<u16>,
    /// Number of the last capture.
    captured: u64,
    committed: u64,
    /// Captures that wait for their commit.
    captures: VecDeque<Capture>,
    /// Encoded connection records, patched at each capture.
    records: Vec<u8>,
    /// Slots whose record is out of date.
    dirty: BTreeSet<u32>,
    with_output: BTreeSet<u32>,
    output_total: usize,
    changed: bool,
    output_waits: bool,
    quarantine: bool,
    now: Instant,
    acks: Timer,
    probes: Timer,
    dropped: Dropped,
    #[cfg(any(test, feature = "faults"))]
    faults: Faults,
}

/// Connections of one port that wait to be accepted.
#[derive(Debug, Default)]
struct Port {
    /// Slot and serial number, in the order of their opening; some are gone already.
    queue: VecDeque<(u32, u64)>,
    /// How many of them are still there.
    waiting: usize,
}

/// What a capture holds that its commit will tell the gateways.
#[derive(Debug)]
struct Capture {
    seq: u64,
    /// Slot, serial number, and consumed offset of connections that consumed since the one before.
    consumed: Vec<(u32, u64, u64)>,
}

impl InstanceEnd {
    /// The socket table of a program at its beginning, with this many listening ports.
    pub fn new(identity: Identity, ports: usize) -> InstanceEnd {
        InstanceEnd {
            identity,
            limits: Limits::default(),
            lineage: Lineage::fresh(identity.epoch),
            ports: (0..ports).map(|_| Port::default()).collect(),
            slots: Slots::default(),
            peers: Vec::new(),
            peer_index: BTreeMap::new(),
            ready: VecDeque::new(),
            captured: 0,
            committed: 0,
            captures: VecDeque::new(),
            records: Vec::new(),
            dirty: BTreeSet::new(),
            with_output: BTreeSet::new(),
            output_total: 0,
            changed: false,
            output_waits: false,
            quarantine: false,
            now: Instant::ORIGIN,
            acks: Timer::Off,
            probes: Timer::Off,
            dropped: Dropped::default(),
            #[cfg(any(test, feature = "faults"))]
            faults: Faults::NONE,
        }
    }

    /// How many connections wait to be accepted on `port`; 0 for a port that isn't there.
    pub fn pending(&self, port: usize) -> usize {
        self.ports.get(port).map_or(0, |port| port.waiting)
    }

    /// Takes the connection that has waited longest on `port`.
    pub fn accept(&mut self, port: usize) -> Option<Socket> {
        let port = self.ports.get_mut(port)?;
        while let Some((slot, serial)) = port.queue.pop_front() {
            let waits = |conn: &&mut Conn| conn.serial == serial && !conn.accepted;
            if let Some(conn) = self.slots.get_mut(slot).filter(waits) {
                conn.accepted = true;
                port.waiting -= 1;
                self.touch(slot);
                return Some(Socket(slot));
            }
        }
        None
    }

    /// The client's address. None for a socket that the program has closed.
    pub fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        self.open(socket).map(|conn| conn.address)
    }

    /// The index of the port that it was accepted on. None for a socket that was closed.
    pub fn port(&self, socket: Socket) -> Option<usize> {
        self.open(socket).map(|conn| usize::from(conn.port))
    }

    /// Which connection it is. None for a socket that was closed.
    pub fn conn_id(&self, socket: Socket) -> Option<ConnId> {
        self.open(socket).map(|conn| self.id_of(conn))
    }

    /// Takes at most `max` bytes. `Reset` also for a socket that was closed.
    pub fn read(&mut self, socket: Socket, max: usize) -> Read {
        let there = self.open(socket).map_or(0, |conn| conn.input.len());
        let mut bytes = alloc::vec![0; max.min(there)];
        // Room for one byte when there is none, so that "nothing there" isn't "none wanted".
        let mut none = [0];
        let room = if bytes.is_empty() && max > 0 { &mut none[..] } else { &mut bytes[..] };
        match self.read_into(socket, room, false) {
            ReadInto::Data(_) => Read::Data(bytes),
            ReadInto::Eof => Read::Eof,
            ReadInto::Reset => Read::Reset,
            ReadInto::WouldBlock => Read::WouldBlock,
        }
    }

    /// Puts bytes into `room`; with `peek` they stay to be read again.
    pub fn read_into(&mut self, socket: Socket, room: &mut [u8], peek: bool) -> ReadInto {
        let Some(conn) = self.open_mut(socket) else { return ReadInto::Reset };
        if conn.gone {
            return ReadInto::Reset;
        }
        if room.is_empty() {
            return ReadInto::Data(0);
        }
        if conn.read_shut {
            return ReadInto::Eof;
        }
        if conn.input.is_empty() {
            if conn.input_end.is_none() {
                return ReadInto::WouldBlock;
            }
            if !peek && !conn.eof_read {
                conn.eof_read = true;
                self.touch(socket.0);
            }
            return ReadInto::Eof;
        }
        let count = conn.input.peek_into(room);
        if !peek {
            self.consume(socket.0, count as u64);
        }
        ReadInto::Data(count)
    }

    /// Takes over as many of the bytes as the window lets.
    pub fn write(&mut self, socket: Socket, bytes: &[u8]) -> Write {
        let room = self.room(socket);
        let cover = self.captured + 1;
        let Some(conn) = self.open_mut(socket) else { return Write::Reset };
        if conn.gone {
            return Write::Reset;
        }
        if conn.fin.is_some() {
            return Write::Closed;
        }
        let count = bytes.len().min(room);
        if count == 0 {
            return if bytes.is_empty() { Write::Written(0) } else { Write::WouldBlock };
        }
        if conn.output.is_empty() {
            self.with_output.insert(socket.0);
        }
        let conn = self.slots.get_mut(socket.0).expect("it was there");
        conn.output.append(&bytes[..count]);
        self.output_total += count;
        self.produced(socket.0, cover);
        Write::Written(count)
    }

    /// What a read would find.
    pub fn readable(&self, socket: Socket) -> Readiness {
        let Some(conn) = self.open(socket).filter(|conn| !conn.gone) else {
            return Readiness { bytes: 0, eof: false, reset: true };
        };
        let eof = conn.read_shut || conn.input_end.is_some();
        let bytes = if conn.read_shut { 0 } else { conn.input.len() };
        Readiness { bytes, eof, reset: false }
    }

    /// How many bytes a write would take now. A broken or shut connection says 1: the write
    /// fails at once instead of waiting.
    pub fn writable(&self, socket: Socket) -> usize {
        match self.open(socket) {
            Some(conn) if !conn.gone && conn.fin.is_none() => self.room(socket),
            _ => 1,
        }
    }

    /// Shuts a direction. What was written before still reaches the client.
    pub fn shutdown(&mut self, socket: Socket, how: Shutdown) {
        let cover = self.captured + 1;
        let Some(conn) = self.open_mut(socket) else { return };
        if how != Shutdown::Write && !conn.read_shut {
            conn.read_shut = true;
            let rest = conn.input.len() as u64;
            self.consume(socket.0, rest);
        }
        let conn = self.slots.get_mut(socket.0).expect("it was there");
        if how != Shutdown::Read && conn.fin.is_none() && !conn.gone {
            conn.fin = Some(cover);
            self.produced(socket.0, cover);
        }
    }

    /// Ends the connection; what was written before still reaches the client. The socket is
    /// no longer valid.
    pub fn close(&mut self, socket: Socket) {
        self.shutdown(socket, Shutdown::Both);
        let cover = self.captured + 1;
        let Some(conn) = self.open_mut(socket) else { return };
        conn.closed = Some(cover);
        if conn.gone {
            self.free(socket.0);
            self.changed = true;
        } else {
            self.produced(socket.0, cover);
        }
    }

    /// Breaks the connection; output that the client doesn't have yet is dropped. The socket is
    /// no longer valid.
    pub fn reset(&mut self, socket: Socket) {
        let cover = self.captured + 1;
        let Some(conn) = self.open_mut(socket) else { return };
        conn.reset = Some(cover);
        self.forget_output(socket.0);
        self.close(socket);
    }

    /// Whether something waits for the next capture: `held` output that none covers yet, or a
    /// client whose window is half full of input that was consumed but is in no capture.
    pub fn output_waits(&self) -> bool {
        self.output_waits
    }

    /// Whether a call of the program has changed the state since the last capture.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Connections that got input in this epoch: if the program crashed, one of them may be why.
    pub fn poisonous(&self) -> Vec<ConnId> {
        let used = self.slots.iter().filter(|(_, conn)| conn.had_input && !conn.gone);
        used.map(|(_, conn)| self.id_of(conn)).collect()
    }

    /// From now on, each gateway's first attach resets the connections that had input after the
    /// restored checkpoint. Called right after restoring, when that checkpoint has led to two
    /// crashes. It asks the gateways, so it works on another node than the one of the crashes.
    pub fn quarantine(&mut self) {
        self.quarantine = true;
    }

    /// How many connections are in the table, with those that wait to be accepted or confirmed.
    pub fn conns(&self) -> usize {
        self.slots.iter().count()
    }

    /// What was dropped so far.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Other sizes than the default, for tests. Right after making it.
    #[cfg(any(test, feature = "faults"))]
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Plants bugs.
    #[cfg(any(test, feature = "faults"))]
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    #[cfg(any(test, feature = "faults"))]
    fn has_fault(&self, fault: Faults) -> bool {
        self.faults.has(fault)
    }

    fn id_of(&self, conn: &Conn) -> ConnId {
        ConnId { gateway: self.peers[usize::from(conn.peer)].id, counter: conn.counter }
    }

    /// The connection of a socket that the program may use.
    fn open(&self, socket: Socket) -> Option<&Conn> {
        self.slots.get(socket.0).filter(|conn| conn.accepted && conn.closed.is_none())
    }

    fn open_mut(&mut self, socket: Socket) -> Option<&mut Conn> {
        self.slots.get_mut(socket.0).filter(|conn| conn.accepted && conn.closed.is_none())
    }

    /// How many bytes of output fit.
    fn room(&self, socket: Socket) -> usize {
        let kept = self.open(socket).map_or(0, |conn| conn.output.len());
        let own = if self.output_total < self.limits.output_total {
            self.limits.output_window
        } else {
            self.limits.share
        };
        own.saturating_sub(kept)
    }

    /// The program's call changed this connection.
    fn touch(&mut self, slot: u32) {
        self.changed = true;
        self.dirty.insert(slot);
    }

    /// Output, or its end, that `cover` will hold.
    fn produced(&mut self, slot: u32, cover: u64) {
        debug_assert_eq!(cover, self.captured + 1);
        self.touch(slot);
        self.output_waits |= self.identity.held;
        self.queue_output(slot);
    }

    /// The program has taken `count` bytes.
    fn consume(&mut self, slot: u32, count: u64) {
        let Some(conn) = self.slots.get_mut(slot) else { return };
        conn.input.discard_to(conn.input.base() + count);
        let consumed = conn.input.base();
        let uncovered = consumed.saturating_sub(conn.captured);
        let at_once = !self.identity.survives;
        #[cfg(any(test, feature = "faults"))]
        let at_once = at_once || self.faults.has(Faults::INPUT_DROPPED_AT_CONSUMPTION);
        if at_once {
            conn.safe = consumed;
            self.consumed_at_once(slot, count);
        } else if uncovered >= self.limits.input_window as u64 / 2 {
            self.output_waits = true;
        }
        self.touch(slot);
    }

    /// Drops all output of a connection that nobody will get.
    fn forget_output(&mut self, slot: u32) {
        let Some(conn) = self.slots.get_mut(slot) else { return };
        let end = conn.output.end();
        self.output_total -= conn.output.restart(end);
        conn.covers.clear();
        conn.sent = end;
        self.with_output.remove(&slot);
        self.dirty.insert(slot);
    }

    /// Takes a connection out of the table.
    fn free(&mut self, slot: u32) {
        self.forget_output(slot);
        let Some(conn) = self.slots.remove(slot) else { return };
        let peer = &mut self.peers[usize::from(conn.peer)];
        peer.references -= 1;
        if peer.conns.get(&conn.counter) == Some(&slot) {
            peer.conns.remove(&conn.counter);
        }
        if !conn.accepted {
            self.ports[usize::from(conn.port)].waiting -= 1;
        }
    }
}
