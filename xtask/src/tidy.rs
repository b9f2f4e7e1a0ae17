//! `cargo xtask tidy`: the rules of CONTRIBUTING.md that a machine can check.
//!
//! - [`layers`]: no crate depends on a higher layer; pure crates stay pure; cores don't know
//!   each other
//! - [`sources`]: module headers, lengths, words that must not stay
//! - [`docs`]: links lead somewhere; every crate is on the map; every concept has its page
//! - [`guarantees`]: every test that a promise names exists
//!
//! Lengths are ratchets: `xtask/ratchet.txt` lists what is over the limit today with its length.
//! It may shrink, never grow.

mod docs;
mod guarantees;
mod layers;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// One broken rule: where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    place: String,
    problem: String,
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Finding {
        Finding { place: place.into(), problem: problem.into() }
    }
}

/// Runs every check and prints what it found.
pub(crate) fn main(root: &Path) -> ExitCode {
    let findings = match check(root) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("tidy could not look: {error}");
            return ExitCode::FAILURE;
        }
    };
    for Finding { place, problem } in &findings {
        eprintln!("{place}: {problem}");
    }
    if findings.is_empty() {
        println!("tidy: nothing found");
        return ExitCode::SUCCESS;
    }
    eprintln!("tidy: {} finding(s)", findings.len());
    ExitCode::FAILURE
}

fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let files = tracked_files(root)?;
    let mut findings = layers::check(root)?;
    findings.extend(sources::check(root, &files)?);
    findings.extend(docs::check(root, &files)?);
    findings.extend(guarantees::check(root, &files)?);
    Ok(findings)
}

/// The files that git tracks, or would track: relative to the root, sorted.
fn tracked_files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut files: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|file| root.join(file).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn read(root: &Path, file: &Path) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_is_tidy() {
        let findings = super::check(&crate::root()).expect("tidy can look");
        assert!(findings.is_empty(), "{findings:#?}");
    }
}
