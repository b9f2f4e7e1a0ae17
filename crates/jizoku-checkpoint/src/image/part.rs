//! A diff in parts: as it travels in frames and lies on disk.
//!
//! What it does not know: who sends, who stores; which checkpoint a diff leads to.
//!
//! A part stands for itself: version, method, length before compression, then records. A record is
//! a space's change (`kept` and `len`; said again at the start of each part that goes on with it),
//! a dropped space, or one block. All numbers are little-endian.
//!
//! Invariants
//! - A part has at most `PART_MAX` bytes, and says at most [`RAW_MAX`] before compression.
//! - What compression would make longer is stored as it is.
//! - Damaged bytes give an error; they never panic and never allocate more than [`RAW_MAX`] plus
//!   the blocks that were really there.
//! - The same diff cut in the same way gives the same bytes, so a part can be made again.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::limits::{BLOCK, PART_MAX, STATE_MAX};
use lz4_flex::block::{CompressTable, compress_into, compress_into_with_table};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::diff::{Change, Diff};
use super::unpack::unpack;
use super::{Block, SPACE_NAME_MAX, SpaceName, Write};

const VERSION: u8 = 1;
const RAW: u8 = 0;
const LZ4: u8 = 1;
/// Version, method, length before compression.
const HEAD: usize = 6;
/// Most bytes of a part before compression: stored raw, it still fits.
pub const RAW_MAX: usize = PART_MAX - HEAD;
/// Most parts of one diff.
pub const PARTS_MAX: u32 = 1 << 20;
const _: () = assert!(
    (STATE_MAX.0 / BLOCK as u64) <= PARTS_MAX as u64,
    "a state's blocks fit, even at one in each part"
);

const DROPPED: u8 = 0;
const CHANGED: u8 = 1;
const ZEROED: u8 = 2;
const WRITTEN: u8 = 3;
const SPACE_RECORD_MAX: usize = 1 + 1 + SPACE_NAME_MAX + 8 + 8;
const WRITTEN_RECORD: usize = 1 + 4 + BLOCK;
/// Blocks of one space that surely fit one part.
pub(super) const BLOCKS_PER_PART: usize = (RAW_MAX - SPACE_RECORD_MAX) / WRITTEN_RECORD;

/// Smallest part limit that lets any diff be cut: one space's record and one block's.
pub const CUT_MIN: usize = HEAD + SPACE_RECORD_MAX + WRITTEN_RECORD;

/// One part of an encoded diff. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Part(Arc<Vec<u8>>);

impl Part {
    /// Takes bytes that came from a disk or a wire. They are checked when they are decoded.
    pub fn new(bytes: Vec<u8>) -> Part {
        Part(Arc::new(bytes))
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} B)", self.0.len())
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Part, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Part;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {PART_MAX} bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Part, E> {
                if bytes.len() > PART_MAX {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(Part::new(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// Why bytes are not a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartError {
    /// Longer than a part may be, before or after decompression.
    TooLong,
    /// Of a version that this build doesn't know.
    Version,
    /// Not what compression gives.
    Compression,
    /// Records that no encoder writes.
    Malformed,
    /// Parts that don't follow one another.
    OutOfOrder,
    /// A part's number is not below the number of parts.
    NoSuchPart,
}

impl fmt::Display for PartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PartError::TooLong => "longer than a part may be",
            PartError::Version => "of an unknown version",
            PartError::Compression => "damaged: doesn't decompress",
            PartError::Malformed => "damaged: not a record",
            PartError::OutOfOrder => "parts don't follow one another",
            PartError::NoSuchPart => "the part's number is not below the number of parts",
        })
    }
}

impl core::error::Error for PartError {}

/// Where a diff is cut into parts: for each part, the change and the write that it begins with.
#[derive(Clone, Debug)]
pub struct Cuts(Vec<(usize, usize)>);

impl Cuts {
    /// How many parts there are, at least one.
    pub fn parts(&self) -> u32 {
        self.0.len() as u32
    }
}

