//! One service of the suite: an instance, a gateway with clients, its checkpoints.
//!
//! Everything happens on the caller's thread in [`Stage::until`]; what the engine does elsewhere
//! wakes it. What is against the contract whoever sees it is noted as the *breach* and ends every
//! wait.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant as Moment};

use jizoku_checkpoint::image::{Diff, Image};
use jizoku_streams::gateway::{self, GatewayEnd};
use jizoku_streams::message::{GatewayBody, GatewayFrame, ToGateway};
use jizoku_types::{ConnId, Epoch, GatewayId, Incarnation, Instant, NodeId, ServiceId, Span};

use super::Subject;
use crate::{Exit, Identity, Input, Instance, Origin, Output};

const SERVICE: ServiceId = ServiceId(7);
const HERE: NodeId = NodeId([1; 32]);
const GATEWAY: GatewayId = GatewayId { node: NodeId([2; 32]), incarnation: Incarnation(1) };
/// Bytes that a client's socket is read for at once.
const CHUNK: usize = 16 << 10;

/// Blocks that may differ because the clock went on.
const CLOCK_BLOCKS: usize = 2;
/// Tries to find nothing changed.
const TRIES: usize = 50;

/// A client and what it has seen.
#[derive(Debug, Default)]
pub(super) struct Client {
    unsent: VecDeque<u8>,
    paused: bool,
    finishes: bool,
    /// It takes what it gets, but the gateway is not told.
    pub(super) slow: bool,
    owed: usize,
    pub(super) received: Vec<u8>,
    /// The output has ended.
    pub(super) ended: bool,
    /// Both directions are over.
    pub(super) closed: bool,
    pub(super) reset: bool,
}

/// Output of the instance as it was sent to the gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emitted {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) cover: u64,
}

/// See the module's header.
pub(super) struct Stage<'s> {
    subject: &'s dyn Subject,
    held: bool,
    epoch: Epoch,
    pub(super) instance: Option<Box<dyn Instance>>,
    gateway: GatewayEnd,
    pub(super) clients: BTreeMap<ConnId, Client>,
    woken: Receiver<()>,
    began: Moment,
    pub(super) running: bool,
    pub(super) exit: Option<Exit>,
    pub(super) printed: Vec<String>,
    pub(super) changes: usize,
    output_waits: bool,
    /// Whether checkpoints are taken and committed whenever output waits.
    pub(super) keeps_safe: bool,
    /// The number of the capture under way.
    wanted: Option<u64>,
    /// What each capture led to since the last start, and what it was restored from.
    pub(super) images: BTreeMap<u64, Image>,
    pub(super) last_diff: Diff,
    /// The highest number captured, and committed.
    pub(super) captured: u64,
    pub(super) committed: u64,
    pub(super) emitted: BTreeMap<u64, Vec<Emitted>>,
    /// Output that the instance had produced when the gateway attached, by connection.
    pub(super) attached: Option<BTreeMap<u64, u64>>,
    pub(super) breach: Option<String>,
}

