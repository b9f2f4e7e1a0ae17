//! Links come up, are judged, go down, and come up again.

use super::proxy::Proxy;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_work_over_ipv4_and_ipv6_on_one_port() {
    let identities = identities::<2>();
    for listen in [LOCAL_V4, LOCAL_V6] {
        let mut a = TestNode::start(config(&identities[0], &identities));
        let mut config = config(&identities[1], &identities);
        config.listen = vec![listen.parse().expect("an address")];
        let mut b = TestNode::start(config);
        a.dial(&[(b.id(), b.address())]);
        let (here, there) = (a.id(), b.id());
        tokio::join!(a.up(there), b.up(here));
        a.handle.send(there, Channel::Control, body(1, 4)).expect("queued");
        assert_eq!(number(&b.receive(Channel::Control).await), 1);
    }
    let mut both = config(&identities[0], &identities);
    both.listen = vec!["0.0.0.0:0".parse().expect("an address")];
    let first = TestNode::start(both.clone());
    both.listen = vec![SocketAddr::new("::".parse().expect("an address"), first.address().port())];
    assert!(Mesh::start(both.clone()).is_ok(), "IPv6 leaves the IPv4 port alone");
    both.listen = vec![first.address()];
    let error = Mesh::start(both).expect_err("the port is taken");
    assert!(error.to_string().contains("can't listen on 0.0.0.0:"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_address_that_answers_is_taken() {
    let (mut a, mut b) = two();
    // Nobody listens on the first; the second is another node's.
    let other = TestNode::start({
        let identities = identities::<1>();
        config(&identities[0], &identities)
    });
    let free = std::net::TcpListener::bind(LOCAL_V4).expect("bound").local_addr().expect("bound");
    let addresses = vec![free, other.address(), b.address()];
    a.handle.set_peers(BTreeMap::from([(b.id(), addresses)]));
    let (here, there) = (a.id(), b.id());
    tokio::join!(a.up(there), b.up(here));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_at_the_same_time_gives_one_link() {
    for round in 0..50u32 {
        let (mut a, mut b) = two();
        let (here, there) = (a.id(), b.id());
        // The one with the higher id waits a moment before it dials; half of the time the other
        // waits for it, so that they meet in the middle.
        b.dial(&[(here, a.address())]);
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(u64::from(26 + round % 10))).await;
        }
        a.dial(&[(there, b.address())]);
        tokio::join!(a.up(there), b.up(here));
        for number in 0..20 {
            a.handle.send(there, Channel::Streams, body(number, 100)).expect("queued");
            b.handle.send(here, Channel::Streams, body(number, 100)).expect("queued");
        }
        for number in 0..20 {
            assert_eq!(super::number(&a.receive(Channel::Streams).await), number);
            assert_eq!(super::number(&b.receive(Channel::Streams).await), number);
        }
        for node in [&mut a, &mut b] {
            let stats = node.handle.stats();
            assert_eq!((stats.links_up, stats.links_down), (1, 0), "round {round}");
            node.assert_quiet();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_agent_is_noticed_at_once() {
    let (mut a, b) = linked().await;
    let there = b.id();
    let start = Instant::now();
    drop(b);
    assert_eq!(a.down(there).await, LinkDownCause::Reset);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "sooner than any time-out: {took:?}");
    assert!(a.handle.links().is_empty());
}

/// Cuts the cable between two nodes, and tells how long both took to notice. None if the machine
/// was so busy that a link went down before that, or for another reason.
async fn cut_cable(timing: Timing) -> Option<Duration> {
    let identities = identities::<2>();
    let [mut a, mut b] = identities
        .each_ref()
        .map(|identity| TestNode::start(MeshConfig { timing, ..config(identity, &identities) }));
    let proxy = Proxy::to(b.address()).await;
    let (here, there) = (a.id(), b.id());
    a.dial(&[(there, proxy.address)]);
    tokio::join!(a.up(there), b.up(here));
    tokio::join!(beating(&a), beating(&b));
    if a.handle.stats().links_up != 1 {
        return None;
    }

    let start = Instant::now();
    proxy.cut();
    let causes = tokio::join!(a.down(there), b.down(here));
    let took = start.elapsed();

    proxy.mend();
    tokio::join!(a.up(there), b.up(here));
    (causes == (LinkDownCause::Silence, LinkDownCause::Silence)).then_some(took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_cable_is_noticed_and_mended() {
    let timing = brisk();
    let took = cut_cable(timing).await.expect("by silence at both ends");
    // Not before the shortest time-out, less the beat that was the last to come through.
    let soonest = timing.timeout_min() - timing.beat() * 2;
    assert!(took > Duration::from_nanos(soonest.as_nanos()), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_cable_is_noticed_within_a_second_by_default() {
    // The promise is one of a machine that isn't swamped: one good try of ten will do.
    for _ in 0..10 {
        if cut_cable(Timing::default()).await.is_some_and(|took| took < Duration::from_secs(1)) {
            return;
        }
    }
    panic!("never within a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_link_stays_up_and_its_round_trip_is_measured() {
    let (mut a, _b) = linked().await;
    let quiet = timeout(Duration::from_secs(2), a.mail.events.recv()).await;
    assert!(!matches!(quiet, Ok(Some(MeshEvent::LinkDown { .. }))), "{quiet:?}");
    let [link] = a.handle.links()[..] else { panic!("one link") };
    assert!(link.rtt.as_nanos() > 0 && link.rtt.as_millis() < 1_000, "{}", link.rtt);
    assert!(a.handle.may_judge());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_is_known_by_its_incarnation() {
    let identities = identities::<2>();
    for restarted in [0, 1] {
        let mut stays = TestNode::start(config(&identities[1 - restarted], &identities));
        let again = |incarnation, listen: SocketAddr| {
            let mut config = config(&identities[restarted], &identities);
            config.incarnation = Incarnation(incarnation);
            config.listen = vec![listen];
            TestNode::start(config)
        };
        let first = again(5, LOCAL_V4.parse().expect("an address"));
        let (peer, address) = (first.id(), first.address());
        stays.dial(&[(peer, address)]);
        assert_eq!(stays.change().await, (peer, Ok(Incarnation(5))));
        first.mesh.close().await;
        let second = again(6, address);
        assert_eq!(stays.change().await, (peer, Err(LinkDownCause::Reset)));
        assert_eq!(stays.change().await, (peer, Ok(Incarnation(6))));
        second.mesh.close().await;
        assert_eq!(stays.change().await, (peer, Err(LinkDownCause::Reset)));

        // A data folder from a backup: the older run is refused, and told why.
        let third = again(4, address);
        third.dial(&[(stays.id(), stays.address())]);
        until("the old one is refused", || stays.handle.stats().refused_incarnation > 0).await;
        assert!(stays.handle.links().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_frames_are_written_before_a_mesh_closes() {
    let (a, mut b) = linked().await;
    for number in 0..100 {
        a.handle.send(b.id(), Channel::State, body(number, 10_000)).expect("queued");
    }
    let (handle, there) = (a.handle.clone(), b.id());
    let close = tokio::spawn(a.mesh.close());
    for number in 0..100 {
        assert_eq!(super::number(&b.receive(Channel::State).await), number);
    }
    close.await.expect("closed");
    assert!(handle.send(there, Channel::State, body(0, 4)).is_err());
    assert_eq!(b.down(handle.node()).await, LinkDownCause::Reset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_wanted_any_more_keeps_its_link() {
    let (mut a, b) = linked().await;
    a.dial(&[]);
    a.handle.send(b.id(), Channel::Control, body(1, 4)).expect("queued");
    b.mesh.close().await;
    let (_, change) = a.change().await;
    assert_eq!(change, Err(LinkDownCause::Reset));
}
