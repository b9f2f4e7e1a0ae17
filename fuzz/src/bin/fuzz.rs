//! libFuzzer over one target, which `JIZOKU_FUZZ_TARGET` names.

#![no_main]

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

fuzz_target!(|data: &[u8]| target()(data));
