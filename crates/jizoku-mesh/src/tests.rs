//! Whole meshes on loopback: real sockets, real TLS, real threads.

mod frames;
mod hostile;
mod joining;
mod links;
mod pause;
mod proxy;
mod stuck;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use jizoku_core::liveness::{BEAT, Timing};
use jizoku_types::event::LinkDownCause;
use jizoku_types::frame::Channel;
use jizoku_types::{ClusterId, Generation, Incarnation, NodeId, Span};
use tokio::time::{Instant, timeout};

use crate::{Identity, Inbox, Incoming, Mailbox, Mesh, MeshConfig, MeshEvent, MeshHandle};

/// Longer than anything here should take, even on a machine that is swamped.
const PATIENCE: Duration = Duration::from_secs(60);

const LOCAL_V4: &str = "127.0.0.1:0";
const LOCAL_V6: &str = "[::1]:0";

/// Identities in the order of their ids: the first decides about links with the others.
fn identities<const N: usize>() -> [Identity; N] {
    let mut made: Vec<_> = (0..N).map(|_| Identity::generate().expect("a key")).collect();
    made.sort_by_key(Identity::node);
    made.try_into().expect("as many as were made")
}

fn members(identities: &[Identity]) -> BTreeSet<NodeId> {
    identities.iter().map(Identity::node).collect()
}

/// So patient that a machine that is swamped by other tests takes no link down.
fn patient() -> Timing {
    Timing::new(BEAT, Span::secs(5), Span::secs(10)).expect("patient")
}

/// Patient enough for a busy machine, where silence is what is waited for.
fn brisk() -> Timing {
    Timing::new(BEAT, Span::secs(1), Span::secs(2)).expect("patient")
}

fn config(identity: &Identity, members: &[Identity]) -> MeshConfig {
    let mut config =
        MeshConfig::new(identity.clone(), ClusterId([1; 16]), Generation(1), Incarnation(1));
    config.listen = vec![LOCAL_V4.parse().expect("an address")];
    config.timing = patient();
    config.members = self::members(members);
    config
}

struct TestNode {
    mesh: Mesh,
    handle: MeshHandle,
    mail: Mailbox,
}

impl TestNode {
    fn start(config: MeshConfig) -> TestNode {
        let (mesh, mail) = Mesh::start(config).expect("starts");
        TestNode { handle: mesh.handle(), mesh, mail }
    }

    fn id(&self) -> NodeId {
        self.handle.node()
    }

    fn address(&self) -> SocketAddr {
        self.mesh.addresses()[0]
    }

    fn dial(&self, peers: &[(NodeId, SocketAddr)]) {
        let peers = peers.iter().map(|(node, address)| (*node, vec![*address]));
        self.handle.set_peers(peers.collect());
    }

    async fn event(&mut self) -> MeshEvent {
        timeout(PATIENCE, self.mail.events.recv()).await.expect("in time").expect("a mesh")
    }

    /// The next change of a link. Refusals and lateness are skipped.
    async fn change(&mut self) -> (NodeId, Result<Incarnation, LinkDownCause>) {
        loop {
            match self.event().await {
                MeshEvent::LinkUp { peer, incarnation, .. } => return (peer, Ok(incarnation)),
                MeshEvent::LinkDown { peer, cause, .. } => return (peer, Err(cause)),
                MeshEvent::Refused { .. } | MeshEvent::Late { .. } => {}
                MeshEvent::Join(_) => panic!("nobody joins here"),
            }
        }
    }

    /// Waits until a link is up, whatever happens to it before.
    async fn up(&mut self, peer: NodeId) {
        while !matches!(self.change().await, (node, Ok(_)) if node == peer) {}
    }

    /// Waits until a link is down, and tells why.
    async fn down(&mut self, peer: NodeId) -> LinkDownCause {
        loop {
            if let (node, Err(cause)) = self.change().await
                && node == peer
            {
                return cause;
            }
        }
    }

    /// Checks that no link has changed and nobody was refused since the last look.
    fn assert_quiet(&mut self) {
        while let Ok(event) = self.mail.events.try_recv() {
            assert!(matches!(event, MeshEvent::Late { .. }), "{event:?}");
        }
    }

    fn inbox(&mut self, channel: Channel) -> &mut Inbox {
        match channel {
            Channel::Consensus => &mut self.mail.consensus,
            Channel::Control => &mut self.mail.control,
            Channel::Streams => &mut self.mail.streams,
            Channel::State => &mut self.mail.state,
            Channel::Bulk => &mut self.mail.bulk,
        }
    }

    async fn receive(&mut self, channel: Channel) -> Incoming {
        let inbox = self.inbox(channel);
        timeout(PATIENCE, inbox.recv()).await.expect("in time").expect("a mesh")
    }
}

/// Two nodes of one cluster that aren't linked yet.
fn two() -> (TestNode, TestNode) {
    let identities = identities::<2>();
    let [a, b] =
        identities.each_ref().map(|identity| TestNode::start(config(identity, &identities)));
    (a, b)
}

/// Two linked nodes: the first dialled.
async fn linked() -> (TestNode, TestNode) {
    let (mut a, mut b) = two();
    a.dial(&[(b.id(), b.address())]);
    let (here, there) = (a.id(), b.id());
    tokio::join!(a.up(there), b.up(here));
    (a, b)
}

/// Waits until `condition` holds, looking every few milliseconds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        ticks.tick().await;
    }
}

/// Waits until the other end's beats have come and a round trip is known.
async fn beating(node: &TestNode) {
    let known = || node.handle.links().iter().any(|link| link.rtt.as_nanos() > 0);
    until("it beats", known).await;
}

fn routes(ways: &[(NodeId, NodeId)]) -> BTreeMap<NodeId, NodeId> {
    ways.iter().copied().collect()
}

fn body(number: u32, size: usize) -> Bytes {
    let mut body = vec![number as u8; size.max(4)];
    body[..4].copy_from_slice(&number.to_le_bytes());
    Bytes::from(body)
}

fn number(incoming: &Incoming) -> u32 {
    u32::from_le_bytes(incoming.body[..4].try_into().expect("at least four bytes"))
}
