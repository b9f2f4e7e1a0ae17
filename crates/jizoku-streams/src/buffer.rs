//! A stretch of a stream: the bytes from one absolute offset to another.
//!
//! What it does not know: whose stream, in which direction, why bytes are kept.
//!
//! Invariants
//! - `base <= end`, and exactly `end - base` bytes are kept.
//! - `base` and `end` never go back, but by [`StreamBuffer::restart`].
//! - An empty buffer keeps little memory, so that an idle connection is cheap.
//!
//! Units: offsets are bytes from the stream's beginning. Who appends has checked the window.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Memory that an empty buffer may keep.
const IDLE_CAPACITY_MAX: usize = 4096;

/// Bytes `[base, end)` of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamBuffer {
    base: u64,
    bytes: VecDeque<u8>,
}

impl StreamBuffer {
    /// An empty stretch at `base`.
    pub const fn at(base: u64) -> StreamBuffer {
        StreamBuffer { base, bytes: VecDeque::new() }
    }

    /// Offset of the first byte that is kept.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Offset after the last byte.
    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// How many bytes are kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no bytes are kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds bytes at the end.
    ///
    /// # Panics
    /// If offsets would pass `u64::MAX`: the caller checks offsets that came from the wire.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(self.end().checked_add(bytes.len() as u64).is_some(), "a stream is that long");
        self.bytes.extend(bytes);
    }

    /// Drops what lies before `offset`; the end, if `offset` is beyond it. Returns how many
    /// bytes were dropped.
    pub fn discard_to(&mut self, offset: u64) -> usize {
        let wanted = offset.min(self.end()).saturating_sub(self.base);
        let count = wanted as usize;
        self.bytes.drain(..count);
        self.base += wanted;
        if self.bytes.is_empty() && self.bytes.capacity() > IDLE_CAPACITY_MAX {
            self.bytes = VecDeque::new();
        }
        count
    }

    /// Drops everything and goes on at `offset`. Returns how many bytes were dropped.
    pub fn restart(&mut self, offset: u64) -> usize {
        let count = self.bytes.len();
        *self = StreamBuffer::at(offset);
        count
    }

    /// A copy of at most `max` bytes from `offset` on; empty if `offset` is not in the stretch.
    pub fn copy_from(&self, offset: u64, max: usize) -> Vec<u8> {
        let Some(skip) = offset.checked_sub(self.base).filter(|&n| n <= self.len() as u64) else {
            return Vec::new();
        };
        let skip = skip as usize;
        let count = max.min(self.len() - skip);
        let mut copy = Vec::with_capacity(count);
        self.slices(skip, count, |part| copy.extend_from_slice(part));
        copy
    }

    /// Copies bytes from the base into `room` without dropping them. Returns how many.
    pub fn peek_into(&self, room: &mut [u8]) -> usize {
        let count = room.len().min(self.len());
        let mut done = 0;
        self.slices(0, count, |part| {
            room[done..done + part.len()].copy_from_slice(part);
            done += part.len();
        });
        count
    }

    /// Appends all bytes to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.slices(0, self.len(), |part| out.extend_from_slice(part));
    }

    /// Calls `take` with the one or two parts in memory of `count` bytes after `skip`.
    fn slices(&self, skip: usize, count: usize, mut take: impl FnMut(&[u8])) {
        let (front, back) = self.bytes.as_slices();
        let from_front = &front[skip.min(front.len())..(skip + count).min(front.len())];
        let rest = count - from_front.len();
        let start = skip.saturating_sub(front.len());
        for part in [from_front, &back[start..start + rest]] {
            if !part.is_empty() {
                take(part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn copies_across_the_seam_of_the_ring() {
        let mut buffer = StreamBuffer::at(100);
        let mut stream: Vec<u8> = Vec::new();
        for round in 0..200u8 {
            let piece = vec![round; usize::from(round % 7) + 1];
            buffer.append(&piece);
            stream.extend(&piece);
            let base = buffer.end().saturating_sub(20).max(buffer.base());
            buffer.discard_to(base);
            let first = (buffer.base() - 100) as usize;
            for skip in 0..=buffer.len() {
                for max in [0, 1, 5, 100] {
                    let want = &stream[first + skip..(first + skip + max).min(stream.len())];
                    assert_eq!(buffer.copy_from(buffer.base() + skip as u64, max), want);
                }
            }
            let mut room = [0; 9];
            let count = buffer.peek_into(&mut room);
            assert_eq!(room[..count], stream[first..(first + 9).min(stream.len())]);
        }
    }

    #[test]
    fn offsets_outside_give_nothing() {
        let mut buffer = StreamBuffer::at(10);
        buffer.append(b"abc");
        assert!(buffer.copy_from(9, 5).is_empty());
        assert!(buffer.copy_from(13, 5).is_empty());
        assert!(buffer.copy_from(u64::MAX, 5).is_empty());
        assert_eq!(buffer.discard_to(u64::MAX), 3);
        assert_eq!((buffer.base(), buffer.end()), (13, 13));
        assert_eq!(buffer.discard_to(0), 0);
    }

    #[test]
    fn an_emptied_buffer_gives_its_memory_back() {
        let mut buffer = StreamBuffer::default();
        buffer.append(&vec![1; 1 << 20]);
        buffer.discard_to(1 << 20);
        assert!(buffer.bytes.capacity() <= IDLE_CAPACITY_MAX);
    }
}
