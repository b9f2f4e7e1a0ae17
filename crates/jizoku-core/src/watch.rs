//! Watch: whether a service really serves, at a cost to it that doesn't grow with the watchers.
//!
//! At most [`PROBERS`] of the active node's neighbours probe it over the network; the active node
//! itself does the checks that only it can do. The probers ask the active node and each other.
//! Everyone else asks neighbours that are nearer to a prober, but never the active node, and
//! keeps the answers. Gateways add what they see in real traffic. The verdict is made of all
//! observations that are fresh.
//!
//! What it does not know: sockets, processes, HTTP; what follows from a verdict.
//!
//! Invariants
//! - Every node that has the same links chooses the same probers.
//! - A node whose own timers run late judges nobody, and tells nobody what it saw meanwhile.
//! - An observation grows older on every way that it takes; passing it on never makes it young.
//! - A new epoch starts without a verdict.
//! - What the active node sees of its own instance decides alone if it is bad; of the others,
//!   more must see a failure than don't, since one bad link is not a failure.
//!
//! Limits: `SERVICES_MAX` services (more are not watched), [`OBSERVERS_MAX`] observations for
//! each (the oldest goes), [`DETAIL_MAX`] bytes of text in each (cut), [`WAITING_MAX`] nodes
//! that wait for an answer (more get none before they ask again).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::limits::SERVICES_MAX;
use jizoku_types::spec::CheckSpec;
use jizoku_types::{Epoch, Instant, NodeId, ServiceId, Span};
use serde::{Deserialize, Serialize};

mod roles;
mod service;

#[cfg(test)]
mod tests;

use roles::Role;
use service::Watched;

/// Neighbours of the active node that probe it.
pub const PROBERS: usize = 3;
/// How often whoever is interested asks for newer observations. One counts for so long after the
/// time that its check takes, and for so long again for each node that it came through.
pub const TTL: Span = Span::secs(3);
/// How long a node stays interested in a service that somebody asked it about.
pub const INTEREST: Span = Span::secs(10);
/// For so long after a new epoch, failures don't count before the first success.
pub const GRACE: Span = Span::secs(5);
/// Nodes that wait for the first observation of one service.
pub const WAITING_MAX: usize = 16;
/// How many periods of traffic with failures alone mean "does not serve".
pub const TRAFFIC_FAILURES: u8 = 3;
/// How many failures make a period of traffic a bad one, if nothing succeeds.
pub const TRAFFIC_BAD: u32 = 3;
/// How much longer than a check's time-out its result may take to get here.
pub const RESULT_LATE: Span = Span::secs(1);
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
    /// A service shall run, or changed.
    Service {
        /// Which.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Who is active; none: nothing to watch.
        active: Option<NodeId>,
        /// Its checks; none: `Alive` each second is assumed, as check 0.
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
    late: bool,
    links: BTreeMap<NodeId, BTreeSet<NodeId>>,
    services: BTreeMap<ServiceId, Watched>,
    output: VecDeque<Output>,
}

impl Watch {
    /// The watch of this node.
    pub fn new(me: NodeId) -> Watch {
        Watch {
            me,
            late: false,
            links: BTreeMap::new(),
            services: BTreeMap::new(),
            output: VecDeque::new(),
        }
    }

