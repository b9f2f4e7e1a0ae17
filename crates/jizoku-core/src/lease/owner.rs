//! The side that asks, and may emit while a majority has promised.

use alloc::collections::{BTreeMap, VecDeque};

use jizoku_types::{Epoch, Instant, Member, NodeId, ServiceId, Span};

use super::{Electorate, Message};

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
    /// A newer epoch exists: this node was replaced and will not be granted anything more.
    Superseded {
        /// Of which service.
        service: ServiceId,
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The newer one.
        by: Epoch,
    },
}

/// The leases of one node.
#[derive(Debug)]
pub struct Owner {
    me: Member,
    span: Span,
    output: VecDeque<OwnerOutput>,
    leases: BTreeMap<ServiceId, Epoch>,
}

impl Owner {
    /// The owner on this node in this incarnation, with leases of `span`.
    ///
    /// # Panics
    /// If `span` is zero or more than `LEASE_MAX`: a programmer's error.
    pub fn new(me: Member, span: Span) -> Owner {
        Owner { me, span, output: VecDeque::new(), leases: BTreeMap::new() }
    }

    /// Takes one input; then drain [`Owner::poll`].
    pub fn handle(&mut self, now: Instant, input: OwnerInput) {
        let _ = (now, input, self.me, self.span);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<OwnerOutput> {
        self.output.pop_front()
    }

    /// When to call with [`OwnerInput::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Whether output of this service in this epoch may leave at `now`. Ask right before each
    /// release.
    pub fn holds(&self, now: Instant, service: ServiceId, epoch: Epoch) -> bool {
        let _ = (now, epoch);
        self.leases.contains_key(&service)
    }

    /// Until when the lease of a service runs; it may have lapsed.
    pub fn until(&self, service: ServiceId) -> Option<Instant> {
        self.leases.get(&service).map(|_| Instant::ORIGIN)
    }
}
