//! Who is let in, who goes, and who is refused.

use std::time::Duration;

use jizoku_e2e::cluster::{Cluster, name};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};

const PORT: u16 = 7000;
const WITHIN: Duration = Duration::from_secs(30);

fn members(cluster: &Cluster, node: usize) -> Vec<String> {
    let status = cluster.json(node, &["status"]);
    let nodes = status["nodes"].as_array().expect("a list");
    let mut names: Vec<String> =
        nodes.iter().map(|one| one["name"].as_str().expect("a name").into()).collect();
    names.sort();
    names
}

#[test]
fn a_removed_node_is_refused_and_one_that_left_can_come_back() {
    let _turn = turn();
    let mut cluster = Cluster::start(4);
    cluster.apply_kv(PORT, "output = \"held\"");
    let before = cluster.metric(0, "jizoku_mesh_refused_total{why=\"stranger\"}");
    cluster.must(0, &["remove", "n4"]);
    assert_eq!(members(&cluster, 0), ["n1", "n2", "n3"]);
    // Its agent goes on, and knocks in vain; so does the next one with that key.
    cluster.kill(3);
    cluster.begin(3);
    wait_for("a stranger that is refused", WITHIN, || {
        let now = cluster.metric(0, "jizoku_mesh_refused_total{why=\"stranger\"}");
        (now > before).then_some(())
    });
    assert_eq!(members(&cluster, 0), ["n1", "n2", "n3"]);
    // It is told what happened, and not to go on as a cluster of its own.
    wait_for("a node that knows that it was removed", WITHIN, || {
        let page = cluster.run(3, &["status"]).out;
        let told = page.contains("was removed from its cluster") && !page.contains("recover");
        told.then_some(())
    });
    cluster.must(3, &["leave"]);
    assert!(cluster.wait_for_end(3), "there is nothing that it would have to wait for");
    let said = cluster.run(0, &["remove", "n1"]);
    assert!(!said.ok && said.err.contains("jizoku leave"), "{said:?}");
    cluster.wait_until_held("kv", 2);

    cluster.must(2, &["leave"]);
    assert!(cluster.wait_for_end(2), "an agent that left ends well");
    wait_for("two members", WITHIN, || (members(&cluster, 0) == ["n1", "n2"]).then_some(()));
    let ticket = cluster.must(0, &["ticket"]);
    let said = cluster.enter(2, &["join", ticket.trim()], &[]);
    assert!(said.ok, "{said:?}");
    cluster.up(2);
    assert_eq!(members(&cluster, 0), ["n1", "n2", "n3"]);
    cluster.wait_until_held("kv", 2);
    let mut connection = Connection::open(cluster.address(2, PORT)).expect("a server");
    assert_eq!(connection.call(&["PING"]).expect("an answer"), "PONG");
}

#[test]
fn tickets_work_once_and_for_one_cluster() {
    let _turn = turn();
    let mut cluster = Cluster::start(2);
    let mut others = Cluster::start(1);
    let refused = |cluster: &Cluster, node: usize, ticket: &str, why: &[&str]| {
        let said = cluster.enter(node, &["join", ticket], &[]);
        assert!(!said.ok, "{said:?}");
        assert!(why.iter().any(|word| said.err.contains(word)), "{}", said.err);
    };
    let third = cluster.folder_for_one();
    for garbage in ["", "jz1", "jz1AAAA", "hello", "jz1!!"] {
        refused(&cluster, third, garbage, &["not a ticket"]);
    }
    let ticket = cluster.must(0, &["ticket"]).trim().to_owned();
    // A member of another cluster stays one.
    refused(&others, 0, &ticket, &["an agent runs with"]);
    others.kill(0);
    refused(&others, 0, &ticket, &["belongs to"]);
    others.up(0);
    assert_eq!(members(&others, 0), [name(0)]);

    assert!(cluster.enter(third, &["join", &ticket], &[]).ok);
    let fourth = cluster.folder_for_one();
    refused(&cluster, fourth, &ticket, &["ticket"]);
    let endless = cluster.run(0, &["ticket", "--minutes", "100000"]);
    assert!(!endless.ok && endless.err.contains("--minutes"), "{endless:?}");
    cluster.up(third);
    assert_eq!(members(&cluster, 0), ["n1", "n2", "n3"]);

    // A member of the other cluster gives an address of this one for its own: who dials it finds
    // another key there, and neither cluster learns anything of the other.
    let before = cluster.metric(0, "jizoku_mesh_refused_total{why=\"greeting\"}");
    let place = cluster.mesh(0).to_string();
    let liar = others.create(&["--advertise", &place]);
    others.up(liar);
    // While it runs it may be the one that dials. Without it, others must.
    others.kill(liar);
    wait_for("a handshake that fails", WITHIN, || {
        let now = cluster.metric(0, "jizoku_mesh_refused_total{why=\"greeting\"}");
        (now > before).then_some(())
    });
    assert_eq!(members(&cluster, 0), ["n1", "n2", "n3"]);
    assert_eq!(members(&others, 0), [name(0), name(liar)]);
}
