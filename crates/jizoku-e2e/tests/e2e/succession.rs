//! Who takes over, by the policy of the service's manifest.

use std::time::Duration;

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};

const PORT: u16 = 7000;
const WITHIN: Duration = Duration::from_secs(30);

/// Kills the active node, and waits until another one has the service. Gives who.
fn successor(cluster: &mut Cluster, killed: usize) -> usize {
    cluster.kill(killed);
    wait_for("another active node", WITHIN, || {
        let seen_by = cluster.living();
        let status = cluster.service(seen_by, "kv");
        let active = cluster.node_seen_by(seen_by, &status)?;
        (active != killed && status["phase"] == "running").then_some(active)
    })
}

#[test]
fn by_priority_the_first_of_the_list_that_lives_takes_over() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    let order =
        "output = \"held\"\n[succession]\npolicy = \"priority\"\norder = [\"n3\", \"n1\", \"n2\"]";
    cluster.apply_kv(PORT, order);
    cluster.move_to("kv", 1);
    assert_eq!(successor(&mut cluster, 1), 2, "n3 comes first");
    cluster.up(1);
    cluster.wait_until_held("kv", 2);
    assert_eq!(successor(&mut cluster, 2), 0, "then n1");
}

#[test]
fn at_random_anybody_takes_over_with_all_that_clients_were_told() {
    const KILLS: usize = 4;
    let _turn = turn();
    let mut cluster = Cluster::start(4);
    let policy = "output = \"held\"\n[succession]\npolicy = \"random\"";
    let before = cluster.apply_kv(PORT, policy);
    let mut active = cluster.node(&before["active"]).expect("somebody");
    for round in 1..=KILLS {
        let gateway = (0..4).find(|node| *node != active).expect("three others");
        let mut connection = Connection::open(cluster.address(gateway, PORT)).expect("a server");
        assert_eq!(connection.call(&["INCR", "n"]).expect("an answer"), round.to_string());
        let killed = active;
        active = successor(&mut cluster, killed);
        assert_eq!(connection.call(&["GET", "n"]).expect("an answer"), round.to_string());
        cluster.up(killed);
        let status = cluster.wait_until_held("kv", 2);
        assert_eq!(cluster::epoch(&status), u64::try_from(round).expect("few") + 1);
    }
}
