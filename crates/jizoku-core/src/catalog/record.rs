//! What the catalog keeps of a member, a ticket, a service, a branch; and their limits.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::spec::{EngineSpec, ServiceSpec};
use jizoku_types::{ByteCount, Epoch, Incarnation, Member, NodeId, Span};
use serde::{Deserialize, Serialize};

/// Longest name of a node, in bytes.
pub const NAME_MAX: usize = 63;
/// Most addresses of a node.
pub const ADDRESSES_MAX: usize = 16;
/// Longest address, in bytes.
pub const ADDRESS_MAX: usize = 255;
/// Most labels of a node.
pub const LABELS_MAX: usize = 32;
/// Longest key or value of a label, in bytes.
pub const LABEL_MAX: usize = 128;
/// Largest encoded spec of a service, in bytes.
pub const SPEC_MAX: usize = 16 << 10;
/// Most checks of a service.
pub const CHECKS_MAX: usize = 16;

/// BLAKE3 hash of a ticket's secret. The catalog never has the secret.
pub type TicketHash = [u8; 32];

/// What a node says of itself when it joins and at each start of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// Its key.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// The name that it wants: 1 to [`NAME_MAX`] bytes. If it is taken, a number is put behind.
    pub name: String,
    /// Where it listens for links, as text that the mesh understands.
    pub addresses: Vec<String>,
    /// What it is near to, and other properties: `zone`, `rack`, ...
    pub labels: BTreeMap<String, String>,
    /// Votes, and runs and holds nothing.
    pub witness: bool,
    /// The highest feature level that it understands.
    pub features: u16,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it listens for links.
    pub addresses: Vec<String>,
    /// `zone`, `rack`, ...
    pub labels: BTreeMap<String, String>,
    /// Votes, and runs and holds nothing.
    pub witness: bool,
    /// Shall become empty: runs and holds nothing new.
    pub draining: bool,
    /// Its newest run.
    pub incarnation: Incarnation,
    /// The highest feature level that it understands.
    pub features: u16,
}

/// The right of one node to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// How long it lives. Each node counts from when it applied the issue.
    pub ttl: Span,
    /// Who joined with it. The same node may say so again; nobody else can.
    pub used_by: Option<NodeId>,
}

/// What its users want of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// An instance shall serve.
    Running,
    /// No instance shall run; the state is kept.
    Stopped,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Grows at each change of the spec, from 1.
    pub version: u64,
    /// Running or stopped. It does not restrict who is active: the active node of a stopped
    /// service runs no instance, but may go on caring for its state.
    pub wanted: Wanted,
    /// The reign of the active node; counter 0: there was none yet.
    pub epoch: Epoch,
    /// Who serves.
    pub active: Option<Member>,
    /// Who has every committed checkpoint.
    pub holders: BTreeSet<Member>,
    /// Who is being added to the set.
    pub joining: BTreeSet<Member>,
    /// Grows at each change of `holders` or `joining`.
    pub holders_version: u64,
    /// Whether any checkpoint was ever committed.
    pub born: bool,
    /// An operator allowed to go on from older state, or from none: in this epoch (in the next, if
    /// nobody is active), until a set is agreed again.
    pub loss_accepted: bool,
    /// States of branches that stopped.
    pub branches: BTreeMap<jizoku_types::BranchId, BranchRecord>,
    /// The state of the main line is what the holders have of this branch, which became the main
    /// line: until the active node says that its set has gone on from there.
    pub fork: Option<jizoku_types::BranchId>,
}

impl ServiceRecord {
    /// The hash of the program that it runs, if its engine has one.
    pub fn module(&self) -> Option<[u8; 32]> {
        match &self.spec.engine {
            EngineSpec::Wasm { module, .. } => Some(*module),
            EngineSpec::Exec { .. } => None,
        }
    }

    /// Whether `member`, in this incarnation, is in the set.
    pub fn is_holder(&self, member: &Member) -> bool {
        self.holders.contains(member)
    }
}

/// The kept state of a branch that stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchRecord {
    /// The epoch of the main line that it left.
    pub parent: Epoch,
    /// Who opened it.
    pub opener: NodeId,
    /// Committed checkpoints since the fork.
    pub checkpoints: u64,
    /// Size of the state.
    pub size: ByteCount,
    /// Who keeps it; at least one.
    pub holders: BTreeSet<NodeId>,
}
