//! The state of a frozen instance: named byte spaces in blocks, with a Merkle root.
//!
//! - [`Image`]: the state; [`Space`]: one named range of bytes of it
//! - [`Diff`]: what changed, made by a [`DiffBuilder`] or by comparing two images
//! - [`Part`], [`Cuts`], [`Assembler`]: a diff as it travels and as it is stored
//! - [`Survey`]: finds the blocks in which an image far away differs from one at hand
//!
//! What it does not know: checkpoints' ids, epochs, nodes, who wants the state.
//!
//! Invariants
//! - Equal content has an equal root, however it came about.
//! - The root covers every space's name, length and bytes.
//! - Applying a diff either succeeds as a whole or changes nothing.
//! - A clone shares everything with its origin, and changes of one never show in the other.
//!
//! Units and limits: bytes; blocks of `BLOCK` bytes; at most `STATE_MAX` bytes in at most
//! [`SPACES_MAX`] spaces. A block whose space ends within it counts as if zeros followed.

mod diff;
mod part;
mod survey;
mod tree;
mod unpack;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use jizoku_types::ByteCount;
use jizoku_types::limits::STATE_MAX;
use serde::{Deserialize, Serialize};

pub use diff::{Diff, DiffBuilder};
pub use part::{Assembler, CUT_MIN, Cuts, Encoder, PARTS_MAX, Part, PartError, RAW_MAX};
pub use survey::{
    BLOCKS_PER_QUESTION, Found, Lie, NODES_PER_QUESTION, Question, SpaceOutline, Survey,
};
pub use tree::{
    Block, Blocks, Digest, FANOUT, LEVELS_MAX, Space, Write, block_count, node_digest, space_root,
    zero_digest,
};

/// Most spaces of one image.
pub const SPACES_MAX: usize = 256;
/// Longest name of a space, in bytes.
pub const SPACE_NAME_MAX: usize = 64;

const IMAGE_KEY: &[u8; 32] = b"jizoku checkpoint v1: the image ";

/// The name of a byte space: 1 to [`SPACE_NAME_MAX`] visible ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpaceName(Arc<str>);

/// The text is not a space's name: empty, too long, or not visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a space's name is 1 to {SPACE_NAME_MAX} visible ASCII characters")
    }
}

impl core::error::Error for BadName {}

impl SpaceName {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<SpaceName, BadName> {
        let fits = (1..=SPACE_NAME_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(SpaceName(text.into()))
        } else {
            Err(BadName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for SpaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SpaceName {
    type Error = BadName;
    fn try_from(text: String) -> Result<SpaceName, BadName> {
        SpaceName::new(&text)
    }
}

impl From<SpaceName> for String {
    fn from(name: SpaceName) -> String {
        name.as_str().into()
    }
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a diff can't be applied. The image is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// The state would have more than `STATE_MAX` bytes.
    TooLarge,
    /// The state would have more than [`SPACES_MAX`] spaces.
    TooManySpaces,
    /// A block lies past the end of its space, or has bytes there.
    PastEnd,
    /// The result is not what the diff's maker had: the base, or the diff, is another or damaged.
    WrongRoot,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ApplyError::TooLarge => "the state would be larger than a state may be",
            ApplyError::TooManySpaces => "the state would have too many byte spaces",
            ApplyError::PastEnd => "a block lies past the end of its byte space",
            ApplyError::WrongRoot => "the result's root is not the expected one",
        })
    }
}

impl core::error::Error for ApplyError {}

/// A state of an instance. Cloning it costs as much as it has spaces, not bytes.
#[derive(Clone)]
pub struct Image {
    spaces: BTreeMap<SpaceName, Space>,
    root: Digest,
}

impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        self.root == other.root
    }
}

impl Eq for Image {}

impl Default for Image {
    fn default() -> Image {
        Image::empty()
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}, {})", self.size(), self.root)
    }
}

impl Image {
    /// The image without any space: what the first diff of a service is made against.
    pub fn empty() -> Image {
        Image { spaces: BTreeMap::new(), root: image_root(core::iter::empty()) }
    }

    /// Its root: equal if and only if all names, lengths and bytes are equal.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The sum of its spaces' lengths.
    pub fn size(&self) -> ByteCount {
        ByteCount(self.spaces.values().map(Space::len).sum())
    }

    /// The space called `name`.
    pub fn space(&self, name: &str) -> Option<&Space> {
        self.spaces.get(name)
    }

    /// All spaces, in the order of their names.
    pub fn spaces(&self) -> impl Iterator<Item = (&SpaceName, &Space)> {
        self.spaces.iter()
    }

    /// The bytes of a space in `range`; `None` if there is no such space, or the range is not
    /// within it.
    pub fn read(&self, space: &str, range: Range<u64>) -> Option<Vec<u8>> {
        let space = self.space(space)?;
        let count = range.end.checked_sub(range.start)?;
        if range.end > space.len() {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(count).ok()?];
        space.read_into(range.start, &mut bytes).then_some(bytes)
    }

    /// All bytes of a space.
    pub fn read_all(&self, space: &str) -> Option<Vec<u8>> {
        self.read(space, 0..self.space(space)?.len())
    }

    /// Its spaces as they are told to one who surveys it.
    pub fn outline(&self) -> Vec<SpaceOutline> {
        self.spaces
            .iter()
            .map(|(name, space)| SpaceOutline {
                name: name.clone(),
                len: space.len(),
                tree: space.tree_digest(),
            })
            .collect()
    }

    /// Applies `diff`, and checks that the result has the root `after`.
    /// On an error the image is as it was.
    pub fn apply(&mut self, diff: &Diff, after: Digest) -> Result<(), ApplyError> {
        let mut next = self.clone();
        next.apply_unrooted(diff)?;
        if next.root != after {
            return Err(ApplyError::WrongRoot);
        }
        *self = next;
        Ok(())
    }

    /// Applies a diff whose result nobody knows yet: the active node's, right after the capture.
    /// On an error the image is as it was.
    pub fn apply_unrooted(&mut self, diff: &Diff) -> Result<(), ApplyError> {
        diff.check_against(self)?;
        for (name, change) in diff.changes() {
            match change {
                diff::Change::Dropped => {
                    self.spaces.remove(name);
                }
                diff::Change::Changed { kept, len, writes } => {
                    let space = self.spaces.entry(name.clone()).or_insert_with(Space::empty);
                    space.change(*kept, *len, writes);
                }
            }
        }
        self.root =
            image_root(self.spaces.iter().map(|(name, space)| (name.as_str(), space.root())));
        Ok(())
    }
}

/// The root of an image with these spaces, in the order of their names.
pub fn image_root<'a>(spaces: impl Iterator<Item = (&'a str, Digest)>) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(IMAGE_KEY);
    for (name, root) in spaces {
        let len = u8::try_from(name.len()).expect("names are short");
        hasher.update(&[len]).update(name.as_bytes()).update(&root.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// Whether a state of `size` bytes in `spaces` spaces is within the limits.
fn check_size(size: u64, spaces: usize) -> Result<(), ApplyError> {
    if size > STATE_MAX.0 {
        Err(ApplyError::TooLarge)
    } else if spaces > SPACES_MAX {
        Err(ApplyError::TooManySpaces)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
