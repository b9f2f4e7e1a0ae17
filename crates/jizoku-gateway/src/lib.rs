//! L3: the proxy of a node: TCP listeners on the published ports, and clients' sockets.
//!
//! All protocol is in [`jizoku_streams::GatewayEnd`]; this crate only moves bytes between it and
//! sockets. One task owns the end of one service; one small task reads each client.
//!
//! - [`Gateway`]: what an agent starts and tells
//! - `service`: the task of one service
//! - `client`: one client's socket
//!
//! What it does not know: the mesh (it is given a way to send), who is active and why.
//!
//! Invariants
//! - There is one `GatewayEnd` for a service for the gateway's whole life, also while the service
//!   is stopped: its counters never begin again.
//! - A client's socket is read only while its end has room, and written in the order of the end's
//!   outputs.
//! - Dropping the [`Gateway`] closes every listener and every client.
//!
//! Limits: those of `GatewayEnd`; [`COMMANDS_MAX`] commands may wait for a service. At the limit
//! a message of an instance is dropped and counted: the session is begun anew by the protocol.

#![forbid(unsafe_code)]

mod client;
mod listen;
mod service;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use jizoku_streams::{ToGateway, ToInstance};
use jizoku_types::event::ResetCause;
use jizoku_types::{Epoch, GatewayId, Instant, NodeId, ServiceId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

pub use jizoku_streams::gateway::ConnView;
pub use service::{ServiceCounts, ServiceStats};

/// Commands that may wait for one service.
pub const COMMANDS_MAX: usize = 16_384;

/// What the gateway tells its owner. Called from its tasks: must not block.
pub trait Owner: Send + Sync + 'static {
    /// The time on the agent's clock.
    fn now(&self) -> Instant;
    /// Send this to the instance on that node.
    fn send(&self, to: NodeId, gateway: GatewayId, message: ToInstance);
    /// The first output of this epoch went to a client here.
    fn first_output(&self, service: ServiceId, epoch: Epoch);
    /// A client's connection was reset.
    fn reset(&self, service: ServiceId, cause: ResetCause);
    /// A port can't be opened; it is tried again.
    fn trouble(&self, service: ServiceId, what: String);
}

/// Where connections to a service go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Ports to listen on, in the order of the service's ports.
    pub ports: Vec<u16>,
    /// Whether output waits for commits.
    pub held: bool,
    /// Who serves, in which epoch; none: connections wait.
    pub active: Option<(NodeId, Epoch)>,
    /// Whether the service shall run; if not, connections are refused.
    pub wanted: bool,
}

/// The gateway of one node.
pub struct Gateway {
    me: GatewayId,
    bind: Vec<IpAddr>,
    owner: Arc<dyn Owner>,
    runtime: Handle,
    services: Mutex<BTreeMap<ServiceId, Running>>,
}

struct Running {
    commands: mpsc::Sender<service::Command>,
    stats: Arc<ServiceStats>,
    task: tokio::task::AbortHandle,
}

impl Gateway {
    /// A gateway that listens on these addresses once services have ports. Must be called within
    /// a tokio runtime.
    pub fn start(me: GatewayId, bind: Vec<IpAddr>, owner: Arc<dyn Owner>) -> Gateway {
        let runtime = Handle::current();
        Gateway { me, bind, owner, runtime, services: Mutex::new(BTreeMap::new()) }
    }

    /// Says where a service's connections go; none: the service is gone for good.
    pub fn route(&self, service: ServiceId, route: Option<Route>) {
        let mut services = self.services.lock().expect("no panic while locked");
        let Some(route) = route else {
            if let Some(running) = services.remove(&service) {
                running.task.abort();
            }
            return;
        };
        let running = services.entry(service).or_insert_with(|| self.run(service, route.held));
        running.tell(service::Command::Route(route));
    }

    /// Passes on a message of an instance.
    pub fn message(&self, service: ServiceId, from: NodeId, message: ToGateway) {
        let services = self.services.lock().expect("no panic while locked");
        if let Some(running) = services.get(&service) {
            running.tell(service::Command::Message { from, message });
        }
    }

    /// A way to this node is there again.
    pub fn link_back(&self, node: NodeId) {
        let services = self.services.lock().expect("no panic while locked");
        for running in services.values() {
            running.tell(service::Command::LinkBack(node));
        }
    }

    /// What was seen of each service.
    pub fn stats(&self) -> BTreeMap<ServiceId, Arc<ServiceStats>> {
        let services = self.services.lock().expect("no panic while locked");
        services.iter().map(|(service, running)| (*service, Arc::clone(&running.stats))).collect()
    }

    /// The connections of a service here, the oldest first, at most so many.
    pub async fn conns(&self, service: ServiceId, most: usize) -> Vec<ConnView> {
        let (reply, answer) = oneshot::channel();
        {
            let services = self.services.lock().expect("no panic while locked");
            let Some(running) = services.get(&service) else { return Vec::new() };
            running.tell(service::Command::Conns { most, reply });
        }
        // A service that was removed meanwhile has none.
        answer.await.unwrap_or_default()
    }

    fn run(&self, service: ServiceId, held: bool) -> Running {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let stats = Arc::new(ServiceStats::default());
        let task = service::Task::new(
            (self.me, service, held),
            self.bind.clone(),
            Arc::clone(&self.owner),
            Arc::clone(&stats),
        );
        let task = self.runtime.spawn(task.run(inbox)).abort_handle();
        Running { commands, stats, task }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for running in self.services.lock().expect("no panic while locked").values() {
            running.task.abort();
        }
    }
}

impl Running {
    fn tell(&self, command: service::Command) {
        // A full inbox loses the command. Messages are repeated by the protocol, and routes by
        // the next change or attach; the count shows that it happened.
        if self.commands.try_send(command).is_err() {
            self.stats.count_overflow();
        }
    }
}
