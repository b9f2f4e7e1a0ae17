//! The checker: whether a script makes sense, may be run by the role that runs it, and can be
//! run on the target.
//!
//! - [`items`]: what a script declares; tasks, monitors
//! - [`stmt`], [`expr`], [`call`]: what tasks do
//! - [`flow`]: steps of flows, and triggers
//! - [`names`]: what literal texts name; [`filter`]: conditions over records
//!
//! What it does not know: sockets, files, the cluster; it is told by an [`Offer`].
//!
//! Invariants
//! - All mistakes are found in one go. A mistake's value fits everything, so that one mistake
//!   gives one problem.
//! - What passes neither loops without an end nor recurses: loops go over lists, tasks call
//!   functions of the table only, flows run tasks only.
//! - What passes calls no function that the role may not use.

mod call;
mod expr;
mod filter;
mod flow;
mod items;
mod names;
mod stmt;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{LOCALS_MAX, NAME_MAX, SOURCE_MAX};
use crate::nearest::suggestion;
use crate::offer::Offer;
use crate::permission::{Permission, Permissions};
use crate::problem::{Place, Problem, Problems};
use crate::syntax::parser::parse;
use crate::syntax::tree::{Param, Script};
use crate::types::Type;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What is wrong, in the order of the text. Empty: it may run.
    pub problems: Vec<Problem>,
    /// What all tasks and monitors together need.
    pub needs: Permissions,
    /// What the script holds, in the order of the text.
    pub parts: Vec<Part>,
}

/// A task, flow, monitor or trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which of them.
    pub kind: PartKind,
    /// Its name; of a trigger that of its event.
    pub name: String,
    /// What it needs; of flows and triggers, what the tasks need that they run.
    pub needs: Permissions,
    /// Where it runs, as it is written behind `on`; of tasks nothing.
    pub targets: Vec<String>,
    /// Tasks that a flow runs; flows that a trigger starts.
    pub uses: Vec<String>,
    /// Its name in the text.
    pub place: Place,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A task.
    Task,
    /// A flow.
    Flow,
    /// A monitor.
    Monitor,
    /// A trigger.
    Trigger,
}

/// Checks a script. `here`: the tasks and monitors that shall run on the target; what only the
/// host can tell (programs, units, functions) is checked for these alone. None: for all.
pub fn check(text: &str, offer: &Offer, here: Option<&BTreeSet<String>>) -> Checked {
    let mut problems = Problems::default();
    if text.len() > SOURCE_MAX {
        let what = format!("the script is longer than {SOURCE_MAX} bytes");
        problems.add(Place::default(), what);
        return Checked { problems: problems.in_order(), ..Checked::default() };
    }
    let script = parse(text, &mut problems);
    check_tree(text, &script, offer, here, problems)
}

pub(crate) fn check_tree(
    text: &str,
    script: &Script,
    offer: &Offer,
    here: Option<&BTreeSet<String>>,
    problems: Problems,
) -> Checked {
    let mut checker = Checker {
        text,
        offer,
        here,
        problems,
        events: Vec::new(),
        numbers: BTreeMap::new(),
        tasks: BTreeMap::new(),
        flows: BTreeMap::new(),
        locals: Vec::new(),
        most_locals: 0,
        needs: Permissions::NONE,
        on_host: true,
        loops: 0,
        may_call: true,
        parts: Vec::new(),
    };
    checker.script(script);
    let mut needs = Permissions::NONE;
    for part in &checker.parts {
        needs.extend(part.needs);
    }
    Checked { problems: checker.problems.in_order(), needs, parts: checker.parts }
}

/// Something with parameters.
#[derive(Clone, Copy)]
struct Declared<'a> {
    params: &'a [Param],
}

struct Event<'a> {
    name: &'a str,
    place: Option<Place>,
    fields: Vec<(&'a str, Type)>,
}

struct Local<'a> {
    name: &'a str,
    kind: Type,
    variable: bool,
}

struct Checker<'a> {
    text: &'a str,
    offer: &'a Offer,
    here: Option<&'a BTreeSet<String>>,
    problems: Problems,
    events: Vec<Event<'a>>,
    numbers: BTreeMap<&'a str, u16>,
    tasks: BTreeMap<&'a str, Declared<'a>>,
    flows: BTreeMap<&'a str, Declared<'a>>,
    locals: Vec<Local<'a>>,
    most_locals: usize,
    /// What the part that is being checked needs.
    needs: Permissions,
    /// Whether the part that is being checked runs on this target.
    on_host: bool,
    loops: u32,
    /// Whether functions of the host may be called here.
    may_call: bool,
    parts: Vec<Part>,
}

