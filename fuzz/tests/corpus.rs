//! Every input that is kept, as a plain test: what once broke something must not do so again.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use jizoku_fuzz::{TARGETS, run};

/// All inputs together weigh at most this much: they are in every clone.
const CORPUS_MAX: u64 = 400 << 10;
/// Longest time for one input, on a busy machine: an input is a few steps, not a program.
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn every_input_that_is_kept_still_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut bytes = 0;
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let files = fs::read_dir(&folder);
        let files = files.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let file = file.expect("a folder can be read").path();
            let data = fs::read(&file).expect("a file can be read");
            let began = Instant::now();
            let passed = catch_unwind(AssertUnwindSafe(|| run(*target, &data)));
            assert!(passed.is_ok(), "{} breaks `{name}`", file.display());
            assert!(began.elapsed() < WITHIN, "{} takes too long", file.display());
            (count, bytes) = (count + 1, bytes + data.len() as u64);
        }
        assert!(count > 0, "{} is empty", folder.display());
        println!("{name}: {count} inputs");
    }
    assert!(bytes <= CORPUS_MAX, "{bytes} bytes are kept: `cargo xtask fuzz --keep` makes less");
}
