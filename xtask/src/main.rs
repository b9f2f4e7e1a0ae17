//! The project's own commands: `cargo xtask test | tidy | bench | sim | soak | fuzz`.
//!
//! What a person would otherwise do by hand or forget. Nothing here ships.

mod bench;
mod fuzz;
mod sim;
mod soak;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(fuzz::COMPILES).is_some() {
        return fuzz::compile(std::env::args_os().skip(1).collect());
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("tidy") => tidy::main(&root()),
        Some("bench") => bench::main(&root(), &args[1..]),
        Some("test") => test::main(&root()),
        Some("fuzz") => fuzz::main(&root(), &args[1..]),
        Some("sim") => sim::main(&root(), &args[1..]),
        Some("soak") => soak::main(&root(), &args[1..]),
        _ => {
            eprintln!(
                "usage: cargo xtask test           install what is missing and run all tests\n\
                 \x20      cargo xtask tidy           check what a machine can check\n\
                 \x20      cargo xtask bench NAME...  measure something (or `all`, or `list`)\n\
                 \x20      cargo xtask sim [--seeds N] run the simulator (see its --help)\n\
                 \x20      cargo xtask soak [--minutes M] faults on real processes\n\
                 \x20      cargo xtask fuzz [--seconds N] [--keep] [TARGET...] garbage to decode"
            );
            ExitCode::from(2)
        }
    }
}

/// The workspace's root: where this crate's folder lies.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").into()
}
