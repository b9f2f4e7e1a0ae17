//! What a seed stands for: how many machines, which services, which clients, which faults when.
//!
//! What it does not know: how any of it is done.

use jizoku_types::spec::{
    CheckKind, CheckSpec, Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, PortSpec,
    ServiceSpec, SuccessionPolicy,
};
use jizoku_types::{ByteCount, Instant, ServiceName, Span};

use crate::machine::key_of;
use crate::net::{HostId, Weather};
use crate::rng::Rng;

/// Something bad, or something that an operator does.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// An agent's process ends; its machine goes on. It starts again after the span.
    KillAgent(HostId, Span),
    /// A machine loses its power, for the span.
    PowerLoss(HostId, Span),
    /// The machine that serves this service loses its power, with one of its holders or not.
    KillServer {
        /// Index of the service.
        service: usize,
        /// Also one of its holders.
        with_holder: bool,
        /// For so long.
        down: Span,
    },
    /// The machine that leads the catalog loses its power, with the server of a service or not.
    KillLeader {
        /// Also the server of this service.
        with_server: Option<usize>,
        /// For so long.
        down: Span,
    },
    /// Every agent is killed, and starts again after the span and a bit.
    KillAll(Span),
    /// A machine stands still.
    Pause(HostId, Span),
    /// A link carries nothing, or nothing in the direction from the first to the second.
    Cut {
        /// One end.
        a: HostId,
        /// The other.
        b: HostId,
        /// Only that direction.
        one_way: bool,
        /// For so long.
        down: Span,
    },
    /// These machines and the others don't reach each other.
    Partition(Vec<HostId>, Span),
    /// Foul weather everywhere.
    Storm(Span),
    /// A disk is slow.
    SlowDisk(HostId, Span),
    /// A disk refuses writes of held states.
    FullDisk(HostId, Span),
    /// A service shall move to this machine, or anywhere.
    Move(usize, Option<HostId>),
    /// A machine is drained for the span.
    Drain(HostId, Span),
    /// A service is stopped for the span.
    Stop(usize, Span),
    /// A client sends what kills the program.
    Poison(usize),
    /// A machine comes back with an empty disk, under a new key; operators remove the old member
    /// and add the new one.
    Wipe(HostId, Span),
    /// A machine loses its power, and its disk the end of some state that it held.
    Rot(HostId, Span),
    /// Nobody reaches the machine that serves this service, for less than a moment.
    Flap(usize, Span),
    /// The machine that serves this service stands still until another one takes over.
    Overtaken(usize),
    /// The agent that serves this service ends, and the next one as soon as it begins.
    Again {
        /// Index of the service.
        service: usize,
        /// For so long, each.
        down: Span,
    },
    /// Frames arrive twice, but for a few.
    Doubling(Span),
    /// Nothing can be started or restored on a machine.
    Unable(HostId, Span),
    /// A changed spec is applied to a service.
    Apply(usize, Changed),
}

/// What is changed in a spec.
#[derive(Clone, Copy, Debug)]
pub enum Changed {
    /// How many copies.
    Copies(u8),
    /// The longest time between checkpoints.
    Interval(Span),
    /// Copies are not flushed any more.
    Memory,
}

/// The kinds of trouble that a run can be made of.
pub const KINDS: &[&str] = &[
    "kill",
    "power",
    "server",
    "leader",
    "all",
    "pause",
    "cut",
    "partition",
    "split",
    "flap",
    "overtaken",
    "again",
    "storm",
    "slowdisk",
    "fulldisk",
    "move",
    "drain",
    "stop",
    "poison",
    "wipe",
    "rot",
    "double",
    "apply",
    "unable",
];

/// The kinds of a run for which none are named: all but the last. The kinds of these runs are
/// drawn from this list, so a longer one would make other runs of all seeds.
pub const USUAL: &[&str] = KINDS.split_last().expect("there are some").1;

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many machines.
    pub nodes: usize,
    /// The services.
    pub services: Vec<ServiceSpec>,
    /// For each client the index of its service.
    pub clients: Vec<usize>,
    /// For each direction between two machines what it is usually like.
    pub climate: Vec<(HostId, HostId, Weather)>,
    /// Pairs of machines that never have a link.
    pub apart: Vec<(HostId, HostId)>,
    /// When what happens, in the order of time.
    pub troubles: Vec<(Instant, Trouble)>,
    /// When trouble ends and the last questions are asked.
    pub end: Instant,
}

