//! A program's life on its thread: made or restored, run, captured, ended.
//!
//! What it does not know: who wants captures and why, how host calls work.
//!
//! Invariants
//! - Whatever happens here, the thread ends with one reason that is told; a panic is one of them.
//! - A restored program has the memory, globals, files, descriptors and sockets of its image
//!   before its first instruction runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use jizoku_checkpoint::image::Image;
use jizoku_engine::{Exit, Origin, Output};
use wasmtime::{
    Engine, Instance, InstancePre, Memory, Store, TypedFunc, UpdateDeadline, WasmBacktrace,
};

use crate::capture::{self, Recorder, Snapshot};
use crate::engine::{MEMORY_RESERVED, Program};
use crate::files::Tree;
use crate::globals;
use crate::host::{Host, Limits, span};
use crate::instance::Shared;
use crate::ready::Layout;
use crate::restore;
use crate::stack::{self, Phase, Stack};
use crate::state;
use crate::track::{Content, Tracker, Tracking};
use crate::wasi::clock::{Clocks, real_time};
use crate::wasi::descriptors::Descriptors;
use crate::wasi::errno::End;
use crate::wasi::lines::{Allowance, Partial};
use crate::wasi::process_calls::Strings;

/// What runs from the program's first instruction to its last.
const START: &str = "_start";
/// Longest text about a crash, in bytes.
const CRASH_TEXT_MAX: usize = 2000;
/// Most functions that are named in it.
const CRASH_FRAMES_MAX: usize = 8;

/// Everything that a program's thread needs.
pub(crate) struct Start {
    pub(crate) engine: Engine,
    pub(crate) module: InstancePre<Host>,
    pub(crate) module_hash: [u8; 32],
    pub(crate) program: Program,
    pub(crate) origin: Origin,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tracking: Tracking,
    /// Memory that was laid out for its service; of use if it begins from a checkpoint.
    pub(crate) layout: Option<Layout>,
}

/// The whole life of a program; to be called on a thread of its own.
pub(crate) fn live(start: Start) {
    let shared = Arc::clone(&start.shared);
    let _metered = shared.meter.this_thread();
    let exit = catch_unwind(AssertUnwindSafe(|| run(start)))
        .unwrap_or_else(|_| Exit::Crashed("the engine has a bug: it panicked".into()));
    shared.end(exit);
}

fn run(start: Start) -> Exit {
    let began = Instant::now();
    let mut life = match Life::begin(start) {
        Ok(life) => life,
        Err(why) => return Exit::CannotStart(why),
    };
    if life.store.data().stack.phase == Phase::Running {
        life.store.data().shared.push(Output::Running { took: span(began.elapsed()) });
    } else {
        life.store.data_mut().restoring_since = Some(began);
    }
    life.go()
}

/// A program that is there, and its host.
struct Life {
    store: Store<Host>,
    instance: Instance,
    memory: Memory,
    start: TypedFunc<(), ()>,
    tracker: Tracker,
    module_hash: [u8; 32],
}

