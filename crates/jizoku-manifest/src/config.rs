//! A node's `config.toml`, in its data folder: read at each start, written by `init` and `join`.
//!
//! What it does not know: keys, clusters, the rest of the data folder.
//!
//! Invariants
//! - What [`NodeConfig::to_toml`] writes reads back as the same value.
//! - An address to advertise is one that others can connect to: never `0.0.0.0`, never port 0.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use jizoku_types::{ByteCount, Span};

use crate::defaults;
use crate::problem::Problems;
use crate::section::{At, Document, Section, all_different};
use crate::service::read_bounded;
use crate::units::{write_size, write_span};

/// Longest name of a node, in bytes.
pub const NODE_NAME_MAX: usize = 63;
/// Most addresses in one list.
pub const ADDRESSES_MAX: usize = 16;
/// Most labels of a node.
pub const LABELS_MAX: usize = 32;
/// Longest label name or value, in bytes.
pub const LABEL_MAX: usize = 63;

const KEYS: [&str; 12] = [
    "name",
    "listen",
    "advertise",
    "gateway",
    "metrics",
    "api_socket",
    "witness",
    "scripts",
    "log",
    "labels",
    "links",
    "disk",
];

/// How a node takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// What people call it: 1 to [`NODE_NAME_MAX`] of `a-z 0-9 - .`. None: the host's name.
    pub name: Option<String>,
    /// Where the mesh listens. Port 0 asks the system for one.
    pub listen: Vec<SocketAddr>,
    /// What others are told to connect to. Empty: the node's own addresses with the mesh's port.
    pub advertise: Vec<SocketAddr>,
    /// Where published ports are opened.
    pub gateway: Vec<IpAddr>,
    /// Where Prometheus metrics are served over TCP. None: on the API socket only.
    pub metrics: Option<SocketAddr>,
    /// The agent's API socket; a relative path counts from the data folder.
    pub api_socket: PathBuf,
    /// Takes part in decisions, runs no services.
    pub witness: bool,
    /// Runs tasks of scripts that other nodes, or people on this one, send.
    pub scripts: bool,
    /// What is written to the log.
    pub log: LogLevel,
    /// What `require` in manifests and the spread of copies look at, such as `zone` and `rack`.
    pub labels: BTreeMap<String, String>,
    /// Shortest silence of a link that may mean a death.
    pub silence_min: Span,
    /// Longest silence of a link before it counts as down.
    pub silence_max: Span,
    /// Room left free on the disk; with less the node refuses to be a holder.
    pub disk_reserve: ByteCount,
}

/// What is written to the log; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What a person must mend.
    Error,
    /// What may become that.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Every message.
    Trace,
}

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = LEVELS.iter().find(|(_, level)| level == self).map(|(word, _)| *word);
        f.write_str(word.expect("every level has a word"))
    }
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        // Each takes its own kind only. The agent leaves out what a machine doesn't have.
        let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        NodeConfig {
            name: None,
            listen: everywhere.map(|ip| SocketAddr::new(ip, defaults::MESH_PORT)).to_vec(),
            advertise: Vec::new(),
            gateway: everywhere.to_vec(),
            metrics: None,
            api_socket: PathBuf::from(defaults::API_SOCKET),
            witness: false,
            scripts: true,
            log: LogLevel::Info,
            labels: BTreeMap::new(),
            silence_min: defaults::SILENCE_MIN,
            silence_max: defaults::SILENCE_MAX,
            disk_reserve: defaults::DISK_RESERVE,
        }
    }
}

