//! What people do on purpose: nothing breaks, nothing is lost.

use std::time::Duration;

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Load;
use jizoku_e2e::{turn, wait_for};

const PORT: u16 = 7000;
const NODES: usize = 3;
const MOVES: usize = 4;
const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn moves_and_drains_break_no_connection_and_lose_nothing() {
    let _turn = turn();
    let cluster = Cluster::start(NODES);
    cluster.apply_kv(PORT, "output = \"held\"");
    // One of them through the node that runs the service: on purpose nothing breaks there too.
    let addresses: Vec<_> = (0..NODES).map(|node| cluster.address(node, PORT)).collect();
    let load = Load::start(&addresses);
    load.wait_for_more(50);
    for _ in 0..MOVES {
        let from = cluster.active("kv").expect("somebody is active");
        let to = (from + 1) % NODES;
        cluster.must(from, &["move", "kv", "--to", &cluster::name(to)]);
        wait_for("the move", WITHIN, || (cluster.active("kv") == Some(to)).then_some(()));
        load.wait_for_more(50);
        cluster.wait_until_held("kv", 2);
    }

    let from = cluster.active("kv").expect("somebody is active");
    cluster.must((from + 1) % NODES, &["drain", &cluster::name(from)]);
    wait_for("an empty node", WITHIN, || {
        let status = cluster.json(from, &["status"]);
        let nodes = status["nodes"].as_array().expect("a list");
        let own = nodes.iter().find(|node| node["node"] == status["this_node"]).expect("itself");
        (own["active"] == 0 && own["held"] == 0 && own["draining"] == true).then_some(())
    });
    load.wait_for_more(50);
    cluster.must(from, &["drain", "--undo"]);
    cluster.wait_until_held("kv", 2);
    load.wait_for_more(50);

    load.settle(addresses[0]);
}
