//! The parser: tokens to tree, one room for each part of the grammar.
//!
//! - [`items`]: what stands at the outermost level
//! - [`stmt`]: bodies of tasks and monitors
//! - [`flow`]: what flows consist of
//! - [`expr`]: values; [`text`]: what stands between quotes
//!
//! After a mistake it looks for the next statement or item, so that one mistake gives one
//! problem.

mod expr;
mod flow;
mod items;
mod stmt;
mod text;

use alloc::format;
use alloc::vec::Vec;

use super::lexer::{self, Kind, Token};
use super::tree::Script;
use crate::limits::DEPTH_MAX;
use crate::problem::{Place, Problems};

/// What stands at the outermost level begins with one of these.
pub(super) const ITEM_WORDS: [&str; 5] = ["event", "task", "flow", "monitor", "on"];

/// A mistake was reported; whoever can looks for a place to go on.
#[derive(Debug)]
pub(super) struct Reported;

pub(super) type Parsed<T> = Result<T, Reported>;

/// Reads a whole file.
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Script {
    let tokens = lexer::tokens(text, Place::new(0, text.len()), problems).tokens;
    let mut parser = Parser { text, tokens, at: 0, depth: 0, parens: 0, problems };
    parser.script()
}

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// Open parentheses and brackets: inside them lines end nothing.
    parens: u32,
    pub(super) problems: &'a mut Problems,
}

impl<'a> Parser<'a> {
    /// The token `ahead` of the current one; `End` for ever at the end.
    fn ahead(&self, ahead: usize) -> Token {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    fn token(&self) -> Token {
        self.tokens[self.at]
    }

    fn kind(&self) -> Kind {
        self.token().kind
    }

    fn here(&self) -> Place {
        self.token().place
    }

    /// The place of the token before the current one.
    fn before(&self) -> Place {
        self.tokens[self.at.saturating_sub(1)].place
    }

    fn bump(&mut self) -> Token {
        let token = self.token();
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    fn word_of(&self, token: Token) -> &'a str {
        if token.kind == Kind::Name { token.place.of(self.text) } else { "" }
    }

    /// The current token's text, if it is a name.
    fn word(&self) -> &'a str {
        self.word_of(self.token())
    }

    fn at_word(&self, word: &str) -> bool {
        self.word() == word
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let is = self.at_word(word);
        if is {
            self.bump();
        }
        is
    }

    fn eat(&mut self, kind: Kind) -> bool {
        let is = self.kind() == kind;
        if is {
            self.bump();
        }
        is
    }

    /// Says what was expected here, unless the token is one that the lexer complained of.
    fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        let token = self.token();
        match token.kind {
            Kind::Wrong => {}
            // What is missing at the end of a line is missing there, not on the next line.
            Kind::End => {
                let place = self.before().after();
                self.problems.add(place, format!("expected {what}, but the script ends"));
            }
            _ if token.newline && self.at > 0 => {
                let place = self.before().after();
                self.problems.add(place, format!("expected {what}, but the line ends"));
            }
            _ => {
                let found = token.place.of(self.text);
                let shown = &found[..found.floor_char_boundary(30)];
                self.problems.add(token.place, format!("expected {what}, but found `{shown}`"));
            }
        }
        Err(Reported)
    }

    fn expect(&mut self, kind: Kind, what: &str) -> Parsed<Token> {
        if self.kind() == kind { Ok(self.bump()) } else { self.expected(what) }
    }

    fn expect_word(&mut self, word: &str) -> Parsed<Place> {
        if self.at_word(word) { Ok(self.bump().place) } else { self.expected(&format!("`{word}`")) }
    }

    fn name(&mut self, what: &str) -> Parsed<Place> {
        Ok(self.expect(Kind::Name, what)?.place)
    }

    /// Goes one level deeper, unless that is too deep.
    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            let what = format!("nested more than {DEPTH_MAX} deep");
            self.problems.hint(self.here(), what, "give parts of it names with `let`");
            return Err(Reported);
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    /// Goes on behind a mistake in what began at token `start`: at the first token of a line, a
    /// `}`, or behind a `;`, passing whole blocks that open on the way.
    fn next_line(&mut self, start: usize) {
        let mut depth = 0u32;
        if self.at > start && self.token().newline {
            return;
        }
        loop {
            let token = self.token();
            match token.kind {
                Kind::End => return,
                Kind::BraceOpen => depth += 1,
                Kind::BraceClose if depth == 0 => return,
                Kind::BraceClose => {
                    depth -= 1;
                    if depth == 0 {
                        self.bump();
                        return;
                    }
                }
                Kind::Semicolon if depth == 0 => {
                    self.bump();
                    return;
                }
                _ => {}
            }
            self.bump();
            let next = self.token();
            if next.newline && (depth == 0 || self.starts_item(next)) {
                return;
            }
        }
    }

    /// Whether a token begins an item for certain: at the very start of a line.
    fn starts_item(&self, token: Token) -> bool {
        let first =
            token.place.start == 0 || self.text.as_bytes()[token.place.start as usize - 1] == b'\n';
        token.newline && first && ITEM_WORDS.contains(&self.word_of(token))
    }

    /// What stands between braces, one after the other, each on its line.
    fn braced<T>(
        &mut self,
        what: &str,
        mut one: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<(Vec<T>, Place)> {
        let open = self.expect(Kind::BraceOpen, "`{`")?.place;
        let mut list = Vec::new();
        loop {
            while self.eat(Kind::Semicolon) {}
            let token = self.token();
            if token.kind == Kind::BraceClose {
                return Ok((list, open.to(self.bump().place)));
            }
            if token.kind == Kind::End || self.starts_item(token) {
                let what = format!("this {what} isn't closed");
                self.problems.hint(open, what, "a `}` is missing further down");
                return Ok((list, open.to(self.before())));
            }
            let start = self.at;
            match one(self) {
                Ok(value) => {
                    list.push(value);
                    self.end_of_line(start);
                }
                Err(Reported) => self.next_line(start),
            }
            // Whatever happened, go on.
            if self.at == start {
                self.bump();
            }
        }
    }

    /// One statement stands on one line.
    fn end_of_line(&mut self, start: usize) {
        let token = self.token();
        let ends = token.newline || matches!(token.kind, Kind::BraceClose | Kind::End);
        if ends || self.eat(Kind::Semicolon) {
            return;
        }
        let _: Parsed<()> = self.expected("the end of the line");
        self.next_line(start);
    }

    /// A list between parentheses or brackets whose opening token was eaten.
    fn listed<T>(
        &mut self,
        close: Kind,
        what: &str,
        mut one: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut list = Vec::new();
        while self.kind() != close {
            list.push(one(self)?);
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        self.expect(close, what)?;
        Ok(list)
    }
}
