//! Calls: arguments against parameters, events and shell texts.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{Checker, Declared};
use crate::functions::{self, Function, Gives, Means, Rest};
use crate::nearest::{nearest, suggestion};
use crate::problem::Place;
use crate::syntax::tree::{Arg, Call, Expr, ExprKind, Param};
use crate::types::{Base, Type};

impl<'a> Checker<'a> {
    pub(super) fn call(&mut self, call: &'a Call) -> Type {
        let name = self.word(call.name);
        let Some(function) = functions::find(name) else {
            self.no_function(call, name);
            return Type::ANY;
        };
        if !function.is_pure() && !self.may_call {
            let hint = "work is done by tasks: put it into one, and `run` that";
            let what = format!("`{name}` can't be called here");
            self.problems.hint(call.name, what, hint);
        }
        self.permit(call.name, name, function.needs);
        let given = self.args(function, call);
        self.rest(function, call, &given);
        self.gives(function, &given)
    }

    fn no_function(&mut self, call: &'a Call, name: &'a str) {
        for arg in &call.args {
            self.expr(&arg.value);
        }
        if self.tasks.contains_key(name) {
            let hint = "flows run tasks: `run task() on \"target\"`";
            let what = format!("a task can't call the task `{name}`");
            return self.problems.hint(call.name, what, hint);
        }
        let what = format!("no function `{name}`");
        match name_hint(name) {
            Some(hint) => self.problems.hint(call.name, what, hint),
            None => self.problems.add(call.name, what),
        }
    }

    /// Checks the arguments that are parameters. Gives for each parameter what it got.
    fn args(&mut self, function: &Function, call: &'a Call) -> Vec<Option<(Type, &'a Expr)>> {
        let mut given = vec![None; function.params.len()];
        let mut next = 0;
        for arg in &call.args {
            let found = self.expr(&arg.value);
            let at = match arg.name {
                Some(name) => {
                    let Some(at) = function.param(self.word(name)) else {
                        self.extra(function, call, arg, name, found);
                        continue;
                    };
                    at
                }
                None if next < function.params.len() => next,
                None => {
                    let what = format!("`{}` takes {}", function.name, count(function));
                    self.problems.hint(arg.value.place, what, function.signature());
                    continue;
                }
            };
            if arg.name.is_none() {
                next = at + 1;
            }
            let param = &function.params[at];
            if given[at].is_some() {
                let what = format!("`{}` is given twice", param.name);
                self.problems.add(arg.value.place, what);
            }
            given[at] = Some((found, &arg.value));
            let what = format!("`{}`", param.name);
            if self.expect(arg.value.place, found, param.kind, &what) {
                self.meaning(param.means, &arg.value);
            }
        }
        let missing = function.params.iter().zip(&given);
        let missing: Vec<&str> = missing
            .filter(|(param, given)| param.required && given.is_none())
            .map(|(param, _)| param.name)
            .collect();
        if !missing.is_empty() {
            let what = format!("`{}` lacks `{}`", function.name, missing.join("`, `"));
            self.problems.hint(call.name, what, function.signature());
        }
        given
    }

    /// An argument with a name that is no parameter's.
    fn extra(
        &mut self,
        function: &Function,
        call: &'a Call,
        arg: &'a Arg,
        name: Place,
        found: Type,
    ) {
        match function.rest {
            Rest::Environment => {
                let plain = [Type::STR, Type::INT, Type::FLOAT, Type::BOOL, Type::DURATION];
                let fits = plain.iter().any(|kind| found.fits(*kind)) || found == Type::SIZE;
                if !fits {
                    let shown = self.show(found);
                    let what = format!("a shell variable holds a text, but this is {shown}");
                    self.problems.add(arg.value.place, what);
                }
            }
            // Checked together with the event.
            Rest::Fields => {}
            Rest::Nothing | Rest::Filter => {
                let word = self.word(name);
                let what = format!("`{}` has no parameter `{word}`", function.name);
                let known = function.params.iter().map(|param| param.name);
                let hint = suggestion(word, known).unwrap_or_else(|| function.signature());
                self.problems.hint(name, what, hint);
            }
        }
        let twins = call.args.iter().filter_map(|other| other.name);
        let word = self.word(name);
        if twins.filter(|other| self.word(*other) == word).count() > 1 {
            let what = format!("`{word}` is given twice");
            self.problems.add(name, what);
        }
    }

