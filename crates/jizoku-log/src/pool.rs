//! The records of one node in memory, the oldest forgotten first.
//!
//! ```text
//!   append ──> quota ──> active segment ──full──> sealed segments ──limit──> forgotten
//!                 |            |                        |
//!              dropped,     watchers               scan, scan_back
//!              said later   are woken              latest, history of a trace
//! ```
//!
//! A segment has its own shapes and traces (see [`segment`]), so forgetting is dropping a segment.
//! There are no posting lists: a filter is decided once for each shape of a segment, which leaves
//! two bytes to look at for each record, and none where no shape fits.
//!
//! A watcher is a filter that new records are tested with as they arrive. It holds no records:
//! whoever is woken reads on from its cursor, so nothing is lost between two looks, and what was
//! forgotten before it looked is counted ([`Pool::missed`]).
//!
//! What it does not know: clocks (`now` is handed in, in microseconds of Unix time), other nodes,
//! queries.
//!
//! Invariants
//! - Numbers of records grow by one; times never fall.
//! - A watcher that isn't woken has been shown everything up to the newest record.
//! - What is not kept is counted: dropped by a quota ([`Stats::dropped`], and said in records
//!   `log.dropped`), or forgotten at a limit ([`Stats::forgotten`]).
//!
//! Limits: bytes and age, kept to within a sixteenth (a segment); [`WATCHERS_MAX`] watchers.

mod hash;
mod latest;
mod quota;
pub mod segment;
mod shape;
mod test;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::latest::{Latest, Numbers};
pub use self::quota::Quota;
use self::quota::Quotas;
use self::segment::Segment;
pub use self::segment::View;
use self::shape::Shape;
use self::test::Test;
use crate::expr::Filter;
use crate::record::{Draft, FIELDS_MAX, NAME_MAX, RECORD_MAX, TEXT_MAX, cut};
use crate::value::{Level, Trace, ValueRef};

/// Most watchers at a time.
pub const WATCHERS_MAX: usize = 4096;
/// The event of records that say what was dropped.
pub const DROPPED: &str = "log.dropped";
/// The source of records that the pool writes itself.
pub const SELF: &str = "log";
/// Time between two records about what was dropped, in microseconds.
const SAY_EVERY: u64 = 1_000_000;
/// Into how many segments the limits divide a pool at least.
const SHARES: usize = 16;

/// How a pool is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most bytes.
    pub bytes_max: usize,
    /// Age at which records are forgotten, in microseconds.
    pub age_max: u64,
    /// The number of the first record.
    pub first: u64,
    /// Who it is; the host of its own records.
    pub host: alloc::string::String,
    /// What a source may write if nothing else is said.
    pub quota: Quota,
    /// Random, unknown to whoever writes records.
    pub seed: u64,
}

/// Which watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(u64);

/// What a pool holds, and what it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that are there.
    pub records: u64,
    /// Bytes that they take, with all that belongs to them.
    pub bytes: u64,
    /// Records that were taken since the start.
    pub taken: u64,
    /// Records that quotas dropped.
    pub dropped: u64,
    /// Records that were forgotten at a limit.
    pub forgotten: u64,
    /// The time of the oldest record.
    pub oldest: Option<u64>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Pool {
    config: Config,
    sealed: VecDeque<Arc<Segment>>,
    sealed_bytes: usize,
    active: Segment,
    latest: Latest,
    quotas: Quotas,
    said_at: u64,
    forgotten: u64,
    watchers: BTreeMap<u64, Watcher>,
    next_watcher: u64,
    /// For each shape of the active segment, who may want its records; empty: not made yet.
    wants: Vec<Option<Vec<(u64, Test)>>>,
    woken: Vec<WatcherId>,
}

#[derive(Debug)]
struct Watcher {
    filter: Filter,
    woken: bool,
}

struct Numbered<'p> {
    sealed: &'p VecDeque<Arc<Segment>>,
    active: &'p Segment,
    first: u64,
}

impl Numbered<'_> {
    fn segment(&self, seq: u64) -> &Segment {
        if seq >= self.active.first {
            return self.active;
        }
        let at = self.sealed.partition_point(|segment| segment.first <= seq);
        &self.sealed[at - 1]
    }
}

