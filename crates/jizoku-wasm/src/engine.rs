//! The engine: compiles programs once and starts instances of them.
//!
//! What it does not know: services' names, where modules come from, who runs its instances.
//!
//! Invariants
//! - Equal bytes are compiled once while anybody uses them.
//! - What a program computes does not depend on this machine: no threads, no relaxed SIMD, one
//!   form of NaN, fixed sizes of stack and address space.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use jizoku_checkpoint::image::Image;
use jizoku_engine::{Exit, Identity, Origin};
use jizoku_types::limits::PORTS_MAX;
use jizoku_types::{ByteCount, ServiceId};
use wasmtime::{Config, InstancePre, Linker, Module, OptLevel};

use crate::admission::{self, Refused};
use crate::capture::SOCKETS;
use crate::host::Host;
use crate::instance::{Shared, WasmInstance};
use crate::kept;
use crate::program::{Start, live};
use crate::ready::Ready;
use crate::sockets::Sockets;
use crate::track::{self, Tracking};
use crate::wasi;

/// Address space of each program's memory: as much as it can ever have, so that it never moves.
pub(crate) const MEMORY_RESERVED: usize = 4 << 30;
/// Native stack of a program's own functions; deeper recursion ends it.
const PROGRAM_STACK: usize = 2 << 20;
/// Native stack that host calls have beyond that.
const HOST_STACK: usize = 1 << 20;

/// How an engine is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How changed memory is found; none: the best that works here.
    pub tracking: Option<Tracking>,
}

/// Why no module was made of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareError {
    /// It is a module that can't be run here.
    Refused(Refused),
    /// It could not be compiled.
    NotCompiled(String),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrepareError::Refused(why) => why.fmt(f),
            PrepareError::NotCompiled(why) => write!(f, "the module can't be compiled: {why}"),
        }
    }
}

impl std::error::Error for PrepareError {}

/// The engine could not be set up on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError(pub String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebAssembly programs can't be run here: {}", self.0)
    }
}

impl std::error::Error for EngineError {}

/// What a program is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Arguments after its name.
    pub args: Vec<String>,
    /// Environment, beside what tells it of its listeners.
    pub env: BTreeMap<String, String>,
    /// Names of the published ports, in the order of its listeners, which are descriptors 3
    /// and up. At most `PORTS_MAX`.
    pub ports: Vec<String>,
    /// Most linear memory; 4 GiB at most.
    pub memory_max: ByteCount,
    /// Most bytes in its private file tree.
    pub files_max: ByteCount,
}

/// Compiles programs. One for each agent; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: wasmtime::Engine,
    linker: Linker<Host>,
    tracking: Tracking,
    compiled: Mutex<BTreeMap<[u8; 32], Place>>,
    /// Where compiled code is kept, if anywhere.
    kept: OnceLock<PathBuf>,
    ready: Ready,
}

/// Where a module with this hash is, or will be; its content goes when nobody uses it any more.
type Place = Arc<Mutex<Weak<Compiled>>>;

struct Compiled {
    hash: [u8; 32],
    module: InstancePre<Host>,
}

/// A compiled program, ready to be started any number of times. Clones are cheap.
#[derive(Clone)]
pub struct Prepared {
    inner: Arc<Inner>,
    compiled: Arc<Compiled>,
}

impl Engine {
    /// Sets the engine up.
    pub fn new(settings: Settings) -> Result<Engine, EngineError> {
        let failed = |why: wasmtime::Error| EngineError(why.to_string());
        let engine = wasmtime::Engine::new(&config()).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        wasi::add_to(&mut linker).map_err(failed)?;
        let tracking = settings.tracking.unwrap_or_else(track::probe);
        let compiled = Mutex::new(BTreeMap::new());
        let kept = OnceLock::new();
        let ready = Ready::default();
        let inner = Inner { engine, linker, tracking, compiled, kept, ready };
        Ok(Engine { inner: Arc::new(inner) })
    }

    /// Keeps compiled code in this folder from now on, and uses what is there. It is made if it
    /// isn't there, and must belong to this process's user alone: the code is run. An error
    /// changes nothing: all is compiled at each start.
    ///
    /// # Panics
    /// If a folder was named before.
    pub fn keep_in(&self, folder: PathBuf) -> std::io::Result<()> {
        kept::make_private(&folder)?;
        assert!(self.inner.kept.set(folder).is_ok(), "there is one folder");
        Ok(())
    }

    /// How changed memory is found, unless it fails for an instance.
    pub fn tracking(&self) -> Tracking {
        self.inner.tracking
    }

    /// Lays the memory of a state out, so that a restore of it, or of one that differs little, is
    /// a matter of a millisecond whatever its size. For holders: to be called with the ready image
    /// of a service whenever it has changed, the more often the better, as it costs what changed
    /// since the last call (the first time: a copy of all), on the caller's thread. The memory is
    /// needed once more for it. While an instance of the service is here, it does nothing.
    pub fn keep_ready(&self, service: ServiceId, image: &Image) {
        self.inner.ready.keep(service, image);
    }

    /// What was laid out for a service goes: this node does not hold it any more.
    pub fn forget_ready(&self, service: ServiceId) {
        self.inner.ready.forget(service);
    }

