//! What is fuzzed: every decoder, with whatever the product does next with what was decoded.
//!
//! A target takes any bytes. It must not panic, must not allocate more than the bytes allow, and
//! what it decoded must encode to something that decodes to the same. Targets over messages take
//! the input as a sequence of chunks (see [`chunks`]), so that states are reached that one message
//! can't reach.
//!
//! What it does not know: libFuzzer. The binary `fuzz` drives a target, `seeds` makes corpora.

mod catalog;
mod checkpoint;
mod node;
mod raft;
mod streams;
mod text;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, with the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("catalog", catalog::commands),
    ("snapshot", catalog::snapshot),
    ("records", catalog::records),
    ("raft", raft::raft),
    ("holder", checkpoint::holder),
    ("shipper", checkpoint::shipper),
    ("parts", checkpoint::parts),
    ("replay", checkpoint::replay),
    ("control", node::control),
    ("header", node::header),
    ("gateway", streams::gateway),
    ("instance", streams::instance),
    ("sockets", streams::sockets),
    ("manifest", text::manifest),
    ("config", text::config),
    ("api", text::api),
    ("module", text::module),
];

/// Inputs to begin with: a target's name, and one input.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let rooms = [
        catalog::seeds(),
        checkpoint::seeds(),
        node::seeds(),
        raft::seeds(),
        streams::seeds(),
        text::seeds(),
    ];
    rooms.into_iter().flatten().collect()
}

/// Cuts an input: two bytes of length, low one first, then so many bytes; the last may be short.
fn chunks(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (chunk, rest) = rest.split_at(length);
        data = rest;
        Some(chunk)
    })
}

/// The inverse of [`chunks`].
fn join(chunks: &[Vec<u8>]) -> Vec<u8> {
    let one = |chunk: &Vec<u8>| {
        let length = u16::try_from(chunk.len()).expect("seeds are short");
        [&length.to_le_bytes()[..], chunk].concat()
    };
    chunks.iter().flat_map(one).collect()
}

/// Decodes; what was decoded must encode and decode to the same bytes again.
fn decoded<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = jizoku_types::decode(bytes).ok()?;
    let again = jizoku_types::encode(&value);
    let twin: T = jizoku_types::decode(&again).expect("what was encoded can be decoded");
    assert_eq!(jizoku_types::encode(&twin), again, "decoding loses something");
    Some(value)
}

fn member(n: u8) -> Member {
    Member { node: node(n), incarnation: Incarnation(1) }
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// The moment of an input's `n`th step.
fn moment(n: usize) -> Instant {
    Instant::ORIGIN + Span::millis(1 + 7 * n as u64)
}