impl<'s> Stage<'s> {
    /// Starts the actor from its beginning.
    pub(super) fn start(subject: &'s dyn Subject, held: bool) -> Stage<'s> {
        let mut stage = Stage {
            subject,
            held,
            epoch: Epoch::main(0),
            instance: None,
            gateway: GatewayEnd::new(GATEWAY, SERVICE, held),
            clients: BTreeMap::new(),
            woken: channel().1,
            began: Moment::now(),
            running: false,
            exit: None,
            printed: Vec::new(),
            changes: 0,
            output_waits: false,
            keeps_safe: true,
            wanted: None,
            images: BTreeMap::from([(0, Image::empty())]),
            last_diff: Diff::default(),
            captured: 0,
            committed: 0,
            emitted: BTreeMap::new(),
            attached: None,
            breach: None,
        };
        stage.begin(Origin::Fresh);
        stage
    }

    /// Starts it, and waits until it runs.
    pub(super) fn running(subject: &'s dyn Subject, held: bool) -> Result<Stage<'s>, String> {
        let mut stage = Stage::start(subject, held);
        stage.until("it runs", |stage| stage.running)?;
        Ok(stage)
    }

    fn begin(&mut self, origin: Origin) {
        // The old one is gone before there is a new one, as on a node that died.
        self.instance = None;
        self.epoch = self.epoch.next();
        let identity = Identity { service: SERVICE, epoch: self.epoch, held: self.held };
        let (wake, woken) = channel();
        let waker = Box::new(move || {
            // Whoever waited may have gone.
            let _ = wake.send(());
        });
        self.instance = Some(self.subject.start(&identity, origin, waker));
        self.woken = woken;
        self.running = false;
        self.exit = None;
        self.wanted = None;
        self.output_waits = false;
        self.emitted.clear();
        self.attached = None;
        let route = gateway::Input::Route { active: HERE, epoch: self.epoch };
        self.gateway.handle(self.now(), route);
    }

    /// The instance is lost; another one begins from checkpoint `seq`.
    pub(super) fn restore(&mut self, seq: u64) {
        let image = self.images.get(&seq).cloned().unwrap_or_default();
        self.restore_from(image, seq);
    }

    pub(super) fn restore_from(&mut self, image: Image, seq: u64) {
        self.captured = seq;
        self.committed = seq;
        self.images = BTreeMap::from([(seq, image.clone())]);
        self.begin(Origin::Restored { image, seq });
        self.tell(Input::Committed { seq });
    }

    /// As [`restore`](Stage::restore), from what was committed last.
    pub(super) fn fail_over(&mut self) {
        self.restore(self.committed);
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(1_000_000_000 + self.began.elapsed().as_nanos() as u64)
    }

    pub(super) fn tell(&mut self, input: Input) {
        let now = self.now();
        if let Some(instance) = &mut self.instance {
            instance.handle(now, input);
        }
    }

    fn tell_gateway(&mut self, input: gateway::Input) {
        let now = self.now();
        self.gateway.handle(now, input);
    }

    /// Drives everything until `goal`.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut goal: impl FnMut(&mut Stage<'s>) -> bool,
    ) -> Result<(), String> {
        let give_up = Moment::now() + self.subject.capabilities().patience;
        loop {
            self.pump();
            if let Some(breach) = &self.breach {
                return Err(breach.clone());
            }
            if self.keeps_safe && self.output_waits && self.wanted.is_none() && self.running {
                self.ask_capture();
                continue;
            }
            if goal(self) {
                return Ok(());
            }
            let left = give_up.saturating_duration_since(Moment::now());
            if left.is_zero() {
                let (running, exit) = (self.running, &self.exit);
                return Err(format!("in vain: {what} (runs: {running}, ended: {exit:?})"));
            }
            let due = self.instance.as_ref().and_then(|instance| instance.deadline());
            let due = due.into_iter().chain(self.gateway.deadline()).min();
            let wait = due.map_or(Span::secs(1), |due| due.since(self.now())).as_nanos();
            let wait = left.min(Duration::from_nanos(wait));
            if self.woken.recv_timeout(wait) != Ok(()) {
                if wait < Duration::from_millis(1) {
                    // An engine that is gone has dropped its waker.
                    std::thread::yield_now();
                }
                self.tell(Input::Tick);
                self.tell_gateway(gateway::Input::Tick);
            }
        }
    }

    pub(super) fn until_exit(&mut self) -> Result<Exit, String> {
        self.until("it ends", |stage| stage.exit.is_some())?;
        self.exit.clone().ok_or_else(|| "it has not ended".to_owned())
    }

    /// Carries messages until nobody has one.
    pub(super) fn pump(&mut self) {
        while self.breach.is_none() && (self.pump_instance() | self.pump_gateway()) {}
    }

    fn pump_instance(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.instance.as_mut().and_then(|instance| instance.poll()) {
            any = true;
            if self.exit.is_some() {
                self.breach.get_or_insert(format!("after its end it said {output:?}"));
                return false;
            }
            self.instance_says(output);
        }
        any
    }

    fn instance_says(&mut self, output: Output) {
        match output {
            Output::Running { .. } if self.running => {
                self.breach.get_or_insert("it said twice that it runs".to_owned());
            }
            Output::Running { .. } => self.running = true,
            Output::ToGateway { message, .. } => {
                self.note(&message);
                self.tell_gateway(gateway::Input::Message { from: HERE, message });
            }
            Output::Changed { output_waits } => {
                self.changes += 1;
                self.output_waits |= output_waits;
            }
            Output::Captured { seq, diff, .. } => self.was_captured(seq, diff),
            Output::Printed { line } => self.printed.push(line),
            Output::Exited { exit } => self.exit = Some(exit),
        }
    }

    fn was_captured(&mut self, seq: u64, diff: Diff) {
        if self.wanted.take() != Some(seq) {
            self.breach.get_or_insert(format!("nobody had asked for the capture {seq}"));
            return;
        }
        let mut image = self.images.get(&self.captured).cloned().unwrap_or_default();
        if let Err(why) = image.apply_unrooted(&diff) {
            self.breach.get_or_insert(format!("its diff does not apply: {why}"));
        }
        self.images.insert(seq, image);
        self.last_diff = diff;
        self.captured = seq;
        self.output_waits = false;
        if self.keeps_safe {
            self.commit();
        }
    }

    /// Notes output by its absolute offsets: nothing may be left out.
    fn note(&mut self, message: &ToGateway) {
        match &message.body {
            GatewayBody::Attached(attached) => {
                let produced =
                    |conn: &jizoku_streams::message::AttachedConn| (conn.counter, conn.produced);
                self.attached = Some(attached.conns.iter().map(produced).collect());
            }
            GatewayBody::Frames(frames) => {
                for frame in frames {
                    let GatewayFrame::Data { counter, offset, cover, bytes } = frame else {
                        continue;
                    };
                    let emitted = self.emitted.entry(*counter).or_default();
                    let end = emitted.iter().map(|one| one.end).max().unwrap_or(*offset);
                    if *offset > end {
                        self.breach.get_or_insert(format!("output from {end} on was left out"));
                    }
                    let end = offset + bytes.0.len() as u64;
                    emitted.push(Emitted { start: *offset, end, cover: *cover });
                }
            }
            _ => {}
        }
    }

    fn pump_gateway(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.gateway.poll() {
            any = true;
            match output {
                gateway::Output::Send { message, .. } => {
                    self.tell(Input::FromGateway { gateway: GATEWAY, message });
                }
                gateway::Output::ToClient { conn, bytes } => {
                    let client = self.clients.entry(conn).or_default();
                    client.received.extend(&bytes);
                    client.owed += bytes.len();
                    if !client.slow {
                        self.took(conn);
                    }
                }
                gateway::Output::ClientFin { conn } => {
                    self.clients.entry(conn).or_default().ended = true;
                }
                gateway::Output::CloseClient { conn } => {
                    let client = self.clients.entry(conn).or_default();
                    (client.ended, client.closed) = (true, true);
                }
                gateway::Output::ResetClient { conn, .. } => {
                    self.clients.entry(conn).or_default().reset = true;
                }
                gateway::Output::PauseReading { conn } => {
                    self.clients.entry(conn).or_default().paused = true;
                }
                gateway::Output::ReadMore { conn } => {
                    self.clients.entry(conn).or_default().paused = false;
                    self.let_send(conn);
                }
                gateway::Output::FirstOutput { .. } => {}
            }
        }
        any
    }

    /// A client's socket takes nothing for now.
    pub(super) fn slow(&mut self, conn: ConnId) {
        self.clients.entry(conn).or_default().slow = true;
    }

    /// A client's socket has taken all that it was given, and goes on taking.
    pub(super) fn took(&mut self, conn: ConnId) {
        let client = self.clients.entry(conn).or_default();
        client.slow = false;
        let count = core::mem::take(&mut client.owed);
        if count > 0 {
            self.tell_gateway(gateway::Input::Wrote { conn, count });
        }
    }

    pub(super) fn connect(&mut self) -> Result<ConnId, String> {
        let now = self.now();
        let peer = core::net::SocketAddr::from(([192, 0, 2, 1], 4000));
        let conn = self.gateway.open(now, 0, peer);
        let conn = conn.map_err(|why| format!("the gateway takes no client: {why:?}"))?;
        self.clients.insert(conn, Client::default());
        Ok(conn)
    }

    /// A new client that says this at once.
    pub(super) fn ask(&mut self, verb: u8, bytes: &[u8]) -> Result<ConnId, String> {
        let conn = self.connect()?;
        self.say(conn, &[verb]);
        self.say(conn, bytes);
        Ok(conn)
    }

    pub(super) fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.clients.entry(conn).or_default().unsent.extend(bytes);
        self.let_send(conn);
    }

