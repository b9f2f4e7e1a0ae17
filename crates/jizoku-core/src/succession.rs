//! Succession: who goes on with a service, and when each candidate speaks up.
//!
//! [`rank`] gives the same order on every node that has the same facts. [`Attempts`] lets the
//! first propose at once and the k-th after k times [`STAGGER`], if nothing changed by then. The
//! catalog makes the choice unique, so different facts cost time and nothing else.
//!
//! What it does not know: why a service is vacant, the catalog, how facts travel.
//!
//! Invariants
//! - Never ranked: witnesses, draining and unreachable nodes, those that the service's placement
//!   excludes, and those that failed to restore this checkpoint lately.
//! - A node proposes for a service at most once in [`RETRY`] unless the epoch moved.
//!
//! Limits: `SERVICES_MAX` services at a time; above it, what is new is not attempted.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use jizoku_types::limits::SERVICES_MAX;
use jizoku_types::spec::{ServiceSpec, SuccessionPolicy};
use jizoku_types::{ByteCount, CheckpointId, Epoch, Instant, Member, NodeId, ServiceId, Span};

#[cfg(test)]
mod tests;

/// How much later each next candidate proposes.
pub const STAGGER: Span = Span::millis(150);
/// After how long without any change a candidate proposes again.
pub const RETRY: Span = Span::secs(1);
/// Ready images this many checkpoints behind the newest count as ready all the same: facts are
/// half a second old, and the rest is quickly collected.
pub const READY_SLACK: u64 = 64;

/// What is known of a node that might go on with a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who, in its current incarnation.
    pub member: Member,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it can be reached from here.
    pub reachable: bool,
    /// Runs and holds nothing.
    pub witness: bool,
    /// Shall become empty.
    pub draining: bool,
    /// The highest committed checkpoint that it has a ready image of.
    pub ready: Option<CheckpointId>,
    /// Whether it is in the holder set in this incarnation (or verified its copy).
    pub current: bool,
    /// Whether it can start the program at once: it need not be compiled first.
    pub prepared: bool,
    /// How long its agent has been up.
    pub uptime: Span,
    /// Spare processor time, in thousandths of all.
    pub cpu_free: u16,
    /// Spare memory.
    pub memory_free: ByteCount,
    /// Its distance to where it matters, as a round trip in microseconds; the same on all nodes.
    pub distance: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy<'a> {
    /// Which service.
    pub service: ServiceId,
    /// What was asked for it.
    pub spec: &'a ServiceSpec,
    /// The epoch that ends.
    pub epoch: Epoch,
    /// Memory that it needs; nodes with less come last.
    pub needs: ByteCount,
    /// Nodes that failed to restore this checkpoint lately.
    pub failed: &'a BTreeSet<NodeId>,
}

/// The order in which candidates should go on, best first.
pub fn rank(vacancy: &Vacancy<'_>, candidates: &[Candidate]) -> Vec<Member> {
    let mut able: Vec<&Candidate> =
        candidates.iter().filter(|one| may_go_on(vacancy, one)).collect();
    let newest = able.iter().filter_map(|one| one.ready).max();
    let steady = |one: &Candidate| steadiness(vacancy, one, newest);
    match &vacancy.spec.succession {
        SuccessionPolicy::Stability => able.sort_by_key(|one| steady(one)),
        SuccessionPolicy::Priority(list) => able.sort_by_key(|one| {
            let place = list.iter().position(|node| *node == one.member.node);
            (place.unwrap_or(usize::MAX), steady(one))
        }),
        SuccessionPolicy::Random => {
            able.sort_by_key(|one| (lot(vacancy, one.member.node, true), one.member));
        }
    }
    able.into_iter().map(|one| one.member).collect()
}

fn may_go_on(vacancy: &Vacancy<'_>, one: &Candidate) -> bool {
    let place = &vacancy.spec.placement;
    let node = one.member.node;
    let allowed = place.only.is_empty() || place.only.contains(&node);
    let labelled =
        place.require.iter().all(|(key, value)| one.labels.get(key).is_some_and(|v| v == value));
    allowed
        && labelled
        && !place.except.contains(&node)
        && !vacancy.failed.contains(&node)
        && !one.witness
        && !one.draining
        && one.reachable
}

