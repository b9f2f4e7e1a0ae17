//! libFuzzer over one target, which `JIZOKU_FUZZ_TARGET` names.
//!
//! With `JIZOKU_FUZZ_SEEDS=FOLDER` it writes the inputs to begin with, to FOLDER/TARGET/seed-N,
//! prints the targets' names, and ends.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use jizoku_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

fn target() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("JIZOKU_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("JIZOKU_FUZZ_TARGET={name}: no such target")).1
    })
}

fn write_seeds(folder: &Path) {
    for (number, (name, bytes)) in jizoku_fuzz::seeds().into_iter().enumerate() {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).expect("a folder can be made");
        let written = std::fs::write(place.join(format!("seed-{number}")), bytes);
        written.expect("a seed can be written");
    }
    TARGETS.iter().for_each(|(name, _)| println!("{name}"));
}

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("JIZOKU_FUZZ_SEEDS") {
            write_seeds(Path::new(&folder));
            std::process::exit(0);
        }
    },
    |data: &[u8]| jizoku_fuzz::run(target(), data)
);
