//! What an instance knows of one gateway: its place in the state, and the session with it.
//!
//! What it does not know: connections beyond their numbers.
//!
//! Invariants
//! - `highest` never goes back while the gateway is known, also when it was reported gone: a
//!   connection that was closed is never opened again.
//! - Sessions grow. Within one, `acked <= number`, and everything up to `heard` was taken in order.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{GatewayId, Instant, Span};

use crate::limits::PROBE_AFTER;

/// A gateway, as the instance knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: GatewayId,
    /// Highest counter seen. Part of the state.
    pub(super) highest: u64,
    /// Its connections that it still has, by counter.
    pub(super) conns: BTreeMap<u64, u32>,
    /// Connections in the table, with those that it no longer has.
    pub(super) references: usize,
    /// It was reported gone, or replaced by a newer incarnation.
    pub(super) gone: bool,
    pub(super) session: u64,
    pub(super) attached: bool,
    /// Highest number sent, and acknowledged.
    pub(super) number: u64,
    pub(super) acked: u64,
    /// Highest number taken.
    pub(super) heard: u64,
    /// Slots with output to send.
    pub(super) queue: VecDeque<u32>,
    /// Slots whose committed consumption is to be told.
    pub(super) news: VecDeque<u32>,
    /// Bytes that were consumed for good and not yet told.
    pub(super) news_bytes: u64,
    /// Connections that were refused, or broke the protocol.
    pub(super) refused: VecDeque<u64>,
    /// Committed number that was told last in this session, and the highest cover that was sent
    /// in this epoch.
    pub(super) told: u64,
    pub(super) cover_sent: u64,
    /// Whether its first attach in this epoch has been seen.
    pub(super) met: bool,
    /// Connections that were reset because their input may kill the program.
    pub(super) poisonous: Vec<u64>,
    /// It is in the list of those that may have something to say.
    pub(super) ready: bool,
    pub(super) hello_due: bool,
    /// The session that it shall begin anew.
    pub(super) reattach: Option<u64>,
    pub(super) attached_due: bool,
    pub(super) probe_due: bool,
    pub(super) ack_due: bool,
    /// Something was taken since the last message to it.
    pub(super) ack_pending: bool,
    /// When it was last asked or heard, and how long to wait until asking again.
    pub(super) asked: Instant,
    pub(super) patience: Span,
}

impl Peer {
    pub(super) fn new(id: GatewayId, highest: u64) -> Peer {
        Peer {
            id,
            highest,
            conns: BTreeMap::new(),
            references: 0,
            gone: false,
            session: 0,
            attached: false,
            number: 0,
            acked: 0,
            heard: 0,
            queue: VecDeque::new(),
            news: VecDeque::new(),
            news_bytes: 0,
            refused: VecDeque::new(),
            told: 0,
            cover_sent: 0,
            met: false,
            poisonous: Vec::new(),
            ready: false,
            hello_due: false,
            reattach: None,
            attached_due: false,
            probe_due: false,
            ack_due: false,
            ack_pending: false,
            asked: Instant::ORIGIN,
            patience: PROBE_AFTER,
        }
    }

    /// Begins a session, with the gateway's first message taken.
    pub(super) fn begin(&mut self, session: u64, now: Instant) {
        self.session = session;
        self.attached = true;
        self.gone = false;
        self.number = 0;
        self.acked = 0;
        self.heard = 1;
        self.queue.clear();
        self.news.clear();
        self.refused.clear();
        // `cover_sent` stays: the gateway may still have what an earlier session brought.
        self.told = 0;
        self.hello_due = false;
        self.reattach = None;
        self.attached_due = true;
        self.probe_due = false;
        self.ack_due = false;
        self.ack_pending = false;
        self.asked = now;
        self.patience = PROBE_AFTER;
    }

    /// Ends the session without forgetting its number: only a newer one may begin.
    pub(super) fn end(&mut self) {
        self.attached = false;
        self.attached_due = false;
        self.probe_due = false;
        self.ack_due = false;
        self.ack_pending = false;
        self.queue.clear();
        self.news.clear();
        self.refused.clear();
    }
}

/// A deadline that may be armed by a call that was not told the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Not running.
    Off,
    /// Runs from the next call that tells the time.
    Soon,
    /// Runs out then.
    At(Instant),
}

impl Timer {
    /// Starts it if it isn't running.
    pub(super) fn arm(&mut self) {
        if *self == Timer::Off {
            *self = Timer::Soon;
        }
    }

    /// Starts it with a known end if it isn't running towards one.
    pub(super) fn arm_at(&mut self, at: Instant) {
        if !matches!(self, Timer::At(_)) {
            *self = Timer::At(at);
        }
    }

    /// Applies the time. Whether it has run out; it is off then.
    pub(super) fn advance(&mut self, now: Instant, span: Span) -> bool {
        match *self {
            Timer::Off => false,
            Timer::Soon => {
                *self = Timer::At(now + span);
                false
            }
            Timer::At(at) if now < at => false,
            Timer::At(_) => {
                *self = Timer::Off;
                true
            }
        }
    }

    /// When the time should be told; `now` is what was told last.
    pub(super) fn deadline(self, now: Instant) -> Option<Instant> {
        match self {
            Timer::Off => None,
            Timer::Soon => Some(now),
            Timer::At(at) => Some(at),
        }
    }
}
