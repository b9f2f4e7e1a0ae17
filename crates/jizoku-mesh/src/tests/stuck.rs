//! An agent whose runtime hangs: its heartbeat thread goes on, and must not speak for it.

use std::sync::mpsc;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_runtime_hangs_falls_silent() {
    let identities = identities::<2>();
    let brisk = |identity| MeshConfig { timing: brisk(), ..config(identity, &identities) };
    let mut node = TestNode::start(brisk(&identities[0]));
    let there = identities[1].node();

    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let other = other.expect("a runtime");
    let config = brisk(&identities[1]);
    let hangs = other.spawn(async move { TestNode::start(config) }).await.expect("starts");
    hangs.dial(&[(node.id(), node.address())]);
    node.up(there).await;
    // The accepting end knows no round trip before the other end's beats have come.
    beating(&node).await;

    let (release, held) = mpsc::channel::<()>();
    let hanging = other.spawn(async move {
        // The only worker, and so every task of that agent, waits here.
        let _ = held.recv();
    });
    assert_eq!(node.down(there).await, LinkDownCause::Silence);
    assert!(hangs.handle.stats().beats_withheld > 0);
    drop(release);
    hanging.await.expect("released");
    node.up(there).await;
    drop(hangs);
    other.shutdown_background();
}
