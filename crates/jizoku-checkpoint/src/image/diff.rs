//! What changed from one state to the next, and how an engine says it.
//!
//! What it does not know: how a diff travels; which checkpoint it leads to.
//!
//! Invariants
//! - Spaces are in the order of their names, writes in the order of their indices, each once.
//! - A space's change first cuts it to `kept` bytes, then gives it `len` bytes, then writes blocks.
//!   So a space that shrank and grew again within one diff has zeros where it was cut.
//! - A diff made by comparing with a base has no block that is equal in the base.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use jizoku_types::ByteCount;
use jizoku_types::limits::{BLOCK, STATE_MAX};

use super::tree::is_zero;
use super::{
    ApplyError, Block, Image, Space, SpaceName, SpaceOutline, Write, block_count, check_size,
};

/// What happened to one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Dropped,
    Changed { kept: u64, len: u64, writes: Vec<Write> },
}

/// What changed from one image to the next. It doesn't say which images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    changes: Vec<(SpaceName, Change)>,
}

impl Diff {
    /// All of `image`: the diff from the empty image to it.
    pub fn of(image: &Image) -> Diff {
        Diff::between(&Image::empty(), image)
    }

    /// What leads from `old` to `new`. Costs as much as there are differences.
    pub fn between(old: &Image, new: &Image) -> Diff {
        let mut changes = Vec::new();
        for (name, _) in old.spaces().filter(|(name, _)| new.space(name.as_str()).is_none()) {
            changes.push((name.clone(), Change::Dropped));
        }
        for (name, space) in new.spaces() {
            let mut before = match old.space(name.as_str()) {
                Some(before) if before.root() == space.root() => continue,
                Some(before) => before.clone(),
                None => Space::empty(),
            };
            let kept = before.len().min(space.len());
            before.resize(kept);
            before.resize(space.len());
            let writes = before.differing(space);
            changes.push((name.clone(), Change::Changed { kept, len: space.len(), writes }));
        }
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        Diff { changes }
    }

    /// What leads from `local` to an image with these spaces, of which `blocks` are known to differ
    /// from `local` cut and stretched to the same lengths: what a survey finds.
    pub fn to_outline(
        local: &Image,
        spaces: &[SpaceOutline],
        blocks: BTreeMap<(SpaceName, u32), Option<Arc<Block>>>,
    ) -> Diff {
        let mut writes: BTreeMap<SpaceName, Vec<Write>> = BTreeMap::new();
        for ((space, index), block) in blocks {
            writes.entry(space).or_default().push((index, block));
        }
        let mut changes: BTreeMap<SpaceName, Change> =
            local.spaces().map(|(name, _)| (name.clone(), Change::Dropped)).collect();
        for SpaceOutline { name, len, .. } in spaces {
            let before = local.space(name.as_str()).map(Space::len);
            let writes = writes.remove(name).unwrap_or_default();
            if before == Some(*len) && writes.is_empty() {
                changes.remove(name);
            } else {
                let kept = before.unwrap_or(0).min(*len);
                changes.insert(name.clone(), Change::Changed { kept, len: *len, writes });
            }
        }
        Diff { changes: changes.into_iter().collect() }
    }

    /// What leads from an image with these spaces to `local`, if they differ (cut and stretched to
    /// the same lengths) in these blocks only: what a survey finds, the other way round.
    pub fn from_outline(
        local: &Image,
        spaces: &[SpaceOutline],
        differing: &BTreeSet<(SpaceName, u32)>,
    ) -> Diff {
        let mut changes: BTreeMap<SpaceName, Change> =
            spaces.iter().map(|space| (space.name.clone(), Change::Dropped)).collect();
        for (name, space) in local.spaces() {
            let there = spaces.iter().find(|there| there.name == *name).map(|there| there.len);
            let (len, kept) = (space.len(), there.unwrap_or(0).min(space.len()));
            let same = |index: u32| !differing.contains(&(name.clone(), index));
            let whole = kept / BLOCK as u64;
            let mut writes: Vec<Write> = Vec::new();
            for index in differing.iter().filter(|(space, _)| space == name).map(|found| found.1) {
                if u64::from(index) < block_count(len) {
                    writes.push((index, space.block(index).cloned()));
                }
            }
            // Beyond what is kept there are zeros, whatever the survey compared with.
            let beyond = space.blocks().filter(|(index, _)| u64::from(*index) >= whole);
            if there != Some(len) {
                let beyond = beyond.filter(|(index, _)| same(*index));
                writes.extend(beyond.map(|(index, block)| (index, Some(block.clone()))));
                writes.sort_by_key(|(index, _)| *index);
            }
            if there == Some(len) && writes.is_empty() {
                changes.remove(name);
            } else {
                changes.insert(name.clone(), Change::Changed { kept, len, writes });
            }
        }
        Diff { changes: changes.into_iter().collect() }
    }

