//! The nodes of a campaign: agents as processes, each with what a machine of its own would have.
//!
//! With root: a network namespace, a file system, a memory control group and another
//! CLOCK_BOOTTIME for each. Without: processes on loopback. What isn't there is named.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jizoku_e2e::cluster::{Cluster, Dress};
use serde_json::Value;

use crate::disk::Disk;
use crate::plan::{Dice, Need};

/// Machines of a cluster have been up for up to so long: they were not started together.
const UPTIME_MAX_S: u64 = 10_000_000;
/// The variable that tells us that we have namespaces for processes and mounts.
pub const OWN_NAMESPACES: &str = "JIZOKU_SOAK_NAMESPACES";
/// Most nodes of a campaign.
pub const NODES_MAX: usize = 16;
/// Where the library is that steps a process's wall clock.
pub const CLOCK_LIBRARY: &str = "JIZOKU_SOAK_CLOCK";

/// See the module's header.
#[derive(Debug)]
pub struct Machines {
    /// The agents.
    pub cluster: Cluster,
    /// How many.
    pub count: usize,
    /// Each one's file system; none: they share the one of the machine.
    pub disks: Vec<Disk>,
    groups: Option<PathBuf>,
    clock: Option<PathBuf>,
    can: BTreeSet<Need>,
    dice: Dice,
}

/// What a node says of the cluster.
#[derive(Clone, Debug)]
pub struct Look(Value);

impl Machines {
    /// So many nodes, started one after the other. `apart`: each has a network of its own.
    pub fn start(cluster: Cluster, apart: bool, count: usize, seed: u64) -> Machines {
        let clock = std::env::var_os(CLOCK_LIBRARY).map(PathBuf::from);
        let mut can = BTreeSet::from([Need::Nothing]);
        if apart {
            can.insert(Need::Network);
        }
        let groups = apart.then(groups).flatten();
        can.extend(groups.as_ref().map(|_| Need::Group));
        can.extend(clock.as_ref().map(|_| Need::Clock));
        let disks = Vec::new();
        let dice = Dice::new(seed, u64::MAX);
        let mut machines = Machines { cluster, count, disks, groups, clock, can, dice };
        let with_disks = apart && std::env::var_os(OWN_NAMESPACES).is_some();
        for _ in 0..count {
            machines.add(with_disks);
        }
        machines.cluster.wait_until_settled();
        if machines.disks.len() == count {
            machines.can.extend([Need::Disk, Need::Machine]);
        }
        machines
    }

    fn add(&mut self, with_disk: bool) {
        let node = self.cluster.folder_for_one();
        let data = self.cluster.data(node);
        if with_disk {
            let image = self.cluster.folder().join(format!("disk{node}"));
            match Disk::new(image, data) {
                Ok(disk) => self.disks.push(disk),
                Err(error) => println!("nodes share a disk: {error}"),
            }
        }
        let ticket = (node > 0).then(|| self.cluster.must(0, &["ticket"]).trim().to_owned());
        let said = match &ticket {
            None => self.cluster.enter(node, &["init"], &[]),
            Some(ticket) => self.cluster.enter(node, &["join", ticket], &[]),
        };
        assert!(said.ok, "n{} can't enter: {said:?}", node + 1);
        self.begin(node);
        self.cluster.wait_for_leader(node);
    }

