//! What came of a command, for the proposer (why not) and for every node (what changed).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::{
    BranchId, ClusterId, Epoch, Generation, Incarnation, Member, NodeId, ServiceId, ServiceName,
    Span,
};
use serde::{Deserialize, Serialize};

use super::record::{TicketHash, Wanted};

/// What came of a command. `Conflict` and `Rejected` changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done {
        /// What is different now; empty if it was so already.
        changes: Vec<Change>,
    },
    /// The proposer's knowledge was old. It may look again and propose anew.
    Conflict {
        /// What was not as expected.
        why: Conflict,
    },
    /// It can't be done, whoever proposes it, until something else changes.
    Rejected {
        /// Why.
        why: Rejection,
    },
}

impl Outcome {
    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        matches!(self, Outcome::Done { .. })
    }

    /// What changed; nothing unless it was done.
    pub fn changes(&self) -> &[Change] {
        match self {
            Outcome::Done { changes } => changes,
            _ => &[],
        }
    }
}

/// One thing that is different now. The new state is in the catalog; this says where to look, and
/// what the catalog no longer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The cluster exists.
    Initialised {
        /// Its id.
        cluster: ClusterId,
        /// Its generation.
        generation: Generation,
    },
    /// A node became a member.
    MemberAdded {
        /// Which.
        node: NodeId,
    },
    /// A member's properties or incarnation changed.
    MemberUpdated {
        /// Which.
        node: NodeId,
        /// Whether its incarnation is new: what it held in memory is gone.
        restarted: bool,
    },
    /// A node is no member any more.
    MemberRemoved {
        /// Which.
        node: NodeId,
        /// Whether its key is refused from now on.
        refused: bool,
    },
    /// A member shall become empty, or may be used again.
    DrainingChanged {
        /// Which.
        node: NodeId,
        /// Whether.
        draining: bool,
    },
    /// A ticket exists: its life counts from now.
    TicketIssued {
        /// Which.
        ticket: TicketHash,
        /// How long it lives.
        ttl: Span,
    },
    /// A ticket was used.
    TicketUsed {
        /// Which.
        ticket: TicketHash,
        /// By whom.
        node: NodeId,
    },
    /// A ticket is forgotten.
    TicketExpired {
        /// Which.
        ticket: TicketHash,
    },
    /// A service exists.
    ServiceAdded {
        /// Which.
        service: ServiceId,
    },
    /// A service's spec changed.
    ServiceUpdated {
        /// Which.
        service: ServiceId,
        /// Whether the instance must be started anew for it to take effect.
        restart: bool,
    },
    /// A service is gone.
    ServiceRemoved {
        /// Which.
        service: ServiceId,
        /// Its name.
        name: ServiceName,
        /// Who was active.
        active: Option<Member>,
    },
    /// A service was started or stopped.
    WantedChanged {
        /// Which.
        service: ServiceId,
        /// What is wanted now.
        wanted: Wanted,
    },
    /// A new epoch began.
    ActiveChanged {
        /// Of which service.
        service: ServiceId,
        /// Which.
        epoch: Epoch,
        /// Who was active before.
        from: Option<Member>,
        /// Who is now.
        to: Option<Member>,
    },
    /// The holder set, or who is joining it, changed.
    HoldersChanged {
        /// Of which service.
        service: ServiceId,
        /// The set's version now.
        version: u64,
    },
    /// An operator allowed to go on without a current holder.
    LossAccepted {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A branch's state is listed.
    BranchKept {
        /// Of which service.
        service: ServiceId,
        /// Which branch.
        branch: BranchId,
    },
    /// A branch's state may be deleted, or is gone with the last node that kept it.
    BranchDropped {
        /// Of which service.
        service: ServiceId,
        /// Which branch.
        branch: BranchId,
    },
    /// A branch became the main line.
    BranchResolved {
        /// Of which service.
        service: ServiceId,
        /// Which branch.
        branch: BranchId,
    },
    /// The cluster goes on without its old majority.
    Recovered {
        /// The new generation.
        generation: Generation,
        /// Its only voter at first.
        survivor: NodeId,
    },
    /// Newer forms may be emitted.
    FeatureLevelChanged {
        /// The level now.
        level: u16,
    },
}

/// What was not as the proposer expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// The cluster exists already.
    AlreadyInitialised {
        /// Its id.
        cluster: ClusterId,
    },
    /// The service is in another epoch.
    Epoch {
        /// Which.
        current: Epoch,
    },
    /// The service's spec has another version, or none of this name exists.
    SpecVersion {
        /// Which.
        current: Option<u64>,
    },
    /// The holder set has another version.
    HoldersVersion {
        /// Which.
        current: u64,
    },
    /// The node runs in another incarnation.
    Incarnation {
        /// Which node.
        node: NodeId,
        /// In which.
        current: Incarnation,
    },
    /// The ticket exists already.
    TicketExists,
    /// The ticket was used by another node.
    TicketUsed,
    /// The cluster is in a generation that is not older.
    Generation {
        /// Which.
        current: Generation,
    },
}

