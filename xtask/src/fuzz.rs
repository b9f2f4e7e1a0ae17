//! `cargo xtask fuzz [--seconds N] [--keep] [TARGET...]`: libFuzzer over every decoder.
//!
//! Coverage comes from the compiler's own pass (`sancov-module`), so the stable toolchain is
//! enough; libFuzzer is built by a C++ compiler. Only our own crates are counted: cargo compiles
//! them through this program ([`compile`]), and takes all others as other builds left them.
//! Two targets run side by side, until all have run.
//!
//! Inputs that were found stay in `target/fuzz/corpus`. What lies in `fuzz/corpus/TARGET` is tried
//! first, and runs in the tests; `--keep` puts some there of those that reach what all inputs
//! together reach, and leaves alone what a person gave a name. An input that breaks something is
//! written to `fuzz/found/TARGET`, and the command that repeats it is printed: mend it, and keep
//! the input.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What makes the compiler count edges and comparisons, as libFuzzer wants them, and check what
/// only tests check.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
];
/// Tells this program that cargo calls it in place of the compiler.
pub(crate) const COMPILES: &str = "JIZOKU_FUZZ_COMPILES";
/// How long each target runs unless told otherwise, in seconds.
const SECONDS: u64 = 60;
/// Targets that run at the same time.
const ABREAST: usize = 2;
/// Longest input: messages of real size are cut, and nothing is decoded by its length alone.
const INPUT_MAX: usize = 16 << 10;
/// Longest input that is kept, in bytes.
const KEPT_MAX: usize = 4 << 10;
/// Most inputs that are kept for a target, and their bytes together: all are in every clone.
const KEPT_COUNT: usize = 100;
const KEPT_BYTES: u64 = 24 << 10;
/// An input that takes longer is one that somebody could stop a node with, in seconds.
const INPUT_WITHIN: u64 = 10;
/// Nothing that inputs do may take more memory, in MiB. How much one input may take is counted
/// by the targets themselves.
const MEMORY_MAX: u64 = 1024;

/// What was asked for.
struct Wish {
    seconds: u64,
    keep: bool,
    targets: Vec<String>,
}

/// Where everything is.
struct Place {
    root: PathBuf,
    work: PathBuf,
    binary: PathBuf,
}

pub(crate) fn main(root: &Path, args: &[String]) -> ExitCode {
    match wish(args).and_then(|wish| run(root, wish)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("fuzz: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Stands in for the compiler: the same, with coverage for what is to be fuzzed.
pub(crate) fn compile(args: Vec<OsString>) -> ExitCode {
    let Some((compiler, rest)) = args.split_first() else { return ExitCode::from(2) };
    let names = rest.windows(2).find(|pair| pair[0] == "--crate-name");
    let name = names.map(|pair| pair[1].to_string_lossy().into_owned()).unwrap_or_default();
    let counted = name == "fuzz" || name.starts_with("jizoku");
    let mut command = Command::new(compiler);
    command.args(rest).args(if counted { &COVERAGE[..] } else { &[] });
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{compiler:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wish(args: &[String]) -> Result<Wish, String> {
    let mut wish = Wish { seconds: SECONDS, keep: false, targets: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => {
                let given = args.next().and_then(|text| text.parse().ok());
                wish.seconds = given.ok_or("--seconds takes a number")?;
            }
            "--keep" => wish.keep = true,
            _ => wish.targets.push(arg.clone()),
        }
    }
    Ok(wish)
}

fn run(root: &Path, wish: Wish) -> Result<bool, String> {
    let began = Instant::now();
    let place = build(root)?;
    println!("fuzz: built in {:.0} s", began.elapsed().as_secs_f64());
    let mut seeds = Command::new(&place.binary);
    let listed = finished(seeds.env("JIZOKU_FUZZ_SEEDS", place.work.join("corpus")))?;
    let known: Vec<String> =
        String::from_utf8_lossy(&listed.stdout).lines().map(String::from).collect();
    if let Some(stranger) = wish.targets.iter().find(|name| !known.contains(name)) {
        return Err(format!("no target {stranger}; there are: {}", known.join(" ")));
    }
    let targets = if wish.targets.is_empty() { known } else { wish.targets };
    let waiting = Mutex::new(targets.iter().collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut clean = true;
        while let Some(target) = next() {
            clean &= place.fuzz(target, wish.seconds)?;
        }
        Ok::<bool, String>(clean)
    };
    let clean = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..ABREAST).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| worker.join().expect("no panic"));
        ends.collect::<Result<Vec<bool>, String>>()
    })?;
    if wish.keep {
        targets.iter().try_for_each(|target| place.keep(target))?;
    }
    println!("fuzz: {} targets in {:.0} s", targets.len(), began.elapsed().as_secs_f64());
    Ok(clean.into_iter().all(|clean| clean))
}

