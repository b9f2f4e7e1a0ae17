//! One thing that happened: as it comes in, and as it is handed out.
//!
//! What it does not know: how records are stored.
//!
//! Limits: [`FIELDS_MAX`] fields, [`NAME_MAX`] bytes of a name, [`TEXT_MAX`] of a text,
//! [`RECORD_MAX`] of all values. What is longer is cut, what is more is left out.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::expr::{Builtin, Fields};
use crate::value::{Level, Trace, Value, ValueRef};

/// Most fields of a record.
pub const FIELDS_MAX: usize = 64;
/// Longest name of a field, an event, a host or a source, in bytes.
pub const NAME_MAX: usize = 128;
/// Longest text in a field, in bytes.
pub const TEXT_MAX: usize = 16 * 1024;
/// Most bytes of all values.
pub const RECORD_MAX: usize = 64 * 1024;

/// A record that comes in. The pool adds the time and the number.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'d> {
    /// What happened: `http.req`.
    pub event: &'d str,
    /// How much it matters.
    pub level: Level,
    /// The run that it belongs to.
    pub trace: Trace,
    /// The machine that it comes from.
    pub host: &'d str,
    /// The service or intake that it comes from: what quotas count.
    pub source: &'d str,
    /// Whether it counts only once two nodes hold it.
    pub important: bool,
    /// What else is known. A name that stands there twice has its first value.
    pub fields: &'d [(&'d str, ValueRef<'d>)],
}

impl<'d> Draft<'d> {
    /// A plain record.
    pub fn new(event: &'d str, host: &'d str, source: &'d str) -> Draft<'d> {
        let (level, trace) = (Level::Info, Trace::NONE);
        Draft { event, level, trace, host, source, important: false, fields: &[] }
    }
}

/// A record that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was first received, in microseconds of Unix time. Within one pool it never falls.
    pub time: u64,
    /// The run that it belongs to.
    pub trace: Trace,
    /// The machine that it comes from.
    pub host: String,
    /// Its number; in one pool each is one more than that before.
    pub seq: u64,
    /// What happened.
    pub event: String,
    /// How much it matters.
    pub level: Level,
    /// The service or intake that it comes from.
    pub source: String,
    /// Whether it counts only once two nodes hold it.
    pub important: bool,
    /// What else is known.
    pub fields: Vec<(String, Value)>,
}

impl Record {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::Str(text) => text.len(),
            _ => 0,
        };
        let fields = self.fields.iter().map(|(name, value)| 48 + name.len() + text(value));
        128 + self.host.len() + self.event.len() + self.source.len() + fields.sum::<usize>()
    }
}

impl Fields for Record {
    fn builtin(&self, builtin: Builtin) -> ValueRef<'_> {
        match builtin {
            Builtin::Time => ValueRef::Time(self.time),
            Builtin::Trace => ValueRef::Trace(self.trace),
            Builtin::Host => ValueRef::Str(&self.host),
            Builtin::Seq => ValueRef::Int(i64::try_from(self.seq).unwrap_or(i64::MAX)),
            Builtin::Event => ValueRef::Str(&self.event),
            Builtin::Level => ValueRef::Level(self.level),
            Builtin::Source => ValueRef::Str(&self.source),
        }
    }

    fn field(&self, name: &str) -> Option<ValueRef<'_>> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.borrow())
    }

    fn any_text(&self, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        self.fields.iter().any(|(_, value)| matches!(value, Value::Str(text) if wanted(text)))
    }
}

/// As much of a text as a limit allows, without cutting a letter.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
