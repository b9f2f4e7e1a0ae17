//! The bytes of a journal's head and of a record's head.
//!
//! What it does not know: files.
//!
//! Invariant: decoding takes any bytes; it gives a value only for bytes that encoding made.
//! Numbers are little-endian.

use super::Purpose;

/// Length of the file's head.
pub(crate) const HEAD_BYTES: u64 = 64;
/// Length of a record's head.
pub(crate) const RECORD_HEAD: usize = 56;
/// Where in the file's head the mark and its checksum stand.
pub(crate) const MARK_AT: u64 = 48;
/// The first bytes of each record.
pub(crate) const RECORD_MAGIC: [u8; 4] = [0x9d, b'r', b'e', b'c'];

const FILE_MAGIC: [u8; 8] = *b"jzkjrnl\n";

/// What stands at the beginning of a file.
pub(crate) struct FileHead {
    pub(crate) format: u32,
    pub(crate) purpose: Purpose,
    /// The last number known to be flushed; none if its checksum doesn't fit.
    pub(crate) mark: Option<u64>,
}

/// What may be wrong with a file's head.
pub(crate) enum HeadError {
    Damaged,
    OtherPurpose,
    NewerFormat(u32),
}

impl FileHead {
    pub(crate) fn encode(&self) -> [u8; HEAD_BYTES as usize] {
        let mut bytes = [0; HEAD_BYTES as usize];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[12..40].copy_from_slice(&self.purpose.encode());
        let check = hash8(&bytes[..40]);
        bytes[40..48].copy_from_slice(&check);
        bytes[48..].copy_from_slice(&encode_mark(self.purpose, self.mark.unwrap_or(0)));
        bytes
    }

    /// Reads the head of a journal for `purpose`.
    pub(crate) fn decode(
        bytes: &[u8; HEAD_BYTES as usize],
        purpose: Purpose,
        known: u32,
    ) -> Result<FileHead, HeadError> {
        if bytes[..8] != FILE_MAGIC {
            return Err(HeadError::Damaged);
        }
        let format = u32_at(bytes, 8);
        if hash8(&bytes[..40]) != bytes[40..48] {
            // A newer form may have its checksum elsewhere.
            let newer = HeadError::NewerFormat(format);
            return Err(if format > known { newer } else { HeadError::Damaged });
        }
        if format != known {
            return Err(HeadError::NewerFormat(format));
        }
        if bytes[12..40] != purpose.encode() {
            return Err(HeadError::OtherPurpose);
        }
        let mark = u64_at(bytes, 48);
        let whole = encode_mark(purpose, mark) == bytes[48..];
        Ok(FileHead { format, purpose, mark: whole.then_some(mark) })
    }
}

impl Purpose {
    /// What it is, and whose.
    fn encode(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        match self {
            Purpose::Consensus => bytes[0] = 1,
            Purpose::State { service, branch } => {
                bytes[0] = 2;
                bytes[4..12].copy_from_slice(&service.to_le_bytes());
                bytes[12..].copy_from_slice(&branch);
            }
        }
        bytes
    }
}

/// The mark and its checksum, which also covers whose file it is.
pub(crate) fn encode_mark(purpose: Purpose, mark: u64) -> [u8; 16] {
    let mut hashed = [0; 36];
    hashed[..28].copy_from_slice(&purpose.encode());
    hashed[28..].copy_from_slice(&mark.to_le_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mark.to_le_bytes());
    bytes[8..].copy_from_slice(&hash8(&hashed));
    bytes
}

/// What stands before each record's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) length: u32,
    pub(crate) number: u64,
    /// The last number that had been flushed when this was written.
    pub(crate) flushed: u64,
    /// Whether its group ends with it.
    pub(crate) last: bool,
    pub(crate) body_hash: [u8; 16],
}

impl RecordHead {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEAD] {
        let mut bytes = [0; RECORD_HEAD];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.flushed.to_le_bytes());
        bytes[24] = u8::from(self.last);
        bytes[32..48].copy_from_slice(&self.body_hash);
        let check = hash8(&bytes[..48]);
        bytes[48..].copy_from_slice(&check);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; RECORD_HEAD]) -> Option<RecordHead> {
        if bytes[..4] != RECORD_MAGIC || hash8(&bytes[..48]) != bytes[48..] {
            return None;
        }
        Some(RecordHead {
            length: u32_at(bytes, 4),
            number: u64_at(bytes, 8),
            flushed: u64_at(bytes, 16),
            last: bytes[24] != 0,
            body_hash: bytes[32..48].try_into().expect("16 bytes"),
        })
    }

    /// Length of the record with its body.
    pub(crate) fn whole_bytes(&self) -> u64 {
        RECORD_HEAD as u64 + u64::from(self.length)
    }
}

/// The first 16 bytes of the BLAKE3 hash: damage is found, nobody is kept from forging.
pub(crate) fn hash16(bytes: &[u8]) -> [u8; 16] {
    blake3::hash(bytes).as_bytes()[..16].try_into().expect("a hash has 32 bytes")
}

fn hash8(bytes: &[u8]) -> [u8; 8] {
    blake3::hash(bytes).as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
