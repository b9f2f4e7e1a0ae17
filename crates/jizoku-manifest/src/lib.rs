//! L3: the two TOML files that people write: a service's manifest and a node's `config.toml`.
//!
//! - [`Manifest`]: what `jizoku apply` reads; it leads to a `ServiceSpec`
//! - [`NodeConfig`]: what `jizoku up` reads from the data folder
//! - [`Problems`]: everything that is wrong with a file, each with line, column, what was
//!   expected, the line itself and, where there is one, a hint
//!
//! What it does not know: clusters, agents, which nodes exist (a callback tells), what a WASI
//! module is.
//!
//! Invariants
//! - A file with one mistake leads to no value at all; nothing is half applied.
//! - All mistakes of a file are reported at once, in the order of the file.
//! - Every default stands in [`defaults`], with its reason, and nowhere else.
//! - Unknown keys are mistakes: a misspelt `min_copies` must not become a silent default.
//! - No input panics: mutated files are part of the tests.
//!
//! Limits: a file has at most [`FILE_MAX`] bytes; arguments and environment of a program at most
//! [`service::PROGRAM_TEXT_MAX`], because they travel in the catalog.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod config;
pub mod defaults;
mod problem;
mod section;
pub mod service;
mod suggest;
mod units;

pub use config::{ConfigError, LogLevel, NodeConfig};
pub use problem::{Problem, Problems};
pub use service::{Manifest, ManifestError, NodeNames, UnknownNode};

/// Largest file that is read, in bytes. Longer ones are refused before they are parsed.
pub const FILE_MAX: usize = 256 << 10;

#[cfg(test)]
mod mutation_tests;
