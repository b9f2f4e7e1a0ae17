//! The checkpoints of services that this node holds, each line of a service in its own journal.
//!
//! One thread writes for all. [`Urgency::Now`] is flushed at once, together with whatever else
//! came meanwhile; [`Urgency::Soon`] within [`FLUSH_WITHIN`]. A [rewrite](StateStore::rewrite)
//! replaces a line's journal by one that is made beside it, on a second thread; what is appended
//! meanwhile goes to both.
//!
//! What it does not know: what the entries mean, which make up a state; who is told.
//!
//! Invariants
//! - A journal has no gap: after a failed append everything for that line fails until a rewrite
//!   has succeeded. A line whose journal was damaged begins with a rewrite, too.
//! - What one call appends is there together or not at all.
//! - A token is reported exactly once. A good report means that what was appended, and all before
//!   it of the same line, is on the disk.
//! - After a crash a line's journal is a prefix of what was written, at least up to its last good
//!   report; or it is damaged, and then it is moved aside and reported, never used.
//! - With less room than the reserve only calls of at most [`SMALL_APPEND`] bytes are taken:
//!   seals and commits, which make others safe.
//!
//! Limits: [`QUEUE_MAX`] bytes wait to be written; an entry has at most [`RECORD_MAX`] bytes; a
//! rewrite is given up when more than [`LATER_MAX`] bytes are appended meanwhile.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jizoku_types::{BranchId, ByteCount, ServiceId};

use crate::folder::{DataFolder, quarantine};
use crate::journal::{Journal, JournalError, Purpose, RECORD_MAX, Tail};
use crate::room;

mod rewriter;
#[cfg(test)]
mod tests;
mod writer;

/// Most bytes that wait to be written, over all lines.
pub const QUEUE_MAX: ByteCount = ByteCount::gib(1);
/// Longest time before something [`Urgency::Soon`] is flushed. Half of the second that is
/// promised: the flush itself takes time too.
pub const FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// What is taken although the disk has no room, in bytes of one call.
pub const SMALL_APPEND: u64 = 4096;
/// Most bytes that are kept for a journal while it is being made anew.
pub const LATER_MAX: ByteCount = ByteCount::mib(256);

/// One service in one branch: what is kept apart from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Which service.
    pub service: ServiceId,
    /// In which branch.
    pub branch: BranchId,
}

impl Line {
    fn purpose(self) -> Purpose {
        Purpose::State { service: self.service.0, branch: self.branch.0 }
    }

    pub(crate) fn folder_name(self) -> String {
        if self.branch == BranchId::MAIN {
            return self.service.to_string();
        }
        let hex: String = self.branch.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}.br_{hex}", self.service)
    }

    pub(crate) fn of_folder_name(name: &str) -> Option<Line> {
        let (service, branch) = match name.split_once(".br_") {
            None => (name, BranchId::MAIN),
            Some((service, hex)) => (service, BranchId(branch_bytes(hex)?)),
        };
        let service = ServiceId(service.strip_prefix("svc_")?.parse().ok()?);
        // Only the one way in which it is written: no `svc_07`, no `svc_+7`.
        Some(Line { service, branch }).filter(|line| line.folder_name() == name)
    }
}

fn branch_bytes(hex: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(hex, 16).ok()?;
    Some(number.to_be_bytes())
}

/// How soon something has to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At once: somebody waits for it (`durable = "disk"`, seals).
    Now,
    /// Within a second (`durable = "memory"`).
    Soon,
}

/// Gives the entries of a rewrite, in their order, and passes on the first error that it gets
/// back. It is called on a thread of the store, and may take its time.
pub type Source = Box<dyn FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> + Send>;

/// Why a call was refused at once. Nothing was taken, and its token isn't reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The disk has less room than the reserve.
    NoRoom,
    /// More than [`QUEUE_MAX`] wait.
    Behind,
    /// The writer has ended.
    Stopped,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NoRoom => "the disk has no room",
            Refused::Behind => "the disk is behind",
            Refused::Stopped => "the store is closed",
        })
    }
}

impl std::error::Error for Refused {}