    /// The client sends nothing more.
    pub(super) fn finish(&mut self, conn: ConnId) {
        self.clients.entry(conn).or_default().finishes = true;
        self.let_send(conn);
    }

    pub(super) fn reset(&mut self, conn: ConnId) {
        self.tell_gateway(gateway::Input::ClientReset { conn });
        self.pump();
    }

    fn let_send(&mut self, conn: ConnId) {
        loop {
            let client = self.clients.entry(conn).or_default();
            if client.paused || client.reset {
                return;
            }
            let count = client.unsent.len().min(CHUNK);
            if count == 0 {
                break;
            }
            let bytes = client.unsent.drain(..count).collect();
            self.tell_gateway(gateway::Input::FromClient { conn, bytes });
            self.pump_gateway();
        }
        if core::mem::take(&mut self.clients.entry(conn).or_default().finishes) {
            self.tell_gateway(gateway::Input::ClientEof { conn });
        }
    }

    pub(super) fn client(&mut self, conn: ConnId) -> &Client {
        self.clients.entry(conn).or_default()
    }

    /// How much a client has got.
    pub(super) fn got(&mut self, conn: ConnId) -> usize {
        self.client(conn).received.len()
    }

    /// How much of what a client wants to send has not been taken.
    pub(super) fn unsent(&mut self, conn: ConnId) -> usize {
        self.client(conn).unsent.len()
    }

