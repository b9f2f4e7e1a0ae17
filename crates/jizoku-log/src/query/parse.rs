//! From a text to a query that was checked.
//!
//! What it does not know: records.
//!
//! Invariant: what is accepted runs; every mistake has its place in the text.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Grouping, KEPT_MAX, Measure, Mode, NAMES_MAX, Name, Query, STAGES_MAX, Stage};
use crate::expr::{Builtin, Expr, Filter, Parser, Scope, Token, check};
use crate::problem::{Place, Problem, nearest};
use crate::schema::Schemas;
use crate::value::Type;

const STAGES: [&str; 15] = [
    "count", "sum", "avg", "min", "max", "p50", "p90", "p99", "top", "last", "first", "fields",
    "around", "sort", "filter",
];

/// Reads and checks a query. All mistakes in its filter are reported together.
pub fn parse(text: &str, schemas: &Schemas) -> Result<Query, Vec<Problem>> {
    let mut reader = Reader { parser: Parser::new(text, 0, false).map_err(one)? };
    let mode = reader.mode();
    let expr = reader.filter().map_err(one)?;
    let since = reader.since().map_err(one)?;
    let mut stages = Vec::new();
    let mut filters: Vec<Expr> = Vec::from_iter(expr);
    while reader.parser.is_sign("|") {
        let start = reader.parser.take().place;
        if reader.parser.is_word("filter") && stages.is_empty() {
            reader.parser.take();
            filters.push(reader.parser.expression().map_err(one)?);
            continue;
        }
        let stage = reader.stage().map_err(one)?;
        let place = start.to(Place::new(reader.parser.end, reader.parser.end));
        allowed(mode, &stages, &stage).map_err(|what| one(Problem::new(place, what)))?;
        if stages.len() == STAGES_MAX {
            return Err(one(Problem::new(place, format!("more than {STAGES_MAX} stages"))));
        }
        stages.push(stage);
    }
    if reader.parser.peeked.token != Token::End {
        let problem = reader.parser.unexpected("`|` or the end");
        return Err(one(problem.hint("`&&` or `||` joins two conditions")));
    }
    let filter = checked(&filters, schemas)?;
    measured(text, &stages, &filter, schemas)?;
    Ok(Query { mode, filter, since, stages })
}

fn one(problem: Problem) -> Vec<Problem> {
    Vec::from([problem])
}

fn checked(filters: &[Expr], schemas: &Schemas) -> Result<Filter, Vec<Problem>> {
    let outer = BTreeMap::new();
    let scope = Scope { schemas, event: None, outer: &outer };
    let (mut all, mut problems) = (None::<Filter>, Vec::new());
    for expr in filters {
        match check(expr, scope) {
            Ok(filter) => {
                all = Some(match all {
                    Some(all) => all.and(filter),
                    None => filter,
                });
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(all.unwrap_or_else(Filter::all)) } else { Err(problems) }
}

/// Whether a stage may follow those before it.
fn allowed(mode: Mode, before: &[Stage], stage: &Stage) -> Result<(), String> {
    let grouped = before.iter().any(|stage| matches!(stage, Stage::Group(_)));
    let fields = before.iter().any(|stage| matches!(stage, Stage::Fields(_)));
    let refuse = |what: &str| Err(what.to_string());
    if mode != Mode::All && !matches!(stage, Stage::Fields(_)) {
        return refuse("behind `follow` and `latest` only `fields` may stand");
    }
    if fields {
        return refuse("`fields` is the last stage");
    }
    match stage {
        Stage::Around(_) if !before.is_empty() => refuse("`around` is the first stage"),
        Stage::Group(_) if grouped => refuse("groups are made once"),
        Stage::Group(_) if before.iter().any(|stage| !matches!(stage, Stage::Around(_))) => {
            refuse("groups are made of all records: only `around` may stand before")
        }
        Stage::Top(_) if !grouped => refuse("`top` is for groups: `count by host | top 10`"),
        Stage::Last(_, by) if grouped && !by.is_empty() => {
            refuse("`last n by` is for records, not for groups")
        }
        _ => Ok(()),
    }
}

/// Measures are of numbers, where it is known what their fields are.
fn measured(
    text: &str,
    stages: &[Stage],
    filter: &Filter,
    schemas: &Schemas,
) -> Result<(), Vec<Problem>> {
    let Some(events) = filter.events() else { return Ok(()) };
    for stage in stages {
        let Stage::Group(Grouping { of: Some(name), .. }) = stage else { continue };
        if name.builtin.is_some() {
            continue;
        }
        let declared: Option<Vec<_>> = events.iter().map(|event| schemas.fields(event)).collect();
        let Some(declared) = declared else { continue };
        let at = text.rfind(name.name.as_str()).unwrap_or(0);
        let place = Place::new(at, at + name.name.len());
        let kinds: Vec<Type> =
            declared.iter().filter_map(|fields| fields.get(&name.name)).copied().collect();
        if kinds.is_empty() {
            let known = declared.iter().flat_map(|fields| fields.keys().map(String::as_str));
            let problem = Problem::new(place, format!("no such field: `{}`", name.name));
            return Err(one(match nearest(&name.name, known) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem,
            }));
        }
        if let Some(kind) = kinds.iter().find(|kind| !kind.is_number() && **kind != Type::Duration)
        {
            let what = format!("`{}` is of type {kind}, no number", name.name);
            return Err(one(Problem::new(place, what)));
        }
    }
    Ok(())
}

struct Reader<'t> {
    parser: Parser<'t>,
}

