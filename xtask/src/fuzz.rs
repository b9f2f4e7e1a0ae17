//! `cargo xtask fuzz [--seconds N] [TARGET...]`: libFuzzer over every decoder.
//!
//! Coverage comes from the compiler's own pass, so the stable toolchain is enough; libFuzzer is
//! built by a C++ compiler. Two targets run side by side.
//!
//! Inputs that were found stay in `target/fuzz/corpus`. Inputs that once broke something lie in
//! `fuzz/corpus/TARGET`, are tried first, and stay for ever. A new one is written to
//! `fuzz/found/TARGET`; the command that repeats it is printed.

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::Instant;

/// What makes the compiler count edges and comparisons, as libFuzzer wants them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// How long each target runs unless told otherwise, in seconds.
const SECONDS: u64 = 60;
/// Targets that run at the same time.
const ABREAST: usize = 2;
/// Longest input: messages of real size are cut, and nothing is decoded by its length alone.
const INPUT_MAX: usize = 16 << 10;
/// An input that takes longer is one that somebody could stop a node with, in seconds.
const INPUT_WITHIN: u64 = 10;
/// Nothing that small inputs do may take more memory, in MiB.
const MEMORY_MAX: u64 = 1024;

pub(crate) fn main(root: &Path, args: &[String]) -> ExitCode {
    match run(root, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("fuzz: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run(root: &Path, args: &[String]) -> Result<bool, String> {
    let (mut seconds, mut chosen) = (SECONDS, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let given = args.next().and_then(|text| text.parse().ok());
            seconds = given.ok_or("--seconds takes a number")?;
        } else {
            chosen.push(arg.clone());
        }
    }
    let work = root.join("target/fuzz");
    let built = work.join("build");
    build(root, &built)?;
    let seeds = built.join("release/seeds");
    let listed = finished(Command::new(&seeds).arg("list"))?;
    let known: Vec<String> =
        String::from_utf8_lossy(&listed.stdout).lines().map(String::from).collect();
    if let Some(stranger) = chosen.iter().find(|name| !known.contains(name)) {
        return Err(format!("no target {stranger}; there are: {}", known.join(" ")));
    }
    let targets = if chosen.is_empty() { known } else { chosen };
    finished(Command::new(&seeds).arg(work.join("corpus")))?;
    let fuzz = built.join(host()?).join("release/fuzz");
    let mut clean = true;
    for some in targets.chunks(ABREAST) {
        let began = Instant::now();
        let running: Result<Vec<_>, String> =
            some.iter().map(|target| start(root, &work, &fuzz, target, seconds)).collect();
        for (target, child) in some.iter().zip(running?) {
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            clean &= report(target, &output, began);
        }
    }
    Ok(clean)
}

fn build(root: &Path, built: &Path) -> Result<(), String> {
    let manifest = root.join("fuzz/Cargo.toml");
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet", "--manifest-path"]).arg(&manifest);
        cargo.arg("--target-dir").arg(built).env_remove("CARGO_TARGET_DIR");
        cargo
    };
    finished(cargo().args(["--bin", "seeds"]))?;
    // Naming the target keeps build scripts and macros free of counting.
    finished(cargo().args(["--bin", "fuzz", "--target", &host()?]).env("RUSTFLAGS", COVERAGE))?;
    Ok(())
}

fn start(
    root: &Path,
    work: &Path,
    fuzz: &Path,
    target: &str,
    seconds: u64,
) -> Result<std::process::Child, String> {
    let grown = work.join("corpus").join(target);
    let kept = root.join("fuzz/corpus").join(target);
    let found = root.join("fuzz/found").join(target);
    for folder in [&grown, &found] {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut command = Command::new(fuzz);
    command.env("JIZOKU_FUZZ_TARGET", target).arg(&grown);
    if kept.is_dir() {
        command.arg(kept);
    }
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_MAX}"),
        format!("-timeout={INPUT_WITHIN}"),
        format!("-rss_limit_mb={MEMORY_MAX}"),
        format!("-malloc_limit_mb={MEMORY_MAX}"),
        format!("-artifact_prefix={}/", found.display()),
        "-print_final_stats=1".into(),
    ]);
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", fuzz.display()))
}

/// Prints a line about a run; whether it was clean.
fn report(target: &str, output: &Output, began: Instant) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    let stat = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_string()
    };
    let last = text.lines().rev().find(|line| line.contains(" cov: ")).unwrap_or("");
    let covered = last.split(" cov: ").nth(1).and_then(|rest| rest.split(' ').next());
    println!(
        "{target:10} {:>9} inputs, {:>6} edges, {:>4} MiB, {:.0} s{}",
        stat("stat::number_of_executed_units:"),
        covered.unwrap_or("?"),
        stat("stat::peak_rss_mb:"),
        began.elapsed().as_secs_f64(),
        if output.status.success() { "" } else { "  BROKEN" },
    );
    if !output.status.success() {
        let tail: Vec<&str> = text.lines().rev().take(60).collect();
        eprintln!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        eprintln!("again: JIZOKU_FUZZ_TARGET={target} target/fuzz/build/*/release/fuzz FILE");
    }
    output.status.success()
}

fn host() -> Result<String, String> {
    let output = finished(Command::new("rustc").arg("-vV"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(String::from).ok_or_else(|| "rustc doesn't say what it runs on".into())
}

fn finished(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
