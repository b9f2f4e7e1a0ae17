//! Channels between tasks of one executor: one-shot and bounded queue.
//!
//! What it does not know: threads; a value's tasks all run on the thread that runs the value.
//!
//! Invariants: values come out in the order in which they went in; waiting senders are served in
//! the order in which they came. Nothing is dropped while its receiver lives.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::mpsc::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, SendError, TryRecvError,
};
use openraft::async_runtime::oneshot::{Oneshot, OneshotSender};

use super::lock;

/// The other end of the channel is gone.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other end of the channel is gone")
    }
}

impl std::error::Error for Closed {}

struct OneShotState<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// Sends one value.
pub(crate) struct OneShotSender<T>(Arc<Mutex<OneShotState<T>>>);

/// Is ready with the value, or with [`Closed`] once the sender was dropped without sending.
pub(crate) struct OneShotReceiver<T>(Arc<Mutex<OneShotState<T>>>);

/// A channel for one value.
pub(crate) fn one_shot<T>() -> (OneShotSender<T>, OneShotReceiver<T>) {
    let state = OneShotState { value: None, waker: None, sender_gone: false, receiver_gone: false };
    let state = Arc::new(Mutex::new(state));
    (OneShotSender(state.clone()), OneShotReceiver(state))
}

impl<T> OneShotSender<T> {
    /// Hands the value over, or back if nobody waits for it any more.
    pub(crate) fn fire(self, value: T) -> Result<(), T> {
        let waker = {
            let mut state = lock(&self.0);
            if state.receiver_gone {
                return Err(value);
            }
            state.value = Some(value);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T> Drop for OneShotSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            state.sender_gone = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for OneShotReceiver<T> {
    fn drop(&mut self) {
        lock(&self.0).receiver_gone = true;
    }
}

impl<T> Future for OneShotReceiver<T> {
    type Output = Result<T, Closed>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0);
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if state.sender_gone {
            return Poll::Ready(Err(Closed));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T: Send> OneshotSender<T> for OneShotSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.fire(value)
    }
}

/// The one-shot channel as openraft asks for it.
pub(crate) struct OneShot;

impl Oneshot for OneShot {
    type Sender<T: Send> = OneShotSender<T>;
    type Receiver<T: Send> = OneShotReceiver<T>;
    type ReceiverError = Closed;
    fn channel<T: Send>() -> (OneShotSender<T>, OneShotReceiver<T>) {
        one_shot()
    }
}

struct Queue<T> {
    values: VecDeque<T>,
    capacity: usize,
    receiver: Option<Waker>,
    /// Senders that wait for room, by the number of their turn.
    waiting: BTreeMap<u64, Waker>,
    next_turn: u64,
    senders: usize,
    receiver_gone: bool,
}

impl<T> Queue<T> {
    fn take(&mut self) -> Option<T> {
        let value = self.values.pop_front()?;
        if let Some((_, waker)) = self.waiting.pop_first() {
            waker.wake();
        }
        Some(value)
    }
}

/// A bounded queue with many senders and one receiver.
pub(crate) struct Bounded;

pub(crate) struct QueueSender<T>(Arc<Mutex<Queue<T>>>);
pub(crate) struct QueueReceiver<T>(Arc<Mutex<Queue<T>>>);
pub(crate) struct QueueWeakSender<T>(Weak<Mutex<Queue<T>>>);

impl Mpsc for Bounded {
    type Sender<T: Send> = QueueSender<T>;
    type Receiver<T: Send> = QueueReceiver<T>;
    type WeakSender<T: Send> = QueueWeakSender<T>;

    fn channel<T: Send>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
        let queue = Arc::new(Mutex::new(Queue {
            values: VecDeque::new(),
            capacity: capacity.max(1),
            receiver: None,
            waiting: BTreeMap::new(),
            next_turn: 0,
            senders: 1,
            receiver_gone: false,
        }));
        (QueueSender(queue.clone()), QueueReceiver(queue))
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        lock(&self.0).senders += 1;
        QueueSender(self.0.clone())
    }
}

impl<T> Drop for QueueSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut queue = lock(&self.0);
            queue.senders -= 1;
            if queue.senders > 0 {
                return;
            }
            queue.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Clone for QueueWeakSender<T> {
    fn clone(&self) -> Self {
        QueueWeakSender(self.0.clone())
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        let (values, waiting) = {
            let mut queue = lock(&self.0);
            queue.receiver_gone = true;
            (std::mem::take(&mut queue.values), std::mem::take(&mut queue.waiting))
        };
        // Outside the lock: a value may hold a sender of this very queue.
        drop(values);
        waiting.into_values().for_each(Waker::wake);
    }
}

/// Waits for room in the queue, then puts the value in.
struct Sending<'a, T> {
    queue: &'a Mutex<Queue<T>>,
    value: Option<T>,
    turn: Option<u64>,
}

impl<T> Unpin for Sending<'_, T> {}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut queue = lock(this.queue);
        if let Some(turn) = this.turn.take() {
            queue.waiting.remove(&turn);
        }
        if !queue.receiver_gone && queue.values.len() >= queue.capacity {
            let turn = queue.next_turn;
            queue.next_turn += 1;
            queue.waiting.insert(turn, context.waker().clone());
            this.turn = Some(turn);
            return Poll::Pending;
        }
        let value = this.value.take().expect("a finished future isn't polled again");
        if queue.receiver_gone {
            return Poll::Ready(Err(SendError(value)));
        }
        queue.values.push_back(value);
        let waker = queue.receiver.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            lock(self.queue).waiting.remove(&turn);
        }
    }
}

impl<T: Send> MpscSender<Bounded, T> for QueueSender<T> {
    fn send(&self, value: T) -> impl Future<Output = Result<(), SendError<T>>> + Send {
        Sending { queue: &self.0, value: Some(value), turn: None }
    }

    fn downgrade(&self) -> QueueWeakSender<T> {
        QueueWeakSender(Arc::downgrade(&self.0))
    }
}

impl<T: Send> MpscReceiver<T> for QueueReceiver<T> {
    fn recv(&mut self) -> impl Future<Output = Option<T>> + Send {
        poll_fn(|context| {
            let mut queue = lock(&self.0);
            if let Some(value) = queue.take() {
                return Poll::Ready(Some(value));
            }
            if queue.senders == 0 {
                return Poll::Ready(None);
            }
            queue.receiver = Some(context.waker().clone());
            Poll::Pending
        })
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut queue = lock(&self.0);
        match queue.take() {
            Some(value) => Ok(value),
            None if queue.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }
}

impl<T: Send> MpscWeakSender<Bounded, T> for QueueWeakSender<T> {
    fn upgrade(&self) -> Option<QueueSender<T>> {
        let queue = self.0.upgrade()?;
        {
            let mut queue = lock(&queue);
            if queue.senders == 0 {
                return None;
            }
            queue.senders += 1;
        }
        Some(QueueSender(queue))
    }
}