/// Why there is no config. Nothing was changed.
#[derive(Debug)]
pub enum ConfigError {
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

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, cause } => {
                write!(f, "{}: can't be read: {cause}", file.display())
            }
            ConfigError::Wrong(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl NodeConfig {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<NodeConfig, ConfigError> {
        let unreadable = |cause| ConfigError::Unreadable { file: path.to_owned(), cause };
        let text = read_bounded(path).map_err(unreadable)?;
        NodeConfig::parse(&path.display().to_string(), &text).map_err(ConfigError::Wrong)
    }

    /// Understands `text`. `file` is what the problems call it.
    pub fn parse(file: &str, text: &str) -> Result<NodeConfig, Problems> {
        let document = Document::parse(file, text);
        let config = build(&document);
        document.finish(Some(config))
    }

    /// Whether `text` may be the name of a node.
    pub fn is_node_name(text: &str) -> bool {
        let clean = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        starts && text.len() <= NODE_NAME_MAX && text.bytes().all(clean)
    }

    /// The file's text, with every key and a comment on each.
    pub fn to_toml(&self) -> String {
        let mut text =
            String::from("# A node of a jizoku cluster. Read when the agent starts.\n\n");
        let mut key = |comment: &str, set: bool, key: &str, value: String| {
            let off = if set { "" } else { "# " };
            writeln!(text, "# {comment}\n{off}{key} = {value}\n").expect("a text takes all");
        };
        let name = self.name.as_deref().unwrap_or("the name of this host");
        key("What people call this node.", self.name.is_some(), "name", quoted(name));
        key("Where the mesh listens.", true, "listen", quoted_list(&self.listen));
        let advertise = quoted_list(&self.advertise);
        let comment = "What others connect to; empty: this host's addresses.";
        key(comment, true, "advertise", advertise);
        key("Where published ports are opened.", true, "gateway", quoted_list(&self.gateway));
        let metrics = self.metrics.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9645)));
        let comment = "Where Prometheus metrics are served, beside the API socket.";
        key(comment, self.metrics.is_some(), "metrics", quoted(&metrics.to_string()));
        let socket = quoted(&self.api_socket.to_string_lossy());
        key("The API socket, seen from this folder.", true, "api_socket", socket);
        let comment = "true: takes part in decisions, runs no services.";
        key(comment, true, "witness", self.witness.to_string());
        let comment = "Run tasks of scripts here, as the agent's user; any member may send them.";
        key(comment, true, "scripts", self.scripts.to_string());
        let comment = "error, warn, info, debug or trace.";
        key(comment, true, "log", quoted(&self.log.to_string()));
        text.push_str("# Manifests can require labels; copies are spread over zones and racks.\n");
        text.push_str("[labels]\n");
        for (name, value) in &self.labels {
            writeln!(text, "{} = {}", quoted(name), quoted(value)).expect("a text takes all");
        }
        let (min, max) = (write_span(self.silence_min), write_span(self.silence_max));
        let reserve = write_size(self.disk_reserve);
        text.push_str(
            "\n# A link is down after a silence between these two, by what it is used to.\n",
        );
        write!(text, "[links]\nsilence_min = \"{min}\"\nsilence_max = \"{max}\"\n\n")
            .expect("a text takes all");
        text.push_str("# With less room than this on its disk the node refuses to keep copies.\n");
        writeln!(text, "[disk]\nreserve = \"{reserve}\"").expect("a text takes all");
        text
    }
}

fn build(document: &Document<'_>) -> NodeConfig {
    let root = document.root(&KEYS);
    let name = root.parsed("name", NAME_FORM, read_node_name).map(|name| name.value);
    let mut config = NodeConfig { name, ..NodeConfig::default() };
    if let Some(listen) = read_list(&root, "listen", ADDRESS_FORM, read_address) {
        if listen.value.is_empty() {
            root.document.wrong(&listen.bytes, "`listen` needs at least one address", None);
        }
        config.listen = listen.value.into_iter().map(|address| address.value).collect();
    }
    if let Some(advertise) = read_list(&root, "advertise", ADDRESS_FORM, read_address) {
        for address in &advertise.value {
            if address.value.ip().is_unspecified() || address.value.port() == 0 {
                let message = format!("nobody can connect to {}", address.value);
                let hint = "write an address of this host and a port".to_owned();
                root.document.wrong(&address.bytes, message, Some(hint));
            }
        }
        config.advertise = advertise.value.into_iter().map(|address| address.value).collect();
    }
    let ip_form = "an IP address such as \"0.0.0.0\" or \"::1\"";
    if let Some(gateway) = read_list(&root, "gateway", ip_form, |text| text.parse().ok()) {
        config.gateway = gateway.value.into_iter().map(|address| address.value).collect();
    }
    let metrics = root.parsed("metrics", ADDRESS_FORM, |text| read_address(text).ok_or(None));
    config.metrics = metrics.map(|address| address.value);
    if let Some(socket) = root.text("api_socket") {
        if socket.value.is_empty() || socket.value.contains('\0') {
            root.document.wrong(&socket.bytes, "`api_socket` must be a path", None);
        }
        config.api_socket = PathBuf::from(socket.value);
    }
    config.witness = root.flag("witness").is_some_and(|witness| witness.value);
    config.scripts = root.flag("scripts").is_none_or(|scripts| scripts.value);
    if let Some(level) = root.choice("log", &LEVELS) {
        config.log = level.value;
    }
    config.labels = read_labels(&root);
    read_limits(&root, &mut config);
    config
}

const NAME_FORM: &str =
    "a name of 1 to 63 of a-z, 0-9, '-' and '.', starting with a letter or digit";
const ADDRESS_FORM: &str = "an address with a port such as \"192.0.2.7:7645\" or \"[::]:7645\"";

fn read_node_name(text: &str) -> Result<String, Option<String>> {
    if NodeConfig::is_node_name(text) {
        return Ok(text.to_owned());
    }
    let cleaned = text.to_lowercase().replace(['_', ' '], "-");
    Err(NodeConfig::is_node_name(&cleaned).then(|| format!("did you mean \"{cleaned}\"?")))
}

fn read_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

