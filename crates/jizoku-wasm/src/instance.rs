//! A running program as the engine contract wants it: inputs go in, outputs come out.
//!
//! The program runs on a thread of its own. What both sides touch lies behind one lock: the
//! sockets, so that gateways are answered while the program computes, and the outputs.
//!
//! What it does not know: wasmtime, host calls.
//!
//! Invariants
//! - The lock is never held while anybody waits, or longer than copying a message takes.
//! - The waker is called, without the lock, when there is an output and `poll` said `None` since
//!   the last call. It is not called for what `handle` itself brings about.
//! - `Changed` that comes from after a capture is said after its `Captured`.
//! - `Exited` is the last output, and is said even if the program's thread panics.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jizoku_checkpoint::image::Diff;
use jizoku_engine::{Exit, Input, Instance, Output, Pulse, Usage};
use jizoku_types::{ByteCount, Instant, Span};

use crate::host::span;
use crate::meter::Meter;
use crate::sockets::Sockets;
use crate::track::Tracking;
use crate::wasi::clock::node_now;

/// Called when `poll` has something to give.
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Printed lines that wait for `poll` at most; further ones are left out.
const OUTPUTS_MAX: usize = 8192;

/// A program on its thread.
///
/// Dropping it stops the program without waiting for its thread.
pub struct WasmInstance {
    shared: Arc<Shared>,
    interrupt: Box<dyn Fn() + Send + Sync>,
}

/// What the program's thread and the instance's owner share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The program waits here.
    pub(crate) program: Condvar,
    tracking: AtomicU8,
    pub(crate) meter: Arc<Meter>,
}

/// Behind the lock.
pub(crate) struct State {
    pub(crate) sockets: Sockets,
    pub(crate) outputs: VecDeque<Output>,
    /// The number of the capture that is wanted and not begun.
    pub(crate) capture: Option<u64>,
    pub(crate) stop: bool,
    /// The program is in [`Shared::program`].
    pub(crate) waits: bool,
    /// When the program last made a call that could wait, on the node's clock.
    pub(crate) called: u64,
    runs: bool,
    exit: Option<Exit>,
    exited: bool,
    /// The owner's clock minus the node's, wrapping: it is told with each input.
    clock_offset: u64,
    /// The owner has been called, and has not seen the end of the outputs since.
    woken: bool,
    waker: Option<Waker>,
    /// `Changed` was said since the last capture.
    said_changed: bool,
    /// `Changed` was said with the output that waits now.
    said_waits: bool,
    /// What is said of changes since a capture whose answer is still being made.
    unsaid: Option<VecDeque<Output>>,
}

impl Shared {
    pub(crate) fn new(sockets: Sockets) -> Shared {
        let state = State {
            sockets,
            outputs: VecDeque::new(),
            capture: None,
            stop: false,
            waits: false,
            called: node_now(),
            runs: false,
            exit: None,
            exited: false,
            clock_offset: 0,
            woken: false,
            waker: None,
            said_changed: false,
            said_waits: false,
            unsaid: None,
        };
        Shared {
            state: Mutex::new(state),
            program: Condvar::new(),
            tracking: AtomicU8::new(Tracking::Compare as u8),
            meter: Arc::default(),
        }
    }

    /// Takes the lock. A panic elsewhere does not spread: each change under the lock is whole.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the lock back and wakes the owner if there is something for it.
    pub(crate) fn unlock(&self, mut state: MutexGuard<'_, State>) {
        state.tell_waiting_output();
        let waker = state.due_waker();
        drop(state);
        if let Some(waker) = waker {
            waker();
        }
    }

    pub(crate) fn must_stop(&self) -> bool {
        self.lock().stop
    }

    pub(crate) fn push(&self, output: Output) {
        let mut state = self.lock();
        if matches!(output, Output::Running { .. }) {
            state.runs = true;
            state.called = node_now();
        }
        state.outputs.push_back(output);
        self.unlock(state);
    }

    /// Answers a capture.
    pub(crate) fn captured(&self, seq: u64, diff: Diff, pause: Span) {
        let mut state = self.lock();
        state.captured(Output::Captured { seq, diff, pause });
        self.unlock(state);
    }

    /// Says that the program has ended. The first reason counts.
    pub(crate) fn end(&self, exit: Exit) {
        let mut state = self.lock();
        if !state.exited {
            state.exit.get_or_insert(exit);
        }
        self.unlock(state);
    }

    /// Ends the program, for a reason that it does not know of itself.
    pub(crate) fn abort(&self, exit: Exit) {
        self.lock().stop = true;
        self.program.notify_all();
        self.end(exit);
    }

    pub(crate) fn set_tracking(&self, tracking: Tracking) {
        self.tracking.store(tracking as u8, Ordering::Relaxed);
    }
}

impl State {
    /// The program goes on: its state is not what was captured.
    pub(crate) fn program_ran(&mut self) {
        if !self.said_changed {
            self.changed(false);
        }
    }