/// Why something that was taken is not on the disk. Unless it is a rewrite, which left everything
/// as it was, the line needs a rewrite now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The disk is full.
    NoRoom,
    /// Something earlier isn't on the disk: a gap would follow.
    Gap,
    /// More was appended than the rewrite could keep up with.
    Behind,
    /// The system refused; what it said.
    Failed(String),
    /// The store was closed before.
    Stopped,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::NoRoom => f.write_str("the disk is full"),
            WriteError::Gap => f.write_str("something earlier could not be written"),
            WriteError::Behind => f.write_str("the disk is too slow for this service"),
            WriteError::Failed(what) => write!(f, "the disk refused: {what}"),
            WriteError::Stopped => f.write_str("the store was closed"),
        }
    }
}

impl std::error::Error for WriteError {}

/// A call has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDone {
    /// For which line.
    pub line: Line,
    /// As given with the call.
    pub token: u64,
    /// The length of the line's journal now, or why it isn't on the disk.
    pub result: Result<ByteCount, WriteError>,
}

/// What is read when the store is opened: of each line its entries, then its end.
#[derive(Debug)]
pub enum Found {
    /// The next entry.
    Entry(Vec<u8>),
    /// The line's last one was given.
    End(Verdict),
}

/// What became of a line's journal.
#[derive(Debug)]
pub enum Verdict {
    /// Its entries are whole, and more can follow.
    Good {
        /// Whether a crash left something at the end that had never been flushed.
        tail: Tail,
    },
    /// It was damaged. The entries before the damage were given, but others that had been flushed
    /// are missing. The line begins with a rewrite, or is removed.
    Damaged {
        /// What was found, for people.
        what: String,
        /// Where it is now; none: it could not be moved, and stays until the rewrite.
        moved_to: Option<PathBuf>,
    },
    /// It was written by a newer build, and is left alone: everything but a removal fails.
    Newer {
        /// What was found, for people.
        what: String,
    },
}

/// How a store works.
pub struct StateOptions {
    /// With less free room than this, only small calls are taken.
    pub reserve: ByteCount,
    /// How long something [`Urgency::Soon`] may wait.
    pub flush_within: Duration,
    /// How much room there is; asked about once a second.
    pub room: Box<dyn Fn() -> io::Result<ByteCount> + Send>,
}

impl StateOptions {
    /// For `folder`, with so much room to be left free.
    pub fn new(folder: &DataFolder, reserve: ByteCount) -> StateOptions {
        let path = folder.state_path();
        let room = Box::new(move || room::free_at(&path));
        StateOptions { reserve, flush_within: FLUSH_WITHIN, room }
    }
}

