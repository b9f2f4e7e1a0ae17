//! The thread that writes for all lines.
//!
//! What it does not know: who calls; it only reports by token.
//!
//! Invariants
//! - Each round: take what has arrived, write it, flush what is urgent or due.
//! - While a journal is being made anew, appends go to the old one, and are remembered for the
//!   new one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jizoku_types::ByteCount;

use super::rewriter::{Job, Rewriter};
use super::{
    Call, LATER_MAX, Line, Place, Shared, Source, StateDone, StateOptions, Urgency, WriteError, fs,
};
use crate::folder::make_folder;
use crate::journal::Journal;
use crate::small::flush_folder;

/// Most calls that are taken before the next flush.
const BATCH_MAX: usize = 1024;
/// How often the room on the disk is looked at.
const ROOM_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    place: Place,
    options: StateOptions,
    shared: Arc<Shared>,
    done: Box<dyn Fn(StateDone) + Send>,
    rewriter: Rewriter,
    lines: BTreeMap<Line, Kept>,
    room_seen: Instant,
    /// Of the last rewrite.
    number: u64,
}

/// What the writer has of one line.
#[derive(Default)]
struct Kept {
    journal: Option<Journal>,
    /// Something is missing: nothing more is taken until a rewrite has succeeded.
    gap: bool,
    /// A newer build's journal is there, which must not be replaced.
    newer: bool,
    /// Written, but not flushed.
    unflushed: Vec<u64>,
    /// When it has to be flushed.
    due: Option<Instant>,
    rewrite: Option<Rewrite>,
}

/// A journal that is being made.
struct Rewrite {
    number: u64,
    cancelled: Arc<AtomicBool>,
    /// Appended since; these follow.
    later: Vec<Arc<Vec<Vec<u8>>>>,
    later_bytes: u64,
    /// What is reported when it is in place.
    tokens: Vec<u64>,
}

impl Rewrite {
    fn cancel(self) -> Vec<u64> {
        self.cancelled.store(true, Ordering::Relaxed);
        self.tokens
    }
}

impl Writer {
    pub(super) fn new(
        place: Place,
        options: StateOptions,
        shared: Arc<Shared>,
        done: Box<dyn Fn(StateDone) + Send>,
        rewriter: Rewriter,
        lines: Vec<(Line, Option<Journal>, bool, bool)>,
    ) -> Writer {
        let lines = lines
            .into_iter()
            .map(|(line, journal, gap, newer)| {
                (line, Kept { journal, gap, newer, ..Kept::default() })
            })
            .collect();
        let room_seen = Instant::now();
        Writer { place, options, shared, done, rewriter, lines, room_seen, number: 0 }
    }

    pub(super) fn run(mut self, calls: &Receiver<Call>) {
        'rounds: loop {
            let first = match calls.recv_timeout(self.patience()) {
                Ok(call) => Some(call),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            for call in first.into_iter().chain(calls.try_iter().take(BATCH_MAX)) {
                match call {
                    Call::Append { line, token, entries, urgency, bytes } => {
                        self.append(line, token, entries, urgency, bytes);
                        self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
                    }
                    Call::Rewrite { line, token, source } => self.rewrite(line, token, source),
                    Call::Rewritten { line, number, result } => {
                        self.rewritten(line, number, result);
                    }
                    Call::Remove { line, token } => self.remove(line, token),
                    Call::Stop => break 'rounds,
                }
            }
            self.flush_due(Instant::now());
            if self.room_seen.elapsed() >= ROOM_EVERY {
                self.look_for_room();
            }
        }
        self.close();
    }

    /// How long the thread may sleep.
    fn patience(&self) -> Duration {
        let due = self.lines.values().filter_map(|kept| kept.due).min();
        let until = due.map(|due| due.saturating_duration_since(Instant::now()));
        until.unwrap_or(ROOM_EVERY).min(ROOM_EVERY)
    }

    pub(super) fn look_for_room(&mut self) {
        self.room_seen = Instant::now();
        // When nobody can say how much room there is, the writes themselves will tell.
        let has_room = (self.options.room)().map_or(true, |free| free >= self.options.reserve);
        self.shared.has_room.store(has_room, Ordering::Relaxed);
    }

    fn append(
        &mut self,
        line: Line,
        token: u64,
        entries: Vec<Vec<u8>>,
        urgency: Urgency,
        bytes: u64,
    ) {
        let entries = Arc::new(entries);
        let kept = self.lines.entry(line).or_default();
        let into_old = append_to_journal(kept, &self.place, line, &entries);
        if let Some(rewrite) = &mut kept.rewrite {
            rewrite.later_bytes += bytes;
            rewrite.later.push(entries);
            if into_old.is_err() {
                // The old journal can't take it; it is safe when the new one is in place.
                rewrite.tokens.push(token);
            }
        }
        match into_old {
            Ok(()) => {
                kept.unflushed.push(token);
                let now = Instant::now();
                let due = match urgency {
                    Urgency::Now => now,
                    Urgency::Soon => now + self.options.flush_within,
                };
                kept.due = Some(kept.due.map_or(due, |before| before.min(due)));
            }
            Err(_) if kept.rewrite.is_some() => {}
            Err(error) => return self.report(line, [token], &Err(error)),
        }
        if kept.rewrite.as_ref().is_some_and(|rewrite| rewrite.later_bytes > LATER_MAX.0) {
            let tokens = kept.rewrite.take().map(Rewrite::cancel).unwrap_or_default();
            self.report(line, tokens, &Err(WriteError::Behind));
        }
    }