/// What can be chosen about a run.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its length in simulated minutes.
    pub minutes: u64,
    /// How many machines; none: by the seed.
    pub nodes: Option<usize>,
    /// Kinds of trouble, by name.
    pub kinds: Vec<&'static str>,
}

/// The first trouble comes after this: the cluster forms before.
const CALM: Span = Span::secs(10);
/// A split lasts from this long, so that a side may open a branch,
const SPLIT_MIN: Span = Span::secs(6);
/// to this long: gateways are given up on the way.
const SPLIT_MAX: Span = Span::secs(45);
/// Clients are busy from so long before a trouble,
const HOT_BEFORE: Span = Span::millis(300);
/// until so long after it.
const HOT_AFTER: Span = Span::secs(1);

impl Plan {
    /// Machines with nothing to do, for a day.
    pub fn idle(nodes: usize) -> Plan {
        let end = Instant::ORIGIN + Span::secs(24 * 60 * 60);
        Plan {
            nodes,
            services: Vec::new(),
            clients: Vec::new(),
            climate: Vec::new(),
            apart: Vec::new(),
            troubles: Vec::new(),
            end,
        }
    }

    /// The plan of this seed.
    pub fn new(rng: &mut Rng, choice: &Choice) -> Plan {
        let nodes = choice.nodes.unwrap_or_else(|| 3 + rng.index(4) + rng.index(4));
        let services: Vec<ServiceSpec> =
            (0..1 + rng.index(3)).map(|index| service(rng, index, nodes)).collect();
        let mut clients: Vec<usize> = (0..services.len()).flat_map(|one| [one, one]).collect();
        clients.extend((0..1 + rng.index(3)).map(|_| rng.index(services.len())));
        let climate = climate(rng, nodes);
        let apart = if rng.permille(200) { apart(rng, nodes) } else { Vec::new() };
        let end = Instant::ORIGIN + Span::secs(60) * choice.minutes;
        let mut troubles = Vec::new();
        let mut at = Instant::ORIGIN + CALM;
        while !choice.kinds.is_empty() {
            at += rng.span(Span::secs(2), Span::secs(28));
            if at >= end {
                break;
            }
            let kind = rng.pick(&choice.kinds).copied().unwrap_or("kill");
            troubles.push((at, trouble(rng, kind, nodes, services.len())));
            // Now and then two at once.
            if rng.permille(250) {
                let kind = rng.pick(&choice.kinds).copied().unwrap_or("kill");
                let soon = at + rng.span(Span::ZERO, Span::millis(500));
                troubles.push((soon, trouble(rng, kind, nodes, services.len())));
            }
        }
        troubles.sort_by_key(|(at, _)| *at);
        Plan { nodes, services, clients, climate, apart, troubles, end }
    }

    /// Whether something happens about now.
    pub fn is_hot(&self, now: Instant) -> bool {
        let next = self.troubles.partition_point(|(at, _)| *at < now);
        let soon = self.troubles.get(next).is_some_and(|(at, _)| at.since(now) < HOT_BEFORE);
        let before = next.checked_sub(1).and_then(|last| self.troubles.get(last));
        soon || before.is_some_and(|(at, _)| now.since(*at) < HOT_AFTER)
    }
}

/// What all links of a run are like when nothing is wrong: from one rack to two continents.
fn climate(rng: &mut Rng, nodes: usize) -> Vec<(HostId, HostId, Weather)> {
    let (least, most) = match rng.below(20) {
        0..8 => (50, 100),
        8..12 => (100, 1_000),
        12..17 => (1_000, 5_000),
        _ => (5_000, 20_000),
    };
    let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
    let one = |(a, b)| {
        let latency = rng.span(Span::micros(least), Span::micros(most));
        (a, b, Weather { latency, jitter: latency / 4 + Span::micros(50), ..Weather::CLEAR })
    };
    pairs.filter(|(a, b)| a != b).map(one).collect()
}

/// Some pairs without a link; a ring stays, in which everybody is.
fn apart(rng: &mut Rng, nodes: usize) -> Vec<(HostId, HostId)> {
    let ring = |a: usize, b: usize| b - a == 1 || b - a == nodes - 1;
    let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
    pairs.filter(|(a, b)| !ring(*a, *b) && rng.permille(600)).collect()
}

