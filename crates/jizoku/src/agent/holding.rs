//! The holder thread: owns this node's Holder and the store of held states.
//!
//! Invariants
//! - The Holder hears `Loaded` before anything else.
//! - A record counts as stored when its last entry, and so all before it, are on disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use jizoku_checkpoint::chain::Point;
use jizoku_checkpoint::holder::{self, Holder, Token};
use jizoku_checkpoint::message::{Line, ToHolder};
use jizoku_checkpoint::record::{Entry, Loaded, Record, Replay};
use jizoku_node::wire::StateMessage;
use jizoku_store::state::{self, Found, Refused, StateDone, StateStore, Urgency, Verdict};
use jizoku_types::spec::Durability;
use jizoku_types::{BranchId, Event, Instant, NodeId, ServiceId, decode, encode};

use super::mailbox::{Got, Mailbox};
use super::standby::Standby;
use super::wiring::Wiring;

/// How often the disk's room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Inputs that are taken before outputs are looked at.
const BATCH_MAX: usize = 64;

/// What comes to the holder thread.
pub(crate) enum HolderMessage {
    /// A message for the Holder.
    Message { from: NodeId, message: ToHolder },
    /// The store is done with something.
    Stored(StateDone),
    /// What is held of a line here?
    Points(Line, SyncSender<Vec<Point>>),
    /// A service was removed.
    Forget(ServiceId),
    /// A branch is no longer wanted.
    ForgetBranch(ServiceId, BranchId),
    /// End.
    Stop,
}

/// What is read back from disk, and what was wrong with it.
#[derive(Default)]
pub(crate) struct ReadBack {
    replays: BTreeMap<state::Line, Replay>,
    broken: BTreeMap<state::Line, String>,
    loaded: Vec<Loaded>,
    troubles: Vec<(ServiceId, String)>,
}

impl ReadBack {
    /// Takes what the store found.
    pub(crate) fn found(&mut self, line: state::Line, found: Found) {
        match found {
            Found::Entry(bytes) => self.entry(line, &bytes),
            Found::End(verdict) => self.end(line, verdict),
        }
    }

    fn entry(&mut self, line: state::Line, bytes: &[u8]) {
        if self.broken.contains_key(&line) {
            return;
        }
        let replay = self.replays.entry(line).or_default();
        let entry = decode::<Entry>(bytes).map_err(|error| error.to_string());
        let pushed = entry.and_then(|entry| replay.push(&entry).map_err(|why| why.to_string()));
        if let Err(what) = pushed {
            self.broken.insert(line, what);
        }
    }

    fn end(&mut self, line: state::Line, verdict: Verdict) {
        let mut whole = true;
        let mut trouble = |what: String| {
            whole = false;
            self.troubles.push((line.service, what));
        };
        match verdict {
            Verdict::Good { .. } => {}
            Verdict::Damaged { what, moved_to } => {
                let place = moved_to
                    .map_or("left in place".into(), |path| format!("moved to {}", path.display()));
                trouble(format!("{what}; {place}"));
            }
            Verdict::Newer { what } => trouble(what),
        }
        if let Some(what) = self.broken.remove(&line) {
            trouble(what);
        }
        let replay = self.replays.remove(&line).unwrap_or_default();
        let line = Line { service: line.service, branch: line.branch };
        self.loaded.push(replay.finish(line, whole));
    }
}

/// See the module's header.
pub(crate) struct Holding {
    holder: Holder,
    store: StateStore,
    wiring: Arc<Wiring>,
    standby: Arc<Standby>,
    /// The Holder's tokens by the store's.
    tokens: BTreeMap<u64, Token>,
    next_token: u64,
    had_room: bool,
}

impl Holding {
    pub(crate) fn new(
        store: StateStore,
        read: ReadBack,
        wiring: Arc<Wiring>,
        standby: Arc<Standby>,
    ) -> Holding {
        let mut holder = Holder::new(wiring.me);
        for (service, what) in read.troubles {
            wiring.event(Event::CopyCorrupt { service, what });
        }
        holder.handle(wiring.now(), holder::Input::Loaded(read.loaded));
        let tokens = BTreeMap::new();
        Holding { holder, store, wiring, standby, tokens, next_token: 1, had_room: true }
    }

