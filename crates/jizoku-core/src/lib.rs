//! L1: the deciding cores, each a value with `handle`, `poll` and `deadline`, or a function.
//!
//! - [`branch`]: what sides without a majority tell of their branches, and which goes on
//! - [`catalog`]: who exists and who may serve, as a deterministic function of commands
//! - [`lease`]: who may emit `free` output, and until when
//! - [`liveness`]: whether a link's other end is alive
//! - [`placement`]: which nodes should hold
//! - [`reach`]: link states, who can be reached, and by which way
//! - [`succession`]: who goes on
//! - [`watch`]: whether a service really serves
//!
//! The cores that outgrew this room are crates of their own: jizoku-checkpoint, jizoku-streams.
//!
//! Invariant: these modules don't know each other (checked); only the node composes them.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod branch;
pub mod catalog;
pub mod lease;
pub mod liveness;
pub mod placement;
pub mod reach;
pub mod succession;
pub mod watch;

/// Seeded randomness for the tests of all cores.
#[cfg(test)]
mod dice {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    pub(crate) struct Dice(ChaCha8Rng);

    impl Dice {
        pub(crate) fn new(seed: u64) -> Dice {
            Dice(ChaCha8Rng::seed_from_u64(seed))
        }

        /// From 0 to `n` - 1.
        pub(crate) fn below(&mut self, n: u64) -> u64 {
            self.0.next_u64() % n
        }

        /// True about `n` times in `of`.
        pub(crate) fn chance(&mut self, n: u64, of: u64) -> bool {
            self.below(of) < n
        }

        pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
            &from[self.below(from.len() as u64) as usize]
        }
    }
}
