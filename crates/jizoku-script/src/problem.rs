//! Problems: what is wrong with a script, and where.
//!
//! What it does not know: what a script means.
//!
//! Invariants
//! - Lines and columns count from 1; a column is a character, not a byte.
//! - What is printed of a script holds no control characters: it can't steer the terminal.
//! - Problems come in the order of the text; at most [`PROBLEMS_MAX`] are kept.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::limits::PROBLEMS_MAX;

/// Most characters of a line that are shown around a problem.
const SHOWN_MAX: usize = 96;

/// Bytes of a script, from `start` to before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Place {
    /// From one byte to before another.
    pub(crate) fn new(start: usize, end: usize) -> Place {
        // Texts are at most SOURCE_MAX long.
        Place { start: start as u32, end: end as u32 }
    }

    /// From the start of this to the end of `other`.
    pub(crate) fn to(self, other: Place) -> Place {
        Place { start: self.start, end: other.end.max(self.end) }
    }

    /// The empty place behind this.
    pub(crate) fn after(self) -> Place {
        Place { start: self.end, end: self.end }
    }

    /// The text here.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or("")
    }

    /// Whether a byte lies here, or right behind.
    pub fn touches(self, at: usize) -> bool {
        (self.start as usize) <= at && at <= self.end as usize
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What was found and what was expected.
    pub message: String,
    /// What to do, or what may have been meant.
    pub hint: Option<String>,
}

/// Problems of one script, collected in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    overflown: bool,
}

impl Problems {
    pub(crate) fn add(&mut self, place: Place, message: impl Into<String>) {
        self.push(Problem { place, message: message.into(), hint: None });
    }

    pub(crate) fn hint(
        &mut self,
        place: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Problem { place, message: message.into(), hint: Some(hint.into()) });
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem);
        } else {
            self.overflown = true;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order of the text, each once.
    pub(crate) fn in_order(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| (problem.place.start, problem.place.end));
        self.list.dedup();
        if self.overflown
            && let Some(last) = self.list.last_mut()
        {
            last.hint = Some("there may be more problems behind this one".to_owned());
        }
        self.list
    }
}

/// Line and column of a byte, both from 1.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let at = text.floor_char_boundary(at.min(text.len()));
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// Problems as people read them: `FILE:LINE:COLUMN: what`, the line, and marks under the place.
pub struct Report<'a> {
    file: &'a str,
    text: &'a str,
    problems: &'a [Problem],
}

impl<'a> Report<'a> {
    /// A report of what is wrong with `text`, which came from `file`.
    pub fn new(file: &'a str, text: &'a str, problems: &'a [Problem]) -> Report<'a> {
        Report { file, text, problems }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text;
        let file = printable(self.file);
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            let start = text.floor_char_boundary((problem.place.start as usize).min(text.len()));
            let end = text.floor_char_boundary((problem.place.end as usize).min(text.len()));
            let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
            let to = text[start..].find('\n').map_or(text.len(), |at| start + at);
            let (line, column) = line_and_column(text, start);
            let marks = text[start..end.clamp(start, to)].chars().count().max(1);
            let (shown, blank, marks) = excerpt(&text[from..to], column - 1, marks);
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            writeln!(f, "{file}:{line}:{column}: {}", printable(&problem.message))?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{number} | {shown}")?;
            write!(f, "{margin} | {}{}", " ".repeat(blank), "^".repeat(marks))?;
            if let Some(hint) = &problem.hint {
                write!(f, " {}", printable(hint))?;
            }
        }
        Ok(())
    }
}

/// The part of a line that is worth showing, where in it the marks begin, and how many they are.
fn excerpt(line: &str, from: usize, marked: usize) -> (String, usize, usize) {
    let line = printable(line);
    let skipped =
        if from + marked.min(SHOWN_MAX / 2) > SHOWN_MAX { from - SHOWN_MAX / 2 } else { 0 };
    let shown: String = line.chars().skip(skipped).take(SHOWN_MAX).collect();
    let blank = from - skipped;
    let room = shown.chars().count().saturating_sub(blank).max(1);
    (shown, blank, marked.min(room))
}

/// The text with everything that moves a cursor replaced, one character for one.
fn printable(text: &str) -> String {
    let clean = |c: char| match c {
        '\t' | '\n' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    };
    text.trim_end_matches('\r').chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    #[test]
    fn file_line_column_marks_and_hint_are_shown() {
        let mut problems = Problems::default();
        problems.hint(Place::new(11, 15), "no variable é", "did you mean e?");
        let list = problems.in_order();
        let text = Report::new("a.jz", "let x = 1\n fail é\n", &list).to_string();
        assert_eq!(text, "a.jz:2:2: no variable é\n  |\n2 |  fail é\n  |  ^^^^ did you mean e?");
    }

    #[test]
    fn a_script_cannot_steer_the_terminal_or_flood_it() {
        let text = format!("{}\u{1b}[2J\u{202e}x", "a".repeat(5000));
        let list =
            vec![Problem { place: Place::new(5000, 5001), message: "wrong".into(), hint: None }];
        let shown = Report::new("\u{1b}", &text, &list).to_string();
        assert!(!shown.contains(['\u{1b}', '\u{202e}']));
        assert!(shown.len() < 400, "{shown}");
    }

    #[test]
    fn places_outside_the_text_are_moved_into_it() {
        let list = vec![Problem { place: Place::new(70, 90), message: "x".into(), hint: None }];
        assert!(Report::new("f", "", &list).to_string().starts_with("f:1:1: x"));
    }

    #[test]
    fn problems_beyond_the_limit_are_said_to_be_more() {
        let mut problems = Problems::default();
        for at in 0..PROBLEMS_MAX + 5 {
            problems.add(Place::new(at, at), "x");
        }
        let list = problems.in_order();
        assert_eq!(list.len(), PROBLEMS_MAX);
        assert!(list[PROBLEMS_MAX - 1].hint.as_deref().unwrap_or("").contains("more"));
    }
}