    pub(crate) fn run(mut self, mailbox: &Mailbox<HolderMessage>) {
        loop {
            self.drain();
            match mailbox.wait(self.patience()) {
                Got::One(HolderMessage::Stop) | Got::Closed => return,
                Got::One(message) => self.take(message),
                Got::Nothing => self.look(),
            }
            for _ in 0..BATCH_MAX {
                match mailbox.take() {
                    Got::One(HolderMessage::Stop) => return,
                    Got::One(message) => self.take(message),
                    Got::Nothing | Got::Closed => break,
                }
            }
        }
    }

    fn now(&self) -> Instant {
        self.wiring.now()
    }

    fn patience(&self) -> Duration {
        let until = self.holder.deadline().map(|at| at.since(self.now()).as_nanos());
        until.map_or(LOOK_EVERY, |nanos| Duration::from_nanos(nanos).min(LOOK_EVERY))
    }

    fn look(&mut self) {
        let now = self.now();
        if self.holder.deadline().is_some_and(|at| at <= now) {
            self.holder.handle(now, holder::Input::Tick);
        }
        let room = self.store.has_room();
        if room != self.had_room {
            self.had_room = room;
            self.holder.handle(now, holder::Input::NoRoom(!room));
        }
    }

    fn take(&mut self, message: HolderMessage) {
        let now = self.now();
        match message {
            HolderMessage::Message { from, message } => {
                self.holder.handle(now, holder::Input::Message { from, message });
            }
            HolderMessage::Stored(done) => {
                if let Some(token) = self.tokens.remove(&done.token) {
                    let input = match done.result {
                        Ok(_) => holder::Input::Stored { token },
                        Err(error) => {
                            let what = format!("{}: {error}", done.line.service);
                            self.wiring.event(Event::Trouble { what });
                            holder::Input::StoreFailed { token }
                        }
                    };
                    self.holder.handle(now, input);
                }
            }
            HolderMessage::Points(line, reply) => {
                // The asker waits for nothing else; if it is gone, the agent is ending.
                let _ = reply.send(self.holder.points(line));
            }
            HolderMessage::Forget(service) => {
                let lines: Vec<Line> =
                    self.holder.lines().filter(|line| line.service == service).collect();
                for line in lines {
                    self.holder.handle(now, holder::Input::Forget(line));
                }
                self.standby.held(service, None);
            }
            HolderMessage::ForgetBranch(service, branch) => {
                self.holder.handle(now, holder::Input::Forget(Line { service, branch }));
            }
            HolderMessage::Stop => unreachable!("taken by run()"),
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.holder.poll() {
            match output {
                holder::Output::Send { to, channel, message } => {
                    self.wiring.send_state(to, channel, StateMessage::FromHolder(message));
                }
                holder::Output::Store { token, record } => self.store(token, record),
                holder::Output::Changed { line, .. } => {
                    if line.branch == BranchId::MAIN {
                        let image = self.holder.ready_image(line).map(|(_, image)| image);
                        self.standby.held(line.service, image);
                    }
                }
                holder::Output::Corrupt { line, what } => {
                    let service = line.service;
                    self.wiring.event(Event::CopyCorrupt { service, what });
                }
            }
        }
    }

    fn store(&mut self, token: Token, record: Record) {
        let last = self.next_token;
        self.next_token += 1;
        self.tokens.insert(last, token);
        if self.write(last, record).is_err() {
            self.tokens.remove(&last);
            self.holder.handle(self.now(), holder::Input::StoreFailed { token });
        }
    }

    fn write(&self, token: u64, record: Record) -> Result<(), Refused> {
        let Line { service, branch } = record.line();
        let line = state::Line { service, branch };
        match record {
            Record::Forgotten { .. } => self.store.remove(line, token),
            // A whole state is written from the store's thread, piece by piece.
            Record::Snapshot { .. } => {
                let source = move |put: &mut dyn FnMut(&[u8]) -> std::io::Result<()>| {
                    record.write(&mut |entry| put(&encode(entry)))
                };
                self.store.rewrite(line, token, Box::new(source))
            }
            _ => {
                let urgency = urgency(&record);
                let mut entries = Vec::new();
                let written: Result<(), Refused> = record.write(&mut |entry| {
                    entries.push(encode(entry));
                    Ok(())
                });
                written?;
                self.store.append(line, token, entries, urgency)
            }
        }
    }
}

fn urgency(record: &Record) -> Urgency {
    let durable = match record {
        Record::Checkpoint { head, .. } => head.durable,
        Record::Sealed { durable, .. } => *durable,
        _ => Durability::Memory,
    };
    match durable {
        Durability::Disk => Urgency::Now,
        Durability::Memory => Urgency::Soon,
    }
}
