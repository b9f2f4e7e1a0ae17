//! Captures, their commit, and going on from one.
//!
//! The encoded state, all numbers little endian:
//!
//! | part | size | content |
//! |---|---|---|
//! | head | 32 | version, counts of reigns, gateways and records (4 each); seq, output bytes (8
//! each) |
//! | reigns | 32 * `LINEAGE_MAX` | branch (16), counter (8), restored from (8); unused ones zero |
//! | gateways | 48 each | node (32), incarnation (8), highest counter (8) |
//! | records | 56 each | see [`encode_record`]; a free slot is all zero |
//! | output | | unconfirmed output, by slot |
//!
//! Records have a fixed place, so that an unchanged connection leaves its block unchanged, and an
//! idle connection costs 56 bytes.
//!
//! What it does not know: blocks, diffs, who holds the state.
//!
//! Invariant: a state that can't be one of this version is refused whole; decoding never panics and
//! allocates no more than the state's own size allows.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use jizoku_types::limits::{CONNS_PER_GATEWAY_MAX, OUTPUT_WINDOW};
use jizoku_types::{BranchId, Epoch, GatewayId, Incarnation, NodeId};

use super::conn::Conn;
use super::peer::Peer;
use super::{Capture, Identity, InstanceEnd};
use crate::buffer::StreamBuffer;
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::limits::{CAPTURES_MAX, GATEWAYS_MAX, LINEAGE_MAX};
use crate::lineage::{Lineage, Reign};

const VERSION: u32 = 1;
const RECORD: usize = 56;
/// The number of records grows by this many, so that the output behind them seldom moves.
const RECORDS_STEP: usize = 64;

const USED: u16 = 1;
const ACCEPTED: u16 = 1 << 1;
const FIN: u16 = 1 << 2;
const CLOSED: u16 = 1 << 3;
const RESET: u16 = 1 << 4;
const EOF_READ: u16 = 1 << 5;
const READ_SHUT: u16 = 1 << 6;
const GONE: u16 = 1 << 7;
const IPV6: u16 = 1 << 8;

/// Why a state can't be gone on from. Nothing was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It was written in this version, which this build can't read.
    Version(u32),
    /// It ends too early, or has bytes left over.
    Length,
    /// It contradicts itself.
    Inconsistent,
    /// It was captured as this checkpoint, not as the one that was asked for.
    Seq(u64),
    /// It was captured in the epoch that it shall be restored in. Every run of a program needs an
    /// epoch of its own: otherwise clients could not tell its output from that of the last run.
    SameEpoch,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Version(version) => {
                write!(f, "the sockets' state is of version {version}, expected {VERSION}")
            }
            RestoreError::Length => f.write_str("the sockets' state has a wrong length"),
            RestoreError::Inconsistent => f.write_str("the sockets' state contradicts itself"),
            RestoreError::Seq(seq) => write!(f, "the sockets' state is of checkpoint {seq}"),
            RestoreError::SameEpoch => {
                f.write_str("the sockets' state is of the same epoch; a restart needs a new one")
            }
        }
    }
}

impl core::error::Error for RestoreError {}

impl InstanceEnd {
    /// Encodes the state as checkpoint `seq`. Work and size grow with the number of
    /// connections (56 bytes each) and the unconfirmed output.
    ///
    /// # Panics
    /// If `seq` isn't one above the last capture, or the state it was restored from.
    pub fn capture(&mut self, seq: u64) -> Vec<u8> {
        assert_eq!(seq, self.captured + 1, "captures are numbered without gaps");
        let consumed = self.note_covered(seq);
        self.captures.push_back(Capture { seq, consumed });
        if self.captures.len() > CAPTURES_MAX {
            // The oldest is then told with the next: later, which is safe.
            if let (Some(oldest), Some(next)) =
                (self.captures.pop_front(), self.captures.front_mut())
            {
                next.consumed.splice(0..0, oldest.consumed);
            }
        }
        self.captured = seq;
        self.changed = false;
        self.output_waits = false;
        self.encode(seq)
    }

