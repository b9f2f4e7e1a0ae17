//! Watch: whether a service really serves, at a cost to it that doesn't grow with the watchers.
//!
//! At most [`PROBERS`] of the active node's neighbours probe it over the network; the active node
//! itself does the checks that only it can do. Everyone else asks neighbours, but never the
//! active node, and keeps the answers for [`TTL`]. Gateways add what they see in real traffic.
//! The verdict is made of all observations that are fresh.
//!
//! What it does not know: sockets, processes, HTTP; what follows from a verdict.
//!
//! Invariants
//! - Every node that has the same links chooses the same probers.
//! - A node whose own timers run late judges nobody, and tells nobody what it saw meanwhile.
//! - An observation grows older on every way that it takes; passing it on never makes it young.
//! - A new epoch starts without a verdict.
//!
//! Limits: `SERVICES_MAX` services (more are not watched), [`OBSERVERS_MAX`] observations for
//! each (the oldest goes), [`DETAIL_MAX`] bytes of text in each (cut).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::spec::CheckSpec;
use jizoku_types::{Epoch, Instant, NodeId, ServiceId, Span};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Neighbours of the active node that probe it.
pub const PROBERS: usize = 3;
/// How long an observation counts, and how often whoever is interested asks for newer ones.
pub const TTL: Span = Span::secs(3);
/// How long a node stays interested in a service that somebody asked it about.
pub const INTEREST: Span = Span::secs(10);
/// For so long after a new epoch, failures don't count before the first success.
pub const GRACE: Span = Span::secs(5);
/// Most observations of one service.
pub const OBSERVERS_MAX: usize = 16;
/// Longest text with an observation, in bytes.
pub const DETAIL_MAX: usize = 120;
/// Probes are not made more often than this, whatever a check says.
pub const EVERY_MIN: Span = Span::millis(50);

/// What one node saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Whether it served.
    pub serving: bool,
    /// Whether it was seen by the active node itself, of its own instance.
    pub inside: bool,
    /// Grows with each observation of one observer.
    pub number: u64,
    /// How long ago it was seen, when this was sent.
    pub age: Span,
    /// What was seen, for people.
    pub detail: String,
}

/// What is to be thought of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody fresh has said anything.
    #[default]
    Unknown,
    /// It serves.
    Serving,
    /// It doesn't.
    Failing {
        /// What was seen, for people.
        detail: String,
    },
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// What do you know of these?
    Ask {
        /// Which services, in which epochs.
        services: BTreeMap<ServiceId, Epoch>,
    },
    /// This.
    Answer {
        /// By service: the epoch, and by observer what was seen.
        services: BTreeMap<ServiceId, (Epoch, BTreeMap<NodeId, Observation>)>,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A service is there, or changed: its checks, its epoch, who is active, whether it shall run.
    Service {
        /// Which.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Who is active; none: nothing to watch.
        active: Option<NodeId>,
        /// Its checks; none: `Alive` is assumed.
        checks: Vec<CheckSpec>,
    },
    /// A service is gone, or shall not run.
    Gone {
        /// Which.
        service: ServiceId,
    },
    /// The links that count between all nodes.
    Links(BTreeMap<NodeId, BTreeSet<NodeId>>),
    /// This node wants a verdict on a service for the next [`INTEREST`].
    Want {
        /// Which.
        service: ServiceId,
    },
    /// A probe has ended.
    Probed {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Which of its checks.
        check: u8,
        /// What came of it; an error says why, for people.
        result: Result<(), String>,
    },
    /// What this node's gateway saw since the last time.
    Traffic {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Answers that came.
        answers: u32,
        /// Refused or reset connections.
        errors: u32,
        /// Requests without an answer in time.
        timeouts: u32,
    },
    /// Another node's word.
    Message {
        /// From whom.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Whether this node's own timers run late (it was paused or starved).
    SelfLate(bool),
    /// A deadline passed.
    Tick,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Do this check now, and say what came of it.
    Probe {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Which of its checks.
        check: u8,
    },
    /// Send to a node.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// The verdict on a service is another than before.
    VerdictChanged {
        /// Which.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// What is thought of it now.
        verdict: Verdict,
    },
}

/// The watch of one node.
#[derive(Debug)]
pub struct Watch {
    me: NodeId,
    output: VecDeque<Output>,
}

impl Watch {
    /// The watch of this node.
    pub fn new(me: NodeId) -> Watch {
        Watch { me, output: VecDeque::new() }
    }

    /// Takes one input; then drain [`Watch::poll`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        let _ = (now, input, self.me);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What is thought of a service.
    pub fn verdict(&self, service: ServiceId) -> Verdict {
        let _ = service;
        Verdict::Unknown
    }
}
