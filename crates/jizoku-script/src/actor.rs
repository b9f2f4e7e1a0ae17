//! Actors: what a node knows of the tasks that it was sent, and which flow holds it.
//!
//! What it does not know: scripts, how a task is run, who may send one.
//!
//! Invariants
//! - A task begins at most once, however often and from whomever its request comes.
//! - A task that was stopped before it came never begins.
//! - Whoever speaks for a flow in an older epoch than the newest that was heard is refused.
//! - At most one synchronised flow holds the node. A flow that isn't heard of for [`HELD_FOR`]
//!   holds nothing any more.
//!
//! Limits: [`TASKS_MAX`] tasks and [`FLOWS_MAX`] flows; more are refused, with the reason.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};

use jizoku_types::{Incarnation, Instant, NodeId, Span};
use serde::{Deserialize, Serialize};

use crate::flow::{FlowId, TaskId};
use crate::run::{Cause, Ended, Failed};

/// Tasks that a node remembers.
pub const TASKS_MAX: usize = 16_384;
/// Flows that a node remembers, those that ended among them.
pub const FLOWS_MAX: usize = 1_024;
/// How long a flow that isn't heard of holds a node.
pub const HELD_FOR: Span = Span::secs(120);

/// What controllers say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// The flow will send tasks; a synchronised one holds the node from now on. Said again, it
    /// keeps it.
    Bind {
        /// Hold the node.
        hold: bool,
    },
    /// Begin a task.
    Run(TaskId),
    /// How is a task?
    Ask(TaskId),
    /// Stop a task.
    Stop(TaskId),
    /// The flow has ended: forget it.
    Release,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Word {
    /// The flow may send tasks.
    Bound,
    /// It may not: this flow holds the node.
    Held(FlowId),
    /// It may not: there is a newer epoch of it.
    Newer(u64),
    /// It may not, for this reason.
    Refused(String),
    /// A task is under way.
    Running(TaskId),
    /// A task has ended.
    Ended(TaskId, Ended),
    /// A task was never sent.
    Unknown(TaskId),
    /// A task was sent to an earlier incarnation.
    Gone(TaskId),
}

/// What the owner shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Begin a task; say [`Node::ended`] when it has.
    Begin(TaskId),
    /// Stop a task, with all that it started.
    Stop(TaskId),
    /// Say this to whoever asked.
    Say(Word),
}

#[derive(Debug, Default)]
struct Known {
    epoch: u64,
    tasks: BTreeSet<TaskId>,
    released: bool,
}

#[derive(Clone, Debug)]
enum Task {
    Running,
    Ended(Ended),
}

/// What one node knows.
#[derive(Debug)]
pub struct Node {
    me: (NodeId, Incarnation),
    flows: BTreeMap<FlowId, Known>,
    /// Flows in the order in which they came.
    order: VecDeque<FlowId>,
    tasks: BTreeMap<TaskId, Task>,
    holder: Option<(FlowId, Instant)>,
    out: VecDeque<Output>,
}

impl Node {
    /// A node that was just started.
    pub fn new(node: NodeId, incarnation: Incarnation) -> Node {
        Node {
            me: (node, incarnation),
            flows: BTreeMap::new(),
            order: VecDeque::new(),
            tasks: BTreeMap::new(),
            holder: None,
            out: VecDeque::new(),
        }
    }

    /// What it wants, one after the other.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Which flow holds it.
    pub fn holder(&self) -> Option<FlowId> {
        self.holder.map(|(flow, _)| flow)
    }

    /// A task that was begun has ended.
    pub fn ended(&mut self, task: TaskId, ended: Ended) {
        if let Some(known) = self.tasks.get_mut(&task)
            && matches!(known, Task::Running)
        {
            *known = Task::Ended(ended.clone());
            self.say(Word::Ended(task, ended));
        }
    }

    /// A controller says something, for a flow in an epoch.
    pub fn handle(&mut self, now: Instant, flow: FlowId, epoch: u64, order: Order) {
        if let Some((_, until)) = self.holder
            && until <= now
        {
            self.holder = None;
        }
        if let Err(word) = self.hear(flow, epoch) {
            return self.say(word);
        }
        if let Some((holder, until)) = &mut self.holder
            && *holder == flow
        {
            *until = now + HELD_FOR;
        }
        match order {
            Order::Bind { hold } => self.bind(now, flow, hold),
            Order::Run(task) | Order::Ask(task) | Order::Stop(task) if task.flow != flow => {
                self.say(Word::Refused("a task of another flow".to_string()));
            }
            Order::Run(task) => self.run(task),
            Order::Ask(task) => self.ask(task),
            Order::Stop(task) => self.stop(task),
            Order::Release => self.release(flow),
        }
    }

