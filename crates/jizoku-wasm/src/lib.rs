//! L3: the `wasm` engine: WASI programs that can go on elsewhere.
//!
//! A program is built for WASI preview 1, and serves TCP from listeners that it inherits: one for
//! each published port, descriptors 3 and up. It knows nothing of clusters. It runs in wasmtime, on
//! a thread of its own, over our own implementation of its imports ([`wasi`]); its connections are
//! streams of the gateways, its files lie in a private tree in memory.
//!
//! Wherever it waits in a host call its state can be captured: the program was instrumented by
//! asyncify, so that it can write its call stack into memory and read it back ([`stack`]). While it
//! stands still only the changed pages are copied ([`track`]); everything else is done while it
//! runs ([`capture`]). The state is of WebAssembly and of ours alone: it does not depend on
//! wasmtime's version, nor on this machine, and a program goes on from it anywhere ([`restore`]),
//! at once where its memory was laid out ahead ([`ready`]).
//!
//! - [`Engine`] compiles modules that [`admission`] lets in; [`Prepared`] starts them
//! - [`WasmInstance`] is a running one, after the contract of `jizoku-engine`
//! - [`program`]: its life on its thread
//! - `fuzz`: host calls and states that mean harm, for the fuzzer only (feature `fuzz`)
//!
//! What it does not know: nodes, holders, who instruments modules, wall clocks of others.
//!
//! Limits: memory and files as the manifest says; [`WAITING`] calls unwind; see each module.

mod admission;
mod capture;
mod engine;
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod globals;
mod host;
mod instance;
mod kept;
mod meter;
mod program;
mod ready;
mod restore;
mod sockets;
mod stack;
mod state;
mod track;
mod wasi;

pub use admission::Refused;
pub use engine::{Engine, EngineError, PrepareError, Prepared, Program, Settings};
pub use instance::WasmInstance;
pub use track::Tracking;
pub use wasi::WAITING;
