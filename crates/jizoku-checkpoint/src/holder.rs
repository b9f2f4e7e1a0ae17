//! On every node, for all services: keeps checkpoints, refuses what is superseded, reports.
//!
//! What it does not know: the catalog and its holder sets, engines, files. Who is a member is
//! judged by those who read its answers; it only says which incarnation it is.
//!
//! Invariants
//! - Once a line has seen an epoch, nothing of a lower one is taken or acknowledged.
//! - An acknowledged checkpoint is complete and verified. With `durable = "disk"` it is flushed.
//! - With `durable = "disk"` a report is sent when the seal is flushed: otherwise a restart would
//!   forget the seal while the holder is still a member. With `"memory"` a restarted holder is no
//!   member, so its forgotten seal can do no harm, and the report doesn't wait.
//! - After a line was acknowledged for `"disk"`, this goes on to hold until a record that says
//!   `"memory"` is itself flushed: so what is found on disk never claims too much.
//! - Uncommitted checkpoints are apart from the ready image, and the committed one is dropped only
//!   for a whole image that the active node sends.
//!
//! Limits: [`LINES_MAX`] lines; `CHAIN_MAX` uncommitted checkpoints of each; one unfinished
//! transfer of each, dropped after [`UNFINISHED_MAX`] of silence; [`UNFINISHED_BYTES_MAX`] of them
//! in all. At a limit it refuses with [`Why::NoRoom`], and nothing changes.

mod held;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::limits::{CHAIN_MAX, SERVICES_MAX, STATE_MAX};
use jizoku_types::spec::Durability;
use jizoku_types::{
    BranchId, ByteCount, Channel, CheckpointId, Epoch, Incarnation, Instant, Member, NodeId, Span,
};

use crate::chain::{NONE, Point};
use crate::fault::{Fault, Planted};
use crate::image::{
    BLOCKS_PER_QUESTION, Diff, Digest, Image, NODES_PER_QUESTION, Question, SpaceName,
};
use crate::message::{Answer, Ask, FromHolder, Line, Ship, Terms, ToHolder, Why};
use crate::record::{Loaded, Record};
use held::{Held, Taken};

/// Most lines that one holder keeps: some branches for each service.
pub const LINES_MAX: usize = 4 * SERVICES_MAX;
/// An unfinished transfer is dropped when no part of it came for this long.
pub const UNFINISHED_MAX: Span = Span::secs(30);
/// Most encoded bytes of unfinished transfers, of all lines together.
pub const UNFINISHED_BYTES_MAX: ByteCount = STATE_MAX;
/// Records of one line that may wait for the disk. Above it none are made until the disk is done;
/// then all of the line is written at once.
pub const STORES_MAX: usize = CHAIN_MAX;
/// After the disk failed for a line, it is tried again at the earliest after this long.
pub const STORE_RETRY: Span = Span::secs(5);

/// The number by which the disk's answer is told from others.
pub type Token = u64;

/// What a holder is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// All that was read back from disk, once after the start. Messages before it are passed over;
    /// their senders repeat them.
    Loaded(Vec<Loaded>),
    /// A message.
    Message {
        /// From this node, possibly the own one.
        from: NodeId,
        /// What.
        message: ToHolder,
    },
    /// A record, and all before it of its line, are on disk.
    Stored {
        /// Which.
        token: Token,
    },
    /// A record could not be written.
    StoreFailed {
        /// Which.
        token: Token,
    },
    /// Whether there is room for more, in memory and on disk.
    NoRoom(bool),
    /// A state that was collected on this node is to be held here too, as if it had been shipped.
    Install {
        /// Under what.
        terms: Terms,
        /// The state.
        point: Point,
    },
    /// The line is no longer wanted here.
    Forget(Line),
    /// Time passed.
    Tick,
}

/// What a holder wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send an answer.
    Send {
        /// To whom, possibly the own node.
        to: NodeId,
        /// On which channel.
        channel: Channel,
        /// What.
        message: FromHolder,
    },
    /// Write this down, in the order of these outputs, and say [`Input::Stored`]. With
    /// `durable = "memory"` within a second, else at once.
    Store {
        /// To be repeated in the answer.
        token: Token,
        /// What.
        record: Record,
    },
    /// What is held of a line changed: for gossip.
    Changed {
        /// Of which.
        line: Line,
        /// The highest committed checkpoint, or none.
        committed: CheckpointId,
        /// The size of its state.
        size: ByteCount,
    },
    /// A checkpoint was damaged on its way or on disk, and was not taken.
    Corrupt {
        /// Of which line.
        line: Line,
        /// What was wrong, for people.
        what: String,
    },
}