    fn say(&mut self, word: Word) {
        self.out.push_back(Output::Say(word));
    }

    /// Takes note of a flow's epoch, unless a newer one is known.
    fn hear(&mut self, flow: FlowId, epoch: u64) -> Result<(), Word> {
        if let Some(known) = self.flows.get_mut(&flow) {
            if known.epoch > epoch {
                return Err(Word::Newer(known.epoch));
            }
            known.epoch = epoch;
            return Ok(());
        }
        if self.flows.len() >= FLOWS_MAX && !self.forget() {
            return Err(Word::Refused("too many flows on this node".to_string()));
        }
        self.flows.insert(flow, Known { epoch, ..Known::default() });
        self.order.push_back(flow);
        Ok(())
    }

    /// Forgets the oldest flow that has ended.
    fn forget(&mut self) -> bool {
        let released = |flow: &FlowId| self.flows.get(flow).is_none_or(|known| known.released);
        let Some(at) = self.order.iter().position(released) else { return false };
        if let Some(flow) = self.order.remove(at) {
            self.flows.remove(&flow);
        }
        true
    }

    fn bind(&mut self, now: Instant, flow: FlowId, hold: bool) {
        let word = match self.holder {
            Some((holder, _)) if hold && holder != flow => Word::Held(holder),
            _ => {
                if hold {
                    self.holder = Some((flow, now + HELD_FOR));
                }
                Word::Bound
            }
        };
        self.say(word);
    }

    fn is_mine(&self, task: TaskId) -> bool {
        (task.node.node, task.node.incarnation) == self.me
    }

    fn run(&mut self, task: TaskId) {
        if !self.is_mine(task) || self.tasks.contains_key(&task) {
            return self.ask(task);
        }
        let Some(known) = self.flows.get_mut(&task.flow) else { return };
        if known.released || self.tasks.len() >= TASKS_MAX {
            let what = if known.released { "its flow has ended" } else { "too many tasks here" };
            let failed = Failed { cause: Cause::Limit, message: what.to_string(), at: (0, 0) };
            return self.say(Word::Ended(task, Ended::Failed(failed)));
        }
        known.tasks.insert(task);
        self.tasks.insert(task, Task::Running);
        self.out.push_back(Output::Begin(task));
        self.say(Word::Running(task));
    }

    fn ask(&mut self, task: TaskId) {
        let word = match self.tasks.get(&task) {
            Some(Task::Running) => Word::Running(task),
            Some(Task::Ended(ended)) => Word::Ended(task, ended.clone()),
            None if self.is_mine(task) => Word::Unknown(task),
            None => Word::Gone(task),
        };
        self.say(word);
    }

    fn stop(&mut self, task: TaskId) {
        match self.tasks.get(&task) {
            Some(Task::Running) => self.out.push_back(Output::Stop(task)),
            Some(Task::Ended(_)) => self.ask(task),
            None if self.is_mine(task) && self.tasks.len() < TASKS_MAX => {
                // Its request may still be under way: it must not begin when it comes.
                let message = "stopped before it began".to_string();
                let ended = Ended::Failed(Failed { cause: Cause::Stopped, message, at: (0, 0) });
                if let Some(known) = self.flows.get_mut(&task.flow) {
                    known.tasks.insert(task);
                }
                self.tasks.insert(task, Task::Ended(ended));
                self.ask(task);
            }
            None => self.ask(task),
        }
    }

