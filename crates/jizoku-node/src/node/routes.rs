//! What the mesh and the gateway must know: members, and where services are.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_core::catalog::{Command, ServiceRecord, Wanted};
use jizoku_core::{reach, watch};
use jizoku_types::spec::{OutputMode, PortSpec};
use jizoku_types::{Epoch, Member, NodeId, ServiceId};

use super::requests::Purpose;
use super::{Node, Output};

/// Where connections to a service go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Published ports, in order.
    pub ports: Vec<PortSpec>,
    /// Whether output waits for commits.
    pub held: bool,
    /// Who serves; none: connections wait.
    pub active: Option<Member>,
    /// In which epoch.
    pub epoch: Epoch,
    /// Whether the service shall run; if not, connections are refused.
    pub wanted: bool,
}

/// What was emitted last.
#[derive(Debug, Default)]
pub(super) struct Emitted {
    /// For which catalog and which link states, by their numbers.
    catalog: u64,
    link_states: Option<u64>,
    peers: Option<BTreeMap<NodeId, Vec<String>>>,
    routes: BTreeMap<ServiceId, Route>,
    watched: BTreeMap<ServiceId, (Epoch, Option<NodeId>, u64)>,
    links: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Emitted {
    /// The epoch that the gateway was last told of.
    pub(super) fn epoch(&self, service: ServiceId) -> Option<Epoch> {
        self.routes.get(&service).map(|route| route.epoch)
    }
}

impl Node {
    /// Tells mesh, gateway and watch what changed, and the catalog what this node is now.
    pub(super) fn route_duties(&mut self) {
        if self.catalog.cluster().is_none() {
            return;
        }
        if self.emitted.catalog != self.catalog_version {
            self.emitted.catalog = self.catalog_version;
            self.peer_duties();
        }
        self.announce();
        self.service_routes();
        self.watch_duties();
    }

    fn peer_duties(&mut self) {
        let me = self.me().node;
        let peers: BTreeMap<NodeId, Vec<String>> = self
            .catalog
            .members()
            .iter()
            .filter(|(node, _)| **node != me)
            .map(|(node, record)| (*node, record.addresses.clone()))
            .collect();
        if self.emitted.peers.as_ref() != Some(&peers) {
            let members = peers.keys().copied().chain([me]).collect();
            let removed = self.catalog.removed().collect();
            self.reach.handle(self.now, reach::Input::Members { members, removed });
            self.facts.forget_strangers(&self.catalog);
            self.emitted.peers = Some(peers.clone());
            self.outputs.push_back(Output::Peers(peers));
        }
    }

    /// The catalog has this node as it was in an earlier run: say what is true now.
    fn announce(&mut self) {
        let mine = &self.config.myself;
        let Some(known) = self.catalog.member(&mine.node) else { return };
        let same = known.incarnation == mine.incarnation
            && known.addresses == mine.addresses
            && known.labels == mine.labels
            && known.witness == mine.witness
            && known.features == mine.features;
        if same || self.leader.is_none() || self.is_under_way(&Purpose::Announce) {
            return;
        }
        let command = Command::UpdateMember { member: mine.clone() };
        self.propose(Purpose::Announce, &command);
    }

    fn service_routes(&mut self) {
        let exists = |service: &&ServiceId| self.catalog.services().contains_key(service);
        let gone: Vec<ServiceId> =
            self.emitted.routes.keys().filter(|service| !exists(service)).copied().collect();
        let changed: Vec<(ServiceId, Route)> = self
            .catalog
            .services()
            .iter()
            .filter_map(|(service, record)| Some((*service, self.new_route(*service, record)?)))
            .collect();
        for service in gone {
            self.emitted.routes.remove(&service);
            self.outputs.push_back(Output::Route { service, route: None });
        }
        for (service, route) in changed {
            self.emitted.routes.insert(service, route.clone());
            self.outputs.push_back(Output::Route { service, route: Some(route) });
        }
    }

    /// Where a service's connections go now, if that is not what was emitted.
    fn new_route(&self, service: ServiceId, record: &ServiceRecord) -> Option<Route> {
        let (active, epoch) = match self.followed(service, record) {
            Some((opener, epoch)) => (Some(opener), epoch),
            None => (record.active, record.epoch),
        };
        let held = record.spec.output == OutputMode::Held;
        let wanted = record.wanted == Wanted::Running;
        let before = self.emitted.routes.get(&service);
        let same = before.is_some_and(|before| {
            let Route { ports, held: held_before, active: active_before, .. } = before;
            (*held_before, *active_before) == (held, active)
                && (before.epoch, before.wanted) == (epoch, wanted)
                && *ports == record.spec.ports
        });
        (!same).then(|| Route { ports: record.spec.ports.clone(), held, active, epoch, wanted })
    }

    fn watch_duties(&mut self) {
        let link_states = Some(self.reach.version());
        if self.emitted.link_states != link_states {
            self.emitted.link_states = link_states;
            let links = self.reach.links();
            if self.emitted.links != links {
                self.watch.handle(self.now, watch::Input::Links(links.clone()));
                self.emitted.links = links;
            }
        }
        for (service, record) in self.catalog.services() {
            let (active, epoch) = match self.emitted.routes.get(service) {
                Some(route) => (route.active, route.epoch),
                None => (record.active, record.epoch),
            };
            let active = active.filter(|_| record.wanted == Wanted::Running);
            let active = active.map(|active| active.node);
            let watched = (epoch, active, record.version);
            if self.emitted.watched.get(service) != Some(&watched) {
                self.emitted.watched.insert(*service, watched);
                let checks = record.spec.checks.clone();
                let service = *service;
                let input = watch::Input::Service { service, epoch, active, checks };
                self.watch.handle(self.now, input);
            }
        }
        self.emitted.watched.retain(|service, _| self.catalog.services().contains_key(service));
    }
}
