//! What leaves the value: outputs in order, records to persist, and messages that may only be sent
//! once records before them are safe.
//!
//! What it does not know: what the records and messages mean.
//!
//! Invariants
//! - Outputs come out in the order in which they were made.
//! - All records of one `handle` go out as one `Persist`, in order.
//! - A message that waits for a mark is sent when every record made before the mark is safe, and
//!   not before. Messages that wait leave in their order.
//!
//! Limit: [`WAITING_MAX`] messages wait; more are dropped, as if lost on the way.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use jizoku_types::{ClusterId, Generation, NodeId};

use crate::interface::{Output, PersistToken};
use crate::record::{Change, Record};
use crate::wire::{Body, Notice, seal};

/// Most messages that wait for the disk. Members ask again.
const WAITING_MAX: usize = 4096;

/// A point in the stream of records: safe once that many tokens are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

#[derive(Debug)]
pub(crate) struct Outbox {
    cluster: ClusterId,
    generation: Generation,
    outputs: VecDeque<Output>,
    /// Records of this `handle`.
    records: Vec<Record>,
    /// Tokens that were given out, and how many of them are safe.
    tokens: u64,
    safe: u64,
    waiting: VecDeque<(Mark, NodeId, Body)>,
}

impl Outbox {
    pub(crate) fn new(cluster: ClusterId, generation: Generation) -> Outbox {
        Outbox {
            cluster,
            generation,
            outputs: VecDeque::new(),
            records: Vec::new(),
            tokens: 0,
            safe: 0,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let bytes = seal(self.cluster, self.generation, body);
        self.output(Output::Send { to, bytes });
    }

    pub(crate) fn notify(&mut self, to: NodeId, notice: Notice) {
        self.send(to, Body::Notice(notice));
    }

    /// Sends `body` as soon as `mark` is safe.
    pub(crate) fn send_once_safe(&mut self, mark: Mark, to: NodeId, body: Body) {
        if self.is_safe(mark) {
            self.send(to, body);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((mark, to, body));
        }
    }

    pub(crate) fn persist(&mut self, change: Change) {
        self.records.push(Record(change));
    }

    /// The point after every record so far.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.tokens + u64::from(!self.records.is_empty()))
    }

    pub(crate) fn is_safe(&self, mark: Mark) -> bool {
        self.safe >= mark.0
    }

    /// Turns the records of this `handle` into one output.
    pub(crate) fn seal_records(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let records = core::mem::take(&mut self.records);
        let token = PersistToken(self.tokens);
        self.tokens += 1;
        self.outputs.push_back(Output::Persist { token, records });
    }

    /// The records of `token` and of all earlier ones are safe. Unknown tokens are ignored.
    pub(crate) fn persisted(&mut self, token: PersistToken) {
        if token.0 >= self.tokens {
            return;
        }
        self.safe = self.safe.max(token.0 + 1);
        while let Some((_, to, body)) = self.waiting.pop_front_if(|(mark, ..)| mark.0 <= self.safe)
        {
            self.send(to, body);
        }
    }

    /// Drops what waits. The value is stopped.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.waiting.clear();
    }
}
