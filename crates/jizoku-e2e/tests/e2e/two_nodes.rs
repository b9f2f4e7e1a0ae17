//! Two nodes, with a witness and without: what they can't do, and that they say so.

use std::time::Duration;

use jizoku_e2e::cluster::{self, Cluster, name};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};
use serde_json::Value;

const PORT: u16 = 7000;
const WITHIN: Duration = Duration::from_secs(40);
/// Longer than a takeover takes.
const LONG: Duration = Duration::from_secs(3);

fn warns(cluster: &Cluster, node: usize, words: &str) -> bool {
    let status = cluster.json(node, &["status"]);
    let warnings = status["warnings"].as_array().expect("a list");
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().contains(words);
    warnings.iter().any(|one| text(one, "message") || text(one, "hint"))
}

/// Nobody answers through this node: time is the subject.
fn assert_silent(cluster: &Cluster, node: usize, why: &str) {
    let hasty = Connection::open_for(cluster.address(node, PORT), LONG);
    let told = hasty.and_then(|mut one| one.call(&["INCR", "n"]));
    assert!(told.is_err(), "{why}: {told:?}");
}

/// What a counter is after it grew once more, by a connection of its own that waits for it.
fn count(cluster: &Cluster, node: usize, key: &str) -> u64 {
    let told = wait_for("an answer", WITHIN, || {
        let mut one = Connection::open_for(cluster.address(node, PORT), LONG).ok()?;
        one.call(&["INCR", key]).ok()
    });
    told.parse().expect("a number")
}

#[test]
fn the_death_of_one_of_two_stops_services_until_it_is_back() {
    let _turn = turn();
    let mut cluster = Cluster::empty();
    let first = cluster.folder_for_one();
    let said = cluster.enter(first, &["init"], &[]);
    assert!(said.ok && said.out.contains("--witness"), "{said:?}");
    cluster.up(first);
    cluster.add(&[]);
    assert!(warns(&cluster, 0, "the death of one stops services"));
    assert!(warns(&cluster, 1, "--witness"));
    cluster.must_apply(&cluster::kv(PORT, "output = \"held\"\ncopies = 1"));
    cluster.wait_until_open(PORT);
    cluster.wait_until_held("kv", 1);
    let mut patient = Connection::open(cluster.address(0, PORT)).expect("a server");
    assert_eq!(patient.call(&["SET", "kept", "yes"]).expect("an answer"), "OK");

    // Whichever it is: nothing can be decided, so nobody is told anything.
    for victim in [1, 0] {
        let survivor = 1 - victim;
        cluster.kill(victim);
        wait_for("a survivor that sees no leader", WITHIN, || {
            let status = cluster.json(survivor, &["status"]);
            status["leader"].is_null().then_some(())
        });
        assert!(warns(&cluster, survivor, "the catalog has no leader"));
        assert_silent(&cluster, survivor, &format!("{} is dead", name(victim)));
        cluster.up(victim);
        cluster.wait_until_held("kv", 1);
    }
    let mut after = Connection::open(cluster.address(1, PORT)).expect("a server");
    assert_eq!(after.call(&["GET", "kept"]).expect("an answer"), "yes");
}

#[test]
fn with_a_witness_any_one_may_die_if_no_other_copy_is_asked_for() {
    let _turn = turn();
    let mut cluster = Cluster::start(2);
    let witness = cluster.add(&["--witness"]);
    assert!(!warns(&cluster, 0, "the death of one stops services"));
    let state = "output = \"held\"\ncopies = 1\nmin_copies = 0";
    cluster.must_apply(&cluster::kv(PORT, state));
    cluster.wait_until_open(PORT);
    let mut counted = 0;
    for _ in 0..2 {
        let status = cluster.wait_until_held("kv", 1);
        let active = cluster.node(&status["active"]).expect("somebody is active");
        for victim in [witness, 1 - active, active] {
            let through = (0..3).find(|node| ![victim, active].contains(node)).expect("one");
            let before = cluster.wait_until_held("kv", 1);
            cluster.kill(victim);
            let now = count(&cluster, through, "n");
            assert!(now > counted, "{now} after {counted}, {} is dead: {before}", name(victim));
            counted = now;
            cluster.up(victim);
        }
    }
}

#[test]
fn with_a_witness_and_one_copy_asked_for_held_output_waits_for_the_dead_one() {
    let _turn = turn();
    let mut cluster = Cluster::start(2);
    cluster.add(&["--witness"]);
    // What is meant if nothing is said: at least one other node has what a client is told.
    cluster.must_apply(&cluster::kv(PORT, "output = \"held\"\ncopies = 1"));
    cluster.wait_until_open(PORT);
    let status = cluster.wait_until_held("kv", 1);
    let active = cluster.node(&status["active"]).expect("somebody is active");
    assert_eq!(count(&cluster, 2, "n"), 1);
    cluster.kill(active);
    wait_for("a takeover", WITHIN, || {
        let status = cluster.service(2, "kv");
        (cluster.node_seen_by(2, &status) == Some(1 - active)).then_some(())
    });
    assert_silent(&cluster, 2, "no other node can hold it");
    assert!(warns(&cluster, 2, "UNPROTECTED") && warns(&cluster, 2, "clients wait for answers"));
    cluster.up(active);
    cluster.wait_until_held("kv", 1);
    // What was asked in vain may have been done.
    assert!(count(&cluster, 2, "n") >= 2);
}
