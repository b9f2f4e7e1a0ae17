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

use jizoku_types::spec::ServiceSpec;
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
    let _ = (vacancy, candidates);
    Vec::new()
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

/// The attempts of one node to take services over.
#[derive(Debug, Default)]
pub struct Attempts {
    output: VecDeque<Output>,
}

impl Attempts {
    /// No attempts.
    pub fn new() -> Attempts {
        Attempts::default()
    }

    /// Takes one input; then drain [`Attempts::poll`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        let _ = (now, input);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
}
