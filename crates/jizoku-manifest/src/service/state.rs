//! `[state]`: what is promised about a service's state and output.
//!
//! What it does not know: how it is kept.

use jizoku_types::limits::HOLDERS_MAX;
use jizoku_types::spec::{Durability, OutputMode, PartitionPolicy};
use jizoku_types::{ByteCount, Span};

use crate::defaults;
use crate::section::Section;

const KEYS: [&str; 8] = [
    "output",
    "durable",
    "copies",
    "min_copies",
    "interval",
    "partition",
    "restart_wait",
    "branch_limit",
];

/// What `[state]` says, with every default filled in.
pub(super) struct State {
    pub(super) output: OutputMode,
    pub(super) durable: Durability,
    pub(super) copies: u8,
    pub(super) min_copies: u8,
    pub(super) interval: Span,
    pub(super) partition: PartitionPolicy,
    pub(super) restart_wait: Span,
    pub(super) branch_limit: ByteCount,
}

impl State {
    /// What holds for an engine when the manifest says nothing.
    fn default_for(has_state: bool) -> State {
        State {
            output: if has_state { OutputMode::Held } else { OutputMode::Free },
            durable: Durability::Memory,
            copies: if has_state { defaults::COPIES } else { 0 },
            min_copies: if has_state { defaults::MIN_COPIES } else { 0 },
            interval: defaults::INTERVAL,
            partition: PartitionPolicy::Stop,
            restart_wait: defaults::RESTART_WAIT,
            branch_limit: defaults::BRANCH_LIMIT,
        }
    }
}

/// `has_state`: of the engine; none if that could not be read.
pub(super) fn read(root: &Section<'_, '_>, has_state: Option<bool>) -> State {
    let mut state = State::default_for(has_state.unwrap_or(true));
    let Some(section) = root.section("state", &KEYS) else { return state };
    let outputs = [("held", OutputMode::Held), ("free", OutputMode::Free)];
    if let Some(output) = section.choice("output", &outputs) {
        if has_state == Some(false) && output.value == OutputMode::Held {
            let message = "`exec` has no state to hold output for";
            let hint = Some("write \"free\", or leave the key out".to_owned());
            root.document.wrong(&output.bytes, message, hint);
        }
        state.output = output.value;
    }
    let partitions = [("stop", PartitionPolicy::Stop), ("continue", PartitionPolicy::Continue)];
    if let Some(partition) = section.choice("partition", &partitions) {
        state.partition = partition.value;
    }
    if has_state == Some(false) {
        for key in KEYS.iter().filter(|key| !matches!(**key, "output" | "partition")) {
            section.refuse(key, "engine `exec` has no state");
        }
        return state;
    }
    read_copies(&section, &mut state);
    if let Some(interval) = section.span("interval", Span::millis(1)..=Span::secs(3600)) {
        state.interval = interval.value;
    }
    if let Some(wait) = section.span("restart_wait", Span::ZERO..=Span::secs(24 * 3600)) {
        state.restart_wait = wait.value;
    }
    if let Some(limit) = section.size("branch_limit", ByteCount(0)..=ByteCount(1 << 50)) {
        state.branch_limit = limit.value;
    }
    state
}

fn read_copies(section: &Section<'_, '_>, state: &mut State) {
    let durables = [("memory", Durability::Memory), ("disk", Durability::Disk)];
    if let Some(durable) = section.choice("durable", &durables) {
        state.durable = durable.value;
    }
    let most = u8::try_from(HOLDERS_MAX).expect("the limit of holders is small");
    let copies = section.number("copies", 0..=most);
    let min_copies = section.number("min_copies", 0..=most);
    state.copies = copies.as_ref().map_or(state.copies, |copies| copies.value);
    state.min_copies = min_copies.as_ref().map_or(state.min_copies, |copies| copies.value);
    if state.min_copies <= state.copies {
        return;
    }
    match (copies, min_copies) {
        (Some(copies), None) => {
            let message = "`copies = 0` keeps the state nowhere else";
            let hint = "add `min_copies = 0` if the service may run UNPROTECTED";
            section.document.wrong(&copies.bytes, message, Some(hint.to_owned()));
        }
        (_, Some(min_copies)) => {
            let message =
                format!("`min_copies` must not be more than `copies`, which is {}", state.copies);
            section.document.wrong(&min_copies.bytes, message, None);
        }
        (None, None) => unreachable!("the defaults fit each other"),
    }
}
