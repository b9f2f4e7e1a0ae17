//! A link that is up: its queues, its tasks, what is known of its other end.
//!
//! What it does not know: how it came to be, what the frames mean.
//!
//! Invariants
//! - A link goes down once, with the first cause; it never comes up again.
//! - When it is down its tasks are gone, and with them its sockets, and nothing is queued.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jizoku_core::liveness::Verdict;
use jizoku_types::event::LinkDownCause;
use jizoku_types::{Incarnation, NodeId, Span};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::hello::Adoption;
use crate::limits::queue_limit;
use crate::outbox::Outbox;
use crate::shared::Alarm;
use crate::wire::Lane;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) version: u16,
    pub(crate) adoption: Adoption,
    outboxes: [Outbox; Lane::FRAMED],
    cause: OnceLock<LinkDownCause>,
    finishing: AtomicBool,
    /// On how many lanes the peer has said goodbye.
    ended: AtomicUsize,
    done: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
    rtt: AtomicU64,
    suspect: AtomicBool,
    alarm: Arc<Alarm>,
}

impl Link {
    pub(crate) fn new(
        peer: NodeId,
        incarnation: Incarnation,
        version: u16,
        adoption: Adoption,
        alarm: Arc<Alarm>,
    ) -> Link {
        let framed = [Lane::Control, Lane::Streams, Lane::State, Lane::Bulk];
        Link {
            peer,
            incarnation,
            version,
            adoption,
            outboxes: framed.map(|lane| Outbox::new(queue_limit(lane))),
            cause: OnceLock::new(),
            finishing: AtomicBool::new(false),
            ended: AtomicUsize::new(0),
            done: Notify::new(),
            tasks: Mutex::default(),
            rtt: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            alarm,
        }
    }

    /// The queue of a lane that carries frames.
    pub(crate) fn outbox(&self, lane: Lane) -> &Outbox {
        &self.outboxes[lane as usize]
    }

    /// Why it is down, if it is.
    pub(crate) fn cause(&self) -> Option<LinkDownCause> {
        self.cause.get().copied()
    }

    /// Takes the link down; what was queued is dropped. Later causes change nothing.
    pub(crate) fn close(&self, cause: LinkDownCause) {
        if self.cause.set(cause).is_err() {
            return;
        }
        self.abort_tasks();
        let mut dropped = 0;
        for outbox in &self.outboxes {
            outbox.finish();
            while outbox.pop().is_some() {
                dropped += 1;
            }
        }
        self.done.notify_waiters();
        self.alarm.link_closed(dropped);
    }

    /// Takes nothing more, writes what is queued, and says goodbye. It goes down when the peer has
    /// read all of it, and closes.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
        for outbox in &self.outboxes {
            outbox.finish();
        }
    }

    /// Whether frames can still be queued.
    pub(crate) fn is_taking(&self) -> bool {
        self.cause().is_none() && !self.finishing.load(Ordering::Relaxed)
    }

    /// The peer has said on one more lane that nothing more comes. When it has on all of them,
    /// the link is down.
    pub(crate) fn lane_ended(&self) {
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == Lane::FRAMED {
            self.close(LinkDownCause::Reset);
        }
    }

    /// Waits until the link is down.
    pub(crate) async fn closed(&self) {
        loop {
            let done = self.done.notified();
            if self.cause().is_some() {
                return;
            }
            done.await;
        }
    }

    /// Binds tasks to this link: they end when it goes down.
    pub(crate) fn own(&self, tasks: impl IntoIterator<Item = AbortHandle>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        if self.cause().is_some() {
            self.abort_tasks();
        }
    }

    fn abort_tasks(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// The smoothed round trip time; zero before any was measured.
    pub(crate) fn rtt(&self) -> Span {
        Span::nanos(self.rtt.load(Ordering::Relaxed))
    }

    pub(crate) fn set_rtt(&self, rtt: Span) {
        self.rtt.store(rtt.as_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(crate) fn set_verdict(&self, verdict: Verdict) {
        self.suspect.store(verdict != Verdict::Alive, Ordering::Relaxed);
    }
}
