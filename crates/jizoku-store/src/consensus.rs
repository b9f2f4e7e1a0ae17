//! The log of the catalog's replication on disk: every record is flushed before it counts.
//!
//! A thread of its own writes; records that arrive while it flushes share the next flush. What a
//! call asks for is done in order, and its end is told to a callback on that thread.
//!
//! What it does not know: what the records mean, which are still needed.
//!
//! Invariants
//! - A record whose token was reported done survives any crash; before that it may or may not.
//! - After a crash the log is a prefix of what was written, at least up to the last report.
//! - After one failed write all that follow fail: a later record may build upon the missing one.
//!   The agent has to stop; what was reported done stays.
//! - A disk that is full is no failure: the writer waits until there is room, and nothing is
//!   reported meanwhile. The node doesn't vote then, and what runs on it goes on.
//! - Damage of flushed records is an error of [`ConsensusLog::open`]: the node must not vote on
//!   what is left, and has to join as a new one.
//!
//! Limit: [`QUEUE_MAX`] bytes wait to be written; with more a call is refused.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jizoku_types::ByteCount;

use crate::folder::{DataFolder, JOIN_ANEW};
use crate::journal::{Journal, JournalError, Purpose, Tail, unfinished};

/// Most bytes that wait to be written.
pub const QUEUE_MAX: ByteCount = ByteCount::mib(256);
/// Between two tries to write when there is no room.
const FULL_WAIT: Duration = Duration::from_millis(100);
/// Most calls that share one flush.
const BATCH_MAX: usize = 1024;

/// Why the log can't be opened, or takes nothing more.
#[derive(Debug)]
pub enum LogError {
    /// The journal can't be read. It was left as it is.
    Journal(JournalError),
    /// The system refused a write.
    Write(std::io::Error),
    /// More than [`QUEUE_MAX`] wait: ask again after the next report. Nothing was taken.
    Behind,
    /// The writer has ended. Nothing was taken.
    Stopped,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Journal(error @ JournalError::Damaged { .. }) => {
                write!(f, "{error}; {JOIN_ANEW}")
            }
            LogError::Journal(error) => error.fmt(f),
            LogError::Write(cause) => write!(f, "the consensus log can't be written: {cause}"),
            LogError::Behind => f.write_str("the disk is behind with the consensus log"),
            LogError::Stopped => f.write_str("the consensus log is closed"),
        }
    }
}

impl std::error::Error for LogError {}

/// A call has ended.
#[derive(Debug)]
pub struct LogDone {
    /// As given with the call.
    pub token: u64,
    /// The journal's length now, or why its records are not on the disk. After an error the log
    /// takes nothing more.
    pub result: Result<ByteCount, LogError>,
}

/// The open log. Dropping it writes what waits, if there is room, and ends the thread.
#[derive(Debug)]
pub struct ConsensusLog {
    calls: Option<Sender<Call>>,
    waiting: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Call {
    token: u64,
    records: Vec<Vec<u8>>,
    /// Whether these replace everything before.
    rewrite: bool,
}

impl Call {
    fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.len() as u64).sum()
    }
}

