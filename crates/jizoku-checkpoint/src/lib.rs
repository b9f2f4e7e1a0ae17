//! L1: the state of an instance: what a checkpoint is, how it is shipped, held, sealed, collected.
//!
//! - [`image`]: the state as named byte spaces with a Merkle root; diffs between states
//! - [`chain`]: the checkpoints that one holder has of one service
//! - [`message`]: what travels between the active node, holders and collectors
//! - [`record`]: what a holder writes to disk, and how it is read back
//! - [`ship`]: at the active node: sends checkpoints, says when they are committed
//! - [`holder`]: on every node: keeps, refuses, seals, reports
//! - [`collect`]: in a takeover: finds the state to go on from and fetches it
//! - [`fault`]: mistakes that a test can plant
//!
//! What it does not know: engines, the catalog, who should hold or go on, sockets, files, clocks.
//!
//! Invariants that the model test (`model.rs`) checks
//! - A checkpoint that was committed with a copy elsewhere is found by every later takeover, while
//!   one member of the holder set lives.
//! - After a holder has reported under a seal, it acknowledges nothing of a lower epoch.
//! - An image that is given out has the root that it had when it was captured.
//!
//! [`ship`], [`holder`] and [`collect`] don't import one another: they meet in [`message`] only.
//!
//! BLAKE3 finds out by itself which vector instructions there are, without its `std` feature, where
//! the target has an operating system; so nobody has to turn that feature on.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod chain;
pub mod collect;
pub mod fault;
pub mod holder;
pub mod image;
pub mod message;
pub mod record;
pub mod ship;

#[cfg(test)]
mod dice;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod garbage;
#[cfg(test)]
mod model;
