//! Runner threads: one for each service that is active here.
//!
//! The thread owns the Runner and its instance, and gives each the other's outputs. An instance
//! has threads or processes of its own behind the contract, and wakes this thread by a message.
//!
//! Invariant: after the Runner has ended, its instance is stopped before the thread ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use jizoku_checkpoint::message::{Answer, FromHolder};
use jizoku_engine::{self as engine, Exit};
use jizoku_node::runner::{self, Assignment, Phase, Report, Runner};
use jizoku_node::wire::{StateMessage, StreamMessage};
use jizoku_streams::ToInstance;
use jizoku_types::{Event, GatewayId, Instant, Member, NodeId, Span};
use tokio::sync::oneshot;

use super::core;
use super::engines::{self, Engines};
use super::gauge::{Gauge, Measured, Used};
use super::holding::HolderMessage;
use super::mailbox::{Got, Mailbox, Sender, mailbox};
use super::output::OutputRing;
use super::wiring::Wiring;

/// Inputs that are taken before outputs are looked at.
const BATCH_MAX: usize = 64;
/// How long an instance may take to end before its thread gives it up.
const END_WITHIN: Duration = Duration::from_secs(5);
/// A program that accepts nobody for so long, or computes for so long without a pause, is stuck.
const STUCK_AFTER: Span = Span::secs(2);

/// What comes to a Runner's thread.
pub(crate) enum RunnerMessage {
    /// Something for the Runner.
    Runner(runner::Input),
    /// A holder's message.
    FromHolder { from: NodeId, message: FromHolder },
    /// A gateway's message.
    FromGateway { gateway: GatewayId, message: ToInstance },
    /// The instance has something to say.
    Wake,
    /// Somebody wants to know how the instance does.
    Measure(oneshot::Sender<Measured>),
}

/// Makes Runner threads.
pub(crate) struct Starter {
    wiring: Arc<Wiring>,
    engines: Arc<Engines>,
    output: Arc<OutputRing>,
}

impl Starter {
    pub(crate) fn new(
        wiring: Arc<Wiring>,
        engines: Arc<Engines>,
        output: Arc<OutputRing>,
    ) -> Starter {
        Starter { wiring, engines, output }
    }

    /// The engines that instances are started with.
    pub(crate) fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    /// Runs this assignment on a thread of its own.
    pub(crate) fn activate(&self, assignment: Assignment) {
        let (sender, inbox) = mailbox();
        let (service, epoch) = (assignment.service, assignment.epoch);
        let gauge = Arc::new(Gauge::default());
        self.wiring.add_runner(service, epoch, sender.clone(), Arc::clone(&gauge));
        let wiring = Arc::clone(&self.wiring);
        let engines = Arc::clone(&self.engines);
        let output = Arc::clone(&self.output);
        let spawned = std::thread::Builder::new().name(format!("{service}")).spawn(move || {
            let tools = (Arc::clone(&wiring), engines, output, gauge);
            Running::new(assignment, sender, tools).run(&inbox);
            wiring.remove_runner(service, epoch);
        });
        if let Err(error) = spawned {
            self.wiring.remove_runner(service, epoch);
            let exit = Exit::CannotStart(format!("no thread: {error}"));
            let (restored, ran) = Default::default();
            let report = Report::Exited { exit, restored, ran };
            self.wiring.core.send(core::report(service, epoch, report));
        }
    }
}

struct Running {
    runner: Runner,
    instance: Option<engines::Running>,
    lease: Option<Instant>,
    assignment: Assignment,
    sender: Sender<RunnerMessage>,
    wiring: Arc<Wiring>,
    engines: Arc<Engines>,
    output: Arc<OutputRing>,
    gauge: Arc<Gauge>,
    /// A wake is under way: no further one is needed.
    woken: Arc<AtomicBool>,
}

impl Running {
    fn new(
        mut assignment: Assignment,
        sender: Sender<RunnerMessage>,
        (wiring, engines, output, gauge): (Arc<Wiring>, Arc<Engines>, Arc<OutputRing>, Arc<Gauge>),
    ) -> Running {
        // What the own Holder has needs not be fetched. If its thread is gone, nothing is.
        let (reply, points) = sync_channel(1);
        wiring.holder.send(HolderMessage::Points(assignment.source(), reply));
        assignment.local = points.recv().unwrap_or_default();
        let runner = Runner::new(wiring.now(), assignment.clone());
        assignment.local.clear();
        let woken = Arc::new(AtomicBool::new(false));
        Running {
            runner,
            instance: None,
            lease: None,
            assignment,
            sender,
            wiring,
            engines,
            output,
            gauge,
            woken,
        }
    }

    fn run(mut self, inbox: &Mailbox<RunnerMessage>) {
        self.drain();
        while self.runner.phase() != Phase::Ended {
            match inbox.wait(self.patience()) {
                Got::One(message) => self.take(message),
                Got::Nothing => {}
                Got::Closed => break,
            }
            for _ in 0..BATCH_MAX {
                let Got::One(message) = inbox.take() else { break };
                self.take(message);
            }
            self.tick();
            self.drain();
        }
        self.end(inbox);
    }

    fn now(&self) -> Instant {
        self.wiring.now()
    }

    fn patience(&mut self) -> Duration {
        let instance = self.instance.as_mut().and_then(|running| running.instance().deadline());
        let next = self.runner.deadline().into_iter().chain(instance).min();
        let wait = next.map_or(1_000_000_000, |at| at.since(self.now()).as_nanos());
        Duration::from_nanos(wait)
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.runner.deadline().is_some_and(|at| at <= now) {
            self.runner.handle(now, runner::Input::Tick);
        }
        let instance = self.instance.as_mut().map(engines::Running::instance);
        if let Some(instance) = instance.filter(|one| one.deadline().is_some_and(|at| at <= now)) {
            instance.handle(now, engine::Input::Tick);
        }
    }

