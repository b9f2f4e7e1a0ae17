//! The functions of the language: one table that drives the checker, the evaluator, the docs and
//! the editors.
//!
//! - [`builtin`]: functions of values alone, computed by the evaluator
//! - [`host`]: functions of the host and the cluster, asked of whoever runs the script
//!
//! What it does not know: how any of them does its work.
//!
//! Invariants
//! - Every function of the host names the permission that it needs.
//! - Parameters that may be left out come last.

mod builtin;
mod host;
mod reference;

pub use reference::reference;

use crate::permission::Permission;
use crate::types::Type;

pub use builtin::Builtin;

/// A function.
#[derive(Debug)]
pub struct Function {
    /// Its name, with its namespace: `service.restart`.
    pub name: &'static str,
    /// What it takes.
    pub params: &'static [Parameter],
    /// What it takes beside these.
    pub rest: Rest,
    /// What it gives.
    pub result: Gives,
    /// What the role must hold.
    pub needs: Option<Permission>,
    /// Who does it.
    pub by: By,
    /// What it does, for people.
    pub doc: &'static str,
}

/// One parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name: it may be given by name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// What a text in it names.
    pub means: Means,
    /// Whether it has to be given.
    pub required: bool,
}

/// What a text names: a literal one is looked up when the script is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Nothing in particular.
    Plain,
    /// A service of the cluster.
    Service,
    /// A systemd unit of the host.
    Unit,
    /// A program on the host's path.
    Program,
    /// A node of the cluster.
    Node,
    /// An event. Always a literal: the fields are checked by it.
    Event,
    /// A level of a record.
    Level,
    /// A shell text. Always a literal: values are passed as environment.
    Shell,
}

/// What a function takes beside its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Named values, passed to a shell text as environment.
    Environment,
    /// The fields of the event that is its first parameter.
    Fields,
    /// A `where` clause over the event that is its first parameter.
    Filter,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// A value of this type.
    Value(Type),
    /// An element of the list that it was given, if there is one.
    Element,
    /// A value of the type that it was given first.
    Same,
    /// A record of the event that is its first parameter.
    Record,
    /// Such a record, if there is one.
    RecordIfAny,
    /// Such records.
    Records,
}

/// Who does a function's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The evaluator.
    Evaluator(Builtin),
    /// The host: the evaluator stops and asks.
    Host,
}

/// All functions, those of the evaluator first, ordered by name within each.
pub fn all() -> impl Iterator<Item = &'static Function> {
    builtin::FUNCTIONS.iter().chain(host::FUNCTIONS)
}

/// The function with this name.
pub fn find(name: &str) -> Option<&'static Function> {
    let list = if name.contains('.') { host::FUNCTIONS } else { builtin::FUNCTIONS };
    list.binary_search_by(|function| function.name.cmp(name)).ok().map(|at| &list[at])
}

impl Function {
    /// The parameter with this name.
    pub fn param(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| param.name == name)
    }

    /// Whether it may stand where nothing of a host is known: in steps of flows.
    pub fn is_pure(&self) -> bool {
        self.by != By::Host
    }
}

const fn param(name: &'static str, kind: Type) -> Parameter {
    Parameter { name, kind, means: Means::Plain, required: true }
}

const fn named(name: &'static str, means: Means) -> Parameter {
    Parameter { name, kind: Type::STR, means, required: true }
}

const fn optional(name: &'static str, kind: Type) -> Parameter {
    Parameter { name, kind, means: Means::Plain, required: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_and_sound() {
        for list in [builtin::FUNCTIONS, host::FUNCTIONS] {
            for pair in list.windows(2) {
                assert!(pair[0].name < pair[1].name, "{} {}", pair[0].name, pair[1].name);
            }
        }
        for function in all() {
            assert!(core::ptr::eq(find(function.name).unwrap(), function), "{}", function.name);
            assert_eq!(function.name.contains('.'), !function.is_pure(), "{}", function.name);
            assert_eq!(
                function.needs.is_some(),
                !function.is_pure() && function.name != "clock.sleep"
            );
            let first_optional = function.params.iter().position(|param| !param.required);
            let after = &function.params[first_optional.unwrap_or(function.params.len())..];
            assert!(after.iter().all(|param| !param.required), "{}", function.name);
            let first = function.params.first().map(|param| param.means);
            let of_event = matches!(function.rest, Rest::Fields | Rest::Filter)
                || matches!(function.result, Gives::Record | Gives::RecordIfAny | Gives::Records);
            assert!(!of_event || first == Some(Means::Event), "{}", function.name);
            assert!(function.rest != Rest::Environment || first == Some(Means::Shell));
            assert!(!function.doc.is_empty());
        }
    }
}
