//! The programs under test: where they are, and how they come to be there.
//!
//! `JIZOKU_BIN` names a `jizoku` to test; without it, cargo builds the one of this workspace into
//! the target folder that this test was built into, as a release.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `jizoku` under test.
///
/// # Panics
/// If it can't be built.
pub fn jizoku() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os("JIZOKU_BIN") {
        Some(named) => named.into(),
        None => program("jizoku"),
    })
}

/// A program of this workspace, of the package of the same name, as a release.
///
/// # Panics
/// If it can't be built.
pub fn program(name: &str) -> PathBuf {
    let target = target();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--quiet", "--package", name, "--target-dir"]);
    run(cargo.arg(&target).current_dir(root()));
    target.join("release").join(name)
}

/// A guest of `examples/`, as a module.
///
/// # Panics
/// If it can't be built.
pub fn guest(name: &str) -> PathBuf {
    let examples = root().join("examples");
    let module = examples.join(format!("target/wasm32-wasip1/release/{name}.wasm"));
    if !module.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--quiet", "--target", "wasm32-wasip1"]);
        run(cargo.env_remove("CARGO_TARGET_DIR").current_dir(examples));
    }
    module
}

/// A file of `examples/`.
pub fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

fn run(command: &mut Command) {
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "{command:?}: {status}");
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").into()
}

/// The target folder: a test lies in `TARGET/PROFILE/deps`, a program in `TARGET/PROFILE`.
///
/// # Panics
/// If the program that runs lies elsewhere.
pub fn target() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it lies");
    let folder = own.parent().expect("a program lies in a folder");
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.and_then(Path::parent).expect("built by cargo").into()
}
