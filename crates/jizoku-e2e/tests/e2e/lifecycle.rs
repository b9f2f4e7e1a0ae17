//! Stopping, starting and removing services; what `free` output promises.

use std::time::{Duration, Instant};

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};
use serde_json::Value;

const PORT: u16 = 7000;
const LAZY: u16 = 7001;
const NODES: usize = 3;
/// A program may have to be compiled first, on a busy machine.
const WITHIN: Duration = Duration::from_secs(40);
/// How long an answer is waited for that shall not come.
const SHORT: Duration = Duration::from_secs(1);
/// What the age of a checkpoint may be too low by: facts are told a moment before they are read.
const STALE: u64 = 500;

fn get(cluster: &Cluster, node: usize, key: &str) -> String {
    wait_for("an answer", WITHIN, || {
        let mut connection = Connection::open(cluster.address(node, PORT)).ok()?;
        connection.call(&["GET", key]).ok()
    })
}

#[test]
fn a_program_outlives_the_node_that_it_was_given_to() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    cluster.must_apply(&cluster::kv(PORT, "output = \"held\""));
    // Nobody else may have run it yet, or compiled it, or kept anything of its state.
    cluster.kill(0);
    assert_eq!(get(&cluster, 1, "nothing"), "(nil)");
    let mut connection = Connection::open(cluster.address(2, PORT)).expect("a server");
    assert_eq!(connection.call(&["SET", "kept", "yes"]).expect("an answer"), "OK");
    cluster.wait_until_held("kv", 1);
}

#[test]
fn stopping_keeps_the_state_and_removing_does_not() {
    let _turn = turn();
    let cluster = Cluster::start(NODES);
    cluster.apply_kv(PORT, "output = \"held\"");
    let mut connection = Connection::open(cluster.address(0, PORT)).expect("a server");
    connection.call(&["SET", "kept", "yes"]).expect("an answer");
    cluster.must(1, &["stop", "kv"]);
    wait_for("the stop", WITHIN, || (cluster.service(1, "kv")["phase"] == "stopped").then_some(()));
    wait_for("silence", WITHIN, || {
        let open = Connection::open_for(cluster.address(2, PORT), SHORT);
        open.and_then(|mut one| one.call(&["PING"])).is_err().then_some(())
    });
    cluster.must(2, &["start", "kv"]);
    assert_eq!(get(&cluster, 2, "kept"), "yes");
    cluster.wait_until_held("kv", 2);

    cluster.must(0, &["rm", "kv"]);
    wait_for("nothing", WITHIN, || cluster.service(1, "kv").is_null().then_some(()));
    cluster.apply_kv(PORT, "output = \"held\"");
    assert_eq!(get(&cluster, 1, "kept"), "(nil)");
}

#[test]
fn free_output_survives_up_to_the_last_checkpoint_and_what_told_more_is_reset() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    let before = cluster.apply_kv(PORT, "output = \"free\"\ninterval = \"50ms\"");
    let active = cluster.node(&before["active"]).expect("somebody is active");
    let through = (0..NODES).find(|node| *node != active).expect("three nodes");
    // Beside it one that hardly ever makes a checkpoint.
    let lazy = "output = \"free\"\ninterval = \"10m\"";
    cluster.must_apply(&cluster::kv_called("lazy", LAZY, "256MiB", lazy));
    cluster.wait_until_held("lazy", 2);
    cluster.move_to("lazy", active);

    let mut risky = Connection::open(cluster.address(through, LAZY)).expect("a server");
    let mut connection = Connection::open(cluster.address(through, PORT)).expect("a server");
    for number in 1..=100 {
        let told = connection.call(&["INCR", "counter"]).expect("an answer");
        assert_eq!(told, number.to_string());
        let told = risky.call(&["INCR", "counter"]).expect("an answer");
        assert_eq!(told, number.to_string());
    }
    // What may be lost is what the last interval brought: let a checkpoint follow.
    let told = Instant::now();
    let mut other = Connection::open(cluster.address(through, PORT)).expect("a server");
    wait_for("a checkpoint of all that", WITHIN, || {
        other.call(&["INCR", "other"]).expect("an answer");
        let since = u64::try_from(told.elapsed().as_millis()).ok()?;
        let age = cluster.service(active, "kv")["checkpoint"]["age_ms"].as_u64()?;
        (age + STALE < since).then_some(())
    });
    cluster.kill(active);
    assert_eq!(get(&cluster, through, "counter"), "100");
    let after = cluster.service(through, "kv");
    assert!(cluster::epoch(&after) > cluster::epoch(&before), "{after}");

    // It was told of more than there is now: to go on would be to lie.
    let told = risky.call(&["INCR", "counter"]);
    assert!(told.is_err(), "{told:?}");
    let is_it = |event: &Value| {
        event["type"] == "connection_reset" && event["cause"] == "released_too_much"
    };
    assert!(cluster.events(through).iter().any(is_it), "the reset is told");
}
