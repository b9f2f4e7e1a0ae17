//! The thread of one instance: between gateways' messages, the program's sockets, its output and
//! its keeper.
//!
//! What it does not know: who reads its outputs; how the keeper kills.
//!
//! Invariants
//! - One thread owns everything here; it waits only in [`mio::Poll`].
//! - Each connection gets a bounded share of a round ([`conn`]), so none starves the others.
//! - However it ends, `Exited` is the last thing that it says.

pub(crate) mod conn;
mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_engine::{Exit, Identity, Input, Output};
use jizoku_streams::InstanceEnd;
use jizoku_streams::instance::{Identity as StreamIdentity, Socket};
use jizoku_streams::message::{InstanceBody, InstanceFrame, ToInstance};
use jizoku_types::{ConnId, GatewayId, Instant, Span};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::clock::boot_nanos;
use crate::instance::{Shared, Times};
use crate::keeper::KeeperCommand;
use crate::message::{End, Heard, MESSAGE_MAX, Order, Report, Start, hear, tell};
use crate::ports;
use crate::program::Program;
use conn::{CHUNK, Conn, Pumped};
use lines::{Lines, More};

/// Somebody has put something into the queue of inputs.
pub(crate) const WAKER: Token = Token(0);
const KEEPER: Token = Token(1);
const OUT: Token = Token(2);
const ERR: Token = Token(3);
/// Connections follow, by their socket's number.
const CONNS: usize = 4;

/// How often it is looked at whether a starting program listens.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Shares of printed output that are still read when the program has ended.
const LAST_SHARES: usize = 64;
/// Events that are taken in one round.
const EVENTS_MAX: usize = 1024;

/// What the thread is started with.
pub(crate) struct Job {
    pub(crate) keeper: KeeperCommand,
    pub(crate) times: Times,
    pub(crate) program: Program,
    pub(crate) identity: Identity,
    pub(crate) lease: Option<Instant>,
    pub(crate) shared: Arc<Shared>,
}

/// Says `Exited` even when the thread panics.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        // Passed over if something better was said before.
        let exit = Exit::Crashed("the agent's own thread for it has failed".to_owned());
        self.0.push(Output::Exited { exit });
    }
}

/// Is the thread.
pub(crate) fn run(job: Job, poll: Poll) {
    let shared = job.shared.clone();
    let last_word = LastWord(shared.clone());
    let exit = match Worker::start(job, poll) {
        Ok(mut worker) => {
            let exit = worker.work().unwrap_or_else(|cause| Exit::Crashed(cause.to_string()));
            worker.finish(&exit);
            exit
        }
        Err(why) => Exit::CannotStart(why),
    };
    shared.push(Output::Exited { exit });
    drop(last_word);
}

/// How far the program has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may not listen yet.
    Starting { since: Moment, next_look: Moment },
    /// It takes connections.
    Running,
    /// It was asked to end: nothing goes in or out any more.
    Stopping,
}

struct Worker {
    poll: Poll,
    shared: Arc<Shared>,
    times: Times,
    end: InstanceEnd,
    names: Vec<String>,
    ports: Vec<u16>,
    phase: Phase,
    /// The owner's clock minus the node's, wrapping.
    clock_offset: u64,
    keeper: OwnedFd,
    keeper_process: Child,
    room: Vec<u8>,
    chunk: Vec<u8>,
    out: Lines,
    err: Lines,
    conns: BTreeMap<Socket, Conn>,
    by_id: BTreeMap<ConnId, Socket>,
    /// Connections that have more to do, but have had their share of this round.
    again: BTreeSet<Socket>,
    /// Connections that are to be tried again, with the time.
    retries: BTreeSet<(Moment, Socket)>,
    /// For each port, connections that the program has not taken yet, and since when.
    untaken: Vec<BTreeSet<(Moment, Socket)>>,
    /// What of that the instance's owner can see.
    told_untaken: Vec<Option<Moment>>,
}

