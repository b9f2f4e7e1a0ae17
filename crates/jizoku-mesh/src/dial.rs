//! Dialling a peer: all the connections of one attempt at a link.
//!
//! The control lane goes first, on all addresses of the peer one shortly after the other; where
//! it is welcomed first, the other lanes follow, at the same time.
//!
//! What it does not know: when to dial, and whether the attempt becomes the link.
//!
//! Invariant: it ends within `CONNECT_MAX + GREET_MAX` for each of its two steps, and
//! `ADOPT_MAX`.

use std::net::SocketAddr;
use std::sync::Arc;

use jizoku_types::{Incarnation, NodeId, Span, decode};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock::boottime_now;
use crate::conn::{Conn, ConnError};
use crate::hello::{Adopt, Adoption, Answer, GREETING_MAX, Refusal};
use crate::limits::{ADDRESSES_MAX, ADOPT_MAX, CONNECT_MAX, GREET_MAX, STAGGER};
use crate::shared::Shared;
use crate::trust::{ALPN_MEMBER, client_config, is_other_key};
use crate::wire::Lane;

/// All connections of an attempt, welcomed.
pub(crate) struct Attempt {
    pub(crate) peer: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) version: u16,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
    /// The newest link that the dialling end knew of.
    pub(crate) seen: Adoption,
    /// A first round trip time, if one was measured.
    pub(crate) rtt: Option<Span>,
    /// In the order of [`Lane::ALL`].
    pub(crate) conns: [Conn; Lane::ALL.len()],
}

/// Why dialling came to nothing.
#[derive(Debug)]
pub(crate) enum DialError {
    /// Nobody answered in time, or the connection broke.
    Unreachable,
    /// Somebody answered, and said no.
    Refused(SocketAddr, Refusal),
}

/// Dials a peer at its addresses, of which there is at least one.
pub(crate) async fn dial(
    shared: Arc<Shared>,
    peer: NodeId,
    addresses: Vec<SocketAddr>,
) -> Result<Attempt, DialError> {
    let seen = shared.known(peer).adoption;
    let config = client_config(&shared.identity, peer, ALPN_MEMBER);
    let dialler = Dialler { shared, config, seen };
    let (address, attempt, control) = dialler.control(addresses).await?;
    let lane = |lane| dialler.open(address, lane, attempt);
    let (streams, state, bulk, heart) = tokio::try_join!(
        lane(Lane::Streams),
        lane(Lane::State),
        lane(Lane::Bulk),
        lane(Lane::Heart),
    )?;
    let welcomed = [&control, &streams, &state, &bulk, &heart];
    if welcomed.iter().any(|opened| opened.incarnation != control.incarnation) {
        return Err(DialError::Unreachable);
    }
    Ok(Attempt {
        peer,
        incarnation: control.incarnation,
        version: control.version,
        dialled: true,
        seen,
        rtt: Some(control.rtt),
        conns: [control.conn, streams.conn, state.conn, bulk.conn, heart.conn],
    })
}

/// Waits until the deciding end says that this attempt is the link.
pub(crate) async fn await_adoption(attempt: &mut Attempt) -> Option<Adoption> {
    let [control, ..] = &mut attempt.conns;
    let message = timeout(ADOPT_MAX, control.receive(GREETING_MAX)).await.ok()?.ok()?;
    let Adopt(adoption) = decode(&message).ok()?;
    (adoption.incarnation == attempt.incarnation).then_some(adoption)
}

/// A welcomed connection.
struct Opened {
    conn: Conn,
    incarnation: Incarnation,
    version: u16,
    rtt: Span,
}

#[derive(Clone)]
struct Dialler {
    shared: Arc<Shared>,
    config: Arc<ClientConfig>,
    seen: Adoption,
}

impl Dialler {
    /// Opens the control lane at whichever address answers first.
    async fn control(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<(SocketAddr, u64, Opened), DialError> {
        let mut racing = JoinSet::new();
        for (place, address) in (0u32..).zip(addresses.into_iter().take(ADDRESSES_MAX)) {
            let dialler = self.clone();
            let attempt = self.shared.next_attempt();
            racing.spawn(async move {
                sleep(STAGGER * place).await;
                let opened = dialler.open(address, Lane::Control, attempt).await?;
                Ok((address, attempt, opened))
            });
        }
        let mut worst = DialError::Unreachable;
        while let Some(result) = racing.join_next().await {
            match result {
                Ok(Ok(first)) => return Ok(first),
                Ok(Err(refused @ DialError::Refused(..))) => worst = refused,
                Ok(Err(DialError::Unreachable)) | Err(_) => {}
            }
        }
        Err(worst)
    }

    /// Opens one lane.
    async fn open(
        &self,
        address: SocketAddr,
        lane: Lane,
        attempt: u64,
    ) -> Result<Opened, DialError> {
        let opening = async {
            let conn = timeout(CONNECT_MAX, Conn::connect(address)).await;
            let tcp = conn.map_err(|_| ConnError::Closed)??;
            let greeting = self.greet(tcp, lane, attempt);
            timeout(GREET_MAX, greeting).await.map_err(|_| ConnError::Closed)?
        };
        match opening.await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(refusal)) => Err(DialError::Refused(address, refusal)),
            Err(ConnError::Tls(error)) if is_other_key(&error) => {
                Err(DialError::Refused(address, Refusal::OtherKey))
            }
            Err(_) => Err(DialError::Unreachable),
        }
    }

    async fn greet(
        &self,
        tcp: tokio::net::TcpStream,
        lane: Lane,
        attempt: u64,
    ) -> Result<Result<Opened, Refusal>, ConnError> {
        let mut conn = Conn::shake_as_client(tcp, Arc::clone(&self.config)).await?;
        let asked = boottime_now();
        conn.send(&self.shared.local.hello(lane, attempt, self.seen)).await?;
        let answer = conn.receive(GREETING_MAX).await?;
        let rtt = boottime_now().since(asked);
        Ok(match decode(&answer) {
            Ok(Answer::Welcome { version, incarnation }) => {
                Ok(Opened { conn, incarnation, version, rtt })
            }
            Ok(Answer::Refused(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Unintelligible),
        })
    }
}
