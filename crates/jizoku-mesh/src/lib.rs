//! L3: links between nodes, and relaying over them.
//!
//! A [`Mesh`] keeps TCP links under TLS 1.3 to the members that its owner names, carries frames
//! on five channels, relays frames for others, and says which links are up. What the frames mean
//! is the owner's business; so is which way a relayed frame takes.
//!
//! - [`identity`]: a node's key pair and its file
//! - [`clock`]: the agent's clock
//! - [`Mesh`], [`MeshHandle`], [`Mailbox`]: the mesh, what it can be told, what it tells
//! - [`join`]: the one request that a stranger may make
//! - [`Stats`]: what was carried, dropped and refused
//! - `fuzz`: what bytes of others go through, for the fuzzer only (feature `fuzz`)
//!
//! Inside: `trust` (TLS settings), `buffer`, `tls`, `conn` (one connection), `hello` (the
//! greeting), `greet` and `dial` (both ends of it), `hub` (which attempt is the link), `link`,
//! `carry` (one lane's task), `outbox` and `inbox` (bounded queues), `heart` (beats, on a thread
//! of its own), `shared` (tables, and the way of a frame), `limits`.
//!
//! What it does not know: services, the catalog, who should be a member.
//!
//! Invariants
//! - Nothing of a peer that isn't a member is interpreted, but for one bounded join request.
//! - Each channel keeps its order from node to node while a link lives; what was queued or under
//!   way on a link that went down is lost, and nothing arrives twice.
//! - Every queue is bounded; nothing that a peer sends can make this node panic.

#![forbid(unsafe_code)]

mod buffer;
mod carry;
pub mod clock;
mod conn;
mod dial;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod greet;
mod heart;
mod hello;
mod hub;
pub mod identity;
mod inbox;
mod join;
pub mod limits;
mod link;
mod mesh;
mod outbox;
mod shared;
mod stats;
mod tls;
mod trust;
mod wire;

#[cfg(test)]
mod tests;

pub use clock::boottime_now;
pub use hello::Refusal;
pub use identity::{Identity, IdentityError};
pub use inbox::{INBOX_MAX, Inbox, Incoming};
pub use join::{JoinError, JoinRequest, join};
pub use mesh::{
    LinkState, Mailbox, Mesh, MeshConfig, MeshEvent, MeshHandle, SendError, StartError,
};
pub use stats::{ChannelStats, Stats};
