//! Modules by their BLAKE3 hash: written once, checked at each read.
//!
//! What it does not know: what is in them, who needs them.
//!
//! Invariant: what [`Blobs::get`] gives has the hash that was asked for. A damaged blob is moved
//! aside and reported, so that it is fetched from another node.
//!
//! Limit: [`BLOB_MAX`]. All calls block on the disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::folder::{DataFolder, make_folder, quarantine};
use crate::small;

/// Largest blob, in bytes.
pub const BLOB_MAX: u64 = 512 << 20;

/// The blobs of a data folder.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
    aside: PathBuf,
}

/// Why a blob can't be had.
#[derive(Debug)]
pub enum BlobError {
    /// The system refused.
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It was damaged, and has been moved aside: fetch it again.
    Damaged {
        /// Where it is now.
        moved_to: PathBuf,
    },
    /// It is longer than [`BLOB_MAX`].
    TooLong,
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobError::Io { file, cause } => write!(f, "{}: {cause}", file.display()),
            BlobError::Damaged { moved_to } => {
                write!(f, "a blob was damaged and is now {}", moved_to.display())
            }
            BlobError::TooLong => write!(f, "a blob has at most {} MiB", BLOB_MAX >> 20),
        }
    }
}

impl std::error::Error for BlobError {}

impl Blobs {
    /// The blobs of `folder`.
    pub fn of(folder: &DataFolder) -> Blobs {
        Blobs { folder: folder.blobs_path(), aside: folder.quarantine_path() }
    }

    /// Keeps `bytes`, and gives their hash. They are on the disk when this returns.
    pub fn put(&self, bytes: &[u8]) -> Result<[u8; 32], BlobError> {
        if bytes.len() as u64 > BLOB_MAX {
            return Err(BlobError::TooLong);
        }
        let hash = *blake3::hash(bytes).as_bytes();
        let file = self.place(&hash);
        let io_error = |cause| BlobError::Io { file: file.clone(), cause };
        // What is there is written anew only if it isn't what it should be.
        if fs::read(&file).is_ok_and(|old| old == bytes) {
            return Ok(hash);
        }
        make_folder(file.parent().expect("blobs are in folders")).map_err(io_error)?;
        small::replace(&file, bytes).map_err(io_error)?;
        Ok(hash)
    }

    /// The blob with this hash; `None` if it isn't here.
    pub fn get(&self, hash: &[u8; 32]) -> Result<Option<Vec<u8>>, BlobError> {
        let file = self.place(hash);
        let io_error = |cause| BlobError::Io { file: file.clone(), cause };
        let bytes = match read_bounded(&file) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io_error(cause)),
        };
        if blake3::hash(&bytes).as_bytes() == hash {
            return Ok(Some(bytes));
        }
        let moved_to = quarantine(&self.aside, &file).map_err(io_error)?;
        Err(BlobError::Damaged { moved_to })
    }

    /// Whether there is a blob of this name; it is checked only when it is read.
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.place(hash).is_file()
    }

    /// The hashes of all blobs, in their order. Other files are passed over.
    pub fn list(&self) -> Result<Vec<[u8; 32]>, BlobError> {
        let io_error = |cause| BlobError::Io { file: self.folder.clone(), cause };
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.folder).map_err(io_error)? {
            let folder = folder.map_err(io_error)?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder).map_err(io_error)? {
                let name = file.map_err(io_error)?.file_name();
                let hash = name.to_str().and_then(|name| blake3::Hash::from_hex(name).ok());
                found.extend(hash.map(|hash| *hash.as_bytes()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Deletes a blob; nothing happens if it isn't here.
    pub fn remove(&self, hash: &[u8; 32]) -> Result<(), BlobError> {
        let file = self.place(hash);
        match fs::remove_file(&file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(BlobError::Io { file, cause })
            }
            _ => Ok(()),
        }
    }

    fn place(&self, hash: &[u8; 32]) -> PathBuf {
        let name = blake3::Hash::from_bytes(*hash).to_hex();
        self.folder.join(&name[..2]).join(name.as_str())
    }
}

/// Reads a file that may have grown by damage: never more than can be right.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BLOB_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn blobs_come_back_by_their_hash() {
        let scratch = Scratch::new();
        let folder = DataFolder::open(scratch.path()).unwrap();
        let blobs = Blobs::of(&folder);
        let one = blobs.put(b"one").unwrap();
        assert_eq!(one, blobs.put(b"one").unwrap());
        let two = blobs.put(&vec![7; 100_000]).unwrap();
        assert_eq!(one, *blake3::hash(b"one").as_bytes());
        assert_eq!(blobs.get(&one).unwrap().unwrap(), b"one");
        let mut all = vec![one, two];
        all.sort();
        assert_eq!(blobs.list().unwrap(), all);
        blobs.remove(&one).unwrap();
        blobs.remove(&one).unwrap();
        assert_eq!(blobs.get(&one).unwrap(), None);
        assert!(!blobs.has(&one) && blobs.has(&two));
    }

    #[test]
    fn a_damaged_blob_is_moved_aside_and_can_be_put_again() {
        let scratch = Scratch::new();
        let folder = DataFolder::open(scratch.path()).unwrap();
        let blobs = Blobs::of(&folder);
        let hash = blobs.put(b"module").unwrap();
        fs::write(blobs.place(&hash), b"modulf").unwrap();
        let Err(BlobError::Damaged { moved_to }) = blobs.get(&hash) else {
            panic!("the damage was not seen");
        };
        assert_eq!(fs::read(moved_to).unwrap(), b"modulf");
        assert_eq!(blobs.get(&hash).unwrap(), None);
        assert_eq!(blobs.put(b"module").unwrap(), hash);
        // Putting mends damage that nobody has seen yet, too.
        fs::write(blobs.place(&hash), b"").unwrap();
        blobs.put(b"module").unwrap();
        assert_eq!(blobs.get(&hash).unwrap().unwrap(), b"module");
    }
}
