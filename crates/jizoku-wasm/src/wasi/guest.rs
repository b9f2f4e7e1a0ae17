//! The program's memory as its host calls see it: every pointer is checked.
//!
//! Invariant: no pointer or length that the program passes makes anything here panic; what lies
//! outside of the memory is `FAULT`.

use super::errno::Errno;

/// Buffers of one vectored read or write at most; further ones are left for the next call.
const BUFFERS_MAX: u32 = 1024;

/// Bytes of one vectored read or write at most: the buffers may lie over each other, so that the
/// size of the memory does not bound it.
const BYTES_MAX: u64 = i32::MAX as u64;

/// A pointer as the program passes it.
pub(crate) type Pointer = u32;

/// The program's linear memory.
pub(crate) struct Guest<'m>(pub(crate) &'m mut [u8]);

/// Part of the memory, already checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    start: usize,
    length: usize,
}

impl Guest<'_> {
    pub(crate) fn slice(&self, pointer: Pointer, length: u32) -> Result<Slice, Errno> {
        let (start, length) = (pointer as usize, length as usize);
        match start.checked_add(length) {
            Some(end) if end <= self.0.len() => Ok(Slice { start, length }),
            _ => Err(Errno::FAULT),
        }
    }

    pub(crate) fn bytes(&self, slice: Slice) -> &[u8] {
        &self.0[slice.start..slice.start + slice.length]
    }

    pub(crate) fn bytes_mut(&mut self, slice: Slice) -> &mut [u8] {
        &mut self.0[slice.start..slice.start + slice.length]
    }

    pub(crate) fn text(&self, pointer: Pointer, length: u32) -> Result<&str, Errno> {
        let slice = self.slice(pointer, length)?;
        std::str::from_utf8(self.bytes(slice)).map_err(|_| Errno::ILSEQ)
    }

    pub(crate) fn read<const N: usize>(&self, pointer: Pointer) -> Result<[u8; N], Errno> {
        let slice = self.slice(pointer, N as u32)?;
        Ok(self.bytes(slice).try_into().expect("the slice has N bytes"))
    }

    pub(crate) fn write(&mut self, pointer: Pointer, bytes: &[u8]) -> Result<(), Errno> {
        let slice = self.slice(pointer, u32::try_from(bytes.len()).map_err(|_| Errno::FAULT)?)?;
        self.bytes_mut(slice).copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn set_u32(&mut self, pointer: Pointer, value: u32) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    pub(crate) fn set_u64(&mut self, pointer: Pointer, value: u64) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    /// The buffers that an array of (pointer, length) names, those without length left out.
    pub(crate) fn buffers(&self, array: Pointer, count: u32) -> Result<Vec<Slice>, Errno> {
        let mut buffers = Vec::with_capacity(count.min(16) as usize);
        let mut total = 0u64;
        for at in 0..count.min(BUFFERS_MAX) {
            let entry: [u8; 8] = self.read(array.checked_add(at * 8).ok_or(Errno::FAULT)?)?;
            let entry = u64::from_le_bytes(entry);
            let slice = self.slice(entry as u32, (entry >> 32) as u32)?;
            total += slice.length as u64;
            if total > BYTES_MAX {
                return Err(Errno::INVAL);
            }
            if slice.length > 0 {
                buffers.push(slice);
            }
        }
        Ok(buffers)
    }
}
