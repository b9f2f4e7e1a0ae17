//! Questions to the log pools of all nodes, and records for them.
//!
//! A question is answered by lines, each of them a [`LogLine`]: records or rows as they come, and
//! at last [`LogLine::End`], which names the nodes that did not answer. Without that last line
//! the answer is not whole.
//!
//! What it does not know: how queries are read (see jizoku-log), how lines travel.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use jizoku_log::{Record, Value, ValueRef};
use jizoku_types::NodeId;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{ApiError, ErrorCode};
use crate::route::{Query, Route, take};
use crate::text;

/// Asks all pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The query's text.
    pub query: String,
}

impl Query for LogQuery {
    const ROUTE: Route = Route::Log;
    type Answer = LogLine;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        Vec::from([("query", self.query.clone())])
    }

    fn from_pairs(pairs: &[(String, String)]) -> Result<LogQuery, ApiError> {
        let query = take(pairs, &["query"], "query")?;
        let missing = || ApiError::new(ErrorCode::BadRequest, "parameter `query` is missing");
        Ok(LogQuery { query: query.ok_or_else(missing)?.to_string() })
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLine {
    /// What the values of the rows that follow are called.
    Columns(Vec<String>),
    /// A row.
    Row(Vec<Option<Cell>>),
    /// A record.
    Record(RecordForm),
    /// A node stopped answering a query that follows, or answers again.
    Node(NodeChange),
    /// The end.
    End(LogEnd),
}

/// See [`LogLine::Node`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// What people call it.
    pub node: String,
    /// Whether it answers.
    pub answers: bool,
}

/// What is to be said of an answer as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The nodes that answered.
    pub nodes: Vec<String>,
    /// Those that did not: what only they hold is missing.
    pub unreachable: Vec<String>,
    /// Records that were forgotten before they could be shown.
    pub missed: u64,
    /// Records that were left out at a limit.
    pub left_out: u64,
    /// Why the query could not be answered by some node, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordForm {
    /// When it was first received, by the clock of the node that took it.
    pub time: String,
    /// The machine that it comes from.
    pub host: String,
    /// The node whose pool took it.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its number there.
    pub seq: u64,
    /// What happened.
    pub event: String,
    /// How much it matters.
    pub level: String,
    /// The service or intake that it comes from.
    pub source: String,
    /// The run that it belongs to; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Whether two nodes had to hold it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub important: bool,
    /// What else is known.
    pub fields: BTreeMap<String, Cell>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl RecordForm {
    /// Of a record in the pool of a node.
    pub fn new(node: NodeId, record: &Record) -> RecordForm {
        let field = |(name, value): &(String, Value)| (name.clone(), Cell::from(value));
        RecordForm {
            time: Value::Time(record.time).to_string(),
            host: record.host.clone(),
            node,
            seq: record.seq,
            event: record.event.clone(),
            level: record.level.to_string(),
            source: record.source.clone(),
            trace: if record.trace.0 == 0 { String::new() } else { record.trace.to_string() },
            important: record.important,
            fields: record.fields.iter().map(field).collect(),
        }
    }
}

/// A value: JSON's own, and texts for what JSON hasn't got.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell(pub Value);

impl From<&Value> for Cell {
    fn from(value: &Value) -> Cell {
        Cell(match value.borrow() {
            ValueRef::Bool(_) | ValueRef::Int(_) | ValueRef::Str(_) => value.clone(),
            ValueRef::Float(number) if number.is_finite() => value.clone(),
            other => Value::Str(other.to_string()),
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Str(value) => serializer.serialize_str(value),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl Visitor<'_> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth value, a number or a text")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell(Value::Bool(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell(Value::Int(value)))
    }
    #[allow(clippy::cast_precision_loss, reason = "beyond i64 it is a fraction")]
    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell(Value::Float(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell(Value::Str(value.to_string())))
    }
}

/// What became of records that were emitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    /// How many were taken.
    pub taken: u64,
    /// How many were dropped, because their source has used up its quota.
    pub dropped: u64,
    /// How many were not of the right form, or too many at once.
    pub refused: u64,
    /// Why the first of those was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The number of the last one that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Whether all important ones are held by two nodes; none: none were important.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<bool>,
}
