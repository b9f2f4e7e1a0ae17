//! A simulated machine: a key, a clock, a disk, and an agent while it is up.

use std::collections::{BTreeMap, BTreeSet};

use jizoku_checkpoint::holder::{self, Holder};
use jizoku_consensus::{self as consensus, Consensus};
use jizoku_core::catalog::MemberSpec;
use jizoku_node::node::{self, Node};
use jizoku_types::limits::LEASE_MAX;
use jizoku_types::{ClusterId, Generation, Incarnation, Instant, Member, NodeId};

use crate::bug::Bug;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::life::{Life, Parts};
use crate::net::HostId;
use crate::rng::Rng;
use crate::world::What;

/// Keys of machines whose disk was lost so often lie so far apart.
const WIPED: usize = 1 << 16;
/// The cluster that all simulated nodes belong to.
pub const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Its generation.
pub const GENERATION: Generation = Generation(1);

/// See the module's header.
pub struct Machine {
    /// Its number.
    pub host: HostId,
    /// Its key.
    pub key: NodeId,
    /// Its clock.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// The agent, if it is up.
    pub life: Option<Box<Life>>,
    /// When it last stopped to be what it was: crashed, or lost its disk.
    pub gone_since: Instant,
    /// When its agent, as it runs now, first knew a leader.
    pub led: Option<Instant>,
    /// Nothing can be started or restored on it.
    pub unable: bool,
    /// Nothing is handled before this (global) moment.
    pub paused_until: Instant,
    /// What came, or was due, while it stood still.
    pub(crate) waiting: Vec<What>,
    /// Whom it links to: kept over restarts.
    pub peers: BTreeSet<NodeId>,
    /// When it is woken next (globally), and the number of that wake.
    pub wake: Option<Instant>,
    /// See [`Machine::wake`].
    pub wake_number: u64,
    incarnation: u64,
    /// How many disks it has had before.
    wiped: usize,
    rng: Rng,
}

impl Machine {
    /// A machine that is down. It has never run.
    pub fn new(host: HostId, clock: Clock, mut rng: Rng) -> Machine {
        Machine {
            host,
            key: key_of(host),
            clock,
            disk: Disk::default(),
            gone_since: Instant::ORIGIN,
            led: None,
            life: None,
            unable: false,
            paused_until: Instant::ORIGIN,
            waiting: Vec::new(),
            peers: BTreeSet::new(),
            wake: None,
            wake_number: 0,
            incarnation: 0,
            wiped: 0,
            rng: rng.fork(host as u64),
        }
    }

    /// What it says of itself.
    pub fn spec(&self) -> MemberSpec {
        MemberSpec {
            node: self.key,
            incarnation: Incarnation(self.incarnation),
            name: format!("n{}", self.host),
            addresses: vec![format!("10.0.0.{}:7171", self.host + 1)],
            labels: BTreeMap::new(),
            witness: false,
            features: 1,
        }
    }

    /// Starts the agent. `first`: the cluster begins here.
    ///
    /// # Errors
    /// If what is on the disk can't be read back.
    pub fn start(
        &mut self,
        at: Instant,
        number: u64,
        first: bool,
        bug: Option<Bug>,
    ) -> Result<(), String> {
        assert!(self.life.is_none(), "it is down");
        self.incarnation += 1;
        let now = self.clock.local(at);
        let me = Member { node: self.key, incarnation: Incarnation(self.incarnation) };
        let seed = self.rng.next();
        let log = self.disk.log();
        let fresh = log.is_empty();
        let config = consensus::Config::new(self.key, CLUSTER, GENERATION, seed);
        let mut consensus = Consensus::new(now, config, log).map_err(|why| why.to_string())?;
        if fresh && first {
            consensus.handle(now, consensus::Input::Bootstrap);
        }
        let restarted = self.incarnation > 1;
        let config = node::Config { myself: self.spec(), restarted, lease: LEASE_MAX, seed };
        let mut node = Node::new(now, config);
        let mut holder = Holder::new(me);
        if let Some(bug) = bug {
            bug.plant_in_holder(&mut holder);
            bug.plant_in_node(&mut node);
        }
        holder.handle(now, holder::Input::Loaded(self.disk.loaded()?));
        let rng = self.rng.fork(number);
        let mut life = Life::new(now, Parts { number, node, consensus, holder, rng, bug });
        life.unable = self.unable;
        self.life = Some(Box::new(life));
        self.paused_until = at;
        self.led = None;
        Ok(())
    }

    /// Ends the agent at once. What was not written yet may be lost.
    ///
    /// # Errors
    /// If the log's records don't fit each other.
    pub fn crash(&mut self) -> Result<(), String> {
        self.life = None;
        self.wake = None;
        self.wake_number += 1;
        self.disk.crash(&mut self.rng)
    }

    /// Its disk is gone, and with it its key: what starts next is a stranger. It is down.
    pub fn wipe(&mut self) {
        assert!(self.life.is_none(), "it is down");
        self.wiped += 1;
        self.key = key_of(self.host + WIPED * self.wiped);
        self.disk = Disk::default();
        self.incarnation = 0;
    }

    /// Whether it is up and not paused.
    pub fn answers(&self, at: Instant) -> bool {
        self.life.is_some() && self.paused_until <= at
    }
}

/// The key of the machine with this number.
pub fn key_of(host: HostId) -> NodeId {
    let mut key = [0; 32];
    let mut rng = Rng::new(0x6b65_7900 + host as u64);
    for eight in key.chunks_exact_mut(8) {
        eight.copy_from_slice(&rng.next().to_be_bytes());
    }
    NodeId(key)
}
