//! Greeting whoever connects: TLS, who it is, what it wants, and whether it may.
//!
//! What it does not know: how the welcomed connections become a link.
//!
//! Invariants
//! - Before a key is known to be a member's, nothing it sends is read, but for one join request.
//! - Each greeting ends in bounded time, and at most [`GREETINGS_MAX`] go on at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jizoku_types::NodeId;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::MeshEvent;
use crate::conn::{Conn, ConnError};
use crate::hello::{Answer, GREETING_MAX, Hello, Refusal};
use crate::hub::Arrival;
use crate::join::{self, Gate, JoinRequest};
use crate::limits::{GREET_MAX, GREETINGS_MAX, LINGER_MAX};
use crate::shared::Shared;
use crate::trust::{ALPN_JOIN, ALPN_MEMBER};
use crate::wire::message;

/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all greetings of a node share.
pub(crate) struct Reception {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) events: mpsc::Sender<MeshEvent>,
    pub(crate) gate: Gate,
}

/// Accepts on one listener for ever.
pub(crate) async fn accept(reception: Arc<Reception>, listener: TcpListener) {
    let mut greetings = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((tcp, address)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while greetings.try_join_next().is_some() {}
        if oldest_first.len() >= GREETINGS_MAX {
            oldest_first.retain(|greeting| !greeting.is_finished());
        }
        if oldest_first.len() >= GREETINGS_MAX
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
            reception.shared.counters().refused_busy.bump();
        }
        let greeting = Arc::clone(&reception).greet(tcp, address);
        oldest_first.push_back(greetings.spawn(greeting));
    }
}

impl Reception {
    async fn greet(self: Arc<Reception>, tcp: TcpStream, address: SocketAddr) {
        let shaking = Conn::shake_as_server(tcp, Arc::clone(&self.config));
        let Ok(Ok(conn)) = timeout(GREET_MAX, shaking).await else {
            self.shared.counters().refused_greeting.bump();
            return;
        };
        let Some(peer) = conn.peer() else { return };
        match conn.session.alpn() {
            Some(ALPN_MEMBER) => self.member(conn, peer, address).await,
            Some(ALPN_JOIN) => self.stranger(conn, address).await,
            _ => self.shared.counters().refused_greeting.bump(),
        }
    }

    async fn stranger(&self, conn: Conn, address: SocketAddr) {
        let counters = self.shared.counters();
        let hand_over = |request: JoinRequest| {
            let handed = self.events.try_send(MeshEvent::Join(request)).is_ok();
            if handed {
                counters.joins.bump();
            }
            handed
        };
        if !join::serve(conn, address, &self.gate, hand_over).await {
            counters.joins_refused.bump();
        }
    }

    async fn member(&self, mut conn: Conn, peer: NodeId, address: SocketAddr) {
        let judged = timeout(GREET_MAX, self.judge(&mut conn, peer)).await;
        let (hello, version) = match judged {
            Ok(Ok(Ok(welcomed))) => welcomed,
            Ok(Ok(Err(refusal))) => return self.refuse(conn, peer, address, refusal).await,
            Ok(Err(_)) | Err(_) => return self.shared.counters().refused_greeting.bump(),
        };
        let incarnation = self.shared.local.incarnation;
        let welcome = message(&Answer::Welcome { version, incarnation });
        if !matches!(timeout(GREET_MAX, conn.send(&welcome)).await, Ok(Ok(()))) {
            return self.shared.counters().refused_greeting.bump();
        }
        // Fails only when the mesh is gone.
        let _ = self.arrivals.send(Arrival::Welcomed { peer, hello, version, conn }).await;
    }

    async fn judge(
        &self,
        conn: &mut Conn,
        peer: NodeId,
    ) -> Result<Result<(Hello, u16), Refusal>, ConnError> {
        if peer == self.shared.local.node || !self.shared.is_member(peer) {
            return Ok(Err(Refusal::NotMember));
        }
        let bytes = conn.receive(GREETING_MAX).await?;
        let read = self.shared.local.read_hello(&bytes);
        Ok(read.and_then(|(hello, version)| {
            self.shared.admit(peer, &hello)?;
            Ok((hello, version))
        }))
    }

    async fn refuse(&self, mut conn: Conn, peer: NodeId, address: SocketAddr, refusal: Refusal) {
        self.count(refusal);
        if refusal != Refusal::Duplicate {
            let address = Some(address);
            let report = Arrival::Refused { peer, address, by_peer: false, refusal };
            // Under a flood of strangers, counting must do.
            let _ = self.arrivals.try_send(report);
        }
        let telling = async {
            if conn.send(&message(&Answer::Refused(refusal))).await.is_ok() {
                conn.linger().await;
            }
        };
        let _ = timeout(LINGER_MAX, telling).await;
    }

    fn count(&self, refusal: Refusal) {
        let counters = self.shared.counters();
        match refusal {
            Refusal::NotMember => counters.refused_strangers.bump(),
            Refusal::OtherCluster { .. } => counters.refused_cluster.bump(),
            Refusal::OtherGeneration { .. } => counters.refused_generation.bump(),
            Refusal::NoCommonVersion { .. } => counters.refused_version.bump(),
            Refusal::OldIncarnation { .. } => counters.refused_incarnation.bump(),
            Refusal::Duplicate => {}
            Refusal::OtherKey | Refusal::Unintelligible => counters.refused_greeting.bump(),
        }
    }
}
