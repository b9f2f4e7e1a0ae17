//! `apply`, `rm`, `start`, `stop`, `move`, `resume`, `inspect`: what is done about a service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jizoku_api::order::{ApplyOrder, Done, MoveOrder, ResumeOrder, RmOrder, StartOrder, StopOrder};
use jizoku_api::plan::{Action, ApplyPlan, Effect};
use jizoku_api::service::{ConnectionStatus, InspectQuery, Inspection, Phase};
use jizoku_api::status::{ClusterStatus, StatusQuery};
use jizoku_api::{ApiError, ErrorCode};
use jizoku_manifest::{Manifest, UnknownNode};
use jizoku_types::{NodeId, ServiceName};

use super::format::{bytes, json, out, outln, span, table};
use super::status::{checkpoint_text, failing_text};
use super::{Context, Failure, progress};
use crate::client::CallError;

/// What is said while an order takes long.
const ASKING: &str = "asking the catalog";

/// Reads a service's name from the command line.
pub(super) fn name(text: &str) -> Result<ServiceName, String> {
    ServiceName::new(text).map_err(|error| error.to_string())
}

/// Arguments of verbs that only name a service.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// The service.
    #[arg(value_parser = name)]
    service: ServiceName,
}

impl Named {
    pub(super) async fn rm(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = context.order(ASKING, &RmOrder { service: self.service }).await?;
        report(context, &done)
    }

    pub(super) async fn start(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = context.order(ASKING, &StartOrder { service: self.service }).await?;
        report(context, &done)
    }

    pub(super) async fn stop(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = context.order(ASKING, &StopOrder { service: self.service }).await?;
        report(context, &done)
    }

