//! What happened when, after a death: from the events of the agents that are left.
//!
//! All agents of the demo run on one machine and count from its boot, so that their clocks, for
//! once, may be compared.

use std::collections::BTreeMap;

use jizoku_mesh::boottime_now;
use jizoku_types::{Event, Instant};
use serde::Serialize;

use super::cluster::Cluster;

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// Milliseconds after the death.
    at_ms: f64,
    /// Who saw it first.
    seen_by: String,
    /// What.
    what: &'static str,
}

/// What followed a death.
pub(super) struct Timeline {
    pub(super) steps: Vec<Step>,
}

/// The moment from which a timeline counts.
pub(super) fn now() -> Instant {
    boottime_now()
}

impl Timeline {
    /// The first of each kind of step after `from`.
    pub(super) fn read(cluster: &Cluster, from: Instant) -> Timeline {
        let mut first: BTreeMap<&'static str, Step> = BTreeMap::new();
        for (name, answer) in cluster.events() {
            for record in answer.events {
                let Some(what) = step(&record.event) else { continue };
                if record.clock_ns < from.as_nanos() {
                    continue;
                }
                let at_ms = (record.clock_ns - from.as_nanos()) as f64 / 1e6;
                let new = Step { at_ms, seen_by: name.clone(), what };
                let known = first.entry(what).or_insert_with(|| new.clone());
                if new.at_ms < known.at_ms {
                    *known = new;
                }
            }
        }
        let mut steps: Vec<Step> = first.into_values().collect();
        steps.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        Timeline { steps }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let line =
            |step: &Step| format!("  {:8.1} ms  {:<42} {}", step.at_ms, step.what, step.seen_by);
        self.steps.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn step(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::LinkDown { .. } => "detected: its links broke",
        Event::NodeUnreachable { .. } => "no way leads to it any more",
        Event::TakeoverProposed { .. } => "chosen: a successor asks for the epoch",
        Event::ActiveChanged { .. } => "the catalog gave the epoch",
        Event::Sealed { .. } => "sealed: a holder refuses the old epoch",
        Event::StateCollected { .. } => "collected: the state is all here",
        Event::InstanceRestored { .. } => "restored: the instance runs",
        Event::FirstOutput { .. } => "first output to a client",
        _ => return None,
    })
}
