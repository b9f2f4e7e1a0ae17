//! Agents as processes on loopback, driven by the command line as a person would.
//!
//! Node `i` (from 0) is called `n{i+1}`; its mesh and its gateway listen on 127.1.T.(i+1), where T
//! is claimed for the cluster by a listener on 127.1.T.254; or each node has a network namespace
//! of its own ([`Spaces`]).
//!
//! Invariant: dropping the cluster kills every agent that is left. After a panic the folder is
//! left behind, and what all agents printed last is printed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::spaces::Spaces;
use crate::timeline::Timeline;
use crate::{build, clients, wait_for};

/// Where meshes listen.
const MESH_PORT: u16 = 7645;
/// How long an agent may take to answer for the first time, on a busy machine.
const AGENT_WITHIN: Duration = Duration::from_secs(30);
/// How long new nodes may take to become voters, one after the other.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// How long a service may take until it is held: modules are compiled on all nodes at once, and
/// they share one machine here.
const HELD_WITHIN: Duration = Duration::from_secs(120);
/// How long a gateway may take to open a port.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// How long an agent may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Lines of the timeline that are printed after a panic.
const LINES_SHOWN: usize = 300;

/// See the module's header.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    folder: PathBuf,
    agents: Vec<Option<Child>>,
    dresses: BTreeMap<usize, Dress>,
    timeline: Timeline,
}

/// What a node's agent is started through and with.
#[derive(Clone, Debug, Default)]
pub struct Dress {
    /// A program that starts another one, with its arguments; empty: none.
    pub prefix: Vec<String>,
    /// Additions to its environment.
    pub env: Vec<(String, String)>,
}

/// Where the nodes are.
#[derive(Debug)]
enum Place {
    Loopback { network: u8, _claim: TcpListener },
    Apart(Spaces),
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// Whether the exit code was 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Cluster {
    /// A network without nodes.
    ///
    /// # Panics
    /// If no network is free.
    pub fn empty() -> Cluster {
        let claim = |network: u8| {
            let listener = TcpListener::bind((Ipv4Addr::new(127, 1, network, 254), MESH_PORT));
            listener.ok().map(|listener| (network, listener))
        };
        let (network, claim) = (1..=250).find_map(claim).expect("a network in 127.1/16 is free");
        Cluster::at(Place::Loopback { network, _claim: claim })
    }

    /// A cluster of so many nodes on machines of their own, all of which see the same voters. To
    /// be called within [`spaces::within`](crate::spaces::within).
    pub fn apart(spaces: Spaces, count: usize) -> Cluster {
        Cluster::at(Place::Apart(spaces)).grown(count)
    }

    fn at(place: Place) -> Cluster {
        // Folders outlive a failed test, and in a namespace of processes numbers come again.
        let own = format!("jizoku-e2e-{}", std::process::id());
        let made = (1..10_000).map(|number| std::env::temp_dir().join(format!("{own}-{number}")));
        let folder = made.into_iter().find(|folder| fs::create_dir(folder).is_ok());
        let folder = folder.expect("a folder for tests can be made");
        let (agents, dresses) = (Vec::new(), BTreeMap::new());
        Cluster { place, folder, agents, dresses, timeline: Timeline::default() }
    }

    /// A cluster of so many nodes, all of which see the same voters.
    pub fn start(count: usize) -> Cluster {
        Cluster::empty().grown(count)
    }

    fn grown(mut self, count: usize) -> Cluster {
        for _ in 0..count {
            self.add(&[]);
        }
        self.wait_until_settled();
        self
    }

    /// One node more, by `init` or with a ticket of node 0.
    pub fn add(&mut self, settings: &[&str]) -> usize {
        let node = self.create(settings);
        self.up(node);
        node
    }

    /// One node more, without running its agent.
    pub fn create(&mut self, settings: &[&str]) -> usize {
        let node = self.folder_for_one();
        let ticket = (node > 0).then(|| self.must(0, &["ticket"]).trim().to_owned());
        let verb = match &ticket {
            None => vec!["init"],
            Some(ticket) => vec!["join", ticket],
        };
        let said = self.enter(node, &verb, settings);
        assert!(said.ok, "{} can't {verb:?}: {said:?}", name(node));
        node
    }

    /// Room for one node more, that belongs to nothing yet.
    pub fn folder_for_one(&mut self) -> usize {
        if let Place::Apart(spaces) = &mut self.place {
            spaces.add();
        }
        self.agents.push(None);
        self.agents.len() - 1
    }

