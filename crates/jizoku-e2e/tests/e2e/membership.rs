//! Who is let in, and who is refused.

use jizoku_e2e::cluster::{Cluster, name};
use jizoku_e2e::turn;

fn members(cluster: &Cluster, node: usize) -> Vec<String> {
    let status = cluster.json(node, &["status"]);
    let nodes = status["nodes"].as_array().expect("a list");
    let mut names: Vec<String> =
        nodes.iter().map(|one| one["name"].as_str().expect("a name").into()).collect();
    names.sort();
    names
}

#[test]
fn tickets_work_once_in_time_and_for_one_cluster() {
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
    refused(&others, 0, &ticket, &["another agent uses this folder"]);
    others.kill(0);
    refused(&others, 0, &ticket, &["belongs to"]);
    others.up(0);
    assert_eq!(members(&others, 0), [name(0)]);

    assert!(cluster.enter(third, &["join", &ticket], &[]).ok);
    let fourth = cluster.folder_for_one();
    refused(&cluster, fourth, &ticket, &["ticket"]);
    let expired = cluster.must(0, &["ticket", "--minutes", "0"]).trim().to_owned();
    refused(&cluster, fourth, &expired, &["ticket"]);
    cluster.up(third);
    assert_eq!(members(&cluster, 0), ["n1", "n2", "n3"]);
}
