//! Values of scripts: what tasks compute with, and what travels as arguments and answers.
//!
//! What it does not know: types of scripts beyond [`Value::is_a`].
//!
//! Invariants
//! - A value knows its size in bytes without looking through it.
//! - Copies share what they hold.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::{Base, RECORD_FIELDS, Type};

/// Bytes that a value takes beside what it holds.
const OWN: usize = 16;
/// Deepest nesting of a value that came from outside.
pub const DEPTH_MAX: u32 = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Absent.
    None,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Str(Arc<str>),
    /// A time in nanoseconds.
    Duration(u64),
    /// A size in bytes.
    Size(u64),
    /// Values of one type.
    List(List),
    /// Named values.
    Record(Record),
}

/// Values of one type, and their size.
#[derive(Clone, Debug, PartialEq)]
pub struct List(Arc<(Vec<Value>, usize)>);

/// Named values, and their size.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Arc<(Vec<(Arc<str>, Value)>, usize)>);

impl List {
    /// A list of these.
    pub fn new(values: Vec<Value>) -> List {
        let bytes = values.iter().fold(OWN, |sum, value| sum.saturating_add(value.bytes()));
        List(Arc::new((values, bytes)))
    }

    /// Its elements.
    pub fn values(&self) -> &[Value] {
        &self.0.0
    }
}

impl Record {
    /// A record of these.
    pub fn new(fields: Vec<(Arc<str>, Value)>) -> Record {
        let one = |(name, value): &(Arc<str>, Value)| name.len() + value.bytes();
        let bytes = fields.iter().fold(OWN, |sum, field| sum.saturating_add(one(field)));
        Record(Arc::new((fields, bytes)))
    }

    /// Its fields, in their order.
    pub fn fields(&self) -> &[(Arc<str>, Value)] {
        &self.0.0
    }

    /// The field with this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields().iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List, D::Error> {
        Vec::deserialize(deserializer).map(List::new)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Record, D::Error> {
        Vec::deserialize(deserializer).map(Record::new)
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Str(text.into())
    }

    /// A list.
    pub fn list(values: Vec<Value>) -> Value {
        Value::List(List::new(values))
    }

    /// A record with these fields.
    pub fn record<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value));
        Value::Record(Record::new(fields.collect()))
    }

    /// How much memory it takes, shared parts counted each time.
    pub fn bytes(&self) -> usize {
        OWN + match self {
            Value::Str(text) => text.len(),
            Value::List(list) => list.0.1,
            Value::Record(record) => record.0.1,
            _ => 0,
        }
    }

    /// Whether it may stand where this type is expected. Records are looked at field by field;
    /// the fields that an event declares are told by `event`.
    pub fn is_a(&self, kind: Type, event: &dyn Fn(u16) -> Vec<(String, Type)>) -> bool {
        if kind.is_any() {
            return true;
        }
        if let Some(inner) = kind.present() {
            return *self == Value::None || self.is_a(inner, event);
        }
        if let Some(element) = kind.element() {
            let Value::List(list) = self else { return false };
            return list.values().iter().all(|value| value.is_a(element, event));
        }
        match (kind.base(), self) {
            (Base::Bool, Value::Bool(_))
            | (Base::Int, Value::Int(_))
            | (Base::Float, Value::Float(_) | Value::Int(_))
            | (Base::Str, Value::Str(_))
            | (Base::Duration, Value::Duration(_))
            | (Base::Size, Value::Size(_))
            | (Base::Nothing, Value::None) => true,
            (Base::Shape(shape), Value::Record(record)) => {
                let is = |(name, kind, _): &(&str, Type, &str)| record.has(name, *kind, event);
                shape.fields.iter().all(is)
            }
            (Base::Event(number), Value::Record(record)) => {
                let own = |(name, kind, _): &(&str, Type, &str)| record.has(name, *kind, event);
                let declared = event(number);
                RECORD_FIELDS.iter().all(own)
                    && declared.iter().all(|(name, kind)| record.has(name, *kind, event))
            }
            _ => false,
        }
    }

    /// Whether values nest no deeper than those that scripts can make.
    pub fn is_shallow(&self, depth: u32) -> bool {
        depth < DEPTH_MAX
            && match self {
                Value::List(list) => list.values().iter().all(|v| v.is_shallow(depth + 1)),
                Value::Record(record) => {
                    record.fields().iter().all(|(_, value)| value.is_shallow(depth + 1))
                }
                _ => true,
            }
    }

    /// As a number, if it is one.
    #[allow(clippy::cast_precision_loss)] // A fraction is what was asked for.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Float(n) => Some(*n),
            _ => None,
        }
    }

    /// The same value where a number with a fraction is expected.
    pub fn widened(self, kind: Type) -> Value {
        let float = kind.present().unwrap_or(kind) == Type::FLOAT;
        match (&self, float) {
            (Value::Int(_), true) => Value::Float(self.number().unwrap_or(0.0)),
            _ => self,
        }
    }
}

