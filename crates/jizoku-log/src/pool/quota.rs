//! How much each source may write, and the count of what was dropped because it wrote more.
//!
//! A source may write for a while what it may write in a second, then at its rate. What one
//! drops is never taken from another.
//!
//! What it does not know: records; who enforces it.
//!
//! Limit: [`SOURCES_MAX`] sources are told apart; all further ones share one quota.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most sources with a quota of their own.
const SOURCES_MAX: usize = 4096;
/// Whose quota all further sources share.
const OTHERS: &str = "(others)";
/// Fractions of a record that are counted: a microsecond at one record a second.
const PART: u64 = 1_000_000;

/// What a source may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Records a second; 0: no limit.
    pub records: u32,
    /// Bytes of their values a second; 0: no limit.
    pub bytes: u32,
}

#[derive(Debug)]
struct Source {
    name: String,
    quota: Quota,
    records: u64,
    bytes: u64,
    at: u64,
    /// Since it was last said.
    dropped: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Quotas {
    usual: Quota,
    sources: Vec<Source>,
    known: BTreeMap<String, usize>,
    /// How many have dropped something that wasn't said yet.
    unsaid: usize,
    pub(crate) dropped: u64,
}

impl Quotas {
    pub(crate) fn new(usual: Quota) -> Quotas {
        let (sources, known) = (Vec::new(), BTreeMap::new());
        Quotas { usual, sources, known, unsaid: 0, dropped: 0 }
    }

    /// The number of a source.
    pub(crate) fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.known.get(name) {
            return *number;
        }
        if self.known.len() >= SOURCES_MAX && name != OTHERS {
            return self.number(OTHERS);
        }
        let quota = self.usual;
        let (records, bytes) = full(quota);
        let number = self.sources.len();
        let source = Source { name: name.to_string(), quota, records, bytes, at: 0, dropped: 0 };
        self.sources.push(source);
        self.known.insert(name.to_string(), number);
        number
    }

    /// Gives a source a quota of its own.
    pub(crate) fn set(&mut self, name: &str, quota: Quota) {
        let number = self.number(name);
        let source = &mut self.sources[number];
        source.quota = quota;
        (source.records, source.bytes) = full(quota);
    }

    /// Whether a source may write a record now; what it may not is counted.
    pub(crate) fn take(&mut self, number: usize, now: u64, bytes: usize) -> bool {
        let source = &mut self.sources[number];
        let Quota { records, bytes: bytes_rate } = source.quota;
        if records == 0 && bytes_rate == 0 {
            return true;
        }
        let passed = now.saturating_sub(source.at).min(PART);
        source.at = source.at.max(now);
        let (most_records, most_bytes) = full(source.quota);
        source.records = (source.records + passed * u64::from(records)).min(most_records);
        source.bytes = (source.bytes + passed * u64::from(bytes_rate)).min(most_bytes);
        // Never more than a second's worth, or a large record would never come in.
        let cost = (bytes as u64).saturating_mul(PART).min(most_bytes);
        let fits =
            (records == 0 || source.records >= PART) && (bytes_rate == 0 || source.bytes >= cost);
        if fits {
            source.records = source.records.saturating_sub(PART);
            source.bytes = source.bytes.saturating_sub(cost);
        } else {
            self.unsaid += usize::from(source.dropped == 0);
            source.dropped += 1;
            self.dropped += 1;
        }
        fits
    }

    /// Whether something was dropped that wasn't said.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.unsaid > 0
    }

    /// What was dropped since it was last asked, by source.
    pub(crate) fn say(&mut self) -> Vec<(String, u64)> {
        self.unsaid = 0;
        let dropped = self.sources.iter_mut().filter(|source| source.dropped > 0);
        dropped.map(|source| (source.name.clone(), core::mem::take(&mut source.dropped))).collect()
    }
}

fn full(quota: Quota) -> (u64, u64) {
    (u64::from(quota.records) * PART, u64::from(quota.bytes) * PART)
}
