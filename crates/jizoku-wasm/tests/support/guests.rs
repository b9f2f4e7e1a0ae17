//! Guest programs: built from `examples/`, or written as text, and instrumented.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use jizoku_asyncify::{NoReturn, Options, instrument};
use jizoku_wasm::{Engine, Prepared, Settings, Tracking, WAITING};

const MODULE: &str = "wasi_snapshot_preview1";

/// Which tool instruments a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    /// `jizoku-asyncify`.
    Ours,
    /// Binaryen's `wasm-opt`, if it is installed.
    Binaryen,
}

/// The tools that are here.
pub(crate) fn tools() -> Vec<Tool> {
    let binaryen = Command::new("wasm-opt").arg("--version").output().is_ok();
    if binaryen { vec![Tool::Ours, Tool::Binaryen] } else { vec![Tool::Ours] }
}

/// An engine that all tests with this way of tracking share.
pub(crate) fn engine(tracking: Option<Tracking>) -> Engine {
    static ENGINES: Mutex<Vec<(Option<Tracking>, Engine)>> = Mutex::new(Vec::new());
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, engine)) = engines.iter().find(|(which, _)| *which == tracking) {
        return engine.clone();
    }
    let engine = Engine::new(Settings { tracking }).expect("wasmtime runs here");
    engines.push((tracking, engine.clone()));
    engine
}

/// The example `name`, instrumented and compiled.
pub(crate) fn example(name: &str) -> Prepared {
    example_by(name, Tool::Ours, None)
}

/// The example `name`, instrumented.
pub(crate) fn example_module(name: &str) -> Vec<u8> {
    instrumented(&std::fs::read(built(name)).expect("the example was built"))
}

/// The example `name`, instrumented by this tool, compiled for this way of tracking.
pub(crate) fn example_by(name: &str, tool: Tool, tracking: Option<Tracking>) -> Prepared {
    static MODULES: Mutex<BTreeMap<(String, Tool), Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let module = modules.entry((name.to_string(), tool)).or_insert_with(|| {
        let plain = std::fs::read(built(name)).expect("the example was built");
        match tool {
            Tool::Ours => instrumented(&plain),
            Tool::Binaryen => by_binaryen(&plain),
        }
    });
    let prepared = engine(tracking).prepare(module).expect("an example is admitted");
    // The compiled module lives as long as somebody has it: all tests share it.
    static KEPT: Mutex<Vec<Prepared>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(prepared.clone());
    prepared
}

/// A program in the text format, instrumented and compiled.
pub(crate) fn text(text: &str) -> Prepared {
    let plain = wat::parse_str(text).expect("a test's program is well-formed");
    engine(None).prepare(&instrumented(&plain)).expect("a test's program is admitted")
}

/// Instruments a module with our own tool.
pub(crate) fn instrumented(plain: &[u8]) -> Vec<u8> {
    let waiting = WAITING.map(|name| (MODULE, name));
    let options =
        Options { unwinding_imports: &waiting, allowed_imports: None, no_return: NoReturn::Unwind };
    instrument(plain, &options).expect("it can be instrumented").wasm
}

/// Where the example `name` is, built once.
fn built(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let status = Command::new(env!("CARGO"))
            .current_dir(examples)
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .args(["build", "--release", "--target", "wasm32-wasip1", "--quiet"])
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the examples must build: rustup target add wasm32-wasip1");
        target.join("wasm32-wasip1/release")
    });
    folder.join(format!("{name}.wasm"))
}

/// Exports the mutable globals, then lets `wasm-opt` do the rest.
fn by_binaryen(plain: &[u8]) -> Vec<u8> {
    static NUMBER: Mutex<u32> = Mutex::new(0);
    let number = {
        let mut number = NUMBER.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        *number
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (from, to) = (folder.join(format!("{number}.wasm")), folder.join(format!("{number}.out")));
    std::fs::write(&from, with_exported_globals(plain)).unwrap();
    let imports: Vec<String> = WAITING.iter().map(|name| format!("{MODULE}.{name}")).collect();
    let status = Command::new("wasm-opt")
        .args(["--enable-bulk-memory", "--enable-sign-ext", "--enable-nontrapping-float-to-int"])
        .args(["--enable-mutable-globals", "--enable-multivalue", "--enable-reference-types"])
        .args(["--enable-simd", "-O2", "--asyncify", "-g"])
        .arg(format!("--pass-arg=asyncify-imports@{}", imports.join(",")))
        .args([&from, Path::new("-o"), &to])
        .status()
        .expect("wasm-opt was here");
    assert!(status.success(), "wasm-opt refused the module");
    std::fs::read(&to).unwrap()
}

fn with_exported_globals(plain: &[u8]) -> Vec<u8> {
    use wasmparser::{Parser, Payload};
    const EXPORTS: u8 = 7;
    const GLOBAL_KIND: u8 = 3;
    let mut names = Vec::new();
    let mut out = plain[..8].to_vec();
    for payload in Parser::new(0).parse_all(plain) {
        let payload = payload.expect("rustc makes modules");
        if let Payload::GlobalSection(globals) = &payload {
            let mutable =
                (0..).zip(globals.clone()).filter(|(_, g)| g.as_ref().unwrap().ty.mutable);
            names.extend(mutable.map(|(number, _)| number as u32));
        }
        let Some((id, range)) = payload.as_section() else { continue };
        let mut body = plain[range].to_vec();
        if let Payload::ExportSection(exports) = &payload {
            let old = exports.count();
            let header = leb(old).len();
            let mut longer = leb(old + names.len() as u32);
            longer.extend_from_slice(&body[header..]);
            for number in &names {
                let name = format!("__jz_g{number}");
                longer.extend(leb(name.len() as u32));
                longer.extend_from_slice(name.as_bytes());
                longer.push(GLOBAL_KIND);
                longer.extend(leb(*number));
            }
            assert_eq!(id, EXPORTS);
            body = longer;
        }
        out.push(id);
        out.extend(leb(body.len() as u32));
        out.extend(body);
    }
    out
}

fn leb(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
