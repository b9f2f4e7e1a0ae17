//! Agents that end and begin again: one, and all of them at once.

use std::time::{Duration, Instant};

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};
use serde_json::Value;

const MEMORY: u16 = 7000;
const DISK: u16 = 7001;
const NODES: usize = 3;
/// With `durable = "memory"` the disk follows within a second; a busy machine's a little later.
const ON_DISK: Duration = Duration::from_secs(3);
const RESTART_WAIT: Duration = Duration::from_secs(6);
const WITHIN: Duration = Duration::from_secs(40);

fn incarnation(cluster: &Cluster, seen_by: usize, node: usize) -> u64 {
    let status = cluster.json(seen_by, &["status"]);
    let nodes = status["nodes"].as_array().expect("a list");
    let name = cluster::name(node);
    let found = nodes.iter().find(|one| one["name"] == name.as_str()).expect("a member");
    found["incarnation"].as_u64().expect("a number")
}

fn answer(cluster: &Cluster, node: usize, port: u16, key: &str) -> String {
    wait_for("an answer", WITHIN, || {
        let mut connection = Connection::open(cluster.address(node, port)).ok()?;
        connection.call(&["GET", key]).ok()
    })
}

#[test]
fn each_node_can_be_restarted_and_comes_back() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    cluster.apply_kv(MEMORY, "output = \"held\"");
    for node in 0..NODES {
        let other = (node + 1) % NODES;
        let mut connection = Connection::open(cluster.address(other, MEMORY)).expect("a server");
        connection.call(&["SET", "last", &node.to_string()]).expect("an answer");
        let before = incarnation(&cluster, other, node);
        assert!(cluster.terminate(node), "SIGTERM ends an agent well");
        cluster.up(node);
        wait_for("a new incarnation", WITHIN, || {
            (incarnation(&cluster, other, node) > before).then_some(())
        });
        cluster.wait_until_held("kv", 2);
        assert_eq!(answer(&cluster, node, MEMORY, "last"), node.to_string());
    }
}

/// Whether somebody said that state of this service may be missing.
fn doubts(cluster: &Cluster, nodes: &[usize], service: &str) -> bool {
    let id = cluster.service(nodes[0], service)["service"].clone();
    let mut events = nodes.iter().flat_map(|node| cluster.events(*node));
    events.any(|event| event["type"] == "state_may_be_missing" && event["service"] == id)
}

#[test]
fn a_cluster_that_lost_all_its_power_has_its_state() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    let wait = RESTART_WAIT.as_secs();
    cluster.apply_kv(MEMORY, &format!("output = \"held\"\nrestart_wait = \"{wait}s\""));
    let state = format!("output = \"held\"\ndurable = \"disk\"\nrestart_wait = \"{wait}s\"");
    cluster.must_apply(&cluster::kv_called("disk", DISK, "256MiB", &state));
    cluster.wait_until_held("disk", 2);
    for port in [MEMORY, DISK] {
        let mut connection = Connection::open(cluster.address(0, port)).expect("a server");
        connection.call(&["SET", "kept", "yes"]).expect("an answer");
    }
    // How soon the disk has it is the subject.
    std::thread::sleep(ON_DISK);

    // All come back: nobody has to be waited for.
    cluster.kill_all();
    let all: Vec<usize> = (0..NODES).collect();
    all.iter().for_each(|node| cluster.begin(*node));
    all.iter().for_each(|node| cluster.wait_for_leader(*node));
    for node in 0..NODES {
        assert_eq!(answer(&cluster, node, MEMORY, "kept"), "yes");
        assert_eq!(answer(&cluster, node, DISK, "kept"), "yes");
    }
    assert!(doubts(&cluster, &all, "kv"), "a doubt must be said");
    let shown = |service: &str| cluster.service(0, service)["state_may_be_missing"].clone();
    assert_eq!((shown("kv"), shown("disk")), (true.into(), false.into()), "status says it too");
    assert!(!doubts(&cluster, &all, "disk"), "what was on disk can't be missing");
    cluster.wait_until_held("disk", 2);
    cluster.wait_until_held("kv", 2);
    std::thread::sleep(ON_DISK);

    // A holder stays away: it is waited for, and then done without.
    let status = cluster.wait_until_held("kv", 2);
    let holders = status["holders"].as_array().expect("a list");
    let silent = |holder: &&Value| holder["node"] != status["active"];
    let missing = holders.iter().find(silent).and_then(|holder| cluster.node(&holder["node"]));
    let missing = missing.expect("somebody holds");
    cluster.kill_all();
    let began = Instant::now();
    let rest: Vec<usize> = (0..NODES).filter(|node| *node != missing).collect();
    rest.iter().for_each(|node| cluster.begin(*node));
    rest.iter().for_each(|node| cluster.wait_for_leader(*node));
    assert_eq!(answer(&cluster, rest[0], MEMORY, "kept"), "yes");
    let took = began.elapsed();
    assert!(took >= RESTART_WAIT, "the missing holder was not waited for: {took:?}");
    println!("with a holder missing the state was there after {took:?}");
    assert_eq!(answer(&cluster, rest[1], DISK, "kept"), "yes");
    assert!(!doubts(&cluster, &rest, "disk"), "what was on disk can't be missing");
}