impl Numbers for Numbered<'_> {
    fn whole(&self, low: u32) -> Option<u64> {
        let newest = self.active.end().checked_sub(1)?;
        let back = (newest as u32).wrapping_sub(low);
        newest.checked_sub(u64::from(back)).filter(|seq| *seq >= self.first)
    }
    fn trace(&self, seq: u64) -> u128 {
        self.segment(seq).view(seq).trace().0
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(config: Config) -> Pool {
        let quotas = Quotas::new(config.quota);
        let mut pool = Pool {
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            active: Segment::new(config.first, 0),
            latest: Latest::new(),
            quotas,
            said_at: 0,
            forgotten: 0,
            watchers: BTreeMap::new(),
            next_watcher: 0,
            wants: Vec::new(),
            woken: Vec::new(),
            config,
        };
        pool.set_quota(SELF, Quota { records: 0, bytes: 0 });
        pool
    }

    /// Gives a source a quota of its own.
    pub fn set_quota(&mut self, source: &str, quota: Quota) {
        self.quotas.set(source, quota);
    }

    /// The number of the oldest record that is there, or of the next.
    pub fn first(&self) -> u64 {
        self.sealed.front().map_or(self.active.first, |segment| segment.first)
    }

    /// The number that the next record gets: a cursor at the end.
    pub fn next(&self) -> u64 {
        self.active.end()
    }

    /// What it holds.
    pub fn stats(&self) -> Stats {
        let oldest = self.sealed.front().map_or(&self.active, |segment| segment);
        Stats {
            records: self.next() - self.first(),
            bytes: self.bytes() as u64,
            taken: self.next() - self.config.first,
            dropped: self.quotas.dropped,
            forgotten: self.forgotten,
            oldest: (oldest.len() > 0).then_some(oldest.start),
        }
    }

    fn bytes(&self) -> usize {
        self.sealed_bytes + self.active.bytes() + self.latest.bytes()
    }

    /// Takes a record; gives its number. `None`: its source has used up its quota, and the
    /// record was dropped and counted.
    pub fn append(&mut self, now: u64, draft: &Draft<'_>) -> Option<u64> {
        self.tick(now);
        let sound = draft.fields.len() <= FIELDS_MAX
            && draft.event.len() <= NAME_MAX
            && draft.host.len() <= NAME_MAX
            && draft.source.len() <= NAME_MAX
            && draft.fields.iter().all(|(name, value)| {
                name.len() <= NAME_MAX
                    && !matches!(value, ValueRef::Str(text) if text.len() > TEXT_MAX / FIELDS_MAX)
            });
        if sound { self.take(now, draft) } else { self.take_cut(now, draft) }
    }

    /// Takes what is too long, cut to its limits.
    fn take_cut(&mut self, now: u64, draft: &Draft<'_>) -> Option<u64> {
        let mut left = RECORD_MAX;
        let mut fields = Vec::new();
        for (name, value) in draft.fields.iter().take(FIELDS_MAX) {
            let value = match value {
                ValueRef::Str(text) => {
                    let text = cut(text, TEXT_MAX.min(left));
                    left -= text.len();
                    ValueRef::Str(text)
                }
                other => *other,
            };
            fields.push((cut(name, NAME_MAX), value));
        }
        let draft = Draft {
            event: cut(draft.event, NAME_MAX),
            host: cut(draft.host, NAME_MAX),
            source: cut(draft.source, NAME_MAX),
            fields: &fields,
            ..*draft
        };
        self.take(now, &draft)
    }

    fn take(&mut self, now: u64, draft: &Draft<'_>) -> Option<u64> {
        let bytes = size(draft);
        if self.active.len() == 0 {
            // The first record's time is the segment's.
            let start = now.max(self.sealed.back().map_or(0, |segment| segment.newest()));
            self.active.start = start;
        }
        let time = now.max(self.active.newest());
        let share = self.config.bytes_max / SHARES;
        let age = time - self.active.start > self.config.age_max / SHARES as u64;
        let full = self.active.bytes() + bytes > share && self.active.len() > 0;
        if full || age || !self.active.has_room(time, bytes) {
            self.seal(time);
        }
        let hash = Shape::hash(draft, self.config.seed);
        let kind = match self.active.shape(hash, draft) {
            Some(kind) => kind,
            None => {
                let quota = self.quotas.number(draft.source);
                self.active.add_shape(hash, Shape::of(draft, quota))
            }
        };
        let quota = self.active.shapes[usize::from(kind)].quota;
        if !self.quotas.take(quota, time, bytes) {
            return None;
        }
        let before = self.note_trace(draft.trace);
        let seq = self.active.end();
        self.active.push(time, kind, before, draft);
        self.wake();
        self.forget(now);
        Some(seq)
    }

    fn note_trace(&mut self, trace: Trace) -> Option<u64> {
        if trace == Trace::NONE {
            return None;
        }
        let (first, seq) = (self.first(), self.active.end());
        let numbers = Numbered { sealed: &self.sealed, active: &self.active, first };
        let hash = hash::trace(trace.0, self.config.seed);
        let alive = usize::try_from(seq - first).unwrap_or(usize::MAX / 4);
        self.latest.put(hash, (trace.0, seq), alive, &numbers)
    }

    fn seal(&mut self, time: u64) {
        let next = Segment::new(self.active.end(), time);
        let mut full = core::mem::replace(&mut self.active, next);
        self.wants.clear();
        if full.len() == 0 {
            return;
        }
        full.seal();
        self.sealed_bytes += full.bytes();
        self.sealed.push_back(Arc::new(full));
    }

    /// Forgets what is over a limit.
    fn forget(&mut self, now: u64) {
        while let Some(oldest) = self.sealed.front() {
            let aged = now.saturating_sub(oldest.newest()) > self.config.age_max;
            if !aged && self.bytes() <= self.config.bytes_max {
                return;
            }
            self.forgotten += oldest.len() as u64;
            self.sealed_bytes -= oldest.bytes();
            self.sealed.pop_front();
        }
    }

    /// Wakes those whose filter accepts the newest record.
    fn wake(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let kind = usize::from(self.active.last_kind());
        if self.wants.len() <= kind {
            self.wants.resize_with(kind + 1, || None);
        }
        let wants = self.wants[kind].get_or_insert_with(|| {
            let shape = &self.active.shapes[kind];
            let of = |(id, watcher): (&u64, &Watcher)| match Test::of(&watcher.filter.pred, shape) {
                Test::Never => None,
                test => Some((*id, test)),
            };
            self.watchers.iter().filter_map(of).collect()
        });
        let view = self.active.view(self.active.end() - 1);
        for (id, _) in wants.iter().filter(|(_, test)| test.holds(&view, view.bytes())) {
            let watcher = self.watchers.get_mut(id).expect("wants are made anew when one leaves");
            if !watcher.woken {
                watcher.woken = true;
                self.woken.push(WatcherId(*id));
            }
        }
    }

    /// Does what time asks for: forgets by age, says what was dropped.
    pub fn tick(&mut self, now: u64) {
        self.forget(now);
        let aged = now.saturating_sub(self.active.newest()) > self.config.age_max;
        if aged && self.active.len() > 0 {
            self.seal(now);
            self.forget(now);
        }
        if !self.quotas.is_unsaid() || now < self.said_at.saturating_add(SAY_EVERY) {
            return;
        }
        self.said_at = now;
        let host = self.config.host.clone();
        for (source, count) in self.quotas.say() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let fields = [
                ("by", ValueRef::Str("quota")),
                ("count", ValueRef::Int(count)),
                ("from", ValueRef::Str(&source)),
            ];
            let draft =
                Draft { level: Level::Warn, fields: &fields, ..Draft::new(DROPPED, &host, SELF) };
            self.take(now, &draft);
        }
    }

    /// When [`Pool::tick`] has something to say at the latest.
    pub fn deadline(&self) -> Option<u64> {
        self.quotas.is_unsaid().then(|| self.said_at.saturating_add(SAY_EVERY))
    }

    /// Begins to test new records with a filter. It counts as woken at once, so that what was
    /// there before it is looked at. `None`: there are [`WATCHERS_MAX`].
    pub fn watch(&mut self, filter: Filter) -> Option<WatcherId> {
        if self.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let id = self.next_watcher;
        self.next_watcher += 1;
        self.watchers.insert(id, Watcher { filter, woken: true });
        self.wants.clear();
        self.woken.push(WatcherId(id));
        Some(WatcherId(id))
    }

    /// Ends that.
    pub fn unwatch(&mut self, id: WatcherId) {
        if self.watchers.remove(&id.0).is_some() {
            self.wants.clear();
            self.woken.retain(|woken| *woken != id);
        }
    }

    /// Those that were woken since the last call.
    pub fn woken(&mut self) -> Vec<WatcherId> {
        core::mem::take(&mut self.woken)
    }

    /// A watcher is about to look, from its cursor to the end: it wants to be woken again.
    pub fn looks(&mut self, id: WatcherId) {
        if let Some(watcher) = self.watchers.get_mut(&id.0) {
            watcher.woken = false;
        }
    }

    /// How many records from a cursor on were forgotten.
    pub fn missed(&self, cursor: u64) -> u64 {
        self.first().saturating_sub(cursor)
    }

    /// The sealed segments with records from `from` on, to be read without holding the pool; and
    /// the number from which on they are in none of these.
    pub fn sealed(&self, from: u64) -> (Vec<Arc<Segment>>, u64) {
        let wanted = self.sealed.iter().filter(|segment| segment.end() > from);
        (wanted.cloned().collect(), self.active.first)
    }

    /// The segment that is being filled.
    pub fn active(&self) -> &Segment {
        &self.active
    }

    /// Shows records from `from` on that a filter accepts, until `seen` says no. Gives the cursor
    /// to go on from.
    pub fn scan(&self, filter: &Filter, from: u64, seen: impl FnMut(View<'_>) -> bool) -> u64 {
        self.scan_to(filter, from, self.next(), seen)
    }

    /// The same, of those before `to`.
    pub fn scan_to(
        &self,
        filter: &Filter,
        from: u64,
        to: u64,
        mut seen: impl FnMut(View<'_>) -> bool,
    ) -> u64 {
        let mut go_on = true;
        let wanted = |segment: &&Segment| segment.end() > from && segment.first < to;
        for segment in self.segments().filter(wanted) {
            let next = segment.scan(filter, from, to, &mut |view| {
                go_on = seen(view);
                go_on
            });
            if !go_on {
                return next;
            }
        }
        to.max(from)
    }

    /// The number of the first record that came at this moment or later.
    pub fn seek(&self, time: u64) -> u64 {
        let segment = self.segments().find(|segment| segment.len() > 0 && segment.newest() >= time);
        segment.map_or(self.next(), |segment| segment.seek(time))
    }

    /// Shows records that a filter accepts, the newest first, until `seen` says no.
    pub fn scan_back(&self, filter: &Filter, mut seen: impl FnMut(View<'_>) -> bool) {
        if let Some(trace) = filter.trace() {
            self.history(trace, |view| !filter.accepts(&view) || seen(view));
            return;
        }
        for segment in self.segments().rev() {
            if !segment.scan_back(filter, u64::MAX, &mut seen) {
                return;
            }
        }
    }

    fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.sealed.iter().map(|segment| &**segment).chain(core::iter::once(&self.active))
    }

    /// The newest record of a trace.
    pub fn latest(&self, trace: Trace) -> Option<View<'_>> {
        let (first, active) = (self.first(), &self.active);
        if trace == Trace::NONE {
            return None;
        }
        let numbers = Numbered { sealed: &self.sealed, active, first };
        let hash = hash::trace(trace.0, self.config.seed);
        let seq = self.latest.get(hash, trace.0, &numbers)?;
        Some(self.get(seq).expect("the table gives records that are there"))
    }

    /// All records of a trace, the newest first, until `seen` says no.
    pub fn history(&self, trace: Trace, mut seen: impl FnMut(View<'_>) -> bool) {
        let mut at = self.latest(trace);
        while let Some(view) = at {
            if !seen(view) {
                return;
            }
            at = view.before().and_then(|seq| self.get(seq));
        }
    }

    /// A record by its number, if it is there.
    pub fn get(&self, seq: u64) -> Option<View<'_>> {
        let first = self.first();
        if seq < first || seq >= self.next() {
            return None;
        }
        if seq >= self.active.first {
            return Some(self.active.view(seq));
        }
        let at = self.sealed.partition_point(|segment| segment.first <= seq);
        Some(self.sealed[at - 1].view(seq))
    }
}

/// Bytes of a record's values.
fn size(draft: &Draft<'_>) -> usize {
    let value = |value: &ValueRef<'_>| match value {
        ValueRef::Str(text) => text.len() + 1 + usize::from(text.len() > 127),
        ValueRef::Bool(_) => 1,
        ValueRef::Level(_) | ValueRef::Time(_) | ValueRef::Trace(_) => value.to_string().len() + 1,
        _ => 8,
    };
    draft.fields.iter().map(|(_, of)| value(of)).sum()
}