    pub(super) async fn inspect(self, context: &Context) -> Result<ExitCode, Failure> {
        let query = InspectQuery { service: self.service };
        let found = context.query(&query).await?;
        if context.json {
            json(&found)?;
        } else {
            out!("{}", inspection(&found, &context.names().await?));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn inspection(found: &Inspection, names: &BTreeMap<NodeId, String>) -> String {
    let name = |node: &NodeId| names.get(node).cloned().unwrap_or_else(|| node.short());
    let one = &found.status;
    let phase = format!("{:?}", one.phase).to_lowercase();
    let wanted = format!("{:?}", one.wanted).to_lowercase();
    let active = one.active.as_ref().map_or("nowhere".into(), name);
    let mut page = format!(
        "{} ({}), {}, spec version {}\n{phase} on {active}, epoch {}, wanted {wanted}\n",
        one.name, one.service, one.engine, found.spec_version, one.epoch
    );
    let since = one.verdict.since_ms.map_or(String::new(), |ms| format!(" for {}", span(ms)));
    page += &match one.verdict.serving {
        Some(true) => format!("the watch says: serving{since}\n"),
        Some(false) => format!("the watch says: NOT SERVING{since}: {}\n", one.verdict.detail),
        None => "the watch says nothing yet\n".to_string(),
    };
    if let Some(failing) = &one.failing {
        page += failing_text(failing).trim_start_matches(", ");
        page.push('\n');
    }
    for port in &one.ports {
        page += &format!("port {} published at {}\n", port.name, port.listen);
    }
    for holder in &one.holders {
        let state = format!("{:?}", holder.state).to_lowercase();
        let has = holder.acknowledged.map_or(String::new(), |id| format!(", has {id}"));
        let behind = match holder.behind {
            Some(count) if count > 0 => format!(", {count} behind"),
            _ => String::new(),
        };
        let behind = match holder.prepared {
            Some(false) => behind + ", has yet to compile the program",
            _ => behind,
        };
        page += &format!("holder {}: {state}{has}{behind}\n", name(&holder.node));
    }
    if let Some(last) = &one.checkpoint {
        page += &format!("checkpoint {}\n", checkpoint_text(last));
    }
    for branch in &found.branches {
        let (at, size) = (branch.checkpoint, bytes(branch.size_bytes));
        page += &format!("branch {} at {at}, {size}\n", branch.branch);
    }
    if !found.connections.is_empty() {
        let row = |one: &ConnectionStatus| {
            vec![
                format!("{}:{}", name(&one.gateway), one.counter),
                one.client.clone(),
                one.port.clone(),
                bytes(one.in_bytes),
                bytes(one.out_bytes),
                bytes(one.held_bytes),
            ]
        };
        let rows: Vec<_> = found.connections.iter().map(row).collect();
        page += &table(&["CONNECTION", "CLIENT", "PORT", "IN", "OUT", "HELD"], &rows);
    }
    for line in &found.printed {
        page += &format!("| {line}\n");
    }
    page
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The manifest.
    manifest: PathBuf,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let status = context.query(&StatusQuery).await?;
        let resolve = |name: &str| -> Result<NodeId, UnknownNode> {
            let found = status.nodes.iter().find(|node| node.name == name);
            let known = || status.nodes.iter().map(|node| node.name.clone()).collect();
            found.map(|node| node.node).ok_or_else(|| UnknownNode { known: known() })
        };
        let mut manifest =
            Manifest::read(&self.manifest, &resolve).map_err(|error| error.to_string())?;
        if let Some(program) = &manifest.program {
            let hash = send_module(program, context).await?;
            manifest.set_module(hash);
        }
        let mut order = ApplyOrder { spec: manifest.spec, dry_run: true, expect_version: None };
        let plan = context.order(ASKING, &order).await?;
        if !context.json {
            let page = plan_page(&plan, self.dry_run);
            out!("{}", named(page, &status));
        }
        if self.dry_run || plan.action == Action::Nothing {
            if context.json {
                json(&plan)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        // What was shown is what is done, or nothing is.
        order.dry_run = false;
        order.expect_version = Some(plan.spec_version);
        let done = context.order(ASKING, &order).await?;
        if context.json {
            json(&done)?;
        } else {
            outln!("done: version {}; `jizoku status` shows how it goes", done.spec_version);
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn send_module(program: &Path, context: &Context) -> Result<[u8; 32], Failure> {
    let module = std::fs::read(program).map_err(|error| {
        let place = program.display();
        match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "{place}: no such file; `program` counts from the manifest's folder.\n\
                 Build it with\n  cargo build --release --target wasm32-wasip1"
            ),
            _ => format!("{place}: can't be read: {error}"),
        }
    })?;
    let what = format!("preparing {} ({})", program.display(), bytes(module.len() as u64));
    let sending = context.client.send_module(module);
    let stored = progress::during(&what, sending).await.map_err(|error| match error {
        CallError::Api(error) => format!("{}: {error}", program.display()),
        other => other.to_string(),
    })?;
    Ok(stored.module)
}

/// With what people call the nodes in the place of the first digits of their keys.
fn named(page: String, status: &ClusterStatus) -> String {
    let name = |line: &str| {
        let of_nodes = ["  succession:", "  placement.only:", "  placement.except:"];
        if !of_nodes.iter().any(|field| line.starts_with(field)) {
            return line.to_string();
        }
        status
            .nodes
            .iter()
            .fold(line.to_string(), |line, node| line.replace(&node.node.short(), &node.name))
    };
    page.split_inclusive('\n').map(name).collect()
}

fn plan_page(plan: &ApplyPlan, dry_run: bool) -> String {
    let verb = match (plan.action, dry_run) {
        (Action::Create, true) => "would be created",
        (Action::Create, false) => "is created",
        (Action::Change, true) => "would change",
        (Action::Change, false) => "changes",
        (Action::Nothing, _) => "is so already",
    };
    let mut page = format!("{} {verb}\n", plan.name);
    for change in &plan.changes {
        let text = |value: &Option<String>| match value.as_deref() {
            None | Some("") => "-".to_string(),
            Some(value) => value.to_string(),
        };
        let (before, after) = (text(&change.before), text(&change.after));
        let effect = match change.effect {
            Effect::None => "",
            Effect::Copies => "   (copies are made or dropped)",
            Effect::Place => "   (it may move)",
            Effect::Ports => "   (gateways open or close ports)",
            Effect::Restart => "   (the program is ended and begins anew)",
        };
        page += &match plan.action {
            Action::Create => format!("  {}: {after}\n", change.field),
            _ => format!("  {}: {before} -> {after}{effect}\n", change.field),
        };
    }
    for note in &plan.notes {
        page += &format!("  {note}\n");
    }
    page
}

/// Arguments of `move`.
#[derive(Debug, Args)]
pub(super) struct Move {
    /// The service.
    #[arg(value_parser = name)]
    service: ServiceName,
    /// The node it shall go to, by name or id; by succession if none is named.
    #[arg(long)]
    to: Option<String>,
    /// Don't wait until it runs there.
    #[arg(long)]
    no_wait: bool,
}

impl Move {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let place = |status: &ClusterStatus| {
            let found = status.services.iter().find(|one| one.name == self.service);
            found.map(|one| (one.active, one.epoch, one.phase))
        };
        let before = place(&context.query(&StatusQuery).await?);
        let order = MoveOrder { service: self.service.clone(), to: self.to.clone() };
        let done = context.order(ASKING, &order).await?;
        if self.no_wait {
            return report(context, &done);
        }
        let moved = |status: &ClusterStatus| match (before, place(status)) {
            (Some((_, old, _)), Some((_, new, phase))) => old != new && phase == Phase::Running,
            _ => true,
        };
        if !context.until("moving the service", moved).await? {
            return Err(Failure(format!(
                "{} did not move; `jizoku events --service {}` says why",
                self.service, self.service
            )));
        }
        let status = context.query(&StatusQuery).await?;
        let names: BTreeMap<NodeId, String> =
            status.nodes.iter().map(|node| (node.node, node.name.clone())).collect();
        let active = place(&status).and_then(|(active, ..)| active);
        let name = active.and_then(|node| names.get(&node).cloned()).unwrap_or("?".into());
        report(context, &Done { notes: vec![format!("{} runs on {name} now", self.service)] })
    }
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// The service.
    #[arg(value_parser = name)]
    service: ServiceName,
    /// Take the best state that is left, though acknowledged writes may be missing from it.
    #[arg(long)]
    accept_loss: bool,
}

impl Resume {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        if !self.accept_loss {
            let error = ApiError::new(
                ErrorCode::Refused,
                "this goes on from the best state that is left, and gives up what is newer",
            );
            let error = error.hint(
                "A service whose state can't be reached goes on by itself when a holder is back. \
                 To go on now, say --accept-loss",
            );
            return Err(Failure(error.to_string()));
        }
        let order = ResumeOrder { service: self.service, accept_loss: self.accept_loss };
        let done = context.order(ASKING, &order).await?;
        report(context, &done)
    }
}

/// Prints what an order came to.
pub(super) fn report(context: &Context, done: &Done) -> Result<ExitCode, Failure> {
    if context.json {
        json(done)?;
    } else {
        for note in &done.notes {
            outln!("{note}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
