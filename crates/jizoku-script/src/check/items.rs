//! What a script declares: events, tasks, flows, monitors, triggers.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Checker, Declared, Event, Part, PartKind};
use crate::limits::{EVERY_MIN, PARAMS_MAX};
use crate::nearest::suggestion;
use crate::permission::Permissions;
use crate::problem::Place;
use crate::syntax::tree::{self, Expr, ExprKind, Item, Monitor, Param, Script, Task, TypeName};
use crate::types::{NAMED, RECORD_FIELDS, Type};

impl<'a> Checker<'a> {
    pub(super) fn script(&mut self, script: &'a Script) {
        for (name, fields) in &self.offer.events {
            let fields = fields.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
            self.add_event(Event { name, place: None, fields });
        }
        for item in &script.items {
            match item {
                Item::Event(event) => self.event(event),
                Item::Task(task) => self.declare_part("task", task.name, &task.params),
                Item::Flow(flow) => self.declare_part("flow", flow.name, &flow.params),
                Item::Monitor(_) | Item::Trigger(_) => {}
            }
        }
        let mut monitors = BTreeSet::new();
        for item in &script.items {
            match item {
                Item::Event(_) => {}
                Item::Task(task) => self.task(task),
                Item::Flow(flow) => self.flow(flow),
                Item::Monitor(monitor) => {
                    let name = self.word(monitor.name);
                    if !monitors.insert(name) || self.tasks.contains_key(name) {
                        let what = format!("there is another task or monitor `{name}`");
                        self.problems.add(monitor.name, what);
                    }
                    self.monitor(monitor);
                }
                Item::Trigger(trigger) => self.trigger(trigger),
            }
        }
        self.needs_of_flows();
    }

    fn add_event(&mut self, event: Event<'a>) {
        let number = u16::try_from(self.events.len()).unwrap_or(u16::MAX);
        self.numbers.insert(event.name, number);
        self.events.push(event);
    }

    fn event(&mut self, event: &'a tree::Event) {
        let name = self.name(event.name);
        if name.contains([' ', '\t', '\n', '#']) {
            self.problems.add(event.name, "an event's name has no blanks");
        }
        if let Some(number) = self.numbers.get(name) {
            let known = &self.events[usize::from(*number)];
            let hint = match known.place {
                Some(_) => "it is declared above",
                None => "it is one that jizoku knows: use it without declaring it",
            };
            self.problems.hint(event.name, format!("`{name}` is declared twice"), hint);
            return;
        }
        self.params_fit("an event", "fields", event.name, &event.fields);
        let mut fields = Vec::new();
        for field in &event.fields {
            let kind = self.type_of(&field.kind);
            let inner = kind.present().unwrap_or(kind);
            if inner.element().is_some() {
                let what = "a record's fields hold no lists";
                self.problems.hint(field.name, what, "join them to a text, or emit a record each");
            }
            if let Some(default) = &field.default {
                self.problems.add(default.place, "fields of events have no defaults");
            }
            let name = self.word(field.name);
            if RECORD_FIELDS.iter().any(|(known, ..)| *known == name) || RESERVED.contains(&name) {
                let what = format!("every record has a `{name}` of its own");
                self.problems.hint(field.name, what, "choose another name");
            }
            fields.push((name, kind));
        }
        self.add_event(Event { name, place: Some(event.name), fields });
    }

    fn declare_part(&mut self, what: &str, place: Place, params: &'a [Param]) {
        let name = self.name(place);
        self.params_fit(&format!("a {what}"), "parameters", place, params);
        let known = if what == "task" { &mut self.tasks } else { &mut self.flows };
        if known.insert(name, Declared { params }).is_some() {
            self.problems.add(place, format!("there is another {what} `{name}`"));
        }
    }

    fn params_fit(&mut self, of: &str, what: &str, place: Place, params: &'a [Param]) {
        if params.len() > PARAMS_MAX {
            self.problems.add(place, format!("{of} has at most {PARAMS_MAX} {what}"));
        }
        let mut names = BTreeSet::new();
        for param in params {
            let name = self.name(param.name);
            if !names.insert(name) {
                self.problems.add(param.name, format!("`{name}` is there twice"));
            }
        }
    }

