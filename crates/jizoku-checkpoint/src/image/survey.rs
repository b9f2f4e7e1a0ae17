//! Finds the blocks in which an image far away differs from one at hand, by walking down its tree.
//!
//! What it does not know: who has the image, how questions travel, when an answer is late.
//!
//! Invariants
//! - Every answer is checked against a digest known before, down from the image's root: a wrong
//!   one is found out at once, and changes nothing.
//! - Subtrees that are equal are never asked about.
//! - It ends: each checked answer leads one level down.
//!
//! Limits: at most [`NODES_PER_QUESTION`] nodes in one question.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::part::BLOCKS_PER_PART;
use super::{
    Digest, FANOUT, Image, Space, SpaceName, check_size, image_root, node_digest, space_root,
};

/// Most nodes that one question asks for: their digests take 128 KiB.
pub const NODES_PER_QUESTION: usize = 256;
/// Most blocks that one question asks for: they must fit one part of an answer.
pub const BLOCKS_PER_QUESTION: usize = 48;
const _: () = assert!(BLOCKS_PER_QUESTION <= BLOCKS_PER_PART, "an answer is one part");

/// A space as its image's holder describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceOutline {
    /// Its name.
    pub name: SpaceName,
    /// Its length in bytes.
    pub len: u64,
    /// The digest of its tree.
    pub tree: Digest,
}

/// What is asked of an image far away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Which spaces it has.
    Outline,
    /// The digests below these nodes of one level, at most [`NODES_PER_QUESTION`].
    Nodes {
        /// Of this space.
        space: SpaceName,
        /// The level, from 1.
        level: u32,
        /// Which nodes of that level.
        indices: Vec<u32>,
    },
    /// The content of these blocks, at most [`BLOCKS_PER_QUESTION`].
    Blocks {
        /// Of this space.
        space: SpaceName,
        /// Which blocks, in ascending order.
        indices: Vec<u32>,
    },
}

/// An answer that doesn't fit the digest it was asked by: damaged, or made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie;

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer doesn't have the digest that it must have")
    }
}

impl core::error::Error for Lie {}

/// A block that differs, and the digest that it has far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// In this space.
    pub space: SpaceName,
    /// The block's index.
    pub index: u32,
    /// Its digest there.
    pub digest: Digest,
}

type Key = (SpaceName, u32, u32);

/// The walk. `local` is what the remote image is compared with.
pub struct Survey {
    root: Digest,
    /// The local spaces, cut and stretched to the remote lengths, so that the trees compare.
    local: BTreeMap<SpaceName, Space>,
    before: Image,
    outline: Option<Vec<SpaceOutline>>,
    /// Whether the outline's question is under way.
    outline_asked: bool,
    /// Nodes to be asked about: space, level, index.
    todo: BTreeSet<Key>,
    /// The digest that each node has to have, from when it was found until it is answered.
    expected: BTreeMap<Key, Digest>,
}

impl Survey {
    /// Compares the remote image with this root to `local`.
    pub fn new(local: Image, root: Digest) -> Survey {
        Survey {
            root,
            local: BTreeMap::new(),
            before: local,
            outline: None,
            outline_asked: false,
            todo: BTreeSet::new(),
            expected: BTreeMap::new(),
        }
    }

    /// The next question, if one can be asked before another is answered. Never about blocks.
    pub fn ask(&mut self) -> Option<Question> {
        if self.outline.is_none() {
            let first = !self.outline_asked;
            self.outline_asked = true;
            return first.then_some(Question::Outline);
        }
        let (space, level, _) = self.todo.first().cloned()?;
        let below = (space.clone(), level, 0)..=(space.clone(), level, u32::MAX);
        let indices: Vec<u32> =
            self.todo.range(below).take(NODES_PER_QUESTION).map(|key| key.2).collect();
        for index in &indices {
            self.todo.remove(&(space.clone(), level, *index));
        }
        Some(Question::Nodes { space, level, indices })
    }

    /// Takes back a question that will not be answered, so that it is asked again.
    pub fn give_back(&mut self, question: &Question) {
        match question {
            Question::Outline => self.outline_asked = self.outline.is_some(),
            Question::Nodes { space, level, indices } => {
                let keys = indices.iter().map(|index| (space.clone(), *level, *index));
                let open = keys.filter(|key| self.expected.contains_key(key));
                self.todo.extend(open);
            }
            Question::Blocks { .. } => {}
        }
    }

    /// Whether everything has been asked and answered.
    pub fn is_done(&self) -> bool {
        self.outline.is_some() && self.expected.is_empty()
    }

    /// The remote image's spaces, once they are known.
    pub fn spaces(&self) -> Option<&[SpaceOutline]> {
        self.outline.as_deref()
    }

    /// Takes the answer to [`Question::Outline`]. Gives the differing blocks it already shows.
    pub fn outline(&mut self, spaces: Vec<SpaceOutline>) -> Result<Vec<Found>, Lie> {
        if self.outline.is_some() {
            return Ok(Vec::new());
        }
        let ascending = spaces.is_sorted_by(|a, b| a.name < b.name);
        let size = spaces.iter().try_fold(0u64, |sum, space| sum.checked_add(space.len));
        let fits = size.is_some_and(|size| check_size(size, spaces.len()).is_ok());
        let roots = spaces.iter().map(|s| (s.name.as_str(), space_root(s.len, s.tree)));
        if !ascending || !fits || image_root(roots) != self.root {
            return Err(Lie);
        }
        let mut found = Vec::new();
        for space in &spaces {
            let mut local = match self.before.space(space.name.as_str()) {
                Some(local) => local.clone(),
                None => Space::empty(),
            };
            local.resize(space.len);
            let level = local.levels();
            self.local.insert(space.name.clone(), local);
            self.compare((space.name.clone(), level, 0), space.tree, &mut found);
        }
        self.outline = Some(spaces);
        Ok(found)
    }

    /// Takes the answer to [`Question::Nodes`]: for each index the digests below that node.
    /// Gives the differing blocks that it shows.
    pub fn nodes(
        &mut self,
        space: &SpaceName,
        level: u32,
        indices: &[u32],
        nodes: &[[Digest; FANOUT]],
    ) -> Result<Vec<Found>, Lie> {
        if indices.len() != nodes.len() {
            return Err(Lie);
        }
        let keys = || indices.iter().map(|index| (space.clone(), level, *index));
        for (key, node) in keys().zip(nodes) {
            if self.expected.get(&key).is_some_and(|digest| *digest != node_digest(node)) {
                return Err(Lie);
            }
        }
        let mut found = Vec::new();
        for (key, node) in keys().zip(nodes) {
            self.todo.remove(&key);
            if self.expected.remove(&key).is_none() {
                continue;
            }
            for (slot, digest) in (0..).zip(node) {
                let index = key.2 * FANOUT as u32 + slot;
                self.compare((space.clone(), level - 1, index), *digest, &mut found);
            }
        }
        Ok(found)
    }

    fn compare(&mut self, key: Key, digest: Digest, found: &mut Vec<Found>) {
        let (space, level, index) = &key;
        if self.local[space].subtree_digest(*level, *index) == digest {
            return;
        }
        if *level == 0 {
            found.push(Found { space: space.clone(), index: *index, digest });
        } else {
            self.expected.insert(key.clone(), digest);
            self.todo.insert(key);
        }
    }
}
