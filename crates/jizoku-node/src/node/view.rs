//! The whole, for people: what `status` shows.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_core::catalog::{MemberRecord, ServiceRecord};
use jizoku_core::watch;
use jizoku_types::{ClusterId, Generation, Instant, Member, NodeId, ServiceId};

use super::Node;
use super::branches::BranchView;
use super::facts::{NodeFacts, ServiceFacts};

/// One node's view of the cluster.
#[derive(Clone, Debug)]
pub struct View {
    /// Which cluster; none: this node belongs to none yet.
    pub cluster: Option<ClusterId>,
    /// Its generation.
    pub generation: Generation,
    /// The newest form that may be emitted.
    pub feature_level: u16,
    /// Whose view this is.
    pub me: Member,
    /// When, on this node's clock.
    pub at: Instant,
    /// Who leads the catalog.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// All nodes.
    pub nodes: Vec<NodeView>,
    /// All services.
    pub services: BTreeMap<ServiceId, ServiceView>,
}

/// A node in a view.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Who.
    pub node: NodeId,
    /// What the catalog has.
    pub record: MemberRecord,
    /// Whether a way to it exists.
    pub reachable: bool,
    /// The next node on the way to it.
    pub next_hop: Option<NodeId>,
    /// What it says of itself.
    pub facts: Option<NodeFacts>,
}

/// A service in a view.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// What the catalog has.
    pub record: ServiceRecord,
    /// The branch that serves on this side instead, if one does.
    pub branch: Option<BranchView>,
    /// What its active node, here, says.
    pub facts: Option<ServiceFacts>,
    /// What is thought of it.
    pub verdict: watch::Verdict,
    /// Since when this node has thought so; none: nothing has been thought of it yet.
    pub judged_at: Option<Instant>,
}

impl Node {
    /// This node's view of the cluster now.
    pub fn view(&self) -> View {
        let nodes = self
            .catalog()
            .members()
            .iter()
            .map(|(node, record)| NodeView {
                node: *node,
                record: record.clone(),
                reachable: self.reach.reaches(*node),
                next_hop: self.reach.routes().get(node).copied(),
                facts: self.facts_of(*node),
            })
            .collect();
        let services = self
            .catalog()
            .services()
            .iter()
            .map(|(service, record)| (*service, self.service_view(*service, record)))
            .collect();
        View {
            cluster: self.catalog().cluster(),
            generation: self.catalog().generation(),
            feature_level: self.catalog().feature_level(),
            me: self.me(),
            at: self.now,
            leader: self.leader(),
            voters: self.voters.clone(),
            nodes,
            services,
        }
    }

    fn service_view(&self, service: ServiceId, record: &ServiceRecord) -> ServiceView {
        let followed = self.followed(service, record);
        let branch = followed.and_then(|(_, epoch)| self.branch_view(service, epoch));
        let active = followed.map(|(opener, _)| opener).or(record.active);
        let facts = active.and_then(|active| self.facts_of(active.node));
        let facts = facts
            .and_then(|facts| facts.services.into_iter().find(|(id, _)| *id == service))
            .map(|(_, facts)| facts);
        let verdict = self.watch.verdict(service);
        let judged_at = self.judged_at.get(&service).copied();
        ServiceView { record: record.clone(), branch, facts, verdict, judged_at }
    }
}
