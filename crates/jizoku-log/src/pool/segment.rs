//! Up to 65,535 records in columns, with their own list of shapes and traces.
//!
//! Times are microseconds after the segment's first, traces indices into the segment's list, a
//! record's values a run of bytes. A segment is filled once, then only read, then dropped whole;
//! nothing outside of it has to be mended then.
//!
//! What it does not know: other segments, limits, who reads.
//!
//! Invariant: all columns have the same length.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::shape::Shape;
use super::test::Test;
use crate::expr::{Builtin, Fields, Filter};
use crate::record::{Draft, Record};
use crate::value::{Trace, ValueRef};

/// Most records of a segment.
pub(crate) const RECORDS_MAX: usize = 65_535;
/// Most shapes of a segment.
const SHAPES_MAX: usize = 16_384;
/// The index that means: no trace.
const NO_TRACE: u16 = u16::MAX;

/// See the module's header.
#[derive(Debug, Default)]
pub struct Segment {
    pub(crate) first: u64,
    pub(crate) start: u64,
    times: Vec<u32>,
    traces: Vec<u16>,
    /// How many records back the one before of the same trace is; 0: there is none.
    backs: Vec<u32>,
    kinds: Vec<u16>,
    offsets: Vec<u32>,
    arena: Vec<u8>,
    known_traces: Vec<u128>,
    pub(crate) shapes: Vec<Arc<Shape>>,
    shape_bytes: usize,
    /// Indices of shapes by their hashes; `u16::MAX`: none.
    table: Vec<u16>,
    hashes: Vec<u64>,
}

/// A record where it is stored.
#[derive(Clone, Copy)]
pub struct View<'s> {
    segment: &'s Segment,
    at: usize,
}

impl Segment {
    pub(crate) fn new(first: u64, start: u64) -> Segment {
        Segment { first, start, table: alloc::vec![u16::MAX; 64], ..Segment::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// The number behind its last record's.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.times.len() as u64
    }

    /// When its last record came.
    pub(crate) fn newest(&self) -> u64 {
        self.start + self.times.last().map_or(0, |after| u64::from(*after))
    }

    /// Memory that its contents take.
    pub(crate) fn bytes(&self) -> usize {
        self.times.len() * 16
            + self.arena.len()
            + self.known_traces.len() * 16
            + self.shape_bytes
            + self.table.len() * 2
            + size_of::<Segment>()
    }

    /// Whether a record of this moment and size fits in.
    pub(crate) fn has_room(&self, time: u64, bytes: usize) -> bool {
        self.times.len() < RECORDS_MAX
            && self.shapes.len() < SHAPES_MAX
            && u32::try_from(time - self.start).is_ok()
            && u32::try_from(self.arena.len() + bytes).is_ok()
    }

    /// The shape of a record, if the segment has it.
    pub(crate) fn shape(&self, hash: u64, draft: &Draft<'_>) -> Option<u16> {
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let found = self.table[at];
            if found == u16::MAX {
                return None;
            }
            let number = usize::from(found);
            if self.hashes[number] == hash && self.shapes[number].is_of(draft) {
                return Some(found);
            }
            at = (at + 1) & mask;
        }
    }

    pub(crate) fn add_shape(&mut self, hash: u64, shape: Shape) -> u16 {
        let number = u16::try_from(self.shapes.len()).expect("there is room for it");
        self.shape_bytes += shape.bytes();
        self.shapes.push(Arc::new(shape));
        self.hashes.push(hash);
        if self.shapes.len() * 2 > self.table.len() {
            self.table = alloc::vec![u16::MAX; self.table.len() * 2];
            for known in 0..number {
                self.note(known);
            }
        }
        self.note(number);
        number
    }

    fn note(&mut self, number: u16) {
        let mask = self.table.len() - 1;
        let mut at = self.hashes[usize::from(number)] as usize & mask;
        while self.table[at] != u16::MAX {
            at = (at + 1) & mask;
        }
        self.table[at] = number;
    }

    /// Adds a record. `before`: the number of the one before of the same trace.
    pub(crate) fn push(&mut self, time: u64, kind: u16, before: Option<u64>, draft: &Draft<'_>) {
        let seq = self.end();
        let back = before.and_then(|before| u32::try_from(seq - before).ok()).unwrap_or(0);
        let inside = before.filter(|before| *before >= self.first && back != 0);
        let trace = if draft.trace == Trace::NONE {
            NO_TRACE
        } else if let Some(before) = inside {
            self.traces[(before - self.first) as usize]
        } else {
            self.known_traces.push(draft.trace.0);
            (self.known_traces.len() - 1) as u16
        };
        self.times.push((time - self.start) as u32);
        self.traces.push(trace);
        self.backs.push(back);
        self.kinds.push(kind);
        self.offsets.push(self.arena.len() as u32);
        let shape = Arc::clone(&self.shapes[usize::from(kind)]);
        shape.write(draft, &mut self.arena);
    }

