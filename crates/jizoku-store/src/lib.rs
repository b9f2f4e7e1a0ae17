//! L3: the node's data folder: what a node must find again after its agent, or its machine, died.
//!
//! ```text
//! DATA/                     0700, held by one agent at a time (flock on `lock`)
//!   format                  the number of this layout
//!   lock
//!   config.toml             written by `init` and `join`, then the operator's
//!   key                     the node's secret, 0600; the mesh reads and writes it
//!   incarnation             how often an agent was started here
//!   cluster                 to which cluster it belongs
//!   members                 how to find the others
//!   consensus/journal       votes and log entries
//!   state/svc_7/journal     checkpoints of a service that this node holds;
//!                           of a branch: state/svc_7.br_5f..
//!   blobs/5f/5f12...        modules, by their BLAKE3 hash
//!   quarantine/             damaged things, moved aside; the newest few are kept
//! ```
//!
//! - [`DataFolder`]: the folder itself, its lock and its small files
//! - [`ConsensusLog`]: records of the catalog's replication, each flushed before it counts
//! - [`StateStore`]: checkpoints of held services, flushed at once or within a second
//! - [`Blobs`]: modules by their hash
//! - `fuzz`: files that somebody damaged, for the fuzzer only (feature `fuzz`)
//!
//! What it does not know: what any of the bytes mean; who asks for them.
//!
//! Invariants
//! - Everything read back was checked by its checksum. Damage is reported and moved aside; it
//!   never stops the agent by itself, and it never looks like something else.
//! - Small files are replaced as a whole: a crash leaves the old one or the new one.
//! - A journal (see [`journal`]) loses at most what was not flushed, and only from its end.
//! - Formats are numbered. A newer one is refused and left as it is.
//! - What is asked of a writer thread is done in the order in which it was asked.
//!
//! Limits: [`journal::RECORD_MAX`], [`state::QUEUE_MAX`], [`blobs::BLOB_MAX`],
//! [`folder::QUARANTINE_MAX`].

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod blobs;
pub mod consensus;
pub mod folder;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod journal;
pub mod room;
pub mod small;
pub mod state;

pub use blobs::{BlobError, Blobs};
pub use consensus::{ConsensusLog, LogDone, LogError};
pub use folder::{DataFolder, FolderError, Small};
pub use journal::Tail;
pub use state::{
    Found, Line, Refused, Source, StateDone, StateOptions, StateStore, Urgency, Verdict, WriteError,
};

#[cfg(test)]
mod scratch;
