//! Reading a journal from its beginning, and judging what is wrong with its end.
//!
//! What it does not know: how the file is written; what is done about damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{FileHead, HEAD_BYTES, HeadError, RECORD_HEAD, RECORD_MAGIC, RecordHead};
use super::{JOURNAL_FORMAT, JournalError, Purpose, RECORD_MAX, format};

/// How much is read at once while looking for later records.
const WINDOW: usize = 1 << 20;

/// A journal that may be continued.
pub(super) struct Scanned {
    /// Where its last whole group ends.
    pub(super) end: u64,
    /// The file's length; more than `end` if the tail is torn.
    pub(super) length: u64,
    /// The number of the next record.
    pub(super) next: u64,
}

/// Gives the bodies of each whole group to `visit`, in their order.
pub(super) fn scan(
    file: &File,
    path: &Path,
    purpose: Purpose,
    visit: &mut dyn FnMut(Vec<u8>),
) -> Result<Scanned, JournalError> {
    let io_error = |cause| JournalError::Io { file: path.to_owned(), cause };
    let damaged = |at, what| JournalError::Damaged { file: path.to_owned(), at, what };
    let length = file.metadata().map_err(io_error)?.len();
    let mark = read_head(file, path, purpose, length)?;
    let mut whole = Scanned { end: HEAD_BYTES, length, next: 1 };
    let (mut end, mut next) = (whole.end, whole.next);
    let mut group = Vec::new();
    while let Some((head, body)) = read_record(file, end, length, next).map_err(io_error)? {
        group.push(body);
        end += head.whole_bytes();
        next += 1;
        if head.last {
            group.drain(..).for_each(&mut *visit);
            whole = Scanned { end, length, next };
        }
    }
    // Everything from `end` on is not whole. Was it ever?
    let mut flushed = mark;
    if end < length {
        flushed = flushed.max(flushed_after(file, end, length).map_err(io_error)?);
    }
    if flushed >= next {
        return Err(damaged(end, "a record that had been flushed is missing or changed"));
    }
    Ok(whole)
}

/// Checks the file's head, and gives its mark.
fn read_head(file: &File, path: &Path, purpose: Purpose, length: u64) -> Result<u64, JournalError> {
    let io_error = |cause| JournalError::Io { file: path.to_owned(), cause };
    let damaged = |what| JournalError::Damaged { file: path.to_owned(), at: 0, what };
    if length < HEAD_BYTES {
        return Err(damaged("the file is too short"));
    }
    let mut head = [0; HEAD_BYTES as usize];
    file.read_exact_at(&mut head, 0).map_err(io_error)?;
    match FileHead::decode(&head, purpose, JOURNAL_FORMAT) {
        Ok(head) => Ok(head.mark.unwrap_or(0)),
        Err(HeadError::Damaged) => Err(damaged("the head's checksum doesn't fit")),
        Err(HeadError::OtherPurpose) => Err(damaged("it is the journal of another")),
        Err(HeadError::NewerFormat(found)) => {
            Err(JournalError::NewerFormat { file: path.to_owned(), found })
        }
    }
}

/// The whole record with this number at this place, if there is one.
fn read_record(
    file: &File,
    at: u64,
    length: u64,
    number: u64,
) -> io::Result<Option<(RecordHead, Vec<u8>)>> {
    if length - at < RECORD_HEAD as u64 {
        return Ok(None);
    }
    let mut head = [0; RECORD_HEAD];
    file.read_exact_at(&mut head, at)?;
    let Some(head) = RecordHead::decode(&head) else { return Ok(None) };
    let fits = head.whole_bytes() <= length - at && head.length as usize <= RECORD_MAX;
    if head.number != number || !fits {
        return Ok(None);
    }
    let mut body = vec![0; head.length as usize];
    file.read_exact_at(&mut body, at + RECORD_HEAD as u64)?;
    Ok((format::hash16(&body) == head.body_hash).then_some((head, body)))
}

/// The highest number that any record from `start` on calls flushed.
fn flushed_after(file: &File, start: u64, length: u64) -> io::Result<u64> {
    let mut highest = 0;
    let mut at = start;
    let mut window = Vec::new();
    while length - at >= RECORD_HEAD as u64 {
        let size = usize::try_from(length - at).unwrap_or(WINDOW).min(WINDOW);
        window.resize(size, 0);
        file.read_exact_at(&mut window, at)?;
        for place in 0..=size - RECORD_HEAD {
            if window[place..place + 4] != RECORD_MAGIC {
                continue;
            }
            let head = window[place..place + RECORD_HEAD].try_into().expect("in the window");
            if let Some(head) = RecordHead::decode(head) {
                highest = highest.max(head.flushed);
            }
        }
        // The next window begins with what was too short for a head at the end of this one.
        at += (size - RECORD_HEAD + 1) as u64;
    }
    Ok(highest)
}
