//! What checkpoints cost: `cargo bench -p jizoku-checkpoint`. Prints the best and the median of
//! some rounds of each step; figures are for one core.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jizoku_checkpoint::image::{Diff, DiffBuilder, Image};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 16_384;
const CHANGED: u64 = 164;
const SPACE: &str = "memory.0";

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 ^ (self.0 >> 29)
    }

    /// A block of noise, or of something like a heap: mostly small numbers.
    fn block(&mut self, noise: bool) -> Vec<u8> {
        let mask = if noise { u64::MAX } else { 0x0000_0000_0000_0fff };
        (0..BLOCK / 8).flat_map(|_| (self.next() & mask).to_le_bytes()).collect()
    }
}

fn rounds<T>(name: &str, count: usize, mut once: impl FnMut() -> (Duration, T)) -> T {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..count {
        let (time, value) = once();
        times.push(time);
        last = Some(value);
    }
    times.sort();
    let (best, median) = (times[0], times[count / 2]);
    println!("{name:<58} best {best:>10.1?}  median {median:>10.1?}");
    last.expect("at least one round")
}

fn timed<T>(once: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = black_box(once());
    (start.elapsed(), value)
}

fn main() {
    let mut dice = Dice(7);
    let image = rounds("64 MiB image: build diff from nothing", 3, || {
        let blocks: Vec<_> = (0..BLOCKS).map(|n| dice.block(n % 2 == 0)).collect();
        timed(|| {
            let mut builder = DiffBuilder::new(None);
            builder.resize(SPACE, BLOCKS * BLOCK as u64);
            for (index, block) in (0..).zip(&blocks) {
                builder.block(SPACE, index, block);
            }
            let diff = builder.finish();
            let mut image = Image::empty();
            image.apply_unrooted(&diff).expect("fits");
            image
        })
    });
    rounds("64 MiB image: clone", 1000, || timed(|| image.clone()));
    rounds("64 MiB image: diff of everything", 10, || timed(|| Diff::of(&image)));
    let all = Diff::of(&image);
    let parts = rounds("64 MiB image: encode everything", 3, || timed(|| all.encode()));
    let bytes: usize = parts.iter().map(|part| part.bytes().len()).sum();
    println!("  {} parts, {} KiB", parts.len(), bytes >> 10);
    rounds("64 MiB image: decode, hash", 3, || {
        timed(|| Diff::decode(&parts).expect("own encoding"))
    });
    for noise in [true, false] {
        changed_blocks(&image, &mut dice, noise);
    }
}

fn changed_blocks(image: &Image, dice: &mut Dice, noise: bool) {
    let kind = if noise { "noise" } else { "small numbers" };
    println!("\n{CHANGED} of {BLOCKS} blocks changed, at random, to {kind}");
    let writes: Vec<(u32, Vec<u8>)> = (0..CHANGED)
        .map(|_| ((dice.next() >> 20) as u32 % BLOCKS as u32, dice.block(noise)))
        .collect();
    let build = |base: Option<Image>| {
        let mut builder = DiffBuilder::new(base);
        builder.resize(SPACE, BLOCKS * BLOCK as u64);
        for (index, block) in &writes {
            builder.block(SPACE, *index, block);
        }
        builder.finish()
    };
    rounds("build, compared with the base (copies and hashes blocks)", 200, || {
        timed(|| build(Some(image.clone())))
    });
    let diff = rounds("build without a base", 200, || timed(|| build(None)));
    let after = rounds("apply and root, in place of a clone", 200, || {
        let mut next = image.clone();
        timed(|| {
            next.apply_unrooted(&diff).expect("fits");
            next.clone()
        })
    });
    let parts = rounds("encode", 200, || timed(|| diff.encode()));
    let bytes: usize = parts.iter().map(|part| part.bytes().len()).sum();
    println!("  {} parts, {} of {} KiB", parts.len(), bytes >> 10, diff.raw_bytes().0 >> 10);
    rounds("apply and root, then encode", 200, || {
        let mut next = image.clone();
        timed(|| {
            next.apply_unrooted(&diff).expect("fits");
            (next.root(), diff.encode())
        })
    });
    rounds("holder: decode (hashes blocks), apply, check root", 200, || {
        let mut next = image.clone();
        timed(|| {
            let diff = Diff::decode(&parts).expect("own encoding");
            next.apply(&diff, after.root()).expect("the same root");
            next.root()
        })
    });
    rounds("compare two images", 200, || timed(|| Diff::between(image, &after)));
}
