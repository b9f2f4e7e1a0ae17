//! A majority that is lost for good: one survivor goes on with what it has.

use std::fs;
use std::time::Duration;

use jizoku_e2e::cluster::{Cluster, name};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};

const PORT: u16 = 7000;
const NODES: usize = 3;
const WITHIN: Duration = Duration::from_secs(40);

#[test]
fn a_survivor_goes_on_with_its_state_and_old_nodes_must_join_anew() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    cluster.apply_kv(PORT, "output = \"held\"\ndurable = \"disk\"\nrestart_wait = \"5s\"");
    // The survivor is one that holds the state: what only runs there ends with its agent.
    cluster.move_to("kv", 1);
    let mut connection = Connection::open(cluster.address(0, PORT)).expect("a server");
    assert_eq!(connection.call(&["SET", "kept", "yes"]).expect("an answer"), "OK");
    let generation = cluster.json(0, &["status"])["generation"].as_u64().expect("a number");

    for lost in (1..NODES).rev() {
        cluster.kill(lost);
    }
    wait_for("a survivor that sees no leader", WITHIN, || {
        let status = cluster.json(0, &["status"]);
        let page = cluster.must(0, &["status"]);
        (status["leader"].is_null() && page.contains("recover --new-generation")).then_some(())
    });
    // Not by accident, and not under a running agent.
    let said = cluster.run(0, &["recover"]);
    assert!(!said.ok && said.err.contains("--new-generation"), "{said:?}");
    let said = cluster.run(0, &["recover", "--new-generation"]);
    assert!(!said.ok && said.err.contains("Stop the agent first"), "{said:?}");
    assert!(cluster.terminate(0));
    cluster.must(0, &["recover", "--new-generation"]);
    cluster.up(0);
    let now = cluster.json(0, &["status"])["generation"].as_u64().expect("a number");
    assert_eq!(now, generation + 1);

    // One that was given up turns up again: nobody listens to it.
    cluster.begin(2);
    let refused = "jizoku_mesh_refused_total{why=\"generation\"}";
    wait_for("a node of the old generation that is refused", WITHIN, || {
        // Whichever of the two was dialled counts it.
        let agent = cluster.run(2, &["status"]);
        (agent.ok && cluster.metric(0, refused) + cluster.metric(2, refused) > 0).then_some(())
    });
    assert!(cluster.json(2, &["status"])["leader"].is_null(), "alone it decides nothing");
    cluster.kill(2);

    for lost in 1..NODES {
        cluster.must(0, &["remove", &name(lost), "--accept-loss"]);
    }

    // The new machine is told what the old ones knew.
    let new = cluster.add(&[]);
    let get = |cluster: &Cluster, node: usize| {
        wait_for("an answer", WITHIN, || {
            let mut connection = Connection::open(cluster.address(node, PORT)).ok()?;
            connection.call(&["GET", "kept"]).ok()
        })
    };
    assert_eq!(get(&cluster, new), "yes");
    cluster.wait_until_held("kv", 1);

    // One that was given up may come back as a new one.
    fs::remove_dir_all(cluster.data(1)).expect("its folder can be removed");
    let ticket = cluster.must(0, &["ticket"]).trim().to_owned();
    let said = cluster.enter(1, &["join", &ticket], &[]);
    assert!(said.ok, "{said:?}");
    cluster.up(1);
    cluster.wait_until_held("kv", 2);
    assert_eq!(get(&cluster, 1), "yes");
}
