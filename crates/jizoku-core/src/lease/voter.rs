//! The side that promises.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use jizoku_types::limits::LEASE_MAX;
use jizoku_types::{BranchId, Epoch, Instant, Member, NodeId, ServiceId, Span};

use super::{ENTRIES_MAX, Fault, Message};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterInput {
    /// The number of the newest electorate in this node's log.
    Electorate {
        /// Which.
        number: u64,
    },
    /// The catalog says that the service is in this epoch.
    Known {
        /// Which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The service was removed.
    Gone {
        /// Which.
        service: ServiceId,
    },
    /// An owner's word.
    Message {
        /// From whom.
        from: NodeId,
        /// What.
        message: Message,
    },
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterOutput {
    /// Send to an owner, which may be this node itself.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
}

/// One question of one owner.
#[derive(Clone, Copy)]
struct Question {
    asker: Member,
    round: u64,
    span: Span,
}

/// That nobody but `owner` is granted anything before `until`.
#[derive(Debug)]
struct Promise {
    owner: Member,
    /// The newest round that it covers.
    round: u64,
    until: Instant,
}

/// What is known of one service in one branch.
#[derive(Debug, Default)]
struct Entry {
    /// Counter of the newest epoch that was heard of.
    newest: u64,
    /// Who asked under it.
    asker: Option<Member>,
    promise: Option<Promise>,
    /// Rounds up to this one of this owner are void: it has released since.
    released: Option<(Member, u64)>,
}

enum Answer {
    Granted,
    Newer(u64),
    Wait(Span),
    No,
}

/// The promises of one node. Every node keeps one: owners decide whose promises count.
#[derive(Debug)]
pub struct Voter {
    /// Nothing is granted before: promises from before the restart may still run.
    silent_until: Instant,
    electorate: u64,
    entries: BTreeMap<(ServiceId, BranchId), Entry>,
    output: VecDeque<VoterOutput>,
    #[cfg_attr(not(feature = "faults"), allow(dead_code))]
    faults: BTreeSet<Fault>,
}

impl Voter {
    /// A voter whose agent started at `now`, with nothing remembered.
    pub fn new(now: Instant) -> Voter {
        Voter {
            silent_until: now + LEASE_MAX,
            electorate: 0,
            entries: BTreeMap::new(),
            output: VecDeque::new(),
            faults: BTreeSet::new(),
        }
    }

    /// Takes one input; then drain [`Voter::poll`].
    pub fn handle(&mut self, now: Instant, input: VoterInput) {
        match input {
            VoterInput::Electorate { number } => self.electorate = number,
            VoterInput::Known { service, epoch } => {
                if let Some(entry) = self.entry(now, service, epoch) {
                    entry.hear(epoch.counter, None);
                }
            }
            VoterInput::Gone { service } => self.entries.retain(|(id, _), _| *id != service),
            VoterInput::Message { from, message } => match message {
                Message::Ask { asker, electorate, round, span, services } if asker.node == from => {
                    let known = electorate >= self.electorate && span <= LEASE_MAX;
                    let services = if known { services } else { BTreeMap::new() };
                    self.answer(now, Question { asker, round, span }, services);
                }
                Message::Release { asker, round, services } if asker.node == from => {
                    for (service, epoch) in services {
                        self.release(now, asker, round, (service, epoch));
                    }
                }
                _ => {}
            },
        }
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<VoterOutput> {
        self.output.pop_front()
    }

    /// A voter acts only when it is asked: never.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Switches a planted fault on.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: Fault) {
        self.faults.insert(fault);
    }

    fn has(&self, fault: Fault) -> bool {
        cfg!(feature = "faults") && self.faults.contains(&fault)
    }

    fn answer(&mut self, now: Instant, question: Question, services: BTreeMap<ServiceId, Epoch>) {
        let Question { asker, round, .. } = question;
        let (mut granted, mut newer) = (BTreeMap::new(), BTreeMap::new());
        let mut wait: Option<Span> = None;
        for (service, epoch) in services {
            match self.decide(now, question, service, epoch) {
                Answer::Granted => {
                    granted.insert(service, epoch);
                }
                Answer::Newer(counter) => {
                    newer.insert(service, Epoch { branch: epoch.branch, counter });
                }
                Answer::Wait(span) => wait = wait.max(Some(span)),
                Answer::No => {}
            }
        }
        let message = Message::Answer { asker, round, granted, newer, wait };
        self.output.push_back(VoterOutput::Send { to: asker.node, message });
    }

    fn decide(
        &mut self,
        now: Instant,
        question: Question,
        service: ServiceId,
        epoch: Epoch,
    ) -> Answer {
        let Question { asker, round, span } = question;
        let renew_any = self.has(Fault::RenewAfterNewer);
        let silent = if self.has(Fault::ForgetAtRestart) { now } else { self.silent_until };
        let Some(entry) = self.entry(now, service, epoch) else { return Answer::No };
        entry.hear(epoch.counter, Some(asker));
        let owns = entry.promise.as_ref().is_some_and(|promise| promise.owner == asker);
        if epoch.counter < entry.newest && !(renew_any && owns) {
            return Answer::Newer(entry.newest);
        }
        if epoch.counter == entry.newest && entry.asker != Some(asker) {
            return Answer::No;
        }
        if now < silent {
            return Answer::Wait(silent.since(now));
        }
        let until = now + span;
        match &mut entry.promise {
            Some(promise) if promise.owner == asker => {
                promise.round = promise.round.max(round);
                promise.until = promise.until.max(until);
                return Answer::Granted;
            }
            Some(promise) if promise.until > now => return Answer::Wait(promise.until.since(now)),
            _ => {}
        }
        if entry.released.is_some_and(|(by, last)| by == asker && round <= last) {
            return Answer::No;
        }
        entry.promise = Some(Promise { owner: asker, round, until });
        Answer::Granted
    }

    fn release(&mut self, now: Instant, asker: Member, round: u64, what: (ServiceId, Epoch)) {
        let Some(entry) = self.entry(now, what.0, what.1) else { return };
        // It may have been overtaken by a younger question of the same owner.
        let covered = |promise: &Promise| promise.owner == asker && promise.round <= round;
        if entry.promise.as_ref().is_some_and(covered) {
            entry.promise = None;
        }
        if entry.released.is_none_or(|(by, last)| by != asker || last < round) {
            entry.released = Some((asker, round));
        }
    }

    /// The entry of a service and branch; none at the limit, when all promises still run.
    fn entry(&mut self, now: Instant, service: ServiceId, epoch: Epoch) -> Option<&mut Entry> {
        let key = (service, epoch.branch);
        if !self.entries.contains_key(&key) && self.entries.len() >= ENTRIES_MAX {
            // Forgetting an epoch costs an old owner's question at most: promises exclude.
            let lapsed = |entry: &Entry| entry.promise.as_ref().is_none_or(|p| p.until <= now);
            let free = self.entries.iter().find(|(_, entry)| lapsed(entry)).map(|(key, _)| *key);
            self.entries.remove(&free?);
        }
        Some(self.entries.entry(key).or_default())
    }
}

impl Entry {
    /// A newer epoch bars the older ones at once. The first who asks under it is its owner.
    fn hear(&mut self, counter: u64, asker: Option<Member>) {
        if counter > self.newest {
            (self.newest, self.asker) = (counter, asker);
        } else if counter == self.newest && self.asker.is_none() {
            self.asker = asker;
        }
    }
}
