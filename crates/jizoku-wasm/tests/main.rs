//! Real programs on the real engine: run, captured under load, restored elsewhere.
//!
//! The programs of `examples/` are built by the tests themselves (target `wasm32-wasip1`).

mod support;

mod captures;
mod conformance;
mod contract;
mod hostile;
mod isolation;
mod notebook;
mod pages;
mod ready;
