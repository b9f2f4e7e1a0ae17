//! The thread that writes for all services.
//!
//! What it does not know: who calls; it only reports by token.
//!
//! Invariants
//! - Each round: take what has arrived, write it, flush what is urgent or due, write one slice of
//!   one rewrite. So a large rewrite delays nobody by more than a slice.
//! - While a rewrite is under way, appends go to the old journal, and are remembered for the new
//!   one. If that grows over [`LATER_MAX`], the rewrite is finished before anything else.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jizoku_types::{ByteCount, ServiceId};

use super::{Call, Place, Record, Shared, StateDone, StateOptions, Urgency, What, WriteError, fs};
use crate::folder::make_folder;
use crate::journal::{Journal, Purpose};
use crate::small::flush_folder;

/// Most calls that are taken before the next flush.
const BATCH_MAX: usize = 1024;
/// How much of a rewrite is written at once.
const SLICE: u64 = 4 << 20;
/// Most bytes that are remembered for a journal that is being rewritten.
const LATER_MAX: u64 = 64 << 20;
/// How often the room on the disk is looked at.
const ROOM_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    place: Place,
    options: StateOptions,
    shared: Arc<Shared>,
    done: Box<dyn Fn(StateDone) + Send>,
    services: BTreeMap<ServiceId, Service>,
    room_seen: Instant,
}

/// What the writer has of one service.
#[derive(Default)]
struct Service {
    journal: Option<Journal>,
    /// A record is missing: nothing more is taken until a rewrite has succeeded.
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
    fresh: Journal,
    todo: VecDeque<Arc<Record>>,
    /// Appended since; these follow.
    later: Vec<Arc<Record>>,
    later_bytes: u64,
    /// What is reported when it is in place.
    tokens: Vec<u64>,
}

impl Writer {
    pub(super) fn new(
        place: Place,
        options: StateOptions,
        shared: Arc<Shared>,
        done: Box<dyn Fn(StateDone) + Send>,
        journals: Vec<(ServiceId, Option<Journal>)>,
    ) -> Writer {
        let service = |journal: Option<Journal>| {
            let newer = journal.is_none();
            Service { journal, newer, ..Service::default() }
        };
        let services = journals.into_iter().map(|(id, journal)| (id, service(journal))).collect();
        Writer { place, options, shared, done, services, room_seen: Instant::now() }
    }

    pub(super) fn run(mut self, calls: &Receiver<Call>) {
        loop {
            let first = match calls.recv_timeout(self.patience()) {
                Ok(call) => Some(call),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            for call in first.into_iter().chain(calls.try_iter().take(BATCH_MAX)) {
                let bytes = call.bytes;
                self.take(call);
                self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            }
            self.flush_due(Instant::now());
            self.rewrite_slice();
            if self.room_seen.elapsed() >= ROOM_EVERY {
                self.look_for_room();
            }
        }
        self.close();
    }

    /// How long the thread may sleep.
    fn patience(&self) -> Duration {
        if self.services.values().any(|service| service.rewrite.is_some()) {
            return Duration::ZERO;
        }
        let due = self.services.values().filter_map(|service| service.due).min();
        let until = due.map(|due| due.saturating_duration_since(Instant::now()));
        until.unwrap_or(ROOM_EVERY).min(ROOM_EVERY)
    }

    pub(super) fn look_for_room(&mut self) {
        self.room_seen = Instant::now();
        // When nobody can say how much room there is, the writes themselves will tell.
        let has_room = (self.options.room)().map_or(true, |free| free >= self.options.reserve);
        self.shared.has_room.store(has_room, Ordering::Relaxed);
    }

    fn take(&mut self, call: Call) {
        match call.what {
            What::Append(record, urgency) => {
                self.append(call.service, call.token, record, urgency);
            }
            What::Rewrite(records) => self.begin_rewrite(call.service, call.token, records),
            What::Remove => self.remove(call.service, call.token),
        }
    }

    fn append(&mut self, id: ServiceId, token: u64, record: Record, urgency: Urgency) {
        let record = Arc::new(record);
        let service = self.services.entry(id).or_default();
        let into_old = append_to_journal(service, &self.place, id, &record);
        let mut finish_first = false;
        if let Some(rewrite) = &mut service.rewrite {
            rewrite.later_bytes += record.bytes.len() as u64;
            rewrite.later.push(record);
            finish_first = rewrite.later_bytes > LATER_MAX;
            if into_old.is_err() {
                // The old journal can't take it; it is safe when the new one is in place.
                rewrite.tokens.push(token);
            }
        }
        match into_old {
            Ok(()) => {
                service.unflushed.push(token);
                let now = Instant::now();
                let due = match urgency {
                    Urgency::Now => now,
                    Urgency::Soon => now + self.options.flush_within,
                };
                service.due = Some(service.due.map_or(due, |before| before.min(due)));
            }
            Err(_) if service.rewrite.is_some() => {}
            Err(error) => self.report(id, [token], &Err(error)),
        }
        while finish_first && self.services.get(&id).is_some_and(|one| one.rewrite.is_some()) {
            self.step_rewrite(id);
        }
    }

    /// Flushes every service that is due.
    fn flush_due(&mut self, now: Instant) {
        let due: Vec<ServiceId> = self
            .services
            .iter()
            .filter(|(_, service)| service.due.is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.flush(id);
        }
    }

    fn flush(&mut self, id: ServiceId) {
        let Some(service) = self.services.get_mut(&id) else { return };
        service.due = None;
        let tokens = std::mem::take(&mut service.unflushed);
        let Some(journal) = &mut service.journal else {
            return self.report(id, tokens, &Err(WriteError::Gap));
        };
        let result = journal.flush().map(|()| ByteCount(journal.bytes())).map_err(write_error);
        service.gap |= result.is_err();
        self.report(id, tokens, &result);
    }

    fn begin_rewrite(&mut self, id: ServiceId, token: u64, records: Vec<Record>) {
        let service = self.services.entry(id).or_default();
        if service.newer {
            return self.report(id, [token], &Err(newer_error()));
        }
        let mut tokens = service.rewrite.take().map(|old| old.tokens).unwrap_or_default();
        tokens.push(token);
        let made = make_folder(&self.place.folder(id))
            .and_then(|()| Journal::create(&self.place.journal(id), Purpose::State(id.0)));
        match made {
            Ok(fresh) => {
                let todo = records.into_iter().map(Arc::new).collect();
                service.rewrite =
                    Some(Rewrite { fresh, todo, later: Vec::new(), later_bytes: 0, tokens });
            }
            Err(cause) => self.report(id, tokens, &Err(write_error(cause))),
        }
    }

    /// Writes a slice of the first rewrite that there is.
    fn rewrite_slice(&mut self) {
        let next = self.services.iter().find(|(_, service)| service.rewrite.is_some());
        if let Some(id) = next.map(|(id, _)| *id) {
            self.step_rewrite(id);
        }
    }

    fn step_rewrite(&mut self, id: ServiceId) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let Some(mut rewrite) = service.rewrite.take() else { return };
        match rewrite.step() {
            Ok(false) => service.rewrite = Some(rewrite),
            Ok(true) => {
                let bytes = ByteCount(rewrite.fresh.bytes());
                service.journal = Some(rewrite.fresh);
                service.gap = false;
                service.due = None;
                // What was not flushed in the old journal is flushed in the new one.
                let mut tokens = std::mem::take(&mut service.unflushed);
                tokens.extend(rewrite.tokens);
                self.report(id, tokens, &Ok(bytes));
            }
            Err(cause) => {
                // The old journal is what it was. Appends that only went to the new one are lost,
                // which is why the old one had a gap already.
                drop(rewrite.fresh);
                let _ = fs::remove_file(self.place.journal(id).with_extension("new"));
                self.report(id, rewrite.tokens, &Err(write_error(cause)));
            }
        }
    }

