//! Triggers: when records mean that a flow shall start.
//!
//! The owner watches the log for the trigger's event, and tells of each record whether it matches
//! and what its key is: the values of the fields behind `by`. Each key is followed by itself.
//!
//! What it does not know: filters, flows, clocks.
//!
//! Invariants
//! - While the flow runs that was started for a key, nothing else is started for it.
//! - With `for`, a flow starts only if no record of the key in all that time didn't match; after
//!   it has ended, the time begins anew with the next match.
//! - At most `most` starts of one key within `within`; what would be one more is the escalation,
//!   once, until there is room again.
//!
//! Limits: [`KEYS_MAX`] keys; beyond, the ones that nothing is known of are forgotten, and if
//! there are none, records of new keys are counted and left out.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use jizoku_types::{Instant, Span};

use crate::limits::KEYS_MAX;

/// What a trigger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How long the filter has to hold; zero: one match is enough.
    pub hold: Span,
    /// At most so many starts of one key in such a time.
    pub most: Option<(u32, Span)>,
    /// After that the trigger stops, instead of starting another flow.
    pub stops: bool,
}

/// What a trigger wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start the flow for this key, with the last record that matched; say
    /// [`Trigger::ended`] when it has ended.
    Start(String),
    /// It was started too often for this key: start the other flow.
    Escalate(String),
    /// It was started too often for this key, and stops: nothing is started any more.
    Stopped(String),
}

#[derive(Debug, Default)]
struct Key {
    /// Since when every record matched.
    since: Option<Instant>,
    busy: bool,
    escalated: bool,
    starts: VecDeque<Instant>,
}

/// One trigger.
#[derive(Debug)]
pub struct Trigger {
    rule: Rule,
    keys: BTreeMap<String, Key>,
    out: VecDeque<Output>,
    stopped: bool,
    left_out: u64,
}

impl Trigger {
    /// A trigger that has seen nothing.
    pub fn new(rule: Rule) -> Trigger {
        let (keys, out) = (BTreeMap::new(), VecDeque::new());
        Trigger { rule, keys, out, stopped: false, left_out: 0 }
    }

    /// Another rule from now on; what was seen and started stays known.
    pub fn change(&mut self, now: Instant, rule: Rule) {
        self.rule = rule;
        self.stopped = false;
        self.tick(now);
    }

    /// A record of the event came.
    pub fn seen(&mut self, now: Instant, key: &str, matches: bool) {
        if self.stopped {
            return;
        }
        if !matches {
            if let Some(known) = self.keys.get_mut(key) {
                known.since = None;
            }
            return;
        }
        if !self.keys.contains_key(key) {
            if self.keys.len() >= KEYS_MAX {
                self.forget(now);
            }
            if self.keys.len() >= KEYS_MAX {
                self.left_out += 1;
                return;
            }
            self.keys.insert(key.into(), Key::default());
        }
        if let Some(known) = self.keys.get_mut(key)
            && !known.busy
        {
            known.since.get_or_insert(now);
        }
        self.tick(now);
    }

