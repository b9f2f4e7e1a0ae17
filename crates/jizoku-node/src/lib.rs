//! L2: the composition. Only here do cores meet.
//!
//! - [`fault`]: mistakes that the simulator plants to try its checkers
//! - [`node`]: the deciding half of a node; applies one input, restores its invariants, emits
//!   effects
//! - [`runner`]: one service's life at its active node: seal, collect, restore, checkpoint,
//!   commit, release
//! - [`wire`]: what nodes say to each other on the channels Control, Streams and State
//!
//! What it does not know: clocks, sockets, disks, threads. The agent and the simulator drive
//! these values in the same way.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod fault;
pub mod node;
pub mod runner;
pub mod wire;

pub use node::Node;
pub use runner::Runner;