impl Diff {
    /// Decides on the parts, of at most `part_max` bytes each, without making them.
    ///
    /// # Panics
    /// If `part_max` is not within [`CUT_MIN`] and `PART_MAX`.
    pub fn cut(&self, part_max: usize) -> Cuts {
        assert!((CUT_MIN..=PART_MAX).contains(&part_max), "a part holds at least a block");
        let room = part_max - HEAD;
        let mut cuts = vec![(0, 0)];
        let mut used = 0;
        for (at, (name, change)) in self.changes().iter().enumerate() {
            let head = change_record_len(name, change);
            if used + head > room {
                cuts.push((at, 0));
                used = 0;
            }
            used += head;
            let Change::Changed { writes, .. } = change else { continue };
            for (write, (_, block)) in writes.iter().enumerate() {
                let len = write_record_len(block);
                if used + len > room {
                    cuts.push((at, write));
                    used = head;
                }
                used += len;
            }
        }
        Cuts(cuts)
    }

    /// Makes the part `index` of a diff that was cut in this way.
    ///
    /// # Panics
    /// If there is no such part, or the cuts are another diff's.
    pub fn encode_part(&self, cuts: &Cuts, index: u32) -> Part {
        Encoder::default().encode(self, cuts, index)
    }

    /// Puts the records of the part `index` into `raw`.
    fn put_part(&self, raw: &mut Vec<u8>, cuts: &Cuts, index: u32) {
        let (mut at, mut write) = cuts.0[index as usize];
        let end = cuts.0.get(index as usize + 1).copied().unwrap_or((self.changes().len(), 0));
        let blocks = self.raw_bytes().0 / BLOCK as u64;
        let likely = (blocks as usize).saturating_mul(WRITTEN_RECORD).saturating_add(256);
        raw.reserve(likely.min(RAW_MAX));
        while (at, write) < end {
            let (name, change) = &self.changes()[at];
            put_change(raw, name, change);
            if let Change::Changed { writes, .. } = change {
                let until = if at == end.0 { end.1 } else { writes.len() };
                writes[write..until].iter().for_each(|write| put_write(raw, write));
            }
            (at, write) = (at + 1, 0);
        }
    }

    /// All parts at once, each as large as a part may be.
    pub fn encode(&self) -> Vec<Part> {
        let cuts = self.cut(PART_MAX);
        let mut encoder = Encoder::default();
        (0..cuts.parts()).map(|index| encoder.encode(self, &cuts, index)).collect()
    }

    /// Reads all parts, in their order.
    pub fn decode(parts: &[Part]) -> Result<Diff, PartError> {
        let count = u32::try_from(parts.len()).map_err(|_| PartError::TooLong)?;
        let mut assembler = Assembler::new(count).ok_or(PartError::TooLong)?;
        for (index, part) in (0..).zip(parts) {
            assembler.add(index, part)?;
        }
        assembler.finish()
    }
}

fn change_record_len(name: &SpaceName, change: &Change) -> usize {
    let lengths = if matches!(change, Change::Dropped) { 0 } else { 16 };
    2 + name.as_str().len() + lengths
}

fn write_record_len(block: &Option<Arc<Block>>) -> usize {
    if block.is_some() { WRITTEN_RECORD } else { 1 + 4 }
}

fn put_change(raw: &mut Vec<u8>, name: &SpaceName, change: &Change) {
    let tag = if matches!(change, Change::Dropped) { DROPPED } else { CHANGED };
    raw.extend_from_slice(&[tag, name.as_str().len() as u8]);
    raw.extend_from_slice(name.as_str().as_bytes());
    if let Change::Changed { kept, len, .. } = change {
        raw.extend_from_slice(&kept.to_le_bytes());
        raw.extend_from_slice(&len.to_le_bytes());
    }
}

