//! The bounded queue of frames that wait to be written to one connection.
//!
//! Two ways in: [`Outbox::push`] never waits and fails at the limit; [`Outbox::room`] lets a
//! sender with much to say wait until little is queued, so that it can never reach the limit.
//!
//! What it does not know: which connection, what follows from a full queue.
//!
//! Invariant: the bytes that are queued never exceed the limit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::wire::Frame;

/// What a frame in the queue costs beside its bytes.
const FRAME_COST: usize = 128;
/// An empty queue keeps room for this many frames; what a burst took beyond is given back.
const KEPT_FRAMES: usize = 1024;
/// Whoever waits for room waits until no more than this is queued: enough to keep a fast
/// network busy, little enough to keep urgent frames from waiting long.
pub(crate) const PACED_MAX: usize = 2 << 20;

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    limit: usize,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    cost: usize,
    /// Whether somebody may be waiting for room.
    wanted: bool,
    /// Nothing is taken any more; what is queued still goes out.
    finished: bool,
}

fn cost(frame: &Frame) -> usize {
    frame.len() + FRAME_COST
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Outbox {
        Outbox { queue: Mutex::default(), limit, filled: Notify::new(), emptied: Notify::new() }
    }

    /// Queues a frame, or gives it back at the limit or when finished.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), Frame> {
        let mut queue = self.lock();
        let cost = cost(&frame);
        if queue.finished || queue.cost + cost > self.limit {
            return Err(frame);
        }
        let was_empty = queue.frames.is_empty();
        queue.cost += cost;
        queue.frames.push_back(frame);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes the next frame to be written.
    pub(crate) fn pop(&self) -> Option<Frame> {
        let mut queue = self.lock();
        let frame = queue.frames.pop_front()?;
        queue.cost -= cost(&frame);
        if queue.frames.is_empty() && queue.frames.capacity() > KEPT_FRAMES {
            queue.frames.shrink_to(KEPT_FRAMES);
        }
        let wake = queue.wanted && queue.cost <= PACED_MAX;
        if wake {
            queue.wanted = false;
        }
        drop(queue);
        if wake {
            self.emptied.notify_waiters();
        }
        Some(frame)
    }

    /// Whether everything that will ever be queued has been taken out.
    pub(crate) fn is_finished(&self) -> bool {
        let queue = self.lock();
        queue.finished && queue.frames.is_empty()
    }

    /// How many bytes can be queued for now without waiting in [`Outbox::room`].
    pub(crate) fn free(&self) -> usize {
        PACED_MAX.saturating_sub(self.lock().cost)
    }

    /// Waits until something is queued, or the queue is finished. It may be empty nevertheless.
    pub(crate) async fn filled(&self) {
        if self.lock().frames.is_empty() {
            self.filled.notified().await;
        } else {
            // Others have a turn, however much there is to write.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Waits until little is queued, or nothing is taken any more.
    pub(crate) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            {
                let mut queue = self.lock();
                if queue.cost <= PACED_MAX || queue.finished {
                    return;
                }
                queue.wanted = true;
            }
            emptied.await;
        }
    }

    /// Takes nothing any more, and wakes whoever waits.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use jizoku_types::NodeId;
    use jizoku_types::frame::{Channel, Header};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn frame(size: usize) -> Frame {
        let header = Header::new(NodeId([1; 32]), NodeId([2; 32]), Channel::Bulk);
        Frame { header, body: Bytes::from(vec![0; size]) }
    }

    #[test]
    fn it_takes_no_more_than_its_limit() {
        let outbox = Outbox::new(10_000);
        let mut taken = 0;
        while outbox.push(frame(1_000)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 10_000 / cost(&frame(1_000)));
        assert!(outbox.pop().is_some());
        assert!(outbox.push(frame(1_000)).is_ok());
        for _ in 0..taken {
            assert!(outbox.pop().is_some());
        }
        assert!(outbox.pop().is_none());
        assert_eq!(outbox.free(), PACED_MAX);
    }

    #[test]
    fn whoever_waits_for_room_is_woken_when_there_is_some() {
        let outbox = Outbox::new(16 << 20);
        for _ in 0..3 {
            outbox.push(frame(1 << 20)).expect("fits");
        }
        let mut waiting = pin!(outbox.room());
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        outbox.pop().expect("a frame");
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        outbox.pop().expect("a frame");
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn a_finished_queue_takes_nothing_and_holds_nobody() {
        let outbox = Outbox::new(16 << 20);
        for _ in 0..3 {
            outbox.push(frame(1 << 20)).expect("fits");
        }
        let mut waiting = pin!(outbox.room());
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        outbox.finish();
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
        assert!(outbox.push(frame(1)).is_err());
        assert!(!outbox.is_finished());
        while outbox.pop().is_some() {}
        assert!(outbox.is_finished());
    }
}
