//! From what programs send to records.
//!
//! - [`json`]: one object of JSON in a line
//! - [`syslog`]: RFC 5424 and RFC 3164
//!
//! What it does not know: sockets, clocks. The time of a record is when it came, so times that
//! senders wrote become fields.
//!
//! Invariant: no input panics, and none makes more of itself than a record's limits allow.

pub mod json;
pub mod syslog;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::record::Draft;
use crate::value::{Level, Trace, Value, ValueRef};

/// The event of a line that doesn't name one.
pub const LINE: &str = "line";

/// What was read out of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<'t> {
    /// What happened, if it says so.
    pub event: Option<Cow<'t, str>>,
    /// How much it matters, if it says so.
    pub level: Option<Level>,
    /// The run that it belongs to.
    pub trace: Trace,
    /// The machine that it says it comes from.
    pub host: Option<Cow<'t, str>>,
    /// The program that it says it comes from.
    pub source: Option<Cow<'t, str>>,
    /// Whether it asks to be kept by two nodes.
    pub important: bool,
    /// Everything else.
    pub fields: Vec<(Cow<'t, str>, Content<'t>)>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'t> {
    /// A text.
    Text(Cow<'t, str>),
    /// Anything else.
    Value(Value),
}

impl Content<'_> {
    /// The value where it is.
    pub fn borrow(&self) -> ValueRef<'_> {
        match self {
            Content::Text(text) => ValueRef::Str(text),
            Content::Value(value) => value.borrow(),
        }
    }
}

impl<'t> Parsed<'t> {
    /// Nothing known yet.
    pub(crate) fn empty() -> Parsed<'t> {
        Parsed {
            event: None,
            level: None,
            trace: Trace::NONE,
            host: None,
            source: None,
            important: false,
            fields: Vec::new(),
        }
    }

    /// A text without any form.
    pub fn text(line: &'t str) -> Parsed<'t> {
        let mut parsed = Parsed::empty();
        parsed.fields.push((Cow::Borrowed("msg"), Content::Text(Cow::Borrowed(line))));
        parsed
    }

    /// Calls `with` with the record that this is, from `host` and `source` where it doesn't say
    /// otherwise.
    pub fn draft<R>(&self, host: &str, source: &str, with: impl FnOnce(&Draft<'_>) -> R) -> R {
        let fields: Vec<(&str, ValueRef<'_>)> =
            self.fields.iter().map(|(name, content)| (&**name, content.borrow())).collect();
        with(&Draft {
            event: self.event.as_deref().unwrap_or(LINE),
            level: self.level.unwrap_or_default(),
            trace: self.trace,
            host: self.host.as_deref().unwrap_or(host),
            source: self.source.as_deref().unwrap_or(source),
            important: self.important,
            fields: &fields,
        })
    }
}

/// Which level a word of some program means.
pub fn level_of(word: &str) -> Option<Level> {
    let mut lower = String::with_capacity(word.len().min(16));
    lower.extend(word.chars().take(16).map(|letter| letter.to_ascii_lowercase()));
    Some(match lower.as_str() {
        "trace" | "verbose" | "finest" => Level::Trace,
        "debug" | "fine" => Level::Debug,
        "info" | "information" | "notice" | "informational" => Level::Info,
        "warn" | "warning" => Level::Warn,
        "error" | "err" | "severe" => Level::Error,
        "fatal" | "critical" | "crit" | "alert" | "emerg" | "emergency" | "panic" => Level::Fatal,
        _ => return None,
    })
}
