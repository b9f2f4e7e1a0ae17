//! The engines of this node, and the programs that they have ready.
//!
//! What it does not know: nodes, holders; when an instance is wanted.
//!
//! Invariant: what can't be started is said with a reason; another node may be able to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use jizoku_engine::{Identity, Instance, Origin};
use jizoku_exec::keeper::KeeperCommand;
use jizoku_exec::{ExecEngine, ExecInstance};
use jizoku_types::spec::{EngineSpec, ServiceSpec};
use jizoku_types::{BranchId, Instant};
use jizoku_wasm::{Engine, Prepared, Program, Settings, WasmInstance};

use super::modules::Modules;
use super::user;

/// How long a start waits for its module to arrive from another node.
const MODULE_WITHIN: Duration = Duration::from_secs(20);
/// Where compiled code is kept in the data folder. It may be deleted at any time.
const COMPILED: &str = "compiled";

/// What a Runner's thread is woken with.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// An instance of any engine.
pub(crate) enum Running {
    /// On a thread of this process.
    Wasm(WasmInstance),
    /// A process of its own, under a keeper.
    Exec(ExecInstance),
}

impl Running {
    /// The instance behind its contract.
    pub(crate) fn instance(&mut self) -> &mut dyn Instance {
        match self {
            Running::Wasm(instance) => instance,
            Running::Exec(instance) => instance,
        }
    }

    /// It may run until then. One inside this process ends with the process anyway.
    pub(crate) fn renew(&self, until: Instant) {
        if let Running::Exec(instance) = self {
            instance.renew(until);
        }
    }
}

/// See the module's header.
pub(crate) struct Engines {
    wasm: Result<Engine, String>,
    modules: Arc<Modules>,
    exec: ExecEngine,
    /// Modules that are compiled ahead; none while they are being compiled.
    ready: Mutex<BTreeMap<[u8; 32], Option<Prepared>>>,
}

impl Engines {
    /// Compiled code is kept in `folder`; the error says why it isn't.
    pub(crate) fn new(modules: Arc<Modules>, folder: &Path) -> (Engines, std::io::Result<()>) {
        let wasm = Engine::new(Settings::default()).map_err(|error| error.to_string());
        let kept = wasm.as_ref().map_or(Ok(()), |engine| engine.keep_in(folder.join(COMPILED)));
        let exec = ExecEngine::new(KeeperCommand::default());
        (Engines { wasm, modules, exec, ready: Mutex::new(BTreeMap::new()) }, kept)
    }

    /// How changed memory is found, for `doctor`.
    pub(crate) fn wasm(&self) -> &Result<Engine, String> {
        &self.wasm
    }

    /// Starts an instance. May take as long as a module takes to arrive and to be compiled.
    pub(crate) fn start(
        &self,
        spec: &ServiceSpec,
        identity: &Identity,
        origin: Origin,
        lease: Option<Instant>,
        waker: Waker,
    ) -> Result<Running, String> {
        let ports = spec.ports.iter().map(|port| port.name.clone()).collect();
        match &spec.engine {
            EngineSpec::Wasm { module, args, env, memory_max, files_max } => {
                let prepared = self.prepare(module)?;
                let program = Program {
                    args: args.clone(),
                    env: env.clone(),
                    ports,
                    memory_max: *memory_max,
                    files_max: *files_max,
                };
                let instance = prepared.start(program, identity.clone(), origin);
                instance.set_waker(waker);
                Ok(Running::Wasm(instance))
            }
            EngineSpec::Exec { .. } => {
                let mut program = jizoku_exec::Program::of(spec).ok_or("not an exec service")?;
                if program.user.is_none() && user::is_root() {
                    program.user = Some(user::UNPRIVILEGED.to_string());
                }
                // In a branch nobody else can be active: it runs for as long as the agent does.
                let alone = identity.epoch.branch != BranchId::MAIN;
                if lease.is_none() && !alone {
                    return Err("an exec service runs under a lease only".into());
                }
                let instance = self.exec.start(program, identity.clone(), lease);
                instance.set_waker(waker);
                Ok(Running::Exec(instance))
            }
        }
    }

    /// Fetches and compiles these modules ahead, so that a takeover finds them ready; forgets
    /// others. What fails shows when the service is started here. Whenever one more is compiled,
    /// `told` hears of all that are.
    pub(crate) fn make_ready(
        self: &Arc<Engines>,
        modules: &BTreeSet<[u8; 32]>,
        told: impl Fn(BTreeSet<[u8; 32]>) + Clone + Send + 'static,
    ) {
        let mut ready = self.ready.lock().expect("no panic while locked");
        ready.retain(|module, _| modules.contains(module));
        for module in modules {
            if ready.contains_key(module) {
                continue;
            }
            ready.insert(*module, None);
            let (engines, module, told) = (Arc::clone(self), *module, told.clone());
            let work = move || {
                let prepared = engines.prepare(&module).ok();
                let mut ready = engines.ready.lock().expect("no panic while locked");
                if prepared.is_none() {
                    // The next change of the catalog tries again.
                    ready.remove(&module);
                } else if let Some(place) = ready.get_mut(&module) {
                    *place = prepared;
                }
                told(compiled(&ready));
            };
            // Without a thread it is compiled when it is needed.
            let _ = std::thread::Builder::new().name("compile".into()).spawn(work);
        }
    }

    /// This module is compiled already: it was checked here before its service was made known.
    /// Gives all that are.
    pub(crate) fn is_ready(&self, module: [u8; 32], prepared: Prepared) -> BTreeSet<[u8; 32]> {
        let mut ready = self.ready.lock().expect("no panic while locked");
        ready.insert(module, Some(prepared));
        compiled(&ready)
    }

    fn prepare(&self, module: &[u8; 32]) -> Result<Prepared, String> {
        let engine = self.wasm.as_ref().map_err(Clone::clone)?;
        let give_up = Clock::now() + MODULE_WITHIN;
        let bytes = self.modules.wait(module, give_up).ok_or(
            "the program's module is not on this node, and no other node sent it".to_string(),
        )?;
        engine.prepare(&bytes).map_err(|error| error.to_string())
    }
}

fn compiled(ready: &BTreeMap<[u8; 32], Option<Prepared>>) -> BTreeSet<[u8; 32]> {
    ready.iter().filter(|(_, prepared)| prepared.is_some()).map(|(module, _)| *module).collect()
}
