//! L5: measures what the project promises in figures, on real processes.
//!
//! `jizoku-bench list | all | NAME...`; people call it as `cargo xtask bench`. Each figure is one
//! line of JSON: value, limit, load and conditions. The same lines are added to a history file,
//! `bench/history.jsonl` in the target folder; `JIZOKU_BENCH_HISTORY` names another one.
//!
//! - [`figure`]: what is printed, and when a limit is met
//! - [`stage`]: clusters with a key-value server, and where it is active
//! - [`clients`]: connections whose answers are timed
//! - [`usage`]: what processes take
//! - a file for each bench
//!
//! What it does not know: anything but what users see, and what Linux counts for processes.
//!
//! Invariants
//! - A workload is never made easier so that a limit is met; a missed limit is said to be missed.
//! - A wrong answer, a lost write or a broken connection ends a bench: there is no figure then.

#![forbid(unsafe_code)]

mod added;
mod checkpoint;
mod clients;
mod cut;
mod figure;
mod gateway;
mod holder;
mod idle;
mod killed;
mod planned;
mod scale;
mod services;
mod stage;
mod tasks;
mod throughput;
mod usage;

use std::process::ExitCode;
use std::time::Instant;

use figure::{Figure, History};

/// One thing that can be measured.
struct Bench {
    name: &'static str,
    what: &'static str,
    /// About how long it takes on two cores, in seconds.
    seconds: u32,
    run: fn() -> Vec<Figure>,
}

/// In the order in which `all` runs them.
const BENCHES: &[Bench] = &[
    killed::BENCH,
    cut::BENCH,
    holder::BENCH,
    planned::BENCH,
    checkpoint::BENCH,
    added::BENCH,
    throughput::BENCH,
    idle::BENCH,
    services::BENCH,
    gateway::BENCH,
    scale::BENCH,
    tasks::BENCH,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let chosen: Vec<&Bench> = match names.as_slice() {
        [] | ["list"] => {
            list();
            return ExitCode::SUCCESS;
        }
        ["all"] => BENCHES.iter().collect(),
        names => match names.iter().map(|name| named(name)).collect() {
            Ok(chosen) => chosen,
            Err(problem) => {
                eprintln!("bench: {problem}");
                return ExitCode::from(2);
            }
        },
    };
    let history = History::open();
    let mut good = true;
    for bench in chosen {
        good &= run(bench, &history);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn named(name: &str) -> Result<&'static Bench, String> {
    let found = BENCHES.iter().find(|bench| bench.name == name);
    found.ok_or_else(|| format!("there is no {name}; `list` says what there is"))
}

fn list() {
    for bench in BENCHES {
        println!("{:<12}{:>4} s  {}", bench.name, bench.seconds, bench.what);
    }
    let all: u32 = BENCHES.iter().map(|bench| bench.seconds).sum();
    println!("{:<12}{all:>4} s  all of them", "all");
}

/// Whether it ran to its end, and every limit was met.
fn run(bench: &Bench, history: &History) -> bool {
    eprintln!("bench: {}, about {} s", bench.name, bench.seconds);
    let (began, load) = (Instant::now(), usage::load());
    let figures = match std::panic::catch_unwind(bench.run) {
        Ok(figures) => figures,
        Err(panic) => vec![Figure::broken(said(&*panic))],
    };
    let mut good = true;
    for figure in &figures {
        good &= figure.is_met();
        history.add(&figure.line(bench.name, load, began.elapsed()));
    }
    good
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
    text.unwrap_or_else(|| "it panicked".into())
}
