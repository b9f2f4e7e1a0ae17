//! Five agents without a service: what each takes.

use std::time::Duration;

use jizoku_e2e::cluster::Cluster;
use serde_json::json;

use crate::figure::{Figure, Limit};
use crate::{Bench, usage};

pub(crate) const BENCH: Bench = Bench {
    name: "idle",
    what: "idle cluster of five: processor time and memory of each agent",
    seconds: 60,
    run,
};
pub(crate) const AGENTS: usize = 5;
/// The cluster is left alone for so long before anything is counted.
const CALM: Duration = Duration::from_secs(10);
/// Looks, and how far they lie apart: with five agents, 20 samples.
const LOOKS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_secs(10);

fn run() -> Vec<Figure> {
    let cluster = Cluster::start(AGENTS);
    let (cpu, memory) = measure(&cluster);
    let conditions = "five agents on one machine, no service, left alone for 10 s; a sample is one \
                      agent in 10 s";
    let memory = Figure::new("resident memory of an agent", "MiB", memory, Limit::Most(64.0, 32.0));
    vec![
        Figure::new("an agent's share of a core", "%", cpu, Limit::Most(1.0, 0.2))
            .under(conditions),
        memory.under(conditions),
    ]
}

/// For each agent and look: share of a core in per cent, and resident memory in MiB.
///
/// Time is the subject here.
pub(crate) fn measure(cluster: &Cluster) -> (Vec<f64>, Vec<f64>) {
    std::thread::sleep(CALM);
    let pids: Vec<u32> = (0..AGENTS).map(|node| cluster.pid(node)).collect();
    let (mut shares, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let spent = || pids.iter().map(|pid| usage::cpu(*pid).expect("it runs"));
        let (before, began) = (spent().collect::<Vec<_>>(), std::time::Instant::now());
        std::thread::sleep(LOOK_EVERY);
        let passed = began.elapsed().as_secs_f64();
        shares.extend(spent().zip(before).map(|(now, then)| (now - then) / passed * 100.0));
        memory.extend(pids.iter().map(|pid| usage::memory(*pid).expect("it runs")));
    }
    eprintln!("bench: {}", json!({ "per_cent": shares, "mib": memory }));
    (shares, memory)
}
