//! What nodes say of themselves: load, and how their services do. It travels with link states,
//! is half a second old, and decides nothing that must be right: only order and display.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_core::catalog::{Catalog, ServiceRecord};
use jizoku_core::reach;
use jizoku_types::spec::EngineSpec;
use jizoku_types::{
    ByteCount, CheckpointId, Epoch, Incarnation, Instant, Member, NodeId, ServiceId, Span, decode,
    encode,
};
use serde::{Deserialize, Serialize};

use super::Node;
use super::assign::{Crashes, STABLE_AFTER};
use crate::runner::Phase;

/// Services of which a node tells at most; more are cut from what is displayed, and of those whose
/// program is not compiled, more count as if it were.
const SERVICES_TOLD_MAX: usize = 64;
/// Letters of a crash's cause that are told.
const DETAIL_TOLD_MAX: usize = 200;
/// Services with a holder that was met, of which a node tells; with more it isn't cold any more.
const MET_TOLD_MAX: usize = 512;
/// For so long after the first leader a node that was started cold says so.
const COLD_FOR: Span = Span::secs(120);
/// How often facts are made anew.
const FACTS_EVERY: Span = Span::secs(1);

/// What a machine has to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Spare processor time, in thousandths of all.
    pub cpu_free_permille: u16,
    /// Spare memory.
    pub memory_free: ByteCount,
    /// Room for states on the disk.
    pub disk_free: ByteCount,
    /// Whether the disk takes writes.
    pub disk_ok: bool,
}

impl Load {
    fn has_disk_of(&self, other: &Load) -> bool {
        (self.disk_free, self.disk_ok) == (other.disk_free, other.disk_ok)
    }
}

impl Default for Load {
    fn default() -> Load {
        Load {
            cpu_free_permille: 500,
            memory_free: ByteCount::gib(1),
            disk_free: ByteCount::gib(1),
            disk_ok: true,
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// How long its agent has been up, in seconds.
    pub uptime_s: u64,
    /// What it has to spare.
    pub load: Load,
    /// It started again, and no leader was known then.
    pub cold: bool,
    /// While it is cold: the services of which it has met a holder. What that one took with it
    /// when it died was not lost with the whole cluster, whoever takes the service over later.
    pub met: BTreeSet<ServiceId>,
    /// The services that are active there.
    pub services: Vec<(ServiceId, ServiceFacts)>,
    /// The services whose program is not compiled there yet: a takeover there waits for that.
    pub unprepared: BTreeSet<ServiceId>,
}

/// How a service does, said by its active node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// In which epoch.
    pub epoch: Epoch,
    /// Where its Runner stands.
    pub phase: PhaseFact,
    /// For how long it has been there.
    pub up: Span,
    /// Its last committed checkpoint.
    pub checkpoint: CheckpointId,
    /// How long ago that was, when this was said.
    pub age: Span,
    /// The state's size.
    pub size: ByteCount,
    /// What was shipped for it to each holder.
    pub shipped: ByteCount,
    /// How long the program stood still for it.
    pub pause: Span,
    /// Crashes in a row.
    pub crashes: u32,
    /// The last crash, for people; cut.
    pub detail: String,
    /// How long it still waits before it is started again, when this was said; none: it doesn't.
    pub next_try: Option<Span>,
}

/// [`Phase`], in its form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PhaseFact {
    /// See [`Phase::Collecting`].
    Collecting,
    /// See [`Phase::Unreachable`].
    Unreachable,
    /// See [`Phase::Starting`].
    Starting,
    /// See [`Phase::Serving`].
    Serving,
    /// See [`Phase::Quiescing`].
    Quiescing,
    /// See [`Phase::Ended`].
    Ended,
}

impl From<Phase> for PhaseFact {
    fn from(phase: Phase) -> PhaseFact {
        match phase {
            Phase::Collecting => PhaseFact::Collecting,
            Phase::Unreachable => PhaseFact::Unreachable,
            Phase::Starting => PhaseFact::Starting,
            Phase::Serving => PhaseFact::Serving,
            Phase::Quiescing => PhaseFact::Quiescing,
            Phase::Ended => PhaseFact::Ended,
        }
    }
}

