//! The mesh as its owner sees it.
//!
//! What it does not know: how links come up, how frames lie on the wire.
//!
//! Invariant: dropping the [`Mesh`] closes every link and ends every task and thread of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use jizoku_core::liveness::Timing;
use jizoku_types::event::LinkDownCause;
use jizoku_types::frame::{Channel, PROTOCOL_HIGHEST, PROTOCOL_LOWEST};
use jizoku_types::limits::NODES_MAX;
use jizoku_types::{ClusterId, Generation, Incarnation, NodeId, Span};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::greet::{Reception, accept};
use crate::heart::{Heart, Pulse};
use crate::hello::{Local, Refusal};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::inbox::{Inbox, inbox};
use crate::join::{Gate, JoinRequest};
use crate::limits::{ADDRESSES_MAX, ARRIVALS_MAX, EVENTS_MAX, FLUSH_MAX};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::trust::server_config;

/// Connections that the system may keep waiting to be accepted.
const BACKLOG: i32 = 1024;

/// What a mesh is started with.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// This node's key.
    pub identity: Identity,
    /// Which cluster it belongs to.
    pub cluster: ClusterId,
    /// Which generation of it.
    pub generation: Generation,
    /// This run of its agent: higher than that of any run before, else members that have seen a
    /// newer one refuse it.
    pub incarnation: Incarnation,
    /// Where to listen, at most 16; port 0 lets the system choose. `[::]` takes IPv6 only.
    pub listen: Vec<SocketAddr>,
    /// Lowest and highest protocol version that it speaks.
    pub versions: (u16, u16),
    /// How fast links beat and how patient they are. The same on all nodes.
    pub timing: Timing,
    /// Whose keys are let in from the start.
    pub members: BTreeSet<NodeId>,
}

impl MeshConfig {
    /// A configuration for this build's protocol versions and the default timing, without
    /// members, that listens nowhere.
    pub fn new(
        identity: Identity,
        cluster: ClusterId,
        generation: Generation,
        incarnation: Incarnation,
    ) -> MeshConfig {
        let versions = (PROTOCOL_LOWEST, PROTOCOL_HIGHEST);
        MeshConfig {
            identity,
            cluster,
            generation,
            incarnation,
            listen: Vec::new(),
            versions,
            timing: Timing::default(),
            members: BTreeSet::new(),
        }
    }
}

/// Why a mesh didn't start. Nothing of it is left.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// More addresses to listen on than there may be.
    TooManyAddresses,
    /// The heartbeat thread could not be started.
    Heart(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen { address, error } => {
                write!(f, "can't listen on {address}: {error}")
            }
            StartError::TooManyAddresses => write!(f, "more than {ADDRESSES_MAX} addresses"),
            StartError::Heart(error) => write!(f, "can't start the heartbeat thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Why a frame wasn't sent. It is gone; protocols above number what they send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The body is longer than `FRAME_BODY_MAX`.
    TooLong,
    /// No link and no route leads there now.
    NoRoute,
    /// The peer reads too slowly: its queue reached the limit, and the link was taken down.
    TooSlow,
    /// Bulk queue, or this node's own inbox, is full; the link stays. Use `send_paced`.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::TooLong => "longer than a frame may be",
            SendError::NoRoute => "no way leads to that node",
            SendError::TooSlow => "the peer reads too slowly; its link was taken down",
            SendError::Full => "the queue is full",
        })
    }
}

impl std::error::Error for SendError {}

/// What happened in the mesh.
#[derive(Debug)]
pub enum MeshEvent {
    /// A link is up, and frames can be sent on it.
    LinkUp {
        /// To whom.
        peer: NodeId,
        /// Which run of its agent. A new one means that the old one is gone.
        incarnation: Incarnation,
        /// The protocol version that both speak.
        version: u16,
        /// A first round trip time; zero if this node didn't dial.
        rtt: Span,
    },
    /// A link is gone. What was queued on it is lost.
    LinkDown {
        /// To whom.
        peer: NodeId,
        /// Which run of its agent it led to.
        incarnation: Incarnation,
        /// Why.
        cause: LinkDownCause,
    },
    /// A connection to or from a node was refused. Reported once for each node and reason, until
    /// a link to it comes up.
    Refused {
        /// The node at the other end: the one that was dialled, or whose key was proved.
        peer: NodeId,
        /// Where it was, if known.
        address: Option<SocketAddr>,
        /// Whether the other end refused; else this node did.
        by_peer: bool,
        /// Why, as the refusing end sees it.
        refusal: Refusal,
    },
    /// A stranger asks to become a member.
    Join(JoinRequest),
    /// This node's own timers were late: it judges nobody for a while, and should propose
    /// nothing that rests on the silence of others until [`MeshHandle::may_judge`].
    Late {
        /// By how much.
        by: Span,
    },
}

/// A link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// To whom.
    pub peer: NodeId,
    /// Which run of its agent.
    pub incarnation: Incarnation,
    /// The protocol version that both speak.
    pub version: u16,
    /// Smoothed round trip time; zero before any was measured.
    pub rtt: Span,
    /// Nothing was heard for most of a time-out.
    pub suspect: bool,
}

/// What the mesh brings its owner. The channels are apart, so that tasks can be.
#[derive(Debug)]
pub struct Mailbox {
    /// What happened. An owner that doesn't read it keeps links from changing.
    pub events: mpsc::Receiver<MeshEvent>,
    /// Catalog replication.
    pub consensus: Inbox,
    /// Node to node.
    pub control: Inbox,
    /// Connections' bytes.
    pub streams: Inbox,
    /// Checkpoints.
    pub state: Inbox,
    /// Images and collection.
    pub bulk: Inbox,
}