/// Why something can't be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// There is no cluster yet.
    NotInitialised,
    /// Meant for another cluster.
    OtherCluster {
        /// This one.
        own: ClusterId,
    },
    /// The cluster has as many nodes as it may have.
    NodesFull,
    /// The cluster has as many services as it may have.
    ServicesFull,
    /// As many tickets are out as may be.
    TicketsFull,
    /// As many branches of the service are kept as may be.
    BranchesFull,
    /// Not a member.
    NoSuchMember {
        /// Who.
        node: NodeId,
    },
    /// No such service.
    NoSuchService,
    /// No such ticket: expired, or never issued.
    NoSuchTicket,
    /// No such branch is listed.
    NoSuchBranch,
    /// The key was removed; a new one is needed.
    KeyRemoved,
    /// A member already.
    AlreadyMember,
    /// The last member can't go.
    LastMember,
    /// The node is the only holder of these services' states.
    LastHolder {
        /// Which services.
        services: Vec<ServiceId>,
    },
    /// The node is still active for, or holds, this service.
    StillNeeded {
        /// Which service.
        service: ServiceId,
    },
    /// What the node says of itself is not acceptable.
    BadMember {
        /// Which field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The spec is not acceptable.
    BadSpec {
        /// Which field, named as in the manifest.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// This field can't be changed for a service that exists.
    Unchangeable {
        /// Which field, named as in the manifest.
        field: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Another service publishes the port.
    PortTaken {
        /// Which port.
        port: u16,
        /// Which service.
        by: ServiceName,
    },
    /// A witness runs and holds nothing.
    Witness {
        /// Who.
        node: NodeId,
    },
    /// The node shall become empty.
    Draining {
        /// Who.
        node: NodeId,
    },
    /// The service's placement excludes the node.
    Placement {
        /// Who.
        node: NodeId,
    },
    /// Nobody is active, so nobody may speak of the holder set.
    NotActive,
    /// A node is listed twice.
    SameNodeTwice {
        /// Who.
        node: NodeId,
    },
    /// More holders than allowed.
    TooManyHolders,
    /// The set of a service with state would become empty.
    WouldLoseState,
    /// A branch can't have the main line's id.
    NotABranch,
    /// The level is lower than now, or a member does not understand it.
    FeatureLevel {
        /// The level now.
        current: u16,
        /// A member that understands less.
        node: Option<NodeId>,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::AlreadyInitialised { cluster } => write!(f, "{cluster} exists already"),
            Conflict::Epoch { current } => write!(f, "the service is in epoch {current} now"),
            Conflict::SpecVersion { current: Some(version) } => {
                write!(f, "the service exists with spec version {version}")
            }
            Conflict::SpecVersion { current: None } => f.write_str("the service does not exist"),
            Conflict::HoldersVersion { current } => {
                write!(f, "the holder set has version {current} now")
            }
            Conflict::Incarnation { node, current } => {
                write!(f, "{node:?} runs in incarnation {} now", current.0)
            }
            Conflict::TicketExists => f.write_str("the ticket exists already"),
            Conflict::TicketUsed => f.write_str("the ticket was used by another node"),
            Conflict::Generation { current } => {
                write!(f, "the cluster is in generation {} already", current.0)
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Rejection::OtherCluster { own } => return write!(f, "this is {own}"),
            Rejection::NoSuchMember { node } => return write!(f, "{node:?} is not a member"),
            Rejection::LastHolder { services } => {
                return write!(f, "the node is the only holder of the state of {services:?}");
            }
            Rejection::StillNeeded { service } => {
                return write!(f, "the node is still needed for {service}; drain it first");
            }
            Rejection::BadMember { field, problem }
            | Rejection::BadSpec { field, problem }
            | Rejection::Unchangeable { field, problem } => {
                return write!(f, "`{field}`: {problem}");
            }
            Rejection::PortTaken { port, by } => {
                return write!(f, "port {port} is published by the service {by}");
            }
            Rejection::Witness { node } => {
                return write!(f, "{node:?} is a witness: it runs and holds nothing");
            }
            Rejection::Draining { node } => return write!(f, "{node:?} is draining"),
            Rejection::Placement { node } => {
                return write!(f, "the service's placement excludes {node:?}");
            }
            Rejection::SameNodeTwice { node } => return write!(f, "{node:?} is listed twice"),
            Rejection::FeatureLevel { current, node: Some(node) } => {
                return write!(f, "{node:?} does not understand it; the level is {current}");
            }
            Rejection::FeatureLevel { current, node: None } => {
                return write!(f, "the level is {current} already, and never falls");
            }
            Rejection::NotInitialised => "there is no cluster yet",
            Rejection::NodesFull => "the cluster has as many nodes as it may have",
            Rejection::ServicesFull => "the cluster has as many services as it may have",
            Rejection::TicketsFull => "as many tickets are out as may be; let some expire",
            Rejection::BranchesFull => "as many branches are kept as may be; drop some",
            Rejection::NoSuchService => "no such service",
            Rejection::NoSuchTicket => "no such ticket: it expired, or was never issued",
            Rejection::NoSuchBranch => "no such branch",
            Rejection::KeyRemoved => "this node was removed; it needs a new key to join again",
            Rejection::AlreadyMember => "the node is a member already",
            Rejection::LastMember => "the last member can't go",
            Rejection::NotActive => "nobody is active for the service",
            Rejection::TooManyHolders => "more holders than allowed",
            Rejection::WouldLoseState => "no holder would be left for the service's state",
            Rejection::NotABranch => "the main line is not a branch",
        };
        f.write_str(text)
    }
}
