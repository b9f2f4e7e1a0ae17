//! The exchange of messages with gateways: sessions, input in, output out, what is asked again.
//!
//! What it does not know: the program's calls, how the state is encoded.
//!
//! Invariants
//! - A message is taken only in the session that its gateway began last, and only in order. After
//!   a gap the session is dead, and the gateway is asked for a new one.
//! - A frame that breaks the protocol costs its connection: the program sees a reset, and the
//!   gateway is told so.

use alloc::boxed::Box;
use alloc::vec::Vec;

use jizoku_types::limits::CONNS_PER_GATEWAY_MAX;
use jizoku_types::{GatewayId, Incarnation, Instant};

use super::InstanceEnd;
use super::conn::Conn;
use super::peer::{Peer, Timer};
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::limits::{
    ACK_AFTER, GATEWAYS_MAX, MESSAGE_BYTES_MAX, MESSAGE_FRAMES_MAX, PROBE_AFTER, PROBE_MAX,
};
use crate::message::{
    AttachConn, Attached, AttachedConn, GatewayBody, GatewayFrame, InstanceBody, InstanceFrame,
    ToGateway, ToInstance,
};

impl InstanceEnd {
    /// Takes a gateway's message. What is stale, doubled or malformed is dropped and counted.
    pub fn handle(&mut self, now: Instant, gateway: GatewayId, message: ToInstance) {
        self.advance(now);
        let meant =
            message.service == self.identity.service && message.epoch == self.identity.epoch;
        #[cfg(any(test, feature = "faults"))]
        let meant = meant || self.has_fault(Faults::INSTANCE_TAKES_ANY_EPOCH);
        let Some(peer) = meant.then(|| self.peer_for(gateway)).flatten() else {
            self.dropped.stale += 1;
            return;
        };
        match message.body {
            InstanceBody::Attach(conns) => self.attach(peer, message.session, &conns),
            body => {
                if self.in_session(peer, message.session) {
                    self.acknowledged(peer, message.heard);
                    self.take(peer, message.number, body);
                }
            }
        }
    }

    /// This gateway will not come back: its connections are broken for the program. Should it
    /// come back after all, it attaches anew, and its clients' connections are reset.
    pub fn gateway_gone(&mut self, gateway: GatewayId) {
        if let Some(&index) = self.peer_index.get(&gateway) {
            self.forget_peer(index);
            let peer = self.peer(index);
            peer.reattach = Some(peer.session);
            self.wake(index);
        }
    }

