//! Filter expressions: what a record must be like. One language for queries, waits and triggers.
//!
//! ```text
//! event == "http.req" && status >= 500 && took > 250ms
//! level >= warn && !(source in ["kv", "web"]) || msg has "out of memory"
//! event matches "deploy.*" && port == $port
//! ```
//!
//! - Names: `time trace host seq event level source` of every record; any other name is a field.
//!   A dot before it means the field in any case (`.host`); `` `odd-name` `` is a field, too.
//! - Values: `true`, `12`, `1.5`, `"text"`, durations (`30s`, `1h30m`), levels (`error`), and
//!   `$name`: a value from outside, that has to be [bound](Expr::bind) before the filter runs.
//! - `== != < <= > >=`, `in [..]`, `has` (part of a text; without a left side: of any text in the
//!   record), `matches` (`*` any letters, `?` one), `exists name`, `! && ||`, `+ - * / %`.
//! - A comparison with a value that is absent, or of another type, is false; so is `!=`. Whole
//!   numbers and fractions compare with each other.
//!
//! The way of a text: [`parse`] (or [`parse_prefix`] within a larger text), [`check`] against
//! declared events, then [`Filter::accepts`] for each record.
//!
//! What it does not know: how records are stored, queries' pipes.
//!
//! Invariants
//! - What was checked evaluates without a failure, and in a time bounded by its size and the
//!   record's.
//! - The text of an expression, parsed again, gives the same expression.
//!
//! Limits: [`TEXT_MAX`] bytes, [`NODES_MAX`] parts, [`DEPTH_MAX`] parentheses.

mod check;
mod filter;
mod glob;
mod lex;
mod parse;
mod syntax;
#[cfg(test)]
mod tests;

pub use check::{Scope, check};
pub use filter::{Fields, Filter};
pub(crate) use filter::{Pred, Term, compare};
pub(crate) use lex::Token;
pub(crate) use parse::Parser;
pub use parse::{parse, parse_prefix};
pub use syntax::{Builtin, Expr, Kind, Op};

/// Longest text of an expression, in bytes.
pub const TEXT_MAX: usize = 16 * 1024;
/// Most names, values and operators of an expression.
pub const NODES_MAX: usize = 512;
/// Deepest nesting of parentheses and signs.
pub const DEPTH_MAX: usize = 64;