    /// Checks and compiles a module. Takes from a tenth of a second to some seconds, unless it is
    /// in use already or was kept. The module must have been instrumented for the calls of
    /// [`WAITING`](crate::WAITING).
    pub fn prepare(&self, bytes: &[u8]) -> Result<Prepared, PrepareError> {
        let hash = *blake3::hash(bytes).as_bytes();
        let place = {
            let mut all = self.inner.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, place| !is_unused(place));
            Arc::clone(all.entry(hash).or_default())
        };
        // Whoever wants the same module waits here while it is being compiled.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = match place.upgrade() {
            Some(compiled) => compiled,
            None => Arc::new(self.compile(hash, bytes)?),
        };
        *place = Arc::downgrade(&compiled);
        Ok(Prepared { inner: Arc::clone(&self.inner), compiled })
    }

    fn compile(&self, hash: [u8; 32], bytes: &[u8]) -> Result<Compiled, PrepareError> {
        let offered = |name: &str| self.inner.offers(name);
        admission::check(bytes, offered).map_err(PrepareError::Refused)?;
        let failed = |why: wasmtime::Error| PrepareError::NotCompiled(format!("{why:#}"));
        let module = self.code(&hash, bytes).map_err(failed)?;
        let module = self.inner.linker.instantiate_pre(&module).map_err(failed)?;
        Ok(Compiled { hash, module })
    }

    /// The module's code: kept or made.
    fn code(&self, hash: &[u8; 32], bytes: &[u8]) -> wasmtime::Result<Module> {
        let engine = &self.inner.engine;
        let Some(folder) = self.inner.kept.get() else { return Module::from_binary(engine, bytes) };
        // SAFETY: `keep_in` made sure that the folder is this user's alone.
        if let Some(module) = unsafe { kept::read(engine, folder, hash) } {
            return Ok(module);
        }
        let module = Module::from_binary(engine, bytes)?;
        kept::write(folder, hash, &module);
        Ok(module)
    }
}

impl Prepared {
    /// BLAKE3 hash of the module.
    pub fn hash(&self) -> [u8; 32] {
        self.compiled.hash
    }

    /// Starts the program on a thread of its own, from its beginning or from a checkpoint.
    /// What goes wrong is told by the instance: `Exited`, with `CannotStart`.
    ///
    /// # Panics
    /// If there are more than `PORTS_MAX` ports.
    pub fn start(&self, program: Program, identity: Identity, origin: Origin) -> WasmInstance {
        assert!(program.ports.len() <= PORTS_MAX, "a service has at most {PORTS_MAX} ports");
        let ports = program.port_count();
        let sockets = match &origin {
            Origin::Fresh => Ok(Sockets::fresh(&identity, ports)),
            Origin::Restored { image, seq } => match image.read_all(SOCKETS) {
                Some(bytes) => Sockets::restore(&identity, ports, *seq, &bytes)
                    .map_err(|why| format!("the state's connections are damaged: {why}")),
                None => Err("the state has no connections".into()),
            },
        };
        let (sockets, refused) = match sockets {
            Ok(sockets) => (sockets, None),
            Err(why) => (Sockets::fresh(&identity, ports), Some(why)),
        };
        let shared = Arc::new(Shared::new(sockets));
        let engine = self.inner.engine.clone();
        let instance =
            WasmInstance::new(Arc::clone(&shared), Box::new(move || engine.increment_epoch()));
        let layout = self.inner.ready.take(identity.service, &shared);
        let start = Start {
            layout,
            engine: self.inner.engine.clone(),
            module: self.compiled.module.clone(),
            module_hash: self.compiled.hash,
            program,
            origin,
            shared: Arc::clone(&shared),
            tracking: self.inner.tracking,
        };
        let spawn = || {
            std::thread::Builder::new()
                .name(format!("wasm-{}", identity.service))
                .stack_size(PROGRAM_STACK + HOST_STACK)
                .spawn(move || live(start))
                .map_err(|why| format!("no thread for it: {why}"))
        };
        if let Err(why) = refused.map_or_else(|| spawn().map(drop), Err) {
            shared.end(Exit::CannotStart(why));
        }
        instance
    }
}

impl Inner {
    fn offers(&self, name: &str) -> bool {
        // The linker's own lookup wants a store; the list of its definitions needs none.
        wasi::NAMES.contains(&name)
    }
}

impl Program {
    pub(crate) fn port_count(&self) -> u8 {
        self.ports.len() as u8
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        // Programs expect a name of their own as the first one.
        std::iter::once("program").chain(self.args.iter().map(String::as_str)).map(clean).collect()
    }

    pub(crate) fn environment(&self) -> Vec<String> {
        let mut all = self.env.clone();
        all.insert("LISTEN_FDS".into(), self.ports.len().to_string());
        all.insert("LISTEN_FDNAMES".into(), self.ports.join(":"));
        all.iter().map(|(name, value)| clean(&format!("{name}={value}"))).collect()
    }
}

/// Whether nobody has, compiles or looks for what is there.
fn is_unused(place: &Place) -> bool {
    let gone = |content: &Weak<Compiled>| content.strong_count() == 0;
    Arc::strong_count(place) == 1 && gone(&place.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Without zero bytes: they would end the text for the program.
fn clean(text: &str) -> String {
    text.replace('\0', "")
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .max_wasm_stack(PROGRAM_STACK)
        .memory_reservation(MEMORY_RESERVED as u64)
        .memory_may_move(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false);
    config
}