impl ConsensusLog {
    /// Opens the log, and gives what is in it. `done` is called on the writer's thread, and must
    /// not wait for anything.
    pub fn open(
        folder: &DataFolder,
        done: impl Fn(LogDone) + Send + 'static,
    ) -> Result<(ConsensusLog, Vec<Vec<u8>>, Tail), LogError> {
        let path = folder.consensus_path();
        let mut records = Vec::new();
        let mut visit = |body| records.push(body);
        let opened = Journal::open(&path, Purpose::Consensus, &mut visit);
        let (journal, tail) = match opened.map_err(LogError::Journal)? {
            Some(opened) => opened,
            None => {
                let mut journal =
                    Journal::create(&path, Purpose::Consensus).map_err(LogError::Write)?;
                journal.put_in_place().map_err(LogError::Write)?;
                (journal, Tail::Whole)
            }
        };
        let (calls, receiver) = channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let closing = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            journal,
            path,
            waiting: waiting.clone(),
            closing: closing.clone(),
            done: Box::new(done),
            failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("consensus-log".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(LogError::Write)?;
        let log = ConsensusLog { calls: Some(calls), waiting, closing, thread: Some(thread) };
        Ok((log, records, tail))
    }

    /// Adds records, in this order, and flushes them.
    ///
    /// # Panics
    /// If a record is longer than [`crate::journal::RECORD_MAX`].
    pub fn append(&self, token: u64, records: Vec<Vec<u8>>) -> Result<(), LogError> {
        self.call(Call { token, records, rewrite: false })
    }

    /// Replaces everything by these records: after a crash there is all of the old or all of the
    /// new.
    ///
    /// # Panics
    /// If a record is longer than [`crate::journal::RECORD_MAX`].
    pub fn rewrite(&self, token: u64, records: Vec<Vec<u8>>) -> Result<(), LogError> {
        self.call(Call { token, records, rewrite: true })
    }

    fn call(&self, call: Call) -> Result<(), LogError> {
        let fits = |record: &Vec<u8>| record.len() <= crate::journal::RECORD_MAX;
        assert!(call.records.iter().all(fits), "a record is bounded");
        let bytes = call.bytes();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        // A single call may be larger than the limit; it only must not wait behind others.
        let sent = if before > 0 && before + bytes > QUEUE_MAX.0 {
            Err(LogError::Behind)
        } else {
            let calls = self.calls.as_ref().expect("open until dropped");
            calls.send(call).map_err(|_| LogError::Stopped)
        };
        if sent.is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

impl Drop for ConsensusLog {
    fn drop(&mut self) {
        self.calls = None;
        self.closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was printed by its thread; here nothing is left to do.
            let _ = thread.join();
        }
    }
}

struct Writer {
    journal: Journal,
    path: std::path::PathBuf,
    waiting: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    done: Box<dyn Fn(LogDone) + Send>,
    /// A record is missing from the file.
    failed: bool,
}

impl Writer {
    fn run(mut self, calls: &Receiver<Call>) {
        while let Ok(first) = calls.recv() {
            let batch: Vec<Call> =
                std::iter::once(first).chain(calls.try_iter().take(BATCH_MAX - 1)).collect();
            let mut written = Vec::new();
            for call in batch {
                let bytes = call.bytes();
                let token = call.token;
                let result = self.write(call);
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                written.push((token, result));
            }
            self.finish(written);
        }
    }

    fn write(&mut self, call: Call) -> std::io::Result<()> {
        if self.failed {
            return Err(std::io::Error::other("an earlier write failed"));
        }
        let result = loop {
            let tried = if call.rewrite { self.replace(&call) } else { self.add(&call) };
            match tried {
                // It left no trace, so the same can be tried again.
                Err(cause) if full(&cause) && !self.closing.load(Ordering::Relaxed) => {
                    std::thread::sleep(FULL_WAIT);
                }
                tried => break tried,
            }
        };
        self.failed = result.is_err();
        result
    }

    fn add(&mut self, call: &Call) -> std::io::Result<()> {
        self.journal.append(&call.records)
    }

    fn replace(&mut self, call: &Call) -> std::io::Result<()> {
        let made = Journal::create(&self.path, Purpose::Consensus).and_then(|mut fresh| {
            fresh.append(&call.records)?;
            fresh.put_in_place()?;
            Ok(fresh)
        });
        if made.as_ref().is_err_and(full) {
            // What was written of it takes room; if it can't be removed the next try empties it.
            let _ = std::fs::remove_file(unfinished(&self.path));
        }
        self.journal = made?;
        Ok(())
    }

    /// Flushes what was written, and reports.
    fn finish(&mut self, written: Vec<(u64, std::io::Result<()>)>) {
        let flushed = self.journal.flush();
        self.failed |= flushed.is_err();
        for (token, result) in written {
            let result = match (result, &flushed) {
                (Ok(()), Ok(())) => Ok(ByteCount(self.journal.bytes())),
                (Ok(()), Err(cause)) => Err(std::io::Error::new(cause.kind(), cause.to_string())),
                (Err(cause), _) => Err(cause),
            };
            (self.done)(LogDone { token, result: result.map_err(LogError::Write) });
        }
    }
}

fn full(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests;
