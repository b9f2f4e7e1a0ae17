//! Types and names of an expression, against the events that were declared.
//!
//! An expression that can only be true of declared events is checked against their fields: a
//! field that none of them has is a mistake. Else fields have the type `any`.
//!
//! What it does not know: records.
//!
//! Invariant: all mistakes are reported, in the order in which they stand in the text.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::filter::{Filter, Pred, Term};
use super::glob::Glob;
use super::syntax::{Builtin, Expr, Kind, Op};
use crate::moment;
use crate::problem::{Place, Problem, nearest};
use crate::schema::Schemas;
use crate::value::{Level, Trace, Type, Value};

/// What a filter may name.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'s> {
    /// The declared events.
    pub schemas: &'s Schemas,
    /// The event that records are of in any case, where the filter stands behind one.
    pub event: Option<&'s str>,
    /// `$name`s, and their types.
    pub outer: &'s BTreeMap<String, Type>,
}

/// Checks an expression. A filter with `$name`s in it accepts nothing where they are compared:
/// [bind](Expr::bind) them first.
pub fn check(expr: &Expr, scope: Scope<'_>) -> Result<Filter, Vec<Problem>> {
    let named = scope.event.map(|event| BTreeSet::from([event.to_string()]));
    let events = both(named.clone(), events_of(expr));
    let mut checker = Checker { scope, fields: None, problems: Vec::new() };
    checker.fields = events.as_ref().and_then(|events| checker.fields_of(events));
    let pred = checker.pred(expr);
    let Checker { mut problems, .. } = checker;
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.place);
        return Err(problems);
    }
    let pred = match scope.event {
        Some(event) => Pred::And(Vec::from([Pred::event(event), pred])),
        None => pred,
    };
    Ok(Filter { pred, events })
}

type Events = Option<BTreeSet<String>>;

fn both(a: Events, b: Events) -> Events {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
        (a, b) => a.or(b),
    }
}

/// The events that an expression can be true of; `None`: any.
fn events_of(expr: &Expr) -> Events {
    let Kind::Binary(op, left, right) = &expr.kind else { return None };
    let is_event = |expr: &Expr| matches!(&expr.kind, Kind::Name(name) if name == "event");
    let text = |expr: &Expr| match &expr.kind {
        Kind::Literal(Value::Str(text)) => Some(text.clone()),
        _ => None,
    };
    match op {
        Op::And => both(events_of(left), events_of(right)),
        Op::Or => Some(events_of(left)?.union(&events_of(right)?).cloned().collect()),
        Op::Eq if is_event(left) => Some(BTreeSet::from([text(right)?])),
        Op::Eq if is_event(right) => Some(BTreeSet::from([text(left)?])),
        Op::In if is_event(left) => match &right.kind {
            Kind::List(items) => items.iter().map(text).collect(),
            _ => None,
        },
        _ => None,
    }
}

