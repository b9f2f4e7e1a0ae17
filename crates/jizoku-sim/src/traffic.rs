//! Frames, links and clients' bytes on their way.

use jizoku_node::node;
use jizoku_streams::gateway::{Input, Output};
use jizoku_types::event::{LinkDownCause, ResetCause};
use jizoku_types::limits::HOPS_MAX;
use jizoku_types::spec::OutputMode;
use jizoku_types::{Channel, ConnId, Epoch, NodeId, ServiceId, Span};

use crate::clients::{Conn, Mode};
use crate::history::Seen;
use crate::life::{Body, Life};
use crate::links::end;
use crate::net::HostId;
use crate::world::{What, World};

/// One in so many bodies goes through its codec.
const CODEC_ONE_IN: u64 = 64;
/// How long a client waits for an answer before it tries elsewhere, if it isn't loyal.
const PATIENCE: Span = Span::secs(6);

/// A frame under way.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Who made it.
    pub from: NodeId,
    /// Who shall get it.
    pub to: NodeId,
    /// Through how many more nodes it may go.
    pub hops: u8,
    /// On which channel.
    pub channel: Channel,
    /// What is in it.
    pub body: Body,
    /// It reached the machine in this life, which stood still: it is there although its link has
    /// gone since.
    pub arrived: Option<u64>,
}

impl World {
    pub(crate) fn host_of(&self, node: NodeId) -> Option<HostId> {
        self.hosts.get(&node).copied()
    }

    /// An agent sends something.
    pub(crate) fn send(&mut self, host: HostId, to: NodeId, channel: Channel, body: Body) {
        let mut body = body;
        if self.rng.below(CODEC_ONE_IN) == 0 {
            match body.through_the_codec() {
                Ok(same) => body = same,
                Err(what) => return self.complain(format!("0: codec: {what}")),
            }
        }
        let from = self.machines[host].key;
        self.forward(
            host,
            Box::new(Frame { from, to, hops: HOPS_MAX, channel, body, arrived: None }),
        );
    }

    /// Sends a frame on from a machine, directly or by its routes.
    fn forward(&mut self, host: HostId, frame: Box<Frame>) {
        let Some(target) = self.host_of(frame.to) else { return };
        let mut next = target;
        if !self.links.up(host, target) {
            let routes = self.machines[host].life.as_ref().map(|life| &life.routes);
            let hop = routes.and_then(|routes| routes.get(&frame.to)).copied();
            let Some(hop) = hop.and_then(|hop| self.host_of(hop)) else { return };
            next = hop;
        }
        let link = self.links.get(host, next);
        if !link.up[end(host, next)] || !link.live {
            return;
        }
        self.oracle.counts.frames += 1;
        if let Some(meter) = &mut self.meter {
            meter.count(&frame);
        }
        let arrivals = self.net.send(self.now, host, next, frame.channel);
        let session = link.session;
        let (from, to) = (host, next);
        if let [at, again] = arrivals[..] {
            self.at(again, What::Deliver { from, to, session, frame: frame.clone() });
            self.at(at, What::Deliver { from, to, session, frame });
        } else if let [at] = arrivals[..] {
            self.at(at, What::Deliver { from, to, session, frame });
        }
    }

    pub(crate) fn deliver(
        &mut self,
        from: HostId,
        to: HostId,
        session: u64,
        mut frame: Box<Frame>,
    ) {
        let link = self.links.get(from, to);
        let now = self.now;
        let machine = &mut self.machines[to];
        let life = machine.life.as_ref().map(|life| life.number);
        let there = match frame.arrived {
            Some(arrived) => life == Some(arrived),
            None => link.live && link.session == session,
        };
        if !there {
            return;
        }
        if machine.paused_until > now {
            frame.arrived = life;
            return machine.waiting.push(What::Deliver { from, to, session, frame });
        }
        frame.arrived = None;
        let routed = |life: &Life| life.routes.contains_key(&frame.from);
        let known =
            machine.peers.contains(&frame.from) || machine.life.as_deref().is_some_and(routed);
        if !known && from != to {
            return;
        }
        if frame.to != machine.key {
            if machine.life.is_some() && frame.hops > 0 {
                frame.hops -= 1;
                self.forward(to, frame);
            }
            return;
        }
        let local = machine.clock.local(now);
        if let Some(life) = &mut machine.life {
            life.frame(local, frame.from, frame.body);
        }
        self.settle(to);
    }

    /// Two machines begin to connect.
    pub(crate) fn dial(&mut self, a: HostId, b: HostId) {
        if !self.net.is_linkable(a, b) {
            return;
        }
        let link = self.links.get_mut(a, b);
        if !link.dialing {
            link.dialing = true;
            let patience = self.rng.span(Span::millis(5), Span::millis(300));
            self.after(patience, What::Dial { a, b });
        }
    }

