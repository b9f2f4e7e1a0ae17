//! Makes a WebAssembly module snapshottable: while it is inside one of the listed host imports, a
//! running instance can unwind its call stack into a buffer and rewind it later, in another
//! process.
//!
//! An instance is then nothing but its memory, its globals and that buffer. [`instrument`] checks
//! that a core module has no other state (the *admission check*), exports its mutable globals, and
//! rewrites the functions that can be on the stack when an unwinding import is called. Everything
//! else is copied.
//!
//! The protocol is that of Binaryen's Asyncify, so either tool's output serves the same host:
//!
//! - The exports are `asyncify_start_unwind(ptr)`, `asyncify_stop_unwind()`,
//!   `asyncify_start_rewind(ptr)`, `asyncify_stop_rewind()` and `asyncify_get_state() -> i32`
//!   (0 normal, 1 unwinding, 2 rewinding). At `ptr` lie two `i32`: `cur`, where the next frame
//!   goes, and `end`, the byte after the buffer.
//! - To unwind: inside a listed import the host calls `start_unwind` and returns anything. When
//!   the export it had called returns, it calls `stop_unwind`; `[start of buffer, cur)` is the
//!   call stack. What the export returned then means nothing.
//! - To rewind: in an instance with the same memory and globals the host calls `start_rewind` with
//!   a buffer of the same contents, and calls the same export again with any arguments. The same
//!   import is called with the arguments it had; there the host calls `stop_rewind`, and its
//!   answer is the call's result.
//! - An instance whose buffer is too small traps while unwinding, before anything is written past
//!   `end`. Size the buffer for the deepest recursion.
//!
//! The contents of the buffer differ between tools and versions: rewind only with the very module
//! that was unwound. Between host and guest frames, only one guest stack can be unwound: an import
//! that calls back into the guest cannot be unwound through.
//!
//! It does not know wasmtime, WASI, or what a host does with the buffer. Given the same bytes and
//! options it returns the same bytes. It never panics on any input.

mod assemble;
mod binary;
mod body;
mod emit;
mod error;
mod liveness;
mod module;
mod plan;
mod reach;
mod runtime;
mod scan;

use wasmparser::{FuncValidatorAllocations, ValType};

use assemble::Additions;
use body::Body;
use liveness::Liveness;
use module::Module;
use plan::Plan;
use reach::Reach;
use runtime::Runtime;

pub use error::{InstrumentError, MemoryFault, Place};

/// Names of the exported functions of the protocol.
pub const PROTOCOL_EXPORTS: [&str; 5] = [
    "asyncify_start_unwind",
    "asyncify_stop_unwind",
    "asyncify_start_rewind",
    "asyncify_stop_rewind",
    "asyncify_get_state",
];

/// Mutable globals are exported by this and a number from 0 up.
pub const GLOBAL_EXPORT_PREFIX: &str = "__jz_g";

/// What to do with calls after which the program only traps, such as those that report a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoReturn {
    /// They can be unwound through, like all others.
    #[default]
    Unwind,
    /// An instance that is made to unwind inside such a call traps. The output is smaller and
    /// faster; a host that unwinds only where a healthy program waits loses nothing.
    Trap,
}

/// How to instrument.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The (module, name) pairs of the imports in which the host may unwind. Those that the module
    /// does not import are ignored.
    pub unwinding_imports: &'a [(&'a str, &'a str)],
    /// All imports that the host provides; any other is refused. `None` lets all pass.
    pub allowed_imports: Option<&'a [(&'a str, &'a str)]>,
    /// What to do with calls that are not expected to return.
    pub no_return: NoReturn,
}

/// Type of a value that can be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumericType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 128-bit vector.
    V128,
}

/// A mutable global of the module, which a snapshot has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedGlobal {
    /// The name it is exported by.
    pub export: String,
    /// Its index in the module.
    pub index: u32,
    /// Its type.
    pub ty: NumericType,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Functions with bodies in the input.
    pub functions: usize,
    /// Those that were rewritten.
    pub functions_transformed: usize,
    /// Calls that can be left by unwinding and entered again.
    pub sites: usize,
    /// Size of the input in bytes.
    pub bytes_before: usize,
    /// Size of the output in bytes.
    pub bytes_after: usize,
    /// The globals to save and restore, in the order of their index.
    pub globals: Vec<ExportedGlobal>,
}

/// An instrumented module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrumented {
    /// The module.
    pub wasm: Vec<u8>,
    /// What was done to it.
    pub report: Report,
}

/// Instruments the core module `wasm`.
///
/// # Errors
///
/// When the bytes are not a valid module, or the module cannot be snapshotted; the error says why,
/// where, and what to do about it.
pub fn instrument(wasm: &[u8], options: &Options<'_>) -> Result<Instrumented, InstrumentError> {
    let mut module = Module::read(wasm, options)?;
    let scan = scan::scan(&mut module)?;
    let reach = Reach::new(&module, &scan, options)?;
    let globals = exported_globals(&module);
    let mut runtime = Runtime::new(&module);
    let mut bodies = Vec::with_capacity(module.functions.len());
    let mut allocations = FuncValidatorAllocations::default();
    let mut report = Report {
        functions: module.functions.len(),
        functions_transformed: 0,
        sites: 0,
        bytes_before: wasm.len(),
        bytes_after: 0,
        globals: globals.clone(),
    };
    for function in &module.functions {
        if !reach.function(function.index) {
            bodies.push(function.body.as_bytes().to_vec());
            continue;
        }
        let through_last = options.no_return == NoReturn::Unwind;
        let (body, reused) = Body::decode(&module, &reach, function, through_last, allocations)?;
        allocations = reused;
        let sites = body.sites.len() + body.last_callees.len();
        if sites == 0 {
            bodies.push(body.bytes.to_vec());
            continue;
        }
        let plan = Plan::new(&body);
        let liveness = Liveness::new(&body);
        bodies.push(emit::rewrite(&module, &body, &plan, &liveness, &mut runtime)?);
        report.functions_transformed += 1;
        report.sites += sites;
    }
    let (functions, types) = runtime.finish();
    let wasm = assemble::assemble(&module, &Additions { types, functions, globals, bodies });
    report.bytes_after = wasm.len();
    Ok(Instrumented { wasm, report })
}

fn exported_globals(module: &Module<'_>) -> Vec<ExportedGlobal> {
    let mutable = (0..).zip(&module.globals).filter(|(_, global)| global.mutable);
    let named = mutable.enumerate().map(|(number, (index, global))| ExportedGlobal {
        export: format!("{GLOBAL_EXPORT_PREFIX}{number}"),
        index,
        ty: match global.content_type {
            ValType::I32 => NumericType::I32,
            ValType::I64 => NumericType::I64,
            ValType::F32 => NumericType::F32,
            ValType::F64 => NumericType::F64,
            ValType::V128 => NumericType::V128,
            ValType::Ref(_) => unreachable!("refused when read"),
        },
    });
    named.collect()
}
