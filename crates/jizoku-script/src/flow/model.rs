//! The model test: whole flows, with controllers and nodes that crash at every step.
//!
//! Entries lie in a store that refuses older epochs, as the log and the catalog do together.
//! Messages are lost, doubled and come in any order. Whatever happens:
//! - no task begins twice, but for another attempt of an idempotent one, in another incarnation;
//! - no task that ended is begun again; what follows a step begins only after all of it succeeded;
//! - what an older controller does is refused once a newer one has written;
//! - every flow ends, and every reader of the entries sees the same end.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};

use super::tests::{member, nodes, plan};
use super::{Entry, Flow, FlowId, Input, Output, TaskId};
use crate::actor::{self, Node, Order, Word};
use crate::dice::Dice;
use crate::plan::{Plan, StepId};
use crate::run::{Cause, Ended, Failed};

const ID: FlowId = FlowId(9);
const NODES: u8 = 3;

const PLANS: [&str; 4] = [
    "run a() on \"n:12\"\nrun b() on \"n:3\"\nrun a() on \"n:1\"",
    "run i() on \"n:123\" limit 2\nrun a() on \"n:2\" recover { run b() on \"n:1\" }\nrun i() on \"n:3\"",
    "par {\nseq { run a() on \"n:1\"\nbarrier x\nrun b() on \"n:2\" }\n\
     seq { run b() on \"n:3\"\nbarrier x\nrun i() on \"n:1\" } }\nrun a() on \"n:2\"",
    "pause 1s\nrun a() on \"n:12\" within 20s on failure { run i() on \"n:3\" }",
];

enum Message {
    Order(u64, NodeId, Order),
    /// Heard by whoever drives the flow now.
    Word(Word),
}

struct World {
    dice: Dice,
    now: Instant,
    plan: Plan,
    members: BTreeMap<StepId, Vec<Member>>,
    entries: Vec<Entry>,
    epoch: u64,
    /// Controllers that believe that they drive the flow; the newest last.
    drivers: Vec<(u64, Flow)>,
    nodes: BTreeMap<NodeId, (Incarnation, Node)>,
    running: Vec<TaskId>,
    messages: Vec<Message>,
    begun: BTreeSet<TaskId>,
    /// What is told of each step's tasks, as the entries say it.
    steps: u64,
    fails: usize,
}

impl World {
    fn new(body: &str, seed: u64, fails: usize) -> World {
        let plan = plan(body);
        let members = nodes(&plan);
        let node = |n: u8| {
            let Member { node, incarnation } = member(n);
            (node, (incarnation, Node::new(node, incarnation)))
        };
        let flow = Flow::start(Instant::ORIGIN, ID, 1, plan.clone(), &members).unwrap();
        World {
            dice: Dice::new(seed),
            now: Instant::ORIGIN,
            plan,
            members,
            entries: Vec::new(),
            epoch: 1,
            drivers: [(1, flow)].into(),
            nodes: (1..=NODES).map(node).collect(),
            running: Vec::new(),
            messages: Vec::new(),
            begun: BTreeSet::new(),
            steps: 0,
            fails,
        }
    }

    fn has_finished(&self) -> bool {
        matches!(self.entries.last(), Some(Entry::Finished(_)))
    }

    /// One thing happens, chosen by the dice.
    fn happen(&mut self) {
        self.steps += 1;
        self.drive();
        if !self.messages.is_empty() && self.dice.chance(3, 4) {
            let at = self.dice.below(self.messages.len());
            let message = self.messages.swap_remove(at);
            self.deliver(message);
        } else if !self.running.is_empty() && self.dice.chance(1, 2) {
            let at = self.dice.below(self.running.len());
            let task = self.running.swap_remove(at);
            let failed = Failed { cause: Cause::Said, message: "no".into(), at: (1, 1) };
            let bad = self.dice.below(100) < self.fails;
            let ended = if bad { Ended::Failed(failed) } else { Ended::Succeeded };
            if let Some((_, node)) = self.nodes.get_mut(&task.node.node) {
                node.ended(task, ended);
            }
            self.drain(task.node.node);
        } else {
            self.now += Span::millis(200);
        }
    }

