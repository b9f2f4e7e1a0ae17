//! The examples as they are, through the clients that people have: redis-cli, redis-benchmark and
//! curl, on every node, before and after a death.

use std::time::{Duration, Instant};

use jizoku_e2e::clients::{self, curl, redis_cli};
use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{build, turn, wait_for};

/// As the examples' manifests say.
const PORT: u16 = 6379;
const WEB: u16 = 8080;
const NODES: usize = 3;
const WITHIN: Duration = Duration::from_secs(30);
/// A takeover, and six programs that are started one after the other, on a busy machine.
const BUSY: Duration = Duration::from_secs(10);

#[test]
fn redis_cli_finds_its_data_on_every_node_after_the_active_one_died() {
    let _turn = turn();
    if !clients::installed(&["redis-cli", "redis-benchmark", "curl", "python3"]) {
        return;
    }
    let mut cluster = Cluster::start(NODES);
    build::guest("kv");
    let kv = build::example("manifests/kv.toml");
    cluster.must(0, &["apply", kv.to_str().expect("paths of tests are text")]);
    cluster.wait_until_open(PORT);
    let before = cluster.wait_until_held("kv", 2);
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
    assert!(took < BUSY, "the data was there again after {took:?} only");
    let now = cluster.active("kv").expect("somebody is active");
    assert!(others.contains(&now), "a dead node can't be active");
    let after = cluster.service(now, "kv");
    assert!(cluster::epoch(&after) > cluster::epoch(&before), "{before} {after}");

    let passive = others.into_iter().find(|node| *node != now).expect("two are left");
    let (host, port) = (cluster.host(passive), PORT.to_string());
    let load = ["-h", &host, "-p", &port, "-t", "ping,set,get,incr", "-n", "2000", "-q"];
    let output = clients::run("redis-benchmark", &load);
    assert!(output.status.success(), "{output:?}");
    // Many times what a gateway keeps of a connection.
    let large = "x".repeat(8 << 20);
    let mut connection = Connection::open(cluster.address(passive, PORT)).expect("a server");
    assert_eq!(connection.call(&["SET", "large", &large]).expect("an answer"), "OK");
    assert!(connection.call(&["GET", "large"]).expect("an answer") == large);
    println!("all answers again after {took:?}; {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn curl_finds_the_page_on_every_node_before_and_after_a_death() {
    let _turn = turn();
    if !clients::installed(&["curl", "python3"]) {
        return;
    }
    let mut cluster = Cluster::start(NODES);
    let web = std::fs::read_to_string(build::example("manifests/web.toml")).expect("a manifest");
    // Agents of tests may be run by root; the example leaves that to who uses it.
    let said_already = web.lines().any(|line| line.starts_with("user"));
    let user = if said_already { "" } else { clients::user() };
    cluster.must_apply(&web.replacen("kind = \"exec\"", &format!("kind = \"exec\"\n{user}"), 1));
    let answers = |cluster: &Cluster, nodes: &[usize]| {
        for node in nodes {
            let url = format!("http://{}/", cluster.address(*node, WEB));
            wait_for(&format!("{url} answers"), WITHIN, || curl(&url));
        }
    };
    answers(&cluster, &[0, 1, 2]);
    wait_for("the watch's word", WITHIN, || {
        (cluster.service(1, "web")["verdict"]["serving"] == true).then_some(())
    });
    let active = cluster.active("web").expect("somebody is active");
    cluster.kill(active);
    let others: Vec<usize> = (0..NODES).filter(|node| *node != active).collect();
    answers(&cluster, &others);
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
