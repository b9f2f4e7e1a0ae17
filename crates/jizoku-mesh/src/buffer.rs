//! A byte queue in one piece of memory, for socket reads and writes.
//!
//! What it does not know: what the bytes mean.
//!
//! Invariants
//! - It never holds more than `limit` bytes; it grows towards that only while it is used fully.
//! - The filled part is contiguous.

use std::io::{self, Read, Write};

/// What a fresh buffer allocates at its first use.
const FIRST: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
}

impl Buffer {
    pub(crate) fn new(limit: usize) -> Buffer {
        Buffer { bytes: Vec::new(), start: 0, end: 0, limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What is in it.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// What is in it, to be changed in place.
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Takes `count` bytes off the front.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed more than there is");
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// At least `room` free bytes at the end, to be filled and then counted with
    /// [`Buffer::commit`]. The owner never asks for more than the limit allows.
    pub(crate) fn tail(&mut self, room: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < room {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let needed = self.end + room;
            assert!(needed <= self.limit, "a buffer's owner exceeded its limit");
            if self.bytes.len() < needed {
                let grown = needed.next_power_of_two().clamp(FIRST, self.limit.max(FIRST));
                self.bytes.resize(grown, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Counts `count` bytes of the tail as filled.
    pub(crate) fn commit(&mut self, count: usize) {
        assert!(self.end + count <= self.bytes.len(), "committed more than there was room for");
        self.end += count;
    }

    /// Free space to read into: all that is free, and twice as much as before if the last read
    /// used up everything. Empty only at the limit.
    pub(crate) fn read_room(&mut self) -> &mut [u8] {
        let free = self.bytes.len() - self.len();
        let room = if free == 0 { self.bytes.len().max(FIRST) } else { free };
        let room = room.min(self.limit - self.len());
        self.tail(room)
    }

    /// Reads once.
    pub(crate) fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let room = self.read_room();
        let count = source.read(room)?;
        self.commit(count);
        Ok(count)
    }

    /// Writes once.
    pub(crate) fn write_to(&mut self, sink: &mut impl Write) -> io::Result<usize> {
        let count = sink.write(self.filled())?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_queue_and_keeps_its_limit() {
        let mut buffer = Buffer::new(10_000);
        let mut written = 0u64;
        let mut read = 0u64;
        for step in [1usize, 4_000, 5_999, 3, 7_000, 1_000, 9_999] {
            while buffer.len() + step > 10_000 {
                let take = buffer.len().min(1 + step / 2);
                for byte in &buffer.filled()[..take] {
                    assert_eq!(*byte, read as u8);
                    read += 1;
                }
                buffer.consume(take);
            }
            let tail = buffer.tail(step);
            for byte in &mut tail[..step] {
                *byte = written as u8;
                written += 1;
            }
            buffer.commit(step);
            assert!(buffer.bytes.len() <= 10_000);
        }
        assert_eq!(buffer.len() as u64, written - read);
    }

    #[test]
    fn reading_grows_it_only_while_reads_fill_it() {
        let mut buffer = Buffer::new(16 << 10);
        let mut endless = io::repeat(7);
        while buffer.len() < 16 << 10 {
            assert!(buffer.read_from(&mut endless).expect("reads") > 0);
        }
        assert_eq!(buffer.read_from(&mut endless).expect("full"), 0);

        let mut quiet = Buffer::new(16 << 10);
        for _ in 0..100 {
            assert_eq!(quiet.read_from(&mut &b"abc"[..]).expect("reads"), 3);
            quiet.consume(3);
        }
        assert_eq!(quiet.bytes.len(), FIRST);
    }
}
