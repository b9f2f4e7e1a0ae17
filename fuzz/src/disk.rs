//! What lies in the data folder, and somebody changed.

use jizoku_store::fuzz;

use crate::{Seed, for_choice, pick};

/// Journals, small files, names of folders.
pub(crate) fn disk(data: &[u8]) {
    pick(data, &[fuzz::journal, fuzz::forged, fuzz::small_file, fuzz::folder_name]);
}

pub(crate) fn seeds() -> Vec<Seed> {
    let journal = b"\x06\x02\x03abc\x02de\x05\x01\x04four\x05\x03\x01a\x01b\x01c";
    let cut = [&journal[..], &[0, 130, 0, 9]].concat();
    let forged = b"\x02\x01\x00\x00\x00\x04body\x02\x01\x00\x00\x00\x02\x03\x00\x00\xff\x04body";
    vec![
        for_choice("disk", 0, journal.to_vec()),
        for_choice("disk", 0, cut),
        for_choice("disk", 1, forged.to_vec()),
        for_choice("disk", 2, b"\x07\x00content\x02\x20\x00\x01".to_vec()),
        for_choice("disk", 3, b"svc_7.br_0102030405060708090a0b0c0d0e0f10".to_vec()),
    ]
}
