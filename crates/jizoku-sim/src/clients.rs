//! The simulated clients: each has one connection at a time, asks, and waits for the answer.
//!
//! What it does not know: how bytes travel. The world moves what lies in `outbox` and `inbox`.
//!
//! Invariant: answers on a connection come in the order of the questions, each with its tag;
//! anything else is a violation of check 5.

use std::collections::VecDeque;

use jizoku_engine::fake::{self, ANSWER};
use jizoku_types::{ConnId, Instant, Span};

use crate::history::{Counter, History, Op, OperationId, Seen};
use crate::net::HostId;
use crate::rng::Rng;

/// Counters that clients of one service use.
pub const COUNTERS: Counter = 3;

/// A client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// Through which machine.
    pub host: HostId,
    /// In which life of its agent.
    pub life: u64,
    /// As the gateway calls it.
    pub id: ConnId,
    /// When it was opened.
    pub since: Instant,
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Adds and reads until trouble ends.
    Normal,
    /// Reads all counters once, at the end; this one is next.
    Last(Counter),
}

/// See the module's header.
#[derive(Debug)]
pub struct Client {
    /// Index of its service.
    pub service: usize,
    /// What it is there for.
    pub mode: Mode,
    /// It never gives a connection up.
    pub loyal: bool,
    /// Its connection.
    pub conn: Option<Conn>,
    /// Grows with each connection: events of older ones are void.
    pub serial: u64,
    /// Bytes on their way to the gateway.
    pub outbox: VecDeque<u8>,
    /// Bytes on their way here.
    pub inbox: VecDeque<u8>,
    /// When the last of them arrive.
    pub inbox_until: Instant,
    /// See [`Client::inbox_until`].
    pub outbox_until: Instant,
    /// Its next question kills the program.
    pub poison: bool,
    number: u64,
    tag: u64,
    awaiting: VecDeque<(u64, Option<OperationId>)>,
    partial: Vec<u8>,
}

impl Client {
    /// A client of a service.
    pub fn new(number: u64, service: usize, mode: Mode, loyal: bool) -> Client {
        Client {
            service,
            mode,
            loyal,
            conn: None,
            serial: 0,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            inbox_until: Instant::ORIGIN,
            outbox_until: Instant::ORIGIN,
            poison: false,
            number,
            tag: 0,
            awaiting: VecDeque::new(),
            partial: Vec::new(),
        }
    }

    /// Whether it has asked all that it wanted to know.
    pub fn is_done(&self) -> bool {
        self.mode == Mode::Last(COUNTERS)
    }

    /// Whether it waits for answers.
    pub fn waits(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// The tag of the oldest question that isn't answered.
    pub fn oldest(&self) -> Option<u64> {
        self.awaiting.front().map(|(tag, _)| *tag)
    }

    /// The connection is gone; questions without an answer stay so.
    pub fn disconnected(&mut self) {
        self.conn = None;
        self.serial += 1;
        self.outbox.clear();
        self.inbox.clear();
        self.awaiting.clear();
        self.partial.clear();
    }

    /// Asks one thing, or some at once. Gives the length of each piece in which it is sent.
    pub fn ask(&mut self, at: Instant, history: &mut History, rng: &mut Rng) -> Vec<usize> {
        let many =
            if self.mode == Mode::Normal && rng.permille(120) { 2 + rng.index(4) } else { 1 };
        let before = self.outbox.len();
        for _ in 0..many {
            self.tag += 1;
            let tag = self.number << 32 | self.tag;
            let (op, counter) = match self.mode {
                Mode::Last(counter) => (Op::Read, counter),
                Mode::Normal => {
                    let op = if rng.permille(600) { Op::Add } else { Op::Read };
                    (op, rng.below(u64::from(COUNTERS)) as Counter)
                }
            };
            let (verb, operation) = if std::mem::take(&mut self.poison) {
                (fake::Op::Die, None)
            } else {
                let verb = if op == Op::Add { fake::Op::Add } else { fake::Op::Read };
                (verb, Some(history.begin(op, counter, at)))
            };
            self.outbox.extend(fake::request(verb, counter, tag));
            self.awaiting.push_back((tag, operation));
        }
        let mut rest = self.outbox.len() - before;
        let mut pieces = Vec::new();
        while rest > 0 {
            let piece = if rng.permille(700) { rest } else { 1 + rng.index(rest) };
            pieces.push(piece);
            rest -= piece;
        }
        pieces
    }

    /// So many bytes of the inbox have arrived, from there.
    ///
    /// # Errors
    /// If they are not the answers that were to come.
    pub fn receive(
        &mut self,
        at: Instant,
        (count, seen): (usize, Seen),
        history: &mut History,
    ) -> Result<u64, String> {
        self.partial.extend(self.inbox.drain(..count));
        let mut answered = 0;
        while self.partial.len() >= ANSWER {
            let mut answer = [0; ANSWER];
            answer.copy_from_slice(&self.partial[..ANSWER]);
            self.partial.drain(..ANSWER);
            let (tag, value) = fake::answer(&answer);
            let Some((expected, operation)) = self.awaiting.pop_front() else {
                return Err(format!("5: client {} got an answer too many: {tag:x}", self.number));
            };
            if tag != expected {
                return Err(format!(
                    "5: client {} got the answer {tag:x} where {expected:x} was to come",
                    self.number
                ));
            }
            if let Some(operation) = operation {
                history.end(operation, at, value, seen);
            }
            answered += 1;
            if let Mode::Last(counter) = &mut self.mode {
                *counter += 1;
            }
        }
        if self.awaiting.is_empty() && !self.partial.is_empty() {
            return Err(format!("5: client {} got bytes that it did not ask for", self.number));
        }
        Ok(answered)
    }

    /// How long it thinks before it asks again.
    /// `hot`: something happens now, so that there is much to be seen.
    pub fn thinks(&self, hot: bool, rng: &mut Rng) -> Span {
        match self.mode {
            Mode::Last(_) => Span::millis(1),
            Mode::Normal if hot => rng.span(Span::ZERO, Span::millis(12)),
            Mode::Normal if rng.permille(150) => Span::millis(5),
            Mode::Normal => rng.span(Span::millis(50), Span::millis(700)),
        }
    }
}