impl Life {
    /// Makes the program, in the state of its origin. The error says why it can't be.
    fn begin(mut start: Start) -> Result<Life, String> {
        let (image, fresh) = match &start.origin {
            Origin::Fresh => (Image::empty(), true),
            Origin::Restored { image, .. } => (image.clone(), false),
        };
        let cannot = |why: wasmtime::Error| text(&why);
        let wanted = start.tracking;
        let host = if fresh { fresh_host(&start) } else { restored_host(&start, &image) }?;
        let mut store = Store::new(&start.engine, host);
        store.limiter(|host| &mut host.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|host| {
            // Somebody is to be stopped; it may be another program of this engine.
            if host.data().shared.must_stop() {
                return Err(End::Stopped.into());
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let instance = start.module.instantiate(&mut store).map_err(cannot)?;
        let memory = instance.get_memory(&mut store, "memory").ok_or("it exports no memory")?;
        store.data_mut().memory = Some(memory);
        let entry = instance.get_typed_func(&mut store, START).map_err(cannot)?;
        Stack::connect(&mut store, &instance).map_err(cannot)?;
        let mut content = Content::Fresh;
        if !fresh {
            content = restore::memory(&mut store, memory, &image, start.layout.take())?;
            restore::globals(&mut store, &instance, &image)?;
        }
        let tracker = Tracker::start(wanted, memory.data(&store), MEMORY_RESERVED, content);
        store.data().shared.set_tracking(tracker.kind());
        if !fresh {
            let frames = image.read_all(capture::STACK).ok_or("the state has no call stack")?;
            stack::rewind(&mut store, memory, &frames).map_err(cannot)?;
        }
        Ok(Life { store, instance, memory, start: entry, tracker, module_hash: start.module_hash })
    }

    /// Runs the program to its end, with as many captures as are wanted.
    fn go(mut self) -> Exit {
        loop {
            self.store.data_mut().stack.set_base();
            let result = self.start.call(&mut self.store, ());
            let phase = self.store.data().stack.phase;
            let exit = match (result, phase) {
                (Err(error), _) if error.is::<End>() => self.exit(&error),
                (Ok(()), Phase::Running) => Exit::Status(0),
                (Ok(()), Phase::Unwinding) => match self.stand_still() {
                    Ok(()) => continue,
                    Err(error) => self.exit(&error),
                },
                (Ok(()), Phase::Rewinding) => {
                    Exit::CannotStart("its call stack leads nowhere: another program?".into())
                }
                (Err(error), Phase::Running) => self.exit(&error),
                (Err(error), Phase::Unwinding) => {
                    Exit::Crashed(format!("its call stack could not be captured: {}", text(&error)))
                }
                (Err(error), Phase::Rewinding) => {
                    Exit::CannotStart(format!("its call stack is damaged: {}", text(&error)))
                }
            };
            return exit;
        }
    }

    /// Takes the state of the program, which has been unwound, and begins to rewind it.
    fn stand_still(&mut self) -> wasmtime::Result<()> {
        let mut snapshot = Box::new(Snapshot::default());
        snapshot.stack = stack::finish_unwind(&mut self.store, self.memory)?;
        snapshot.globals = state::encode(&globals::read(&mut self.store, &self.instance));
        let (memory, host) = self.memory.data_and_store_mut(&mut self.store);
        snapshot.memory_size = memory.len() as u64;
        snapshot.pages = host.recorder.buffer();
        host.capture(self.module_hash, &mut snapshot);
        let image = match self.tracker.kind() {
            Tracking::Userfault => Image::empty(),
            Tracking::Compare => host.recorder.image(),
        };
        let before = image.space(capture::MEMORY);
        let is_same = |page, bytes: &[u8]| restore::is_same(before, page, bytes);
        self.tracker.take(memory, is_same, &mut snapshot.changed);
        snapshot.copy_pages(memory);
        let frames = std::mem::take(&mut snapshot.stack);
        stack::rewind(&mut self.store, self.memory, &frames)?;
        snapshot.stack = frames;
        self.store.data_mut().stack.snapshot = Some(snapshot);
        Ok(())
    }

    /// What an error of the program's call means.
    fn exit(&self, error: &wasmtime::Error) -> Exit {
        match error.downcast_ref::<End>() {
            Some(End::Stopped) => return Exit::Stopped,
            Some(End::Status(status)) => return Exit::Status(*status),
            Some(End::Crashed(why)) => return Exit::Crashed(why.clone()),
            None => {}
        }
        let limits = &self.store.data().limits;
        let mut why = text(error);
        if limits.refused {
            let mib = limits.memory_max >> 20;
            why = format!("{why} (it had been refused more than its {mib} MiB of memory)");
        }
        Exit::Crashed(why)
    }
}

fn fresh_host(start: &Start) -> Result<Host, String> {
    let mut files = Tree::new(start.program.files_max.0, real_time());
    let descriptors = Descriptors::fresh(start.program.port_count(), &mut files);
    host(start, Image::empty(), descriptors, files, Clocks::fresh())
}

fn restored_host(start: &Start, image: &Image) -> Result<Host, String> {
    let kept = restore::host_state(image, start.module_hash)?;
    let mut files = restore::tree(image, start.program.files_max.0)?;
    let descriptors = Descriptors::restore(kept.descriptors, &mut files)?;
    files.free_orphans();
    let clocks = Clocks::going_on_from(kept.monotonic);
    let mut host = host(start, image.clone(), descriptors, files, clocks)?;
    host.partial = kept.partial.map(Partial);
    host.waiting_since = kept.waiting_since;
    Ok(host)
}

fn host(
    start: &Start,
    image: Image,
    descriptors: Descriptors,
    files: Tree,
    clocks: Clocks,
) -> Result<Host, String> {
    let recorder = Recorder::start(image, Arc::clone(&start.shared))
        .map_err(|why| format!("no thread for its captures: {why}"))?;
    start.shared.meter.set_files(files.used());
    Ok(Host {
        shared: Arc::clone(&start.shared),
        memory: None,
        descriptors,
        files,
        clocks,
        partial: Default::default(),
        allowance: Allowance::new(),
        args: Strings(start.program.arguments()),
        environment: Strings(start.program.environment()),
        waiting_since: None,
        stack: Stack::new(),
        limits: Limits::new(start.program.memory_max.0, Arc::clone(&start.shared.meter)),
        recorder,
        restoring_since: None,
    })
}

/// An error in a few words: its cause, and where in the program it was.
fn text(error: &wasmtime::Error) -> String {
    let mut text = error.root_cause().to_string();
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let frames = backtrace.frames().iter().take(CRASH_FRAMES_MAX);
        let names = frames.map(|frame| match frame.func_name() {
            Some(name) => name.to_string(),
            None => format!("function {}", frame.func_index()),
        });
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            text = format!("{text}, in {}", names.join(" < "));
        }
    }
    text.truncate(text.floor_char_boundary(CRASH_TEXT_MAX));
    text
}
