//! L4: the one binary: the agent (`jizoku up`), the command line, the demo.
//!
//! - [`agent`]: brings the values and the adapters of one node together
//! - [`cli`]: what people type, and what they are shown
//! - [`client`]: speaks the admin API over the agent's Unix socket
//! - [`demo`]: five nodes on one machine, two deaths, one verdict
//! - [`doctor`]: what this machine can run
//! - [`instrument`]: makes modules ready for the `wasm` engine

mod agent;
mod cli;
mod client;
mod demo;
mod doctor;
mod instrument;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread is there: the keeper of an `exec` instance is this binary, too.
    if jizoku_exec::keeper::is_asked_for() {
        jizoku_exec::keeper::main();
    }
    cli::main()
}
