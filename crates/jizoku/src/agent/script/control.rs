//! What a person orders: a flow is checked, planned, bound to its nodes, and then driven; it is
//! cancelled; all flows are shown.
//!
//! What it does not know: HTTP.
//!
//! Invariants
//! - Nothing runs before every node has said that it would take what it gets. One that refuses,
//!   can't be reached or doesn't answer ends it all.
//! - A flow doesn't depend on who reads its lines.
//!
//! Limits: [`BIND_WITHIN`] for all answers; [`WAITS_MAX`] steps that wait for records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jizoku_api::run::{
    FlowStatus, FlowsAnswer, NodeBound, PlanNode, RunEnd, RunLine, RunOrder, RunPlan,
};
use jizoku_mesh::boottime_now;
use jizoku_node::node::View;
use jizoku_script::actor::{Order, Word};
use jizoku_script::check::PartKind;
use jizoku_script::flow::FlowId;
use jizoku_script::permission::{Permissions, ROLES};
use jizoku_script::plan::{Plan, StepId, StepKind};
use jizoku_script::problem::Report;
use jizoku_script::script::Script;
use jizoku_script::target::{Facts, Target};
use jizoku_script::wire::{Answer, Bind, Kind, Method, Request};
use jizoku_types::{Member, NodeId};
use tokio::sync::mpsc;

use super::super::wiring::Wiring;
use super::super::{ask as catalog, membership, status};
use super::drive::Driver;
use super::offer::{self, Seen};
use super::{Driven, ScriptMessage, Scripts};

/// How long nodes may take to answer a bind.
const BIND_WITHIN: Duration = Duration::from_secs(10);
/// After which they are asked again: frames may be lost.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// How long nodes may take to say which flows they drive.
const FLOWS_WITHIN: Duration = Duration::from_millis(500);
/// Most steps of a flow that wait for records: each is a watch on every node.
const WAITS_MAX: usize = 64;
/// Lines that may wait for a slow reader: as many as a flow can have.
const LINES_MAX: usize = 4 * jizoku_script::limits::TASKS_MAX;
/// Answers that may wait.
const ANSWERS_MAX: usize = 4096;

/// What will be run, and where.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) nodes: BTreeMap<StepId, Vec<Member>>,
    pub(super) names: BTreeMap<NodeId, String>,
    pub(super) role: (String, Permissions),
    needs: Permissions,
    tasks: BTreeMap<NodeId, BTreeSet<String>>,
    pub(super) text: String,
}

/// Why a flow can't be run: for people, and what its check found.
type Wrong = (String, Vec<String>);

/// Where lines go; whether somebody reads them is of no matter.
#[derive(Clone)]
pub(super) struct Lines(pub(super) mpsc::Sender<RunLine>);

impl Lines {
    pub(super) fn say(&self, line: RunLine) {
        // Nobody reads any more: the flow goes on.
        let _ = self.0.try_send(line);
    }
}

