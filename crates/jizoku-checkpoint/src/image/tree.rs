//! One byte space: blocks behind `Arc`, in a tree of 16 children a node that is also its Merkle
//! tree.
//!
//! What it does not know: names, diffs, files.
//!
//! Invariants
//! - A tree has the fewest levels that hold the space's blocks; level 0 is a single block.
//! - A block of zeros, and a subtree of them, is [`Child::Zero`]: it costs nothing and has a
//!   digest known beforehand. So equal content has equal structure and equal digests.
//! - Bytes of the last block beyond the length are zero.
//! - Writes touch, copy and hash only the nodes above the blocks that are written.
//!
//! Limits: a space has at most `STATE_MAX` bytes, hence [`LEVELS_MAX`] levels.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::limits::{BLOCK, STATE_MAX};
use serde::{Deserialize, Serialize};

/// Children of a node.
pub const FANOUT: usize = 16;
const FANOUT_BITS: u32 = FANOUT.trailing_zeros();
/// Most levels above the blocks.
pub const LEVELS_MAX: u32 = 5;
const _: () = assert!(
    (BLOCK as u64) << (FANOUT_BITS * LEVELS_MAX) >= STATE_MAX.0,
    "the deepest tree must hold the largest state"
);

/// Separates what a digest stands for: a node's 512 bytes are never taken for a block or a root.
const NODE_KEY: &[u8; 32] = b"jizoku checkpoint v1: tree node ";
const SPACE_KEY: &[u8; 32] = b"jizoku checkpoint v1: byte space";

/// A BLAKE3 digest: of a block, a node, a space or an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Digests of subtrees that are all zero, by level. A test computes them again.
const ZERO: [Digest; LEVELS_MAX as usize + 1] = [
    Digest(from_hex(b"b6fb73fc46938c981e2b0b4b1ef282adcfc89854d01bfe3972fdc4785b41b2c7")),
    Digest(from_hex(b"16873ea57265ea68f22a3a36a6ec0706dd028cba0e154033e17be02caa64c699")),
    Digest(from_hex(b"a99be59cb5beb0ea4f62830bda43ec4d30fde6f37c9cb03e0fe7f0384c7ffeb1")),
    Digest(from_hex(b"5b21575ec82d2f5947ccd7ffdd616d044282e6a002a2d94841db1e5ec5e98454")),
    Digest(from_hex(b"75cb84ce35a1da7a3b9652f29f78eb30677219c20e29465be1b9a6250e0ac9a2")),
    Digest(from_hex(b"2b4c8591a3a52a2be53db108963dddf4f68722a758dff3be0c04cbfb99814a81")),
];

const fn from_hex(hex: &[u8; 64]) -> [u8; 32] {
    const fn nibble(digit: u8) -> u8 {
        if digit < b'a' { digit - b'0' } else { digit - b'a' + 10 }
    }
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = nibble(hex[2 * at]) << 4 | nibble(hex[2 * at + 1]);
        at += 1;
    }
    bytes
}

/// The digest of a subtree of zeros.
///
/// # Panics
/// If `level` is above [`LEVELS_MAX`].
pub fn zero_digest(level: u32) -> Digest {
    ZERO[level as usize]
}

/// The digest of a node, from those of its children.
pub fn node_digest(children: &[Digest; FANOUT]) -> Digest {
    let mut bytes = [0; FANOUT * 32];
    for (slot, digest) in bytes.chunks_exact_mut(32).zip(children) {
        slot.copy_from_slice(&digest.0);
    }
    Digest(*blake3::keyed_hash(NODE_KEY, &bytes).as_bytes())
}

/// The root of a space, from its length and the digest of its tree.
pub fn space_root(len: u64, tree: Digest) -> Digest {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..].copy_from_slice(&tree.0);
    Digest(*blake3::keyed_hash(SPACE_KEY, &bytes).as_bytes())
}

/// How many blocks `len` bytes need.
pub fn block_count(len: u64) -> u64 {
    len.div_ceil(BLOCK as u64)
}

/// Levels above the blocks in a tree of `len` bytes.
fn levels(len: u64) -> u32 {
    let last = block_count(len).saturating_sub(1);
    (u64::BITS - last.leading_zeros()).div_ceil(FANOUT_BITS)
}

