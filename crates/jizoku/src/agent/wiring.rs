//! Who can be reached how inside one agent: the senders to its threads, the mesh, the gateway.
//!
//! What it does not know: what is sent.
//!
//! Invariant: frames may be lost here (their protocols repeat them); orders and reports are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jizoku_gateway::Gateway;
use jizoku_manifest::LogLevel;
use jizoku_mesh::{MeshHandle, boottime_now};
use jizoku_node::wire::{ControlMessage, StateMessage, StreamMessage};
use jizoku_streams::ToInstance;
use jizoku_types::{Channel, Epoch, Event, GatewayId, Instant, Member, NodeId, ServiceId, encode};

use tokio::sync::oneshot;

use super::core::CoreMessage;
use super::events::EventRing;
use super::gauge::{Gauge, Reading};
use super::holding::HolderMessage;
use super::journal::Journal;
use super::log::LogPool;
use super::mailbox::Sender;
use super::pump::Pump;
use super::running::RunnerMessage;

/// How long Runners' threads may take to say how their instances do.
const MEASURED_WITHIN: Duration = Duration::from_millis(100);

/// See the module's header.
pub(crate) struct Wiring {
    pub(crate) me: Member,
    pub(crate) mesh: MeshHandle,
    pub(crate) core: Sender<CoreMessage>,
    pub(crate) holder: Sender<HolderMessage>,
    pub(crate) events: EventRing,
    pub(crate) journal: Journal,
    pub(crate) log: Arc<LogPool>,
    pump: Arc<Pump>,
    /// How often another node said that this one is no member.
    shut_out: AtomicU64,
    /// Those whose last word that was.
    shut_out_by: Mutex<BTreeSet<NodeId>>,
    gateway: OnceLock<Gateway>,
    runners: Mutex<BTreeMap<ServiceId, RunnerEntry>>,
}

struct RunnerEntry {
    epoch: Epoch,
    sender: Sender<RunnerMessage>,
    gauge: Arc<Gauge>,
}

impl Wiring {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(
        me: Member,
        mesh: MeshHandle,
        (core, holder): (Sender<CoreMessage>, Sender<HolderMessage>),
        level: LogLevel,
        log: LogPool,
    ) -> Arc<Wiring> {
        let pump = Pump::new(mesh.clone());
        Arc::new(Wiring {
            me,
            mesh,
            core,
            holder,
            events: EventRing::new(me.node, me.incarnation),
            journal: Journal::start(level),
            log: Arc::new(log),
            pump,
            shut_out: AtomicU64::new(0),
            shut_out_by: Mutex::new(BTreeSet::new()),
            gateway: OnceLock::new(),
            runners: Mutex::new(BTreeMap::new()),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        boottime_now()
    }

    pub(crate) fn event(&self, event: Event) {
        self.journal.print(&event);
        self.log.event(&event);
        self.events.add(self.now(), event);
    }

    /// Another node said that this one is no member.
    pub(crate) fn is_shut_out(&self, by: NodeId) {
        self.shut_out.fetch_add(1, Ordering::Relaxed);
        self.shut_out_by.lock().expect("no panic while locked").insert(by);
    }

    /// Another node takes this one for a member.
    pub(crate) fn is_let_in(&self, by: NodeId) {
        self.shut_out_by.lock().expect("no panic while locked").remove(&by);
    }

    /// The nodes that said last that this one is no member.
    pub(crate) fn shut_out_by(&self) -> BTreeSet<NodeId> {
        self.shut_out_by.lock().expect("no panic while locked").clone()
    }

    /// How often that happened.
    pub(crate) fn shut_out(&self) -> u64 {
        self.shut_out.load(Ordering::Relaxed)
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
        gauge: Arc<Gauge>,
    ) {
        let mut runners = self.runners.lock().expect("no panic while locked");
        runners.insert(service, RunnerEntry { epoch, sender, gauge });
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

    /// What can be read off all Runners here. A thread that is busy says nothing of its own.
    pub(crate) async fn readings(&self) -> BTreeMap<ServiceId, Reading> {
        let mut asked = Vec::new();
        {
            let runners = self.runners.lock().expect("no panic while locked");
            for (service, entry) in runners.iter() {
                let (reply, answer) = oneshot::channel();
                entry.sender.send(RunnerMessage::Measure(reply));
                asked.push((*service, Arc::clone(&entry.gauge), answer));
            }
        }
        let give_up = tokio::time::Instant::now() + MEASURED_WITHIN;
        let mut readings = BTreeMap::new();
        for (service, gauge, answer) in asked {
            let measured = tokio::time::timeout_at(give_up, answer).await;
            let reading = gauge.read(self.now());
            let reading = match measured {
                Ok(Ok(measured)) => reading.with(measured),
                _ => reading,
            };
            readings.insert(service, reading);
        }
        readings
    }

    /// Whether the instance of a service runs here, in this epoch.
    pub(crate) fn is_running(&self, service: ServiceId, epoch: Epoch) -> bool {
        let runners = self.runners.lock().expect("no panic while locked");
        runners.get(&service).is_some_and(|entry| entry.epoch == epoch && entry.gauge.is_running())
    }

    /// Whether the gateway here follows the service's instance of this epoch.
    pub(crate) fn follows(&self, service: ServiceId, epoch: Epoch) -> bool {
        let stats = self.gateway().map(Gateway::stats).unwrap_or_default();
        stats.get(&service).is_some_and(|stats| stats.read().attached == Some(epoch))
    }

    /// Frames that were dropped because too many waited for their node.
    pub(crate) fn frames_dropped(&self) -> u64 {
        self.pump.dropped()
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
            self.pump.send(to, channel, encode(&message));
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
            // Taken before by the keeper of modules, by whoever looks, by the log pool, and by
            // whoever runs scripts.
            StateMessage::Module(_)
            | StateMessage::Look(_)
            | StateMessage::Log(_)
            | StateMessage::Script(_) => {}
        }
    }

    /// Sends a connection's message; one to this node takes the short way.
    pub(crate) fn send_stream(&self, to: NodeId, message: StreamMessage) {
        if to == self.me.node {
            self.take_stream(to, message);
        } else {
            self.pump.send(to, Channel::Streams, encode(&message));
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
