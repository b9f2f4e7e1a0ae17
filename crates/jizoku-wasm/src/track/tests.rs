//! Both ways report what was written, on real memory.

use std::ops::Range;

use jizoku_checkpoint::image::{DiffBuilder, Image};

use super::*;
use crate::ready::Layout;

/// Page-aligned memory that is freed at the end.
struct Memory {
    bytes: *mut u8,
    length: usize,
}

impl Memory {
    fn new(pages: usize) -> Memory {
        let length = pages * PAGE;
        // SAFETY: a new private mapping; the kernel chooses where.
        let bytes = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(bytes, libc::MAP_FAILED);
        Memory { bytes: bytes.cast(), length }
    }

    fn slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours alone, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.bytes, self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no slice of it outlives `self`.
        unsafe { libc::munmap(self.bytes.cast(), self.length) };
    }
}

fn ways() -> Vec<Tracking> {
    match probe() {
        Tracking::Userfault => vec![Tracking::Userfault, Tracking::Compare],
        Tracking::Compare => vec![Tracking::Compare],
    }
}

fn write(memory: &mut Memory, pages: Range<usize>, value: u8) {
    for page in pages {
        memory.slice()[page * PAGE + page % 7] = value;
    }
}

#[test]
fn every_way_reports_what_was_written() {
    for way in ways() {
        let mut memory = Memory::new(4096);
        write(&mut memory, 3..5, 1);
        let mut image = vec![0; memory.length];
        let length = memory.length;
        let mut tracker = Tracker::start(way, memory.slice(), length, Content::Fresh);
        assert_eq!(tracker.kind(), way);
        let mut changed = Vec::new();
        let rounds: [&[Range<usize>]; 4] = [&[3..5], &[], &[0..1, 4095..4096], &[100..1500]];
        for (round, written) in rounds.iter().enumerate() {
            if round > 0 {
                written.iter().for_each(|pages| write(&mut memory, pages.clone(), round as u8 + 1));
            }
            let now = memory.slice().to_vec();
            let is_same = |page: u32, bytes: &[u8]| {
                let at = page as usize * PAGE;
                image[at..at + PAGE] == *bytes
            };
            tracker.take(memory.slice(), is_same, &mut changed);
            let expected: Vec<u32> =
                written.iter().flat_map(|pages| pages.clone()).map(|page| page as u32).collect();
            assert_eq!(changed, expected, "{way:?} round {round}");
            image = now;
        }
    }
}

#[test]
fn more_ranges_than_one_call_reports() {
    for way in ways() {
        let mut memory = Memory::new(8192);
        let length = memory.length;
        memory.slice().fill(1);
        let image = memory.slice().to_vec();
        let mut tracker = Tracker::start(way, memory.slice(), length, Content::Copied);
        let every_other: Vec<u32> = (0..8192).step_by(2).collect();
        for &page in &every_other {
            memory.slice()[page as usize * PAGE] = 9;
        }
        let mut changed = Vec::new();
        let is_same = |page: u32, bytes: &[u8]| {
            let at = page as usize * PAGE;
            image[at..at + PAGE] == *bytes
        };
        tracker.take(memory.slice(), is_same, &mut changed);
        assert_eq!(changed, every_other, "{way:?}");
    }
}

#[test]
fn reading_mapped_pages_is_not_writing_them() {
    const PAGES: usize = 1000;
    if probe() == Tracking::Compare {
        return;
    }
    let mut image = Image::empty();
    let mut builder = DiffBuilder::new(None);
    builder.bytes("memory.0", &vec![7; PAGES * PAGE]);
    image.apply_unrooted(&builder.finish()).unwrap();
    let mut memory = Memory::new(PAGES);
    let length = memory.length;
    // SAFETY: the mapping is private, ours alone, and unmapped as a whole.
    unsafe { Layout::of(&image).unwrap().map_over(memory.slice()) }.unwrap();
    let way = Tracking::Userfault;
    let mut tracker = Tracker::start(way, memory.slice(), length, Content::Mapped);
    assert_eq!(tracker.kind(), way);
    let mut changed = Vec::new();
    let mut take = |memory: &mut Memory| {
        tracker.take(memory.slice(), |_, _| unreachable!("nothing is compared"), &mut changed);
        changed.clone()
    };
    assert!(memory.slice().iter().step_by(5000).all(|byte| *byte == 7));
    assert!(take(&mut memory).is_empty());
    write(&mut memory, 3..5, 1);
    write(&mut memory, 900..901, 2);
    assert_eq!(take(&mut memory), [3, 4, 900]);
    assert!(memory.slice().iter().all(|byte| *byte <= 7));
    assert!(take(&mut memory).is_empty());
    write(&mut memory, 3..4, 3);
    write(&mut memory, 500..501, 3);
    assert_eq!(take(&mut memory), [3, 500]);
}

#[test]
fn zeros_are_told_from_the_rest() {
    let mut bytes = [0; 100];
    assert!(is_zero(&bytes) && is_zero(&bytes[1..]) && is_zero(&[]));
    for at in 0..100 {
        bytes[at] = 1;
        assert!(!is_zero(&bytes), "{at}");
        bytes[at] = 0;
    }
}