    fn release(&mut self, flow: FlowId) {
        if self.holder.is_some_and(|(holder, _)| holder == flow) {
            self.holder = None;
        }
        let Some(known) = self.flows.get_mut(&flow) else { return };
        known.released = true;
        for task in core::mem::take(&mut known.tasks) {
            if matches!(self.tasks.get(&task), Some(Task::Running)) {
                self.out.push_back(Output::Stop(task));
            }
            self.tasks.remove(&task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use jizoku_types::Member;

    const NOW: Instant = Instant::ORIGIN;
    const A: FlowId = FlowId(1);
    const B: FlowId = FlowId(2);

    fn node() -> Node {
        Node::new(NodeId([1; 32]), Incarnation(5))
    }

    fn task(flow: FlowId, incarnation: u64) -> TaskId {
        let node = Member { node: NodeId([1; 32]), incarnation: Incarnation(incarnation) };
        TaskId { flow, step: 1, node, attempt: 0 }
    }

    fn told(node: &mut Node, flow: FlowId, epoch: u64, order: Order) -> Vec<Output> {
        node.handle(NOW, flow, epoch, order);
        core::iter::from_fn(|| node.poll()).collect()
    }

    #[test]
    fn a_task_begins_once_and_its_end_is_told_again() {
        let mut node = node();
        let t = task(A, 5);
        let begun = told(&mut node, A, 1, Order::Run(t));
        assert_eq!(begun, [Output::Begin(t), Output::Say(Word::Running(t))]);
        assert_eq!(told(&mut node, A, 1, Order::Run(t)), [Output::Say(Word::Running(t))]);
        node.ended(t, Ended::Succeeded);
        node.ended(t, Ended::Succeeded);
        let end = Output::Say(Word::Ended(t, Ended::Succeeded));
        assert_eq!(node.poll(), Some(end.clone()));
        assert_eq!(node.poll(), None);
        assert_eq!(told(&mut node, A, 1, Order::Run(t)), vec![end]);
    }

    #[test]
    fn what_was_stopped_before_it_came_never_begins() {
        let mut node = node();
        let t = task(A, 5);
        told(&mut node, A, 1, Order::Stop(t));
        let out = told(&mut node, A, 1, Order::Run(t));
        assert!(matches!(&out[..], [Output::Say(Word::Ended(_, Ended::Failed(_)))]), "{out:?}");
        told(&mut node, A, 1, Order::Release);
        let late = task(A, 5);
        let out = told(&mut node, A, 1, Order::Run(late));
        assert!(matches!(&out[..], [Output::Say(Word::Ended(..))]), "{out:?}");
    }

    #[test]
    fn older_epochs_and_other_incarnations_are_refused() {
        let mut node = node();
        told(&mut node, A, 3, Order::Ask(task(A, 5)));
        let out = told(&mut node, A, 2, Order::Run(task(A, 5)));
        assert_eq!(out, [Output::Say(Word::Newer(3))]);
        let old = task(A, 4);
        assert_eq!(told(&mut node, A, 3, Order::Run(old)), [Output::Say(Word::Gone(old))]);
        let out = told(&mut node, A, 3, Order::Run(task(B, 5)));
        assert!(matches!(out[..], [Output::Say(Word::Refused(_))]));
    }

    #[test]
    fn one_synchronised_flow_holds_the_node_and_not_for_ever() {
        let mut node = node();
        assert_eq!(told(&mut node, A, 1, Order::Bind { hold: true }), [Output::Say(Word::Bound)]);
        let held = [Output::Say(Word::Held(A))];
        assert_eq!(told(&mut node, B, 1, Order::Bind { hold: true }), held);
        assert_eq!(told(&mut node, B, 1, Order::Bind { hold: false }), [Output::Say(Word::Bound)]);
        told(&mut node, A, 1, Order::Release);
        assert_eq!(told(&mut node, B, 1, Order::Bind { hold: true }), [Output::Say(Word::Bound)]);
        node.handle(NOW + HELD_FOR, A, 1, Order::Bind { hold: true });
        assert_eq!(node.poll(), Some(Output::Say(Word::Bound)));
        assert_eq!(node.holder(), Some(A));
    }

    #[test]
    fn flows_and_tasks_are_bounded() {
        let mut node = node();
        for n in 0..FLOWS_MAX {
            told(&mut node, FlowId(n as u128), 1, Order::Bind { hold: false });
        }
        let more = FlowId(u128::MAX);
        let out = told(&mut node, more, 1, Order::Bind { hold: false });
        assert!(matches!(out[..], [Output::Say(Word::Refused(_))]));
        told(&mut node, FlowId(7), 1, Order::Release);
        let out = told(&mut node, more, 1, Order::Bind { hold: false });
        assert_eq!(out, [Output::Say(Word::Bound)]);
    }
}
