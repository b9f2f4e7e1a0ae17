//! Groups of records with a number of each, made in several places and put together.
//!
//! What it does not know: records' storage, which stages follow.
//!
//! Invariant: putting the groups of parts together gives the groups of the whole.
//!
//! Limits: [`GROUPS_MAX`] groups, [`BUCKETS_MAX`] buckets of percentiles in all of them; records
//! beyond are counted as left out.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Grouping, Measure};
use crate::expr::{Builtin, Fields};
use crate::value::{Level, Trace, Value, ValueRef};

/// Most groups.
pub const GROUPS_MAX: usize = 10_000;
/// Most buckets of percentiles, in all groups together.
pub const BUCKETS_MAX: usize = 500_000;

/// A value that can be put in order with all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The record hasn't got it.
    Absent,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A fraction, as bits that have the order of the numbers.
    Float(u64),
    /// A length of time in nanoseconds.
    Duration(i64),
    /// A level.
    Level(Level),
    /// A moment in microseconds.
    Time(u64),
    /// A trace.
    Trace(Trace),
    /// A text.
    Str(String),
}

const SIGN: u64 = 1 << 63;

impl Key {
    pub(crate) fn of(value: Option<ValueRef<'_>>) -> Key {
        match value {
            None => Key::Absent,
            Some(ValueRef::Bool(value)) => Key::Bool(value),
            Some(ValueRef::Int(value)) => Key::Int(value),
            Some(ValueRef::Float(value)) => {
                let bits = value.to_bits();
                Key::Float(if bits & SIGN == 0 { bits | SIGN } else { !bits })
            }
            Some(ValueRef::Duration(value)) => Key::Duration(value),
            Some(ValueRef::Level(value)) => Key::Level(value),
            Some(ValueRef::Time(value)) => Key::Time(value),
            Some(ValueRef::Trace(value)) => Key::Trace(value),
            Some(ValueRef::Str(value)) => Key::Str(value.to_string()),
        }
    }

    pub(crate) fn value(&self) -> Option<Value> {
        Some(match self {
            Key::Absent => return None,
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Float(bits) => {
                Value::Float(f64::from_bits(if bits & SIGN == 0 { !bits } else { bits & !SIGN }))
            }
            Key::Duration(value) => Value::Duration(*value),
            Key::Level(value) => Value::Level(*value),
            Key::Time(value) => Value::Time(*value),
            Key::Trace(value) => Value::Trace(*value),
            Key::Str(value) => Value::Str(value.clone()),
        })
    }
}

/// What is known of the numbers of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    records: u64,
    /// Sums of whole numbers or nanoseconds, and of fractions.
    whole: i128,
    fraction: f64,
    /// Whether there were durations, and whether there was anything else.
    durations: bool,
    numbers: bool,
    fractions: bool,
    /// The least and the largest one.
    extremes: Option<(f64, f64)>,
    /// How many values are in each bucket; a bucket is 1/128 of a power of two wide.
    buckets: BTreeMap<i32, u64>,
}

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    groups: BTreeMap<Vec<Key>, Tally>,
    buckets: usize,
    /// Records that belong to none because there were too many groups.
    pub left_out: u64,
}

fn bucket(value: f64) -> i32 {
    let bits = value.to_bits();
    let place = ((bits & !SIGN) >> 45) as i32;
    if bits & SIGN == 0 { place } else { -place - 1 }
}

/// The middle of a bucket.
fn middle(bucket: i32) -> f64 {
    let place = if bucket < 0 { -(bucket + 1) } else { bucket };
    let bits = (place as u64) << 45;
    let (low, high) = (f64::from_bits(bits), f64::from_bits(bits + (1 << 45)));
    let middle = if high.is_finite() { low / 2.0 + high / 2.0 } else { low };
    if bucket < 0 { -middle } else { middle }
}

impl Groups {
    /// Adds a record.
    pub fn add(&mut self, grouping: &Grouping, record: &impl Fields) {
        let value = match &grouping.of {
            Some(name) => match name.of(record) {
                Some(value @ (ValueRef::Int(_) | ValueRef::Float(_) | ValueRef::Duration(_))) => {
                    Some(value)
                }
                // Without a number it has no part in it.
                _ => return,
            },
            None => None,
        };
        let mut key = Vec::new();
        if let Some(every) = grouping.every
            && let ValueRef::Time(time) = record.builtin(Builtin::Time)
        {
            key.push(Key::Time(time - time % every));
        }
        key.extend(grouping.by.iter().map(|name| Key::of(name.of(record))));
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let tally = self.groups.entry(key).or_default();
        let sketch = matches!(grouping.measure, Measure::Percentile(_));
        tally.add(value, sketch, &mut self.buckets);
    }