struct Checker<'s> {
    scope: Scope<'s>,
    /// The fields that the records can have, if that is known.
    fields: Option<BTreeMap<String, Type>>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    /// The fields of all these events; `None` if one of them wasn't declared.
    fn fields_of(&self, events: &BTreeSet<String>) -> Option<BTreeMap<String, Type>> {
        let mut all: BTreeMap<String, Type> = BTreeMap::new();
        for event in events {
            for (name, kind) in self.scope.schemas.fields(event)? {
                let known = all.entry(name.clone()).or_insert(*kind);
                if *known != *kind {
                    *known = Type::Any;
                }
            }
        }
        Some(all)
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn pred(&mut self, expr: &Expr) -> Pred {
        match &expr.kind {
            Kind::Literal(Value::Bool(value)) => Pred::Const(*value),
            Kind::Not(inner) => Pred::Not(Box::new(self.pred(inner))),
            Kind::Exists(name) => match self.term(name).0 {
                // Every record has these.
                Term::Builtin(_) => Pred::Const(true),
                term => Pred::Exists(term),
            },
            Kind::HasAny(part) => Pred::HasAny(self.text(part)),
            Kind::Binary(Op::And, left, right) => {
                let mut parts = Vec::new();
                for side in [left, right] {
                    match self.pred(side) {
                        Pred::And(inner) => parts.extend(inner),
                        other => parts.push(other),
                    }
                }
                Pred::And(parts)
            }
            Kind::Binary(Op::Or, left, right) => {
                let mut parts = Vec::new();
                for side in [left, right] {
                    match self.pred(side) {
                        Pred::Or(inner) => parts.extend(inner),
                        other => parts.push(other),
                    }
                }
                Pred::Or(parts)
            }
            Kind::Binary(op, left, right) if op.binds() == 3 => self.comparison(*op, left, right),
            _ => {
                let (term, kind) = self.term(expr);
                if !matches!(kind, Type::Bool | Type::Any) {
                    let what = format!("a condition is needed here, this is of type {kind}");
                    let problem = Problem::new(expr.place, what);
                    self.problem(problem.hint("compare it with something"));
                }
                Pred::Truth(term)
            }
        }
    }

    fn comparison(&mut self, op: Op, left: &Expr, right: &Expr) -> Pred {
        match op {
            Op::Has => {
                let term = self.text_side(left, op);
                Pred::Has { term, part: self.text(right) }
            }
            Op::Matches => {
                let term = self.text_side(left, op);
                Pred::Matches { term, glob: self.text(right).map(|text| Glob::new(&text)) }
            }
            Op::In => self.one_of(left, right),
            _ => {
                let (left_term, right_term, kind) = self.sides(left, right);
                if let Some(kind @ (Type::Bool | Type::Trace)) = kind
                    && !matches!(op, Op::Eq | Op::Ne)
                {
                    let what = format!("values of type {kind} have no order");
                    self.problem(
                        Problem::new(left.place.to(right.place), what).hint("use == or !="),
                    );
                }
                Pred::Compare { op, left: left_term, right: right_term }
            }
        }
    }

    /// Both sides of a comparison, and what type they have in common.
    fn sides(&mut self, left: &Expr, right: &Expr) -> (Term, Term, Option<Type>) {
        // A word beside something of type level is a level, a text beside a moment a moment.
        let (left_kind, right_kind) = (self.kind_of_name(left), self.kind_of_name(right));
        if let Some(kind) = left_kind.filter(|kind| is_written(*kind)) {
            let left = self.term(left).0;
            return (left, self.written(right, kind), Some(kind));
        }
        if let Some(kind) = right_kind.filter(|kind| is_written(*kind)) {
            let left = self.written(left, kind);
            return (left, self.term(right).0, Some(kind));
        }
        let (left_term, a) = self.term(left);
        let (right_term, b) = self.term(right);
        let fits = a == b || a == Type::Any || b == Type::Any || a.is_number() && b.is_number();
        if !fits {
            self.misfit(left, a, right, b);
            return (left_term, right_term, None);
        }
        (left_term, right_term, Some(if a == Type::Any { b } else { a }))
    }

    fn misfit(&mut self, left: &Expr, a: Type, right: &Expr, b: Type) {
        // Said where the value stands, if there is one: it is more often wrong than the name.
        let literal = matches!(right.kind, Kind::Literal(_));
        let (place, other) = if literal || !matches!(left.kind, Kind::Literal(_)) {
            (right.place, format!("`{left}` is of type {a}, this of type {b}"))
        } else {
            (left.place, format!("`{right}` is of type {b}, this of type {a}"))
        };
        self.problem(Problem::new(place, other));
    }

    fn kind_of_name(&self, expr: &Expr) -> Option<Type> {
        match &expr.kind {
            Kind::Name(name) => Builtin::parse(name).map(Builtin::kind),
            Kind::Literal(value @ (Value::Level(_) | Value::Time(_) | Value::Trace(_))) => {
                Some(value.kind())
            }
            _ => None,
        }
    }

    /// A value that is compared with one of a type that has no values of its own in the text.
    fn written(&mut self, expr: &Expr, kind: Type) -> Term {
        let word = match &expr.kind {
            Kind::Literal(Value::Str(text)) => text,
            Kind::Name(name) if kind == Type::Level && Builtin::parse(name).is_none() => name,
            // Beside a level it is the level of that name.
            Kind::Name(name) if kind == Type::Level && name == "trace" => name,
            _ => {
                let (term, found) = self.term(expr);
                let outer = matches!(expr.kind, Kind::Outer(_)) && found == Type::Str;
                if found != kind && !outer && found != Type::Any {
                    let what = format!("something of type {kind} is needed here, this is {found}");
                    self.problem(Problem::new(expr.place, what));
                }
                return term;
            }
        };
        let value = match kind {
            Type::Level => Level::parse(word).map(Value::Level),
            Type::Time => moment::parse(word).map(Value::Time),
            _ => Trace::parse(word).map(Value::Trace),
        };
        match value {
            Some(value) => Term::Const(value),
            None => {
                self.problem(unreadable(word, kind, expr.place));
                Term::Absent
            }
        }
    }

    fn one_of(&mut self, left: &Expr, right: &Expr) -> Pred {
        let kind = self.kind_of_name(left);
        let (term, left_kind) = self.term(left);
        let Kind::List(items) = &right.kind else {
            let problem = Problem::new(right.place, "`in` takes a list");
            self.problem(problem.hint("as in: port in [80, 443]"));
            return Pred::Const(false);
        };
        let mut values = Vec::new();
        for item in items {
            let value = match kind.filter(|kind| is_written(*kind)) {
                Some(kind) => self.written(item, kind),
                None => {
                    let (value, found) = self.term(item);
                    let numbers = left_kind.is_number() && found.is_number();
                    let any = left_kind == Type::Any || found == Type::Any;
                    if left_kind != found && !numbers && !any {
                        self.misfit(left, left_kind, item, found);
                    }
                    value
                }
            };
            match value {
                Term::Const(value) => values.push(value),
                // Unbound, or reported.
                Term::Absent => {}
                _ => self.problem(Problem::new(item.place, "a list holds values only")),
            }
        }
        Pred::In { term, values }
    }

    /// The left side of `has` and `matches`.
    fn text_side(&mut self, expr: &Expr, op: Op) -> Term {
        let (term, kind) = self.term(expr);
        if !matches!(kind, Type::Str | Type::Any) {
            let what = format!("`{}` looks at texts, this is of type {kind}", op.as_str());
            self.problem(Problem::new(expr.place, what));
        }
        term
    }

    /// A text that is known before the filter runs.
    fn text(&mut self, expr: &Expr) -> Option<String> {
        match &expr.kind {
            Kind::Literal(Value::Str(text)) => return Some(text.clone()),
            Kind::Outer(_) => {
                let (_, kind) = self.term(expr);
                if !matches!(kind, Type::Str | Type::Any) {
                    let what = format!("a text is needed here, this is of type {kind}");
                    self.problem(Problem::new(expr.place, what));
                }
            }
            _ => self.problem(
                Problem::new(expr.place, "a text is needed here")
                    .hint("in double quotes, as in: msg has \"refused\""),
            ),
        }
        None
    }

    fn term(&mut self, expr: &Expr) -> (Term, Type) {
        match &expr.kind {
            Kind::Literal(value) => (Term::Const(value.clone()), value.kind()),
            Kind::Name(name) => match Builtin::parse(name) {
                Some(builtin) => (Term::Builtin(builtin), builtin.kind()),
                None => self.field(name, expr.place),
            },
            Kind::Field(name) => self.field(name, expr.place),
            Kind::Outer(name) => self.outer(name, expr.place),
            Kind::Minus(inner) => {
                let (term, kind) = self.term(inner);
                if !kind.is_number() && !matches!(kind, Type::Duration | Type::Any) {
                    let what = format!("`-` is for numbers, this is of type {kind}");
                    self.problem(Problem::new(inner.place, what));
                }
                (Term::Minus(Box::new(term)), kind)
            }
            Kind::Binary(op, left, right) if op.binds() > 3 => self.math(*op, left, right),
            Kind::List(_) => {
                let problem = Problem::new(expr.place, "a list stands behind `in` only");
                self.problem(problem);
                (Term::Absent, Type::Any)
            }
            Kind::Binary(..) | Kind::Not(_) | Kind::Exists(_) | Kind::HasAny(_) => {
                let what = "a value is needed here, this is a condition";
                self.problem(Problem::new(expr.place, what));
                (Term::Absent, Type::Any)
            }
        }
    }

    fn math(&mut self, op: Op, left: &Expr, right: &Expr) -> (Term, Type) {
        let (a, a_kind) = self.term(left);
        let (b, b_kind) = self.term(right);
        let kind = match (a_kind, b_kind) {
            (Type::Any, _) | (_, Type::Any) => Some(Type::Any),
            (Type::Int, Type::Int) => Some(Type::Int),
            (a, b) if a.is_number() && b.is_number() => Some(Type::Float),
            (Type::Duration, Type::Duration) if matches!(op, Op::Add | Op::Sub | Op::Rem) => {
                Some(Type::Duration)
            }
            (Type::Duration, Type::Duration) if op == Op::Div => Some(Type::Float),
            (Type::Duration, Type::Int) if matches!(op, Op::Mul | Op::Div) => Some(Type::Duration),
            _ => None,
        };
        let kind = kind.unwrap_or_else(|| {
            let op = op.as_str();
            let what = format!("`{op}` is not for {a_kind} and {b_kind}");
            self.problem(Problem::new(left.place.to(right.place), what));
            Type::Any
        });
        (Term::Math { op, left: Box::new(a), right: Box::new(b) }, kind)
    }

    fn field(&mut self, name: &str, place: Place) -> (Term, Type) {
        let term = Term::Field(name.to_string());
        let Some(fields) = &self.fields else { return (term, Type::Any) };
        if let Some(kind) = fields.get(name) {
            return (term, *kind);
        }
        let mut known: Vec<&str> = fields.keys().map(String::as_str).collect();
        known.extend(Builtin::ALL.map(Builtin::as_str));
        let hint = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        let all: Vec<&str> = fields.keys().map(String::as_str).collect();
        let hint = hint.unwrap_or_else(|| match all.len() {
            0 => "it was declared without fields".into(),
            _ => format!("declared are: {}", all.join(", ")),
        });
        let what = format!("no such field: `{name}`");
        self.problem(Problem::new(place, what).hint(hint));
        (term, Type::Any)
    }

    fn outer(&mut self, name: &str, place: Place) -> (Term, Type) {
        if let Some(kind) = self.scope.outer.get(name) {
            return (Term::Absent, *kind);
        }
        let known = self.scope.outer.keys().map(String::as_str);
        let mut problem = Problem::new(place, format!("there is no value `${name}`"));
        if let Some(near) = nearest(name, known) {
            problem = problem.hint(format!("did you mean `${near}`?"));
        }
        self.problem(problem);
        (Term::Absent, Type::Any)
    }
}

/// Whether values of a type are written as texts or words.
fn is_written(kind: Type) -> bool {
    matches!(kind, Type::Level | Type::Time | Type::Trace)
}

fn unreadable(word: &str, kind: Type, place: Place) -> Problem {
    match kind {
        Type::Level => {
            let names = Level::ALL.map(Level::as_str);
            let hint = nearest(word, names).map(|near| format!("did you mean `{near}`?"));
            let hint = hint.unwrap_or_else(|| format!("levels are {}", names.join(", ")));
            Problem::new(place, format!("`{word}` is no level")).hint(hint)
        }
        Type::Time => Problem::new(place, format!("`{word}` is no moment"))
            .hint("as in \"2026-11-30T22:00:00Z\"; `since 5m` counts from now"),
        _ => {
            Problem::new(place, format!("`{word}` is no trace")).hint("up to 32 hexadecimal digits")
        }
    }
}
