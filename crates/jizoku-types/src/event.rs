//! The one list of things that happen: it feeds the log, the metrics, the console and the tests.
//!
//! What it does not know: who listens, how it is stored or printed.
//!
//! Invariant: an event says what has happened, in the past; it is never an order.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::epoch::{BranchId, CheckpointId, Epoch};
use crate::id::{Incarnation, NodeId, ServiceId, ServiceName};
use crate::size::ByteCount;
use crate::time::Span;

/// Something that happened on, or was learned by, the node that emits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// This agent started.
    AgentStarted {
        /// Its new incarnation.
        incarnation: Incarnation,
    },
    /// A direct link came up.
    LinkUp {
        /// To whom.
        peer: NodeId,
    },
    /// A direct link is gone.
    LinkDown {
        /// To whom.
        peer: NodeId,
        /// Why.
        cause: LinkDownCause,
    },
    /// A node can be reached, directly or through others.
    NodeReachable {
        /// Which.
        node: NodeId,
    },
    /// A node can't be reached on any way.
    NodeUnreachable {
        /// Which.
        node: NodeId,
    },
    /// A node became a member.
    MemberAdded {
        /// Which.
        node: NodeId,
    },
    /// A node's key is refused from now on.
    MemberRemoved {
        /// Which.
        node: NodeId,
    },
    /// The catalog has a leader, or lost it.
    LeaderChanged {
        /// Who.
        leader: Option<NodeId>,
    },
    /// A manifest was applied.
    ServiceApplied {
        /// Its id.
        service: ServiceId,
        /// Its name.
        name: ServiceName,
    },
    /// A service was removed.
    ServiceRemoved {
        /// Its id.
        service: ServiceId,
    },
    /// This node decided that a service has to go on elsewhere.
    TakeoverProposed {
        /// Of what.
        service: ServiceId,
        /// From this epoch.
        from: Epoch,
    },
    /// A service has a new active node.
    ActiveChanged {
        /// Of what.
        service: ServiceId,
        /// Since which epoch.
        epoch: Epoch,
        /// Who.
        node: NodeId,
    },
    /// A holder refuses everything older than this epoch from now on.
    Sealed {
        /// Of what.
        service: ServiceId,
        /// By whom.
        epoch: Epoch,
        /// The highest checkpoint that it reported.
        highest: CheckpointId,
    },
    /// The state to go on from has been chosen and is all here.
    StateCollected {
        /// Of what.
        service: ServiceId,
        /// For which epoch.
        epoch: Epoch,
        /// Which state.
        checkpoint: CheckpointId,
        /// Bytes that had to be fetched from other nodes.
        fetched: ByteCount,
    },
    /// An instance runs from restored state.
    InstanceRestored {
        /// Of what.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// From which state.
        checkpoint: CheckpointId,
        /// How long restoring took.
        took: Span,
    },
    /// An instance started without state.
    InstanceStarted {
        /// Of what.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// An instance ended.
    InstanceExited {
        /// Of what.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Why, for people.
        reason: String,
    },
    /// This node's instance was stopped because another epoch began.
    InstanceFenced {
        /// Of what.
        service: ServiceId,
        /// The epoch that was fenced.
        epoch: Epoch,
    },
    /// The first bytes left after a takeover.
    FirstOutput {
        /// Of what.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The holder set changed.
    HoldersChanged {
        /// Of what.
        service: ServiceId,
        /// How many now.
        holders: u8,
    },
    /// Fewer holders than `min_copies`, or none wanted.
    Unprotected {
        /// Of what.
        service: ServiceId,
    },
    /// No current holder of the last set answers: not started from older state.
    Unreachable {
        /// Of what.
        service: ServiceId,
    },
    /// State that may be older than what was acknowledged was taken, by rule or by order.
    StateMayBeMissing {
        /// Of what.
        service: ServiceId,
        /// From which state it goes on.
        checkpoint: CheckpointId,
    },
    /// A copy on this node was damaged and is fetched again.
    CopyCorrupt {
        /// Of what.
        service: ServiceId,
        /// Where and what, for people.
        what: String,
    },
    /// The watch's verdict on a service changed.
    WatchChanged {
        /// Of what.
        service: ServiceId,
        /// Whether it serves.
        serving: bool,
        /// What was seen, for people.
        detail: String,
    },
    /// A side without a majority opened a branch.
    BranchOpened {
        /// Of what.
        service: ServiceId,
        /// Which.
        branch: BranchId,
    },
    /// A partition healed and one branch goes on.
    BranchResolved {
        /// Of what.
        service: ServiceId,
        /// The branch that stopped; its state is kept.
        kept: BranchId,
    },
    /// A connection was reset by a promise that could not be kept, and is counted.
    ConnectionReset {
        /// Of what.
        service: ServiceId,
        /// Why.
        cause: ResetCause,
    },
    /// Something went wrong that a person may have to mend.
    Trouble {
        /// What, where, and what to do.
        what: String,
    },
}

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkDownCause {
    /// The peer's system closed or reset it: its agent is probably gone.
    Reset,
    /// Nothing was heard for too long.
    Silence,
    /// This node closed it.
    Local,
}

/// Why a connection was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetCause {
    /// It had released output after the checkpoint that was restored.
    ReleasedTooMuch,
    /// Two crashes from one checkpoint: its input may be what kills the service.
    Poisonous,
    /// Its branch stopped.
    BranchStopped,
    /// The service is stopped or removed.
    ServiceStopped,
    /// The instance closed it by a reset.
    ByInstance,
    /// The state of this engine does not survive its node.
    Stateless,
}
