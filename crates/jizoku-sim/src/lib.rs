//! L5: whole clusters in one thread, by seed.
//!
//! The simulator runs the values that the agent runs: Node, Consensus, Holder, Runner, GatewayEnd
//! and, through the fake engine, InstanceEnd. Around them it plays machines, clocks, disks, links,
//! clients and operators, and makes trouble. What must not be is found by the [`oracle`].
//!
//! - [`plan`]: what a seed stands for; [`world`]: one run, event by event
//! - [`machine`], [`life`], [`clock`], [`disk`]: machines and the agents on them
//! - [`net`], [`links`]: frames under way, and connections
//! - [`clients`], [`history`]: who asks, and what they saw
//! - [`lines`], [`branches`]: what goes on from what, when sides go on by themselves
//! - [`bug`]: planted bugs that the checkers must find
//! - [`scale`]: figures of large clusters at rest
//! - [`rng`]: the only source of chance
//!
//! What it does not know: sockets, files, threads (but one for each seed), real time.
//!
//! Invariant: the same seed and the same choice give the same run, to the last event.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod branches;
pub mod bug;
pub mod clients;
pub mod clock;
pub mod disk;
pub mod history;
pub mod life;
pub mod lines;
pub mod links;
pub mod machine;
pub mod net;
pub mod operator;
pub mod oracle;
pub mod plan;
pub mod rng;
pub mod scale;
pub mod traffic;
pub mod troubles;
pub mod world;
