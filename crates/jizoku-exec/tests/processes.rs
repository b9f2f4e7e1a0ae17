//! Real processes under the engine: what clients see, what is left when something dies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant as Moment};

use jizoku_engine::{Exit, Identity, Input, Instance, Output};
use jizoku_exec::{ExecEngine, ExecInstance, KeeperCommand, Program, keeper};
use jizoku_streams::GatewayEnd;
use jizoku_streams::gateway::{Input as FromWorld, Output as ToWorld};
use jizoku_types::{ConnId, Epoch, Incarnation, Instant, Member, NodeId, ServiceId, Span};

const ACTORS: &str = env!("CARGO_BIN_EXE_jizoku-exec-actors");
const SERVICE: ServiceId = ServiceId(7);
const EPOCH: Epoch = Epoch::main(3);
/// The node of both the instance and the gateway.
const NODE: NodeId = NodeId([1; 32]);
const GATEWAY: Member = Member { node: NODE, incarnation: Incarnation(1) };
/// Longest time for anything here; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn engine() -> ExecEngine {
    ExecEngine::new(KeeperCommand {
        program: PathBuf::from(ACTORS),
        args: vec![keeper::ARGUMENT.into()],
    })
}

fn program(words: &[&str], ports: &[&str]) -> Program {
    let words = std::iter::once(ACTORS).chain(words.iter().copied());
    Program {
        command: words.map(str::to_owned).collect(),
        env: BTreeMap::new(),
        user: rustix::process::geteuid().is_root().then(|| "root".to_owned()),
        ports: ports.iter().map(|name| (*name).to_owned()).collect(),
        folder: PathBuf::from("/"),
    }
}

/// An instance and a gateway, with nothing between them that could lose a message.
struct World {
    instance: ExecInstance,
    gateway: GatewayEnd,
    wakes: Receiver<()>,
    /// What each client got.
    got: BTreeMap<ConnId, Vec<u8>>,
    ended: BTreeMap<ConnId, &'static str>,
    paused: BTreeMap<ConnId, bool>,
    printed: Vec<String>,
    running: bool,
    captured: Vec<u64>,
    exit: Option<Exit>,
}

impl World {
    fn start(engine: &ExecEngine, program: Program) -> World {
        World::start_with_lease(engine, program, None)
    }

    fn start_with_lease(engine: &ExecEngine, program: Program, lease: Option<Instant>) -> World {
        let identity = Identity { service: SERVICE, epoch: EPOCH, held: false };
        let instance = engine.start(program, identity, lease);
        let (sender, wakes) = channel();
        instance.set_waker(move || {
            let _ = sender.send(());
        });
        let mut gateway = GatewayEnd::new(GATEWAY, SERVICE, false);
        gateway.handle(ExecInstance::now(), FromWorld::Route { active: NODE, epoch: EPOCH });
        World {
            instance,
            gateway,
            wakes,
            got: BTreeMap::new(),
            ended: BTreeMap::new(),
            paused: BTreeMap::new(),
            printed: Vec::new(),
            running: false,
            captured: Vec::new(),
            exit: None,
        }
    }

    fn client(&mut self) -> ConnId {
        let peer = "192.0.2.1:4000".parse().unwrap();
        let conn = self.gateway.open(ExecInstance::now(), 0, peer).unwrap();
        self.got.insert(conn, Vec::new());
        conn
    }

    fn tell(&mut self, input: FromWorld) {
        self.gateway.handle(ExecInstance::now(), input);
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.tell(FromWorld::FromClient { conn, bytes: bytes.to_vec() });
    }

