//! One run: a queue of events in the order of time, and what each of them does.
//!
//! Rooms: [`crate::traffic`] frames, links and clients; [`crate::troubles`] what goes wrong and
//! how it heals; [`crate::operator`] what people ask of the cluster.
//!
//! Invariants
//! - Events happen by (time, number); numbers are given out in the order of scheduling.
//! - After anything happened on a machine, its next wake is scheduled.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use jizoku_checkpoint::holder::{self, Token};
use jizoku_consensus::{self as consensus, PersistToken};
use jizoku_node::node;
use jizoku_types::event::LinkDownCause;
use jizoku_types::{BranchId, ConnId, Event, Instant, NodeId, ServiceId, Span};

use crate::branches::check_lines;
use crate::bug::Bug;
use crate::clients::{COUNTERS, Client, Mode};
use crate::clock::{Clock, RIGHT};
use crate::history::{History, Seen};
use crate::life::Effect;
use crate::lines::Started;
use crate::links::Links;
use crate::machine::Machine;
use crate::net::{HostId, Net};
use crate::operator::Operator;
use crate::oracle::{Counts, Oracle};
use crate::plan::{Choice, Plan};
use crate::rng::Rng;
use crate::scale::Meter;
use crate::traffic::Frame;
use crate::troubles::{Healing, Plots};

/// After trouble has ended, every service must have answered again within this time.
pub const SERVES_WITHIN: Span = Span::secs(60);
/// Clocks are at most this far off, in millionths.
const DRIFT: u64 = 40_000;
/// Events that may wait, for each machine.
const EVENTS_MAX: usize = 100_000;
/// Wakes of one machine without time passing.
const SPIN_MAX: u32 = 10_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum What {
    /// A frame arrives at a machine.
    Deliver { from: HostId, to: HostId, session: u64, frame: Box<Frame> },
    /// A machine's deadline.
    Wake { host: HostId, number: u64 },
    /// The log is written up to this.
    Logged { host: HostId, life: u64, token: PersistToken },
    /// A record of a held state is written.
    Stored { host: HostId, life: u64, token: Token },
    /// A connection stops carrying frames.
    Break { a: HostId, b: HostId, session: u64, cause: LinkDownCause },
    /// A machine learns that a connection is gone.
    Notice { host: HostId, peer: HostId, session: u64, cause: LinkDownCause },
    /// Two machines try to connect.
    Dial { a: HostId, b: HostId },
    /// The plan's next trouble.
    Trouble(usize),
    /// Some trouble ends.
    Heal(Healing),
    /// A machine goes on after it stood still; then it has heard everybody again.
    Resume { host: HostId, late: bool },
    /// The agent that serves ends, if it is still this life.
    Strike { host: HostId, life: u64, down: Span },
    /// Operators look at the cluster.
    Operate,
    /// A client goes on.
    Turn { client: usize, serial: u64 },
    /// Bytes of a client reach its gateway.
    Asked { client: usize, serial: u64, count: usize },
    /// Bytes reach a client.
    Answered { client: usize, serial: u64, count: usize, seen: Seen },
    /// A client has waited for long.
    Patience { client: usize, serial: u64, tag: u64 },
    /// Trouble ends, the last questions are asked.
    End,
}

struct Entry {
    at: Instant,
    number: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The first thing that must not be, if there was any.
    pub violation: Option<String>,
    /// What happened how often.
    pub counts: Counts,
    /// A hash of all events: the same for the same seed.
    pub trace: u64,
    /// How long the run was, in simulated time.
    pub lasted: Span,
    /// Machines.
    pub nodes: usize,
}

/// See the module's header.
pub struct World {
    pub(crate) now: Instant,
    pub(crate) plan: Plan,
    pub(crate) machines: Vec<Machine>,
    /// By key.
    pub(crate) hosts: BTreeMap<NodeId, HostId>,
    pub(crate) net: Net,
    pub(crate) links: Links,
    pub(crate) clients: Vec<Client>,
    pub(crate) by_conn: BTreeMap<(ServiceId, ConnId), usize>,
    pub(crate) histories: Vec<History>,
    pub(crate) ids: Vec<Option<ServiceId>>,
    pub(crate) operator: Operator,
    pub(crate) oracle: Oracle,
    pub(crate) rng: Rng,
    pub(crate) bug: Option<Bug>,
    pub(crate) ending: bool,
    pub(crate) lives: u64,
    pub(crate) violation: Option<String>,
    pub(crate) meter: Option<Meter>,
    pub(crate) plots: Plots,
    queue: BinaryHeap<Entry>,
    last_number: u64,
    trace: u64,
    spin: (HostId, Instant, u32),
    /// Room for the effects of one agent, kept from event to event.
    effects: Vec<Effect>,
    verbose: bool,
}

