//! Twenty deaths in a row, while clients count on connections that stay open all the time.

use std::time::{Duration, Instant};

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::{Connection, Load};
use jizoku_e2e::turn;

const PORT: u16 = 7000;
const KILLS: usize = 20;
/// Half of the first answers come sooner, even on a machine that is busy with other things.
const MEDIAN_MAX: Duration = Duration::from_secs(2);
/// Nodes that may run and hold the service: these die.
const RUNNERS: [usize; 3] = [0, 1, 2];
/// Nodes that only pass connections on: these live.
const GATEWAYS: [usize; 2] = [3, 4];

#[test]
fn twenty_kills_lose_no_acknowledged_write_and_no_connection() {
    let _turn = turn();
    let mut cluster = Cluster::empty();
    for _ in RUNNERS {
        cluster.add(&["--label", "runs=yes"]);
    }
    for _ in GATEWAYS {
        cluster.add(&[]);
    }
    cluster.apply_kv(PORT, "output = \"held\"\n[placement]\nrequire = { runs = \"yes\" }");

    let addresses = GATEWAYS.map(|node| cluster.address(node, PORT));
    let load = Load::start(&[addresses, addresses].concat());
    let mut own = Connection::open(addresses[0]).expect("the service can be reached");
    let mut counted = 0;
    let mut pauses = Vec::new();
    for kill in 0..KILLS {
        load.wait_for_more(40);
        let active = cluster.active("kv").expect("somebody is active");
        // Each second time a node dies that only holds.
        let other = RUNNERS.into_iter().find(|node| *node != active).expect("three run");
        let victim = if kill % 2 == 0 { active } else { other };
        let killed = Instant::now();
        cluster.kill(victim);
        counted += 1;
        let told = own.call(&["INCR", "own"]).expect("the connection goes on");
        assert_eq!(told, counted.to_string(), "after kill {kill}");
        if victim == active {
            pauses.push(killed.elapsed());
            cluster.note(&format!("answered after {:?}", killed.elapsed()));
        }
        cluster.up(victim);
        cluster.wait_until_held("kv", 2);
    }

    load.settle(addresses[1]);
    pauses.sort();
    let (median, worst) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    assert!(median < MEDIAN_MAX, "the first answer comes after {pauses:?}");
    println!("{KILLS} kills; first answer after the active node's: {median:?}, worst {worst:?}");
}
