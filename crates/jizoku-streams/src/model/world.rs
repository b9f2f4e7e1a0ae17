//! The world of the model: gateways, clients, runs of the program, the network, and the checks.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::event::ResetCause;
use jizoku_types::{
    ConnId, Epoch, GatewayId, Incarnation, Instant, NodeId, ServiceId, Span, decode, encode,
};

use super::program::{Log, Program};
use crate::dice::Dice;
use crate::faults::Faults;
use crate::gateway::{GatewayEnd, Input, Output, Phase};
use crate::instance::{Identity, InstanceEnd};
use crate::limits::Limits;
use crate::message::{ToGateway, ToInstance};

const SERVICE: ServiceId = ServiceId(7);
const PORTS: usize = 2;
const NODES: usize = 4;
const STEPS: usize = 500;
const LIMITS: Limits = Limits {
    input_window: 256,
    output_window: 192,
    chunk: 24,
    input_total: 1500,
    output_total: 900,
    share: 24,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Held,
    Free,
    Stateless,
}

/// A complete state: what a holder could give.
struct Checkpoint {
    epoch: u64,
    seq: u64,
    state: Vec<u8>,
    program: Program,
}

/// One run of the program, alive or not.
struct Run {
    node: NodeId,
    alive: bool,
    end: InstanceEnd,
    program: Program,
    /// What it began with.
    restored: Program,
    origin: Option<Rc<Checkpoint>>,
    seq: u64,
    quarantined: bool,
    /// Whether the restored state is committed in this epoch.
    adopted: bool,
    /// Commits that were decided and not told yet.
    tells: VecDeque<u64>,
}

struct Client {
    sent: Vec<u8>,
    eof: bool,
    seen: Vec<u8>,
    fin_seen: bool,
    /// Which execution produced what it has seen.
    stamps: Vec<u32>,
    fin_stamp: u32,
    /// Given to its socket and not taken by it yet.
    backlog: usize,
    paused: bool,
    over: Option<Over>,
    /// Its gateway was once reported gone: the program may have lost it.
    may_break: bool,
}

/// How a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Closed,
    Reset(ResetCause),
    /// By the client, or with its gateway.
    Aborted,
}

struct Gateway {
    id: GatewayId,
    end: GatewayEnd,
    clients: BTreeMap<u64, Client>,
    to_instance: VecDeque<(NodeId, ToInstance)>,
    from_instance: VecDeque<(NodeId, ToGateway)>,
    /// The epoch that it was last seen attached to.
    attached: u64,
    /// An instance was once told that it won't come back; so a way to it comes back.
    reported_gone: bool,
    /// Output of its end, before it is looked at.
    resets: Vec<(u64, ResetCause)>,
}

/// What happened in many runs, so that an uneventful test is seen.
#[derive(Debug, Default)]
pub(super) struct Totals {
    takeovers: u64,
    commits: u64,
    clients: u64,
    closed: u64,
    reset_released: u64,
    reset_stateless: u64,
    reset_poisonous: u64,
    output_bytes: u64,
    gaps: u64,
    duplicates: u64,
    stale: u64,
    carried_on: u64,
    gateway_restarts: u64,
}

pub(super) struct World {
    mode: Mode,
    faults: Faults,
    dice: Dice,
    now: Instant,
    stamp: u32,
    /// By epoch; epoch 0 is nobody's.
    runs: Vec<Run>,
    /// Complete states that aren't committed.
    pool: Vec<Rc<Checkpoint>>,
    committed: Option<Rc<Checkpoint>>,
    gateways: Vec<Gateway>,
    /// Restored states are adopted at once, so that resets can be foretold exactly.
    exact: bool,
    calm: bool,
    fail: Option<String>,
    totals: Totals,
}

