//! Brings links up, notices that they are down, and brings them up again.
//!
//! Both ends of a link may dial, and both may do so at once. So one of the two, the one with
//! the lower id, decides: whichever attempt is complete first at its end is the link. It numbers
//! the links that it adopts and says so on the control lane ([`crate::hello::Adopt`]); the other
//! end follows the highest number that it has heard. No frame travels before that, so none is
//! lost when an attempt is dropped.
//!
//! A dialling end says which link it has seen last ([`crate::hello::Hello::seen`]). From that
//! the deciding end tells a peer that has lost the link from one that hasn't heard of it yet.
//!
//! What it does not know: what frames mean; how liveness is judged.
//!
//! Invariants
//! - At most one link to a node is up. LinkUp and LinkDown of a node alternate.
//! - Only members have links.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jizoku_types::event::LinkDownCause;
use jizoku_types::{Incarnation, NodeId, Span};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::MeshEvent;
use crate::carry::carry;
use crate::conn::Conn;
use crate::dial::{Attempt, DialError, await_adoption, dial};
use crate::heart::Heart;
use crate::hello::{Adopt, Adoption, Hello, Refusal};
use crate::limits::{ADOPT_MAX, ATTEMPTS_MAX, REPORTED_MAX, RETRY_FIRST, RETRY_MAX, YIELD};
use crate::link::Link;
use crate::shared::Shared;
use crate::wire::{Lane, message};

/// A link that lasted this long was a good one: after it, dialling starts without a pause.
const GOOD_LINK: Duration = Duration::from_secs(1);

/// What other tasks hand to the hub.
pub(crate) enum Arrival {
    /// A member's connection that was accepted and welcomed.
    Welcomed { peer: NodeId, hello: Hello, version: u16, conn: Conn },
    /// A complete attempt; `told` if the peer decides and has decided for it.
    Complete { attempt: Attempt, told: Option<Adoption> },
    /// Dialling came to nothing.
    DialFailed { peer: NodeId, error: DialError },
    /// A connection was refused.
    Refused { peer: NodeId, address: Option<SocketAddr>, by_peer: bool, refusal: Refusal },
}

/// How dialling one peer goes.
#[derive(Debug)]
struct Dialling {
    addresses: Vec<SocketAddr>,
    failures: u32,
    next: Instant,
    task: Option<AbortHandle>,
    up_since: Option<Instant>,
}

/// An attempt of a peer, of which some connections are here.
struct Gathering {
    hello: Hello,
    version: u16,
    conns: BTreeMap<Lane, Conn>,
    until: Instant,
}

type GatheringKey = (NodeId, Incarnation, u64);

pub(crate) struct Hub {
    shared: Arc<Shared>,
    events: mpsc::Sender<MeshEvent>,
    arrivals: mpsc::Receiver<Arrival>,
    arrivals_in: mpsc::Sender<Arrival>,
    heart: Heart,
    dialling: BTreeMap<NodeId, Dialling>,
    gathering: BTreeMap<GatheringKey, Gathering>,
    reported: BTreeMap<(NodeId, bool), Refusal>,
    /// Dials and waits for adoption. They end with the hub.
    tasks: JoinSet<()>,
    adoptions: u64,
    random: SystemRandom,
}