fn put_write(raw: &mut Vec<u8>, (index, block): &Write) {
    raw.push(if block.is_some() { WRITTEN } else { ZEROED });
    raw.extend_from_slice(&index.to_le_bytes());
    if let Some(block) = block {
        raw.extend_from_slice(block.bytes());
    }
}

/// Makes parts, and keeps the room that this needs from one to the next: most checkpoints are
/// small, and there are many.
#[derive(Default)]
pub struct Encoder {
    raw: Vec<u8>,
    packed: Vec<u8>,
    table: CompressTable,
}

/// A part with so many bytes before compression leaves no room behind, and needs a larger table.
const SMALL_MAX: usize = u16::MAX as usize;

impl Encoder {
    /// As [`Diff::encode_part`], with the same result.
    ///
    /// # Panics
    /// If there is no such part, or the cuts are another diff's.
    pub fn encode(&mut self, diff: &Diff, cuts: &Cuts, index: u32) -> Part {
        let mut raw = core::mem::take(&mut self.raw);
        raw.clear();
        diff.put_part(&mut raw, cuts, index);
        let part = self.compress(&raw);
        if raw.capacity() <= SMALL_MAX {
            self.raw = raw;
        } else {
            self.packed = Vec::new();
        }
        part
    }

    fn compress(&mut self, raw: &[u8]) -> Part {
        let max = HEAD + lz4_flex::block::get_maximum_output_size(raw.len());
        if self.packed.len() < max {
            self.packed.resize(max, 0);
        }
        let packed = &mut self.packed[HEAD..];
        let packed = if raw.len() < SMALL_MAX {
            compress_into_with_table(raw, packed, &mut self.table)
        } else {
            compress_into(raw, packed)
        };
        let (method, body) = match packed {
            Ok(len) if len < raw.len() => (LZ4, &self.packed[HEAD..HEAD + len]),
            _ => (RAW, raw),
        };
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend_from_slice(&[VERSION, method]);
        bytes.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        Part::new(bytes)
    }
}

fn decompress(part: &Part) -> Result<Vec<u8>, PartError> {
    let bytes = part.bytes();
    if bytes.len() > PART_MAX {
        return Err(PartError::TooLong);
    }
    let (head, packed) = bytes.split_at_checked(HEAD).ok_or(PartError::Malformed)?;
    if head[0] != VERSION {
        return Err(PartError::Version);
    }
    let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
    if len > RAW_MAX {
        return Err(PartError::TooLong);
    }
    match head[1] {
        RAW if packed.len() == len => Ok(packed.to_vec()),
        LZ4 => {
            let mut raw = vec![0; len];
            match unpack(packed, &mut raw) {
                Some(got) if got == len => Ok(raw),
                _ => Err(PartError::Compression),
            }
        }
        _ => Err(PartError::Malformed),
    }
}

/// Takes records off the front of a part.
struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PartError> {
        let (now, later) = self.0.split_at_checked(count).ok_or(PartError::Malformed)?;
        self.0 = later;
        Ok(now)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], PartError> {
        self.take(N)?.try_into().map_err(|_| PartError::Malformed)
    }

    fn name(&mut self) -> Result<SpaceName, PartError> {
        let [len] = self.number()?;
        let text = core::str::from_utf8(self.take(usize::from(len))?);
        let name = text.ok().and_then(|text| SpaceName::new(text).ok());
        name.ok_or(PartError::Malformed)
    }
}

