//! The catalog: who exists and who may serve, as a deterministic function of commands.
//!
//! [`Catalog::apply`] is the whole of it: the same commands in the same order give the same state
//! on every node. It is total: any command that decodes has an outcome, and either all of its
//! changes are made or none.
//!
//! What it does not know: how commands are ordered and replicated, clocks, who is alive, what a
//! checkpoint holds.
//!
//! Invariants ([`Catalog::check`] checks what one state can show, also of every snapshot read)
//! - At most one active node for a service; every change of it raises the epoch's counter.
//! - Holders are members of the cluster, each node at most once among `holders` and `joining`,
//!   and no witness is added to them. Once `born`, no command empties a set unless the spec's
//!   `min_copies` is 0 or a loss is accepted with it.
//! - A published port belongs to one service. Ids, versions and epochs are never given out again.
//! - Nothing here depends on time: a ticket's life is counted by the nodes.
//!
//! Limits: [`NODES_MAX`], [`SERVICES_MAX`], and those of [`record`]; at a limit the command is
//! rejected. Removed keys are the exception: at [`REMOVED_MAX`] the oldest is forgotten, which is
//! safe because only members are let in.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_types::limits::{NODES_MAX, SERVICES_MAX};
use jizoku_types::{
    BranchId, ByteCount, ClusterId, Generation, Incarnation, Member, NodeId, ServiceId, ServiceName,
};
use serde::{Deserialize, Serialize};

mod command;
mod members;
mod outcome;
pub mod record;
mod services;
mod snapshot;
mod update;

#[cfg(test)]
mod tests;

pub use command::{COMMAND_VERSION, Command, CommandError};
pub use outcome::{Change, Conflict, Outcome, Rejection};
pub use record::{
    ADDRESSES_MAX, BranchRecord, MemberRecord, MemberSpec, ServiceRecord, Ticket, TicketHash,
    Wanted,
};
pub use snapshot::{SNAPSHOT_MAX, SNAPSHOT_VERSION, SnapshotError};
pub use update::{Update, update_of};

/// Unspent and spent tickets at one time.
pub const TICKETS_MAX: usize = 256;
/// Removed keys that are remembered.
pub const REMOVED_MAX: usize = 4096;
/// Branch states that are listed for one service.
pub const BRANCHES_MAX: usize = 16;
/// By how much every counter jumps when the majority is lost for good: more than the lost part of
/// the log can have counted, so that nothing which it gave out is given out again.
pub const RECOVERY_JUMP: u64 = 1 << 20;

/// One-line bugs that tests switch on to prove that they would be seen. Without the feature
/// `faults` nothing can switch them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `TakeOver` does not compare the epoch.
    TakeOverWithoutCompare,
    /// `SetHolders` of a replaced active node is accepted.
    SetHoldersOfOldEpoch,
}

/// The replicated state. Starts empty; only [`Command::Init`] gives it a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    cluster: Option<ClusterId>,
    generation: Generation,
    feature_level: u16,
    members: BTreeMap<NodeId, MemberRecord>,
    /// Removed keys, each with the number of its removal, which says which is the oldest.
    removed: BTreeMap<NodeId, u64>,
    removals: u64,
    tickets: BTreeMap<TicketHash, Ticket>,
    services: BTreeMap<ServiceId, ServiceRecord>,
    last_service: u64,
    #[cfg(feature = "faults")]
    #[serde(skip)]
    faults: BTreeSet<Fault>,
}

impl Catalog {
    /// An empty catalog, which belongs to no cluster yet.
    pub fn new() -> Catalog {
        Catalog::default()
    }

