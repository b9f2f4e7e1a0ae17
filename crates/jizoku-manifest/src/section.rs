//! Typed reading of a parsed TOML document: each value with its place, each mistake collected.
//!
//! A [`Document`] is one file; a [`Section`] is one of its tables, opened with the keys that it
//! may have. A reader asks for each key with the type that it wants. What is absent gives `None`;
//! what is wrong gives `None` too, and a problem is noted, so that reading goes on and finds the
//! next mistake.
//!
//! What it does not know: what the keys mean, which defaults there are.
//!
//! Invariants
//! - Whoever got `None` for a wrong value may go on with any value: the document ends in an error.
//! - After a syntax error nothing is called missing or unknown: the parser may have skipped it, or
//!   what it belongs to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use jizoku_types::{ByteCount, Span};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::FILE_MAX;
use crate::problem::{Found, Problems};
use crate::suggest::nearest;
use crate::units;

/// A value and the bytes of the file that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) bytes: Range<usize>,
}

impl<T> At<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), bytes: self.bytes }
    }
}

/// One file while it is read.
pub(crate) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    root: DeTable<'t>,
    problems: RefCell<Vec<Found>>,
    syntax_ok: bool,
}

impl<'t> Document<'t> {
    /// Parses as much as there is; mistakes of syntax are noted.
    pub(crate) fn parse(file: &'t str, text: &'t str) -> Document<'t> {
        let mut problems = Vec::new();
        let mut root = DeTable::new();
        if text.len() > FILE_MAX {
            let message = format!("the file is longer than {} KiB", FILE_MAX >> 10);
            problems.push(Found { bytes: 0..0, message, hint: None });
        } else {
            let (table, errors) = DeTable::parse_recoverable(text);
            root = table.into_inner();
            problems.extend(errors.into_iter().map(|error| Found {
                bytes: error.span().unwrap_or(0..0),
                message: error.message().to_owned(),
                hint: None,
            }));
        }
        let syntax_ok = problems.is_empty();
        Document { file, text, root, problems: RefCell::new(problems), syntax_ok }
    }

    /// The top of the file.
    pub(crate) fn root(&self, keys: &'static [&'static str]) -> Section<'_, 't> {
        Section::open(self, &self.root, 0..0, "", keys)
    }

    /// Notes a mistake.
    pub(crate) fn wrong(&self, bytes: &Range<usize>, message: impl Display, hint: Option<String>) {
        let found = Found { bytes: bytes.clone(), message: message.to_string(), hint };
        self.problems.borrow_mut().push(found);
    }

    /// Whether nothing was wrong so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The value, if the whole file was right.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        let found = self.problems.into_inner();
        match value {
            Some(value) if found.is_empty() => Ok(value),
            _ => Err(Problems::new(self.file, self.text, found)),
        }
    }
}

/// One table of a document.
pub(crate) struct Section<'d, 't> {
    pub(crate) document: &'d Document<'t>,
    table: &'d DeTable<'t>,
    bytes: Range<usize>,
    name: &'static str,
    keys: &'static [&'static str],
}