impl Scripts {
    /// Runs a flow. Gives its lines as they come.
    pub(crate) fn start(
        self: &Arc<Self>,
        order: RunOrder,
        who: String,
        wiring: &Arc<Wiring>,
    ) -> mpsc::Receiver<RunLine> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let (own, wiring) = (Arc::clone(self), Arc::clone(wiring));
        tokio::spawn(async move {
            let began = boottime_now();
            let lines = Lines(sender);
            let (ran, result) = own.bind_and_drive(order, who, &wiring, &lines).await;
            let (ok, (why, problems)) = match result {
                Ok(()) => (true, Wrong::default()),
                Err(wrong) => (false, wrong),
            };
            let took_us = boottime_now().since(began).as_micros();
            lines.say(RunLine::End(RunEnd { ok, why, ran, problems, took_us }));
        });
        lines
    }

    /// Gives whether anything ran, and how it ended.
    async fn bind_and_drive(
        self: &Arc<Self>,
        order: RunOrder,
        who: String,
        wiring: &Arc<Wiring>,
        lines: &Lines,
    ) -> (bool, Result<(), Wrong>) {
        let Some(view) = catalog::settled_view(&wiring.core, catalog::WITHIN).await else {
            return (false, Err(("the agent is ending".into(), Vec::new())));
        };
        let dry = order.dry_run;
        let prepared = match prepare(order, &view) {
            Ok(prepared) => prepared,
            Err(wrong) => return (false, Err(wrong)),
        };
        let id = FlowId(u128::from_le_bytes(membership::random()));
        lines.say(RunLine::Plan(prepared.shown(id)));
        let (answers, mut heard) = mpsc::channel(ANSWERS_MAX);
        let (cancel, cancelled) = mpsc::channel(1);
        let status = prepared.status(id, &who, wiring.log.host());
        let driven = Driven { answers, cancel, status, began: boottime_now() };
        self.driven().insert(id, driven);
        let bound = self.bind_all(id, &prepared, (&mut heard, lines), wiring).await;
        let result = match bound {
            Ok(()) if !dry => {
                let driver =
                    Driver::new(self, wiring, id, prepared, (heard, cancelled), lines.clone());
                let ended = driver.run(&who).await;
                self.driven().remove(&id);
                return (true, ended.map_err(|why| (why, Vec::new())));
            }
            bound => bound.map_err(|why| (why, Vec::new())),
        };
        self.release(id, prepared.names.keys().copied(), wiring);
        self.driven().remove(&id);
        (false, result)
    }

    /// Has the script checked by all its nodes.
    async fn bind_all(
        self: &Arc<Self>,
        id: FlowId,
        prepared: &Prepared,
        (heard, lines): (&mut mpsc::Receiver<(NodeId, Answer)>, &Lines),
        wiring: &Arc<Wiring>,
    ) -> Result<(), String> {
        let mut open: BTreeSet<NodeId> = prepared.tasks.keys().copied().collect();
        let mut refused = Vec::new();
        let give_up = tokio::time::Instant::now() + BIND_WITHIN;
        let mut again = tokio::time::interval(BIND_AGAIN);
        while !open.is_empty() {
            tokio::select! {
                _ = again.tick() => {
                    for node in &open {
                        self.ask(*node, &prepared.request(id, *node, wiring.me.node), wiring);
                    }
                }
                Some((from, answer)) = heard.recv() => {
                    if !open.remove(&from) {
                        continue;
                    }
                    let node = prepared.name(from);
                    let ok = answer.word == Word::Bound;
                    if !ok {
                        refused.push(format!("{node} refuses: {}", answer.detail));
                    }
                    let Answer { detail: why, problems, .. } = answer;
                    lines.say(RunLine::Bound(NodeBound { node, ok, why, problems }));
                }
                () = tokio::time::sleep_until(give_up) => break,
            }
        }
        for node in open {
            let (node, why) = (prepared.name(node), "no answer in time".to_string());
            refused.push(format!("{node} did not answer"));
            lines.say(RunLine::Bound(NodeBound { node, ok: false, why, problems: Vec::new() }));
        }
        if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
    }

    /// Lets nodes forget a flow.
    pub(super) fn release(
        self: &Arc<Self>,
        flow: FlowId,
        nodes: impl Iterator<Item = NodeId>,
        wiring: &Arc<Wiring>,
    ) {
        let method = Method::Task { order: Order::Release, start: None };
        let request = Request { flow, epoch: super::drive::EPOCH, method };
        for node in nodes {
            self.ask(node, &request, wiring);
        }
    }

    /// The flows that all nodes drive.
    pub(crate) async fn flows(self: &Arc<Self>, wiring: &Arc<Wiring>) -> Option<FlowsAnswer> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let view = catalog::view(&wiring.core).await?;
        let mut open: BTreeSet<NodeId> = view.nodes.iter().map(|node| node.node).collect();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answers) = mpsc::channel(open.len() + 1);
        self.asked.lock().expect("no panic while locked").insert(number, sender);
        for node in &open {
            self.send(*node, ScriptMessage::AskFlows { number }, wiring);
        }
        let mut answer = FlowsAnswer::default();
        let all = async {
            while !open.is_empty() {
                let Some((from, flows)) = answers.recv().await else { return };
                if open.remove(&from) {
                    answer.flows.extend(flows);
                }
            }
        };
        // Who hasn't answered by then is silent.
        let _ = tokio::time::timeout(FLOWS_WITHIN, all).await;
        self.asked.lock().expect("no panic while locked").remove(&number);
        answer.silent = open.into_iter().map(|node| status::name_of(&view, node)).collect();
        answer.flows.sort_by(|a, b| b.age_ms.cmp(&a.age_ms).then_with(|| a.id.cmp(&b.id)));
        Some(answer)
    }

    /// Ends the one flow whose id begins so. Gives its id.
    pub(crate) async fn cancel(
        self: &Arc<Self>,
        wanted: &str,
        who: &str,
        wiring: &Arc<Wiring>,
    ) -> Result<String, String> {
        if wanted.is_empty() {
            return Err("say which flow: its id, or how that begins".into());
        }
        let flows = self.flows(wiring).await.ok_or("the agent is ending")?;
        let mut found = flows.flows.iter().filter(|flow| flow.id.starts_with(wanted));
        let (one, more) = (found.next(), found.next());
        let one = match (one, more) {
            (Some(one), None) => one,
            (Some(_), Some(_)) => return Err(format!("more than one flow begins with {wanted:?}")),
            (None, _) => {
                let silent = match flows.silent.as_slice() {
                    [] => String::new(),
                    silent => format!("; {} did not answer", silent.join(", ")),
                };
                return Err(format!("no flow {wanted:?} is under way{silent}"));
            }
        };
        let view = catalog::view(&wiring.core).await.ok_or("the agent is ending")?;
        let controller = view.nodes.iter().find(|node| node.record.name == one.controller);
        let controller = controller.ok_or("its controller is gone")?.node;
        let flow = u128::from_str_radix(&one.id, 16).map(FlowId).map_err(|e| e.to_string())?;
        let why = format!("by {who}");
        self.send(controller, ScriptMessage::Cancel { flow, why }, wiring);
        Ok(one.id.clone())
    }
}

