//! The thread that beats on all links and judges them, apart from everything that may be busy.
//!
//! It owns the heart lane of each link. A beat is 24 bytes: when it was sent by the sender's
//! clock, the newest such time that the sender has from the peer, and how long ago that came.
//! From the last two the peer knows the round trip time without keeping anything.
//!
//! In each round it first tells [`Liveness`] whether it woke late, then reads everything that
//! has arrived, and judges last: so it never takes its own lateness for a peer's silence.
//!
//! It speaks for the whole agent, so it falls silent when the agent is stuck: if no task of the
//! runtime has run for [`STUCK`], it withholds its beats until one does.
//!
//! What it does not know: the other lanes; what follows from a link's end.
//!
//! Invariants
//! - A beat that can't be written at once is not written: nothing piles up for a stuck peer.
//! - It never waits for anything but the sockets and the next beat.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Buf;
use jizoku_core::liveness::{Input, Liveness, Output, Timing, Verdict};
use jizoku_types::event::LinkDownCause;
use jizoku_types::{Instant, NodeId, Span};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::clock::boottime_now;
use crate::link::Link;
use crate::shared::Alarm;
use crate::tls::Session;

/// Bytes of one beat.
const BEAT_BYTES: usize = 24;
/// The token that stands for the waker.
const WAKE: Token = Token(0);
/// Sockets looked at in one round; the others are looked at in the next.
const EVENTS: usize = 512;
/// Most bytes that one link may bring in one round. A peer that sends more is broken.
const ROUND_MAX: usize = 64 << 10;
/// How long the runtime may be without a [`Pulse`]: far longer than any load delays it, so that
/// what the others take for dead can do nothing any more.
const STUCK: Span = Span::secs(2);
/// How often the runtime shows that it runs.
const PULSE_EVERY: Duration = Duration::from_millis(200);
/// How much sooner than others the thread is run, if the agent may say so.
const NICE: i32 = -10;

/// When the runtime has last shown that its tasks run, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Pulse(AtomicU64);

impl Pulse {
    fn show(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn is_stuck(&self, now: Instant) -> bool {
        now.since(Instant::from_nanos(self.0.load(Ordering::Relaxed))) > STUCK
    }

    /// Shows for ever that the runtime runs.
    pub(crate) async fn keep_showing(self: Arc<Pulse>) {
        let mut ticks = tokio::time::interval(PULSE_EVERY);
        loop {
            ticks.tick().await;
            self.show(boottime_now());
        }
    }
}

/// The rest of the mesh's end of the thread. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Heart {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Orders {
    /// Links that came up and aren't watched yet: at most one for each member.
    fresh: Mutex<Vec<Fresh>>,
    stop: AtomicBool,
    waker: Waker,
}

struct Fresh {
    link: Arc<Link>,
    tcp: std::net::TcpStream,
    session: Box<Session>,
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fresh({:?})", self.link.peer)
    }
}

impl Heart {
    pub(crate) fn start(timing: Timing, alarm: Arc<Alarm>, pulse: Arc<Pulse>) -> io::Result<Heart> {
        pulse.show(boottime_now());
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let orders =
            Arc::new(Orders { fresh: Mutex::default(), stop: AtomicBool::new(false), waker });
        let beating = Beating {
            poll,
            orders: Arc::clone(&orders),
            alarm,
            pulse,
            beat_every: timing.beat(),
            liveness: Liveness::new(timing),
            links: BTreeMap::new(),
            tokens: 1,
            next_beat: boottime_now(),
        };
        let thread = std::thread::Builder::new().name("jizoku-heart".into()).spawn(|| {
            // Without the privilege it runs like everybody else.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            beating.run();
        })?;
        Ok(Heart { orders, thread: Some(thread) })
    }

    /// Watches a link from now on.
    pub(crate) fn watch(&self, link: Arc<Link>, tcp: std::net::TcpStream, session: Box<Session>) {
        let mut fresh = self.orders.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.push(Fresh { link, tcp, session });
        drop(fresh);
        self.wake();
    }

