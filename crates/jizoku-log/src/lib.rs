//! The log pool: records in memory, found by filters, watched as they arrive.
//!
//! - [`value`]: what a field can hold, and its types
//! - [`schema`]: which fields an event has, where that was declared
//! - [`expr`]: filter expressions: parsed, checked, evaluated over a record
//! - [`moment`]: moments as people write them
//! - [`problem`]: what is wrong with a text, and where
//!
//! What it does not know: nodes, sockets, clocks, how records come in.
//! Purity: `no_std`; time is handed in; nothing grows without a bound.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod expr;
pub mod moment;
pub mod problem;
pub mod schema;
pub mod value;

pub use expr::{Expr, Filter};
pub use problem::Problem;
pub use schema::Schemas;
pub use value::{Level, Trace, Type, Value, ValueRef};