/// A block that is not all zero, with its digest.
pub struct Block {
    digest: Digest,
    bytes: [u8; BLOCK],
}

impl Block {
    /// The block that begins with `bytes` and goes on with zeros; `None` if it is all zero.
    ///
    /// # Panics
    /// If there are more than `BLOCK` bytes.
    pub fn new(bytes: &[u8]) -> Option<Arc<Block>> {
        assert!(bytes.len() <= BLOCK, "a block has at most {BLOCK} bytes");
        if is_zero(bytes) {
            return None;
        }
        let mut block = Block { digest: Digest::default(), bytes: [0; BLOCK] };
        block.bytes[..bytes.len()].copy_from_slice(bytes);
        block.digest = Digest(*blake3::hash(&block.bytes).as_bytes());
        Some(Arc::new(block))
    }

    /// Its bytes, as many as a block has.
    pub fn bytes(&self) -> &[u8; BLOCK] {
        &self.bytes
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Block) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Block {}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({})", self.digest)
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Most blocks that aren't zero show it early; the rest is compared word by word.
    const ZEROS: [u8; 256] = [0; 256];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// A block's new content at its index; `None` is zero.
pub type Write = (u32, Option<Arc<Block>>);

#[derive(Clone)]
enum Child {
    Zero,
    Block(Arc<Block>),
    Node(Arc<Node>),
}

impl Child {
    fn node_or<'a>(&'a self, zero: &'a Node) -> &'a Node {
        match self {
            Child::Node(node) => node,
            _ => zero,
        }
    }
}

#[derive(Clone)]
struct Node {
    digests: [Digest; FANOUT],
    children: [Child; FANOUT],
}

impl Node {
    /// A node whose children, one level below `level`, are zero.
    fn zero(level: u32) -> Node {
        Node {
            digests: [zero_digest(level - 1); FANOUT],
            children: [const { Child::Zero }; FANOUT],
        }
    }
}

/// A named range of bytes of an image. Cloning it copies a pointer.
#[derive(Clone)]
pub struct Space {
    len: u64,
    tree: Child,
    tree_digest: Digest,
    root: Digest,
}

impl PartialEq for Space {
    fn eq(&self, other: &Space) -> bool {
        self.root == other.root
    }
}

impl Eq for Space {}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({} B, {})", self.len, self.root)
    }
}

impl Space {
    /// A space of no bytes.
    pub(super) fn empty() -> Space {
        let tree_digest = zero_digest(0);
        Space { len: 0, tree: Child::Zero, tree_digest, root: space_root(0, tree_digest) }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its root: covers its length and all its bytes.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The digest of its tree alone; the root covers the length too.
    pub fn tree_digest(&self) -> Digest {
        self.tree_digest
    }

    /// The block at `index`; `None` if it is zero, or past the end.
    pub fn block(&self, index: u32) -> Option<&Arc<Block>> {
        match self.descend(0, index) {
            Child::Block(block) => Some(block),
            _ => None,
        }
    }

    /// The digest of the block at `index`; that of zeros past the end.
    pub fn block_digest(&self, index: u32) -> Digest {
        self.block(index).map_or(zero_digest(0), |block| block.digest)
    }

    /// Levels of nodes above its blocks.
    pub fn levels(&self) -> u32 {
        levels(self.len)
    }

    /// The digest of the subtree at `index` of `level`, counted in subtrees of that level.
    ///
    /// # Panics
    /// If the tree has no such level.
    pub fn subtree_digest(&self, level: u32, index: u32) -> Digest {
        if level == self.levels() && index == 0 {
            return self.tree_digest;
        }
        match self.descend(level, index) {
            Child::Zero => zero_digest(level),
            Child::Block(block) => block.digest,
            Child::Node(node) => node_digest(&node.digests),
        }
    }

    /// The digests of the children of the node at `index` of `level` (1 is just above the blocks);
    /// `None` if the tree has no such level.
    pub fn node(&self, level: u32, index: u32) -> Option<[Digest; FANOUT]> {
        if level == 0 || level > self.levels() {
            return None;
        }
        match self.descend(level, index) {
            Child::Node(node) => Some(node.digests),
            _ => Some([zero_digest(level - 1); FANOUT]),
        }
    }

    /// The subtree at `index` of `level`.
    fn descend(&self, level: u32, index: u32) -> &Child {
        let mut at = self.levels();
        assert!(level <= at, "the tree has no level {level}");
        if u64::from(index) >= 1 << (FANOUT_BITS * (at - level)) {
            return &Child::Zero;
        }
        let mut child = &self.tree;
        while at > level {
            let Child::Node(node) = child else { return &Child::Zero };
            at -= 1;
            child = &node.children[(index >> (FANOUT_BITS * (at - level))) as usize % FANOUT];
        }
        child
    }

    /// The blocks that aren't zero, by index.
    pub fn blocks(&self) -> Blocks<'_> {
        Blocks { stack: alloc::vec![(&self.tree, 0)] }
    }