    /// Passes everything on until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.instance.poll() {
                quiet = false;
                self.take(output);
            }
            while let Some(output) = self.gateway.poll() {
                quiet = false;
                self.take_from_gateway(output);
            }
            if quiet {
                return;
            }
        }
    }

    fn take(&mut self, output: Output) {
        assert_eq!(self.exit, None, "nothing follows after the exit: {output:?}");
        match output {
            Output::Running { .. } => self.running = true,
            Output::ToGateway { message, .. } => {
                self.tell(FromWorld::Message { from: NODE, message });
            }
            Output::Captured { seq, diff, .. } => {
                assert_eq!(diff, jizoku_checkpoint::image::Diff::of(&Default::default()));
                self.captured.push(seq);
            }
            Output::Printed { line } => self.printed.push(line),
            Output::Exited { exit } => self.exit = Some(exit),
            Output::Changed { .. } => panic!("there is no state that could change"),
        }
    }

    fn take_from_gateway(&mut self, output: ToWorld) {
        match output {
            ToWorld::Send { message, .. } => {
                let input = Input::FromGateway { gateway: GATEWAY, message };
                self.instance.handle(ExecInstance::now(), input);
            }
            ToWorld::ToClient { conn, bytes } => {
                let got = self.got.get_mut(&conn).unwrap();
                got.extend_from_slice(&bytes);
                self.tell(FromWorld::Wrote { conn, count: bytes.len() });
            }
            ToWorld::ClientFin { conn } => drop(self.ended.insert(conn, "end")),
            ToWorld::CloseClient { conn } => drop(self.ended.insert(conn, "closed")),
            ToWorld::ResetClient { conn, .. } => drop(self.ended.insert(conn, "reset")),
            ToWorld::PauseReading { conn } => drop(self.paused.insert(conn, true)),
            ToWorld::ReadMore { conn } => drop(self.paused.insert(conn, false)),
            ToWorld::FirstOutput { .. } => {}
        }
    }

    /// Goes on until `goal` is true.
    #[track_caller]
    fn until(&mut self, what: &str, mut goal: impl FnMut(&mut World) -> bool) {
        let give_up = Moment::now() + PATIENCE;
        loop {
            self.settle();
            if goal(self) {
                return;
            }
            let left = give_up.saturating_duration_since(Moment::now());
            assert!(!left.is_zero(), "waited in vain: {what}; {:?} {:?}", self.printed, self.exit);
            let now = ExecInstance::now();
            let due = self.gateway.deadline().map_or(Span::secs(1), |due| due.since(now));
            match self.wakes.recv_timeout(left.min(Duration::from_nanos(due.as_nanos()))) {
                Err(RecvTimeoutError::Timeout) => self.tell(FromWorld::Tick),
                other => other.expect("the instance lives"),
            }
        }
    }

    #[track_caller]
    fn exit(&mut self) -> Exit {
        self.until("an exit", |world| world.exit.is_some());
        self.exit.clone().unwrap()
    }
}

/// Waits until a process is gone; its number must not be used again meanwhile, which takes the
/// system far longer.
#[track_caller]
fn assert_gone(pid: u32, within: Duration) {
    let began = Moment::now();
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    while is_alive(&stat) {
        assert!(began.elapsed() < within, "process {pid} is still there");
        std::thread::yield_now();
    }
}

