//! What is wrong with a text, where, and what would be right.
//!
//! What it does not know: files; whoever has one puts its name before the line.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// A part of a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Where it begins.
    pub start: usize,
    /// Where it ends; not part of it.
    pub end: usize,
}

impl Place {
    /// From here to there.
    pub fn new(start: usize, end: usize) -> Place {
        Place { start, end }
    }

    /// From the beginning of this one to the end of that one.
    pub fn to(self, end: Place) -> Place {
        Place { start: self.start, end: end.end }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, in one line.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A mistake without a hint.
    pub fn new(place: Place, what: impl Into<String>) -> Problem {
        Problem { place, what: what.into(), hint: None }
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// The mistake with its line and a mark below, for people.
    pub fn show(&self, text: &str) -> String {
        let start = floor(text, self.place.start);
        let end = floor(text, self.place.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let row = text[..start].matches('\n').count() + 1;
        let before = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end)].chars().count().max(1);
        let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
        let pad: String = text[line_start..start].chars().map(blank).collect();
        let mut shown = format!(
            "{row}:{}: {}\n  {}\n  {pad}{}",
            before + 1,
            self.what,
            &text[line_start..line_end],
            "^".repeat(width)
        );
        if let Some(hint) = &self.hint {
            shown.push_str("\n  hint: ");
            shown.push_str(hint);
        }
        shown
    }
}

/// The nearest boundary of a letter at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<String> {
    let allowed = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|other| (distance(word, other), other));
    let near = near.filter(|(far, _)| *far <= allowed).min_by_key(|(far, _)| *far)?;
    Some(near.1.to_string())
}

/// Letters to change, add, leave out or swap with their neighbour to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (alloc::vec::Vec<char>, alloc::vec::Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut two_back = alloc::vec![0; b.len() + 1];
    let mut back: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = alloc::vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = back[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(back[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(two_back[j - 2] + 1);
            }
        }
        two_back = core::mem::replace(&mut back, row);
    }
    back[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_marked_where_it_is() {
        let text = "a == 1 &&\n\té == pctt";
        let at = text.find("pctt").unwrap();
        let problem = Problem::new(Place::new(at, at + 4), "no field `pctt`").hint("did you mean");
        let shown = problem.show(text);
        assert_eq!(
            shown,
            "2:7: no field `pctt`\n  \té == pctt\n  \t     ^^^^\n  hint: did you mean"
        );
        // A place past the end or within a letter is no reason to panic.
        for start in 0..text.len() + 3 {
            Problem::new(Place::new(start, start + 9), "x").show(text);
        }
    }

    #[test]
    fn near_words_are_found_and_far_ones_not() {
        let known = ["pct", "port", "status"];
        assert_eq!(nearest("pctt", known).as_deref(), Some("pct"));
        assert_eq!(nearest("sttaus", known).as_deref(), Some("status"));
        assert_eq!(nearest("memory", known), None);
    }
}
