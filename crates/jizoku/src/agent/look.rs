//! What only other nodes' agents can see: their instances, their gateways' connections, what
//! their holders acknowledged, what a program printed. Asked when a person wants to know.
//!
//! What it does not know: how it is shown. It decides nothing: an answer may be missing.
//!
//! Limits: [`WITHIN`] for all answers together; [`ASKED_MAX`] questions under way, further ones
//! get this node's own answer only; [`CONNS_MAX`] connections of a service from each node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jizoku_gateway::{ConnView, ServiceStats};
use jizoku_node::wire::{LookMessage, StateMessage};
use jizoku_types::{Channel, Incarnation, NodeId, ServiceId, decode, encode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::gauge::Reading;
use super::output::OutputRing;
use super::wiring::Wiring;

/// How long others' answers are waited for.
const WITHIN: Duration = Duration::from_millis(400);
/// Questions under way.
const ASKED_MAX: usize = 64;
/// Lines of a service's output that are shown.
const PRINTED: usize = 20;
/// Connections that are shown, of each node.
const CONNS_MAX: usize = 200;

/// What one node sees.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sight {
    /// Its agent's version.
    pub(crate) version: String,
    /// Its agent's incarnation.
    pub(crate) incarnation: Incarnation,
    /// The services whose Runner is there.
    pub(crate) instances: BTreeMap<ServiceId, Reading>,
    /// Open connections at its gateway.
    pub(crate) conns: BTreeMap<ServiceId, u64>,
    /// Published ports that its gateway can't open, each with the cause.
    pub(crate) closed: Vec<(ServiceId, String)>,
    /// What the service printed there, the oldest line first; only of the one that was asked for.
    pub(crate) printed: Vec<String>,
    /// Its connections there; likewise.
    pub(crate) listed: Vec<Listed>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) counter: u64,
    pub(crate) port: u8,
    pub(crate) client: String,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
    pub(crate) held_bytes: u64,
}

impl From<ConnView> for Listed {
    fn from(conn: ConnView) -> Listed {
        Listed {
            counter: conn.counter,
            port: conn.port,
            client: conn.peer.to_string(),
            in_bytes: conn.input,
            out_bytes: conn.output,
            held_bytes: conn.held,
        }
    }
}

/// What all nodes see that answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sights {
    pub(crate) by_node: BTreeMap<NodeId, Sight>,
    /// Members that were asked and did not answer in time.
    pub(crate) silent: BTreeSet<NodeId>,
}

impl Sights {
    /// Open connections of a service, over all gateways that answered.
    pub(crate) fn conns(&self, service: ServiceId) -> u32 {
        let all = self.by_node.values().filter_map(|sight| sight.conns.get(&service));
        u32::try_from(all.sum::<u64>()).unwrap_or(u32::MAX)
    }

    /// What the node that runs a service says of the instance.
    pub(crate) fn instance(&self, node: NodeId, service: ServiceId) -> Option<&Reading> {
        self.by_node.get(&node)?.instances.get(&service)
    }
}

/// See the module's header.
#[derive(Default)]
pub(crate) struct Look {
    next: AtomicU64,
    asked: Mutex<BTreeMap<u64, mpsc::Sender<(NodeId, Sight)>>>,
}

impl Look {
    /// Asks these nodes, and this one.
    pub(crate) async fn around(
        &self,
        nodes: BTreeSet<NodeId>,
        service: Option<ServiceId>,
        wiring: &Wiring,
        output: &OutputRing,
    ) -> Sights {
        let own = see(service, wiring, output).await;
        let mut sights = Sights::default();
        sights.by_node.insert(wiring.me.node, own);
        let mut open: BTreeSet<NodeId> =
            nodes.into_iter().filter(|node| *node != wiring.me.node).collect();
        let Some((number, mut answers)) = self.begin(open.len()) else { return sights };
        for node in &open {
            let ask = LookMessage::Ask { number, service };
            wiring.send_state(*node, Channel::State, StateMessage::Look(ask));
        }
        let all = async {
            while !open.is_empty() {
                let Some((from, sight)) = answers.recv().await else { return };
                if open.remove(&from) {
                    sights.by_node.insert(from, sight);
                }
            }
        };
        // Who hasn't answered by then is silent.
        let _ = tokio::time::timeout(WITHIN, all).await;
        self.asked.lock().expect("no panic while locked").remove(&number);
        sights.silent = open;
        sights
    }

    fn begin(&self, nodes: usize) -> Option<(u64, mpsc::Receiver<(NodeId, Sight)>)> {
        let mut asked = self.asked.lock().expect("no panic while locked");
        if asked.len() >= ASKED_MAX || nodes == 0 {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(nodes);
        asked.insert(number, sender);
        Some((number, answers))
    }

    /// Takes a message of another agent. Must be called within a tokio runtime.
    pub(crate) fn take(
        &self,
        from: NodeId,
        message: LookMessage,
        wiring: &Arc<Wiring>,
        output: &Arc<OutputRing>,
    ) {
        match message {
            LookMessage::Ask { number, service } => {
                let (wiring, output) = (Arc::clone(wiring), Arc::clone(output));
                tokio::spawn(async move {
                    let bytes = encode(&see(service, &wiring, &output).await);
                    let tell = StateMessage::Look(LookMessage::Tell { number, bytes });
                    wiring.send_state(from, Channel::State, tell);
                });
            }
            LookMessage::Tell { number, bytes } => {
                let asked = self.asked.lock().expect("no panic while locked");
                // One that can't be read is of another version: its node counts as silent.
                if let (Some(asker), Ok(sight)) = (asked.get(&number), decode(&bytes)) {
                    // Full: it answered more often than it was asked.
                    let _ = asker.try_send((from, sight));
                }
            }
        }
    }
}

/// What this node sees.
async fn see(service: Option<ServiceId>, wiring: &Wiring, output: &OutputRing) -> Sight {
    let stats = wiring.gateway().map(jizoku_gateway::Gateway::stats).unwrap_or_default();
    let mut sight = Sight {
        version: env!("CARGO_PKG_VERSION").into(),
        incarnation: wiring.me.incarnation,
        instances: wiring.readings().await,
        conns: stats.iter().map(|(id, stats)| (*id, stats.read().conns)).collect(),
        closed: closed(&stats),
        ..Sight::default()
    };
    if let (Some(service), Some(gateway)) = (service, wiring.gateway()) {
        sight.printed = output.last(service, PRINTED);
        let listed = gateway.conns(service, CONNS_MAX).await;
        sight.listed = listed.into_iter().map(Listed::from).collect();
    }
    sight
}

fn closed(stats: &BTreeMap<ServiceId, Arc<ServiceStats>>) -> Vec<(ServiceId, String)> {
    let of_one = |(service, stats): (&ServiceId, &Arc<ServiceStats>)| {
        let (service, closed) = (*service, stats.closed());
        closed.into_iter().map(move |(at, why)| (service, format!("{at}: {why}")))
    };
    stats.iter().flat_map(of_one).collect()
}