/// Whether a process runs; one that only waits to be reaped doesn't.
fn is_alive(stat: &Path) -> bool {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn number_in(lines: &[String], name: &str) -> Option<u32> {
    lines.iter().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn clients_talk_to_the_program_and_both_ends_are_passed_on() {
    let mut world = World::start(&engine(), program(&["echo", "{port}"], &["main"]));
    // One connects before the program runs.
    let early = world.client();
    world.send(early, b"early");
    world.until("the first answer", |world| world.got[&early] == b"early");
    assert!(world.running);
    assert_eq!(world.printed, ["listening"]);
    let clients: Vec<ConnId> = (0..50).map(|_| world.client()).collect();
    for round in 0..20u8 {
        for conn in &clients {
            world.send(*conn, &[round; 100]);
        }
    }
    let expected: Vec<u8> = (0..20u8).flat_map(|round| [round; 100]).collect();
    world.until("all echoes", |world| clients.iter().all(|conn| world.got[conn] == expected));
    for conn in &clients {
        world.tell(FromWorld::ClientEof { conn: *conn });
    }
    world.until("all ends", |world| clients.iter().all(|conn| world.ended.contains_key(conn)));
    assert!(clients.iter().all(|conn| world.ended[conn] != "reset"));
}

#[test]
fn a_lot_of_data_goes_through_both_windows_unharmed() {
    let mut world = World::start(&engine(), program(&["echo", "{port}"], &["main"]));
    let conn = world.client();
    let total = 8 << 20;
    let data: Vec<u8> = (0..total).map(|at: usize| (at * 31 + at / 977) as u8).collect();
    let mut sent = 0;
    world.until("everything back", |world| {
        while sent < total && !world.paused.get(&conn).copied().unwrap_or(false) {
            let end = (sent + 32_000).min(total);
            world.send(conn, &data[sent..end]);
            sent = end;
            world.settle();
        }
        world.got[&conn].len() == total
    });
    assert!(world.got[&conn] == data);
    assert!(world.paused.contains_key(&conn), "the window was never full");
}

#[test]
fn a_program_that_does_not_read_stops_its_client_and_a_reset_frees_it() {
    let mut world = World::start(&engine(), program(&["deaf", "{port}"], &["main"]));
    let conn = world.client();
    world.until("a full window", |world| {
        if !world.paused.get(&conn).copied().unwrap_or(false) {
            world.send(conn, &[1; 64 << 10]);
        }
        world.paused.get(&conn).copied().unwrap_or(false)
    });
    world.tell(FromWorld::ClientReset { conn });
    let other = world.client();
    world.until("another connection", |world| {
        world.send(other, b"x");
        world.gateway.conns() == 1
    });
}

#[test]
fn a_client_that_does_not_read_stops_the_program() {
    let mut world = World::start(&engine(), program(&["source", "{port}"], &["main"]));
    let conn = world.client();
    world.until("some output", |world| world.got[&conn].len() > 4 << 20);
    assert!(world.got[&conn].iter().all(|byte| *byte == 7));
    world.tell(FromWorld::ClientReset { conn });
    world.until("no connection", |world| world.gateway.conns() == 0);
}

#[test]
fn half_closed_and_broken_connections_are_passed_on_as_such() {
    let mut world = World::start(&engine(), program(&["half", "{port}"], &["main"]));
    let conn = world.client();
    world.send(conn, &[0; 12_345]);
    world.tell(FromWorld::ClientEof { conn });
    world.until("the answer after the end", |world| world.got[&conn] == b"12345");
    world.until("the end", |world| world.ended.contains_key(&conn));
    drop(world);
    let mut world = World::start(&engine(), program(&["reset", "{port}"], &["main"]));
    let conn = world.client();
    world.send(conn, &[0; 5000]);
    world.until("a reset", |world| world.ended.get(&conn) == Some(&"reset"));
}

#[test]
fn ports_reach_the_program_in_every_way() {
    let mut program = program(&["env"], &["resp", "web"]);
    program.env.insert("AT".to_owned(), "x:{port:web}".to_owned());
    let mut world = World::start(&engine(), program);
    assert_eq!(world.exit(), Exit::Status(0));
    let ports = world.instance.ports();
    assert!(ports.len() == 2 && ports[0] != ports[1]);
    let mut printed = world.printed.clone();
    printed.sort();
    let expected = [
        format!("AT=x:{}", ports[1]),
        format!("JIZOKU_PORT={}", ports[0]),
        format!("JIZOKU_PORT_RESP={}", ports[0]),
        format!("JIZOKU_PORT_WEB={}", ports[1]),
    ];
    assert_eq!(printed[..4], expected);
    // Nothing else: the agent's own environment stays with the agent.
    assert!(printed.len() == 5 && printed[4].starts_with("PATH="), "{printed:?}");
}

#[test]
fn what_it_prints_comes_line_by_line_and_then_its_status() {
    let mut world = World::start(&engine(), program(&["print"], &[]));
    assert_eq!(world.exit(), Exit::Status(0));
    world.printed.sort();
    assert_eq!(world.printed, ["to the errors", "to the output", "without an end"]);
    let mut world = World::start(&engine(), program(&["status", "3"], &[]));
    assert_eq!(world.exit(), Exit::Status(3));
}

#[test]
fn a_killed_program_has_crashed() {
    let mut world = World::start(&engine(), program(&["echo", "{port}"], &["main"]));
    world.until("running", |world| world.running);
    let pid = world.instance.pid().unwrap();
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(world.exit(), Exit::Crashed("killed by signal 9".to_owned()));
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut missing = program(&[], &[]);
    missing.command = vec!["/no/such/program".to_owned()];
    let exit = World::start(&engine(), missing).exit();
    assert!(
        matches!(&exit, Exit::CannotStart(why) if why.contains("can't run `/no/such/program`")),
        "{exit:?}"
    );
    let exit = World::start(&engine(), program(&["{port:x}"], &["main"])).exit();
    let why = "{port:x} stands for no port of the service";
    assert_eq!(exit, Exit::CannotStart(why.to_owned()));
    if rustix::process::geteuid().is_root() {
        let mut careless = program(&["silent"], &[]);
        careless.user = None;
        let exit = World::start(&engine(), careless).exit();
        assert!(matches!(&exit, Exit::CannotStart(why) if why.contains("as root")), "{exit:?}");
    }
    let keeper = KeeperCommand { program: PathBuf::from("/no/such/keeper"), args: Vec::new() };
    let exit = World::start(&ExecEngine::new(keeper), program(&["silent"], &[])).exit();
    assert!(matches!(&exit, Exit::CannotStart(why) if why.contains("keeper")), "{exit:?}");
}

#[test]
fn a_program_that_never_listens_is_killed_and_named() {
    let engine = engine().listen_within(Span::millis(200));
    let mut world = World::start(&engine, program(&["silent"], &["resp"]));
    let conn = world.client();
    world.send(conn, b"hello?");
    let exit = world.exit();
    let pid = world.instance.pid().unwrap();
    let port = world.instance.ports()[0];
    let why = format!("after 0.2 s it doesn't listen on resp (127.0.0.1:{port})");
    assert_eq!(exit, Exit::Crashed(why));
    assert!(!world.running);
    assert_gone(pid, PATIENCE);
}

#[test]
fn stop_asks_first_and_kills_then() {
    let mut world = World::start(&engine(), program(&["echo", "{port}"], &["main"]));
    world.until("running", |world| world.running);
    world.instance.handle(ExecInstance::now(), Input::Stop);
    assert_eq!(world.exit(), Exit::Stopped);
    let engine = engine().stop_grace(Span::millis(100));
    let mut world = World::start(&engine, program(&["stubborn"], &[]));
    world.until("ready", |world| world.running && world.printed == ["ready"]);
    let pid = world.instance.pid().unwrap();
    world.instance.handle(ExecInstance::now(), Input::Stop);
    assert_eq!(world.exit(), Exit::Stopped);
    assert_gone(pid, PATIENCE);
}

#[test]
fn grandchildren_in_other_sessions_go_too() {
    let mut world = World::start(&engine(), program(&["tree"], &[]));
    world.until("both numbers", |world| world.running && world.printed.len() == 2);
    let main = number_in(&world.printed, "main").unwrap();
    let grandchild = number_in(&world.printed, "grandchild").unwrap();
    assert!(is_alive(Path::new(&format!("/proc/{grandchild}/stat"))));
    assert_eq!(world.instance.pid(), Some(main));
    world.instance.handle(ExecInstance::now(), Input::Stop);
    assert_eq!(world.exit(), Exit::Stopped);
    // Exited means that nothing is left.
    assert_gone(grandchild, Duration::from_secs(1));
    let mut world = World::start(&engine(), program(&["tree"], &[]));
    world.until("both numbers", |world| world.running && world.printed.len() == 2);
    let grandchild = number_in(&world.printed, "grandchild").unwrap();
    drop(world);
    assert_gone(grandchild, PATIENCE);
}

#[test]
fn captures_are_empty_and_a_state_is_never_said_to_change() {
    let mut world = World::start(&engine(), program(&["echo", "{port}"], &["main"]));
    let conn = world.client();
    world.send(conn, b"x");
    world.until("an answer", |world| world.got[&conn] == b"x");
    world.instance.handle(ExecInstance::now(), Input::Capture { seq: 41 });
    world.until("a capture", |world| world.captured == [41]);
    world.instance.handle(ExecInstance::now(), Input::Committed { seq: 41 });
    world.send(conn, b"y");
    world.until("another answer", |world| world.got[&conn] == b"xy");
}

#[test]
fn the_keeper_kills_when_the_newest_lease_lapses() {
    let lease = ExecInstance::now() + Span::secs(60);
    let mut world = World::start_with_lease(&engine(), program(&["tree"], &[]), Some(lease));
    world.until("both numbers", |world| world.running && world.printed.len() == 2);
    let grandchild = number_in(&world.printed, "grandchild").unwrap();
    for step in 1..4 {
        let renewed = ExecInstance::now() + Span::millis(400 - 100 * step);
        world.instance.renew(renewed);
        if step < 3 {
            continue;
        }
        let exit = world.exit();
        assert_eq!(exit, Exit::Crashed("killed by its keeper: the lease had lapsed".to_owned()));
        assert!(ExecInstance::now() >= renewed, "killed too early");
    }
    assert!(ExecInstance::now() < lease, "the renewals didn't count");
    assert_gone(grandchild, Duration::from_secs(1));
}

/// Starts an agent as a process of its own; gives it and the numbers of its program's processes.
fn agent(lease_ms: &str, renew: &str) -> (std::process::Child, Vec<String>) {
    let mut agent = Command::new(ACTORS)
        .args(["agent", lease_ms, renew])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(agent.stdout.as_mut().unwrap()).lines();
    let lines: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    (agent, lines)
}

#[test]
fn a_program_dies_with_its_agent() {
    let (mut agent, lines) = agent("60000", "renew");
    let main = number_in(&lines, "main").unwrap();
    let grandchild = number_in(&lines, "grandchild").unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_gone(main, Duration::from_secs(2));
    assert_gone(grandchild, Duration::from_secs(2));
}

#[test]
fn a_program_dies_when_its_agent_stands_still() {
    let (mut agent, lines) = agent("2000", "renew");
    let main = number_in(&lines, "main").unwrap();
    let grandchild = number_in(&lines, "grandchild").unwrap();
    let pid = rustix::process::Pid::from_raw(agent.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // The lease, and some time for a machine that has much else to do.
    assert_gone(main, Duration::from_secs(2) + PATIENCE);
    assert_gone(grandchild, Duration::from_secs(2));
    agent.kill().unwrap();
    agent.wait().unwrap();
}
