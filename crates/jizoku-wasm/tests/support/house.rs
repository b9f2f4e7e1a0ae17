//! A service as its users know it: an instance, a gateway with clients, and the checkpoints.
//!
//! Everything is driven by [`House::until`] from the test's own thread; the instance's thread wakes
//! it. Nothing is waited for by time, except that a test which takes too long fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant as StdInstant};

use jizoku_checkpoint::image::{Diff, Image};
use jizoku_engine::{Exit, Identity, Input, Instance, Origin, Output};
use jizoku_streams::gateway::{self, GatewayEnd};
use jizoku_types::{
    ByteCount, ConnId, Epoch, GatewayId, Incarnation, Instant, NodeId, ServiceId, Span,
};
use jizoku_wasm::{Prepared, Program, WasmInstance};

/// A step of a test that takes longer fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that a client's socket is read for at once.
const CHUNK: usize = 64 << 10;
const HERE: NodeId = NodeId([1; 32]);
const GATEWAY: GatewayId = GatewayId { node: NodeId([2; 32]), incarnation: Incarnation(1) };

/// What a client has got.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// What it will send when it may.
    unsent: VecDeque<u8>,
    paused: bool,
    finishes: bool,
    pub received: Vec<u8>,
    pub ended: bool,
    pub reset: bool,
}

/// Each house is a service of its own, as tests share engines.
static SERVICES: AtomicU64 = AtomicU64::new(100);

/// A service.
pub(crate) struct House {
    pub service: ServiceId,
    prepared: Prepared,
    pub program: Program,
    held: bool,
    epoch: Epoch,
    pub instance: Option<WasmInstance>,
    gateway: GatewayEnd,
    /// The state at the last committed checkpoint, and its number.
    pub image: Image,
    pub seq: u64,
    pub clients: BTreeMap<ConnId, Client>,
    pub printed: Vec<String>,
    pub running: bool,
    pub exit: Option<Exit>,
    /// How often it was said that the state changed, and that output waits.
    pub changes: usize,
    pub output_waits: bool,
    /// How long the last restore took.
    pub took: Span,
    captured: VecDeque<(u64, Diff, Span)>,
    woken: Receiver<()>,
    began: StdInstant,
}

/// A program with usual limits and one port.
pub(crate) fn program() -> Program {
    Program {
        args: Vec::new(),
        env: BTreeMap::new(),
        ports: vec!["main".into()],
        memory_max: ByteCount::mib(256),
        files_max: ByteCount::mib(16),
    }
}

impl House {
    /// Starts a service from its beginning, and waits until it runs.
    pub(crate) fn new(prepared: &Prepared, held: bool) -> House {
        House::with(prepared, program(), held)
    }

    pub(crate) fn with(prepared: &Prepared, program: Program, held: bool) -> House {
        let service = ServiceId(SERVICES.fetch_add(1, Ordering::Relaxed));
        let mut house = House {
            service,
            prepared: prepared.clone(),
            program,
            held,
            epoch: Epoch::main(0),
            instance: None,
            gateway: GatewayEnd::new(GATEWAY, service, held),
            image: Image::empty(),
            seq: 0,
            clients: BTreeMap::new(),
            printed: Vec::new(),
            running: false,
            exit: None,
            changes: 0,
            output_waits: false,
            took: Span::ZERO,
            captured: VecDeque::new(),
            woken: channel().1,
            began: StdInstant::now(),
        };
        house.start(Origin::Fresh);
        house
    }

    fn start(&mut self, origin: Origin) {
        let restored = matches!(origin, Origin::Restored { .. });
        self.epoch = self.epoch.next();
        let identity = Identity { service: self.service, epoch: self.epoch, held: self.held };
        let instance = self.prepared.start(self.program.clone(), identity, origin);
        let (wake, woken) = channel();
        instance.set_waker(move || {
            let _ = wake.send(());
        });
        self.instance = Some(instance);
        self.woken = woken;
        self.running = false;
        self.exit = None;
        self.captured.clear();
        self.output_waits = false;
        let route = gateway::Input::Route { active: HERE, epoch: self.epoch };
        self.gateway.handle(self.now(), route);
        if restored {
            self.tell(Input::Committed { seq: self.seq });
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.began.elapsed().as_nanos() as u64)
    }