/// The lower, the better. Figures go in by coarse steps, so that the order doesn't change with
/// every breath of a node.
fn steadiness(
    vacancy: &Vacancy<'_>,
    one: &Candidate,
    newest: Option<CheckpointId>,
) -> impl Ord + use<> {
    let image = match (one.ready, newest) {
        (Some(ready), Some(newest)) if newest.seq <= ready.seq.saturating_add(READY_SLACK) => 0,
        (Some(_), _) => 1,
        (None, _) => 2,
    };
    let node = one.member.node;
    (
        (one.memory_free < vacancy.needs, image, !one.current, !one.prepared),
        Reverse(uptime_step(one.uptime)),
        Reverse(one.cpu_free.min(1000) / 250),
        Reverse(one.memory_free.0.checked_ilog2()),
        one.distance.checked_ilog2(),
        (lot(vacancy, node, false), one.member),
    )
}

/// Steps of a minute, ten minutes, an hour and a day.
fn uptime_step(uptime: Span) -> usize {
    [60, 600, 3_600, 86_400].iter().filter(|secs| uptime >= Span::secs(**secs)).count()
}

/// A lot that everybody draws alike: for this epoch, or for all epochs of the service.
fn lot(vacancy: &Vacancy<'_>, node: NodeId, with_epoch: bool) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"jizoku succession");
    hasher.update(&vacancy.service.0.to_le_bytes());
    if with_epoch {
        hasher.update(&vacancy.epoch.branch.0);
        hasher.update(&vacancy.epoch.counter.to_le_bytes());
    }
    hasher.update(&node.0);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    first
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The service has no active node that works, and this node is a candidate. Repeat it when
    /// the facts changed: the time already waited counts.
    Vacant {
        /// Which service.
        service: ServiceId,
        /// The epoch that ends.
        expect: Epoch,
        /// This node's place in the order, from 0.
        place: usize,
    },
    /// It is not vacant (any more), or this node is no candidate.
    Settled {
        /// Which service.
        service: ServiceId,
    },
    /// A deadline passed.
    Tick,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Propose to take this service over.
    Propose {
        /// Which.
        service: ServiceId,
        /// The epoch to expect.
        expect: Epoch,
    },
}

#[derive(Debug)]
struct Attempt {
    expect: Epoch,
    place: usize,
    /// When it was first found vacant, in this epoch.
    since: Instant,
    proposed: Option<Instant>,
}

impl Attempt {
    fn due(&self) -> Instant {
        let stagger = STAGGER * u64::try_from(self.place).unwrap_or(u64::MAX);
        match self.proposed {
            None => self.since + stagger,
            Some(last) => last + RETRY + stagger,
        }
    }
}

/// The attempts of one node to take services over.
#[derive(Debug, Default)]
pub struct Attempts {
    attempts: BTreeMap<ServiceId, Attempt>,
    output: VecDeque<Output>,
}

impl Attempts {
    /// No attempts.
    pub fn new() -> Attempts {
        Attempts::default()
    }

    /// Takes one input; then drain [`Attempts::poll`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Vacant { service, expect, place } => self.vacant(now, service, expect, place),
            Input::Settled { service } => {
                self.attempts.remove(&service);
            }
            Input::Tick => {}
        }
        for (service, attempt) in &mut self.attempts {
            if attempt.due() <= now {
                attempt.proposed = Some(now);
                let (service, expect) = (*service, attempt.expect);
                self.output.push_back(Output::Propose { service, expect });
            }
        }
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        self.attempts.values().map(Attempt::due).min()
    }

    fn vacant(&mut self, now: Instant, service: ServiceId, expect: Epoch, place: usize) {
        let full = self.attempts.len() >= SERVICES_MAX;
        match self.attempts.get_mut(&service) {
            Some(attempt) if attempt.expect == expect => attempt.place = place,
            None if full => {}
            _ => {
                let attempt = Attempt { expect, place, since: now, proposed: None };
                self.attempts.insert(service, attempt);
            }
        }
    }
}
