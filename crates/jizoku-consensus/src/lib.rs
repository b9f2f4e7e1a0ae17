//! L3: the consensus that replicates the catalog's commands, as a value.
//!
//! [`Consensus`] wraps openraft. openraft is asynchronous; here it runs on an executor of the
//! value's own, whose clock is the `now` of each call and whose randomness is a seed. So the agent
//! and the simulator run the same code, and the same seed gives the same run.
//!
//! - `runtime`: the executor, its channels and timers
//! - [`Consensus`]: the value; [`Input`], [`Output`], [`Config`]: how it is spoken to
//! - [`Record`], [`Recovered`]: what must be on the disk, and what it adds up to
//! - `log`, `wire`: the log's entries and the messages, in forms of our own
//! - `launch`, `bridge`, `storage`, `machine`, `network`, `serving`: openraft's rim
//! - `election`: when to send heartbeats and ask for elections
//! - `proposals`, `leading`, `members`: commands and changes of voters on their way
//!
//! What it does not know: what commands mean, how messages travel, where records are written.
//!
//! Why openraft, and why so: `docs/decisions/0001-consensus.md`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bridge;
mod consensus;
mod effects;
mod election;
mod interface;
mod launch;
mod leading;
mod log;
mod machine;
mod members;
mod network;
mod proposals;
mod record;
mod runtime;
mod serving;
mod storage;
mod wire;

pub use consensus::Consensus;
pub use interface::{
    Config, Dropped, Input, Output, PROPOSALS_MAX, PersistToken, RefuseReason, Status, StopReason,
};
pub use log::{COMMAND_MAX, LogId, MEMBERS_MAX};
pub use record::{RECORD_FORMAT, Record, RecoverError, Recovered, SNAPSHOT_MAX};
