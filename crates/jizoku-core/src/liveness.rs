//! Whether the other end of a link is alive, from the moments at which it was heard.
//!
//! Each end of a link beats every [`BEAT`]. A [`Detector`] learns the gaps of one link and says
//! [`Verdict::Silent`] once nothing was heard for the mean gap and four deviations, within
//! [`TIMEOUT_MIN`] and [`TIMEOUT_MAX`]. [`Liveness`] holds the detectors of a node, and knows
//! whether the node itself was late: a node that was paused or starved judges each link anew.
//!
//! What it does not know: sockets, clocks, what follows from a verdict. A reset connection is
//! no business of this module: its link goes down without any verdict.
//!
//! Invariants
//! - Silent is said only when a whole time-out went by in which this node was on time.
//! - A time-out is never shorter than `TIMEOUT_MIN` and never longer than `TIMEOUT_MAX`.
//! - A gap during which this node was late teaches the detector nothing.

use alloc::collections::{BTreeMap, VecDeque};

use jizoku_types::limits::NODES_MAX;
use jizoku_types::{Instant, NodeId, Span};

/// How often each end of a link beats.
pub const BEAT: Span = Span::millis(40);
/// Shortest time-out: three beats and the jitter of a busy machine.
pub const TIMEOUT_MIN: Span = Span::millis(150);
/// Longest time-out, however irregular a link is.
pub const TIMEOUT_MAX: Span = Span::secs(1);
/// A node that wakes later than this after it meant to was late.
pub const LATE: Span = Span::millis(60);

const _: () = assert!(TIMEOUT_MIN.as_nanos() > 3 * BEAT.as_nanos(), "one lost beat is no silence");
const _: () = assert!(LATE.as_nanos() < TIMEOUT_MIN.as_nanos(), "lateness must show in time");

/// Suspect after this share of the time-out, in thousandths.
const SUSPECT_PERMILLE: u64 = 600;
/// Deviations above the mean that make the time-out.
const DEVIATIONS: u64 = 4;
/// Deviation that a link without history is given: its first time-out is 280 ms.
const FIRST_DEVIATION: Span = Span::millis(60);
/// The mean moves by 1/16 of the difference.
const MEAN_SHARE: u64 = 16;
/// The deviation rises by 1/4 of the difference, so that one long gap is remembered at once,
const RISE_SHARE: u64 = 4;
/// and falls by 1/64: it takes 2.5 s of regular beats to lose two thirds of it.
const FALL_SHARE: u64 = 64;
/// The round trip time moves by 1/8 of the difference.
const RTT_SHARE: u64 = 8;

/// What is thought of the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Heard lately.
    Alive,
    /// Not heard for more than three fifths of the time-out. Nothing follows from it yet.
    Suspect,
    /// Not heard for a whole time-out.
    Silent,
}

/// What a [`Detector`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something arrived; `rtt` if it answered something that this node had sent.
    Something {
        /// The round trip time that it showed.
        rtt: Option<Span>,
    },
    /// This node was late: begin to wait anew, and don't count this gap.
    Excused,
    /// Nothing happened, but time went by.
    Nothing,
}

/// The adaptive failure detector of one link.
#[derive(Clone, Debug)]
pub struct Detector {
    heard: Instant,
    mean: Span,
    deviation: Span,
    /// Whether the gap that ends with the next arrival is a fair sample.
    fair: bool,
    rtt: Option<Span>,
    verdict: Verdict,
    changed: bool,
}

impl Detector {
    /// A detector for a link that came up at `now`.
    pub fn new(now: Instant) -> Detector {
        Detector {
            heard: now,
            mean: BEAT,
            deviation: FIRST_DEVIATION,
            fair: false,
            rtt: None,
            verdict: Verdict::Alive,
            changed: false,
        }
    }

    /// Takes in what was heard up to `now`.
    pub fn handle(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Something { rtt } => {
                self.sample(now.since(self.heard));
                self.heard = self.heard.max(now);
                self.fair = true;
                if let Some(rtt) = rtt {
                    self.rtt = Some(self.rtt.map_or(rtt, |old| approach(old, rtt, RTT_SHARE)));
                }
            }
            Heard::Excused => {
                self.heard = self.heard.max(now);
                self.fair = false;
            }
            Heard::Nothing => {}
        }
        let verdict = self.judge(now);
        if verdict != self.verdict {
            self.verdict = verdict;
            self.changed = true;
        }
    }

    /// The new verdict, if it changed since it was last asked for.
    pub fn poll(&mut self) -> Option<Verdict> {
        core::mem::take(&mut self.changed).then_some(self.verdict)
    }

    /// When the verdict changes if nothing is heard until then.
    pub fn deadline(&self) -> Option<Instant> {
        match self.verdict {
            Verdict::Alive => Some(self.heard + self.suspect_after()),
            Verdict::Suspect => Some(self.heard + self.timeout()),
            Verdict::Silent => None,
        }
    }

    /// The verdict as of the last input.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// After how long without a sound this link is silent, as things are now.
    pub fn timeout(&self) -> Span {
        let wanted = self.mean + self.deviation * DEVIATIONS;
        wanted.clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// The smoothed round trip time, once one was measured.
    pub fn rtt(&self) -> Option<Span> {
        self.rtt
    }

    fn suspect_after(&self) -> Span {
        self.timeout().permille(SUSPECT_PERMILLE)
    }

    fn judge(&self, now: Instant) -> Verdict {
        let quiet = now.since(self.heard);
        if quiet >= self.timeout() {
            Verdict::Silent
        } else if quiet >= self.suspect_after() {
            Verdict::Suspect
        } else {
            Verdict::Alive
        }
    }

    fn sample(&mut self, gap: Span) {
        if !self.fair {
            return;
        }
        let gap = gap.min(TIMEOUT_MAX);
        let off = if gap > self.mean { gap - self.mean } else { self.mean - gap };
        let share = if off > self.deviation { RISE_SHARE } else { FALL_SHARE };
        self.deviation = approach(self.deviation, off, share);
        self.mean = approach(self.mean, gap, MEAN_SHARE);
    }
}

