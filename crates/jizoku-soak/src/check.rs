//! What clients may see: the rules, and the books that are kept of what they saw.
//!
//! Pure: times are told, as [`Moment`]s since the campaign began. What it does not know: sockets,
//! processes, how faults are made.
//!
//! The rules, all of them:
//! - Each writer has a key of its own for each connection, and counts it up. An answer is the next
//!   number: anything else was lost, doubled or reordered.
//! - A connection may break for a reason of [`may_break`] only.
//! - A key whose connection broke has, once all is healed, at least what was acknowledged and at
//!   most what was asked for. Less only as far as [`allowed_loss`] says.
//! - What somebody else reads of a key of a `held` service meanwhile lies between these two.
//! - At the end every key is as it was left.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

/// Time since the campaign began.
pub type Moment = Duration;

/// `durable = "memory"`: disks follow within this time (docs/concepts/holder-set.md), and that of
/// one flush, which is measured: here all nodes share one device.
pub const FLUSHED_WITHIN: Duration = Duration::from_secs(1);
/// The interval of a `free` service, as shipped.
pub const INTERVAL: Duration = Duration::from_millis(50);
/// How long the commit under way may take when a fault comes: as long as the longest silence for
/// which a holder isn't given up (`SILENCE_MAX`, 1 s), and as much for a busy machine.
pub const COMMIT_WITHIN: Duration = Duration::from_secs(2);
/// After so long out of reach a gateway may have been given up (30 s, counted by others' clocks).
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(28);
/// How long an answer is remembered with its time: longer than any step may take.
const REMEMBERED: Duration = Duration::from_secs(300);

/// What a service promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// `held`, `durable = "disk"`.
    Disk,
    /// `held`, `durable = "memory"`.
    Memory,
    /// `free`.
    Free,
}

/// What was done to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// To which.
    pub node: usize,
    /// From when on.
    pub from: Moment,
    /// Until when; none: it lasts.
    pub until: Option<Moment>,
    /// Whether its agent ended; otherwise it was only out of reach, or slow.
    pub died: bool,
}

/// What happened in a step, as far as it excuses anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excuses {
    /// When the first fault came.
    pub began: Moment,
    /// What was done to which node.
    pub disturbed: Vec<Disturbance>,
    /// When all machines lost their power.
    pub power_lost: Option<Moment>,
    /// How long a flush took just before.
    pub flush: Duration,
    /// Whether the service at hand has another epoch than before.
    pub restored: bool,
}

/// A connection that broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The key that was counted up on it.
    pub key: String,
    /// The node whose gateway had taken it.
    pub gateway: usize,
    /// When it was opened.
    pub opened: Moment,
    /// When it broke.
    pub at: Moment,
    /// How.
    pub error: String,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// What was acknowledged is gone.
    Lost {
        /// Whose.
        key: String,
        /// What was acknowledged, and may not be lost.
        least: u64,
        /// What is there.
        found: u64,
    },
    /// More was done than was asked for.
    Doubled {
        /// Whose.
        key: String,
        /// What was asked for.
        most: u64,
        /// What is there.
        found: u64,
    },
    /// An answer is not the next one.
    Wrong {
        /// Whose.
        key: String,
        /// What should have come.
        expected: u64,
        /// What came.
        answer: String,
    },
    /// A connection broke without a reason.
    Broken(Break),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { key, least, found } => {
                write!(f, "LOST: {key} has {found}, and {least} was acknowledged")
            }
            Violation::Doubled { key, most, found } => {
                write!(f, "DOUBLED: {key} has {found}, and {most} was asked for")
            }
            Violation::Wrong { key, expected, answer } => {
                write!(f, "WRONG: {key} was told {answer:?} instead of {expected}")
            }
            Violation::Broken(one) => write!(
                f,
                "BROKEN: {} through n{} after {:.1} s: {}",
                one.key,
                one.gateway + 1,
                (one.at.saturating_sub(one.opened)).as_secs_f64(),
                one.error
            ),
            Violation::Other(what) => f.write_str(what),
        }
    }
}

/// Why a connection was allowed to break; none: it wasn't.
pub fn may_break(one: &Break, promise: Promise, excuses: &Excuses) -> Option<&'static str> {
    let mine = excuses.disturbed.iter().filter(|what| what.node == one.gateway);
    let meets = |what: &&Disturbance| {
        what.from <= one.at && what.until.is_none_or(|until| one.opened <= until)
    };
    let mut silent = Duration::ZERO;
    for what in mine.filter(meets) {
        if what.died {
            return Some("its gateway's agent ended");
        }
        silent = silent.max(what.until.unwrap_or(one.at).saturating_sub(what.from));
    }
    if silent >= GIVEN_UP_AFTER {
        return Some("its gateway was out of reach for so long that it was given up");
    }
    (promise == Promise::Free && excuses.restored).then_some("free output, and a takeover")
}

