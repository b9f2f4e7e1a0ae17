//! What clients saw, and whether one copy of the service could have shown it to them.
//!
//! The simulated program keeps counters. `Add` makes a counter one higher and answers with its
//! new value; `Read` answers with its value. For such an object linearizability can be checked
//! in one pass over the history, without a search (compare Wing and Gong, 1993, for the general
//! case):
//!
//! 1. Acknowledged values of `Add` on one counter are distinct.
//! 2. If operation a ended before b began, then b's value is not lower than a's; and higher, if
//!    b is an `Add`.
//! 3. A value v was possible: at least v `Add`s had begun before the answer came.
//! 4. Nothing acknowledged is lost: this is rule 2, seen from the last read of all counters.
//!
//! An operation whose answer never came may have taken place or not; it only counts for rule 3.

use std::collections::BTreeMap;

use jizoku_types::{CheckpointId, Epoch, Instant};

use crate::lines::Lines;

/// Which counter.
pub type Counter = u16;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// One more; answers with the new value.
    Add,
    /// Answers with the value.
    Read,
}

/// One question and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What was asked.
    pub op: Op,
    /// Of which counter.
    pub counter: Counter,
    /// When it was sent.
    pub began: Instant,
    /// When the answer came, and what it was; none if it never came.
    pub answer: Option<(Instant, u64)>,
    /// In which epoch it left the gateway, and what that had released until then.
    pub seen: Seen,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The epoch that the gateway followed.
    pub epoch: Epoch,
    /// The highest checkpoint that was released in it by then.
    pub covered: CheckpointId,
}

/// All operations of a run, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

/// Which of the operations: what [`History::begin`] gives out.
pub type OperationId = usize;

impl History {
    /// Notes that an operation was sent.
    pub fn begin(&mut self, op: Op, counter: Counter, began: Instant) -> OperationId {
        let seen = Seen::default();
        self.operations.push(Operation { op, counter, began, answer: None, seen });
        self.operations.len() - 1
    }

    /// Notes its answer.
    ///
    /// # Panics
    /// If it was answered before: the caller mixed up its operations.
    pub fn end(&mut self, id: OperationId, at: Instant, value: u64, seen: Seen) {
        let operation = &mut self.operations[id];
        assert!(operation.answer.is_none(), "an operation is answered once");
        operation.answer = Some((at, value));
        operation.seen = seen;
    }

    /// What clients of one line of a service saw: the answers that are on the way to this epoch,
    /// and a read of all counters where each epoch on it began. Not of one that began from more
    /// than the next went on from: nothing of that was released, and nobody saw it.
    pub fn of_line(&self, lines: &Lines, epoch: Epoch) -> History {
        let path = lines.path(epoch);
        let on = |one: &Operation| Lines::is_on(&path, one.seen.epoch, one.seen.covered);
        let masked = |one: &Operation| Operation { answer: one.answer.filter(|_| on(one)), ..*one };
        let mut operations: Vec<Operation> = self.operations.iter().map(masked).collect();
        for (epoch, most) in &path {
            let Some((at, values)) = lines.beginning(*epoch, *most) else { continue };
            for (counter, value) in values.iter().enumerate() {
                let counter = counter as Counter;
                let (op, answer, seen) = (Op::Read, Some((at, *value)), Seen::default());
                operations.push(Operation { op, counter, began: at, answer, seen });
            }
        }
        History { operations }
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.operations.iter().filter(|operation| operation.answer.is_some()).count()
    }

    /// How many were never answered.
    pub fn open(&self) -> usize {
        self.operations.len() - self.answered()
    }

    /// The first contradiction, if there is one.
    pub fn check(&self) -> Result<(), String> {
        let mut counters: BTreeMap<Counter, Vec<Operation>> = BTreeMap::new();
        for operation in &self.operations {
            counters.entry(operation.counter).or_default().push(*operation);
        }
        counters.iter().try_for_each(|(counter, operations)| {
            check_counter(operations).map_err(|wrong| format!("counter {counter}: {wrong}"))
        })
    }
}

/// An instant at which something began or ended, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// Comes first among equals: what begins at the instant at which another ended doesn't
    /// follow it.
    Begin,
    End,
}

fn check_counter(operations: &[Operation]) -> Result<(), String> {
    let mut edges = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        edges.push((operation.began, Edge::Begin, index));
        if let Some((at, _)) = operation.answer {
            edges.push((at, Edge::End, index));
        }
    }
    edges.sort_unstable();
    let mut adds_begun = 0;
    let mut highest_ended = 0;
    let mut floor = vec![0; operations.len()];
    let mut seen = BTreeMap::new();
    for (at, edge, index) in edges {
        let operation = &operations[index];
        match (edge, operation.answer) {
            (Edge::Begin, _) => {
                adds_begun += u64::from(operation.op == Op::Add);
                floor[index] = highest_ended;
            }
            (Edge::End, Some((_, value))) => {
                if value > adds_begun {
                    return Err(format!("at {at}: value {value}, but {adds_begun} adds had begun"));
                }
                let least = floor[index] + u64::from(operation.op == Op::Add);
                if value < least {
                    return Err(format!(
                        "at {at}: {:?} gave {value}, but {} was acknowledged before it began at {}",
                        operation.op, floor[index], operation.began
                    ));
                }
                if operation.op == Op::Add && seen.insert(value, at).is_some() {
                    return Err(format!("at {at}: value {value} was given to two adds"));
                }
                highest_ended = highest_ended.max(value);
            }
            (Edge::End, None) => unreachable!("only answered operations have an end"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What, when it began, when it was answered with what.
    type Case = (Op, u64, Option<(u64, u64)>);

    fn history(operations: &[Case]) -> History {
        let mut history = History::default();
        for (op, began, answer) in operations {
            let id = history.begin(*op, 0, Instant::from_nanos(*began));
            if let Some((at, value)) = answer {
                history.end(id, Instant::from_nanos(*at), *value, Seen::default());
            }
        }
        history
    }

    #[test]
    fn good_histories_pass() {
        for operations in [
            &[(Op::Add, 0, Some((1, 1))), (Op::Add, 2, Some((3, 2))), (Op::Read, 4, Some((5, 2)))]
                [..],
            // Two at a time, answered in the other order.
            &[(Op::Add, 0, Some((5, 2))), (Op::Add, 1, Some((4, 1)))][..],
            // One without an answer that took place, one that didn't.
            &[(Op::Add, 0, None), (Op::Read, 1, Some((2, 1)))][..],
            &[(Op::Add, 0, None), (Op::Read, 1, Some((2, 0)))][..],
        ] {
            assert_eq!(history(operations).check(), Ok(()), "{operations:?}");
        }
    }

    #[test]
    fn contradictions_are_found() {
        for operations in [
            // Lost.
            &[(Op::Add, 0, Some((1, 1))), (Op::Read, 2, Some((3, 0)))][..],
            // Stale read.
            &[(Op::Add, 0, Some((1, 1))), (Op::Add, 2, Some((3, 2))), (Op::Read, 4, Some((5, 1)))]
                [..],
            // Given twice.
            &[(Op::Add, 0, Some((9, 1))), (Op::Add, 1, Some((8, 1)))][..],
            // Done twice.
            &[(Op::Add, 0, Some((1, 2)))][..],
        ] {
            assert!(history(operations).check().is_err(), "{operations:?}");
        }
    }
}
