//! Which fields an event has, where that was declared.
//!
//! Events needn't be declared: fields of others have the type [`Type::Any`]. A filter that names
//! a declared event is checked against its fields before it runs.
//!
//! What it does not know: who declares events, and where.
//!
//! Limits: [`EVENTS_MAX`] events, [`FIELDS_MAX`] fields of each.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::value::Type;

/// Most events that can be declared.
pub const EVENTS_MAX: usize = 4096;
/// Most fields of one event.
pub const FIELDS_MAX: usize = 64;

/// The fields of one event.
pub type Fields = BTreeMap<String, Type>;

/// All declared events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schemas {
    events: BTreeMap<String, Fields>,
}

impl Schemas {
    /// None declared.
    pub fn new() -> Schemas {
        Schemas::default()
    }

    /// Declares an event. One that is there already may gain fields, and must keep the types of
    /// those it has: filters that were checked must stay right. Refused, nothing has changed.
    pub fn declare(&mut self, event: &str, fields: Fields) -> Result<(), String> {
        if fields.len() > FIELDS_MAX {
            return Err(format!("`{event}` has more than {FIELDS_MAX} fields"));
        }
        if self.events.len() >= EVENTS_MAX && !self.events.contains_key(event) {
            return Err(format!("more than {EVENTS_MAX} events"));
        }
        let known = self.events.get(event);
        for (name, kind) in known.into_iter().flatten() {
            if let Some(other) = fields.get(name).filter(|other| *other != kind) {
                return Err(format!("`{event}` has `{name}: {kind}` already, not `{other}`"));
            }
        }
        let known = self.events.entry(event.into()).or_default();
        if fields.keys().filter(|name| !known.contains_key(*name)).count() + known.len()
            > FIELDS_MAX
        {
            return Err(format!("`{event}` would have more than {FIELDS_MAX} fields"));
        }
        known.extend(fields);
        Ok(())
    }

    /// The fields of an event, if it was declared.
    pub fn fields(&self, event: &str) -> Option<&Fields> {
        self.events.get(event)
    }

    /// All declared events.
    pub fn events(&self) -> impl Iterator<Item = (&str, &Fields)> {
        self.events.iter().map(|(name, fields)| (name.as_str(), fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, Type)]) -> Fields {
        list.iter().map(|(name, kind)| ((*name).into(), *kind)).collect()
    }

    #[test]
    fn an_event_may_gain_fields_but_not_change_them() {
        let mut schemas = Schemas::new();
        schemas.declare("cpu", fields(&[("pct", Type::Float)])).unwrap();
        schemas.declare("cpu", fields(&[("core", Type::Int)])).unwrap();
        let before = schemas.clone();
        let changed = fields(&[("pct", Type::Int), ("more", Type::Int)]);
        assert!(schemas.declare("cpu", changed).is_err());
        assert_eq!(schemas, before);
        assert_eq!(schemas.fields("cpu").unwrap().len(), 2);
    }

    #[test]
    fn the_number_of_fields_and_events_is_bounded() {
        let mut schemas = Schemas::new();
        let many: Fields = (0..60).map(|n| (format!("a{n}"), Type::Int)).collect();
        schemas.declare("e", many).unwrap();
        let more: Fields = (0..60).map(|n| (format!("b{n}"), Type::Int)).collect();
        assert!(schemas.declare("e", more).is_err());
        for n in 1..EVENTS_MAX {
            schemas.declare(&format!("e{n}"), Fields::new()).unwrap();
        }
        assert!(schemas.declare("one more", Fields::new()).is_err());
    }
}
