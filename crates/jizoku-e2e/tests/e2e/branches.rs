//! `partition = "continue"`: both sides of a cut serve; when it is healed one line goes on, the
//! other is kept, and its clients hear of it.

use std::time::Duration;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{spaces, turn, wait_for};
use serde_json::Value;

const PORT: u16 = 7000;
/// A branch is opened after some seconds, and sides that meet listen to each other for some more.
const WITHIN: Duration = Duration::from_secs(40);
const CONTINUE: &str = "output = \"held\"\npartition = \"continue\"";

fn part(cluster: &Cluster, one: &[usize], other: &[usize]) {
    cluster.note(&format!("part {one:?} from {other:?}"));
    one.iter().for_each(|a| other.iter().for_each(|b| cluster.spaces().part(*a, *b)));
}

fn heal(cluster: &Cluster, one: &[usize], other: &[usize]) {
    cluster.note("heal");
    one.iter().for_each(|a| other.iter().for_each(|b| cluster.spaces().join(*a, *b)));
}

fn is_branch(status: &Value) -> bool {
    status["epoch"].as_str().is_some_and(|epoch| epoch.starts_with("br_"))
}

/// Waits until a node sees one of `side` serve, in a branch or in the main line.
fn wait_for_server(cluster: &Cluster, seen_by: usize, side: &[usize], branch: bool) -> Value {
    wait_for(&format!("one of {side:?} that serves"), WITHIN, || {
        let status = cluster.service(seen_by, "kv");
        let active = cluster.node_seen_by(seen_by, &status)?;
        let serves = side.contains(&active) && status["phase"] == "running";
        (serves && is_branch(&status) == branch).then_some(status)
    })
}

/// Waits until a key has this value for whoever asks through these nodes.
fn wait_for_value(cluster: &Cluster, nodes: &[usize], key: &str, value: &str) {
    for node in nodes {
        wait_for(&format!("{key} = {value} through node {node}"), WITHIN, || {
            let mut connection = Connection::open(cluster.address(*node, PORT)).ok()?;
            (connection.call(&["GET", key]).ok()? == value).then_some(())
        });
    }
}

/// The instances that a node lists: how many, and in which epoch the first is.
fn instances(cluster: &Cluster, node: usize) -> (usize, Value) {
    let answer = cluster.json(node, &["ps"]);
    let all = answer["instances"].as_array().expect("a list");
    (all.len(), all.first().map_or(Value::Null, |one| one["epoch"].clone()))
}

fn says(cluster: &Cluster, node: usize, words: &str) -> bool {
    let status = cluster.json(node, &["status"]);
    let warnings = status["warnings"].as_array().expect("a list");
    warnings.iter().any(|one| one["message"].as_str().is_some_and(|text| text.contains(words)))
}

/// A connection that was answered by the branch that lost: it is reset, and an event says why.
fn check_reset(cluster: &Cluster, node: usize, mut connection: Connection) {
    let told = connection.call(&["PING"]);
    assert!(told.is_err(), "two states on one connection: {told:?}");
    let is_it =
        |event: &Value| event["type"] == "connection_reset" && event["cause"] == "branch_stopped";
    assert!(cluster.events(node).iter().any(is_it), "the reset is told");
}

/// Waits until the branch that lost is listed.
fn wait_until_kept(cluster: &Cluster, node: usize) {
    wait_for("the branch that lost is listed", WITHIN, || {
        let found = cluster.json(node, &["inspect", "kv"]);
        let branches = found["branches"].as_array()?;
        let one = branches.first().filter(|_| branches.len() == 1)?;
        (one["size_bytes"].as_u64()? > 0 && !one["holders"].as_array()?.is_empty()).then_some(())
    });
    assert!(says(cluster, node, "branches are kept"), "status tells of it");
}

