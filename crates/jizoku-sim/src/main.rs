//! `cargo xtask sim [options]`: runs the simulator over seeds and says what it found.
//!
//! - `--seed N`: this seed only; with `--trace` every event of interest is printed
//! - `--seeds N`, `--from S`: so many seeds, from this one on
//! - `--jobs J`: so many threads, each with a seed of its own; by default as many as there are
//!   processors. Results are printed in the order of the seeds.
//! - `--minutes M`: simulated minutes of each run; by default 10
//! - `--nodes N`: machines, instead of what the seed says
//! - `--kinds a,b`: kinds of trouble, instead of all; `none` for none
//! - `--idle N`: instead of all this, lets N machines rest, and measures what they say to each
//!   other and how fast a death gets around
//! - `--bug N`: with this planted bug, by its place in the list
//! - `--faults`: afterwards plants each proven bug in turn, and fails if one is not found

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use jizoku_sim::bug::{self, Bug, PROVEN, RARE, SHARP};
use jizoku_sim::plan::{Choice, KINDS, USUAL};
use jizoku_sim::scale;
use jizoku_sim::world::{Verdict, World};

/// What was asked for.
struct Options {
    from: u64,
    seeds: u64,
    jobs: usize,
    trace: bool,
    faults: bool,
    idle: Option<usize>,
    bug: Option<Bug>,
    choice: Choice,
}

/// Seeds in which a planted bug must be found.
const BUG_SEEDS: u64 = 30;

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(nodes) = options.idle {
        return idle(options.from, nodes);
    }
    let left_out: Vec<&str> =
        KINDS.iter().copied().filter(|kind| !options.choice.kinds.contains(kind)).collect();
    println!(
        "kinds of trouble: {}; left out: {}",
        options.choice.kinds.join(", "),
        left_out.join(", ")
    );
    let passed = campaign(&options);
    if passed && (!options.faults || bugs_are_found(&options)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Measures a cluster at rest.
fn idle(seed: u64, nodes: usize) -> ExitCode {
    match scale::measure(seed, nodes) {
        Ok(figures) => {
            let busy = processor_seconds().unwrap_or_default();
            println!("{figures}\n  measured in {busy:.0} s of a core");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// Plants each bug until a checker complains. Gives whether all were found.
fn bugs_are_found(options: &Options) -> bool {
    // Complaints are expected here: a panic's text is in them.
    std::panic::set_hook(Box::new(|_| ()));
    let missed = AtomicU64::new(0);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some((name, bug)) = PROVEN.iter().chain(RARE).nth(index) else { return };
                    let mut choice = options.choice.clone();
                    if index >= PROVEN.len() {
                        choice.kinds = SHARP.to_vec();
                    }
                    if !is_found(name, *bug, &choice) {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    missed.load(Ordering::Relaxed) == 0
}

fn is_found(name: &str, bug: Bug, choice: &Choice) -> bool {
    for seed in 0..BUG_SEEDS {
        let what = match run(seed, choice, false, Some(bug)) {
            Err(what) => Some(what),
            Ok(verdict) => verdict.violation,
        };
        if let Some(what) = what {
            let first = what.lines().next().unwrap_or_default();
            println!("planted \"{name}\": found by seed {seed} {first}");
            return true;
        }
    }
    println!("planted \"{name}\": NOT FOUND by {BUG_SEEDS} seeds");
    false
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, |count| count.get());
    let choice = Choice { minutes: 10, nodes: None, kinds: USUAL.to_vec() };
    let mut options = Options {
        from: 0,
        seeds: 1,
        jobs,
        trace: false,
        faults: false,
        idle: None,
        bug: None,
        choice,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: no number"));
        match arg.as_str() {
            "--seed" => options.from = number(value()?)?,
            "--from" => options.from = number(value()?)?,
            "--seeds" => options.seeds = number(value()?)?,
            "--jobs" => options.jobs = number(value()?)?.clamp(1, 64) as usize,
            "--minutes" => options.choice.minutes = number(value()?)?.max(1),
            "--nodes" => options.choice.nodes = Some(number(value()?)?.clamp(3, 9) as usize),
            "--faults" => options.faults = true,
            "--idle" => options.idle = Some(number(value()?)?.clamp(3, 256) as usize),
            "--bug" => {
                let index = number(value()?)? as usize;
                options.bug = Some(bug::numbered(index).ok_or("no such bug")?);
            }
            "--trace" => options.trace = true,
            "--kinds" => options.choice.kinds = kinds(&value()?)?,
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(options)
}

fn kinds(list: &str) -> Result<Vec<&'static str>, String> {
    if list == "none" {
        return Ok(Vec::new());
    }
    list.split(',')
        .map(|name| {
            let known = KINDS.iter().find(|kind| **kind == name);
            known.copied().ok_or(format!("no such kind: {name}; there are {}", KINDS.join(", ")))
        })
        .collect()
}

/// Runs one seed; a panic is a violation too.
fn run(seed: u64, choice: &Choice, trace: bool, bug: Option<Bug>) -> Result<Verdict, String> {
    let choice = choice.clone();
    let run = move || World::new(seed, &choice, bug, trace).run();
    std::panic::catch_unwind(run).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        format!("0: panic: {}", text.unwrap_or_default())
    })
}

/// Results that came before those of earlier seeds, and the sum of all that were printed.
struct Results {
    next: u64,
    early: BTreeMap<u64, Result<Verdict, String>>,
    failed: u64,
    hours: f64,
}

impl Results {
    /// Takes a seed's result, and prints what can be printed in the order of the seeds.
    fn take(&mut self, seed: u64, result: Result<Verdict, String>, options: &Options) {
        self.early.insert(seed, result);
        while let Some(result) = self.early.remove(&self.next) {
            let (failed, hours) = report(self.next, &result, options);
            self.failed += u64::from(failed);
            self.hours += hours;
            self.next += 1;
        }
    }
}

/// Runs all seeds, each on one thread. Gives whether none failed.
fn campaign(options: &Options) -> bool {
    let began = Instant::now();
    let next = AtomicU64::new(options.from);
    let results =
        Mutex::new(Results { next: options.from, early: BTreeMap::new(), failed: 0, hours: 0.0 });
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.from + options.seeds {
                        return;
                    }
                    let result = run(seed, &options.choice, options.trace, options.bug);
                    let mut results = results.lock().expect("no panic while locked");
                    results.take(seed, result, options);
                }
            });
        }
    });
    let Results { failed, hours, .. } = results.into_inner().expect("no panic while locked");
    let took = began.elapsed().as_secs_f64();
    // A machine that is busy with other things makes a run longer, but hardly dearer.
    let busy = processor_seconds().unwrap_or(took * options.jobs as f64);
    println!(
        "{} seeds, {failed} failed; {hours:.2} simulated node-hours in {took:.0} s and {busy:.1} s \
         of a core: {:.2} node-hours per second of a core",
        options.seeds,
        hours / busy.max(0.01)
    );
    failed == 0
}