    fn take(&mut self, message: RunnerMessage) {
        let now = self.now();
        let input = match message {
            RunnerMessage::Runner(input) => {
                if let runner::Input::LeaseUntil(until) = input {
                    self.lease = Some(until);
                    if let Some(running) = &self.instance {
                        running.renew(until);
                    }
                }
                input
            }
            RunnerMessage::FromHolder { from, message } => {
                if let Answer::Ack { id } = &message.answer {
                    let holder = Member { node: from, incarnation: message.incarnation };
                    self.gauge.acknowledged(holder, *id);
                }
                runner::Input::FromHolder { from, message }
            }
            RunnerMessage::FromGateway { gateway, message } => {
                runner::Input::FromGateway { gateway, message }
            }
            RunnerMessage::Measure(reply) => {
                let measured = self
                    .instance
                    .as_mut()
                    .map(|one| measure(one.instance(), now, self.assignment.spec.ports.len()));
                // The asker may have given up.
                let _ = reply.send(measured.unwrap_or_default());
                return;
            }
            RunnerMessage::Wake => {
                self.woken.store(false, Ordering::Release);
                return;
            }
        };
        self.runner.handle(now, input);
    }

    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.instance.as_mut().and_then(|one| one.instance().poll()) {
                idle = false;
                let now = self.now();
                self.see(now, &output);
                self.runner.handle(now, runner::Input::Instance(output));
            }
            while let Some(output) = self.runner.poll() {
                idle = false;
                self.runner_says(output);
            }
            if idle {
                return;
            }
        }
    }

    /// Keeps the gauge right.
    fn see(&self, now: Instant, output: &engine::Output) {
        match output {
            engine::Output::Running { .. } => self.gauge.set_running(true),
            engine::Output::Captured { .. } => self.gauge.captured(now),
            engine::Output::Exited { .. } => self.gauge.set_running(false),
            _ => {}
        }
    }

    fn runner_says(&mut self, output: runner::Output) {
        let (service, epoch) = (self.assignment.service, self.assignment.epoch);
        match output {
            runner::Output::ToHolder { to, channel, message } => {
                self.wiring.send_state(to, channel, StateMessage::ToHolder(message));
            }
            runner::Output::ToGateway { gateway, message } => {
                let to = gateway.node;
                self.wiring.send_stream(to, StreamMessage::ToGateway { gateway, message });
            }
            runner::Output::StartInstance { identity, origin } => self.start(&identity, origin),
            runner::Output::ToInstance(input) => {
                let now = self.now();
                if let Some(running) = &mut self.instance {
                    running.instance().handle(now, input);
                }
            }
            runner::Output::Report(Report::Printed(line)) => {
                self.wiring.log.printed(self.assignment.spec.name.as_str(), &line);
                self.output.add(service, line);
            }
            runner::Output::Report(report) => {
                match &report {
                    Report::Committed(last) => {
                        self.gauge.committed(*last);
                        let stats = self.runner.shipping();
                        self.gauge.shipped(stats.raw, stats.sent);
                    }
                    Report::Adopted(last) => self.gauge.adopted(*last),
                    _ => {}
                }
                self.wiring.core.send(core::report(service, epoch, report));
            }
            runner::Output::Event(event) => {
                if matches!(event, Event::StateMayBeMissing { .. }) {
                    self.gauge.set_may_be_missing();
                }
                self.wiring.event(event);
            }
        }
    }

    fn start(&mut self, identity: &engine::Identity, origin: engine::Origin) {
        let (sender, woken) = (self.sender.clone(), Arc::clone(&self.woken));
        let waker = Box::new(move || {
            if !woken.swap(true, Ordering::AcqRel) {
                sender.send(RunnerMessage::Wake);
            }
        });
        match self.engines.start(&self.assignment.spec, identity, origin, self.lease, waker) {
            Ok(instance) => self.instance = Some(instance),
            Err(why) => {
                let exit = engine::Output::Exited { exit: Exit::CannotStart(why) };
                let now = self.now();
                self.runner.handle(now, runner::Input::Instance(exit));
            }
        }
    }

    /// Lets the instance end; after a while its own means (keeper, epoch interruption) do.
    fn end(&mut self, inbox: &Mailbox<RunnerMessage>) {
        let Some(mut instance) = self.instance.take() else { return };
        let give_up = std::time::Instant::now() + END_WITHIN;
        loop {
            while let Some(output) = instance.instance().poll() {
                if matches!(output, engine::Output::Exited { .. }) {
                    return;
                }
            }
            let patience = give_up.saturating_duration_since(std::time::Instant::now());
            if patience.is_zero() {
                return;
            }
            // Only wakes matter now; the rest has nobody to go to.
            let _ = inbox.wait(patience.min(Duration::from_millis(100)));
            self.woken.store(false, Ordering::Release);
        }
    }
}

fn measure(instance: &dyn engine::Instance, now: Instant, ports: usize) -> Measured {
    let usage = instance.usage();
    let pulse = instance.pulse(now);
    let stuck = |port| pulse.check(port, STUCK_AFTER).err().map(|why| why.to_string());
    Measured {
        used: Used { pid: usage.pid, cpu_ms: usage.cpu.as_millis(), memory_bytes: usage.memory.0 },
        stuck: (0..ports).map(stuck).collect(),
    }
}