impl Worker {
    fn start(job: Job, poll: Poll) -> Result<Worker, String> {
        let Job { keeper, times, program, identity, lease, shared } = job;
        let because = |what: &'static str| move |cause: io::Error| format!("{what}: {cause}");
        let ports = ports::choose(program.ports.len()).map_err(because("no free ports"))?;
        let folder = program.folder.to_str().ok_or("the folder's name is not UTF-8")?.to_owned();
        let start = Start {
            command: program.command_with(&ports)?,
            env: program.env_with(&ports)?,
            user: program.user.clone(),
            folder,
            lease: lease.map(Instant::as_nanos),
        };
        let started = start_keeper(&keeper, start).map_err(because("can't start a keeper"))?;
        let (socket, keeper_process, out, err) = started;
        let registry = poll.registry();
        for (token, fd) in
            [(KEEPER, socket.as_raw_fd()), (OUT, out.as_raw_fd()), (ERR, err.as_raw_fd())]
        {
            registry
                .register(&mut SourceFd(&fd), token, Interest::READABLE)
                .map_err(because("can't watch the keeper"))?;
        }
        shared.set_ports(&ports);
        shared.set_keeper_pid(keeper_process.id());
        shared.set_keeper(socket.try_clone().map_err(because("no more descriptors"))?);
        let stream_identity = StreamIdentity {
            service: identity.service,
            epoch: identity.epoch,
            held: false,
            survives: false,
        };
        let now = Moment::now();
        let count = ports.len();
        Ok(Worker {
            end: InstanceEnd::new(stream_identity, ports.len()),
            poll,
            shared,
            times,
            names: program.ports,
            ports,
            phase: Phase::Starting { since: now, next_look: now },
            clock_offset: 0,
            keeper: socket,
            keeper_process,
            room: vec![0; MESSAGE_MAX],
            chunk: vec![0; CHUNK],
            out: Lines::new(out),
            err: Lines::new(err),
            conns: BTreeMap::new(),
            by_id: BTreeMap::new(),
            again: BTreeSet::new(),
            retries: BTreeSet::new(),
            untaken: vec![BTreeSet::new(); count],
            told_untaken: vec![None; count],
        })
    }

