//! Who can be reached how inside one agent: the senders to its threads, the mesh, the gateway.
//!
//! What it does not know: what is sent.
//!
//! Invariant: frames may be lost here (their protocols repeat them); orders and reports are not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use jizoku_gateway::Gateway;
use jizoku_mesh::{MeshHandle, boottime_now};
use jizoku_node::wire::{ControlMessage, StateMessage, StreamMessage};
use jizoku_streams::ToInstance;
use jizoku_types::{Channel, Epoch, Event, GatewayId, Instant, Member, NodeId, ServiceId, encode};

use super::core::CoreMessage;
use super::events::EventRing;
use super::holding::HolderMessage;
use super::mailbox::Sender;
use super::running::RunnerMessage;

/// See the module's header.
pub(crate) struct Wiring {
    pub(crate) me: Member,
    pub(crate) mesh: MeshHandle,
    pub(crate) core: Sender<CoreMessage>,
    pub(crate) holder: Sender<HolderMessage>,
    pub(crate) events: EventRing,
    gateway: OnceLock<Gateway>,
    runners: Mutex<BTreeMap<ServiceId, RunnerEntry>>,
}

struct RunnerEntry {
    epoch: Epoch,
    sender: Sender<RunnerMessage>,
}

impl Wiring {
    pub(crate) fn new(
        me: Member,
        mesh: MeshHandle,
        core: Sender<CoreMessage>,
        holder: Sender<HolderMessage>,
    ) -> Arc<Wiring> {
        Arc::new(Wiring {
            me,
            mesh,
            core,
            holder,
            events: EventRing::new(me.node, me.incarnation),
            gateway: OnceLock::new(),
            runners: Mutex::new(BTreeMap::new()),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        boottime_now()
    }

    pub(crate) fn event(&self, event: Event) {
        super::journal::print(&event);
        self.events.add(self.now(), event);
    }

    /// Puts the gateway in. Once.
    pub(crate) fn set_gateway(&self, gateway: Gateway) {
        assert!(self.gateway.set(gateway).is_ok(), "there is one gateway");
    }

    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        self.gateway.get()
    }

    /// The Runner of a service is there from now on; one of an older epoch is forgotten, and
    /// ends when it is told to stop.
    pub(crate) fn add_runner(
        &self,
        service: ServiceId,
        epoch: Epoch,
        sender: Sender<RunnerMessage>,
    ) {
        let mut runners = self.runners.lock().expect("no panic while locked");
        runners.insert(service, RunnerEntry { epoch, sender });
    }

    /// The Runner has ended.
    pub(crate) fn remove_runner(&self, service: ServiceId, epoch: Epoch) {
        let mut runners = self.runners.lock().expect("no panic while locked");
        if runners.get(&service).is_some_and(|entry| entry.epoch == epoch) {
            runners.remove(&service);
        }
    }

    /// The Runner of a service, in whatever epoch or in this one.
    pub(crate) fn runner(
        &self,
        service: ServiceId,
        epoch: Option<Epoch>,
    ) -> Option<Sender<RunnerMessage>> {
        let runners = self.runners.lock().expect("no panic while locked");
        let entry = runners.get(&service)?;
        epoch.is_none_or(|epoch| epoch == entry.epoch).then(|| entry.sender.clone())
    }

    /// All Runners.
    pub(crate) fn runners(&self) -> Vec<Sender<RunnerMessage>> {
        let runners = self.runners.lock().expect("no panic while locked");
        runners.values().map(|entry| entry.sender.clone()).collect()
    }

    /// Sends a Node's message.
    pub(crate) fn send_control(&self, to: NodeId, message: &ControlMessage) {
        // No way there now: the protocols above repeat what matters.
        let _ = self.mesh.send(to, Channel::Control, encode(message));
    }

    /// Sends a checkpoint message; one to this node takes the short way.
    pub(crate) fn send_state(&self, to: NodeId, channel: Channel, message: StateMessage) {
        if to == self.me.node {
            self.take_state(to, message);
        } else {
            let _ = self.mesh.send(to, channel, encode(&message));
        }
    }

    /// Takes a checkpoint message that arrived.
    pub(crate) fn take_state(&self, from: NodeId, message: StateMessage) {
        match message {
            StateMessage::ToHolder(message) => {
                self.holder.offer(HolderMessage::Message { from, message });
            }
            StateMessage::FromHolder(message) => {
                if let Some(runner) = self.runner(message.service, None) {
                    runner.offer(RunnerMessage::FromHolder { from, message });
                }
            }
            // Taken by the keeper of modules before it comes here.
            StateMessage::Module(_) => {}
        }
    }

    /// Sends a connection's message; one to this node takes the short way.
    pub(crate) fn send_stream(&self, to: NodeId, message: StreamMessage) {
        if to == self.me.node {
            self.take_stream(to, message);
        } else {
            let _ = self.mesh.send(to, Channel::Streams, encode(&message));
        }
    }

    /// Takes a connection's message that arrived.
    pub(crate) fn take_stream(&self, from: NodeId, message: StreamMessage) {
        match message {
            StreamMessage::ToInstance { gateway, message } if gateway.node == from => {
                self.to_instance(gateway, message);
            }
            // A gateway speaks for itself only.
            StreamMessage::ToInstance { .. } => {}
            StreamMessage::ToGateway { gateway, message } => {
                if let (true, Some(own)) = (gateway == self.me, self.gateway()) {
                    own.message(message.service, from, message);
                }
            }
        }
    }

    fn to_instance(&self, gateway: GatewayId, message: ToInstance) {
        if let Some(runner) = self.runner(message.service, Some(message.epoch)) {
            runner.offer(RunnerMessage::FromGateway { gateway, message });
        }
    }
}
