//! Clusters with a key-value server, and where it is active.
//!
//! Five agents: three may run and hold the service, two only pass clients on, so that clients'
//! own nodes live. A leader gives the lead away when a voter without a service is there. So each
//! of the two has a small service of its own: then one of the three leads. After a change of
//! leaders the new one keeps the lead for five seconds, and that is when a service can be active
//! where the leader is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::wait_for;
use serde_json::Value;

use crate::clients;

/// Where the service is published.
pub(crate) const PORT: u16 = 7000;
/// Bytes that fill the service.
pub(crate) const STATE: usize = 64 << 20;
/// Nodes that may run and hold the service.
const RUNNERS: usize = 3;
/// Nodes that clients connect to.
const GATEWAYS: [usize; 2] = [3, 4];
/// How long the cluster may take to get into the wanted position.
const ARRANGED_WITHIN: Duration = Duration::from_secs(120);

/// Where the service is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the catalog's leader.
    Leader,
    /// Elsewhere.
    Apart,
}

impl Place {
    /// Both.
    pub(crate) const ALL: [Place; 2] = [Place::Apart, Place::Leader];

    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Place::Leader => "active node = catalog leader",
            Place::Apart => "active node is not the catalog leader",
        }
    }
}

/// See the module's header.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// Values that fill the service.
    pub(crate) keys: usize,
}

/// Who is where at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roles {
    pub(crate) active: usize,
    pub(crate) leader: usize,
}

impl Stage {
    /// Builds it on a cluster without nodes, with 64 MiB of state.
    pub(crate) fn new(mut cluster: Cluster) -> Stage {
        for _ in 0..RUNNERS {
            cluster.add(&[]);
        }
        for node in GATEWAYS {
            cluster.add(&["--label", &format!("side=s{node}")]);
        }
        cluster.wait_until_settled();
        for node in GATEWAYS {
            side(&cluster, node);
        }
        // Who is left out neither runs nor holds it; of labels only who runs it depends.
        let runners: Vec<String> = Stage::runners().map(cluster::name).collect();
        let state = format!("output = \"held\"\n[placement]\nonly = {runners:?}");
        cluster.apply_kv(PORT, &state);
        let mut stage = Stage { cluster, keys: 0 };
        stage.keys = clients::fill(stage.gateways()[0], STATE);
        stage
    }

    /// Where clients connect.
    pub(crate) fn gateways(&self) -> [SocketAddr; 2] {
        GATEWAYS.map(|node| self.cluster.address(node, PORT))
    }

    /// Brings the service into this position, held by two others that are up to date.
    pub(crate) fn arrange(&self, place: Place) -> Roles {
        let began = Instant::now();
        while began.elapsed() < ARRANGED_WITHIN {
            self.cluster.wait_until_held("kv", 2);
            let Some(roles) = self.roles() else { continue };
            let together = roles.active == roles.leader;
            if together == (place == Place::Leader) {
                return roles;
            }
            if place == Place::Leader && roles.leader < RUNNERS {
                let to = cluster::name(roles.leader);
                self.cluster.must(GATEWAYS[0], &["move", "kv", "--to", &to]);
            } else {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        panic!("this did not come about within {ARRANGED_WITHIN:?}: {}", place.text());
    }

    /// Who is where; none while nobody leads, or nobody is active.
    pub(crate) fn roles(&self) -> Option<Roles> {
        roles(&self.cluster, GATEWAYS[0])
    }

    /// Nodes that may run the service.
    pub(crate) fn runners() -> std::ops::Range<usize> {
        0..RUNNERS
    }

    /// A killed node's agent runs again, and is known to.
    pub(crate) fn revive(&mut self, node: usize) {
        self.cluster.kill(node);
        self.cluster.up(node);
        let held = self.cluster.wait_until_held("kv", 2);
        wait_for("a status of the service", Duration::from_secs(10), || {
            (held["active"] != Value::Null).then_some(())
        });
    }
}

/// A small service on a node of its own, that nobody uses.
fn side(cluster: &Cluster, node: usize) {
    let state =
        format!("copies = 0\nmin_copies = 0\n[placement]\nrequire = {{ side = \"s{node}\" }}");
    let port = PORT + 100 + u16::try_from(node).expect("few nodes");
    let name = format!("s{node}");
    cluster.must_apply(&cluster::kv_called(&name, port, "16MiB", &state));
    cluster.wait_until_held(&name, 0);
}

/// Who is where, as a node sees it.
fn roles(cluster: &Cluster, seen_by: usize) -> Option<Roles> {
    let status = cluster.json(seen_by, &["status"]);
    let number = |id: &Value| {
        let nodes = status["nodes"].as_array()?;
        let name = nodes.iter().find(|node| &node["node"] == id)?["name"].as_str()?;
        name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)
    };
    let services = status["services"].as_array()?;
    let kv = services.iter().find(|one| one["name"] == "kv")?;
    Some(Roles { active: number(&kv["active"])?, leader: number(&status["leader"])? })
}

/// What is common to benches on a [`Stage`].
pub(crate) fn conditions(what: &str, place: Place) -> String {
    format!(
        "{what}; {}; kv (wasm, held, two copies, shipped defaults) with 64 MiB of values; five \
         agents on one machine, clients through nodes that neither run nor hold it",
        place.text()
    )
}

/// Kills an agent with SIGKILL and doesn't wait for its end.
pub(crate) fn strike(pid: u32) {
    let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = number.expect("a process has a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
}

/// Three agents with two key-value servers on the same nodes, one `held`, one `free`. Each node
/// has a small service beside them: so none is a better leader, and who leads goes on leading.
pub(crate) struct Pair {
    pub(crate) cluster: Cluster,
}

impl Pair {
    /// Where the services are published: `PORT` and the next one.
    pub(crate) fn new() -> Pair {
        let mut cluster = Cluster::empty();
        for node in 0..RUNNERS {
            cluster.add(&["--label", &format!("side=s{node}")]);
        }
        cluster.wait_until_settled();
        for node in 0..RUNNERS {
            side(&cluster, node);
        }
        cluster.apply_kv(PORT, "output = \"held\"");
        cluster.must_apply(&cluster::kv_called("free", PORT + 1, "256MiB", "output = \"free\""));
        cluster.wait_until_open(PORT + 1);
        cluster.wait_until_held("free", 2);
        Pair { cluster }
    }

    /// Brings both services into this position. Gives a node that runs neither.
    pub(crate) fn arrange(&self, place: Place) -> usize {
        let began = Instant::now();
        while began.elapsed() < ARRANGED_WITHIN {
            let Some(Roles { leader, .. }) = roles(&self.cluster, 0) else { continue };
            let wanted = if place == Place::Leader { leader } else { (leader + 1) % RUNNERS };
            self.cluster.move_to("kv", wanted);
            self.cluster.move_to("free", wanted);
            let now = roles(&self.cluster, 0);
            if now.is_some_and(|now| now.leader == leader && now.active == wanted) {
                // It doesn't lead either, if there is such a one.
                return (0..RUNNERS).find(|node| ![leader, wanted].contains(node)).expect("three");
            }
        }
        panic!("this did not come about within {ARRANGED_WITHIN:?}: {}", place.text());
    }
}
