//! Monitors: when a task that repeats is due, on one node.
//!
//! What it does not know: what the task does, clocks.
//!
//! Invariants
//! - At most one run is under way. One that is due meanwhile is left out and counted, so that a
//!   slow host isn't made slower.
//! - Runs keep their rhythm: a late one doesn't shift those after it.

use jizoku_types::{Instant, Span};

use crate::limits::EVERY_MIN;

/// When one monitor runs on one node.
#[derive(Debug)]
pub struct Monitor {
    every: Span,
    next: Instant,
    running: bool,
    left_out: u64,
}

impl Monitor {
    /// A monitor whose first run is at once, or up to one period later: `phase` spreads those of
    /// many nodes, in thousandths of the period.
    pub fn new(now: Instant, every: Span, phase: u64) -> Monitor {
        let every = every.max(EVERY_MIN);
        let next = now + every.permille(phase.min(999));
        Monitor { every, next, running: false, left_out: 0 }
    }

    /// Another period, from now on.
    pub fn change(&mut self, now: Instant, every: Span) {
        self.every = every.max(EVERY_MIN);
        self.next = self.next.min(now + self.every);
    }

    /// Whether a run shall begin now.
    pub fn due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let late = now.since(self.next).as_nanos() / self.every.as_nanos();
        self.next += self.every * (late + 1);
        if self.running {
            self.left_out += late + 1;
            return false;
        }
        self.left_out += late;
        self.running = true;
        true
    }

    /// The run has ended, well or not.
    pub fn ended(&mut self) {
        self.running = false;
    }

    /// When to ask again.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Runs that were due and left out.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Span::secs(seconds)
    }

    #[test]
    fn runs_keep_their_rhythm_and_never_overlap() {
        let mut monitor = Monitor::new(at(0), Span::secs(5), 0);
        assert!(monitor.due(at(0)));
        assert!(!monitor.due(at(4)));
        assert!(!monitor.due(at(5)), "the first is under way");
        assert_eq!(monitor.left_out(), 1);
        monitor.ended();
        assert!(!monitor.due(at(6)));
        assert_eq!(monitor.deadline(), at(10));
        assert!(monitor.due(at(23)), "late, but once");
        assert_eq!((monitor.deadline(), monitor.left_out()), (at(25), 3));
    }

    #[test]
    fn periods_can_be_changed_and_are_never_too_short() {
        let mut monitor = Monitor::new(at(0), Span::secs(60), 500);
        assert_eq!(monitor.deadline(), at(30));
        monitor.change(at(1), Span::secs(2));
        assert_eq!(monitor.deadline(), at(3));
        monitor.change(at(1), Span::ZERO);
        assert!(monitor.due(at(1) + EVERY_MIN));
    }
}