impl Hub {
    pub(crate) fn new(
        shared: Arc<Shared>,
        events: mpsc::Sender<MeshEvent>,
        arrivals_in: mpsc::Sender<Arrival>,
        arrivals: mpsc::Receiver<Arrival>,
        heart: Heart,
    ) -> Hub {
        Hub {
            shared,
            events,
            arrivals,
            arrivals_in,
            heart,
            dialling: BTreeMap::new(),
            gathering: BTreeMap::new(),
            reported: BTreeMap::new(),
            tasks: JoinSet::new(),
            adoptions: 0,
            random: SystemRandom::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        let alarm = Arc::clone(&self.shared.alarm);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                arrival = self.arrivals.recv() => {
                    let arrival = arrival.expect("this hub holds a sender");
                    self.take(arrival).await;
                }
                () = alarm.rung() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            if let Some(by) = alarm.take_late() {
                self.emit(MeshEvent::Late { by }).await;
            }
            self.reap().await;
            self.expire();
            self.follow_peers();
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let dials = self.dialling.iter().filter(|(peer, dialling)| {
            dialling.task.is_none() && self.shared.link(**peer).is_none()
        });
        let gatherings = self.gathering.values().map(|gathering| gathering.until);
        dials.map(|(_, dialling)| dialling.next).chain(gatherings).min()
    }

    /// Tells the owner. An owner that is slow to listen makes the links wait.
    async fn emit(&self, event: MeshEvent) {
        // Fails only when nobody listens any more.
        let _ = self.events.send(event).await;
    }

    async fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Welcomed { peer, hello, version, conn } => {
                self.gather(peer, hello, version, conn).await;
            }
            Arrival::Complete { attempt, told } => {
                let peer = attempt.peer;
                if attempt.dialled
                    && let Some(dialling) = self.dialling.get_mut(&peer)
                {
                    dialling.task = None;
                }
                self.adopt(attempt, told).await;
            }
            Arrival::DialFailed { peer, error } => self.dial_failed(peer, error).await,
            Arrival::Refused { peer, address, by_peer, refusal } => {
                self.report(peer, address, by_peer, refusal).await;
            }
        }
    }

    /// Reports a refusal, unless it is the one that was reported before.
    async fn report(
        &mut self,
        peer: NodeId,
        address: Option<SocketAddr>,
        by_peer: bool,
        refusal: Refusal,
    ) {
        let key = (peer, by_peer);
        let known = self.reported.get(&key);
        let room = self.shared.is_member(peer) || self.reported.len() < REPORTED_MAX;
        let full = known.is_none() && !room;
        if known == Some(&refusal) || full || refusal == Refusal::Duplicate {
            return;
        }
        self.reported.insert(key, refusal);
        self.emit(MeshEvent::Refused { peer, address, by_peer, refusal }).await;
    }

    // Accepted connections.

    async fn gather(&mut self, peer: NodeId, hello: Hello, version: u16, conn: Conn) {
        let key = (peer, hello.incarnation, hello.attempt);
        if !self.gathering.contains_key(&key) {
            self.make_room(peer);
            let until = Instant::now() + ADOPT_MAX;
            let fresh = Gathering { hello, version, conns: BTreeMap::new(), until };
            self.gathering.insert(key, fresh);
        }
        let gathering = self.gathering.get_mut(&key).expect("just put there");
        gathering.conns.insert(hello.lane, conn);
        if gathering.conns.len() < Lane::ALL.len() {
            return;
        }
        let complete = self.gathering.remove(&key).expect("just looked at");
        let conns: Vec<Conn> = complete.conns.into_values().collect();
        let Ok(conns) = <[Conn; Lane::ALL.len()]>::try_from(conns) else { return };
        let attempt = Attempt {
            peer,
            incarnation: complete.hello.incarnation,
            version: complete.version,
            dialled: false,
            seen: complete.hello.seen,
            rtt: None,
            conns,
        };
        if self.shared.decides(peer) {
            self.adopt(attempt, None).await;
        } else {
            let arrivals = self.arrivals_in.clone();
            self.tasks.spawn(wait_for_adoption(arrivals, attempt));
        }
    }

    /// Drops the oldest attempt of a peer that has too many.
    fn make_room(&mut self, peer: NodeId) {
        let of_peer = self.gathering.iter().filter(|(key, _)| key.0 == peer);
        if of_peer.clone().count() < ATTEMPTS_MAX {
            return;
        }
        let oldest = of_peer.min_by_key(|(_, gathering)| gathering.until).map(|(key, _)| *key);
        oldest.map(|key| self.gathering.remove(&key));
    }

    fn expire(&mut self) {
        let now = Instant::now();
        self.gathering.retain(|_, gathering| gathering.until > now);
    }

    // Links.

    async fn adopt(&mut self, attempt: Attempt, told: Option<Adoption>) {
        let peer = attempt.peer;
        let known = self.shared.known(peer);
        if !self.shared.is_member(peer) || attempt.incarnation < known.incarnation {
            return;
        }
        let adoption = match told {
            Some(told) if told > known.adoption => told,
            Some(_) => return,
            None => {
                if let Some(link) = self.shared.link(peer)
                    && link.incarnation == attempt.incarnation
                    && (attempt.dialled || attempt.seen < link.adoption)
                {
                    return;
                }
                self.adoptions += 1;
                let incarnation = self.shared.local.incarnation;
                Adoption { incarnation, number: self.adoptions }
            }
        };
        if let Some(older) = self.shared.link(peer) {
            older.close(LinkDownCause::Reset);
        }
        self.reap().await;
        self.bring_up(attempt, adoption, told.is_none()).await;
    }

    async fn bring_up(&mut self, attempt: Attempt, adoption: Adoption, announce: bool) {
        let Attempt { peer, incarnation, version, rtt, conns, .. } = attempt;
        let alarm = Arc::clone(&self.shared.alarm);
        let link = Arc::new(Link::new(peer, incarnation, version, adoption, alarm));
        let rtt = rtt.unwrap_or(Span::ZERO);
        link.set_rtt(rtt);
        let [mut control, streams, state, bulk, heart] = conns;
        if announce {
            let told = message(&Adopt(adoption));
            let said = control.session.put(&told).and_then(|()| control.session.seal());
            let Ok(()) = said else { return };
        }
        let Conn { tcp, session } = heart;
        let Ok(tcp) = tcp.into_std() else { return };

        if let Some(dialling) = self.dialling.get_mut(&peer) {
            dialling.task.take().inspect(AbortHandle::abort);
            dialling.up_since = Some(Instant::now());
        }
        self.reported.retain(|(node, _), _| *node != peer);
        self.gathering.retain(|key, _| key.0 != peer || key.1 > incarnation);
        self.shared.counters().links_up.bump();
        self.shared.add_link(Arc::clone(&link));
        self.emit(MeshEvent::LinkUp { peer, incarnation, version, rtt }).await;

        let framed = [control, streams, state, bulk].into_iter().zip(Lane::ALL);
        let tasks = framed.map(|(conn, lane)| {
            let carrying = carry(Arc::clone(&self.shared), Arc::clone(&link), lane, conn);
            tokio::spawn(carrying).abort_handle()
        });
        link.own(tasks.collect::<Vec<_>>());
        self.heart.watch(link, tcp, session);
    }

    /// Takes out the links that went down, and tells of them.
    async fn reap(&mut self) {
        for link in self.shared.take_closed() {
            let Some(cause) = link.cause() else { continue };
            let peer = link.peer;
            self.shared.counters().links_down.bump();
            self.heart.wake();
            self.dial_again(peer);
            let incarnation = link.incarnation;
            self.emit(MeshEvent::LinkDown { peer, incarnation, cause }).await;
        }
    }

    // Dialling.

    /// After a link went down: at once, but after one that didn't last.
    fn dial_again(&mut self, peer: NodeId) {
        let Some(dialling) = self.dialling.get_mut(&peer) else { return };
        let now = Instant::now();
        let lasted = dialling.up_since.take().map(|since| now.duration_since(since));
        let good = lasted.is_some_and(|lasted| lasted >= GOOD_LINK);
        dialling.failures = if good { 0 } else { dialling.failures.saturating_add(1) };
        let failures = dialling.failures;
        let next = now + self.yielding(peer) + self.pause(failures);
        self.dialling.entry(peer).and_modify(|dialling| dialling.next = next);
    }

    /// Dials who should be linked and isn't, when it is time; forgets who shouldn't.
    fn follow_peers(&mut self) {
        let peers = self.shared.peers();
        self.dialling.retain(|peer, dialling| {
            let wanted = peers.contains_key(peer);
            if !wanted {
                dialling.task.take().inspect(AbortHandle::abort);
            }
            wanted
        });
        let now = Instant::now();
        for (peer, addresses) in peers {
            let first = now + self.yielding(peer);
            let dialling = self.dialling.entry(peer).or_insert_with(|| Dialling {
                addresses: Vec::new(),
                failures: 0,
                next: first,
                task: None,
                up_since: None,
            });
            if dialling.addresses != addresses {
                dialling.addresses = addresses;
                dialling.failures = 0;
                dialling.next = first;
            }
            let due = dialling.task.is_none() && dialling.next <= now;
            if due && !dialling.addresses.is_empty() && self.shared.link(peer).is_none() {
                let addresses = dialling.addresses.clone();
                let task = dial_and_report(
                    Arc::clone(&self.shared),
                    self.arrivals_in.clone(),
                    peer,
                    addresses,
                );
                dialling.task = Some(self.tasks.spawn(task));
            }
        }
    }

    async fn dial_failed(&mut self, peer: NodeId, error: DialError) {
        if let Some(dialling) = self.dialling.get_mut(&peer) {
            dialling.task = None;
            dialling.failures = dialling.failures.saturating_add(1);
            let failures = dialling.failures;
            let next = Instant::now() + self.pause(failures);
            self.dialling.entry(peer).and_modify(|dialling| dialling.next = next);
        }
        if let DialError::Refused(address, refusal) = error {
            let by_peer = !matches!(refusal, Refusal::OtherKey | Refusal::Unintelligible);
            self.report(peer, Some(address), by_peer, refusal).await;
        }
    }

    /// The end that doesn't decide dials a little later.
    fn yielding(&self, peer: NodeId) -> Duration {
        if self.shared.decides(peer) { Duration::ZERO } else { YIELD }
    }

    /// The pause after so many failures: none, then doubling, with a quarter of jitter.
    fn pause(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let full = RETRY_FIRST.saturating_mul(1 << doublings.min(16)).min(RETRY_MAX);
        let mut random = [0; 2];
        // Without random bytes there is no jitter.
        let _ = self.random.fill(&mut random);
        full - full / 4 * u32::from(u16::from_le_bytes(random)) / u32::from(u16::MAX)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for link in self.shared.links() {
            link.close(LinkDownCause::Local);
        }
    }
}

async fn dial_and_report(
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Arrival>,
    peer: NodeId,
    addresses: Vec<SocketAddr>,
) {
    let decides = shared.decides(peer);
    let arrival = match dial(shared, peer, addresses).await {
        Err(error) => Arrival::DialFailed { peer, error },
        Ok(attempt) if decides => Arrival::Complete { attempt, told: None },
        Ok(mut attempt) => match await_adoption(&mut attempt).await {
            None => Arrival::DialFailed { peer, error: DialError::Unreachable },
            Some(told) => Arrival::Complete { attempt, told: Some(told) },
        },
    };
    // Fails only when the mesh is gone.
    let _ = arrivals.send(arrival).await;
}

async fn wait_for_adoption(arrivals: mpsc::Sender<Arrival>, mut attempt: Attempt) {
    if let Some(told) = await_adoption(&mut attempt).await {
        let _ = arrivals.send(Arrival::Complete { attempt, told: Some(told) }).await;
    }
}
