//! Which faults come in which order: a pure function of a seed and the number of a step.
//!
//! So any step can be had again without those before it. What it does not know: how a fault is
//! made, and which node is the active one when it comes; it names roles.
//!
//! Invariants
//! - Each kind comes once in each round, in an order that the seed draws.
//! - No step disturbs more than [`DISTURBED_MAX`] nodes at a time, but those that say so: three of
//!   five voters, and one of three copies, are always left alone.

use std::time::Duration;

/// Nodes that a step may disturb at a time.
pub const DISTURBED_MAX: usize = 2;
/// One step in so many is double.
const DOUBLE_ONE_IN: u64 = 4;
/// How long a node stands still.
const PAUSE_MS: (u64, u64) = (100, 60_000);
/// How long anything else lasts.
const HOLD_MS: (u64, u64) = (300, 12_000);
/// The same in a short campaign.
const SHORT_MS: (u64, u64) = (300, 1_500);
/// Time between the two faults of a double one.
const BETWEEN_MS: (u64, u64) = (0, 2_000);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL for some node's agent.
    Kill,
    /// SIGKILL for the agent where a service is active.
    KillActive,
    /// SIGKILL for a node that serves nothing and has clients' connections.
    KillGateway,
    /// SIGKILL for the leader of the catalog.
    KillLeader,
    /// SIGKILL for the active node and one holder, at once.
    KillPair,
    /// SIGSTOP for some node.
    Pause,
    /// SIGSTOP for the active node.
    PauseActive,
    /// A node's network interface is down.
    LinkDown,
    /// The active node's network interface is down.
    LinkDownActive,
    /// Others don't hear a node, which hears them.
    OneWay,
    /// Two of the active node's links are cut, so that others relay.
    RelayOnly,
    /// A machine without power: its unflushed writes are gone.
    Dark,
    /// A disk without a free byte.
    DiskFull,
    /// A disk that takes nothing for most of the time.
    DiskSlow,
    /// No file descriptor is left to an agent.
    Descriptors,
    /// No memory is left to an agent.
    Memory,
    /// A node's wall clock is stepped.
    Clock,
    /// All nodes are restarted, one after the other.
    Rolling,
    /// All machines without power at once: unflushed writes are gone.
    PowerLoss,
    /// A planned move.
    Move,
    /// A node is drained, and works again.
    Drain,
}

/// What a kind needs beside processes on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A network namespace for each node.
    Network,
    /// A file system for each node.
    Disk,
    /// Both of these.
    Machine,
    /// A memory control group for each agent.
    Group,
    /// The library that steps an agent's wall clock.
    Clock,
}

/// All kinds, with what people call them, what they need, and how many nodes they disturb at a
/// time; none: all of them.
pub const KINDS: [(Kind, &str, Need, Option<usize>); 21] = [
    (Kind::Kill, "kill", Need::Nothing, Some(1)),
    (Kind::KillActive, "kill-active", Need::Nothing, Some(1)),
    (Kind::KillGateway, "kill-gateway", Need::Nothing, Some(1)),
    (Kind::KillLeader, "kill-leader", Need::Nothing, Some(1)),
    (Kind::KillPair, "kill-pair", Need::Nothing, Some(2)),
    (Kind::Pause, "pause", Need::Nothing, Some(1)),
    (Kind::PauseActive, "pause-active", Need::Nothing, Some(1)),
    (Kind::LinkDown, "link-down", Need::Network, Some(1)),
    (Kind::LinkDownActive, "link-down-active", Need::Network, Some(1)),
    (Kind::OneWay, "one-way", Need::Network, Some(1)),
    (Kind::RelayOnly, "relay-only", Need::Network, Some(1)),
    (Kind::Dark, "dark", Need::Machine, Some(1)),
    (Kind::DiskFull, "disk-full", Need::Disk, Some(1)),
    (Kind::DiskSlow, "disk-slow", Need::Disk, Some(1)),
    (Kind::Descriptors, "descriptors", Need::Nothing, Some(1)),
    (Kind::Memory, "memory", Need::Group, Some(1)),
    (Kind::Clock, "clock", Need::Clock, Some(1)),
    (Kind::Rolling, "rolling", Need::Nothing, None),
    (Kind::PowerLoss, "power-loss", Need::Disk, None),
    (Kind::Move, "move", Need::Nothing, Some(0)),
    (Kind::Drain, "drain", Need::Nothing, None),
];