/// Processor time that this process has used so far, on all cores. `None` if the system doesn't
/// tell.
fn processor_seconds() -> Option<f64> {
    /// The unit in which Linux tells times to programs, on all of its architectures.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name stands in parentheses, and may have spaces in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Prints a line for a seed. Gives whether it failed, and its node-hours.
fn report(seed: u64, result: &Result<Verdict, String>, options: &Options) -> (bool, f64) {
    let (violation, hours) = match result {
        Err(what) => (Some(what.clone()), 0.0),
        Ok(verdict) => {
            let c = verdict.counts;
            println!(
                "seed {seed}: {} nodes, {} takeovers, {} seals, {} set changes, {} troubles, {} \
                 crashes, {} disks, {} pauses, {} breaks, {} branches, {} orders, {} commits, {} \
                 answers, {} open, {} resets, {} tainted, {} frames, {} events, trace {:016x}",
                verdict.nodes,
                c.takeovers,
                c.seals,
                c.sets,
                c.troubles,
                c.crashes,
                c.disks,
                c.pauses,
                c.breaks,
                c.branches,
                c.orders,
                c.commits,
                c.answers,
                c.open,
                c.resets,
                c.tainted,
                c.frames,
                c.events,
                verdict.trace
            );
            let hours = verdict.lasted.as_millis() as f64 / 3_600_000.0 * verdict.nodes as f64;
            (verdict.violation.clone(), hours)
        }
    };
    if let Some(what) = &violation {
        let kinds = options.choice.kinds.join(",");
        let kinds = if kinds.is_empty() { "none" } else { &kinds };
        println!(
            "seed {seed}: VIOLATION {what}\nreplay: cargo xtask sim --seed {seed} --minutes {} \
             --kinds {kinds}{} --trace",
            options.choice.minutes,
            options.choice.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default()
        );
    }
    (violation.is_some(), hours)
}
