//! `cargo xtask soak [options]`: a campaign of faults on real processes.
//!
//! - `--seed N`: what is drawn; by default 0
//! - `--minutes M`: it ends after so long; `--faults N`: after so many steps; by default 10 minutes
//! - `--from N`: the first step, instead of 0
//! - `--kinds a,b`: kinds of fault, instead of all
//! - `--short`: short faults, short calm, each kind once: what CI runs
//! - `--quiet-minutes M`, `--load L`: no faults; so many threads compute, and nobody may take over
//! - `--nodes N`, `--writers N` (for each gateway and service): 5 and 2 by default
//! - `--json`: the result for programs, after everything else

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::spaces;
use jizoku_soak::campaign::{Campaign, Options};
use jizoku_soak::machines::NODES_MAX;
use jizoku_soak::plan::{Draw, KINDS, Kind};
use jizoku_soak::quiet;
use jizoku_soak::report::Report;

struct Asked {
    options: Options,
    quiet: Option<Duration>,
    load: usize,
    json: bool,
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    let report = Mutex::new(None);
    if spaces::available() {
        spaces::within(|spaces| {
            let cluster = Cluster::apart(spaces, 0);
            *report.lock().expect("one thread") = Some(run(cluster, true, &asked));
        });
    } else {
        println!("no namespaces: all nodes are processes on loopback");
        *report.lock().expect("one thread") = Some(run(Cluster::empty(), false, &asked));
    }
    let report = report.into_inner().expect("one thread").expect("it has run");
    println!("{}", report.table());
    if asked.json {
        println!("{}", report.json());
    }
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(cluster: Cluster, apart: bool, asked: &Asked) -> Report {
    let mut options = asked.options.clone();
    if asked.quiet.is_some() {
        options.steps = 0;
    }
    let mut campaign = Campaign::start(cluster, apart, options);
    println!(
        "{:>7.1} s  {} nodes, services and clients are there; seed {}",
        campaign.now().as_secs_f64(),
        campaign.machines.count,
        asked.options.draw.seed
    );
    if let Some(lasts) = asked.quiet {
        quiet::run(&mut campaign, lasts, asked.load);
    }
    campaign.run()
}

fn read(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let all = KINDS.iter().map(|row| row.0).collect();
    let mut options = Options {
        draw: Draw { seed: 0, kinds: all, short: false },
        from: 0,
        steps: u64::MAX >> 1,
        limit: Duration::from_secs(600),
        calm: Duration::from_secs(2),
        nodes: 5,
        writers: 2,
    };
    let (mut quiet, mut load, mut json, mut counted) = (None, 0, false, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: no number"));
        let minutes = |text: String| {
            let found = text.parse::<f64>().ok().filter(|found| (0.0..1e6).contains(found));
            let found = found.ok_or(format!("{text}: no number of minutes"))?;
            Ok::<_, String>(Duration::from_secs_f64(found * 60.0))
        };
        match arg.as_str() {
            "--seed" => options.draw.seed = number(value()?)?,
            "--from" => options.from = number(value()?)?,
            "--minutes" => (options.limit, counted) = (minutes(value()?)?, true),
            "--faults" => {
                options.steps = number(value()?)?;
                if !counted {
                    options.limit = Duration::MAX;
                }
                counted = true;
            }
            "--kinds" => options.draw.kinds = kinds(&value()?)?,
            "--short" => {
                options.draw.short = true;
                options.calm = Duration::from_millis(500);
                options.writers = 1;
            }
            "--quiet-minutes" => quiet = Some(minutes(value()?)?),
            "--load" => load = number(value()?)? as usize,
            "--nodes" => options.nodes = number(value()?)?.clamp(5, NODES_MAX as u64) as usize,
            "--writers" => options.writers = number(value()?)?.clamp(1, 100) as usize,
            "--json" => json = true,
            other => return Err(format!("no such option: {other}")),
        }
    }
    if options.draw.short && !counted {
        options.steps = options.draw.kinds.len() as u64;
        options.limit = Duration::MAX;
    }
    Ok(Asked { options, quiet, load, json })
}

fn kinds(list: &str) -> Result<Vec<Kind>, String> {
    let names: Vec<&str> = KINDS.iter().map(|row| row.1).collect();
    let found = |name| Kind::named(name).ok_or(format!("no {name} among {}", names.join(", ")));
    list.split(',').map(found).collect()
}