    /// Lets all drivers tick and takes what they want.
    fn drive(&mut self) {
        for at in 0..self.drivers.len() {
            let epoch = self.drivers[at].0;
            self.drivers[at].1.handle(self.now, Input::Tick);
            while let Some(output) = self.drivers[at].1.poll() {
                match output {
                    Output::Append { number, entry } => {
                        let newest = epoch == self.epoch;
                        let input = if newest {
                            self.check_entry(&entry);
                            self.entries.push(entry);
                            assert_eq!(number, self.entries.len() as u64, "no gaps");
                            Input::Appended(number)
                        } else {
                            Input::Refused
                        };
                        self.drivers[at].1.handle(self.now, input);
                    }
                    Output::Send(task) => self.order(epoch, task, Order::Run(task)),
                    Output::Ask(task) => self.order(epoch, task, Order::Ask(task)),
                    Output::Stop(task) => self.order(epoch, task, Order::Stop(task)),
                    Output::Watch { .. } | Output::Finished(_) | Output::Deposed => {}
                }
            }
        }
        self.drivers.retain(|(epoch, flow)| *epoch == self.epoch || flow.deadline().is_some());
    }

    /// A message is lost or doubled now and then.
    fn order(&mut self, epoch: u64, task: TaskId, order: Order) {
        for _ in 0..*self.dice.pick(&[0, 1, 1, 1, 1, 1, 2]) {
            self.messages.push(Message::Order(epoch, task.node.node, order.clone()));
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Order(epoch, to, order) => {
                if let Some((_, node)) = self.nodes.get_mut(&to) {
                    node.handle(self.now, ID, epoch, order);
                }
                self.drain(to);
            }
            Message::Word(word) => {
                let input = match word {
                    Word::Running(task) => Input::Running(task),
                    Word::Ended(task, ended) => Input::Ended(task, ended),
                    Word::Unknown(task) => Input::Unknown(task),
                    Word::Gone(task) => Input::Gone(task),
                    _ => return,
                };
                // Any of those who believe may hear it.
                if !self.drivers.is_empty() {
                    let at = self.dice.below(self.drivers.len());
                    self.drivers[at].1.handle(self.now, input);
                }
            }
        }
    }

    fn drain(&mut self, id: NodeId) {
        let Some((_, node)) = self.nodes.get_mut(&id) else { return };
        while let Some(output) = node.poll() {
            match output {
                actor::Output::Begin(task) => {
                    assert!(self.begun.insert(task), "{task:?} began twice");
                    let sent = self.entries.contains(&Entry::Sent(task));
                    assert!(sent, "{task:?} began before that was written");
                    self.running.push(task);
                }
                actor::Output::Stop(task) => {
                    self.running.retain(|other| *other != task);
                    let message = "stopped".into();
                    let failed = Failed { cause: Cause::Stopped, message, at: (0, 0) };
                    node.ended(task, Ended::Failed(failed));
                }
                actor::Output::Say(word) => {
                    for _ in 0..*self.dice.pick(&[0, 1, 1, 1, 1, 2]) {
                        self.messages.push(Message::Word(word.clone()));
                    }
                }
            }
        }
    }

    /// An entry must not say what the ones before it forbid.
    fn check_entry(&self, entry: &Entry) {
        assert!(!self.has_finished() || matches!(entry, Entry::Taken { .. }), "it had ended");
        let Entry::Sent(task) = entry else { return };
        let same = |other: &TaskId| other.step == task.step && other.node.node == task.node.node;
        for before in &self.entries {
            match before {
                Entry::Ended(other, _) => assert!(!same(other), "{task:?} had ended"),
                Entry::Sent(other) if same(other) => {
                    assert!(other.attempt < task.attempt, "{task:?} was sent twice");
                    assert_ne!(other.node, task.node, "the same incarnation");
                    let lost = self.entries.contains(&Entry::Lost(*other));
                    assert!(lost, "{other:?} wasn't lost");
                }
                _ => {}
            }
        }
        // In a plain sequence: all of the steps before have succeeded on all their nodes.
        if let crate::plan::StepKind::Seq(ids) = &self.plan.steps[0].kind
            && let Some(at) = ids.iter().position(|id| *id == task.step)
        {
            for earlier in &ids[..at] {
                for member in self.members.get(earlier).into_iter().flatten() {
                    let good = self.entries.iter().any(|entry| {
                        matches!(entry, Entry::Ended(t, Ended::Succeeded)
                            if t.step == *earlier && t.node.node == member.node)
                    });
                    let recovers = self.plan.steps[*earlier as usize].failure.is_some();
                    assert!(good || recovers, "{task:?} overtook step {earlier}");
                }
            }
        }
    }