    /// The checkpoint `seq` and all before it are committed: gateways are told what they may give
    /// to clients and what they may forget. Also called with the restored number, once that
    /// checkpoint is committed in this epoch.
    ///
    /// # Panics
    /// If `seq` was never captured here, nor restored.
    pub fn committed(&mut self, seq: u64) {
        assert!(seq <= self.captured, "only a captured state can be committed");
        if seq <= self.committed {
            return;
        }
        self.committed = seq;
        while self.captures.front().is_some_and(|capture| capture.seq <= seq) {
            let Some(capture) = self.captures.pop_front() else { break };
            for (slot, serial, consumed) in capture.consumed {
                self.consumption_committed(slot, serial, consumed);
            }
        }
        for index in 0..self.peers.len() as u16 {
            let peer = self.peer(index);
            if peer.attached && (peer.cover_sent > peer.told || !peer.news.is_empty()) {
                self.wake(index);
            }
        }
    }

    /// Goes on from a state that [`InstanceEnd::capture`] gave as checkpoint `seq`. The identity's
    /// epoch is the new one; it must be of this run alone.
    ///
    /// # Panics
    /// If the identity says that its state doesn't survive.
    pub fn restore(
        identity: Identity,
        ports: usize,
        seq: u64,
        state: &[u8],
    ) -> Result<InstanceEnd, RestoreError> {
        assert!(identity.survives, "a stateless instance has nothing to restore");
        let mut end = InstanceEnd::new(identity, ports);
        end.decode(seq, state)?;
        end.captured = seq;
        end.lineage.go_on(identity.epoch, seq);
        let all = end.slots.iter().map(|(slot, conn)| (slot, conn.serial, conn.input.base()));
        let consumed = all.collect();
        end.captures.push_back(Capture { seq, consumed });
        for index in 0..end.peers.len() as u16 {
            let (newest, _) = end.newest_of(end.peers[usize::from(index)].id).expect("it is there");
            let peer = end.peer(index);
            peer.gone = newest != peer.id;
            peer.hello_due = !peer.gone;
            end.wake(index);
        }
        Ok(end)
    }

    /// Updates the records, and notes for each changed connection which output the capture
    /// covers. Gives what was consumed since the capture before.
    fn note_covered(&mut self, seq: u64) -> Vec<(u32, u64, u64)> {
        let mut all = Vec::new();
        let extent = self.slots.extent().next_multiple_of(RECORDS_STEP);
        self.records.resize(extent * RECORD, 0);
        for slot in core::mem::take(&mut self.dirty) {
            let at = slot as usize * RECORD;
            let Some(record) = self.records.get_mut(at..at + RECORD) else { continue };
            let Some(conn) = self.slots.get_mut(slot) else {
                record.fill(0);
                continue;
            };
            conn.cover_output(seq);
            let consumed = conn.input.base();
            if consumed > conn.captured {
                conn.captured = consumed;
                all.push((slot, conn.serial, consumed));
            }
            encode_record(conn, record);
            #[cfg(any(test, feature = "faults"))]
            plant_in_record(self.faults, record);
        }
        all
    }

    fn consumption_committed(&mut self, slot: u32, serial: u64, consumed: u64) {
        let Some(conn) = self.slots.get_mut(slot).filter(|conn| conn.serial == serial) else {
            return;
        };
        if consumed > conn.safe {
            conn.safe = consumed;
            self.queue_news(slot);
        }
    }

    fn encode(&self, seq: u64) -> Vec<u8> {
        let reigns = self.lineage.reigns();
        let mut out = Vec::with_capacity(
            32 * (1 + LINEAGE_MAX) + 48 * self.peers.len() + self.records.len() + self.output_total,
        );
        let records = self.records.len() / RECORD;
        for count in [VERSION as usize, reigns.len(), self.peers.len(), records] {
            out.extend((count as u32).to_le_bytes());
        }
        out.extend(seq.to_le_bytes());
        out.extend((self.output_total as u64).to_le_bytes());
        for reign in reigns {
            out.extend(reign.epoch.branch.0);
            out.extend(reign.epoch.counter.to_le_bytes());
            out.extend(reign.restored.to_le_bytes());
        }
        out.resize(32 * (1 + LINEAGE_MAX), 0);
        #[cfg_attr(not(any(test, feature = "faults")), allow(unused_variables))]
        for (index, peer) in self.peers.iter().enumerate() {
            out.extend(peer.id.node.0);
            out.extend(peer.id.incarnation.0.to_le_bytes());
            let highest = peer.highest;
            #[cfg(any(test, feature = "faults"))]
            let highest = self.planted_highest(index).unwrap_or(highest);
            out.extend(highest.to_le_bytes());
        }
        out.extend(&self.records);
        #[cfg(any(test, feature = "faults"))]
        if self.faults.has(Faults::CAPTURE_FORGETS_OUTPUT) {
            out[24..32].fill(0);
            return out;
        }
        for &slot in &self.with_output {
            if let Some(conn) = self.slots.get(slot) {
                conn.output.write_to(&mut out);
            }
        }
        out
    }

