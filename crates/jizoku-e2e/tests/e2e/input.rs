//! Input that nobody wanted: mistakes in manifests, noise on ports.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::{build, turn, wait_for};

const PORT: u16 = 7000;
const NODES: usize = 3;
/// How often noise is sent to each port.
const ROUNDS: u64 = 8;
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_reader_that_goes_away_is_no_mistake() {
    // As `head` does, but surely before anything is written.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(build::jizoku())
        .args(["completions", "bash"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("jizoku can be started");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(128 + 13));
}

#[test]
fn mistakes_change_nothing_and_noise_hurts_nobody() {
    let _turn = turn();
    let mut cluster = Cluster::start(NODES);
    cluster.apply_kv(PORT, "output = \"held\"");
    let version = |cluster: &Cluster| cluster.json(1, &["inspect", "kv"])["spec_version"].clone();
    let before = version(&cluster);

    let wrong = cluster::kv(PORT, "output = \"held\"\ncopis = 3");
    let said = cluster.apply(0, &wrong);
    assert!(!said.ok, "{said:?}");
    assert!(said.err.contains("service.toml:11:1: unknown key `copis`"), "{}", said.err);
    assert!(said.err.contains("copies"), "a hint is given: {}", said.err);
    let said = cluster.apply(0, "name = \"kv\"\n[engine\n");
    assert!(!said.ok && said.err.contains("service.toml:2:"), "{said:?}");
    assert_eq!(version(&cluster), before);

    let plan = |said: jizoku_e2e::cluster::Said| -> serde_json::Value {
        assert!(said.ok, "{said:?}");
        serde_json::from_str(&said.out).expect("a plan")
    };
    let same = plan(cluster.apply(1, &cluster::kv(PORT, "output = \"held\"")));
    assert_eq!((&same["action"], &same["applied"]), (&"nothing".into(), &false.into()), "{same}");
    assert_eq!(version(&cluster), before);
    let other = cluster.folder().join("other.toml");
    std::fs::write(&other, cluster::kv(PORT, "output = \"held\"\ncopies = 1")).expect("a file");
    let other = other.to_str().expect("paths of tests are text");
    let would = plan(cluster.run(0, &["--json", "apply", "--dry-run", other]));
    assert_eq!((&would["action"], &would["applied"]), (&"change".into(), &false.into()), "{would}");
    assert_eq!(version(&cluster), before);

    let greeting = "jizoku_mesh_refused_total{why=\"greeting\"}";
    let refused: Vec<u64> = (0..NODES).map(|node| cluster.metric(node, greeting)).collect();
    // The same noise on each run: xorshift.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = vec![0; 64 << 10];
    for round in 0..ROUNDS {
        noise.iter_mut().for_each(|byte| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = (seed >> 32) as u8;
        });
        for node in 0..NODES {
            for place in [cluster.mesh(node), cluster.address(node, PORT)] {
                let mut stream = TcpStream::connect(place).expect("the port is open");
                // What isn't wanted may be refused in the midst.
                let _ = stream.write_all(&noise[..noise.len() >> round]);
            }
        }
    }
    for (node, before) in refused.into_iter().enumerate() {
        assert!(cluster.runs(node), "noise ended {}", cluster::name(node));
        wait_for("noise that is counted", WITHIN, || {
            (cluster.metric(node, greeting) >= before + ROUNDS).then_some(())
        });
        let mut connection = Connection::open(cluster.address(node, PORT)).expect("a server");
        assert_eq!(connection.call(&["PING"]).expect("an answer"), "PONG");
    }
    let after = cluster.wait_until_held("kv", 2);
    assert_eq!(cluster::epoch(&after), 1, "nobody had to take over: {after}");
}
