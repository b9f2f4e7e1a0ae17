//! Flows: the one who drives a plan to its end, as a value whose state is its records.
//!
//! What decides is written first: an entry is handed to the owner, and what follows from it is
//! done when the owner says that the entry is safe. So whoever reads the entries knows all that
//! may have happened, and can go on ([`Flow::take_over`]).
//!
//! What it does not know: how entries are kept, how nodes are asked, who may drive which flow.
//!
//! Invariants
//! - A task is sent only after the entry that says so is safe; one that ended is never sent again,
//!   and one whose outcome nobody knows only if it is idempotent, as another attempt.
//! - Nothing of a step begins before all steps that it follows have succeeded. Once something
//!   has failed, what runs beside it may end, and nothing new begins.
//! - A controller whose entry is refused says nothing more: another one has a newer epoch.
//! - Every flow ends: every step has a time limit.
//!
//! Limits: [`STEPS_MAX`](crate::limits::STEPS_MAX) steps,
//! [`TASKS_MAX`](crate::limits::TASKS_MAX) tasks; more are refused before anything runs.
//!
//! Time limits of steps that were under way at a takeover begin anew: two nodes' clocks aren't
//! compared.

mod advance;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::{Instant, Member, NodeId, Span};
use serde::{Deserialize, Serialize};

use crate::limits::TASKS_MAX;
use crate::plan::{Plan, StepId, StepKind};
use crate::run::{Cause, Ended, Failed};

/// How often a node is asked about a task that it was sent.
pub const ASK_EVERY: Span = Span::secs(1);
/// How often an idempotent task is tried in all.
pub const ATTEMPTS_MAX: u8 = 3;

/// Which flow: also the trace of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowId(pub u128);

/// One attempt of one task on one node in one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// Of which flow.
    pub flow: FlowId,
    /// Of which step.
    pub step: StepId,
    /// Where.
    pub node: Member,
    /// Which attempt, from 0.
    pub attempt: u8,
}

/// What is written of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A controller drives it from here on.
    Taken {
        /// In which epoch.
        epoch: u64,
    },
    /// A task is sent, or will be at once.
    Sent(TaskId),
    /// A task has ended.
    Ended(TaskId, Ended),
    /// Nobody knows how this attempt ended, and another may follow.
    Lost(TaskId),
    /// The record that a step waits for is there.
    Met(StepId),
    /// A step's pause or time is over.
    Elapsed(StepId),
    /// Somebody cancelled the flow.
    Cancelled(String),
    /// It has ended.
    Finished(Result<(), String>),
}

/// What a controller is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// All entries up to this number are safe.
    Appended(u64),
    /// An entry was refused: there is a newer epoch.
    Refused,
    /// A task has ended.
    Ended(TaskId, Ended),
    /// A node runs a task.
    Running(TaskId),
    /// A node was never sent a task, or refused it before it began; it is the same incarnation.
    Unknown(TaskId),
    /// A node can't have a task any more: its agent was started anew since.
    Gone(TaskId),
    /// A node is lost, with all that ran there.
    NodeLost(NodeId),
    /// A node is there, in this incarnation.
    NodeUp(Member),
    /// The record that a step waits for is there.
    Met(StepId),
    /// End now, as failed; no failure branch runs.
    Cancel(String),
    /// Time has passed.
    Tick,
}

/// What a controller wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Make this entry safe, unless a newer epoch is known; say `Appended` or `Refused`.
    Append {
        /// Its number, from 1, without gaps.
        number: u64,
        /// It.
        entry: Entry,
    },
    /// Have a task begun.
    Send(TaskId),
    /// Ask a node about a task.
    Ask(TaskId),
    /// Have a task stopped.
    Stop(TaskId),
    /// Watch the log for a step, from where this entry was appended; say `Met`.
    Watch {
        /// For which step; its plan says what to look for.
        step: StepId,
        /// Records after this entry count; 0: all since the flow was bound.
        after: u64,
    },
    /// The flow has ended: nodes may forget it.
    Finished(Result<(), String>),
    /// Another one drives it: drop this.
    Deposed,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Idle,
    Running,
    /// It failed with this, and its failure branch runs.
    Handling(String),
    Done,
    Failed(String),
}

/// One task of a step.
#[derive(Clone, Debug, PartialEq)]
enum Slot {
    /// Not sent. If an attempt was lost: the incarnation that it was lost with.
    Waiting {
        attempt: u8,
        lost: Option<Member>,
    },
    Sent {
        task: TaskId,
        ask_at: Instant,
    },
    Ended(Ended),
}

#[derive(Clone, Debug)]
struct Step {
    state: State,
    deadline: Instant,
    /// Entries that there were when it began.
    began: u64,
    slots: BTreeMap<NodeId, Slot>,
    parent: Option<StepId>,
}

/// A controller.
#[derive(Debug)]
pub struct Flow {
    id: FlowId,
    plan: Plan,
    steps: Vec<Step>,
    /// Nodes in the incarnation in which they are known.
    nodes: BTreeMap<NodeId, Option<Member>>,
    /// How many entries there are, and up to which they are safe.
    entries: u64,
    safe: u64,
    /// Only reads entries: nothing follows from them here.
    replaying: bool,
    /// What is to be done once so many entries are safe.
    held: VecDeque<(u64, Output)>,
    out: VecDeque<Output>,
    cancelled: bool,
    finished: Option<Result<(), String>>,
    deposed: bool,
}