    /// Starts a node's agent, on a machine that has been up for another while.
    pub fn begin(&mut self, node: usize) {
        let mut dress = Dress::default();
        if let Some(groups) = &self.groups {
            let group = groups.join(format!("n{}", node + 1));
            let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.display());
            dress.prefix.extend(["sh".into(), "-c".into(), script, "sh".into()]);
        }
        if self.can.contains(&Need::Network) && time_namespaces() {
            let up = self.dice.below(UPTIME_MAX_S).to_string();
            let unshare = ["unshare", "--time", "--boottime", &up, "--monotonic", &up];
            dress.prefix.extend(unshare.map(String::from));
        }
        if let Some(library) = &self.clock {
            let file = self.clock_file(node);
            if !file.exists() {
                fs::write(&file, 0_i64.to_le_bytes()).expect("a small file can be written");
            }
            dress.env.push(("LD_PRELOAD".into(), library.display().to_string()));
            dress.env.push(("JIZOKU_WALL_CLOCK".into(), file.display().to_string()));
        }
        self.cluster.dress(node, dress);
        self.cluster.begin(node);
    }

    /// Whether what a kind needs is there.
    pub fn can(&self, need: Need) -> bool {
        self.can.contains(&need)
    }

    /// Steps a node's wall clock to so many seconds from the true one.
    pub fn step_clock(&self, node: usize, seconds: i64) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let file = fs::File::options().write(true).open(self.clock_file(node))?;
        file.write_all_at(&(seconds * 1_000_000_000).to_le_bytes(), 0)
    }

    fn clock_file(&self, node: usize) -> PathBuf {
        self.cluster.folder().join(format!("clock{node}"))
    }

    /// Lets a node's agent have so many bytes more than those that it can't give back; none: no
    /// limit.
    ///
    /// # Errors
    /// Those of the system.
    pub fn limit_memory(&self, node: usize, more: Option<u64>) -> io::Result<()> {
        let group = self.group(node);
        let old = group.join("memory.limit_in_bytes");
        let (limit, own) =
            if old.exists() { (old, "rss ") } else { (group.join("memory.max"), "anon ") };
        let Some(more) = more else {
            let unlimited = if limit.ends_with("memory.max") { "max" } else { "-1" };
            return fs::write(limit, unlimited);
        };
        let stat = fs::read_to_string(group.join("memory.stat"))?;
        let used = stat.lines().find_map(|line| line.strip_prefix(own)?.trim().parse::<u64>().ok());
        let used = used.ok_or_else(|| io::Error::other(format!("no {own}in memory.stat")))?;
        fs::write(limit, (used + more).to_string())
    }

    /// The same, and somebody whom the kernel spares takes so much of it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn take_memory(&self, node: usize, more: u64, size: &str) -> io::Result<()> {
        // It goes in before there is a limit: afterwards the kernel has no room for newcomers.
        let script = "echo -1000 > /proc/self/oom_score_adj; echo $$ > \"$0/cgroup.procs\"; \
                      read go; exec dd if=/dev/zero of=/dev/null count=1 bs=\"$1\"";
        let group = self.group(node);
        let mut taker = Command::new("sh")
            .args(["-c", script, group.to_str().expect("such paths are text"), size])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let limited = self.limit_memory(node, Some(more));
        drop(taker.stdin.take());
        // Whether it got all that it wanted is no matter.
        taker.wait()?;
        limited
    }

    fn group(&self, node: usize) -> PathBuf {
        let groups = self.groups.as_ref().expect("such a fault was planned because there are some");
        groups.join(format!("n{}", node + 1))
    }

    /// What the first of these nodes says that says anything.
    pub fn look(&self, nodes: impl IntoIterator<Item = usize>) -> Option<Look> {
        let seen = |node| {
            let said = self.cluster.run(node, &["--json", "status"]);
            serde_json::from_str(&said.out).ok().map(Look)
        };
        nodes.into_iter().find_map(seen)
    }

    /// Ends all agents, and what was made for them.
    pub fn end(&mut self) {
        let running: Vec<usize> = (0..self.count).filter(|n| self.cluster.runs(*n)).collect();
        self.cluster.kill_at_once(&running);
        self.disks.clear();
        if let Some(groups) = self.groups.take() {
            for node in 0..NODES_MAX {
                let _ = fs::remove_dir(groups.join(format!("n{}", node + 1)));
            }
            // Something that an agent had started may still be ending; an empty group costs little.
            let _ = fs::remove_dir(groups);
        }
    }
}

