//! "Did you mean": the known word that is nearest to what was written.
//!
//! What it does not know: what the words stand for.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

/// Longest word that is compared; the cost grows with the square of the length.
const WORD_MAX: usize = 64;
/// Most words that one is compared with.
const KNOWN_MAX: usize = 2_048;

/// "did you mean `x`?", if a known word is near enough.
pub(crate) fn suggestion<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(written, known).map(|word| format!("did you mean `{word}`?"))
}

/// The one of `known` that differs least from `written`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = written.len();
    if length > WORD_MAX {
        return None;
    }
    known
        .into_iter()
        .take(KNOWN_MAX)
        .filter(|word| word.len() <= WORD_MAX && word.len().abs_diff(length) <= 1 + length / 4)
        .map(|word| (distance(written.as_bytes(), word.as_bytes()), word))
        .min_by_key(|(distance, _)| *distance)
        // A word that shares nothing with what was written is not what was meant.
        .filter(|(distance, _)| *distance < length && *distance <= 1 + length / 4)
        .map(|(_, word)| word)
}

/// How many bytes must be added, removed, replaced or swapped with their neighbour.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = Vec::with_capacity(to.len() + 1);
        next.push(i + 1);
        for (j, b) in to.iter().enumerate() {
            let differs = usize::from(!a.eq_ignore_ascii_case(b));
            let mut cost = (row[j] + differs).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = mem::replace(&mut row, next);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_and_swaps_are_counted() {
        for (from, to, expected) in [("", "abc", 3), ("knid", "kind", 1), ("port", "ports", 1)] {
            assert_eq!(distance(from.as_bytes(), to.as_bytes()), expected, "{from} {to}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["restart", "start", "status"];
        assert_eq!(nearest("restrat", known), Some("restart"));
        assert_eq!(nearest("stop_all_of_it", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