impl World {
    /// The run of this seed.
    pub fn new(seed: u64, choice: &Choice, bug: Option<Bug>, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng.fork(1), choice);
        World::of(seed, rng, plan, bug, verbose)
    }

    /// The run of this plan.
    pub(crate) fn of(
        seed: u64,
        mut rng: Rng,
        plan: Plan,
        bug: Option<Bug>,
        verbose: bool,
    ) -> World {
        let mut clocks = rng.fork(2);
        let mut chances = rng.fork(3);
        let machines: Vec<Machine> = (0..plan.nodes)
            .map(|host| {
                let rate = RIGHT - DRIFT + clocks.below(2 * DRIFT + 1);
                let clock = Clock::new(1_000_000_000 + clocks.below(1 << 40), rate);
                Machine::new(host, clock, chances.fork(host as u64))
            })
            .collect();
        let mut world = World {
            now: Instant::ORIGIN,
            hosts: machines.iter().map(|machine| (machine.key, machine.host)).collect(),
            machines,
            net: Net::new(rng.fork(4)),
            links: Links::default(),
            clients: Vec::new(),
            by_conn: BTreeMap::new(),
            histories: plan.services.iter().map(|_| History::default()).collect(),
            ids: plan.services.iter().map(|_| None).collect(),
            operator: Operator::default(),
            oracle: Oracle::default(),
            rng: rng.fork(5),
            bug,
            ending: false,
            lives: 0,
            violation: None,
            meter: None,
            plots: Plots::default(),
            queue: BinaryHeap::new(),
            last_number: 0,
            trace: seed,
            spin: (0, Instant::ORIGIN, 0),
            effects: Vec::new(),
            verbose,
            plan,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let keys: Vec<_> = self.machines.iter().map(|machine| machine.key).collect();
        for machine in &mut self.machines {
            machine.peers = keys.iter().copied().filter(|key| *key != machine.key).collect();
        }
        for host in 0..self.machines.len() {
            self.start(host);
        }
        for (from, to, weather) in std::mem::take(&mut self.plan.climate) {
            self.net.set_climate(from, to, weather);
        }
        for (a, b) in std::mem::take(&mut self.plan.apart) {
            self.net.part(a, b);
        }
        for a in 0..self.machines.len() {
            for b in a + 1..self.machines.len() {
                self.dial(a, b);
            }
        }
        for number in 0..self.plan.clients.len() {
            let service = self.plan.clients[number];
            let loyal = number.is_multiple_of(3);
            self.clients.push(Client::new(number as u64 + 1, service, Mode::Normal, loyal));
            self.after(Span::secs(2), What::Turn { client: number, serial: 0 });
        }
        for index in 0..self.plan.troubles.len() {
            let at = self.plan.troubles[index].0;
            self.at(at, What::Trouble(index));
        }
        self.after(Span::millis(100), What::Operate);
        self.at(self.plan.end, What::End);
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> Verdict {
        while self.violation.is_none() {
            self.step();
            if self.ending && self.is_over() {
                self.compare();
                break;
            }
        }
        for history in &self.histories {
            self.oracle.counts.open += history.open() as u64;
        }
        Verdict {
            violation: self.violation,
            counts: self.oracle.counts,
            trace: self.trace,
            lasted: self.now.since(Instant::ORIGIN),
            nodes: self.machines.len(),
        }
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.peek().map(|entry| entry.at)
    }

    /// Lets the next event happen.
    pub(crate) fn step(&mut self) {
        let Some(Entry { at, number: _, what }) = self.queue.pop() else {
            return self.complain("7: nothing happens any more".into());
        };
        self.now = at;
        self.oracle.counts.events += 1;
        if self.queue.len() > EVENTS_MAX * self.machines.len() {
            self.complain("9: events pile up".into());
        }
        self.happen(what);
    }

    fn happen(&mut self, what: What) {
        self.note(&what);
        match what {
            What::Deliver { from, to, session, frame } => self.deliver(from, to, session, frame),
            What::Wake { host, number } => self.wake(host, number),
            What::Logged { host, life, token } => self.logged(host, life, token),
            What::Stored { host, life, token } => self.stored(host, life, token),
            What::Break { a, b, session, cause } => self.break_link(a, b, session, cause),
            What::Notice { host, peer, session, cause } => {
                self.notice(host, peer, session, cause);
            }
            What::Dial { a, b } => self.dialled(a, b),
            What::Trouble(index) => self.trouble(index),
            What::Heal(healing) => self.heal(healing),
            What::Resume { host, late } => self.resume(host, late),
            What::Strike { host, life, down } => self.strike(host, life, down),
            What::Operate => self.operate(),
            What::Turn { client, serial } => self.turn(client, serial),
            What::Asked { client, serial, count } => self.asked(client, serial, count),
            What::Answered { client, serial, count, seen } => {
                self.answered(client, serial, (count, seen));
            }
            What::Patience { client, serial, tag } => self.patience(client, serial, tag),
            What::End => self.end(),
        }
    }

    /// Takes an event into the hash of the run.
    fn note(&mut self, what: &What) {
        let (kind, detail) = match what {
            What::Deliver { from, to, frame, .. } => {
                (1, (*from as u64) << 16 | (*to as u64) << 8 | frame.channel as u64)
            }
            What::Wake { host, .. } => (2, *host as u64),
            What::Logged { host, token, .. } => (3, *host as u64 ^ token.0 << 8),
            What::Stored { host, token, .. } => (4, *host as u64 ^ token << 8),
            What::Break { a, b, .. } => (5, (*a as u64) << 8 | *b as u64),
            What::Notice { host, peer, .. } => (6, (*host as u64) << 8 | *peer as u64),
            What::Dial { a, b } => (7, (*a as u64) << 8 | *b as u64),
            What::Trouble(index) => (8, *index as u64),
            What::Heal(_) => (9, 0),
            What::Resume { host, .. } => (10, *host as u64),
            What::Operate => (11, 0),
            What::Turn { client, .. } => (12, *client as u64),
            What::Asked { client, count, .. } => (13, (*client as u64) << 32 | *count as u64),
            What::Answered { client, count, .. } => (14, (*client as u64) << 32 | *count as u64),
            What::Patience { client, .. } => (15, *client as u64),
            What::End => (16, 0),
            What::Strike { host, .. } => (17, *host as u64),
        };
        for word in [self.now.as_nanos(), kind, detail] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    pub(crate) fn at(&mut self, at: Instant, what: What) {
        self.last_number += 1;
        self.queue.push(Entry { at: at.max(self.now), number: self.last_number, what });
    }

    pub(crate) fn after(&mut self, span: Span, what: What) {
        self.at(self.now + span, what);
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            let at = self.now.as_nanos();
            println!("{:5}.{:06} {}", at / 1_000_000_000, at / 1000 % 1_000_000, what());
        }
    }

    /// Something is not as it must be. The first counts.
    pub(crate) fn complain(&mut self, what: String) {
        self.say(|| format!("VIOLATION {what}"));
        if self.violation.is_none() {
            let at = self.now.as_nanos();
            let (seconds, millis) = (at / 1_000_000_000, at / 1_000_000 % 1000);
            self.violation = Some(format!("at {seconds}.{millis:03} s: {what}"));
        }
    }

    pub(crate) fn check(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.complain(what);
        }
    }

    /// Starts a machine's agent, if it is down.
    pub(crate) fn start(&mut self, host: HostId) {
        if self.machines[host].life.is_some() {
            return;
        }
        self.lives += 1;
        let (now, lives, bug) = (self.now, self.lives, self.bug);
        self.say(|| format!("n{host} starts, life {lives}"));
        let started = self.machines[host].start(now, lives, host == 0 && lives == 1, bug);
        self.check(started);
        self.go_on(host);
        self.settle(host);
    }

    fn wake(&mut self, host: HostId, number: u64) {
        let now = self.now;
        let machine = &mut self.machines[host];
        if machine.wake_number != number {
            return;
        }
        machine.wake = None;
        if machine.paused_until > now {
            return self.schedule_wake(host);
        }
        let local = machine.clock.local(now);
        if let Some(life) = &mut machine.life {
            life.wake(local);
        }
        self.settle(host);
    }

    fn schedule_wake(&mut self, host: HostId) {
        let now = self.now;
        let machine = &mut self.machines[host];
        let deadline = machine.life.as_ref().and_then(|life| life.deadline());
        let Some(deadline) = deadline.filter(|at| *at < Instant::NEVER) else { return };
        let at = machine.clock.global(deadline).max(machine.paused_until);
        let spins = at <= now;
        let at = at.max(now + Span::micros(1));
        if machine.wake.is_some_and(|known| known <= at) {
            return;
        }
        machine.wake = Some(at);
        machine.wake_number += 1;
        let number = machine.wake_number;
        self.at(at, What::Wake { host, number });
        self.watch_spin(host, spins);
    }

    fn watch_spin(&mut self, host: HostId, spins: bool) {
        let (last, since, count) = self.spin;
        let near = self.now.since(since) < Span::millis(100);
        self.spin = match (spins, last == host && near) {
            (false, _) => return,
            (true, true) => (host, since, count + 1),
            (true, false) => (host, self.now, 0),
        };
        if self.spin.2 > SPIN_MAX {
            self.complain(format!("9: n{host} is woken again and again"));
        }
    }

    fn logged(&mut self, host: HostId, life: u64, token: PersistToken) {
        let now = self.now;
        let machine = &mut self.machines[host];
        if machine.life.as_ref().is_none_or(|one| one.number != life) {
            return;
        }
        if machine.paused_until > now {
            return machine.waiting.push(What::Logged { host, life, token });
        }
        let written = machine.disk.log_written(token);
        let local = machine.clock.local(now);
        if let Some(life) = machine.life.as_mut() {
            life.tell_consensus(local, consensus::Input::Persisted { token });
        }
        self.check(written);
        self.settle(host);
    }

    fn stored(&mut self, host: HostId, life: u64, token: Token) {
        let now = self.now;
        let machine = &mut self.machines[host];
        if machine.life.as_ref().is_none_or(|one| one.number != life) {
            return;
        }
        if machine.paused_until > now {
            return machine.waiting.push(What::Stored { host, life, token });
        }
        let local = machine.clock.local(now);
        let mut inputs = Vec::new();
        if machine.disk.full {
            let tokens = machine.disk.state_failed(token);
            inputs.extend(tokens.into_iter().map(|token| holder::Input::StoreFailed { token }));
        } else {
            let tokens = machine.disk.state_written(token);
            inputs.extend(tokens.into_iter().map(|token| holder::Input::Stored { token }));
        }
        for input in inputs {
            if let Some(life) = &mut machine.life {
                life.tell_holder(local, input);
            }
        }
        self.settle(host);
    }

    /// Tells the Node of a machine something, if it is up.
    pub(crate) fn tell_node(&mut self, host: HostId, input: node::Input) {
        let now = self.now;
        let machine = &mut self.machines[host];
        let local = machine.clock.local(now);
        if let Some(life) = &mut machine.life {
            life.tell_node(local, input);
        }
        self.settle(host);
    }

    /// Takes what an agent wants done, and schedules its next wake.
    pub(crate) fn settle(&mut self, host: HostId) {
        loop {
            let life = self.machines[host].life.as_mut();
            let Some(life) = life else { return };
            if life.effects.is_empty() {
                break;
            }
            let number = life.number;
            // An effect may lead to others, of this agent or of another: these get a vector of
            // their own.
            let mut effects = std::mem::take(&mut self.effects);
            std::mem::swap(&mut effects, &mut life.effects);
            for effect in effects.drain(..) {
                self.effect(host, number, effect);
            }
            self.effects = effects;
        }
        self.schedule_wake(host);
    }

    fn effect(&mut self, host: HostId, life: u64, effect: Effect) {
        match effect {
            Effect::Send { to, channel, body } => self.send(host, to, channel, body),
            Effect::Persist { token, records } => {
                let disk = &mut self.machines[host].disk;
                disk.append_log(token, records);
                let (least, most) = (Span::micros(200) + disk.slow, Span::millis(5) + disk.slow);
                let delay = self.rng.span(least, most);
                self.after(delay, What::Logged { host, life, token });
            }
            Effect::Store { token, record } => {
                let disk = &mut self.machines[host].disk;
                let (least, most) = disk.delay_of(&record);
                disk.append_state(token, record);
                let delay = self.rng.span(least, most);
                self.after(delay, What::Stored { host, life, token });
            }
            Effect::Client { service, epoch, output } => {
                self.gateway_says(host, (service, epoch), output);
            }
            Effect::Peers(peers) => self.machines[host].peers = peers,
            Effect::Answer { id, result } => self.operator_answered(id, result),
            Effect::Applied { index, command } => {
                let applied = self.oracle.applied(host, index, command);
                self.check(applied);
            }
            Effect::GatewayGone(gateway) => {
                let lives = self.lives(gateway);
                let gone = self.oracle.gateway_gone(self.now, host, gateway, lives);
                self.check(gone);
            }
            Effect::Saw(event) => self.saw(host, &event),
            Effect::Stopped(why) => self.complain(format!("0: n{host}: consensus stopped: {why}")),
            other => self.runner_effect(host, life, other),
        }
    }

    fn runner_effect(&mut self, host: HostId, life: u64, effect: Effect) {
        match effect {
            Effect::Assigned { service, epoch, fork } => {
                self.assigned((host, life), service, epoch, fork);
            }
            Effect::Started { service, epoch, seq, values, quarantine } => {
                self.oracle.quarantine(self.now, service, quarantine);
                self.say(|| format!("n{host} starts an instance of {service} {epoch} from {seq}"));
                let kept = epoch.branch != BranchId::MAIN
                    || !self.may_lose(host, service)
                    || self.is_kept(host, service);
                let started = Started { place: (host, life), seq, values };
                let started = self.oracle.started(self.now, service, epoch, started, kept);
                self.check(started);
                self.strike_again(host, life, service);
            }
            Effect::Captured { service, epoch, seq } => {
                self.oracle.captured(self.now, service, epoch, seq);
            }
            Effect::Released { service, epoch, seq, version } => {
                let alone = self.is_alone(host, service);
                let released =
                    self.oracle.released(self.now, service, (epoch, seq), alone, version);
                self.check(released);
                let kept = self.kept_by_all(host, service, epoch, seq);
                self.check(kept);
            }
            Effect::Emitted { service, epoch } => {
                let emitted = self.oracle.emitted(service, epoch);
                self.check(emitted);
            }
            Effect::Committed { .. } => self.oracle.counts.commits += 1,
            _ => unreachable!("taken before"),
        }
    }

    fn saw(&mut self, host: HostId, event: &Event) {
        self.say(|| format!("n{host} {event:?}"));
        if let Some(meter) = &mut self.meter {
            meter.saw(self.now, host, event);
        }
        self.oracle.saw(self.now, host, event);
        match event {
            Event::LeaderChanged { leader: Some(_) } => {
                self.machines[host].led.get_or_insert(self.now);
            }
            Event::Sealed { service, epoch, .. } => self.sealed(*service, *epoch),
            Event::StateCollected { service, epoch, .. } => {
                let sealed = self.seals_are_written(host, *service, *epoch);
                self.check(sealed);
            }
            Event::HoldersChanged { service, .. } => {
                let whole = self.set_is_whole(host, *service);
                self.check(whole);
            }
            _ => {}
        }
    }

    fn end(&mut self) {
        self.say(|| "the trouble ends".into());
        self.ending = true;
        self.heal_all();
        for service in 0..self.plan.services.len() {
            let number = 1000 + service as u64;
            let client = self.clients.len();
            self.clients.push(Client::new(number, service, Mode::Last(0), false));
            self.after(Span::millis(100), What::Turn { client, serial: 0 });
        }
    }

    /// Whether all last questions are answered, or time is up.
    fn is_over(&mut self) -> bool {
        let done = self.clients.iter().all(|client| match client.mode {
            Mode::Normal => !self.must_be_answered(client),
            Mode::Last(_) => client.is_done(),
        });
        let late = self.now.since(self.plan.end) > SERVES_WITHIN;
        if late && !done {
            let silent: Vec<String> = self
                .clients
                .iter()
                .filter(|client| matches!(client.mode, Mode::Last(next) if next < COUNTERS))
                .map(|client| self.describe(client.service))
                .collect();
            let waits = |client: &&Client| self.must_be_answered(client);
            let waiting: Vec<String> =
                self.clients.iter().filter(waits).map(|client| format!("{client:?}")).collect();
            self.complain(format!(
                "7: not serving again: {}; unanswered: {}",
                silent.join("; "),
                waiting.join("; ")
            ));
        }
        // A bit more, so that the last catalog entries are everywhere.
        let calm = self.now.since(self.plan.end) > Span::secs(10);
        done && calm
            && self.catalogs_agree()
            && self.branch_left().is_none()
            && self.stale_instance().is_none()
            || late
    }

    fn catalogs_agree(&self) -> bool {
        let lives: Vec<_> = self.machines.iter().filter_map(|one| one.life.as_ref()).collect();
        lives.windows(2).all(|two| two[0].node.catalog() == two[1].node.catalog())
    }

    /// Whether a client waits on a connection that lives.
    fn must_be_answered(&self, client: &Client) -> bool {
        let tainted = self.ids[client.service].is_some_and(|id| self.oracle.is_tainted(id));
        let lives = client.conn.is_some_and(|conn| {
            let life = self.machines[conn.host].life.as_ref();
            life.is_some_and(|life| life.number == conn.life)
        });
        client.mode == Mode::Normal && client.waits() && lives && !tainted
    }

    /// How far each node is, and by which ways.
    fn describe_logs(&self) -> String {
        let name = |node: &NodeId| match self.hosts.get(node) {
            Some(host) => format!("n{host}"),
            None => format!("{node:?}"),
        };
        let mut text = String::new();
        for machine in &self.machines {
            let Some(life) = &machine.life else { continue };
            let status = life.consensus.status();
            let voters: Vec<_> = status.voters.iter().map(name).collect();
            let ways: Vec<_> = life
                .routes
                .iter()
                .map(|(to, by)| format!("{} by {}", name(to), name(by)))
                .collect();
            text += &format!(
                "\n  n{} leader {:?}, term {}, log to {:?}, applied to {:?}, voters {}, ways {}",
                machine.host,
                status.leader.as_ref().map(name),
                status.term,
                status.last,
                status.applied,
                voters.join(" "),
                ways.join(", "),
            );
        }
        text
    }

    fn describe(&self, service: usize) -> String {
        let mut text = format!("s{service} {:?}", self.ids[service]);
        let Some(id) = self.ids[service] else { return text };
        for machine in &self.machines {
            let Some(life) = &machine.life else { continue };
            if let Some(record) = life.node.catalog().service(id) {
                let (active, epoch) = (record.active.map(|m| m.node), record.epoch);
                let runner = life.runners.get(&id).map(|one| format!("{:?}", one.runner));
                let gateway = life.gateways.get(&id).map(|one| one.phase());
                text += &format!(
                    "\n  n{} leader {:?} {epoch} active {active:?} holders {:?} {runner:?} \
                     {gateway:?}",
                    machine.host,
                    life.node.leader(),
                    record.holders,
                );
            }
        }
        text
    }

    /// The last checks.
    fn compare(&mut self) {
        if self.violation.is_some() {
            return;
        }
        for index in 0..self.histories.len() {
            let spec = &self.plan.services[index];
            let held = spec.output == jizoku_types::spec::OutputMode::Held && spec.min_copies > 0;
            let tainted = self.ids[index].is_some_and(|id| self.oracle.is_tainted(id));
            let lines = self.ids[index].and_then(|id| self.oracle.lines(id));
            let branched = lines.filter(|lines| lines.has_branched());
            if let (true, false, Some(lines)) = (held, tainted, branched) {
                let checked = check_lines(&self.histories[index], lines);
                self.check(checked.map_err(|wrong| format!("10: s{index}: {wrong}")));
            } else if held && !tainted {
                let checked = self.histories[index].check();
                self.check(checked.map_err(|wrong| format!("4: s{index}: {wrong}")));
            }
        }
        if !self.catalogs_agree() {
            self.complain(format!("8: the catalogs differ at the end{}", self.describe_logs()));
        }
        if let Some(left) = self.branch_left() {
            self.complain(format!("10: {left}"));
        }
        if let Some(stale) = self.stale_instance() {
            self.complain(format!("1: {stale}"));
        }
    }
}
