//! An expression as it was written, and how it is written again.
//!
//! What it does not know: types, whether names exist.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::problem::{Place, Problem};
use crate::value::{Level, Type, Value, write_duration};

/// What every record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// When it was first received.
    Time,
    /// Which run it belongs to.
    Trace,
    /// The machine it comes from.
    Host,
    /// Its number in the pool that took it.
    Seq,
    /// What happened.
    Event,
    /// How much it matters.
    Level,
    /// The service or intake it comes from.
    Source,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Builtin; 7] = [
        Builtin::Time,
        Builtin::Trace,
        Builtin::Host,
        Builtin::Seq,
        Builtin::Event,
        Builtin::Level,
        Builtin::Source,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Builtin::Time => "time",
            Builtin::Trace => "trace",
            Builtin::Host => "host",
            Builtin::Seq => "seq",
            Builtin::Event => "event",
            Builtin::Level => "level",
            Builtin::Source => "source",
        }
    }

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Builtin> {
        Builtin::ALL.into_iter().find(|builtin| builtin.as_str() == name)
    }

    /// The type of its values.
    pub fn kind(self) -> Type {
        match self {
            Builtin::Time => Type::Time,
            Builtin::Trace => Type::Trace,
            Builtin::Host | Builtin::Event | Builtin::Source => Type::Str,
            Builtin::Seq => Type::Int,
            Builtin::Level => Type::Level,
        }
    }
}

/// What stands between two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `has`: the right text is part of the left one.
    Has,
    /// `matches`: the left text is like the right one, with `*` and `?`.
    Matches,
    /// `in`: the left value is one of the right ones.
    In,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Rem,
}

impl Op {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Or => "||",
            Op::And => "&&",
            Op::Eq => "==",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
            Op::Has => "has",
            Op::Matches => "matches",
            Op::In => "in",
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
            Op::Div => "/",
            Op::Rem => "%",
        }
    }

    /// The higher, the closer it binds.
    pub(crate) fn binds(self) -> u8 {
        match self {
            Op::Or => 1,
            Op::And => 2,
            Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge => 3,
            Op::Has | Op::Matches | Op::In => 3,
            Op::Add | Op::Sub => 4,
            Op::Mul | Op::Div | Op::Rem => 5,
        }
    }
}

/// An expression, and where it stands.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub place: Place,
}

/// Two expressions are the same wherever they stand.
impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.kind == other.kind
    }
}

/// See [`Expr`].
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A value.
    Literal(Value),
    /// Values between brackets.
    List(Vec<Expr>),
    /// A name: a [`Builtin`], a field, or beside one of type level a [`Level`].
    Name(String),
    /// A field, also where something else has that name.
    Field(String),
    /// A value from outside.
    Outer(String),
    /// `!`
    Not(Box<Expr>),
    /// `-` without a left side.
    Minus(Box<Expr>),
    /// `exists name`
    Exists(Box<Expr>),
    /// `has "text"`: in any text of the record.
    HasAny(Box<Expr>),
    /// Two parts and what stands between them.
    Binary(Op, Box<Expr>, Box<Expr>),
}

impl Expr {
    /// Puts values in the place of `$name`s. One that isn't in `values` stays.
    pub fn bind(&self, values: &BTreeMap<String, Value>) -> Result<Expr, Problem> {
        let inner = |expr: &Expr| expr.bind(values).map(Box::new);
        let kind = match &self.kind {
            Kind::Outer(name) => match values.get(name) {
                Some(Value::Float(number)) if !number.is_finite() => {
                    return Err(Problem::new(self.place, format!("`${name}` is no finite number")));
                }
                Some(value) => Kind::Literal(value.clone()),
                None => self.kind.clone(),
            },
            Kind::List(items) => {
                Kind::List(items.iter().map(|item| item.bind(values)).collect::<Result<_, _>>()?)
            }
            Kind::Not(expr) => Kind::Not(inner(expr)?),
            Kind::Minus(expr) => Kind::Minus(inner(expr)?),
            Kind::Exists(expr) => Kind::Exists(inner(expr)?),
            Kind::HasAny(expr) => Kind::HasAny(inner(expr)?),
            Kind::Binary(op, left, right) => Kind::Binary(*op, inner(left)?, inner(right)?),
            Kind::Literal(_) | Kind::Name(_) | Kind::Field(_) => self.kind.clone(),
        };
        Ok(Expr { kind, place: self.place })
    }

    /// Calls `seen` with every `$name`, and where it stands.
    pub fn outer(&self, seen: &mut impl FnMut(&str, Place)) {
        match &self.kind {
            Kind::Outer(name) => seen(name, self.place),
            Kind::List(items) => items.iter().for_each(|item| item.outer(seen)),
            Kind::Not(expr) | Kind::Minus(expr) | Kind::Exists(expr) | Kind::HasAny(expr) => {
                expr.outer(seen);
            }
            Kind::Binary(_, left, right) => {
                left.outer(seen);
                right.outer(seen);
            }
            Kind::Literal(_) | Kind::Name(_) | Kind::Field(_) => {}
        }
    }

    fn binds(&self) -> u8 {
        match &self.kind {
            Kind::Binary(op, ..) => op.binds(),
            Kind::Literal(Value::Int(n)) if *n < 0 => 6,
            Kind::Literal(Value::Duration(n)) if *n < 0 => 6,
            Kind::Literal(Value::Float(n)) if n.is_sign_negative() => 6,
            Kind::Not(_) | Kind::Minus(_) | Kind::Exists(_) | Kind::HasAny(_) => 6,
            _ => 7,
        }
    }

    fn within(&self, least: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.binds() < least { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Literal(value) => write_literal(value, f),
            Kind::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
            Kind::Name(name) => f.write_str(name),
            Kind::Field(name) => write!(f, "`{name}`"),
            Kind::Outer(name) => write!(f, "${name}"),
            Kind::Not(expr) => {
                f.write_str("!")?;
                expr.within(6, f)
            }
            Kind::Minus(expr) => {
                f.write_str("-")?;
                expr.within(7, f)
            }
            Kind::Exists(expr) => {
                f.write_str("exists ")?;
                expr.within(7, f)
            }
            Kind::HasAny(expr) => {
                f.write_str("has ")?;
                expr.within(7, f)
            }
            Kind::Binary(op, left, right) => {
                // Comparisons don't chain: both sides of one bind closer.
                let left_least = op.binds() + u8::from(op.binds() == 3);
                left.within(left_least, f)?;
                write!(f, " {} ", op.as_str())?;
                right.within(op.binds() + 1, f)
            }
        }
    }
}

fn write_literal(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Str(text) => write_text(text, f),
        Value::Time(_) | Value::Trace(_) => write!(f, "\"{value}\""),
        Value::Level(level) => write_level(*level, f),
        Value::Duration(nanos) => write_duration(*nanos, f),
        Value::Float(number) => write!(f, "{number:?}"),
        Value::Bool(_) | Value::Int(_) => write!(f, "{value}"),
    }
}

fn write_level(level: Level, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // As a text: the word `trace` alone is a name of every record.
    write!(f, "\"{level}\"")
}

pub(crate) fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\0' => f.write_str("\\0")?,
            other => f.write_fmt(format_args!("{other}"))?,
        }
    }
    f.write_str("\"")
}
