//! `cargo xtask bench NAME`: measures one thing, and prints it as one line of JSON: value, limit,
//! load and conditions. A missed limit is reported as missed, and fails.
//!
//! - `failover [RUNS]`: the demo with 64 MiB of state; two kills in each run

use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

/// The first answer on an open connection must come within this, in milliseconds.
const FAILOVER_MUST_MS: f64 = 500.0;
/// What the best would reach.
const FAILOVER_AIM_MS: f64 = 250.0;
/// State of the service, in MiB.
const STATE_MIB: &str = "64";
/// Runs unless said otherwise: with two kills each, twenty kills.
const RUNS: usize = 10;

pub(crate) fn main(root: &Path, args: &[String]) -> ExitCode {
    let result = match args.first().map(String::as_str) {
        Some("failover") => {
            let runs = args.get(1).map_or(Ok(RUNS), |text| text.parse());
            runs.map_err(|_| "RUNS is a number".to_string()).and_then(|runs| failover(root, runs))
        }
        _ => Err("usage: cargo xtask bench failover [RUNS]".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn failover(root: &Path, runs: usize) -> Result<bool, String> {
    let mut answers = Vec::new();
    let (mut acknowledged, mut lost, mut broken) = (0, 0, 0);
    for run in 1..=runs {
        let verdict = demo(root)?;
        let count = |name: &str| verdict[name].as_u64().unwrap_or(0);
        acknowledged += count("acknowledged");
        lost += count("lost") + count("doubled");
        broken += count("connections") - count("connections_kept");
        let kills = verdict["kills"].as_array().cloned().unwrap_or_default();
        answers.extend(kills.iter().filter_map(|kill| kill["first_answer_ms"].as_f64()));
        eprintln!("bench: run {run} of {runs}: {} kills so far", answers.len());
    }
    answers.sort_by(f64::total_cmp);
    let median = *answers.get(answers.len() / 2).ok_or("nothing was killed")?;
    let worst = *answers.last().ok_or("nothing was killed")?;
    let met = worst <= FAILOVER_MUST_MS && lost == 0 && broken == 0;
    let line = json!({
        "bench": "failover",
        "value": { "median_ms": median, "worst_ms": worst, "kills": answers.len() },
        "limit": { "must_ms": FAILOVER_MUST_MS, "aim_ms": FAILOVER_AIM_MS, "met": met },
        "writes": { "acknowledged": acknowledged, "lost_or_doubled": lost, "broken": broken },
        "load": load(),
        "conditions": format!(
            "five agents and eight clients on loopback, wasm, {STATE_MIB} MiB, held, \
             {} processors, SIGKILL of the active node",
            std::thread::available_parallelism().map_or(0, usize::from)
        ),
    });
    println!("{line}");
    Ok(met)
}

fn demo(root: &Path) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["run", "--release", "--quiet", "--package", "jizoku", "--"])
        .args(["demo", "--quiet", "--state", STATE_MIB])
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| {
        format!("the demo gave no verdict ({error}): {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// The machine's load average over the last minute.
fn load() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    first.map_or(Value::Null, Value::from)
}
