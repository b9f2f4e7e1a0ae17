//! The formatter: one way to write blanks and indents.
//!
//! It works on tokens, not on the tree: lines stay as they were broken, tokens and comments stay
//! as they are, and only what lies between them is written anew. So a formatted script means
//! what it meant before.
//!
//! Invariants
//! - The tokens of the result are those of the text, each on a line of its own if it was.
//! - Formatting the result again changes nothing.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::SOURCE_MAX;
use crate::problem::{Place, Problem, Problems};
use crate::syntax::lexer::{self, Kind, Token};
use crate::syntax::parser::parse;

/// Blanks for each level.
const INDENT: usize = 4;

/// Formats a script. One with mistakes of syntax is refused: it can't be told what was meant.
pub fn format(text: &str) -> Result<String, Vec<Problem>> {
    let mut problems = Problems::default();
    if text.len() > SOURCE_MAX {
        problems.add(Place::default(), "the script is too long");
        return Err(problems.in_order());
    }
    parse(text, &mut problems);
    if !problems.is_empty() {
        return Err(problems.in_order());
    }
    let whole = Place::new(0, text.len());
    let lexer::Tokens { tokens, comments } = lexer::tokens(text, whole, &mut problems);
    let mut writer = Writer {
        text,
        result: String::with_capacity(text.len() + text.len() / 8),
        open: Vec::new(),
        before: None,
        sign: false,
        member: false,
        indent: 0,
        end: 0,
    };
    let mut comments = comments.into_iter().peekable();
    for (at, token) in tokens.iter().enumerate() {
        while let Some(comment) = comments.next_if(|c| c.start < token.place.start) {
            writer.comment(comment);
        }
        if token.kind != Kind::End {
            writer.token(token, tokens.get(at + 1));
        }
    }
    comments.for_each(|comment| writer.comment(comment));
    if !writer.result.is_empty() {
        writer.result.push('\n');
    }
    Ok(writer.result)
}

struct Writer<'a> {
    text: &'a str,
    result: String,
    /// For each bracket that is open, how far its line is indented, and whether it is a brace.
    open: Vec<(usize, bool)>,
    /// The last token.
    before: Option<Token>,
    /// It is a minus with no value before it.
    sign: bool,
    /// It is a name behind a dot: never a word of the language.
    member: bool,
    /// How far this line is indented.
    indent: usize,
    /// Where the last token or comment ended.
    end: usize,
}