/// A record that the disk has not answered for.
struct Store {
    line: Line,
    /// How acknowledgements are given according to it, and to what was stored before.
    durable: Durability,
    waiting: Vec<Waiting>,
}

/// An answer that waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    to: NodeId,
    terms: Terms,
    owed: Owed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Ack { id: CheckpointId, transfer: u64 },
    Report,
}

impl Owed {
    /// The number that a refusal names.
    fn number(self) -> u64 {
        match self {
            Owed::Ack { transfer, .. } => transfer,
            Owed::Report => 0,
        }
    }
}

/// The holder of one node.
pub struct Holder {
    me: Member,
    now: Instant,
    loaded: bool,
    no_room: bool,
    lines: BTreeMap<Line, Held>,
    stores: BTreeMap<Token, Store>,
    last_token: Token,
    outputs: VecDeque<Output>,
    planted: Planted,
}

impl Holder {
    /// A holder that has not read its disk yet.
    pub fn new(me: Member) -> Holder {
        Holder {
            me,
            now: Instant::ORIGIN,
            loaded: false,
            no_room: false,
            lines: BTreeMap::new(),
            stores: BTreeMap::new(),
            last_token: 0,
            outputs: VecDeque::new(),
            planted: Planted::default(),
        }
    }

    /// Plants a mistake, with the feature `faults`.
    #[cfg(any(test, feature = "faults"))]
    pub fn plant(&mut self, fault: Fault) {
        self.planted.plant(fault);
    }

    /// Which incarnation it answers as.
    pub fn incarnation(&self) -> Incarnation {
        self.me.incarnation
    }

    /// The highest complete checkpoint of a line: what an instance can be restored from here.
    pub fn ready_image(&self, line: Line) -> Option<(CheckpointId, Image)> {
        let point = self.lines.get(&line)?.chain.top()?;
        Some((point.id, point.image.clone()))
    }

    /// All complete checkpoints of a line, lowest first: what a collector or a shipper on this
    /// node can use without asking anybody.
    pub fn points(&self, line: Line) -> Vec<Point> {
        self.lines.get(&line).map_or(Vec::new(), |held| held.chain.points().cloned().collect())
    }

    /// The highest committed checkpoint of a line that it knows of, or none.
    pub fn committed(&self, line: Line) -> CheckpointId {
        self.lines.get(&line).map_or(NONE, |held| held.chain.committed_id())
    }

    /// See [`Report::kept`](crate::message::Report::kept).
    #[cfg(test)]
    pub(crate) fn keeps(&self, line: Line) -> bool {
        self.lines.get(&line).is_some_and(|held| held.report().kept)
    }

