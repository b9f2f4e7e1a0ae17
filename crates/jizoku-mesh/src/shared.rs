//! What all tasks of a mesh share: members, links, routes, queues, counters; and the one place
//! where a frame finds its way.
//!
//! What it does not know: how links come up; what bodies mean.
//!
//! Invariants
//! - Locks are held for a few look-ups only, never across a wait, and never two at once.
//! - A frame is queued on one link, delivered here, or dropped and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use jizoku_types::event::LinkDownCause;
use jizoku_types::frame::{Channel, Header};
use jizoku_types::limits::FRAME_BODY_MAX;
use jizoku_types::{NodeId, Span};
use tokio::sync::Notify;

use crate::hello::{Adoption, Hello, Local, Refusal};
use crate::identity::Identity;
use crate::inbox::{Delivery, Incoming, Undelivered};
use crate::link::Link;
use crate::mesh::{LinkState, SendError};
use crate::stats::Counters;
use crate::wire::{CHANNELS, Frame, Lane, channel_index};

/// Wakes the hub: something that it has to look at has changed.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    pub(crate) counters: Counters,
    wake: Notify,
    /// By how much the node was late since the hub last looked, in nanoseconds.
    late: AtomicU64,
    may_judge: AtomicBool,
}

impl Alarm {
    pub(crate) fn link_closed(&self, dropped: u64) {
        self.counters.dropped_link_down.add(dropped);
        self.wake.notify_one();
    }

    pub(crate) fn ring(&self) {
        self.wake.notify_one();
    }

