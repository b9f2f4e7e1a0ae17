//! Running flows: what happens is shown line by line, node by node; what is under way; cancelling.
//!
//! What it does not know: scripts. The agent checks them, and says what is wrong.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jizoku_api::run::{
    CancelOrder, FlowsQuery, NodeBound, RunEnd, RunLine, RunOrder, RunPlan, TaskLine,
};

use super::format::{json, outln};
use super::{Context, Failure, script};

/// Digits of a flow's id that are shown: enough to cancel it by.
const ID_SHOWN: usize = 8;

/// `jizoku run`
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The script; `-` is standard input.
    file: PathBuf,
    /// Which flow; the only one needn't be named.
    flow: Option<String>,
    /// Its arguments: texts as they are, all else as in scripts: port=8080 zones='["a", "b"]'.
    #[arg(value_name = "NAME=VALUE", value_parser = argument)]
    arguments: Vec<(String, String)>,
    /// Only have it checked by all its nodes; show what it needs, and where it would run.
    #[arg(long)]
    dry_run: bool,
    /// With the rights of this role: viewer, operator or admin.
    #[arg(long, default_value = "admin")]
    role: String,
}

/// `jizoku cancel`
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The flow's id, or the beginning of it.
    id: String,
}

fn argument(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("an argument is NAME=VALUE".into()),
    }
}

impl Run {
    pub(super) async fn run(mut self, context: &Context) -> Result<ExitCode, Failure> {
        // `jizoku run FILE port=8080`: the only flow, with an argument.
        if let Some(pair) = self.flow.as_deref().and_then(|flow| argument(flow).ok()) {
            self.arguments.insert(0, pair);
            self.flow = None;
        }
        let order = RunOrder {
            name: script::name(&self.file),
            script: script::read(&self.file)?,
            flow: self.flow,
            arguments: self.arguments,
            role: Some(self.role),
            dry_run: self.dry_run,
        };
        let mut end = None;
        let mut broken = None;
        let (dry_run, name) = (order.dry_run, order.name.clone());
        let shown = context.client.order_lines(&order, |line| {
            if context.json {
                match serde_json::to_string(&line) {
                    Ok(line) => outln!("{line}"),
                    Err(error) => broken = Some(error.to_string()),
                }
            } else {
                show(&line, &name);
            }
            if let RunLine::End(last) = line {
                end = Some(last);
            }
        });
        shown.await?;
        if let Some(broken) = broken {
            return Err(Failure(broken));
        }
        let Some(end) = end else {
            let what = "the answer broke off: the flow may go on; `jizoku flows` shows it";
            return Err(Failure(what.into()));
        };
        if !context.json {
            conclude(&end, dry_run);
        }
        Ok(if end.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A line for people.
fn show(line: &RunLine, file: &str) {
    match line {
        RunLine::Plan(plan) => show_plan(plan),
        RunLine::Bound(NodeBound { node, ok: true, .. }) => outln!("{node:12} bound"),
        RunLine::Bound(NodeBound { node, why, problems, .. }) => {
            outln!("{node:12} REFUSED    {why}");
            for problem in problems {
                // The node knows the text, but not where it came from.
                outln!("{}\n", problem.replacen(':', &format!("{file}:"), 1));
            }
        }
        RunLine::Task(TaskLine { node, task, state, symbol, detail, took_us, attempt, .. }) => {
            let again =
                if *attempt > 0 { format!(" (attempt {})", attempt + 1) } else { String::new() };
            match state.as_str() {
                "sent" => outln!("{node:12} {task:20} begins{again}"),
                "succeeded" => outln!("{node:12} {task:20} Succeeded  {}", time(*took_us)),
                _ => {
                    outln!("{node:12} {task:20} Failed     {}  {symbol}: {detail}", time(*took_us))
                }
            }
        }
        RunLine::Met(event) => outln!("{:12} {event:20} came", ""),
        RunLine::End(_) => {}
    }
}

fn show_plan(plan: &RunPlan) {
    let id = &plan.id[..ID_SHOWN.min(plan.id.len())];
    let hold = if plan.synchronised { ", holds its nodes" } else { "" };
    outln!("flow {} {id}{hold}", plan.flow);
    let needs = if plan.needs.is_empty() { "nothing".into() } else { plan.needs.join(", ") };
    outln!("as {}, needs {needs}", plan.role);
    for node in &plan.nodes {
        outln!("  on {:12} {}", node.node, node.tasks.join(", "));
    }
}

fn conclude(end: &RunEnd, dry_run: bool) {
    for problem in &end.problems {
        eprintln!("{problem}\n");
    }
    let took = time(end.took_us);
    match (end.ok, end.ran) {
        (true, false) if dry_run => outln!("every node would take it; nothing has run"),
        (true, _) => outln!("Succeeded  {took}"),
        (false, false) => eprintln!("jizoku: {}; nothing has run", end.why),
        (false, true) => eprintln!("jizoku: Failed after {took}: {}", end.why),
    }
}

#[allow(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn time(micros: u64) -> String {
    match micros {
        ..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

impl Cancel {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = context.order("cancelling", &CancelOrder { id: self.id }).await?;
        if context.json {
            json(&done)?;
        } else {
            done.notes.iter().for_each(|note| outln!("{note}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `jizoku flows`
pub(super) async fn flows(context: &Context) -> Result<ExitCode, Failure> {
    let answer = context.query(&FlowsQuery).await?;
    if context.json {
        json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    for flow in &answer.flows {
        let id = &flow.id[..ID_SHOWN.min(flow.id.len())];
        let hold = if flow.synchronised { "  holds them" } else { "" };
        let (running, ended) = flow.tasks;
        outln!(
            "{id}  {:20} by {} as {}, driven by {}, {}: {running} tasks run, {ended} ended; on {}{hold}",
            flow.flow,
            flow.who,
            flow.role,
            flow.controller,
            time(flow.age_ms * 1000),
            flow.nodes.join(" "),
        );
    }
    if !answer.silent.is_empty() {
        eprintln!("no answer from {}", answer.silent.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
