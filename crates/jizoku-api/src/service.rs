//! What is to be said about services: at a glance, in full, and their instances.
//!
//! What it does not know: how any of it is found out.
//!
//! Invariant: where a number may be unknown (the node that knows it can't be reached) it is
//! `null`, never 0.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::spec::{OutputMode, PortSpec, ServiceSpec};
use jizoku_types::{
    BranchId, CheckpointId, ConnId, Epoch, Incarnation, NodeId, ServiceId, ServiceName,
};
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};
use crate::route::{Query, Route, take};
use crate::spec::SpecForm;
use crate::text;

/// One service at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its id.
    #[serde(with = "text")]
    pub service: ServiceId,
    /// Its name.
    pub name: ServiceName,
    /// What runs it: `wasm`, `exec`.
    pub engine: String,
    /// What its user wants.
    pub wanted: Wanted,
    /// What it is doing.
    pub phase: Phase,
    /// Where it is active.
    #[serde(with = "text::option")]
    pub active: Option<NodeId>,
    /// Of its active instance.
    #[serde(with = "text")]
    pub epoch: Epoch,
    /// When its output leaves.
    #[serde(with = "text")]
    pub output: OutputMode,
    /// What every gateway publishes.
    pub ports: Vec<PortSpec>,
    /// Who keeps its checkpoints.
    pub holders: Vec<HolderStatus>,
    /// Holders wanted beside the active node.
    pub copies: u8,
    /// Its last committed checkpoint.
    pub checkpoint: Option<CheckpointStatus>,
    /// Open connections of clients, over all gateways that can be reached.
    pub connections: Option<u32>,
    /// What the watch says.
    pub verdict: Verdict,
    /// Fewer holders than `min_copies`, or none wanted.
    pub unprotected: bool,
    /// No current holder of the last set answers.
    pub unreachable: bool,
    /// It went on from state that may be older than what was acknowledged.
    pub state_may_be_missing: bool,
    /// It ends again and again.
    pub failing: Option<Failing>,
    /// States of branches that were stopped.
    pub branches: u16,
}

/// What a service's user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It shall serve.
    Running,
    /// It shall not; its state is kept.
    Stopped,
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// As wanted.
    Stopped,
    /// No node can run it now.
    Waiting,
    /// Its holders are being asked what they have.
    Sealing,
    /// The state is on its way to the new active node.
    Collecting,
    /// The instance is being made from the state.
    Restoring,
    /// The instance begins without state.
    Starting,
    /// It serves.
    Running,
    /// It ended, and is tried again a little later.
    Failing,
    /// Its newest state can't be reached.
    Unreachable,
    /// It is being ended.
    Stopping,
}

/// One keeper of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderStatus {
    /// Who.
    #[serde(with = "text")]
    pub node: NodeId,
    /// In which incarnation it was listed.
    pub incarnation: Incarnation,
    /// How it stands.
    pub state: HolderState,
    /// The newest checkpoint that it acknowledged.
    #[serde(with = "text::option")]
    pub acknowledged: Option<CheckpointId>,
    /// How many checkpoints the active instance is ahead of it.
    pub behind: Option<u64>,
    /// Whether it can start the program at once; if not, a takeover there waits for the compiler.
    pub prepared: Option<bool>,
}

/// How a holder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderState {
    /// In the set: it has every committed checkpoint.
    Member,
    /// Being brought up to date; not in the set yet.
    Joining,
    /// In the set, but it can't be reached: it is about to be removed.
    Silent,
}

/// The last committed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// Which.
    #[serde(with = "text")]
    pub id: CheckpointId,
    /// How long ago it was captured.
    pub age_ms: u64,
    /// Of the whole state.
    pub size_bytes: u64,
    /// What travelled to each holder for it.
    pub shipped_bytes: u64,
    /// How long the program stood still.
    pub pause_us: u64,
    /// From the capture to the last acknowledgement; none: its active node did not say.
    pub commit_us: Option<u64>,
}

/// What the watch says of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it serves; none: nobody could look.
    pub serving: Option<bool>,
    /// What was seen, for people.
    pub detail: String,
    /// How long the answering node has thought so.
    pub since_ms: Option<u64>,
}

/// Why and how often a service ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Ends since it last ran well.
    pub times: u32,
    /// Why the last time, for people.
    pub reason: String,
    /// In how long it is tried again, as its active node last said; none: it is not waiting.
    pub next_try_ms: Option<u64>,
}