/// How a flow's id is shown.
pub(super) fn shown(id: FlowId) -> String {
    format!("{:032x}", id.0)
}

/// Checks a script as far as the cluster goes, plans the flow, and finds its nodes.
fn prepare(order: RunOrder, view: &View) -> Result<Prepared, Wrong> {
    let plain = |why: String| (why, Vec::new());
    let role = order.role.unwrap_or_else(|| "admin".into());
    let permissions = Permissions::of_role(&role).ok_or_else(|| {
        let known: Vec<&str> = ROLES.iter().map(|(name, ..)| *name).collect();
        plain(format!("no role `{role}`; there are {}", known.join(", ")))
    })?;
    let offer = offer::of_cluster(view).for_role(&role, permissions);
    // What only a host can tell, hosts tell.
    let script = Script::read(&order.script, &offer, Some(&BTreeSet::new()));
    let script = script.map_err(|problems| {
        let report = Report::new(&order.name, &order.script, &problems).to_string();
        ("the script is not right".to_string(), vec![report])
    })?;
    let flow = chosen(&script, order.flow).map_err(plain)?;
    let mut arguments = Vec::new();
    for (name, typed) in order.arguments {
        let value = script.argument(&flow, &name, &typed).map_err(plain)?;
        arguments.push((name, value));
    }
    let plan = script.plan(&flow, arguments).map_err(plain)?;
    let waits = plan.steps.iter().filter(|step| matches!(step.kind, StepKind::Wait { .. }));
    if waits.count() > WAITS_MAX {
        return Err(plain(format!("more than {WAITS_MAX} steps wait for records")));
    }
    let part =
        |part: &&jizoku_script::check::Part| part.kind == PartKind::Flow && part.name == flow;
    let needs = script.checked.parts.iter().find(part).map_or(Permissions::NONE, |p| p.needs);
    let role = (role, permissions);
    let (nodes, names, tasks) = <(BTreeMap<_, _>, BTreeMap<_, _>, BTreeMap<_, _>)>::default();
    let mut prepared = Prepared { plan, nodes, names, role, needs, tasks, text: order.script };
    prepared.find_nodes(view).map_err(plain)?;
    Ok(prepared)
}

