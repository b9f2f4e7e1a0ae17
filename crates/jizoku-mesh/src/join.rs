//! The one thing that a stranger may do: send one bounded request, and get one bounded answer.
//!
//! What it does not know: tickets, members; the owner judges the request.
//!
//! Invariants
//! - At most [`JOINS_MAX`] requests wait for the owner, and no more come through than the
//!   bucket allows, however many strangers there are.
//! - The one who asks proves its key; the one who answers is the one that was named.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jizoku_types::NodeId;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};

use crate::conn::{Conn, ConnError};
use crate::identity::Identity;
use crate::limits::{
    ADDRESSES_MAX, CONNECT_MAX, GREET_MAX, JOIN_ANSWER_MAX, JOIN_BURST, JOIN_EVERY, JOIN_REPLY_MAX,
    JOIN_REQUEST_MAX, JOINS_MAX,
};
use crate::trust::{ALPN_JOIN, client_config, is_other_key};
use crate::wire::with_length;

/// First byte of an answer.
const REPLY: u8 = 0;
const REFUSED: u8 = 1;
const BUSY: u8 = 2;

/// A stranger's request. Dropping it refuses.
#[derive(Debug)]
pub struct JoinRequest {
    /// Whose key was proved.
    pub node: NodeId,
    /// Where the connection came from.
    pub address: SocketAddr,
    /// What was sent, at most [`JOIN_REQUEST_MAX`] bytes.
    pub request: Bytes,
    /// Takes the answer, at most [`JOIN_REPLY_MAX`] bytes; longer ones refuse.
    pub reply: oneshot::Sender<Vec<u8>>,
}

/// Why joining failed. Whether the issuer acted on the request is unknown after
/// [`JoinError::Broken`] only.
#[derive(Debug)]
pub enum JoinError {
    /// The request is longer than [`JOIN_REQUEST_MAX`].
    TooLong,
    /// No address answered.
    Unreachable,
    /// Somebody answered, but not the node that issued the ticket.
    OtherKey,
    /// The connection broke before the answer was there, or there was none in time.
    Broken,
    /// The issuer refused.
    Refused,
    /// The issuer has too many requests. Try again in a second.
    Busy,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinError::TooLong => "the request is too long",
            JoinError::Unreachable => "no address of the issuer answered",
            JoinError::OtherKey => "another node answers at the issuer's address",
            JoinError::Broken => "the connection broke before the answer was there",
            JoinError::Refused => "the issuer refused",
            JoinError::Busy => "the issuer has too many requests; try again in a second",
        })
    }
}

impl std::error::Error for JoinError {}

/// Sends one request to the node that issued a ticket, at the first of its addresses that
/// answers, and waits for the reply.
pub async fn join(
    identity: &Identity,
    addresses: &[SocketAddr],
    issuer: NodeId,
    request: &[u8],
) -> Result<Bytes, JoinError> {
    if request.len() > JOIN_REQUEST_MAX {
        return Err(JoinError::TooLong);
    }
    let mut failure = JoinError::Unreachable;
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let config = client_config(identity, issuer, ALPN_JOIN);
        let shaking = async {
            let tcp = timeout(CONNECT_MAX, Conn::connect(*address)).await;
            let tcp = tcp.map_err(|_| ConnError::Closed)??;
            let shaking = Conn::shake_as_client(tcp, config);
            timeout(GREET_MAX, shaking).await.map_err(|_| ConnError::Closed)?
        };
        match shaking.await {
            Ok(conn) => return ask(conn, request).await,
            Err(ConnError::Tls(error)) if is_other_key(&error) => failure = JoinError::OtherKey,
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn ask(mut conn: Conn, request: &[u8]) -> Result<Bytes, JoinError> {
    let asking = async {
        conn.send(&with_length(request)).await?;
        conn.receive(1 + JOIN_REPLY_MAX).await
    };
    // The issuer may take its time; the network may take some more.
    let answer = match timeout(JOIN_ANSWER_MAX + GREET_MAX, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => return Err(JoinError::Broken),
    };
    match answer.first() {
        Some(&REPLY) => Ok(answer.slice(1..)),
        Some(&REFUSED) => Err(JoinError::Refused),
        Some(&BUSY) => Err(JoinError::Busy),
        _ => Err(JoinError::Broken),
    }
}

/// Lets few enough strangers through.
#[derive(Debug)]
pub(crate) struct Gate {
    waiting: Semaphore,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        let bucket = Bucket { left: JOIN_BURST, since: Instant::now() };
        Gate { waiting: Semaphore::new(JOINS_MAX), bucket: Mutex::new(bucket) }
    }

    /// Leave to hand one request to the owner, while the permit is held.
    pub(crate) fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.waiting.try_acquire().ok()?;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(Instant::now()).then_some(permit)
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < JOIN_BURST && now.duration_since(self.since) >= JOIN_EVERY {
            self.left += 1;
            self.since += JOIN_EVERY;
        }
        if self.left == JOIN_BURST {
            self.since = now;
        }
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

/// Serves one stranger. `hand_over` gives the request to the owner, or fails if it has too many.
pub(crate) async fn serve(
    mut conn: Conn,
    address: SocketAddr,
    gate: &Gate,
    hand_over: impl FnOnce(JoinRequest) -> bool,
) -> bool {
    let Some(node) = conn.peer() else { return false };
    let receiving = timeout(GREET_MAX, conn.receive(JOIN_REQUEST_MAX));
    let Ok(Ok(request)) = receiving.await else { return false };
    let Some(_permit) = gate.enter() else {
        answer(conn, vec![BUSY]).await;
        return false;
    };
    let (reply, replied) = oneshot::channel();
    if !hand_over(JoinRequest { node, address, request, reply }) {
        answer(conn, vec![BUSY]).await;
        return false;
    }
    let message = match timeout(JOIN_ANSWER_MAX, replied).await {
        Ok(Ok(reply)) if reply.len() <= JOIN_REPLY_MAX => [vec![REPLY], reply].concat(),
        _ => vec![REFUSED],
    };
    answer(conn, message).await;
    true
}

/// Sends an answer and waits until the other end has it, for a while.
async fn answer(mut conn: Conn, message: Vec<u8>) {
    let answering = async {
        if conn.send(&with_length(&message)).await.is_ok() {
            conn.linger().await;
        }
    };
    const ANSWERING_MAX: Duration = GREET_MAX;
    let _ = timeout(ANSWERING_MAX, answering).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_lets_a_burst_through_and_then_a_trickle() {
        let start = Instant::now();
        let mut bucket = Bucket { left: JOIN_BURST, since: start };
        let burst = (0..100).filter(|_| bucket.take(start)).count();
        assert_eq!(burst, JOIN_BURST as usize);
        assert!(!bucket.take(start + JOIN_EVERY / 2));
        assert!(bucket.take(start + JOIN_EVERY));
        assert!(!bucket.take(start + JOIN_EVERY));
        let later = start + JOIN_EVERY * 1000;
        let burst = (0..100).filter(|_| bucket.take(later)).count();
        assert_eq!(burst, JOIN_BURST as usize);
    }
}
