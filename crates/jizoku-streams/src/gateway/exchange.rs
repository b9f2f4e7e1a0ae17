//! The exchange of messages with the instance: input out, output in, what is asked again.
//!
//! What it does not know: which connections go on in a new session.
//!
//! Invariants
//! - A message is taken only in its order; after a gap a new session is begun.
//! - A frame that breaks the protocol costs its connection, and nothing else.
//! - Confirmations wait for the next message, for [`CONFIRM_AFTER`], or for a quarter of a window.

use alloc::vec::Vec;

use jizoku_types::event::ResetCause;
use jizoku_types::{Instant, NodeId};

use super::conn::Pending;
use super::{GatewayEnd, Output, Phase};
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::limits::{
    ACK_AFTER, ATTACH_EVERY, CONFIRM_AFTER, MESSAGE_BYTES_MAX, MESSAGE_FRAMES_MAX, PROBE_AFTER,
    PROBE_MAX,
};
use crate::message::{
    Bytes, GatewayBody, GatewayFrame, InstanceBody, InstanceFrame, ToGateway, ToInstance,
};

impl GatewayEnd {
    /// Applies the time: what is due is done by the next `poll`.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let over = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if over(&mut self.timers.attach) {
            self.session.attach_due = true;
        }
        if over(&mut self.timers.confirm) {
            self.session.confirm_due = true;
        }
        if over(&mut self.timers.ack) {
            self.session.ack_due = true;
        }
        if over(&mut self.timers.probe) && self.session.acked < self.session.number {
            self.session.probe_due = true;
        }
    }

    /// Puts a connection into the queue of those with something to send.
    pub(super) fn queue_input(&mut self, counter: u64) {
        if let Some(conn) = self.conns.get_mut(&counter)
            && conn.has_input()
            && !core::mem::replace(&mut conn.queued, true)
        {
            self.queue.push_back(counter);
        }
    }

    /// Puts a connection into the queue of those with something to confirm.
    pub(super) fn queue_confirm(&mut self, counter: u64) {
        if let Some(conn) = self.conns.get_mut(&counter)
            && conn.written > conn.confirmed
            && !core::mem::replace(&mut conn.confirm_queued, true)
        {
            self.confirms.push_back(counter);
            self.timers.confirm.get_or_insert(self.now + CONFIRM_AFTER);
        }
    }

    pub(super) fn take_message(&mut self, from: NodeId, message: ToGateway) {
        if message.service != self.service {
            self.dropped.stale += 1;
            return;
        }
        if matches!(message.body, GatewayBody::Hello) {
            return self.take_hello(from, &message);
        }
        let followed = self.route == Some((from, message.epoch))
            && message.session == self.session.id
            && matches!(self.phase, Phase::Attaching | Phase::Attached);
        #[cfg(any(test, feature = "faults"))]
        let followed = followed
            || (self.has_fault(Faults::GATEWAY_TAKES_ANY_EPOCH) && self.phase == Phase::Attached);
        if !followed {
            self.dropped.stale += 1;
            return;
        }
        let session = &mut self.session;
        let heard = message.heard.min(session.number);
        if heard > session.acked {
            session.acked = heard;
            session.probe_patience = PROBE_AFTER;
            self.timers.probe = (heard < session.number).then_some(self.now + PROBE_AFTER);
        }
        match message.body {
            GatewayBody::Reattach => self.begin_session(),
            GatewayBody::Attached(attached) if self.phase == Phase::Attaching => {
                self.take_attached(*attached);
                self.timers.ack.get_or_insert(self.now + ACK_AFTER);
                self.take_committed(message.committed);
            }
            _ if self.phase == Phase::Attaching => self.dropped.gaps += 1,
            body => self.take_numbered(message.number, message.committed, body),
        }
    }

    /// An instance that knows this gateway from its state runs.
    fn take_hello(&mut self, from: NodeId, message: &ToGateway) {
        match self.route {
            Some((_, known)) if message.epoch.supersedes(&known) => {
                self.route(from, message.epoch);
            }
            Some(route) if route == (from, message.epoch) && self.phase == Phase::Attaching => {
                self.session.attach_due = true;
            }
            _ => self.dropped.stale += 1,
        }
    }

    fn take_numbered(&mut self, number: u64, committed: u64, body: GatewayBody) {
        if number != 0 {
            #[cfg(any(test, feature = "faults"))]
            let lax = self.has_fault(Faults::GAPS_IGNORED);
            #[cfg(not(any(test, feature = "faults")))]
            let lax = false;
            if number <= self.session.heard {
                self.dropped.duplicates += 1;
                return;
            }
            if number > self.session.heard + 1 && !lax {
                self.dropped.gaps += 1;
                self.begin_session();
                return;
            }
            self.session.heard = number;
            self.timers.ack.get_or_insert(self.now + ACK_AFTER);
        }
        match body {
            GatewayBody::Frames(frames) if number != 0 => {
                for frame in frames {
                    self.take_frame(frame);
                }
            }
            GatewayBody::Probe => self.session.ack_due = true,
            GatewayBody::Ack => {}
            // `Attached` has the number 1, and was taken before.
            _ => self.dropped.violations += 1,
        }
        self.take_committed(committed);
    }

    /// The instance told its highest committed checkpoint: gives clients what it covers.
    fn take_committed(&mut self, committed: u64) {
        self.session.committed = self.session.committed.max(committed);
        let limit = if self.session.hold { self.session.committed } else { u64::MAX };
        while self.uncommitted.front().is_some_and(|&(cover, _)| cover <= limit) {
            let Some((_, counter)) = self.uncommitted.pop_front() else { break };
            self.release(counter);
        }
    }

    fn take_frame(&mut self, frame: GatewayFrame) {
        let counter = frame.counter();
        // Not here any more: the instance has been told, or will be.
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        let fair = match frame {
            GatewayFrame::Consumed { offset, .. } => {
                self.forget_input(counter, offset);
                true
            }
            GatewayFrame::Data { offset, cover, bytes, .. } => {
                self.take_data(counter, offset, cover, bytes.0)
            }
            GatewayFrame::Fin { offset, cover, .. } => {
                let first = conn.end.is_none();
                let fair = offset == conn.have;
                conn.end = Some(offset);
                if first && fair {
                    self.pend(counter, cover, Pending::Fin);
                }
                fair
            }
            GatewayFrame::Close { cover, .. } => {
                let fair = conn.end.is_some();
                if fair && !core::mem::replace(&mut conn.close_had, true) {
                    self.pend(counter, cover, Pending::Close);
                }
                fair
            }
            GatewayFrame::Reset { cover, .. } => {
                if !core::mem::replace(&mut conn.reset_had, true) {
                    self.pend(counter, cover, Pending::Reset);
                }
                true
            }
        };
        if !fair {
            self.dropped.violations += 1;
            self.break_conn(counter, ResetCause::ByInstance);
        }
    }

    /// Whether the instance kept to the protocol.
    fn take_data(&mut self, counter: u64, offset: u64, cover: u64, mut bytes: Vec<u8>) -> bool {
        let window = self.limits.output_window as u64;
        let Some(conn) = self.conns.get_mut(&counter) else { return true };
        let Some(end) = offset.checked_add(bytes.len() as u64) else { return false };
        if offset > conn.have || end.saturating_sub(conn.confirmed) > window {
            return false;
        }
        if end <= conn.have {
            return true;
        }
        if conn.end.is_some() {
            return false;
        }
        if offset < conn.have {
            bytes.drain(..(conn.have - offset) as usize);
        }
        conn.have = end;
        #[cfg(any(test, feature = "faults"))]
        if self.faults.has(Faults::CONFIRMS_AT_ARRIVAL) {
            conn.released = end;
            conn.written = end;
        }
        self.pend(counter, cover, Pending::Bytes(bytes));
        #[cfg(any(test, feature = "faults"))]
        if self.has_fault(Faults::CONFIRMS_AT_ARRIVAL) {
            self.queue_confirm(counter);
        }
        true
    }

    /// Output arrived: it is released now, or when its cover is committed.
    fn pend(&mut self, counter: u64, cover: u64, what: Pending) {
        let (committed, waits) = (self.session.committed, self.waits(u64::MAX));
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        // Nothing is released before what came earlier in its stream.
        let last = conn.pending.back().map_or(0, |&(cover, _)| cover);
        let refused = cover == 0 && matches!(what, Pending::Reset);
        let cover = if refused { 0 } else { cover.max(last) };
        if refused {
            conn.pending.clear();
        }
        conn.pending.push_back((cover, what));
        if !waits || cover <= committed {
            self.release(counter);
        } else if cover > conn.listed_cover {
            conn.listed_cover = cover;
            // Covers grow in the order of their sending, but for output that is sent again.
            let at = self.uncommitted.partition_point(|&(other, _)| other <= cover);
            self.uncommitted.insert(at, (cover, counter));
        }
    }

    /// Whether output with this cover has to wait.
    fn waits(&self, cover: u64) -> bool {
        #[cfg(any(test, feature = "faults"))]
        if self.has_fault(Faults::GATEWAY_RELEASES_EARLY) {
            return false;
        }
        self.session.hold && cover > self.session.committed
    }

    /// Gives a client all that may be given.
    fn release(&mut self, counter: u64) {
        let id = self.id(counter);
        let limit = if self.waits(u64::MAX) { self.session.committed } else { u64::MAX };
        while let Some(conn) = self.conns.get_mut(&counter) {
            let Some((cover, what)) = conn.next_covered(limit) else { return };
            conn.mark = Some(self.session.lineage.mark(cover));
            match what {
                Pending::Bytes(bytes) => {
                    conn.released = (conn.released + bytes.len() as u64).min(conn.have);
                    if core::mem::take(&mut self.first_output_due)
                        && let Some((_, epoch)) = self.route
                    {
                        self.outputs.push_back(Output::FirstOutput { epoch });
                    }
                    self.outputs.push_back(Output::ToClient { conn: id, bytes });
                }
                Pending::Fin => {
                    if !core::mem::replace(&mut conn.fin_released, true) {
                        self.outputs.push_back(Output::ClientFin { conn: id });
                    }
                }
                Pending::Close => {
                    self.outputs.push_back(Output::CloseClient { conn: id });
                    self.end_conn(counter);
                }
                Pending::Reset => self.break_conn(counter, ResetCause::ByInstance),
            }
        }
    }

    /// What to send to the instance next.
    pub(super) fn next_message(&mut self) -> Option<Output> {
        let (to, epoch) = self.route?;
        let (number, body) = match self.phase {
            Phase::Unrouted | Phase::Stopped => return None,
            Phase::Attaching => {
                if !core::mem::take(&mut self.session.attach_due) {
                    return None;
                }
                let patience = self.session.attach_patience;
                self.session.attach_patience = (patience * 2).min(ATTACH_EVERY);
                self.session.number = 1;
                self.timers.attach = Some(self.now + patience);
                (1, InstanceBody::Attach(self.attach_list()))
            }
            Phase::Attached => self.next_body()?,
        };
        let message = ToInstance {
            service: self.service,
            epoch,
            session: self.session.id,
            number,
            heard: self.session.heard,
            body,
        };
        Some(Output::Send { to, message })
    }

    fn next_body(&mut self) -> Option<(u64, InstanceBody)> {
        let frames = self.frames();
        let session = &mut self.session;
        let body = if !frames.is_empty() {
            InstanceBody::Frames(frames)
        } else if core::mem::take(&mut session.probe_due) {
            session.probe_patience = (session.probe_patience * 2).min(PROBE_MAX);
            InstanceBody::Probe
        } else if core::mem::take(&mut session.ack_due) {
            self.timers.ack = None;
            return Some((0, InstanceBody::Ack));
        } else {
            return None;
        };
        session.ack_due = false;
        session.number += 1;
        self.timers.ack = None;
        self.timers.probe.get_or_insert(self.now + session.probe_patience);
        Some((session.number, body))
    }

    /// News for the instance, as many as fit one message.
    fn frames(&mut self) -> Vec<InstanceFrame> {
        let mut frames = Vec::new();
        let count = self.endings.len().min(MESSAGE_FRAMES_MAX / 2);
        frames.extend(self.endings.drain(..count).map(|counter| InstanceFrame::Gone { counter }));
        let mut room = MESSAGE_BYTES_MAX;
        // Three places for what one connection adds at least.
        while room > 0 && frames.len() + 3 < MESSAGE_FRAMES_MAX {
            let Some(counter) = self.queue.pop_front() else { break };
            self.send_input(counter, &mut frames, &mut room);
        }
        if frames.is_empty() && !self.session.confirm_due {
            return frames;
        }
        while frames.len() < MESSAGE_FRAMES_MAX {
            let Some(counter) = self.confirms.pop_front() else { break };
            let Some(conn) = self.conns.get_mut(&counter) else { continue };
            conn.confirm_queued = false;
            conn.confirmed = conn.written;
            frames.push(InstanceFrame::Confirm { counter, offset: conn.written });
        }
        if self.confirms.is_empty() {
            self.session.confirm_due = false;
            self.timers.confirm = None;
        }
        frames
    }

    fn send_input(&mut self, counter: u64, frames: &mut Vec<InstanceFrame>, room: &mut usize) {
        let epoch = self.session.lineage.newest().epoch;
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        conn.queued = false;
        if !core::mem::replace(&mut conn.opened, true) {
            frames.push(InstanceFrame::Open { counter, port: conn.port, peer: conn.peer });
            if !core::mem::replace(&mut conn.offered, true) {
                self.waiting -= 1;
            }
        }
        while conn.sent < conn.input.end() && *room > 0 && frames.len() + 1 < MESSAGE_FRAMES_MAX {
            let offset = conn.sent;
            let from = offset;
            #[cfg(any(test, feature = "faults"))]
            let from = if self.faults.has(Faults::GATEWAY_FORGETS_OFFSET) && conn.input.base() > 0 {
                (offset + 1).min(conn.input.end() - 1)
            } else {
                from
            };
            let bytes = conn.input.copy_from(from, self.limits.chunk.min(*room));
            *room -= bytes.len();
            conn.sent += bytes.len() as u64;
            conn.sent_ever = conn.sent_ever.max(conn.sent);
            if self.session.stateless {
                conn.used_by = Some(epoch);
            }
            frames.push(InstanceFrame::Data { counter, offset, bytes: Bytes(bytes) });
        }
        if conn.fin && !conn.fin_sent && conn.sent == conn.input.end() {
            conn.fin_sent = true;
            conn.fin_sent_ever = true;
            frames.push(InstanceFrame::Fin { counter, offset: conn.input.end() });
        }
        self.queue_input(counter);
    }
}