    /// Applies one command. Never panics; what was not `Done` changed nothing.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let result = match (self.cluster, command) {
            (_, Command::Init { cluster, generation, first }) => {
                self.init(*cluster, *generation, first)
            }
            (None, _) => Err(Rejection::NotInitialised.into()),
            (Some(cluster), command) => self.apply_to(cluster, command),
        };
        match result {
            Ok(changes) => Outcome::Done { changes },
            Err(refusal) => refusal.into(),
        }
    }

    fn apply_to(&mut self, own: ClusterId, command: &Command) -> Result<Vec<Change>, Refusal> {
        match command {
            Command::Init { .. } => Err(Conflict::AlreadyInitialised { cluster: own }.into()),
            Command::AddMember { member } => self.add_member(member),
            Command::UpdateMember { member } => self.update_member(member),
            Command::RemoveMember { node, accept_loss } => self.remove_member(*node, *accept_loss),
            Command::Leave { node } => self.leave(*node),
            Command::SetDraining { node, draining } => self.set_draining(*node, *draining),
            Command::IssueTicket { ticket, ttl } => self.issue_ticket(*ticket, *ttl),
            Command::UseTicket { ticket, member } => self.use_ticket(*ticket, member),
            Command::ExpireTicket { ticket } => self.expire_ticket(*ticket),
            Command::ApplyService { spec, expect } => self.apply_service(spec, *expect),
            Command::RemoveService { service } => self.remove_service(*service),
            Command::SetWanted { service, wanted } => self.set_wanted(*service, *wanted),
            Command::TakeOver { service, expect, to } => self.take_over(*service, *expect, *to),
            Command::SetHolders { service, epoch, expect_version, holders, joining, born } => {
                let set = services::Set { holders, joining, born: *born };
                self.set_holders(*service, *epoch, *expect_version, &set)
            }
            Command::AcceptLoss { service, epoch } => self.accept_loss(*service, *epoch),
            Command::KeepBranch { service, branch, record } => {
                self.keep_branch(*service, *branch, record)
            }
            Command::DropBranch { service, branch } => self.drop_branch(*service, *branch),
            Command::ResolveBranch { service, expect, branch, reached, to, holders } => {
                self.resolve_branch(*service, *expect, (*branch, *reached), *to, holders)
            }
            Command::Recover { cluster, generation, survivor } => {
                if *cluster != own {
                    return Err(Rejection::OtherCluster { own }.into());
                }
                self.recover(*generation, *survivor)
            }
            Command::SetFeatureLevel { level } => self.set_feature_level(*level),
        }
    }

    /// Switches a planted fault on.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: Fault) {
        self.faults.insert(fault);
    }

    #[cfg(feature = "faults")]
    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    #[cfg(not(feature = "faults"))]
    fn has(&self, _: Fault) -> bool {
        false
    }
}

/// What the node asks.
impl Catalog {
    /// The cluster, once there is one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// How often the cluster was recovered without its majority.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Nothing above this protocol level may be emitted.
    pub fn feature_level(&self) -> u16 {
        self.feature_level
    }

    /// All members, by id.
    pub fn members(&self) -> &BTreeMap<NodeId, MemberRecord> {
        &self.members
    }

    /// One member.
    pub fn member(&self, node: &NodeId) -> Option<&MemberRecord> {
        self.members.get(node)
    }

    /// A member by the name that people use. Names are unique.
    pub fn member_named(&self, name: &str) -> Option<(NodeId, &MemberRecord)> {
        self.members.iter().find(|(_, record)| record.name == name).map(|(id, rec)| (*id, rec))
    }

