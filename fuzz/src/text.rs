//! What people and their tools write: manifests, configuration, requests, modules.

use std::collections::BTreeMap;

use jizoku_api::order;
use jizoku_asyncify::{NoReturn, Options, instrument};
use jizoku_manifest::{Manifest, NodeConfig, UnknownNode};
use jizoku_types::spec::{
    Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, PortSpec, ServiceSpec,
    SuccessionPolicy,
};
use jizoku_types::{ByteCount, ServiceName, Span};

use crate::node;

/// A small service.
pub(crate) fn kv() -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::new("kv").expect("a name"),
        engine: EngineSpec::Wasm {
            module: [7; 32],
            args: Vec::new(),
            env: BTreeMap::new(),
            memory_max: ByteCount::mib(64),
            files_max: ByteCount::mib(1),
        },
        ports: vec![PortSpec { name: "main".into(), listen: 6379 }],
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies: 2,
        min_copies: 1,
        interval: Span::millis(100),
        partition: PartitionPolicy::Stop,
        succession: SuccessionPolicy::Stability,
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount::mib(1),
    }
}

/// A manifest. Each mistake must have a place in the text and something to say.
pub(crate) fn manifest(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let nodes = |name: &str| match name {
        "n1" => Ok(node(1)),
        _ => Err(UnknownNode { known: vec!["n1".into()] }),
    };
    match Manifest::parse("service.toml", text, &nodes) {
        Ok(manifest) => manifest.spec.check().expect("what is accepted is right"),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// A node's configuration.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Err(problems) = NodeConfig::parse("config.toml", text) {
        assert!(!problems.to_string().is_empty());
    }
}

/// Bodies and targets of the local API.
pub(crate) fn api(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let _ = jizoku_api::route::Route::find("GET", text);
    let _ = jizoku_api::route::pairs_of(text);
    let Ok(order) = serde_json::from_str::<order::ApplyOrder>(text) else { return };
    let again = serde_json::to_string(&order).expect("an order can be written");
    serde_json::from_str::<order::ApplyOrder>(&again).expect("and read again");
}

/// A WebAssembly module. What comes out must be valid if what went in was.
pub(crate) fn module(data: &[u8]) {
    let waiting = [("wasi_snapshot_preview1", "poll_oneoff"), ("env", "wait")];
    let options =
        Options { unwinding_imports: &waiting, allowed_imports: None, no_return: NoReturn::Unwind };
    if let Ok(made) = instrument(data, &options) {
        wasmparser::validate(&made.wasm).expect("an instrumented module is valid");
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let kv = include_bytes!("../../examples/manifests/kv.toml");
    let web = include_bytes!("../../examples/manifests/web.toml");
    let apply = include_bytes!("../../crates/jizoku-api/tests/golden/apply_wasm.json");
    let config = b"name = \"n1\"\nlisten = \"[::]:7500\"\n[labels]\nzone = \"a\"\n";
    // A function that waits in a loop, as text format would say it:
    // (import "env" "wait" (func)) (memory (export "memory") 1)
    // (func (export "_start") (local i32) (loop (call 0) (br_if 0 (local.get 0))))
    let module = [
        &b"\0asm\x01\0\0\0"[..],
        b"\x01\x04\x01\x60\0\0",
        b"\x02\x0c\x01\x03env\x04wait\0\0",
        b"\x03\x02\x01\0",
        b"\x05\x03\x01\0\x01",
        b"\x07\x13\x02\x06memory\x02\0\x06_start\0\x01",
        b"\x0a\x0f\x01\x0d\x01\x01\x7f\x03\x40\x10\0\x20\0\x0d\0\x0b\x0b",
    ]
    .concat();
    vec![
        ("manifest", kv.to_vec()),
        ("manifest", web.to_vec()),
        ("config", config.to_vec()),
        ("api", apply.to_vec()),
        ("api", b"/v1/services/kv?watch=1&name=%20".to_vec()),
        ("module", module),
    ]
}
