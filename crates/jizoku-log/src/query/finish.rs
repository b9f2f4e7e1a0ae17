//! The last stages of a query, over what all pools answered.
//!
//! What it does not know: pools, nodes.
//!
//! Invariant: a record that is shown stays as it was taken; a row has a value or nothing for each
//! of the answer's columns.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::cmp::Ordering;

use super::groups::{Groups, Key};
use super::{Mode, Name, Query, Stage};
use crate::record::Record;
use crate::value::Value;

/// Rows, and what their values are called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The names of a row's values.
    pub columns: Vec<String>,
    /// The values.
    pub rows: Vec<Vec<Option<Value>>>,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T = Record> {
    /// Records as they are.
    Records(Vec<T>),
    /// A table.
    Table(Table),
}

/// The fields of one record that the query asks for; `None`: it asks for whole records.
pub fn project(query: &Query, record: &Record) -> Option<Vec<Option<Value>>> {
    let Some(Stage::Fields(names)) = query.stages.last() else { return None };
    query.grouping().is_none().then(|| row(names, record))
}

/// The names of what [`project`] gives.
pub fn columns(query: &Query) -> Option<Vec<String>> {
    let Some(Stage::Fields(names)) = query.stages.last() else { return None };
    Some(names.iter().map(|name| name.name.clone()).collect())
}

fn row(names: &[Name], record: &Record) -> Vec<Option<Value>> {
    names.iter().map(|name| name.of(record).map(|value| value.to_value())).collect()
}

/// Does what is left to do with records, all of which are there, in their order.
pub fn records<T: Borrow<Record>>(query: &Query, mut records: Vec<T>) -> Answer<T> {
    if query.mode == Mode::Latest {
        records.drain(..records.len().saturating_sub(1));
    }
    for stage in query.reduce().1 {
        match stage {
            Stage::First(most) => records.truncate(*most),
            Stage::Last(most, by) => records = last(records, *most, by),
            Stage::Sort(name, descending) => {
                records.sort_by(|a, b| {
                    let key = |record: &T| Key::of(name.of(record.borrow()));
                    let order = key(a).cmp(&key(b));
                    if *descending { order.reverse() } else { order }
                });
            }
            Stage::Fields(names) => {
                let rows = records.iter().map(|record| row(names, record.borrow())).collect();
                let columns = names.iter().map(|name| name.name.clone()).collect();
                return Answer::Table(Table { columns, rows });
            }
            Stage::Group(_) | Stage::Top(_) | Stage::Around(_) => {}
        }
    }
    Answer::Records(records)
}

fn last<T: Borrow<Record>>(mut records: Vec<T>, most: usize, by: &[Name]) -> Vec<T> {
    let mut counts: BTreeMap<Vec<Key>, usize> = BTreeMap::new();
    records.reverse();
    records.retain(|record| {
        let key = by.iter().map(|name| Key::of(name.of(record.borrow()))).collect();
        let count = counts.entry(key).or_default();
        *count += 1;
        *count <= most
    });
    records.reverse();
    records
}

/// Does what is left to do with groups.
pub fn groups(query: &Query, groups: &Groups) -> Table {
    let Some(grouping) = query.grouping() else { return Table::default() };
    let mut table = Table { columns: Groups::columns(grouping), rows: groups.rows(grouping) };
    for stage in query.reduce().1 {
        match stage {
            Stage::Top(most) => {
                let number = table.columns.len() - 1;
                // What is equal keeps its order.
                table.rows.sort_by(|a, b| compare(&b[number], &a[number]));
                table.rows.truncate(*most);
            }
            Stage::First(most) => table.rows.truncate(*most),
            Stage::Last(most, _) => {
                let skip = table.rows.len().saturating_sub(*most);
                table.rows.drain(..skip);
            }
            Stage::Sort(name, descending) => {
                let Some(at) = position(&table.columns, name) else { continue };
                table.rows.sort_by(|a, b| {
                    let order = compare(&a[at], &b[at]);
                    if *descending { order.reverse() } else { order }
                });
            }
            Stage::Fields(names) => {
                let places: Vec<_> =
                    names.iter().map(|name| position(&table.columns, name)).collect();
                let pick = |row: &Vec<Option<Value>>| {
                    places.iter().map(|at| at.and_then(|at| row[at].clone())).collect()
                };
                table.rows = table.rows.iter().map(pick).collect();
                table.columns = names.iter().map(|name| name.name.to_string()).collect();
            }
            Stage::Group(_) | Stage::Around(_) => {}
        }
    }
    table
}

fn position(columns: &[String], name: &Name) -> Option<usize> {
    columns.iter().position(|column| *column == name.name)
}

fn compare(a: &Option<Value>, b: &Option<Value>) -> Ordering {
    let numbers = a.as_ref().and_then(|a| b.as_ref().and_then(|b| a.borrow().compare(b.borrow())));
    let key = |value: &Option<Value>| Key::of(value.as_ref().map(|value| value.borrow()));
    numbers.unwrap_or_else(|| key(a).cmp(&key(b)))
}
