//! Sources: module headers, lengths of files, functions and lines, words that must not stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Finding, read};

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Words that name no room: what lies in such a file could lie anywhere.
const BANNED_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<Finding>, String> {
    let ratchet = ratchet(root)?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let text = read(root, file)?;
        let place = file.display().to_string();
        findings.extend(name(file).map(|problem| Finding::new(&place, problem)));
        if !text.starts_with("//!") {
            findings.push(Finding::new(&place, "starts without //! that says what it is"));
        }
        for (number, line) in text.lines().enumerate() {
            findings.extend(
                line_problem(line)
                    .map(|problem| Finding::new(format!("{place}:{}", number + 1), problem)),
            );
        }
        let mut long = functions(&text);
        long.insert(String::new(), text.lines().count());
        for (function, lines) in long {
            let limit = if function.is_empty() { FILE_LINES_MAX } else { FUNCTION_LINES_MAX };
            let key =
                if function.is_empty() { place.clone() } else { format!("{place}:{function}") };
            let allowed = ratchet.get(&key).copied().unwrap_or(limit).max(limit);
            if lines > allowed {
                findings.push(Finding::new(key, format!("{lines} lines; at most {allowed}")));
            }
        }
    }
    Ok(findings)
}

fn name(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_str()?;
    BANNED_NAMES.contains(&stem).then(|| format!("`{stem}` names no room"))
}

fn line_problem(line: &str) -> Option<String> {
    // A text in quotes can't be wrapped by rustfmt, nor an address by anybody.
    let wrappable = !line.contains('"') && !line.contains("://");
    if line.chars().count() > COLUMNS_MAX && wrappable {
        return Some(format!("over {COLUMNS_MAX} columns"));
    }
    // Put together here, so that this file may pass its own check.
    let stray = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), "dbg!("];
    let stub = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[", "ignore")];
    let word = stray.iter().chain(&stub).find(|word| line.contains(**word))?;
    (!line.contains("concat!") && !line.contains("let stray")).then(|| format!("a stray `{word}`"))
}

/// Lengths of the longest function of each name, from its `fn` line to its closing brace, found
/// by indentation, which rustfmt guarantees.
fn functions(text: &str) -> BTreeMap<String, usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut lengths = BTreeMap::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let end = lines[start..].iter().position(|line| *line == close);
        let one_liner = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
        let length = if one_liner { 1 } else { end.map_or(1, |end| end + 1) };
        let longest = lengths.entry(name).or_insert(0);
        *longest = length.max(*longest);
    }
    lengths
}

fn function_name(line: &str) -> Option<String> {
    let code = line.trim_start();
    let at = if code.starts_with("fn ") { 0 } else { code.find(" fn ")? + 1 };
    let before = &code[..at];
    let modifiers =
        ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    if !before.split_whitespace().all(|word| modifiers.contains(&word)) {
        return None;
    }
    let name: String =
        code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// `PLACE LINES` per line; a place is a file, or `FILE:FUNCTION`.
fn ratchet(root: &Path) -> Result<BTreeMap<String, usize>, String> {
    let text = read(root, Path::new("xtask/ratchet.txt"))?;
    let mut ratchet = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (place, lines) = line.rsplit_once(' ').ok_or(format!("ratchet.txt: {line:?}"))?;
        let lines = lines.parse().map_err(|_| format!("ratchet.txt: {line:?}"))?;
        ratchet.insert(place.to_string(), lines);
    }
    Ok(ratchet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_lengths_are_found() {
        let text = "impl A {\n    pub(crate) async fn a() {\n        b();\n    }\n}\nfn b() {}\n";
        let lengths = functions(text);
        assert_eq!(lengths.get("a"), Some(&3));
        assert_eq!(lengths.get("b"), Some(&1));
    }

    #[test]
    fn prose_about_a_function_is_not_one() {
        assert_eq!(function_name("// what a fn does"), None);
        assert_eq!(function_name("type F = fn (u8) -> u8;"), None);
    }

    #[test]
    fn stray_words_are_found() {
        let line = concat!("// TO", "DO later");
        assert!(line_problem(line).is_some());
        assert!(line_problem("let a = 1;").is_none());
    }
}
