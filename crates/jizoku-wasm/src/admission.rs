//! Which modules are run: those whose whole state can be captured.
//!
//! What it does not know: how modules come to be as they must be; `jizoku-asyncify` does that.
//!
//! Invariant: a module that is admitted has no state but its one memory, its exported mutable
//! globals, its call stack, and what its host calls keep for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use wasmparser::{
    BinaryReaderError, ExternalKind, FunctionBody, GlobalType, Operator, Parser, Payload, TypeRef,
};

use crate::stack::{START_REWIND, START_UNWIND, STOP_REWIND, STOP_UNWIND};
use crate::wasi::MODULE;

/// Largest module, in bytes.
pub(crate) const MODULE_MAX: usize = 64 << 20;

/// Why a module is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More than 64 MiB.
    TooLarge,
    /// Not a module, or damaged.
    NotAModule(String),
    /// It was not instrumented, so that its call stack could not be captured: this export is
    /// missing.
    NotInstrumented(&'static str),
    /// It has no entry `_start`: a library, not a program.
    NoStart,
    /// It exports no memory called `memory`, or has another one.
    Memory,
    /// It imports this, which is not offered.
    Import(String),
    /// It has a start function, which would run again at each restore.
    StartFunction,
    /// It changes this at run time, which is not captured.
    Uncaptured(&'static str),
    /// Mutable global number such, which is not captured: it is not exported, or is no number.
    Global(u32),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::TooLarge => write!(f, "a module has at most {} MiB", MODULE_MAX >> 20),
            Refused::NotAModule(why) => write!(f, "not a WebAssembly module: {why}"),
            Refused::NotInstrumented(name) => {
                write!(f, "the module is not instrumented: it doesn't export {name}")
            }
            Refused::NoStart => f.write_str("the module exports no function _start"),
            Refused::Memory => f.write_str("the module must have one memory, exported as memory"),
            Refused::Import(name) => write!(f, "the module imports {name}, which is not offered"),
            Refused::StartFunction => f.write_str("the module has a start function"),
            Refused::Uncaptured(what) => {
                write!(f, "the module changes {what} at run time, which can't be captured")
            }
            Refused::Global(number) => write!(
                f,
                "the module's mutable global {number} can't be captured: export it, as a number"
            ),
        }
    }
}

impl std::error::Error for Refused {}

impl From<BinaryReaderError> for Refused {
    fn from(error: BinaryReaderError) -> Refused {
        Refused::NotAModule(error.to_string())
    }
}

/// What admission looks at in a module.
#[derive(Default)]
struct Survey {
    imported_functions: u32,
    globals: Vec<GlobalType>,
    exports: BTreeMap<String, (ExternalKind, u32)>,
    memories: u32,
    /// Globals that each function sets, by the function's number, of those with few.
    sets: BTreeMap<u32, BTreeSet<u32>>,
}

/// Checks that `bytes` are a module whose state can be captured. `offered`: the host calls.
pub(crate) fn check(bytes: &[u8], offered: impl Fn(&str) -> bool) -> Result<(), Refused> {
    if bytes.len() > MODULE_MAX {
        return Err(Refused::TooLarge);
    }
    let mut survey = Survey::default();
    let mut function = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } if encoding != wasmparser::Encoding::Module => {
                return Err(Refused::NotAModule("it is a component".into()));
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    let name = format!("{}.{}", import.module, import.name);
                    if import.module != MODULE || !offered(import.name) {
                        return Err(Refused::Import(name));
                    }
                    if !matches!(import.ty, TypeRef::Func(_)) {
                        return Err(Refused::Import(name));
                    }
                    survey.imported_functions += 1;
                }
                function = survey.imported_functions;
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory?;
                    if memory.shared || memory.memory64 || memory.page_size_log2.is_some() {
                        return Err(Refused::Memory);
                    }
                    survey.memories += 1;
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    survey.globals.push(global?.ty);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    survey.exports.insert(export.name.into(), (export.kind, export.index));
                }
            }
            Payload::StartSection { .. } => return Err(Refused::StartFunction),
            Payload::CodeSectionEntry(body) => {
                survey.look_at(function, &body)?;
                function += 1;
            }
            _ => {}
        }
    }
    survey.verdict()
}

impl Survey {
    fn look_at(&mut self, function: u32, body: &FunctionBody<'_>) -> Result<(), Refused> {
        let mut sets = BTreeSet::new();
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::TableSet { .. }
                | Operator::TableGrow { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. } => return Err(Refused::Uncaptured("a table")),
                Operator::DataDrop { .. } => return Err(Refused::Uncaptured("its data segments")),
                Operator::ElemDrop { .. } => {
                    return Err(Refused::Uncaptured("its element segments"));
                }
                Operator::GlobalSet { global_index } => {
                    sets.insert(global_index);
                }
                _ => {}
            }
        }
        self.sets.insert(function, sets);
        Ok(())
    }

    fn verdict(&self) -> Result<(), Refused> {
        let function = |name: &str| match self.exports.get(name) {
            Some(&(ExternalKind::Func, index)) => Some(index),
            _ => None,
        };
        for name in [START_UNWIND, STOP_UNWIND, START_REWIND, STOP_REWIND] {
            function(name).ok_or(Refused::NotInstrumented(name))?;
        }
        function("_start").ok_or(Refused::NoStart)?;
        let memory = self.exports.get("memory").map(|(kind, _)| *kind);
        if self.memories != 1 || memory != Some(ExternalKind::Memory) {
            return Err(Refused::Memory);
        }
        // The instrumentation's own globals have no meaning while the program is not unwound.
        let own = function(START_UNWIND).and_then(|index| self.sets.get(&index));
        let exported: BTreeSet<u32> = self
            .exports
            .values()
            .filter_map(|&(kind, index)| (kind == ExternalKind::Global).then_some(index))
            .collect();
        for (number, ty) in (0..).zip(&self.globals).filter(|(_, ty)| ty.mutable) {
            let is_own = own.is_some_and(|own| own.contains(&number));
            let is_number = !ty.content_type.is_reference_type();
            if !is_number || !(is_own || exported.contains(&number)) {
                return Err(Refused::Global(number));
            }
        }
        Ok(())
    }
}
