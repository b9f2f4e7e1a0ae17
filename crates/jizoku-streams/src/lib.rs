//! L1: the connections between clients' gateways and instances, exactly once across failover.
//!
//! - [`message`]: what the two ends say to each other
//! - [`instance`]: the end beside the program, which is the program's socket table
//! - [`gateway`]: the end on each node, beside the clients
//! - [`lineage`]: whether what a client has seen lies in the history of the restored state
//! - [`buffer`]: a stretch of a stream, by absolute offsets
//! - [`limits`]: windows and times of this protocol
//! - `faults`: test-only bugs (feature `faults`)
//!
//! A client's bytes go through its gateway's window to the program, and stay in that window until
//! a committed checkpoint has consumed them. The program's bytes stay in the program's state until
//! the client has them; with `held` output the client gets them only when the checkpoint that
//! produced them is committed. So whichever end dies, the other one still has what is missing.
//!
//! What it does not know: sockets, the mesh, checkpoints' blocks, who is active and why.
//!
//! Invariants
//! - Bytes have absolute offsets from 0; a byte is never taken twice, left out or reordered.
//! - Nothing from the wire panics, or makes an end keep more than the limits allow. What is
//!   against the protocol costs the connection that it names, and is counted.
//! - All collections are ordered: the same inputs give the same outputs.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod buffer;
#[cfg(test)]
mod dice;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
pub mod gateway;
#[cfg(test)]
mod hostile;
pub mod instance;
pub mod limits;
pub mod lineage;
pub mod message;
#[cfg(test)]
mod model;

pub use gateway::GatewayEnd;
pub use instance::InstanceEnd;
pub use message::{ToGateway, ToInstance};
