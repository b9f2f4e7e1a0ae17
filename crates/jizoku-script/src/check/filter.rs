//! Conditions over records: their grammar and check are the log's.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use jizoku_log::expr::{self, Scope};
use jizoku_log::{Schemas, Type as LogType};

use super::Checker;
use crate::problem::{Place, Problem};
use crate::types::{Base, Type};

/// The type that a value has in the log, if it can be there at all.
pub(crate) fn log_type(kind: Type) -> Option<LogType> {
    match kind.present().unwrap_or(kind).plain()? {
        Base::Bool => Some(LogType::Bool),
        Base::Int | Base::Size => Some(LogType::Int),
        Base::Float => Some(LogType::Float),
        Base::Str => Some(LogType::Str),
        Base::Duration => Some(LogType::Duration),
        Base::Any => Some(LogType::Any),
        Base::Shape(_) | Base::Event(_) | Base::Nothing => None,
    }
}

impl<'a> Checker<'a> {
    /// A filter over the records of an event.
    pub(super) fn filter(&mut self, place: Place, event: Option<u16>) {
        let found = match expr::parse(self.word(place)) {
            Ok(found) => found,
            Err(problem) => return self.adopt(place, problem),
        };
        let mut outer = BTreeMap::new();
        found.outer(&mut |name, at| {
            let at = shifted(place, at);
            match self.local(name).map(|local| local.kind) {
                None => {
                    let known = self.locals.iter().map(|local| local.name);
                    let message = format!("no `{name}` is known here");
                    match crate::nearest::suggestion(name, known) {
                        Some(hint) => self.problems.hint(at, message, hint),
                        None => self.problems.add(at, message),
                    }
                    outer.insert(name.to_string(), LogType::Any);
                }
                Some(kind) => match log_type(kind) {
                    Some(kind) => {
                        outer.insert(name.to_string(), kind);
                    }
                    None => {
                        let what = format!("a filter compares no {}", self.show(kind));
                        self.problems.add(at, what);
                        outer.insert(name.to_string(), LogType::Any);
                    }
                },
            }
        });
        let Some(number) = event else { return };
        let event = &self.events[usize::from(number)];
        let fields: BTreeMap<String, LogType> = event
            .fields
            .iter()
            .filter_map(|(name, kind)| Some((String::from(*name), log_type(*kind)?)))
            .collect();
        let name = event.name;
        let mut schemas = Schemas::new();
        if schemas.declare(name, fields).is_err() {
            // Too many fields: that was reported.
            return;
        }
        let scope = Scope { schemas: &schemas, event: Some(name), outer: &outer };
        if let Err(problems) = expr::check(&found, scope) {
            problems.into_iter().for_each(|problem| self.adopt(place, problem));
        }
    }

    /// A problem of the log's, with its place in the script.
    fn adopt(&mut self, place: Place, problem: jizoku_log::Problem) {
        let at = shifted(place, problem.place);
        self.problems.push(Problem { place: at, message: problem.what, hint: problem.hint });
    }
}

fn shifted(place: Place, at: jizoku_log::problem::Place) -> Place {
    let start = place.start as usize;
    Place::new(start + at.start, start + at.end)
}
