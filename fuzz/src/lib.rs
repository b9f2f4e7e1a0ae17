//! What is fuzzed: every decoder, with whatever the product does next with what was decoded.
//!
//! A target takes any bytes. It must not panic, must not take more memory than the bytes allow
//! ([`memory`]), must come to an end, and what it decoded must encode to something that decodes to
//! the same. Where there is a state behind the decoder, what the state promises is checked too.
//!
//! A target that has several decoders takes the first byte of its input for the choice ([`pick`]).
//! Targets over messages take the rest as a sequence of chunks (see [`chunks`]), so that states
//! are reached that one message can't reach.
//!
//! What it does not know: libFuzzer. The binary `fuzz` drives a target, `seeds` makes corpora; the
//! test `corpus` runs all that is kept in `fuzz/corpus`, as any other test.

mod catalog;
mod checkpoint;
mod control;
mod disk;
pub mod memory;
mod raft;
mod streams;
mod text;
mod wasm;
mod wire;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, with the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("catalog", catalog::catalog),
    ("raft", raft::raft),
    ("holder", checkpoint::holder),
    ("shipper", checkpoint::shipper),
    ("control", control::control),
    ("wire", wire::wire),
    ("streams", streams::streams),
    ("disk", disk::disk),
    ("text", text::text),
    ("api", text::api),
    ("module", wasm::module),
    ("wasi", wasm::wasi),
];

/// An input to begin with, and the target that it is for.
pub type Seed = (&'static str, Vec<u8>);

/// Inputs to begin with.
pub fn seeds() -> Vec<Seed> {
    let rooms = [
        catalog::seeds(),
        checkpoint::seeds(),
        control::seeds(),
        disk::seeds(),
        raft::seeds(),
        streams::seeds(),
        text::seeds(),
        wasm::seeds(),
        wire::seeds(),
    ];
    rooms.into_iter().flatten().collect()
}

/// Runs a target on an input, within what it may take.
///
/// # Panics
/// If anything is wrong.
pub fn run(target: Target, data: &[u8]) {
    memory::bounded(data.len(), || target(data));
}

/// Lets the first byte choose one of several targets.
fn pick(data: &[u8], targets: &[Target]) {
    if let Some((choice, rest)) = data.split_first() {
        targets[usize::from(*choice) % targets.len()](rest);
    }
}

/// A seed for one of several targets.
fn for_choice(target: &'static str, choice: u8, rest: Vec<u8>) -> Seed {
    (target, [vec![choice], rest].concat())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back() {
        let some = vec![vec![1, 2, 3], Vec::new(), vec![0; 300]];
        assert_eq!(chunks(&join(&some)).collect::<Vec<_>>(), some);
        assert_eq!(chunks(&[9, 0, 1]).collect::<Vec<_>>(), [[1]]);
        assert_eq!(chunks(&[9]).count(), 0);
    }

    #[test]
    fn every_target_has_seeds_and_they_run() {
        let seeds = seeds();
        for (name, target) in TARGETS {
            let own: Vec<_> = seeds.iter().filter(|(of, _)| of == name).collect();
            assert!(!own.is_empty(), "{name} begins with nothing");
            own.iter().for_each(|(_, data)| run(*target, data));
            run(*target, &[]);
        }
        assert!(seeds.iter().all(|(of, _)| TARGETS.iter().any(|(name, _)| name == of)));
    }
}