    fn remove(&mut self, id: ServiceId, token: u64) {
        let service = self.services.remove(&id).unwrap_or_default();
        let mut tokens = service.unflushed;
        tokens.extend(service.rewrite.map(|rewrite| rewrite.tokens).unwrap_or_default());
        tokens.push(token);
        let folder = self.place.folder(id);
        let result = match fs::remove_dir_all(&folder) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(write_error(cause)),
            _ => flush_folder(&folder).map(|()| ByteCount(0)).map_err(write_error),
        };
        self.report(id, tokens, &result);
    }

    /// Flushes everything. Rewrites that are under way are given up: the old journals are whole.
    fn close(&mut self) {
        let ids: Vec<ServiceId> = self.services.keys().copied().collect();
        for id in ids {
            if self.services.get(&id).is_some_and(|service| !service.unflushed.is_empty()) {
                self.flush(id);
            }
            let rewrite = self.services.get_mut(&id).and_then(|service| service.rewrite.take());
            let tokens = rewrite.map(|rewrite| rewrite.tokens).unwrap_or_default();
            self.report(id, tokens, &Err(WriteError::Stopped));
        }
    }

    fn report(
        &self,
        service: ServiceId,
        tokens: impl IntoIterator<Item = u64>,
        result: &Result<ByteCount, WriteError>,
    ) {
        for token in tokens {
            (self.done)(StateDone { service, token, result: result.clone() });
        }
    }
}

fn append_to_journal(
    service: &mut Service,
    place: &Place,
    id: ServiceId,
    record: &Record,
) -> Result<(), WriteError> {
    if service.newer {
        return Err(newer_error());
    }
    // Without an old journal the one that is being made will be the first one.
    if service.gap || (service.journal.is_none() && service.rewrite.is_some()) {
        return Err(WriteError::Gap);
    }
    let journal = match &mut service.journal {
        Some(journal) => Ok(journal),
        missing => new_journal(place, id).map(|journal| missing.insert(journal)),
    };
    let written = journal.and_then(|journal| journal.append(record.kind.number(), &record.bytes));
    service.gap = written.is_err();
    written.map_err(write_error)
}

fn new_journal(place: &Place, id: ServiceId) -> io::Result<Journal> {
    make_folder(&place.folder(id))?;
    let mut journal = Journal::create(&place.journal(id), Purpose::State(id.0))?;
    journal.put_in_place()?;
    Ok(journal)
}

impl Rewrite {
    /// Writes about [`SLICE`] bytes; true when the new journal is in place.
    fn step(&mut self) -> io::Result<bool> {
        let target = self.fresh.bytes() + SLICE;
        while self.fresh.bytes() < target {
            let Some(record) = self.todo.pop_front() else {
                if self.later.is_empty() {
                    return self.fresh.put_in_place().map(|()| true);
                }
                self.later_bytes = 0;
                self.todo = std::mem::take(&mut self.later).into();
                continue;
            };
            self.fresh.append(record.kind.number(), &record.bytes)?;
        }
        // Flushed slice by slice, so that the last flush is short.
        self.fresh.flush().map(|()| false)
    }
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