    pub(crate) fn dialled(&mut self, a: HostId, b: HostId) {
        let now = self.now;
        self.links.get_mut(a, b).dialing = false;
        let link = self.links.get(a, b);
        if link.live {
            return;
        }
        let (one, other) = (&self.machines[a], &self.machines[b]);
        let known = one.peers.contains(&other.key) && other.peers.contains(&one.key);
        let possible = one.answers(now) && other.answers(now) && self.net.works(a, b) && known;
        let keys = [(end(a, b), one.key), (end(b, a), other.key)];
        if !possible || link.up != [false; 2] {
            return self.dial(a, b);
        }
        let link = self.links.get_mut(a, b);
        link.session += 1;
        link.live = true;
        link.up = [true; 2];
        keys.into_iter().for_each(|(end, key)| link.keys[end] = Some(key));
        for (host, peer) in [(a, b), (b, a)] {
            let peer = &self.machines[peer];
            let incarnation = peer.life.as_ref().map(|life| life.me.incarnation);
            let Some(incarnation) = incarnation else { continue };
            let (peer, rtt) = (peer.key, Span::micros(200));
            self.tell_node(host, node::Input::LinkUp { peer, incarnation, rtt });
        }
    }

    /// A connection stops carrying frames; both ends learn of it.
    pub(crate) fn break_link(&mut self, a: HostId, b: HostId, session: u64, cause: LinkDownCause) {
        let link = self.links.get_mut(a, b);
        if !link.live || link.session != session {
            return;
        }
        link.live = false;
        self.oracle.counts.breaks += 1;
        for (host, peer) in [(a, b), (b, a)] {
            let delay = match cause {
                LinkDownCause::Silence => self.rng.span(Span::millis(150), Span::millis(600)),
                _ => self.rng.span(Span::micros(50), Span::millis(1)),
            };
            self.after(delay, What::Notice { host, peer, session, cause });
        }
    }

    /// Breaks the link of two machines now, if there is one.
    pub(crate) fn break_now(&mut self, a: HostId, b: HostId, cause: LinkDownCause) {
        let session = self.links.get(a, b).session;
        self.break_link(a, b, session, cause);
    }

    pub(crate) fn notice(
        &mut self,
        host: HostId,
        peer: HostId,
        session: u64,
        cause: LinkDownCause,
    ) {
        let link = self.links.get_mut(host, peer);
        if link.session != session || !std::mem::replace(&mut link.up[end(host, peer)], false) {
            return;
        }
        if self.machines[host].paused_until > self.now {
            self.links.get_mut(host, peer).up[end(host, peer)] = true;
            let notice = What::Notice { host, peer, session, cause };
            return self.machines[host].waiting.push(notice);
        }
        let key = self.links.get(host, peer).keys[end(peer, host)];
        let key = key.unwrap_or(self.machines[peer].key);
        self.tell_node(host, node::Input::LinkDown { peer: key, cause });
        self.dial(host.min(peer), host.max(peer));
    }

    /// A client's turn to connect or to ask.
    pub(crate) fn turn(&mut self, client: usize, serial: u64) {
        let one = &self.clients[client];
        if one.serial != serial || one.is_done() || one.waits() {
            return;
        }
        if self.ending && one.mode == Mode::Normal {
            return;
        }
        if one.conn.is_none() && !self.connect(client) {
            let patience = self.rng.span(Span::millis(50), Span::millis(300));
            return self.after(patience, What::Turn { client, serial });
        }
        let serial = self.clients[client].serial;
        let service = self.clients[client].service;
        let pieces =
            self.clients[client].ask(self.now, &mut self.histories[service], &mut self.rng);
        let mut at = self.clients[client].outbox_until.max(self.now);
        for count in pieces {
            at += self.rng.span(Span::micros(50), Span::millis(2));
            self.at(at, What::Asked { client, serial, count });
        }
        self.clients[client].outbox_until = at;
        if let (false, Some(tag)) = (self.clients[client].loyal, self.clients[client].oldest()) {
            self.after(PATIENCE, What::Patience { client, serial, tag });
        }
    }

    fn connect(&mut self, client: usize) -> bool {
        let (now, service) = (self.now, self.clients[client].service);
        let Some(id) = self.ids[service] else { return false };
        let host = self.rng.index(self.machines.len());
        let machine = &mut self.machines[host];
        if !machine.answers(now) {
            return false;
        }
        let local = machine.clock.local(now);
        let Some(life) = &mut machine.life else { return false };
        let number = life.number;
        let port = u16::try_from(client).unwrap_or(u16::MAX);
        let Some(conn) = life.open(local, id, port) else { return false };
        self.clients[client].conn = Some(Conn { host, life: number, id: conn, since: now });
        self.clients[client].serial += 1;
        self.by_conn.insert((id, conn), client);
        self.settle(host);
        true
    }

    pub(crate) fn asked(&mut self, client: usize, serial: u64, count: usize) {
        if self.clients[client].serial != serial {
            return;
        }
        let Some(Conn { host, life, id: conn, .. }) = self.clients[client].conn else { return };
        let machine = &mut self.machines[host];
        if machine.life.as_ref().is_none_or(|one| one.number != life) {
            return;
        }
        if machine.paused_until > self.now {
            return machine.waiting.push(What::Asked { client, serial, count });
        }
        let bytes: Vec<u8> = self.clients[client].outbox.drain(..count).collect();
        self.tell_gateway(client, Input::FromClient { conn, bytes });
    }

