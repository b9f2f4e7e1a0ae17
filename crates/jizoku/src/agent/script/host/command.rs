//! Programs and shell texts. Each runs in a process group of its own, with a mark in its
//! environment, so that whoever stops it finds all that it started.
//!
//! What it does not know: why it runs.
//!
//! Invariants
//! - A command that is dropped before it has ended is killed, with its process group and with all
//!   that carry its mark, also those that left the group. What it left running after it ended by
//!   itself stays: a script may start a daemon.
//! - Values reach a shell as environment only.
//!
//! Limits: `TEXT_MAX` bytes of each output are kept; the rest is read and dropped.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jizoku_script::run::HostCall;
use jizoku_script::value::Value;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::super::offer;
use super::{Answer, TEXT_MAX, as_text, duration, span, text, unknown};

/// The mark in the environment.
const MARK: &str = "JIZOKU_COMMAND";
/// How long output is waited for after a program's end: what it left running may hold it open.
const OUTPUT_WITHIN: Duration = Duration::from_millis(100);
/// How often it is looked for what carries a mark: each look may miss what is just being started.
const LOOKS: usize = 5;
/// Bytes of standard error that a failure quotes.
const QUOTED: usize = 400;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// `command.*`
pub(super) async fn program(name: &str, call: &HostCall) -> Answer {
    let program = text(call, 0)?;
    if name == "exists" {
        let program = program.to_string();
        let found = tokio::task::spawn_blocking(move || offer::program(&program).is_some()).await;
        return Ok(Value::Bool(found.unwrap_or(false)));
    }
    let mut command = Command::new(program);
    if let Some(Value::List(list)) = call.args.get(1) {
        command.args(list.values().iter().map(ToString::to_string));
    }
    answer(name, call, program, run(command, span(call, 2)).await?)
}

/// `sh.*`
pub(super) async fn shell(name: &str, call: &HostCall) -> Answer {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(text(call, 0)?);
    for (key, value) in &call.named {
        command.env(&**key, value.to_string());
    }
    answer(name, call, "the shell text", run(command, span(call, 1)).await?)
}

fn answer(name: &str, call: &HostCall, what: &str, done: Done) -> Answer {
    match name {
        "run" if done.code != 0 => {
            let err = String::from_utf8_lossy(&done.err).trim().to_string();
            let from = err.ceil_char_boundary(err.len().saturating_sub(QUOTED));
            let quoted = if err.is_empty() { String::new() } else { format!(": {}", &err[from..]) };
            Err(format!("{what} ended with {}{quoted}", done.code))
        }
        "run" | "ask" => Ok(done.value()),
        _ => Err(unknown(call)),
    }
}

/// How a program ended.
pub(super) struct Done {
    pub(super) code: i32,
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
    took: Duration,
}

impl Done {
    fn value(&self) -> Value {
        Value::record([
            ("code", Value::Int(self.code.into())),
            ("out", as_text(&self.out)),
            ("err", as_text(&self.err)),
            ("took", duration(self.took)),
        ])
    }
}

/// Kills what is left of a command that is given up.
struct Leash {
    group: Option<Pid>,
    mark: String,
}

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(group) = self.group else { return };
        // If there is nobody left in it, that is what was wanted.
        let _ = kill_process_group(group, Signal::KILL);
        let mark = format!("{MARK}={}", self.mark).into_bytes();
        let strays = move || {
            for _ in 0..LOOKS {
                let found = marked(&mark);
                if found.is_empty() {
                    return;
                }
                for pid in found {
                    // Likewise.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(strays)),
            Err(_) => strays(),
        }
    }
}

/// Processes that carry a mark.
fn marked(mark: &[u8]) -> Vec<Pid> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let carries = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == mark)
    };
    pids.filter(carries).filter_map(Pid::from_raw).collect()
}

/// Runs a command to its end, or for as long as it may take.
pub(super) async fn run(mut command: Command, within: Option<Duration>) -> Result<Done, String> {
    let mark = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    command.env(MARK, &mark).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("it can't be started: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut leash = Leash { group, mark };
    let (out, out_read) = keep(child.stdout.take());
    let (err, err_read) = keep(child.stderr.take());
    let ended = match within {
        Some(within) => tokio::time::timeout(within, child.wait()).await.map_err(|_| {
            format!("it took longer than {}, and was stopped", Value::Duration(nanos(within)))
        })?,
        None => child.wait().await,
    };
    leash.group = None;
    let status = ended.map_err(|error| format!("it can't be waited for: {error}"))?;
    let both = async { tokio::join!(out_read, err_read) };
    // What is there by then is what it wrote.
    let _ = tokio::time::timeout(OUTPUT_WITHIN, both).await;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
    let code = status.code().unwrap_or(128 + signal);
    Ok(Done { code, out: taken(&out), err: taken(&err), took: began.elapsed() })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

type Kept = Arc<Mutex<Vec<u8>>>;

fn taken(kept: &Kept) -> Vec<u8> {
    std::mem::take(&mut *kept.lock().expect("no panic while locked"))
}

/// Reads a stream until its end, and keeps the beginning.
fn keep(
    stream: Option<impl AsyncRead + Unpin + Send + 'static>,
) -> (Kept, tokio::task::JoinHandle<()>) {
    let kept = Kept::default();
    let into = Arc::clone(&kept);
    let reading = tokio::spawn(async move {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            let mut kept = into.lock().expect("no panic while locked");
            let room = TEXT_MAX.saturating_sub(kept.len()).min(length);
            kept.extend_from_slice(&buffer[..room]);
        }
    });
    (kept, reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
    }

    fn sh(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text);
        command
    }

    #[test]
    fn what_a_program_wrote_and_how_it_ended() {
        runtime().block_on(async {
            let done = run(sh("echo a; echo b >&2; exit 3"), None).await.expect("it ran");
            assert_eq!((done.code, done.out, done.err), (3, b"a\n".into(), b"b\n".into()));
            let done = run(sh("kill -9 $$"), None).await.expect("it ran");
            assert_eq!(done.code, 137);
            assert!(run(Command::new("/no/such/program"), None).await.is_err());
        });
    }

    #[test]
    fn much_output_is_read_to_its_end_and_cut() {
        runtime().block_on(async {
            let done = run(sh("head -c 4000000 /dev/zero"), None).await.expect("it ran");
            assert_eq!((done.code, done.out.len()), (0, TEXT_MAX));
        });
    }

    #[test]
    fn who_is_stopped_takes_its_children_along_even_those_that_left() {
        runtime().block_on(async {
            let own = std::process::id();
            let number = format!("86{own}");
            let text = format!("sleep {number} & setsid sleep {number} & wait");
            let late = run(sh(&text), Some(Duration::from_millis(300))).await;
            assert!(late.is_err_and(|why| why.contains("took longer")));
            let give_up = Instant::now() + Duration::from_secs(10);
            while sleeping(&number) > 0 {
                assert!(Instant::now() < give_up, "{} are left", sleeping(&number));
                tokio::task::yield_now().await;
            }
        });
    }

    fn sleeping(number: &str) -> usize {
        let all = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let wanted = format!("sleep\0{number}\0").into_bytes();
        all.filter(|one| std::fs::read(one.path().join("cmdline")).is_ok_and(|c| c == wanted))
            .count()
    }
}