fn decode_part(part: &Part) -> Result<Vec<(SpaceName, Change)>, PartError> {
    let raw = decompress(part)?;
    let mut records = Records(&raw);
    let mut changes: Vec<(SpaceName, Change)> = Vec::new();
    while !records.0.is_empty() {
        let [tag] = records.number()?;
        match tag {
            DROPPED => push_change(&mut changes, records.name()?, Change::Dropped)?,
            CHANGED => {
                let name = records.name()?;
                let kept = u64::from_le_bytes(records.number()?);
                let len = u64::from_le_bytes(records.number()?);
                if kept > len || len > STATE_MAX.0 {
                    return Err(PartError::Malformed);
                }
                let writes = Vec::new();
                push_change(&mut changes, name, Change::Changed { kept, len, writes })?;
            }
            ZEROED | WRITTEN => {
                let index = u32::from_le_bytes(records.number()?);
                let block = match tag {
                    // A block of zeros has one form only, so that equal diffs are equal bytes.
                    WRITTEN => Some(Block::new(records.take(BLOCK)?).ok_or(PartError::Malformed)?),
                    _ => None,
                };
                let Some((_, Change::Changed { writes, .. })) = changes.last_mut() else {
                    return Err(PartError::Malformed);
                };
                push_write(writes, (index, block))?;
            }
            _ => return Err(PartError::Malformed),
        }
    }
    Ok(changes)
}

fn push_change(
    changes: &mut Vec<(SpaceName, Change)>,
    name: SpaceName,
    change: Change,
) -> Result<(), PartError> {
    if changes.last().is_some_and(|(last, _)| *last >= name) {
        return Err(PartError::OutOfOrder);
    }
    changes.push((name, change));
    Ok(())
}

fn push_write(writes: &mut Vec<Write>, write: Write) -> Result<(), PartError> {
    if writes.last().is_some_and(|(last, _)| *last >= write.0) {
        return Err(PartError::OutOfOrder);
    }
    writes.push(write);
    Ok(())
}

/// Puts the parts of one diff together, in whatever order they come.
///
/// Parts are decoded, and their blocks hashed, as they come, so that little is left to do at the
/// last. Limits: at most [`PARTS_MAX`] parts; the caller bounds how many assemblers there are.
#[derive(Clone)]
pub struct Assembler {
    parts: u32,
    decoded: BTreeMap<u32, Vec<(SpaceName, Change)>>,
}

impl Assembler {
    /// Awaits `parts` parts; `None` if that is none, or more than [`PARTS_MAX`].
    pub fn new(parts: u32) -> Option<Assembler> {
        let fits = (1..=PARTS_MAX).contains(&parts);
        fits.then(|| Assembler { parts, decoded: BTreeMap::new() })
    }

    /// Takes a part. One that is there already is passed over. After an error it is as before.
    pub fn add(&mut self, index: u32, part: &Part) -> Result<(), PartError> {
        if index >= self.parts {
            return Err(PartError::NoSuchPart);
        }
        if let Entry::Vacant(place) = self.decoded.entry(index) {
            place.insert(decode_part(part)?);
        }
        Ok(())
    }

    /// Whether the part `index` is there.
    pub fn has(&self, index: u32) -> bool {
        self.decoded.contains_key(&index)
    }

    /// How many parts are there.
    pub fn received(&self) -> u32 {
        self.decoded.len() as u32
    }

    /// Whether all parts are there.
    pub fn is_complete(&self) -> bool {
        self.received() == self.parts
    }

    /// The whole diff.
    ///
    /// # Panics
    /// If a part is missing.
    pub fn finish(self) -> Result<Diff, PartError> {
        assert!(self.is_complete(), "all parts are there");
        let mut all: Vec<(SpaceName, Change)> = Vec::new();
        for (name, change) in self.decoded.into_values().flatten() {
            match (all.last_mut(), change) {
                (Some((last, before)), change) if *last == name => go_on(before, change)?,
                (_, change) => push_change(&mut all, name, change)?,
            }
        }
        Ok(Diff::new(all))
    }
}

/// Adds what a later part says of the space that the part before it ended with.
fn go_on(before: &mut Change, change: Change) -> Result<(), PartError> {
    match (before, change) {
        (
            Change::Changed { kept, len, writes },
            Change::Changed { kept: kept_again, len: len_again, writes: more },
        ) if *kept == kept_again && *len == len_again => {
            more.into_iter().try_for_each(|write| push_write(writes, write))
        }
        _ => Err(PartError::OutOfOrder),
    }
}