impl World {
    pub(super) fn new(seed: u64, mode: Mode, faults: Faults) -> World {
        let mut dice = Dice::new(seed);
        let mut world = World {
            mode,
            faults,
            now: Instant::from_nanos(1),
            stamp: 0,
            runs: Vec::new(),
            pool: Vec::new(),
            committed: None,
            gateways: Vec::new(),
            exact: dice.permille(600),
            calm: false,
            fail: None,
            totals: Totals::default(),
            dice,
        };
        for n in 0..=world.dice.below(3) as u64 {
            let id = gateway_id(n, 1);
            let gateway = world.new_gateway(id);
            world.gateways.push(gateway);
        }
        world.start();
        world
    }

    pub(super) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step();
            self.pump();
            if let Some(why) = self.fail.take() {
                return Err(why);
            }
        }
        self.calm_down();
        self.fail.take().map_or(Ok(()), Err)
    }

    fn failed(&mut self, why: String) {
        self.fail.get_or_insert(why);
    }

    fn current(&self) -> u64 {
        self.runs.len() as u64
    }

    fn run_of(&mut self, epoch: u64) -> &mut Run {
        &mut self.runs[epoch as usize - 1]
    }

    fn new_gateway(&self, id: GatewayId) -> Gateway {
        let mut end = GatewayEnd::new(id, SERVICE, self.mode == Mode::Held);
        end.set_limits(LIMITS);
        end.set_faults(self.faults);
        Gateway {
            id,
            end,
            clients: BTreeMap::new(),
            to_instance: VecDeque::new(),
            from_instance: VecDeque::new(),
            attached: 0,
            reported_gone: false,
            resets: Vec::new(),
        }
    }

    fn step(&mut self) {
        let pause = if self.dice.permille(40) { 250_000 } else { self.dice.below(4000) };
        self.now += Span::micros(pause as u64);
        let epoch = self.current();
        match self.dice.below(1000) {
            0..250 => self.client_acts(),
            250..450 => self.program_acts(epoch),
            450..800 => self.network_delivers(),
            800..840 => self.network_misbehaves(),
            840..900 => self.capture(epoch),
            900..935 => self.commit(),
            935..970 => self.tell_commit(epoch),
            970..982 => self.take_over(),
            982..992 => self.stale_run_acts(),
            992..995 => self.restart_gateway(),
            995..997 => self.report_gone(),
            _ => self.tell_route(),
        }
        if self.dice.permille(60) {
            self.tell_route();
        }
    }

    // The program's side.

    /// Starts a run of the next epoch, from a state that may be chosen, or from the beginning.
    fn start(&mut self) {
        let epoch = self.current() + 1;
        let identity = Identity {
            service: SERVICE,
            epoch: Epoch::main(epoch),
            held: self.mode == Mode::Held,
            survives: self.mode != Mode::Stateless,
        };
        let mut choice: Vec<Rc<Checkpoint>> = self.pool.clone();
        choice.extend(self.committed.clone());
        let chosen = match choice.len() {
            0 => None,
            n => Some(choice[self.dice.below(n)].clone()),
        };
        let (mut end, program, seq) = match &chosen {
            None => (InstanceEnd::new(identity, PORTS), Program::default(), 0),
            Some(chosen) => {
                match InstanceEnd::restore(identity, PORTS, chosen.seq, &chosen.state) {
                    Ok(end) => (end, chosen.program.clone(), chosen.seq),
                    Err(why) => return self.failed(format!("restoring: {why}")),
                }
            }
        };
        end.set_limits(LIMITS);
        end.set_faults(self.faults);
        let node = NodeId([self.dice.below(NODES) as u8; 32]);
        for run in self.runs.iter_mut().filter(|run| run.node == node) {
            run.alive = false;
        }
        let (restored, tells) = (program.clone(), VecDeque::new());
        let adopted = chosen.is_none();
        let quarantined = self.dice.permille(80);
        if quarantined {
            end.quarantine();
        }
        let run = Run {
            node,
            alive: true,
            end,
            program,
            restored,
            origin: chosen,
            seq,
            quarantined,
            adopted,
            tells,
        };
        self.runs.push(run);
        if self.exact {
            self.adopt();
        }
    }

    /// The restored state of the newest run is committed in its epoch.
    fn adopt(&mut self) {
        let epoch = self.current();
        let run = self.run_of(epoch);
        if core::mem::replace(&mut run.adopted, true) {
            return;
        }
        let Some(origin) = run.origin.clone() else { return };
        run.tells.push_back(origin.seq);
        self.committed = Some(origin);
        self.pool.retain(|checkpoint| checkpoint.epoch == epoch);
    }

    fn program_acts(&mut self, epoch: u64) {
        let calm = self.calm;
        if !self.run_of(epoch).alive {
            return;
        }
        for _ in 0..=self.dice.below(4) {
            let run = &mut self.runs[epoch as usize - 1];
            match run.program.step(&mut run.end, &mut self.dice, &mut self.stamp, !calm) {
                Ok(Some(used)) => self.check_input(epoch, used),
                Ok(None) => {}
                Err(why) => return self.failed(why),
            }
        }
    }

    /// The program has read a beginning of what the client sent; without a state, never what
    /// an earlier run had read.
    fn check_input(&mut self, epoch: u64, id: ConnId) {
        let log = &self.runs[epoch as usize - 1].program.logs[&id];
        let client = self
            .gateways
            .iter()
            .find(|gateway| gateway.id == id.gateway)
            .and_then(|gateway| gateway.clients.get(&id.counter));
        let Some(client) = client else { return };
        let before = &self.runs[..epoch as usize - 1];
        let used = |run: &Run| run.program.logs.get(&id).is_some_and(|l| !l.input.is_empty());
        if !client.sent.starts_with(&log.input) {
            self.failed(format!("the program of epoch {epoch} read other bytes: {id:?}"));
        } else if log.eof && !(client.eof && client.sent.len() == log.input.len()) {
            self.failed(format!("the program saw an end too early: {id:?}"));
        } else if self.mode == Mode::Stateless && !log.input.is_empty() && before.iter().any(used) {
            self.failed(format!("input was read by two runs: {id:?}"));
        }
    }

    fn capture(&mut self, epoch: u64) {
        let newest = epoch == self.current();
        let outstanding = self.pool.iter().filter(|c| c.epoch == epoch).count();
        let run = self.run_of(epoch);
        if !run.alive || !run.end.identity().survives || outstanding >= 3 {
            return;
        }
        run.seq += 1;
        let state = run.end.capture(run.seq);
        let checkpoint = Checkpoint { epoch, seq: run.seq, state, program: run.program.clone() };
        if newest {
            self.pool.push(Rc::new(checkpoint));
        }
    }

    /// All holders of the newest run have acknowledged its oldest complete state.
    fn commit(&mut self) {
        let epoch = self.current();
        self.adopt();
        let Some(at) = self.pool.iter().position(|c| c.epoch == epoch) else { return };
        let checkpoint = self.pool.remove(at);
        self.pool.retain(|other| other.epoch == epoch);
        self.run_of(epoch).tells.push_back(checkpoint.seq);
        self.committed = Some(checkpoint);
        self.totals.commits += 1;
    }

    fn tell_commit(&mut self, epoch: u64) {
        let run = self.run_of(epoch);
        if let Some(seq) = run.tells.pop_front().filter(|_| run.alive) {
            run.end.committed(seq);
        }
    }

    fn take_over(&mut self) {
        let epoch = self.current();
        if self.dice.permille(700) {
            self.run_of(epoch).alive = false;
        }
        self.totals.takeovers += 1;
        self.start();
    }

    /// A replaced run that doesn't know it yet goes on for a while.
    fn stale_run_acts(&mut self) {
        let epoch = 1 + self.dice.below(self.runs.len()) as u64;
        self.program_acts(epoch);
        self.capture(epoch);
        self.tell_commit(epoch);
        if epoch != self.current() && self.dice.permille(100) {
            self.run_of(epoch).alive = false;
        }
    }

    // The clients' side.

    fn any_gateway(&mut self) -> usize {
        self.dice.below(self.gateways.len())
    }

    fn client_acts(&mut self) {
        let now = self.now;
        let at = self.any_gateway();
        if self.gateways[at].clients.len() < 2 || self.dice.permille(60) {
            let port = self.dice.below(PORTS) as u8;
            let peer = format!("127.0.0.1:{}", 1000 + u16::from(port)).parse().expect("an address");
            let gateway = &mut self.gateways[at];
            if gateway.clients.len() < 12
                && let Ok(id) = gateway.end.open(now, port, peer)
            {
                gateway.clients.insert(id.counter, Client::new());
                self.totals.clients += 1;
            }
        }
        let open: Vec<u64> = self.gateways[at]
            .clients
            .iter()
            .filter(|(_, client)| client.over.is_none())
            .map(|(counter, _)| *counter)
            .collect();
        if open.is_empty() {
            return;
        }
        let counter = open[self.dice.below(open.len())];
        self.one_client_acts(at, counter);
    }

    fn one_client_acts(&mut self, at: usize, counter: u64) {
        let now = self.now;
        let gateway = &mut self.gateways[at];
        let conn = ConnId { gateway: gateway.id, counter };
        let client = gateway.clients.get_mut(&counter).expect("it is there");
        match self.dice.below(100) {
            0..60 if !client.eof && !client.paused => {
                let most = if self.dice.permille(100) { 60 } else { 12 };
                let count = 1 + self.dice.below(most);
                let bytes = self.dice.bytes(count);
                client.sent.extend(&bytes);
                gateway.end.handle(now, Input::FromClient { conn, bytes });
            }
            60..66 if !client.eof => {
                client.eof = true;
                gateway.end.handle(now, Input::ClientEof { conn });
            }
            66..67 => {
                client.over = Some(Over::Aborted);
                gateway.end.handle(now, Input::ClientReset { conn });
            }
            _ => {
                let count = self.dice.below(client.backlog + 1);
                client.backlog -= count;
                gateway.end.handle(now, Input::Wrote { conn, count });
            }
        }
    }

    fn restart_gateway(&mut self) {
        let at = self.any_gateway();
        let id = self.gateways[at].id;
        let next = Incarnation(id.incarnation.0 + 1);
        let fresh = self.new_gateway(GatewayId { incarnation: next, ..id });
        let mut old = core::mem::replace(&mut self.gateways[at], fresh);
        // What it sent is still on its way; what was sent to it is not for the new one.
        for (to, message) in old.to_instance.drain(..) {
            self.deliver_to_instance(id, to, message);
        }
        self.totals.gateway_restarts += 1;
    }

    fn report_gone(&mut self) {
        let at = self.any_gateway();
        let id = self.gateways[at].id;
        let epoch = self.current();
        self.gateways[at].reported_gone = true;
        for client in self.gateways[at].clients.values_mut() {
            client.may_break = true;
        }
        self.run_of(epoch).end.gateway_gone(id);
    }

    fn tell_route(&mut self) {
        let now = self.now;
        let at = self.any_gateway();
        let epoch = self.current();
        // Sometimes an old one, as when news come by several ways.
        let epoch = if self.dice.permille(200) { epoch.max(2) - 1 } else { epoch };
        let active = self.run_of(epoch).node;
        let route = Input::Route { active, epoch: Epoch::main(epoch) };
        self.gateways[at].end.handle(now, route);
    }

    // The network.

    fn network_delivers(&mut self) {
        let at = self.any_gateway();
        for _ in 0..=self.dice.below(6) {
            let odd = !self.calm && self.dice.permille(15);
            if self.dice.permille(500) {
                let queue = &mut self.gateways[at].to_instance;
                let index = if odd { self.dice.below(queue.len().max(1)) } else { 0 };
                if let Some((to, message)) = queue.remove(index) {
                    let id = self.gateways[at].id;
                    self.deliver_to_instance(id, to, message);
                }
            } else {
                let queue = &mut self.gateways[at].from_instance;
                let index = if odd { self.dice.below(queue.len().max(1)) } else { 0 };
                if let Some((from, message)) = queue.remove(index) {
                    let input = Input::Message { from, message };
                    self.gateways[at].end.handle(self.now, input);
                    self.look_at_gateway(at);
                }
            }
        }
    }

    fn deliver_to_instance(&mut self, id: GatewayId, to: NodeId, message: ToInstance) {
        let now = self.now;
        let run = self.runs.iter_mut().rev().find(|run| run.node == to && run.alive);
        if let Some(run) = run {
            run.end.handle(now, id, message);
        }
    }

    /// Loses a tail, repeats a message, or only says that a link is back.
    fn network_misbehaves(&mut self) {
        let at = self.any_gateway();
        let gateway = &mut self.gateways[at];
        match self.dice.below(4) {
            0 => lose_tail(&mut gateway.to_instance, &mut self.dice),
            1 => lose_tail(&mut gateway.from_instance, &mut self.dice),
            2 => {
                repeat(&mut gateway.to_instance, &mut self.dice);
                repeat(&mut gateway.from_instance, &mut self.dice);
            }
            _ => {}
        }
        if self.dice.permille(500) {
            let node = NodeId([self.dice.below(NODES) as u8; 32]);
            gateway.end.handle(self.now, Input::LinkBack { node });
        }
    }

    /// Lets everybody say what they have to say, and applies due timers.
    fn pump(&mut self) {
        let now = self.now;
        for at in 0..self.gateways.len() {
            if self.gateways[at].end.deadline().is_some_and(|deadline| deadline <= now) {
                self.gateways[at].end.handle(now, Input::Tick);
            }
            self.look_at_gateway(at);
        }
        for run in self.runs.iter_mut().filter(|run| run.alive) {
            while let Some((to, message)) = run.end.poll() {
                if let Some(gateway) = self.gateways.iter_mut().find(|g| g.id == to) {
                    gateway.from_instance.push_back((run.node, through_codec(message)));
                }
            }
            if run.end.deadline().is_some_and(|deadline| deadline <= now) {
                run.end.advance(now);
            }
        }
    }

    // The checks.

    fn look_at_gateway(&mut self, at: usize) {
        while let Some(output) = self.gateways[at].end.poll() {
            match output {
                Output::Send { to, message } => {
                    self.gateways[at].to_instance.push_back((to, through_codec(message)));
                }
                Output::ToClient { conn, bytes } => self.client_sees(at, conn, &bytes),
                Output::ClientFin { conn } => self.client_sees_end(at, conn),
                Output::CloseClient { conn } => self.client_over(at, conn, Over::Closed),
                Output::ResetClient { conn, cause } => {
                    self.gateways[at].resets.push((conn.counter, cause));
                    self.client_over(at, conn, Over::Reset(cause));
                }
                Output::PauseReading { conn } => self.client(at, conn).paused = true,
                Output::ReadMore { conn } => self.client(at, conn).paused = false,
                Output::FirstOutput { .. } => {}
            }
        }
        self.check_resume(at);
    }

    fn client(&mut self, at: usize, conn: ConnId) -> &mut Client {
        self.gateways[at].clients.get_mut(&conn.counter).expect("a client of this gateway")
    }

    fn followed(&self, at: usize) -> u64 {
        self.gateways[at].end.epoch().map_or(0, |epoch| epoch.counter)
    }

    fn client_sees(&mut self, at: usize, conn: ConnId, bytes: &[u8]) {
        let epoch = self.followed(at);
        self.totals.output_bytes += bytes.len() as u64;
        let client = self.client(at, conn);
        client.seen.extend(bytes);
        client.backlog += bytes.len();
        if client.fin_seen || client.over.is_some() {
            return self.failed(format!("output after the end: {conn:?}"));
        }
        self.check_seen(at, conn, epoch);
    }

    fn client_sees_end(&mut self, at: usize, conn: ConnId) {
        let epoch = self.followed(at);
        let client = self.client(at, conn);
        if core::mem::replace(&mut client.fin_seen, true) {
            return self.failed(format!("two ends: {conn:?}"));
        }
        self.check_seen(at, conn, epoch);
    }

    /// What a client has seen was produced by the run that its gateway follows and, if `held`,
    /// is in the committed state.
    fn check_seen(&mut self, at: usize, conn: ConnId, epoch: u64) {
        let client = self.gateways[at].clients.get_mut(&conn.counter).expect("a known client");
        let run = &self.runs[epoch as usize - 1];
        if let Some(log) = run.program.logs.get(&conn)
            && log.output.starts_with(&client.seen)
        {
            client.stamps.extend(&log.stamps[client.stamps.len()..client.seen.len()]);
            if client.fin_seen && client.fin_stamp == 0 {
                client.fin_stamp = log.fin_stamp;
            }
        }
        let client = &self.gateways[at].clients[&conn.counter];
        if !holds(&run.program, conn, client) {
            return self.failed(format!("not of the run of epoch {epoch}: {conn:?}"));
        }
        if self.mode == Mode::Held {
            let safe = self.committed.as_ref().is_some_and(|c| holds(&c.program, conn, client));
            if !safe {
                self.failed(format!("released before it was committed: {conn:?}"));
            }
        }
    }

    fn client_over(&mut self, at: usize, conn: ConnId, how: Over) {
        let mode = self.mode;
        let epoch = self.followed(at).max(1);
        let broken = self.runs[..epoch as usize]
            .iter()
            .any(|run| run.program.logs.get(&conn).is_some_and(|log| log.reset || log.closed));
        let committed = self.committed.as_ref().and_then(|c| c.program.logs.get(&conn));
        let committed = committed.is_some_and(|log| log.reset || log.closed);
        // A later run may know only that the connection is no longer there.
        let quarantined = self.runs[..epoch as usize].iter().any(|run| run.quarantined);
        let client = self.client(at, conn);
        if client.over.replace(how).is_some() {
            return self.failed(format!("ended twice: {conn:?}"));
        }
        let may_break = client.may_break;
        let allowed = match how {
            Over::Closed => (committed || mode != Mode::Held) && broken,
            Over::Reset(ResetCause::ByInstance) => {
                may_break || quarantined || ((committed || mode != Mode::Held) && broken)
            }
            Over::Reset(ResetCause::ReleasedTooMuch) => mode == Mode::Free || may_break,
            Over::Reset(ResetCause::Stateless) => mode == Mode::Stateless,
            Over::Reset(ResetCause::Poisonous) => quarantined,
            Over::Reset(_) => false,
            Over::Aborted => true,
        };
        match how {
            Over::Closed => self.totals.closed += 1,
            Over::Reset(ResetCause::ReleasedTooMuch) => self.totals.reset_released += 1,
            Over::Reset(ResetCause::Stateless) => self.totals.reset_stateless += 1,
            Over::Reset(ResetCause::Poisonous) => self.totals.reset_poisonous += 1,
            _ => {}
        }
        if !allowed {
            self.failed(format!("{how:?} without reason: {conn:?}"));
        }
    }

    /// When a gateway has attached to a new run: exactly the connections whose released output
    /// isn't in the restored state were reset for that.
    fn check_resume(&mut self, at: usize) {
        let epoch = self.followed(at);
        let resets = core::mem::take(&mut self.gateways[at].resets);
        if self.gateways[at].end.phase() != Phase::Attached || self.gateways[at].attached == epoch {
            return;
        }
        self.gateways[at].attached = epoch;
        let gateway = &self.gateways[at];
        let restored = &self.runs[epoch as usize - 1].restored;
        let mut problem = None;
        let mut carried_on = 0;
        for (&counter, client) in &gateway.clients {
            let conn = ConnId { gateway: gateway.id, counter };
            let held = holds(restored, conn, client);
            let reset = resets.iter().find(|(other, _)| *other == counter).map(|(_, cause)| *cause);
            if client.over.is_none() && !held {
                problem = Some(format!("goes on without its output: {conn:?} in epoch {epoch}"));
            }
            if reset == Some(ResetCause::ReleasedTooMuch) && held && self.exact && !client.may_break
            {
                problem = Some(format!("reset although it could go on: {conn:?}"));
            }
            carried_on += u64::from(client.over.is_none() && !client.seen.is_empty());
        }
        self.totals.carried_on += carried_on;
        if let Some(problem) = problem {
            self.failed(problem);
        }
    }

    // The end.

    /// Nothing breaks any more: everything must arrive, and nothing be kept.
    fn calm_down(&mut self) {
        self.calm = true;
        let epoch = self.current();
        for run in &mut self.runs[..epoch as usize - 1] {
            run.alive = false;
        }
        self.run_of(epoch).alive = true;
        let node = self.run_of(epoch).node;
        for gateway in self.gateways.iter_mut().filter(|gateway| gateway.reported_gone) {
            gateway.end.handle(self.now, Input::LinkBack { node });
        }
        for round in 0..400 {
            self.now += Span::millis(10);
            let now = self.now;
            let route = Input::Route { active: self.run_of(epoch).node, epoch: Epoch::main(epoch) };
            for at in 0..self.gateways.len() {
                self.gateways[at].end.handle(now, route.clone());
                self.clients_take_all(at);
                self.look_at_gateway(at);
            }
            for _ in 0..20 {
                self.program_acts(epoch);
                for at in 0..self.gateways.len() {
                    self.deliver_all(at);
                }
                self.pump();
            }
            if round % 3 == 0 {
                self.capture(epoch);
                self.commit();
                while !self.run_of(epoch).tells.is_empty() {
                    self.tell_commit(epoch);
                }
            }
            self.pump();
            if self.fail.is_some() || (round > 15 && self.unsettled().is_none()) {
                return;
            }
        }
        let why = self.unsettled().unwrap_or_default();
        self.failed(format!("never settles: {why}"));
    }

    fn deliver_all(&mut self, at: usize) {
        let id = self.gateways[at].id;
        while let Some((to, message)) = self.gateways[at].to_instance.pop_front() {
            self.deliver_to_instance(id, to, message);
        }
        while let Some((from, message)) = self.gateways[at].from_instance.pop_front() {
            self.gateways[at].end.handle(self.now, Input::Message { from, message });
            self.look_at_gateway(at);
        }
    }

    fn clients_take_all(&mut self, at: usize) {
        let now = self.now;
        let gateway = &mut self.gateways[at];
        for (&counter, client) in &mut gateway.clients {
            let conn = ConnId { gateway: gateway.id, counter };
            if client.over.is_none() && client.backlog > 0 {
                let count = core::mem::take(&mut client.backlog);
                gateway.end.handle(now, Input::Wrote { conn, count });
            }
        }
    }

    /// What is not yet as it must be in the end.
    fn unsettled(&self) -> Option<String> {
        let run = self.runs.last().expect("there is a run");
        let nothing = Log::default();
        let mut open = 0;
        for gateway in &self.gateways {
            for (&counter, client) in &gateway.clients {
                let conn = ConnId { gateway: gateway.id, counter };
                if client.over.is_some() {
                    continue;
                }
                open += 1;
                let log = run.program.logs.get(&conn).unwrap_or(&nothing);
                if client.paused {
                    return Some(format!("{conn:?} is still paused"));
                }
                if log.reset || log.closed || log.broken {
                    return Some(format!("{conn:?} is over, and the client doesn't know"));
                }
                if log.input != client.sent || log.eof != client.eof {
                    let (read, sent) = (log.input.len(), client.sent.len());
                    return Some(format!("{conn:?} read {read} of {sent}"));
                }
                let complete =
                    log.fin || log.output.len() == log.input.len() * super::program::UNIT;
                if log.output != client.seen || log.fin != client.fin_seen || !complete {
                    let (seen, produced) = (client.seen.len(), log.output.len());
                    return Some(format!("{conn:?} saw {seen} of {produced}"));
                }
            }
            if gateway.end.input_kept() > 0 && self.mode != Mode::Stateless {
                return Some(format!("{:?} keeps {} B", gateway.id, gateway.end.input_kept()));
            }
        }
        (run.end.conns() != open).then(|| {
            format!("the instance has {} connections, the gateways {open}", run.end.conns())
        })
    }
}

