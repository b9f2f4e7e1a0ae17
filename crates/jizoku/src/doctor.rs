//! `jizoku doctor`: what this machine can and cannot run, and how to mend it.
//!
//! Looks only; changes nothing but a file that it writes into the data folder and removes. Ports
//! that the agent would listen on are opened for a moment, if no agent runs.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use jizoku_api::doctor::{DoctorReport, Finding, Health};
use jizoku_store::room;
use jizoku_types::ByteCount;
use jizoku_wasm::{Engine, Settings, Tracking};

use crate::agent::{address, membership, user};

/// Less free disk than this is worth a word.
const DISK_LOW: ByteCount = ByteCount::gib(1);
/// Fewer descriptors than this are worth a word.
const DESCRIPTORS_LOW: u64 = 8192;

/// Examines this machine, without an agent.
pub(crate) fn examine(data: &Path) -> DoctorReport {
    let engine = Engine::new(Settings::default()).map_err(|error| error.to_string());
    let mut report = examine_with(data, &engine);
    report.findings.push(listening(data));
    report
}

/// Examines the machine of an agent that runs with this engine.
pub(crate) fn examine_with(data: &Path, engine: &Result<Engine, String>) -> DoctorReport {
    let mut findings = vec![kernel(), wasm(engine)];
    findings.extend(engine.as_ref().ok().map(dirty_pages));
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
    let topic = "engine.exec";
    match user::ids_of(None) {
        Ok(None) => {
            finding(topic, Health::Good, "child processes can run; they lose memory".into())
        }
        Ok(Some(_)) => {
            let found = format!("child processes can run, as `{}`", user::UNPRIVILEGED);
            finding(topic, Health::Good, found)
        }
        Err(why) => Finding {
            effect: "services with kind = \"exec\" and without `user` can't run on this node"
                .into(),
            mend: Some("name a user in [engine] of their manifests, or add that one".into()),
            ..finding(topic, Health::Weak, why)
        },
    }
}

/// Whether an agent could listen for other nodes.
fn listening(data: &Path) -> Finding {
    let topic = "network.mesh";
    let config = match membership::config_of(data).and_then(address::possible) {
        Ok(config) => config,
        Err(why) => {
            let effect = "the agent can't start".into();
            return Finding { effect, ..finding(topic, Health::Bad, why) };
        }
    };
    let taken = config.listen.iter().find_map(|at| Some((at, TcpListener::bind(at).err()?)));
    match taken {
        None => {
            let all: Vec<String> = config.listen.iter().map(SocketAddr::to_string).collect();
            finding(topic, Health::Good, format!("{} can be listened on", all.join(" and ")))
        }
        Some((at, error)) => Finding {
            effect: "the agent can't start".into(),
            mend: Some("end what listens there, or change `listen` in config.toml".into()),
            ..finding(topic, Health::Bad, format!("{at}: {error}"))
        },
    }
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
        Err(error) if error.kind() == ErrorKind::StorageFull => Finding {
            effect: "this node holds no copies, and can't be started again".into(),
            mend: Some("free some room".into()),
            ..finding(topic, Health::Bad, format!("{}: {error}", data.display()))
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_and_a_config_with_a_mistake_are_found() {
        let data = std::env::temp_dir().join(format!("jizoku-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&data).expect("a folder can be made");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let place = taken.local_addr().expect("it has an address").to_string();
        let say = |text: &str| std::fs::write(data.join("config.toml"), text).expect("a config");
        say(&format!("listen = [{place:?}]\n"));
        let found = listening(&data);
        assert_eq!(found.health, Health::Bad);
        assert!(found.found.contains(&place) && found.mend.is_some(), "{found:?}");
        drop(taken);
        assert_eq!(listening(&data).health, Health::Good);
        say("listn = []\n");
        let found = listening(&data);
        assert!(found.health == Health::Bad && found.found.contains("listn"), "{found:?}");
        std::fs::remove_dir_all(&data).expect("it can be removed");
    }
}
