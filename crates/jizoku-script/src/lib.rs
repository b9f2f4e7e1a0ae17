//! L2: the script language: everything of it that is a pure value.
//!
//! - [`check`]: whether a script makes sense, may be run by a role, and can be run on a target
//! - [`format`]: one way to write blanks and indents
//! - [`functions`]: the table of all functions; docs and editors are made from it
//! - [`script`], [`run`]: a script that passed, and one run of a task: a value that is stepped
//! - [`plan`], [`flow`], [`actor`]: a flow with everything filled in, who drives it, what nodes
//!   know of its tasks
//! - [`monitor`], [`trigger`]: when a task is due; when records mean that a flow shall start
//! - [`wire`]: requests and answers
//! - [`permission`], [`offer`], [`target`]: who may do what, what is known of a place, which nodes
//! - [`types`], [`value`]: what scripts compute with
//! - [`problem`]: what is wrong, and where
//! - [`limits`]: every limit of the language
//!
//! What it does not know: clocks, sockets, processes; how any function does its work.
//!
//! Why it is not a core of layer 1: its filters are those of the log, which is one.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod actor;
pub mod check;
mod compile;
#[cfg(test)]
mod dice;
pub mod flow;
pub mod format;
pub mod functions;
#[cfg(test)]
mod hostile;
pub mod limits;
pub mod monitor;
mod nearest;
pub mod offer;
pub mod permission;
pub mod plan;
pub mod problem;
mod program;
pub mod run;
pub mod script;
mod shell;
mod syntax;
pub mod target;
pub mod trigger;
pub mod types;
pub mod value;
pub mod wire;
