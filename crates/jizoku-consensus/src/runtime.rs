//! The deterministic executor that openraft's tasks run on: one thread, a clock that is told the
//! time, timers in an ordered map, one seeded random source, a first-in-first-out ready queue.
//!
//! What it does not know: Raft, messages, disks; real time. Nothing here blocks or sleeps.
//!
//! Invariants
//! - The order in which tasks run depends only on the order of inputs and on the seed.
//! - The clock never goes back. A timer fires when the clock reaches it, earliest first, and
//!   timers of one moment in the order in which they were set.
//! - An executor belongs to one value; its tasks run only inside that value's `handle`.
//!
//! Units: nanoseconds. Limit: [`POLLS_MAX`] polls in one run; what is left runs in the next one.
//!
//! openraft calls its runtime through functions without a receiver (`now()`, `spawn()`), so the
//! running executor stands in a thread-local for as long as [`Executor::enter`] lasts.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use openraft::async_runtime as traits;
use pin_project_lite::pin_project;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng, TryRng};

mod channel;
mod sync;

use channel::{Bounded, OneShot};
pub(crate) use channel::{OneShotReceiver, OneShotSender, one_shot};
use sync::{AsyncMutex, Watched};

/// Most polls in one run. A run of an idle node takes about ten; a run that needs this many is
/// a task that wakes itself without end, and the agent must stay able to do other things.
pub(crate) const POLLS_MAX: usize = 100_000;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Executor>>> = const { RefCell::new(None) };
}

/// Locks a mutex of one value. Only one thread ever runs a value, so it never waits.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a task is caught and stops the value; its data is then only dropped.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn current() -> Arc<Executor> {
    let running = CURRENT.with(|current| current.borrow().clone());
    running.expect("openraft's tasks run only inside Executor::enter")
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct Slot {
    task: Option<Task>,
    waker: Option<Arc<TaskWaker>>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

type Ready = Arc<Mutex<VecDeque<usize>>>;

/// Puts its task into the ready queue, once until the task is polled again.
struct TaskWaker {
    slot: usize,
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push_back(self.slot);
        }
    }
}

/// See the module's description.
pub(crate) struct Executor {
    now: AtomicU64,
    sequence: AtomicU64,
    random: Mutex<ChaCha8Rng>,
    timers: Mutex<BTreeMap<(u64, u64), Waker>>,
    tasks: Mutex<Slots>,
    ready: Ready,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Executor {
    pub(crate) fn new(now: u64, seed: u64) -> Arc<Executor> {
        Arc::new(Executor {
            now: AtomicU64::new(now),
            sequence: AtomicU64::new(0),
            random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            timers: Mutex::default(),
            tasks: Mutex::default(),
            ready: Ready::default(),
        })
    }

    /// Nanoseconds on the value's clock.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// A number that was not given out before by this executor.
    pub(crate) fn next_number(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// 64 random bits.
    pub(crate) fn random(&self) -> u64 {
        lock(&self.random).next_u64()
    }

    /// Runs `work` with this executor as the one that openraft's runtime functions find.
    pub(crate) fn enter<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        struct Restore(Option<Arc<Executor>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let before = self.0.take();
                CURRENT.with(|current| *current.borrow_mut() = before);
            }
        }
        let before = CURRENT.with(|current| current.borrow_mut().replace(self.clone()));
        let _restore = Restore(before);
        work()
    }

    /// Adds a task; it is polled in the next run.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        let slot = tasks.free.pop().unwrap_or_else(|| {
            tasks.slots.push(Slot::default());
            tasks.slots.len() - 1
        });
        let waker = TaskWaker { slot, queued: AtomicBool::new(true), ready: self.ready.clone() };
        tasks.slots[slot] = Slot { task: Some(Box::pin(task)), waker: Some(Arc::new(waker)) };
        lock(&self.ready).push_back(slot);
    }

    /// Polls ready tasks until none is ready, or [`POLLS_MAX`] is reached.
    pub(crate) fn run(&self) {
        for _ in 0..POLLS_MAX {
            let next = lock(&self.ready).pop_front();
            let Some(slot) = next else { return };
            self.poll_slot(slot);
        }
    }

    fn poll_slot(&self, slot: usize) {
        let (task, waker) = {
            let mut tasks = lock(&self.tasks);
            let slot = &mut tasks.slots[slot];
            (slot.task.take(), slot.waker.clone())
        };
        let (Some(mut task), Some(waker)) = (task, waker) else { return };
        waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(waker);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            lock(&self.tasks).slots[slot].task = Some(task);
            return;
        }
        // Dropped outside the lock: a task's end may wake or spawn others.
        drop(task);
        let mut tasks = lock(&self.tasks);
        tasks.slots[slot].waker = None;
        tasks.free.push(slot);
    }

    /// Sets the clock, unless it is already later, and wakes the tasks whose timers are due.
    pub(crate) fn advance(&self, now: u64) {
        let now = now.max(self.now());
        self.now.store(now, Ordering::Relaxed);
        loop {
            let due = {
                let mut timers = lock(&self.timers);
                match timers.first_key_value() {
                    Some((&(at, _), _)) if at <= now => timers.pop_first(),
                    _ => None,
                }
            };
            let Some((_, waker)) = due else { return };
            waker.wake();
        }
    }

    /// When [`Executor::advance`] has something to do next. The present, if tasks were left over.
    pub(crate) fn deadline(&self) -> Option<u64> {
        if !lock(&self.ready).is_empty() {
            return Some(self.now());
        }
        lock(&self.timers).first_key_value().map(|(&(at, _), _)| at)
    }

    /// Drops every task and timer. Needed because tasks hold the executor that holds them.
    pub(crate) fn clear(&self) {
        let slots = lock(&self.tasks).slots.len();
        for slot in 0..slots {
            let slot = std::mem::take(&mut lock(&self.tasks).slots[slot]);
            drop(slot);
        }
        let timers = std::mem::take(&mut *lock(&self.timers));
        drop(timers);
        lock(&self.ready).clear();
    }
}

