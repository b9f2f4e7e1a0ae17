//! The log pool: written on one node, asked and followed on another, while nodes die.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::{build, turn, wait_for};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);

/// All lines of an answer.
fn ask(cluster: &Cluster, node: usize, query: &str) -> Vec<Value> {
    let text = cluster.must(node, &["--json", "log", query]);
    text.lines().map(|line| serde_json::from_str(line).expect("lines are JSON")).collect()
}

fn records(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter_map(|line| line.get("record")).collect()
}

fn rows(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter_map(|line| line.get("row")).collect()
}

fn unreachable(lines: &[Value]) -> Vec<&str> {
    let end = lines.last().and_then(|line| line.get("end")).expect("an answer has an end");
    let names = end["unreachable"].as_array().expect("a list");
    names.iter().map(|name| name.as_str().expect("a name")).collect()
}

#[test]
fn what_one_node_is_told_all_can_be_asked() {
    let _turn = turn();
    let cluster = Cluster::start(3);
    for node in 0..3 {
        let port = format!("port={}", 8080 + node);
        cluster.must(node, &["log", "emit", "web.up", &port, "msg=it answers", "--trace", "7f3a"]);
    }
    let lines = ask(&cluster, 1, "event == \"web.up\"");
    let ports: Vec<_> = records(&lines).iter().map(|r| r["fields"]["port"].clone()).collect();
    assert_eq!(ports, [8080, 8081, 8082], "in the order of their times");
    assert_eq!(unreachable(&lines), [""; 0]);

    let lines = ask(&cluster, 2, "latest trace == \"7f3a\" | fields host, port");
    assert_eq!(rows(&lines), [&serde_json::json!([cluster::name(2), 8082])]);
    let lines = ask(&cluster, 0, "port > 8080 | count by host | sort host");
    let expected = [cluster::name(1), cluster::name(2)].map(|name| serde_json::json!([name, 1]));
    assert_eq!(rows(&lines), [&expected[0], &expected[1]]);
    // The agents' own events are there, too.
    let lines = ask(&cluster, 0, "event == \"agent_started\" | count by host");
    assert_eq!(rows(&lines).len(), 3);

    let said = cluster.run(0, &["log", "level > hgh && time > \"x\""]);
    assert!(!said.ok && said.err.contains("`hgh` is no level"), "{}", said.err);
    assert!(said.err.contains("`x` is no moment"), "all mistakes are told: {}", said.err);
}

/// `jizoku log --follow`, with its lines as they come.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

impl Follower {
    fn start(cluster: &Cluster, node: usize, query: &str) -> Follower {
        let mut command = Command::new(build::jizoku());
        command.arg("--data").arg(cluster.data(node)).args(["--json", "log", "--follow", query]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("jizoku can be started");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("lines are JSON");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Follower { child, lines }
    }

    fn next(&self, what: &str) -> Value {
        self.lines.recv_timeout(WITHIN).unwrap_or_else(|_| panic!("no line: {what}"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().expect("it runs until then");
        self.child.wait().expect("it was started here");
    }
}

#[test]
fn who_follows_sees_what_comes_anywhere_and_who_is_gone() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    cluster.must(2, &["log", "emit", "step", "n=0"]);
    let follower = Follower::start(&cluster, 0, "event == \"step\" since 5m");
    assert_eq!(follower.next("what was there")["record"]["fields"]["n"], 0);
    for n in 1..20_usize {
        cluster.must(n % 3, &["log", "emit", "step", &format!("n={n}")]);
        cluster.must(n % 3, &["log", "emit", "other"]);
        let record = follower.next("the record that was just written")["record"].clone();
        assert_eq!(record["fields"]["n"], n);
        assert_eq!(record["host"], cluster::name(n % 3));
    }
    cluster.kill(2);
    let change = follower.next("the death of a node");
    assert_eq!(change["node"], serde_json::json!({"node": cluster::name(2), "answers": false}));
    cluster.must(1, &["log", "emit", "step", "n=20"]);
    assert_eq!(follower.next("a record after that")["record"]["fields"]["n"], 20);
    cluster.up(2);
    let change = follower.next("its return");
    assert_eq!(change["node"], serde_json::json!({"node": cluster::name(2), "answers": true}));
    wait_for("a record of the node that came back", WITHIN, || {
        cluster.must(2, &["log", "emit", "step", "n=21"]);
        let line = follower.lines.recv_timeout(Duration::from_millis(500)).ok()?;
        (line["record"]["fields"]["n"] == 21).then_some(())
    });
}

#[test]
fn an_important_record_outlives_the_node_that_took_it() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    cluster.must(0, &["log", "emit", "plain", "n=1"]);
    for n in 0..10 {
        // Succeeds only once another node holds it.
        let n = format!("n={n}");
        cluster.must(0, &["log", "emit", "paid", &n, "--important", "--trace", "ab"]);
    }
    let before = ask(&cluster, 1, "event == \"paid\"");
    assert_eq!(records(&before).len(), 10, "a copy isn't shown beside its record");

    cluster.kill(0);
    let check = |cluster: &Cluster| {
        for node in [1, 2] {
            let lines = ask(cluster, node, "event == \"paid\"");
            let numbers: Vec<_> =
                records(&lines).iter().map(|r| r["fields"]["n"].clone()).collect();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>());
            let lines = ask(cluster, node, "event == \"paid\" | count by host");
            assert_eq!(rows(&lines), [&serde_json::json!([cluster::name(0), 10])]);
            let lines = ask(cluster, node, "latest trace == \"ab\" | fields n");
            assert_eq!(rows(&lines), [&serde_json::json!([9])]);
        }
    };
    check(&cluster);
    let lines = ask(&cluster, 1, "event == \"plain\"");
    assert_eq!(records(&lines).len(), 0, "only the dead node had it");
    assert_eq!(unreachable(&lines), [cluster::name(0)], "and that is said");

    // Back without its memory: what the others hold of its last life is still there.
    cluster.up(0);
    wait_for("an answer of all nodes", WITHIN, || {
        unreachable(&ask(&cluster, 1, "event == \"plain\"")).is_empty().then_some(())
    });
    check(&cluster);
}
