//! A filter made for the records of one shape: what the shape decides is decided once, fields are
//! places in a record's bytes.
//!
//! What it does not know: where a record is stored.
//!
//! Invariant: it accepts what the filter accepts, of records of its shape.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::segment::View;
use super::shape::{Shape, Slot, word};
use crate::expr::{Builtin, Op, Pred, Term, compare};
use crate::value::{Trace, Type, ValueRef};

/// See the module's header.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    Never,
    Always,
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    /// A fraction at a place, compared with a number.
    Float {
        at: usize,
        op: Op,
        with: f64,
    },
    /// A whole number or duration at a place, compared with one.
    Int {
        at: usize,
        op: Op,
        with: i64,
    },
    /// A text, compared with one.
    Text {
        number: usize,
        op: Op,
        with: String,
    },
    /// A text that has a part.
    Part {
        number: usize,
        part: String,
    },
    Trace(Trace),
    Time {
        op: Op,
        with: u64,
    },
    /// Anything else, by the names of fields.
    Other(Pred),
}

/// What is known of a value before there is a record.
enum Known<'k> {
    Value(ValueRef<'k>),
    Absent,
    Slot(Slot),
    Trace,
    Time,
    Unknown,
}

fn known<'k>(term: &'k Term, shape: &'k Shape) -> Known<'k> {
    match term {
        Term::Const(value) => Known::Value(value.borrow()),
        Term::Builtin(Builtin::Event) => Known::Value(ValueRef::Str(&shape.event)),
        Term::Builtin(Builtin::Host) => Known::Value(ValueRef::Str(&shape.host)),
        Term::Builtin(Builtin::Source) => Known::Value(ValueRef::Str(&shape.source)),
        Term::Builtin(Builtin::Level) => Known::Value(ValueRef::Level(shape.level)),
        Term::Builtin(Builtin::Trace) => Known::Trace,
        Term::Builtin(Builtin::Time) => Known::Time,
        Term::Field(name) => shape.slot(name).map_or(Known::Absent, Known::Slot),
        Term::Absent => Known::Absent,
        Term::Builtin(Builtin::Seq) | Term::Minus(_) | Term::Math { .. } => Known::Unknown,
    }
}

fn always(holds: bool) -> Test {
    if holds { Test::Always } else { Test::Never }
}

/// The same comparison with its sides changed.
fn turned(op: Op) -> Op {
    match op {
        Op::Lt => Op::Gt,
        Op::Le => Op::Ge,
        Op::Gt => Op::Lt,
        Op::Ge => Op::Le,
        other => other,
    }
}

impl Test {
    pub(crate) fn of(pred: &Pred, shape: &Shape) -> Test {
        match pred {
            Pred::Const(value) => always(*value),
            Pred::And(parts) => Test::all(parts, shape),
            Pred::Or(parts) => Test::any(parts, shape),
            Pred::Not(inner) => match Test::of(inner, shape) {
                Test::Never => Test::Always,
                Test::Always => Test::Never,
                inner => Test::Not(Box::new(inner)),
            },
            Pred::Compare { op, left, right } => {
                Test::comparison(*op, known(left, shape), known(right, shape))
                    .unwrap_or_else(|| Test::Other(pred.clone()))
            }
            Pred::In { term, values } => match known(term, shape) {
                Known::Value(found) => {
                    always(values.iter().any(|value| compare(Op::Eq, found, value.borrow())))
                }
                Known::Absent => Test::Never,
                _ => Test::Other(pred.clone()),
            },
            Pred::Has { term, part } => match (known(term, shape), part) {
                (_, None) | (Known::Absent | Known::Slot(Slot::Fixed(..)), _) => Test::Never,
                (Known::Value(ValueRef::Str(text)), Some(part)) => {
                    always(text.contains(part.as_str()))
                }
                (Known::Slot(Slot::Text(number)), Some(part)) => {
                    Test::Part { number, part: part.clone() }
                }
                _ => Test::Other(pred.clone()),
            },
            Pred::Matches { term, glob } => match (known(term, shape), glob) {
                (_, None) | (Known::Absent | Known::Slot(Slot::Fixed(..)), _) => Test::Never,
                (Known::Value(ValueRef::Str(text)), Some(glob)) => always(glob.matches(text)),
                _ => Test::Other(pred.clone()),
            },
            Pred::HasAny(None) => Test::Never,
            Pred::HasAny(Some(_)) => Test::Other(pred.clone()),
            Pred::Exists(term) => match known(term, shape) {
                Known::Absent => Test::Never,
                Known::Unknown => Test::Other(pred.clone()),
                _ => Test::Always,
            },
            Pred::Truth(term) => match known(term, shape) {
                Known::Absent => Test::Never,
                Known::Slot(slot) if !matches!(slot, Slot::Fixed(Type::Bool, _)) => Test::Never,
                _ => Test::Other(pred.clone()),
            },
        }
    }