    /// The lines that are held here.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        self.lines.keys().copied()
    }

    /// When to call `handle` with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        self.lines.values().filter_map(Held::expires).min()
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes an input; then `poll` until `None`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = now;
        match input {
            Input::Loaded(all) => self.load(all),
            Input::Message { from, message } if self.loaded => self.message(from, message),
            Input::Message { .. } => {}
            Input::Stored { token } => self.stored(token),
            Input::StoreFailed { token } => self.store_failed(token),
            Input::NoRoom(no_room) => self.no_room = no_room,
            Input::Install { terms, point } => self.install(terms, point),
            Input::Forget(line) => self.forget(line),
            Input::Tick => self.lines.values_mut().for_each(|held| held.expire(now)),
        }
    }

    fn load(&mut self, all: Vec<Loaded>) {
        self.loaded = true;
        for loaded in all {
            let line = loaded.line;
            if !loaded.whole {
                let what = "a copy on disk is damaged; only what precedes the damage is used";
                self.outputs.push_back(Output::Corrupt { line, what: what.to_string() });
            }
            self.lines.insert(line, Held::of(loaded));
            self.changed(line);
        }
    }

    fn install(&mut self, terms: Terms, point: Point) {
        let line = terms.line();
        let held = self.lines.entry(line).or_insert_with(Held::new);
        if held.admit(terms, self.planted).is_err() {
            return;
        }
        if held.chain.find(point.id).is_none_or(|held| held.root() != point.root()) {
            held.chain.push(NONE, point);
            held.made_up();
            self.store_snapshot(line);
            self.changed(line);
        }
    }

    /// The line goes on from what is held of the branch `parent`, if that is newer: ids of a line
    /// that goes on from another are above that one's. False if nothing is held of it.
    fn fork(&mut self, terms: Terms, parent: BranchId) -> bool {
        let line = terms.line();
        let from = Line { service: line.service, branch: parent };
        let (Some(parent), false) = (self.lines.get(&from), line == from) else { return false };
        let (chain, durable) = (parent.chain.clone(), parent.durable);
        let here = self.lines.get(&line);
        // The main line may have been here, and be lost with its file; a branch's id is new.
        let whole = here.map_or(line.branch != BranchId::MAIN, Held::is_kept);
        let kept = parent.is_kept() && whole;
        let lapsed = parent.has_lapsed() || here.is_some_and(Held::has_lapsed);
        let sealed = here.map_or(0, |held| held.sealed);
        let newer = chain.top_id() > here.map_or(NONE, |held| held.chain.top_id());
        let full = here.is_none() && self.lines.len() >= LINES_MAX;
        if !newer || sealed > terms.epoch.counter || full {
            return true;
        }
        let held = self.lines.entry(line).or_insert_with(Held::new);
        held.go_on_from(chain, durable, (kept, lapsed));
        self.store_snapshot(line);
        self.changed(line);
        true
    }

    fn forget(&mut self, line: Line) {
        if self.lines.remove(&line).is_none() {
            return;
        }
        // What is on its way to the disk is no business of whoever holds the line next.
        self.stores.retain(|_, store| store.line != line);
        self.last_token += 1;
        let (token, record) = (self.last_token, Record::Forgotten { line });
        self.outputs.push_back(Output::Store { token, record });
        self.changed(line);
    }

    fn message(&mut self, from: NodeId, message: ToHolder) {
        let ToHolder { terms, ask } = message;
        let line = terms.line();
        let number = match &ask {
            Ask::Fetch { ticket, id, question } => {
                let answer = self.fetch(line, *ticket, *id, question);
                return self.send(from, terms, Channel::Bulk, answer);
            }
            Ask::Ship(ship) => ship.transfer,
            Ask::Adopt { transfer, .. } => *transfer,
            Ask::Commit { .. } | Ask::Seal | Ask::Fork { .. } => 0,
        };
        if let Ask::Fork { parent } = &ask
            && !self.fork(terms, *parent)
        {
            return self.refuse(from, terms, number, Why::Gone);
        }
        if !self.lines.contains_key(&line) && self.lines.len() >= LINES_MAX {
            return self.refuse(from, terms, number, Why::NoRoom);
        }
        let held = self.lines.entry(line).or_insert_with(Held::new);
        if let Err(counter) = held.admit(terms, self.planted) {
            let by = Epoch { branch: line.branch, counter };
            return self.refuse(from, terms, number, Why::Superseded { by });
        }
        match ask {
            Ask::Ship(ship) => self.ship(from, terms, ship),
            Ask::Commit { id } => self.commit(line, id),
            Ask::Adopt { transfer, id, root, joins } => {
                let planted = self.planted;
                match self.held(line).adopt(terms, id, root, joins, planted) {
                    Err(why) => self.refuse(from, terms, transfer, why),
                    Ok(dropped) => {
                        let news = self.held(line).made_up();
                        self.write_seal(line, dropped.then_some(id), news);
                        self.acknowledge(from, terms, id, transfer);
                    }
                }
            }
            Ask::Seal | Ask::Fork { .. } => {
                self.write_seal(line, None, false);
                self.answer_when_flushed(Waiting { to: from, terms, owed: Owed::Report });
            }
            Ask::Fetch { .. } => unreachable!("answered above"),
        }
    }

    fn ship(&mut self, from: NodeId, terms: Terms, ship: Ship) {
        let line = terms.line();
        self.commit(line, ship.committed);
        let unfinished: u64 = self.lines.values().map(Held::unfinished_bytes).sum();
        let full = self.no_room || unfinished >= UNFINISHED_BYTES_MAX.0;
        let (id, transfer, part) = (ship.id, ship.transfer, ship.part);
        let (now, planted) = (self.now, self.planted);
        match self.held(line).take(now, terms, ship, full, planted) {
            Taken::Nothing => {}
            Taken::Part { have } => {
                let answer = Answer::Received { transfer, part, have };
                self.send(from, terms, Channel::State, answer);
            }
            Taken::Refused(why) => {
                if why == Why::Corrupt {
                    let what = alloc::format!("checkpoint {id} from {from} is damaged");
                    self.outputs.push_back(Output::Corrupt { line, what });
                }
                self.refuse(from, terms, transfer, why);
            }
            Taken::Known => {
                let news = self.held(line).made_up();
                self.write_seal(line, None, news);
                self.acknowledge(from, terms, id, transfer);
            }
            Taken::Complete { head, parts } => {
                self.held(line).made_up();
                self.store(line, Record::Checkpoint { line, head, parts });
                self.acknowledge(from, terms, id, transfer);
            }
        }
    }

    fn commit(&mut self, line: Line, id: CheckpointId) {
        if id == NONE || !self.held(line).chain.commit(id) {
            return;
        }
        self.store(line, Record::Committed { line, id });
        self.changed(line);
        if self.held(line).log_is_long() {
            self.store_snapshot(line);
        }
    }

    /// Writes down which epoch is sealed, unless that is done and nothing else is to be said.
    /// `news`: how acknowledgements are given is.
    fn write_seal(&mut self, line: Line, above: Option<CheckpointId>, news: bool) {
        let held = self.held(line);
        if news || above.is_some() || held.sealed > held.written_seal {
            let (counter, durable) = (held.sealed, held.durable_to_write());
            self.store(line, Record::Sealed { line, counter, durable, above });
        }
    }

    fn acknowledge(&mut self, to: NodeId, terms: Terms, id: CheckpointId, transfer: u64) {
        self.answer_when_flushed(Waiting { to, terms, owed: Owed::Ack { id, transfer } });
    }

    /// Answers at once, or, if it has to be so, when all that was written of the line is flushed.
    fn answer_when_flushed(&mut self, waiting: Waiting) {
        let line = waiting.terms.line();
        let early = match waiting.owed {
            Owed::Ack { .. } => Fault::AcksBeforeFlush,
            Owed::Report => Fault::ReportsBeforeFlush,
        };
        let (now, early) = (self.now, self.planted.has(early));
        let held = self.held(line);
        if early || !held.must_flush(waiting.terms.durable) {
            return self.answer(waiting);
        }
        if held.behind {
            if now < held.retry_at {
                let Waiting { to, terms, owed } = waiting;
                return self.refuse(to, terms, owed.number(), Why::NotStored);
            }
            self.store_snapshot(line);
        }
        let token = self.held(line).last_token;
        match self.stores.get_mut(&token) {
            // A question that was repeated meanwhile gets one answer.
            Some(store) if store.waiting.contains(&waiting) => {}
            Some(store) => store.waiting.push(waiting),
            None => self.answer(waiting),
        }
    }

    fn answer(&mut self, Waiting { to, terms, owed }: Waiting) {
        let answer = match owed {
            Owed::Ack { id, .. } => Answer::Ack { id },
            Owed::Report => Answer::Report(self.held(terms.line()).report()),
        };
        self.send(to, terms, Channel::State, answer);
    }

    fn stored(&mut self, token: Token) {
        let Some(store) = self.stores.remove(&token) else { return };
        let Some(held) = self.lines.get_mut(&store.line) else { return };
        if !held.stored(token, store.durable) {
            return self.refuse_all(store);
        }
        let (sealed, catches_up) = (held.sealed, held.may_catch_up(self.now));
        for waiting in store.waiting {
            let Waiting { to, terms, owed } = waiting;
            // What was sealed off meanwhile must not be acknowledged any more.
            if terms.epoch.counter < sealed {
                let by = Epoch { branch: store.line.branch, counter: sealed };
                self.refuse(to, terms, owed.number(), Why::Superseded { by });
            } else {
                self.answer(waiting);
            }
        }
        if catches_up {
            self.store_snapshot(store.line);
        }
    }

    fn store_failed(&mut self, token: Token) {
        let Some(store) = self.stores.remove(&token) else { return };
        let retry_at = self.now + STORE_RETRY;
        if let Some(held) = self.lines.get_mut(&store.line) {
            held.store_failed(retry_at);
        }
        self.refuse_all(store);
    }

    fn refuse_all(&mut self, store: Store) {
        for Waiting { to, terms, owed } in store.waiting {
            self.refuse(to, terms, owed.number(), Why::NotStored);
        }
    }

    /// Writes a record down. If the disk is behind, the next snapshot will say it.
    fn store(&mut self, line: Line, record: Record) {
        let now = self.now;
        let held = self.held(line);
        held.written_seal = held.sealed;
        if held.behind {
            if held.may_catch_up(now) {
                self.store_snapshot(line);
            }
            return;
        }
        if held.outstanding >= STORES_MAX {
            held.behind = true;
            return;
        }
        held.log_grows(&record);
        self.put(line, record);
    }

    fn store_snapshot(&mut self, line: Line) {
        let record = self.held(line).snapshot(line);
        let token = self.put(line, record);
        self.held(line).snapshot_token = Some(token);
    }

    fn put(&mut self, line: Line, record: Record) -> Token {
        self.last_token += 1;
        let token = self.last_token;
        let held = self.held(line);
        held.outstanding += 1;
        held.last_token = token;
        let durable = held.durable;
        self.stores.insert(token, Store { line, durable, waiting: Vec::new() });
        self.outputs.push_back(Output::Store { token, record });
        token
    }

    fn fetch(&self, line: Line, ticket: u64, id: CheckpointId, question: &Question) -> Answer {
        let refuse = |why| Answer::Refuse { number: ticket, why };
        let point = self.lines.get(&line).and_then(|held| held.chain.find(id));
        let Some(Point { image, .. }) = point else { return refuse(Why::Gone) };
        match question {
            Question::Outline => Answer::Outline { ticket, spaces: image.outline() },
            Question::Nodes { space, level, indices } => {
                let nodes = read_nodes(image, space, *level, indices);
                nodes.map_or(refuse(Why::Malformed), |nodes| Answer::Nodes { ticket, nodes })
            }
            Question::Blocks { space, indices } => {
                let blocks = read_blocks(image, space, indices);
                blocks.map_or(refuse(Why::Malformed), |diff| Answer::Blocks {
                    ticket,
                    body: diff.encode().remove(0),
                })
            }
        }
    }

    fn held(&mut self, line: Line) -> &mut Held {
        self.lines.get_mut(&line).expect("the line is held")
    }

    fn changed(&mut self, line: Line) {
        let ready = self.lines.get(&line).and_then(|held| held.chain.ready());
        let (committed, size) =
            ready.map_or((NONE, ByteCount(0)), |point| (point.id, point.image.size()));
        self.outputs.push_back(Output::Changed { line, committed, size });
    }

    fn refuse(&mut self, to: NodeId, terms: Terms, number: u64, why: Why) {
        self.send(to, terms, Channel::State, Answer::Refuse { number, why });
    }

    fn send(&mut self, to: NodeId, terms: Terms, channel: Channel, answer: Answer) {
        let Terms { service, epoch, .. } = terms;
        let message = FromHolder { service, epoch, incarnation: self.me.incarnation, answer };
        self.outputs.push_back(Output::Send { to, channel, message });
    }
}

/// `None` if too many are asked for, or there is no such space or level.
fn read_nodes(
    image: &Image,
    space: &SpaceName,
    level: u32,
    indices: &[u32],
) -> Option<Vec<[Digest; crate::image::FANOUT]>> {
    let space = image.space(space.as_str())?;
    let fits = indices.len() <= NODES_PER_QUESTION;
    fits.then(|| indices.iter().map(|index| space.node(level, *index)).collect())?
}

/// `None` if too many are asked for, or not in order, or there is no such space.
fn read_blocks(image: &Image, name: &SpaceName, indices: &[u32]) -> Option<Diff> {
    let space = image.space(name.as_str())?;
    if indices.len() > BLOCKS_PER_QUESTION || !indices.is_sorted_by(|a, b| a < b) {
        return None;
    }
    let writes = indices.iter().map(|index| (*index, space.block(*index).cloned()));
    Some(Diff::of_blocks(name.clone(), space.len(), writes.collect()))
}

#[cfg(test)]
mod tests;
