//! Host calls with arguments that no honest program would pass.

use std::collections::BTreeSet;

use super::calls::{Draw, call, host};
use super::descriptors::{Descriptors, Target};
use super::*;
use crate::files::{Kind, ROOT};

/// Numbers as a hostile program would choose them: small, large, and near every edge.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 11
    }
}

impl Draw for Numbers {
    fn call(&mut self, of: usize) -> usize {
        (self.next() % of as u64) as usize
    }

    fn long(&mut self) -> u64 {
        match self.next() % 8 {
            0 => 0,
            1 => u64::MAX - self.next() % 3,
            2 => i64::MAX as u64 + self.next() % 3,
            3 => self.next(),
            _ => self.next() % 5000,
        }
    }

    fn int(&mut self) -> u32 {
        match self.next() % 8 {
            0 => self.next() as u32,
            1 => u32::MAX - (self.next() % 70_000) as u32,
            2 => SIZE as u32 - (self.next() % 64) as u32,
            3 | 4 => (self.next() % SIZE as u64) as u32,
            _ => (self.next() % 12) as u32,
        }
    }
}

const SIZE: usize = 64 << 10;

#[test]
fn no_arguments_make_a_call_panic() {
    let mut draw = Numbers(1);
    let mut host = host();
    let mut memory = vec![0; SIZE];
    let mut succeeded = BTreeSet::new();
    // What would wait ends instead.
    host.shared.lock().stop = true;
    for round in 0..300_000u32 {
        if round % 1000 == 0 {
            // Fresh bytes for the pointers to point at: names in the first half of the memory,
            // numbers in the second.
            for (at, bytes) in (0..).step_by(4).zip(memory.chunks_exact_mut(4)) {
                let text = [b"a/b/", b"file", b"abc/", b"a/..", b"/a/f"];
                let value = match draw.next() % 4 {
                    _ if at < SIZE / 2 => {
                        u32::from_le_bytes(*text[(draw.next() % text.len() as u64) as usize])
                    }
                    0 => draw.int(),
                    _ => (draw.next() % 8) as u32,
                };
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        let mut guest = Guest(&mut memory);
        let (name, result) = call(&mut draw, &mut host, &mut guest);
        if result.is_ok() {
            succeeded.insert(name);
        }
        // Whatever it did, there is something to do it to.
        if host.descriptors.directory(5).is_err() || round % 1000 == 0 {
            host.descriptors = Descriptors::fresh(2, &mut host.files);
            for (path, kind) in [("a", Kind::Directory), ("a/b", Kind::File)] {
                let _ = host.files.create(ROOT, path, kind, 0);
            }
            if let Ok(ino) = host.files.lookup(ROOT, "a/b") {
                let file =
                    Target::File { ino, offset: 0, append: false, readable: true, writable: true };
                host.descriptors.open(file, false).unwrap();
                let _ = host.files.opened(ino);
            }
        }
    }
    assert!(succeeded.len() >= 30, "the draws are too wild: only {succeeded:?} ever succeeded");
}

#[test]
fn every_call_of_the_standard_is_offered() {
    let engine = wasmtime::Engine::default();
    let mut linker = Linker::new(&engine);
    add_to(&mut linker).unwrap();
    let mut store = wasmtime::Store::new(&engine, host());
    let defined: BTreeSet<String> =
        linker.iter(&mut store).map(|(_, name, _)| name.to_string()).collect();
    assert_eq!(defined, NAMES.iter().map(ToString::to_string).collect());
    assert!(WAITING.iter().all(|name| defined.contains(*name)));
}

#[test]
fn buffers_are_checked() {
    let mut memory = vec![0; SIZE];
    let mut guest = Guest(&mut memory);
    let entry = |pointer: u32, length: u32| u64::from(pointer) | u64::from(length) << 32;
    guest.set_u64(0, entry(100, 10)).unwrap();
    guest.set_u64(8, entry(200, 0)).unwrap();
    guest.set_u64(16, entry(SIZE as u32 - 4, 4)).unwrap();
    assert_eq!(guest.buffers(0, 3).unwrap().len(), 2);
    guest.set_u64(16, entry(SIZE as u32 - 4, 5)).unwrap();
    assert_eq!(guest.buffers(0, 3).unwrap_err(), Errno::FAULT);
    assert_eq!(guest.buffers(SIZE as u32 - 7, 1).unwrap_err(), Errno::FAULT);
    assert_eq!(guest.buffers(u32::MAX, 2).unwrap_err(), Errno::FAULT);
    assert_eq!(guest.slice(u32::MAX, u32::MAX).unwrap_err(), Errno::FAULT);
}
