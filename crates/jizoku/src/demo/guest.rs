//! The server's module: built from the examples of the checkout that this binary came from.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::Failure;

/// The target that guests are built for.
const TARGET: &str = "wasm32-wasip1";

/// Builds the key-value server, and says where its module is.
pub(super) fn build(say: &dyn Fn(&str)) -> Result<PathBuf, Failure> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    if !examples.is_dir() {
        return Err(Failure(
            "the sources of the example server are not here; name its module with --module".into(),
        ));
    }
    let module = examples.join("target").join(TARGET).join("release").join("kv.wasm");
    say("building examples/kv for WASI (cargo build --target wasm32-wasip1)");
    if !build_once(&examples)? {
        // The usual reason, and it can be mended here.
        say("adding the Rust target wasm32-wasip1 (rustup target add)");
        let added = Command::new("rustup").args(["target", "add", TARGET]).status();
        if !added.is_ok_and(|status| status.success()) || !build_once(&examples)? {
            return Err(Failure(format!(
                "examples/kv can't be built; try: rustup target add {TARGET}"
            )));
        }
    }
    Ok(module)
}

fn build_once(examples: &Path) -> Result<bool, Failure> {
    let status = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--target", TARGET, "--package", "kv"])
        .current_dir(examples)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .status()
        .map_err(|error| format!("cargo can't be run: {error}"))?;
    Ok(status.success())
}
