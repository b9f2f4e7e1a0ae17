//! What a stranger may do.

use super::*;
use crate::limits::JOIN_REQUEST_MAX;
use crate::{JoinError, JoinRequest, join};

fn issuer() -> (TestNode, Identity) {
    let [issuer, stranger] = identities();
    (TestNode::start(config(&issuer, std::slice::from_ref(&issuer))), stranger)
}

async fn request(node: &mut TestNode) -> JoinRequest {
    loop {
        if let MeshEvent::Join(request) = node.event().await {
            return request;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_asks_and_is_answered() {
    let (mut node, stranger) = issuer();
    let free = std::net::TcpListener::bind(LOCAL_V4).expect("bound").local_addr().expect("bound");
    let (issuer, addresses) = (node.id(), [free, node.address()]);
    let asked = vec![5; JOIN_REQUEST_MAX];
    let asking = join(&stranger, &addresses, issuer, &asked);
    let answering = async {
        let request = request(&mut node).await;
        assert_eq!(request.node, stranger.node());
        assert_eq!(request.request, asked);
        request.reply.send(vec![6; 300_000]).expect("still there");
    };
    let (reply, ()) = tokio::join!(asking, answering);
    assert_eq!(reply.expect("an answer"), vec![6; 300_000]);
    assert_eq!(node.handle.stats().joins, 1);
    assert!(node.handle.links().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_by_dropping_its_request() {
    let (mut node, stranger) = issuer();
    let (issuer, addresses) = (node.id(), [node.address()]);
    let (reply, ()) = tokio::join!(join(&stranger, &addresses, issuer, b"please"), async {
        drop(request(&mut node).await);
    });
    assert!(matches!(reply, Err(JoinError::Refused)), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuer_must_be_the_one_of_the_ticket() {
    let (node, stranger) = issuer();
    let other = Identity::generate().expect("a key").node();
    let reply = join(&stranger, &[node.address()], other, b"secret").await;
    assert!(matches!(reply, Err(JoinError::OtherKey)), "{reply:?}");
    assert_eq!(node.handle.stats().joins, 0, "the secret was not sent");

    let free = std::net::TcpListener::bind(LOCAL_V4).expect("bound").local_addr().expect("bound");
    let reply = join(&stranger, &[free], node.id(), b"secret").await;
    assert!(matches!(reply, Err(JoinError::Unreachable)), "{reply:?}");
    let long = vec![0; JOIN_REQUEST_MAX + 1];
    let reply = join(&stranger, &[node.address()], node.id(), &long).await;
    assert!(matches!(reply, Err(JoinError::TooLong)), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_strangers_are_let_through() {
    let (mut node, stranger) = issuer();
    let (issuer, addresses) = (node.id(), [node.address()]);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let stranger = stranger.clone();
        asking.spawn(async move { join(&stranger, &addresses, issuer, b"please").await });
    }
    // The owner takes its time: no more than a few may wait for it.
    until("the others are refused", || node.handle.stats().joins_refused >= 22).await;
    let mut busy = 0;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(request(&mut node).await);
    }
    node.assert_quiet();
    drop(waiting);
    while let Some(result) = asking.join_next().await {
        match result.expect("runs") {
            Err(JoinError::Busy) => busy += 1,
            Err(JoinError::Refused) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(busy, 22);
}