    pub(crate) fn tell(&mut self, input: Input) {
        let now = self.now();
        if let Some(instance) = &mut self.instance {
            instance.handle(now, input);
        }
    }

    /// Drives everything until `done`; what it gives is given back.
    pub(crate) fn until<T>(&mut self, mut done: impl FnMut(&mut House) -> Option<T>) -> T {
        let deadline = StdInstant::now() + PATIENCE;
        loop {
            self.pump();
            if let Some(result) = done(self) {
                return result;
            }
            let due = self.instance.as_ref().and_then(|instance| instance.deadline());
            let due = due.into_iter().chain(self.gateway.deadline()).min();
            let now = self.now();
            let due = due.map_or(PATIENCE, |due| Duration::from_nanos(due.since(now).as_nanos()));
            let wait = due.min(PATIENCE);
            assert!(StdInstant::now() < deadline, "it takes too long: {}", self.last_words());
            if self.woken.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                self.tell(Input::Tick);
                let now = self.now();
                self.gateway.handle(now, gateway::Input::Tick);
            }
        }
    }

    /// What it said last, for a failed test.
    fn last_words(&self) -> String {
        let lines = self.printed.iter().rev().take(5).rev().cloned();
        format!("exit {:?}, it printed: {}", self.exit, lines.collect::<Vec<_>>().join("; "))
    }

    pub(crate) fn until_running(&mut self) {
        self.until(|house| house.running.then_some(()));
    }

    pub(crate) fn until_exit(&mut self) -> Exit {
        self.until(|house| house.exit.clone())
    }

    /// Carries messages until nobody has one.
    pub(crate) fn pump(&mut self) {
        while self.pump_instance() | self.pump_gateway() {}
    }

    fn pump_instance(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.instance.as_mut().and_then(Instance::poll) {
            any = true;
            assert!(self.exit.is_none(), "after its exit it said {output:?}");
            match output {
                Output::Running { took } => {
                    self.running = true;
                    self.took = took;
                }
                Output::ToGateway { gateway, message } => {
                    assert_eq!(gateway, GATEWAY);
                    let now = self.now();
                    self.gateway.handle(now, gateway::Input::Message { from: HERE, message });
                }
                Output::Changed { output_waits } => {
                    self.changes += 1;
                    self.output_waits |= output_waits;
                }
                Output::Captured { seq, diff, pause } => {
                    self.output_waits = false;
                    self.captured.push_back((seq, diff, pause));
                }
                Output::Printed { line } => self.printed.push(line),
                Output::Exited { exit } => self.exit = Some(exit),
            }
        }
        any
    }

    fn pump_gateway(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.gateway.poll() {
            any = true;
            match output {
                gateway::Output::Send { to, message } => {
                    assert_eq!(to, HERE);
                    self.tell(Input::FromGateway { gateway: GATEWAY, message });
                }
                gateway::Output::ToClient { conn, bytes } => {
                    let count = bytes.len();
                    self.clients.get_mut(&conn).unwrap().received.extend(bytes);
                    let now = self.now();
                    self.gateway.handle(now, gateway::Input::Wrote { conn, count });
                }
                gateway::Output::ClientFin { conn } | gateway::Output::CloseClient { conn } => {
                    self.clients.get_mut(&conn).unwrap().ended = true;
                }
                gateway::Output::ResetClient { conn, .. } => {
                    self.clients.get_mut(&conn).unwrap().reset = true;
                }
                gateway::Output::PauseReading { conn } => {
                    self.clients.get_mut(&conn).unwrap().paused = true;
                }
                gateway::Output::ReadMore { conn } => {
                    self.clients.get_mut(&conn).unwrap().paused = false;
                    self.let_send(conn);
                }
                gateway::Output::FirstOutput { .. } => {}
            }
        }
        any
    }

    pub(crate) fn connect(&mut self, port: u8) -> ConnId {
        let now = self.now();
        let peer = "127.0.0.1:9".parse().unwrap();
        let conn = self.gateway.open(now, port, peer).expect("there is room for a client");
        self.clients.insert(conn, Client::default());
        conn
    }

    pub(crate) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.clients.get_mut(&conn).unwrap().unsent.extend(bytes);
        self.let_send(conn);
    }

    pub(crate) fn finish(&mut self, conn: ConnId) {
        self.clients.get_mut(&conn).unwrap().finishes = true;
        self.let_send(conn);
    }

    /// A client sends as long as it is read.
    fn let_send(&mut self, conn: ConnId) {
        loop {
            let client = self.clients.get_mut(&conn).unwrap();
            let count = client.unsent.len().min(CHUNK);
            if client.paused || client.reset {
                return;
            }
            if count == 0 {
                break;
            }
            let bytes = client.unsent.drain(..count).collect();
            let now = self.now();
            self.gateway.handle(now, gateway::Input::FromClient { conn, bytes });
            self.pump_gateway();
        }
        if std::mem::take(&mut self.clients.get_mut(&conn).unwrap().finishes) {
            let now = self.now();
            self.gateway.handle(now, gateway::Input::ClientEof { conn });
        }
    }

    pub(crate) fn reset(&mut self, conn: ConnId) {
        let now = self.now();
        self.gateway.handle(now, gateway::Input::ClientReset { conn });
    }

    /// How many bytes a client has got.
    pub(crate) fn received(&self, conn: ConnId) -> usize {
        self.clients[&conn].received.len()
    }

    /// Asks for a capture and waits for it; it is not committed yet.
    pub(crate) fn capture(&mut self) -> (Diff, Span) {
        self.try_capture().expect("it was captured before it ended")
    }

    /// As `capture`; none if the program ends instead.
    fn try_capture(&mut self) -> Option<(Diff, Span)> {
        let seq = self.seq + 1;
        self.tell(Input::Capture { seq });
        let (number, diff, pause) = self.until(|house| match house.captured.pop_front() {
            None if house.exit.is_some() => Some(None),
            None => None,
            captured => Some(captured),
        })?;
        assert_eq!(number, seq);
        self.seq = seq;
        Some((diff, pause))
    }

    pub(crate) fn commit(&mut self, diff: &Diff) {
        self.image.apply_unrooted(diff).expect("a diff applies to the image before");
        self.tell(Input::Committed { seq: self.seq });
    }

    /// Captures and commits. How long the program stood still, and how much changed.
    pub(crate) fn checkpoint(&mut self) -> (Span, usize) {
        let (diff, pause) = self.capture();
        self.commit(&diff);
        (pause, diff.changed_blocks())
    }

    /// The instance is lost; another one goes on from the last committed checkpoint.
    pub(crate) fn fail_over(&mut self) {
        self.instance = None;
        self.start(Origin::Restored { image: self.image.clone(), seq: self.seq });
    }

    /// As `fail_over`, to an engine elsewhere.
    pub(crate) fn move_to(&mut self, prepared: &Prepared) {
        self.prepared = prepared.clone();
        self.fail_over();
    }

    /// Serves as an agent does: a checkpoint whenever output waits, until `done`.
    pub(crate) fn serve_until(&mut self, mut done: impl FnMut(&mut House) -> bool) {
        loop {
            let finished = self.until(|house| match done(house) {
                true => Some(true),
                false if house.output_waits => Some(false),
                false => None,
            });
            if finished {
                return;
            }
            if let Some((diff, _)) = self.try_capture() {
                self.commit(&diff);
            }
        }
    }
}