fn service(rng: &mut Rng, index: usize, nodes: usize) -> ServiceSpec {
    let most = (nodes - 1).min(3) as u64;
    let copies = 1 + rng.below(most) as u8;
    let held = rng.permille(700);
    let least = if rng.permille(850) { 1 + rng.below(u64::from(copies)) as u8 } else { 0 };
    let succession = match rng.below(3) {
        0 => SuccessionPolicy::Stability,
        1 => SuccessionPolicy::Random,
        _ => SuccessionPolicy::Priority((0..nodes).map(key_of).collect()),
    };
    let goes_on = rng.permille(250);
    let partition = if goes_on { PartitionPolicy::Continue } else { PartitionPolicy::Stop };
    // Room for one state of the simulated program, or for many.
    let branch_limit = ByteCount::kib(if rng.permille(200) { 40 } else { 4 << 10 });
    let check = CheckSpec {
        kind: CheckKind::Alive,
        every: Span::secs(1),
        timeout: Span::secs(1),
        failures: 3,
    };
    ServiceSpec {
        name: ServiceName::new(&format!("s{index}")).expect("a good name"),
        engine: EngineSpec::Wasm {
            module: [index as u8; 32],
            args: Vec::new(),
            env: std::collections::BTreeMap::new(),
            memory_max: ByteCount(1 << 20),
            files_max: ByteCount(0),
        },
        ports: vec![PortSpec { name: "main".into(), listen: 7000 + index as u16 }],
        output: if held { OutputMode::Held } else { OutputMode::Free },
        durable: if rng.permille(400) { Durability::Disk } else { Durability::Memory },
        copies,
        min_copies: least,
        interval: rng.span(Span::millis(5), Span::millis(200)),
        partition,
        succession,
        checks: if rng.permille(300) { vec![check] } else { Vec::new() },
        placement: Placement::default(),
        restart_wait: Span::secs(10),
        branch_limit,
    }
}

/// The machines of one side of a cut: some, and not all.
fn side(rng: &mut Rng, nodes: usize) -> Vec<HostId> {
    let mut some: Vec<HostId> = (0..nodes).filter(|_| rng.permille(450)).collect();
    if some.is_empty() || some.len() == nodes {
        some = vec![rng.index(nodes)];
    }
    some
}

fn trouble(rng: &mut Rng, kind: &str, nodes: usize, services: usize) -> Trouble {
    let host = rng.index(nodes);
    let other = (host + 1 + rng.index(nodes - 1)) % nodes;
    let service = rng.index(services);
    let down = match rng.below(4) {
        0 => rng.span(Span::millis(50), Span::millis(800)),
        1 | 2 => rng.span(Span::millis(800), Span::secs(8)),
        _ => rng.span(Span::secs(8), Span::secs(40)),
    };
    // A gateway that is out of reach for 30 s is given up.
    let apart = down.min(Span::secs(20));
    match kind {
        "kill" => Trouble::KillAgent(host, down),
        "power" => Trouble::PowerLoss(host, down),
        "server" => Trouble::KillServer { service, with_holder: rng.permille(300), down },
        "leader" => {
            let with_server = rng.permille(500).then_some(service);
            Trouble::KillLeader { with_server, down }
        }
        "all" => Trouble::KillAll(down),
        "pause" => {
            let most = if rng.permille(150) { Span::secs(60) } else { Span::secs(6) };
            Trouble::Pause(host, rng.span(Span::millis(30), most))
        }
        "cut" => Trouble::Cut { a: host, b: other, one_way: rng.permille(400), down: apart },
        "partition" => Trouble::Partition(side(rng, nodes), apart),
        "split" => Trouble::Partition(side(rng, nodes), rng.span(SPLIT_MIN, SPLIT_MAX)),
        "flap" => Trouble::Flap(service, rng.span(Span::millis(5), Span::millis(200))),
        "overtaken" => Trouble::Overtaken(service),
        "again" => Trouble::Again { service, down },
        "storm" => Trouble::Storm(down),
        "slowdisk" => Trouble::SlowDisk(host, down),
        "fulldisk" => Trouble::FullDisk(host, down),
        "move" => Trouble::Move(service, rng.permille(600).then_some(host)),
        "drain" => Trouble::Drain(host, down),
        "stop" => Trouble::Stop(service, down),
        "wipe" => Trouble::Wipe(host, down),
        "rot" => Trouble::Rot(host, down),
        "double" => Trouble::Doubling(down),
        "unable" => Trouble::Unable(host, down),
        "apply" => Trouble::Apply(
            service,
            match rng.below(3) {
                0 => Changed::Copies(1 + rng.below((nodes - 1).min(3) as u64) as u8),
                1 => Changed::Interval(rng.span(Span::millis(5), Span::millis(200))),
                _ => Changed::Memory,
            },
        ),
        _ => Trouble::Poison(service),
    }
}
