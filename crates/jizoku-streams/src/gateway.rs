//! The end beside the clients: one for each service on each node.
//!
//! It numbers the clients' connections, keeps their input until a committed checkpoint has consumed
//! it, and gives them output when that may be seen. It follows the service from instance to
//! instance; clients don't notice.
//!
//! What it does not know: sockets (an adapter reads and writes them), the mesh, why a service
//! moves.
//!
//! Invariants
//! - `held`: a client gets a byte only when the checkpoint that covers it is known to be committed.
//! - `free`: a client gets bytes at once; at a takeover its connection goes on only if the last of
//!   them lies in the restored history ([`crate::lineage`]), and is reset and counted otherwise.
//! - Input is kept until a committed checkpoint has consumed it. So at any takeover everything the
//!   restored program still needs is here.
//! - Messages are taken only from the instance that is followed, in the newest session, in order.
//! - There is one value for a service for the agent's whole life: counters and sessions never
//!   begin again within one incarnation.
//!
//! Limits: [`Limits`]; `CONNS_PER_GATEWAY_MAX` connections, of which `CONNS_WAITING_MAX` may wait
//! for their first instance; more are refused by [`GatewayEnd::open`]. A client that is read
//! although it was paused is reset when its window overflows.
//!
//! Driven by: `open` and `handle`, then `poll` until `None`; `Input::Tick` when `deadline` is over.

mod conn;
mod exchange;
mod resume;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use jizoku_types::event::ResetCause;
use jizoku_types::limits::{CONNS_PER_GATEWAY_MAX, CONNS_WAITING_MAX};
use jizoku_types::{ConnId, Epoch, GatewayId, Instant, NodeId, ServiceId, Span};

use self::conn::Conn;
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::limits::{ATTACH_FIRST, Limits, PROBE_AFTER};
use crate::lineage::Lineage;
use crate::message::{ToGateway, ToInstance};

/// What a gateway is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The catalog says who is active. What isn't newer than what is known is ignored; another
    /// branch replaces the one that was followed.
    Route {
        /// Where the instance is.
        active: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The service is stopped or removed: all connections are reset, and new ones refused.
    Unrouted,
    /// The manifest's output mode. The stricter one of this and the instance's own counts.
    Held(bool),
    /// A client sent bytes. At most a quarter of the window may come after `PauseReading`.
    FromClient {
        /// Which connection.
        conn: ConnId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A client will send nothing more.
    ClientEof {
        /// Which connection.
        conn: ConnId,
    },
    /// A client's connection is broken or was aborted.
    ClientReset {
        /// Which connection.
        conn: ConnId,
    },
    /// A client's socket took so many bytes of what `ToClient` gave.
    Wrote {
        /// Which connection.
        conn: ConnId,
        /// How many.
        count: usize,
    },
    /// A message of an instance, addressed to this gateway in this incarnation.
    Message {
        /// The node that sent it.
        from: NodeId,
        /// What.
        message: ToGateway,
    },
    /// A way to this node is there again, and something may have been lost meanwhile.
    LinkBack {
        /// Which node.
        node: NodeId,
    },
    /// Time has passed.
    Tick,
}

/// What a gateway wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message to the instance on this node.
    Send {
        /// Where.
        to: NodeId,
        /// What.
        message: ToInstance,
    },
    /// Write bytes to a client, after those before.
    ToClient {
        /// Which connection.
        conn: ConnId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Shut the direction to the client, after the bytes before.
    ClientFin {
        /// Which connection.
        conn: ConnId,
    },
    /// Both directions are over: close the socket after the bytes before. The connection is
    /// forgotten here; `Wrote` need not be told any more.
    CloseClient {
        /// Which connection.
        conn: ConnId,
    },
    /// Reset the client's connection. It is forgotten here.
    ResetClient {
        /// Which connection.
        conn: ConnId,
        /// Why; the adapter counts it.
        cause: ResetCause,
    },
    /// Stop reading this client.
    PauseReading {
        /// Which connection.
        conn: ConnId,
    },
    /// Read this client again.
    ReadMore {
        /// Which connection.
        conn: ConnId,
    },
    /// The first output of this epoch went to a client here.
    FirstOutput {
        /// Which epoch.
        epoch: Epoch,
    },
}

/// Why a connection is not taken. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The gateway has as many connections of this service as it may.
    Full,
    /// Too many already wait for the service to move.
    TooManyWaiting,
    /// The service is stopped.
    Stopped,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::Full => "the gateway has as many connections as it may",
            OpenError::TooManyWaiting => "too many connections already wait for the service",
            OpenError::Stopped => "the service is stopped",
        })
    }
}

impl core::error::Error for OpenError {}

/// What was dropped or broken off, since this end was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Messages of another service, epoch, node or session.
    pub stale: u64,
    /// Messages that had already been taken.
    pub duplicates: u64,
    /// Messages after a missing one; a new session was begun.
    pub gaps: u64,
    /// Breaches of the protocol: each cost a connection, or the message if it named none.
    pub violations: u64,
}

