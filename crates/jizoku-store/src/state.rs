//! The checkpoints of services that this node holds, each service in a journal of its own.
//!
//! One thread writes for all services. [`Urgency::Now`] is flushed at once, together with
//! whatever else came meanwhile; [`Urgency::Soon`] within [`FLUSH_WITHIN`]. A
//! [rewrite](StateStore::rewrite) replaces a service's journal by a fresh base; it is written in
//! slices between the others' work, and what is appended meanwhile goes to both.
//!
//! What it does not know: what the records mean, which make up a state; who is told.
//!
//! Invariants
//! - A journal has no gap: after a failed append, everything for that service fails until a
//!   rewrite has succeeded.
//! - A token is reported exactly once. A good report means that the record, and all of the same
//!   service before it, is on the disk.
//! - After a crash a service's journal is a prefix of what was written, at least up to its last
//!   good report; or it is damaged, and then it is moved aside and reported, never used.
//! - With less room than the reserve, bases and diffs are refused before anything is written;
//!   seals and commits, which are small and make others safe, are not.
//!
//! Limits: [`QUEUE_MAX`] bytes wait to be written; a record has at most
//! [`crate::journal::RECORD_MAX`] bytes, so a larger base is several records.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jizoku_types::{ByteCount, ServiceId};

use crate::folder::{DataFolder, quarantine};
use crate::journal::{Journal, JournalError, Purpose, RECORD_MAX, Tail};
use crate::room;

#[cfg(test)]
mod tests;
mod writer;

/// Most bytes that wait to be written, over all services.
pub const QUEUE_MAX: ByteCount = ByteCount::gib(1);
/// Longest time before something [`Urgency::Soon`] is flushed. Half of the second that is
/// promised: the flush itself takes time too.
pub const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// One thing to keep for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// Its bytes, at most [`RECORD_MAX`].
    pub bytes: Vec<u8>,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A whole state, or a part of one.
    Base,
    /// What changed.
    Diff,
    /// A checkpoint is committed.
    Commit,
    /// Lower epochs are refused.
    Seal,
}

impl RecordKind {
    fn number(self) -> u8 {
        match self {
            RecordKind::Base => 1,
            RecordKind::Diff => 2,
            RecordKind::Commit => 3,
            RecordKind::Seal => 4,
        }
    }

    fn of(number: u8) -> Option<RecordKind> {
        let all = [RecordKind::Base, RecordKind::Diff, RecordKind::Commit, RecordKind::Seal];
        all.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether it is of the size of a state, and needs room.
    fn is_large(self) -> bool {
        matches!(self, RecordKind::Base | RecordKind::Diff)
    }
}

/// How soon a record has to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At once: somebody waits for it (`durable = "disk"`, seals).
    Now,
    /// Within a second (`durable = "memory"`).
    Soon,
}

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

/// Why something that was taken is not on the disk. The service needs a rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The disk is full.
    NoRoom,
    /// An earlier record of the service isn't on the disk: a gap would follow.
    Gap,
    /// The system refused; what it said.
    Failed(String),
    /// The store was closed before.
    Stopped,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::NoRoom => f.write_str("the disk is full"),
            WriteError::Gap => f.write_str("an earlier record could not be written"),
            WriteError::Failed(what) => write!(f, "the disk refused: {what}"),
            WriteError::Stopped => f.write_str("the store was closed"),
        }
    }
}

impl std::error::Error for WriteError {}

/// A call has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDone {
    /// For which service.
    pub service: ServiceId,
    /// As given with the call.
    pub token: u64,
    /// The length of the service's journal now, or why it isn't on the disk.
    pub result: Result<ByteCount, WriteError>,
}