    /// Takes one input; then drain [`Watch::poll`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Service { service, epoch, active, checks } => {
                self.set_service(now, service, epoch, active, checks);
            }
            Input::Gone { service } => {
                self.services.remove(&service);
            }
            Input::Links(links) => {
                self.links = links;
                for (service, watched) in &mut self.services {
                    let role = Role::of(self.me, *service, watched.active, &self.links);
                    watched.set_role(now, role);
                }
            }
            Input::Want { service } => {
                if let Some(watched) = self.services.get_mut(&service) {
                    watched.want(now);
                }
            }
            Input::Probed { service, epoch, check, result } => {
                if let Some(watched) = self.watched(service, epoch) {
                    watched.probed(now, check, result);
                }
            }
            Input::Traffic { service, epoch, answers, errors, timeouts } => {
                if let Some(watched) = self.watched(service, epoch) {
                    watched.traffic(now, answers, errors, timeouts);
                }
            }
            Input::Message { from, message: Message::Ask { services } } => {
                self.asked(now, from, &services);
            }
            Input::Message { message: Message::Answer { services }, .. } => {
                self.answered(now, services);
            }
            Input::SelfLate(late) => self.self_late(now, late),
            Input::Tick => {}
        }
        if !self.late {
            self.run(now);
        }
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.late {
            return None;
        }
        self.services.values().filter_map(|watched| watched.next).min()
    }

    /// What is thought of a service.
    pub fn verdict(&self, service: ServiceId) -> Verdict {
        self.services.get(&service).map_or(Verdict::Unknown, |watched| watched.verdict.clone())
    }

    /// The observations behind the verdict, by observer, with their present age.
    pub fn observations(&self, now: Instant, service: ServiceId) -> BTreeMap<NodeId, Observation> {
        self.services.get(&service).map_or_else(BTreeMap::new, |watched| watched.tell(now))
    }

    /// The service, if this node may judge it in this epoch now.
    fn watched(&mut self, service: ServiceId, epoch: Epoch) -> Option<&mut Watched> {
        let watched = self.services.get_mut(&service)?;
        (!self.late && watched.epoch == epoch).then_some(watched)
    }

    fn set_service(
        &mut self,
        now: Instant,
        service: ServiceId,
        epoch: Epoch,
        active: Option<NodeId>,
        checks: Vec<CheckSpec>,
    ) {
        let old = self.services.get(&service);
        if old.is_some_and(|old| old.is_same(epoch, active, &checks)) {
            return;
        }
        if old.is_none() && self.services.len() >= SERVICES_MAX {
            return;
        }
        let mut new = Watched::new(now, self.me, epoch, active, checks);
        if let Some(old) = self.services.remove(&service) {
            new.wanted_until = old.wanted_until;
            // So that the change is told.
            new.verdict = old.verdict;
        }
        new.set_role(now, Role::of(self.me, service, active, &self.links));
        self.services.insert(service, new);
    }

    /// Another node asks: say what is known; what isn't, find out and say later.
    fn asked(&mut self, now: Instant, from: NodeId, services: &BTreeMap<ServiceId, Epoch>) {
        let mut known = BTreeMap::new();
        for (service, epoch) in services {
            let Some(watched) = self.services.get_mut(service) else { continue };
            if watched.epoch != *epoch {
                continue;
            }
            watched.want(now);
            let seen = watched.tell(now);
            if seen.is_empty() {
                watched.wait(from);
            } else {
                known.insert(*service, (*epoch, seen));
            }
        }
        self.answer(from, known);
    }

    fn answered(
        &mut self,
        now: Instant,
        services: BTreeMap<ServiceId, (Epoch, BTreeMap<NodeId, Observation>)>,
    ) {
        for (service, (epoch, seen)) in services {
            let Some(watched) = self.services.get_mut(&service) else { continue };
            if watched.epoch == epoch {
                watched.learn(now, seen);
            }
        }
    }

    fn answer(
        &mut self,
        to: NodeId,
        services: BTreeMap<ServiceId, (Epoch, BTreeMap<NodeId, Observation>)>,
    ) {
        if !services.is_empty() {
            self.output.push_back(Output::Send { to, message: Message::Answer { services } });
        }
    }

    fn self_late(&mut self, now: Instant, late: bool) {
        if late == self.late {
            return;
        }
        self.late = late;
        for watched in self.services.values_mut() {
            watched.forget_own(now);
        }
    }

    /// Does what is due: probes, questions, answers to who waits, verdicts.
    fn run(&mut self, now: Instant) {
        let mut asks: BTreeMap<NodeId, BTreeMap<ServiceId, Epoch>> = BTreeMap::new();
        let mut answers: BTreeMap<NodeId, BTreeMap<_, _>> = BTreeMap::new();
        for (service, watched) in &mut self.services {
            if !watched.is_due(now) {
                continue;
            }
            let (service, epoch) = (*service, watched.epoch);
            for check in watched.due_probes(now) {
                self.output.push_back(Output::Probe { service, epoch, check });
            }
            if watched.asks_now(now) {
                let helpers = watched.role.helpers(service, watched.active, &self.links);
                for helper in helpers {
                    asks.entry(helper).or_default().insert(service, epoch);
                }
            }
            for waiting in watched.served_now(now) {
                let seen = (epoch, watched.tell(now));
                answers.entry(waiting).or_default().insert(service, seen);
            }
            if let Some(verdict) = watched.judge(now) {
                self.output.push_back(Output::VerdictChanged { service, epoch, verdict });
            }
            watched.set_next(now);
        }
        for (to, services) in asks {
            self.output.push_back(Output::Send { to, message: Message::Ask { services } });
        }
        for (to, services) in answers {
            self.answer(to, services);
        }
    }
}
