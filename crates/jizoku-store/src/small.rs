//! Small files that are replaced as a whole, with a checksum: the old one or the new one, never
//! a mix.
//!
//! What it does not know: what is in them.
//!
//! Invariants
//! - A write is: new file, flush, rename over the old one, flush of the folder.
//! - A file that reads well is exactly what was written last, or before it if that write was
//!   interrupted.
//!
//! Limit: [`SMALL_MAX`].

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest content, in bytes.
pub const SMALL_MAX: usize = 1 << 20;
/// The number of the form in which small files are written.
pub const SMALL_FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"jzksmall";
/// Magic, format, length, hash.
const HEAD: usize = 8 + 4 + 4 + 32;

/// Why a small file can't be read. It was left as it is.
#[derive(Debug)]
pub enum SmallError {
    /// The system refused.
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Its content isn't what was written.
    Damaged {
        /// Which file.
        file: PathBuf,
    },
    /// A newer build wrote it.
    NewerFormat {
        /// Which file.
        file: PathBuf,
        /// Its format; this build knows [`SMALL_FORMAT`].
        found: u32,
    },
}

impl fmt::Display for SmallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SmallError::Io { file, cause } => write!(f, "{}: {cause}", file.display()),
            SmallError::Damaged { file } => {
                write!(f, "{}: damaged: its checksum doesn't fit", file.display())
            }
            SmallError::NewerFormat { file, found } => write!(
                f,
                "{}: has format {found}, this build reads up to {SMALL_FORMAT}: use a newer jizoku",
                file.display()
            ),
        }
    }
}

impl std::error::Error for SmallError {}

/// Replaces the file by `content`, with a head that lets [`read`] check it.
///
/// # Panics
/// If `content` is longer than [`SMALL_MAX`].
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    assert!(content.len() <= SMALL_MAX, "a small file is small");
    let mut bytes = Vec::with_capacity(HEAD + content.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&SMALL_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(content.len()).expect("small").to_le_bytes());
    bytes.extend_from_slice(blake3::hash(content).as_bytes());
    bytes.extend_from_slice(content);
    replace(path, &bytes)
}

/// Reads what [`write`] wrote; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, SmallError> {
    let file = || path.to_owned();
    let mut bytes = Vec::new();
    let limit = (HEAD + SMALL_MAX + 1) as u64;
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(SmallError::Io { file: file(), cause }),
    }
    let damaged = || SmallError::Damaged { file: file() };
    let rest = bytes.strip_prefix(&MAGIC).ok_or_else(damaged)?;
    let (format, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let format = u32::from_le_bytes(*format);
    if format > SMALL_FORMAT {
        return Err(SmallError::NewerFormat { file: file(), found: format });
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (hash, content) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    let whole = u32::from_le_bytes(*length) as usize == content.len();
    if format != SMALL_FORMAT || !whole || blake3::hash(content) != *hash {
        return Err(damaged());
    }
    Ok(Some(content.to_vec()))
}

/// Replaces a file by `bytes` as they are: for files that people read and write too.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_of(path);
    let result = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(cause) = result {
        // What was written so far helps nobody; the old file is untouched.
        let _ = fs::remove_file(&temporary);
        return Err(cause);
    }
    flush_folder(path)
}

/// Flushes the folder that `path` is in, so that its name is there after a crash.
pub(crate) fn flush_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Beside the file, so that the rename stays on one file system. The folder's lock makes sure
/// that nobody else uses the name.
fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().expect("a file has a name").to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_written_last_is_read() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        assert!(matches!(read(&path), Ok(None)));
        for content in [&b"first"[..], b"", &[7; SMALL_MAX]] {
            write(&path, content).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_interrupted_write_leaves_the_old_file() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        write(&path, b"old").unwrap();
        // A crash before the rename leaves any part of the new file under its temporary name.
        fs::write(temporary_of(&path), b"jzk").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"new");
        assert!(!temporary_of(&path).exists());
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        write(&path, b"old").unwrap();
        fs::create_dir(temporary_of(&path)).unwrap();
        assert!(write(&path, b"new").is_err());
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        write(&path, b"content").unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            match read(&path) {
                Err(SmallError::Damaged { .. }) => {}
                // A flipped bit of the format's number looks like a newer format.
                Err(SmallError::NewerFormat { .. }) => assert!((64..96).contains(&at)),
                other => panic!("bit {at}: {other:?}"),
            }
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(read(&path), Err(SmallError::Damaged { .. })), "{length}");
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert!(matches!(read(&path), Err(SmallError::Damaged { .. })));
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        write(&path, b"content").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        fs::write(&path, &bytes).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.ends_with("has format 9, this build reads up to 1: use a newer jizoku"));
    }
}