    /// The state was captured; what was said of changes is over.
    pub(crate) fn was_captured(&mut self) {
        self.said_changed = false;
        self.said_waits = false;
        self.unsaid = Some(VecDeque::new());
    }

    /// The answer to a capture. What changed since is said after it.
    pub(crate) fn captured(&mut self, captured: Output) {
        self.outputs.push_back(captured);
        self.outputs.extend(self.unsaid.take().into_iter().flatten());
    }

    /// A line is passed on unless its reader is far behind.
    pub(crate) fn print(&mut self, line: String) {
        if self.outputs.len() < OUTPUTS_MAX {
            self.outputs.push_back(Output::Printed { line });
        }
    }

    fn tell_waiting_output(&mut self) {
        let waits = self.sockets.output_waits();
        if waits && !self.said_waits {
            self.changed(true);
        }
        self.said_waits = waits;
    }

    fn changed(&mut self, output_waits: bool) {
        self.said_changed = true;
        let outputs = self.unsaid.as_mut().unwrap_or(&mut self.outputs);
        outputs.push_back(Output::Changed { output_waits });
    }

    fn due_waker(&mut self) -> Option<Waker> {
        let something =
            !self.outputs.is_empty() || self.exit.is_some() || self.sockets.has_output();
        if self.woken || !something {
            return None;
        }
        self.woken = true;
        self.waker.clone()
    }
}

impl WasmInstance {
    /// `interrupt` makes a program that computes look at whether it is to stop.
    pub(crate) fn new(shared: Arc<Shared>, interrupt: Box<dyn Fn() + Send + Sync>) -> WasmInstance {
        WasmInstance { shared, interrupt }
    }

    /// Sets what is called when `poll` has something to give. It is called from the program's
    /// thread and must not block; it may be called once too often.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        let mut state = self.shared.lock();
        state.waker = Some(Arc::new(waker));
        // Whatever came up before there was a waker.
        state.woken = false;
        self.shared.unlock(state);
    }

    /// How changed memory is found. Known for certain once it is `Running`.
    pub fn tracking(&self) -> Tracking {
        if self.shared.tracking.load(Ordering::Relaxed) == Tracking::Userfault as u8 {
            Tracking::Userfault
        } else {
            Tracking::Compare
        }
    }

    fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.program.notify_all();
        (self.interrupt)();
    }
}

impl Instance for WasmInstance {
    fn handle(&mut self, now: Instant, input: Input) {
        let mut state = self.shared.lock();
        if state.exit.is_some() || state.exited {
            return;
        }
        state.clock_offset = now.as_nanos().wrapping_sub(node_now());
        match input {
            Input::FromGateway { gateway, message } => {
                state.sockets.handle(now, gateway, message);
            }
            Input::GatewayGone { gateway } => state.sockets.gateway_gone(gateway),
            Input::Capture { seq } => state.capture = Some(seq),
            Input::Committed { seq } => state.sockets.committed(seq),
            Input::Quarantine => state.sockets.quarantine(),
            Input::Tick => state.sockets.advance(now),
            Input::Stop => {
                drop(state);
                return self.stop();
            }
        }
        state.tell_waiting_output();
        let waits = state.waits;
        drop(state);
        if waits {
            self.shared.program.notify_all();
        }
    }

    fn poll(&mut self) -> Option<Output> {
        let mut state = self.shared.lock();
        if state.exited {
            return None;
        }
        if let Some((gateway, message)) = state.sockets.poll() {
            return Some(Output::ToGateway { gateway, message });
        }
        if let Some(output) = state.outputs.pop_front() {
            return Some(output);
        }
        // Its timers depend on what was just taken out.
        let now = node_now().wrapping_add(state.clock_offset);
        state.sockets.advance(Instant::from_nanos(now));
        state.woken = false;
        let exit = state.exit.take()?;
        state.exited = true;
        Some(Output::Exited { exit })
    }

    fn deadline(&self) -> Option<Instant> {
        self.shared.lock().sockets.deadline()
    }

    fn usage(&self) -> Usage {
        let meter = &self.shared.meter;
        Usage { pid: None, cpu: span(meter.time()), memory: ByteCount(meter.memory()) }
    }

    fn pulse(&self, _now: Instant) -> Pulse {
        let state = self.shared.lock();
        let now = node_now();
        let since = |then: u64| Span::nanos(now.saturating_sub(then));
        let silent = if state.waits { Span::ZERO } else { since(state.called) };
        let unaccepted = state.sockets.unaccepted().map(|then| then.map_or(Span::ZERO, since));
        let ended = state.exit.is_some() || state.exited;
        Pulse { runs: state.runs && !ended, silent, unaccepted: unaccepted.collect() }
    }
}

impl Drop for WasmInstance {
    fn drop(&mut self) {
        self.stop();
    }
}