    fn tell_gateway(&mut self, client: usize, input: Input) {
        let one = &self.clients[client];
        let (Some(conn), Some(id)) = (one.conn, self.ids[one.service]) else { return };
        let machine = &mut self.machines[conn.host];
        let local = machine.clock.local(self.now);
        let life = machine.life.as_mut().filter(|life| life.number == conn.life);
        if let Some(life) = life {
            life.tell_gateway(local, id, input);
        }
        self.settle(conn.host);
    }

    /// A gateway has something for a client.
    pub(crate) fn gateway_says(
        &mut self,
        host: HostId,
        (service, epoch): (ServiceId, Epoch),
        output: Output,
    ) {
        match output {
            Output::ToClient { conn, bytes } => {
                let Some(client) = self.client_of(service, conn) else { return };
                let delay = self.rng.span(Span::micros(50), Span::micros(500));
                let one = &mut self.clients[client];
                one.inbox.extend(&bytes);
                one.inbox_until = one.inbox_until.max(self.now + delay);
                let (at, serial, count) = (one.inbox_until, one.serial, bytes.len());
                let released = self.oracle.lines(service).map(|lines| lines.released_in(epoch));
                let seen = Seen { epoch, covered: released.unwrap_or_default() };
                self.at(at, What::Answered { client, serial, count, seen });
            }
            Output::ResetClient { conn, cause } => self.reset(host, service, conn, cause),
            Output::ClientFin { conn } | Output::CloseClient { conn } => {
                // The program never ends a connection by itself.
                self.reset(host, service, conn, ResetCause::ByInstance);
            }
            Output::FirstOutput { .. }
            | Output::PauseReading { .. }
            | Output::ReadMore { .. }
            | Output::Send { .. } => {}
        }
    }

    fn client_of(&self, service: ServiceId, conn: ConnId) -> Option<usize> {
        self.by_conn.get(&(service, conn)).copied()
    }

    fn was_quarantined(&self, client: usize, service: ServiceId) -> bool {
        let since = self.clients[client].conn.map(|conn| conn.since);
        since.is_some_and(|since| self.oracle.was_quarantined(service, since))
    }

    fn reset(&mut self, host: HostId, service: ServiceId, conn: ConnId, cause: ResetCause) {
        let Some(client) = self.by_conn.remove(&(service, conn)) else { return };
        self.oracle.counts.resets += 1;
        let index = self.clients[client].service;
        let free = self.plan.services[index].output == OutputMode::Free;
        let branched = self.oracle.has_branched(service);
        let allowed = match cause {
            ResetCause::Poisonous | ResetCause::ServiceStopped => true,
            ResetCause::ReleasedTooMuch => free || branched,
            // It had been in a line that another one replaced.
            ResetCause::BranchStopped | ResetCause::ByInstance if branched => true,
            // Its gateway didn't hear that it was reset as poisonous, and the next epoch only knows
            // that it is gone.
            ResetCause::ByInstance if self.was_quarantined(client, service) => true,
            _ => self.oracle.is_gone(conn.gateway),
        };
        self.say(|| format!("n{host} resets {service} {conn:?} of client {client}: {cause:?}"));
        if !allowed && !self.oracle.is_tainted(service) {
            self.complain(format!("6: {service} {conn:?} at n{host} was reset: {cause:?}"));
        }
        self.lost_connection(client);
    }

    /// A client's connection is over; it will connect anew.
    pub(crate) fn lost_connection(&mut self, client: usize) {
        let one = &mut self.clients[client];
        one.disconnected();
        let serial = one.serial;
        let patience = self.rng.span(Span::millis(1), Span::millis(300));
        self.after(patience, What::Turn { client, serial });
    }

    pub(crate) fn answered(&mut self, client: usize, serial: u64, count: (usize, Seen)) {
        let one = &mut self.clients[client];
        if one.serial != serial {
            return;
        }
        let service = one.service;
        match one.receive(self.now, count, &mut self.histories[service]) {
            Ok(answers) => self.oracle.counts.answers += answers,
            Err(what) => {
                let tainted = self.ids[service].is_some_and(|id| self.oracle.is_tainted(id));
                if !tainted {
                    return self.complain(what);
                }
                self.give_up(client);
                return;
            }
        }
        let one = &self.clients[client];
        if !one.waits() {
            let thinks = one.thinks(self.plan.is_hot(self.now), &mut self.rng);
            self.after(thinks, What::Turn { client, serial });
        }
    }

    pub(crate) fn patience(&mut self, client: usize, serial: u64, tag: u64) {
        let one = &self.clients[client];
        if one.serial == serial && one.oldest() == Some(tag) {
            self.give_up(client);
        }
    }

    fn give_up(&mut self, client: usize) {
        if let (Some(conn), Some(id)) =
            (self.clients[client].conn, self.ids[self.clients[client].service])
        {
            self.tell_gateway(client, Input::ClientReset { conn: conn.id });
            self.by_conn.remove(&(id, conn.id));
        }
        self.lost_connection(client);
    }
}
