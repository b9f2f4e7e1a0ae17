//! Which pages of a program's memory changed since the last capture.
//!
//! Two ways. [`Tracking::Userfault`] lets the kernel note each page at its first write: a capture
//! then costs in proportion to what changed. [`Tracking::Compare`] compares all of the memory with
//! the last captured image: it always works, and costs in proportion to all memory. The first is
//! used where the kernel (6.7 or newer) and the sandbox around the agent allow it.
//!
//! What it does not know: wasmtime, checkpoints' numbers, what the pages mean.
//!
//! Invariants
//! - A page that differs from the last captured image is always reported. One that does not may be.
//! - When the kernel's way fails, comparing takes its place for good: nothing is lost.

#[cfg(test)]
mod tests;
mod userfault;

use self::userfault::Userfault;

pub(crate) const PAGE: usize = jizoku_types::limits::BLOCK;

/// How changed pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// By the kernel, at the first write (userfaultfd, asynchronous write protection).
    Userfault,
    /// By comparing all memory with the last captured image while the program stands still.
    Compare,
}

/// What a memory holds when tracking begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// What its program begins with; there is no image yet.
    Fresh,
    /// What the image holds, all of it written.
    Copied,
    /// What the image holds, mapped: most pages are not there before they are touched.
    Mapped,
}

/// Tracks one memory.
pub(crate) struct Tracker {
    /// None: compare.
    userfault: Option<Userfault>,
    /// Pages that differ from the image although they were not written since arming: those that
    /// the program began with. Ascending.
    first: Vec<u32>,
}

impl Tracker {
    /// A tracker that compares.
    pub(crate) fn comparing() -> Tracker {
        Tracker { userfault: None, first: Vec::new() }
    }

    /// Tracks `memory`, which lies in a mapping of `reserved` bytes and grows within it. From now
    /// on writes are noted.
    pub(crate) fn start(
        wanted: Tracking,
        memory: &[u8],
        reserved: usize,
        content: Content,
    ) -> Tracker {
        if wanted == Tracking::Compare {
            return Tracker::comparing();
        }
        let Ok(mut userfault) = Userfault::register(memory.as_ptr(), reserved) else {
            return Tracker::comparing();
        };
        let armed = match content {
            // Pages that are not there are protected too; else reading one would count as writing.
            Content::Mapped => userfault.protect(memory.len()),
            Content::Fresh | Content::Copied => userfault.take_written(memory.len(), |_| {}),
        };
        if armed.is_err() {
            return Tracker::comparing();
        }
        let mut first = Vec::new();
        if content == Content::Fresh {
            let pages = memory.chunks_exact(PAGE).zip(0..);
            first = pages.filter(|(page, _)| !is_zero(page)).map(|(_, number)| number).collect();
        }
        Tracker { userfault: Some(userfault), first }
    }

    /// Which way is in use.
    pub(crate) fn kind(&self) -> Tracking {
        match self.userfault {
            Some(_) => Tracking::Userfault,
            None => Tracking::Compare,
        }
    }

    /// The numbers of pages that changed since the last call, ascending, into `changed`.
    /// `is_same` compares a page with the last captured image.
    pub(crate) fn take(
        &mut self,
        memory: &[u8],
        is_same: impl Fn(u32, &[u8]) -> bool,
        changed: &mut Vec<u32>,
    ) {
        changed.clear();
        if let Some(userfault) = &mut self.userfault {
            let written = |pages: std::ops::Range<u32>| changed.extend(pages);
            if userfault.take_written(memory.len(), written).is_ok() {
                if !self.first.is_empty() {
                    changed.append(&mut self.first);
                    changed.sort_unstable();
                    changed.dedup();
                }
                return;
            }
            self.userfault = None;
            changed.clear();
        }
        let pages = memory.chunks_exact(PAGE).zip(0..);
        changed.extend(pages.filter(|(page, n)| !is_same(*n, page)).map(|(_, n)| n));
    }
}

/// Which way works in this process, found out by trying.
pub(crate) fn probe() -> Tracking {
    if userfault::works() { Tracking::Userfault } else { Tracking::Compare }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: every bit pattern is a valid u64; in words the compiler makes wide comparisons.
    let (head, words, tail) = unsafe { bytes.align_to::<u64>() };
    head.iter().chain(tail).all(|&byte| byte == 0) && words.iter().all(|&word| word == 0)
}
