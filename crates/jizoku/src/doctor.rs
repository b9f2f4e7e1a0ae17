//! `jizoku doctor`: what this machine can and cannot run, and how to mend it.
//!
//! Looks only; changes nothing but a file that it writes into the data folder and removes.

use std::path::Path;

use jizoku_api::doctor::{DoctorReport, Finding, Health};
use jizoku_store::room;
use jizoku_types::ByteCount;
use jizoku_wasm::{Engine, Settings, Tracking};

/// Less free disk than this is worth a word.
const DISK_LOW: ByteCount = ByteCount::gib(1);
/// Fewer descriptors than this are worth a word.
const DESCRIPTORS_LOW: u64 = 8192;

/// Examines this machine, without an agent.
pub(crate) fn examine(data: &Path) -> DoctorReport {
    let engine = Engine::new(Settings::default()).map_err(|error| error.to_string());
    examine_with(data, Some(&engine))
}

/// Examines this machine, with the agent's engine if there is one.
pub(crate) fn examine_with(data: &Path, engine: Option<&Result<Engine, String>>) -> DoctorReport {
    let mut findings = vec![kernel()];
    findings.extend(engine.map(wasm));
    findings.extend(engine.and_then(|engine| engine.as_ref().ok()).map(dirty_pages));
    findings.push(exec());
    findings.push(data_folder(data));
    findings.push(disk(data));
    findings.push(descriptors());
    DoctorReport { findings }
}

fn finding(topic: &str, health: Health, found: String) -> Finding {
    Finding { topic: topic.into(), health, found, effect: String::new(), mend: None }
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    finding("kernel", Health::Good, format!("Linux {}", release.trim()))
}

fn wasm(engine: &Result<Engine, String>) -> Finding {
    match engine {
        Ok(_) => finding("engine.wasm", Health::Good, "WASI programs can run".into()),
        Err(why) => Finding {
            effect: "services with kind = \"wasm\" can't run on this node".into(),
            ..finding("engine.wasm", Health::Bad, why.clone())
        },
    }
}

fn dirty_pages(engine: &Engine) -> Finding {
    match engine.tracking() {
        Tracking::Userfault => finding(
            "kernel.dirty_pages",
            Health::Good,
            "changed pages are found by userfaultfd and PAGEMAP_SCAN".into(),
        ),
        Tracking::Compare => Finding {
            effect: "a checkpoint compares all memory: slower, and twice the memory".into(),
            mend: Some(
                "use Linux 6.7 or newer; in a container, let its seccomp profile allow \
                 userfaultfd"
                    .into(),
            ),
            ..finding(
                "kernel.dirty_pages",
                Health::Weak,
                "this kernel or sandbox doesn't let programs track changed pages".into(),
            )
        },
    }
}

fn exec() -> Finding {
    finding("engine.exec", Health::Good, "child processes can run; they lose memory".into())
}

fn data_folder(data: &Path) -> Finding {
    let topic = "data.folder";
    if !data.exists() {
        let found = format!("{} is not there yet", data.display());
        let mend = Some("jizoku init, or jizoku join TICKET".into());
        return Finding { mend, ..finding(topic, Health::Weak, found) };
    }
    let probe = data.join(".doctor");
    let written = std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => finding(topic, Health::Good, format!("{} can be written", data.display())),
        Err(error) => Finding {
            effect: "the agent can't run".into(),
            mend: Some("run as the folder's owner, or name another with --data".into()),
            ..finding(topic, Health::Bad, format!("{}: {error}", data.display()))
        },
    }
}

fn disk(data: &Path) -> Finding {
    let place = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match room::free_at(place) {
        Ok(free) if free >= DISK_LOW => finding("disk.room", Health::Good, format!("{free} free")),
        Ok(free) => Finding {
            effect: "this node may refuse to hold states".into(),
            mend: Some("free some room".into()),
            ..finding("disk.room", Health::Weak, format!("{free} free"))
        },
        Err(error) => finding("disk.room", Health::Weak, error.to_string()),
    }
}

fn descriptors() -> Finding {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    match soft {
        Some(count) if count < DESCRIPTORS_LOW => Finding {
            effect: "the gateway takes few connections".into(),
            mend: Some("ulimit -n 65536, or LimitNOFILE in the systemd unit".into()),
            ..finding("limits.files", Health::Weak, format!("{count} open files allowed"))
        },
        Some(count) => finding("limits.files", Health::Good, format!("{count} open files allowed")),
        None => finding("limits.files", Health::Weak, "can't be read".into()),
    }
}
