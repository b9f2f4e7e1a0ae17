//! Items: events, tasks, flows, monitors, triggers.

use alloc::format;
use alloc::vec::Vec;

use super::{ITEM_WORDS, Parsed, Parser, Reported};
use crate::nearest::suggestion;
use crate::problem::Place;
use crate::syntax::lexer::Kind;
use crate::syntax::tree::{
    Event, Expr, Flow, Item, Monitor, Most, Param, Script, Task, Trigger, TypeName,
};

impl Parser<'_> {
    pub(super) fn script(&mut self) -> Script {
        let mut items = Vec::new();
        self.version();
        while self.kind() != Kind::End {
            let start = self.at;
            match self.item() {
                Ok(item) => {
                    items.push(item);
                    if !self.token().newline && self.kind() != Kind::End {
                        let _: Parsed<()> = self.expected("the end of the line");
                        self.next_item();
                    }
                }
                Err(Reported) => self.next_item(),
            }
            if self.at == start {
                self.bump();
            }
        }
        Script { items }
    }

    /// `jizoku 1`: which version of the language this is.
    fn version(&mut self) {
        if !self.eat_word("jizoku") {
            return;
        }
        let token = self.bump();
        if token.kind != Kind::Int || token.place.of(self.text) != "1" {
            let hint = "this jizoku reads version 1: `jizoku 1`";
            self.problems.hint(token.place, "a version that isn't known here", hint);
        }
    }

    /// Goes on at the next line that begins with an item's word.
    fn next_item(&mut self) {
        while self.kind() != Kind::End && !self.starts_item(self.token()) {
            self.bump();
        }
    }

    fn item(&mut self) -> Parsed<Item> {
        match self.word() {
            "event" => self.event().map(Item::Event),
            "task" => self.task().map(Item::Task),
            "flow" => self.flow().map(Item::Flow),
            "monitor" => self.monitor().map(Item::Monitor),
            "on" => self.trigger().map(Item::Trigger),
            "" => self.expected("event, task, flow, monitor or on"),
            word => {
                let hint = suggestion(word, ITEM_WORDS)
                    .unwrap_or_else(|| "expected event, task, flow, monitor or on".into());
                let what = format!("`{word}` begins nothing that a script may hold");
                self.problems.hint(self.here(), what, hint);
                Err(Reported)
            }
        }
    }

    /// `web.up`: names with dots between.
    fn dotted(&mut self, what: &str) -> Parsed<Place> {
        let mut place = self.name(what)?;
        while self.kind() == Kind::Dot && self.ahead(1).kind == Kind::Name {
            self.bump();
            place = place.to(self.bump().place);
        }
        Ok(place)
    }

    fn event(&mut self) -> Parsed<Event> {
        self.bump();
        let name = self.dotted("the event's name")?;
        self.expect(Kind::BraceOpen, "`{`, the event's fields and `}`")?;
        let fields = self.listed(Kind::BraceClose, "`,` or `}`", Self::param)?;
        Ok(Event { name, fields })
    }

    fn param(&mut self) -> Parsed<Param> {
        let name = self.name("a name")?;
        self.expect(Kind::Colon, "`:` and the type")?;
        let kind = self.type_name()?;
        let default = if self.eat(Kind::Assign) { Some(self.expr()?) } else { None };
        Ok(Param { name, kind, default })
    }

    pub(super) fn type_name(&mut self) -> Parsed<TypeName> {
        self.deeper(|parser| {
            let mut kind = if parser.eat(Kind::BracketOpen) {
                let element = parser.type_name()?;
                parser.expect(Kind::BracketClose, "`]`")?;
                TypeName::List(element.into())
            } else {
                TypeName::Named(parser.name("a type")?)
            };
            if parser.eat(Kind::Question) {
                kind = TypeName::Optional(kind.into());
            }
            Ok(kind)
        })
    }

    fn params(&mut self) -> Parsed<Vec<Param>> {
        self.expect(Kind::ParenOpen, "`(`, parameters and `)`")?;
        self.listed(Kind::ParenClose, "`,` or `)`", Self::param)
    }

    fn task(&mut self) -> Parsed<Task> {
        self.bump();
        let name = self.name("the task's name")?;
        let params = self.params()?;
        let idempotent = self.eat_word("idempotent");
        let body = self.block("task")?;
        Ok(Task { name, params, idempotent, body })
    }

    fn flow(&mut self) -> Parsed<Flow> {
        self.bump();
        let name = self.name("the flow's name")?;
        let params = if self.kind() == Kind::ParenOpen { self.params()? } else { Vec::new() };
        let synchronised = self.eat_word("synchronised");
        let within = self.clause("within")?;
        let (body, _) = self.braced("flow", Self::step)?;
        let failure = self.failure()?;
        Ok(Flow { name, params, synchronised, within, body, failure })
    }

    fn monitor(&mut self) -> Parsed<Monitor> {
        self.bump();
        let name = self.name("the monitor's name")?;
        self.expect_word("every")?;
        let every = self.expr()?;
        self.expect_word("on")?;
        let on = self.expr()?;
        let within = self.clause("within")?;
        let body = self.block("monitor")?;
        Ok(Monitor { name, every, on, within, body })
    }

    fn trigger(&mut self) -> Parsed<Trigger> {
        let first = self.bump().place;
        self.expect_word("log")?;
        let event = self.expr()?;
        let filter = self.filter()?;
        let hold = self.clause("for")?;
        let mut by = Vec::new();
        if self.eat_word("by") {
            by.push(self.name("a field")?);
            while self.eat(Kind::Comma) {
                by.push(self.name("a field")?);
            }
        }
        let most = self.most()?;
        self.expect_word("do")?;
        let start = self.start_of_flow()?;
        let place = first.to(self.before());
        Ok(Trigger { event, filter, hold, by, most, start, place })
    }

    fn most(&mut self) -> Parsed<Option<Most>> {
        if !self.eat_word("at") {
            return Ok(None);
        }
        self.expect_word("most")?;
        let times = self.expr()?;
        self.expect_word("in")?;
        let within = self.expr()?;
        self.expect_word("then")?;
        let then = if self.eat_word("stop") { None } else { Some(self.start_of_flow()?) };
        Ok(Some(Most { times, within, then }))
    }

    /// `word value`, if the word is here.
    pub(super) fn clause(&mut self, word: &str) -> Parsed<Option<Expr>> {
        if self.eat_word(word) { self.expr().map(Some) } else { Ok(None) }
    }
}
