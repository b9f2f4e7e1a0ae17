//! Programs that others wrote, as clients and as services.

use std::process::{Command, Output};

/// Whether these programs are installed; says so if one is missing.
///
/// # Panics
/// If one is missing and `CI` is set: there nothing may be skipped.
pub fn installed(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let missing: Vec<&&str> = programs.iter().filter(|name| !found(name)).collect();
    if missing.is_empty() {
        return true;
    }
    skip(&format!("not installed: {missing:?}"))
}

/// Whether this is run by root; says so if not.
///
/// # Panics
/// If it isn't and `CI` is set: there nothing may be skipped.
pub fn root() -> bool {
    is_root() || skip("this test needs root")
}

fn skip(why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
    false
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a program to its end.
///
/// # Panics
/// If it can't be started.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// What redis-cli prints for a command to the server at an address.
///
/// # Panics
/// If it fails.
pub fn redis_cli(host: &str, port: u16, command: &[&str]) -> String {
    let port = port.to_string();
    let arguments = [&["-h", host, "-p", &port][..], command].concat();
    let output = run("redis-cli", &arguments);
    assert!(output.status.success(), "redis-cli {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// What curl gets from an address; none if the request failed or the status is an error.
pub fn curl(url: &str) -> Option<String> {
    let output = run("curl", &["--silent", "--fail", "--max-time", "5", url]);
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends a signal, named as in `kill -NAME`, to processes by their numbers, with spaces between.
///
/// # Panics
/// If nobody has such a number.
pub fn signal(name: &str, pids: &str) {
    // The shell's own `kill`: it is there without any package.
    let output = run("sh", &["-c", &format!("kill -{name} {pids}")]);
    assert!(output.status.success(), "kill -{name} {pids}: {output:?}");
}

/// What the table `[engine]` of an `exec` service needs here: run by root, an agent wants to be
/// told that a program may be root too.
pub fn user() -> &'static str {
    if is_root() { "user = \"root\"" } else { "" }
}