    #[cfg(any(test, feature = "faults"))]
    fn planted_highest(&self, peer: usize) -> Option<u64> {
        let of_peer = self.slots.iter().filter(|(_, conn)| usize::from(conn.peer) == peer);
        let highest = of_peer.map(|(_, conn)| conn.counter).max().unwrap_or(0);
        self.faults.has(Faults::CAPTURE_FORGETS_HIGHEST).then_some(highest)
    }

    fn decode(&mut self, seq: u64, state: &[u8]) -> Result<(), RestoreError> {
        let mut input = Reader(state);
        let version = input.u32()?;
        if version != VERSION {
            return Err(RestoreError::Version(version));
        }
        let [reigns, peers, records] = [input.u32()?, input.u32()?, input.u32()?];
        let (written_seq, output_total) = (input.u64()?, input.u64()?);
        if written_seq != seq {
            return Err(RestoreError::Seq(written_seq));
        }
        let (reigns, peers, records) = (reigns as usize, peers as usize, records as usize);
        if reigns > LINEAGE_MAX || peers > GATEWAYS_MAX {
            return Err(RestoreError::Inconsistent);
        }
        self.lineage = decode_reigns(&mut input, reigns)?;
        if self.lineage.reigns().iter().any(|reign| reign.epoch == self.identity.epoch) {
            return Err(RestoreError::SameEpoch);
        }
        for _ in 0..peers {
            self.decode_peer(&mut input)?;
        }
        let size = records.checked_mul(RECORD).ok_or(RestoreError::Length)?;
        self.records = input.take(size)?.to_vec();
        if (input.0.len() as u64) != output_total {
            return Err(RestoreError::Length);
        }
        for slot in 0..records {
            self.decode_conn(slot, seq, &mut input)?;
        }
        if !input.0.is_empty() {
            return Err(RestoreError::Length);
        }
        self.slots.close_holes();
        Ok(())
    }

    fn decode_peer(&mut self, input: &mut Reader<'_>) -> Result<(), RestoreError> {
        let node = NodeId(input.array()?);
        let id = GatewayId { node, incarnation: Incarnation(input.u64()?) };
        let highest = input.u64()?;
        if self.peer_index.insert(id, self.peers.len() as u16).is_some() {
            return Err(RestoreError::Inconsistent);
        }
        self.peers.push(Peer::new(id, highest));
        Ok(())
    }

    fn decode_conn(
        &mut self,
        slot: usize,
        seq: u64,
        input: &mut Reader<'_>,
    ) -> Result<(), RestoreError> {
        let record = &self.records[slot * RECORD..(slot + 1) * RECORD];
        let Some((conn, length)) = decode_record(record, seq)? else { return Ok(()) };
        let mut conn = conn;
        conn.output.append(input.take(length)?);
        conn.cover_output(seq);
        conn.sent = conn.output.base();
        let slot = u32::try_from(slot).map_err(|_| RestoreError::Inconsistent)?;
        let peer = self.peers.get_mut(usize::from(conn.peer)).ok_or(RestoreError::Inconsistent)?;
        peer.references += 1;
        if conn.counter > peer.highest || peer.references > 2 * CONNS_PER_GATEWAY_MAX {
            return Err(RestoreError::Inconsistent);
        }
        if !conn.gone && peer.conns.insert(conn.counter, slot).is_some() {
            return Err(RestoreError::Inconsistent);
        }
        self.output_total += length;
        if length > 0 {
            self.with_output.insert(slot);
        }
        let (port, waits) = (usize::from(conn.port), !conn.accepted);
        self.slots.put(slot, conn);
        if waits {
            let serial = self.slots.get(slot).expect("just put there").serial;
            let port = self.ports.get_mut(port).ok_or(RestoreError::Inconsistent)?;
            port.queue.push_back((slot, serial));
            port.waiting += 1;
        }
        Ok(())
    }
}