    pub(super) fn new(changes: Vec<(SpaceName, Change)>) -> Diff {
        debug_assert!(changes.is_sorted_by(|(a, _), (b, _)| a < b));
        Diff { changes }
    }

    /// Only these blocks of a space of `len` bytes: how blocks are answered to a question.
    pub fn of_blocks(space: SpaceName, len: u64, writes: Vec<Write>) -> Diff {
        Diff { changes: alloc::vec![(space, Change::Changed { kept: len, len, writes })] }
    }

    /// The blocks it writes to `space`, in the order of their indices.
    pub fn writes(&self, space: &str) -> &[Write] {
        match self.changes.iter().find(|(name, _)| name.as_str() == space) {
            Some((_, Change::Changed { writes, .. })) => writes,
            _ => &[],
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many blocks changed, those that became zero included.
    pub fn changed_blocks(&self) -> usize {
        self.changes
            .iter()
            .map(|(_, change)| match change {
                Change::Dropped => 0,
                Change::Changed { writes, .. } => writes.len(),
            })
            .sum()
    }

    /// The content of the changed blocks, before compression. Zero blocks cost nothing.
    pub fn raw_bytes(&self) -> ByteCount {
        let blocks: usize = self
            .changes
            .iter()
            .map(|(_, change)| match change {
                Change::Dropped => 0,
                Change::Changed { writes, .. } => {
                    writes.iter().filter(|(_, block)| block.is_some()).count()
                }
            })
            .sum();
        ByteCount((blocks * BLOCK) as u64)
    }

    pub(super) fn changes(&self) -> &[(SpaceName, Change)] {
        &self.changes
    }

    /// Whether it can be applied to `image` within the limits.
    pub(super) fn check_against(&self, image: &Image) -> Result<(), ApplyError> {
        let mut size = image.size().0;
        let mut spaces = image.spaces().count();
        for (name, change) in &self.changes {
            let before = image.space(name.as_str());
            size -= before.map_or(0, Space::len);
            spaces -= usize::from(before.is_some());
            if let Change::Changed { len, writes, .. } = change {
                if *len > STATE_MAX.0 {
                    return Err(ApplyError::TooLarge);
                }
                size += len;
                spaces += 1;
                check_writes(*len, writes)?;
            }
        }
        check_size(size, spaces)
    }
}

/// Whether all of `writes` lie within `len` bytes.
fn check_writes(len: u64, writes: &[Write]) -> Result<(), ApplyError> {
    let Some((last, block)) = writes.last() else { return Ok(()) };
    if u64::from(*last) >= block_count(len) {
        return Err(ApplyError::PastEnd);
    }
    let within = (len - u64::from(*last) * BLOCK as u64).min(BLOCK as u64) as usize;
    match block {
        Some(block) if !is_zero(&block.bytes()[within..]) => Err(ApplyError::PastEnd),
        _ => Ok(()),
    }
}

/// What a builder knows of a space.
struct Draft {
    /// The base's space with all changes of length made; `None`: there is nothing to compare with.
    before: Option<Space>,
    /// The base's length; `None` if it has no such space, or there is no base.
    base_len: Option<u64>,
    kept: u64,
    len: u64,
    writes: BTreeMap<u32, Option<Arc<Block>>>,
}

/// Makes a [`Diff`] of what an engine says about its state.
///
/// With a base, blocks are compared with it, and only those that really changed get into the diff.
/// Without one, all that is said counts as changed.
pub struct DiffBuilder {
    base: Option<Image>,
    /// What was said of each space; `None`: that it is no more.
    drafts: BTreeMap<SpaceName, Option<Draft>>,
}

impl DiffBuilder {
    /// Starts a diff against `base` (a clone of an image is cheap). `None` if the base isn't at
    /// hand: then every space's length must be told before its blocks.
    pub fn new(base: Option<Image>) -> DiffBuilder {
        DiffBuilder { base, drafts: BTreeMap::new() }
    }

    /// The space has `len` bytes now. What lay beyond is gone; new bytes are zero.
    ///
    /// # Panics
    /// If `space` is not a name, or `len` is more than `STATE_MAX`.
    pub fn resize(&mut self, space: &str, len: u64) -> &mut DiffBuilder {
        assert!(len <= STATE_MAX.0, "a state has at most {STATE_MAX}");
        let draft = self.draft(space, Some(len));
        if len < draft.len {
            draft.shrink(len);
        }
        draft.len = len;
        if let Some(before) = &mut draft.before {
            before.resize(len);
        }
        self
    }

    /// The block at `index` begins with `bytes` now and goes on with zeros.
    ///
    /// # Panics
    /// If the space is not known yet, or the block doesn't lie within it.
    pub fn block(&mut self, space: &str, index: u32, bytes: &[u8]) -> &mut DiffBuilder {
        self.draft(space, None).write(index, bytes);
        self
    }

    /// The whole space is `bytes` now.
    ///
    /// # Panics
    /// If `space` is not a name, or there are more than `STATE_MAX` bytes.
    pub fn bytes(&mut self, space: &str, bytes: &[u8]) -> &mut DiffBuilder {
        self.resize(space, bytes.len() as u64);
        let draft = self.draft(space, None);
        for (index, block) in (0u32..).zip(bytes.chunks(BLOCK)) {
            draft.write(index, block);
        }
        self
    }

    /// How long a space is now, if that is known.
    pub fn len(&self, space: &str) -> Option<u64> {
        match self.drafts.get(space) {
            Some(draft) => draft.as_ref().map(|draft| draft.len),
            None => Some(self.base.as_ref()?.space(space)?.len()),
        }
    }

    /// The space is no more.
    ///
    /// # Panics
    /// If `space` is not a name.
    pub fn drop_space(&mut self, space: &str) -> &mut DiffBuilder {
        self.drafts.insert(proper(space), None);
        self
    }

    /// The diff of all that was said.
    pub fn finish(self) -> Diff {
        let mut changes = Vec::new();
        for (name, draft) in self.drafts {
            let base = self.base.as_ref().map(|base| base.space(name.as_str()));
            match draft {
                // Dropped, and never there: nothing to say.
                None if base == Some(None) => {}
                None => changes.push((name, Change::Dropped)),
                Some(draft) if draft.is_unchanged() => {}
                Some(draft) => changes.push((name, draft.finish())),
            }
        }
        Diff::new(changes)
    }

    /// The draft of a space; `len` is its length in case that nothing else tells it.
    fn draft(&mut self, space: &str, len: Option<u64>) -> &mut Draft {
        let base = &self.base;
        let first = || match base.as_ref().map(|base| base.space(space)) {
            Some(Some(before)) => Draft::of_base(before),
            Some(None) => Draft::empty(),
            None => Draft::unknown(len.expect("without a base, a space's length is told first")),
        };
        let told = self.drafts.entry(proper(space)).or_insert_with(|| Some(first()));
        // What was dropped and is there again begins with nothing.
        told.get_or_insert_with(Draft::empty)
    }
}

fn proper(space: &str) -> SpaceName {
    SpaceName::new(space).expect("engines give their spaces proper names")
}

impl Draft {
    fn of_base(space: &Space) -> Draft {
        let len = space.len();
        let before = Some(space.clone());
        Draft { before, base_len: Some(len), kept: len, len, writes: BTreeMap::new() }
    }

    /// Of a space that wasn't there.
    fn empty() -> Draft {
        let before = Some(Space::empty());
        Draft { before, base_len: None, kept: 0, len: 0, writes: BTreeMap::new() }
    }

    /// Of a space that nothing is known of.
    fn unknown(len: u64) -> Draft {
        Draft { before: None, base_len: None, kept: len, len, writes: BTreeMap::new() }
    }

    fn shrink(&mut self, len: u64) {
        self.kept = self.kept.min(len);
        self.writes.split_off(&(block_count(len) as u32));
        let within = (len % BLOCK as u64) as usize;
        if within == 0 {
            return;
        }
        if let Some(block) = self.writes.get_mut(&((len / BLOCK as u64) as u32)) {
            *block = block.as_ref().and_then(|block| Block::new(&block.bytes()[..within]));
        }
    }

    fn write(&mut self, index: u32, bytes: &[u8]) {
        let start = u64::from(index) * BLOCK as u64;
        assert!(start < self.len, "the block lies within its space");
        let within = (self.len - start).min(BLOCK as u64) as usize;
        assert!(
            bytes.len() <= BLOCK && is_zero(&bytes[within.min(bytes.len())..]),
            "the bytes lie within the space"
        );
        if self.before.as_ref().is_some_and(|space| is_equal(space, index, bytes)) {
            self.writes.remove(&index);
        } else {
            self.writes.insert(index, Block::new(bytes));
        }
    }

    fn is_unchanged(&self) -> bool {
        self.base_len == Some(self.len) && self.kept == self.len && self.writes.is_empty()
    }

    fn finish(self) -> Change {
        let writes = self.writes.into_iter().collect();
        Change::Changed { kept: self.kept, len: self.len, writes }
    }
}

/// Whether the block at `index` is `bytes` and then zeros.
fn is_equal(space: &Space, index: u32, bytes: &[u8]) -> bool {
    match space.block(index) {
        Some(block) => {
            let (head, tail) = block.bytes().split_at(bytes.len());
            head == bytes && is_zero(tail)
        }
        None => is_zero(bytes),
    }
}