/// The flow that is meant.
fn chosen(script: &Script, named: Option<String>) -> Result<String, String> {
    let all: Vec<&str> = script.flows().collect();
    match (named, all.as_slice()) {
        (Some(name), _) if all.contains(&name.as_str()) => Ok(name),
        (Some(name), []) => Err(format!("no flow `{name}`: the script has none")),
        (Some(name), _) => Err(format!("no flow `{name}`; there are {}", all.join(", "))),
        (None, [one]) => Ok((*one).to_string()),
        (None, []) => Err("the script has no flow to run".into()),
        (None, _) => Err(format!("say which flow: there are {}", all.join(", "))),
    }
}

impl Prepared {
    fn find_nodes(&mut self, view: &View) -> Result<(), String> {
        let seen = Seen::all(view);
        let targets: Vec<(StepId, String, Target)> =
            self.plan.targets().map(|(id, task, on)| (id, task.to_string(), on.clone())).collect();
        for (step, task, target) in targets {
            let mut matching: Vec<&Seen<'_>> =
                seen.iter().filter(|node| target.matches(*node)).collect();
            if target.one {
                matching.retain(|node| node.is_reachable());
                matching.truncate(1);
            }
            if matching.is_empty() {
                return Err(format!("no node is `{target}`, where `{task}` should run"));
            }
            if let Some(away) = matching.iter().find(|node| !node.is_reachable()) {
                let name = away.name();
                return Err(format!("{name} can't be reached, where `{task}` should run"));
            }
            for node in &matching {
                let id = node.member().node;
                self.names.insert(id, node.name().to_string());
                self.tasks.entry(id).or_default().insert(task.clone());
            }
            self.nodes.insert(step, matching.iter().map(|node| node.member()).collect());
        }
        Ok(())
    }

    pub(super) fn name(&self, node: NodeId) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| node.short())
    }

    fn request(&self, flow: FlowId, node: NodeId, pool: NodeId) -> Request {
        let tasks = self.tasks.get(&node).into_iter().flatten().cloned().collect();
        let bind = Bind {
            kind: Kind::Script,
            script: self.text.clone(),
            tasks,
            role: self.role.clone(),
            hold: self.plan.synchronised,
            pool,
        };
        Request { flow, epoch: super::drive::EPOCH, method: Method::Check(bind) }
    }

    pub(super) fn needs(&self) -> Vec<String> {
        self.needs.iter().map(|permission| permission.name().to_string()).collect()
    }

    fn shown(&self, id: FlowId) -> RunPlan {
        let node = |(id, tasks): (&NodeId, &BTreeSet<String>)| PlanNode {
            node: self.name(*id),
            tasks: tasks.iter().cloned().collect(),
        };
        let mut nodes: Vec<PlanNode> = self.tasks.iter().map(node).collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        RunPlan {
            id: shown(id),
            flow: self.plan.flow.clone(),
            synchronised: self.plan.synchronised,
            role: self.role.0.clone(),
            needs: self.needs(),
            nodes,
        }
    }

    fn status(&self, id: FlowId, who: &str, controller: &str) -> FlowStatus {
        let mut nodes: Vec<String> = self.names.values().cloned().collect();
        nodes.sort();
        FlowStatus {
            id: shown(id),
            flow: self.plan.flow.clone(),
            controller: controller.to_string(),
            who: who.to_string(),
            role: self.role.0.clone(),
            synchronised: self.plan.synchronised,
            nodes,
            tasks: (0, 0),
            age_ms: 0,
        }
    }
}