impl Record {
    fn has(&self, name: &str, kind: Type, event: &dyn Fn(u16) -> Vec<(String, Type)>) -> bool {
        self.get(name).unwrap_or(&Value::None).is_a(kind, event)
    }
}

/// As people read it: texts without quotes at the outside, times and sizes with their units.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("none"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Str(text) => f.write_str(text),
            Value::Duration(nanos) => write_time(*nanos, f),
            Value::Size(bytes) => write_size(*bytes, f),
            Value::List(list) => {
                f.write_str("[")?;
                for (at, value) in list.values().iter().enumerate() {
                    f.write_str(if at > 0 { ", " } else { "" })?;
                    write_inside(value, f)?;
                }
                f.write_str("]")
            }
            Value::Record(record) => {
                f.write_str("{")?;
                for (at, (name, value)) in record.fields().iter().enumerate() {
                    write!(f, "{}{name}: ", if at > 0 { ", " } else { "" })?;
                    write_inside(value, f)?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_inside(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Str(text) => write!(f, "{text:?}"),
        value => write!(f, "{value}"),
    }
}

/// In the largest unit that says it exactly.
fn write_time(nanos: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let units = [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000)];
    let small = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];
    let exact =
        units.into_iter().chain(small).find(|(_, unit)| nanos != 0 && nanos.is_multiple_of(*unit));
    let (name, unit) = exact.unwrap_or(("s", 1_000_000_000));
    write!(f, "{}{name}", nanos / unit)
}

#[allow(clippy::cast_precision_loss)] // It is shown with one digit.
fn write_size(bytes: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        None => write!(f, "{bytes}B"),
        Some((name, unit)) if bytes.is_multiple_of(unit) => write!(f, "{}{name}", bytes / unit),
        Some((name, unit)) => write!(f, "{:.1}{name}", bytes as f64 / unit as f64),
    }
}

/// The text of a value, as far as `most` bytes go.
pub(crate) fn cut(value: &Value, most: usize) -> String {
    struct Cut(String, usize);
    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = self.1 - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut cut = Cut(String::new(), most);
    let _ = write!(cut, "{value}");
    cut.0
}

/// A text cut to so many bytes.
pub(crate) fn cut_text(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OUTPUT;
    use alloc::vec;

    #[test]
    fn values_read_as_people_write_them() {
        let list = Value::list(vec![Value::text("a\"b"), Value::None]);
        for (value, text) in [
            (Value::Duration(90_000_000_000), "90s"),
            (Value::Duration(3_600_000_000_000), "1h"),
            (Value::Duration(0), "0s"),
            (Value::Size(1536), "1.5KiB"),
            (Value::Size(12), "12B"),
            (Value::Float(2.0), "2"),
            (list, r#"["a\"b", none]"#),
        ] {
            assert_eq!(value.to_string(), text);
        }
        assert_eq!(cut(&Value::text("äöü"), 3), "ä");
    }

    #[test]
    fn values_are_held_against_types() {
        let none = |_: u16| Vec::new();
        let output = Value::record([
            ("code", Value::Int(0)),
            ("out", Value::text("")),
            ("err", Value::text("")),
            ("took", Value::Duration(1)),
        ]);
        assert!(output.is_a(Type::shape(&OUTPUT), &none));
        assert!(!Value::record([("code", Value::Int(0))]).is_a(Type::shape(&OUTPUT), &none));
        assert!(Value::Int(1).is_a(Type::FLOAT.optional(), &none));
        assert!(!Value::list(vec![Value::None]).is_a(Type::INT.list(), &none));
    }

    #[test]
    fn values_cross_the_wire_and_keep_their_size() {
        let value = Value::list(vec![Value::record([("a", Value::text("xyz"))]), Value::None]);
        let bytes = jizoku_types::encode(&value);
        let back: Value = jizoku_types::decode(&bytes).unwrap();
        assert_eq!(back, value);
        assert_eq!(back.bytes(), value.bytes());
    }
}
