//! Leases: who may emit `free` output, and until when, without comparing two clocks.
//!
//! An [`Owner`] asks all voters each quarter of a span D, with one message for all its services.
//! A [`Voter`] that grants promises to grant nobody else for D from receipt; the owner may emit
//! until 0.9 D from *sending* the newest round that a majority granted. See protocols.md,
//! "Leases".
//!
//! What it does not know: the log, wall clocks, which node should own what.
//!
//! Invariants
//! - A voter has at most one running promise for a service (and branch).
//! - An owner counts from the moment it sent the round, never from an answer's receipt.
//! - A voter that restarted grants nothing for [`LEASE_MAX`]: whatever it had promised has lapsed.
//! - A request under a newer epoch bars the older at once; it is granted when the promise lapses.
//! - The share of D that owners don't use covers clocks that run up to 5 % fast or slow.
//!
//! What the composer owes
//! - Electorates numbered in the order of the log. To the voter the newest number as soon as the
//!   log *has* it; to the owner the electorate once it is committed, since what is only logged may
//!   never be. Consecutive electorates share a member of every two majorities (one voter added or
//!   removed at a time), and from one's commit to the next's proposal [`LEASE_MAX`] passes.
//! - Every `Owner` value has an incarnation of its own.
//! - A clock that goes on while the machine sleeps.
//!
//! Units: instants are of this node's own clock. Limits: [`ENTRIES_MAX`], [`ROUNDS_MAX`].

use alloc::collections::{BTreeMap, BTreeSet};

use jizoku_types::limits::{LEASE_MAX, SERVICES_MAX};
use jizoku_types::{Epoch, Member, NodeId, ServiceId, Span};
use serde::{Deserialize, Serialize};

mod owner;
mod voter;

#[cfg(test)]
mod tests;

pub use owner::{Owner, OwnerInput, OwnerOutput};
pub use voter::{Voter, VoterInput, VoterOutput};

/// Services and branches that a voter remembers. At the limit those whose promise has lapsed are
/// forgotten; if none has, what is new is refused.
pub const ENTRIES_MAX: usize = 2 * SERVICES_MAX;
/// Rounds whose answers an owner still counts; older ones are too old to be worth anything.
pub const ROUNDS_MAX: usize = 64;
/// An owner asks at most this often, however short the waits are that it is told of.
pub const ASK_GAP_MIN: Span = Span::millis(10);

/// Who votes, and which of all electorates this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Electorate {
    /// Grows with each change, in the order of the log.
    pub number: u64,
    /// The voters.
    pub voters: BTreeSet<NodeId>,
}

impl Electorate {
    /// How many voters are a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

/// What owners and voters say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Owner to voter: may I?
    Ask {
        /// Who asks.
        asker: Member,
        /// Under which electorate.
        electorate: u64,
        /// Grows with each question of this asker.
        round: u64,
        /// For how long, from receipt. More than [`LEASE_MAX`] is not granted.
        span: Span,
        /// For what.
        services: BTreeMap<ServiceId, Epoch>,
    },
    /// Voter to owner.
    Answer {
        /// Who asked.
        asker: Member,
        /// In which round.
        round: u64,
        /// What is granted.
        granted: BTreeMap<ServiceId, Epoch>,
        /// For what was not granted because a newer epoch is known: which.
        newer: BTreeMap<ServiceId, Epoch>,
        /// If something else stands in the way only for a time: how long the longest of it will.
        wait: Option<Span>,
    },
    /// Owner to voter: I shall emit no more; others may have it.
    Release {
        /// Who owned.
        asker: Member,
        /// The newest round that the release covers.
        round: u64,
        /// What.
        services: BTreeMap<ServiceId, Epoch>,
    },
}

/// One-line bugs that tests switch on to prove that they would be seen. Without the feature
/// `faults` nothing can switch them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The owner counts from the receipt of an answer, so a pause in between is ignored.
    CountFromReceipt,
    /// A voter that restarted grants at once.
    ForgetAtRestart,
    /// A voter goes on renewing an older epoch after it has heard of a newer one.
    RenewAfterNewer,
}

const _: () = assert!(LEASE_MAX.as_nanos() > ASK_GAP_MIN.as_nanos() * 4, "rounds must fit");
