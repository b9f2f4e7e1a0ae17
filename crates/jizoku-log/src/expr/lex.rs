//! Words, values and signs of an expression.
//!
//! What it does not know: which order of them makes sense.
//!
//! A mistake is a token, too ([`Token::Bad`]): within a larger text it may lie behind the
//! expression, and is then nobody's business here.

use alloc::format;
use alloc::string::{String, ToString};

use crate::problem::{Place, Problem};
use crate::value::UNITS;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name or word; parts may be joined by dots.
    Word(String),
    /// A field in any case: `.name` or a quoted name.
    Field(String),
    /// `$name`.
    Outer(String),
    /// A whole number without sign.
    Int(u64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// A text, without its quotes.
    Str(String),
    /// A duration in nanoseconds.
    Duration(u64),
    /// An operator or bracket.
    Sign(&'static str),
    /// No token of this language.
    Bad(Problem),
    /// The end of the text.
    End,
}

/// A token and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Lexed {
    pub(crate) token: Token,
    pub(crate) place: Place,
    /// Whether it is the first of its line.
    pub(crate) first: bool,
}

/// All signs; longer ones before their beginnings.
const SIGNS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ",", "+", "-", "*", "/",
    "%", "|", "=", "&",
];

/// Reads tokens from `at` on.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str, at: usize) -> Lexer<'t> {
        Lexer { text, at }
    }

    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    pub(crate) fn next(&mut self) -> Lexed {
        let first = self.blank();
        let start = self.at;
        let token = match self.rest() {
            [] => Token::End,
            [b'"', ..] => self.string(),
            [b'`', ..] => self.quoted(),
            [b'$', next, ..] if is_start(*next) => {
                self.at += 1;
                Token::Outer(self.word())
            }
            [b'.', next, ..] if is_start(*next) => {
                self.at += 1;
                Token::Field(self.word())
            }
            [byte, ..] if byte.is_ascii_digit() => self.number(),
            [byte, ..] if is_start(*byte) => Token::Word(self.word()),
            _ => self.sign(),
        };
        Lexed { token, place: Place::new(start, self.at), first }
    }

    /// Skips blanks; gives whether a line began.
    fn blank(&mut self) -> bool {
        let mut first = self.at == 0;
        while let Some(byte) = self.rest().first().filter(|byte| byte.is_ascii_whitespace()) {
            first |= *byte == b'\n';
            self.at += 1;
        }
        first
    }

    fn word(&mut self) -> String {
        let start = self.at;
        loop {
            match self.rest() {
                [byte, ..] if is_part(*byte) => self.at += 1,
                [b'.', next, ..] if is_part(*next) => self.at += 2,
                _ => return self.text[start..self.at].to_string(),
            }
        }
    }

    fn sign(&mut self) -> Token {
        let rest = &self.text[self.at..];
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            self.at += sign.len();
            return Token::Sign(sign);
        }
        let letter = rest.chars().next().unwrap_or(' ');
        let place = Place::new(self.at, self.at + letter.len_utf8());
        self.at = place.end;
        Token::Bad(Problem::new(place, format!("`{}` means nothing here", letter.escape_debug())))
    }

    fn quoted(&mut self) -> Token {
        let start = self.at;
        let inner = &self.text[start + 1..];
        match inner.find(['`', '\n']) {
            Some(end) if end > 0 && inner.as_bytes()[end] == b'`' => {
                self.at = start + end + 2;
                Token::Field(inner[..end].to_string())
            }
            _ => self.unclosed(start, "this name has no closing '`'"),
        }
    }

    fn unclosed(&mut self, start: usize, what: &str) -> Token {
        let line = self.text[start..].find('\n').unwrap_or(self.text.len() - start);
        self.at = start + line;
        Token::Bad(Problem::new(Place::new(start, self.at), what))
    }

    fn string(&mut self) -> Token {
        let start = self.at;
        let mut value = String::new();
        let mut letters = self.text[start + 1..].char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Token::Str(value);
                }
                '\n' => break,
                '\\' => {
                    let Some((_, escaped)) = letters.next() else { break };
                    match escaped {
                        'n' => value.push('\n'),
                        't' => value.push('\t'),
                        'r' => value.push('\r'),
                        '0' => value.push('\0'),
                        '"' | '\\' | '{' | '}' | '$' => value.push(escaped),
                        '\n' => break,
                        _ => {
                            let place = start + 1 + at;
                            self.at = place + 1 + escaped.len_utf8();
                            let place = Place::new(place, self.at);
                            let problem =
                                Problem::new(place, format!("unknown escape `\\{escaped}`"));
                            self.skip_string();
                            return Token::Bad(problem.hint("a backslash is written `\\\\`"));
                        }
                    }
                }
                _ => value.push(letter),
            }
        }
        self.unclosed(start, "this text has no closing quote")
    }

    /// Goes behind the closing quote of a string that can't be used.
    fn skip_string(&mut self) {
        let rest = &self.text[self.at..];
        let end = rest
            .find(['"', '\n'])
            .map_or(rest.len(), |at| at + usize::from(rest.as_bytes()[at] == b'"'));
        self.at += end;
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        self.digits();
        let mut whole = true;
        if matches!(self.rest(), [b'.', next, ..] if next.is_ascii_digit()) {
            whole = false;
            self.at += 1;
            self.digits();
        }
        let exponent = match self.rest() {
            [b'e' | b'E', b'+' | b'-', next, ..] if next.is_ascii_digit() => 2,
            [b'e' | b'E', next, ..] if next.is_ascii_digit() => 1,
            _ => 0,
        };
        if exponent > 0 {
            whole = false;
            self.at += exponent;
            self.digits();
        }
        if self.rest().first().is_some_and(|byte| is_start(*byte)) {
            return self.duration(start);
        }
        let text = &self.text[start..self.at];
        let place = Place::new(start, self.at);
        if whole {
            let number = text.parse().map(Token::Int);
            return number
                .unwrap_or_else(|_| Token::Bad(Problem::new(place, "too large a number")));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Token::Float(number),
            _ => Token::Bad(Problem::new(place, "too large a number")),
        }
    }

    fn digits(&mut self) {
        while self.rest().first().is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    /// A number with units: `30s`, `1h30m`.
    fn duration(&mut self, start: usize) -> Token {
        while self.rest().first().is_some_and(|byte| is_part(*byte)) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        match read_duration(text) {
            Some(nanos) => Token::Duration(nanos),
            None => {
                let problem =
                    Problem::new(Place::new(start, self.at), format!("`{text}` is no duration"));
                Token::Bad(problem.hint("units are d, h, m, s, ms, us, ns, as in 30s or 1h30m"))
            }
        }
    }
}

/// Reads `30s`, `1h30m`, `250ms`.
pub(crate) fn read_duration(text: &str) -> Option<u64> {
    let mut sum: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?;
        rest = &rest[letters..];
        sum = sum.checked_add(count.checked_mul(unit.unsigned_abs())?)?;
    }
    (sum <= i64::MAX.unsigned_abs() && !text.is_empty()).then_some(sum)
}
