//! A quick hash with a seed, for tables that live in memory only.
//!
//! What it does not know: what is hashed. It is not meant to withstand who knows the seed.

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// See the module's header.
pub(crate) struct Hasher {
    state: u64,
}

/// Both halves of a product, folded.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

impl Hasher {
    pub(crate) fn new(seed: u64) -> Hasher {
        Hasher { state: seed | 1 }
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.state = fold(self.state ^ number, FACTOR).rotate_left(23) ^ self.state;
    }

    pub(crate) fn text(&mut self, text: &str) {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length is part of it: "a" and "a\0" differ.
        self.number(u64::from_le_bytes(last) ^ (text.len() as u64) << 56);
    }

    pub(crate) fn finish(&self) -> u64 {
        fold(self.state, FACTOR)
    }
}

/// The hash of a trace.
pub(crate) fn trace(trace: u128, seed: u64) -> u64 {
    let mut hasher = Hasher::new(seed);
    hasher.number(trace as u64);
    hasher.number((trace >> 64) as u64);
    hasher.finish()
}