/// The open store. Dropping it flushes what waits, and ends its threads.
#[derive(Debug)]
pub struct StateStore {
    calls: Sender<Call>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the writer both see.
#[derive(Debug)]
struct Shared {
    /// Bytes that wait to be written.
    waiting: AtomicU64,
    has_room: AtomicBool,
}

/// What the writer is told.
enum Call {
    Append {
        line: Line,
        token: u64,
        entries: Vec<Vec<u8>>,
        urgency: Urgency,
        bytes: u64,
    },
    Rewrite {
        line: Line,
        token: u64,
        source: Source,
    },
    Remove {
        line: Line,
        token: u64,
    },
    /// By the rewriter: a journal is made, but not in place.
    Rewritten {
        line: Line,
        number: u64,
        result: io::Result<Journal>,
    },
    /// The store is being dropped.
    Stop,
}

impl StateStore {
    /// Opens the store. `found` gets what is on the disk, line by line. `done` is called on the
    /// writer's thread, and must not wait for anything.
    ///
    /// An error means that the folder itself can't be read; a damaged line is a [`Verdict`].
    pub fn open(
        folder: &DataFolder,
        options: StateOptions,
        found: &mut dyn FnMut(Line, Found),
        done: impl Fn(StateDone) + Send + 'static,
    ) -> io::Result<StateStore> {
        let place = Place { state: folder.state_path(), aside: folder.quarantine_path() };
        let mut lines = Vec::new();
        for line in place.lines()? {
            let (verdict, journal) =
                place.load(line, &mut |entry| found(line, Found::Entry(entry)));
            let newer = matches!(verdict, Verdict::Newer { .. });
            let gap = matches!(verdict, Verdict::Damaged { .. });
            lines.push((line, journal, gap, newer));
            found(line, Found::End(verdict));
        }
        let shared =
            Arc::new(Shared { waiting: AtomicU64::new(0), has_room: AtomicBool::new(true) });
        let (calls, receiver) = channel();
        let rewriter = rewriter::Rewriter::start(calls.clone())?;
        let mut writer =
            writer::Writer::new(place, options, shared.clone(), Box::new(done), rewriter, lines);
        writer.look_for_room();
        let thread = std::thread::Builder::new()
            .name("state-store".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(StateStore { calls, shared, thread: Some(thread) })
    }

    /// Adds entries to a line's journal, which is made if there is none. They are there together
    /// or not at all.
    ///
    /// # Panics
    /// If an entry is longer than [`RECORD_MAX`].
    pub fn append(
        &self,
        line: Line,
        token: u64,
        entries: Vec<Vec<u8>>,
        urgency: Urgency,
    ) -> Result<(), Refused> {
        assert!(entries.iter().all(|entry| entry.len() <= RECORD_MAX), "an entry is bounded");
        let bytes = entries.iter().map(|entry| entry.len() as u64).sum();
        if bytes > SMALL_APPEND && !self.has_room() {
            return Err(Refused::NoRoom);
        }
        let before = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        // One call may be larger than the limit; it only must not wait behind others.
        let sent = if before > 0 && before + bytes > QUEUE_MAX.0 {
            Err(Refused::Behind)
        } else {
            self.call(Call::Append { line, token, entries, urgency, bytes })
        };
        if sent.is_err() {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }

    /// Replaces a line's journal by these entries: all that is needed as of this call. After a
    /// crash there is all of the old or all of the new. A rewrite of the same line that is still
    /// under way is replaced by the newer one, and reported with it.
    ///
    /// The source panics if it gives an entry that is longer than [`RECORD_MAX`].
    pub fn rewrite(&self, line: Line, token: u64, source: Source) -> Result<(), Refused> {
        if !self.has_room() {
            return Err(Refused::NoRoom);
        }
        self.call(Call::Rewrite { line, token, source })
    }

    /// Forgets a line.
    pub fn remove(&self, line: Line, token: u64) -> Result<(), Refused> {
        self.call(Call::Remove { line, token })
    }

    /// Whether there is more room than the reserve, as of the last look.
    pub fn has_room(&self) -> bool {
        self.shared.has_room.load(Ordering::Relaxed)
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> ByteCount {
        ByteCount(self.shared.waiting.load(Ordering::Relaxed))
    }

    fn call(&self, call: Call) -> Result<(), Refused> {
        self.calls.send(call).map_err(|_| Refused::Stopped)
    }
}

impl Drop for StateStore {
    fn drop(&mut self) {
        // If the writer is gone already there is nobody to tell.
        let _ = self.calls.send(Call::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was printed by its thread; here nothing is left to do.
            let _ = thread.join();
        }
    }
}

/// Where the journals are.
struct Place {
    state: PathBuf,
    aside: PathBuf,
}

impl Place {
    fn folder(&self, line: Line) -> PathBuf {
        self.state.join(line.folder_name())
    }

    fn journal(&self, line: Line) -> PathBuf {
        self.folder(line).join("journal")
    }

    /// The lines that have a folder, in their order. Other names are passed over.
    fn lines(&self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(&self.state)? {
            let name = entry?.file_name();
            lines.extend(name.to_str().and_then(Line::of_folder_name));
        }
        lines.sort();
        Ok(lines)
    }

    fn load(&self, line: Line, visit: &mut dyn FnMut(Vec<u8>)) -> (Verdict, Option<Journal>) {
        match Journal::open(&self.journal(line), line.purpose(), visit) {
            Ok(Some((journal, tail))) => (Verdict::Good { tail }, Some(journal)),
            Ok(None) => (Verdict::Good { tail: Tail::Whole }, None),
            Err(error @ JournalError::NewerFormat { .. }) => {
                (Verdict::Newer { what: error.to_string() }, None)
            }
            Err(error) => {
                let moved_to = quarantine(&self.aside, &self.folder(line)).ok();
                (Verdict::Damaged { what: error.to_string(), moved_to }, None)
            }
        }
    }
}
