//! L5: campaigns of faults on real agents with real clients, for as long as they are told.
//!
//! - [`plan`]: which faults come in which order, by seed (pure)
//! - [`check`]: what clients may see (pure), with planted violations that it must find
//! - [`clients`], [`web`]: clients, and what they saw
//! - [`machines`]: agents as processes, each with network, disk, memory and clock of its own as
//!   far as this machine lets us
//! - [`disk`]: file systems that are full, slow, or lose what wasn't flushed
//! - [`inject`]: how each kind of fault is made and healed
//! - [`campaign`]: one step after the other, and the judgement of each
//! - [`quiet`]: no fault at all, on a machine that is busy
//! - [`report`]: the table and the JSON
//!
//! What it does not know: anything that a user could not know, beside what it does to the
//! processes. Real time is not deterministic: the seed repeats what is done, not what comes of it.
//!
//! Invariant: whatever a campaign starts ends with it. `cargo xtask soak` gives it namespaces for
//! processes and mounts, which the kernel clears when it is gone.

pub mod campaign;
pub mod check;
pub mod clients;
pub mod disk;
pub mod inject;
pub mod machines;
pub mod plan;
pub mod quiet;
pub mod report;
pub mod web;