/// This node's facts, and what it heard of others'.
#[derive(Debug)]
pub(super) struct Own {
    started: Instant,
    load: Load,
    /// Grows when some node's disk is another, as far as placement looks at it.
    disks: u64,
    /// The modules that are compiled here; none: nobody said, so all count as compiled.
    pub(super) compiled: Option<BTreeSet<[u8; 32]>>,
    /// Something changed that others should know at once.
    pub(super) urgent: bool,
    /// What was last told of [`NodeFacts::unprepared`].
    told_unprepared: BTreeSet<ServiceId>,
    next: Instant,
    others: BTreeMap<NodeId, Heard>,
    /// In which incarnation each node was first reached since this one started.
    met: BTreeMap<NodeId, Incarnation>,
    /// See [`NodeFacts::met`].
    met_services: BTreeSet<ServiceId>,
    cold: Cold,
}

#[derive(Debug)]
struct Heard {
    first: Instant,
    facts: NodeFacts,
}

/// Whether this agent started into a cluster that was down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cold {
    /// No leader has been seen yet.
    Unknown,
    /// This leader was the first; it tells.
    Ask(NodeId, Instant),
    /// Yes, until then.
    Until(Instant),
    /// No.
    No,
}

impl Own {
    pub(super) fn new(now: Instant, restarted: bool) -> Own {
        Own {
            started: now,
            load: Load::default(),
            disks: 0,
            compiled: None,
            urgent: true,
            told_unprepared: BTreeSet::new(),
            next: now,
            others: BTreeMap::new(),
            met: BTreeMap::new(),
            met_services: BTreeSet::new(),
            cold: if restarted { Cold::Unknown } else { Cold::No },
        }
    }

    pub(super) fn learned(&mut self, origin: Member, bytes: &[u8]) {
        // Facts that can't be read are those of a newer version: its node counts as silent.
        let Ok(facts) = decode::<NodeFacts>(bytes) else { return };
        let before = self.others.get(&origin.node).map(|heard| &heard.facts.load);
        self.disks += u64::from(before.is_none_or(|before| !facts.load.has_disk_of(before)));
        let heard = self.others.entry(origin.node);
        let heard = heard.or_insert_with(|| Heard { first: self.next, facts: facts.clone() });
        heard.facts = facts;
    }

    /// What this machine has to spare is this now.
    pub(super) fn set_load(&mut self, load: Load) {
        self.disks += u64::from(!load.has_disk_of(&self.load));
        self.load = load;
    }

    /// As long as this number stays the same, so does what is known of all nodes' disks.
    pub(super) fn disks(&self) -> u64 {
        self.disks
    }

    /// The room on the fullest disk that is known.
    pub(super) fn least_disk(&self) -> ByteCount {
        let others = self.others.values().map(|heard| heard.facts.load.disk_free);
        others.fold(self.load.disk_free, ByteCount::min)
    }

    /// What a node says of itself; of this node, what it would say.
    pub(super) fn of(&self, node: NodeId, me: NodeId, now: Instant) -> Option<NodeFacts> {
        if node == me {
            return Some(NodeFacts {
                uptime_s: now.since(self.started).as_millis() / 1000,
                load: self.load,
                cold: self.is_cold(now),
                met: self.met_services.clone(),
                services: Vec::new(),
                unprepared: self.told_unprepared.clone(),
            });
        }
        self.others.get(&node).map(|heard| heard.facts.clone())
    }

    /// Uptime in seconds and load of a node, as [`Own::of`] has them.
    pub(super) fn load_of(&self, node: NodeId, me: NodeId, now: Instant) -> Option<(u64, Load)> {
        if node == me {
            return Some((now.since(self.started).as_millis() / 1000, self.load));
        }
        self.others.get(&node).map(|heard| (heard.facts.uptime_s, heard.facts.load))
    }

    /// How long this node has known of `node`.
    pub(super) fn known_for(&self, node: NodeId, now: Instant) -> Span {
        let first = self.others.get(&node).map_or(self.started, |heard| heard.first);
        now.since(first)
    }

    /// The newest checkpoint that is known of a service: what all its holders have, about.
    pub(super) fn newest(&self, record: &ServiceRecord) -> CheckpointId {
        let Some(active) = record.active else { return CheckpointId::default() };
        let facts = self.others.get(&active.node).map(|heard| &heard.facts.services);
        let told = facts.into_iter().flatten().find(|(_, facts)| facts.epoch == record.epoch);
        told.map_or(CheckpointId::default(), |(_, facts)| facts.checkpoint)
    }

