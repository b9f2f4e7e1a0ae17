//! A hundred services on five nodes: what each agent takes while nobody uses them; and, with fifty
//! checkpoints a second of each wanted for a minute, how much is written to the catalog.
//!
//! Catalog writes are the growth of the consensus logs of all nodes, in bytes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::wait_for;
use serde_json::json;

use crate::figure::{Figure, Limit, median, round};
use crate::idle::{self, AGENTS};
use crate::{Bench, usage};

pub(crate) const BENCH: Bench = Bench {
    name: "services",
    what: "100 services on five nodes, idle, then with checkpoints: agents, catalog writes",
    seconds: 200,
    run,
};
const SERVICES: usize = 100;
const PORT: u16 = 7000;
const WITHIN: Duration = Duration::from_secs(120);
/// Each service is asked for something that changes it so often.
const ASK_EVERY: Duration = Duration::from_millis(20);
const ASKED_FOR: Duration = Duration::from_secs(60);

fn run() -> Vec<Figure> {
    let cluster = Cluster::start(AGENTS);
    apply_all(&cluster);
    wait_for("a hundred services that are held", WITHIN, || all_held(&cluster).then_some(()));
    let (cpu, memory) = idle::measure(&cluster);
    let conditions = "100 kv services (wasm, held, two copies, shipped defaults) that nobody uses \
                      on five agents, left alone for 10 s; a sample is one agent in 10 s";
    let memory = json!({ "median_mib": round(median(&memory)), "threads": threads(&cluster) });
    let idle = Figure::new("an agent's share of a core", "%", cpu, Limit::Most(5.0, 1.0));
    vec![idle.under(conditions).with(memory), busy(&cluster)]
}

/// Applies all services, some at a time: the command line takes most of the time.
fn apply_all(cluster: &Cluster) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for node in 0..AGENTS {
            let next = &next;
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= SERVICES {
                        return;
                    }
                    let name = format!("s{number}");
                    let text =
                        cluster::kv_called(&name, port(number), "16MiB", "output = \"held\"");
                    let path = cluster.folder().join(format!("{name}.toml"));
                    fs::write(&path, text).expect("a manifest can be written");
                    cluster.must(node, &["apply", path.to_str().expect("paths are text")]);
                }
            });
        }
    });
}

fn port(number: usize) -> u16 {
    PORT + u16::try_from(number).expect("few services")
}

fn all_held(cluster: &Cluster) -> bool {
    let status = cluster.json(0, &["status"]);
    let services = status["services"].as_array().expect("a list");
    let held = services.iter().filter(|one| {
        let members = one["holders"].as_array().into_iter().flatten();
        let members =
            members.filter(|holder| holder["state"] == "member" && holder["node"] != one["active"]);
        members.count() >= 2 && one["phase"] == "running"
    });
    held.count() == SERVICES
}

fn threads(cluster: &Cluster) -> usize {
    let of = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    (0..AGENTS).map(|node| of(cluster.pid(node))).max().unwrap_or_default()
}

fn busy(cluster: &Cluster) -> Figure {
    let stop = AtomicBool::new(false);
    let pids: Vec<u32> = (0..AGENTS).map(|node| cluster.pid(node)).collect();
    let (mut bytes, mut rate, mut cpu) = (0, 0.0, 0.0);
    std::thread::scope(|scope| {
        for number in 0..SERVICES {
            let address = cluster.address(number % AGENTS, port(number));
            let stop = &stop;
            scope.spawn(move || ask(address, stop));
        }
        // All of them are connected, and have been answered for a while.
        std::thread::sleep(Duration::from_secs(5));
        let (began, before, checkpoints) = (Instant::now(), log_bytes(cluster), taken(cluster));
        let spent = usage::cpu_of_all(&pids);
        std::thread::sleep(ASKED_FOR);
        bytes = log_bytes(cluster).abs_diff(before);
        let seconds = began.elapsed().as_secs_f64();
        rate = (taken(cluster) - checkpoints) as f64 / seconds;
        cpu = (usage::cpu_of_all(&pids) - spent) / seconds;
        stop.store(true, Ordering::Relaxed);
    });
    let conditions = "the same services, each asked to change every 20 ms on one connection for a \
                      minute; growth of the consensus logs of all nodes";
    let per_service = rate / SERVICES as f64;
    Figure::new("written to the catalog", "bytes", vec![bytes as f64], Limit::Most(0.0, 0.0))
        .under(conditions)
        .with(json!({
            "checkpoints_per_s": round(rate),
            "checkpoints_per_s_and_service": round(per_service),
            "fifty_were_reached": per_service >= 49.0,
            "cores_of_all_agents": round(cpu),
        }))
}

/// Asks until it is told to stop, at the pace or as fast as it is answered.
fn ask(address: SocketAddr, stop: &AtomicBool) {
    let mut connection = Connection::open(address).expect("the service can be reached");
    let (began, mut asked) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        let answer = connection.call(&["INCR", "asked"]).expect("an answer");
        assert_eq!(answer, asked.to_string(), "a write was lost or done twice");
        std::thread::sleep((ASK_EVERY * asked).saturating_sub(began.elapsed()));
    }
}

/// Checkpoints that all services have come to.
fn taken(cluster: &Cluster) -> u64 {
    let status = cluster.json(0, &["status"]);
    let services = status["services"].as_array().expect("a list");
    let number = |one: &serde_json::Value| -> Option<u64> {
        let id = one["checkpoint"]["id"].clone();
        id["seq"].as_u64().or_else(|| id.as_str()?.rsplit('.').next()?.parse().ok())
    };
    services.iter().filter_map(number).sum()
}

fn log_bytes(cluster: &Cluster) -> u64 {
    (0..AGENTS).map(|node| bytes_below(&cluster.data(node).join("consensus"))).sum()
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(found) = fs::metadata(path) else { return 0 };
    if found.is_file() {
        return found.len();
    }
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    inside.map(|entry| bytes_below(&entry.path())).sum()
}
