//! L0: the vocabulary that every other crate speaks.
//!
//! - [`time`]: instants and spans in nanoseconds; nobody reads a clock here
//! - [`id`]: nodes, incarnations, clusters, services, connections
//! - [`epoch`]: who may speak for a service, and the order of its checkpoints
//! - [`size`]: byte counts
//! - [`limits`]: every limit of the system as a named constant
//! - [`spec`]: what a user asked for, already checked
//! - [`event`]: the one list of things that happen
//! - [`frame`]: the envelope of everything that crosses the mesh
//!
//! What it does not know: protocols, files, sockets, how anything is decided.
//! Purity: `no_std`; collections are ordered; nothing here allocates without a bound known to
//! its caller.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod epoch;
pub mod event;
pub mod frame;
pub mod id;
pub mod limits;
pub mod size;
pub mod spec;
pub mod time;

pub use epoch::{BranchId, CheckpointId, Epoch};
pub use event::Event;
pub use frame::{Channel, decode, encode};
pub use id::{
    ClusterId, ConnId, GatewayId, Generation, Incarnation, Member, NodeId, ServiceId, ServiceName,
};
pub use size::ByteCount;
pub use time::{Instant, Span};
