//! A paused agent: the others notice, and it blames nobody when it wakes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Tells the other process that it is the other one: key file, peer, and its address.
const ROLE: &str = "JIZOKU_MESH_TEST_PEER";
const NAME: &str = "tests::pause::a_paused_agent_is_noticed_and_blames_nobody";

struct Peer(Child, std::path::PathBuf);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

/// The other process: prints what happens, until its input is closed.
async fn be_the_peer(role: &str) {
    let [key, peer, address] = role.split(',').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let identity = Identity::load(key.as_ref()).expect("a key");
    let peer: NodeId = peer.parse().expect("a node id");
    let mut config = MeshConfig { timing: brisk(), ..config(&identity, &[]) };
    config.members = BTreeSet::from([peer, identity.node()]);
    let mut node = TestNode::start(config);
    node.dial(&[(peer, address.parse().expect("an address"))]);
    loop {
        let line = match node.event().await {
            MeshEvent::LinkUp { .. } => "up".to_string(),
            MeshEvent::LinkDown { cause, .. } => format!("down {cause:?}"),
            MeshEvent::Late { by } => format!("late {}", by.as_millis()),
            other => panic!("{other:?}"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "> {line}").expect("a reader");
        out.flush().expect("a reader");
    }
}

/// The next thing that the other process says; the test harness in it says other things too.
fn said(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> String {
    lines
        .map(|line| line.expect("text"))
        .find_map(|line| line.split_once("> ").map(|(_, said)| said.to_string()))
        .expect("it goes on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_agent_is_noticed_and_blames_nobody() {
    if let Ok(role) = std::env::var(ROLE) {
        return be_the_peer(&role).await;
    }
    let identities = identities::<2>();
    let config = MeshConfig { timing: brisk(), ..config(&identities[0], &identities) };
    let mut node = TestNode::start(config);
    let there = identities[1].node();
    let folder = std::env::temp_dir().join(format!("jizoku-mesh-pause-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a fresh folder");
    let key = folder.join("key");
    identities[1].save(&key).expect("saved");
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", NAME, "--nocapture"])
        .env(ROLE, format!("{},{},{}", key.display(), node.id(), node.address()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let pid = Pid::from_child(&child);
    let _peer = Peer(child, folder);

    node.up(there).await;
    assert_eq!(said(&mut lines), "up");
    beating(&node).await;
    kill_process(pid, Signal::STOP).expect("stopped");
    assert_eq!(node.down(there).await, LinkDownCause::Silence);

    kill_process(pid, Signal::CONT).expect("goes on");
    let mut after = vec![said(&mut lines)];
    while after.last().is_none_or(|said| said != "up") {
        after.push(said(&mut lines));
    }
    assert!(after.iter().any(|said| said.starts_with("late ")), "{after:?}");
    assert!(after.contains(&"down Reset".to_string()), "{after:?}");
    assert!(!after.contains(&"down Silence".to_string()), "{after:?}");
    node.up(there).await;
}