/// Flags and gateway (2 each), port, nothing (1 each), the client's port (2), its address (16),
/// counter, consumed input, confirmed output (8 each), length of the unconfirmed output (4),
/// nothing (4).
fn encode_record(conn: &Conn, record: &mut [u8]) {
    let (ip, v6) = match conn.address.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 0),
        IpAddr::V6(ip) => (ip, IPV6),
    };
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    let flags = USED
        | flag(conn.accepted, ACCEPTED)
        | flag(conn.fin.is_some(), FIN)
        | flag(conn.closed.is_some(), CLOSED)
        | flag(conn.reset.is_some(), RESET)
        | flag(conn.eof_read, EOF_READ)
        | flag(conn.read_shut, READ_SHUT)
        | flag(conn.gone, GONE)
        | v6;
    record[0..2].copy_from_slice(&flags.to_le_bytes());
    record[2..4].copy_from_slice(&conn.peer.to_le_bytes());
    record[4] = conn.port;
    record[5] = 0;
    record[6..8].copy_from_slice(&conn.address.port().to_le_bytes());
    record[8..24].copy_from_slice(&ip.octets());
    record[24..32].copy_from_slice(&conn.counter.to_le_bytes());
    record[32..40].copy_from_slice(&conn.input.base().to_le_bytes());
    record[40..48].copy_from_slice(&conn.output.base().to_le_bytes());
    record[48..52].copy_from_slice(&(conn.output.len() as u32).to_le_bytes());
    record[52..56].fill(0);
}

#[cfg(any(test, feature = "faults"))]
fn plant_in_record(faults: Faults, record: &mut [u8]) {
    if faults.has(Faults::CAPTURE_FORGETS_OUTPUT) {
        record[48..52].fill(0);
    }
    if faults.has(Faults::CAPTURE_FORGETS_FIN) {
        record[0] &= !(FIN as u8);
    }
}

/// The connection of a record, without its output, and how much of that there is. None if the
/// slot is free.
fn decode_record(record: &[u8], seq: u64) -> Result<Option<(Conn, usize)>, RestoreError> {
    let mut input = Reader(record);
    let flags = u16::from_le_bytes(input.array()?);
    let peer = u16::from_le_bytes(input.array()?);
    let [port, _] = input.array()?;
    let client_port = u16::from_le_bytes(input.array()?);
    let octets: [u8; 16] = input.array()?;
    let (counter, consumed, confirmed) = (input.u64()?, input.u64()?, input.u64()?);
    let length = input.u32()? as usize;
    if flags & USED == 0 {
        return if record.iter().all(|&byte| byte == 0) {
            Ok(None)
        } else {
            Err(RestoreError::Inconsistent)
        };
    }
    let ip = core::net::Ipv6Addr::from(octets);
    let ip = if flags & IPV6 == 0 { ip.to_canonical() } else { ip.into() };
    let mut conn = Conn::new(peer, counter, port, SocketAddr::new(ip, client_port));
    let has = |flag: u16| flags & flag != 0;
    conn.input = StreamBuffer::at(consumed);
    conn.output = StreamBuffer::at(confirmed);
    conn.captured = consumed;
    conn.accepted = has(ACCEPTED);
    conn.fin = has(FIN).then_some(seq);
    conn.closed = has(CLOSED).then_some(seq);
    conn.reset = has(RESET).then_some(seq);
    conn.eof_read = has(EOF_READ);
    conn.read_shut = has(READ_SHUT);
    conn.gone = has(GONE);
    let impossible = length > OUTPUT_WINDOW
        || confirmed.checked_add(length as u64).is_none()
        || counter == 0
        || (!conn.accepted && (conn.closed.is_some() || conn.gone))
        || (conn.gone && (conn.closed.is_some() || length > 0));
    if impossible { Err(RestoreError::Inconsistent) } else { Ok(Some((conn, length))) }
}

fn decode_reigns(input: &mut Reader<'_>, count: usize) -> Result<Lineage, RestoreError> {
    let mut region = Reader(input.take(32 * LINEAGE_MAX)?);
    let mut reigns = Vec::with_capacity(count);
    let mut epochs = BTreeSet::new();
    for _ in 0..count {
        let branch = BranchId(region.array()?);
        let epoch = Epoch { branch, counter: region.u64()? };
        reigns.push(Reign { epoch, restored: region.u64()? });
        if !epochs.insert((epoch.branch, epoch.counter)) {
            return Err(RestoreError::Inconsistent);
        }
    }
    Lineage::from_reigns(reigns).ok_or(RestoreError::Inconsistent)
}

/// What is left of an encoded state.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RestoreError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, RestoreError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RestoreError> {
        self.array().map(u64::from_le_bytes)
    }
}
