//! What literal texts name: services, units, programs, nodes, events, levels; shell texts;
//! filters.

use alloc::format;
use alloc::string::{String, ToString};

use super::Checker;
use crate::functions::{Function, Means};
use crate::limits::SHELL_MAX;
use crate::nearest::suggestion;
use crate::offer::Known;
use crate::problem::Place;
use crate::shell;
use crate::syntax::tree::{Call, Expr};
use crate::target::Target;

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

impl<'a> Checker<'a> {
    /// Something that a literal text names must exist.
    pub(super) fn named(&mut self, means: Means, place: Place, text: &str) {
        let offer = self.offer;
        match means {
            Means::Service => self.exists(place, text, &offer.services, "no service"),
            Means::Node => self.exists(place, text, &offer.nodes, "no node"),
            Means::Unit if self.on_host => {
                let unit =
                    if text.contains('.') { text.to_string() } else { format!("{text}.service") };
                let what = format!("{} has no unit", self.host());
                self.exists(place, &unit, &offer.units, &what);
            }
            Means::Program if self.on_host && !text.contains('/') => {
                let what = format!("{} has no program", self.host());
                self.exists(place, text, &offer.programs, &what);
            }
            Means::Level if !LEVELS.contains(&text) => {
                let hint = suggestion(text, LEVELS)
                    .unwrap_or_else(|| "levels are trace debug info warn error fatal".to_string());
                self.problems.hint(place, format!("no level `{text}`"), hint);
            }
            _ => {}
        }
    }

    fn exists(&mut self, place: Place, name: &str, known: &Known, what: &str) {
        let Some(known) = known else { return };
        if known.contains(name) {
            return;
        }
        let message = format!("{what} `{name}`");
        match suggestion(name, known.iter().map(String::as_str)) {
            Some(hint) => self.problems.hint(place, message, hint),
            None if known.is_empty() => self.problems.hint(place, message, "there are none"),
            None if known.len() <= 8 => {
                let list = known.iter().map(String::as_str).collect::<alloc::vec::Vec<_>>();
                self.problems.hint(place, message, format!("there are {}", list.join(", ")));
            }
            None => self.problems.add(place, message),
        }
    }

    /// The number of the event that a literal text names.
    pub(super) fn event_of(&mut self, expr: &'a Expr) -> Option<u16> {
        let name = self.literal(expr)?;
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let known = self.numbers.keys().copied();
        let hint = suggestion(name, known)
            .unwrap_or_else(|| format!("declare it: `event {name} {{ field: type }}`"));
        self.problems.hint(expr.place, format!("no event `{name}`"), hint);
        None
    }

    /// Where something runs.
    pub(super) fn target(&mut self, expr: &'a Expr, targets: &mut alloc::vec::Vec<String>) {
        let found = self.pure(expr);
        self.expect(expr.place, found, crate::types::Type::STR, "the target");
        let Some(text) = self.literal(expr) else {
            targets.push(self.word(expr.place).trim_matches('"').to_string());
            return;
        };
        match Target::parse(text) {
            Err(problem) => self.problems.add(expr.place, problem),
            Ok(target) => {
                for term in &target.terms {
                    let offer = self.offer;
                    match term.key.as_str() {
                        "node" => self.exists(expr.place, &term.value, &offer.nodes, "no node"),
                        "service" => {
                            self.exists(expr.place, &term.value, &offer.services, "no service");
                        }
                        _ if term.not => {}
                        _ => {
                            let label = format!("{}:{}", term.key, term.value);
                            let what = "no node has the label";
                            self.exists(expr.place, &label, &offer.labels, what);
                        }
                    }
                }
                targets.push(target.to_string());
            }
        }
    }

    /// A shell text: its syntax, the programs and the variables that it uses.
    pub(super) fn shell_text(&mut self, function: &Function, call: &'a Call, expr: &'a Expr) {
        let Some(text) = self.literal(expr) else { return };
        if text.len() > SHELL_MAX {
            let what = format!("a shell text has at most {SHELL_MAX} bytes");
            return self.problems.add(expr.place, what);
        }
        // Where the source says the same as the text, places can be told exactly.
        let source = self.word(expr.place);
        let quotes = if source.starts_with("\"\"\"") { 3 } else { 1 };
        let inner = source.get(quotes..source.len().saturating_sub(quotes)).unwrap_or("");
        let exact = quotes == 3 || !inner.contains('\\');
        let read = if exact { inner } else { text };
        let start = expr.place.start as usize + quotes;
        let place = |from: usize, to: usize| {
            if exact { Place::new(start + from, start + to) } else { expr.place }
        };
        let uses = match shell::read(read) {
            Ok(uses) => uses,
            Err(mistake) => {
                let what = format!("the shell would not read this: {}", mistake.what);
                return self.problems.add(place(mistake.start, mistake.end), what);
            }
        };
        for (at, program) in &uses.programs {
            self.named(Means::Program, place(*at, at + program.len()), program);
        }
        for (at, variable) in &uses.variables {
            let named = call.args.iter().filter_map(|arg| arg.name);
            let passed = |name: &Place| {
                let word = self.word(*name);
                word == *variable && function.param(word).is_none()
            };
            if !named.into_iter().any(|name| passed(&name)) {
                let what = format!("the shell text uses ${variable}, which isn't set");
                let known = self.locals.iter().map(|local| local.name);
                let hint = match known.into_iter().find(|name| name == variable) {
                    Some(name) => format!("pass it: `{name}: {name}`"),
                    None => format!(
                        "pass it: `{variable}: value`, or say what else: ${{{variable}:-...}}"
                    ),
                };
                self.problems.hint(place(*at, at + variable.len() + 1), what, hint);
            }
        }
    }
}
