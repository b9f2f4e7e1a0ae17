//! Agents that end and begin again, one after the other.

use std::time::Duration;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};

const PORT: u16 = 7000;
const NODES: usize = 3;
const WITHIN: Duration = Duration::from_secs(40);

fn incarnation(cluster: &Cluster, seen_by: usize, node: usize) -> u64 {
    let status = cluster.json(seen_by, &["status"]);
    let nodes = status["nodes"].as_array().expect("a list");
    let name = jizoku_e2e::cluster::name(node);
    let found = nodes.iter().find(|one| one["name"] == name.as_str()).expect("a member");
    found["incarnation"].as_u64().expect("a number")
}

fn answer(cluster: &Cluster, node: usize, key: &str) -> String {
    wait_for("an answer", WITHIN, || {
        let mut connection = Connection::open(cluster.address(node, PORT)).ok()?;
        connection.call(&["GET", key]).ok()
    })
}

#[test]
fn each_node_can_be_restarted_and_comes_back() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    cluster.apply_kv(PORT, "output = \"held\"");
    for node in 0..NODES {
        let other = (node + 1) % NODES;
        let mut connection = Connection::open(cluster.address(other, PORT)).expect("a server");
        connection.call(&["SET", "last", &node.to_string()]).expect("an answer");
        let before = incarnation(&cluster, other, node);
        assert!(cluster.terminate(node), "SIGTERM ends an agent well");
        cluster.up(node);
        wait_for("a new incarnation", WITHIN, || {
            (incarnation(&cluster, other, node) > before).then_some(())
        });
        cluster.wait_until_held("kv", 2);
        assert_eq!(answer(&cluster, node, "last"), node.to_string());
    }
}
