//! What an `apply` changes: the difference between two specifications, for people and programs.
//!
//! What it does not know: who decides, how it is carried out.
//!
//! Invariants
//! - Two specifications that differ give at least one [`FieldChange`], and equal ones none.
//! - Of a new service nothing is shown that has no effect with its engine: it would promise
//!   something.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::spec::{
    CheckKind, CheckSpec, EngineSpec, Placement, PortSpec, ServiceSpec, SuccessionPolicy,
};
use jizoku_types::{NodeId, ServiceId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::text::{self, Text};

/// What an `apply` changed, or would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyPlan {
    /// Which service.
    pub name: ServiceName,
    /// Its id, if it has one.
    #[serde(with = "text::option")]
    pub service: Option<ServiceId>,
    /// What is done as a whole.
    pub action: Action,
    /// Field by field, in the order of the manifest.
    pub changes: Vec<FieldChange>,
    /// Whether it was done; false for a dry run.
    pub applied: bool,
    /// The version after it; of a dry run, the version it was made against.
    pub spec_version: u64,
    /// What is to know before or after, for people.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What is done as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The service is new.
    Create,
    /// It exists and changes.
    Change,
    /// It is already so.
    Nothing,
}

/// One field that changes. At least one of `before` and `after` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// As in the manifest: `state.copies`, `port.resp`, `engine.memory`.
    pub field: String,
    /// What it was.
    pub before: Option<String>,
    /// What it will be.
    pub after: Option<String>,
    /// What that means for the running service.
    pub effect: Effect,
}

/// What a change means for a running service, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It goes on as it is.
    None,
    /// Copies are made or dropped.
    Copies,
    /// It may move to another node.
    Place,
    /// Gateways open or close ports; connections to closed ones end.
    Ports,
    /// The program is ended and begins anew.
    Restart,
}

/// What has to change to get from `before` (none: there is no such service) to `after`.
pub fn changes(before: Option<&ServiceSpec>, after: &ServiceSpec) -> Vec<FieldChange> {
    let old = before.map(fields).unwrap_or_default();
    let new = fields(after);
    let mut changes = Vec::new();
    let without_effect =
        |field: &str| before.is_none() && !after.has_state() && OF_STATE.contains(&field);
    for (field, effect, value) in new.iter().filter(|(field, ..)| !without_effect(field)) {
        let was = old.iter().find(|(name, ..)| name == field).map(|(.., value)| value);
        if was != Some(value) {
            let effect = if before.is_none() { Effect::None } else { *effect };
            changes.push(FieldChange {
                field: field.clone(),
                before: was.cloned(),
                after: Some(value.clone()),
                effect,
            });
        }
    }
    for (field, effect, value) in old {
        if !new.iter().any(|(name, ..)| *name == field) {
            changes.push(FieldChange { field, before: Some(value), after: None, effect });
        }
    }
    changes
}

/// What is asked of a state: nothing, where there is none.
const OF_STATE: [&str; 6] = [
    "state.durable",
    "state.copies",
    "state.min_copies",
    "state.interval",
    "state.restart_wait",
    "state.branch_limit",
];

type Field = (String, Effect, String);