    /// Works until the program has ended; why it did.
    fn work(&mut self) -> io::Result<Exit> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, self.patience()) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let Some(inputs) = self.shared.take_inputs() else { return Ok(Exit::Stopped) };
            for (now, input) in inputs {
                self.clock_offset = now.as_nanos().wrapping_sub(boot_nanos());
                self.handle(now, input);
            }
            let mut exit = None;
            let mut ready: BTreeSet<Socket> = std::mem::take(&mut self.again);
            for event in &events {
                match event.token() {
                    WAKER => {}
                    OUT => self.out.note(),
                    ERR => self.err.note(),
                    KEEPER => exit = exit.or(self.hear_keeper()),
                    Token(number) => {
                        let socket = Socket(u32::try_from(number - CONNS).expect("as given"));
                        if let Some(conn) = self.conns.get_mut(&socket) {
                            conn.note(event);
                            ready.insert(socket);
                        }
                    }
                }
            }
            self.read_lines();
            self.due_retries(&mut ready);
            for socket in ready {
                self.pump(socket);
            }
            self.tell_untaken();
            exit = exit.or_else(|| self.look_whether_it_listens());
            self.tell_gateways();
            if let Some(exit) = exit {
                return Ok(exit);
            }
        }
    }

    /// How long the thread may sleep.
    fn patience(&self) -> Option<Duration> {
        if !self.again.is_empty() || self.out.has_more() || self.err.has_more() {
            return Some(Duration::ZERO);
        }
        let now = Moment::now();
        let look = match self.phase {
            Phase::Starting { next_look, .. } => Some(next_look),
            _ => None,
        };
        let retry = self.retries.first().map(|(at, _)| *at);
        let own = look.into_iter().chain(retry).min().map(|at| at.saturating_duration_since(now));
        let streams = self
            .end
            .deadline()
            .map(|deadline| Duration::from_nanos(deadline.since(self.now()).as_nanos()));
        own.into_iter().chain(streams).min()
    }

    /// This moment on the owner's clock.
    fn now(&self) -> Instant {
        Instant::from_nanos(boot_nanos().wrapping_add(self.clock_offset))
    }

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::FromGateway { gateway, message } => {
                let touched = self.touched_by(gateway, &message);
                self.end.handle(now, gateway, message);
                self.again.extend(touched);
                self.accept();
            }
            Input::GatewayGone { gateway } => {
                self.end.gateway_gone(gateway);
                self.again.extend(self.all_of(gateway));
            }
            Input::Capture { seq } => {
                // There is no state: nothing changed, and nobody stood still.
                let diff = DiffBuilder::new(Some(Image::empty())).finish();
                self.shared.push(Output::Captured { seq, diff, pause: Span::ZERO });
            }
            Input::Quarantine => self.end.quarantine(),
            Input::Committed { .. } | Input::Tick => {}
            Input::Stop => self.stop(),
        }
    }

    fn stop(&mut self) {
        if self.phase == Phase::Stopping {
            return;
        }
        self.phase = Phase::Stopping;
        let grace = u64::try_from(self.times.stop_grace.as_nanos()).unwrap_or(u64::MAX);
        // If the keeper can't be told it is gone, which ends the program too.
        let _ = tell(&self.keeper, &Order::Stop { grace });
    }

    /// Connections that a message may have changed.
    fn touched_by(&self, gateway: GatewayId, message: &ToInstance) -> Vec<Socket> {
        let InstanceBody::Frames(frames) = &message.body else { return self.all_of(gateway) };
        let touched = frames.iter().filter_map(|frame| {
            let counter = match frame {
                InstanceFrame::Open { counter, .. }
                | InstanceFrame::Data { counter, .. }
                | InstanceFrame::Fin { counter, .. }
                | InstanceFrame::Confirm { counter, .. }
                | InstanceFrame::Gone { counter } => *counter,
            };
            self.by_id.get(&ConnId { gateway, counter }).copied()
        });
        touched.collect()
    }

    fn all_of(&self, gateway: GatewayId) -> Vec<Socket> {
        let from = ConnId { gateway, counter: 0 };
        let to = ConnId { gateway, counter: u64::MAX };
        self.by_id.range(from..=to).map(|(_, socket)| *socket).collect()
    }

    /// Connects the program to every connection that waits for it.
    fn accept(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        for port in 0..self.ports.len() {
            while let Some(socket) = self.end.accept(port) {
                let id = self.end.conn_id(socket).expect("it was just accepted");
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[port]));
                let now = Moment::now();
                let give_up = now + self.times.connect_within;
                self.conns.insert(socket, Conn::new(id, port, address, now, give_up));
                self.untaken[port].insert((now, socket));
                self.by_id.insert(id, socket);
                self.again.insert(socket);
            }
        }
    }

    /// Moves what can be moved on one connection.
    fn pump(&mut self, socket: Socket) {
        if self.phase == Phase::Stopping {
            return;
        }
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        let token = Token(CONNS + socket.0 as usize);
        let at = (self.poll.registry(), token);
        let pumped = conn.pump(socket, &mut self.end, at, &mut self.chunk);
        if conn.is_taken() || pumped == Pumped::Over {
            let (port, since) = conn.offered();
            self.untaken[port].remove(&(since, socket));
        }
        match pumped {
            Pumped::Waits => {}
            Pumped::HasMore => drop(self.again.insert(socket)),
            Pumped::Retry(at) => drop(self.retries.insert((at, socket))),
            Pumped::Over => {
                if let Some(conn) = self.conns.remove(&socket) {
                    self.by_id.remove(&conn.id());
                }
            }
        }
    }

    /// Lets the owner see since when connections wait for the program.
    fn tell_untaken(&mut self) {
        let first = |waiting: &BTreeSet<(Moment, Socket)>| waiting.first().map(|(since, _)| *since);
        let now = self.untaken.iter().map(first);
        if !now.clone().eq(self.told_untaken.iter().copied()) {
            self.told_untaken = now.collect();
            self.shared.set_unaccepted(&self.told_untaken);
        }
    }

    fn due_retries(&mut self, ready: &mut BTreeSet<Socket>) {
        let now = Moment::now();
        while let Some((at, socket)) = self.retries.first().copied() {
            if at > now {
                return;
            }
            self.retries.remove(&(at, socket));
            ready.insert(socket);
        }
    }

    /// Says `Running` once the program listens; why it has to go if it never does.
    fn look_whether_it_listens(&mut self) -> Option<Exit> {
        let Phase::Starting { since, next_look } = self.phase else { return None };
        if Moment::now() < next_look || self.is_not_started() {
            return None;
        }
        if ports::all_listen(&self.ports) {
            self.phase = Phase::Running;
            let took = Span::nanos(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.shared.push(Output::Running { took });
            self.accept();
            return None;
        }
        if since.elapsed() < self.times.listen_within {
            self.phase = Phase::Starting { since, next_look: Moment::now() + LOOK_EVERY };
            return None;
        }
        let silent = self.ports.iter().zip(&self.names);
        let silent = silent.filter(|(port, _)| !ports::all_listen(&[**port]));
        let silent: Vec<String> =
            silent.map(|(port, name)| format!("{name} (127.0.0.1:{port})")).collect();
        let seconds = self.times.listen_within.as_secs_f32();
        Some(Exit::Crashed(format!("after {seconds} s it doesn't listen on {}", silent.join(", "))))
    }

    /// Whether the keeper hasn't said yet that the program runs.
    fn is_not_started(&mut self) -> bool {
        if self.shared.has_pid() {
            return false;
        }
        if let Phase::Starting { next_look, .. } = &mut self.phase {
            *next_look = Moment::now() + LOOK_EVERY;
        }
        true
    }

    /// Takes what the keeper says; why the program ended, if it did.
    fn hear_keeper(&mut self) -> Option<Exit> {
        loop {
            let exit = match hear(&self.keeper, &mut self.room) {
                Heard::Nothing => return None,
                Heard::Message(Report::Started { pid }) => {
                    self.shared.set_pid(pid);
                    continue;
                }
                _ if self.phase == Phase::Stopping => Exit::Stopped,
                Heard::Message(Report::NotStarted { why }) => Exit::CannotStart(why),
                Heard::Message(Report::Ended(End::Status(status))) => Exit::Status(status),
                Heard::Message(Report::Ended(End::Signal(signal))) => {
                    Exit::Crashed(format!("killed by signal {signal}"))
                }
                Heard::Message(Report::LeaseLapsed) => {
                    Exit::Crashed("killed by its keeper: the lease had lapsed".to_owned())
                }
                Heard::Gone => Exit::Crashed("its keeper is gone".to_owned()),
            };
            return Some(exit);
        }
    }

    fn read_lines(&mut self) {
        for lines in [&mut self.out, &mut self.err] {
            lines.read(&mut |line| self.shared.push(Output::Printed { line }));
        }
    }

    fn tell_gateways(&mut self) {
        let now = self.now();
        // The end is told the time after it was drained.
        for _ in 0..2 {
            while let Some((gateway, message)) = self.end.poll() {
                self.shared.push(Output::ToGateway { gateway, message });
            }
            self.end.advance(now);
        }
    }

    /// The program has ended: passes on what it has left behind, and reaps its keeper.
    fn finish(&mut self, exit: &Exit) {
        if !matches!(exit, Exit::Stopped) {
            let sockets: Vec<Socket> = self.conns.keys().copied().collect();
            for socket in sockets {
                self.pump(socket);
            }
            self.tell_gateways();
        }
        self.close_keeper();
        for lines in [&mut self.out, &mut self.err] {
            let mut print = |line| self.shared.push(Output::Printed { line });
            lines.note();
            // All writers are dead, so this ends; the bound is for those that can't be killed.
            for _ in 0..LAST_SHARES {
                if lines.read(&mut print) != More::Yes {
                    break;
                }
            }
            lines.end(&mut print);
        }
    }

    /// Shuts the keeper's socket, which ends it and all of the program, and waits for that.
    fn close_keeper(&mut self) {
        self.shared.last_look();
        self.shared.forget_keeper();
        // It fails only if the other side is gone already.
        let _ = rustix::net::shutdown(&self.keeper, rustix::net::Shutdown::Both);
        let _ = self.keeper_process.wait();
    }
}

type Started = (OwnedFd, Child, io::PipeReader, io::PipeReader);

/// Starts a keeper and tells it what to start.
fn start_keeper(keeper: &KeeperCommand, start: Start) -> io::Result<Started> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let (out, out_end) = io::pipe()?;
    let (err, err_end) = io::pipe()?;
    for pipe in [&out, &err] {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    tell(&ours, &Order::Start(start))?;
    let process = Command::new(&keeper.program)
        .args(&keeper.args)
        .env_clear()
        .stdin(theirs)
        .stdout(out_end)
        .stderr(err_end)
        .spawn()?;
    Ok((ours, process, out, err))
}
