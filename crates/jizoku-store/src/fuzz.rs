//! Journals and small files that somebody damaged, for the fuzzer.
//!
//! Checksums keep random bytes from getting far, so the input is a list of steps: what is written,
//! what is flushed, and what is then changed. What must hold is what [`crate::journal`] promises.
//!
//! What it does not know: who drives it.

use std::fs;
use std::path::{Path, PathBuf};

use jizoku_types::{BranchId, ServiceId};

use crate::journal::format::{FileHead, HEAD_BYTES, MARK_AT, RecordHead, hash16};
use crate::journal::{JOURNAL_FORMAT, Journal, JournalError, Purpose};
use crate::small;
use crate::state::Line;

const PURPOSE: Purpose = Purpose::State { service: 7, branch: [0; 16] };

/// Where files lie: one folder for each process, in memory if there is such a place.
fn place(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("jizoku-store-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder.join(name)
}

/// Takes what it needs off the front; zeros when there is no more.
struct Steps<'d>(&'d [u8]);

impl<'d> Steps<'d> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    fn long(&mut self) -> u64 {
        // Small numbers are the likely ones; the largest are near.
        match self.byte() {
            byte @ 0..250 => u64::from(byte),
            byte => u64::MAX - u64::from(255 - byte),
        }
    }

    fn bytes(&mut self, length: usize) -> &'d [u8] {
        let (some, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        some
    }
}

type Read = Result<(Vec<Vec<u8>>, Journal), JournalError>;

fn open(path: &Path) -> Read {
    let mut found = Vec::new();
    let mut visit = |body| found.push(body);
    let opened = Journal::open(path, PURPOSE, &mut visit)?;
    Ok((found, opened.expect("the file is there").0))
}

/// A journal that is written, flushed, and then changed by somebody.
pub fn journal(data: &[u8]) {
    let path = place("journal");
    let mut steps = Steps(data);
    let mut journal = Journal::create(&path, PURPOSE).expect("a file");
    journal.put_in_place().expect("a file");
    let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
    let (mut flushed, mut flushed_end) = (0, HEAD_BYTES as usize);
    for _ in 0..steps.byte() % 12 {
        let count = steps.byte();
        if count % 5 == 0 {
            journal.flush().expect("a flush");
            (flushed, flushed_end) = (groups.len(), journal.bytes() as usize);
            continue;
        }
        let group: Vec<Vec<u8>> = (0..count % 5)
            .map(|_| {
                let length = usize::from(steps.byte() % 64);
                steps.bytes(length).to_vec()
            })
            .collect();
        journal.append(&group).expect("room");
        groups.push(group);
    }
    drop(journal);
    let good = fs::read(&path).expect("it was written");
    let mut bad = good.clone();
    while !steps.0.is_empty() {
        damage(&mut steps, &mut bad);
    }
    fs::write(&path, &bad).expect("room");
    judge(&path, &groups, flushed, &good, &bad, flushed_end);
}

/// Changes the file as a disk, a crash or a person might.
fn damage(steps: &mut Steps<'_>, file: &mut Vec<u8>) {
    let (what, at) = (steps.byte(), steps.short() % (file.len() + 1));
    let end = (at + usize::from(steps.byte())).min(file.len());
    match what % 5 {
        0 => file.truncate(at),
        1 => file[at..end].fill(0),
        2 => file[at..end].iter_mut().for_each(|byte| *byte ^= what | 1),
        3 => file.extend_from_within(at..end),
        _ => {
            let some = steps.bytes(end - at);
            file[at..at + some.len()].copy_from_slice(some);
        }
    }
}

fn judge(
    path: &Path,
    groups: &[Vec<Vec<u8>>],
    flushed: usize,
    good: &[u8],
    bad: &[u8],
    flushed_end: usize,
) {
    let mark = MARK_AT as usize..HEAD_BYTES as usize;
    let same = |range: std::ops::Range<usize>| bad.get(range.clone()) == good.get(range);
    let whole = same(0..mark.start) && same(mark.end..flushed_end) && bad.len() >= mark.end;
    let prefix =
        |found: &[Vec<u8>]| (0..=groups.len()).find(|&count| groups[..count].concat() == found);
    match open(path) {
        Ok((found, mut journal)) => {
            let count = prefix(&found).expect("what is read is what was written, up to somewhere");
            // A record that was flushed is missing only if the mark that says so is gone too.
            assert!(count >= flushed || !same(mark), "flushed records are missing unnoticed");
            assert!(count >= flushed || !whole, "what was flushed is there, and isn't read");
            journal.append(&[&b"more"[..], b"and"]).expect("room");
            journal.flush().expect("a flush");
            let (again, _) = open(path).expect("it was just mended");
            assert_eq!(again[..found.len()], found[..]);
            assert_eq!(again[found.len()..], [b"more".to_vec(), b"and".to_vec()]);
        }
        Err(JournalError::Io { cause, .. }) => panic!("{cause}"),
        Err(error) => assert!(!whole, "nothing that was flushed was touched: {error}"),
    }
}

/// A journal whose checksums are all right, and whose numbers are whatever somebody likes.
pub fn forged(data: &[u8]) {
    let path = place("forged");
    let mut steps = Steps(data);
    let head = FileHead { format: JOURNAL_FORMAT, purpose: PURPOSE, mark: Some(steps.long()) };
    let mut file = head.encode().to_vec();
    while !steps.0.is_empty() {
        let (number, flushed, last) = (steps.long(), steps.long(), steps.byte() % 2 == 0);
        let (lie, length) = (steps.byte(), usize::from(steps.byte()));
        let body = steps.bytes(length);
        let length = match lie {
            0..200 => body.len() as u32,
            lie => u32::MAX >> ((255 - lie) / 2),
        };
        let head = RecordHead { length, number, flushed, last, body_hash: hash16(body) };
        file.extend_from_slice(&head.encode());
        file.extend_from_slice(body);
    }
    fs::write(&path, &file).expect("room");
    if let Ok((found, journal)) = open(&path) {
        assert!(found.iter().map(Vec::len).sum::<usize>() <= file.len());
        assert!(journal.bytes() <= file.len() as u64);
        drop(journal);
        let (again, _) = open(&path).expect("it was just mended");
        assert_eq!(again, found);
    }
}

/// A small file that somebody changed; and names of folders.
pub fn small_file(data: &[u8]) {
    let path = place("small");
    let mut steps = Steps(data);
    let length = steps.short() % 600;
    let content = steps.bytes(length);
    small::write(&path, content).expect("room");
    let good = fs::read(&path).expect("it was written");
    let mut bad = good.clone();
    while !steps.0.is_empty() {
        damage(&mut steps, &mut bad);
    }
    fs::write(&path, &bad).expect("room");
    match small::read(&path) {
        Ok(read) => assert!(read.as_deref() == Some(content) && bad == good),
        Err(error) => assert!(bad != good && !error.to_string().is_empty()),
    }
}

/// The name of a line's folder.
pub fn folder_name(data: &[u8]) {
    let Ok(name) = str::from_utf8(data) else { return };
    if let Some(line) = Line::of_folder_name(name) {
        assert_eq!(line.folder_name(), name);
    }
    let mut number = [0; 24];
    let some = data.len().min(24);
    number[..some].copy_from_slice(&data[..some]);
    let (service, branch) = number.split_first_chunk::<8>().expect("24 bytes");
    let service = ServiceId(u64::from_le_bytes(*service));
    let branch = BranchId(branch.try_into().expect("16 bytes"));
    let line = Line { service, branch };
    assert_eq!(Line::of_folder_name(&line.folder_name()), Some(line));
}
