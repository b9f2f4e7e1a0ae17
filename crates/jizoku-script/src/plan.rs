//! Plans: a flow with everything filled in. Values of a flow are known when it starts, so loops
//! and conditions are unfolded here, before anything runs: what is left are steps.
//!
//! What it does not know: nodes; a step says which are meant, its owner finds them.
//!
//! Invariant: a step's number is greater than those of the steps that it is part of.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::Span;
use serde::{Deserialize, Serialize};

use crate::compile::compile_value;
use crate::limits::{STEP_WITHIN, STEPS_MAX, TIME_MAX};
use crate::run::{Run, log_value};
use crate::script::{Arguments, Script, type_of};
use crate::syntax::tree::{self, Call, Condition, Expr, If, Item, Step, StepKind as Tree};
use crate::target::Target;
use crate::value::Value;

/// A step's number in its plan. The flow itself is step 0, a sequence.
pub type StepId = u32;

/// A flow, ready to be bound to nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The flow's name.
    pub flow: String,
    /// It holds its nodes.
    pub synchronised: bool,
    /// Its steps; 0 is the whole flow.
    pub steps: Vec<PlanStep>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// What it does.
    pub kind: StepKind,
    /// How long it may take.
    pub within: Span,
    /// What is done if it fails: a sequence.
    pub failure: Option<Failure>,
}

/// What is done if a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The steps.
    pub steps: StepId,
    /// The flow goes on if they succeed.
    pub recovers: bool,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepKind {
    /// Runs a task on nodes.
    Run {
        /// Which task.
        task: String,
        /// With which arguments.
        arguments: Arguments,
        /// Where.
        target: Target,
        /// On how many at a time; 0: on all.
        limit: u32,
        /// May be run again if nobody knows how it ended.
        idempotent: bool,
    },
    /// Waits for a record.
    Wait {
        /// Of which event.
        event: String,
        /// What it must be like, values filled in.
        filter: Option<String>,
    },
    /// One after the other.
    Seq(Vec<StepId>),
    /// Side by side.
    Par {
        /// How many at a time; 0: all.
        limit: u32,
        /// The branches.
        branches: Vec<StepId>,
    },
    /// Until all branches of the `par` around that name it are there.
    Barrier(String),
    /// Waits so long.
    Pause(Span),
    /// Fails.
    Fail(String),
}

impl Plan {
    /// Targets of all steps that run tasks, with the task of each.
    pub fn targets(&self) -> impl Iterator<Item = (StepId, &str, &Target)> {
        (0..).zip(&self.steps).filter_map(|(id, step)| match &step.kind {
            StepKind::Run { task, target, .. } => Some((id, task.as_str(), target)),
            _ => None,
        })
    }
}

impl Script {
    /// A flow with these arguments. What can't be is said for people.
    pub fn plan(&self, flow: &str, arguments: Arguments) -> Result<Plan, String> {
        let found = self.tree.items.iter().find_map(|item| match item {
            Item::Flow(tree) if tree.name.of(&self.text) == flow => Some(tree),
            _ => None,
        });
        let tree = found.ok_or_else(|| format!("the script has no flow `{flow}`"))?;
        let given = self.fit(flow, &tree.params, arguments)?;
        let mut planner = Planner { script: self, names: Vec::new(), steps: Vec::new() };
        for (param, value) in tree.params.iter().zip(given) {
            let kind = type_of(&self.text, &param.kind);
            let value = match (value, &param.default) {
                (Some(value), _) => value,
                (None, Some(default)) => {
                    let program = compile_value(self, &[], default)?;
                    Run::result(program, Vec::new())?.widened(kind)
                }
                (None, None) => return Err(format!("`{flow}` lacks an argument")),
            };
            planner.names.push((param.name.of(&self.text), value));
        }
        let within = planner.within(tree.within.as_ref(), TIME_MAX)?;
        let root = planner.hold(within)?;
        let steps = planner.sequence(&tree.body)?;
        planner.steps[root as usize].kind = StepKind::Seq(steps);
        planner.failure(root, tree.failure.as_ref())?;
        let Planner { steps, .. } = planner;
        Ok(Plan { flow: flow.to_string(), synchronised: tree.synchronised, steps })
    }
}

struct Planner<'a> {
    script: &'a Script,
    names: Vec<(&'a str, Value)>,
    steps: Vec<PlanStep>,
}