    pub(super) fn leader_known(&mut self, now: Instant, leader: Option<NodeId>, me: NodeId) {
        if let (Cold::Unknown, Some(leader)) = (self.cold, leader) {
            self.cold =
                if leader == me { Cold::Until(now + COLD_FOR) } else { Cold::Ask(leader, now) };
        }
    }

    /// This node is there.
    pub(super) fn meets(&mut self, member: Member) {
        self.met.entry(member.node).or_insert(member.incarnation);
    }

    /// Nodes that are no members any more are forgotten.
    pub(super) fn forget_strangers(&mut self, catalog: &Catalog) {
        self.met.retain(|node, _| catalog.members().contains_key(node));
    }

    /// Whether one of these lived after this node started. What it took with it when it died later
    /// was not lost with the whole cluster.
    fn has_met(&self, members: &BTreeSet<Member>) -> bool {
        let since = |member: &Member| self.met.get(&member.node).copied();
        members.iter().any(|member| since(member).is_some_and(|first| first <= member.incarnation))
    }

    /// Notes of which services a holder was met, as long as somebody may ask.
    fn note_met(&mut self, now: Instant, catalog: &Catalog) {
        if !self.is_cold(now) {
            return self.met_services.clear();
        }
        for (service, record) in catalog.services() {
            if !self.met_services.contains(service) && self.has_met(&record.holders) {
                self.met_services.insert(*service);
                self.urgent = true;
            }
        }
        if self.met_services.len() > MET_TOLD_MAX {
            self.cold = Cold::No;
        }
    }

    fn is_cold(&self, now: Instant) -> bool {
        match self.cold {
            Cold::Until(until) => now < until,
            Cold::Ask(..) | Cold::Unknown => true,
            Cold::No => false,
        }
    }

    /// Whether all who started cold with this node still say so.
    fn is_freshly_cold(&self, now: Instant) -> bool {
        match self.cold {
            Cold::Until(until) => now + COLD_FOR / 2 < until,
            Cold::Ask(..) | Cold::Unknown => true,
            Cold::No => false,
        }
    }

    /// The first leader that this node saw has told about itself.
    fn settle_cold(&mut self, now: Instant) {
        let Cold::Ask(leader, since) = self.cold else { return };
        if let Some(heard) = self.others.get(&leader) {
            self.cold = if heard.facts.cold { Cold::Until(since + COLD_FOR) } else { Cold::No };
        } else if now.since(since) > COLD_FOR {
            self.cold = Cold::No;
        }
    }
}

impl Node {
    /// Tells others how this node does.
    pub(super) fn fact_duties(&mut self) {
        self.facts.settle_cold(self.now);
        self.facts.note_met(self.now, &self.catalog);
        let unprepared = self.unprepared();
        if unprepared != self.facts.told_unprepared {
            self.facts.told_unprepared = unprepared;
            self.facts.urgent = true;
        }
        if !self.facts.urgent && self.now < self.facts.next {
            return;
        }
        self.facts.next = self.now + FACTS_EVERY;
        let urgent = core::mem::take(&mut self.facts.urgent);
        self.forgive_crashes();
        let mut facts = self.facts.of(self.me().node, self.me().node, self.now).unwrap_or_default();
        facts.services = self.service_facts();
        let mut bytes = encode(&facts);
        while bytes.len() > reach::FACTS_MAX {
            facts.services.pop();
            bytes = encode(&facts);
        }
        self.reach.handle(self.now, reach::Input::Facts { bytes, urgent });
    }

    /// What has run for so long has not ended in a row with what comes next; nor has what was
    /// long elsewhere.
    fn forgive_crashes(&mut self) {
        let (now, local) = (self.now, &self.local);
        let counts = |service: &ServiceId, crashes: &mut Crashes| match local.get(service) {
            Some(local) => local.phase != Phase::Serving || now.since(local.since) < STABLE_AFTER,
            None => now < crashes.retry_at.max(crashes.not_here_until) + STABLE_AFTER,
        };
        self.crashes.retain(counts);
    }