    /// All members in their current incarnations, by id.
    pub fn current_members(&self) -> impl Iterator<Item = Member> + '_ {
        self.members
            .iter()
            .map(|(node, record)| Member { node: *node, incarnation: record.incarnation })
    }

    /// The members among `alive`, in their current incarnations, by id.
    pub fn members_among(&self, alive: &BTreeSet<NodeId>) -> Vec<Member> {
        self.current_members().filter(|member| alive.contains(&member.node)).collect()
    }

    /// The current incarnation of a member.
    pub fn incarnation(&self, node: &NodeId) -> Option<Incarnation> {
        self.members.get(node).map(|record| record.incarnation)
    }

    /// Whether this node in this incarnation is a member now.
    pub fn is_current(&self, member: &Member) -> bool {
        self.incarnation(&member.node) == Some(member.incarnation)
    }

    /// Whether this key was removed and must be told so.
    pub fn is_removed(&self, node: &NodeId) -> bool {
        self.removed.contains_key(node)
    }

    /// The keys that were removed, at most [`REMOVED_MAX`].
    pub fn removed(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.removed.keys().copied()
    }

    /// All tickets.
    pub fn tickets(&self) -> &BTreeMap<TicketHash, Ticket> {
        &self.tickets
    }

    /// All services, by id.
    pub fn services(&self) -> &BTreeMap<ServiceId, ServiceRecord> {
        &self.services
    }

    /// One service.
    pub fn service(&self, service: ServiceId) -> Option<&ServiceRecord> {
        self.services.get(&service)
    }

    /// Whether a takeover of this service may name this node now: a member of this incarnation,
    /// no witness, not draining, and allowed by the service's placement.
    pub fn may_be_active(&self, service: ServiceId, member: Member) -> bool {
        let record = self.services.get(&service);
        record.is_some_and(|record| self.may_run(&record.spec, member).is_ok())
    }

    /// One service by its name.
    pub fn service_named(&self, name: &ServiceName) -> Option<(ServiceId, &ServiceRecord)> {
        self.services.iter().find(|(_, rec)| rec.spec.name == *name).map(|(id, rec)| (*id, rec))
    }

    /// Which service publishes a port.
    pub fn port_owner(&self, port: u16) -> Option<ServiceId> {
        let owns = |rec: &ServiceRecord| rec.spec.ports.iter().any(|own| own.listen == port);
        self.services.iter().find(|(_, rec)| owns(rec)).map(|(id, _)| *id)
    }

    /// The services whose active instance is on this node, in whatever incarnation.
    pub fn active_on(&self, node: NodeId) -> impl Iterator<Item = (ServiceId, &ServiceRecord)> {
        self.services
            .iter()
            .filter(move |(_, rec)| rec.active.is_some_and(|active| active.node == node))
            .map(|(id, rec)| (*id, rec))
    }

    /// The services that list this node as holder or joining, in whatever incarnation.
    pub fn held_on(&self, node: NodeId) -> impl Iterator<Item = (ServiceId, &ServiceRecord)> {
        self.services
            .iter()
            .filter(move |(_, rec)| rec.holders.iter().chain(&rec.joining).any(|m| m.node == node))
            .map(|(id, rec)| (*id, rec))
    }

    /// The hashes of all program modules that some service uses: what nodes must not forget.
    pub fn modules(&self) -> BTreeSet<[u8; 32]> {
        self.services.values().filter_map(ServiceRecord::module).collect()
    }

    /// How many more bytes of branch states the service may keep; zero when no further branch
    /// may be opened.
    pub fn branch_room(&self, service: ServiceId) -> ByteCount {
        let Some(record) = self.services.get(&service) else { return ByteCount(0) };
        if record.branches.len() >= BRANCHES_MAX {
            return ByteCount(0);
        }
        let kept = record.branches.values().fold(0u64, |sum, b| sum.saturating_add(b.size.0));
        ByteCount(record.spec.branch_limit.0.saturating_sub(kept))
    }

    /// The branches of a service that are listed.
    pub fn branches(&self, service: ServiceId) -> Option<&BTreeMap<BranchId, BranchRecord>> {
        self.services.get(&service).map(|record| &record.branches)
    }

    /// Whether `newer` may take this catalog's place: the same cluster (or none yet here), and
    /// not an older generation. Two clusters are never merged.
    pub fn may_become(&self, newer: &Catalog) -> bool {
        match (self.cluster, newer.cluster) {
            (None, _) => true,
            (Some(own), Some(other)) => own == other && newer.generation >= self.generation,
            (Some(_), None) => false,
        }
    }

    /// The invariants of the header. An error names the broken one.
    pub fn check(&self) -> Result<(), &'static str> {
        let broken = |bad: bool, what| if bad { Err(what) } else { Ok(()) };
        broken(self.cluster.is_none() && !self.members.is_empty(), "members without a cluster")?;
        broken(self.cluster.is_some() && self.members.is_empty(), "a cluster without members")?;
        broken(self.members.len() > NODES_MAX, "more members than allowed")?;
        broken(self.services.len() > SERVICES_MAX, "more services than allowed")?;
        broken(self.tickets.len() > TICKETS_MAX, "more tickets than allowed")?;
        broken(self.removed.len() > REMOVED_MAX, "more removed keys than allowed")?;
        let mut names = BTreeSet::new();
        for (node, record) in &self.members {
            broken(self.removed.contains_key(node), "a member that was removed")?;
            broken(!names.insert(&record.name), "two members of one name")?;
        }
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for (id, record) in &self.services {
            broken(id.0 == 0 || id.0 > self.last_service, "a service id not given out")?;
            broken(!names.insert(&record.spec.name), "two services of one name")?;
            let taken = record.spec.ports.iter().any(|port| !ports.insert(port.listen));
            broken(taken, "a port published twice")?;
            self.check_service(record)?;
        }
        Ok(())
    }

    fn check_service(&self, record: &ServiceRecord) -> Result<(), &'static str> {
        let broken = |bad: bool, what| if bad { Err(what) } else { Ok(()) };
        broken(record.spec.check().is_err(), "a service with a wrong spec")?;
        broken(record.epoch.branch != BranchId::MAIN, "a main line that is a branch")?;
        let stranger = |member: &Member| !self.members.contains_key(&member.node);
        broken(record.active.as_ref().is_some_and(stranger), "an active node that is no member")?;
        let mut seen = BTreeSet::new();
        for member in record.holders.iter().chain(&record.joining) {
            broken(stranger(member), "a holder that is no member")?;
            broken(!seen.insert(member.node), "a node twice in a holder set")?;
        }
        broken(record.branches.len() > BRANCHES_MAX, "more branches than allowed")
    }
}

/// Why a command was not done, before it becomes an [`Outcome`].
enum Refusal {
    Conflict(Conflict),
    Rejection(Rejection),
}

impl From<Conflict> for Refusal {
    fn from(why: Conflict) -> Refusal {
        Refusal::Conflict(why)
    }
}

impl From<Rejection> for Refusal {
    fn from(why: Rejection) -> Refusal {
        Refusal::Rejection(why)
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Outcome {
        match refusal {
            Refusal::Conflict(why) => Outcome::Conflict { why },
            Refusal::Rejection(why) => Outcome::Rejected { why },
        }
    }
}