    fn rest(&mut self, function: &Function, call: &'a Call, given: &[Option<(Type, &'a Expr)>]) {
        let names_event = function.params.first().is_some_and(|p| p.means == Means::Event);
        let first = given.first().copied().flatten().filter(|_| names_event);
        let event = first.and_then(|(_, expr)| self.event_of(expr));
        match function.rest {
            Rest::Fields => self.fields(function, call, event),
            Rest::Filter => {
                if let Some(filter) = call.filter {
                    self.filter(filter, event);
                }
            }
            Rest::Environment => {
                if let Some((_, text)) = given[0] {
                    self.shell_text(function, call, text);
                }
            }
            Rest::Nothing => {}
        }
        if let Some(filter) = call.filter
            && function.rest != Rest::Filter
        {
            let what = format!("`{}` takes no `where`", function.name);
            self.problems.add(filter, what);
        }
    }

    /// Fields of a record that is emitted.
    fn fields(&mut self, function: &Function, call: &'a Call, event: Option<u16>) {
        let Some(number) = event else { return };
        let event = &self.events[usize::from(number)];
        let (event_name, fields) = (event.name, event.fields.clone());
        let named = |arg: &&'a Arg| arg.name.is_some();
        let mut seen = Vec::new();
        for arg in call.args.iter().filter(named) {
            let Some(place) = arg.name else { continue };
            let name = self.word(place);
            if function.param(name).is_some() {
                continue;
            }
            seen.push(name);
            let Some((_, kind)) = fields.iter().find(|(known, _)| *known == name) else {
                let what = format!("`{event_name}` has no field `{name}`");
                let known = fields.iter().map(|(name, _)| *name);
                let hint = suggestion(name, known)
                    .unwrap_or_else(|| "declare it with the event".to_string());
                self.problems.hint(place, what, hint);
                continue;
            };
            let found = self.literal_type(&arg.value);
            self.expect(arg.value.place, found, *kind, &format!("`{name}`"));
        }
        let missing: Vec<&str> = fields
            .iter()
            .filter(|(name, kind)| kind.present().is_none() && !seen.contains(name))
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() {
            let what = format!("`{event_name}` lacks `{}`", missing.join("`, `"));
            self.problems.add(call.name, what);
        }
    }

    /// The type of a value that was checked before: problems of it are known.
    fn literal_type(&mut self, expr: &'a Expr) -> Type {
        let problems = core::mem::take(&mut self.problems);
        let found = self.expr(expr);
        self.problems = problems;
        found
    }

    fn gives(&mut self, function: &Function, given: &[Option<(Type, &'a Expr)>]) -> Type {
        let first = given.first().copied().flatten();
        let kind = first.map_or(Type::ANY, |(kind, _)| kind);
        let record = |checker: &mut Self| {
            let event = first.and_then(|(_, expr)| checker.event_of(expr));
            event.map_or(Type::ANY, |number| Type::of(Base::Event(number)))
        };
        match function.result {
            Gives::Value(kind) => kind,
            Gives::Same => kind,
            Gives::Element => kind.element().map_or(Type::ANY, Type::optional),
            Gives::Record => record(self),
            Gives::RecordIfAny => record(self).optional(),
            Gives::Records => record(self).list(),
        }
    }

    /// Arguments of a task or a flow.
    pub(super) fn start(&mut self, what: &str, call: &'a Call, declared: Declared<'a>) {
        let name = self.word(call.name);
        let params: &'a [Param] = declared.params;
        let mut given = vec![false; params.len()];
        for (at, arg) in call.args.iter().enumerate() {
            let found = self.pure(&arg.value);
            let position = match arg.name {
                Some(word) => {
                    let word = self.word(word);
                    params.iter().position(|param| self.word(param.name) == word)
                }
                None => (at < params.len()).then_some(at),
            };
            let Some(position) = position else {
                let place = arg.name.unwrap_or(arg.value.place);
                let names: Vec<&str> = params.iter().map(|param| self.word(param.name)).collect();
                let hint = if names.is_empty() {
                    "it takes nothing".to_string()
                } else {
                    format!("it takes {}", names.join(", "))
                };
                let message = format!("the {what} `{name}` has no such parameter");
                self.problems.hint(place, message, hint);
                continue;
            };
            if core::mem::replace(&mut given[position], true) {
                self.problems.add(arg.value.place, "this parameter is given twice");
            }
            let problems = core::mem::take(&mut self.problems);
            let kind = self.type_of(&params[position].kind);
            self.problems = problems;
            let label = format!("`{}`", self.word(params[position].name));
            self.expect(arg.value.place, found, kind, &label);
        }
        let missing: Vec<&str> = params
            .iter()
            .zip(given)
            .filter(|(param, given)| !given && param.default.is_none())
            .map(|(param, _)| self.word(param.name))
            .collect();
        if !missing.is_empty() {
            let message = format!("the {what} `{name}` lacks `{}`", missing.join("`, `"));
            self.problems.add(call.name, message);
        }
        if let Some(filter) = call.filter {
            self.problems.add(filter, format!("a {what} takes no `where`"));
        }
    }

    /// What a literal text names must exist.
    fn meaning(&mut self, means: Means, expr: &'a Expr) {
        match (means, self.literal(expr)) {
            (Means::Plain, _) => {}
            (Means::Event, None) => {
                let hint = "name the event itself: \"web.up\"";
                self.problems.hint(expr.place, "the event must be known here", hint);
            }
            (Means::Event, Some(_)) => {
                self.event_of(expr);
            }
            (Means::Shell, None) => {
                let hint = "values are passed as environment: sh.run(\"kill $pid\", pid: pid)";
                self.problems.hint(expr.place, "values are never pasted into a shell text", hint);
            }
            (Means::Shell, Some(_)) | (_, None) => {}
            (means, Some(text)) => self.named(means, expr.place, text),
        }
    }

    /// The text that a value is, if that is known here.
    pub(super) fn literal(&self, expr: &'a Expr) -> Option<&'a str> {
        match &expr.kind {
            ExprKind::Text(pieces) => match pieces.as_slice() {
                [crate::syntax::tree::Piece::Text(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

fn count(function: &Function) -> String {
    match function.params.len() {
        0 => "no arguments".to_string(),
        1 => "one argument".to_string(),
        n => format!("at most {n} arguments"),
    }
}

/// What may have been meant: within a namespace that there is, its functions.
fn name_hint(name: &str) -> Option<String> {
    let known = || functions::all().map(|function| function.name);
    if let Some((space, word)) = name.split_once('.') {
        let mine: Vec<&str> =
            known().filter_map(|name| name.strip_prefix(space)?.strip_prefix('.')).collect();
        if !mine.is_empty() {
            let near = nearest(word, mine.iter().copied());
            return Some(match near {
                Some(near) => format!("did you mean `{space}.{near}`?"),
                None => format!("there are {space}.{}", mine.join(&format!(", {space}."))),
            });
        }
    }
    suggestion(name, known())
}
