//! A checked expression, and whether a record is as it says.
//!
//! What it does not know: texts, how records are stored.
//!
//! Invariant: evaluating neither fails nor panics, whatever the record holds.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::glob::Glob;
use super::syntax::{Builtin, Op};
use crate::value::{Trace, Value, ValueRef};

/// What a filter looks at.
pub trait Fields {
    /// Something that every record has.
    fn builtin(&self, builtin: Builtin) -> ValueRef<'_>;
    /// A field; `None`: the record hasn't got it.
    fn field(&self, name: &str) -> Option<ValueRef<'_>>;
    /// Whether `wanted` is true of any text in the record's fields.
    fn any_text(&self, wanted: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// A condition on records that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub(crate) pred: Pred,
    pub(super) events: Option<BTreeSet<String>>,
}

impl Filter {
    /// The filter that accepts everything.
    pub fn all() -> Filter {
        Filter { pred: Pred::Const(true), events: None }
    }

    /// Whether it accepts a record.
    pub fn accepts(&self, record: &impl Fields) -> bool {
        self.pred.holds(record)
    }

    /// The events that it can accept; `None`: any.
    pub fn events(&self) -> Option<&BTreeSet<String>> {
        self.events.as_ref()
    }

    /// The only trace that it can accept, if there is one.
    pub fn trace(&self) -> Option<Trace> {
        let of = |pred: &Pred| match pred {
            Pred::Compare { op: Op::Eq, left, right } => match (left, right) {
                (Term::Builtin(Builtin::Trace), Term::Const(Value::Trace(trace)))
                | (Term::Const(Value::Trace(trace)), Term::Builtin(Builtin::Trace)) => Some(*trace),
                _ => None,
            },
            _ => None,
        };
        match &self.pred {
            Pred::And(parts) => parts.iter().find_map(of),
            other => of(other),
        }
    }

    /// Both this and that.
    pub fn and(self, other: Filter) -> Filter {
        let events = match (self.events, other.events) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        };
        Filter { pred: Pred::And(Vec::from([self.pred, other.pred])), events }
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pred {
    Const(bool),
    And(Vec<Pred>),
    Or(Vec<Pred>),
    Not(Box<Pred>),
    Compare {
        op: Op,
        left: Term,
        right: Term,
    },
    In {
        term: Term,
        values: Vec<Value>,
    },
    /// Without a part or pattern: it is not bound.
    Has {
        term: Term,
        part: Option<String>,
    },
    Matches {
        term: Term,
        glob: Option<Glob>,
    },
    HasAny(Option<String>),
    Exists(Term),
    Truth(Term),
}

/// A value of a record, or made of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    Const(Value),
    Builtin(Builtin),
    Field(String),
    /// Not bound.
    Absent,
    Minus(Box<Term>),
    Math {
        op: Op,
        left: Box<Term>,
        right: Box<Term>,
    },
}

impl Pred {
    pub(crate) fn event(event: &str) -> Pred {
        let right = Term::Const(Value::Str(event.to_string()));
        Pred::Compare { op: Op::Eq, left: Term::Builtin(Builtin::Event), right }
    }

    pub(crate) fn holds(&self, record: &impl Fields) -> bool {
        match self {
            Pred::Const(value) => *value,
            Pred::And(parts) => parts.iter().all(|part| part.holds(record)),
            Pred::Or(parts) => parts.iter().any(|part| part.holds(record)),
            Pred::Not(inner) => !inner.holds(record),
            Pred::Compare { op, left, right } => match (left.value(record), right.value(record)) {
                (Some(left), Some(right)) => compare(*op, left, right),
                _ => false,
            },
            Pred::In { term, values } => term.value(record).is_some_and(|found| {
                values.iter().any(|value| compare(Op::Eq, found, value.borrow()))
            }),
            Pred::Has { term, part: Some(part) } => match term.value(record) {
                Some(ValueRef::Str(text)) => text.contains(part.as_str()),
                _ => false,
            },
            Pred::Matches { term, glob: Some(glob) } => match term.value(record) {
                Some(ValueRef::Str(text)) => glob.matches(text),
                _ => false,
            },
            Pred::HasAny(Some(part)) => record.any_text(&mut |text| text.contains(part.as_str())),
            Pred::Has { .. } | Pred::Matches { .. } | Pred::HasAny(None) => false,
            Pred::Exists(term) => term.value(record).is_some(),
            Pred::Truth(term) => term.value(record) == Some(ValueRef::Bool(true)),
        }
    }
}

/// Whether a comparison of two values is true.
pub(crate) fn compare(op: Op, left: ValueRef<'_>, right: ValueRef<'_>) -> bool {
    let Some(order) = left.compare(right) else { return false };
    match op {
        Op::Eq => order == Ordering::Equal,
        Op::Ne => order != Ordering::Equal,
        Op::Lt => order == Ordering::Less,
        Op::Le => order != Ordering::Greater,
        Op::Gt => order == Ordering::Greater,
        Op::Ge => order != Ordering::Less,
        _ => false,
    }
}

impl Term {
    fn value<'r>(&'r self, record: &'r impl Fields) -> Option<ValueRef<'r>> {
        match self {
            Term::Const(value) => Some(value.borrow()),
            Term::Builtin(builtin) => Some(record.builtin(*builtin)),
            Term::Field(name) => record.field(name),
            Term::Absent => None,
            Term::Minus(inner) => match inner.value(record)? {
                ValueRef::Int(n) => n.checked_neg().map(ValueRef::Int),
                ValueRef::Float(n) => Some(ValueRef::Float(-n)),
                ValueRef::Duration(n) => n.checked_neg().map(ValueRef::Duration),
                _ => None,
            },
            Term::Math { op, left, right } => math(*op, left.value(record)?, right.value(record)?),
        }
    }
}

/// What cannot be calculated is absent.
fn math<'r>(op: Op, left: ValueRef<'r>, right: ValueRef<'r>) -> Option<ValueRef<'r>> {
    let whole = |a: i64, b: i64| match op {
        Op::Add => a.checked_add(b),
        Op::Sub => a.checked_sub(b),
        Op::Mul => a.checked_mul(b),
        Op::Div => a.checked_div(b),
        Op::Rem => a.checked_rem(b),
        _ => None,
    };
    match (left, right) {
        (ValueRef::Int(a), ValueRef::Int(b)) => whole(a, b).map(ValueRef::Int),
        (ValueRef::Duration(a), ValueRef::Duration(b)) => match op {
            Op::Add | Op::Sub | Op::Rem => whole(a, b).map(ValueRef::Duration),
            Op::Div => fraction(op, ValueRef::Int(a).number()?, ValueRef::Int(b).number()?),
            _ => None,
        },
        (ValueRef::Duration(a), ValueRef::Int(b)) if matches!(op, Op::Mul | Op::Div) => {
            whole(a, b).map(ValueRef::Duration)
        }
        _ => fraction(op, left.number()?, right.number()?),
    }
}

fn fraction<'r>(op: Op, a: f64, b: f64) -> Option<ValueRef<'r>> {
    let result = match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div => a / b,
        Op::Rem => a % b,
        _ => return None,
    };
    result.is_finite().then_some(ValueRef::Float(result))
}
