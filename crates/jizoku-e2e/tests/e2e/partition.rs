//! Networks that break between nodes: in one direction, in both, into two sides.

use std::time::Duration;

use jizoku_e2e::clients::{self, curl};
use jizoku_e2e::cluster::{self, Cluster, name};
use jizoku_e2e::resp::{Connection, Load};
use jizoku_e2e::{spaces, turn, wait_for};

use crate::exec;

const HELD: u16 = 7000;
const FREE: u16 = 7001;
const NODES: usize = 3;
const WITHIN: Duration = Duration::from_secs(20);
/// Longer than any lease, and than a takeover takes.
const LONG: Duration = Duration::from_secs(3);

/// How `from` reaches `to`: `direct`, `relayed` or `unreachable`.
fn reach(cluster: &Cluster, from: usize, to: usize) -> String {
    let status = cluster.json(from, &["status"]);
    let nodes = status["nodes"].as_array().expect("a list");
    let found = nodes.iter().find(|node| node["name"] == name(to).as_str()).expect("a member");
    found["reach"]["how"].as_str().expect("a word").into()
}

fn wait_for_reach(cluster: &Cluster, pairs: &[(usize, usize)], how: &str) {
    for (from, to) in pairs {
        let what = format!("{} reaches {}: {how}", name(*from), name(*to));
        wait_for(&what, WITHIN, || (reach(cluster, *from, *to) == how).then_some(()));
    }
}

#[test]
fn a_link_that_is_cut_is_relayed_around_and_nobody_notices() {
    let _turn = turn();
    if !spaces::available() {
        return;
    }
    spaces::within(|spaces| {
        let cluster = Cluster::apart(spaces, NODES);
        let before = cluster.apply_kv(HELD, "output = \"held\"");
        let active = cluster.node(&before["active"]).expect("somebody is active");
        let through = (active + 1) % NODES;
        let load = Load::start(&[cluster.address(through, HELD)]);
        load.wait_for_more(50);
        for ways in [&[(through, active)][..], &[(through, active), (active, through)]] {
            cluster.note(&format!("cut {ways:?}"));
            ways.iter().for_each(|(from, to)| cluster.spaces().cut(*from, *to));
            wait_for_reach(&cluster, &[(through, active), (active, through)], "relayed");
            load.wait_for_more(50);
            cluster.note("mend");
            ways.iter().for_each(|(from, to)| cluster.spaces().mend(*from, *to));
            wait_for_reach(&cluster, &[(through, active), (active, through)], "direct");
            load.wait_for_more(50);
        }
        let after = cluster.wait_until_held("kv", 2);
        assert_eq!(cluster::epoch(&after), cluster::epoch(&before), "nobody had to take over");
        load.settle(cluster.address(active, HELD));
    });
}

#[test]
fn only_the_side_with_a_majority_serves() {
    let _turn = turn();
    if !spaces::available() {
        return;
    }
    spaces::within(|spaces| {
        let cluster = Cluster::apart(spaces, NODES);
        cluster.apply_kv(HELD, "output = \"held\"");
        let active = cluster.active("kv").expect("somebody is active");
        let others = [(active + 1) % NODES, (active + 2) % NODES];
        let free = "output = \"free\"\ninterval = \"20ms\"";
        cluster.must_apply(&cluster::kv_called("free", FREE, "256MiB", free));
        cluster.wait_until_held("free", 2);
        cluster.move_to("free", active);
        let mut inside = Connection::open(cluster.address(active, HELD)).expect("a server");
        assert_eq!(inside.call(&["INCR", "inside"]).expect("an answer"), "1");
        let load = Load::start(&others.map(|node| cluster.address(node, HELD)));
        load.wait_for_more(50);

        cluster.note(&format!("part {} from the rest", name(active)));
        others.iter().for_each(|other| cluster.spaces().part(active, *other));
        for service in ["kv", "free"] {
            wait_for("a takeover on the other side", WITHIN, || {
                let now = cluster.node_seen_by(others[0], &cluster.service(others[0], service));
                now.filter(|now| *now != active)
            });
        }
        load.wait_for_more(50);
        for port in [HELD, FREE] {
            let address = cluster.address(others[1], port);
            let mut there = Connection::open(address).expect("a server");
            assert_eq!(there.call(&["SET", "side", "majority"]).expect("an answer"), "OK");
            // The other side believes that it serves; nobody may hear it. Time is the subject.
            let address = cluster.address(active, port);
            let asked = Connection::open_for(address, LONG);
            let told = asked.and_then(|mut one| one.call(&["GET", "side"]));
            assert!(told.is_err(), "the minority answered on {port}: {told:?}");
        }

        cluster.note("join again");
        others.iter().for_each(|other| cluster.spaces().join(active, *other));
        for port in [HELD, FREE] {
            let side = wait_for("an answer", WITHIN, || {
                let mut one = Connection::open(cluster.address(active, port)).ok()?;
                one.call(&["GET", "side"]).ok()
            });
            assert_eq!(side, "majority");
        }
        // It was open through the node that was cut off, and nothing was wrong with it.
        assert_eq!(inside.call(&["INCR", "inside"]).expect("an answer"), "2");
        load.settle(cluster.address(active, HELD));
    });
}

#[test]
fn a_process_on_the_side_without_a_majority_is_ended_before_another_begins() {
    let _turn = turn();
    if !spaces::available() || !clients::installed(&["curl", "python3"]) {
        return;
    }
    spaces::within(|spaces| {
        let cluster = Cluster::apart(spaces, NODES);
        let folder = cluster.folder().to_str().expect("paths of tests are text");
        cluster.must_apply(&exec::manifest(folder));
        let answers = |node: usize| {
            let url = format!("http://{}/", cluster.address(node, exec::PORT));
            wait_for(&format!("{url} answers"), WITHIN, || curl(&url));
        };
        answers(0);
        let active = cluster.active("web").expect("somebody is active");
        let others = [(active + 1) % NODES, (active + 2) % NODES];
        let before = exec::processes(folder);
        assert_eq!(before.len(), 1, "one runs");

        cluster.note(&format!("part {} from the rest", name(active)));
        others.iter().for_each(|other| cluster.spaces().part(active, *other));
        let mut most = 0;
        let after = wait_for("another process", WITHIN, || {
            let now = exec::processes(folder);
            most = most.max(now.len());
            (now.len() == 1 && now != before).then_some(now)
        });
        assert_eq!(most, 1, "two ran at a time: {before:?} {after:?}");
        answers(others[0]);
        answers(others[1]);
    });
}