impl<'a> Planner<'a> {
    /// Takes the next number; what it does is filled in later.
    fn hold(&mut self, within: Span) -> Result<StepId, String> {
        if self.steps.len() >= STEPS_MAX {
            return Err(format!("the flow unfolds to more than {STEPS_MAX} steps"));
        }
        let kind = StepKind::Seq(Vec::new());
        self.steps.push(PlanStep { kind, within, failure: None });
        Ok(u32::try_from(self.steps.len() - 1).unwrap_or(u32::MAX))
    }

    fn value(&self, expr: &'a Expr) -> Result<Value, String> {
        let names: Vec<&str> = self.names.iter().map(|(name, _)| *name).collect();
        let program = compile_value(self.script, &names, expr)?;
        let values = self.names.iter().map(|(_, value)| value.clone()).collect();
        Run::result(program, values)
    }

    fn span(&self, expr: &'a Expr) -> Result<Span, String> {
        match self.value(expr)? {
            Value::Duration(nanos) => Ok(Span::nanos(nanos).min(TIME_MAX)),
            _ => Err("a time is expected".to_string()),
        }
    }

    fn within(&self, expr: Option<&'a Expr>, otherwise: Span) -> Result<Span, String> {
        expr.map_or(Ok(otherwise), |expr| self.span(expr))
    }

    fn text(&self, expr: &'a Expr) -> Result<String, String> {
        self.value(expr).map(|value| value.to_string())
    }

    fn limit(&self, expr: Option<&'a Expr>) -> Result<u32, String> {
        let Some(expr) = expr else { return Ok(0) };
        match self.value(expr)? {
            Value::Int(n) if n >= 1 => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
            value => Err(format!("a limit is at least 1, not {value}")),
        }
    }

    /// Steps one after the other; conditions and loops are part of what is around them.
    fn sequence(&mut self, steps: &'a [Step]) -> Result<Vec<StepId>, String> {
        let mut ids = Vec::new();
        for step in steps {
            match &step.kind {
                Tree::If(branches) if plain(step) => ids.extend(self.chosen(branches)?),
                Tree::For { name, list, body } if plain(step) => {
                    for each in self.rounds(name.of(&self.script.text), list, body)? {
                        ids.extend(each);
                    }
                }
                _ => ids.push(self.step(step)?),
            }
        }
        Ok(ids)
    }

    fn chosen(&mut self, branches: &'a If<Vec<Step>>) -> Result<Vec<StepId>, String> {
        for (condition, steps) in &branches.arms {
            let before = self.names.len();
            let holds = match condition {
                Condition::Holds(expr) => self.value(expr)? == Value::Bool(true),
                Condition::Present { name, value } => {
                    let value = self.value(value)?;
                    let there = value != Value::None;
                    self.names.push((name.of(&self.script.text), value));
                    there
                }
            };
            let ids = if holds { Some(self.sequence(steps)?) } else { None };
            self.names.truncate(before);
            if let Some(ids) = ids {
                return Ok(ids);
            }
        }
        branches.otherwise.as_ref().map_or(Ok(Vec::new()), |steps| self.sequence(steps))
    }

    fn rounds(
        &mut self,
        name: &'a str,
        list: &'a Expr,
        body: &'a [Step],
    ) -> Result<Vec<Vec<StepId>>, String> {
        let Value::List(list) = self.value(list)? else {
            return Err("a list is expected".to_string());
        };
        let mut rounds = Vec::new();
        for value in list.values() {
            // An empty body unfolds to nothing, and would be counted by nobody.
            if rounds.len() > STEPS_MAX {
                return Err(format!("the flow unfolds to more than {STEPS_MAX} steps"));
            }
            self.names.push((name, value.clone()));
            let steps = self.sequence(body);
            self.names.pop();
            rounds.push(steps?);
        }
        Ok(rounds)
    }