/// Asks for [`Inspection`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectQuery {
    /// Of which service.
    pub service: ServiceName,
}

impl Query for InspectQuery {
    const ROUTE: Route = Route::Inspect;
    type Answer = Inspection;
    fn pairs(&self) -> Vec<(&'static str, String)> {
        vec![("service", self.service.to_string())]
    }
    fn from_pairs(pairs: &[(String, String)]) -> Result<InspectQuery, ApiError> {
        let service = read_service(take(pairs, &["service"], "service")?)?;
        let missing = || ApiError::new(ErrorCode::BadRequest, "parameter `service` is missing");
        Ok(InspectQuery { service: service.ok_or_else(missing)? })
    }
}

/// Everything about one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// At a glance.
    pub status: ServiceStatus,
    /// What its user asked for.
    #[serde(with = "SpecForm")]
    pub spec: ServiceSpec,
    /// Grows with each `apply` that changed something.
    pub spec_version: u64,
    /// Its connections, over all gateways that can be reached.
    pub connections: Vec<ConnectionStatus>,
    /// States of branches that were stopped.
    pub branches: Vec<BranchStatus>,
    /// The last lines that it printed, the oldest first.
    pub printed: Vec<String>,
}

/// One client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// The node whose gateway accepted it.
    #[serde(with = "text")]
    pub gateway: NodeId,
    /// The how-manieth of that gateway; with its incarnation, unique.
    pub counter: u64,
    /// That gateway's incarnation.
    pub incarnation: Incarnation,
    /// The published port.
    pub port: String,
    /// The client's address.
    pub client: String,
    /// Received from the client.
    pub in_bytes: u64,
    /// Given to the client.
    pub out_bytes: u64,
    /// Produced, but waiting for a commit.
    pub held_bytes: u64,
}

impl ConnectionStatus {
    /// The connection's id.
    pub fn id(&self) -> ConnId {
        let gateway = jizoku_types::Member { node: self.gateway, incarnation: self.incarnation };
        ConnId { gateway, counter: self.counter }
    }
}

/// The state of a branch that was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchStatus {
    /// Which.
    #[serde(with = "text")]
    pub branch: BranchId,
    /// Its last checkpoint.
    #[serde(with = "text")]
    pub checkpoint: CheckpointId,
    /// Who keeps it.
    #[serde(with = "text::list")]
    pub holders: Vec<NodeId>,
    /// Of its state.
    pub size_bytes: u64,
}

/// Asks for the instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PsQuery {
    /// Of one service only.
    pub service: Option<ServiceName>,
}

impl Query for PsQuery {
    const ROUTE: Route = Route::Ps;
    type Answer = PsAnswer;
    fn pairs(&self) -> Vec<(&'static str, String)> {
        self.service.iter().map(|service| ("service", service.to_string())).collect()
    }
    fn from_pairs(pairs: &[(String, String)]) -> Result<PsQuery, ApiError> {
        Ok(PsQuery { service: read_service(take(pairs, &["service"], "service")?)? })
    }
}

/// The instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PsAnswer {
    /// By service, then by node.
    pub instances: Vec<InstanceStatus>,
    /// Members that could not be asked.
    #[serde(with = "text::list")]
    pub silent: Vec<NodeId>,
}

/// One running copy of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Of which service.
    #[serde(with = "text")]
    pub service: ServiceId,
    /// Its name.
    pub name: ServiceName,
    /// Where.
    #[serde(with = "text")]
    pub node: NodeId,
    /// What it is for.
    pub role: Role,
    /// In which epoch.
    #[serde(with = "text")]
    pub epoch: Epoch,
    /// What runs it.
    pub engine: String,
    /// The system's number of its process, if it has one of its own.
    pub pid: Option<u32>,
    /// Since it was started or restored.
    pub up_ms: u64,
    /// What it has in memory.
    pub memory_bytes: Option<u64>,
    /// Processor time that it used.
    pub cpu_ms: Option<u64>,
    /// Open connections.
    pub connections: u32,
}

/// What an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves.
    Active,
    /// It executes the same inputs as the active one.
    Backup,
    /// Its state is kept ready; it serves nobody.
    Standby,
    /// It is assigned, and holds nothing.
    Idle,
}

pub(crate) fn read_service(text: Option<&str>) -> Result<Option<ServiceName>, ApiError> {
    let bad = |error| ApiError::new(ErrorCode::BadRequest, error);
    text.map(|text| ServiceName::new(text).map_err(bad)).transpose()
}
