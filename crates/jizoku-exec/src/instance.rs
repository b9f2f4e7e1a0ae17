//! A running program as the engine contract wants it: inputs go in, outputs come out.
//!
//! Everything happens on a thread of the instance's own ([`crate::worker`]); here are the queues
//! between it and the instance's owner.
//!
//! What it does not know: sockets, processes.
//!
//! Invariants
//! - The lock is held only while something is put into a queue or taken out.
//! - The waker is called, without the lock, when there is an output and `poll` said `None` since
//!   the last call.
//! - `Exited` is the last output, and is said even if the thread panics.
//!
//! Limits: [`INPUTS_MAX`], [`OUTPUTS_MAX`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant as Moment};

use jizoku_engine::{Exit, Identity, Input, Instance, Output, Pulse, Usage};
use jizoku_types::{ByteCount, Instant, Span};

use crate::clock::boot_nanos;
use crate::keeper::KeeperCommand;
use crate::message::{Order, tell};
use crate::program::Program;
use crate::usage;
use crate::worker;

/// Messages of gateways that wait to be handled. Beyond that they are dropped, as a network
/// may; the sessions repeat what was lost.
pub const INPUTS_MAX: usize = 65_536;
/// Outputs that wait for `poll`, before printed lines are left out.
pub const OUTPUTS_MAX: usize = 8_192;

/// Called when `poll` has something to give.
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Starts programs.
#[derive(Clone, Debug, Default)]
pub struct ExecEngine {
    keeper: KeeperCommand,
    times: Times,
}

/// How long a program may take for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Until it listens on all its ports.
    pub(crate) listen_within: Duration,
    /// Until it takes a connection once it runs.
    pub(crate) connect_within: Duration,
    /// Between being asked to end and being killed.
    pub(crate) stop_grace: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            listen_within: Duration::from_secs(30),
            connect_within: Duration::from_secs(2),
            stop_grace: Duration::from_secs(1),
        }
    }
}

impl ExecEngine {
    /// An engine whose keepers are started like this.
    pub fn new(keeper: KeeperCommand) -> ExecEngine {
        ExecEngine { keeper, times: Times::default() }
    }

    /// How long a program may take until it listens on all its ports; then it counts as crashed.
    /// 30 s by default.
    #[must_use]
    pub fn listen_within(mut self, span: Span) -> ExecEngine {
        self.times.listen_within = Duration::from_nanos(span.as_nanos());
        self
    }

    /// How long a program may take to end when it is asked to; then it is killed. 1 s by default.
    #[must_use]
    pub fn stop_grace(mut self, span: Span) -> ExecEngine {
        self.times.stop_grace = Duration::from_nanos(span.as_nanos());
        self
    }

    /// Starts the program. It may run until `lease`, a moment of CLOCK_BOOTTIME, and longer when
    /// [`ExecInstance::renew`] says so; without a lease it may run for as long as the agent does.
    ///
    /// What goes wrong is told by the instance: `Exited`, with `CannotStart`.
    ///
    /// # Panics
    /// If the identity says `held`: there is no state to hold output for.
    pub fn start(
        &self,
        program: Program,
        identity: Identity,
        lease: Option<Instant>,
    ) -> ExecInstance {
        assert!(!identity.held, "an exec service has no state to hold output for");
        let name = format!("exec-{}", identity.service);
        let shared = Arc::new(Shared::default());
        let job = worker::Job {
            keeper: self.keeper.clone(),
            times: self.times,
            program,
            identity,
            lease,
            shared: shared.clone(),
        };
        let started = mio::Poll::new().and_then(|poll| {
            let _ = shared.thread.set(mio::Waker::new(poll.registry(), worker::WAKER)?);
            std::thread::Builder::new().name(name).spawn(move || worker::run(job, poll))
        });
        if let Err(cause) = started {
            shared.push(Output::Exited { exit: Exit::CannotStart(cause.to_string()) });
        }
        ExecInstance { shared }
    }
}

/// A program under its keeper.
///
/// Dropping it kills the program without waiting for its end.
pub struct ExecInstance {
    shared: Arc<Shared>,
}

/// What the thread and the instance's owner share.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    thread: OnceLock<mio::Waker>,
}

#[derive(Default)]
struct State {
    inputs: VecDeque<(Instant, Input)>,
    outputs: VecDeque<Output>,
    exited: bool,
    /// The owner is gone.
    dropped: bool,
    /// The owner has been called, and has not seen the end of the outputs since.
    woken: bool,
    waker: Option<Waker>,
    pid: Option<u32>,
    ports: Vec<u16>,
    /// The keeper's socket, while the program runs.
    keeper: Option<std::os::fd::OwnedFd>,
    /// The system's number of the keeper, until it was reaped.
    keeper_pid: Option<u32>,
    /// What the program had used when it was last looked at.
    used: usage::Used,
    runs: bool,
    /// For each port, since when the program has not taken connections that wait for it.
    unaccepted: Vec<Option<Moment>>,
}

impl Shared {
    /// Takes the lock. A panic elsewhere does not spread: each change under the lock is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inputs that wait; `None` if the owner is gone.
    pub(crate) fn take_inputs(&self) -> Option<VecDeque<(Instant, Input)>> {
        let mut state = self.lock();
        if state.dropped { None } else { Some(std::mem::take(&mut state.inputs)) }
    }

