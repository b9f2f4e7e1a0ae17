//! What is wrong with a file, and where: one text for people, and the place as numbers.
//!
//! What it does not know: TOML, which keys exist.
//!
//! Invariants
//! - Lines and columns count from 1; a column is a character, not a byte.
//! - What is printed of the file holds no control characters: a file can't steer the terminal.

use std::fmt;
use std::ops::Range;

/// Most characters of a line that are shown around a mistake.
const SHOWN_MAX: usize = 96;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
    /// What may have been meant.
    pub hint: Option<String>,
    /// Bytes of the file that it is about.
    pub bytes: Range<usize>,
}

/// Everything that is wrong with one file, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    /// For each problem its line as it is shown, and where in it the marks stand.
    shown: Vec<Excerpt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    marks_from: usize,
    marks: usize,
}

/// A mistake before its place is known as line and column.
pub(crate) struct Found {
    pub(crate) bytes: Range<usize>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problems {
    /// Gives each mistake its line and column, and puts them in order.
    ///
    /// # Panics
    /// If there is none: then there is nothing to report.
    pub(crate) fn new(file: &str, text: &str, mut found: Vec<Found>) -> Problems {
        assert!(!found.is_empty(), "a report needs a problem");
        found.sort_by_key(|problem| (problem.bytes.start, problem.bytes.end));
        let mut problems = Problems { file: printable(file), list: Vec::new(), shown: Vec::new() };
        for one in found {
            let start = boundary(text, one.bytes.start);
            let end = boundary(text, one.bytes.end).max(start);
            let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
            let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
            let column = text[line_start..start].chars().count() + 1;
            let marked = text[start..end.min(line_end)].chars().count().max(1);
            problems.shown.push(excerpt(&text[line_start..line_end], column - 1, marked));
            problems.list.push(Problem {
                line: text[..start].matches('\n').count() + 1,
                column,
                message: printable(&one.message),
                hint: one.hint.as_deref().map(printable),
                bytes: start..end,
            });
        }
        problems
    }

    /// The mistakes, in the order of the file.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The file, as its reader called it.
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (problem, excerpt)) in self.list.iter().zip(&self.shown).enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            let Problem { line, column, message, .. } = problem;
            writeln!(f, "{}:{line}:{column}: {message}", self.file)?;
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            writeln!(f, "{margin} |")?;
            writeln!(f, "{number} | {}", excerpt.line)?;
            let blank = " ".repeat(excerpt.marks_from);
            write!(f, "{margin} | {blank}{}", "^".repeat(excerpt.marks))?;
            if let Some(hint) = &problem.hint {
                write!(f, " {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The nearest place at or before `at` that is between two characters of `text`.
fn boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// `line` cut to what is worth showing when `marked` characters from `from` on are wrong.
fn excerpt(line: &str, from: usize, marked: usize) -> Excerpt {
    let line = printable(line);
    let skipped =
        if from + marked.min(SHOWN_MAX / 2) > SHOWN_MAX { from - SHOWN_MAX / 2 } else { 0 };
    let shown: String = line.chars().skip(skipped).take(SHOWN_MAX).collect();
    let marks_from = from - skipped;
    let room = shown.chars().count().saturating_sub(marks_from).max(1);
    Excerpt { line: shown, marks_from, marks: marked.min(room) }
}

/// The text with everything that moves a cursor replaced, one character for one.
fn printable(text: &str) -> String {
    let clean = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() || is_bidi_control(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.trim_end_matches('\r').chars().map(clean).collect()
}

/// Characters that turn the direction of text, so that it reads as something else than it is.
fn is_bidi_control(c: char) -> bool {
    let marks = '\u{200e}'..='\u{200f}';
    let embeddings = '\u{202a}'..='\u{202e}';
    let isolates = '\u{2066}'..='\u{2069}';
    c == '\u{061c}' || marks.contains(&c) || embeddings.contains(&c) || isolates.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, bytes: Range<usize>, hint: Option<&str>) -> Problems {
        let hint = hint.map(str::to_owned);
        Problems::new("a.toml", text, vec![Found { bytes, message: "wrong".to_owned(), hint }])
    }

    #[test]
    fn place_line_and_marks_are_shown() {
        let shown = one("x = 1\nname = \"é\"\n", 13..17, Some("did you mean e?")).to_string();
        let expected = "a.toml:2:8: wrong\n  |\n2 | name = \"é\"\n  |        ^^^ did you mean e?";
        assert_eq!(shown, expected);
    }

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let found = |at: usize, message: &str| Found {
            bytes: at..at + 1,
            message: message.to_owned(),
            hint: None,
        };
        let problems = Problems::new("f", "ab\ncd\n", vec![found(4, "second"), found(0, "first")]);
        let places: Vec<_> =
            problems.list().iter().map(|p| (p.line, p.column, p.message.as_str())).collect();
        assert_eq!(places, [(1, 1, "first"), (2, 2, "second")]);
    }

    #[test]
    fn places_outside_the_text_or_inside_a_character_are_moved_into_it() {
        assert_eq!(one("é", 1..2, None).list()[0].column, 1);
        assert_eq!(one("", 7..9, None).list()[0].line, 1);
        assert_eq!(one("a\n", 2..2, None).list()[0].line, 2);
    }

    #[test]
    fn a_file_cannot_steer_the_terminal_or_flood_it() {
        let text = format!("{}\u{1b}[2J\u{202e}x", "a".repeat(5000));
        let shown = one(&text, 5000..5001, None).to_string();
        assert!(!shown.contains(['\u{1b}', '\u{202e}']));
        assert!(shown.len() < 400, "{shown}");
        let marked = shown.lines().last().unwrap().chars().count();
        assert!(marked < 110 && shown.ends_with('^'), "{shown}");
    }
}
