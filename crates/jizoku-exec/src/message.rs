//! What agent and keeper say to each other, over a socket that keeps messages whole.
//!
//! What it does not know: who sends when.
//!
//! Invariant: the closing of the socket is a message too: the other side is gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use jizoku_types::{decode, encode};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message, in bytes. A manifest's command and environment have at most 32 KiB.
pub(crate) const MESSAGE_MAX: usize = 128 << 10;

/// From the agent to the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first message: start this.
    Start(Start),
    /// The program may run until then, in nanoseconds of CLOCK_BOOTTIME.
    Lease(u64),
    /// Ask the program to end; kill it after so many nanoseconds.
    Stop { grace: u64 },
}

/// What the keeper starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Program and arguments; at least the program.
    pub(crate) command: Vec<String>,
    /// All of the environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Run as this user.
    pub(crate) user: Option<String>,
    /// Where it runs.
    pub(crate) folder: String,
    /// The first lease; none: no lease is needed.
    pub(crate) lease: Option<u64>,
}

/// From the keeper to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The program runs.
    Started { pid: u32 },
    /// The program could not be started. Last message.
    NotStarted { why: String },
    /// The program has ended by itself, or as it was asked to, and nothing of it is left. Last.
    Ended(End),
    /// The lease had lapsed; the program was killed. Last.
    LeaseLapsed,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// Sends one message. Fails if it doesn't fit the socket's buffer now.
pub(crate) fn tell<M: Serialize>(socket: impl AsFd, message: &M) -> io::Result<()> {
    let bytes = encode(message);
    if bytes.len() > MESSAGE_MAX {
        return Err(io::Error::other("command and environment are too long"));
    }
    send(socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// What was heard.
pub(crate) enum Heard<M> {
    /// A message.
    Message(M),
    /// Nothing waits.
    Nothing,
    /// The other side is gone, or says what makes no sense.
    Gone,
}

/// Takes one message, if there is one.
pub(crate) fn hear<M: DeserializeOwned>(socket: impl AsFd, room: &mut [u8]) -> Heard<M> {
    loop {
        return match recv(&socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Heard::Gone,
            Ok((_, length)) => match decode(&room[..length.min(room.len())]) {
                Ok(message) => Heard::Message(message),
                Err(_) => Heard::Gone,
            },
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => Heard::Nothing,
            Err(_) => Heard::Gone,
        };
    }
}