impl Flow {
    /// A new flow. `nodes`: for each step that runs a task, where.
    pub fn start(
        now: Instant,
        id: FlowId,
        epoch: u64,
        plan: Plan,
        nodes: &BTreeMap<StepId, Vec<Member>>,
    ) -> Result<Flow, String> {
        let mut flow = Flow::new(id, plan, nodes)?;
        flow.log(Entry::Taken { epoch });
        flow.settle(now);
        Ok(flow)
    }

    /// A flow that another one drove until now. `entries`: all that are safe, in their order.
    pub fn take_over(
        now: Instant,
        id: FlowId,
        epoch: u64,
        plan: Plan,
        nodes: &BTreeMap<StepId, Vec<Member>>,
        entries: &[Entry],
    ) -> Result<Flow, String> {
        let mut flow = Flow::new(id, plan, nodes)?;
        flow.replaying = true;
        for entry in entries {
            flow.entries += 1;
            flow.apply(entry);
            flow.advance(now);
        }
        flow.replaying = false;
        flow.safe = flow.entries;
        flow.log(Entry::Taken { epoch });
        flow.resume(now);
        flow.settle(now);
        Ok(flow)
    }

    fn new(id: FlowId, plan: Plan, nodes: &BTreeMap<StepId, Vec<Member>>) -> Result<Flow, String> {
        let mut known = BTreeMap::new();
        let mut steps: Vec<Step> = Vec::new();
        let mut tasks = 0;
        for (step, at) in plan.steps.iter().zip(0..) {
            let mut slots = BTreeMap::new();
            if let StepKind::Run { task, target, .. } = &step.kind {
                let members = nodes.get(&at).map_or(&[][..], Vec::as_slice);
                if members.is_empty() {
                    return Err(format!("no node is `{target}`, where `{task}` should run"));
                }
                for member in members {
                    known.insert(member.node, Some(*member));
                    slots.insert(member.node, Slot::Waiting { attempt: 0, lost: None });
                }
                tasks += slots.len();
            }
            let (state, deadline) = (State::Idle, Instant::NEVER);
            steps.push(Step { state, deadline, began: 0, slots, parent: None });
        }
        if tasks > TASKS_MAX {
            return Err(format!("more than {TASKS_MAX} tasks"));
        }
        if steps.is_empty() {
            return Err("a plan without steps".to_string());
        }
        for (at, step) in (0..).zip(&plan.steps) {
            let inside = match &step.kind {
                StepKind::Seq(ids) | StepKind::Par { branches: ids, .. } => ids.as_slice(),
                _ => &[],
            };
            let handler = step.failure.as_ref().map(|failure| failure.steps);
            for id in inside.iter().copied().chain(handler) {
                // What a plan from the wire could say otherwise.
                let inner = steps.get_mut(id as usize).filter(|inner| inner.parent.is_none());
                match inner {
                    Some(inner) if id > at => inner.parent = Some(at),
                    _ => return Err("a plan whose steps don't fit together".to_string()),
                }
            }
        }
        Ok(Flow {
            id,
            plan,
            steps,
            nodes: known,
            entries: 0,
            safe: 0,
            replaying: false,
            held: VecDeque::new(),
            out: VecDeque::new(),
            cancelled: false,
            finished: None,
            deposed: false,
        })
    }

    /// Whether it has ended, and how, safely written.
    pub fn finished(&self) -> Option<&Result<(), String>> {
        self.finished.as_ref().filter(|_| self.safe >= self.entries)
    }