    /// Gives back what was reserved and won't be needed.
    pub(crate) fn seal(&mut self) {
        self.times.shrink_to_fit();
        self.traces.shrink_to_fit();
        self.backs.shrink_to_fit();
        self.kinds.shrink_to_fit();
        self.offsets.shrink_to_fit();
        self.arena.shrink_to_fit();
        self.known_traces.shrink_to_fit();
        self.shapes.shrink_to_fit();
        self.hashes = Vec::new();
        self.table = Vec::new();
    }

    /// The record of this number, which must be there.
    pub(crate) fn view(&self, seq: u64) -> View<'_> {
        View { segment: self, at: (seq - self.first) as usize }
    }

    /// Which shape the last record has.
    pub(crate) fn last_kind(&self) -> u16 {
        *self.kinds.last().expect("a record was pushed")
    }

    pub(crate) fn bytes_of(&self, at: usize) -> &[u8] {
        let start = self.offsets[at] as usize;
        let end = self.offsets.get(at + 1).map_or(self.arena.len(), |end| *end as usize);
        &self.arena[start..end]
    }

    fn trace_at(&self, at: usize) -> u128 {
        match self.traces[at] {
            NO_TRACE => 0,
            known => self.known_traces[usize::from(known)],
        }
    }

    /// Shows records with numbers from `from` and below `to` that a filter accepts, until `seen`
    /// says no. Gives the number to go on from.
    pub fn scan(
        &self,
        filter: &Filter,
        from: u64,
        to: u64,
        seen: &mut impl FnMut(View<'_>) -> bool,
    ) -> u64 {
        let to = to.min(self.end());
        let tests = self.tests(filter);
        if tests.iter().all(|test| matches!(test, Test::Never)) {
            return to;
        }
        let start = from.saturating_sub(self.first) as usize;
        let end = to.saturating_sub(self.first) as usize;
        for at in start..end {
            if self.accepts(&tests, at) && !seen(View { segment: self, at }) {
                return self.first + at as u64 + 1;
            }
        }
        to
    }

    /// The same, from the newest below `below` to the oldest.
    pub fn scan_back(
        &self,
        filter: &Filter,
        below: u64,
        seen: &mut impl FnMut(View<'_>) -> bool,
    ) -> bool {
        let tests = self.tests(filter);
        if tests.iter().all(|test| matches!(test, Test::Never)) {
            return true;
        }
        let end = below.min(self.end()).saturating_sub(self.first) as usize;
        (0..end).rev().all(|at| !self.accepts(&tests, at) || seen(View { segment: self, at }))
    }

    /// The number of the first record that came at this moment or later.
    pub(crate) fn seek(&self, time: u64) -> u64 {
        let after = time.saturating_sub(self.start);
        self.first + self.times.partition_point(|at| u64::from(*at) < after) as u64
    }

    fn tests(&self, filter: &Filter) -> Vec<Test> {
        self.shapes.iter().map(|shape| Test::of(&filter.pred, shape)).collect()
    }

    #[inline]
    fn accepts(&self, tests: &[Test], at: usize) -> bool {
        match &tests[usize::from(self.kinds[at])] {
            Test::Never => false,
            Test::Always => true,
            test => test.holds(&View { segment: self, at }, self.bytes_of(at)),
        }
    }
}

impl View<'_> {
    /// Its number.
    pub fn seq(&self) -> u64 {
        self.segment.first + self.at as u64
    }

    /// When it came.
    pub fn time(&self) -> u64 {
        self.segment.start + u64::from(self.segment.times[self.at])
    }

    /// Its trace.
    pub fn trace(&self) -> Trace {
        Trace(self.segment.trace_at(self.at))
    }

    /// The number of the record before of the same trace.
    pub(crate) fn before(&self) -> Option<u64> {
        let back = u64::from(self.segment.backs[self.at]);
        (back != 0).then(|| self.seq() - back)
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.segment.shapes[usize::from(self.segment.kinds[self.at])]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.segment.bytes_of(self.at)
    }

    /// A copy of its own.
    pub fn to_record(&self) -> Record {
        let shape = self.shape();
        Record {
            time: self.time(),
            trace: self.trace(),
            host: (*shape.host).into(),
            seq: self.seq(),
            event: (*shape.event).into(),
            level: shape.level,
            source: (*shape.source).into(),
            important: shape.important,
            fields: shape.values(self.bytes()),
        }
    }
}

impl Fields for View<'_> {
    fn builtin(&self, builtin: Builtin) -> ValueRef<'_> {
        let shape = self.shape();
        match builtin {
            Builtin::Time => ValueRef::Time(self.time()),
            Builtin::Trace => ValueRef::Trace(self.trace()),
            Builtin::Host => ValueRef::Str(&shape.host),
            Builtin::Seq => ValueRef::Int(i64::try_from(self.seq()).unwrap_or(i64::MAX)),
            Builtin::Event => ValueRef::Str(&shape.event),
            Builtin::Level => ValueRef::Level(shape.level),
            Builtin::Source => ValueRef::Str(&shape.source),
        }
    }

    fn field(&self, name: &str) -> Option<ValueRef<'_>> {
        let shape = self.shape();
        shape.slot(name).map(|slot| shape.read(slot, self.bytes()))
    }

    fn any_text(&self, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        self.shape().texts(self.bytes()).any(wanted)
    }
}