/// A connection as people may want to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnView {
    /// Its counter.
    pub counter: u64,
    /// Index of the service's port.
    pub port: u8,
    /// The client.
    pub peer: SocketAddr,
    /// Bytes that the client sent.
    pub input: u64,
    /// Bytes that were given to the client.
    pub output: u64,
    /// Bytes that arrived from the instance and wait for a commit.
    pub held: u64,
}

/// Where a gateway stands towards the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It knows no instance: connections wait.
    Unrouted,
    /// It has asked the instance to go on with its connections.
    Attaching,
    /// The session runs.
    Attached,
    /// The service is stopped.
    Stopped,
}

/// The gateway's end of all connections of one service.
#[derive(Debug)]
pub struct GatewayEnd {
    me: GatewayId,
    service: ServiceId,
    held: bool,
    limits: Limits,
    phase: Phase,
    /// The newest instance known.
    route: Option<(NodeId, Epoch)>,
    conns: BTreeMap<u64, Conn>,
    /// Counter of the newest connection.
    newest: u64,
    /// Connections that no instance has heard of yet.
    waiting: usize,
    input_total: usize,
    /// Clients that are paused only because the total is used up.
    paused_by_total: BTreeSet<u64>,
    session: Session,
    /// Connections with something to send, each once.
    queue: VecDeque<u64>,
    /// Connections whose client took output that isn't confirmed yet, each once.
    confirms: VecDeque<u64>,
    /// Connections that are over, for the instance.
    endings: Vec<u64>,
    /// Covers that are waited for, with the connection: in growing order of covers.
    uncommitted: VecDeque<(u64, u64)>,
    first_output_due: bool,
    outputs: VecDeque<Output>,
    now: Instant,
    timers: Timers,
    dropped: Dropped,
    #[cfg(any(test, feature = "faults"))]
    faults: Faults,
}

/// The exchange with one instance, from an attach to the next.
#[derive(Debug)]
struct Session {
    /// Grows for the gateway's whole life.
    id: u64,
    /// Highest number sent, acknowledged, and taken.
    number: u64,
    acked: u64,
    heard: u64,
    /// Highest committed number that the instance told.
    committed: u64,
    /// Whether this instance's output waits for commits.
    hold: bool,
    stateless: bool,
    lineage: Lineage,
    /// Newest connection when it began: those above were not in the attach.
    listed: u64,
    attach_due: bool,
    /// How long to wait for the answer before asking again.
    attach_patience: Span,
    confirm_due: bool,
    ack_due: bool,
    probe_due: bool,
    probe_patience: Span,
}

impl Session {
    fn new(id: u64, listed: u64) -> Session {
        Session {
            id,
            number: 0,
            acked: 0,
            heard: 0,
            committed: 0,
            hold: true,
            stateless: false,
            lineage: Lineage::fresh(Epoch::default()),
            listed,
            attach_due: true,
            attach_patience: ATTACH_FIRST,
            confirm_due: false,
            ack_due: false,
            probe_due: false,
            probe_patience: PROBE_AFTER,
        }
    }
}

/// When something has to be done although nothing happens.
#[derive(Debug, Default)]
struct Timers {
    /// Ask again to attach.
    attach: Option<Instant>,
    /// Send what was confirmed, alone.
    confirm: Option<Instant>,
    /// Acknowledge, alone.
    ack: Option<Instant>,
    /// Ask for an acknowledgement.
    probe: Option<Instant>,
}

impl GatewayEnd {
    /// The end of `service` at the gateway `me`, with the manifest's output mode.
    pub fn new(me: GatewayId, service: ServiceId, held: bool) -> GatewayEnd {
        GatewayEnd {
            me,
            service,
            held,
            limits: Limits::default(),
            phase: Phase::Unrouted,
            route: None,
            conns: BTreeMap::new(),
            newest: 0,
            waiting: 0,
            input_total: 0,
            paused_by_total: BTreeSet::new(),
            session: Session::new(0, 0),
            queue: VecDeque::new(),
            confirms: VecDeque::new(),
            endings: Vec::new(),
            uncommitted: VecDeque::new(),
            first_output_due: false,
            outputs: VecDeque::new(),
            now: Instant::ORIGIN,
            timers: Timers::default(),
            dropped: Dropped::default(),
            #[cfg(any(test, feature = "faults"))]
            faults: Faults::NONE,
        }
    }

    /// A client has connected to the service's port with this index. Connections are numbered in
    /// the order of these calls.
    pub fn open(&mut self, now: Instant, port: u8, peer: SocketAddr) -> Result<ConnId, OpenError> {
        if self.phase == Phase::Stopped {
            return Err(OpenError::Stopped);
        }
        if self.conns.len() >= CONNS_PER_GATEWAY_MAX {
            return Err(OpenError::Full);
        }
        if self.waiting >= CONNS_WAITING_MAX && self.phase != Phase::Attached {
            return Err(OpenError::TooManyWaiting);
        }
        self.tick(now);
        self.newest += 1;
        self.waiting += 1;
        self.conns.insert(self.newest, Conn::new(port, peer));
        self.queue_input(self.newest);
        Ok(self.id(self.newest))
    }

