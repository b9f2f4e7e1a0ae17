//! The log pool: records in memory, found by filters, watched as they arrive.
//!
//! - [`value`]: what a field can hold, and its types
//! - [`schema`]: which fields an event has, where that was declared
//! - [`expr`]: filter expressions: parsed, checked, evaluated over a record
//! - [`intake`]: from what programs send to records
//! - [`moment`]: moments as people write them
//! - [`record`]: what comes in and what is handed out; [`pool`]: the records of one node
//! - [`query`]: questions with pipes
//! - [`copies`]: second copies of important records
//! - [`problem`]: what is wrong with a text, and where
//!
//! The words: docs/concepts/log-pool.md.
//!
//! What it does not know: nodes, sockets, clocks, how records come in.
//! Purity: `no_std`; time is handed in; nothing grows without a bound.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod copies;
pub mod expr;
pub mod intake;
pub mod moment;
pub mod pool;
pub mod problem;
pub mod query;
pub mod record;
pub mod schema;
pub mod value;

pub use expr::{Expr, Filter};
pub use pool::Pool;
pub use problem::Problem;
pub use record::{Draft, Record};
pub use schema::Schemas;
pub use value::{Level, Trace, Type, Value, ValueRef};
