//! The lexer: text to tokens. Every byte of the text belongs to a token, a comment or a blank.
//!
//! What it does not know: keywords (they are names), grammar.

use alloc::vec::Vec;

use crate::problem::{Place, Problems};

/// What a token is. Keywords are names; the parser compares their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Name,
    Int,
    Float,
    /// `` `odd-name` ``, in filters
    Quoted,
    /// `30s`, `1h30m`
    Duration,
    /// `64MiB`
    Size,
    /// `"..."` with escapes and `{value}`; the place includes the quotes.
    Text,
    /// `"""..."""`, taken as it is; the place includes the quotes.
    Raw,
    ParenOpen,
    ParenClose,
    BraceOpen,
    BraceClose,
    BracketOpen,
    BracketClose,
    Comma,
    Colon,
    Semicolon,
    Dot,
    Question,
    Otherwise,
    Dollar,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Assign,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
    Not,
    /// Something that was reported already.
    Wrong,
    End,
}

/// A token, and whether it is the first on its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) newline: bool,
}

/// What a text consists of. The last token is `End`.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Place>,
}

/// Units of time, each with its nanoseconds.
pub(crate) const TIME_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of size, each with its bytes.
pub(crate) const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Cuts the part `from..to` of a text into tokens.
pub(crate) fn tokens(text: &str, within: Place, problems: &mut Problems) -> Tokens {
    let end = within.end as usize;
    let bytes = &text.as_bytes()[..end];
    let start = within.start as usize;
    let mut lexer = Lexer { bytes, at: start, newline: true, problems, found: Tokens::default() };
    lexer.found.tokens.reserve((end - start) / 4 + 2);
    lexer.run();
    lexer.found
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    newline: bool,
    problems: &'a mut Problems,
    found: Tokens,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn run(&mut self) {
        loop {
            self.blanks();
            let start = self.at;
            if start >= self.bytes.len() {
                self.push(Kind::End, start);
                return;
            }
            let kind = self.one();
            self.push(kind, start);
        }
    }

    fn push(&mut self, kind: Kind, start: usize) {
        let place = Place::new(start, self.at);
        self.found.tokens.push(Token { kind, place, newline: self.newline });
        self.newline = false;
    }

    fn blanks(&mut self) {
        while self.at < self.bytes.len() {
            match self.bytes[self.at] {
                b'\n' => self.newline = true,
                b' ' | b'\t' | b'\r' => {}
                b'#' => {
                    let start = self.at;
                    while self.at < self.bytes.len() && self.bytes[self.at] != b'\n' {
                        self.at += 1;
                    }
                    self.found.comments.push(Place::new(start, self.at));
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    fn one(&mut self) -> Kind {
        let byte = self.bytes[self.at];
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                self.while_word();
                Kind::Name
            }
            b'0'..=b'9' => self.number(),
            b'`' => self.quoted(),
            b'"' if self.bytes[self.at..].starts_with(b"\"\"\"") => self.raw(),
            b'"' => self.text(),
            _ => self.sign(byte),
        }
    }

    fn while_word(&mut self) {
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'_' {
            self.at += 1;
        }
    }

    fn sign(&mut self, byte: u8) -> Kind {
        let two = match (byte, self.peek(1)) {
            (b'=', b'=') => Some(Kind::Equal),
            (b'!', b'=') => Some(Kind::NotEqual),
            (b'<', b'=') => Some(Kind::LessEqual),
            (b'>', b'=') => Some(Kind::GreaterEqual),
            (b'&', b'&') => Some(Kind::And),
            (b'|', b'|') => Some(Kind::Or),
            (b'?', b'?') => Some(Kind::Otherwise),
            _ => None,
        };
        if let Some(kind) = two {
            self.at += 2;
            return kind;
        }
        self.at += 1;
        match byte {
            b'(' => Kind::ParenOpen,
            b')' => Kind::ParenClose,
            b'{' => Kind::BraceOpen,
            b'}' => Kind::BraceClose,
            b'[' => Kind::BracketOpen,
            b']' => Kind::BracketClose,
            b',' => Kind::Comma,
            b':' => Kind::Colon,
            b';' => Kind::Semicolon,
            b'.' => Kind::Dot,
            b'?' => Kind::Question,
            b'$' => Kind::Dollar,
            b'+' => Kind::Plus,
            b'-' => Kind::Minus,
            b'*' => Kind::Star,
            b'/' => Kind::Slash,
            b'%' => Kind::Percent,
            b'=' => Kind::Assign,
            b'<' => Kind::Less,
            b'>' => Kind::Greater,
            b'!' => Kind::Not,
            _ => self.stranger(byte),
        }
    }

    /// A character that no token begins with; its neighbours of the same sort go with it.
    fn stranger(&mut self, byte: u8) -> Kind {
        let start = self.at - 1;
        if byte >= 0x80 {
            while self.peek(0) >= 0x80 {
                self.at += 1;
            }
        }
        let place = Place::new(start, self.at);
        match byte {
            b'&' | b'|' => {
                let twice = if byte == b'&' { "write `&&`" } else { "write `||`" };
                self.problems.hint(place, "a single sign of two", twice);
            }
            b'\'' => self.problems.hint(place, "texts stand in double quotes", "write `\"`"),
            _ => self.problems.add(place, "a character that means nothing here"),
        }
        Kind::Wrong
    }

    fn number(&mut self) -> Kind {
        let start = self.at;
        let mut kind = Kind::Int;
        self.digits();
        if self.peek(0) == b'.' && self.peek(1).is_ascii_digit() {
            kind = Kind::Float;
            self.at += 1;
            self.digits();
        }
        if self.exponent() {
            kind = Kind::Float;
        }
        let unit_from = self.at;
        self.while_word();
        if unit_from == self.at {
            return kind;
        }
        let place = Place::new(start, self.at);
        let unit = &self.bytes[unit_from..self.at];
        let size = SIZE_UNITS.iter().any(|(name, _)| name.as_bytes() == unit);
        let time = !size && is_time(&self.bytes[start..self.at]);
        if kind == Kind::Float && (time || size) {
            let hint = "use the next smaller unit: 1500ms for 1.5s";
            self.problems.hint(place, "a time or size is a whole number and its unit", hint);
            return Kind::Wrong;
        }
        match (time, size) {
            (true, _) => Kind::Duration,
            (_, true) => Kind::Size,
            _ => {
                let hint = "times: ns us ms s m h d; sizes: B KiB MiB GiB TiB KB MB GB TB";
                self.problems.hint(Place::new(unit_from, self.at), "not a unit", hint);
                Kind::Wrong
            }
        }
    }

    /// `e5`, `E-3`
    fn exponent(&mut self) -> bool {
        if !matches!(self.peek(0), b'e' | b'E') {
            return false;
        }
        let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
        if !self.peek(1 + sign).is_ascii_digit() {
            return false;
        }
        self.at += 1 + sign;
        self.digits();
        true
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() || self.peek(0) == b'_' {
            self.at += 1;
        }
    }

    fn quoted(&mut self) -> Kind {
        let start = self.at;
        self.at += 1;
        while self.at < self.bytes.len() && self.bytes[self.at] != b'\n' {
            self.at += 1;
            if self.bytes[self.at - 1] == b'`' {
                return Kind::Quoted;
            }
        }
        self.problems
            .add(Place::new(start, self.at), "a name that doesn't end: its \"`\" is missing");
        Kind::Wrong
    }

    fn text(&mut self) -> Kind {
        let start = self.at;
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Kind::Text;
                }
                b'\n' => break,
                b'\\' if self.peek(1) != b'\n' => self.at += 1,
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
        let hint = "close it with `\"`; a text of several lines stands in `\"\"\"`";
        self.problems.hint(Place::new(start, self.at), "a text that doesn't end", hint);
        Kind::Wrong
    }

    fn raw(&mut self) -> Kind {
        let start = self.at;
        self.at += 3;
        while self.at < self.bytes.len() {
            if self.bytes[self.at..].starts_with(b"\"\"\"") {
                self.at += 3;
                return Kind::Raw;
            }
            self.at += 1;
        }
        let place = Place::new(start, start + 3);
        self.problems.hint(place, "a text that doesn't end", "close it with `\"\"\"`");
        Kind::Wrong
    }
}

/// Whether this is a time: numbers with units, a dot only in the first number.
fn is_time(text: &[u8]) -> bool {
    nanos(core::str::from_utf8(text).unwrap_or("").replace('.', "").as_str()).is_some()
}

/// A time in nanoseconds: `30s`, `1h30m`.
pub(crate) fn nanos(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '_')?;
        let length = rest[digits..].find(|c: char| c.is_ascii_digit());
        let unit = &rest[digits..length.map_or(rest.len(), |length| digits + length)];
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
        // A number that is too large is a time all the same: one too long for anything.
        let number: u64 = rest[..digits].replace('_', "").parse().unwrap_or(u64::MAX);
        total = total.saturating_add(number.saturating_mul(*factor));
        rest = &rest[digits + unit.len()..];
    }
    (!text.is_empty()).then_some(total)
}
