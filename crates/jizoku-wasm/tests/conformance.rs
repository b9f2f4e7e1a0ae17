//! The engine holds all that the contract asks, however it tracks memory and restores it.

use std::cell::Cell;
use std::time::Duration;

use jizoku_engine::conformance::{Capabilities, Subject, Waker, assert_conforms};
use jizoku_engine::{Identity, Instance, Origin};
use jizoku_types::ByteCount;
use jizoku_wasm::{Engine, Prepared, Program, Settings, Tracking};

use crate::support::guests::example_module;
use crate::support::house::program;

/// One engine, or two that take over from each other.
struct Wasm {
    nodes: Vec<(Engine, Prepared)>,
    /// Which of them started the last instance.
    turn: Cell<usize>,
}

impl Subject for Wasm {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            state: true,
            bounds_memory: true,
            prints: true,
            measures: true,
            sees_loops: true,
            buffers: 0,
            patience: Duration::from_secs(60),
        }
    }

    fn start(&self, identity: &Identity, origin: Origin, waker: Waker) -> Box<dyn Instance> {
        let program = Program { memory_max: ByteCount::mib(32), ..program() };
        if let Origin::Restored { image, .. } = &origin {
            self.turn.set((self.turn.get() + 1) % self.nodes.len());
            // A second node has laid the memory out; a first one has an instance, and does not.
            self.nodes[self.turn.get()].0.keep_ready(identity.service, image);
        }
        let (_, prepared) = &self.nodes[self.turn.get()];
        let instance = prepared.start(program, identity.clone(), origin);
        instance.set_waker(waker);
        Box::new(instance)
    }
}

fn conforms(nodes: usize, tracking: Option<Tracking>) {
    let node = || {
        let engine = Engine::new(Settings { tracking }).expect("wasmtime runs here");
        let prepared = engine.prepare(&example_module("actor")).expect("an example is admitted");
        (engine, prepared)
    };
    let wasm = Wasm { nodes: (0..nodes).map(|_| node()).collect(), turn: Cell::new(0) };
    assert_conforms(&wasm, &["without state nothing is captured"]);
}

#[test]
fn the_wasm_engine_conforms() {
    conforms(1, None);
}

#[test]
fn it_conforms_when_pages_are_found_by_comparing() {
    conforms(1, Some(Tracking::Compare));
}

#[test]
fn it_conforms_when_memory_was_laid_out_ahead() {
    conforms(2, None);
}
