//! Whether the other end of a link is alive, from the moments at which it was heard.
//!
//! Each end of a link beats every [`BEAT`]. A [`Detector`] learns the gaps of one link and says
//! [`Verdict::Silent`] once nothing was heard for the mean gap and four deviations, within
//! [`TIMEOUT_MIN`] and [`TIMEOUT_MAX`] (all three can be tuned: [`Timing`]). [`Liveness`] holds
//! the detectors of a node, and knows whether the node itself was late: a node that was paused or
//! starved judges each link anew.
//!
//! Before the first sound of a link its time-out is the longest: the other end may still be busy
//! with bringing it up.
//!
//! What it does not know: sockets, clocks, what follows from a verdict. A reset connection is
//! no business of this module: its link goes down without any verdict.
//!
//! Invariants
//! - Silent is said only when a whole time-out went by in which this node was on time.
//! - A time-out is never shorter and never longer than the timing allows.
//! - A link that was called silent and came back is given more time than before.
//! - A gap during which this node was late teaches the detector nothing.

use alloc::collections::{BTreeMap, VecDeque};
use core::fmt;

use jizoku_types::limits::NODES_MAX;
use jizoku_types::{Instant, NodeId, Span};

/// How often each end of a link beats, by default.
pub const BEAT: Span = Span::millis(40);
/// Shortest time-out by default: three beats and the jitter of a busy machine.
pub const TIMEOUT_MIN: Span = Span::millis(150);
/// Longest time-out by default, however irregular a link is.
pub const TIMEOUT_MAX: Span = Span::secs(1);

/// Suspect after this share of the time-out, in thousandths.
const SUSPECT_PERMILLE: u64 = 600;
/// A node that wakes later than it meant to by this share of the shortest time-out was late.
const LATE_PERMILLE: u64 = 400;
const _: () = assert!(LATE_PERMILLE < SUSPECT_PERMILLE, "lateness must show before suspicion");
/// Deviations above the mean that make the time-out.
const DEVIATIONS: u64 = 4;
/// Deviation that a link is given to begin with, in shortest time-outs: trust is earned. By
/// default its time-out is 640 ms after the first sound, and the shortest after five seconds.
const FIRST_DEVIATION: u64 = 1;
/// The mean moves by 1/16 of the difference.
const MEAN_SHARE: u64 = 16;
/// The deviation rises by 1/4 of the difference, so that one long gap is remembered at once,
const RISE_SHARE: u64 = 4;
/// and falls by 1/64: it takes 64 regular beats to lose two thirds of it.
const FALL_SHARE: u64 = 64;
/// The round trip time moves by 1/8 of the difference.
const RTT_SHARE: u64 = 8;

/// How fast links beat, and how patient they are. The same on all nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    beat: Span,
    timeout_min: Span,
    timeout_max: Span,
}

/// The shortest time-out must be more than three beats and at most the longest, and a beat must
/// take some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingError;

impl fmt::Display for TimingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shortest time-out must be more than three beats and at most the longest")
    }
}

impl core::error::Error for TimingError {}

impl Timing {
    /// Beats this often; time-outs within these bounds.
    pub fn new(beat: Span, timeout_min: Span, timeout_max: Span) -> Result<Timing, TimingError> {
        let patient = timeout_min > beat * 3 && timeout_max >= timeout_min;
        if beat == Span::ZERO || !patient {
            return Err(TimingError);
        }
        Ok(Timing { beat, timeout_min, timeout_max })
    }

    /// How often each end beats.
    pub fn beat(&self) -> Span {
        self.beat
    }

    /// No link is silent sooner.
    pub fn timeout_min(&self) -> Span {
        self.timeout_min
    }

    /// Every link without a sound is silent then.
    pub fn timeout_max(&self) -> Span {
        self.timeout_max
    }

    /// A node that wakes later than this after it meant to was late.
    pub fn late(&self) -> Span {
        self.timeout_min.permille(LATE_PERMILLE)
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { beat: BEAT, timeout_min: TIMEOUT_MIN, timeout_max: TIMEOUT_MAX }
    }
}

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
    timing: Timing,
    heard: Instant,
    /// Whether anything was ever heard.
    begun: bool,
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
    pub fn new(now: Instant, timing: Timing) -> Detector {
        Detector {
            timing,
            heard: now,
            begun: false,
            mean: timing.beat,
            deviation: timing.timeout_min * FIRST_DEVIATION,
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
                self.begun = true;
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
        if !self.begun {
            return self.timing.timeout_max;
        }
        let wanted = self.mean + self.deviation * DEVIATIONS;
        wanted.clamp(self.timing.timeout_min, self.timing.timeout_max)
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
        let gap = gap.min(self.timing.timeout_max);
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
#[derive(Clone, Debug)]
pub struct Liveness {
    timing: Timing,
    links: BTreeMap<NodeId, Watched>,
    /// Until when nobody is judged, unless everybody was heard again before.
    excused_until: Option<Instant>,
    outputs: VecDeque<Output>,
    /// What was learned of links that are down, for when they come back. At most [`NODES_MAX`];
    /// beyond that the one with the lowest id is forgotten.
    learned: BTreeMap<NodeId, Span>,
}

impl Liveness {
    /// A node without links.
    pub fn new(timing: Timing) -> Liveness {
        Liveness {
            timing,
            links: BTreeMap::new(),
            excused_until: None,
            outputs: VecDeque::new(),
            learned: BTreeMap::new(),
        }
    }

    /// Takes one input.
    ///
    /// # Panics
    /// If more than [`NODES_MAX`] links are up: the caller admits members only.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Up(peer) => {
                self.forget(peer);
                let mut detector = Detector::new(now, self.timing);
                if let Some(deviation) = self.learned.remove(&peer) {
                    detector.deviation = detector.deviation.max(deviation);
                }
                self.links.insert(peer, Watched { detector, heard_again: false });
                assert!(self.links.len() <= NODES_MAX, "more links than a cluster has nodes");
            }
            Input::Down(peer) => self.forget(peer),
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

    /// Takes a link out, and keeps what it has taught.
    fn forget(&mut self, peer: NodeId) {
        let Some(Watched { detector, .. }) = self.links.remove(&peer) else { return };
        let mut deviation = detector.deviation;
        if detector.verdict == Verdict::Silent {
            // If it comes back, it wasn't dead for long: the time-out was too short for it.
            deviation = (deviation * 2).min(self.timing.timeout_max / DEVIATIONS);
        }
        self.learned.insert(peer, deviation);
        if self.learned.len() > NODES_MAX {
            self.learned.pop_first();
        }
    }

    fn woke(&mut self, now: Instant, due: Instant) {
        let by = now.since(due);
        if by <= self.timing.late() {
            return;
        }
        let mut longest = self.timing.timeout_min;
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
