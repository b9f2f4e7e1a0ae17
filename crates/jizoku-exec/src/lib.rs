//! L3: the `exec` engine: a plain child process, kept alive elsewhere by starting it again.
//!
//! ```text
//! agent ── thread of the instance ──── loopback TCP, one for each client ──── program
//!             │   ▲                                                              │
//!       lease │   │ reports                                    its output: pipes │
//!             ▼   │                                                              ▼
//!            keeper ─────────────── starts, watches, kills ────────────────── process tree
//! ```
//!
//! - [`ExecEngine`], [`ExecInstance`]: the engine contract over a child process
//! - [`Program`]: what is run, with which ports, as whom
//! - [`keeper`]: the tiny process between agent and program, which kills the program when the
//!   agent is gone or its lease has lapsed
//!
//! What it does not know: nodes, who grants leases, when a program is to be started again.
//!
//! Invariants
//! - A program never outlives its keeper's rule: no agent, no lease, no program. The one gap: if
//!   somebody kills the keeper itself with SIGKILL, only the program's first process dies with it.
//! - A program has no state here: `Capture` is answered with an empty diff, `Changed` is never
//!   said, and no connection that was used goes on after it.
//! - Bytes are taken from a gateway's stream only when the program's socket has room, and from the
//!   program's socket only when the stream has room. So a slow side slows the other one down.
//! - Nothing is inherited by a program but its three standard descriptors.
//!
//! Limits: see [`instance`]; connections and windows as those of jizoku-streams.

#![deny(missing_docs)]

mod clock;
pub mod instance;
pub mod keeper;
mod message;
mod ports;
pub mod program;
mod usage;
mod worker;

pub use instance::{ExecEngine, ExecInstance};
pub use keeper::KeeperCommand;
pub use program::Program;
