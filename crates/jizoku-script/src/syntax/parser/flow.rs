//! Steps of flows, and what triggers start.

use alloc::format;
use alloc::vec::Vec;

use super::{Parsed, Parser, Reported};
use crate::nearest::suggestion;
use crate::problem::Place;
use crate::syntax::lexer::Kind;
use crate::syntax::tree::{Call, Failure, Step, StepKind};

const STEP_WORDS: [&str; 9] =
    ["run", "wait", "seq", "par", "barrier", "pause", "fail", "if", "for"];

impl Parser<'_> {
    pub(super) fn step(&mut self) -> Parsed<Step> {
        let kind = self.step_kind()?;
        let within = self.clause("within")?;
        let failure = self.failure()?;
        Ok(Step { kind, within, failure })
    }

    fn steps(&mut self) -> Parsed<Vec<Step>> {
        self.deeper(|parser| parser.braced("block", Self::step)).map(|(steps, _)| steps)
    }

    fn step_kind(&mut self) -> Parsed<StepKind> {
        let word = self.word();
        if STEP_WORDS.contains(&word) && !matches!(word, "if") {
            self.bump();
        }
        match word {
            "run" => self.run(),
            "wait" => {
                self.expect_word("log")?;
                let event = self.expr()?;
                let filter = self.filter()?;
                Ok(StepKind::Wait { event, filter })
            }
            "seq" => self.steps().map(StepKind::Seq),
            "par" => {
                let limit = self.clause("limit")?;
                self.steps().map(|branches| StepKind::Par { limit, branches })
            }
            "barrier" => self.name("the barrier's name").map(StepKind::Barrier),
            "pause" => self.expr().map(StepKind::Pause),
            "fail" => self.expr().map(StepKind::Fail),
            "if" => self.if_else(Self::steps).map(StepKind::If),
            "for" => {
                let name = self.name("the name of the element")?;
                self.expect_word("in")?;
                let list = self.expr()?;
                self.steps().map(|body| StepKind::For { name, list, body })
            }
            "" => self.expected("a step: run, wait, par, seq, barrier, pause, fail, if or for"),
            _ => {
                let hint = suggestion(word, STEP_WORDS)
                    .unwrap_or_else(|| "work is done by tasks: `run task() on \"target\"`".into());
                self.problems.hint(self.here(), format!("`{word}` is no step of a flow"), hint);
                Err(Reported)
            }
        }
    }

    fn run(&mut self) -> Parsed<StepKind> {
        let name = self.name("the name of a task")?;
        if self.kind() != Kind::ParenOpen {
            return self.expected("`(`, arguments and `)`");
        }
        let call = self.call(name)?;
        self.expect_word("on")?;
        let on = self.expr()?;
        let limit = self.clause("limit")?;
        Ok(StepKind::Run { call, on, limit })
    }

    /// `on failure { ... }`, `recover { ... }`
    pub(super) fn failure(&mut self) -> Parsed<Option<Failure>> {
        let on_failure = self.at_word("on") && self.word_of(self.ahead(1)) == "failure";
        let recovers = self.at_word("recover");
        if !on_failure && !recovers {
            return Ok(None);
        }
        self.bump();
        if on_failure {
            self.bump();
        }
        let steps = self.steps()?;
        Ok(Some(Failure { recovers, steps }))
    }

    /// `flow(args)`, or its name alone.
    pub(super) fn start_of_flow(&mut self) -> Parsed<Call> {
        let name = self.name("the name of a flow")?;
        if self.kind() == Kind::ParenOpen && !self.token().newline {
            return self.call(name);
        }
        Ok(Call { name, args: Vec::new(), filter: None })
    }

    /// `where` and what follows, up to the next clause or the end of the line. Its grammar is
    /// the log's.
    pub(super) fn filter(&mut self) -> Parsed<Option<Place>> {
        if !self.eat_word("where") {
            return Ok(None);
        }
        let start = self.at;
        let mut depth = 0u32;
        loop {
            let token = self.token();
            match token.kind {
                Kind::End | Kind::BraceOpen | Kind::BraceClose => break,
                Kind::ParenClose | Kind::BracketClose | Kind::Comma if depth == 0 => break,
                Kind::ParenOpen | Kind::BracketOpen => depth += 1,
                Kind::ParenClose | Kind::BracketClose => depth -= 1,
                _ if depth > 0 || self.at == start => {}
                _ if token.newline && !self.filter_continues() => break,
                Kind::Name if ends_filter(self.word()) => break,
                _ => {}
            }
            self.bump();
        }
        if self.at == start {
            return self.expected("a condition over the record's fields");
        }
        Ok(Some(self.tokens[start].place.to(self.before())))
    }

    /// Whether a filter goes on with the first token of a line.
    fn filter_continues(&self) -> bool {
        let before = self.tokens[self.at.saturating_sub(1)].kind;
        let joins = |kind| matches!(kind, Kind::And | Kind::Or);
        self.parens > 0 || joins(self.kind()) || joins(before)
    }
}

fn ends_filter(word: &str) -> bool {
    matches!(word, "for" | "within" | "by" | "at" | "do" | "on" | "recover" | "limit")
}