impl Kind {
    fn row(self) -> &'static (Kind, &'static str, Need, Option<usize>) {
        KINDS.iter().find(|row| row.0 == self).expect("every kind has a row")
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What it needs.
    pub fn need(self) -> Need {
        self.row().2
    }

    /// How many nodes it disturbs at a time; none: all.
    pub fn disturbs(self) -> Option<usize> {
        self.row().3
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Kind> {
        KINDS.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// One fault. What isn't fixed by the kind is drawn: each is reduced to what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of which kind.
    pub kind: Kind,
    /// Which of the services it is about.
    pub service: usize,
    /// Which of the nodes that come into question.
    pub node: usize,
    /// How long it lasts.
    pub span: Duration,
    /// For what a kind has to choose by itself.
    pub chance: u64,
}

/// One or two faults at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which one, from 0.
    pub number: u64,
    /// What happens.
    pub faults: Vec<Fault>,
    /// Time between the two.
    pub between: Duration,
}

/// What steps are drawn from.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The seed.
    pub seed: u64,
    /// What may come.
    pub kinds: Vec<Kind>,
    /// Short spans only.
    pub short: bool,
}

impl Draw {
    /// The step with this number.
    ///
    /// # Panics
    /// If there are no kinds.
    pub fn step(&self, number: u64) -> Step {
        let count = self.kinds.len() as u64;
        assert!(count > 0, "some kind of fault may come");
        let mut order = self.kinds.clone();
        let mut dice = Dice::new(self.seed, number / count);
        for at in (1..order.len()).rev() {
            order.swap(at, dice.below(at as u64 + 1) as usize);
        }
        let mut dice = Dice::new(self.seed ^ 0x5eed, number);
        let first = self.fault(order[(number % count) as usize], &mut dice);
        let left = first.kind.disturbs().map_or(0, |taken| DISTURBED_MAX - taken);
        let mut faults = vec![first];
        if left > 0 && dice.below(DOUBLE_ONE_IN) == 0 {
            let fits = |kind: &Kind| kind.disturbs().is_some_and(|n| n > 0 && n <= left);
            let seconds: Vec<Kind> = self.kinds.iter().copied().filter(fits).collect();
            if !seconds.is_empty() {
                let kind = seconds[dice.below(seconds.len() as u64) as usize];
                faults.push(self.fault(kind, &mut dice));
            }
        }
        Step { number, faults, between: dice.span(BETWEEN_MS) }
    }

    fn fault(&self, kind: Kind, dice: &mut Dice) -> Fault {
        let range = match kind {
            _ if self.short => SHORT_MS,
            Kind::Pause | Kind::PauseActive => PAUSE_MS,
            _ => HOLD_MS,
        };
        // Short spans are where races are: a span is as likely to be in any octave.
        let octaves = (range.1 / range.0).ilog2() + 1;
        let most = (range.0 << (dice.below(u64::from(octaves)) + 1)).min(range.1);
        Fault {
            kind,
            service: dice.below(1 << 16) as usize,
            node: dice.below(1 << 16) as usize,
            span: dice.span((range.0, most)),
            chance: dice.next(),
        }
    }
}

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A stream that depends on these two only.
    pub fn new(seed: u64, purpose: u64) -> Dice {
        let mut dice = Dice(seed);
        dice.0 = dice.next() ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93);
        dice
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which isn't 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn span(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seed: u64) -> Draw {
        Draw { seed, kinds: KINDS.iter().map(|row| row.0).collect(), short: false }
    }

    #[test]
    fn a_step_depends_on_seed_and_number_only() {
        let (draw, again) = (all(7), all(7));
        let steps: Vec<Step> = (0..100).map(|number| draw.step(number)).collect();
        for step in steps.iter().rev() {
            assert_eq!(&again.step(step.number), step);
        }
        assert_ne!(all(8).step(0), steps[0]);
    }

    #[test]
    fn each_round_has_each_kind_once() {
        let draw = all(3);
        for round in 0..20 {
            let of = |at: u64| draw.step(round * KINDS.len() as u64 + at).faults[0].kind;
            let mut kinds: Vec<Kind> = (0..KINDS.len() as u64).map(of).collect();
            kinds.sort();
            kinds.dedup();
            assert_eq!(kinds.len(), KINDS.len(), "round {round}");
        }
    }

    #[test]
    fn some_are_double_and_none_disturbs_too_many() {
        let mut double = 0;
        for number in 0..2_000 {
            let step = all(1).step(number);
            let disturbed: Vec<Option<usize>> =
                step.faults.iter().map(|fault| fault.kind.disturbs()).collect();
            if step.faults.len() == 2 {
                double += 1;
                let sum: usize = disturbed.iter().map(|n| n.expect("few at a time")).sum();
                assert!(sum <= DISTURBED_MAX, "{step:?}");
            }
            for fault in &step.faults {
                assert!(fault.span >= Duration::from_millis(100), "{fault:?}");
                assert!(fault.span <= Duration::from_secs(60), "{fault:?}");
            }
        }
        assert!((300..600).contains(&double), "{double} of 2000 are double");
    }

    #[test]
    fn names_lead_back_to_kinds() {
        for (kind, name, ..) in KINDS {
            assert_eq!(Kind::named(name), Some(kind));
        }
        assert_eq!(Kind::named("nosuch"), None);
    }
}
