//! How much memory an input may take, counted by the allocator.
//!
//! A decoder that believes a length in its input allocates for it; a state that never forgets
//! grows with each message. Both are found by counting, long before a machine is out of memory.
//!
//! Units: bytes. Limits: [`FLOOR`] and [`EACH`]. What threads allocate that a target starts counts
//! too; so one input runs at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a target may take whatever its input is: its state to begin with, buffers of fixed size.
pub const FLOOR: usize = 48 << 20;
/// What it may take for each byte of the input. Compressed parts and runs of zeros become larger
/// when they are unpacked: a block of 4 KiB may come from very few bytes.
pub const EACH: usize = 24 << 10;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all calls go to the system's allocator as they are; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

/// Does something; it must not take more than an input of this length allows.
///
/// # Panics
/// If it did.
pub fn bounded(length: usize, action: impl FnOnce()) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    action();
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let allowed = FLOOR + EACH * length;
    assert!(taken <= allowed, "{length} bytes of input took {taken} bytes of memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_much_is_found() {
        let take = |bytes: usize| bounded(10, || drop(std::hint::black_box(vec![1u8; bytes])));
        take(FLOOR / 2);
        let found = std::panic::catch_unwind(|| take(FLOOR + 20 * EACH));
        assert!(found.is_err());
    }
}