    /// Tells what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.deposed {
            return;
        }
        match input {
            Input::Appended(upto) => self.safe = self.safe.max(upto.min(self.entries)),
            Input::Refused => {
                self.deposed = true;
                self.held.clear();
                self.out.clear();
                self.out.push_back(Output::Deposed);
                return;
            }
            _ if self.finished.is_some() => {}
            Input::Ended(task, ended) => self.ended(task, ended),
            Input::Running(task) => {
                if let Some(Slot::Sent { ask_at, .. }) = self.slot(task) {
                    *ask_at = now + ASK_EVERY;
                }
            }
            Input::Unknown(task) => {
                if let Some(Slot::Sent { ask_at, .. }) = self.slot(task) {
                    *ask_at = now + ASK_EVERY;
                    self.after(Output::Send(task));
                }
            }
            Input::Gone(task) => self.lost(task),
            Input::NodeLost(node) => self.node_lost(node),
            Input::NodeUp(member) => self.node_up(member),
            Input::Met(step) => {
                let waits = self.plan.steps.get(step as usize).map(|step| &step.kind);
                if matches!(waits, Some(StepKind::Wait { .. })) && self.is(step, &State::Running) {
                    self.log(Entry::Met(step));
                }
            }
            Input::Cancel(why) => {
                if !self.cancelled {
                    self.stop_below(0);
                    self.log(Entry::Cancelled(why));
                }
            }
            Input::Tick => {}
        }
        self.settle(now);
    }

    /// What it wants, one after the other.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When it wants a `Tick`.
    pub fn deadline(&self) -> Option<Instant> {
        if self.deposed || self.finished.is_some() {
            return None;
        }
        let steps = self.steps.iter().filter(|step| step.is_open()).map(|step| step.deadline);
        let asks = self.steps.iter().flat_map(|step| step.slots.values());
        let asks = asks.filter_map(|slot| match slot {
            Slot::Sent { ask_at, .. } => Some(*ask_at),
            _ => None,
        });
        steps.chain(asks).min().filter(|at| *at != Instant::NEVER)
    }

    /// Writes an entry; what is wanted from now on waits until it is safe.
    fn log(&mut self, entry: Entry) {
        self.entries += 1;
        self.apply(&entry);
        self.out.push_back(Output::Append { number: self.entries, entry });
    }

    /// Wants something once all that was written is safe.
    fn after(&mut self, output: Output) {
        if !self.replaying {
            self.held.push_back((self.entries, output));
        }
    }

    fn is(&self, step: StepId, state: &State) -> bool {
        self.steps.get(step as usize).is_some_and(|step| step.state == *state)
    }

    /// The slot of a task, if it is the attempt that counts.
    fn slot(&mut self, task: TaskId) -> Option<&mut Slot> {
        let slot = self.steps.get_mut(task.step as usize)?.slots.get_mut(&task.node.node)?;
        match slot {
            Slot::Sent { task: sent, .. } if *sent == task => Some(slot),
            _ => None,
        }
    }

    fn ended(&mut self, task: TaskId, ended: Ended) {
        if self.slot(task).is_some() {
            self.log(Entry::Ended(task, ended));
        }
    }

    /// Nobody knows how an attempt ended.
    fn lost(&mut self, task: TaskId) {
        if self.slot(task).is_none() {
            return;
        }
        let kind = &self.plan.steps[task.step as usize].kind;
        let again = matches!(kind, StepKind::Run { idempotent: true, .. });
        if again && task.attempt + 1 < ATTEMPTS_MAX {
            return self.log(Entry::Lost(task));
        }
        let message = "its node was lost: nobody knows how it ended".to_string();
        let failed = Failed { cause: Cause::Unknown, message, at: (0, 0) };
        self.log(Entry::Ended(task, Ended::Failed(failed)));
    }

    fn node_lost(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            *known = None;
        }
        let there = self.steps.iter().filter_map(|step| match step.slots.get(&node) {
            Some(Slot::Sent { task, .. }) => Some(*task),
            _ => None,
        });
        let there: Vec<TaskId> = there.collect();
        there.into_iter().for_each(|task| self.lost(task));
    }

    fn node_up(&mut self, member: Member) {
        let Some(known) = self.nodes.get_mut(&member.node) else { return };
        // News may come late.
        if known.is_some_and(|known| known.incarnation > member.incarnation) {
            return;
        }
        let before = known.replace(member);
        if before.is_some_and(|before| before.incarnation != member.incarnation) {
            self.node_lost(member.node);
            self.nodes.insert(member.node, Some(member));
        }
    }

    /// After a takeover: asks about what was under way, and stops again what was to be stopped.
    fn resume(&mut self, now: Instant) {
        let mut asks = Vec::new();
        for (at, step) in (0..).zip(&mut self.steps) {
            if step.is_open() {
                step.deadline = now + self.plan.steps[at as usize].within;
                if matches!(self.plan.steps[at as usize].kind, StepKind::Wait { .. })
                    && step.state == State::Running
                {
                    asks.push(Output::Watch { step: at, after: 0 });
                }
                if let StepKind::Pause(time) = self.plan.steps[at as usize].kind {
                    step.deadline = now + time;
                }
            }
            for slot in step.slots.values_mut() {
                if let Slot::Sent { task, ask_at } = slot {
                    *ask_at = now + ASK_EVERY;
                    asks.push(Output::Ask(*task));
                }
            }
        }
        for ask in asks {
            let ask = match ask {
                Output::Watch { step, .. } => Output::Watch { step, after: self.watched(step) },
                ask => ask,
            };
            self.after(ask);
        }
    }

    /// Lets everything follow, until nothing changes any more.
    fn settle(&mut self, now: Instant) {
        self.elapse(now);
        self.advance(now);
        if self.finished.is_none() {
            let result = match &self.steps[0].state {
                State::Done => Some(Ok(())),
                State::Failed(why) => Some(Err(why.clone())),
                _ => None,
            };
            if let Some(result) = result {
                self.log(Entry::Finished(result.clone()));
                self.after(Output::Finished(result));
            }
        }
        while self.held.front().is_some_and(|(number, _)| *number <= self.safe) {
            if let Some((_, output)) = self.held.pop_front() {
                self.out.push_back(output);
            }
        }
    }
}

impl Step {
    /// Under way: its time counts.
    fn is_open(&self) -> bool {
        matches!(self.state, State::Running | State::Handling(_))
    }
}
