//! L1: the deciding cores, each a value with `handle`, `poll` and `deadline`, or a function.
//!
//! - [`catalog`]: who exists and who may serve, as a deterministic function of commands
//! - [`lease`]: who may emit `free` output, and until when
//! - [`liveness`]: whether a link's other end is alive
//! - [`placement`]: which nodes should hold
//! - [`reach`]: link states, who can be reached, and by which way
//! - [`succession`]: who goes on
//! - [`watch`]: whether a service really serves
//!
//! The cores that outgrew this room are crates of their own: jizoku-checkpoint, jizoku-streams.
//!
//! Invariant: these modules don't know each other (checked); only the node composes them.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod catalog;
pub mod lease;
pub mod liveness;
pub mod placement;
pub mod reach;
pub mod succession;
pub mod watch;
