//! `cargo xtask soak`: builds the agent, the guests and the campaign, and runs it.
//!
//! As root it runs in namespaces for processes and mounts of its own, so that the kernel clears
//! away whatever a campaign that was killed leaves behind.

use std::path::Path;
use std::process::{Command, ExitCode};

/// See `jizoku_soak::machines`: what tells the campaign that it has namespaces of its own.
const OWN_NAMESPACES: &str = "JIZOKU_SOAK_NAMESPACES";
/// Where it finds the library that steps a process's wall clock.
const CLOCK_LIBRARY: &str = "JIZOKU_SOAK_CLOCK";

/// Passes all arguments on to the campaign.
pub(crate) fn main(root: &Path, args: &[String]) -> ExitCode {
    match run(root, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("soak: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Comes back only if it can't be started.
fn run(root: &Path, args: &[String]) -> Result<(), String> {
    let cargo = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--quiet"]).current_dir(root);
        cargo
    };
    // Apart: features are unified for each command, and the agent shall be the one that ships.
    finished(cargo().args(["--package", "jizoku"]))?;
    finished(cargo().args(["--package", "jizoku-soak", "--bins", "--examples"]))?;
    let mut guests = cargo();
    guests.args(["--target", "wasm32-wasip1"]).current_dir(root.join("examples"));
    finished(guests.env_remove("CARGO_TARGET_DIR"))?;
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |own| own.into());
    let built = root.join(built).join("release");
    let program = built.join("jizoku-soak");
    let mut command = if is_root() {
        let mut apart = Command::new("unshare");
        apart.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        apart.arg(program).env(OWN_NAMESPACES, "1");
        apart
    } else {
        Command::new(program)
    };
    command.args(args).env("JIZOKU_BIN", built.join("jizoku"));
    command.env(CLOCK_LIBRARY, built.join("examples/libstepped_clock.so"));
    // In this process's place: whoever ends this ends all of it.
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    Err(format!("{command:?}: {error}"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn finished(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