    /// The type that a name means.
    pub(super) fn type_of(&mut self, name: &TypeName) -> Type {
        match name {
            TypeName::Named(place) => {
                let word = self.word(*place);
                Type::named(word).unwrap_or_else(|| {
                    let hint = match word {
                        "string" | "text" | "String" => "did you mean `str`?".to_string(),
                        "number" => "did you mean `int` or `float`?".to_string(),
                        "time" => "did you mean `duration`?".to_string(),
                        _ => suggestion(word, NAMED.map(|(name, _)| name)).unwrap_or_else(|| {
                            "types are bool int float str duration size, [T] and T?".to_string()
                        }),
                    };
                    self.problems.hint(*place, format!("no type `{word}`"), hint);
                    Type::ANY
                })
            }
            TypeName::List(inner) => self.wrapped(inner, Type::list),
            TypeName::Optional(inner) => self.wrapped(inner, Type::optional),
        }
    }

    fn wrapped(&mut self, inner: &TypeName, wrap: impl Fn(Type) -> Type) -> Type {
        let kind = self.type_of(inner);
        if kind.is_full() {
            let mut name = inner;
            while let TypeName::List(inner) | TypeName::Optional(inner) = name {
                name = inner;
            }
            if let TypeName::Named(place) = name {
                self.problems.add(*place, "a type that is nested too deep");
            }
            return Type::ANY;
        }
        wrap(kind)
    }

    /// Declares parameters as names, and checks their defaults.
    pub(super) fn params(&mut self, params: &'a [Param]) {
        let mut defaults = false;
        for param in params {
            let kind = self.type_of(&param.kind);
            if let Some(default) = &param.default {
                defaults = true;
                let before = core::mem::take(&mut self.locals);
                let found = self.pure(default);
                self.locals = before;
                self.expect(default.place, found, kind, "the default");
            } else if defaults {
                let what = "parameters with defaults come last";
                self.problems.add(param.name, what);
            }
            self.declare(param.name, kind, false);
        }
    }

    /// A value in which functions of the host may not be called.
    pub(super) fn pure(&mut self, expr: &'a Expr) -> Type {
        let before = core::mem::replace(&mut self.may_call, false);
        let kind = self.expr(expr);
        self.may_call = before;
        kind
    }

    fn task(&mut self, task: &'a Task) {
        let name = self.word(task.name);
        self.begin(name);
        self.scope(|checker| {
            checker.params(&task.params);
            checker.block(&task.body);
        });
        self.end(PartKind::Task, name, task.name, Vec::new(), Vec::new());
    }

    fn begin(&mut self, name: &str) {
        self.needs = Permissions::NONE;
        self.on_host = self.here.is_none_or(|here| here.contains(name));
        self.may_call = true;
        self.loops = 0;
    }

    pub(super) fn end(
        &mut self,
        kind: PartKind,
        name: &str,
        place: Place,
        targets: Vec<alloc::string::String>,
        uses: Vec<alloc::string::String>,
    ) {
        let needs = core::mem::take(&mut self.needs);
        self.parts.push(Part { kind, name: name.to_string(), needs, targets, uses, place });
    }

    fn monitor(&mut self, monitor: &'a Monitor) {
        let name = self.name(monitor.name);
        self.begin(name);
        let mut targets = Vec::new();
        self.span(&monitor.every, "how often it runs");
        if let ExprKind::Duration(nanos) = monitor.every.kind
            && nanos < EVERY_MIN.as_nanos()
        {
            let what = format!("a monitor runs at most every {EVERY_MIN}");
            self.problems.add(monitor.every.place, what);
        }
        if let Some(within) = &monitor.within {
            self.span(within, "the time limit");
        }
        self.target(&monitor.on, &mut targets);
        self.scope(|checker| checker.block(&monitor.body));
        self.end(PartKind::Monitor, name, monitor.name, targets, Vec::new());
    }

    /// A value that must be a time.
    pub(super) fn span(&mut self, expr: &'a Expr, what: &str) {
        let found = self.pure(expr);
        self.expect(expr.place, found, Type::DURATION, what);
    }

    /// Flows need what their tasks need, triggers what their flows need.
    fn needs_of_flows(&mut self) {
        let needs = |parts: &[Part], kind: PartKind, names: &[alloc::string::String]| {
            let mut all = Permissions::NONE;
            for part in parts.iter().filter(|p| p.kind == kind && names.contains(&p.name)) {
                all.extend(part.needs);
            }
            all
        };
        for (kind, of) in [(PartKind::Flow, PartKind::Task), (PartKind::Trigger, PartKind::Flow)] {
            for at in 0..self.parts.len() {
                if self.parts[at].kind == kind {
                    let more = needs(&self.parts, of, &self.parts[at].uses);
                    self.parts[at].needs.extend(more);
                }
            }
        }
    }
}

/// Names that mean something else where records are looked at or emitted.
const RESERVED: [&str; 5] = ["trace", "seq", "source", "where", "within"];