/// From when on what was acknowledged may be lost; none: nothing may.
pub fn allowed_loss(promise: Promise, excuses: &Excuses) -> Option<Moment> {
    let by_fault = excuses.restored.then(|| excuses.began.saturating_sub(INTERVAL + COMMIT_WITHIN));
    let by_power = excuses.power_lost.map(|at| at.saturating_sub(FLUSHED_WITHIN + excuses.flush));
    match promise {
        Promise::Disk => None,
        Promise::Memory => by_power,
        Promise::Free => [by_fault, by_power.map(|at| at.saturating_sub(INTERVAL + COMMIT_WITHIN))]
            .into_iter()
            .flatten()
            .min(),
    }
}

/// What a service's clients asked and were told.
#[derive(Clone, Debug)]
pub struct Book {
    promise: Promise,
    keys: BTreeMap<String, Key>,
}

#[derive(Clone, Debug, Default)]
struct Key {
    sent: u64,
    told: u64,
    /// The newest answers.
    recent: VecDeque<(Moment, u64)>,
    /// Its connection broke, and nobody has looked since.
    doubtful: bool,
}

impl Book {
    /// An empty book.
    pub fn new(promise: Promise) -> Book {
        Book { promise, keys: BTreeMap::new() }
    }

    /// What its service promises.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// A client asks to count up once more.
    pub fn ask(&mut self, key: &str) {
        self.keys.entry(key.into()).or_default().sent += 1;
    }

    /// A client is answered.
    ///
    /// # Errors
    /// It is not the next answer.
    pub fn tell(&mut self, key: &str, answer: &str, at: Moment) -> Result<(), Violation> {
        let one = self.keys.entry(key.into()).or_default();
        let expected = one.told + 1;
        if answer != expected.to_string() || expected > one.sent {
            let key = key.into();
            return Err(Violation::Wrong { key, expected, answer: answer.into() });
        }
        one.told = expected;
        one.recent.push_back((at, expected));
        while one.recent.front().is_some_and(|old| old.0 + REMEMBERED < at) {
            one.recent.pop_front();
        }
        Ok(())
    }

    /// A client's connection broke: what became of its key has to be looked at.
    pub fn broke(&mut self, key: &str) {
        self.keys.entry(key.into()).or_default().doubtful = true;
    }

    /// Keys that have to be looked at.
    pub fn doubtful(&self) -> Vec<String> {
        let doubtful = self.keys.iter().filter(|(_, one)| one.doubtful);
        doubtful.map(|(key, _)| key.clone()).collect()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// A key that is being counted up now, for readers; and the least that a reader must see.
    pub fn open_key(&self, chance: u64) -> Option<(String, u64)> {
        let open: Vec<_> =
            self.keys.iter().filter(|(_, one)| !one.doubtful && one.told < one.sent).collect();
        let index = (chance % open.len().max(1) as u64) as usize;
        open.get(index).map(|(key, one)| ((*key).clone(), one.told))
    }

    /// A reader was told this of a key, when `least` had been acknowledged before it asked.
    ///
    /// # Errors
    /// It is older than that, or newer than what was asked for.
    pub fn read(&self, key: &str, least: u64, found: u64) -> Result<(), Violation> {
        let one = &self.keys[key];
        if found > one.sent {
            return Err(Violation::Doubled { key: key.into(), most: one.sent, found });
        }
        if found < least && self.promise != Promise::Free && !one.doubtful {
            return Err(Violation::Lost { key: key.into(), least, found });
        }
        Ok(())
    }

    /// All is healed, nobody counts this key up any more, and this is there. Gives for how long
    /// acknowledged writes were lost, if some were allowed to be.
    ///
    /// # Errors
    /// It is less, or more, than it may be.
    pub fn found(
        &mut self,
        key: &str,
        found: u64,
        excuses: &Excuses,
    ) -> Result<Option<Duration>, Violation> {
        let loss = allowed_loss(self.promise, excuses);
        let one = self.keys.entry(key.into()).or_default();
        if found > one.sent {
            return Err(Violation::Doubled { key: key.into(), most: one.sent, found });
        }
        let safe = |at: &&(Moment, u64)| loss.is_none_or(|from| at.0 < from);
        let least = match loss {
            None => one.told,
            // With no answer that old left, all were younger, or the count before them is known.
            Some(_) => one.recent.iter().rev().find(safe).map_or_else(
                || one.recent.front().map_or(one.told, |first| first.1 - 1),
                |last| last.1,
            ),
        };
        let first_lost = one.recent.iter().find(|answer| answer.1 > found).map(|answer| answer.0);
        let fault = excuses.power_lost.unwrap_or(excuses.began);
        one.doubtful = false;
        (one.sent, one.told) = (found, found);
        one.recent.clear();
        if found < least {
            return Err(Violation::Lost { key: key.into(), least, found });
        }
        Ok(first_lost.map(|at| fault.saturating_sub(at)))
    }
}

#[cfg(test)]
mod tests;
