//! Flows and triggers.
//!
//! Values in them are known before anything runs: of parameters, of the record that fired a
//! trigger, and of functions of values alone.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Checker, PartKind};
use crate::nearest::suggestion;
use crate::permission::Permissions;
use crate::problem::Place;
use crate::syntax::tree::{Call, Expr, ExprKind, Failure, Flow, Step, StepKind, Trigger};
use crate::types::{RECORD_FIELDS, Type};

/// What one flow uses.
#[derive(Default)]
struct Used {
    targets: Vec<String>,
    tasks: Vec<String>,
}

impl<'a> Checker<'a> {
    pub(super) fn flow(&mut self, flow: &'a Flow) {
        let name = self.word(flow.name);
        self.needs = Permissions::NONE;
        self.may_call = false;
        let mut used = Used::default();
        self.scope(|checker| {
            checker.params(&flow.params);
            if let Some(within) = &flow.within {
                checker.span(within, "the time limit");
            }
            checker.steps(&flow.body, &mut used);
            checker.failure(flow.failure.as_ref(), &mut used);
        });
        for step in &flow.body {
            self.barriers(step, false);
        }
        self.may_call = true;
        self.end(PartKind::Flow, name, flow.name, used.targets, used.tasks);
    }

    fn failure(&mut self, failure: Option<&'a Failure>, used: &mut Used) {
        if let Some(failure) = failure {
            self.steps(&failure.steps, used);
            for step in &failure.steps {
                self.barriers(step, false);
            }
        }
    }

    fn steps(&mut self, steps: &'a [Step], used: &mut Used) {
        for step in steps {
            self.step(step, used);
        }
    }

    fn step(&mut self, step: &'a Step, used: &mut Used) {
        match &step.kind {
            StepKind::Run { call, on, limit } => {
                self.run(call, used);
                self.target(on, &mut used.targets);
                self.limit(limit.as_ref());
            }
            StepKind::Wait { event, filter } => {
                self.pure(event);
                let number = self.named_event(event);
                if let Some(filter) = filter {
                    self.filter(*filter, number);
                }
            }
            StepKind::Seq(steps) => self.steps(steps, used),
            StepKind::Par { limit, branches } => {
                self.limit(limit.as_ref());
                self.steps(branches, used);
            }
            StepKind::Barrier(_) => {}
            StepKind::Pause(time) => self.span(time, "the pause"),
            StepKind::Fail(message) => {
                let found = self.pure(message);
                self.expect(message.place, found, Type::STR, "the message");
            }
            StepKind::If(branches) => {
                self.if_else(branches, |checker, steps| checker.steps(steps, used));
            }
            StepKind::For { name, list, body } => {
                let found = self.pure(list);
                let element = self.element(list.place, found);
                self.scope(|checker| {
                    checker.declare(*name, element, false);
                    checker.steps(body, used);
                });
            }
        }
        if let Some(within) = &step.within {
            self.span(within, "the time limit");
        }
        self.failure(step.failure.as_ref(), used);
    }

    fn run(&mut self, call: &'a Call, used: &mut Used) {
        let name = self.word(call.name);
        match self.tasks.get(name).copied() {
            Some(task) => {
                if !used.tasks.iter().any(|known| known == name) {
                    used.tasks.push(name.to_string());
                }
                self.start("task", call, task);
            }
            None => {
                let known = self.tasks.keys().copied();
                let hint = suggestion(name, known);
                self.unknown_start(call, "task", hint);
            }
        }
    }

    fn unknown_start(&mut self, call: &'a Call, what: &str, hint: Option<String>) {
        for arg in &call.args {
            self.pure(&arg.value);
        }
        let message = format!("no {what} `{}`", self.word(call.name));
        match hint {
            Some(hint) => self.problems.hint(call.name, message, hint),
            None => self.problems.add(call.name, message),
        }
    }

    fn limit(&mut self, limit: Option<&'a Expr>) {
        let Some(limit) = limit else { return };
        let found = self.pure(limit);
        self.expect(limit.place, found, Type::INT, "the limit");
        if matches!(limit.kind, ExprKind::Int(n) if n < 1) {
            self.problems.add(limit.place, "a limit is at least 1");
        }
    }

    /// An event must be named as itself.
    fn named_event(&mut self, event: &'a Expr) -> Option<u16> {
        if self.literal(event).is_none() {
            let hint = "name the event itself: \"web.up\"";
            self.problems.hint(event.place, "the event must be known here", hint);
            return None;
        }
        self.event_of(event)
    }

