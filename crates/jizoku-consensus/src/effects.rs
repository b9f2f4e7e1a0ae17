//! What tasks ask of the outside: outputs in order, records to persist, calls that wait for an
//! answer from another node.
//!
//! What it does not know: what the records and calls mean.
//!
//! Invariants
//! - Outputs come out in the order in which they were made.
//! - All records of one `handle` go out as one `Persist`, in order; who waits for one of them is
//!   told when that token comes back, and not before.
//!
//! Limit: [`CALLS_MAX`] calls; a call beyond it fails as if it had timed out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use jizoku_types::{ClusterId, Generation, NodeId};
use openraft::storage::IOFlushed;

use crate::bridge::Types;
use crate::interface::{Output, PersistToken};
use crate::record::{Change, Record};
use crate::runtime::{OneShotReceiver, OneShotSender, lock, one_shot};
use crate::wire::{Body, Notice, Reply, seal};

/// Most calls that wait for an answer. Each member has a few at a time.
const CALLS_MAX: usize = 8192;

/// Who waits for a record to be safe.
pub(crate) enum Waiter {
    Log(IOFlushed<Types>),
    Task(OneShotSender<()>),
}

impl Waiter {
    fn tell(self) {
        match self {
            Waiter::Log(flushed) => flushed.io_completed(Ok(())),
            Waiter::Task(sender) => {
                // The task may have ended meanwhile.
                let _ = sender.fire(());
            }
        }
    }
}

struct Call {
    to: NodeId,
    answer: OneShotSender<Reply>,
}

#[derive(Default)]
struct State {
    outputs: VecDeque<Output>,
    records: Vec<Record>,
    waiters: Vec<Waiter>,
    persisting: BTreeMap<u64, Vec<Waiter>>,
    next_token: u64,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
}

/// Shared by a value and its tasks.
#[derive(Clone)]
pub(crate) struct Effects {
    cluster: ClusterId,
    generation: Generation,
    state: Arc<Mutex<State>>,
}

impl Effects {
    pub(crate) fn new(cluster: ClusterId, generation: Generation) -> Effects {
        Effects { cluster, generation, state: Arc::default() }
    }

    pub(crate) fn output(&self, output: Output) {
        lock(&self.state).outputs.push_back(output);
    }

    pub(crate) fn next_output(&self) -> Option<Output> {
        lock(&self.state).outputs.pop_front()
    }

    pub(crate) fn send(&self, to: NodeId, body: Body) {
        let bytes = seal(self.cluster, self.generation, body);
        self.output(Output::Send { to, bytes });
    }

    pub(crate) fn notify(&self, to: NodeId, notice: Notice) {
        self.send(to, Body::Notice(notice));
    }

    /// A number for a call to `to`, and where its answer comes out.
    pub(crate) fn expect_reply(&self, to: NodeId) -> (u64, OneShotReceiver<Reply>) {
        let (answer, receiver) = one_shot();
        let mut state = lock(&self.state);
        let call = state.next_call;
        state.next_call += 1;
        if state.calls.len() < CALLS_MAX {
            state.calls.insert(call, Call { to, answer });
        }
        (call, receiver)
    }

    /// Nobody waits for this call any more.
    pub(crate) fn forget_call(&self, call: u64) {
        let forgotten = lock(&self.state).calls.remove(&call);
        drop(forgotten);
    }

    /// Hands an answer to who waits for it. Late and foreign answers are dropped.
    pub(crate) fn reply(&self, from: NodeId, call: u64, reply: Reply) {
        let answered = {
            let mut state = lock(&self.state);
            match state.calls.get(&call) {
                Some(waiting) if waiting.to == from => state.calls.remove(&call),
                _ => None,
            }
        };
        if let Some(call) = answered {
            let _ = call.answer.fire(reply);
        }
    }

    pub(crate) fn persist(&self, change: Change, waiter: Option<Waiter>) {
        let mut state = lock(&self.state);
        state.records.push(Record(change));
        state.waiters.extend(waiter);
    }

    /// Turns the records of this `handle` into one output.
    pub(crate) fn seal_records(&self) {
        let mut state = lock(&self.state);
        if state.records.is_empty() {
            return;
        }
        let records = std::mem::take(&mut state.records);
        let waiters = std::mem::take(&mut state.waiters);
        let token = state.next_token;
        state.next_token += 1;
        state.persisting.insert(token, waiters);
        state.outputs.push_back(Output::Persist { token: PersistToken(token), records });
    }

    /// The records of `token` and of all earlier ones are safe. Unknown tokens are ignored.
    pub(crate) fn persisted(&self, token: PersistToken) {
        let done = {
            let mut state = lock(&self.state);
            let later = state.persisting.split_off(&token.0.saturating_add(1));
            std::mem::replace(&mut state.persisting, later)
        };
        for waiter in done.into_values().flatten() {
            waiter.tell();
        }
    }

    /// Drops everything that waits. The value is stopped or about to be dropped.
    pub(crate) fn clear(&self) {
        let (waiters, persisting, calls) = {
            let mut state = lock(&self.state);
            state.records.clear();
            (
                std::mem::take(&mut state.waiters),
                std::mem::take(&mut state.persisting),
                std::mem::take(&mut state.calls),
            )
        };
        drop((waiters, persisting, calls));
    }
}
