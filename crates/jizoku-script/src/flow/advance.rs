//! What follows from what is known: which steps begin, end, fail.
//!
//! Everything here is a function of the entries alone, so that whoever reads them again comes to
//! the same state.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::Instant;

use super::{ASK_EVERY, Entry, Flow, Output, Slot, State, TaskId};
use crate::plan::{StepId, StepKind};
use crate::run::{Cause, Ended, Failed};

impl Flow {
    /// What an entry says, taken in.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Taken { .. } => {}
            Entry::Sent(task) => {
                self.put(*task, |_| Slot::Sent { task: *task, ask_at: Instant::NEVER })
            }
            Entry::Ended(task, ended) => self.put(*task, |_| Slot::Ended(ended.clone())),
            Entry::Lost(task) => {
                let (attempt, lost) = (task.attempt.saturating_add(1), Some(task.node));
                self.put(*task, |_| Slot::Waiting { attempt, lost });
            }
            Entry::Met(step) => self.set(*step, State::Done),
            Entry::Elapsed(step) => match self.plan.steps.get(*step as usize).map(|s| &s.kind) {
                Some(StepKind::Pause(_)) => self.set(*step, State::Done),
                Some(_) => {
                    self.end_below(*step, Cause::TimedOut);
                    self.fail(*step, "it took too long".to_string());
                }
                None => {}
            },
            Entry::Cancelled(why) => {
                self.cancelled = true;
                self.end_below(0, Cause::Stopped);
                self.set(0, State::Failed(format!("cancelled: {why}")));
            }
            Entry::Finished(result) => self.finished = Some(result.clone()),
        }
    }

    fn put(&mut self, task: TaskId, make: impl FnOnce(&Slot) -> Slot) {
        let step = self.steps.get_mut(task.step as usize);
        if let Some(slot) = step.and_then(|step| step.slots.get_mut(&task.node.node)) {
            // What has ended stays so.
            if !matches!(slot, Slot::Ended(_)) {
                *slot = make(slot);
            }
        }
    }

    fn set(&mut self, step: StepId, state: State) {
        if let Some(step) = self.steps.get_mut(step as usize) {
            step.state = state;
            step.deadline = Instant::NEVER;
        }
    }

    /// All steps that are part of one, itself among them.
    fn below(&self, step: StepId) -> Vec<StepId> {
        let mut inside = alloc::vec![false; self.steps.len()];
        let mut list = Vec::new();
        for (at, one) in (0..).zip(&self.steps) {
            // Parents come before what they contain.
            let within = one.parent.is_some_and(|parent| inside[parent as usize]);
            if at == step || within {
                inside[at as usize] = true;
                list.push(at);
            }
        }
        list
    }

    /// Everything that is part of a step ends here.
    fn end_below(&mut self, step: StepId, cause: Cause) {
        for id in self.below(step) {
            let one = &mut self.steps[id as usize];
            for slot in one.slots.values_mut() {
                if matches!(slot, Slot::Sent { .. }) {
                    let message = "stopped by its flow".to_string();
                    *slot = Slot::Ended(Ended::Failed(Failed { cause, message, at: (0, 0) }));
                }
            }
            if one.is_open() {
                one.state = State::Failed("stopped".to_string());
                one.deadline = Instant::NEVER;
            }
        }
    }

    /// Has the tasks stopped that are part of a step.
    pub(super) fn stop_below(&mut self, step: StepId) {
        for id in self.below(step) {
            let sent = self.steps[id as usize].slots.values().filter_map(|slot| match slot {
                Slot::Sent { task, .. } => Some(*task),
                _ => None,
            });
            let sent: Vec<TaskId> = sent.collect();
            sent.into_iter().for_each(|task| self.after(Output::Stop(task)));
        }
    }

    /// A step has failed: its failure branch runs, if it has one.
    fn fail(&mut self, step: StepId, why: String) {
        let handled = matches!(self.steps[step as usize].state, State::Handling(_));
        match self.plan.steps[step as usize].failure {
            Some(failure) if !handled && !self.cancelled => {
                let began = self.entries;
                let one = &mut self.steps[step as usize];
                one.state = State::Handling(why);
                // The branch has the time that its own steps take.
                one.deadline = Instant::NEVER;
                let branch = &mut self.steps[failure.steps as usize];
                branch.state = State::Running;
                branch.began = began;
            }
            _ => self.set(step, State::Failed(why)),
        }
    }

    /// Time limits and pauses that are over; the outermost first.
    pub(super) fn elapse(&mut self, now: Instant) {
        for at in 0..self.steps.len() {
            let id = u32::try_from(at).unwrap_or(u32::MAX);
            if self.steps[at].is_open() && self.steps[at].deadline <= now {
                if !matches!(self.plan.steps[at].kind, StepKind::Pause(_)) {
                    self.stop_below(id);
                }
                self.log(Entry::Elapsed(id));
            }
        }
        let mut asks = Vec::new();
        for slot in self.steps.iter_mut().flat_map(|step| step.slots.values_mut()) {
            if let Slot::Sent { task, ask_at } = slot
                && *ask_at <= now
            {
                *ask_at = now + ASK_EVERY;
                asks.push(*task);
            }
        }
        asks.into_iter().for_each(|task| self.after(Output::Ask(task)));
    }

    /// Lets steps begin and end until nothing changes.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.is(0, &State::Idle) {
            self.begin(now, 0);
        }
        while self.finished.is_none() && self.walk(now, 0) {}
    }

    fn begin(&mut self, now: Instant, step: StepId) {
        let within = self.plan.steps[step as usize].within;
        let within = match self.plan.steps[step as usize].kind {
            StepKind::Pause(time) => time,
            _ => within,
        };
        let one = &mut self.steps[step as usize];
        one.state = State::Running;
        one.began = self.entries;
        one.deadline = now + within;
        if matches!(self.plan.steps[step as usize].kind, StepKind::Wait { .. }) {
            let after = self.watched(step);
            self.after(Output::Watch { step, after });
        }
    }

    /// From where on a step watches the log: where the step before it began.
    pub(super) fn watched(&self, step: StepId) -> u64 {
        let one = &self.steps[step as usize];
        let parent = one.parent.map(|parent| &self.plan.steps[parent as usize].kind);
        if let Some(StepKind::Seq(ids)) = parent
            && let Some(at) = ids.iter().position(|id| *id == step)
            && at > 0
        {
            return self.steps[ids[at - 1] as usize].began;
        }
        one.began
    }

    /// Whether something changed at a step or below it.
    fn walk(&mut self, now: Instant, step: StepId) -> bool {
        match &self.steps[step as usize].state {
            State::Running => {}
            State::Handling(why) => {
                let why = why.clone();
                return self.walk_handler(now, step, why);
            }
            _ => return false,
        }
        match self.plan.steps[step as usize].kind.clone() {
            StepKind::Run { limit, .. } => self.walk_run(now, step, limit),
            StepKind::Wait { .. } | StepKind::Pause(_) => false,
            StepKind::Fail(why) => {
                self.fail(step, why);
                true
            }
            StepKind::Barrier(name) => {
                let all = self.is_everybody_at(step, &name);
                if all {
                    self.set(step, State::Done);
                }
                all
            }
            StepKind::Seq(ids) => self.walk_group(now, step, &ids, 1),
            StepKind::Par { limit, branches } => {
                let limit = if limit == 0 { usize::MAX } else { limit as usize };
                self.walk_group(now, step, &branches, limit)
            }
        }
    }

    fn walk_handler(&mut self, now: Instant, step: StepId, why: String) -> bool {
        let Some(failure) = self.plan.steps[step as usize].failure else { return false };
        if self.walk(now, failure.steps) {
            return true;
        }
        let state = match &self.steps[failure.steps as usize].state {
            State::Done if failure.recovers => State::Done,
            State::Done => State::Failed(why),
            State::Failed(more) => State::Failed(format!("{why}; then: {more}")),
            _ => return false,
        };
        self.set(step, state);
        true
    }

    /// Steps of which so many run at a time; once one failed, none begins.
    fn walk_group(&mut self, now: Instant, step: StepId, ids: &[StepId], limit: usize) -> bool {
        let mut changed = false;
        for id in ids {
            changed |= self.walk(now, *id);
        }
        let open = ids.iter().filter(|id| self.steps[**id as usize].is_open()).count();
        let failed = ids.iter().find_map(|id| match &self.steps[*id as usize].state {
            State::Failed(why) => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = failed {
            // Branches that wait for one that failed wait in vain.
            let blocked: Vec<StepId> = self.blocked(ids);
            for id in &blocked {
                self.fail(*id, why.clone());
            }
            if open == 0 {
                self.fail(step, why);
                return true;
            }
            return changed || !blocked.is_empty();
        }
        let idle = ids.iter().copied().filter(|id| self.is(*id, &State::Idle));
        let next: Vec<StepId> = idle.take(limit.saturating_sub(open)).collect();
        if !next.is_empty() {
            next.into_iter().for_each(|id| self.begin(now, id));
            return true;
        }
        if open == 0 {
            self.set(step, State::Done);
            return true;
        }
        changed
    }

    /// Barriers at which branches of a group stand.
    fn blocked(&self, ids: &[StepId]) -> Vec<StepId> {
        let inside = ids.iter().filter_map(|id| match &self.plan.steps[*id as usize].kind {
            StepKind::Seq(steps) => Some(steps.as_slice()),
            _ => None,
        });
        let at = |id: &&StepId| {
            let barrier = matches!(self.plan.steps[**id as usize].kind, StepKind::Barrier(_));
            barrier && self.is(**id, &State::Running)
        };
        inside.flatten().filter(at).copied().collect()
    }

    fn is_everybody_at(&self, step: StepId, name: &str) -> bool {
        let branch = self.steps[step as usize].parent;
        let par = branch.and_then(|branch| self.steps[branch as usize].parent);
        let Some(StepKind::Par { branches, .. }) =
            par.map(|par| &self.plan.steps[par as usize].kind)
        else {
            return true;
        };
        branches.iter().all(|branch| {
            let StepKind::Seq(ids) = &self.plan.steps[*branch as usize].kind else { return true };
            let mine = ids.iter().filter(|id| {
                matches!(&self.plan.steps[**id as usize].kind, StepKind::Barrier(n) if n == name)
            });
            mine.into_iter().all(|id| !self.is(*id, &State::Idle))
        })
    }

    fn walk_run(&mut self, now: Instant, step: StepId, limit: u32) -> bool {
        let slots = &self.steps[step as usize].slots;
        let sent = slots.values().filter(|slot| matches!(slot, Slot::Sent { .. })).count();
        let failed = slots.iter().find_map(|(node, slot)| match slot {
            Slot::Ended(Ended::Failed(failed)) => Some((*node, failed.clone())),
            _ => None,
        });
        if let Some((node, failed)) = failed {
            if sent > 0 {
                return false;
            }
            let Failed { cause, message, at: (line, column) } = failed;
            let place = if line > 0 { format!(" ({line}:{column})") } else { String::new() };
            let why = format!("{} on {node:?}: {message}{place}", cause.symbol());
            self.fail(step, why);
            return true;
        }
        if slots.values().all(|slot| matches!(slot, Slot::Ended(_))) {
            self.set(step, State::Done);
            return true;
        }
        if self.replaying {
            return false;
        }
        let room = if limit == 0 { usize::MAX } else { (limit as usize).saturating_sub(sent) };
        let ready = slots.iter().filter_map(|(node, slot)| {
            let Slot::Waiting { attempt, lost } = slot else { return None };
            let member = (*self.nodes.get(node)?)?;
            // Another attempt needs another incarnation: the one that was lost may yet run it.
            let fresh = lost.is_none_or(|lost| lost.incarnation < member.incarnation);
            fresh.then_some(TaskId { flow: self.id, step, node: member, attempt: *attempt })
        });
        let ready: Vec<TaskId> = ready.take(room).collect();
        let any = !ready.is_empty();
        for task in ready {
            self.log(Entry::Sent(task));
            if let Some(Slot::Sent { ask_at, .. }) = self.slot(task) {
                *ask_at = now + ASK_EVERY;
            }
            self.after(Output::Send(task));
        }
        any
    }
}