/// What was found of a service when the store was opened.
#[derive(Debug)]
pub enum Verdict {
    /// Its records are whole.
    Good {
        /// In the order in which they were written.
        records: Vec<Record>,
        /// Whether a crash left something at the end that had never been flushed.
        tail: Tail,
    },
    /// It was damaged and is not used.
    Damaged {
        /// What was found, for people.
        what: String,
        /// Where it is now; none: it could not be moved, and stays where it was.
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
    /// With less free room than this, bases and diffs are refused.
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

/// The open store. Dropping it flushes what waits, and ends the thread.
#[derive(Debug)]
pub struct StateStore {
    calls: Option<Sender<Call>>,
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

struct Call {
    service: ServiceId,
    token: u64,
    what: What,
    /// Bytes that it adds to the queue.
    bytes: u64,
}

enum What {
    Append(Record, Urgency),
    Rewrite(Vec<Record>),
    Remove,
}

impl StateStore {
    /// Opens the store. `found` gets each service that is on the disk, one after the other, so
    /// that no more than one state is in memory twice. `done` is called on the writer's thread,
    /// and must not wait for anything.
    ///
    /// An error means that the folder itself can't be read; a damaged service is a [`Verdict`].
    pub fn open(
        folder: &DataFolder,
        options: StateOptions,
        found: &mut dyn FnMut(ServiceId, Verdict),
        done: impl Fn(StateDone) + Send + 'static,
    ) -> io::Result<StateStore> {
        let place = Place { state: folder.state_path(), aside: folder.quarantine_path() };
        let mut journals = Vec::new();
        for service in place.services()? {
            let (verdict, journal) = place.load(service);
            match (&verdict, journal) {
                (_, Some(journal)) => journals.push((service, Some(journal))),
                (Verdict::Newer { .. }, None) => journals.push((service, None)),
                _ => {}
            }
            found(service, verdict);
        }
        let shared =
            Arc::new(Shared { waiting: AtomicU64::new(0), has_room: AtomicBool::new(true) });
        let (calls, receiver) = channel();
        let mut writer =
            writer::Writer::new(place, options, shared.clone(), Box::new(done), journals);
        writer.look_for_room();
        let thread = std::thread::Builder::new()
            .name("state-store".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(StateStore { calls: Some(calls), shared, thread: Some(thread) })
    }

    /// Adds a record to a service's journal, which is made if there is none.
    ///
    /// # Panics
    /// If the record is longer than [`RECORD_MAX`].
    pub fn append(
        &self,
        service: ServiceId,
        token: u64,
        record: Record,
        urgency: Urgency,
    ) -> Result<(), Refused> {
        assert!(record.bytes.len() <= RECORD_MAX, "a record is bounded");
        if record.kind.is_large() && !self.has_room() {
            return Err(Refused::NoRoom);
        }
        let bytes = record.bytes.len() as u64;
        self.call(Call { service, token, what: What::Append(record, urgency), bytes })
    }

    /// Replaces a service's journal by these records: all that is needed as of this call. After
    /// a crash there is all of the old or all of the new. A rewrite that is still under way is
    /// replaced by the newer one, and reported with it.
    ///
    /// # Panics
    /// If a record is longer than [`RECORD_MAX`].
    pub fn rewrite(
        &self,
        service: ServiceId,
        token: u64,
        records: Vec<Record>,
    ) -> Result<(), Refused> {
        assert!(records.iter().all(|record| record.bytes.len() <= RECORD_MAX), "bounded");
        if !self.has_room() {
            return Err(Refused::NoRoom);
        }
        let bytes = records.iter().map(|record| record.bytes.len() as u64).sum();
        self.call(Call { service, token, what: What::Rewrite(records), bytes })
    }

    /// Forgets a service.
    pub fn remove(&self, service: ServiceId, token: u64) -> Result<(), Refused> {
        self.call(Call { service, token, what: What::Remove, bytes: 0 })
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
        let bytes = call.bytes;
        let before = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        // One call may be larger than the limit; it only must not wait behind others.
        let sent = if before > 0 && before + bytes > QUEUE_MAX.0 {
            Err(Refused::Behind)
        } else {
            let calls = self.calls.as_ref().expect("open until dropped");
            calls.send(call).map_err(|_| Refused::Stopped)
        };
        if sent.is_err() {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

impl Drop for StateStore {
    fn drop(&mut self) {
        self.calls = None;
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
    fn folder(&self, service: ServiceId) -> PathBuf {
        self.state.join(service.to_string())
    }

    fn journal(&self, service: ServiceId) -> PathBuf {
        self.folder(service).join("journal")
    }

    /// The services that have a folder, by their number. Other names are passed over.
    fn services(&self) -> io::Result<Vec<ServiceId>> {
        let mut services = Vec::new();
        for entry in fs::read_dir(&self.state)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("svc_")?.parse().ok());
            let service = number.map(ServiceId);
            services.extend(service.filter(|service| name.to_str() == Some(&service.to_string())));
        }
        services.sort();
        Ok(services)
    }

    fn load(&self, service: ServiceId) -> (Verdict, Option<Journal>) {
        let mut records = Vec::new();
        let mut strange = None;
        let mut visit = |number: u8, bytes: Vec<u8>| match RecordKind::of(number) {
            Some(kind) => records.push(Record { kind, bytes }),
            None => strange = Some(number),
        };
        let purpose = Purpose::State(service.0);
        let opened = Journal::open(&self.journal(service), purpose, &mut visit);
        match (opened, strange) {
            (Ok(Some((journal, tail))), None) => (Verdict::Good { records, tail }, Some(journal)),
            (Ok(None), _) => {
                let verdict = Verdict::Good { records: Vec::new(), tail: Tail::Whole };
                (verdict, None)
            }
            (Ok(Some(_)), Some(number)) => {
                (self.move_aside(service, format!("a record of unknown kind {number}")), None)
            }
            (Err(error @ JournalError::NewerFormat { .. }), _) => {
                (Verdict::Newer { what: error.to_string() }, None)
            }
            (Err(error), _) => (self.move_aside(service, error.to_string()), None),
        }
    }

    fn move_aside(&self, service: ServiceId, what: String) -> Verdict {
        let moved_to = quarantine(&self.aside, &self.folder(service)).ok();
        Verdict::Damaged { what, moved_to }
    }
}
