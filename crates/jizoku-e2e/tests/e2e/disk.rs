//! A copy that went bad on disk while nobody looked.

use std::fs;
use std::time::Duration;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{turn, wait_for};

const PORT: u16 = 7000;
const NODES: usize = 3;
/// How long a restarted node may take to know its services.
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_damaged_copy_is_reported_and_mended_from_others() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    let status = cluster.apply_kv(PORT, "output = \"held\"\ndurable = \"disk\"");
    let mut connection = Connection::open(cluster.address(0, PORT)).expect("a server");
    for number in 0..50 {
        let (key, value) = (format!("k{number}"), "x".repeat(2000));
        connection.call(&["SET", &key, &value]).expect("an answer");
    }
    let active = cluster.node(&status["active"]).expect("somebody is active");
    let holder = (0..NODES).find(|node| *node != active).expect("others hold");
    assert!(cluster.terminate(holder));
    let state = cluster.data(holder).join("state");
    let mut damaged = 0;
    for line in fs::read_dir(&state).expect("held states").flatten() {
        let journal = line.path().join("journal");
        let mut bytes = fs::read(&journal).expect("a journal");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&journal, bytes).expect("a journal can be written");
        damaged += 1;
    }
    assert!(damaged > 0, "the holder has something on disk");
    cluster.up(holder);
    let events = cluster.events(holder);
    assert!(events.iter().any(|event| event["type"] == "copy_corrupt"), "{events:?}");
    cluster.wait_until_held("kv", 2);

    // The mended copies are good: both other nodes can be the next.
    let next = cluster.active("kv").expect("somebody is active");
    cluster.kill(next);
    let through = (0..NODES).find(|node| *node != next).expect("two are left");
    // The node that was just started listens when it has read its catalog.
    let mut connection = wait_for("a gateway that listens", WITHIN, || {
        Connection::open(cluster.address(through, PORT)).ok()
    });
    for number in 0..50 {
        let value = connection.call(&["GET", &format!("k{number}")]).expect("an answer");
        assert_eq!(value.len(), 2000);
    }
}
