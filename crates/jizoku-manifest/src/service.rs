//! A service's manifest: from TOML to a `ServiceSpec` with every default filled in.
//!
//! What it does not know: whether the program exists or what is in it, which nodes exist
//! (a callback tells), what the catalog holds.
//!
//! Invariants
//! - A [`Manifest`] has passed `ServiceSpec::check`; only the hash of a `wasm` module is still to
//!   be filled in, by [`Manifest::set_module`].
//! - Keys that have no effect with the chosen engine are mistakes: they would promise something.

mod check;
mod engine;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use jizoku_types::limits::PORTS_MAX;
use jizoku_types::spec::{EngineSpec, Placement, PortSpec, ServiceSpec, SuccessionPolicy};
use jizoku_types::{NodeId, ServiceName};

use crate::problem::Problems;
use crate::section::{At, Document, Section, all_different};
use crate::suggest::nearest;

/// Most bytes that a program's arguments and environment may have together.
pub const PROGRAM_TEXT_MAX: usize = 32 << 10;
/// Most checks of one service.
pub const CHECKS_MAX: usize = 16;
/// Longest name of a port, in bytes.
pub const PORT_NAME_MAX: usize = 32;

const KEYS: [&str; 7] = ["name", "engine", "port", "state", "succession", "check", "placement"];

/// A manifest that is right in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the user wants. The module's hash of a `wasm` service is all zero until
    /// [`Manifest::set_module`] was called.
    pub spec: ServiceSpec,
    /// The module of a `wasm` service, as a path from the folder of the manifest; none for
    /// `exec`.
    pub program: Option<PathBuf>,
}

/// No node has the name. Lists those that there are, for a hint; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownNode {
    /// Names that would have been understood.
    pub known: Vec<String>,
}

/// Why there is no manifest. Nothing was changed.
#[derive(Debug)]
pub enum ManifestError {
    /// The file can't be read.
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file isn't right: mend what is listed.
    Wrong(Problems),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Unreadable { file, cause } => {
                write!(f, "{}: can't be read: {cause}", file.display())
            }
            ManifestError::Wrong(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for ManifestError {}

/// Tells which node a name stands for.
pub type NodeNames<'n> = dyn Fn(&str) -> Result<NodeId, UnknownNode> + 'n;

impl Manifest {
    /// Reads the manifest at `path`; a relative program is looked for in its folder.
    pub fn read(path: &Path, nodes: &NodeNames<'_>) -> Result<Manifest, ManifestError> {
        let unreadable = |cause| ManifestError::Unreadable { file: path.to_owned(), cause };
        let text = read_bounded(path).map_err(unreadable)?;
        let mut manifest = Manifest::parse(&path.display().to_string(), &text, nodes)
            .map_err(ManifestError::Wrong)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        manifest.program = manifest.program.map(|program| folder.join(program));
        Ok(manifest)
    }

    /// Understands `text`. `file` is what the problems call it; `nodes` resolves names of nodes.
    /// Texts of the form `node_...` are taken as ids without asking.
    pub fn parse(file: &str, text: &str, nodes: &NodeNames<'_>) -> Result<Manifest, Problems> {
        let document = Document::parse(file, text);
        let manifest = build(&document, nodes);
        document.finish(manifest)
    }

    /// Fills in the BLAKE3 hash of the instrumented module.
    ///
    /// # Panics
    /// If the engine isn't `wasm`.
    pub fn set_module(&mut self, hash: [u8; 32]) {
        match &mut self.spec.engine {
            EngineSpec::Wasm { module, .. } => *module = hash,
            EngineSpec::Exec { .. } => panic!("only a wasm service has a module"),
        }
    }
}

/// Reads a text file of at most [`crate::FILE_MAX`] bytes; one byte more shows that it is longer.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let limit = crate::FILE_MAX as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    // A longer file is refused anyway; its end may be in the middle of a character.
    if bytes.len() > crate::FILE_MAX {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        std::io::Error::other(format!("line {line} is not UTF-8"))
    })
}

