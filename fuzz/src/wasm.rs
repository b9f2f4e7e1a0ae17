//! Programs that mean harm: modules, host calls, states.

use jizoku_asyncify::{NoReturn, Options, instrument};
use jizoku_wasm::{WAITING, fuzz};

use crate::{Seed, for_choice, pick};

/// A WebAssembly module. What comes out must be valid if it comes out.
pub(crate) fn module(data: &[u8]) {
    let own = [("env", "wait")];
    let waiting = WAITING.map(|name| ("wasi_snapshot_preview1", name));
    let waiting: Vec<_> = waiting.into_iter().chain(own).collect();
    for no_return in [NoReturn::Unwind, NoReturn::Trap] {
        let options = Options { unwinding_imports: &waiting, allowed_imports: None, no_return };
        if let Ok(made) = instrument(data, &options) {
            wasmparser::validate(&made.wasm).expect("an instrumented module is valid");
        }
    }
}

/// Host calls, and states to go on from.
pub(crate) fn wasi(data: &[u8]) {
    pick(data, &[fuzz::host_calls, fuzz::file_tree, fuzz::parts]);
}

/// A function that waits in a loop, as text format would say it:
/// (import "env" "wait" (func)) (memory (export "memory") 1)
/// (func (export "_start") (local i32) (loop (call 0) (br_if 0 (local.get 0))))
fn waits_in_a_loop() -> Vec<u8> {
    [
        &b"\0asm\x01\0\0\0"[..],
        b"\x01\x04\x01\x60\0\0",
        b"\x02\x0c\x01\x03env\x04wait\0\0",
        b"\x03\x02\x01\0",
        b"\x05\x03\x01\0\x01",
        b"\x07\x13\x02\x06memory\x02\0\x06_start\0\x01",
        b"\x0a\x0f\x01\x0d\x01\x01\x7f\x03\x40\x10\0\x20\0\x0d\0\x0b\x0b",
    ]
    .concat()
}

pub(crate) fn seeds() -> Vec<Seed> {
    // A client that says something, then calls with plain arguments; the root, and a file.
    let calls: Vec<u8> =
        (0..45).flat_map(|call| [0, 1, 11, call, 6, 130, 4, 140, 3, 150]).collect();
    let inode = |kind: u8, parent: u8, name: u8| {
        let mut record = [0; 64];
        (record[0], record[1], record[4], record[40]) = (kind, 1, parent, name);
        record
    };
    let tree = [&[0, 3, 0, 0][..], &[0; 64], &inode(2, 1, 0), &inode(1, 1, b'f')].concat();
    vec![
        ("module", waits_in_a_loop()),
        for_choice("wasi", 0, calls),
        for_choice("wasi", 1, tree),
        for_choice("wasi", 2, fuzz::seed()),
    ]
}
