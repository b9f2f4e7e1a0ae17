//! L2: the agent's local API as types: what is asked, what is answered, what happens.
//!
//! HTTP with JSON bodies over a Unix socket. The CLI, the screen, the console and other people's
//! programs all speak exactly this.
//!
//! - [`route`]: every path and method, in one table that server and clients share
//! - [`status`], [`service`]: what the cluster looks like
//! - [`order`]: what can be asked for
//! - [`plan`]: what an `apply` would change
//! - [`run`]: running flows of scripts
//! - [`event`]: the stream of events
//! - [`doctor`]: what this machine can and cannot run
//! - [`ticket`]: the text that lets a node in
//! - [`error`]: one form for everything that goes wrong
//!
//! What it does not know: sockets, HTTP, who may ask, how anything is done.
//!
//! Invariants
//! - Names of fields and words are stable: they stand here, apart from the types inside, and
//!   golden files in `tests/golden` hold them. Fields are added, never renamed; readers ignore
//!   what they don't know.
//! - Ids are texts with their prefix (`node_`, `svc_`, ...). Numbers carry their unit in their
//!   name: `_ms`, `_us`, `_ns`, `_bytes`.
//! - Times are spans seen from the answering node, except `unix_ms` of events, which is for
//!   people and decides nothing.
//!
//! Limits: a JSON body has at most [`route::BODY_MAX`] bytes, a module at most
//! [`route::MODULE_MAX`].

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod doctor;
pub mod error;
pub mod event;
pub mod log;
pub mod order;
pub mod plan;
pub mod route;
pub mod run;
pub mod service;
mod spec;
pub mod status;
pub mod text;
pub mod ticket;

pub use error::{ApiError, ErrorCode};
pub use route::{Method, Order, Query, Route};
pub use ticket::Ticket;
