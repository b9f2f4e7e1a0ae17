//! The task of one service: owns its `GatewayEnd`, and moves bytes between it and the clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jizoku_streams::gateway::{ConnView, Input, Output, Phase};
use jizoku_streams::{GatewayEnd, ToGateway};
use jizoku_types::event::ResetCause;
use jizoku_types::{ConnId, Epoch, GatewayId, Instant, NodeId, ServiceId, Span};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Sleep;

use crate::client::{Client, ClientEvent, Flushed, Turn};
use crate::listen::{Accepted, Listeners};
use crate::{Owner, Route};

/// Events of clients that may wait; their readers wait with them.
const CLIENT_EVENTS_MAX: usize = 4096;
/// Clients that may wait to be taken.
const ACCEPTED_MAX: usize = 1024;
/// Events that are taken in before outputs are looked at: bounds latency, saves work.
const BATCH_MAX: usize = 64;
/// After so long without a word of the service, a client's request counts as unanswered.
const ANSWER_WITHIN: Span = Span::secs(10);
/// How often unanswered requests are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the owner tells a service's task.
pub(crate) enum Command {
    Route(Route),
    Message { from: NodeId, message: ToGateway },
    LinkBack(NodeId),
    Conns { most: usize, reply: oneshot::Sender<Vec<ConnView>> },
}

/// What was seen of a service at this gateway since its start.
#[derive(Debug, Default)]
pub struct ServiceStats {
    conns: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    reset: AtomicU64,
    answers: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    overflows: AtomicU64,
    errors: AtomicU64,
    timeouts: AtomicU64,
    attached: Mutex<Option<Epoch>>,
    closed: Mutex<BTreeMap<SocketAddr, String>>,
}

/// A reading of [`ServiceStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Connections that are open now.
    pub conns: u64,
    /// Connections that were taken.
    pub opened: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that were reset towards the client.
    pub reset: u64,
    /// Pieces of output that went to clients.
    pub answers: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Commands that were lost because too many waited.
    pub overflows: u64,
    /// Connections that the instance refused or broke.
    pub errors: u64,
    /// Requests that got no answer in time, on connections whose client waits for answers.
    pub timeouts: u64,
    /// The epoch whose instance has answered this gateway, and is followed; none: connections wait.
    pub attached: Option<Epoch>,
}