    pub(crate) async fn rung(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn late(&self, by: Span) {
        self.counters.late.bump();
        self.late.fetch_max(by.as_nanos().max(1), Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn take_late(&self) -> Option<Span> {
        let nanos = self.late.swap(0, Ordering::Relaxed);
        (nanos > 0).then_some(Span::nanos(nanos))
    }

    pub(crate) fn set_may_judge(&self, may: bool) {
        self.may_judge.store(may, Ordering::Relaxed);
    }

    pub(crate) fn may_judge(&self) -> bool {
        self.may_judge.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) links: BTreeMap<NodeId, Arc<Link>>,
    pub(crate) routes: BTreeMap<NodeId, NodeId>,
}

pub(crate) struct Shared {
    pub(crate) local: Local,
    pub(crate) identity: Identity,
    pub(crate) alarm: Arc<Alarm>,
    deliveries: [Delivery; CHANNELS.len()],
    members: RwLock<BTreeSet<NodeId>>,
    table: RwLock<Table>,
    /// The newest incarnation and link of each member that had one. Only members are in it.
    known: Mutex<BTreeMap<NodeId, Known>>,
    peers: Mutex<BTreeMap<NodeId, Vec<SocketAddr>>>,
    attempts: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) incarnation: jizoku_types::Incarnation,
    pub(crate) adoption: Adoption,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Where a frame can go.
enum Way {
    Here,
    Link(Arc<Link>),
}

/// A frame that came in on a link and has to wait before the next is read.
#[derive(Debug)]
pub(crate) enum Blocked {
    /// This node's owner reads too slowly.
    Here(Incoming),
    /// The next node has no room for more bulk.
    Next(Frame),
}

impl Shared {
    pub(crate) fn new(
        local: Local,
        identity: Identity,
        deliveries: [Delivery; CHANNELS.len()],
    ) -> Shared {
        let alarm = Arc::new(Alarm::default());
        alarm.set_may_judge(true);
        Shared {
            local,
            identity,
            alarm,
            deliveries,
            members: RwLock::default(),
            table: RwLock::default(),
            known: Mutex::default(),
            peers: Mutex::default(),
            attempts: AtomicU64::new(1),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.alarm.counters
    }

    /// Whether this node decides which link to `peer` is the one.
    pub(crate) fn decides(&self, peer: NodeId) -> bool {
        self.local.node < peer
    }

    pub(crate) fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    // Members, peers, routes.

    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        read(&self.members).contains(&node)
    }

    /// From here on others are refused; links to them are closed.
    pub(crate) fn set_members(&self, members: BTreeSet<NodeId>) {
        lock(&self.known).retain(|node, _| members.contains(node));
        *write(&self.members) = members;
        let links: Vec<Arc<Link>> = self.links();
        for link in links {
            if !self.is_member(link.peer) {
                link.close(LinkDownCause::Local);
            }
        }
        self.alarm.ring();
    }

    pub(crate) fn set_peers(&self, peers: BTreeMap<NodeId, Vec<SocketAddr>>) {
        *lock(&self.peers) = peers;
        self.alarm.ring();
    }

    pub(crate) fn peers(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        let mut peers = lock(&self.peers).clone();
        peers.retain(|node, _| *node != self.local.node && self.is_member(*node));
        peers
    }

    pub(crate) fn set_routes(&self, routes: BTreeMap<NodeId, NodeId>) {
        write(&self.table).routes = routes;
    }

    // Links.

    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        read(&self.table).links.values().cloned().collect()
    }

    pub(crate) fn link(&self, peer: NodeId) -> Option<Arc<Link>> {
        read(&self.table).links.get(&peer).filter(|link| link.cause().is_none()).cloned()
    }

    pub(crate) fn add_link(&self, link: Arc<Link>) {
        let known = Known { incarnation: link.incarnation, adoption: link.adoption };
        lock(&self.known).insert(link.peer, known);
        write(&self.table).links.insert(link.peer, link);
    }

    /// Takes links that are down out of the table.
    pub(crate) fn take_closed(&self) -> Vec<Arc<Link>> {
        let closed: Vec<_> = self.links().into_iter().filter(|l| l.cause().is_some()).collect();
        if !closed.is_empty() {
            write(&self.table).links.retain(|_, link| link.cause().is_none());
        }
        closed
    }

    pub(crate) fn link_states(&self) -> Vec<LinkState> {
        let up = self.links().into_iter().filter(|link| link.cause().is_none());
        up.map(|link| LinkState {
            peer: link.peer,
            incarnation: link.incarnation,
            version: link.version,
            rtt: link.rtt(),
            suspect: link.is_suspect(),
        })
        .collect()
    }

    /// The newest incarnation and link that is known of a node.
    pub(crate) fn known(&self, node: NodeId) -> Known {
        lock(&self.known).get(&node).copied().unwrap_or_default()
    }

    /// Whether a connection of a member may go on, given the links that are up. Closes a link
    /// that the peer can't have any more.
    pub(crate) fn admit(&self, peer: NodeId, hello: &Hello) -> Result<(), Refusal> {
        let known = self.known(peer);
        if hello.incarnation < known.incarnation {
            return Err(Refusal::OldIncarnation { known: known.incarnation });
        }
        let Some(link) = self.link(peer) else { return Ok(()) };
        if hello.incarnation > link.incarnation {
            link.close(LinkDownCause::Reset);
            return Ok(());
        }
        if self.decides(peer) && hello.lane == Lane::Control {
            if hello.seen < link.adoption {
                return Err(Refusal::Duplicate);
            }
            // It knew of this link, and dials again: it has lost it.
            link.close(LinkDownCause::Reset);
        }
        Ok(())
    }

    // Frames.

    fn way(&self, to: NodeId) -> Option<Way> {
        if to == self.local.node {
            return Some(Way::Here);
        }
        let table = read(&self.table);
        let up = |node: &NodeId| table.links.get(node).filter(|link| link.is_taking());
        let link = table.routes.get(&to).and_then(up).or_else(|| up(&to))?;
        Some(Way::Link(Arc::clone(link)))
    }

    fn frame(&self, to: NodeId, channel: Channel, body: Bytes) -> Result<Frame, SendError> {
        if body.len() > FRAME_BODY_MAX {
            return Err(SendError::TooLong);
        }
        Ok(Frame { header: Header::new(self.local.node, to, channel), body })
    }

    /// Sends a frame without waiting.
    pub(crate) fn send(&self, to: NodeId, channel: Channel, body: Bytes) -> Result<(), SendError> {
        let frame = self.frame(to, channel, body)?;
        match self.way(to) {
            None => self.no_route(),
            Some(Way::Here) => self.to_self(frame),
            Some(Way::Link(link)) => self.queue(&link, frame).map_err(|(error, _)| error),
        }
    }

    /// Sends a frame once little is queued before it.
    pub(crate) async fn send_paced(
        &self,
        to: NodeId,
        channel: Channel,
        body: Bytes,
    ) -> Result<(), SendError> {
        let mut frame = self.frame(to, channel, body)?;
        loop {
            let link = match self.way(to) {
                None => return self.no_route(),
                Some(Way::Here) => {
                    let here = Blocked::Here(self.incoming(frame));
                    self.unblock(here).await;
                    return Ok(());
                }
                Some(Way::Link(link)) => link,
            };
            link.outbox(Lane::of(channel)).room().await;
            match self.queue(&link, frame) {
                Ok(()) => return Ok(()),
                // Others were quicker: wait again.
                Err((SendError::Full, back)) => frame = back,
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Bytes that can be queued for a node before `send_paced` would wait.
    pub(crate) fn room(&self, to: NodeId, channel: Channel) -> usize {
        match self.way(to) {
            None => 0,
            Some(Way::Here) => FRAME_BODY_MAX,
            Some(Way::Link(link)) => link.outbox(Lane::of(channel)).free(),
        }
    }

    fn no_route(&self) -> Result<(), SendError> {
        self.counters().dropped_no_route.bump();
        Err(SendError::NoRoute)
    }

    fn to_self(&self, frame: Frame) -> Result<(), SendError> {
        let (channel, bytes) = (frame.header.channel, frame.body.len());
        match self.offer(self.incoming(frame)) {
            Ok(()) => {
                self.counters().sent(channel, bytes);
                Ok(())
            }
            Err(_) => {
                self.counters().dropped_self_full.bump();
                Err(SendError::Full)
            }
        }
    }

    fn queue(&self, link: &Link, frame: Frame) -> Result<(), (SendError, Frame)> {
        let (channel, bytes) = (frame.header.channel, frame.body.len());
        let lane = Lane::of(channel);
        match link.outbox(lane).push(frame) {
            Ok(()) => {
                self.counters().sent(channel, bytes);
                Ok(())
            }
            Err(frame) if !link.is_taking() => {
                self.counters().dropped_no_route.bump();
                Err((SendError::NoRoute, frame))
            }
            Err(frame) if lane == Lane::Bulk => Err((SendError::Full, frame)),
            Err(frame) => {
                self.counters().broken_too_slow.bump();
                self.counters().dropped_link_down.bump();
                link.close(LinkDownCause::Local);
                Err((SendError::TooSlow, frame))
            }
        }
    }

    fn incoming(&self, frame: Frame) -> Incoming {
        let Header { from, channel, .. } = frame.header;
        Incoming { from, channel, body: frame.body }
    }

    /// Delivers to the owner. A frame for which nobody listens is gone.
    fn offer(&self, incoming: Incoming) -> Result<(), Incoming> {
        let (channel, bytes) = (incoming.channel, incoming.body.len());
        match self.deliveries[channel_index(channel)].offer(incoming) {
            Ok(()) => self.counters().received(channel, bytes),
            Err((Undelivered::Gone, _)) => self.counters().dropped_no_listener.bump(),
            Err((Undelivered::Full, incoming)) => return Err(incoming),
        }
        Ok(())
    }

    /// Whether frames of this node are taken and passed on: those of members, and of nodes to which
    /// the owner gave a way. These are members that its catalog doesn't have yet.
    fn is_heard(&self, node: NodeId) -> bool {
        self.is_member(node) || read(&self.table).routes.contains_key(&node)
    }

    /// Takes a frame that came in on a link: delivers it, passes it on, or drops it.
    pub(crate) fn arrived(&self, mut frame: Frame) -> Result<(), Blocked> {
        if !self.is_heard(frame.header.from) {
            self.counters().dropped_not_member.bump();
            return Ok(());
        }
        if frame.header.to == self.local.node {
            return self.offer(self.incoming(frame)).map_err(Blocked::Here);
        }
        if frame.header.hops == 0 {
            self.counters().dropped_hops.bump();
            return Ok(());
        }
        frame.header.hops -= 1;
        self.pass_on(frame)
    }

    fn pass_on(&self, frame: Frame) -> Result<(), Blocked> {
        let Some(Way::Link(link)) = self.way(frame.header.to) else {
            self.counters().dropped_no_route.bump();
            return Ok(());
        };
        match self.queue(&link, frame) {
            Ok(()) => self.counters().relayed.bump(),
            Err((SendError::Full, frame)) => return Err(Blocked::Next(frame)),
            Err(_) => {}
        }
        Ok(())
    }

    /// Waits until a blocked frame is delivered, passed on, or dropped.
    pub(crate) async fn unblock(&self, blocked: Blocked) {
        match blocked {
            Blocked::Here(incoming) => {
                let (channel, bytes) = (incoming.channel, incoming.body.len());
                match self.deliveries[channel_index(channel)].deliver(incoming).await {
                    Ok(()) => self.counters().received(channel, bytes),
                    Err(_) => self.counters().dropped_no_listener.bump(),
                }
            }
            Blocked::Next(frame) => {
                let passing = self.pass_on_paced(frame);
                if tokio::time::timeout(crate::limits::RELAY_WAIT, passing).await.is_err() {
                    self.counters().dropped_relay_full.bump();
                }
            }
        }
    }

    async fn pass_on_paced(&self, mut frame: Frame) {
        loop {
            let Some(Way::Link(link)) = self.way(frame.header.to) else {
                self.counters().dropped_no_route.bump();
                return;
            };
            link.outbox(Lane::of(frame.header.channel)).room().await;
            match self.pass_on(frame) {
                Err(Blocked::Next(back)) => frame = back,
                Ok(()) | Err(Blocked::Here(_)) => return,
            }
        }
    }
}