    /// Copies bytes from `offset` on. False, and nothing was copied, if they go past the end.
    pub fn read_into(&self, offset: u64, into: &mut [u8]) -> bool {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let within = (at % BLOCK as u64) as usize;
            let take = rest.len().min(BLOCK - within);
            let (now, later) = rest.split_at_mut(take);
            match self.block((at / BLOCK as u64) as u32) {
                Some(block) => now.copy_from_slice(&block.bytes[within..within + take]),
                None => now.fill(0),
            }
            at += take as u64;
            rest = later;
        }
        true
    }

    /// Gives it another length: what is cut off is gone, what is added is zero.
    pub(super) fn resize(&mut self, len: u64) {
        self.change(len, len, &[]);
    }

    /// Cuts off what lies beyond `kept`, gives it `len` bytes, and puts blocks in place. Their
    /// indices ascend, and lie within the length.
    pub(super) fn change(&mut self, kept: u64, len: u64, writes: &[Write]) {
        let before = (self.len, self.tree_digest);
        self.reshape(self.len.min(kept), writes);
        self.reshape(len, writes);
        if !writes.is_empty() {
            write(&mut self.tree, &mut self.tree_digest, levels(self.len), writes);
        }
        if before != (self.len, self.tree_digest) {
            self.root = space_root(self.len, self.tree_digest);
        }
    }

    /// Another length, but for the root. `writes` are to follow.
    fn reshape(&mut self, len: u64, writes: &[Write]) {
        assert!(len <= STATE_MAX.0, "checked by the caller");
        if len == self.len {
            return;
        }
        let (old, new) = (levels(self.len), levels(len));
        if len < self.len {
            truncate(&mut self.tree, &mut self.tree_digest, old, block_count(len));
            self.cut_tail(len, writes);
        }
        for level in old..new {
            wrap(&mut self.tree, &mut self.tree_digest, level + 1);
        }
        for level in (new..old).rev() {
            unwrap(&mut self.tree, &mut self.tree_digest, level);
        }
        self.len = len;
    }

    /// Zeroes the bytes of the block that `len` ends in, from `len` on, unless the whole block is
    /// to be written anyway.
    fn cut_tail(&mut self, len: u64, writes: &[Write]) {
        let within = (len % BLOCK as u64) as usize;
        let index = (len / BLOCK as u64) as u32;
        if within == 0 || writes.binary_search_by_key(&index, |(at, _)| *at).is_ok() {
            return;
        }
        if let Some(block) = self.block(index) {
            let cut = Block::new(&block.bytes[..within]);
            write(&mut self.tree, &mut self.tree_digest, levels(self.len), &[(index, cut)]);
        }
    }

    /// What `newer`, of the same length, has at each block that differs.
    pub(super) fn differing(&self, newer: &Space) -> Vec<Write> {
        assert_eq!(self.len, newer.len, "compared only at equal lengths");
        let mut found = Vec::new();
        differing(
            (&self.tree, self.tree_digest),
            (&newer.tree, newer.tree_digest),
            levels(self.len),
            0,
            &mut found,
        );
        found
    }
}