/// A running mesh. Dropping it closes everything at once; [`Mesh::close`] writes what is queued
/// first.
pub struct Mesh {
    handle: MeshHandle,
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a mesh can be told. Cheap to clone.
#[derive(Clone)]
pub struct MeshHandle {
    shared: Arc<Shared>,
}

impl Mesh {
    /// Starts listening. Must be called within a tokio runtime with I/O and time.
    pub fn start(config: MeshConfig) -> Result<(Mesh, Mailbox), StartError> {
        if config.listen.len() > ADDRESSES_MAX {
            return Err(StartError::TooManyAddresses);
        }
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in config.listen {
            let failed = |error| StartError::Listen { address, error };
            let listener = listen(address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let local = Local {
            node: config.identity.node(),
            cluster: config.cluster,
            generation: config.generation,
            incarnation: config.incarnation,
            versions: config.versions,
        };
        let server = server_config(&config.identity);
        let ends = std::array::from_fn(|_| inbox());
        let [consensus, control, streams, state, bulk] = ends;
        let deliveries = [consensus.0, control.0, streams.0, state.0, bulk.0];
        let shared = Arc::new(Shared::new(local, config.identity, deliveries));
        shared.set_members(config.members);
        let pulse = Arc::new(Pulse::default());
        let heart = Heart::start(config.timing, Arc::clone(&shared.alarm), Arc::clone(&pulse))
            .map_err(StartError::Heart)?;

        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let hub =
            Hub::new(Arc::clone(&shared), events_in.clone(), arrivals_in.clone(), arrivals, heart);
        let mut tasks = vec![tokio::spawn(pulse.keep_showing()), tokio::spawn(hub.run())];
        let reception = Arc::new(Reception {
            shared: Arc::clone(&shared),
            config: server,
            arrivals: arrivals_in,
            events: events_in,
            gate: Gate::new(),
        });
        for listener in listeners {
            let accepting = accept(Arc::clone(&reception), listener);
            tasks.push(tokio::spawn(accepting));
        }
        let mailbox = Mailbox {
            events,
            consensus: consensus.1,
            control: control.1,
            streams: streams.1,
            state: state.1,
            bulk: bulk.1,
        };
        Ok((Mesh { handle: MeshHandle { shared }, addresses, tasks }, mailbox))
    }

    /// What this mesh can be told.
    pub fn handle(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Lets the peers read what is queued for them, for at most two seconds, and then closes
    /// everything. Nothing is left of the mesh when it returns.
    pub async fn close(mut self) {
        let links = self.handle.shared.links();
        for link in &links {
            link.finish();
        }
        let closing = async {
            for link in &links {
                link.closed().await;
            }
        };
        // What isn't read by then is lost, as on any link that goes down.
        let _ = timeout(FLUSH_MAX, closing).await;
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Aborted, or panicked: it is over.
            let _ = task.await;
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for link in self.handle.shared.links() {
            link.close(LinkDownCause::Local);
        }
    }
}

impl MeshHandle {
    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.local.node
    }

    /// Lets these keys in, and no others: links of others are closed at once.
    ///
    /// # Panics
    /// If there are more than `NODES_MAX`.
    pub fn set_members(&self, members: BTreeSet<NodeId>) {
        assert!(members.len() <= NODES_MAX, "more members than a cluster may have");
        self.shared.set_members(members);
    }

    /// Keeps links to these members, at these addresses (at most 16 of each are tried). Links
    /// that others keep to this node are not touched. Members only; others are ignored until
    /// they are members.
    ///
    /// # Panics
    /// If there are more than `NODES_MAX`.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, Vec<SocketAddr>>) {
        assert!(peers.len() <= NODES_MAX, "more peers than a cluster may have");
        self.shared.set_peers(peers);
    }

    /// Frames for each key go to its value, if a link to that is up; else to a direct link.
    ///
    /// # Panics
    /// If there are more than `NODES_MAX`.
    pub fn set_routes(&self, routes: BTreeMap<NodeId, NodeId>) {
        assert!(routes.len() <= NODES_MAX, "more routes than a cluster has nodes");
        self.shared.set_routes(routes);
    }

    /// Sends a frame without waiting. To this node itself it is delivered at once.
    ///
    /// `Ok` means queued; a link that goes down loses what is queued. At a queue's limit the
    /// link is taken down ([`SendError::TooSlow`]), but on bulk ([`SendError::Full`]).
    pub fn send(
        &self,
        to: NodeId,
        channel: Channel,
        body: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        self.shared.send(to, channel, body.into())
    }

    /// Sends a frame once no more than 2 MiB are queued before it: for whoever has much to say.
    /// Never ends in [`SendError::Full`]. Cancel-safe: the frame is queued at its end or not.
    pub async fn send_paced(
        &self,
        to: NodeId,
        channel: Channel,
        body: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        self.shared.send_paced(to, channel, body.into()).await
    }

    /// How many bytes can be queued for a node before `send_paced` would wait; zero if no way
    /// leads there.
    pub fn room(&self, to: NodeId, channel: Channel) -> usize {
        self.shared.room(to, channel)
    }

    /// The links that are up, by peer.
    pub fn links(&self) -> Vec<LinkState> {
        self.shared.link_states()
    }

    /// Whether this node may call others dead: false from being late until everybody was heard
    /// again, or one time-out went by.
    pub fn may_judge(&self) -> bool {
        self.shared.alarm.may_judge()
    }

    /// What was carried, dropped and refused since the start.
    pub fn stats(&self) -> Stats {
        self.shared.counters().snapshot()
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mesh({:?} at {:?})", self.handle.node(), self.addresses)
    }
}

impl fmt::Debug for MeshHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshHandle({:?})", self.node())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be listened on with one port.
        socket.set_only_v6(true)?;
    }
    // A restarted agent gets its port back though old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
