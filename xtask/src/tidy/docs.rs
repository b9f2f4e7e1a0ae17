//! Docs: links lead somewhere; every crate is on the map; pages start with a title.

use std::path::{Path, PathBuf};

use super::{Finding, read};

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "md")) {
        let text = read(root, file)?;
        let place = file.display().to_string();
        if !text.starts_with("# ") {
            findings.push(Finding::new(&place, "a page starts with its `# Title`"));
        }
        for target in links(&text) {
            let folder = file.parent().unwrap_or(Path::new(""));
            if !root.join(folder).join(&target).exists() {
                findings.push(Finding::new(&place, format!("a link leads nowhere: {target}")));
            }
        }
    }
    let map = read(root, Path::new("ARCHITECTURE.md"))?;
    for manifest in files.iter().filter(|file| file.ends_with("Cargo.toml")) {
        let folder = manifest.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        if let Some(name) =
            folder.filter(|name| manifest.starts_with("crates") && !map.contains(*name))
        {
            findings.push(Finding::new("ARCHITECTURE.md", format!("{name} isn't on the map")));
        }
    }
    Ok(findings)
}

/// Targets of links to files of the project, without their anchors.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_string());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::links;

    #[test]
    fn links_are_found() {
        let text = "[a](b.md#c) [d](https://e) `x`\n```\n[f](g)\n```\n[h](#i)";
        assert_eq!(links(text), ["b.md"]);
    }
}