/// `from`, moved towards `to` by one `share`-th of the way.
fn approach(from: Span, to: Span, share: u64) -> Span {
    if to > from { from + (to - from) / share } else { from - (from - to) / share }
}

/// What a node's [`Liveness`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link came up, or was replaced by a newer one.
    Up(NodeId),
    /// A link is gone.
    Down(NodeId),
    /// Something arrived on a link. Unknown links are ignored.
    Heard {
        /// From whom.
        peer: NodeId,
        /// The round trip time that it showed, if any.
        rtt: Option<Span>,
    },
    /// The node woke, having meant to wake at `due` or before. Given first, at each wake.
    Woke {
        /// When it meant to wake at the latest.
        due: Instant,
    },
    /// Judge. Given last, at each wake, after everything that had arrived was handled.
    Tick,
}

/// What a node's [`Liveness`] has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The verdict on a link changed.
    Verdict {
        /// On whom.
        peer: NodeId,
        /// What is thought now.
        verdict: Verdict,
    },
    /// This node was late; all links are judged anew.
    Late {
        /// By how much.
        by: Span,
    },
}

#[derive(Clone, Debug)]
struct Watched {
    detector: Detector,
    /// Heard since this node was last late.
    heard_again: bool,
}

/// The detectors of all links of a node, and the node's judgement of itself.
///
/// At most [`NODES_MAX`] links. Verdicts wait to be polled, at most one for each change.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    links: BTreeMap<NodeId, Watched>,
    /// Until when nobody is judged, unless everybody was heard again before.
    excused_until: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Liveness {
    /// A node without links.
    pub fn new() -> Liveness {
        Liveness::default()
    }

    /// Takes one input.
    ///
    /// # Panics
    /// If more than [`NODES_MAX`] links are up: the caller admits members only.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Up(peer) => {
                let watched = Watched { detector: Detector::new(now), heard_again: false };
                self.links.insert(peer, watched);
                assert!(self.links.len() <= NODES_MAX, "more links than a cluster has nodes");
            }
            Input::Down(peer) => {
                self.links.remove(&peer);
            }
            Input::Heard { peer, rtt } => {
                if let Some(watched) = self.links.get_mut(&peer) {
                    watched.heard_again = true;
                    watched.detector.handle(now, Heard::Something { rtt });
                }
            }
            Input::Woke { due } => self.woke(now, due),
            Input::Tick => {
                for watched in self.links.values_mut() {
                    watched.detector.handle(now, Heard::Nothing);
                }
            }
        }
        self.collect();
        self.end_excuse(now);
    }

    /// The next thing to say.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to give [`Input::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.links.values().filter_map(|watched| watched.detector.deadline()).min()
    }

    /// Whether this node may call others dead: false from being late until everybody was heard
    /// again, or one time-out went by.
    pub fn may_judge(&self) -> bool {
        self.excused_until.is_none()
    }

    /// The detector of a link.
    pub fn link(&self, peer: NodeId) -> Option<&Detector> {
        self.links.get(&peer).map(|watched| &watched.detector)
    }

    fn woke(&mut self, now: Instant, due: Instant) {
        let by = now.since(due);
        if by <= LATE {
            return;
        }
        let mut longest = TIMEOUT_MIN;
        for watched in self.links.values_mut() {
            watched.detector.handle(now, Heard::Excused);
            watched.heard_again = false;
            longest = longest.max(watched.detector.timeout());
        }
        self.excused_until = Some(now + longest);
        self.outputs.push_back(Output::Late { by });
    }

    fn collect(&mut self) {
        for (peer, watched) in &mut self.links {
            if let Some(verdict) = watched.detector.poll() {
                self.outputs.push_back(Output::Verdict { peer: *peer, verdict });
            }
        }
    }

    fn end_excuse(&mut self, now: Instant) {
        let Some(until) = self.excused_until else { return };
        if now >= until || self.links.values().all(|watched| watched.heard_again) {
            self.excused_until = None;
        }
    }
}

#[cfg(test)]
mod tests;
