//! A script that passed its check: what tasks are run from and flows are planned from.
//!
//! - [`Script::read`]: checks a text; only one without problems becomes a script
//! - [`Script::task`], [`Script::monitor`]: a run, ready to begin

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::check::{Checked, check_tree};
use crate::compile::{compile, compile_value};
use crate::limits::SOURCE_MAX;
use crate::offer::{Fields, Offer};
use crate::permission::Permissions;
use crate::problem::{Place, Problem, Problems};
use crate::program::Program;
use crate::run::Run;
use crate::syntax::parser::parse;
use crate::syntax::tree::{self, Item, Param, TypeName};
use crate::types::Type;
use crate::value::Value;

/// A script that passed its check.
#[derive(Debug)]
pub struct Script {
    pub(crate) text: Arc<str>,
    pub(crate) tree: tree::Script,
    /// Events, in the order of their numbers: the target's own first.
    pub(crate) events: Vec<(String, Fields)>,
    /// What the check found beside problems.
    pub checked: Checked,
}

/// Arguments by name.
pub type Arguments = Vec<(String, Value)>;

impl Script {
    /// Checks a text for a target; `here` as in [`check`](crate::check::check).
    pub fn read(
        text: &str,
        offer: &Offer,
        here: Option<&BTreeSet<String>>,
    ) -> Result<Script, Vec<Problem>> {
        let mut problems = Problems::default();
        if text.len() > SOURCE_MAX {
            let what = format!("the script is longer than {SOURCE_MAX} bytes");
            problems.add(Place::default(), what);
            return Err(problems.in_order());
        }
        let tree = parse(text, &mut problems);
        let checked = check_tree(text, &tree, offer, here, problems);
        if !checked.problems.is_empty() {
            return Err(checked.problems);
        }
        let mut events: Vec<_> =
            offer.events.iter().map(|(name, fields)| (name.clone(), fields.clone())).collect();
        for item in &tree.items {
            if let Item::Event(event) = item {
                let field =
                    |field: &Param| (field.name.of(text).to_string(), type_of(text, &field.kind));
                let fields = event.fields.iter().map(field).collect();
                events.push((event.name.of(text).to_string(), fields));
            }
        }
        Ok(Script { text: text.into(), tree, events, checked })
    }

    /// A run of a task. Arguments that don't fit are refused, for people.
    pub fn task(
        &self,
        name: &str,
        arguments: Arguments,
        permissions: Permissions,
    ) -> Result<Run, String> {
        let task = self.tree.items.iter().find_map(|item| match item {
            Item::Task(task) if task.name.of(&self.text) == name => Some(task),
            _ => None,
        });
        let task = task.ok_or_else(|| format!("the script has no task `{name}`"))?;
        let program = compile(self, &task.params, &task.body)?;
        self.begin(name, program, &task.params, arguments, permissions)
    }

    /// Whether a task may be run again if nobody knows how it ended.
    pub fn is_idempotent(&self, name: &str) -> bool {
        self.tree.items.iter().any(|item| match item {
            Item::Task(task) => task.idempotent && task.name.of(&self.text) == name,
            _ => false,
        })
    }

    /// The fields of an event that the script may use.
    pub fn fields(&self, event: &str) -> Option<&Fields> {
        self.events.iter().find(|(name, _)| name == event).map(|(_, fields)| fields)
    }

    /// Whether a function may be called: its name stands somewhere in the text.
    pub fn mentions(&self, function: &str) -> bool {
        self.text.contains(function)
    }

    /// Names of the flows, in the order of the text.
    pub fn flows(&self) -> impl Iterator<Item = &str> {
        self.tree.items.iter().filter_map(|item| match item {
            Item::Flow(flow) => Some(flow.name.of(&self.text)),
            _ => None,
        })
    }