    fn all(parts: &[Pred], shape: &Shape) -> Test {
        let mut tests = Vec::new();
        for part in parts {
            match Test::of(part, shape) {
                Test::Never => return Test::Never,
                Test::Always => {}
                test => tests.push(test),
            }
        }
        match tests.len() {
            0 => Test::Always,
            1 => tests.remove(0),
            _ => Test::All(tests),
        }
    }

    fn any(parts: &[Pred], shape: &Shape) -> Test {
        let mut tests = Vec::new();
        for part in parts {
            match Test::of(part, shape) {
                Test::Always => return Test::Always,
                Test::Never => {}
                test => tests.push(test),
            }
        }
        match tests.len() {
            0 => Test::Never,
            1 => tests.remove(0),
            _ => Test::Any(tests),
        }
    }

    fn comparison(op: Op, left: Known<'_>, right: Known<'_>) -> Option<Test> {
        let test = match (left, right) {
            (Known::Absent, _) | (_, Known::Absent) => Test::Never,
            (Known::Value(left), Known::Value(right)) => always(compare(op, left, right)),
            (Known::Value(left), right) => return Test::with(turned(op), right, left),
            (left, Known::Value(right)) => return Test::with(op, left, right),
            _ => return None,
        };
        Some(test)
    }

    /// A comparison with a value that is known.
    fn with(op: Op, left: Known<'_>, right: ValueRef<'_>) -> Option<Test> {
        let test = match (left, right) {
            (Known::Slot(Slot::Fixed(Type::Float, at)), with) => {
                with.number().map_or(Test::Never, |with| Test::Float { at, op, with })
            }
            (Known::Slot(Slot::Fixed(Type::Int, at)), ValueRef::Int(with))
            | (Known::Slot(Slot::Fixed(Type::Duration, at)), ValueRef::Duration(with)) => {
                Test::Int { at, op, with }
            }
            // A whole number with a fraction.
            (Known::Slot(Slot::Fixed(Type::Int, _)), ValueRef::Float(_)) => return None,
            (Known::Slot(Slot::Fixed(Type::Bool, _)), ValueRef::Bool(_)) => return None,
            (Known::Slot(Slot::Text(number)), ValueRef::Str(with)) => {
                Test::Text { number, op, with: with.into() }
            }
            (Known::Slot(_), _) => Test::Never,
            (Known::Trace, ValueRef::Trace(trace)) if op == Op::Eq => Test::Trace(trace),
            (Known::Time, ValueRef::Time(with)) => Test::Time { op, with },
            _ => return None,
        };
        Some(test)
    }

    /// Whether a record of the shape is accepted.
    pub(crate) fn holds(&self, view: &View<'_>, bytes: &[u8]) -> bool {
        match self {
            Test::Never => false,
            Test::Always => true,
            Test::All(tests) => tests.iter().all(|test| test.holds(view, bytes)),
            Test::Any(tests) => tests.iter().any(|test| test.holds(view, bytes)),
            Test::Not(inner) => !inner.holds(view, bytes),
            Test::Float { at, op, with } => {
                let found = f64::from_le_bytes(word(bytes, *at));
                compare(*op, ValueRef::Float(found), ValueRef::Float(*with))
            }
            Test::Int { at, op, with } => {
                let found = i64::from_le_bytes(word(bytes, *at));
                compare(*op, ValueRef::Int(found), ValueRef::Int(*with))
            }
            Test::Text { number, op, with } => {
                let found = view.shape().texts(bytes).nth(*number).unwrap_or("");
                compare(*op, ValueRef::Str(found), ValueRef::Str(with))
            }
            Test::Part { number, part } => {
                let found = view.shape().texts(bytes).nth(*number).unwrap_or("");
                found.contains(part.as_str())
            }
            Test::Trace(trace) => view.trace() == *trace,
            Test::Time { op, with } => {
                compare(*op, ValueRef::Time(view.time()), ValueRef::Time(*with))
            }
            Test::Other(pred) => pred.holds(view),
        }
    }
}
