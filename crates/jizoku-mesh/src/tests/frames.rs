//! Order, relaying, limits of queues.

use super::*;
use crate::wire::CHANNELS;
use crate::{INBOX_MAX, SendError};
use jizoku_types::limits::FRAME_BODY_MAX;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_channel_keeps_its_order_both_ways() {
    let (mut a, mut b) = linked().await;
    let sizes = [4, 70, 5_000, 16 << 10, 100_000];
    for number in 0..500 {
        for channel in CHANNELS {
            let size = sizes[(number as usize + channel as usize) % sizes.len()];
            a.handle.send_paced(b.id(), channel, body(number, size)).await.expect("queued");
            b.handle.send(a.id(), channel, body(number, 8)).expect("queued");
        }
        // Both read as they go, so that no inbox fills up.
        for channel in CHANNELS {
            let got = b.receive(channel).await;
            assert_eq!((got.from, got.channel, super::number(&got)), (a.id(), channel, number));
            assert!(got.body[4..].iter().all(|byte| *byte == number as u8));
            assert_eq!(super::number(&a.receive(channel).await), number);
        }
    }
    // A frame may arrive before its sender has counted it.
    for channel in CHANNELS {
        let counted = || {
            let stats = b.handle.stats();
            (stats.received[channel as usize].frames, stats.sent[channel as usize].frames)
        };
        until("all frames are counted", || counted() >= (500, 500)).await;
        assert_eq!(counted(), (500, 500));
    }
    assert_eq!(b.handle.stats().links_down, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_large_frames_arrives_whole() {
    let (a, mut b) = linked().await;
    let (handle, to) = (a.handle.clone(), b.id());
    let sender = tokio::spawn(async move {
        for number in 0..64 {
            let body = body(number, FRAME_BODY_MAX);
            handle.send_paced(to, Channel::Bulk, body).await.expect("queued");
        }
    });
    for number in 0..64 {
        let got = b.receive(Channel::Bulk).await;
        assert_eq!((super::number(&got), got.body.len()), (number, FRAME_BODY_MAX));
    }
    sender.await.expect("sent");
    let too_long = vec![0; FRAME_BODY_MAX + 1];
    assert_eq!(a.handle.send(b.id(), Channel::Bulk, too_long), Err(SendError::TooLong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_itself() {
    let (mut a, _b) = two();
    let me = a.id();
    a.handle.send(me, Channel::State, body(7, 10)).expect("delivered");
    a.handle.send_paced(me, Channel::State, body(8, 10)).await.expect("delivered");
    for expected in [7, 8] {
        let got = a.receive(Channel::State).await;
        assert_eq!((got.from, number(&got)), (me, expected));
    }
    let mut taken = 0;
    while a.handle.send(me, Channel::Bulk, body(1, FRAME_BODY_MAX)).is_ok() {
        taken += FRAME_BODY_MAX;
    }
    assert!(taken > INBOX_MAX / 2 && taken <= INBOX_MAX);
    assert_eq!(a.handle.stats().dropped_self_full, 1);
}

/// Three nodes in a row: the ends are linked with the middle only.
async fn row() -> (TestNode, TestNode, TestNode) {
    let identities = identities::<3>();
    let [mut a, mut c, mut b] =
        identities.each_ref().map(|identity| TestNode::start(config(identity, &identities)));
    a.dial(&[(c.id(), c.address())]);
    b.dial(&[(c.id(), c.address())]);
    let (a_id, b_id, c_id) = (a.id(), b.id(), c.id());
    let both = async {
        let mut left = BTreeSet::from([a_id, b_id]);
        while !left.is_empty() {
            if let (node, Ok(_)) = c.change().await {
                left.remove(&node);
            }
        }
    };
    tokio::join!(a.up(c_id), b.up(c_id), both);
    (a, c, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_relayed_where_no_link_leads() {
    let (mut a, c, mut b) = row().await;
    assert_eq!(a.handle.send(b.id(), Channel::Control, body(0, 4)), Err(SendError::NoRoute));
    assert_eq!(a.handle.room(b.id(), Channel::Control), 0);
    a.handle.set_routes(routes(&[(b.id(), c.id())]));
    b.handle.set_routes(routes(&[(a.id(), c.id())]));
    assert!(a.handle.room(b.id(), Channel::Control) > 0);
    for number in 0..200 {
        for channel in CHANNELS {
            a.handle.send_paced(b.id(), channel, body(number, 3_000)).await.expect("queued");
        }
        for channel in CHANNELS {
            let got = b.receive(channel).await;
            assert_eq!((got.from, super::number(&got)), (a.id(), number));
        }
    }
    b.handle.send(a.id(), Channel::Streams, body(9, 4)).expect("queued");
    assert_eq!(number(&a.receive(Channel::Streams).await), 9);
    assert_eq!(c.handle.stats().relayed, 200 * 5 + 1);
    assert_eq!(a.handle.stats().dropped_no_route, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_of_routes_ends() {
    let (a, c, b) = row().await;
    // The middle was told that the way to B leads through A, and A that it leads through C.
    let nowhere = NodeId([0xee; 32]);
    a.handle.set_routes(routes(&[(nowhere, c.id())]));
    c.handle.set_routes(routes(&[(nowhere, a.id())]));
    a.handle.send(nowhere, Channel::State, body(1, 4)).expect("queued");
    until("the frame dies", || a.handle.stats().dropped_hops + c.handle.stats().dropped_hops == 1)
        .await;
    let relayed = a.handle.stats().relayed + c.handle.stats().relayed;
    assert_eq!(relayed, u64::from(jizoku_types::limits::HOPS_MAX));
    drop(b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_holds_bulk_back_and_loses_none() {
    let (a, c, mut b) = row().await;
    a.handle.set_routes(routes(&[(b.id(), c.id())]));
    let (handle, to) = (a.handle.clone(), b.id());
    let sender = tokio::spawn(async move {
        for number in 0..100 {
            let body = body(number, 500_000);
            handle.send_paced(to, Channel::Bulk, body).await.expect("queued");
        }
    });
    for number in 0..100 {
        assert_eq!(super::number(&b.receive(Channel::Bulk).await), number);
    }
    sender.await.expect("sent");
    assert_eq!(c.handle.stats().dropped_relay_full, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_costs_bounded_memory_and_its_link() {
    let (mut a, b) = linked().await;
    let there = b.id();
    let mut queued = 0;
    let error = loop {
        match a.handle.send(there, Channel::State, body(1, FRAME_BODY_MAX)) {
            Ok(()) => queued += FRAME_BODY_MAX,
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error, SendError::TooSlow);
    // B's inbox, A's queue, and what the kernel and the sessions hold between them.
    assert!(queued < INBOX_MAX + (64 << 20) + (40 << 20), "{queued}");
    assert_eq!(a.down(there).await, LinkDownCause::Local);
    assert_eq!(a.handle.stats().broken_too_slow, 1);
    assert!(a.handle.stats().dropped_link_down > 30);
    a.up(there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_to_a_peer_that_does_not_read_waits() {
    let (a, mut b) = linked().await;
    let mut queued = 0;
    loop {
        match a.handle.send(b.id(), Channel::Bulk, body(queued, FRAME_BODY_MAX)) {
            Ok(()) => queued += 1,
            Err(SendError::Full) if a.handle.room(b.id(), Channel::Bulk) == 0 => {
                let moving = a.handle.send_paced(b.id(), Channel::Bulk, body(queued, 4));
                if timeout(Duration::from_millis(300), moving).await.is_err() {
                    break;
                }
                queued += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let sender = {
        let (handle, to) = (a.handle.clone(), b.id());
        tokio::spawn(async move { handle.send_paced(to, Channel::Bulk, body(queued, 4)).await })
    };
    for expected in 0..=queued {
        assert_eq!(number(&b.receive(Channel::Bulk).await), expected);
    }
    assert_eq!(sender.await.expect("runs"), Ok(()));
    assert_eq!(a.handle.stats().links_down, 0);
}