impl Client {
    fn new() -> Client {
        Client {
            sent: Vec::new(),
            eof: false,
            seen: Vec::new(),
            fin_seen: false,
            stamps: Vec::new(),
            fin_stamp: 0,
            backlog: 0,
            paused: false,
            over: None,
            may_break: false,
        }
    }
}

impl Totals {
    pub(super) fn add(&mut self, world: &World) {
        let one = &world.totals;
        self.takeovers += one.takeovers;
        self.commits += one.commits;
        self.clients += one.clients;
        self.closed += one.closed;
        self.reset_released += one.reset_released;
        self.reset_stateless += one.reset_stateless;
        self.reset_poisonous += one.reset_poisonous;
        self.output_bytes += one.output_bytes;
        self.carried_on += one.carried_on;
        self.gateway_restarts += one.gateway_restarts;
        for gateway in &world.gateways {
            let dropped = gateway.end.dropped();
            self.gaps += dropped.gaps;
            self.duplicates += dropped.duplicates;
            self.stale += dropped.stale;
        }
        for run in &world.runs {
            let dropped = run.end.dropped();
            self.gaps += dropped.gaps;
            self.duplicates += dropped.duplicates;
            self.stale += dropped.stale;
        }
    }

    pub(super) fn assert_eventful(&self, mode: Mode) {
        for (what, count) in [
            ("takeovers", self.takeovers),
            ("clients", self.clients),
            ("closed", self.closed),
            ("poisonous", self.reset_poisonous),
            ("gaps", self.gaps),
            ("duplicates", self.duplicates),
            ("stale", self.stale),
            ("gateway restarts", self.gateway_restarts),
        ] {
            assert!(count > 0, "no {what} happened");
        }
        let special = match mode {
            Mode::Held => self.carried_on,
            Mode::Free => self.carried_on.min(self.reset_released),
            Mode::Stateless => self.reset_stateless,
        };
        assert!(special > 0, "what the mode is about didn't happen");
    }
}

/// Whether a program's history holds all that a client has seen of it.
fn holds(program: &Program, conn: ConnId, client: &Client) -> bool {
    match program.logs.get(&conn) {
        Some(log) => {
            let all = client.stamps.len() == client.seen.len();
            let fin = !client.fin_seen || (log.fin && log.fin_stamp == client.fin_stamp);
            all && fin && log.stamps.starts_with(&client.stamps)
        }
        None => client.seen.is_empty() && !client.fin_seen,
    }
}

fn gateway_id(n: u64, incarnation: u64) -> GatewayId {
    GatewayId { node: NodeId([100 + n as u8; 32]), incarnation: Incarnation(incarnation) }
}

fn lose_tail<T>(queue: &mut VecDeque<T>, dice: &mut Dice) {
    let keep = dice.below(queue.len() + 1);
    queue.truncate(keep);
}

fn repeat<T: Clone>(queue: &mut VecDeque<T>, dice: &mut Dice) {
    if queue.is_empty() {
        return;
    }
    let from = dice.below(queue.len());
    let again = queue[from].clone();
    let to = from + dice.below(queue.len() - from + 1);
    queue.insert(to, again);
}

fn through_codec<T>(message: T) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    decode(&encode(&message)).expect("what was encoded decodes")
}