    /// Applies one input; then `poll` until `None`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.tick(now);
        match input {
            Input::Route { active, epoch } => self.route(active, epoch),
            Input::Unrouted => self.stop(),
            Input::Held(held) => self.set_held(held),
            Input::FromClient { conn, bytes } => self.take_input(conn.counter, &bytes),
            Input::ClientEof { conn } => self.client_eof(conn.counter),
            Input::ClientReset { conn } => self.end_conn(conn.counter),
            Input::Wrote { conn, count } => self.wrote(conn.counter, count),
            Input::Message { from, message } => self.take_message(from, message),
            Input::LinkBack { node } => self.link_back(node),
            Input::Tick => {}
        }
    }

    /// The next thing to do, if there is one. What is for clients comes before what is for the
    /// instance; for each client in its order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.next_message())
    }

    /// When `Input::Tick` is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let timers = &self.timers;
        let all = [timers.attach, timers.confirm, timers.ack, timers.probe];
        all.into_iter().flatten().min()
    }

    /// Where it stands towards the instance.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The newest epoch that it knows of.
    pub fn epoch(&self) -> Option<Epoch> {
        self.route.map(|(_, epoch)| epoch)
    }

    /// How many connections it has.
    pub fn conns(&self) -> usize {
        self.conns.len()
    }

    /// All connections, the oldest first.
    pub fn views(&self) -> impl Iterator<Item = ConnView> {
        self.conns.iter().map(|(counter, conn)| ConnView {
            counter: *counter,
            port: conn.port,
            peer: conn.peer,
            input: conn.input.end(),
            output: conn.released,
            held: conn.have - conn.released,
        })
    }

    /// Bytes of clients' input that it keeps.
    pub fn input_kept(&self) -> usize {
        self.input_total
    }

    /// What was dropped or broken off so far.
    pub fn dropped(&self) -> Dropped {
        self.dropped
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

    fn id(&self, counter: u64) -> ConnId {
        ConnId { gateway: self.me, counter }
    }

    /// What waits for a commit already goes on waiting until the next session.
    fn set_held(&mut self, held: bool) {
        self.held = held;
        self.session.hold |= held && !self.session.stateless;
    }

    fn take_input(&mut self, counter: u64, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        if bytes.is_empty() || conn.fin {
            return;
        }
        if conn.input.len() + bytes.len() > self.limits.input_window {
            // Its reader didn't pause: more can't be kept, and nothing may be left out.
            self.dropped.violations += 1;
            self.break_conn(counter, ResetCause::ByInstance);
            return;
        }
        conn.input.append(bytes);
        self.input_total += bytes.len();
        let full = conn.input.len() >= self.limits.input_window / 4 * 3;
        let total =
            self.input_total >= self.limits.input_total && conn.input.len() >= self.limits.share;
        if (full || total) && !core::mem::replace(&mut conn.paused, true) {
            if !full {
                self.paused_by_total.insert(counter);
            }
            self.outputs.push_back(Output::PauseReading { conn: self.id(counter) });
        }
        self.queue_input(counter);
    }

    fn client_eof(&mut self, counter: u64) {
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        conn.fin = true;
        self.queue_input(counter);
    }

    fn wrote(&mut self, counter: u64, count: usize) {
        let urgent = self.limits.output_window as u64 / 4;
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        conn.written = conn.written.saturating_add(count as u64).min(conn.released);
        if conn.written - conn.confirmed >= urgent {
            self.session.confirm_due = true;
        }
        self.queue_confirm(counter);
    }

    fn stop(&mut self) {
        let all: Vec<u64> = self.conns.keys().copied().collect();
        for counter in all {
            self.break_conn(counter, ResetCause::ServiceStopped);
        }
        self.phase = Phase::Stopped;
        self.timers = Timers::default();
        self.session = Session::new(self.session.id, self.newest);
        self.endings.clear();
    }

    /// Resets a client and forgets its connection.
    fn break_conn(&mut self, counter: u64, cause: ResetCause) {
        if self.conns.contains_key(&counter) {
            self.outputs.push_back(Output::ResetClient { conn: self.id(counter), cause });
            self.end_conn(counter);
        }
    }

    /// Forgets a connection, and tells the instance.
    fn end_conn(&mut self, counter: u64) {
        let Some(conn) = self.conns.remove(&counter) else { return };
        if !conn.offered {
            self.waiting -= 1;
        }
        self.paused_by_total.remove(&counter);
        self.input_dropped(conn.input.len());
        // What the attach under way doesn't list, its instance doesn't have.
        if self.phase == Phase::Attached || counter <= self.session.listed {
            self.endings.push(counter);
        }
    }

    /// Kept input became less: clients that wait for that are read again.
    fn input_dropped(&mut self, count: usize) {
        self.input_total -= count;
        if self.paused_by_total.is_empty() || self.input_total > self.limits.input_total / 4 * 3 {
            return;
        }
        for counter in core::mem::take(&mut self.paused_by_total) {
            if let Some(conn) = self.conns.get_mut(&counter) {
                conn.paused = false;
                self.outputs.push_back(Output::ReadMore { conn: self.id(counter) });
            }
        }
    }
}
