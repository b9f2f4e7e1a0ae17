//! The task of one lane: frames out of its queue onto the socket, and off the socket to where
//! they go. One task does both, so that nothing is locked and nothing is handed over on the way.
//!
//! All frames that are queued when it runs go into as few TLS records and writes as they fit.
//!
//! What it does not know: the other lanes; what follows when it ends.
//!
//! When its queue is finished it says goodbye and goes on reading. A peer's goodbye ends reading;
//! when all lanes have had it, the link is down, and nothing that was written is lost. A dead
//! process says no goodbye: its link goes down at once.
//!
//! Invariants
//! - While an arrived frame waits for room, nothing more is read, but writing goes on.
//! - It ends at the first error, and ends its link by that.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use jizoku_types::event::LinkDownCause;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conn::Conn;
use crate::link::Link;
use crate::outbox::Outbox;
use crate::shared::{Blocked, Shared};
use crate::tls::{PUT_MAX, UNSENT_ENOUGH};
use crate::wire::{Lane, WireError, next_frame};

/// Why a lane ended.
enum End {
    /// The socket failed or was closed.
    Reset,
    /// TLS failed.
    Tls,
    /// The bytes were no frames.
    Wire(WireError),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> End {
        End::Reset
    }
}

impl From<rustls::Error> for End {
    fn from(_: rustls::Error) -> End {
        End::Tls
    }
}

/// Runs a lane until it ends, and then takes its link down.
pub(crate) async fn carry(shared: Arc<Shared>, link: Arc<Link>, lane: Lane, mut conn: Conn) {
    let Err(end) = run(&shared, &link, lane, &mut conn).await;
    let counters = shared.counters();
    let cause = match end {
        End::Reset => LinkDownCause::Reset,
        End::Tls => {
            counters.broken_tls.bump();
            LinkDownCause::Local
        }
        End::Wire(WireError::TooLong) => {
            counters.broken_too_long.bump();
            LinkDownCause::Local
        }
        End::Wire(WireError::Malformed) => {
            counters.broken_malformed.bump();
            LinkDownCause::Local
        }
    };
    link.close(cause);
}

/// What woke a lane that had nothing to do.
enum Woken {
    Read(usize),
    Written(usize),
    Unblocked,
    Queued,
}

async fn run(shared: &Shared, link: &Link, lane: Lane, conn: &mut Conn) -> Result<Infallible, End> {
    let outbox = link.outbox(lane);
    let mut body = Bytes::new();
    let mut blocked = None;
    let (mut ended, mut said_goodbye) = (false, false);
    loop {
        fill(outbox, &mut body, conn)?;
        let all_put = body.is_empty() && outbox.is_finished();
        if all_put && !said_goodbye {
            conn.session.say_goodbye()?;
            said_goodbye = true;
        }
        if conn.session.unsent() > 0 {
            write_now(conn)?;
        }
        if blocked.is_none() && !ended {
            blocked = deliver(shared, lane, conn)?.map(|blocked| Box::pin(shared.unblock(blocked)));
            if blocked.is_none() && conn.session.is_closed() {
                link.lane_ended();
                ended = true;
            }
        }
        let may_read = blocked.is_none() && !ended;
        let is_blocked = blocked.is_some();
        let unsent = conn.session.unsent();
        let Conn { tcp, session } = conn;
        let (incoming, outgoing) = session.ends();
        let (mut reader, mut writer) = tcp.split();
        let woken = tokio::select! {
            biased;
            count = reader.read(incoming.read_room()), if may_read => Woken::Read(count?),
            count = writer.write(outgoing.filled()), if unsent > 0 => Woken::Written(count?),
            () = async { blocked.as_mut().expect("checked").await }, if is_blocked => {
                Woken::Unblocked
            }
            () = queued(outbox, &body), if unsent < UNSENT_ENOUGH && !said_goodbye => {
                Woken::Queued
            }
            // So that there is always something to wait for.
            woken = std::future::pending() => woken,
        };
        match woken {
            Woken::Read(0) => return Err(End::Reset),
            Woken::Read(count) => {
                incoming.commit(count);
                conn.session.advance()?;
            }
            Woken::Written(count) => outgoing.consume(count),
            Woken::Unblocked => blocked = None,
            Woken::Queued => {}
        }
    }
}

/// Encrypts what is queued, as far as it is enough for one write. `body` is what is left of a
/// frame that was too long for that.
fn fill(outbox: &Outbox, body: &mut Bytes, conn: &mut Conn) -> Result<(), End> {
    while conn.session.unsent() < UNSENT_ENOUGH {
        if body.is_empty() {
            let Some(frame) = outbox.pop() else { break };
            conn.session.put(&frame.prefix())?;
            *body = frame.body;
        }
        let piece = body.split_to(body.len().min(PUT_MAX));
        conn.session.put(&piece)?;
    }
    conn.session.seal()?;
    Ok(())
}

/// Waits until there is something to encrypt.
async fn queued(outbox: &Outbox, body: &Bytes) {
    if body.is_empty() {
        outbox.filled().await;
    } else {
        // Others have a turn, however long the frame is.
        tokio::task::coop::consume_budget().await;
    }
}

/// Writes once, if the socket takes anything.
fn write_now(conn: &mut Conn) -> Result<(), End> {
    let (_, outgoing) = conn.session.ends();
    match conn.tcp.try_write(outgoing.filled()) {
        Ok(count) => outgoing.consume(count),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Sends all complete frames on their way, up to the first that has to wait.
fn deliver(shared: &Shared, lane: Lane, conn: &mut Conn) -> Result<Option<Blocked>, End> {
    while let Some(frame) = next_frame(conn.session.plain()).map_err(End::Wire)? {
        if Lane::of(frame.header.channel) != lane {
            return Err(End::Wire(WireError::Malformed));
        }
        if let Err(blocked) = shared.arrived(frame) {
            return Ok(Some(blocked));
        }
    }
    Ok(None)
}