/// Every field as a name, what changing it means, and its value as text.
fn fields(spec: &ServiceSpec) -> Vec<Field> {
    // No `..`: a new field must be shown here too.
    let ServiceSpec {
        name: _,
        engine,
        ports,
        output,
        durable,
        copies,
        min_copies,
        interval,
        partition,
        succession,
        checks,
        placement,
        restart_wait,
        branch_limit,
    } = spec;
    let mut all = engine_fields(engine);
    for (index, PortSpec { name, listen }) in ports.iter().enumerate() {
        let text = match engine {
            EngineSpec::Wasm { .. } => format!("{listen} (inherited #{index})"),
            // It is told its ports; their order has no meaning.
            EngineSpec::Exec { .. } => listen.to_string(),
        };
        all.push((format!("port.{name}"), Effect::Ports, text));
    }
    let mut state = |name: &str, effect, value: String| {
        all.push((format!("state.{name}"), effect, value));
    };
    // The engine and the gateways agree on this when an epoch begins.
    state("output", Effect::Restart, output.write());
    state("partition", Effect::None, partition.write());
    state("durable", Effect::Copies, durable.write());
    state("copies", Effect::Copies, copies.to_string());
    state("min_copies", Effect::Copies, min_copies.to_string());
    state("interval", Effect::None, exact(interval.as_nanos(), &SPAN_UNITS));
    state("restart_wait", Effect::None, exact(restart_wait.as_nanos(), &SPAN_UNITS));
    state("branch_limit", Effect::None, exact(branch_limit.0, &SIZE_UNITS));
    let policy = match succession {
        SuccessionPolicy::Stability => "stability".to_string(),
        SuccessionPolicy::Random => "random".to_string(),
        SuccessionPolicy::Priority(order) => format!("priority: {}", nodes(order)),
    };
    all.push(("succession".to_string(), Effect::None, policy));
    for (index, check) in checks.iter().enumerate() {
        all.push((format!("check.{}", index + 1), Effect::None, check_text(check, ports)));
    }
    let Placement { only, except, require } = placement;
    if !only.is_empty() {
        all.push(("placement.only".to_string(), Effect::Place, nodes(only)));
    }
    if !except.is_empty() {
        all.push(("placement.except".to_string(), Effect::Place, nodes(except)));
    }
    for (label, value) in require {
        all.push((format!("placement.require.{label}"), Effect::Place, value.clone()));
    }
    all
}

fn engine_fields(engine: &EngineSpec) -> Vec<Field> {
    let mut all = Vec::new();
    let mut field = |name: &str, value: String| {
        all.push((format!("engine.{name}"), Effect::Restart, value));
    };
    let env = match engine {
        EngineSpec::Wasm { module, args, env, memory_max, files_max } => {
            field("kind", "wasm".to_string());
            field("program", module.write());
            field("args", words(args));
            field("memory", exact(memory_max.0, &SIZE_UNITS));
            field("files", exact(files_max.0, &SIZE_UNITS));
            env
        }
        EngineSpec::Exec { command, env, user } => {
            field("kind", "exec".to_string());
            field("command", words(command));
            if let Some(user) = user {
                field("user", user.clone());
            }
            env
        }
    };
    for (name, value) in env {
        field(&format!("env.{name}"), value.clone());
    }
    all
}

fn check_text(check: &CheckSpec, ports: &[PortSpec]) -> String {
    let CheckSpec { kind, every, timeout, failures } = check;
    let port = |index: u8| {
        ports.get(usize::from(index)).map_or_else(|| format!("#{index}"), |port| port.name.clone())
    };
    let what = match kind {
        CheckKind::Alive => "alive".to_string(),
        CheckKind::Tcp { port: index } => format!("tcp {}", port(*index)),
        CheckKind::Http { port: index, path, status, body } => {
            let body = body.as_ref().map(|body| format!(" with {body:?}")).unwrap_or_default();
            format!("http {} {path} -> {status}{body}", port(*index))
        }
        CheckKind::Command { command } => format!("command {}", words(command)),
    };
    let every = exact(every.as_nanos(), &SPAN_UNITS);
    let timeout = exact(timeout.as_nanos(), &SPAN_UNITS);
    format!("{what}, every {every}, within {timeout}, {failures} failures")
}

fn nodes<'n>(nodes: impl IntoIterator<Item = &'n NodeId>) -> String {
    nodes.into_iter().map(NodeId::short).collect::<Vec<_>>().join(" ")
}

fn words(words: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && !word.contains([' ', '"', '\\', '\n', '\t']);
    let quoted =
        words.iter().map(|word| if plain(word) { word.clone() } else { format!("{word:?}") });
    quoted.collect::<Vec<_>>().join(" ")
}

const SPAN_UNITS: [(&str, u64); 4] =
    [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The number in the largest unit that keeps it whole: two different numbers look different.
fn exact(number: u64, units: &[(&str, u64)]) -> String {
    let (unit, scale) =
        units.iter().find(|(_, scale)| number.is_multiple_of(*scale)).expect("the last unit is 1");
    format!("{}{unit}", number / scale)
}
