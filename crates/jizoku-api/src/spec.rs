//! The JSON form of a service's specification.
//!
//! A mirror of jizoku-types' `spec` that the compiler holds to it: a field that is added there
//! doesn't build here until it has a stable name. The catalog and the wire use the other form.
//!
//! What it does not know: defaults, checks; the agent calls `ServiceSpec::check` on what it gets.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::spec::{
    CheckKind, CheckSpec, Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, PortSpec,
    ServiceSpec, SuccessionPolicy,
};
use jizoku_types::{ByteCount, NodeId, ServiceName, Span};
use serde::{Deserialize, Serialize};

use crate::text;

#[derive(Serialize, Deserialize)]
#[serde(remote = "ServiceSpec")]
pub(crate) struct SpecForm {
    name: ServiceName,
    #[serde(with = "EngineForm")]
    engine: EngineSpec,
    ports: Vec<PortSpec>,
    #[serde(with = "text")]
    output: OutputMode,
    #[serde(with = "text")]
    durable: Durability,
    copies: u8,
    min_copies: u8,
    #[serde(rename = "interval_ns", with = "nanos")]
    interval: Span,
    #[serde(with = "text")]
    partition: PartitionPolicy,
    #[serde(with = "SuccessionForm")]
    succession: SuccessionPolicy,
    #[serde(with = "checks")]
    checks: Vec<CheckSpec>,
    #[serde(with = "PlacementForm")]
    placement: Placement,
    #[serde(rename = "restart_wait_ns", with = "nanos")]
    restart_wait: Span,
    #[serde(rename = "branch_limit_bytes")]
    branch_limit: ByteCount,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "EngineSpec", rename_all = "snake_case", tag = "kind")]
enum EngineForm {
    Wasm {
        #[serde(with = "text")]
        module: [u8; 32],
        args: Vec<String>,
        env: BTreeMap<String, String>,
        #[serde(rename = "memory_max_bytes")]
        memory_max: ByteCount,
        #[serde(rename = "files_max_bytes")]
        files_max: ByteCount,
    },
    Exec {
        command: Vec<String>,
        env: BTreeMap<String, String>,
        user: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SuccessionPolicy", rename_all = "snake_case", tag = "policy", content = "order")]
enum SuccessionForm {
    Stability,
    Priority(#[serde(with = "text::list")] Vec<NodeId>),
    Random,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CheckSpec")]
struct CheckForm {
    #[serde(flatten, with = "CheckKindForm")]
    kind: CheckKind,
    #[serde(rename = "every_ns", with = "nanos")]
    every: Span,
    #[serde(rename = "timeout_ns", with = "nanos")]
    timeout: Span,
    failures: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CheckKind", rename_all = "snake_case", tag = "kind")]
enum CheckKindForm {
    Alive,
    Tcp { port: u8 },
    Http { port: u8, path: String, status: u16, body: Option<String> },
    Command { command: Vec<String> },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Placement")]
struct PlacementForm {
    #[serde(with = "text::set")]
    only: BTreeSet<NodeId>,
    #[serde(with = "text::set")]
    except: BTreeSet<NodeId>,
    require: BTreeMap<String, String>,
}

/// Spans as whole nanoseconds: exact, whatever the manifest said.
mod nanos {
    use jizoku_types::Span;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Span, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(span.as_nanos())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        u64::deserialize(from).map(Span::nanos)
    }
}

mod checks {
    use super::{CheckForm, CheckSpec, Vec};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    struct Written<'a>(#[serde(with = "CheckForm")] &'a CheckSpec);

    #[derive(Deserialize)]
    struct Read(#[serde(with = "CheckForm")] CheckSpec);

    pub(super) fn serialize<S: Serializer>(checks: &[CheckSpec], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(checks.iter().map(Written))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<CheckSpec>, D::Error> {
        Ok(Vec::<Read>::deserialize(from)?.into_iter().map(|read| read.0).collect())
    }
}
