//! The key-value server through Debian's own client, on every node, before and after a death.

use std::time::{Duration, Instant};

use jizoku_e2e::clients::{self, redis_cli};
use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::turn;

const PORT: u16 = 7000;
const NODES: usize = 3;

#[test]
fn redis_cli_finds_its_data_on_every_node_after_the_active_one_died() {
    let _turn = turn();
    if !clients::installed(&["redis-cli", "redis-benchmark"]) {
        return;
    }
    let mut cluster = Cluster::start(NODES);
    let before = cluster.apply_kv(PORT, "output = \"held\"");
    for node in 0..NODES {
        let (host, key, value) = (cluster.host(node), format!("k{node}"), format!("v{node}"));
        assert_eq!(redis_cli(&host, PORT, &["SET", &key, &value]), "OK");
    }
    check(&cluster, &[0, 1, 2]);

    let active = cluster.node(&before["active"]).expect("somebody is active");
    let others: Vec<usize> = (0..NODES).filter(|node| *node != active).collect();
    let killed = Instant::now();
    cluster.kill(active);
    check(&cluster, &others);
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(5), "the data was there again after {took:?} only");
    let now = cluster.active("kv").expect("somebody is active");
    assert!(others.contains(&now), "a dead node can't be active");
    let after = cluster.service(now, "kv");
    assert!(cluster::epoch(&after) > cluster::epoch(&before), "{before} {after}");

    let passive = others.into_iter().find(|node| *node != now).expect("two are left");
    let (host, port) = (cluster.host(passive), PORT.to_string());
    let load = ["-h", &host, "-p", &port, "-t", "ping,set,get,incr", "-n", "2000", "-q"];
    let output = clients::run("redis-benchmark", &load);
    assert!(output.status.success(), "{output:?}");
    println!("all answers again after {took:?}; {}", String::from_utf8_lossy(&output.stdout));
}

fn check(cluster: &Cluster, nodes: &[usize]) {
    for through in nodes {
        for written in 0..NODES {
            let key = format!("k{written}");
            let found = redis_cli(&cluster.host(*through), PORT, &["GET", &key]);
            assert_eq!(found, format!("v{written}"), "through node {through}");
        }
    }
}
