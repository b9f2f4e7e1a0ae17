//! `cargo xtask bench NAME... | all | list`: measures, and prints each figure as a line of JSON:
//! value, limit, load and conditions. A missed limit is reported as missed, and fails.
//!
//! What is measured and how is in `crates/jizoku-bench`; this builds it and gets out of its way.

use std::path::Path;
use std::process::{Command, ExitCode};

pub(crate) fn main(root: &Path, args: &[String]) -> ExitCode {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["run", "--release", "--quiet", "--package", "jizoku-bench", "--"])
        .args(args)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