    /// Makes it look at its links: one of them may be down.
    pub(crate) fn wake(&self) {
        // It wakes by itself within a beat.
        let _ = self.orders.waker.wake();
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watched {
    link: Arc<Link>,
    tcp: TcpStream,
    session: Box<Session>,
    /// When the peer's newest beat was sent, by its clock, and when it came, by ours.
    newest: Option<(u64, Instant)>,
    /// The newest of our own times that came back: each measures once.
    measured: u64,
}

struct Beating {
    poll: Poll,
    orders: Arc<Orders>,
    alarm: Arc<Alarm>,
    pulse: Arc<Pulse>,
    beat_every: Span,
    liveness: Liveness,
    links: BTreeMap<Token, Watched>,
    tokens: usize,
    next_beat: Instant,
}

impl Beating {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut due = self.next_beat;
        while !self.orders.stop.load(Ordering::Relaxed) {
            let wait = due.since(boottime_now());
            let result = self.poll.poll(&mut events, Some(Duration::from_nanos(wait.as_nanos())));
            if result.is_err() {
                // Interrupted: as if nothing had arrived.
                events.clear();
            }
            let now = boottime_now();
            self.liveness.handle(now, Input::Woke { due });
            self.adopt(now);
            for event in &events {
                self.read(now, event.token());
            }
            self.liveness.handle(now, Input::Tick);
            self.judge();
            self.drop_closed(now);
            if now >= self.next_beat {
                self.beat(now);
                self.next_beat = (self.next_beat + self.beat_every).max(now);
            }
            due = self.next_beat.min(self.liveness.deadline().unwrap_or(Instant::NEVER));
        }
    }

    fn adopt(&mut self, now: Instant) {
        let orders = Arc::clone(&self.orders);
        let fresh =
            std::mem::take(&mut *orders.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        for Fresh { link, tcp, session } in fresh {
            // A newer link to the same node replaces the older one in the table of verdicts.
            self.drop_closed(now);
            let token = Token(self.tokens);
            self.tokens += 1;
            let mut tcp = TcpStream::from_std(tcp);
            if self.poll.registry().register(&mut tcp, token, Interest::READABLE).is_err() {
                link.close(LinkDownCause::Local);
                continue;
            }
            self.liveness.handle(now, Input::Up(link.peer));
            let watched = Watched { link, tcp, session, newest: None, measured: 0 };
            self.links.insert(token, watched);
            // The first beat goes at once, and what came with the greeting is read.
            self.write(token);
            self.read(now, token);
        }
    }

    fn drop_closed(&mut self, now: Instant) {
        let liveness = &mut self.liveness;
        self.links.retain(|_, watched| {
            let up = watched.link.cause().is_none();
            if !up {
                liveness.handle(now, Input::Down(watched.link.peer));
            }
            up
        });
    }

    fn beat(&mut self, now: Instant) {
        if self.pulse.is_stuck(now) {
            self.alarm.counters.beats_withheld.bump();
            return;
        }
        for watched in self.links.values_mut() {
            if let Err(cause) = watched.write() {
                watched.link.close(cause);
            }
        }
    }

    fn write(&mut self, token: Token) {
        let Some(watched) = self.links.get_mut(&token) else { return };
        if let Err(cause) = watched.write() {
            watched.link.close(cause);
        }
    }

    fn read(&mut self, now: Instant, token: Token) {
        let Some(watched) = self.links.get_mut(&token) else { return };
        match watched.read() {
            Ok(None) => {}
            Ok(Some(heard)) => {
                let peer = watched.link.peer;
                self.liveness.handle(now, Input::Heard { peer, rtt: heard.rtt });
                let rtt = self.liveness.link(peer).and_then(|detector| detector.rtt());
                if let Some(rtt) = rtt {
                    watched.link.set_rtt(rtt);
                }
            }
            Err(cause) => watched.link.close(cause),
        }
    }

    fn judge(&mut self) {
        while let Some(output) = self.liveness.poll() {
            match output {
                Output::Late { by } => self.alarm.late(by),
                Output::Verdict { peer, verdict } => self.verdict(peer, verdict),
            }
        }
        self.alarm.set_may_judge(self.liveness.may_judge());
    }

    fn verdict(&self, peer: NodeId, verdict: Verdict) {
        let links = self.links.values().map(|watched| &watched.link);
        for link in links.filter(|link| link.peer == peer && link.cause().is_none()) {
            link.set_verdict(verdict);
            if verdict == Verdict::Silent {
                link.close(LinkDownCause::Silence);
            }
        }
    }
}

/// What a read brought.
struct Heard {
    rtt: Option<Span>,
}

impl Watched {
    fn write(&mut self) -> Result<(), LinkDownCause> {
        if self.session.unsent() == 0 {
            let now = boottime_now();
            let (stamp, held) = match self.newest {
                Some((stamp, came)) => (stamp, now.since(came).as_nanos()),
                None => (0, 0),
            };
            let mut beat = [0; BEAT_BYTES];
            beat[..8].copy_from_slice(&now.as_nanos().to_le_bytes());
            beat[8..16].copy_from_slice(&stamp.to_le_bytes());
            beat[16..].copy_from_slice(&held.to_le_bytes());
            self.session.put(&beat).map_err(|_| LinkDownCause::Local)?;
            self.session.seal().map_err(|_| LinkDownCause::Local)?;
        }
        while self.session.unsent() > 0 {
            match self.session.write_to(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(LinkDownCause::Reset),
            }
        }
        Ok(())
    }

    /// Reads all that has arrived.
    fn read(&mut self) -> Result<Option<Heard>, LinkDownCause> {
        let mut total = 0;
        while total <= ROUND_MAX {
            match self.session.read_from(&mut self.tcp) {
                Ok(0) => return Err(LinkDownCause::Reset),
                Ok(count) => {
                    total += count;
                    self.session.advance().map_err(|_| LinkDownCause::Local)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(LinkDownCause::Reset),
            }
        }
        if self.session.is_closed() {
            return Err(LinkDownCause::Reset);
        }
        if total > ROUND_MAX {
            return Err(LinkDownCause::Local);
        }
        let now = boottime_now();
        let mut heard = None;
        while self.session.plain().len() >= BEAT_BYTES {
            let (stamp, echo, held) = {
                let plain = self.session.plain();
                (plain.get_u64_le(), plain.get_u64_le(), plain.get_u64_le())
            };
            self.newest = Some((stamp, now));
            let rtt = self.measure(now, echo, held);
            heard = Some(Heard { rtt });
        }
        Ok(heard)
    }

    /// The round trip time, if `echo` is a time of ours that didn't come back before.
    fn measure(&mut self, now: Instant, echo: u64, held: u64) -> Option<Span> {
        if echo <= self.measured || echo > now.as_nanos() {
            return None;
        }
        self.measured = echo;
        let away = now.since(Instant::from_nanos(echo));
        let held = Span::nanos(held);
        (held <= away).then(|| away - held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_shows_nothing_for_long_is_stuck() {
        let pulse = Pulse::default();
        let start = boottime_now();
        pulse.show(start);
        assert!(!pulse.is_stuck(start + STUCK));
        assert!(pulse.is_stuck(start + STUCK + Span::millis(1)));
        pulse.show(start + Span::secs(5));
        assert!(!pulse.is_stuck(start + Span::secs(6)));
    }
}