impl Reader<'_> {
    fn mode(&mut self) -> Mode {
        let mode = match &self.parser.peeked.token {
            Token::Word(word) if word == "latest" => Mode::Latest,
            Token::Word(word) if word == "follow" => Mode::Follow,
            _ => return Mode::All,
        };
        self.parser.take();
        mode
    }

    fn filter(&mut self) -> Result<Option<Expr>, Problem> {
        let none = self.parser.peeked.token == Token::End
            || self.parser.is_sign("|")
            || self.parser.is_word("since");
        if none { Ok(None) } else { self.parser.expression().map(Some) }
    }

    fn since(&mut self) -> Result<Option<u64>, Problem> {
        if !self.parser.is_word("since") {
            return Ok(None);
        }
        self.parser.take();
        self.duration().map(Some)
    }

    /// Microseconds.
    fn duration(&mut self) -> Result<u64, Problem> {
        let Token::Duration(nanos) = self.parser.peeked.token else {
            return Err(self.parser.unexpected("a duration, as in 30s or 1h30m,"));
        };
        let place = self.parser.take().place;
        if nanos < 1000 {
            return Err(Problem::new(place, "shorter than a microsecond"));
        }
        Ok(nanos / 1000)
    }

    fn count(&mut self) -> Result<usize, Problem> {
        let Token::Int(count) = self.parser.peeked.token else {
            return Err(self.parser.unexpected("a number"));
        };
        let place = self.parser.take().place;
        match usize::try_from(count) {
            Ok(count) if (1..=KEPT_MAX).contains(&count) => Ok(count),
            _ => Err(Problem::new(place, format!("1 to {KEPT_MAX} are possible"))),
        }
    }

    fn name(&mut self) -> Result<Name, Problem> {
        let name = match &self.parser.peeked.token {
            Token::Word(word) => Name { name: word.clone(), builtin: Builtin::parse(word) },
            Token::Field(name) => Name { name: name.clone(), builtin: None },
            _ => return Err(self.parser.unexpected("the name of a field")),
        };
        self.parser.take();
        Ok(name)
    }

    fn names(&mut self) -> Result<Vec<Name>, Problem> {
        let mut names = Vec::from([self.name()?]);
        while self.parser.is_sign(",") {
            self.parser.take();
            if names.len() == NAMES_MAX {
                return Err(self.parser.unexpected("an end: there are too many names;"));
            }
            names.push(self.name()?);
        }
        Ok(names)
    }

    fn by(&mut self) -> Result<Vec<Name>, Problem> {
        if !self.parser.is_word("by") {
            return Ok(Vec::new());
        }
        self.parser.take();
        self.names()
    }

    fn stage(&mut self) -> Result<Stage, Problem> {
        let Token::Word(word) = self.parser.peeked.token.clone() else {
            return Err(self.parser.unexpected("a stage, as in `count by host`,"));
        };
        let place = self.parser.take().place;
        let measure = match word.as_str() {
            "count" => Some(Measure::Count),
            "sum" => Some(Measure::Sum),
            "avg" => Some(Measure::Avg),
            "min" => Some(Measure::Min),
            "max" => Some(Measure::Max),
            "p50" => Some(Measure::Percentile(50)),
            "p90" => Some(Measure::Percentile(90)),
            "p99" => Some(Measure::Percentile(99)),
            _ => None,
        };
        if let Some(measure) = measure {
            return self.grouping(measure);
        }
        match word.as_str() {
            "top" => Ok(Stage::Top(self.count()?)),
            "first" => Ok(Stage::First(self.count()?)),
            "last" => Ok(Stage::Last(self.count()?, self.by()?)),
            "fields" => Ok(Stage::Fields(self.names()?)),
            "around" => Ok(Stage::Around(self.duration()?)),
            "sort" => {
                let name = self.name()?;
                let descending = self.parser.is_word("desc");
                if descending {
                    self.parser.take();
                }
                Ok(Stage::Sort(name, descending))
            }
            "filter" => Err(Problem::new(place, "`filter` stands before all other stages")),
            _ => {
                let hint = nearest(&word, STAGES).map(|near| format!("did you mean `{near}`?"));
                let hint = hint.unwrap_or_else(|| format!("stages are {}", STAGES.join(", ")));
                Err(Problem::new(place, format!("there is no stage `{word}`")).hint(hint))
            }
        }
    }

    fn grouping(&mut self, measure: Measure) -> Result<Stage, Problem> {
        let mut of = None;
        if measure != Measure::Count {
            self.sign("(")?;
            of = Some(self.name()?);
            self.sign(")")?;
        }
        let by = self.by()?;
        let mut every = None;
        if self.parser.is_word("every") {
            self.parser.take();
            every = Some(self.duration()?);
        }
        Ok(Stage::Group(Grouping { measure, of, by, every }))
    }

    fn sign(&mut self, sign: &str) -> Result<(), Problem> {
        if !self.parser.is_sign(sign) {
            return Err(self.parser.unexpected(&format!("`{sign}`")));
        }
        self.parser.take();
        Ok(())
    }
}