    /// Adds the groups of another part.
    pub fn merge(&mut self, other: Groups) {
        self.left_out = self.left_out.saturating_add(other.left_out);
        for (key, tally) in other.groups {
            if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
                self.left_out = self.left_out.saturating_add(tally.records);
                continue;
            }
            self.groups.entry(key).or_default().merge(tally, &mut self.buckets);
        }
    }

    /// Whether these can be the groups of that stage: what came from elsewhere may be anything.
    pub fn fits(&self, grouping: &Grouping) -> bool {
        let length = grouping.by.len() + usize::from(grouping.every.is_some());
        self.groups.keys().all(|key| key.len() == length)
    }

    /// The groups in the order of what they have in common, each with its number.
    pub(crate) fn rows(&self, grouping: &Grouping) -> Vec<Vec<Option<Value>>> {
        let row = |(key, tally): (&Vec<Key>, &Tally)| {
            let mut row: Vec<Option<Value>> = key.iter().map(Key::value).collect();
            row.push(tally.number(grouping.measure));
            row
        };
        self.groups.iter().map(row).collect()
    }

    /// The names of a row's values.
    pub(crate) fn columns(grouping: &Grouping) -> Vec<String> {
        let window = grouping.every.map(|_| "time".to_string());
        let by = grouping.by.iter().map(|name| name.name.clone());
        window.into_iter().chain(by).chain([grouping.column()]).collect()
    }
}

impl Tally {
    fn add(&mut self, value: Option<ValueRef<'_>>, sketch: bool, buckets: &mut usize) {
        self.records += 1;
        let Some(value) = value else { return };
        let number = match value {
            ValueRef::Duration(nanos) => {
                self.durations = true;
                self.whole += i128::from(nanos);
                ValueRef::Int(nanos).number()
            }
            ValueRef::Int(number) => {
                self.numbers = true;
                self.whole += i128::from(number);
                value.number()
            }
            ValueRef::Float(number) => {
                (self.numbers, self.fractions) = (true, true);
                self.fraction += number;
                Some(number)
            }
            _ => None,
        };
        let Some(number) = number.filter(|number| !number.is_nan()) else { return };
        self.note(number, number);
        if sketch {
            self.fill(bucket(number), 1, buckets);
        }
    }

    fn note(&mut self, least: f64, largest: f64) {
        let (low, high) = self.extremes.unwrap_or((least, largest));
        self.extremes = Some((low.min(least), high.max(largest)));
    }

    fn fill(&mut self, bucket: i32, count: u64, buckets: &mut usize) {
        if let Some(known) = self.buckets.get_mut(&bucket) {
            *known = known.saturating_add(count);
        } else if *buckets < BUCKETS_MAX {
            *buckets += 1;
            self.buckets.insert(bucket, count);
        }
    }

    fn merge(&mut self, other: Tally, buckets: &mut usize) {
        self.records = self.records.saturating_add(other.records);
        self.whole = self.whole.saturating_add(other.whole);
        self.fraction += other.fraction;
        self.durations |= other.durations;
        self.numbers |= other.numbers;
        self.fractions |= other.fractions;
        if let Some((least, largest)) = other.extremes {
            self.note(least, largest);
        }
        for (bucket, count) in other.buckets {
            self.fill(bucket, count, buckets);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a sum of fractions is inexact anyway")]
    fn number(&self, measure: Measure) -> Option<Value> {
        let total = self.whole as f64 + self.fraction;
        match measure {
            Measure::Count => Some(Value::Int(i64::try_from(self.records).unwrap_or(i64::MAX))),
            Measure::Sum if !self.fractions => {
                i64::try_from(self.whole).ok().map(|whole| self.unit_whole(whole))
            }
            Measure::Sum => Some(self.unit(total)),
            Measure::Avg => Some(self.unit(total / self.records as f64)),
            Measure::Min => self.extremes.map(|(least, _)| self.unit_like(least)),
            Measure::Max => self.extremes.map(|(_, largest)| self.unit_like(largest)),
            Measure::Percentile(p) => self.percentile(p).map(|number| self.unit(number)),
        }
    }

    fn percentile(&self, p: u8) -> Option<f64> {
        let (least, largest) = self.extremes?;
        let all: u128 = self.buckets.values().map(|count| u128::from(*count)).sum();
        let rank = (all * u128::from(p)).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += u128::from(*count);
            if seen >= rank {
                return Some(middle(*bucket).max(least).min(largest));
            }
        }
        None
    }

    /// Durations only: a duration. Mixed with numbers it is a number of nanoseconds.
    fn unit(&self, number: f64) -> Value {
        if self.durations && !self.numbers {
            Value::Duration(number as i64)
        } else {
            Value::Float(number)
        }
    }

    fn unit_whole(&self, number: i64) -> Value {
        if self.durations && !self.numbers { Value::Duration(number) } else { Value::Int(number) }
    }

    fn unit_like(&self, number: f64) -> Value {
        if self.fractions || !self.numbers { self.unit(number) } else { Value::Int(number as i64) }
    }
}
