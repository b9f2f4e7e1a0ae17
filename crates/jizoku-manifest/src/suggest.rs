//! "Did you mean": the known word that is nearest to what was written.
//!
//! What it does not know: what the words stand for.

/// Longest word that is compared; the cost grows with the square of the length.
const WORD_MAX: usize = 64;

/// The one of `known` that differs least from `written`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = written.chars().count();
    if length > WORD_MAX {
        return None;
    }
    let lower = written.to_lowercase();
    known
        .into_iter()
        .filter(|word| word.chars().count() <= WORD_MAX)
        .map(|word| (distance(&lower, &word.to_lowercase()), word))
        .min_by_key(|(distance, _)| *distance)
        // A word that shares nothing with what was written is not what was meant.
        .filter(|(distance, _)| *distance < length && *distance <= 1 + length / 4)
        .map(|(_, word)| word)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut cost = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_swaps() {
        for (from, to, expected) in
            [("", "abc", 3), ("kind", "kind", 0), ("knid", "kind", 1), ("port", "ports", 1)]
        {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["copies", "min_copies", "interval"];
        assert_eq!(nearest("mincopies", known), Some("min_copies"));
        assert_eq!(nearest("Interval", known), Some("interval"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
