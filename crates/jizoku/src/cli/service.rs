//! `apply`, `rm`, `start`, `stop`, `move`, `resume`, `inspect`: what is done about a service.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jizoku_api::order::{ApplyOrder, Done, MoveOrder, ResumeOrder, RmOrder, StartOrder, StopOrder};
use jizoku_api::plan::{Action, ApplyPlan};
use jizoku_api::service::InspectQuery;
use jizoku_api::status::StatusQuery;
use jizoku_api::{ApiError, ErrorCode};
use jizoku_manifest::{Manifest, UnknownNode};
use jizoku_types::{NodeId, ServiceName};

use super::format::{bytes, json, span, table};
use super::{Context, Failure};

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
        let done = context.client.order(&RmOrder { service: self.service }).await?;
        report(context, &done)
    }

    pub(super) async fn start(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = context.client.order(&StartOrder { service: self.service }).await?;
        report(context, &done)
    }

    pub(super) async fn stop(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = context.client.order(&StopOrder { service: self.service }).await?;
        report(context, &done)
    }

    pub(super) async fn inspect(self, context: &Context) -> Result<ExitCode, Failure> {
        let found = context.client.query(&InspectQuery { service: self.service }).await?;
        if context.json {
            json(&found)?;
            return Ok(ExitCode::SUCCESS);
        }
        let one = &found.status;
        println!(
            "{} ({}), {}, spec version {}",
            one.name, one.service, one.engine, found.spec_version
        );
        println!("phase {:?}, epoch {}, wanted {:?}", one.phase, one.epoch, one.wanted);
        if let Some(node) = one.active {
            println!("active on {node}");
        }
        for holder in &one.holders {
            let behind = holder.behind.map_or(String::new(), |n| format!(", {n} behind"));
            println!("holder {} {:?}{behind}", holder.node.short(), holder.state);
        }
        if let Some(last) = one.checkpoint {
            println!(
                "checkpoint {} {} ago: {}, shipped {}, pause {} us",
                last.id,
                span(last.age_ms),
                bytes(last.size_bytes),
                bytes(last.shipped_bytes),
                last.pause_us
            );
        }
        for branch in &found.branches {
            println!(
                "branch {} at {}, {}",
                branch.branch,
                branch.checkpoint,
                bytes(branch.size_bytes)
            );
        }
        if !found.connections.is_empty() {
            let rows: Vec<_> = found
                .connections
                .iter()
                .map(|one| {
                    vec![
                        format!("{}:{}", one.gateway.short(), one.counter),
                        one.client.clone(),
                        one.port.clone(),
                        bytes(one.in_bytes),
                        bytes(one.out_bytes),
                        bytes(one.held_bytes),
                    ]
                })
                .collect();
            print!("{}", table(&["CONNECTION", "CLIENT", "PORT", "IN", "OUT", "HELD"], &rows));
        }
        for line in &found.printed {
            println!("| {line}");
        }
        Ok(ExitCode::SUCCESS)
    }
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
        let status = context.client.query(&StatusQuery).await?;
        let resolve = |name: &str| -> Result<NodeId, UnknownNode> {
            let found = status.nodes.iter().find(|node| node.name == name);
            let known = || status.nodes.iter().map(|node| node.name.clone()).collect();
            found.map(|node| node.node).ok_or_else(|| UnknownNode { known: known() })
        };
        let mut manifest =
            Manifest::read(&self.manifest, &resolve).map_err(|error| error.to_string())?;
        if let Some(program) = &manifest.program {
            let module = std::fs::read(program)
                .map_err(|error| format!("{}: can't be read: {error}", program.display()))?;
            eprintln!("sending {} ({})", program.display(), bytes(module.len() as u64));
            let stored = context.client.send_module(module).await?;
            manifest.set_module(stored.module);
        }
        let order = ApplyOrder { spec: manifest.spec, dry_run: self.dry_run, expect_version: None };
        let plan = context.client.order(&order).await?;
        if context.json {
            json(&plan)?;
        } else {
            print!("{}", plan_page(&plan));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn plan_page(plan: &ApplyPlan) -> String {
    let verb = match (plan.action, plan.applied) {
        (Action::Create, true) => "created",
        (Action::Create, false) => "would be created",
        (Action::Change, true) => "changed",
        (Action::Change, false) => "would change",
        (Action::Nothing, _) => "is so already",
    };
    let mut page = format!("{} {verb}\n", plan.name);
    for change in &plan.changes {
        let before = change.before.as_deref().unwrap_or("-");
        let after = change.after.as_deref().unwrap_or("-");
        page += &match plan.action {
            Action::Create => format!("  {}: {after}\n", change.field),
            _ => format!("  {}: {before} -> {after}\n", change.field),
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
}

impl Move {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let order = MoveOrder { service: self.service, to: self.to };
        let done = context.client.order(&order).await?;
        report(context, &done)
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
                "nobody who has the newest state of this service can be reached",
            );
            let error = error.hint(
                "It goes on by itself when a holder is back. To go on from older state now, and \
                 lose what is newer, say --accept-loss",
            );
            return Err(Failure(error.to_string()));
        }
        let order = ResumeOrder { service: self.service, accept_loss: self.accept_loss };
        let done = context.client.order(&order).await?;
        report(context, &done)
    }
}

/// Prints what an order came to.
pub(super) fn report(context: &Context, done: &Done) -> Result<ExitCode, Failure> {
    if context.json {
        json(done)?;
    } else {
        for note in &done.notes {
            println!("{note}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