fn build(root: &Path) -> Result<Place, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--release", "--quiet", "--bin", "fuzz"]);
    // The agent is named for its features only: dependencies are then those of its own build.
    cargo.args(["--package", "jizoku", "--package", "jizoku-fuzz"]);
    // Cargo keeps what is compiled through a wrapper apart from everything else.
    finished(cargo.env("RUSTC_WORKSPACE_WRAPPER", this).env(COMPILES, "1"))?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(named) => root.join(named),
        None => root.join("target"),
    };
    let binary = target.join("release/fuzz");
    Ok(Place { root: root.into(), work: target.join("fuzz"), binary })
}

impl Place {
    fn kept(&self, target: &str) -> PathBuf {
        self.root.join("fuzz/corpus").join(target)
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("JIZOKU_FUZZ_TARGET", target).args([
            format!("-timeout={INPUT_WITHIN}"),
            format!("-rss_limit_mb={MEMORY_MAX}"),
            format!("-malloc_limit_mb={MEMORY_MAX}"),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Whether the target ran clean.
    fn fuzz(&self, target: &str, seconds: u64) -> Result<bool, String> {
        let began = Instant::now();
        let grown = self.work.join("corpus").join(target);
        let found = self.root.join("fuzz/found").join(target);
        [&grown, &found].into_iter().try_for_each(|folder| make(folder))?;
        let mut command = self.command(target);
        command.arg(&grown).args(Some(self.kept(target)).filter(|kept| kept.is_dir())).args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={INPUT_MAX}"),
            format!("-artifact_prefix={}/", found.display()),
            "-print_final_stats=1".into(),
        ]);
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        report(target, &output, began, &self.binary);
        Ok(output.status.success())
    }

    /// Replaces what is kept by some of the inputs that reach what all inputs reach. Those that a
    /// person gave a name stay.
    fn keep(&self, target: &str) -> Result<(), String> {
        let (kept, fresh) = (self.kept(target), self.work.join("kept").join(target));
        let _ = std::fs::remove_dir_all(&fresh);
        [&fresh, &kept].into_iter().try_for_each(|folder| make(folder))?;
        let mut merge = self.command(target);
        merge.args(["-set_cover_merge=1", "-use_counters=0", &format!("-max_len={KEPT_MAX}")]);
        finished(merge.arg(&fresh).arg(&kept).arg(self.work.join("corpus").join(target)))?;
        for (_, old) in files(&kept)?.into_iter().filter(|(_, file)| is_nameless(file)) {
            std::fs::remove_file(&old).map_err(|error| format!("{}: {error}", old.display()))?;
        }
        let (mut count, mut bytes) = (0, 0);
        // Of all lengths some: the shortest alone would be refused after a byte or two.
        let all = files(&fresh)?;
        let step = all.len().div_ceil(KEPT_COUNT).max(1);
        for (length, file) in all.into_iter().step_by(step) {
            if bytes + length > KEPT_BYTES {
                break;
            }
            let to = kept.join(file.file_name().unwrap_or_default());
            std::fs::copy(&file, to).map_err(|error| format!("{}: {error}", file.display()))?;
            (count, bytes) = (count + 1, bytes + length);
        }
        println!("{target:10} {count} inputs of {bytes} bytes are kept");
        Ok(())
    }
}

/// The files of a folder with their lengths, the shortest first.
fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((entry.metadata().map_err(failed)?.len(), entry.path()));
    }
    found.sort();
    Ok(found)
}

/// Whether libFuzzer called it by its hash.
fn is_nameless(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn make(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Prints a line about a run.
fn report(target: &str, output: &Output, began: Instant, binary: &Path) {
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
        eprintln!("again: JIZOKU_FUZZ_TARGET={target} {} FILE", binary.display());
    }
}

fn finished(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