fn read_list<T>(
    section: &Section<'_, '_>,
    key: &str,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<At<Vec<At<T>>>> {
    let texts = section.texts(key)?;
    if texts.value.len() > ADDRESSES_MAX {
        let message = format!("`{key}` has at most {ADDRESSES_MAX} addresses");
        section.document.wrong(&texts.bytes, message, None);
    }
    all_different(section.document, "the address", &texts.value);
    let mut values = Vec::new();
    for text in texts.value {
        match read(text.value) {
            Some(value) => values.push(text.map(|_| value)),
            None => {
                let message = format!("`{key}` must hold {expected}, found \"{}\"", text.value);
                section.document.wrong(&text.bytes, message, None);
            }
        }
    }
    Some(At { value: values, bytes: texts.bytes })
}

fn read_labels(root: &Section<'_, '_>) -> BTreeMap<String, String> {
    let Some(pairs) = root.pairs("labels") else { return BTreeMap::new() };
    if pairs.value.len() > LABELS_MAX {
        let message = format!("a node has at most {LABELS_MAX} labels");
        root.document.wrong(&pairs.bytes, message, None);
    }
    let fits = |text: &str| !text.is_empty() && text.len() <= LABEL_MAX;
    let mut labels = BTreeMap::new();
    for (name, value) in pairs.value {
        if !fits(name) || !fits(value.value) || name.contains(char::is_whitespace) {
            let message = "a label's name and value have 1 to 63 bytes, a name no spaces";
            root.document.wrong(&value.bytes, message, None);
        }
        labels.insert(name.to_owned(), value.value.to_owned());
    }
    labels
}

fn read_limits(root: &Section<'_, '_>, config: &mut NodeConfig) {
    let range = Span::millis(20)..=Span::secs(60);
    if let Some(links) = root.section("links", &["silence_min", "silence_max"]) {
        let min = links.span("silence_min", range.clone());
        let max = links.span("silence_max", range);
        config.silence_min = min.as_ref().map_or(config.silence_min, |min| min.value);
        config.silence_max = max.as_ref().map_or(config.silence_max, |max| max.value);
        if config.silence_min > config.silence_max
            && let Some(place) = min.or(max)
        {
            let message = format!(
                "`silence_min` ({}) must not be more than `silence_max` ({})",
                write_span(config.silence_min),
                write_span(config.silence_max)
            );
            root.document.wrong(&place.bytes, message, None);
        }
    }
    if let Some(disk) = root.section("disk", &["reserve"])
        && let Some(reserve) = disk.size("reserve", ByteCount(0)..=ByteCount(1 << 50))
    {
        config.disk_reserve = reserve.value;
    }
}

fn quoted_list<T: fmt::Display>(values: &[T]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| quoted(&value.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => write!(quoted, "\\u{:04X}", c as u32).expect("a text takes all"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        NodeConfig::parse("config.toml", text).expect_err("the text has a mistake").to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(NodeConfig::parse("c", ""), Ok(NodeConfig::default()));
    }

    #[test]
    fn what_is_written_reads_back() {
        let full = NodeConfig {
            name: Some("alpha-1.example".to_owned()),
            listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:7645".parse().unwrap()],
            advertise: vec!["192.0.2.1:7645".parse().unwrap()],
            gateway: Vec::new(),
            metrics: Some("127.0.0.1:9645".parse().unwrap()),
            api_socket: PathBuf::from("/run/a \"b\"\\c.sock"),
            witness: true,
            scripts: false,
            log: LogLevel::Trace,
            labels: [("zone".to_owned(), "ä\t".to_owned())].into(),
            silence_min: Span::millis(151),
            silence_max: Span::secs(2),
            disk_reserve: ByteCount(0),
        };
        for config in [NodeConfig::default(), full] {
            let text = config.to_toml();
            assert_eq!(NodeConfig::parse("c", &text), Ok(config), "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_with_their_place() {
        let text = "nam = \"x\"\nname = \"My Node\"\nlisten = []\nadvertise = [\"0.0.0.0:7645\"]\n\
                    gateway = [\"localhost\"]\nlog = \"verbose\"\n[labels]\nzone = 3\n\
                    [links]\nsilence_min = \"2s\"\n[disk]\nreserve = 5\n";
        let shown = problems(text);
        let first_lines: Vec<&str> =
            shown.lines().filter(|line| line.starts_with("config.toml:")).collect();
        let expected = [
            "config.toml:1:1: unknown key `nam`",
            "config.toml:2:8: `name` must be a name of 1 to 63 of a-z, 0-9, '-' and '.', \
             starting with a letter or digit, found \"My Node\"",
            "config.toml:3:10: `listen` needs at least one address",
            "config.toml:4:14: nobody can connect to 0.0.0.0:7645",
            "config.toml:5:12: `gateway` must hold an IP address such as \"0.0.0.0\" or \"::1\", \
             found \"localhost\"",
            "config.toml:6:7: `log` must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\", \
             found \"verbose\"",
            "config.toml:8:8: `zone` must be a text in quotes, found a number",
            "config.toml:10:15: `silence_min` (2s) must not be more than `silence_max` (1s)",
            "config.toml:12:11: `reserve` must be a size such as \"64MiB\" or \"1GiB\", \
             found the number 5",
        ];
        assert_eq!(first_lines, expected, "{shown}");
        assert!(shown.contains("did you mean `name`?"), "{shown}");
        assert!(shown.contains("did you mean \"my-node\"?"), "{shown}");
        assert!(shown.contains("add a unit, as in \"5MiB\""), "{shown}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = NodeConfig::read(Path::new("no/such/config.toml")).unwrap_err();
        assert!(error.to_string().starts_with("no/such/config.toml: can't be read: "));
    }
}