impl ServiceStats {
    /// The counts now. They are read one after the other, not at one moment.
    pub fn read(&self) -> ServiceCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServiceCounts {
            conns: get(&self.conns),
            opened: get(&self.opened),
            refused: get(&self.refused),
            reset: get(&self.reset),
            answers: get(&self.answers),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            overflows: get(&self.overflows),
            errors: get(&self.errors),
            timeouts: get(&self.timeouts),
            attached: *self.attached.lock().expect("no panic while locked"),
        }
    }

    /// Addresses that the service shall have and that can't be opened, each with the cause. They
    /// are tried again.
    pub fn closed(&self) -> BTreeMap<SocketAddr, String> {
        self.closed.lock().expect("no panic while locked").clone()
    }

    pub(crate) fn set_closed(&self, address: SocketAddr, cause: Option<String>) {
        let mut closed = self.closed.lock().expect("no panic while locked");
        match cause {
            Some(cause) => closed.insert(address, cause),
            None => closed.remove(&address),
        };
    }

    pub(crate) fn forget_closed(&self) {
        self.closed.lock().expect("no panic while locked").clear();
    }

    pub(crate) fn count_overflow(&self) {
        add(&self.overflows, 1);
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

pub(crate) struct Task {
    service: ServiceId,
    bind: Vec<IpAddr>,
    owner: Arc<dyn Owner>,
    stats: Arc<ServiceStats>,
    end: GatewayEnd,
    me: GatewayId,
    listeners: Listeners,
    clients: BTreeMap<ConnId, Client>,
    /// Clients whose connection is over for the end, with bytes that aren't written yet.
    closing: BTreeMap<ConnId, Client>,
    /// Of what was read since outputs were looked at last: those may pause its reader.
    read: Vec<OwnedSemaphorePermit>,
}

impl Task {
    pub(crate) fn new(
        (me, service, held): (GatewayId, ServiceId, bool),
        bind: Vec<IpAddr>,
        owner: Arc<dyn Owner>,
        stats: Arc<ServiceStats>,
    ) -> Task {
        Task {
            service,
            bind,
            owner,
            stats,
            end: GatewayEnd::new(me, service, held),
            me,
            listeners: Listeners::default(),
            clients: BTreeMap::new(),
            closing: BTreeMap::new(),
            read: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let (events_in, mut events) = mpsc::channel(CLIENT_EVENTS_MAX);
        let (accepted_in, mut accepted) = mpsc::channel(ACCEPTED_MAX);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut alarm = Alarm::default();
        loop {
            alarm.set(self.end.deadline(), self.owner.now());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command, &accepted_in),
                    None => return,
                },
                Some(client) = accepted.recv() => self.accept(client, &events_in),
                Some(event) = events.recv() => self.client(event),
                () = alarm.ring() => self.handle(Input::Tick),
                _ = look.tick() => self.look(),
            }
            for _ in 0..BATCH_MAX {
                let mut idle = true;
                if let Ok(event) = events.try_recv() {
                    self.client(event);
                    idle = false;
                }
                if let Ok(command) = commands.try_recv() {
                    self.command(command, &accepted_in);
                    idle = false;
                }
                if idle {
                    break;
                }
            }
            self.drain();
            self.read.clear();
            self.show_session();
        }
    }

    /// Lets everybody see whose instance is followed.
    fn show_session(&self) {
        let attached = self.end.phase() == Phase::Attached;
        let epoch = self.end.epoch().filter(|_| attached);
        *self.stats.attached.lock().expect("no panic while locked") = epoch;
    }

    /// Counts requests without an answer. While the service moves nobody can answer.
    fn look(&mut self) {
        let now = self.owner.now();
        let attached = self.end.phase() == Phase::Attached;
        for client in self.clients.values_mut() {
            if !attached && matches!(client.turn, Turn::Service(_)) {
                client.turn = Turn::Service(now);
            } else if client.turn.is_overdue(now, ANSWER_WITHIN) {
                add(&self.stats.timeouts, 1);
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let now: Instant = self.owner.now();
        self.end.handle(now, input);
    }

    fn command(&mut self, command: Command, accepted: &mpsc::Sender<Accepted>) {
        match command {
            Command::Route(route) => self.route(&route, accepted),
            Command::Message { from, message } => self.handle(Input::Message { from, message }),
            Command::LinkBack(node) => self.handle(Input::LinkBack { node }),
            Command::Conns { most, reply } => {
                // The asker may have gone away.
                let _ = reply.send(self.end.views().take(most).collect());
            }
        }
    }

    fn route(&mut self, route: &Route, accepted: &mpsc::Sender<Accepted>) {
        if !route.wanted {
            self.listeners.close();
            self.stats.forget_closed();
            self.handle(Input::Unrouted);
            return;
        }
        let named = (self.service, &self.stats);
        self.listeners.set(&route.ports, &self.bind, accepted, &self.owner, named);
        self.handle(Input::Held(route.held));
        if let Some((active, epoch)) = route.active {
            self.handle(Input::Route { active, epoch });
        }
    }

    fn accept(&mut self, accepted: Accepted, events: &mpsc::Sender<ClientEvent>) {
        let Accepted { port, stream, peer } = accepted;
        match self.end.open(self.owner.now(), port, peer) {
            Ok(conn) => {
                add(&self.stats.opened, 1);
                self.clients.insert(conn, Client::new(conn, stream, events.clone()));
                self.count();
            }
            // Dropping the socket closes it: the client may try another node.
            Err(_) => add(&self.stats.refused, 1),
        }
    }

    fn count(&self) {
        self.stats.conns.store(self.clients.len() as u64, Ordering::Relaxed);
    }

    fn client(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Bytes(conn, bytes, permit) => {
                self.read.push(permit);
                add(&self.stats.bytes_in, bytes.len());
                let now = self.owner.now();
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.turn.asked(now);
                }
                self.handle(Input::FromClient { conn, bytes });
            }
            ClientEvent::Eof(conn) => self.handle(Input::ClientEof { conn }),
            ClientEvent::Broken(conn) => self.broken(conn),
            ClientEvent::Writable(conn) => self.writable(conn),
        }
    }

    fn broken(&mut self, conn: ConnId) {
        self.closing.remove(&conn);
        if self.clients.remove(&conn).is_some() {
            self.handle(Input::ClientReset { conn });
            self.count();
        }
    }

    fn writable(&mut self, conn: ConnId) {
        if let Some(client) = self.closing.get_mut(&conn) {
            if !matches!(client.flush(), Ok(Flushed::Wrote(_))) {
                self.closing.remove(&conn);
            }
            return;
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match client.flush() {
            Ok(Flushed::Wrote(count) | Flushed::Done(count)) => self.wrote(conn, count),
            Err(_) => self.broken(conn),
        }
    }

    fn wrote(&mut self, conn: ConnId, count: usize) {
        if count > 0 {
            add(&self.stats.bytes_out, count);
            self.handle(Input::Wrote { conn, count });
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.end.poll() {
            match output {
                Output::Send { to, message } => self.owner.send(to, self.me, message),
                Output::ToClient { conn, bytes } => {
                    add(&self.stats.answers, 1);
                    self.write(conn, |client| {
                        client.turn.answered();
                        client.write(&bytes)
                    });
                }
                Output::ClientFin { conn } => self.write(conn, Client::fin),
                Output::CloseClient { conn } => self.close(conn),
                Output::ResetClient { conn, cause } => self.reset(conn, cause),
                Output::PauseReading { conn } => self.pause(conn, true),
                Output::ReadMore { conn } => self.pause(conn, false),
                Output::FirstOutput { epoch } => self.owner.first_output(self.service, epoch),
            }
        }
    }

    fn write(&mut self, conn: ConnId, how: impl FnOnce(&mut Client) -> std::io::Result<Flushed>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match how(client) {
            Ok(Flushed::Wrote(count) | Flushed::Done(count)) => self.wrote(conn, count),
            Err(_) => self.broken(conn),
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(mut client) = self.clients.remove(&conn) else { return };
        self.count();
        if let Ok(Flushed::Wrote(_)) = client.close() {
            self.closing.insert(client.conn(), client);
        }
    }

    fn reset(&mut self, conn: ConnId, cause: ResetCause) {
        if let Some(client) = self.clients.remove(&conn) {
            client.reset();
            add(&self.stats.reset, 1);
            if cause == ResetCause::ByInstance {
                add(&self.stats.errors, 1);
            }
            self.owner.reset(self.service, cause);
            self.count();
        }
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        if let Some(client) = self.clients.get(&conn) {
            client.pause(paused);
        }
    }
}

/// A timer that is set for every round of a task, and hardly ever rings: it is moved only when it
/// has to ring sooner, for moving it costs as much as the round.
#[derive(Default)]
struct Alarm {
    /// The timer, and when it rings, at the latest when it is needed.
    set: Option<(Pin<Box<Sleep>>, Instant)>,
    needed: bool,
}

impl Alarm {
    /// It is needed at `at`, or not at all.
    fn set(&mut self, at: Option<Instant>, now: Instant) {
        self.needed = at.is_some();
        let Some(at) = at else { return };
        if self.set.as_ref().is_some_and(|(timer, rings)| *rings <= at && !timer.is_elapsed()) {
            return;
        }
        let wait = Duration::from_nanos(at.since(now).as_nanos());
        let rings = tokio::time::Instant::now() + wait;
        match &mut self.set {
            Some((timer, known)) => {
                timer.as_mut().reset(rings);
                *known = at;
            }
            None => self.set = Some((Box::pin(tokio::time::sleep_until(rings)), at)),
        }
    }

    /// Waits until it rings, which may be too soon.
    async fn ring(&mut self) {
        match &mut self.set {
            Some((timer, _)) if self.needed => timer.as_mut().await,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_when_it_is_needed_and_may_be_set_again() {
        let at = |millis: u64| Some(Instant::ORIGIN + Span::millis(millis));
        let now = Instant::ORIGIN;
        let mut alarm = Alarm::default();
        alarm.set(at(50), now);
        alarm.set(at(5), now);
        alarm.ring().await;
        // It rang: what is needed next is set anew, though it is later.
        let began = std::time::Instant::now();
        alarm.set(at(50), at(5).expect("a time"));
        alarm.ring().await;
        assert!(began.elapsed() >= Duration::from_millis(44));
        alarm.set(None, at(50).expect("a time"));
        let silent = tokio::time::timeout(Duration::from_millis(10), alarm.ring()).await;
        assert!(silent.is_err(), "nobody needs it");
    }
}
