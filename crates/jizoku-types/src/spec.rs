//! What a user asked for, already checked: the service specification that a manifest parses to.
//!
//! What it does not know: TOML, files, which nodes exist.
//!
//! Invariant: a `ServiceSpec` that came through [`ServiceSpec::check`] is complete; every default
//! has been filled in, and no text is left that still has to be understood later.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, ServiceName};
use crate::limits::{HOLDERS_MAX, PORTS_MAX};
use crate::size::ByteCount;
use crate::time::Span;

/// A service as its user declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name, unique in the cluster.
    pub name: ServiceName,
    /// What runs it.
    pub engine: EngineSpec,
    /// Ports that every gateway publishes, in the order in which the program inherits them.
    pub ports: Vec<PortSpec>,
    /// When output leaves.
    pub output: OutputMode,
    /// When a holder acknowledges.
    pub durable: Durability,
    /// Holders wanted beside the active node.
    pub copies: u8,
    /// With fewer holders than this, `held` output waits. 0: UNPROTECTED by choice.
    pub min_copies: u8,
    /// Longest time between two checkpoints of a service that changes.
    pub interval: Span,
    /// What a side without a majority does.
    pub partition: PartitionPolicy,
    /// How the next active node is chosen.
    pub succession: SuccessionPolicy,
    /// How others tell whether it really serves.
    pub checks: Vec<CheckSpec>,
    /// Where it may run and be held.
    pub placement: Placement,
    /// How long, after a restart of the whole cluster, to wait for every member of the last set.
    pub restart_wait: Span,
    /// Most bytes of branch states kept after a partition.
    pub branch_limit: ByteCount,
}

/// What runs an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineSpec {
    /// A WASI program in wasmtime.
    Wasm {
        /// BLAKE3 hash of the instrumented module; its bytes travel beside the catalog.
        module: [u8; 32],
        /// Arguments after the program's name.
        args: Vec<String>,
        /// Environment.
        env: BTreeMap<String, String>,
        /// Most linear memory.
        memory_max: ByteCount,
        /// Most bytes in its private file tree.
        files_max: ByteCount,
    },
    /// A plain child process.
    Exec {
        /// Program and arguments; `{port}` and `{port:NAME}` stand for ports that the agent chose.
        command: Vec<String>,
        /// Environment, beside `JIZOKU_PORT`.
        env: BTreeMap<String, String>,
        /// User to run as; none: the agent's, refused if that is root unless it says `root`.
        user: Option<String>,
    },
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// What to call it.
    pub name: String,
    /// Where every gateway listens.
    pub listen: u16,
}

/// When bytes leave an instance for the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputMode {
    /// Only once the state that produced them is committed.
    Held,
    /// At once.
    Free,
}

/// When a holder acknowledges a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// When it has the diff in memory; flushed within a second.
    Memory,
    /// After the flush.
    Disk,
}

/// What a side without a majority does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartitionPolicy {
    /// It stops.
    Stop,
    /// It opens a branch.
    Continue,
}

/// How the next active node is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuccessionPolicy {
    /// Ready image first, then steadiness, spare resources, closeness.
    Stability,
    /// In this order; others after, by stability.
    Priority(Vec<NodeId>),
    /// By a hash of service, epoch and node.
    Random,
}

/// One check of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// What is tried.
    pub kind: CheckKind,
    /// How often.
    pub every: Span,
    /// How long an answer may take.
    pub timeout: Span,
    /// How many failures in a row mean "does not serve".
    pub failures: u8,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// The instance is running.
    Alive,
    /// A TCP connection to this published port is accepted.
    Tcp {
        /// Index into the service's ports.
        port: u8,
    },
    /// An HTTP GET answers as expected.
    Http {
        /// Index into the service's ports.
        port: u8,
        /// Path and query.
        path: String,
        /// Expected status.
        status: u16,
        /// Text that the body must contain.
        body: Option<String>,
    },
    /// A command on the active node exits with 0.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// Where a service may run and be held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// If not empty, only these nodes.
    pub only: BTreeSet<NodeId>,
    /// Never these nodes.
    pub except: BTreeSet<NodeId>,
    /// Labels that a node must have to be active.
    pub require: BTreeMap<String, String>,
}

/// Why a specification can't be accepted. The field is named as in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: &'static str,
}

impl ServiceSpec {
    /// Checks what a single field's type can't.
    pub fn check(&self) -> Result<(), SpecError> {
        let wrong = |field, problem| Err(SpecError { field, problem });
        if usize::from(self.copies) > HOLDERS_MAX {
            return wrong("copies", "at most 8 holders");
        }
        if self.min_copies > self.copies {
            return wrong("min_copies", "must not be more than `copies`");
        }
        if self.ports.len() > PORTS_MAX {
            return wrong("ports", "at most 16 ports");
        }
        if self.interval < Span::millis(1) || self.interval > Span::secs(3600) {
            return wrong("interval", "between 1 ms and 1 h");
        }
        let mut taken = BTreeSet::new();
        if self.ports.iter().any(|port| port.listen == 0 || !taken.insert(port.listen)) {
            return wrong("ports", "each port from 1 to 65535, and only once");
        }
        let unknown = |port: u8| usize::from(port) >= self.ports.len();
        for check in &self.checks {
            if check.failures == 0 {
                return wrong("checks", "`failures` must be at least 1");
            }
            match &check.kind {
                CheckKind::Tcp { port } | CheckKind::Http { port, .. } if unknown(*port) => {
                    return wrong("checks", "names a port that the service doesn't publish");
                }
                CheckKind::Command { command } if command.is_empty() => {
                    return wrong("checks", "a command needs a program");
                }
                _ => {}
            }
        }
        match &self.engine {
            EngineSpec::Exec { command, .. } if command.is_empty() => {
                wrong("command", "needs a program")
            }
            EngineSpec::Exec { .. } if self.output == OutputMode::Held => {
                wrong("output", "`exec` has no state to hold output for; use \"free\"")
            }
            _ => Ok(()),
        }
    }

    /// Whether an instance has state that is checkpointed.
    pub fn has_state(&self) -> bool {
        matches!(self.engine, EngineSpec::Wasm { .. })
    }

    /// Whether its output waits for the lease beside the seal (DESIGN.md, "Fencing and time").
    pub fn needs_lease(&self) -> bool {
        self.output == OutputMode::Free
    }
}
