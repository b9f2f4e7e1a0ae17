//! L2: the contract between an engine and whoever runs its instances.
//!
//! An *engine* turns a service's program into *instances*. An [`Instance`] is driven with messages
//! only: [`Input`] in, [`Output`] out. The real ones run a program on a thread or in a process and
//! put channels behind these verbs; the fake in [`fake`] computes its answers in place, so that
//! the simulator needs no thread.
//!
//! What every engine must hold is written down as a list of properties in `conformance` (feature
//! `conformance`), and each engine's tests run it.
//!
//! What it does not know: nodes, holders, the catalog, how checkpoints travel.
//!
//! Invariants
//! - An instance goes through `Starting -> Running -> Exited` and never back.
//! - After [`Output::Exited`] nothing follows.
//! - [`Input::Capture`] is answered by exactly one [`Output::Captured`], or by `Exited`.
//! - The instance answers gateways by its own `InstanceEnd`; what it sent before a capture is
//!   covered by that capture.
//! - `Captured` holds the complete truth: an instance restored from the image that it leads to,
//!   and given the input after the consumed offsets, is as good as the one that was captured.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(test, feature = "conformance"))]
extern crate std;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod fake;
mod pulse;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use jizoku_checkpoint::image::{Diff, Image};
use jizoku_streams::{ToGateway, ToInstance};
use jizoku_types::{ByteCount, Epoch, GatewayId, Instant, ServiceId, Span};

pub use pulse::{Pulse, Stuck};

/// What an instance begins from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The program's beginning.
    Fresh,
    /// A checkpoint: its image, and its number.
    Restored {
        /// The state.
        image: Image,
        /// Its number; the next capture is one higher.
        seq: u64,
    },
}

/// Who an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its service.
    pub service: ServiceId,
    /// Its epoch; every message it emits carries it.
    pub epoch: Epoch,
    /// Whether output waits for commits (`held`) or not (`free`).
    pub held: bool,
}

/// What an instance is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message of a gateway.
    FromGateway {
        /// Whose.
        gateway: GatewayId,
        /// What.
        message: ToInstance,
    },
    /// This gateway will not come back: its connections are reset for the program.
    GatewayGone {
        /// Whose.
        gateway: GatewayId,
    },
    /// Capture the state as soon as the program waits in a host call, and go on in place.
    /// Never sent while another capture is under way.
    Capture {
        /// The checkpoint's number: the last one plus 1.
        seq: u64,
    },
    /// The checkpoint `seq` and all before it are committed: what they cover may be released.
    Committed {
        /// The highest committed number.
        seq: u64,
    },
    /// Two instances crashed from the same checkpoint: connections that had input after it are
    /// reset (`InstanceEnd::quarantine`). Only as the very first input.
    Quarantine,
    /// Time has passed: [`Instance::deadline`] was reached.
    Tick,
    /// End. `Exited` follows.
    Stop,
}

/// What an instance tells.
#[derive(Clone, Debug)]
pub enum Output {
    /// It runs: it takes connections now.
    Running {
        /// How long starting or restoring took.
        took: Span,
    },
    /// A message to a gateway.
    ToGateway {
        /// To whom.
        gateway: GatewayId,
        /// What.
        message: ToGateway,
    },
    /// Its state is not what was last captured. Said once after each capture, at the first change
    /// or at the first waiting output, whichever is earlier; said again when `output_waits`
    /// becomes true.
    Changed {
        /// Whether output waits for a commit: take a checkpoint at once.
        output_waits: bool,
    },
    /// The answer to [`Input::Capture`].
    Captured {
        /// Its number.
        seq: u64,
        /// What changed since the capture before, or since the origin.
        diff: Diff,
        /// How long the program stood still.
        pause: Span,
    },
    /// A line that the program wrote to its standard output or error.
    Printed {
        /// Without its newline; at most [`PRINTED_LINE_MAX`] bytes, longer ones are cut.
        line: String,
    },
    /// It ended.
    Exited {
        /// Why.
        exit: Exit,
    },
}

/// Longest line that is passed on as one, in bytes.
pub const PRINTED_LINE_MAX: usize = 8192;

/// Why an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Stopped,
    /// The program ended by itself with this status.
    Status(i32),
    /// The program did something that it must not (a trap, a signal, too much memory).
    Crashed(String),
    /// It could not be started or restored here; another node may be able to.
    CannotStart(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Stopped => f.write_str("stopped"),
            Exit::Status(status) => write!(f, "ended with status {status}"),
            Exit::Crashed(why) => write!(f, "crashed: {why}"),
            Exit::CannotStart(why) => write!(f, "can't start here: {why}"),
        }
    }
}

/// What an instance uses of the machine that it runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The system's number of its first process; none if it has no process of its own.
    pub pid: Option<u32>,
    /// Processor time that it has used since it was started here, with all that it started.
    /// It never gets less, and stays after the instance has ended.
    pub cpu: Span,
    /// Memory that it takes now: of processes what is resident, of a program inside the agent its
    /// memory and its private files.
    pub memory: ByteCount,
}

/// A running instance.
pub trait Instance {
    /// Applies one input at `now`; then `poll` until `None`.
    fn handle(&mut self, now: Instant, input: Input);
    /// The next output, if there is one.
    fn poll(&mut self) -> Option<Output>;
    /// When to call `handle` or `poll` again although nothing came in.
    fn deadline(&self) -> Option<Instant>;
    /// What it uses. Costs some system calls for each of its processes: for people and for
    /// balancing, a few times a second at most.
    fn usage(&self) -> Usage;
    /// Whether it takes connections, seen from inside. Looking leaves no trace in its state.
    fn pulse(&self, now: Instant) -> Pulse;
}

/// Collects everything that an instance has to say now.
pub fn drain(instance: &mut dyn Instance) -> Vec<Output> {
    core::iter::from_fn(|| instance.poll()).collect()
}