    /// An argument of a flow from what a person typed: a text as it is, all else as it is written
    /// in scripts. What is wrong is said for people.
    pub fn argument(&self, flow: &str, name: &str, typed: &str) -> Result<Value, String> {
        let params = self.tree.items.iter().find_map(|item| match item {
            Item::Flow(tree) if tree.name.of(&self.text) == flow => Some(&tree.params),
            _ => None,
        });
        let params = params.ok_or_else(|| format!("the script has no flow `{flow}`"))?;
        let param = params.iter().find(|param| param.name.of(&self.text) == name);
        let param = param.ok_or_else(|| format!("`{flow}` has no parameter `{name}`"))?;
        let kind = type_of(&self.text, &param.kind);
        if kind.present().unwrap_or(kind) == Type::STR {
            return Ok(Value::text(typed));
        }
        // What stands for a default is a value and nothing else.
        let text = format!("flow typed(value: {kind} = {typed}) {{ pause 1s }}");
        let wrong = |why: &str| format!("`{typed}` is no {kind}: {why}");
        let script = Script::read(&text, &Offer::unknown(), None)
            .map_err(|problems| wrong(problems.first().map_or("", |p| p.message.as_str())))?;
        let [Item::Flow(tree)] = script.tree.items.as_slice() else { return Err(wrong("")) };
        let [Param { default: Some(value), .. }] = tree.params.as_slice() else {
            return Err(wrong(""));
        };
        let value = Run::result(compile_value(&script, &[], value)?, Vec::new())?;
        Ok(value.widened(kind))
    }

    /// One run of a monitor.
    pub fn monitor(&self, name: &str, permissions: Permissions) -> Result<Run, String> {
        let monitor = self.tree.items.iter().find_map(|item| match item {
            Item::Monitor(monitor) if monitor.name.of(&self.text) == name => Some(monitor),
            _ => None,
        });
        let monitor = monitor.ok_or_else(|| format!("the script has no monitor `{name}`"))?;
        let program = compile(self, &[], &monitor.body)?;
        self.begin(name, program, &[], Vec::new(), permissions)
    }

    fn begin(
        &self,
        name: &str,
        program: Program,
        params: &[Param],
        arguments: Arguments,
        permissions: Permissions,
    ) -> Result<Run, String> {
        let given = self.fit(name, params, arguments)?;
        Ok(Run::new(Arc::new(program), given, permissions))
    }

    /// Arguments in the order of the parameters; absent are those with a default.
    pub(crate) fn fit(
        &self,
        name: &str,
        params: &[Param],
        arguments: Arguments,
    ) -> Result<Vec<Option<Value>>, String> {
        let mut given: Vec<Option<Value>> = params.iter().map(|_| None).collect();
        for (word, value) in arguments {
            let at = params.iter().position(|param| param.name.of(&self.text) == word);
            let at = at.ok_or_else(|| format!("`{name}` has no parameter `{word}`"))?;
            let kind = type_of(&self.text, &params[at].kind);
            if !value.is_shallow(0) || !value.is_a(kind, &|_| Vec::new()) {
                return Err(format!("`{word}` of `{name}` is not {kind}"));
            }
            given[at] = Some(value.widened(kind));
        }
        let missing = params.iter().zip(&given).find(|(p, v)| v.is_none() && p.default.is_none());
        match missing {
            Some((param, _)) => Err(format!("`{name}` lacks `{}`", param.name.of(&self.text))),
            None => Ok(given),
        }
    }

    pub(crate) fn event(&self, name: &str) -> Option<u16> {
        let at = self.events.iter().position(|(known, _)| known == name)?;
        u16::try_from(at).ok()
    }
}

/// The type that a name of a checked script means.
pub(crate) fn type_of(text: &str, name: &TypeName) -> Type {
    match name {
        TypeName::Named(place) => Type::named(place.of(text)).unwrap_or(Type::ANY),
        TypeName::List(inner) => type_of(text, inner).list(),
        TypeName::Optional(inner) => type_of(text, inner).optional(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn arguments_are_read_as_their_parameters_want_them() {
        let text = "flow f(a: str, b: int, c: [str], d: duration, e: float?) { pause 1s }";
        let script = Script::read(text, &Offer::unknown(), None).unwrap();
        assert!(script.flows().eq(["f"]));
        let list = Value::list(vec![Value::text("x"), Value::text("y")]);
        for (name, typed, value) in [
            ("a", "8080", Value::text("8080")),
            ("b", "8080", Value::Int(8080)),
            ("c", "[\"x\", \"y\"]", list),
            ("d", "1m30s", Value::Duration(90_000_000_000)),
            ("e", "2", Value::Float(2.0)),
        ] {
            assert_eq!(script.argument("f", name, typed), Ok(value), "{name}");
        }
        for (name, typed) in
            [("b", "x"), ("b", "1, c: int = 2"), ("b", "1) { } task t("), ("z", "")]
        {
            assert!(script.argument("f", name, typed).is_err(), "{name} {typed}");
        }
    }
}
