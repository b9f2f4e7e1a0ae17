//! A simulated machine's disk: what is on it, and what is only on its way there.
//!
//! What it does not know: files. Records are kept as values, in their order.
//!
//! Invariant: a crash keeps all that was said to be written, and of the rest a beginning: of the
//! consensus log as a whole, of the held states line by line, and of the first record that is
//! lost perhaps some entries. Only [`Disk::rot`] takes back what was written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jizoku_checkpoint::holder::Token;
use jizoku_checkpoint::message::Line;
use jizoku_checkpoint::record::{Loaded, Record, Replay};
use jizoku_consensus::{self as consensus, PersistToken, Recovered};
use jizoku_types::spec::Durability;
use jizoku_types::{CheckpointId, ServiceId, Span};

use crate::rng::Rng;

/// What would be there of a line after a crash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// The highest complete checkpoint.
    pub top: CheckpointId,
    /// Lower epochs are refused.
    pub sealed: u64,
}

/// See the module's header.
#[derive(Default)]
pub struct Disk {
    log: Recovered,
    log_waiting: VecDeque<(PersistToken, Vec<consensus::Record>)>,
    lines: BTreeMap<Line, Vec<Record>>,
    /// How many records of each line were read back already, and what came of it: the next start
    /// goes on from there.
    read_back: BTreeMap<Line, (usize, Replay)>,
    lines_waiting: VecDeque<(Token, Record)>,
    /// What is written of each line.
    written: BTreeMap<Line, Written>,
    /// Of each line the record that broke off, and how many of its entries are there.
    torn: BTreeMap<Line, (Record, usize)>,
    /// Lines whose checksums will show damage.
    damaged: BTreeSet<Line>,
    /// Services of which written records were damaged at some time.
    pub spoiled: BTreeSet<ServiceId>,
    /// Added to each write.
    pub slow: Span,
    /// No write succeeds.
    pub full: bool,
}

impl Disk {
    /// What a node that starts finds of its log.
    pub fn log(&self) -> Recovered {
        self.log.clone()
    }

    /// What a node that starts finds of the states that it held.
    ///
    /// # Errors
    /// If something on the disk can't be read back.
    pub fn loaded(&mut self) -> Result<Vec<Loaded>, String> {
        let torn = std::mem::take(&mut self.torn);
        let mut loaded = Vec::new();
        for (line, records) in &self.lines {
            let (count, replay) = self.read_back.entry(*line).or_default();
            load(*line, &records[*count..], replay)?;
            *count = records.len();
            let mut replay = replay.clone();
            if let Some((record, entries)) = torn.get(line) {
                load_torn(*line, record, *entries, &mut replay)?;
            }
            loaded.push(replay.finish(*line, !self.damaged.contains(line)));
        }
        Ok(loaded)
    }

    /// Damages the end of what was written of some held state. Gives of which service.
    pub fn rot(&mut self, rng: &mut Rng) -> Option<ServiceId> {
        let lines: Vec<Line> = self.lines.keys().copied().collect();
        let line = *rng.pick(&lines)?;
        let records = self.lines.get_mut(&line)?;
        records.truncate(rng.index(records.len().max(1)));
        self.torn.remove(&line);
        self.read_back.remove(&line);
        self.written.remove(&line);
        self.damaged.insert(line);
        self.spoiled.insert(line.service);
        Some(line.service)
    }

    /// Takes records of the log. They are written when [`Disk::log_written`] says so.
    pub fn append_log(&mut self, token: PersistToken, records: Vec<consensus::Record>) {
        self.log_waiting.push_back((token, records));
    }

    /// Everything of the log up to this token is on the disk now.
    ///
    /// # Errors
    /// If a record doesn't fit those before.
    pub fn log_written(&mut self, token: PersistToken) -> Result<(), String> {
        while self.log_waiting.front().is_some_and(|(first, _)| *first <= token) {
            let Some((_, records)) = self.log_waiting.pop_front() else { break };
            for record in records {
                self.log.replay(record).map_err(|why| format!("the log: {why}"))?;
            }
        }
        Ok(())
    }

    /// Takes a record of a held state.
    pub fn append_state(&mut self, token: Token, record: Record) {
        self.lines_waiting.push_back((token, record));
    }

    /// How long writing this record takes at least and at most.
    pub fn delay_of(&self, record: &Record) -> (Span, Span) {
        let durable = match record {
            Record::Checkpoint { head, .. } => head.durable,
            Record::Sealed { durable, .. } | Record::Snapshot { durable, .. } => *durable,
            Record::Committed { .. } | Record::Forgotten { .. } => Durability::Memory,
        };
        match durable {
            Durability::Disk => (Span::micros(200) + self.slow, Span::millis(5) + self.slow),
            Durability::Memory => (Span::millis(50) + self.slow, Span::millis(900) + self.slow),
        }
    }

