//! Layers: who may depend on whom.
//!
//! A crate says its layer in `[package.metadata.jizoku]`. 0 vocabulary, 1 cores, 2 composition,
//! 3 adapters, 4 deliverables, 5 beside the layers (simulator, tests, xtask).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Finding;

/// Crates that no pure crate may depend on directly.
const IMPURE: [&str; 8] =
    ["tokio", "libc", "rustix", "nix", "rand", "mio", "wasmtime", "serde_json"];

struct Crate {
    layer: u64,
    folder: PathBuf,
    depends: Vec<String>,
}

pub(super) fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let crates = crates(root)?;
    let mut findings = Vec::new();
    for (name, this) in &crates {
        for other in this.depends.iter().filter_map(|name| crates.get_key_value(name)) {
            findings.extend(edge(name, this, other.0, other.1));
        }
        if this.layer <= 2 {
            for impure in this.depends.iter().filter(|name| IMPURE.contains(&name.as_str())) {
                findings.push(Finding::new(name, format!("is pure, and depends on {impure}")));
            }
            findings.extend(no_std(name, &this.folder)?);
        }
        if this.layer == 1 {
            findings.extend(siblings(name, &this.folder)?);
        }
    }
    Ok(findings)
}

fn crates(root: &Path) -> Result<BTreeMap<String, Crate>, String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let value: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = value["packages"].as_array().ok_or("cargo metadata: no packages")?;
    packages.iter().map(one).collect()
}

fn one(package: &Value) -> Result<(String, Crate), String> {
    let name = package["name"].as_str().ok_or("a package without a name")?.to_string();
    let layer = package["metadata"]["jizoku"]["layer"]
        .as_u64()
        .ok_or_else(|| format!("{name}: no layer in [package.metadata.jizoku]"))?;
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    let folder = Path::new(manifest).parent().unwrap_or(Path::new("")).to_path_buf();
    let depends = package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str().map(String::from))
        .collect();
    Ok((name, Crate { layer, folder, depends }))
}

fn edge(name: &str, this: &Crate, other: &str, that: &Crate) -> Option<Finding> {
    let problem = match (this.layer, that.layer) {
        (mine, theirs) if theirs > mine => format!("depends on {other}, a higher layer"),
        (1, 1) => format!("a core knows another core: {other}"),
        (3, 3) => format!("an adapter knows another adapter: {other}"),
        _ => return None,
    };
    Some(Finding::new(name, problem))
}

fn no_std(name: &str, folder: &Path) -> Result<Option<Finding>, String> {
    let file = folder.join("src/lib.rs");
    let text = fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
    let pure = text.contains("#![no_std]") && text.contains("#![forbid(unsafe_code)]");
    Ok((!pure).then(|| Finding::new(name, "lacks #![no_std] or #![forbid(unsafe_code)]")))
}

/// Modules of jizoku-core are cores too: none may name another.
fn siblings(name: &str, folder: &Path) -> Result<Vec<Finding>, String> {
    if name != "jizoku-core" {
        return Ok(Vec::new());
    }
    let src = folder.join("src");
    let mut sources = Vec::new();
    collect(&src, &mut sources)?;
    let modules: Vec<String> = sources
        .iter()
        .filter(|file| file.parent() == Some(&src))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_string()))
        .filter(|module| module != "lib")
        .collect();
    let mut findings = Vec::new();
    for file in &sources {
        let below = file.strip_prefix(&src).unwrap_or(file).with_extension("");
        let own = below.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
        for other in modules.iter().filter(|module| *module != own && own != "lib") {
            if text.contains(&format!("crate::{other}::")) {
                let place = format!("{name}/src/{}", below.display());
                findings.push(Finding::new(place, format!("a core knows its sibling {other}")));
            }
        }
    }
    Ok(findings)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
