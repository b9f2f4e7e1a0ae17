//! One object of JSON (RFC 8259) in a line.
//!
//! Known names: `event`; `level` or `severity`; `trace`, `trace_id` or `traceId`; `host`;
//! `source` or `service`; `important`. Everything else is a field. Objects within become names
//! with dots (`http.status`), arrays the text that they are, null nothing. A known name with a
//! value of another type is a field.
//!
//! What it does not know: which fields an event should have.
//!
//! Limits: [`DEPTH_MAX`] objects within each other; a record's number of fields.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use super::{Content, Parsed, level_of};
use crate::record::FIELDS_MAX;
use crate::value::{Trace, Value};

/// Deepest nesting.
pub const DEPTH_MAX: usize = 16;

/// Why a line isn't a record, and after how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

impl core::fmt::Display for NotJson {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// Reads a line.
pub fn parse(line: &str) -> Result<Parsed<'_>, NotJson> {
    let mut reader = Reader { text: line, at: 0 };
    let mut parsed = Parsed::empty();
    reader.blank();
    reader.object(&mut parsed, None, 1)?;
    reader.blank();
    if reader.at != line.len() {
        return Err(reader.wrong("something follows the object"));
    }
    Ok(parsed)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn wrong(&self, what: &'static str) -> NotJson {
        NotJson { what, at: self.at }
    }

    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn blank(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', ..] = self.rest() {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest().first() == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn object(
        &mut self,
        parsed: &mut Parsed<'t>,
        within: Option<&str>,
        depth: usize,
    ) -> Result<(), NotJson> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        if !self.eat(b'{') {
            return Err(self.wrong("an object is expected"));
        }
        self.blank();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.blank();
            let name = self.string()?;
            self.blank();
            if !self.eat(b':') {
                return Err(self.wrong("`:` is expected"));
            }
            self.blank();
            let name = match within {
                Some(within) => Cow::Owned(format!("{within}.{name}")),
                None => name,
            };
            if self.rest().first() == Some(&b'{') {
                self.object(parsed, Some(&name), depth + 1)?;
            } else if let Some(content) = self.value(depth)? {
                put(parsed, name, content);
            }
            self.blank();
            if self.eat(b'}') {
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.wrong("`,` or `}` is expected"));
            }
        }
    }

    /// A value that is no object; nothing for null.
    fn value(&mut self, depth: usize) -> Result<Option<Content<'t>>, NotJson> {
        let start = self.at;
        match self.rest() {
            [b'"', ..] => self.string().map(|text| Some(Content::Text(text))),
            [b'[', ..] => {
                self.skip(depth)?;
                Ok(Some(Content::Text(Cow::Borrowed(&self.text[start..self.at]))))
            }
            [b'-' | b'0'..=b'9', ..] => self.number().map(|value| Some(Content::Value(value))),
            rest => {
                let words = [("true", Some(true)), ("false", Some(false)), ("null", None)];
                let found = words.iter().find(|(word, _)| rest.starts_with(word.as_bytes()));
                let (word, value) = found.ok_or_else(|| self.wrong("a value is expected"))?;
                self.at += word.len();
                Ok(value.map(|value| Content::Value(Value::Bool(value))))
            }
        }
    }

    /// Goes over any value.
    fn skip(&mut self, depth: usize) -> Result<(), NotJson> {
        let close = match self.rest() {
            [b'[', ..] => b']',
            [b'{', ..] => b'}',
            _ => return self.value(depth).map(|_| ()),
        };
        if depth >= DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        self.at += 1;
        self.blank();
        if self.eat(close) {
            return Ok(());
        }
        loop {
            self.blank();
            if close == b'}' {
                self.string()?;
                self.blank();
                if !self.eat(b':') {
                    return Err(self.wrong("`:` is expected"));
                }
                self.blank();
            }
            self.skip(depth + 1)?;
            self.blank();
            if self.eat(close) {
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.wrong("`,` or a closing bracket is expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while let [b'0'..=b'9', ..] = reader.rest() {
                reader.at += 1;
            }
            reader.at > from
        };
        self.eat(b'-');
        let zero = self.rest().first() == Some(&b'0');
        let first = self.at;
        if !digits(self) || zero && self.at > first + 1 {
            return Err(self.wrong("a digit is expected"));
        }
        let mut whole = true;
        if self.eat(b'.') {
            whole = false;
            if !digits(self) {
                return Err(self.wrong("a digit is expected"));
            }
        }
        if let [b'e' | b'E', ..] = self.rest() {
            whole = false;
            self.at += 1;
            if let [b'+' | b'-', ..] = self.rest() {
                self.at += 1;
            }
            if !digits(self) {
                return Err(self.wrong("a digit is expected"));
            }
        }
        let text = &self.text[start..self.at];
        if whole && let Ok(number) = text.parse() {
            return Ok(Value::Int(number));
        }
        // Beyond what a fraction can hold it is infinite, and then no number.
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.map(Value::Float).ok_or_else(|| self.wrong("too large a number"))
    }

    fn string(&mut self) -> Result<Cow<'t, str>, NotJson> {
        if !self.eat(b'"') {
            return Err(self.wrong("`\"` is expected"));
        }
        let start = self.at;
        loop {
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
                }
                [b'\\', ..] => return self.escaped(start).map(Cow::Owned),
                [0..0x20, ..] => return Err(self.wrong("a control letter in a text")),
                [] => return Err(self.wrong("a text has no end")),
                _ => self.at += 1,
            }
        }
    }

    /// A string with escapes, from where the first of them stands.
    fn escaped(&mut self, start: usize) -> Result<String, NotJson> {
        let mut text = String::from(&self.text[start..self.at]);
        loop {
            let plain = self.rest().iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20));
            let plain = plain.count();
            text.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(text);
                }
                [b'\\', letter, ..] => {
                    let letter = *letter;
                    self.at += 2;
                    text.push(match letter {
                        b'"' | b'\\' | b'/' => char::from(letter),
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.unicode()?,
                        _ => return Err(self.wrong("an unknown escape")),
                    });
                }
                _ => return Err(self.wrong("a text has no end")),
            }
        }
    }

    /// Four digits, or two times four. Half a pair becomes the sign for what can't be shown.
    fn unicode(&mut self) -> Result<char, NotJson> {
        let high = self.hex()?;
        if (0xd800..0xdc00).contains(&high) && self.rest().starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Result<u32, NotJson> {
        let digits = self.rest().get(..4).filter(|four| four.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.ok_or_else(|| self.wrong("four hexadecimal digits are expected"))?;
        self.at += 4;
        let value = |byte: &u8| (*byte as char).to_digit(16).unwrap_or(0);
        Ok(digits.iter().fold(0, |sum, digit| sum * 16 + value(digit)))
    }
}

fn put<'t>(parsed: &mut Parsed<'t>, name: Cow<'t, str>, content: Content<'t>) {
    let content = match (&*name, content) {
        ("event", Content::Text(text)) if !text.is_empty() => {
            parsed.event = Some(text);
            return;
        }
        ("host", Content::Text(text)) if !text.is_empty() => {
            parsed.host = Some(text);
            return;
        }
        ("source" | "service", Content::Text(text)) if !text.is_empty() => {
            parsed.source = Some(text);
            return;
        }
        ("level" | "severity", Content::Text(text)) => match level_of(&text) {
            Some(level) => {
                parsed.level = Some(level);
                return;
            }
            None => Content::Text(text),
        },
        ("trace" | "trace_id" | "traceId", Content::Text(text)) => match Trace::parse(&text) {
            Some(trace) => {
                parsed.trace = trace;
                return;
            }
            None => Content::Text(text),
        },
        ("important", Content::Value(Value::Bool(important))) => {
            parsed.important = important;
            return;
        }
        (_, content) => content,
    };
    if parsed.fields.len() < FIELDS_MAX {
        parsed.fields.push((name, content));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Level;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn shown(parsed: &Parsed<'_>) -> Vec<String> {
        let field =
            |(name, content): &(Cow<'_, str>, Content<'_>)| format!("{name}={}", content.borrow());
        parsed.fields.iter().map(field).collect()
    }

    #[test]
    fn known_names_and_fields() {
        let parsed = parse(
            r#" {"event":"web.up","level":"WARNING","trace_id":"00007F3a","host":"w1","port":8080,
            "ok":true,"none":null,"f":-1.5e2,"http":{"status":200,"deep":{"a":"b"}},
            "list":[1, {"x":"]"}],"msg":"a\n\"b\" \u00e9 \ud83d\ude00 \ud800x","important":true} "#,
        )
        .unwrap();
        assert_eq!(parsed.event.as_deref(), Some("web.up"));
        assert_eq!(parsed.level, Some(Level::Warn));
        assert_eq!(parsed.trace, Trace(0x7f3a));
        assert_eq!(parsed.host.as_deref(), Some("w1"));
        assert!(parsed.important);
        assert_eq!(
            shown(&parsed),
            [
                "port=8080",
                "ok=true",
                "f=-150.0",
                "http.status=200",
                "http.deep.a=b",
                "list=[1, {\"x\":\"]\"}]",
                "msg=a\n\"b\" é 😀 \u{fffd}x",
            ]
        );
    }

    #[test]
    fn known_names_of_another_kind_are_fields() {
        let parsed = parse(r#"{"event":5,"level":3,"trace":"zz","important":"yes"}"#).unwrap();
        assert_eq!(parsed.event, None);
        assert_eq!(shown(&parsed), ["event=5", "level=3", "trace=zz", "important=yes"]);
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_goes_wrong() {
        for (line, at) in [
            ("", 0),
            ("[]", 0),
            ("{", 1),
            ("{}x", 2),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":01}", 7),
            ("{\"a\":1.}", 7),
            ("{\"a\":1e}", 7),
            ("{\"a\":-}", 6),
            ("{\"a\":1e999}", 10),
            ("{\"a\":tru}", 5),
            ("{\"a\":\"\\x\"}", 8),
            ("{\"a\":\"\\u12\"}", 8),
            ("{\"a\":\"b", 7),
            ("{\"a\":1,}", 7),
            ("{\"a\":[1,]}", 8),
        ] {
            assert_eq!(parse(line).unwrap_err().at, at, "{line}");
        }
        for deep in ["[", "{\"a\":"] {
            let line = format!("{{\"a\":{}", deep.repeat(10_000));
            assert_eq!(parse(&line).unwrap_err().what, "nested too deep");
        }
    }

    #[test]
    fn large_numbers_stay_numbers_and_fields_are_bounded() {
        let parsed = parse(r#"{"a":9223372036854775807,"b":9223372036854775808}"#).unwrap();
        assert_eq!(shown(&parsed), ["a=9223372036854775807", "b=9.223372036854776e18"]);
        let many: Vec<String> = (0..200).map(|n| format!("\"f{n}\":{n}")).collect();
        let line = format!("{{{}}}", many.join(","));
        assert_eq!(parse(&line).unwrap().fields.len(), FIELDS_MAX);
    }

    #[test]
    fn any_bytes_are_survived() {
        let valid = r#"{"event":"é","a":[1,{"b":null}],"c":{"d":-1.5e2},"e":"\ud83d\ude00\n"}"#;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..100_000 {
            let mut bytes = valid.as_bytes().to_vec();
            for _ in 0..1 + random.next_u32() % 4 {
                let at = random.next_u32() as usize % bytes.len();
                bytes[at] = b"{}[]\",:\\u0123-.e \n\xff"[random.next_u32() as usize % 19];
            }
            let text = String::from_utf8_lossy(&bytes).to_string();
            if let Ok(parsed) = parse(&text) {
                parsed.draft("h", "s", |draft| assert!(draft.fields.len() <= FIELDS_MAX));
            }
        }
    }
}
