//! Running a flow of a script, seen line by line; cancelling one; those that are under way.
//!
//! A run is answered by lines, each a [`RunLine`], as things happen, and at last
//! [`RunLine::End`]. The flow does not depend on whoever reads: if the connection breaks, it goes
//! on.
//!
//! What it does not know: scripts; a text is handed on, and checked where it runs.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::order::Done;
use crate::route::{Order, Query, Route, take};

/// Binds a flow to its nodes, and runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    /// What the script is called in messages.
    pub name: String,
    /// Its text.
    pub script: String,
    /// Which flow; none: the only one that the script has.
    #[serde(default)]
    pub flow: Option<String>,
    /// Its arguments, as they are written in a script: `port` and `8080`, `host` and `"web1"`.
    #[serde(default)]
    pub arguments: Vec<(String, String)>,
    /// With the rights of which role; none: `admin`.
    #[serde(default)]
    pub role: Option<String>,
    /// Bind only: nothing runs.
    #[serde(default)]
    pub dry_run: bool,
}

impl Order for RunOrder {
    const ROUTE: Route = Route::Run;
    type Answer = RunLine;
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunLine {
    /// Where it would run, and what it needs; the nodes have not been asked yet.
    Plan(RunPlan),
    /// A node's answer to the bind.
    Bound(NodeBound),
    /// Something about a task.
    Task(TaskLine),
    /// A record that was waited for is there; the event's name.
    Met(String),
    /// It has ended.
    End(RunEnd),
}

/// See [`RunLine::Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// Its id: the trace of its records.
    pub id: String,
    /// The flow's name.
    pub flow: String,
    /// It holds its nodes.
    pub synchronised: bool,
    /// With the rights of which role.
    pub role: String,
    /// The permissions that its tasks need.
    pub needs: Vec<String>,
    /// The nodes, each with the tasks that it gets.
    pub nodes: Vec<PlanNode>,
}

/// A node that a flow runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanNode {
    /// What people call it.
    pub node: String,
    /// Its tasks.
    pub tasks: Vec<String>,
}

/// See [`RunLine::Bound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBound {
    /// Which node.
    pub node: String,
    /// Whether it takes the tasks.
    pub ok: bool,
    /// Why not.
    pub why: String,
    /// What its check found, as it is shown.
    pub problems: Vec<String>,
}

/// See [`RunLine::Task`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// The step's number in its flow.
    pub step: u32,
    /// The task.
    pub task: String,
    /// The node.
    pub node: String,
    /// Which attempt, from 0.
    pub attempt: u8,
    /// `sent`, `succeeded`, or `failed`.
    pub state: String,
    /// One word for how it failed, for programs; empty: it didn't.
    pub symbol: String,
    /// How it failed, for people.
    pub detail: String,
    /// From the moment that it was sent, in microseconds.
    pub took_us: u64,
}

/// See [`RunLine::End`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Whether it succeeded; of a dry run, whether all nodes would take it.
    pub ok: bool,
    /// Why not.
    pub why: String,
    /// Whether anything ran.
    pub ran: bool,
    /// What is wrong with the script, as it is shown: found before any node was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// From the order to here, in microseconds.
    pub took_us: u64,
}

/// Ends a flow as failed; its tasks are stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// Its id, or the beginning of it.
    pub id: String,
}

impl Order for CancelOrder {
    const ROUTE: Route = Route::Cancel;
    type Answer = Done;
}

/// The flows that nodes drive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsQuery;

impl Query for FlowsQuery {
    const ROUTE: Route = Route::Flows;
    type Answer = FlowsAnswer;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn from_pairs(pairs: &[(String, String)]) -> Result<FlowsQuery, ApiError> {
        take(pairs, &[], "")?;
        Ok(FlowsQuery)
    }
}

/// See [`FlowsQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsAnswer {
    /// The oldest first, by node.
    pub flows: Vec<FlowStatus>,
    /// Nodes that did not answer.
    pub silent: Vec<String>,
}

/// A flow that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Its id: the trace of its records.
    pub id: String,
    /// Its name.
    pub flow: String,
    /// Which node drives it.
    pub controller: String,
    /// Who started it.
    pub who: String,
    /// With the rights of which role.
    pub role: String,
    /// Whether it holds its nodes.
    pub synchronised: bool,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Tasks that are under way, and that ended.
    pub tasks: (u32, u32),
    /// Since when.
    pub age_ms: u64,
}