    /// `init` or `join` of a node, with its name and addresses.
    pub fn enter(&self, node: usize, verb: &[&str], settings: &[&str]) -> Said {
        let (name, address) = (name(node), self.address(node, MESH_PORT));
        let (listen, gateway) = (address.to_string(), address.ip().to_string());
        let places = ["--name", &name, "--listen", &listen, "--gateway", &gateway];
        self.run(node, &[verb, &places, settings].concat())
    }

    /// Starts an agent, and waits until it sees a leader.
    pub fn up(&mut self, node: usize) {
        self.begin(node);
        self.wait_for_leader(node);
    }

    /// Starts an agent.
    ///
    /// # Panics
    /// If it runs already.
    pub fn begin(&mut self, node: usize) {
        assert!(self.agents[node].is_none(), "{} runs already", name(node));
        self.note(&format!("start {}", name(node)));
        let dress = self.dresses.get(&node).cloned().unwrap_or_default();
        let mut command = self.command(node, &dress);
        command.arg("up").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("jizoku can be started");
        self.timeline.follow(name(node), child.stderr.take().expect("it is a pipe"));
        self.agents[node] = Some(child);
    }

    /// Waits until a node's agent answers and sees a leader.
    pub fn wait_for_leader(&self, node: usize) {
        wait_for(&format!("a leader that {} sees", name(node)), AGENT_WITHIN, || {
            let status = self.run(node, &["--json", "status"]);
            let status: Value = serde_json::from_str(&status.out).ok()?;
            (!status["leader"].is_null()).then_some(())
        });
    }

    /// Waits until as many nodes vote as should among those that run, for each of these: nodes
    /// become voters one after the other, and four have no majority with two.
    pub fn wait_until_settled(&self) {
        let running: Vec<usize> =
            (0..self.agents.len()).filter(|node| self.agents[*node].is_some()).collect();
        let wanted = voters_wanted(running.len());
        for node in running {
            wait_for(&format!("{wanted} voters that {} sees", name(node)), SETTLED_WITHIN, || {
                let voters = self.json(node, &["status"])["voters"].as_array()?.len();
                (voters == wanted).then_some(())
            });
        }
    }

    /// Puts a mark on the timeline that a failed test shows.
    pub fn note(&self, what: &str) {
        self.timeline.add("test", what);
    }

    /// The machines of the nodes.
    ///
    /// # Panics
    /// If the cluster is on loopback.
    pub fn spaces(&self) -> &Spaces {
        match &self.place {
            Place::Apart(spaces) => spaces,
            Place::Loopback { .. } => panic!("all nodes share loopback"),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.note(&format!("kill {}", name(node)));
        let mut child = self.agents[node].take().expect("the agent runs");
        child.kill().expect("an agent can be killed");
        child.wait().expect("an agent can be waited for");
    }

    /// SIGKILL to all agents at once: none sees another die.
    pub fn kill_all(&mut self) {
        let all: Vec<usize> = (0..self.agents.len()).collect();
        self.kill_at_once(&all);
    }

    /// SIGKILL to these agents at once.
    pub fn kill_at_once(&mut self, nodes: &[usize]) {
        let names: Vec<String> = nodes.iter().map(|node| name(*node)).collect();
        self.note(&format!("kill {}", names.join(" ")));
        let pids: Vec<String> = nodes.iter().map(|node| self.pid(*node).to_string()).collect();
        clients::signal("KILL", &pids.join(" "));
        for node in nodes {
            let mut child = self.agents[*node].take().expect("the agent runs");
            child.wait().expect("an agent can be waited for");
        }
    }

    /// The number of an agent's process.
    ///
    /// # Panics
    /// If it doesn't run.
    pub fn pid(&self, node: usize) -> u32 {
        self.agents[node].as_ref().expect("the agent runs").id()
    }

    /// How an agent ended by itself, if it did since the last look.
    pub fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        let status = self.agents[node].as_mut()?.try_wait().expect("an agent can be waited for")?;
        self.note(&format!("{} has ended: {status}", name(node)));
        self.agents[node] = None;
        Some(status)
    }

    /// How a node's agent is started from the next time on.
    pub fn dress(&mut self, node: usize, dress: Dress) {
        self.dresses.insert(node, dress);
    }

    /// The newest lines of the timeline.
    pub fn newest(&self, lines: usize) -> String {
        self.timeline.newest(lines)
    }

    /// SIGTERM; waits until the agent has ended. Whether it ended well.
    pub fn terminate(&mut self, node: usize) -> bool {
        self.note(&format!("terminate {}", name(node)));
        let child = self.agents[node].as_ref().expect("the agent runs");
        clients::signal("TERM", &child.id().to_string());
        self.wait_for_end(node)
    }

