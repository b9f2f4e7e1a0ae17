//! `cargo xtask sim`: builds the simulator with its planted faults compiled in, and runs it.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Passes all arguments on to the simulator.
pub(crate) fn main(root: &Path, args: &[String]) -> ExitCode {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["run", "--release", "--quiet", "-p", "jizoku-sim", "--"])
        .args(args)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo could not be started: {error}");
            ExitCode::FAILURE
        }
    }
}