    /// A round trip: a new client's bytes come back.
    pub(super) fn round_trip(&mut self, bytes: &[u8]) -> Result<(), String> {
        let conn = self.ask(super::verb::ECHO, bytes)?;
        self.until("an echo", |stage| stage.got(conn) >= bytes.len())?;
        if self.client(conn).received != bytes {
            return Err("the echo is not what was sent".to_owned());
        }
        self.finish(conn);
        self.until("an end after an echo", |stage| stage.client(conn).ended)
    }

    pub(super) fn ask_capture(&mut self) {
        let seq = self.captured + 1;
        self.wanted = Some(seq);
        self.tell(Input::Capture { seq });
    }

    pub(super) fn ask_capture_if_none(&mut self) {
        if self.wanted.is_none() && self.running {
            self.ask_capture();
        }
    }

    /// Captures and waits for it.
    pub(super) fn capture(&mut self) -> Result<(), String> {
        self.until("the capture before", |stage| stage.wanted.is_none())?;
        let seq = self.captured + 1;
        self.ask_capture();
        self.until("a capture", |stage| stage.captured >= seq)
    }

    /// Does something between two captures that must not change the state. What went before may
    /// still have its late effects (an acknowledgement, a connection's last end), so that several
    /// tries are given; the clock may have gone on.
    pub(super) fn without_change(
        &mut self,
        what: &str,
        mut action: impl FnMut(&mut Stage<'s>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut blocks = 0;
        for _ in 0..TRIES {
            self.checkpoint()?;
            let changes = self.changes;
            action(self)?;
            self.checkpoint()?;
            blocks = self.last_diff.changed_blocks();
            if blocks <= CLOCK_BLOCKS && self.changes == changes {
                return Ok(());
            }
        }
        Err(format!("{what}: {blocks} blocks changed"))
    }

    /// What was captured last is committed.
    pub(super) fn commit(&mut self) {
        self.committed = self.captured;
        self.tell(Input::Committed { seq: self.committed });
    }

    pub(super) fn checkpoint(&mut self) -> Result<(), String> {
        self.capture()?;
        self.commit();
        Ok(())
    }
}

/// A stream of numbers that is the same in every run.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }

    pub(super) fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// An error unless this is so.
pub(super) fn hold(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
