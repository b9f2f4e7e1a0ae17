//! A file of records that only grows: written in order, flushed in groups, checked when read.
//!
//! ```text
//! head    64 bytes   magic, format, purpose, checksum; then the mark and its checksum
//! record  56 bytes   magic, length, number, flushed, last, hash of the body, hash of this head
//!         body
//! record  ...
//! ```
//!
//! Records come in groups; the last of a group says so. A group that isn't whole is cut off when
//! the journal is opened: so what belongs together is there together or not at all.
//!
//! A crash may leave any part of what was not flushed: the file ends in the middle of a record,
//! or a later record is whole and an earlier one is not. That is normal: reading stops at the
//! first record that isn't whole, and the rest is cut off. Damage of what *was* flushed is not
//! normal, and must not be mistaken for it. So the file says what was flushed: each record names
//! the last number that had been flushed when it was written, and after each flush the same is
//! noted in the head (the *mark*; it reaches the disk with the next flush, or when the system
//! writes it back). A record that isn't whole, though something says that it had been flushed,
//! means damage.
//!
//! What it does not know: threads, what the records mean.
//!
//! Invariants
//! - Numbers grow by one from 1.
//! - Nothing is allocated because a length in the file says so: it is compared with what is left.
//! - After an error of the system the journal takes nothing more: what the file holds is unknown.

pub(crate) mod format;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::small::flush_folder;
use format::{FileHead, HEAD_BYTES, MARK_AT, RecordHead};

/// The number of the form in which journals are written.
pub const JOURNAL_FORMAT: u32 = 1;
/// Largest body of one record, in bytes. Larger things are written as several records.
pub const RECORD_MAX: usize = 256 << 20;

/// What a journal is for: one kind is never read as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Consensus,
    /// Of a service in a branch.
    State {
        service: u64,
        branch: [u8; 16],
    },
}

/// How the end of a journal was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Every byte belongs to a whole record.
    Whole,
    /// A crash left something that had never been flushed; it was cut off.
    Torn {
        /// How much was cut off.
        bytes: u64,
    },
}

/// Why a journal can't be opened. It was left as it is.
#[derive(Debug)]
pub enum JournalError {
    /// The system refused.
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Something that had been flushed isn't there any more, or is something else.
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where.
        at: u64,
        /// What was found, for people.
        what: &'static str,
    },
    /// A newer build wrote it.
    NewerFormat {
        /// Which file.
        file: PathBuf,
        /// Its format; this build knows [`JOURNAL_FORMAT`].
        found: u32,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { file, cause } => write!(f, "{}: {cause}", file.display()),
            JournalError::Damaged { file, at, what } => {
                write!(f, "{}: damaged at byte {at}: {what}", file.display())
            }
            JournalError::NewerFormat { file, found } => write!(
                f,
                "{}: has format {found}, this build reads up to {JOURNAL_FORMAT}: \
                 use a newer jizoku",
                file.display()
            ),
        }
    }
}

impl std::error::Error for JournalError {}

/// An open journal, ready for more.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    purpose: Purpose,
    /// Where the next record goes.
    end: u64,
    /// The next record's number.
    next: u64,
    /// The last number that is flushed.
    flushed: u64,
    broken: bool,
}

impl Journal {
    /// Makes an empty journal at `path`. It has its name only after [`Journal::put_in_place`].
    pub(crate) fn create(path: &Path, purpose: Purpose) -> io::Result<Journal> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(unfinished(path))?;
        let head = FileHead { format: JOURNAL_FORMAT, purpose, mark: Some(0) };
        file.write_all_at(&head.encode(), 0)?;
        Ok(Journal {
            file,
            path: path.to_owned(),
            purpose,
            end: HEAD_BYTES,
            next: 1,
            flushed: 0,
            broken: false,
        })
    }

    /// Flushes a fresh journal and puts it where it belongs, over the one that was there.
    pub(crate) fn put_in_place(&mut self) -> io::Result<()> {
        self.flush()?;
        fs::rename(unfinished(&self.path), &self.path)?;
        flush_folder(&self.path)
    }

    /// Opens what is at `path` and gives its records, without those of a group that isn't whole, to
    /// `visit`; `None` if there is nothing.
    ///
    /// When this fails, what `visit` was given must not be used.
    pub(crate) fn open(
        path: &Path,
        purpose: Purpose,
        visit: &mut dyn FnMut(Vec<u8>),
    ) -> Result<Option<(Journal, Tail)>, JournalError> {
        let io_error = |cause| JournalError::Io { file: path.to_owned(), cause };
        // A journal that was being made when the agent died has no say.
        match fs::remove_file(unfinished(path)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(io_error(cause)),
            _ => {}
        }
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io_error(cause)),
        };
        let scanned = scan::scan(&file, path, purpose, visit)?;
        let tail = if scanned.end == scanned.length {
            Tail::Whole
        } else {
            file.set_len(scanned.end).and_then(|()| file.sync_all()).map_err(io_error)?;
            Tail::Torn { bytes: scanned.length - scanned.end }
        };
        let mut journal = Journal {
            file,
            path: path.to_owned(),
            purpose,
            end: scanned.end,
            next: scanned.next,
            flushed: scanned.next - 1,
            broken: false,
        };
        journal.flush().map_err(io_error)?;
        Ok(Some((journal, tail)))
    }

    /// Adds records that belong together. They are safe after the next [`Journal::flush`].
    ///
    /// A group that did not fit on the disk leaves no trace. After any other error the journal is
    /// broken and takes nothing more.
    ///
    /// # Panics
    /// If a body is longer than [`RECORD_MAX`].
    pub(crate) fn append<B: AsRef<[u8]>>(&mut self, group: &[B]) -> io::Result<()> {
        self.refuse_broken()?;
        let before = (self.end, self.next);
        for (at, body) in group.iter().enumerate() {
            if let Err(cause) = self.append_one(body.as_ref(), at + 1 == group.len()) {
                (self.end, self.next) = before;
                let undone = self.file.set_len(self.end);
                let full = matches!(
                    cause.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                );
                self.broken = undone.is_err() || !full;
                return Err(cause);
            }
        }
        Ok(())
    }

    fn append_one(&mut self, body: &[u8], last: bool) -> io::Result<()> {
        assert!(body.len() <= RECORD_MAX, "larger things are written in parts");
        let head = RecordHead {
            length: u32::try_from(body.len()).expect("RECORD_MAX fits"),
            number: self.next,
            flushed: self.flushed,
            last,
            body_hash: format::hash16(body),
        };
        self.write_at_end(&head.encode(), body)?;
        self.end += head.whole_bytes();
        self.next += 1;
        Ok(())
    }

    fn write_at_end(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut slices = [IoSlice::new(head), IoSlice::new(body)];
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// After an error the system may have dropped what was not written, and says so only once:
    /// the journal is broken and takes nothing more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.refuse_broken()?;
        let mark = format::encode_mark(self.purpose, self.next - 1);
        let result = self.file.sync_data().and_then(|()| self.file.write_all_at(&mark, MARK_AT));
        self.broken = result.is_err();
        self.flushed = if self.broken { self.flushed } else { self.next - 1 };
        result
    }

    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    fn refuse_broken(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the journal is broken since an earlier error"));
        }
        Ok(())
    }
}

/// What a journal is called while it is being made.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}
