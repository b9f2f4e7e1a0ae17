//! The cluster at a glance: nodes, services, and what a person should know.
//!
//! What it does not know: how any of it is found out.
//!
//! Invariant: everything is as the answering node sees it, at one moment.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::{ClusterId, Generation, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::route::{Query, Route, take};
use crate::service::ServiceStatus;
use crate::text;

/// Asks for [`ClusterStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusQuery;

impl Query for StatusQuery {
    const ROUTE: Route = Route::Status;
    type Answer = ClusterStatus;
    fn pairs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn from_pairs(pairs: &[(String, String)]) -> Result<StatusQuery, ApiError> {
        take(pairs, &[], "").map(|_| StatusQuery)
    }
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster; none before `init` or `join`.
    #[serde(with = "text::option")]
    pub cluster: Option<ClusterId>,
    /// How often it was recovered without its majority.
    pub generation: Generation,
    /// The protocol level that all members understand.
    pub feature_level: u16,
    /// Who answers.
    #[serde(with = "text")]
    pub this_node: NodeId,
    /// Who orders the catalog's changes; none: nothing can be decided now.
    #[serde(with = "text::option")]
    pub leader: Option<NodeId>,
    /// Who votes.
    #[serde(with = "text::list")]
    pub voters: Vec<NodeId>,
    /// All members, this node first, then by name.
    pub nodes: Vec<NodeStatus>,
    /// All services, by name.
    pub services: Vec<ServiceStatus>,
    /// What a person should know, the worst first.
    pub warnings: Vec<Warning>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    #[serde(with = "text")]
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Which run of its agent.
    pub incarnation: Incarnation,
    /// Where others connect to it.
    pub addresses: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Takes part in decisions, runs no services.
    pub witness: bool,
    /// Being emptied, or empty and kept so.
    pub draining: bool,
    /// Whether and how it can be reached.
    pub reach: Reach,
    /// Time of one message there and back, if it is linked directly.
    pub round_trip_us: Option<u64>,
    /// Services active there.
    pub active: u32,
    /// Services whose checkpoints it holds.
    pub held: u32,
    /// What it has to spare, if it said so.
    pub spare: Option<Spare>,
    /// The version of its agent; none: it did not answer.
    pub version: Option<String>,
}

/// How a node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Reach {
    /// It is the answering node.
    This,
    /// By a link of their own.
    Direct,
    /// Through other members.
    Relayed {
        /// The next one on the way.
        #[serde(with = "text")]
        via: NodeId,
    },
    /// Not at all.
    Unreachable,
}

/// What a node has to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spare {
    /// Of all its processors, in thousandths.
    pub cpu_permille: u16,
    /// Memory that programs could still take.
    pub memory_bytes: u64,
    /// Room on the disk of its data folder.
    pub disk_bytes: u64,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// For programs.
    pub code: WarningCode,
    /// For people: what, and which node or service.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What kind of warning it is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// The answering node was removed from its cluster.
    ShutOut,
    /// No majority of voters: nothing can be decided.
    NoMajority,
    /// A service's newest state can't be reached.
    Unreachable,
    /// A service went on from state that may be older than what was acknowledged.
    StateMayBeMissing,
    /// A service ends again and again.
    Failing,
    /// A service has fewer copies than it needs to survive its node.
    Unprotected,
    /// A node's gateway can't open a published port.
    PortClosed,
    /// A service isn't on the number of nodes that it asks for.
    FewCopies,
    /// A service has states of branches that wait for somebody to look at them.
    Branches,
    /// A member can't be reached.
    NodeUnreachable,
    /// One node: its death ends everything.
    OneNode,
    /// Two nodes: the death of one stops what must not run twice.
    TwoNodes,
    /// A node has no room on its disk, so it refuses to hold copies.
    NoRoom,
    /// Members run agents of different versions.
    MixedVersions,
}
