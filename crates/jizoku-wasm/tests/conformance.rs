//! The engine holds all that the contract asks, with both ways of tracking memory.

use std::time::Duration;

use jizoku_engine::conformance::{Capabilities, Subject, Waker, assert_conforms};
use jizoku_engine::{Identity, Instance, Origin};
use jizoku_types::ByteCount;
use jizoku_wasm::{Prepared, Program, Tracking};

use crate::support::guests::{example_by, tools};
use crate::support::house::program;

struct Wasm(Prepared);

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
        let instance = self.0.start(program, identity.clone(), origin);
        instance.set_waker(waker);
        Box::new(instance)
    }
}

#[test]
fn the_wasm_engine_conforms() {
    for tracking in [None, Some(Tracking::Compare)] {
        let actor = example_by("actor", tools()[0], tracking);
        assert_conforms(&Wasm(actor), &["without state nothing is captured"]);
    }
}
