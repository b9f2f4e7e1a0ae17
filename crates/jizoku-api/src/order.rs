//! What can be asked for, and what is answered.
//!
//! What it does not know: whether it will be granted.
//!
//! Invariants
//! - Nodes are named by name or by id; the agent resolves them.
//! - An answer means that the cluster has decided; what follows is seen in the status.

use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::spec::ServiceSpec;
use jizoku_types::{ClusterId, Generation, NodeId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::plan::ApplyPlan;
use crate::route::{Order, Route};
use crate::spec::SpecForm;
use crate::text;

/// Creates or changes a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyOrder {
    /// What the user wants. The module of a `wasm` service has been sent before.
    #[serde(with = "SpecForm")]
    pub spec: ServiceSpec,
    /// Only say what it would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Only if the service is still at this version (0: doesn't exist yet); none: whatever it is.
    #[serde(default)]
    pub expect_version: Option<u64>,
}

/// A module was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStored {
    /// Of the prepared module: what a specification names.
    #[serde(with = "text")]
    pub module: [u8; 32],
    /// Of the prepared module.
    pub size_bytes: u64,
    /// Whether it was here already.
    pub known: bool,
}

/// Removes a service and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmOrder {
    /// Which.
    pub service: ServiceName,
}

/// Runs a stopped service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOrder {
    /// Which.
    pub service: ServiceName,
}

/// Stops a service; its state is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Which.
    pub service: ServiceName,
}

/// Makes another node the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOrder {
    /// Which.
    pub service: ServiceName,
    /// Where to, by name or id; none: where succession says.
    #[serde(default)]
    pub to: Option<String>,
}

/// Takes everything off a node, or ends that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// Which, by name or id; none: this one.
    #[serde(default)]
    pub node: Option<String>,
    /// Takes services again.
    #[serde(default)]
    pub undo: bool,
}

/// Goes on with a service whose newest state can't be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeOrder {
    /// Which.
    pub service: ServiceName,
    /// Take the best state that is left, though acknowledged writes may be missing from it.
    pub accept_loss: bool,
}

/// Goes on with a cluster that lost its majority for good, from this node alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverOrder {
    /// Must be true: all other nodes are refused from then on, and have to join again.
    pub new_generation: bool,
}

/// The cluster after a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The new generation.
    pub generation: Generation,
}

/// Makes a ticket that lets one node in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketOrder {
    /// How long it is good; none: the agent's default.
    #[serde(default)]
    pub valid_ms: Option<u64>,
}

/// A ticket. Whoever has it can join: keep it secret until it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketIssued {
    /// What `jizoku join` takes.
    pub ticket: String,
    /// How long it is good.
    pub valid_ms: u64,
}

/// Brings this node into a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOrder {
    /// As `jizoku init` or another node's agent gave it.
    pub ticket: String,
}

/// This node is a member now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Of which cluster.
    #[serde(with = "text")]
    pub cluster: ClusterId,
    /// This node.
    #[serde(with = "text")]
    pub node: NodeId,
    /// What the cluster calls it.
    pub name: String,
    /// All members' names.
    pub members: Vec<String>,
}

/// Takes this node out of its cluster, after everything has moved off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveOrder {}

/// Shuts a node out of the cluster; its key is refused from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveOrder {
    /// Which, by name or id.
    pub node: String,
    /// Even if it is the last holder of some state.
    #[serde(default)]
    pub accept_loss: bool,
}

/// It was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What will follow, or what is to know, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

macro_rules! orders {
    ($($order:ident -> $answer:ident at $route:ident,)*) => {
        $(impl Order for $order {
            const ROUTE: Route = Route::$route;
            type Answer = $answer;
        })*
    };
}

orders! {
    ApplyOrder -> ApplyPlan at Apply,
    RmOrder -> Done at Rm,
    StartOrder -> Done at Start,
    StopOrder -> Done at Stop,
    MoveOrder -> Done at Move,
    DrainOrder -> Done at Drain,
    ResumeOrder -> Done at Resume,
    RecoverOrder -> Recovered at Recover,
    TicketOrder -> TicketIssued at Ticket,
    JoinOrder -> Joined at Join,
    LeaveOrder -> Done at Leave,
    RemoveOrder -> Done at Remove,
}
