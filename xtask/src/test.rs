//! `cargo xtask test`: everything that must hold before a change lands, from a bare machine on.
//!
//! It installs what is missing (Rust targets by rustup; Debian packages by apt-get when run as
//! root), then runs each step of [`STEPS`], and the fuzzer, and stops at the first that fails. With
//! `CI` set nothing may be skipped.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use super::fuzz;

/// Targets beside the host's: guests of the engine `wasm`, and the proof of purity.
const TARGETS: [&str; 2] = ["wasm32-wasip1", "x86_64-unknown-none"];

/// Programs that tests use, with the Debian package of each.
const PROGRAMS: [(&str, &str); 6] = [
    // libFuzzer is C++.
    ("c++", "g++"),
    ("redis-cli", "redis-tools"),
    ("curl", "curl"),
    // The minimal package has no web server.
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];

/// Crates of layers 0 to 2: built for a target without an operating system.
const PURE: [&str; 9] = [
    "jizoku-types",
    "jizoku-core",
    "jizoku-checkpoint",
    "jizoku-log",
    "jizoku-streams",
    "jizoku-engine",
    "jizoku-node",
    "jizoku-api",
    "jizoku-script",
];

struct Step {
    name: &'static str,
    folder: &'static str,
    command: &'static [&'static str],
}

const STEPS: [Step; 6] = [
    Step { name: "format", folder: ".", command: &["cargo", "fmt", "--all", "--check"] },
    Step {
        name: "guests",
        folder: "examples",
        command: &["cargo", "build", "--release", "--target", "wasm32-wasip1"],
    },
    Step {
        name: "lints",
        folder: ".",
        command: &[
            "cargo",
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "tests",
        folder: ".",
        command: &["cargo", "test", "--release", "--workspace", "--all-features"],
    },
    Step { name: "demo", folder: ".", command: &["cargo", "run", "--release", "--", "demo"] },
    Step { name: "campaign", folder: ".", command: &["cargo", "xtask", "soak", "--short"] },
];

pub(crate) fn main(root: &Path) -> ExitCode {
    let began = Instant::now();
    if let Err(problem) = targets().and_then(|()| programs()) {
        eprintln!("test: {problem}");
        return ExitCode::FAILURE;
    }
    let mut pure = vec!["cargo", "build", "--target", "x86_64-unknown-none"];
    pure.extend(PURE.iter().flat_map(|name| ["--package", name]));
    let purity = ("purity", ".", pure.as_slice());
    let steps = STEPS.iter().map(|step| (step.name, step.folder, step.command));
    for (name, folder, command) in std::iter::once(purity).chain(steps) {
        println!("== {name}: {} ({} s so far)", command.join(" "), began.elapsed().as_secs());
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).current_dir(root.join(folder));
        if let Err(problem) = run(&mut process) {
            eprintln!("test: the step `{name}` failed: {problem}");
            return ExitCode::FAILURE;
        }
    }
    println!("== fuzz: each target for a minute ({} s so far)", began.elapsed().as_secs());
    if fuzz::main(root, &[]) != ExitCode::SUCCESS {
        eprintln!("test: the step `fuzz` failed: mend it, and keep the input that it found");
        return ExitCode::FAILURE;
    }
    println!("== all steps passed in {} s", began.elapsed().as_secs());
    ExitCode::SUCCESS
}

fn targets() -> Result<(), String> {
    let listed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let listed = match listed {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        // Without rustup the toolchain is somebody else's business; a missing target will show.
        Err(_) => return Ok(()),
    };
    for target in TARGETS.iter().filter(|target| !listed.lines().any(|line| line == **target)) {
        run(Command::new("rustup").args(["target", "add", target]))?;
    }
    Ok(())
}

fn programs() -> Result<(), String> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if root && found("apt-get") {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
        return run(install.env("DEBIAN_FRONTEND", "noninteractive"));
    }
    let names = missing.join(" ");
    if std::env::var_os("CI").is_some() {
        return Err(format!("these packages are missing and can't be installed: {names}"));
    }
    println!("Tests that need them will be skipped. Install with: sudo apt-get install {names}");
    Ok(())
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
