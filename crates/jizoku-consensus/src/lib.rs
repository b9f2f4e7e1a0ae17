//! L1: the consensus that replicates the catalog's commands: Raft, as a value.
//!
//! Ongaro's Raft (dissertation, 2014) with pre-votes (9.6), leader leases that refuse disruptive
//! votes (4.2.3), joint changes of members (4.3), snapshots in parts (5), handing over the lead
//! (3.10), learners, and a hint of our own: a reset connection tells of a leader's death.
//!
//! - [`Consensus`]: the value; [`Input`], [`Output`], [`Config`]: how it is spoken to
//! - [`Record`], [`Recovered`]: what must be on the disk, and what it adds up to
//! - `log`, `wire`: the log's entries, and the messages
//! - `outbox`: what leaves the value, and what waits for the disk
//! - `election`: when to send heartbeats and ask for elections
//! - `proposals`: commands and changes of voters on their way
//!
//! What it does not know: what commands mean, how messages travel, where records are written;
//! clocks, threads.
//!
//! Why our own: `docs/decisions/0011-raft.md`.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod consensus;
mod election;
mod interface;
mod log;
mod outbox;
mod proposals;
mod record;
mod wire;

pub use consensus::Consensus;
pub use interface::{
    Config, Dropped, Input, Output, PROPOSALS_MAX, PersistToken, RefuseReason, Status, StopReason,
};
pub use log::{COMMAND_MAX, LogId, MEMBERS_MAX};
pub use record::{RECORD_FORMAT, Record, RecoverError, Recovered, SNAPSHOT_MAX};
