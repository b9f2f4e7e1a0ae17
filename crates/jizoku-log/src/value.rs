//! What a field of a record can hold, and the types that filters are checked with.
//!
//! What it does not know: records, how values are stored.
//!
//! Units: durations in nanoseconds, moments in microseconds of Unix time.

use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

/// How much a record matters, the least first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For whoever follows each step.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// What happens in normal times.
    #[default]
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
    /// Nothing works any more.
    Fatal,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Level; 6] =
        [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }

    /// Which level a word means.
    pub fn parse(word: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What joins the records of one run, over all hosts. Zero: none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Trace(pub u128);

impl Trace {
    /// No trace.
    pub const NONE: Trace = Trace(0);

    /// Reads up to 32 hexadecimal digits; leading zeros may be left out.
    pub fn parse(text: &str) -> Option<Trace> {
        let digits = !text.is_empty()
            && text.len() <= 32
            && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Trace)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The type of a value, as far as it is known before a filter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// True or false.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// A number with a fraction.
    Float,
    /// A text.
    Str,
    /// A length of time.
    Duration,
    /// A [`Level`].
    Level,
    /// A moment.
    Time,
    /// A [`Trace`].
    Trace,
    /// Known only when a record is there.
    Any,
}

impl Type {
    /// The word for it in declarations.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Float => "float",
            Type::Str => "str",
            Type::Duration => "duration",
            Type::Level => "level",
            Type::Time => "time",
            Type::Trace => "trace",
            Type::Any => "any",
        }
    }

    /// Which type a word means that a declaration of a field may use.
    pub fn of_field(word: &str) -> Option<Type> {
        let fields = [Type::Bool, Type::Int, Type::Float, Type::Str, Type::Duration];
        fields.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether it can be calculated with.
    pub fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Float)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A value that owns its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Str(String),
    /// A length of time, in nanoseconds.
    Duration(i64),
    /// A level.
    Level(Level),
    /// A moment, in microseconds of Unix time.
    Time(u64),
    /// A trace.
    Trace(Trace),
}

impl Value {
    /// The value, without owning it.
    pub fn borrow(&self) -> ValueRef<'_> {
        match self {
            Value::Bool(value) => ValueRef::Bool(*value),
            Value::Int(value) => ValueRef::Int(*value),
            Value::Float(value) => ValueRef::Float(*value),
            Value::Str(value) => ValueRef::Str(value),
            Value::Duration(value) => ValueRef::Duration(*value),
            Value::Level(value) => ValueRef::Level(*value),
            Value::Time(value) => ValueRef::Time(*value),
            Value::Trace(value) => ValueRef::Trace(*value),
        }
    }

    /// Its type.
    pub fn kind(&self) -> Type {
        self.borrow().kind()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Str(text.to_string())
    }
}

/// A value that is looked at where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Str(&'a str),
    /// A length of time, in nanoseconds.
    Duration(i64),
    /// A level.
    Level(Level),
    /// A moment, in microseconds of Unix time.
    Time(u64),
    /// A trace.
    Trace(Trace),
}

impl ValueRef<'_> {
    /// The value with a text of its own.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Bool(value) => Value::Bool(value),
            ValueRef::Int(value) => Value::Int(value),
            ValueRef::Float(value) => Value::Float(value),
            ValueRef::Str(value) => Value::Str(value.to_string()),
            ValueRef::Duration(value) => Value::Duration(value),
            ValueRef::Level(value) => Value::Level(value),
            ValueRef::Time(value) => Value::Time(value),
            ValueRef::Trace(value) => Value::Trace(value),
        }
    }

    /// Its type.
    pub fn kind(self) -> Type {
        match self {
            ValueRef::Bool(_) => Type::Bool,
            ValueRef::Int(_) => Type::Int,
            ValueRef::Float(_) => Type::Float,
            ValueRef::Str(_) => Type::Str,
            ValueRef::Duration(_) => Type::Duration,
            ValueRef::Level(_) => Type::Level,
            ValueRef::Time(_) => Type::Time,
            ValueRef::Trace(_) => Type::Trace,
        }
    }

    /// The number that it is, if it is one.
    #[allow(clippy::cast_precision_loss, reason = "a comparison with a fraction is inexact anyway")]
    pub fn number(self) -> Option<f64> {
        match self {
            ValueRef::Int(value) => Some(value as f64),
            ValueRef::Float(value) => Some(value),
            _ => None,
        }
    }

    /// How it stands to another one; `None` if the two can't be compared.
    pub fn compare(self, other: ValueRef<'_>) -> Option<core::cmp::Ordering> {
        match (self, other) {
            (ValueRef::Bool(a), ValueRef::Bool(b)) => Some(a.cmp(&b)),
            (ValueRef::Int(a), ValueRef::Int(b)) => Some(a.cmp(&b)),
            (ValueRef::Str(a), ValueRef::Str(b)) => Some(a.cmp(b)),
            (ValueRef::Duration(a), ValueRef::Duration(b)) => Some(a.cmp(&b)),
            (ValueRef::Level(a), ValueRef::Level(b)) => Some(a.cmp(&b)),
            (ValueRef::Time(a), ValueRef::Time(b)) => Some(a.cmp(&b)),
            (ValueRef::Trace(a), ValueRef::Trace(b)) => Some(a.cmp(&b)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }
}

/// The units of durations, the longest first, with their nanoseconds.
pub(crate) const UNITS: [(&str, i64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Writes a duration so that it is read back as the same one.
pub(crate) fn write_duration(nanos: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let units = UNITS.iter().find(|(_, unit)| nanos % unit == 0 && nanos != 0);
    let (name, unit) = units.unwrap_or(&("s", 1_000_000_000));
    write!(f, "{}{name}", nanos / unit)
}

impl fmt::Display for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueRef::Bool(value) => fmt::Display::fmt(value, f),
            ValueRef::Int(value) => fmt::Display::fmt(value, f),
            ValueRef::Float(value) => fmt::Debug::fmt(value, f),
            ValueRef::Str(value) => f.write_str(value),
            ValueRef::Duration(value) => write_duration(*value, f),
            ValueRef::Level(value) => f.write_str(value.as_str()),
            ValueRef::Time(value) => crate::moment::write(*value, f),
            ValueRef::Trace(value) => fmt::Display::fmt(value, f),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.borrow(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_across_their_types_and_nothing_else_does() {
        assert!(ValueRef::Int(90).compare(ValueRef::Float(89.5)).unwrap().is_gt());
        assert_eq!(ValueRef::Int(1).compare(ValueRef::Str("1")), None);
        assert_eq!(ValueRef::Float(f64::NAN).compare(ValueRef::Int(1)), None);
        let big = i64::MAX;
        assert!(ValueRef::Int(big).compare(ValueRef::Int(big - 1)).unwrap().is_gt());
    }

    #[test]
    fn traces_are_numbers_in_hexadecimal() {
        assert_eq!(Trace::parse("007f3a91"), Some(Trace(0x7f3a91)));
        assert_eq!(Trace::parse("7F"), Some(Trace(0x7f)));
        for bad in ["", "+7", "0x7", "7g", "100000000000000000000000000000000"] {
            assert_eq!(Trace::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_written_with_their_longest_whole_unit() {
        let text = |nanos| Value::Duration(nanos).to_string();
        assert_eq!(text(90_000_000_000), "90s");
        assert_eq!(text(3_600_000_000_000), "1h");
        assert_eq!(text(1), "1ns");
        assert_eq!(text(0), "0s");
        assert_eq!(text(-1_500_000), "-1500us");
    }
}
