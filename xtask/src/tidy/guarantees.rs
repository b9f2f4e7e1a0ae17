//! `docs/guarantees.md`: every test and every checker that is named there exists.
//!
//! A test's name is a word in backticks in the last column of a table, or one of four parts or
//! more anywhere on the page. A checker is a row of the simulator's table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Finding, read};

const PAGE: &str = "docs/guarantees.md";
const CHECKERS: &str = "docs/internals/simulator.md";
/// A name in backticks with so many underscores is a test's: a setting has fewer.
const PARTS: usize = 3;

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<Finding>, String> {
    let page = read(root, Path::new(PAGE))?;
    let checkers = read(root, Path::new(CHECKERS))?;
    let mut known = BTreeSet::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        known.extend(tests(&read(root, file)?));
    }
    let named = names(&page);
    let lost = named.iter().filter(|name| !known.contains(*name));
    let lost = lost.map(|name| Finding::new(PAGE, format!("there is no test {name}")));
    let numbers = numbers(&page).into_iter();
    let unknown = numbers.filter(|number| !checkers.contains(&format!("\n| {number} | ")));
    let unknown = unknown.map(|number| Finding::new(PAGE, format!("there is no checker {number}")));
    let mut findings: Vec<Finding> = lost.chain(unknown).collect();
    if named.is_empty() {
        findings.push(Finding::new(PAGE, "names no test"));
    }
    Ok(findings)
}

/// The tests that a page names.
fn names(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in page.lines() {
        let cell = line.strip_suffix('|').and_then(|row| row.rsplit('|').next());
        let is_name = |word: &&str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            !word.is_empty() && word.chars().all(plain)
        };
        let quoted = |text: &str| -> Vec<String> {
            text.split('`').skip(1).step_by(2).filter(is_name).map(String::from).collect()
        };
        found.extend(cell.map(quoted).unwrap_or_default());
        let long = |word: &String| word.matches('_').count() >= PARTS;
        found.extend(quoted(line).into_iter().filter(long));
    }
    found
}

/// The checkers that a page names.
fn numbers(page: &str) -> BTreeSet<usize> {
    let after = |word| page.split(word).skip(1);
    let digits = |c: char| c.is_ascii_digit() || c == ',' || c == ' ';
    let lists = after("checker ").chain(after("checkers "));
    let lists = lists.map(|rest| rest.split(|c| !digits(c)).next().unwrap_or_default());
    lists.flat_map(|list| list.split([',', ' '])).filter_map(|word| word.parse().ok()).collect()
}

/// The tests of a source file.
fn tests(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            found.extend(rest.split('(').next().map(String::from));
            is_test = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            is_test = false;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let page = "`min_copies` and `a_long_name_here`\n| `copies` | checkers 3, 12; `short` |\n";
        assert_eq!(names(page), ["a_long_name_here", "short"].map(String::from).into());
        assert_eq!(numbers(page), [3, 12].into());
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        let text = "#[test]\n#[cold]\nfn one() {}\nfn two() {}\n#[tokio::test]\nasync fn three() {";
        assert_eq!(tests(text), ["one", "three"]);
    }
}
