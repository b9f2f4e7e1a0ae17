//! The agents of the demo: five processes of this very binary, on loopback.
//!
//! Invariant: dropping the cluster kills every agent that is left, and removes their folders
//! unless they are to be kept.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jizoku_api::event::{EventsAnswer, EventsQuery};
use jizoku_api::order::{ApplyOrder, TicketOrder};
use jizoku_api::service::ServiceStatus;
use jizoku_api::status::{ClusterStatus, StatusQuery};
use jizoku_core::placement::voters_wanted;
use jizoku_manifest::{Manifest, UnknownNode};
use jizoku_types::NodeId;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use crate::cli::Failure;
use crate::client::{CallError, Client};

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long an agent may take to answer for the first time.
const AGENT_WITHIN: Duration = Duration::from_secs(20);

/// See the module's header.
pub(super) struct Cluster {
    folder: PathBuf,
    agents: Vec<Agent>,
    runtime: tokio::runtime::Runtime,
    keep: bool,
}

struct Agent {
    name: String,
    gateway: IpAddr,
    client: Client,
    process: Option<Child>,
}

impl Cluster {
    /// Creates a cluster of so many nodes.
    pub(super) fn start(count: u8, keep: bool) -> Result<Cluster, Failure> {
        let folder = std::env::temp_dir().join(format!("jizoku-demo-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("can't start: {error}"))?;
        let mut cluster = Cluster { folder, agents: Vec::new(), runtime, keep };
        for number in 1..=count {
            cluster.add(number)?;
        }
        // Nodes become voters one after the other, and an even number has a larger majority.
        let voters = voters_wanted(cluster.agents.len());
        let settled = |status: &ClusterStatus| status.voters.len() == voters;
        cluster.wait_for(AGENT_WITHIN, "as many voters as there should be", settled)?;
        Ok(cluster)
    }

    fn add(&mut self, number: u8) -> Result<(), Failure> {
        let name = format!("n{number}");
        let data = self.folder.join(&name);
        let gateway = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10 + number));
        let listen = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?.to_string();
        let mut command = jizoku(&data)?;
        match self.agents.first() {
            None => command.arg("init"),
            Some(_) => command.args(["join", &self.ticket()?]),
        };
        command.args(["--name", &name, "--listen", &listen, "--gateway", &gateway.to_string()]);
        let output = command.output().map_err(|error| format!("{name}: {error}"))?;
        if !output.status.success() {
            return Err(Failure(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let log = self.folder.join(format!("{name}.log"));
        let log = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut up = jizoku(&data)?;
        up.arg("up").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = with_this_process(&mut up).spawn();
        let process = process.map_err(|error| format!("{name}: {error}"))?;
        let client = Client::new(&data.join("api.sock"));
        self.agents.push(Agent { name, gateway, client, process: Some(process) });
        self.wait_for_agent()
    }

    fn wait_for_agent(&self) -> Result<(), Failure> {
        let agent = self.agents.last().expect("one was just added");
        let give_up = Instant::now() + AGENT_WITHIN;
        loop {
            let status = self.runtime.block_on(agent.client.query(&StatusQuery));
            match status {
                Ok(status) if status.leader.is_some() => return Ok(()),
                Ok(_) => {}
                Err(error) if Instant::now() > give_up => {
                    return Err(Failure(format!("{} doesn't answer: {error}", agent.name)));
                }
                Err(_) => {}
            }
            if Instant::now() > give_up {
                return Err(Failure(format!("{} sees no leader", agent.name)));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn ticket(&self) -> Result<String, Failure> {
        let order = TicketOrder { valid_ms: Some(60_000) };
        Ok(self.runtime.block_on(self.agents[0].client.order(&order))?.ticket)
    }

    /// Where the agents' data and logs are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves data and logs behind.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    fn living(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.process.is_some())
    }

    /// The status as some living agent sees it.
    pub(super) fn status(&self) -> Result<ClusterStatus, Failure> {
        let agent = self.living().last().ok_or("no agent is left".to_string())?;
        Ok(self.runtime.block_on(agent.client.query(&StatusQuery))?)
    }

    /// Waits until the status is as wanted.
    pub(super) fn wait_for(
        &self,
        within: Duration,
        what: &str,
        wanted: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, Failure> {
        let give_up = Instant::now() + within;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > give_up {
                let now = serde_json::to_string(&status).unwrap_or_default();
                return Err(Failure(format!("no sign of {what}; the status is {now}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Applies the key-value server on a port that is free on all gateways.
    pub(super) fn apply(&self, module: &Path) -> Result<u16, Failure> {
        let port = self.common_port()?;
        let text = format!(
            "name = \"kv\"\n[engine]\nkind = \"wasm\"\nprogram = \"kv.wasm\"\n\
             memory = \"512MiB\"\n[[port]]\nname = \"resp\"\nlisten = {port}\n\
             [state]\noutput = \"held\"\ncopies = 2\n"
        );
        let path = self.folder.join("kv.toml");
        let written = fs::File::create(&path).and_then(|mut f| f.write_all(text.as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        let nobody = |_: &str| Err(UnknownNode::default());
        let mut manifest = Manifest::read(&path, &nobody).map_err(|error| error.to_string())?;
        let bytes = fs::read(module).map_err(|error| format!("{}: {error}", module.display()))?;
        let client = &self.agents[0].client;
        let stored = self.runtime.block_on(client.send_module(bytes))?;
        manifest.set_module(stored.module);
        let order = ApplyOrder { spec: manifest.spec, dry_run: false, expect_version: None };
        self.runtime.block_on(client.order(&order))?;
        Ok(port)
    }

    fn common_port(&self) -> Result<u16, Failure> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let port = free_port(self.agents[0].gateway)?.port();
            let free = |agent: &Agent| TcpListener::bind((agent.gateway, port)).is_ok();
            if self.agents.iter().all(free) {
                return Ok(port);
            }
        }
        Err(Failure("no port is free on all five loopback addresses".into()))
    }

    /// Nodes that neither run nor hold the service: they stay alive.
    pub(super) fn bystanders(&self, service: &ServiceStatus) -> Result<Vec<String>, Failure> {
        let status = self.status()?;
        let busy = |node: NodeId| {
            service.active == Some(node) || service.holders.iter().any(|one| one.node == node)
        };
        let rest = status.nodes.iter().filter(|node| !busy(node.node));
        let names: Vec<String> = rest.map(|node| node.name.clone()).collect();
        if names.is_empty() {
            return Err(Failure("every node runs or holds the service".into()));
        }
        Ok(names)
    }

    /// What people call a node.
    pub(super) fn name_of(&self, node: Option<NodeId>) -> String {
        let status = self.status().ok();
        let nodes = status.as_ref().map(|status| status.nodes.as_slice()).unwrap_or_default();
        let found = nodes.iter().find(|known| Some(known.node) == node);
        found.map_or_else(|| "nobody".into(), |known| known.name.clone())
    }

    /// Where these nodes' gateways publish a port.
    pub(super) fn gateways(&self, names: &[String], port: u16) -> Vec<SocketAddr> {
        let chosen = self.agents.iter().filter(|agent| names.contains(&agent.name));
        chosen.map(|agent| SocketAddr::new(agent.gateway, port)).collect()
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, name: &str) -> Result<(), Failure> {
        let agent = self.agents.iter_mut().find(|agent| agent.name == name);
        let process = agent.and_then(|agent| agent.process.take());
        let mut process = process.ok_or_else(|| format!("{name} is not running"))?;
        process.kill().map_err(|error| format!("{name}: {error}"))?;
        process.wait().map_err(|error| format!("{name}: {error}"))?;
        Ok(())
    }

    /// The newest events of each living agent, with its name.
    pub(super) fn events(&self) -> Vec<(String, EventsAnswer)> {
        let mut all = Vec::new();
        for agent in self.living() {
            let mut query = EventsQuery::default();
            loop {
                let answer: Result<EventsAnswer, CallError> =
                    self.runtime.block_on(agent.client.query(&query));
                let Ok(answer) = answer else { break };
                query.after = Some(answer.next);
                if answer.events.is_empty() {
                    break;
                }
                all.push((agent.name.clone(), answer));
            }
        }
        all
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            if let Some(process) = &mut agent.process {
                // It may have ended by itself.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if !self.keep {
            // What can't be removed is left to the system's own cleaning.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn jizoku(data: &Path) -> Result<Command, Failure> {
    let own = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut command = Command::new(own);
    command.arg("--data").arg(data).env_remove("JIZOKU_DATA").env_remove("JIZOKU_SOCKET");
    Ok(command)
}

/// The command dies when this process does, however that comes about: agents of a demo that nobody
/// watches any more would go on for ever.
fn with_this_process(command: &mut Command) -> &mut Command {
    let this = getpid();
    let bind = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before that.
        if getppid() == Some(this) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec the closure makes system calls only; it takes no lock and no
    // memory.
    unsafe { command.pre_exec(bind) }
}

fn free_port(address: IpAddr) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
    listener.map_err(|error| Failure(format!("{address}: {error}")))
}
