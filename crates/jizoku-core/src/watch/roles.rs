//! Who probes, and who asks whom: the same on all nodes that know the same links.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_types::{NodeId, ServiceId};

use super::PROBERS;

type Links = BTreeMap<NodeId, BTreeSet<NodeId>>;

/// What this node is to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nobody is active: there is nothing to watch.
    None,
    /// Its active node; knows the probers.
    Active {
        /// Who probes it; nobody, if it has no neighbours.
        probers: Vec<NodeId>,
    },
    /// One of the probers; knows the others.
    Prober {
        /// Its place among them.
        place: usize,
        /// Who asks whom.
        helpers: Vec<NodeId>,
    },
    /// Asks others.
    Other {
        /// This node.
        me: NodeId,
        /// Whom to ask and how many ways from a prober this node is, once it was worked out.
        worked_out: Option<(Vec<NodeId>, u32)>,
    },
}

impl Role {
    pub(super) fn of(
        me: NodeId,
        service: ServiceId,
        active: Option<NodeId>,
        links: &Links,
    ) -> Role {
        let Some(active) = active else { return Role::None };
        let probers = probers(service, active, links);
        if me == active {
            return Role::Active { probers };
        }
        match probers.iter().position(|prober| *prober == me) {
            Some(place) => {
                let others = probers.into_iter().filter(|prober| *prober != me);
                Role::Prober { place, helpers: others.chain([active]).collect() }
            }
            None => Role::Other { me, worked_out: None },
        }
    }

    /// Whether this node keeps up its knowledge even if nobody wants it.
    pub(super) fn is_steady(&self) -> bool {
        matches!(self, Role::Active { .. } | Role::Prober { .. })
    }

    /// Through how many nodes observations come here.
    pub(super) fn depth(&self) -> u32 {
        match self {
            Role::Other { worked_out: Some((_, depth)), .. } => *depth,
            Role::Other { .. } => 1,
            _ => 0,
        }
    }

    /// Whom to ask. Works it out the first time.
    pub(super) fn helpers(
        &mut self,
        service: ServiceId,
        active: Option<NodeId>,
        links: &Links,
    ) -> Vec<NodeId> {
        match self {
            Role::None => Vec::new(),
            Role::Active { probers } => probers.clone(),
            Role::Prober { helpers, .. } => helpers.clone(),
            Role::Other { me, worked_out } => {
                let Some(active) = active else { return Vec::new() };
                let worked_out =
                    worked_out.get_or_insert_with(|| work_out(*me, service, active, links));
                worked_out.0.clone()
            }
        }
    }
}

/// The neighbours of the active node that probe it.
pub(super) fn probers(service: ServiceId, active: NodeId, links: &Links) -> Vec<NodeId> {
    let neighbours = links.get(&active).into_iter().flatten().copied();
    few(service, neighbours.filter(|node| *node != active).collect())
}

/// The first few by lot.
fn few(service: ServiceId, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
    nodes.sort_by_key(|node| (lot(service, *node), *node));
    nodes.truncate(PROBERS);
    nodes
}

/// A lot that everybody draws alike. Ids are random already, so a good mixer is enough.
fn lot(service: ServiceId, node: NodeId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&node.0[..8]);
    let mut x = u64::from_le_bytes(first) ^ service.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whom a node asks that neither probes nor is active: neighbours that are nearer to a prober, on
/// ways around the active node. If there are none, the probers themselves, through the mesh.
fn work_out(me: NodeId, service: ServiceId, active: NodeId, links: &Links) -> (Vec<NodeId>, u32) {
    let probers = probers(service, active, links);
    let own: BTreeSet<NodeId> = links.get(&me).cloned().unwrap_or_default();
    let mut seen: BTreeSet<NodeId> = probers.iter().copied().chain([active]).collect();
    let mut rim = probers.clone();
    let mut depth = 1;
    while !rim.is_empty() {
        let near: Vec<NodeId> = rim.iter().filter(|node| own.contains(node)).copied().collect();
        if !near.is_empty() {
            return (few(service, near), depth);
        }
        let around = rim.iter().filter_map(|node| links.get(node)).flatten();
        let next: BTreeSet<NodeId> = around.filter(|node| !seen.contains(node)).copied().collect();
        seen.extend(&next);
        rim = next.into_iter().collect();
        depth += 1;
    }
    (probers, 1)
}
