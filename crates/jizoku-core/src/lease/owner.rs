//! The side that asks, and may emit while a majority has promised.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use jizoku_types::limits::{LEASE_MAX, LEASE_OWN_PERMILLE};
use jizoku_types::{Epoch, Instant, Member, NodeId, ServiceId, Span};

use super::{ASK_GAP_MIN, Electorate, Fault, Message, ROUNDS_MAX};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerInput {
    /// Who votes from now on.
    Electorate(Electorate),
    /// This node is active for the service in this epoch and wants the lease. Repeating it does
    /// nothing; another epoch starts anew.
    Want {
        /// Which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// This node emits no more for the service; from this call on [`Owner::holds`] says no.
    Release {
        /// Which service.
        service: ServiceId,
    },
    /// A voter's word.
    Message {
        /// From whom.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A deadline passed.
    Tick,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerOutput {
    /// Send to a voter, which may be this node itself.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// The lease runs until then (it is longer than before).
    Until {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Until when, on this node's clock. At that instant it has lapsed.
        until: Instant,
    },
    /// The lease lapsed without being renewed. The owner goes on asking.
    Lapsed {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A newer epoch exists: this node was replaced and will not be granted anything more. From
    /// now on [`Owner::holds`] says no.
    Superseded {
        /// Of which service.
        service: ServiceId,
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The newer one.
        by: Epoch,
    },
}

#[derive(Debug)]
struct Lease {
    epoch: Epoch,
    /// When it lapses, or lapsed; none: not granted (any more).
    until: Option<Instant>,
    /// Whether the lapse is still to be told.
    running: bool,
    superseded: bool,
}

impl Lease {
    fn runs_at(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// A question that was put to all voters.
#[derive(Debug)]
struct Round {
    number: u64,
    sent: Instant,
    granted: BTreeMap<ServiceId, (Epoch, BTreeSet<NodeId>)>,
}

/// The leases of one node.
#[derive(Debug)]
pub struct Owner {
    me: Member,
    span: Span,
    electorate: Electorate,
    leases: BTreeMap<ServiceId, Lease>,
    /// Oldest first.
    rounds: VecDeque<Round>,
    last_round: u64,
    last_asked: Option<Instant>,
    /// When to ask for everything.
    renew_at: Instant,
    /// When to ask for what is not held, if earlier.
    retry_at: Option<Instant>,
    output: VecDeque<OwnerOutput>,
    #[cfg_attr(not(feature = "faults"), allow(dead_code))]
    faults: BTreeSet<Fault>,
}

impl Owner {
    /// The owner on this node in this incarnation, with leases of `span`.
    ///
    /// # Panics
    /// If `span` is shorter than four times [`ASK_GAP_MIN`] or longer than `LEASE_MAX`: a
    /// programmer's error.
    pub fn new(me: Member, span: Span) -> Owner {
        assert!(span >= ASK_GAP_MIN * 4 && span <= LEASE_MAX, "a lease of {span} is not possible");
        Owner {
            me,
            span,
            electorate: Electorate::default(),
            leases: BTreeMap::new(),
            rounds: VecDeque::new(),
            last_round: 0,
            last_asked: None,
            renew_at: Instant::ORIGIN,
            retry_at: None,
            output: VecDeque::new(),
            faults: BTreeSet::new(),
        }
    }

    /// Takes one input; then drain [`Owner::poll`].
    pub fn handle(&mut self, now: Instant, input: OwnerInput) {
        match input {
            OwnerInput::Electorate(electorate) => self.set_electorate(now, electorate),
            OwnerInput::Want { service, epoch } => self.want(now, service, epoch),
            OwnerInput::Release { service } => self.release(service),
            OwnerInput::Message { from, message } => self.hear(now, from, message),
            OwnerInput::Tick => {}
        }
        self.tell_lapses(now);
        self.ask_if_due(now);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<OwnerOutput> {
        self.output.pop_front()
    }

    /// When to call with [`OwnerInput::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        let lapses = self.leases.values().filter(|lease| lease.running).filter_map(|l| l.until);
        let asks = self.wants_any().then(|| self.next_ask());
        lapses.chain(asks).min()
    }

    /// Whether output of this service in this epoch may leave at `now`. Ask right before each
    /// release.
    pub fn holds(&self, now: Instant, service: ServiceId, epoch: Epoch) -> bool {
        let lease = self.leases.get(&service);
        lease.is_some_and(|lease| lease.epoch == epoch && lease.runs_at(now))
    }

    /// Until when the lease of a service runs; that may be in the past.
    pub fn until(&self, service: ServiceId) -> Option<Instant> {
        self.leases.get(&service)?.until
    }

    /// Switches a planted fault on.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: Fault) {
        self.faults.insert(fault);
    }

    fn has(&self, fault: Fault) -> bool {
        cfg!(feature = "faults") && self.faults.contains(&fault)
    }

    fn set_electorate(&mut self, now: Instant, electorate: Electorate) {
        if electorate == self.electorate {
            return;
        }
        // Promises that were counted stay counted; open rounds were put to other voters.
        self.rounds.clear();
        self.electorate = electorate;
        self.renew_at = now;
    }

    fn want(&mut self, now: Instant, service: ServiceId, epoch: Epoch) {
        if self.leases.get(&service).is_some_and(|lease| lease.epoch == epoch) {
            return;
        }
        let lease = Lease { epoch, until: None, running: false, superseded: false };
        self.leases.insert(service, lease);
        self.retry_at = Some(now);
    }

    fn release(&mut self, service: ServiceId) {
        let Some(lease) = self.leases.remove(&service) else { return };
        for round in &mut self.rounds {
            round.granted.remove(&service);
        }
        let services = BTreeMap::from([(service, lease.epoch)]);
        let message = Message::Release { asker: self.me, round: self.last_round, services };
        self.send_to_all(&message);
    }

    fn send_to_all(&mut self, message: &Message) {
        for to in &self.electorate.voters {
            self.output.push_back(OwnerOutput::Send { to: *to, message: message.clone() });
        }
    }

    fn hear(&mut self, now: Instant, from: NodeId, message: Message) {
        let Message::Answer { asker, round, granted, newer, wait } = message else { return };
        if asker != self.me || !self.electorate.voters.contains(&from) {
            return;
        }
        for (service, by) in newer {
            self.superseded(service, by);
        }
        for (service, epoch) in granted {
            self.count(now, from, round, (service, epoch));
        }
        if let Some(wait) = wait {
            let at = now + wait;
            self.retry_at = Some(self.retry_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    fn superseded(&mut self, service: ServiceId, by: Epoch) {
        let Some(lease) = self.leases.get_mut(&service) else { return };
        if lease.superseded || !by.supersedes(&lease.epoch) {
            return;
        }
        (lease.superseded, lease.until, lease.running) = (true, None, false);
        let epoch = lease.epoch;
        self.output.push_back(OwnerOutput::Superseded { service, epoch, by });
    }

    /// Counts a voter's promise; extends the lease once a majority has promised in one round.
    fn count(&mut self, now: Instant, from: NodeId, round: u64, what: (ServiceId, Epoch)) {
        let from_receipt = self.has(Fault::CountFromReceipt);
        let (service, epoch) = what;
        let majority = self.electorate.majority();
        let Some(round) = self.rounds.iter_mut().find(|known| known.number == round) else {
            return;
        };
        let Some((asked, voters)) = round.granted.get_mut(&service) else { return };
        if *asked != epoch {
            return;
        }
        voters.insert(from);
        let Some(lease) = self.leases.get_mut(&service) else { return };
        if voters.len() < majority || lease.epoch != epoch || lease.superseded {
            return;
        }
        let start = if from_receipt { now } else { round.sent };
        let until = start + self.span.permille(LEASE_OWN_PERMILLE);
        if until > now && lease.until.is_none_or(|before| until > before) {
            (lease.until, lease.running) = (Some(until), true);
            self.output.push_back(OwnerOutput::Until { service, epoch, until });
        }
    }

    fn tell_lapses(&mut self, now: Instant) {
        for (service, lease) in &mut self.leases {
            if lease.running && !lease.runs_at(now) {
                lease.running = false;
                let (service, epoch) = (*service, lease.epoch);
                self.output.push_back(OwnerOutput::Lapsed { service, epoch });
            }
        }
    }

    fn wants_any(&self) -> bool {
        !self.electorate.voters.is_empty() && self.leases.values().any(|lease| !lease.superseded)
    }

    fn next_ask(&self) -> Instant {
        let wish = self.retry_at.map_or(self.renew_at, |retry| retry.min(self.renew_at));
        self.last_asked.map_or(wish, |last| wish.max(last + ASK_GAP_MIN))
    }

    fn ask_if_due(&mut self, now: Instant) {
        if !self.wants_any() || now < self.next_ask() {
            return;
        }
        let everything = now >= self.renew_at;
        let services: BTreeMap<ServiceId, Epoch> = self
            .leases
            .iter()
            .filter(|(_, lease)| !lease.superseded && (everything || !lease.runs_at(now)))
            .map(|(service, lease)| (*service, lease.epoch))
            .collect();
        self.retry_at = None;
        if everything {
            self.renew_at = now + self.span / 4;
        }
        if services.is_empty() {
            return;
        }
        self.last_asked = Some(now);
        self.last_round += 1;
        let own = self.span.permille(LEASE_OWN_PERMILLE);
        self.rounds.retain(|round| now < round.sent + own);
        if self.rounds.len() >= ROUNDS_MAX {
            self.rounds.pop_front();
        }
        let granted = services.iter().map(|(id, epoch)| (*id, (*epoch, BTreeSet::new()))).collect();
        self.rounds.push_back(Round { number: self.last_round, sent: now, granted });
        let message = Message::Ask {
            asker: self.me,
            electorate: self.electorate.number,
            round: self.last_round,
            span: self.span,
            services,
        };
        self.send_to_all(&message);
    }
}