    /// Tells the time. Needed after draining `poll`, and when [`InstanceEnd::deadline`] is over;
    /// at other times it does no harm.
    pub fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.acks.advance(self.now, ACK_AFTER) {
            for peer in 0..self.peers.len() as u16 {
                if self.peer(peer).ack_pending {
                    self.peer(peer).ack_due = true;
                    self.wake(peer);
                }
            }
        }
        if self.probes.advance(self.now, PROBE_AFTER) {
            self.probe_silent_peers();
        }
    }

    /// When `advance` is to be called, if nothing else happens before. In the past if the time
    /// has to be told at once.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.acks.deadline(self.now), self.probes.deadline(self.now)];
        deadlines.into_iter().flatten().min()
    }

    /// The next message to a gateway, if there is one.
    pub fn poll(&mut self) -> Option<(GatewayId, ToGateway)> {
        while let Some(peer) = self.ready.pop_front() {
            self.peer(peer).ready = false;
            if let Some((number, body)) = self.next_body(peer) {
                self.wake(peer);
                let (service, epoch) = (self.identity.service, self.identity.epoch);
                let committed = self.committed;
                let to = self.peer(peer);
                let (session, heard) = match body {
                    GatewayBody::Hello => (0, 0),
                    GatewayBody::Reattach => (to.reattach.take().unwrap_or(to.session), 0),
                    _ => (to.session, to.heard),
                };
                let message = ToGateway { service, epoch, session, number, heard, committed, body };
                return Some((to.id, message));
            }
        }
        None
    }

    pub(super) fn peer(&mut self, peer: u16) -> &mut Peer {
        &mut self.peers[usize::from(peer)]
    }

    /// Puts a peer into the list of those that may have something to say.
    pub(super) fn wake(&mut self, peer: u16) {
        if !core::mem::replace(&mut self.peer(peer).ready, true) {
            self.ready.push_back(peer);
        }
    }

    /// Puts a connection into its peer's queue of output.
    pub(super) fn queue_output(&mut self, slot: u32) {
        let Some(conn) = self.slots.get_mut(slot) else { return };
        let peer = conn.peer;
        if !self.peers[usize::from(peer)].attached || !conn.has_output() {
            return;
        }
        if !core::mem::replace(&mut conn.queued, true) {
            self.peer(peer).queue.push_back(slot);
        }
        self.wake(peer);
    }

    /// Puts a connection into its peer's queue of consumption news. They are sent with the next
    /// message; the caller wakes the peer if they shall not wait for one.
    pub(super) fn queue_news(&mut self, slot: u32) {
        let Some(conn) = self.slots.get_mut(slot) else { return };
        let peer = &mut self.peers[usize::from(conn.peer)];
        if conn.gone || !peer.attached {
            return;
        }
        if !core::mem::replace(&mut conn.news, true) {
            peer.news.push_back(slot);
        }
    }

    /// Input was consumed for good without a checkpoint: tells the gateway with the next message,
    /// or soon, or at once if much of its window depends on it.
    pub(super) fn consumed_at_once(&mut self, slot: u32, count: u64) {
        self.queue_news(slot);
        let Some(index) = self.slots.get(slot).map(|conn| conn.peer) else { return };
        let urgent = self.limits.input_window as u64 / 4;
        let peer = self.peer(index);
        peer.news_bytes += count;
        peer.ack_pending = true;
        if peer.news_bytes >= urgent {
            self.wake(index);
        }
        self.acks.arm();
    }

    /// The place of a gateway, made if it is new. None if it was replaced by a newer incarnation,
    /// or if there is no room.
    fn peer_for(&mut self, gateway: GatewayId) -> Option<u16> {
        if let Some(&peer) = self.peer_index.get(&gateway) {
            let replaced = self.newest_of(gateway).is_some_and(|(id, _)| id != gateway);
            return (!replaced).then_some(peer);
        }
        match self.newest_of(gateway) {
            Some((newest, _)) if newest.incarnation > gateway.incarnation => return None,
            Some((_, replaced)) => self.forget_peer(replaced),
            None => {}
        }
        let peer = self.place_for_peer()?;
        if usize::from(peer) == self.peers.len() {
            self.peers.push(Peer::new(gateway, 0));
        } else {
            let old = core::mem::replace(self.peer(peer), Peer::new(gateway, 0));
            self.peer(peer).ready = old.ready;
            self.peer_index.remove(&old.id);
        }
        self.peer_index.insert(gateway, peer);
        Some(peer)
    }

    /// The newest incarnation that is known of a gateway's node.
    pub(super) fn newest_of(&self, gateway: GatewayId) -> Option<(GatewayId, u16)> {
        let last = GatewayId { incarnation: Incarnation(u64::MAX), ..gateway };
        let (id, peer) = self.peer_index.range(..=last).next_back()?;
        (id.node == gateway.node).then_some((*id, *peer))
    }

    /// The place of a replaced gateway that nothing refers to any more, or a new one; if all are
    /// taken, that of one that was reported gone.
    fn place_for_peer(&self) -> Option<u16> {
        let unused = |peer: &Peer| peer.gone && peer.references == 0;
        let replaced =
            |peer: &Peer| self.newest_of(peer.id).is_none_or(|(newest, _)| newest != peer.id);
        let place = self.peers.iter().position(|peer| unused(peer) && replaced(peer));
        let place = match place {
            Some(place) => Some(place),
            None if self.peers.len() < GATEWAYS_MAX => Some(self.peers.len()),
            None => self.peers.iter().position(unused),
        };
        place.map(|place| place as u16)
    }

    fn forget_peer(&mut self, peer: u16) {
        let conns: Vec<u32> = self.peer(peer).conns.values().copied().collect();
        for slot in conns {
            self.gone(slot);
        }
        let peer = self.peer(peer);
        peer.end();
        peer.gone = true;
        peer.hello_due = false;
        peer.reattach = None;
    }

    /// The gateway no longer has this connection.
    pub(super) fn gone(&mut self, slot: u32) {
        let Some(conn) = self.slots.get_mut(slot) else { return };
        if conn.gone {
            return;
        }
        if !conn.accepted || conn.closed.is_some() {
            self.free(slot);
            return;
        }
        conn.gone = true;
        let end = conn.input.end();
        conn.input.restart(end);
        let (peer, counter) = (conn.peer, conn.counter);
        self.peer(peer).conns.remove(&counter);
        self.forget_output(slot);
    }

    /// This connection's gateway broke the protocol.
    fn violated(&mut self, peer: u16, slot: u32) {
        self.dropped.violations += 1;
        if let Some(conn) = self.slots.get(slot) {
            let counter = conn.counter;
            self.refuse(peer, counter);
            self.gone(slot);
        }
    }

    fn refuse(&mut self, peer: u16, counter: u64) {
        self.peer(peer).refused.push_back(counter);
        self.wake(peer);
    }

    fn attach(&mut self, index: u16, session: u64, list: &[AttachConn]) {
        let now = self.now;
        let peer = self.peer(index);
        if session < peer.session {
            self.dropped.stale += 1;
            return;
        }
        if session == peer.session {
            // The answer may be lost. If more was taken since, it wasn't.
            peer.attached_due |= peer.attached && peer.heard == 1;
            if !peer.attached {
                peer.reattach = Some(session);
            }
            self.wake(index);
            return;
        }
        let sorted = list.windows(2).all(|pair| pair[0].counter < pair[1].counter);
        if list.len() > CONNS_PER_GATEWAY_MAX || !sorted {
            self.dropped.violations += 1;
            return;
        }
        let first = !core::mem::replace(&mut peer.met, true);
        peer.begin(session, now);
        let known: Vec<(u64, u32)> = peer.conns.iter().map(|(c, slot)| (*c, *slot)).collect();
        for (counter, slot) in known {
            match list.binary_search_by_key(&counter, |conn| conn.counter) {
                Ok(at) => self.resume(slot, list[at].have),
                Err(_) => self.gone(slot),
            }
        }
        if first && self.quarantine {
            self.reset_poisonous(index, list);
        }
        self.wake(index);
    }

    fn resume(&mut self, slot: u32, have: u64) {
        let Some(conn) = self.slots.get_mut(slot) else { return };
        conn.queued = false;
        conn.news = false;
        if have < conn.output.base() && conn.reset.is_none() {
            // It lacks what it had confirmed: the stream can't go on.
            self.dropped.violations += 1;
            self.gone(slot);
            return;
        }
        conn.rewind(have);
        self.queue_output(slot);
    }

    /// Resets the connections that had input which the restored state hasn't consumed.
    fn reset_poisonous(&mut self, index: u16, list: &[AttachConn]) {
        let peer = &self.peers[usize::from(index)];
        let highest = peer.highest;
        let mut poisonous = Vec::new();
        for item in list {
            let slot = peer.conns.get(&item.counter);
            let suspect = match slot.and_then(|&slot| self.slots.get(slot)) {
                Some(conn) if conn.closed.is_some() => false,
                Some(conn) => item.sent > conn.input.base() || (item.fin_sent && !conn.eof_read),
                None => item.counter > highest,
            };
            if suspect {
                poisonous.push((item.counter, slot.copied()));
            }
        }
        for (counter, slot) in poisonous {
            self.peer(index).poisonous.push(counter);
            if let Some(slot) = slot {
                self.gone(slot);
            }
        }
    }

    /// Whether a message of this session may be taken; asks for a new session if one is needed.
    fn in_session(&mut self, index: u16, session: u64) -> bool {
        #[cfg(any(test, feature = "faults"))]
        let any = self.has_fault(Faults::INSTANCE_TAKES_ANY_EPOCH);
        #[cfg(not(any(test, feature = "faults")))]
        let any = false;
        let peer = self.peer(index);
        if peer.attached && (session == peer.session || any) {
            return true;
        }
        if session < peer.session {
            self.dropped.stale += 1;
        } else {
            // A session that this instance doesn't know, or that is dead.
            peer.reattach = Some(session);
            self.wake(index);
        }
        false
    }

    fn acknowledged(&mut self, index: u16, heard: u64) {
        let now = self.now;
        let peer = self.peer(index);
        let heard = heard.min(peer.number);
        if heard > peer.acked {
            peer.acked = heard;
            peer.asked = now;
            peer.patience = PROBE_AFTER;
        }
    }

    /// Takes a message of the session, in order.
    fn take(&mut self, index: u16, number: u64, body: InstanceBody) {
        if number != 0 {
            #[cfg(any(test, feature = "faults"))]
            let lax = self.has_fault(Faults::GAPS_IGNORED);
            #[cfg(not(any(test, feature = "faults")))]
            let lax = false;
            let peer = self.peer(index);
            if number <= peer.heard {
                self.dropped.duplicates += 1;
                return;
            }
            if number > peer.heard + 1 && !lax {
                peer.end();
                peer.reattach = Some(peer.session);
                self.dropped.gaps += 1;
                self.wake(index);
                return;
            }
            peer.heard = number;
            peer.ack_pending = true;
            self.acks.arm_at(self.now + ACK_AFTER);
        }
        match body {
            InstanceBody::Frames(frames) if number != 0 => {
                for frame in frames {
                    self.take_frame(index, frame);
                }
            }
            InstanceBody::Probe => {
                self.peer(index).ack_due = true;
                self.wake(index);
            }
            InstanceBody::Ack => {}
            InstanceBody::Frames(_) | InstanceBody::Attach(_) => self.dropped.violations += 1,
        }
    }

    fn take_frame(&mut self, index: u16, frame: InstanceFrame) {
        let counter = match frame {
            InstanceFrame::Open { counter, port, peer } => {
                return self.take_open(index, Conn::new(index, counter, port, peer));
            }
            InstanceFrame::Data { counter, .. }
            | InstanceFrame::Fin { counter, .. }
            | InstanceFrame::Confirm { counter, .. }
            | InstanceFrame::Gone { counter } => counter,
        };
        // Not there: it was refused or broken before, and the gateway has been told.
        let Some(&slot) = self.peer(index).conns.get(&counter) else { return };
        let fair = match frame {
            InstanceFrame::Data { offset, bytes, .. } => self.take_data(slot, offset, &bytes.0),
            InstanceFrame::Fin { offset, .. } => self.take_fin(slot, offset),
            InstanceFrame::Confirm { offset, .. } => self.take_confirm(slot, offset),
            InstanceFrame::Gone { .. } => {
                self.gone(slot);
                true
            }
            InstanceFrame::Open { .. } => unreachable!("returned above"),
        };
        if !fair {
            self.violated(index, slot);
        }
    }

    fn take_open(&mut self, index: u16, mut conn: Conn) {
        let (counter, port) = (conn.counter, usize::from(conn.port));
        let has_port = port < self.ports.len();
        let peer = self.peer(index);
        if counter <= peer.highest {
            self.dropped.violations += 1;
            return;
        }
        peer.highest = counter;
        if !has_port || peer.conns.len() >= CONNS_PER_GATEWAY_MAX {
            self.refuse(index, counter);
            return;
        }
        conn.had_input = true;
        let slot = self.slots.insert(conn);
        let serial = self.slots.get(slot).expect("just inserted").serial;
        let peer = self.peer(index);
        peer.references += 1;
        peer.conns.insert(counter, slot);
        self.dirty.insert(slot);
        self.ports[port].queue.push_back((slot, serial));
        self.ports[port].waiting += 1;
    }

    /// Whether the gateway kept to the protocol.
    fn take_data(&mut self, slot: u32, offset: u64, bytes: &[u8]) -> bool {
        let window = self.limits.input_window as u64;
        let Some(conn) = self.slots.get_mut(slot) else { return true };
        let have = conn.input.end();
        let Some(end) = offset.checked_add(bytes.len() as u64) else { return false };
        if offset > have || end - conn.input.base().min(end) > window {
            return false;
        }
        if end <= have {
            return true;
        }
        if conn.input_end.is_some() {
            return false;
        }
        conn.had_input = true;
        conn.input.append(&bytes[(have - offset) as usize..]);
        if conn.read_shut {
            self.consume(slot, end - have);
        }
        true
    }

    fn take_fin(&mut self, slot: u32, offset: u64) -> bool {
        let Some(conn) = self.slots.get_mut(slot) else { return true };
        conn.had_input = true;
        conn.input_end = Some(offset);
        conn.input.end() == offset
    }

    fn take_confirm(&mut self, slot: u32, offset: u64) -> bool {
        let Some(conn) = self.slots.get_mut(slot) else { return true };
        if offset > conn.sent {
            return false;
        }
        let count = conn.confirm(offset);
        if count > 0 {
            let empty = conn.output.is_empty();
            self.output_total -= count;
            if empty {
                self.with_output.remove(&slot);
            }
            self.dirty.insert(slot);
        }
        true
    }

    /// What to say next to a peer, with its number.
    fn next_body(&mut self, index: u16) -> Option<(u64, GatewayBody)> {
        let peer = self.peer(index);
        if core::mem::take(&mut peer.hello_due) {
            return Some((0, GatewayBody::Hello));
        }
        if peer.reattach.is_some() {
            return Some((0, GatewayBody::Reattach));
        }
        if !peer.attached {
            return None;
        }
        if core::mem::take(&mut peer.attached_due) {
            // Repeated, it may be dropped as a double, so it then tells nothing for sure.
            let first = peer.number == 0;
            peer.number = peer.number.max(1);
            let attached = self.attached(index);
            self.said(index, first);
            return Some((1, GatewayBody::Attached(Box::new(attached))));
        }
        let commit = peer.cover_sent > peer.told && self.committed > self.peer(index).told;
        let frames = self.frames(index);
        let peer = self.peer(index);
        let body = if commit || !frames.is_empty() {
            GatewayBody::Frames(frames)
        } else if core::mem::take(&mut peer.probe_due) {
            GatewayBody::Probe
        } else if core::mem::take(&mut peer.ack_due) {
            self.said(index, false);
            return Some((0, GatewayBody::Ack));
        } else {
            return None;
        };
        peer.number += 1;
        let number = peer.number;
        self.said(index, true);
        Some((number, body))
    }

    /// A message is on its way. It acknowledges; if it is numbered, it tells the commit for sure,
    /// and wants to be acknowledged.
    fn said(&mut self, index: u16, numbered: bool) {
        let (now, committed) = (self.now, self.committed);
        let peer = self.peer(index);
        peer.ack_pending = false;
        peer.ack_due = false;
        if numbered {
            peer.told = committed;
            if peer.number == peer.acked + 1 {
                peer.asked = now;
            }
            self.probes.arm();
        }
    }

    fn probe_silent_peers(&mut self) {
        let now = self.now;
        let mut waiting = false;
        for index in 0..self.peers.len() as u16 {
            let peer = self.peer(index);
            if !peer.attached || peer.acked >= peer.number {
                continue;
            }
            waiting = true;
            if peer.asked + peer.patience <= now {
                peer.probe_due = true;
                peer.asked = now;
                peer.patience = (peer.patience * 2).min(PROBE_MAX);
                self.wake(index);
            }
        }
        if waiting {
            self.probes = Timer::At(now + PROBE_AFTER);
        }
    }

    fn attached(&mut self, index: u16) -> Attached {
        let peer = &self.peers[usize::from(index)];
        let slots = peer.conns.values().filter_map(|&slot| self.slots.get(slot));
        let conns = slots
            .map(|conn| AttachedConn {
                counter: conn.counter,
                received: conn.input.end(),
                consumed: conn.safe,
                confirmed: conn.output.base(),
                produced: conn.output.end(),
            })
            .collect();
        Attached {
            held: self.identity.held,
            stateless: !self.identity.survives,
            highest: peer.highest,
            lineage: self.lineage.reigns().to_vec(),
            conns,
            poisonous: peer.poisonous.clone(),
        }
    }

    /// News for a peer, as many as fit one message.
    fn frames(&mut self, index: u16) -> Vec<GatewayFrame> {
        let mut frames = Vec::new();
        let mut room = MESSAGE_BYTES_MAX;
        let peer = &mut self.peers[usize::from(index)];
        while frames.len() < MESSAGE_FRAMES_MAX / 2 {
            let Some(counter) = peer.refused.pop_front() else { break };
            frames.push(GatewayFrame::Reset { counter, cover: 0 });
        }
        let next = self.captured + 1;
        #[cfg(any(test, feature = "faults"))]
        let next = if self.faults.has(Faults::COVER_TOO_LOW) { self.captured } else { next };
        // Three places for what one connection adds at least.
        while room > 0 && frames.len() + 3 < MESSAGE_FRAMES_MAX {
            let Some(slot) = peer.queue.pop_front() else { break };
            let Some(conn) = self.slots.get_mut(slot) else { continue };
            if conn.peer != index || !core::mem::replace(&mut conn.queued, false) || conn.gone {
                continue;
            }
            conn.send(&mut frames, &mut room, self.limits.chunk, next);
            if conn.has_output() {
                conn.queued = true;
                peer.queue.push_back(slot);
            }
        }
        if let Some(cover) = frames.iter().filter_map(cover).max() {
            peer.cover_sent = peer.cover_sent.max(cover);
        }
        peer.news_bytes = 0;
        while frames.len() < MESSAGE_FRAMES_MAX {
            let Some(slot) = peer.news.pop_front() else { break };
            let Some(conn) = self.slots.get_mut(slot) else { continue };
            if conn.peer == index && core::mem::replace(&mut conn.news, false) && !conn.gone {
                let (counter, offset) = (conn.counter, conn.safe);
                frames.push(GatewayFrame::Consumed { counter, offset });
            }
        }
        frames
    }
}

fn cover(frame: &GatewayFrame) -> Option<u64> {
    match *frame {
        GatewayFrame::Data { cover, .. }
        | GatewayFrame::Fin { cover, .. }
        | GatewayFrame::Close { cover, .. }
        | GatewayFrame::Reset { cover, .. } => Some(cover),
        GatewayFrame::Consumed { .. } => None,
    }
}