impl<'a> Checker<'a> {
    fn word(&self, place: Place) -> &'a str {
        place.of(self.text)
    }

    /// The type as text, with the names of events.
    fn show(&self, kind: Type) -> String {
        let name = |number: u16| self.events.get(usize::from(number)).map_or("?", |e| e.name);
        format!("{}", kind.show(&name))
    }

    /// Says that a value is of another type than is expected there. Gives whether it fits.
    fn expect(&mut self, place: Place, found: Type, expected: Type, what: &str) -> bool {
        if found.fits(expected) {
            return true;
        }
        let message =
            format!("{what} is {}, but {} is expected", self.show(found), self.show(expected));
        match found.present() {
            Some(inner) if inner.fits(expected) || inner.is_any() => {
                let hint = "it may be absent: give another with `??`, or test it with `if let`";
                self.problems.hint(place, message, hint);
            }
            _ => match conversion(found, expected) {
                Some(hint) => self.problems.hint(place, message, hint),
                None => self.problems.add(place, message),
            },
        }
        false
    }

    fn local(&self, name: &str) -> Option<&Local<'a>> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn declare(&mut self, place: Place, kind: Type, variable: bool) {
        let name = self.name(place);
        if kind == Type::NOTHING {
            self.problems.add(place, format!("`{name}` would hold nothing"));
        }
        if self.locals.len() >= LOCALS_MAX {
            self.problems.add(place, format!("more than {LOCALS_MAX} names at once"));
            return;
        }
        if self.local(name).is_some() {
            let what = format!("`{name}` is a name already");
            self.problems.hint(place, what, "every name means one thing: choose another");
        }
        let kind = if kind == Type::NOTHING { Type::ANY } else { kind };
        self.locals.push(Local { name, kind, variable });
        self.most_locals = self.most_locals.max(self.locals.len());
    }

    /// A new name, which must not be too long.
    fn name(&mut self, place: Place) -> &'a str {
        let name = self.word(place);
        if name.len() > NAME_MAX {
            self.problems.add(place, format!("a name has at most {NAME_MAX} letters"));
        }
        name
    }

    /// Checks something in which new names may be declared, and forgets them.
    fn scope(&mut self, inside: impl FnOnce(&mut Self)) {
        let before = self.locals.len();
        inside(self);
        self.locals.truncate(before);
    }

    /// The role must hold a permission, and the host must be able.
    fn permit(&mut self, place: Place, function: &str, needs: Option<Permission>) {
        let Some(permission) = needs else { return };
        self.needs.add(permission);
        if let Some((role, permissions)) = &self.offer.role
            && !permissions.allow(permission)
        {
            let what = format!("role `{role}` may not use `{function}`");
            let hint = format!("it needs the permission `{permission}`");
            self.problems.hint(place, what, hint);
            return;
        }
        if self.on_host
            && let Some(reason) = self.offer.missing.get(function)
        {
            let what = format!("{} can't do `{function}`", self.host());
            self.problems.hint(place, what, reason.as_str());
        }
    }

    fn host(&self) -> &'a str {
        if self.offer.host.is_empty() { "this host" } else { &self.offer.host }
    }

    fn unknown_name(&mut self, place: Place) {
        let name = self.word(place);
        let known = self.locals.iter().map(|local| local.name);
        let what = format!("no `{name}` is known here");
        match suggestion(name, known) {
            Some(hint) => self.problems.hint(place, what, hint),
            None => self.problems.add(place, what),
        }
    }
}

/// How to make the one out of the other.
fn conversion(found: Type, expected: Type) -> Option<&'static str> {
    match (found, expected) {
        (_, Type::STR) => Some("write it inside a text: \"{value}\""),
        (Type::STR, Type::INT) => Some("`int(text)` reads a number"),
        (Type::STR, Type::FLOAT) => Some("`float(text)` reads a number"),
        (Type::FLOAT, Type::INT) => Some("`round(number)` gives a whole one"),
        (Type::INT | Type::FLOAT, Type::DURATION) => Some("a time has a unit: 30s"),
        (Type::INT | Type::FLOAT, Type::SIZE) => Some("a size has a unit: 64MiB"),
        (Type::DURATION, Type::FLOAT) => Some("`seconds(time)` gives a number"),
        _ => None,
    }
}
