//! What this node really is: what a script's check is told here.
//!
//! What it does not know: scripts, but for whether one could name a systemd unit.
//!
//! Invariant: what can't be found out is not known, and said to be missing where a function needs
//! it; nothing is assumed to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use jizoku_node::node::View;
use jizoku_script::functions;
use jizoku_script::offer::Offer;
use jizoku_script::target::Facts;
use jizoku_types::Member;

use super::super::status;

/// Where programs are looked for if the environment doesn't say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folders of the path, in their order.
pub(super) fn path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

/// A program on the path.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return is_program(Path::new(name)).then(|| name.into());
    }
    path().into_iter().map(|folder| folder.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Names of the programs on the path. Read again only where a folder has changed: there are
/// thousands.
#[derive(Default)]
pub(super) struct Programs {
    read: Mutex<BTreeMap<PathBuf, (SystemTime, Arc<BTreeSet<String>>)>>,
}

impl Programs {
    /// All of them. May take milliseconds.
    pub(super) fn all(&self) -> BTreeSet<String> {
        let mut read = self.read.lock().expect("no panic while locked");
        let mut all = BTreeSet::new();
        for folder in path() {
            let Ok(changed) = std::fs::metadata(&folder).and_then(|meta| meta.modified()) else {
                continue;
            };
            let known = read.get(&folder).filter(|(at, _)| *at == changed);
            let names = match known {
                Some((_, names)) => Arc::clone(names),
                None => {
                    let names = Arc::new(names_in(&folder));
                    read.insert(folder, (changed, Arc::clone(&names)));
                    names
                }
            };
            all.extend(names.iter().cloned());
        }
        all
    }
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    let programs = entries.filter_map(Result::ok).filter(|entry| is_program(&entry.path()));
    programs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Names of the systemd units of this host; or why there are none.
fn units() -> Result<BTreeSet<String>, String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err("systemd doesn't run this host".into());
    }
    let mut units = BTreeSet::new();
    for verb in ["list-unit-files", "list-units"] {
        let output = Command::new("systemctl")
            .args([verb, "--all", "--no-legend", "--no-pager", "--plain", "--full"])
            .output()
            .map_err(|error| format!("systemctl: {error}"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("systemctl {verb}: {}", why.trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        units
            .extend(text.lines().filter_map(|line| line.split_whitespace().next()).map(Into::into));
    }
    Ok(units)
}

/// What every node knows of the cluster.
pub(super) fn of_cluster(view: &View) -> Offer {
    let labels = view
        .nodes
        .iter()
        .flat_map(|node| node.record.labels.iter().map(|(key, value)| format!("{key}:{value}")));
    Offer {
        host: status::name_of(view, view.me.node),
        services: Some(
            view.services.values().map(|one| one.record.spec.name.to_string()).collect(),
        ),
        nodes: Some(view.nodes.iter().map(|node| node.record.name.clone()).collect()),
        labels: Some(labels.collect()),
        ..Offer::default()
    }
}

/// What this node is, as far as this script could ask for it. Blocks.
pub(super) fn of_host(view: &View, script: &str, programs: &Programs) -> Offer {
    let mut offer = of_cluster(view);
    offer.programs = Some(programs.all());
    // Asking systemd takes tens of milliseconds.
    if script.contains("unit.") {
        match units() {
            Ok(units) => offer.units = Some(units),
            Err(why) => {
                let all = functions::all().filter(|function| function.name.starts_with("unit."));
                offer.missing = all.map(|function| (function.name.into(), why.clone())).collect();
            }
        }
    }
    offer
}

/// A node as targets see it.
pub(super) struct Seen<'v> {
    view: &'v View,
    at: usize,
}

impl Seen<'_> {
    /// All nodes, ordered by name.
    pub(super) fn all(view: &View) -> Vec<Seen<'_>> {
        let mut all: Vec<Seen<'_>> = (0..view.nodes.len()).map(|at| Seen { view, at }).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    pub(super) fn member(&self) -> Member {
        let node = &self.view.nodes[self.at];
        Member { node: node.node, incarnation: node.record.incarnation }
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.view.nodes[self.at].reachable
    }
}

impl Facts for Seen<'_> {
    fn name(&self) -> &str {
        &self.view.nodes[self.at].record.name
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.view.nodes[self.at].record.labels.get(key).map(String::as_str)
    }

    fn runs(&self, service: &str) -> bool {
        let me = self.view.nodes[self.at].node;
        self.view.services.values().any(|one| {
            one.record.spec.name.as_str() == service
                && one.record.active.is_some_and(|active| active.node == me)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_on_the_path_are_found_and_others_are_not() {
        let programs = Programs::default();
        let all = programs.all();
        assert!(all.contains("sh") && !all.contains("no-such-program"));
        assert_eq!(programs.all(), all);
        assert!(program("sh").is_some() && program("/bin/sh").is_some());
        assert!(program("/etc/passwd").is_none() && program("no-such-program").is_none());
    }
}
