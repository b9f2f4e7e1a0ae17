//! The agent's own events as records.
//!
//! What it does not know: what they mean.

use jizoku_api::event::{Cursor, EventRecord};
use jizoku_log::{Draft, Level, ValueRef};
use jizoku_types::Event;
use serde_json::Value as Json;

use super::LogPool;

/// The source of the agent's own records.
const SOURCE: &str = "jizoku";

fn level(event: &Event) -> Level {
    match event {
        Event::FirstOutput { .. } | Event::Sealed { .. } => Level::Debug,
        Event::Unreachable { .. } | Event::StateMayBeMissing { .. } | Event::CopyCorrupt { .. } => {
            Level::Error
        }
        Event::Trouble { .. }
        | Event::NodeUnreachable { .. }
        | Event::Unprotected { .. }
        | Event::LinkDown { .. } => Level::Warn,
        _ => Level::Info,
    }
}

impl LogPool {
    /// Takes an event, in the form that the API has for it.
    pub(crate) fn event(&self, event: &Event) {
        self.saw(event);
        let cursor = Cursor { incarnation: self.me.incarnation, number: 0 };
        let (unix_ms, clock_ns, seen_by) = (0, 0, self.me.node);
        let record = EventRecord { cursor, unix_ms, clock_ns, seen_by, event: event.clone() };
        let Ok(Json::Object(form)) =
            serde_json::to_value(&record).map(|mut all| all["event"].take())
        else {
            return;
        };
        let name = form.get("type").and_then(Json::as_str).unwrap_or("event");
        let mut texts = Vec::new();
        for (key, value) in form.iter().filter(|(key, _)| *key != "type") {
            if matches!(value, Json::Object(_) | Json::Array(_)) {
                texts.push((key.as_str(), value.to_string()));
            }
        }
        let mut fields: Vec<(&str, ValueRef<'_>)> = Vec::new();
        for (key, value) in form.iter().filter(|(key, _)| *key != "type") {
            let value = match value {
                Json::String(text) => ValueRef::Str(text),
                Json::Bool(value) => ValueRef::Bool(*value),
                Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(number), _) => ValueRef::Int(number),
                    (None, Some(number)) => ValueRef::Float(number),
                    (None, None) => continue,
                },
                _ => continue,
            };
            fields.push((key, value));
        }
        fields.extend(texts.iter().map(|(key, text)| (*key, ValueRef::Str(text))));
        let level = level(event);
        let draft = Draft { level, fields: &fields, ..Draft::new(name, &self.host, SOURCE) };
        self.append(&draft);
    }
}
