//! `jizoku demo`: five nodes on one machine, two deaths, one verdict.
//!
//! Everything is real: five agents as processes on loopback, a key-value server built for WASI,
//! clients that hold their connections open through nodes that stay alive, SIGKILL for the node
//! that runs the service, and again for the one that goes on. At the end every acknowledged write
//! is looked for. The exit code says whether anything was lost, doubled or broken.
//!
//! - [`cluster`]: the agents' processes
//! - [`guest`]: the server's module, built if need be
//! - [`load`]: clients that write and check what they are told
//! - [`timeline`]: what happened when, from the agents' events

mod cluster;
mod guest;
mod load;
mod timeline;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::cluster::Cluster;
use self::load::{Load, Tally};
use self::timeline::Timeline;
use crate::cli::{Failure, outln};

/// How long the service is under load before, between and after the deaths.
const PHASE: Duration = Duration::from_secs(2);
/// How long anything may take to come about before the demo gives up.
const WITHIN: Duration = Duration::from_secs(60);

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Connections that are held open.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How many active nodes are killed, one after the other.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    kills: u8,
    /// State to fill in first, in MiB.
    #[arg(long, default_value_t = 4)]
    state: usize,
    /// The server's module, if it isn't to be built from the examples.
    #[arg(long)]
    module: Option<PathBuf>,
    /// Leave the agents' folders and logs behind.
    #[arg(long)]
    keep: bool,
    /// Print the verdict only.
    #[arg(long)]
    quiet: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Verdict {
    ok: bool,
    acknowledged: u64,
    lost: u64,
    doubled: u64,
    connections: usize,
    connections_kept: usize,
    kills: Vec<Kill>,
    median_answer_us: u64,
    state_bytes: u64,
    seconds: f64,
    problems: Vec<String>,
}

/// One death.
#[derive(Debug, Serialize)]
struct Kill {
    node: String,
    /// Until the first answer on any of the open connections, in milliseconds.
    first_answer_ms: f64,
    /// Until each of them had an answer.
    all_answered_ms: f64,
    steps: Vec<timeline::Step>,
}

impl Demo {
    pub(crate) fn run(self, json: bool) -> Result<ExitCode, Failure> {
        let say = |text: &str| {
            if !self.quiet && !json {
                outln!("{text}");
            }
        };
        let began = Instant::now();
        let module = match &self.module {
            Some(path) => path.clone(),
            None => guest::build(&say)?,
        };
        say("starting five agents on loopback");
        let mut cluster = Cluster::start(5, self.keep)?;
        say(&format!("their data and logs: {}", cluster.folder().display()));
        let mut stage = Stage { demo: &self, say: &say, problems: Vec::new() };
        let outcome = stage.play(&mut cluster, &module);
        let problems = std::mem::take(&mut stage.problems);
        let verdict = match outcome {
            Ok(outcome) => outcome.verdict(problems, began.elapsed()),
            Err(failure) => {
                cluster.keep();
                return Err(Failure(format!(
                    "the demo came to no end: {}\nLogs: {}",
                    failure.0,
                    cluster.folder().display()
                )));
            }
        };
        if !verdict.ok {
            cluster.keep();
            say(&format!("logs: {}", cluster.folder().display()));
        }
        let text = serde_json::to_string(&verdict).map_err(|error| error.to_string())?;
        outln!("{text}");
        Ok(if verdict.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What the demo has seen when it is over.
struct Outcome {
    tally: Tally,
    kills: Vec<Kill>,
    state_bytes: u64,
}

impl Outcome {
    fn verdict(self, problems: Vec<String>, took: Duration) -> Verdict {
        let Tally { acknowledged, lost, doubled, connections, kept, median_us } = self.tally;
        Verdict {
            ok: lost == 0 && doubled == 0 && kept == connections && problems.is_empty(),
            acknowledged,
            lost,
            doubled,
            connections,
            connections_kept: kept,
            kills: self.kills,
            median_answer_us: median_us,
            state_bytes: self.state_bytes,
            seconds: took.as_secs_f64(),
            problems,
        }
    }
}

struct Stage<'d> {
    demo: &'d Demo,
    say: &'d dyn Fn(&str),
    problems: Vec<String>,
}

impl Stage<'_> {
    fn play(
        &mut self,
        cluster: &mut Cluster,
        module: &std::path::Path,
    ) -> Result<Outcome, Failure> {
        cluster.wait_for(WITHIN, "five nodes with a leader", |status| {
            status.leader.is_some() && status.nodes.len() == 5 && status.voters.len() >= 3
        })?;
        (self.say)("applying the key-value server");
        let port = cluster.apply(module)?;
        let status = cluster.wait_for(WITHIN, "a service with two holders", |status| {
            let service = status.services.first();
            service.is_some_and(|one| one.checkpoint.is_some() && one.holders.len() >= 2)
        })?;
        let service = &status.services[0];
        let gateways = cluster.bystanders(service)?;
        let active = cluster.name_of(service.active);
        (self.say)(&format!("active on {active}; clients connect through {}", gateways.join(", ")));
        let addresses = cluster.gateways(&gateways, port);
        load::fill(&addresses[0], self.demo.state << 20)?;
        let load = Load::start(&addresses, self.demo.connections)?;
        let mut kills = Vec::new();
        load.run_for(PHASE)?;
        for _ in 0..self.demo.kills {
            kills.push(self.kill(cluster, &load)?);
            load.run_for(PHASE)?;
        }
        let status = cluster.status()?;
        let size = status.services.first().and_then(|one| one.checkpoint).map(|c| c.size_bytes);
        let tally = load.finish(&addresses)?;
        (self.say)(&format!(
            "{} writes acknowledged, {} lost, {} doubled; {} of {} connections kept",
            tally.acknowledged, tally.lost, tally.doubled, tally.kept, tally.connections
        ));
        Ok(Outcome { tally, kills, state_bytes: size.unwrap_or(0) })
    }

    fn kill(&mut self, cluster: &mut Cluster, load: &Load) -> Result<Kill, Failure> {
        let status = cluster.wait_for(WITHIN, "two holders", |status| {
            status.services.first().is_some_and(|one| {
                let away =
                    |holder: &&jizoku_api::service::HolderStatus| Some(holder.node) != one.active;
                one.holders.iter().filter(away).count() >= 2
            })
        })?;
        let node = cluster.name_of(status.services[0].active);
        (self.say)(&format!("killing {node} (SIGKILL), which runs the service"));
        let mark = load.mark();
        let at = timeline::now();
        cluster.kill(&node)?;
        let answers = load.wait_for_answers(&mark, WITHIN)?;
        let timeline = Timeline::read(cluster, at);
        (self.say)(&timeline.text());
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        (self.say)(&format!(
            "  {:8.1} ms  first answer on an open connection; all {} by {:.1} ms",
            ms(answers.first),
            self.demo.connections,
            ms(answers.all)
        ));
        Ok(Kill {
            node,
            first_answer_ms: ms(answers.first),
            all_answered_ms: ms(answers.all),
            steps: timeline.steps,
        })
    }
}