    /// The flow that was started for a key has ended.
    pub fn ended(&mut self, now: Instant, key: &str) {
        if let Some(known) = self.keys.get_mut(key) {
            known.busy = false;
            known.since = None;
        }
        self.tick(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let Rule { hold, most, stops } = self.rule;
        for (name, key) in &mut self.keys {
            if self.stopped {
                return;
            }
            if key.busy || key.since.is_none_or(|since| since + hold > now) {
                continue;
            }
            key.since = None;
            if let Some((times, within)) = most {
                while key.starts.front().is_some_and(|start| *start + within <= now) {
                    key.starts.pop_front();
                }
                if key.starts.len() >= times as usize {
                    if stops {
                        self.stopped = true;
                        self.out.push_back(Output::Stopped(name.clone()));
                    } else if !core::mem::replace(&mut key.escalated, true) {
                        self.out.push_back(Output::Escalate(name.clone()));
                    }
                    continue;
                }
                key.starts.push_back(now);
            }
            key.escalated = false;
            key.busy = true;
            self.out.push_back(Output::Start(name.clone()));
        }
    }

    /// What it wants, one after the other.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When it wants a `tick`.
    pub fn deadline(&self) -> Option<Instant> {
        let open = self.keys.values().filter(|key| !key.busy && !self.stopped);
        open.filter_map(|key| key.since).map(|since| since + self.rule.hold).min()
    }

    /// Records that were left out because there were too many keys.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Forgets keys of which nothing is known that matters.
    fn forget(&mut self, now: Instant) {
        let within = self.rule.most.map_or(Span::ZERO, |(_, within)| within);
        self.keys.retain(|_, key| {
            let recent = key.starts.back().is_some_and(|start| *start + within > now);
            key.busy || key.since.is_some() || recent
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Span::secs(seconds)
    }

    fn trigger(hold: u64, most: Option<(u32, u64)>, stops: bool) -> Trigger {
        let most = most.map(|(times, within)| (times, Span::secs(within)));
        Trigger::new(Rule { hold: Span::secs(hold), most, stops })
    }

    fn all(trigger: &mut Trigger) -> Vec<Output> {
        core::iter::from_fn(|| trigger.poll()).collect()
    }

    fn start(key: &str) -> Output {
        Output::Start(key.into())
    }

    #[test]
    fn a_filter_must_hold_without_a_gap() {
        let mut t = trigger(30, None, false);
        t.seen(at(0), "a", true);
        t.seen(at(10), "a", false);
        t.seen(at(15), "a", true);
        t.seen(at(44), "a", true);
        assert_eq!((all(&mut t), t.deadline()), (Vec::new(), Some(at(45))));
        t.tick(at(45));
        assert_eq!(all(&mut t), [start("a")]);
    }

    #[test]
    fn keys_are_followed_by_themselves_and_one_flow_runs_for_each() {
        let mut t = trigger(0, None, false);
        t.seen(at(0), "a", true);
        t.seen(at(1), "a", true);
        t.seen(at(1), "b", true);
        assert_eq!(all(&mut t), [start("a"), start("b")]);
        t.ended(at(2), "a");
        assert_eq!(all(&mut t), [], "what came meanwhile is old");
        t.seen(at(3), "a", true);
        assert_eq!(all(&mut t), [start("a")]);
    }

    #[test]
    fn too_many_starts_escalate_once_until_there_is_room() {
        let mut t = trigger(0, Some((2, 60)), false);
        let mut said = Vec::new();
        for second in (0..=80).step_by(10) {
            t.seen(at(second), "a", true);
            said.extend(all(&mut t).into_iter().map(|output| (second, output)));
            t.ended(at(second + 1), "a");
        }
        let expected = [
            (0, start("a")),
            (10, start("a")),
            (20, Output::Escalate("a".into())),
            (60, start("a")),
            (70, start("a")),
            (80, Output::Escalate("a".into())),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn it_stops_if_it_says_so_and_begins_again_when_changed() {
        let mut t = trigger(0, Some((1, 60)), true);
        t.seen(at(0), "a", true);
        t.ended(at(1), "a");
        t.seen(at(2), "a", true);
        t.seen(at(100), "a", true);
        assert_eq!(all(&mut t), [start("a"), Output::Stopped("a".into())]);
        assert_eq!(t.deadline(), None);
        t.change(at(100), Rule { hold: Span::ZERO, most: None, stops: false });
        t.seen(at(101), "a", true);
        assert_eq!(all(&mut t), [start("a")]);
    }

    #[test]
    fn keys_are_bounded() {
        let mut t = trigger(10, None, false);
        for n in 0..KEYS_MAX + 5 {
            t.seen(at(0), &format!("{n}"), true);
        }
        assert_eq!(t.left_out(), 5);
        t.seen(at(1), "0", false);
        t.seen(at(1), "new", true);
        assert_eq!(t.left_out(), 5);
    }
}
