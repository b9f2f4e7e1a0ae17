//! Who isn't let in, and members that break the protocol.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::*;
use crate::conn::Conn;
use crate::dial::{Attempt, DialError, await_adoption, dial};
use crate::hello::{Adoption, Local, Refusal};
use crate::inbox::inbox;
use crate::link::Link;
use crate::shared::Shared;
use crate::wire::{Frame, Lane, with_length};
use jizoku_types::frame::Header;
use jizoku_types::limits::FRAME_BODY_MAX;

async fn refusal(node: &mut TestNode) -> (NodeId, bool, Refusal) {
    loop {
        if let MeshEvent::Refused { peer, by_peer, refusal, .. } = node.event().await {
            return (peer, by_peer, refusal);
        }
    }
}

/// Starts two nodes, the second changed by `change`; each knows the other's address.
fn differing(change: impl FnOnce(&mut MeshConfig)) -> (TestNode, TestNode) {
    let identities = identities::<2>();
    let a = TestNode::start(config(&identities[0], &identities));
    let mut other = config(&identities[1], &identities);
    change(&mut other);
    let b = TestNode::start(other);
    b.dial(&[(a.id(), a.address())]);
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_refused_with_the_reason_and_told_of_once() {
    let cluster = ClusterId([1; 16]);
    let version = Refusal::NoCommonVersion { lowest: 1, highest: 1 };
    let generation = Refusal::OtherGeneration { generation: Generation(1) };
    type Change = fn(&mut MeshConfig);
    let cases: [(Change, Refusal); 4] = [
        (|other| other.cluster = ClusterId([2; 16]), Refusal::OtherCluster { cluster }),
        (|other| other.generation = Generation(2), generation),
        (|other| other.generation = Generation(0), generation),
        (|other| other.versions = (2, 3), version),
    ];
    for (change, expected) in cases {
        let (mut a, mut b) = differing(change);
        assert_eq!(refusal(&mut a).await, (b.id(), false, expected));
        assert_eq!(refusal(&mut b).await, (a.id(), true, expected));
        until("it is refused again", || {
            let stats = a.handle.stats();
            stats.refused_cluster + stats.refused_generation + stats.refused_version >= 3
        })
        .await;
        a.assert_quiet();
        b.assert_quiet();
        assert_eq!(a.handle.stats().links_up, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused() {
    let [a, b] = identities::<2>();
    let mut node = TestNode::start(config(&a, std::slice::from_ref(&a)));
    let mut stranger = TestNode::start(config(&b, &[a.clone(), b.clone()]));
    stranger.dial(&[(node.id(), node.address())]);
    assert_eq!(refusal(&mut node).await, (b.node(), false, Refusal::NotMember));
    assert_eq!(refusal(&mut stranger).await, (a.node(), true, Refusal::NotMember));
    assert!(node.handle.stats().refused_strangers >= 1);
    assert!(node.handle.links().is_empty() && stranger.handle.links().is_empty());

    // As soon as it is a member it is let in, without being asked again.
    node.handle.set_members(members(&[a.clone(), b.clone()]));
    tokio::join!(node.up(b.node()), stranger.up(a.node()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_key_loses_its_link_and_is_refused() {
    let (mut a, mut b) = linked().await;
    b.dial(&[(a.id(), a.address())]);
    let (here, there) = (a.id(), b.id());
    a.handle.set_members(BTreeSet::from([here]));
    assert!(a.handle.send(there, Channel::Control, body(0, 4)).is_err(), "at once");
    assert_eq!(a.down(there).await, LinkDownCause::Local);
    assert_eq!(b.down(here).await, LinkDownCause::Reset);
    assert_eq!(refusal(&mut b).await, (here, true, Refusal::NotMember));
    until("it is refused again", || a.handle.stats().refused_strangers >= 2).await;
    assert_eq!(a.handle.stats().links_up, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_at_the_address_is_no_member() {
    let (mut a, b) = two();
    let other = Identity::generate().expect("a key");
    let impostor = TestNode::start(config(&other, std::slice::from_ref(&other)));
    a.dial(&[(b.id(), impostor.address())]);
    assert_eq!(refusal(&mut a).await, (b.id(), false, Refusal::OtherKey));
    assert_eq!(impostor.handle.stats().refused_strangers, 0, "nothing was sent to it");
}

/// A member that speaks the greeting by the book, and then does what the test wants.
fn rogue(identity: &Identity, member: &TestNode) -> Arc<Shared> {
    let local = Local {
        node: identity.node(),
        cluster: ClusterId([1; 16]),
        generation: Generation(1),
        incarnation: Incarnation(1),
        versions: (1, 1),
    };
    let deliveries = std::array::from_fn(|_| inbox().0);
    let shared = Shared::new(local, identity.clone(), deliveries);
    shared.set_members(BTreeSet::from([identity.node(), member.id()]));
    Arc::new(shared)
}

/// A rogue's link that is up, and beats.
struct Intruder {
    lanes: [Conn; Lane::FRAMED],
    _beating: JoinSet<()>,
}

impl Intruder {
    fn new(attempt: Attempt) -> Intruder {
        let [control, streams, state, bulk, mut heart] = attempt.conns;
        let mut beating = JoinSet::new();
        beating.spawn(async move {
            let mut beats = tokio::time::interval(Duration::from_millis(40));
            while heart.send(&[0; 24]).await.is_ok() {
                beats.tick().await;
            }
        });
        Intruder { lanes: [control, streams, state, bulk], _beating: beating }
    }

    async fn enter(identity: &Identity, node: &mut TestNode) -> Intruder {
        let shared = rogue(identity, node);
        let mut attempt =
            dial(shared, node.id(), vec![node.address()]).await.expect("welcomed by the book");
        await_adoption(&mut attempt).await.expect("the lower id decides");
        node.up(identity.node()).await;
        Intruder::new(attempt)
    }

    fn conn(&mut self, lane: Lane) -> &mut Conn {
        &mut self.lanes[lane as usize]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules_break_the_link() {
    let [a, b] = identities::<2>();
    let mut node = TestNode::start(config(&a, &[a.clone(), b.clone()]));
    let frame = |channel| {
        let header = Header::new(b.node(), a.node(), channel);
        Frame { header, body: Bytes::new() }.prefix().to_vec()
    };
    let mut long = frame(Channel::Streams);
    long[..4].copy_from_slice(&u32::try_from(66 + FRAME_BODY_MAX + 1).expect("fits").to_le_bytes());
    let short = with_length(&[0; 65]);
    let mut hops = frame(Channel::Streams);
    hops[68] = 200;
    let other_lane = frame(Channel::Bulk);

    for (bytes, too_long) in [(long, true), (short, false), (hops, false), (other_lane, false)] {
        let before = node.handle.stats();
        let mut intruder = Intruder::enter(&b, &mut node).await;
        intruder.conn(Lane::Streams).send(&bytes).await.expect("sent");
        assert_eq!(node.down(b.node()).await, LinkDownCause::Local);
        let after = node.handle.stats();
        let counted = if too_long {
            after.broken_too_long - before.broken_too_long
        } else {
            after.broken_malformed - before.broken_malformed
        };
        assert_eq!(counted, 1);
    }

    // Bytes under TLS that aren't TLS.
    let mut intruder = Intruder::enter(&b, &mut node).await;
    intruder.conn(Lane::State).tcp.write_all(&[0x17, 3, 3, 0, 32]).await.expect("sent");
    intruder.conn(Lane::State).tcp.write_all(&[7; 32]).await.expect("sent");
    assert_eq!(node.down(b.node()).await, LinkDownCause::Local);
    assert_eq!(node.handle.stats().broken_tls, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_removed_nodes_are_dropped_though_a_member_relays_them() {
    let [a, b, removed] = identities::<3>();
    let mut node = TestNode::start(config(&a, &[a.clone(), b.clone()]));
    let mut intruder = Intruder::enter(&b, &mut node).await;
    for from in [removed.node(), b.node()] {
        let header = Header::new(from, a.node(), Channel::Control);
        let frame = Frame { header, body: Bytes::new() };
        intruder.conn(Lane::Control).send(&frame.prefix()).await.expect("sent");
    }
    assert_eq!(node.receive(Channel::Control).await.from, b.node());
    assert_eq!(node.handle.stats().dropped_not_member, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_way_is_heard_though_it_is_no_member_yet() {
    let [a, b, newcomer] = identities::<3>();
    let mut node = TestNode::start(config(&a, &[a.clone(), b.clone()]));
    let mut intruder = Intruder::enter(&b, &mut node).await;
    node.handle.set_routes([(newcomer.node(), b.node())].into());
    let header = Header::new(newcomer.node(), a.node(), Channel::Control);
    let frame = Frame { header, body: Bytes::new() };
    intruder.conn(Lane::Control).send(&frame.prefix()).await.expect("sent");
    assert_eq!(node.receive(Channel::Control).await.from, newcomer.node());
    assert_eq!(node.handle.stats().dropped_not_member, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lost_the_link_is_told_from_one_that_has_not_heard_of_it() {
    let [a, b] = identities::<2>();
    let mut node = TestNode::start(config(&a, &[a.clone(), b.clone()]));
    let shared = rogue(&b, &node);
    let addresses = vec![node.address()];

    let mut first = dial(Arc::clone(&shared), node.id(), addresses.clone()).await.expect("ok");
    let adoption = await_adoption(&mut first).await.expect("adopted");
    node.up(b.node()).await;
    let first = Intruder::new(first);
    // It hasn't heard: its second attempt began before the first became the link.
    let second = dial(Arc::clone(&shared), node.id(), addresses.clone()).await;
    assert!(matches!(second, Err(DialError::Refused(_, Refusal::Duplicate))));

    // It has heard, and dials again: it must have lost the link.
    let alarm = Arc::clone(&shared.alarm);
    let lost = Arc::new(Link::new(node.id(), Incarnation(1), 1, adoption, alarm));
    lost.close(LinkDownCause::Local);
    shared.add_link(lost);
    let mut third = dial(Arc::clone(&shared), node.id(), addresses).await.expect("ok");
    let newer = await_adoption(&mut third).await.expect("adopted");
    assert!(newer > adoption && adoption > Adoption::default());
    let _third = Intruder::new(third);
    assert_eq!(node.change().await, (b.node(), Err(LinkDownCause::Reset)));
    assert_eq!(node.change().await, (b.node(), Ok(Incarnation(1))));
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_attempts_do_not_pile_up() {
    let [a, b] = identities::<2>();
    let node = TestNode::start(config(&a, &[a.clone(), b.clone()]));
    let shared = rogue(&b, &node);
    // Bytes that are no greeting at all.
    let mut noise = tokio::net::TcpStream::connect(node.address()).await.expect("connected");
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    until("the noise is refused", || node.handle.stats().refused_greeting == 1).await;
    // Attempts that stop after one welcome: the next one still succeeds.
    let config = crate::trust::client_config(&b, node.id(), crate::trust::ALPN_MEMBER);
    let mut open = Vec::new();
    for attempt in 1_000..1_020 {
        let tcp = Conn::connect(node.address()).await.expect("connected");
        let mut conn = Conn::shake_as_client(tcp, Arc::clone(&config)).await.expect("shaken");
        let hello = shared.local.hello(Lane::Control, attempt, Adoption::default());
        conn.send(&hello).await.expect("sent");
        conn.receive(512).await.expect("welcomed");
        open.push(conn);
    }
    let mut attempt = dial(shared, node.id(), vec![node.address()]).await.expect("ok");
    assert!(await_adoption(&mut attempt).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_say_nothing_keep_no_member_out() {
    let (mut a, mut b) = two();
    let mut idle = Vec::new();
    for _ in 0..crate::limits::GREETINGS_MAX + 10 {
        idle.push(tokio::net::TcpStream::connect(b.address()).await.expect("connected"));
    }
    until("the oldest are dropped", || b.handle.stats().refused_busy >= 10).await;
    a.dial(&[(b.id(), b.address())]);
    let (here, there) = (a.id(), b.id());
    tokio::join!(a.up(there), b.up(here));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_refused_and_counted_whatever_it_is() {
    let (a, _b) = two();
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..200u64 {
        let mut bytes = Vec::new();
        for _ in 0..round * 7 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            bytes.push(noise as u8);
        }
        // Half of them look like a TLS record at first.
        if round % 2 == 0 && bytes.len() > 5 {
            bytes[..3].copy_from_slice(&[0x16, 3, 1]);
            bytes[3..5].copy_from_slice(&u16::to_be_bytes((round * 7 - 5) as u16));
        }
        let mut stranger = tokio::net::TcpStream::connect(a.address()).await.expect("connected");
        // It may be thrown out before it has said everything.
        let _ = stranger.write_all(&bytes).await;
        drop(stranger);
        // A task that panicked would not count.
        until("it is refused", || a.handle.stats().refused_greeting == round + 1).await;
    }
}