    /// Barriers join branches of one `par`: each stands in two branches at least, once in each,
    /// and is reached in any case.
    fn barriers(&mut self, step: &'a Step, fits: bool) {
        match &step.kind {
            StepKind::Barrier(name) if !fits => {
                let hint = "steps of a `seq` follow each other anyway";
                let what = "a barrier joins the branches of a `par`";
                self.problems.hint(*name, what, hint);
            }
            StepKind::Par { branches, limit } => self.branches(branches, limit.is_some()),
            StepKind::Seq(steps) => steps.iter().for_each(|step| self.barriers(step, false)),
            StepKind::For { body, .. } => {
                body.iter().for_each(|step| self.barriers(step, false));
            }
            StepKind::If(branches) => {
                let arms = branches.arms.iter().map(|(_, steps)| steps);
                for step in arms.chain(&branches.otherwise).flatten() {
                    self.barriers(step, false);
                }
            }
            _ => {}
        }
    }

    fn branches(&mut self, branches: &'a [Step], limited: bool) {
        let mut count: BTreeMap<&str, (Place, u32)> = BTreeMap::new();
        for branch in branches {
            let StepKind::Seq(steps) = &branch.kind else {
                self.barriers(branch, false);
                continue;
            };
            let mut mine: Vec<&str> = Vec::new();
            for step in steps {
                self.barriers(step, true);
                let StepKind::Barrier(place) = step.kind else { continue };
                let name = self.word(place);
                if mine.contains(&name) {
                    let what = format!("this branch waits twice at `{name}`");
                    self.problems.add(place, what);
                } else {
                    mine.push(name);
                    count.entry(name).or_insert((place, 0)).1 += 1;
                }
                if limited {
                    let hint = "without a limit all branches get there";
                    let what = "a `par` with a limit has no barriers";
                    self.problems.hint(place, what, hint);
                }
            }
        }
        for (name, (place, branches)) in count {
            if branches < 2 {
                let what = format!("no other branch waits at `{name}`");
                self.problems.hint(place, what, "a barrier stands in two branches at least");
            }
        }
    }

    pub(super) fn trigger(&mut self, trigger: &'a Trigger) {
        self.needs = Permissions::NONE;
        self.may_call = false;
        let number = self.named_event(&trigger.event);
        if let Some(filter) = trigger.filter {
            self.filter(filter, number);
        }
        if let Some(hold) = &trigger.hold {
            self.span(hold, "how long it holds");
        }
        let fields = number.map(|number| self.events[usize::from(number)].fields.clone());
        let record = RECORD_FIELDS.iter().map(|(name, kind, _)| (*name, *kind));
        let all: Vec<(&str, Type)> = fields.iter().flatten().copied().chain(record).collect();
        for place in &trigger.by {
            let name = self.word(*place);
            if number.is_some() && !all.iter().any(|(known, _)| *known == name) {
                let what = format!("the record has no field `{name}`");
                let hint = suggestion(name, all.iter().map(|(name, _)| *name));
                match hint {
                    Some(hint) => self.problems.hint(*place, what, hint),
                    None => self.problems.add(*place, what),
                }
            }
        }
        let mut flows = Vec::new();
        let before = self.locals.len();
        for (name, kind) in all {
            self.locals.push(super::Local { name, kind, variable: false });
        }
        if let Some(most) = &trigger.most {
            self.limit(Some(&most.times));
            self.span(&most.within, "the time");
            if let Some(call) = &most.then {
                self.start_flow(call, &mut flows);
            }
        }
        self.start_flow(&trigger.start, &mut flows);
        self.locals.truncate(before);
        self.may_call = true;
        let name = self.literal(&trigger.event).unwrap_or("?");
        self.end(PartKind::Trigger, name, trigger.place, Vec::new(), flows);
    }

    fn start_flow(&mut self, call: &'a Call, flows: &mut Vec<String>) {
        let name = self.word(call.name);
        if let Some(flow) = self.flows.get(name).copied() {
            flows.push(name.to_string());
            return self.start("flow", call, flow);
        }
        let hint = if self.tasks.contains_key(name) {
            Some("this is a task: a trigger starts a flow, which runs tasks".to_string())
        } else {
            suggestion(name, self.flows.keys().copied())
        };
        self.unknown_start(call, "flow", hint);
    }
}