    fn crash_controller(&mut self) {
        // The old one may not know for a while that it is the old one.
        if self.dice.chance(1, 2) {
            self.drivers.clear();
        }
        self.epoch += 1;
        let (plan, epoch) = (self.plan.clone(), self.epoch);
        let flow = Flow::take_over(self.now, ID, epoch, plan, &self.members, &self.entries);
        self.drivers.push((self.epoch, flow.unwrap()));
    }

    fn crash_node(&mut self, n: u8) {
        let id = member(n).node;
        self.running.retain(|task| task.node.node != id);
        let Some((incarnation, node)) = self.nodes.get_mut(&id) else { return };
        *incarnation = Incarnation(incarnation.0 + 1);
        *node = Node::new(id, *incarnation);
        let fresh = Member { node: id, incarnation: *incarnation };
        for (_, flow) in &mut self.drivers {
            flow.handle(self.now, Input::NodeLost(id));
            flow.handle(self.now, Input::NodeUp(fresh));
        }
    }

    /// What a new controller must be told: who is there now.
    fn introduce(&mut self) {
        let members: Vec<Member> = self
            .nodes
            .iter()
            .map(|(node, (incarnation, _))| Member { node: *node, incarnation: *incarnation })
            .collect();
        for member in members {
            for (_, flow) in &mut self.drivers {
                flow.handle(self.now, Input::NodeUp(member));
            }
        }
    }

    /// Goes on without crashes until the flow has ended.
    fn run_out(&mut self) {
        for _ in 0..20_000 {
            if self.has_finished() {
                return self.compare();
            }
            self.introduce();
            self.happen();
        }
        panic!("it never ended: {:#?}", self.entries);
    }

    /// Whoever reads the entries comes to the same end.
    fn compare(&self) {
        let plan = self.plan.clone();
        let read = Flow::take_over(self.now, ID, 99, plan, &self.members, &self.entries).unwrap();
        let Some(Entry::Finished(result)) = self.entries.last() else { panic!("finished") };
        assert_eq!(read.finished.as_ref(), Some(result));
        let succeeded = self.entries.iter().filter_map(|entry| match entry {
            Entry::Ended(task, Ended::Succeeded) => Some(task),
            _ => None,
        });
        for task in succeeded {
            assert!(self.begun.contains(task), "{task:?} succeeded without being begun");
        }
    }
}

/// Every step of a run is a step at which the controller, or a node, or both crash.
#[test]
fn crashes_at_every_step() {
    for (at, body) in PLANS.iter().enumerate() {
        let mut calm = World::new(body, at as u64, 0);
        calm.run_out();
        let length = calm.steps;
        for crash in 0..=length {
            for what in 0..=NODES {
                for second in [None, Some(crash + 1), Some(crash + 3)] {
                    let mut world = World::new(body, at as u64, 0);
                    for step in 0..=length + 3 {
                        if world.has_finished() {
                            break;
                        }
                        world.happen();
                        if step == crash {
                            if what == 0 {
                                world.crash_controller()
                            } else {
                                world.crash_node(what)
                            }
                        }
                        if second == Some(step) {
                            world.crash_controller();
                        }
                    }
                    world.run_out();
                }
            }
        }
    }
}

#[test]
fn crashes_by_chance_with_tasks_that_fail() {
    for seed in 0..1_500 {
        let mut world = World::new(PLANS[seed as usize % PLANS.len()], seed, 15);
        for _ in 0..world.dice.below(200) {
            if world.has_finished() {
                break;
            }
            world.happen();
            match world.dice.below(25) {
                0 => world.crash_controller(),
                1 => {
                    let node = 1 + u8::try_from(world.dice.below(usize::from(NODES))).unwrap_or(0);
                    world.crash_node(node);
                }
                2 => world.introduce(),
                _ => {}
            }
        }
        world.run_out();
    }
}