    /// Waits until the agent has ended by itself. Whether it ended well.
    pub fn wait_for_end(&mut self, node: usize) -> bool {
        let mut child = self.agents[node].take().expect("the agent runs");
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("an agent can be waited for") {
                return status.success();
            }
            if began.elapsed() > END_WITHIN {
                self.agents[node] = Some(child);
                panic!("{} doesn't end", name(node));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the agent is running.
    pub fn runs(&mut self, node: usize) -> bool {
        let ended = |child: &mut Child| child.try_wait().expect("an agent can be waited for");
        self.agents[node].as_mut().is_some_and(|child| ended(child).is_none())
    }

    /// The node's data folder.
    pub fn data(&self, node: usize) -> PathBuf {
        self.folder.join(name(node))
    }

    /// Where tests may put files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a node publishes a port.
    pub fn address(&self, node: usize, port: u16) -> SocketAddr {
        let ip = match self.place {
            Place::Loopback { network, .. } => {
                Ipv4Addr::new(127, 1, network, u8::try_from(node + 1).expect("few nodes"))
            }
            Place::Apart(_) => Spaces::address(node),
        };
        (ip, port).into()
    }

    /// The address of a node's gateway, without port.
    pub fn host(&self, node: usize) -> String {
        self.address(node, 0).ip().to_string()
    }

    /// Where a node listens for others.
    pub fn mesh(&self, node: usize) -> SocketAddr {
        self.address(node, MESH_PORT)
    }

    fn command(&self, node: usize, dress: &Dress) -> Command {
        let first = dress.prefix.first().map_or(build::jizoku(), Path::new);
        let mut command = match &self.place {
            Place::Loopback { .. } => Command::new(first),
            Place::Apart(spaces) => spaces.command(node, first),
        };
        if !dress.prefix.is_empty() {
            command.args(&dress.prefix[1..]).arg(build::jizoku());
        }
        command.envs(dress.env.iter().cloned());
        command.arg("--data").arg(self.data(node));
        command.env_remove("JIZOKU_DATA").env_remove("JIZOKU_SOCKET");
        command
    }

    /// Runs a command at a node.
    pub fn run(&self, node: usize, arguments: &[&str]) -> Said {
        let output =
            self.command(node, &Dress::default()).args(arguments).stdin(Stdio::null()).output();
        output.expect("jizoku can be started").into()
    }

    /// Runs a command that must succeed; gives what it printed.
    pub fn must(&self, node: usize, arguments: &[&str]) -> String {
        let said = self.run(node, arguments);
        assert!(said.ok, "{} {arguments:?}: {}{}", name(node), said.out, said.err);
        said.out
    }

    /// Runs a command that must succeed; gives its JSON.
    pub fn json(&self, node: usize, arguments: &[&str]) -> Value {
        let text = self.must(node, &[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Some node whose agent runs.
    pub fn living(&self) -> usize {
        self.agents.iter().rposition(Option::is_some).expect("an agent runs")
    }

    /// A service as a node sees it; null if it doesn't know it.
    pub fn service(&self, node: usize, service: &str) -> Value {
        let status = self.json(node, &["status"]);
        let services = status["services"].as_array().expect("a list");
        services.iter().find(|one| one["name"] == service).cloned().unwrap_or(Value::Null)
    }

    /// Events that a node saw in this run of its agent, the oldest first.
    pub fn events(&self, node: usize) -> Vec<Value> {
        let text = self.must(node, &["--json", "events"]);
        let records = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        records.map(|record| record.expect("events are JSON")["event"].clone()).collect()
    }

    /// A number of `jizoku metrics`, by its name with its labels.
    ///
    /// # Panics
    /// If it isn't there.
    pub fn metric(&self, node: usize, name: &str) -> u64 {
        let text = self.must(node, &["metrics"]);
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.next().unwrap_or_else(|| panic!("no {name} in {text}"));
        value.trim().parse().unwrap_or_else(|error| panic!("{name} {value}: {error}"))
    }

    /// Whether some running node saw an event of this type.
    pub fn saw(&self, kind: &str) -> bool {
        let running = (0..self.agents.len()).filter(|node| self.agents[*node].is_some());
        running.into_iter().any(|node| self.events(node).iter().any(|event| event["type"] == kind))
    }

    /// The number of a node by its id.
    pub fn node(&self, id: &Value) -> Option<usize> {
        self.numbered(self.living(), id)
    }

    fn numbered(&self, seen_by: usize, id: &Value) -> Option<usize> {
        let status = self.json(seen_by, &["status"]);
        let nodes = status["nodes"].as_array().expect("a list");
        let found = nodes.iter().find(|node| &node["node"] == id)?;
        (0..self.agents.len()).find(|node| found["name"] == name(*node).as_str())
    }

    /// The node that a service's status says is active, by the names that `seen_by` knows.
    pub fn node_seen_by(&self, seen_by: usize, service: &Value) -> Option<usize> {
        self.numbered(seen_by, &service["active"])
    }

    /// The node that a service is active on, as some running node sees it.
    pub fn active(&self, service: &str) -> Option<usize> {
        self.node(&self.service(self.living(), service)["active"])
    }

    /// Applies a manifest.
    pub fn apply(&self, node: usize, manifest: &str) -> Said {
        let path = self.folder.join("service.toml");
        fs::write(&path, manifest).expect("a manifest can be written");
        self.run(node, &["--json", "apply", path.to_str().expect("paths of tests are text")])
    }

    /// Applies the key-value server, and waits until it is held as it wants and published.
    pub fn apply_kv(&self, port: u16, state: &str) -> Value {
        self.must_apply(&kv(port, state));
        self.wait_until_open(port);
        self.wait_until_held("kv", 2)
    }

    /// Waits until all running nodes publish a port.
    pub fn wait_until_open(&self, port: u16) {
        let running = (0..self.agents.len()).filter(|node| self.agents[*node].is_some());
        for address in running.map(|node| self.address(node, port)) {
            wait_for(&format!("a gateway that listens at {address}"), OPEN_WITHIN, || {
                TcpStream::connect_timeout(&address, OPEN_WITHIN).ok()
            });
        }
    }

    /// Applies a manifest that must be taken.
    pub fn must_apply(&self, manifest: &str) {
        let said = self.apply(0, manifest);
        assert!(said.ok, "{said:?}");
    }

    /// Moves a service that is held, and waits until it is held again.
    pub fn move_to(&self, service: &str, node: usize) {
        let from = self.active(service).expect("somebody is active");
        if from != node {
            self.must(from, &["move", service, "--to", &name(node)]);
            let moved = || (self.active(service) == Some(node)).then_some(());
            wait_for(&format!("{service} at {}", name(node)), HELD_WITHIN, moved);
        }
        self.wait_until_held(service, 2);
    }

    /// Waits until a service runs and has so many holders, all in the set, up to date, and ready
    /// to run it.
    pub fn wait_until_held(&self, service: &str, holders: usize) -> Value {
        self.wait_until_held_as(self.living(), service, holders)
    }

    /// The same, as one node sees it.
    pub fn wait_until_held_as(&self, seen_by: usize, service: &str, holders: usize) -> Value {
        let mut last = Value::Null;
        let within = HELD_WITHIN;
        let began = Instant::now();
        loop {
            let status = self.service(seen_by, service);
            let list = status["holders"].as_array().cloned().unwrap_or_default();
            let members = list.iter().filter(|one| one["state"] == "member").count();
            let elsewhere = list.iter().filter(|one| one["node"] != status["active"]).count();
            let prepared = list.iter().all(|one| one["prepared"] == true);
            let ready = members == list.len() && elsewhere == holders && prepared;
            if ready && status["phase"] == "running" {
                return status;
            }
            if began.elapsed() > within {
                panic!("{service} isn't held by {holders} within {within:?}: {last}");
            }
            last = status;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a node is called.
pub fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

/// How many of so many nodes vote: docs/operating/nodes.md.
fn voters_wanted(nodes: usize) -> usize {
    match nodes {
        0..=2 => nodes,
        3 | 4 => 3,
        _ => 5,
    }
}

/// The epoch of a service's status, as a number.
///
/// # Panics
/// If there is none.
pub fn epoch(status: &Value) -> u64 {
    let text = status["epoch"].as_str().unwrap_or_else(|| panic!("no epoch: {status}"));
    text.trim_start_matches('e').parse().expect("an epoch of the main line")
}

/// A manifest of the key-value server. `state` is the rest of the table `[state]`, and what
/// follows it.
pub fn kv(port: u16, state: &str) -> String {
    kv_called("kv", port, "256MiB", state)
}

/// The same under another name, with so much memory.
pub fn kv_called(name: &str, port: u16, memory: &str, state: &str) -> String {
    let module = build::guest("kv");
    format!(
        "name = \"{name}\"\n[engine]\nkind = \"wasm\"\nprogram = {module:?}\n\
         memory = \"{memory}\"\n[[port]]\nname = \"resp\"\nlisten = {port}\n[state]\n{state}\n"
    )
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let first = self.agents.iter().position(Option::is_some);
        if let Some(node) = first.filter(|_| failed) {
            let status = self.run(node, &["status"]);
            eprintln!("-- status of {}:\n{}{}", name(node), status.out, status.err);
        }
        for child in self.agents.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if failed {
            eprintln!("-- timeline:\n{}", self.timeline.newest(LINES_SHOWN));
            eprintln!("-- data is left in {}", self.folder.display());
        } else {
            // What can't be removed is left to the system's own cleaning.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
