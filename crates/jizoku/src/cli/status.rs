//! `status`, `ps`, `metrics`, `doctor`: what is.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jizoku_api::doctor::{DoctorQuery, DoctorReport, Health};
use jizoku_api::service::{CheckpointStatus, Failing, HolderState, PsQuery, ServiceStatus};
use jizoku_api::status::{ClusterStatus, NodeStatus, Reach, StatusQuery};
use jizoku_types::{NodeId, ServiceName};

use super::format::{bytes, json, json_line, micros, out, span, table};
use super::{Context, Failure, progress};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Show it again each second.
    #[arg(long, short)]
    watch: bool,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        loop {
            let status = context.query(&StatusQuery).await?;
            if self.watch && !context.json {
                // Clear the screen and go home.
                out!("\x1b[2J\x1b[H");
            }
            if context.json && self.watch {
                json_line(&status)?;
            } else if context.json {
                json(&status)?;
            } else {
                out!("{}", cluster(&status));
            }
            if !self.watch {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// The whole page.
pub(super) fn cluster(status: &ClusterStatus) -> String {
    let names: BTreeMap<NodeId, &str> =
        status.nodes.iter().map(|node| (node.node, node.name.as_str())).collect();
    let mut page = String::new();
    match status.cluster {
        Some(cluster) => {
            let leader = status.leader.map_or("none".into(), |node| name(&names, node));
            page += &format!(
                "{cluster}, generation {}, leader {leader}, {} voters\n\n",
                status.generation.0,
                status.voters.len()
            );
        }
        None => {
            page += "this node has not heard from its cluster yet: it has just started, or no \
                     other member can be reached\n\n";
        }
    }
    for warning in &status.warnings {
        page += &format!("! {}\n", warning.message);
        if let Some(hint) = &warning.hint {
            page += &format!("  {hint}\n");
        }
    }
    if !status.warnings.is_empty() {
        page.push('\n');
    }
    let voters = &status.voters;
    let rows: Vec<_> = status.nodes.iter().map(|node| row_of_node(node, voters, &names)).collect();
    page += &table(&["NODE", "STATE", "ROLE", "ACTIVE", "HOLDS", "SPARE", "ADDRESS"], &rows);
    if !status.services.is_empty() {
        page.push('\n');
        let rows: Vec<_> = status.services.iter().map(|one| row_of_service(one, &names)).collect();
        let head = [
            "SERVICE",
            "STATE",
            "ACTIVE",
            "EPOCH",
            "OUTPUT",
            "HOLDERS",
            "CHECKPOINT",
            "CONNS",
            "PORTS",
        ];
        page += &table(&head, &rows);
    }
    page
}

fn name(names: &BTreeMap<NodeId, &str>, node: NodeId) -> String {
    names.get(&node).map_or_else(|| node.short(), ToString::to_string)
}

fn row_of_node(
    node: &NodeStatus,
    voters: &[NodeId],
    names: &BTreeMap<NodeId, &str>,
) -> Vec<String> {
    let state = match node.reach {
        Reach::This => "here".into(),
        Reach::Direct => match node.round_trip_us {
            Some(us) => format!("up, {}", micros(us)),
            None => "up".into(),
        },
        Reach::Relayed { via } => format!("up via {}", name(names, via)),
        Reach::Unreachable => "UNREACHABLE".into(),
    };
    let mut role = vec![if voters.contains(&node.node) { "voter" } else { "follower" }];
    if node.witness {
        role.push("witness");
    }
    if node.draining {
        role.push("DRAINING");
    }
    let spare = node.spare.map_or("-".into(), |spare| {
        format!(
            "{} % cpu, {}, disk {}",
            spare.cpu_permille / 10,
            bytes(spare.memory_bytes),
            bytes(spare.disk_bytes)
        )
    });
    vec![
        node.name.clone(),
        state,
        role.join(" "),
        node.active.to_string(),
        node.held.to_string(),
        spare,
        node.addresses.first().cloned().unwrap_or_default(),
    ]
}

/// A checkpoint in one line.
pub(super) fn checkpoint_text(last: &CheckpointStatus) -> String {
    if last.shipped_bytes == 0 {
        let (age, size) = (span(last.age_ms), bytes(last.size_bytes));
        return format!("{} gone on from {age} ago, {size}", last.id);
    }
    let commit = last.commit_us.map_or("?".into(), micros);
    format!(
        "{} {} ago, {}, shipped {}, pause {}, commit {commit}",
        last.id,
        span(last.age_ms),
        bytes(last.size_bytes),
        bytes(last.shipped_bytes),
        micros(last.pause_us)
    )
}

/// Why and how often it ended, after what it is doing.
pub(super) fn failing_text(failing: &Failing) -> String {
    let next =
        failing.next_try_ms.map_or(String::new(), |ms| format!(", tried again in {}", span(ms)));
    format!(", ended {}x in a row{next}: {}", failing.times, failing.reason)
}

fn row_of_service(one: &ServiceStatus, names: &BTreeMap<NodeId, &str>) -> Vec<String> {
    let mut state = format!("{:?}", one.phase).to_lowercase();
    if one.unprotected {
        state += " UNPROTECTED";
    }
    if one.state_may_be_missing {
        state += " (state may be missing)";
    }
    if let Some(failing) = &one.failing {
        state += &failing_text(failing);
    }
    if one.verdict.serving == Some(false) {
        state += &format!(", NOT SERVING: {}", one.verdict.detail);
    }
    let holders: Vec<String> = one
        .holders
        .iter()
        .map(|holder| {
            let name = name(names, holder.node);
            let waits = holder.prepared == Some(false) && holder.state != HolderState::Silent;
            let name = if waits { format!("{name}~") } else { name };
            match (holder.state, holder.behind) {
                (HolderState::Member, Some(behind)) if behind > 0 => format!("{name}-{behind}"),
                (HolderState::Member, _) => name,
                (HolderState::Joining, _) => format!("{name}+"),
                (HolderState::Silent, _) => format!("{name}?"),
            }
        })
        .collect();
    let checkpoint = one.checkpoint.map_or("-".into(), |last| checkpoint_text(&last));
    let ports: Vec<String> = one.ports.iter().map(|port| port.listen.to_string()).collect();
    vec![
        one.name.to_string(),
        state,
        one.active.map_or("-".into(), |node| name(names, node)),
        one.epoch.to_string(),
        format!("{:?}", one.output).to_lowercase(),
        if holders.is_empty() { "-".into() } else { holders.join(" ") },
        checkpoint,
        one.connections.map_or("?".into(), |count| count.to_string()),
        ports.join(" "),
    ]
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Only those of this service.
    #[arg(value_parser = super::service::name)]
    service: Option<ServiceName>,
}

impl Ps {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let answer = context.query(&PsQuery { service: self.service }).await?;
        if context.json {
            json(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        let names = context.names().await?;
        let name = |node: &NodeId| names.get(node).cloned().unwrap_or_else(|| node.short());
        let rows: Vec<_> = answer
            .instances
            .iter()
            .map(|one| {
                vec![
                    one.name.to_string(),
                    name(&one.node),
                    format!("{:?}", one.role).to_lowercase(),
                    one.epoch.to_string(),
                    one.engine.clone(),
                    one.pid.map_or("-".into(), |pid| pid.to_string()),
                    span(one.up_ms),
                    one.cpu_ms.map_or("-".into(), span),
                    one.memory_bytes.map_or("-".into(), bytes),
                    one.connections.to_string(),
                ]
            })
            .collect();
        let head =
            ["SERVICE", "NODE", "ROLE", "EPOCH", "ENGINE", "PID", "UP", "CPU", "MEMORY", "CONNS"];
        out!("{}", table(&head, &rows));
        for node in &answer.silent {
            eprintln!("{} did not answer", name(node));
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) async fn metrics(context: &Context) -> Result<ExitCode, Failure> {
    out!("{}", progress::during("waiting for the agent", context.client.metrics()).await?);
    Ok(ExitCode::SUCCESS)
}

/// `doctor`: asks the agent if there is one; looks by itself otherwise.
pub(super) async fn doctor(context: &Context) -> Result<ExitCode, Failure> {
    let report = match context.query(&DoctorQuery).await {
        Ok(report) => report,
        Err(_) => crate::doctor::examine(&context.data),
    };
    if context.json {
        json(&report)?;
    } else {
        out!("{}", doctor_page(&report));
    }
    Ok(if report.worst() == Health::Bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn doctor_page(report: &DoctorReport) -> String {
    let mut page = String::new();
    for finding in &report.findings {
        let mark = match finding.health {
            Health::Good => "ok  ",
            Health::Weak => "weak",
            Health::Bad => "BAD ",
        };
        page += &format!("{mark}  {:22}  {}\n", finding.topic, finding.found);
        if !finding.effect.is_empty() {
            page += &format!("      {:22}  {}\n", "", finding.effect);
        }
        if let Some(mend) = &finding.mend {
            page += &format!("      {:22}  to mend: {mend}\n", "");
        }
    }
    page
}