    fn step(&mut self, step: &'a Step) -> Result<StepId, String> {
        let within = self.within(step.within.as_ref(), usual(&step.kind))?;
        let id = self.hold(within)?;
        let kind = match &step.kind {
            Tree::Run { call, on, limit } => self.run(call, on, limit.as_ref())?,
            Tree::Wait { event, filter } => {
                let filter = filter.map(|place| self.filter(place)).transpose()?;
                StepKind::Wait { event: self.text(event)?, filter }
            }
            Tree::Seq(steps) => StepKind::Seq(self.sequence(steps)?),
            Tree::Par { limit, branches } => {
                let limit = self.limit(limit.as_ref())?;
                StepKind::Par { limit, branches: self.branches(branches)? }
            }
            Tree::Barrier(name) => StepKind::Barrier(name.of(&self.script.text).to_string()),
            Tree::Pause(time) => StepKind::Pause(self.span(time)?),
            Tree::Fail(message) => StepKind::Fail(self.text(message)?),
            Tree::If(branches) => StepKind::Seq(self.chosen(branches)?),
            Tree::For { name, list, body } => {
                let rounds = self.rounds(name.of(&self.script.text), list, body)?;
                StepKind::Seq(rounds.concat())
            }
        };
        self.steps[id as usize].kind = kind;
        self.failure(id, step.failure.as_ref())?;
        Ok(id)
    }

    /// Branches of a `par`: a loop gives one for each element.
    fn branches(&mut self, steps: &'a [Step]) -> Result<Vec<StepId>, String> {
        let mut ids = Vec::new();
        for step in steps {
            let Tree::For { name, list, body } = &step.kind else {
                ids.push(self.step(step)?);
                continue;
            };
            let within = self.within(step.within.as_ref(), usual(&step.kind))?;
            let Value::List(list) = self.value(list)? else {
                return Err("a list is expected".to_string());
            };
            for value in list.values() {
                let id = self.hold(within)?;
                self.names.push((name.of(&self.script.text), value.clone()));
                let steps = self.sequence(body);
                self.names.pop();
                self.steps[id as usize].kind = StepKind::Seq(steps?);
                self.failure(id, step.failure.as_ref())?;
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn failure(&mut self, of: StepId, failure: Option<&'a tree::Failure>) -> Result<(), String> {
        let Some(failure) = failure else { return Ok(()) };
        let id = self.hold(TIME_MAX)?;
        let steps = self.sequence(&failure.steps)?;
        self.steps[id as usize].kind = StepKind::Seq(steps);
        let recovers = failure.recovers;
        self.steps[of as usize].failure = Some(Failure { steps: id, recovers });
        Ok(())
    }

    fn run(
        &mut self,
        call: &'a Call,
        on: &'a Expr,
        limit: Option<&'a Expr>,
    ) -> Result<StepKind, String> {
        let text = &self.script.text;
        let task = call.name.of(text).to_string();
        let declared = self.script.tree.items.iter().find_map(|item| match item {
            Item::Task(tree) if tree.name.of(text) == task => Some(tree),
            _ => None,
        });
        let declared = declared.ok_or_else(|| format!("no task `{task}`"))?;
        let mut arguments = Vec::new();
        for (at, arg) in call.args.iter().enumerate() {
            let name = match arg.name {
                Some(name) => name.of(text),
                None => declared.params.get(at).map_or("", |param| param.name.of(text)),
            };
            arguments.push((name.to_string(), self.value(&arg.value)?));
        }
        self.script.fit(&task, &declared.params, arguments.clone())?;
        Ok(StepKind::Run {
            task,
            arguments,
            target: Target::parse(&self.text(on)?)?,
            limit: self.limit(limit)?,
            idempotent: declared.idempotent,
        })
    }

    fn filter(&self, place: crate::problem::Place) -> Result<String, String> {
        let text = place.of(&self.script.text);
        let filter = jizoku_log::expr::parse(text).map_err(|problem| problem.what)?;
        let known = self.names.iter();
        let values = known.filter_map(|(n, v)| Some(((*n).to_string(), log_value(v)?))).collect();
        let bound = filter.bind(&values).map_err(|problem| problem.what)?;
        let mut open = None;
        bound.outer(&mut |name, _| open = Some(name.to_string()));
        match open {
            Some(name) => Err(format!("`${name}` is absent, and can't be compared with")),
            None => Ok(bound.to_string()),
        }
    }
}

/// Whether a step is what it contains: nothing is said of the whole.
fn plain(step: &Step) -> bool {
    step.within.is_none() && step.failure.is_none()
}

/// How long a step may take if it doesn't say: what contains others, as long as they do.
fn usual(kind: &Tree) -> Span {
    match kind {
        Tree::Run { .. } | Tree::Wait { .. } => STEP_WITHIN,
        _ => TIME_MAX,
    }
}