/// A moment on the executor's clock, as openraft sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, other: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(other.0))
    }
}

impl traits::instant::Instant for Moment {
    fn now() -> Moment {
        Moment(current().now())
    }
}

/// Ends when the clock reaches `at`.
pub(crate) struct Sleep {
    at: u64,
    timer: Option<(u64, u64)>,
    executor: Arc<Executor>,
}

impl Sleep {
    fn until(at: u64) -> Sleep {
        Sleep { at, timer: None, executor: current() }
    }

    fn cancel(&mut self) {
        if let Some(timer) = self.timer.take() {
            lock(&self.executor.timers).remove(&timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.cancel();
        if self.executor.now() >= self.at {
            return Poll::Ready(());
        }
        let timer = (self.at, self.executor.next_number());
        lock(&self.executor.timers).insert(timer, context.waker().clone());
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The time was over before the future was ready.
#[derive(Debug)]
pub(crate) struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

pin_project! {
    /// A future with a time limit.
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimedOut>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(context).map(Err).map_err(|()| TimedOut)
    }
}

/// Random numbers of the running executor.
pub(crate) struct Random(Arc<Executor>);

impl TryRng for Random {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(lock(&self.0.random).next_u32())
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(lock(&self.0.random).next_u64())
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        lock(&self.0.random).fill_bytes(bytes);
        Ok(())
    }
}

/// What openraft is given as its asynchronous runtime.
#[derive(Debug)]
pub(crate) struct Runtime;

impl traits::AsyncRuntime for Runtime {
    type JoinError = channel::Closed;
    type JoinHandle<T: Send + 'static> = OneShotReceiver<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = TimedOut;
    type Timeout<R, T: Future<Output = R> + Send> = Timeout<T>;
    type ThreadLocalRng = Random;
    type Mpsc = Bounded;
    type Watch = Watched;
    type Oneshot = OneShot;
    type Mutex<T: Send + 'static> = AsyncMutex<T>;

    fn spawn<T>(future: T) -> OneShotReceiver<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let (sender, receiver) = one_shot();
        current().spawn(async move {
            let output = future.await;
            // Nobody waits for most of openraft's tasks.
            let _ = sender.fire(output);
        });
        receiver
    }

    fn sleep(duration: Duration) -> Sleep {
        let at = Moment(current().now()) + duration;
        Sleep::until(at.0)
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        Sleep::until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future, sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Moment, future: F) -> Timeout<F> {
        Timeout { future, sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_: &channel::Closed) -> bool {
        // A panic leaves the run at once and stops the value: nobody is left to ask.
        false
    }

    fn thread_rng() -> Random {
        Random(current())
    }

    fn new(_threads: usize) -> Runtime {
        Runtime
    }

    /// Runs `future` alone, on an executor of its own, jumping over idle time.
    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        let executor = Executor::new(0, 0);
        let mut future = std::pin::pin!(future);
        let woken = Arc::new(TaskWaker {
            slot: usize::MAX,
            queued: AtomicBool::new(false),
            ready: Ready::default(),
        });
        let waker = Waker::from(woken);
        let output = executor.enter(|| {
            loop {
                let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(output) = polled {
                    return output;
                }
                executor.run();
                if let Some(deadline) = executor.deadline() {
                    executor.advance(deadline);
                }
            }
        });
        executor.enter(|| executor.clear());
        output
    }
}

#[cfg(test)]
mod tests;