    /// Hands an output to the owner. After `Exited` there are no more.
    pub(crate) fn push(&self, output: Output) {
        let mut state = self.lock();
        let droppable = matches!(output, Output::Printed { .. });
        if state.exited || (droppable && state.outputs.len() >= OUTPUTS_MAX) {
            return;
        }
        state.exited = matches!(output, Output::Exited { .. });
        state.runs |= matches!(output, Output::Running { .. });
        if state.exited {
            state.keeper = None;
        }
        state.outputs.push_back(output);
        let waker = if state.woken { None } else { state.waker.clone() };
        state.woken |= waker.is_some();
        drop(state);
        if let Some(waker) = waker {
            waker();
        }
    }

    pub(crate) fn set_ports(&self, ports: &[u16]) {
        self.lock().ports = ports.to_vec();
    }

    pub(crate) fn set_pid(&self, pid: u32) {
        self.lock().pid = Some(pid);
    }

    pub(crate) fn set_keeper_pid(&self, pid: u32) {
        self.lock().keeper_pid = Some(pid);
    }

    /// Right before the keeper is reaped: looks a last time at what the program has used.
    pub(crate) fn last_look(&self) {
        let mut state = self.lock();
        state.look();
        state.used.memory = ByteCount(0);
        state.keeper_pid = None;
    }

    /// For each port, since when connections wait for the program in vain.
    pub(crate) fn set_unaccepted(&self, since: &[Option<Moment>]) {
        let mut state = self.lock();
        state.unaccepted.clear();
        state.unaccepted.extend_from_slice(since);
    }

    pub(crate) fn has_pid(&self) -> bool {
        self.lock().pid.is_some()
    }

    pub(crate) fn forget_keeper(&self) {
        self.lock().keeper = None;
    }

    pub(crate) fn set_keeper(&self, socket: std::os::fd::OwnedFd) {
        self.lock().keeper = Some(socket);
    }

    fn wake_thread(&self) {
        if let Some(thread) = self.thread.get() {
            // It fails only if the thread has ended; then there is nothing to wake.
            let _ = thread.wake();
        }
    }
}

impl State {
    /// Asks the system what the program uses now.
    fn look(&mut self) {
        let Some(keeper) = self.keeper_pid else { return };
        let now = usage::below(keeper);
        // What a process has used is out of sight between its end and its being reaped.
        self.used = usage::Used { cpu: self.used.cpu.max(now.cpu), memory: now.memory };
    }
}

impl ExecInstance {
    /// Sets what is called, from another thread, when `poll` has something to give. If there is
    /// something already, it is called at once.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        let waker: Waker = Arc::new(waker);
        let mut state = self.shared.lock();
        state.waker = Some(waker.clone());
        state.woken = !state.outputs.is_empty();
        let call = state.woken;
        drop(state);
        if call {
            waker();
        }
    }

    /// The program may run until then, a moment of CLOCK_BOOTTIME. The keeper is told at once, from
    /// the caller's thread, whatever the instance's own is doing. If it can't be told, the
    /// program dies when the lease before has lapsed, which is safe.
    pub fn renew(&self, until: Instant) {
        if let Some(keeper) = &self.shared.lock().keeper {
            let _ = tell(keeper, &Order::Lease(until.as_nanos()));
        }
    }

    /// The system's number of the program; known from `Running` on, and perhaps before.
    pub fn pid(&self) -> Option<u32> {
        self.shared.lock().pid
    }

    /// The loopback ports that were chosen for it, in the order of its ports' names.
    pub fn ports(&self) -> Vec<u16> {
        self.shared.lock().ports.clone()
    }

    /// This moment on the clock that leases are measured on.
    pub fn now() -> Instant {
        Instant::from_nanos(boot_nanos())
    }
}

impl Instance for ExecInstance {
    fn handle(&mut self, now: Instant, input: Input) {
        let mut state = self.shared.lock();
        let droppable = matches!(input, Input::FromGateway { .. } | Input::Tick);
        if state.exited || (droppable && state.inputs.len() >= INPUTS_MAX) {
            return;
        }
        state.inputs.push_back((now, input));
        let first = state.inputs.len() == 1;
        drop(state);
        if first {
            self.shared.wake_thread();
        }
    }

    fn poll(&mut self) -> Option<Output> {
        let mut state = self.shared.lock();
        let output = state.outputs.pop_front();
        state.woken &= output.is_some();
        output
    }

    fn deadline(&self) -> Option<Instant> {
        // The thread minds its own time; what it has to say it says by the waker.
        None
    }

    fn usage(&self) -> Usage {
        let mut state = self.shared.lock();
        state.look();
        Usage { pid: state.pid, cpu: state.used.cpu, memory: state.used.memory }
    }

    fn pulse(&self, _now: Instant) -> Pulse {
        let state = self.shared.lock();
        let waits = |since: &Option<Moment>| {
            let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
            Span::nanos(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX))
        };
        let mut unaccepted: Vec<Span> = state.unaccepted.iter().map(waits).collect();
        unaccepted.resize(state.ports.len(), Span::ZERO);
        Pulse { runs: state.runs && !state.exited, silent: Span::ZERO, unaccepted }
    }
}

impl Drop for ExecInstance {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.dropped = true;
        state.keeper = None;
        drop(state);
        self.shared.wake_thread();
    }
}

impl std::fmt::Debug for ExecInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecInstance").field("pid", &self.pid()).finish_non_exhaustive()
    }
}
