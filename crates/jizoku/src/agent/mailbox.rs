//! A thread's inbox: many senders, one receiver that waits until a deadline.
//!
//! Two ways in. [`Sender::send`] always delivers: for what must not be lost and is few (orders,
//! reports, link changes). [`Sender::offer`] drops at the limit and counts: for frames, whose
//! protocols repeat what was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Things that may wait before offered ones are dropped.
pub(crate) const WAITING_MAX: usize = 65_536;

/// The sending side.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    channel: mpsc::Sender<T>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            channel: self.channel.clone(),
            waiting: Arc::clone(&self.waiting),
            dropped: Arc::clone(&self.dropped),
        }
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    channel: mpsc::Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// What waiting gave.
pub(crate) enum Got<T> {
    /// A thing.
    One(T),
    /// The time is over.
    Nothing,
    /// All senders are gone.
    Closed,
}

/// A new mailbox.
pub(crate) fn mailbox<T>() -> (Sender<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicU64::new(0));
    let sender = Sender { channel: sender, waiting: Arc::clone(&waiting), dropped };
    (sender, Mailbox { channel: receiver, waiting })
}

impl<T> Sender<T> {
    /// Delivers, unless the receiver is gone: then its thread has ended, and so will the agent.
    pub(crate) fn send(&self, thing: T) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.channel.send(thing);
    }

    /// Delivers if there is room.
    pub(crate) fn offer(&self, thing: T) {
        if self.waiting.load(Ordering::Relaxed) < WAITING_MAX {
            self.send(thing);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many offered things were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<T> Mailbox<T> {
    /// Waits for one thing, at most so long.
    pub(crate) fn wait(&self, patience: Duration) -> Got<T> {
        match self.channel.recv_timeout(patience) {
            Ok(thing) => self.took(thing),
            Err(mpsc::RecvTimeoutError::Timeout) => Got::Nothing,
            Err(mpsc::RecvTimeoutError::Disconnected) => Got::Closed,
        }
    }

    /// One thing if one is there.
    pub(crate) fn take(&self) -> Got<T> {
        match self.channel.try_recv() {
            Ok(thing) => self.took(thing),
            Err(mpsc::TryRecvError::Empty) => Got::Nothing,
            Err(mpsc::TryRecvError::Disconnected) => Got::Closed,
        }
    }

    fn took(&self, thing: T) -> Got<T> {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Got::One(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_things_are_dropped_at_the_limit_and_sent_ones_are_not() {
        let (sender, mailbox) = mailbox();
        for n in 0..WAITING_MAX + 10 {
            sender.offer(n);
        }
        sender.send(7);
        assert_eq!(sender.dropped(), 10);
        let mut count = 0;
        while let Got::One(_) = mailbox.take() {
            count += 1;
        }
        assert_eq!(count, WAITING_MAX + 1);
        drop(sender);
        assert!(matches!(mailbox.wait(Duration::ZERO), Got::Closed));
    }
}