/// Walks the blocks of a [`Space`] that aren't zero, in the order of their indices.
pub struct Blocks<'a> {
    /// Subtrees still to be walked, each with its index among those of its level.
    stack: Vec<(&'a Child, u32)>,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = (u32, &'a Arc<Block>);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((child, index)) = self.stack.pop() {
            match child {
                Child::Zero => {}
                Child::Block(block) => return Some((index, block)),
                Child::Node(node) => {
                    for slot in (0..FANOUT).rev() {
                        let below = (index << FANOUT_BITS) + slot as u32;
                        self.stack.push((&node.children[slot], below));
                    }
                }
            }
        }
        None
    }
}

/// Writes into the subtree of `level` that all the indices lie in.
fn write(child: &mut Child, digest: &mut Digest, level: u32, writes: &[Write]) {
    if level == 0 {
        let (_, block) = writes.last().expect("a subtree is visited for a write");
        (*child, *digest) = match block {
            Some(block) => (Child::Block(block.clone()), block.digest),
            None => (Child::Zero, zero_digest(0)),
        };
        return;
    }
    if let Child::Zero = child {
        if writes.iter().all(|(_, block)| block.is_none()) {
            return;
        }
        *child = Child::Node(Arc::new(Node::zero(level)));
    }
    let Child::Node(node) = child else { unreachable!("blocks are at level 0 only") };
    let node = Arc::make_mut(node);
    let shift = FANOUT_BITS * (level - 1);
    let mut rest = writes;
    while let Some((index, _)) = rest.first() {
        let subtree = index >> shift;
        let (now, later) = rest.split_at(rest.partition_point(|(i, _)| i >> shift <= subtree));
        let slot = subtree as usize % FANOUT;
        write(&mut node.children[slot], &mut node.digests[slot], level - 1, now);
        rest = later;
    }
    settle(child, digest, level);
}

/// Zeroes all blocks from the `keep`-th of this subtree on.
fn truncate(child: &mut Child, digest: &mut Digest, level: u32, keep: u64) {
    if keep == 0 {
        (*child, *digest) = (Child::Zero, zero_digest(level));
        return;
    }
    let Child::Node(node) = child else { return };
    let below = 1 << (FANOUT_BITS * (level - 1));
    let node = Arc::make_mut(node);
    for slot in 0..FANOUT {
        let keep = keep.saturating_sub(slot as u64 * below).min(below);
        if keep < below {
            truncate(&mut node.children[slot], &mut node.digests[slot], level - 1, keep);
        }
    }
    settle(child, digest, level);
}

/// Gives a node that was changed below its new digest, or makes it zero if all below is.
fn settle(child: &mut Child, digest: &mut Digest, level: u32) {
    let Child::Node(node) = child else { return };
    if node.children.iter().all(|below| matches!(below, Child::Zero)) {
        (*child, *digest) = (Child::Zero, zero_digest(level));
    } else {
        *digest = node_digest(&node.digests);
    }
}

/// Puts the tree under a new node of `level`, as its first child.
fn wrap(child: &mut Child, digest: &mut Digest, level: u32) {
    if let Child::Zero = child {
        *digest = zero_digest(level);
        return;
    }
    let mut node = Node::zero(level);
    node.digests[0] = *digest;
    node.children[0] = child.clone();
    *digest = node_digest(&node.digests);
    *child = Child::Node(Arc::new(node));
}

/// Takes the first child, of `level`, out of the node above it; the others are zero.
fn unwrap(child: &mut Child, digest: &mut Digest, level: u32) {
    let (below, below_digest) = match child {
        Child::Node(node) => (node.children[0].clone(), node.digests[0]),
        _ => (Child::Zero, zero_digest(level)),
    };
    (*child, *digest) = (below, below_digest);
}

fn differing(
    (old, old_digest): (&Child, Digest),
    (new, new_digest): (&Child, Digest),
    level: u32,
    index: u32,
    found: &mut Vec<Write>,
) {
    if old_digest == new_digest {
        return;
    }
    if level == 0 {
        let block = match new {
            Child::Block(block) => Some(block.clone()),
            _ => None,
        };
        found.push((index, block));
        return;
    }
    let zero = Node::zero(level);
    let (old, new) = (old.node_or(&zero), new.node_or(&zero));
    for slot in 0..FANOUT {
        differing(
            (&old.children[slot], old.digests[slot]),
            (&new.children[slot], new.digests[slot]),
            level - 1,
            (index << FANOUT_BITS) + slot as u32,
            found,
        );
    }
}
