//! What a program's host calls work on: everything of its state that is not its memory.
//!
//! What it does not know: asyncify, checkpoints, how host calls are numbered.
//!
//! Invariants
//! - A call that waits gives way to stopping and to a wanted capture before it has any effect.
//! - While the program stands in a call, nothing else changes this.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jizoku_engine::Output;
use jizoku_types::Span;
use jizoku_types::limits::STATE_MAX;
use wasmtime::{Memory, ResourceLimiter};

use crate::capture::{Recorder, Snapshot};
use crate::files::Tree;
use crate::instance::Shared;
use crate::meter::Meter;
use crate::sockets::Sockets;
use crate::stack::Stack;
use crate::state::{self, HostState};
use crate::wasi::clock::{Clocks, node_now};
use crate::wasi::descriptors::Descriptors;
use crate::wasi::errno::{End, Fail};
use crate::wasi::lines::{Allowance, Partial};
use crate::wasi::process_calls::Strings;

/// Most entries of the program's table of functions.
const TABLE_MAX: usize = 1 << 20;

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until the program's monotonic clock shows this.
    Until(u64),
    /// As long as it takes.
    Endless,
}

/// The host side of one program.
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    /// None until the program is instantiated.
    pub(crate) memory: Option<Memory>,
    pub(crate) descriptors: Descriptors,
    pub(crate) files: Tree,
    pub(crate) clocks: Clocks,
    /// Unfinished lines of standard output and error.
    pub(crate) partial: [Partial; 2],
    pub(crate) allowance: Allowance,
    pub(crate) args: Strings,
    pub(crate) environment: Strings,
    /// When, on the monotonic clock, the `poll_oneoff` under way began, if it was unwound.
    pub(crate) waiting_since: Option<u64>,
    pub(crate) stack: Stack,
    pub(crate) limits: Limits,
    pub(crate) recorder: Recorder,
    /// When restoring began, until the program goes on.
    pub(crate) restoring_since: Option<Instant>,
}

/// Limits of what the program may allocate.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) memory_max: usize,
    meter: Arc<Meter>,
    /// Whether it asked for more than it may have; tells why it then gave up.
    pub(crate) refused: bool,
}

impl Host {
    pub(crate) fn memory(&self) -> Memory {
        self.memory.expect("host calls are made by an instantiated program")
    }

    /// Tries `ready` until it gives something, the patience is over (`None`), or the program is to
    /// be stopped or captured.
    pub(crate) fn wait<T>(
        &mut self,
        patience: Patience,
        mut ready: impl FnMut(&mut Sockets) -> Option<T>,
    ) -> Result<Option<T>, Fail> {
        let shared = &self.shared;
        let mut state = shared.lock();
        state.called = node_now();
        let found = loop {
            if state.stop {
                return Err(Fail::End(End::Stopped));
            }
            if state.capture.is_some() {
                return Err(Fail::Unwind);
            }
            if let Some(found) = ready(&mut state.sockets) {
                break Some(found);
            }
            state = match patience {
                Patience::None => break None,
                Patience::Endless => {
                    state.waits = true;
                    shared.program.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
                Patience::Until(time) => {
                    let now = self.clocks.monotonic();
                    if now >= time {
                        break None;
                    }
                    state.waits = true;
                    let left = Duration::from_nanos(time - now);
                    let waited = shared.program.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waits = false;
            state.called = node_now();
        };
        state.program_ran();
        shared.unlock(state);
        Ok(found)
    }

    /// Takes everything but memory, globals and stack into the snapshot. The program has been
    /// unwound for it.
    pub(crate) fn capture(&mut self, module: [u8; 32], snapshot: &mut Snapshot) {
        let state = HostState {
            module,
            monotonic: self.clocks.monotonic(),
            waiting_since: self.waiting_since,
            descriptors: self.descriptors.entries(),
            partial: self.partial.each_ref().map(|partial| partial.0.clone()),
        };
        snapshot.host = state::encode(&state);
        snapshot.files = self.files.capture();
        self.shared.meter.set_files(self.files.used());
        let mut shared = self.shared.lock();
        snapshot.seq = shared.capture.take().expect("only a wanted capture unwinds the program");
        snapshot.sockets = shared.sockets.capture(snapshot.seq);
        shared.was_captured();
    }

    /// The program has been rewound and goes on, after a capture or a restore.
    pub(crate) fn goes_on(&mut self, snapshot: Option<Box<Snapshot>>, pause: Duration) {
        if let Some(mut snapshot) = snapshot {
            snapshot.pause = span(pause);
            self.recorder.record(snapshot);
        }
        if let Some(began) = self.restoring_since.take() {
            self.shared.push(Output::Running { took: span(began.elapsed()) });
        }
    }

    /// Does something at the sockets that never waits.
    pub(crate) fn at_sockets<T>(&mut self, action: impl FnOnce(&mut Sockets) -> T) -> T {
        let mut state = self.shared.lock();
        let result = action(&mut state.sockets);
        self.shared.unlock(state);
        result
    }

    /// Prints what the program wrote to standard output (0) or error (1).
    pub(crate) fn print(&mut self, stream: u8, bytes: &[u8]) {
        let partial = &mut self.partial[usize::from(stream.min(1))];
        let allowance = &mut self.allowance;
        let mut lines = Vec::new();
        partial.take(bytes, |line| {
            allowance.pass(node_now(), line, |line| lines.push(line));
        });
        if !lines.is_empty() {
            let mut state = self.shared.lock();
            lines.into_iter().for_each(|line| state.print(line));
            self.shared.unlock(state);
        }
    }
}

/// A length of time in the contract's type.
pub(crate) fn span(duration: Duration) -> Span {
    Span::nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

impl Limits {
    pub(crate) fn new(memory_max: u64, meter: Arc<Meter>) -> Limits {
        let memory_max = memory_max.min(STATE_MAX.0) as usize;
        Limits { memory_max, meter, refused: false }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.memory_max;
        self.refused |= !allowed;
        if allowed {
            self.meter.set_memory(desired as u64);
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_MAX)
    }
}