    /// Flushes every line that is due.
    fn flush_due(&mut self, now: Instant) {
        let is_due = |kept: &Kept| kept.due.is_some_and(|due| due <= now);
        let due: Vec<Line> =
            self.lines.iter().filter(|(_, kept)| is_due(kept)).map(|(line, _)| *line).collect();
        for line in due {
            self.flush(line);
        }
    }

    fn flush(&mut self, line: Line) {
        let Some(kept) = self.lines.get_mut(&line) else { return };
        kept.due = None;
        let tokens = std::mem::take(&mut kept.unflushed);
        let Some(journal) = &mut kept.journal else {
            return self.report(line, tokens, &Err(WriteError::Gap));
        };
        let result = journal.flush().map(|()| ByteCount(journal.bytes())).map_err(write_error);
        kept.gap |= result.is_err();
        self.report(line, tokens, &result);
    }

    fn rewrite(&mut self, line: Line, token: u64, source: Source) {
        let kept = self.lines.entry(line).or_default();
        if kept.newer {
            return self.report(line, [token], &Err(newer_error()));
        }
        let mut tokens = kept.rewrite.take().map(Rewrite::cancel).unwrap_or_default();
        tokens.push(token);
        self.number += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let number = self.number;
        let journal = self.place.journal(line);
        let job = Job { line, number, journal, source, cancelled: cancelled.clone() };
        if let Err(cause) = self.rewriter.send(job) {
            return self.report(line, tokens, &Err(write_error(cause)));
        }
        kept.rewrite =
            Some(Rewrite { number, cancelled, later: Vec::new(), later_bytes: 0, tokens });
    }

    fn rewritten(&mut self, line: Line, number: u64, result: io::Result<Journal>) {
        let Some(kept) = self.lines.get_mut(&line) else { return };
        // Another one has taken its place, or it was given up.
        let Some(rewrite) = kept.rewrite.take_if(|rewrite| rewrite.number == number) else {
            return;
        };
        let finished = result.and_then(|mut fresh| {
            rewrite.later.iter().try_for_each(|entries| fresh.append(entries))?;
            fresh.put_in_place()?;
            Ok(fresh)
        });
        match finished {
            Ok(fresh) => {
                let bytes = ByteCount(fresh.bytes());
                kept.journal = Some(fresh);
                kept.gap = false;
                kept.due = None;
                // What was not flushed in the old journal is flushed in the new one.
                let mut tokens = std::mem::take(&mut kept.unflushed);
                tokens.extend(rewrite.tokens);
                self.report(line, tokens, &Ok(bytes));
            }
            Err(cause) => self.report(line, rewrite.tokens, &Err(write_error(cause))),
        }
    }

    fn remove(&mut self, line: Line, token: u64) {
        let kept = self.lines.remove(&line).unwrap_or_default();
        let mut tokens = kept.unflushed;
        tokens.extend(kept.rewrite.map(Rewrite::cancel).unwrap_or_default());
        tokens.push(token);
        let folder = self.place.folder(line);
        let result = match fs::remove_dir_all(&folder) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(write_error(cause)),
            _ => flush_folder(&folder).map(|()| ByteCount(0)).map_err(write_error),
        };
        self.report(line, tokens, &result);
    }

    /// Flushes everything. Rewrites that are under way are given up: the old journals are whole.
    fn close(&mut self) {
        let lines: Vec<Line> = self.lines.keys().copied().collect();
        for line in lines {
            let kept = self.lines.get_mut(&line).expect("listed above");
            let tokens = kept.rewrite.take().map(Rewrite::cancel).unwrap_or_default();
            if !kept.unflushed.is_empty() {
                self.flush(line);
            }
            self.report(line, tokens, &Err(WriteError::Stopped));
        }
    }

    fn report(
        &self,
        line: Line,
        tokens: impl IntoIterator<Item = u64>,
        result: &Result<ByteCount, WriteError>,
    ) {
        for token in tokens {
            (self.done)(StateDone { line, token, result: result.clone() });
        }
    }
}

fn append_to_journal(
    kept: &mut Kept,
    place: &Place,
    line: Line,
    entries: &[Vec<u8>],
) -> Result<(), WriteError> {
    if kept.newer {
        return Err(newer_error());
    }
    // Without an old journal the one that is being made will be the first one.
    if kept.gap || (kept.journal.is_none() && kept.rewrite.is_some()) {
        return Err(WriteError::Gap);
    }
    let journal = match &mut kept.journal {
        Some(journal) => Ok(journal),
        missing => new_journal(place, line).map(|journal| missing.insert(journal)),
    };
    let written = journal.and_then(|journal| journal.append(entries));
    kept.gap = written.is_err();
    written.map_err(write_error)
}

fn new_journal(place: &Place, line: Line) -> io::Result<Journal> {
    make_folder(&place.folder(line))?;
    let mut journal = Journal::create(&place.journal(line), line.purpose())?;
    journal.put_in_place()?;
    Ok(journal)
}

fn newer_error() -> WriteError {
    WriteError::Failed("a newer build's copy is there; it is left alone".to_owned())
}

fn write_error(cause: io::Error) -> WriteError {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::NoRoom,
        _ => WriteError::Failed(cause.to_string()),
    }
}