impl Writer<'_> {
    fn comment(&mut self, place: Place) {
        let text = place.of(self.text).trim_end();
        if self.starts_line(place) {
            let level = self.open.last().map_or(0, |(level, _)| level + 1);
            self.new_line(place, level, false);
        } else if !self.result.is_empty() {
            self.result.push_str("  ");
        }
        self.result.push_str(text);
        self.end = place.end as usize;
    }

    /// Whether nothing stands before this on its line.
    fn starts_line(&self, place: Place) -> bool {
        self.text[self.end..place.start as usize].contains('\n')
    }

    /// Begins a line, with an empty one before it if there was one and it may stay.
    fn new_line(&mut self, place: Place, level: usize, closes: bool) {
        let newlines = self.text[self.end..place.start as usize].matches('\n').count();
        let opened = self.result.ends_with(['{', '(', '[']);
        if !self.result.is_empty() {
            self.result.push('\n');
            if newlines > 1 && !closes && !opened {
                self.result.push('\n');
            }
        }
        self.indent = level;
        self.result.extend(core::iter::repeat_n(' ', level * INDENT));
    }

    fn token(&mut self, token: &Token, next: Option<&Token>) {
        let closes = matches!(token.kind, Kind::BraceClose | Kind::ParenClose | Kind::BracketClose);
        if token.newline && (self.end > 0 || self.starts_line(token.place)) {
            let inside = self.open.last().map_or(0, |(level, _)| level + 1);
            let level = match self.open.last() {
                Some((level, _)) if closes => *level,
                _ => inside + usize::from(self.goes_on(token, next)),
            };
            self.new_line(token.place, level, closes);
        } else if let Some(before) = self.before
            && self.apart(&before, token)
        {
            self.result.push(' ');
        }
        match token.kind {
            Kind::BraceOpen => self.open.push((self.indent, true)),
            Kind::ParenOpen | Kind::BracketOpen => self.open.push((self.indent, false)),
            _ if closes => {
                self.open.pop();
            }
            _ => {}
        }
        self.result.push_str(token.place.of(self.text));
        self.end = token.place.end as usize;
        self.sign = token.kind == Kind::Minus && !self.before.is_some_and(|t| self.is_value(&t));
        self.member = self.before.is_some_and(|before| before.kind == Kind::Dot);
        self.before = Some(*token);
    }

    fn word(&self, token: &Token) -> &str {
        if token.kind == Kind::Name { token.place.of(self.text) } else { "" }
    }

    /// Whether the first token of a line goes on with the statement of the line before.
    fn goes_on(&self, token: &Token, next: Option<&Token>) -> bool {
        let Some(before) = &self.before else { return false };
        // Between brackets every line is as far in as its neighbours.
        if self.open.last().is_some_and(|(_, brace)| !brace) {
            return false;
        }
        let clause = match self.word(token) {
            "within" | "by" | "at" | "do" | "limit" | "recover" | "where" | "then" => true,
            "on" => next.is_some_and(|next| self.word(next) == "failure"),
            "for" => self.open.is_empty(),
            _ => false,
        };
        let joins = matches!(token.kind, Kind::And | Kind::Or | Kind::Otherwise | Kind::Dot);
        let unfinished = is_binary(before.kind) || before.kind == Kind::Assign;
        clause || joins || unfinished
    }

    /// Whether a value ends with this token, which was written last.
    fn is_value(&self, token: &Token) -> bool {
        match token.kind {
            Kind::Name => self.member || !takes_value(self.word(token)),
            Kind::ParenClose | Kind::BracketClose | Kind::Quoted | Kind::Question => true,
            kind => is_number(kind) || matches!(kind, Kind::Text | Kind::Raw),
        }
    }

    /// Whether a blank stands between two tokens of a line.
    fn apart(&self, before: &Token, token: &Token) -> bool {
        use Kind::{
            Assign, BraceClose, BraceOpen, BracketClose, BracketOpen, Colon, Comma, Dollar, Dot,
            Equal, Not, ParenClose, ParenOpen, Question, Semicolon,
        };
        let value = self.is_value(before) && !is_number(before.kind);
        match (before.kind, token.kind) {
            // These would become other tokens.
            (Not, Assign | Equal) | (Question, Question | Kind::Otherwise) => true,
            (ParenOpen | BracketOpen | Dollar | Dot | Not, _) => false,
            (BraceOpen, BraceClose) => false,
            (_, Comma | Semicolon | Colon | ParenClose | BracketClose) => false,
            (_, Question) => !value,
            (_, Dot) => !value,
            (_, ParenOpen | BracketOpen) => !value,
            (Kind::Minus, _) => !self.sign,
            _ => true,
        }
    }
}

/// Words that stand before a value.
fn takes_value(word: &str) -> bool {
    const WORDS: [&str; 19] = [
        "if", "else", "in", "ensure", "fail", "try", "where", "within", "limit", "every", "on",
        "pause", "has", "matches", "exists", "for", "most", "let", "var",
    ];
    WORDS.contains(&word)
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Int | Kind::Float | Kind::Duration | Kind::Size)
}

fn is_binary(kind: Kind) -> bool {
    use Kind::{
        And, Equal, Greater, GreaterEqual, Less, LessEqual, Minus, NotEqual, Or, Otherwise,
        Percent, Plus, Slash, Star,
    };
    matches!(
        kind,
        And | Or
            | Otherwise
            | Equal
            | NotEqual
            | Less
            | LessEqual
            | Greater
            | GreaterEqual
            | Plus
            | Minus
            | Star
            | Slash
            | Percent
    )
}

#[cfg(test)]
mod tests;
