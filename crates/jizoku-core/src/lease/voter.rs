//! The side that promises.

use alloc::collections::VecDeque;

use jizoku_types::{Epoch, Instant, NodeId, ServiceId};

use super::Message;

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

/// The promises of one node. Every node keeps one: owners decide whose promises count.
#[derive(Debug)]
pub struct Voter {
    output: VecDeque<VoterOutput>,
}

impl Voter {
    /// A voter whose agent started at `now`, with nothing remembered.
    pub fn new(now: Instant) -> Voter {
        let _ = now;
        Voter { output: VecDeque::new() }
    }

    /// Takes one input; then drain [`Voter::poll`].
    pub fn handle(&mut self, now: Instant, input: VoterInput) {
        let _ = (now, input);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<VoterOutput> {
        self.output.pop_front()
    }

    /// A voter acts only when it is asked: never.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
}