    fn service_facts(&self) -> Vec<(ServiceId, ServiceFacts)> {
        let one = |(service, local): (&ServiceId, &super::Local)| {
            let crashes = self.crashes.get(service);
            let detail = crashes.map_or("", |crashes| crashes.detail.as_str());
            let facts = ServiceFacts {
                epoch: local.epoch,
                phase: local.phase.into(),
                up: self.now.since(local.since),
                checkpoint: local.last.id,
                age: self.now.since(local.last.at),
                size: local.last.size,
                shipped: local.last.shipped,
                pause: local.last.pause,
                crashes: crashes.map_or(0, |crashes| crashes.count),
                detail: detail.chars().take(DETAIL_TOLD_MAX).collect(),
                next_try: crashes.and_then(|crashes| self.next_try(local.phase, crashes)),
            };
            (*service, facts)
        };
        self.local.iter().take(SERVICES_TOLD_MAX).map(one).collect()
    }

    fn next_try(&self, phase: Phase, crashes: &Crashes) -> Option<Span> {
        let waits = phase == Phase::Ended && crashes.retry_at > self.now;
        waits.then(|| crashes.retry_at.since(self.now))
    }

    /// The services whose program isn't compiled here yet.
    fn unprepared(&self) -> BTreeSet<ServiceId> {
        let waits = |(_, record): &(&ServiceId, &ServiceRecord)| !self.is_compiled_here(record);
        let waiting = self.catalog.services().iter().filter(waits);
        waiting.map(|(service, _)| *service).take(SERVICES_TOLD_MAX).collect()
    }

    fn is_compiled_here(&self, record: &ServiceRecord) -> bool {
        match (&record.spec.engine, &self.facts.compiled) {
            (EngineSpec::Wasm { module, .. }, Some(compiled)) => compiled.contains(module),
            (EngineSpec::Wasm { .. }, None) | (EngineSpec::Exec { .. }, _) => true,
        }
    }

    /// Whether a node can start a service's program at once, as far as it is known here.
    pub(super) fn is_prepared(
        &self,
        node: NodeId,
        service: ServiceId,
        record: &ServiceRecord,
    ) -> bool {
        if node == self.me().node {
            return self.is_compiled_here(record);
        }
        let heard = self.facts.others.get(&node);
        heard.is_some_and(|heard| !heard.facts.unprepared.contains(&service))
    }

    /// Whether all nodes that can be reached started when no leader was known, and met no holder
    /// since: the whole cluster was down, and this service's holders, of which none lives on, went
    /// down with it.
    pub(super) fn cluster_restarted(&self, service: ServiceId, holders: &BTreeSet<Member>) -> bool {
        let (me, now) = (self.me().node, self.now);
        if self.facts.has_met(holders) {
            return false;
        }
        let went_down = |facts: NodeFacts| facts.cold && !facts.met.contains(&service);
        let near = self.reach.reachable();
        near.into_iter().all(|node| self.facts.of(node, me, now).is_some_and(went_down))
    }

    /// Whether a node in reach says that it was there before, or met one of the holders since. It
    /// can be told for the first minute after a start: later nobody says any more that it was cold.
    pub(super) fn has_somebody_lived(
        &self,
        service: ServiceId,
        holders: &BTreeSet<Member>,
    ) -> bool {
        let (me, now) = (self.me().node, self.now);
        if !self.facts.is_freshly_cold(now) {
            return false;
        }
        let lived = |facts: NodeFacts| !facts.cold || facts.met.contains(&service);
        let mut near = self.reach.reachable().into_iter();
        self.facts.has_met(holders)
            || near.any(|node| self.facts.of(node, me, now).is_some_and(lived))
    }

    /// What a node says of itself, if it has been heard.
    pub fn facts_of(&self, node: NodeId) -> Option<NodeFacts> {
        let me = self.me().node;
        let mut facts = self.facts.of(node, me, self.now)?;
        if node == me {
            facts.services = self.service_facts();
        }
        Some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_met_lived_after_the_start() {
        let member =
            |incarnation| Member { node: NodeId([2; 32]), incarnation: Incarnation(incarnation) };
        let mut own = Own::new(Instant::ORIGIN, true);
        assert!(!own.has_met(&[member(31)].into()));
        own.meets(member(31));
        own.meets(member(33));
        for (incarnation, met) in [(30, false), (31, true), (32, true), (33, true)] {
            assert_eq!(own.has_met(&[member(incarnation)].into()), met, "{incarnation}");
        }
    }
}
