//! Texts with `*` (any letters, or none) and `?` (one letter).
//!
//! Invariant: the time is at most the product of both lengths; there is no backtracking beyond
//! the last `*`.

use alloc::string::{String, ToString};

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    pattern: String,
}

impl Glob {
    pub(crate) fn new(pattern: &str) -> Glob {
        Glob { pattern: pattern.to_string() }
    }

    /// Whether the whole text is like the pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.pattern.as_str(), text);
        // Where to go on if the letters behind the last `*` don't fit.
        let mut retry: Option<(&str, &str)> = None;
        loop {
            let mut after = pattern.chars();
            let mut letters = rest.chars();
            match (after.next(), letters.next()) {
                (Some('*'), _) => {
                    pattern = after.as_str();
                    retry = Some((pattern, rest));
                    continue;
                }
                (Some(wanted), Some(letter)) if wanted == '?' || wanted == letter => {
                    (pattern, rest) = (after.as_str(), letters.as_str());
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((from, at)) = retry else { return false };
            let mut skipped = at.chars();
            if skipped.next().is_none() {
                return false;
            }
            (pattern, rest) = (from, skipped.as_str());
            retry = Some((from, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("deploy.*", "deploy.start", true),
            ("deploy.*", "deploy", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("*aab", "aaaaab", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} {text}");
        }
        let long = "a".repeat(10_000);
        assert!(!Glob::new("*a*a*a*a*a*a*b").matches(&long));
    }
}