fn time_namespaces() -> bool {
    Path::new("/proc/self/ns/time").exists()
}

/// A place for memory control groups, of either version.
fn groups() -> Option<PathBuf> {
    let places = [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
        ("/sys/fs/cgroup/unified", "memory.max"),
    ];
    places.into_iter().find_map(|(root, control)| groups_at(Path::new(root), control))
}

fn groups_at(root: &Path, control: &str) -> Option<PathBuf> {
    // In a namespace of processes numbers come again, and a campaign that was killed leaves its
    // groups behind.
    let mut places = (1..1_000).map(|number| root.join(format!("jizoku-soak-{number}")));
    let place = places.find(|place| fs::create_dir(place).is_ok())?;
    // With version 1 there is no such file.
    let _ = fs::write(place.join("cgroup.subtree_control"), "+memory");
    let nodes = (1..=NODES_MAX).map(|node| place.join(format!("n{node}")));
    if nodes.clone().all(|node| fs::create_dir(node).is_ok())
        && place.join("n1").join(control).exists()
    {
        return Some(place);
    }
    nodes.for_each(|node| drop(fs::remove_dir(node)));
    let _ = fs::remove_dir(&place);
    None
}

impl Look {
    fn service(&self, name: &str) -> &Value {
        let mut all = self.0["services"].as_array().into_iter().flatten();
        all.find(|one| one["name"] == name).unwrap_or(&Value::Null)
    }

    fn node(&self, id: &Value) -> Option<usize> {
        let mut all = self.0["nodes"].as_array().into_iter().flatten();
        let name = all.find(|one| &one["node"] == id)?["name"].as_str()?;
        name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)
    }

    /// The id of a service.
    pub fn id(&self, service: &str) -> Value {
        self.service(service)["service"].clone()
    }

    /// Where a service is active.
    pub fn active(&self, service: &str) -> Option<usize> {
        self.node(&self.service(service)["active"])
    }

    /// A service's epoch.
    pub fn epoch(&self, service: &str) -> Option<u64> {
        self.service(service)["epoch"].as_str()?.trim_start_matches('e').parse().ok()
    }

    /// Who holds a service beside its active node.
    pub fn holders(&self, service: &str) -> Vec<usize> {
        let one = self.service(service);
        let list = one["holders"].as_array().into_iter().flatten();
        let others = list.filter(|holder| holder["node"] != one["active"]);
        others.filter_map(|holder| self.node(&holder["node"])).collect()
    }

    /// Who leads the catalog.
    pub fn leader(&self) -> Option<usize> {
        self.node(&self.0["leader"])
    }

    /// What keeps this from being a cluster without troubles; none: it is one.
    pub fn trouble(&self, held: &[&str], nodes: usize) -> Option<String> {
        if self.leader().is_none() {
            return Some("there is no leader".into());
        }
        let list = self.0["nodes"].as_array().cloned().unwrap_or_default();
        let away = list.iter().find(|node| node["reach"]["how"] == "unreachable");
        if list.len() != nodes || away.is_some() {
            return Some(format!("not all nodes are reached: {away:?}"));
        }
        for service in self.0["services"].as_array().into_iter().flatten() {
            let name = service["name"].as_str().unwrap_or_default();
            if service["phase"] != "running" {
                return Some(format!("{name} is {}", service["phase"]));
            }
            let holders = service["holders"].as_array().cloned().unwrap_or_default();
            let whole = |one: &&Value| one["state"] == "member" && one["prepared"] == true;
            let elsewhere = holders.iter().filter(|one| one["node"] != service["active"]).count();
            let whole = holders.iter().filter(whole).count() == holders.len();
            let wanted = service["copies"].as_u64().unwrap_or(0) as usize;
            if held.contains(&name) && !(whole && elsewhere == wanted) {
                return Some(format!("{name} is held by {}", service["holders"]));
            }
        }
        None
    }
}