    /// This record, and all before it of its line, are on the disk now. Gives their tokens.
    pub fn state_written(&mut self, token: Token) -> Vec<Token> {
        let Some((_, record)) = self.lines_waiting.iter().find(|(one, _)| *one == token) else {
            return Vec::new();
        };
        let line = record.line();
        let mut tokens = Vec::new();
        let rest = VecDeque::with_capacity(self.lines_waiting.len());
        for (one, record) in std::mem::replace(&mut self.lines_waiting, rest) {
            if record.line() == line && one <= token {
                tokens.push(one);
                self.keep(record);
            } else {
                self.lines_waiting.push_back((one, record));
            }
        }
        tokens
    }

    /// This record is given up, and with it what follows in its line: nothing is written behind
    /// a gap. Gives their tokens.
    pub fn state_failed(&mut self, token: Token) -> Vec<Token> {
        let failed = self.lines_waiting.iter().find(|(one, _)| *one == token);
        let Some(line) = failed.map(|(_, record)| record.line()) else { return Vec::new() };
        let fails = |(one, record): &(Token, Record)| record.line() == line && *one >= token;
        let tokens = self.lines_waiting.iter().filter(|entry| fails(entry));
        let tokens = tokens.map(|(one, _)| *one).collect();
        self.lines_waiting.retain(|entry| !fails(entry));
        tokens
    }

    /// What is written of a line.
    pub fn written(&self, line: Line) -> Written {
        self.written.get(&line).copied().unwrap_or_default()
    }

    fn keep(&mut self, record: Record) {
        let line = record.line();
        let written = self.written.entry(line).or_default();
        match &record {
            Record::Checkpoint { head, .. } => {
                *written = Written { top: head.id, sealed: written.sealed.max(head.counter) };
            }
            Record::Snapshot { counter, chain, .. } => {
                *written = Written { top: chain.top_id(), sealed: *counter };
            }
            Record::Sealed { counter, above, .. } => {
                let top = above.map_or(written.top, |above| written.top.min(above));
                *written = Written { top, sealed: written.sealed.max(*counter) };
            }
            Record::Committed { .. } => {}
            Record::Forgotten { .. } => *written = Written::default(),
        }
        if matches!(record, Record::Forgotten { .. } | Record::Snapshot { .. }) {
            self.damaged.remove(&line);
            self.read_back.remove(&line);
        }
        match record {
            Record::Forgotten { .. } => drop(self.lines.remove(&line)),
            Record::Snapshot { .. } => drop(self.lines.insert(line, vec![record])),
            _ => self.lines.entry(line).or_default().push(record),
        }
    }

    /// The machine stops here and now.
    ///
    /// # Errors
    /// If a record of the log doesn't fit those before.
    pub fn crash(&mut self, rng: &mut Rng) -> Result<(), String> {
        let waiting: Vec<_> = self.log_waiting.drain(..).flat_map(|(_, records)| records).collect();
        let kept = rng.index(waiting.len() + 1);
        for record in waiting.into_iter().take(kept) {
            self.log.replay(record).map_err(|why| format!("the log: {why}"))?;
        }
        let mut lost: BTreeMap<Line, bool> = BTreeMap::new();
        for (_, record) in std::mem::take(&mut self.lines_waiting) {
            let lost = lost.entry(record.line()).or_insert(false);
            let before = *lost;
            *lost = before || rng.permille(300);
            if !*lost {
                self.keep(record);
            } else if !before {
                let entries = rng.index(4);
                self.torn.insert(record.line(), (record, entries));
            }
        }
        Ok(())
    }
}

fn load(line: Line, records: &[Record], replay: &mut Replay) -> Result<(), String> {
    for record in records {
        let written: Result<(), String> = record
            .write(&mut |entry| replay.push(entry).map_err(|why| format!("held {line}: {why}")));
        written?;
    }
    Ok(())
}

fn load_torn(
    line: Line,
    record: &Record,
    entries: usize,
    replay: &mut Replay,
) -> Result<(), String> {
    let mut count = 0;
    let mut broken = None;
    // The second to last entry of a record, at most: a whole one would have been kept.
    let total = entries_of(record);
    let _: Result<(), ()> = record.write(&mut |entry| {
        if count >= entries.min(total.saturating_sub(1)) {
            return Err(());
        }
        count += 1;
        replay.push(entry).map_err(|why| broken = Some(why))
    });
    match broken {
        Some(why) => Err(format!("torn {line}: {why}")),
        None => Ok(()),
    }
}

fn entries_of(record: &Record) -> usize {
    let mut count = 0;
    let _: Result<(), ()> = record.write(&mut |_| {
        count += 1;
        Ok(())
    });
    count
}
