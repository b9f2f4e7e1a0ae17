//! Shared state between tasks of one executor: a watched value and an asynchronous mutex.
//!
//! What it does not know: threads; see [`super`].
//!
//! Invariant: watchers are woken in the order in which they began to wait. (tokio's watch channel
//! spreads its waiters by a random number of the thread, so the order of wake-ups differs from run
//! to run; that is why it isn't used.)

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::mutex::Mutex as RaftMutex;
use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};

use super::lock;

struct WatchState<T> {
    // A lock that several readers can hold at once: openraft borrows while it borrows.
    value: RwLock<T>,
    version: AtomicU64,
    waiting: Mutex<Waiting>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl<T> WatchState<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut lock(&self.waiting).wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
        self.wake_all();
    }
}

/// A value that keeps only its newest state, with receivers that can wait for a change.
pub(crate) struct Watched;

pub(crate) struct WatchedSender<T>(Arc<WatchState<T>>);

pub(crate) struct WatchedReceiver<T> {
    state: Arc<WatchState<T>>,
    seen: u64,
}

impl Watch for Watched {
    type Sender<T: Send + Sync> = WatchedSender<T>;
    type Receiver<T: Send + Sync> = WatchedReceiver<T>;
    type Ref<'a, T: Send + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: Send + Sync>(value: T) -> (WatchedSender<T>, WatchedReceiver<T>) {
        let state = Arc::new(WatchState {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            waiting: Mutex::default(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        });
        (WatchedSender(state.clone()), WatchedReceiver { state, seen: 0 })
    }
}

impl<T> Clone for WatchedSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        WatchedSender(self.0.clone())
    }
}

impl<T> Drop for WatchedSender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.wake_all();
        }
    }
}

impl<T> Clone for WatchedReceiver<T> {
    fn clone(&self) -> Self {
        self.state.receivers.fetch_add(1, Ordering::Relaxed);
        WatchedReceiver { state: self.state.clone(), seen: self.seen }
    }
}

impl<T> Drop for WatchedReceiver<T> {
    fn drop(&mut self) {
        self.state.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Send + Sync> WatchSender<Watched, T> for WatchedSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Relaxed) == 0 {
            return Err(SendError(value));
        }
        let before = {
            let mut guard = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *guard, value)
        };
        self.0.changed();
        drop(before);
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = {
            let mut guard = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
            modify(&mut guard)
        };
        if modified {
            self.0.changed();
        }
        modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> WatchedReceiver<T> {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        let seen = self.0.version.load(Ordering::Relaxed);
        WatchedReceiver { state: self.0.clone(), seen }
    }
}

/// Waits for a version other than the one seen. Leaves the list of waiters when dropped.
struct Change<'a, T> {
    receiver: &'a mut WatchedReceiver<T>,
    place: Option<u64>,
}

impl<T> Change<'_, T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RecvError>> {
        let state = &self.receiver.state;
        let version = state.version.load(Ordering::Relaxed);
        if self.receiver.seen != version {
            self.receiver.seen = version;
            return Poll::Ready(Ok(()));
        }
        if state.senders.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(Err(RecvError(())));
        }
        let mut waiting = lock(&state.waiting);
        let place = *self.place.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        waiting.wakers.insert(place, context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Change<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waker = lock(&self.receiver.state.waiting).wakers.remove(&place);
            drop(waker);
        }
    }
}

impl<T: Send + Sync> WatchReceiver<Watched, T> for WatchedReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let mut change = Change { receiver: self, place: None };
        poll_fn(move |context| change.poll(context)).await
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.state.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        self.seen = self.state.version.load(Ordering::Relaxed);
        self.state.read()
    }
}

/// A mutex whose lock tasks wait for. `futures-util`'s: it wakes waiters in a fixed order, and its
/// guard may move between threads, which openraft asks for.
pub(crate) struct AsyncMutex<T>(futures_util::lock::Mutex<T>);

impl<T: Send + 'static> RaftMutex<T> for AsyncMutex<T> {
    type Guard<'a> = futures_util::lock::MutexGuard<'a, T>;

    fn new(value: T) -> AsyncMutex<T> {
        AsyncMutex(futures_util::lock::Mutex::new(value))
    }

    fn lock(&self) -> impl Future<Output = Self::Guard<'_>> + Send {
        self.0.lock()
    }
}
