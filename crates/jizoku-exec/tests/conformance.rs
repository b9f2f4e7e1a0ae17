//! The engine holds what the contract asks of one that keeps no state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jizoku_engine::conformance::{Capabilities, Subject, Waker, assert_conforms};
use jizoku_engine::{Identity, Instance, Origin};
use jizoku_exec::{ExecEngine, KeeperCommand, Program, keeper};

const ACTORS: &str = env!("CARGO_BIN_EXE_jizoku-exec-actors");

struct Exec(ExecEngine);

impl Subject for Exec {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            state: false,
            bounds_memory: false,
            prints: true,
            measures: true,
            // A process that computes looks like one that has nothing to do but that.
            sees_loops: false,
            // The system's buffers of a connection over loopback.
            buffers: 8 << 20,
            patience: Duration::from_secs(60),
        }
    }

    fn start(&self, identity: &Identity, _origin: Origin, waker: Waker) -> Box<dyn Instance> {
        let program = Program {
            command: [ACTORS, "actor", "{port}"].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            user: rustix::process::geteuid().is_root().then(|| "root".to_owned()),
            ports: vec!["main".to_owned()],
            folder: PathBuf::from("/"),
        };
        let instance = self.0.start(program, identity.clone(), None);
        instance.set_waker(waker);
        Box::new(instance)
    }
}

#[test]
fn the_exec_engine_conforms() {
    let args = vec![keeper::ARGUMENT.into()];
    let keeper = KeeperCommand { program: PathBuf::from(ACTORS), args };
    let not_promised = [
        "a loop is seen",
        "memory is limited, and its end disturbs nobody",
        "without a change the diff is empty",
        "changes are told",
        "held output waits for its commit",
        "it goes on in place after a capture",
        "it goes on elsewhere without a byte lost or doubled",
        "output is marked with the checkpoint that holds it",
        "ends and resets survive",
        "the clock never runs backward",
        "timers go on",
        "a foreign or damaged state is refused",
    ];
    assert_conforms(&Exec(ExecEngine::new(keeper)), &not_promised);
}