#[test]
fn both_sides_of_a_cut_serve_and_the_majority_goes_on() {
    let _turn = turn();
    if !spaces::available() {
        return;
    }
    spaces::within(|spaces| {
        let cluster = Cluster::apart(spaces, 5);
        let before = cluster.apply_kv(PORT, CONTINUE);
        let active = cluster.node(&before["active"]).expect("somebody is active");
        let list = before["holders"].as_array().expect("a list");
        let holders: Vec<usize> =
            list.iter().filter_map(|one| cluster.node(&one["node"])).collect();
        let partner = holders.into_iter().find(|node| *node != active).expect("others hold it");
        let small = [active, partner];
        let large: Vec<usize> = (0..5).filter(|node| !small.contains(node)).collect();
        let mut here = Connection::open(cluster.address(partner, PORT)).expect("a server");
        assert_eq!(here.call(&["SET", "side", "none"]).expect("an answer"), "OK");
        let mut there = Connection::open(cluster.address(large[0], PORT)).expect("a server");
        assert_eq!(there.call(&["INCR", "n"]).expect("an answer"), "1");

        part(&cluster, &small, &large);
        let main = wait_for_server(&cluster, large[1], &large, false);
        let branch = wait_for_server(&cluster, partner, &small, true);
        // Who was connected on either side goes on from the state that both had.
        assert_eq!(there.call(&["INCR", "n"]).expect("an answer"), "2");
        assert_eq!(there.call(&["SET", "side", "majority"]).expect("an answer"), "OK");
        assert_eq!(here.call(&["INCR", "n"]).expect("an answer"), "2");
        assert_eq!(here.call(&["SET", "side", "branch"]).expect("an answer"), "OK");
        for (node, epoch) in [(large[1], &main["epoch"]), (partner, &branch["epoch"])] {
            assert_eq!(instances(&cluster, node), (1, epoch.clone()), "as {node} sees it");
        }
        assert!(says(&cluster, partner, "a branch serves on this side of a cut"));
        assert!(!says(&cluster, large[1], "a branch serves"));

        heal(&cluster, &small, &large);
        wait_for_value(&cluster, &[0, 1, 2, 3, 4], "side", "majority");
        check_reset(&cluster, partner, here);
        assert_eq!(there.call(&["INCR", "n"]).expect("an answer"), "3");
        wait_until_kept(&cluster, partner);
        let after = cluster.wait_until_held_as(partner, "kv", 2);
        assert!(!is_branch(&after), "{after}");
        assert!(!says(&cluster, partner, "a branch serves"));
    });
}

#[test]
fn each_of_two_nodes_goes_on_alone_and_the_line_that_did_more_is_kept_up() {
    const MORE: usize = 40;
    let _turn = turn();
    if !spaces::available() {
        return;
    }
    spaces::within(|spaces| {
        let cluster = Cluster::apart(spaces, 2);
        cluster.must_apply(&jizoku_e2e::cluster::kv(
            PORT,
            &format!("{CONTINUE}\ncopies = 1\nmin_copies = 0"),
        ));
        let before = cluster.wait_until_held("kv", 1);
        let idle = cluster.node(&before["active"]).expect("somebody is active");
        let busy = 1 - idle;
        let mut quiet = Connection::open(cluster.address(idle, PORT)).expect("a server");
        assert_eq!(quiet.call(&["INCR", "n"]).expect("an answer"), "1");

        part(&cluster, &[idle], &[busy]);
        for node in [idle, busy] {
            let alone = wait_for_server(&cluster, node, &[node], true);
            assert_eq!(alone["unprotected"], true, "{alone}");
        }
        assert_eq!(quiet.call(&["INCR", "n"]).expect("an answer"), "2");
        let mut loud = Connection::open(cluster.address(busy, PORT)).expect("a server");
        for number in 2..2 + MORE {
            let told = loud.call(&["INCR", "n"]).expect("an answer");
            assert_eq!(told, number.to_string());
        }

        heal(&cluster, &[idle], &[busy]);
        wait_for_value(&cluster, &[idle, busy], "n", &(1 + MORE).to_string());
        for node in [idle, busy] {
            wait_for_server(&cluster, node, &[busy], false);
        }
        check_reset(&cluster, idle, quiet);
        assert_eq!(loud.call(&["INCR", "n"]).expect("an answer"), (2 + MORE).to_string());
        wait_until_kept(&cluster, idle);
        cluster.wait_until_held_as(idle, "kv", 1);
    });
}