impl<'d, 't> Section<'d, 't> {
    fn open(
        document: &'d Document<'t>,
        table: &'d DeTable<'t>,
        bytes: Range<usize>,
        name: &'static str,
        keys: &'static [&'static str],
    ) -> Section<'d, 't> {
        let section = Section { document, table, bytes, name, keys };
        for key in table.keys() {
            // After a mistake of syntax a key may stand in another section than was meant.
            if keys.contains(&key.get_ref().as_ref()) || !document.syntax_ok {
                continue;
            }
            let hint = match nearest(key.get_ref(), keys.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", listed(keys, "`")),
            };
            let message = format!("unknown key `{}`{}", key.get_ref(), section.place());
            document.wrong(&key.span(), message, Some(hint));
        }
        section
    }

    /// Where the section itself stands.
    pub(crate) fn bytes(&self) -> &Range<usize> {
        &self.bytes
    }

    /// Whether the key is there, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Notes that `key` has to be there.
    pub(crate) fn missing(&self, key: &str, expected: &str) {
        if self.document.syntax_ok {
            let message = format!("`{key}` is missing{}", self.place());
            self.document.wrong(&self.bytes, message, Some(format!("expected {expected}")));
        }
    }

    /// Notes that `key` has no effect here, if it is there.
    pub(crate) fn refuse(&self, key: &str, why: &str) {
        if let Some((name, _)) = self.entry(key) {
            self.document.wrong(&name.span(), format!("`{key}` has no effect: {why}"), None);
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<At<&'d str>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At { value: text.as_ref(), bytes: value.span() }),
            other => self.mismatch(key, &value.span(), "a text in quotes", other),
        }
    }

    /// A text that `read` understands; it gives a hint if it doesn't.
    pub(crate) fn parsed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, units::Hint>,
    ) -> Option<At<T>> {
        let value = self.get(key)?;
        let bytes = value.span();
        let (found, hint) = match value.get_ref() {
            DeValue::String(text) => match read(text) {
                Ok(value) => return Some(At { value, bytes }),
                Err(hint) => (format!("\"{text}\""), hint),
            },
            DeValue::Integer(number) => {
                (format!("the number {number}"), read(number.as_str()).err().flatten())
            }
            other => (described(other).to_owned(), None),
        };
        let message = format!("`{key}` must be {expected}, found {found}");
        self.document.wrong(&bytes, message, hint);
        None
    }

    pub(crate) fn span(&self, key: &str, range: RangeInclusive<Span>) -> Option<At<Span>> {
        let found = self.parsed(key, units::SPAN_FORM, units::span)?;
        let (low, high) = (units::write_span(*range.start()), units::write_span(*range.end()));
        self.in_range(key, found, range, &low, &high)
    }

    pub(crate) fn size(
        &self,
        key: &str,
        range: RangeInclusive<ByteCount>,
    ) -> Option<At<ByteCount>> {
        let found = self.parsed(key, units::SIZE_FORM, units::size)?;
        let (low, high) = (units::write_size(*range.start()), units::write_size(*range.end()));
        self.in_range(key, found, range, &low, &high)
    }

    pub(crate) fn number<T>(&self, key: &str, range: RangeInclusive<T>) -> Option<At<T>>
    where
        T: TryFrom<u64> + PartialOrd + Display + Copy,
    {
        let value = self.get(key)?;
        let bytes = value.span();
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            return self.mismatch(key, &bytes, &expected, value.get_ref());
        };
        match whole(number).and_then(|number| T::try_from(number).ok()) {
            Some(value) if range.contains(&value) => Some(At { value, bytes }),
            _ => {
                let message = format!("`{key}` must be {expected}, found {number}");
                self.document.wrong(&bytes, message, None);
                None
            }
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Option<At<bool>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(At { value: *flag, bytes: value.span() }),
            other => self.mismatch(key, &value.span(), "true or false", other),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let expected = listed(&names, "\"");
        self.parsed(key, &expected, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                nearest(text, names.iter().copied()).map(|word| format!("did you mean \"{word}\"?"))
            })
        })
    }

    /// A list of texts, each with its place.
    pub(crate) fn texts(&self, key: &str) -> Option<At<Vec<At<&'d str>>>> {
        let value = self.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return self.mismatch(key, &value.span(), "a list of texts in [ ]", value.get_ref());
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At { value: &**text, bytes: item.span() }),
                other => self.mismatch(key, &item.span(), "a list of texts in quotes", other)?,
            }
        }
        Some(At { value: texts, bytes: value.span() })
    }

    /// A table of texts; the place of each is that of its key.
    pub(crate) fn pairs(&self, key: &str) -> Option<At<BTreeMap<&'d str, At<&'d str>>>> {
        let value = self.get(key)?;
        let expected = "a table of texts such as { KEY = \"value\" }";
        let DeValue::Table(table) = value.get_ref() else {
            return self.mismatch(key, &value.span(), expected, value.get_ref());
        };
        let mut pairs = BTreeMap::new();
        for (name, item) in table.iter() {
            match item.get_ref() {
                DeValue::String(text) => {
                    pairs.insert(&**name.get_ref(), At { value: &**text, bytes: name.span() })
                }
                other => self.mismatch(name.get_ref(), &item.span(), "a text in quotes", other)?,
            };
        }
        Some(At { value: pairs, bytes: value.span() })
    }

    /// A table inside this one.
    pub(crate) fn section(
        &self,
        key: &'static str,
        keys: &'static [&'static str],
    ) -> Option<Section<'d, 't>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Section::open(self.document, table, value.span(), key, keys))
            }
            other => self.mismatch(key, &value.span(), &format!("a section [{key}]"), other),
        }
    }

    /// All the `[[key]]` of this table.
    pub(crate) fn sections(
        &self,
        key: &'static str,
        keys: &'static [&'static str],
    ) -> Vec<Section<'d, 't>> {
        let expected = format!("written as [[{key}]], once for each");
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch::<()>(key, &value.span(), &expected, value.get_ref());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            let DeValue::Table(table) = item.get_ref() else {
                self.mismatch::<()>(key, &item.span(), &expected, item.get_ref());
                continue;
            };
            sections.push(Section::open(self.document, table, item.span(), key, keys));
        }
        sections
    }

    fn get(&self, key: &str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.entry(key).map(|(_, value)| value)
    }

    #[allow(clippy::type_complexity)]
    fn entry(
        &self,
        key: &str,
    ) -> Option<(&'d Spanned<std::borrow::Cow<'t, str>>, &'d Spanned<DeValue<'t>>)> {
        assert!(self.keys.contains(&key), "a reader asks only for keys that it declared: {key}");
        self.table.get_key_value(key)
    }

    fn in_range<T: PartialOrd>(
        &self,
        key: &str,
        found: At<T>,
        range: RangeInclusive<T>,
        low: &str,
        high: &str,
    ) -> Option<At<T>> {
        if range.contains(&found.value) {
            return Some(found);
        }
        let message = format!("`{key}` must be from {low} to {high}");
        self.document.wrong(&found.bytes, message, None);
        None
    }

    fn mismatch<T>(
        &self,
        key: &str,
        bytes: &Range<usize>,
        expected: &str,
        found: &DeValue<'_>,
    ) -> Option<T> {
        let message = format!("`{key}` must be {expected}, found {}", described(found));
        self.document.wrong(bytes, message, None);
        None
    }

    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) }
    }
}

/// Words in a row for a message, each in `quote`.
pub(crate) fn listed(words: &[&str], quote: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{quote}{word}{quote}")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        all => all.concat(),
    }
}

/// Whether all values are different; those that aren't are noted.
pub(crate) fn all_different<'v>(
    document: &Document<'_>,
    what: &str,
    values: impl IntoIterator<Item = &'v At<&'v str>>,
) {
    let mut seen = BTreeSet::new();
    for one in values {
        if !seen.insert(one.value) {
            document.wrong(&one.bytes, format!("{what} \"{}\" stands here twice", one.value), None);
        }
    }
}

fn whole(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