/// Reads every section, so that all mistakes are found; `None` if something needed is missing.
fn build(document: &Document<'_>, nodes: &NodeNames<'_>) -> Option<Manifest> {
    let root = document.root(&KEYS);
    let name = read_name(&root);
    let ports = read_ports(&root);
    let engine = engine::read(&root, &ports);
    let state = state::read(&root, engine.as_ref().map(|engine| engine.has_state()));
    let succession = read_succession(&root, nodes);
    let checks = check::read(&root, &ports, engine.as_ref().map(|engine| engine.has_state()));
    let placement = read_placement(&root, nodes);
    let engine = engine?;
    let spec = ServiceSpec {
        name: name?,
        engine: engine.spec,
        ports: ports.into_iter().map(|port| port.value).collect(),
        output: state.output,
        durable: state.durable,
        copies: state.copies,
        min_copies: state.min_copies,
        interval: state.interval,
        partition: state.partition,
        succession,
        checks,
        placement,
        restart_wait: state.restart_wait,
        branch_limit: state.branch_limit,
    };
    if document.is_clean()
        && let Err(error) = spec.check()
    {
        document.wrong(&(0..0), format!("`{}`: {}", error.field, error.problem), None);
    }
    Some(Manifest { spec, program: engine.program })
}

fn read_name(root: &Section<'_, '_>) -> Option<ServiceName> {
    let expected = "a name of 1 to 63 of a-z, 0-9 and '-', starting with a letter";
    if !root.has("name") {
        root.missing("name", expected);
    }
    let read = |text: &str| {
        ServiceName::new(text).map_err(|_| {
            let cleaned = text.to_lowercase().replace(['_', ' ', '.'], "-");
            ServiceName::new(&cleaned).ok().map(|name| format!("did you mean \"{name}\"?"))
        })
    };
    root.parsed("name", expected, read).map(|name| name.value)
}

fn read_ports(root: &Section<'_, '_>) -> Vec<At<PortSpec>> {
    let sections = root.sections("port", &["name", "listen"]);
    if sections.len() > PORTS_MAX {
        let message = format!("at most {PORTS_MAX} ports");
        root.document.wrong(sections[PORTS_MAX].bytes(), message, None);
    }
    let mut ports: Vec<At<PortSpec>> = Vec::new();
    for section in &sections {
        let listen = section.number("listen", 1..=u16::MAX);
        if !section.has("listen") {
            section.missing("listen", "the port that every node listens on, such as 6379");
        }
        let expected = "a name of at most 32 of a-z, 0-9, '-' and '_'";
        let name = section.parsed("name", expected, |text| {
            if is_port_name(text) { Ok(text.to_owned()) } else { Err(None) }
        });
        // A port that could not be read stands in the list all the same, so that what refers to
        // it isn't called wrong too.
        let listen = listen.unwrap_or(At { value: 0, bytes: section.bytes().clone() });
        let number = listen.value;
        // A port without a name is called by its number.
        let name = name.unwrap_or_else(|| listen.clone().map(|number| number.to_string()));
        if ports.iter().any(|port| number != 0 && port.value.listen == number) {
            let message = format!("port {number} is published twice");
            root.document.wrong(&listen.bytes, message, None);
        } else if ports.iter().any(|port| port.value.name == name.value) {
            let message = format!("two ports are called \"{}\"", name.value);
            root.document.wrong(&name.bytes, message, None);
        }
        let port = PortSpec { name: name.value, listen: number };
        ports.push(At { value: port, bytes: section.bytes().clone() });
    }
    ports
}

fn is_port_name(text: &str) -> bool {
    let clean = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= PORT_NAME_MAX && text.bytes().all(clean)
}

/// Finds the port that `key` names; without the key it is the only one.
fn find_port(section: &Section<'_, '_>, key: &str, ports: &[At<PortSpec>]) -> Option<u8> {
    let names = || ports.iter().map(|port| port.value.name.as_str());
    if !section.has(key) {
        match ports.len() {
            1 => return Some(0),
            0 => section.missing(key, "a port to check, but the service publishes none"),
            _ => section.missing(key, "the name of one of the ports"),
        }
        return None;
    }
    let read = |text: &str| {
        let index = names().position(|name| name == text);
        index.and_then(|index| u8::try_from(index).ok()).ok_or_else(|| port_hint(text, ports))
    };
    section.parsed(key, "the name of a [[port]]", read).map(|index| index.value)
}

