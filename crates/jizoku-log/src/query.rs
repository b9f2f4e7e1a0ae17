//! Questions to pools: a filter, then stages with pipes between them.
//!
//! ```text
//! ["latest" | "follow"] [filter] ["since" duration] { "|" stage }
//!
//! latest trace == "7f3a91"
//! level >= error since 1h | count by host, event | top 10
//! event == "http.req" since 15m | p99(ms) by host every 1m
//! msg has "out of memory" since 6h | around 30s
//! follow event matches "deploy.*" && host == "web1" | fields time, host, msg
//! ```
//!
//! - `latest`: only the newest. `follow`: what is there (with `since`), and all that comes.
//! - Of records: `around 30s` (all that the same pools took so long before and after one), `first
//!   n`, `last n [by f, ..]`, `sort f [desc]`, `fields f, ..`.
//! - To groups: `count`, `sum(f)`, `avg(f)`, `min(f)`, `max(f)`, `p50(f)`, `p90(f)`, `p99(f)`,
//!   each with `[by f, ..] [every duration]`. Percentiles are right to within 0.4 %.
//! - Of groups: `top n` (the largest first), `sort`, `first`, `fields`.
//!
//! A query is checked as a whole before it runs, against declared events. It then runs in two
//! parts: a [`run::Run`] on each pool, up to and with the stage that makes groups or keeps a few;
//! and the rest over all pools' answers, in [`merge`] and [`finish`].
//!
//! What it does not know: nodes, how answers travel.
//!
//! Limits: [`STAGES_MAX`] stages, [`NAMES_MAX`] names in a list, [`KEPT_MAX`] records that are
//! held for `first`, `last`, `sort` and `around`, [`groups::GROUPS_MAX`] groups.

pub mod finish;
pub mod groups;
pub mod merge;
mod parse;
pub mod run;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use self::parse::parse;
use crate::expr::{Builtin, Fields, Filter};
use crate::value::ValueRef;

/// Most stages.
pub const STAGES_MAX: usize = 16;
/// Most names behind `by` or `fields`.
pub const NAMES_MAX: usize = 16;
/// Most records that a stage holds; what is more is left out, and that is said.
pub const KEPT_MAX: usize = 100_000;

/// What is wanted of the records that a filter accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All that are there.
    All,
    /// The newest.
    Latest,
    /// All that come.
    Follow,
}

/// Something that a record or row has: a builtin, a field or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// How it is called.
    pub name: String,
    /// What every record has, if it is one of those.
    pub builtin: Option<Builtin>,
}

impl Name {
    pub(crate) fn of<'r>(&self, record: &'r impl Fields) -> Option<ValueRef<'r>> {
        match self.builtin {
            Some(builtin) => Some(record.builtin(builtin)),
            None => record.field(&self.name),
        }
    }
}

/// What is calculated of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// How many records.
    Count,
    /// The sum.
    Sum,
    /// The mean.
    Avg,
    /// The least.
    Min,
    /// The largest.
    Max,
    /// So many in a hundred are not larger.
    Percentile(u8),
}

/// Groups of records, and a number of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Which number.
    pub measure: Measure,
    /// Of which field; none for the count.
    pub of: Option<Name>,
    /// What the records of one group have in common.
    pub by: Vec<Name>,
    /// In windows of so many microseconds.
    pub every: Option<u64>,
}

impl Grouping {
    /// What the column of the number is called.
    pub fn column(&self) -> String {
        let name = match self.measure {
            Measure::Count => return "count".to_string(),
            Measure::Sum => "sum",
            Measure::Avg => "avg",
            Measure::Min => "min",
            Measure::Max => "max",
            Measure::Percentile(p) => {
                return alloc::format!("p{p}({})", self.of.as_ref().map_or("", |of| &of.name));
            }
        };
        alloc::format!("{name}({})", self.of.as_ref().map_or("", |of| &of.name))
    }
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Makes groups.
    Group(Grouping),
    /// The groups with the largest numbers.
    Top(usize),
    /// The newest records, of each group if there are names.
    Last(usize, Vec<Name>),
    /// The first records or rows.
    First(usize),
    /// Only these fields or columns.
    Fields(Vec<Name>),
    /// What was there so many microseconds before and after.
    Around(u64),
    /// In the order of a field or column; true: the largest first.
    Sort(Name, bool),
}

/// A query that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What is wanted.
    pub mode: Mode,
    /// Which records.
    pub filter: Filter,
    /// None that are older, in microseconds.
    pub since: Option<u64>,
    /// What becomes of them.
    pub stages: Vec<Stage>,
}

/// What one pool has to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reduce<'q> {
    /// Show the records.
    All,
    /// Show the first of them.
    First(usize),
    /// Show the last of them, of each group.
    Last(usize, &'q [Name]),
    /// Make groups.
    Group(&'q Grouping),
}

impl Query {
    /// Whether its answer is groups rather than records.
    pub fn grouping(&self) -> Option<&Grouping> {
        self.stages.iter().find_map(|stage| match stage {
            Stage::Group(grouping) => Some(grouping),
            _ => None,
        })
    }

    /// The first stage that makes less of the records: each pool does it. And how many stages
    /// that leaves to be done.
    pub(crate) fn reduce(&self) -> (Reduce<'_>, &[Stage]) {
        let stages = match self.stages.first() {
            Some(Stage::Around(_)) => &self.stages[1..],
            _ => &self.stages[..],
        };
        match stages.first() {
            _ if self.mode == Mode::Latest => (Reduce::Last(1, &[]), stages),
            Some(Stage::First(most)) => (Reduce::First(*most), stages),
            Some(Stage::Last(most, by)) => (Reduce::Last(*most, by), stages),
            Some(Stage::Group(grouping)) => (Reduce::Group(grouping), &stages[1..]),
            _ => (Reduce::All, stages),
        }
    }

    /// How far around a match is looked, in microseconds.
    pub(crate) fn around(&self) -> Option<u64> {
        match self.stages.first() {
            Some(Stage::Around(span)) => Some(*span),
            _ => None,
        }
    }

    /// Whether the merged records may be shown one by one as they come, without the last stages
    /// having to see all of them.
    pub fn streams(&self) -> bool {
        self.mode != Mode::Latest
            && self
                .stages
                .iter()
                .all(|stage| matches!(stage, Stage::Fields(_) | Stage::Around(_) | Stage::First(_)))
    }
}