fn port_hint(text: &str, ports: &[At<PortSpec>]) -> Option<String> {
    let names: Vec<&str> = ports.iter().map(|port| port.value.name.as_str()).collect();
    match nearest(text, names.iter().copied()) {
        Some(name) => Some(format!("did you mean \"{name}\"?")),
        None if names.is_empty() => Some("the service publishes no ports".to_owned()),
        None => Some(format!("the ports are {}", crate::section::listed(&names, "\""))),
    }
}

fn read_succession(root: &Section<'_, '_>, nodes: &NodeNames<'_>) -> SuccessionPolicy {
    #[derive(Clone, Copy, PartialEq)]
    enum Policy {
        Stability,
        Priority,
        Random,
    }
    let Some(section) = root.section("succession", &["policy", "order"]) else {
        return SuccessionPolicy::Stability;
    };
    let words = [
        ("stability", Policy::Stability),
        ("priority", Policy::Priority),
        ("random", Policy::Random),
    ];
    let policy = section.choice("policy", &words).map(|policy| policy.value);
    if policy == Some(Policy::Priority) {
        let order = read_nodes(&section, "order", nodes);
        if !section.has("order") {
            section.missing("order", "a list of nodes, the first choice first");
        }
        return SuccessionPolicy::Priority(order.into_iter().map(|node| node.value).collect());
    }
    if !section.has("policy") || policy.is_some() {
        section.refuse("order", "it needs policy = \"priority\"");
    }
    match policy {
        Some(Policy::Random) => SuccessionPolicy::Random,
        _ => SuccessionPolicy::Stability,
    }
}

fn read_placement(root: &Section<'_, '_>, nodes: &NodeNames<'_>) -> Placement {
    let Some(section) = root.section("placement", &["only", "except", "require"]) else {
        return Placement::default();
    };
    let only = read_nodes(&section, "only", nodes);
    let except = read_nodes(&section, "except", nodes);
    for node in &except {
        if only.iter().any(|other| other.value == node.value) {
            let message = "a node can't be in `only` and in `except`";
            root.document.wrong(&node.bytes, message, None);
        }
    }
    let require = section.pairs("require").map(|pairs| pairs.value).unwrap_or_default();
    Placement {
        only: only.into_iter().map(|node| node.value).collect::<BTreeSet<_>>(),
        except: except.into_iter().map(|node| node.value).collect::<BTreeSet<_>>(),
        require: owned_pairs(require),
    }
}

fn owned_pairs(pairs: BTreeMap<&str, At<&str>>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, text)| (key.to_owned(), text.value.to_owned())).collect()
}

/// A list of nodes, by name or by id.
fn read_nodes(section: &Section<'_, '_>, key: &str, nodes: &NodeNames<'_>) -> Vec<At<NodeId>> {
    let Some(texts) = section.texts(key) else { return Vec::new() };
    if texts.value.is_empty() {
        let message = format!("`{key}` is empty: name a node, or leave the key out");
        section.document.wrong(&texts.bytes, message, None);
    }
    all_different(section.document, "the node", &texts.value);
    let mut found = Vec::new();
    for text in texts.value {
        if let Ok(id) = text.value.parse::<NodeId>() {
            found.push(text.map(|_| id));
            continue;
        }
        match nodes(text.value) {
            Ok(id) => found.push(text.map(|_| id)),
            Err(UnknownNode { known }) => {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                let hint = match nearest(text.value, names.iter().copied()) {
                    Some(name) => Some(format!("did you mean \"{name}\"?")),
                    None if names.is_empty() => None,
                    None => Some(format!("the nodes are {}", crate::section::listed(&names, "\""))),
                };
                let message = format!("no node is called \"{}\"", text.value);
                section.document.wrong(&text.bytes, message, hint);
            }
        }
    }
    found
}
