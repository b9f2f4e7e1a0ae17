//! Why a module is refused.
//!
//! One enum for the one operation of this crate. Nothing is half done when an error is returned:
//! the input is only read. Every text says what was found, where (function index, and its name if
//! the module has a name section or exports it), and what its author can do.

use std::fmt;

/// A function of the refused module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in the function index space of the module (imports first).
    pub function: u32,
    /// Its name, from the name section or an export.
    pub name: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "function {} ({name})", self.function),
            None => write!(f, "function {}", self.function),
        }
    }
}

/// What is wrong with the memories of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryFault {
    /// There is none, so there is nowhere to keep the call stack.
    Missing,
    /// There is more than one.
    Several,
    /// It is imported.
    Imported,
    /// It is shared between threads.
    Shared,
    /// It has 64-bit addresses or pages of another size than 64 KiB.
    Unusual,
    /// It is not exported, so the host cannot save it.
    NotExported,
}

/// Why a module cannot be made snapshottable. The caller must refuse to run it as a service whose
/// state moves; trying again with the same bytes gives the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstrumentError {
    /// Not a valid core module; `offset` is in bytes from the start of the input.
    Invalid {
        /// What the validator says.
        message: String,
        /// Where it says it.
        offset: usize,
    },
    /// A component, not a core module.
    Component,
    /// An import that is not in the list of allowed ones.
    UnknownImport {
        /// Module part of the import's name.
        module: String,
        /// Field part of the import's name.
        name: String,
    },
    /// An import whose state would not be saved: a table, a mutable global, a tag.
    ImportedState {
        /// Module part of the import's name.
        module: String,
        /// Field part of the import's name.
        name: String,
        /// What kind of thing it is.
        kind: &'static str,
    },
    /// The memories are not what a snapshot needs.
    Memory(MemoryFault),
    /// Instructions or types of a proposal that cannot be snapshotted or that the pass does not
    /// know.
    Proposal {
        /// The proposal's name.
        proposal: &'static str,
        /// Where an instruction of it was found; `None` for types and sections.
        place: Option<Place>,
    },
    /// A table is written while the program runs. Tables are not part of a snapshot.
    TableWrite {
        /// The writing instruction.
        instruction: &'static str,
        /// Where it is.
        place: Place,
    },
    /// A data segment that `memory.init` reads is dropped while the program runs. Which segments
    /// are dropped is not part of a snapshot.
    DataDrop {
        /// Index of the segment.
        segment: u32,
        /// Where it is dropped.
        place: Place,
    },
    /// A mutable global holds a reference, which has no bytes to save.
    ReferenceGlobal {
        /// Index of the global.
        global: u32,
    },
    /// The module already exports a name that the instrumented module needs: it was instrumented
    /// before, or unwinds itself.
    ReservedExport {
        /// The name.
        name: String,
    },
    /// The start function can call the host. It would do so again at each restore.
    StartCallsHost {
        /// The start function.
        place: Place,
    },
    /// A tail call to a function that can reach an unwinding import: the frame that would have to
    /// be rebuilt is gone by then.
    TailCall {
        /// Where it is.
        place: Place,
    },
    /// A reference must survive a call that can unwind. It has no bytes to save.
    ReferenceAcrossCall {
        /// Where it is.
        place: Place,
    },
    /// The instrumented function would be larger than engines accept.
    TooLarge {
        /// What grows too large.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// Where.
        place: Place,
    },
}

impl fmt::Display for MemoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the module has no memory; declare one",
            Self::Several => "the module has more than one memory; build it with one",
            Self::Imported => "the memory is imported; build without --import-memory",
            Self::Shared => "the memory is shared; build without threads",
            Self::Unusual => "the memory has 64-bit addresses or unusual pages; build for wasm32",
            Self::NotExported => "the memory is not exported; export it as \"memory\"",
        })
    }
}

impl fmt::Display for InstrumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { message, offset } => {
                write!(f, "not a valid WebAssembly module: {message} (at byte {offset})")
            }
            Self::Component => write!(
                f,
                "this is a component; build a core module (for Rust: target wasm32-wasip1)"
            ),
            Self::UnknownImport { module, name } => write!(
                f,
                "import {module}.{name} is not provided; remove what needs it from the program"
            ),
            Self::ImportedState { module, name, kind } => write!(
                f,
                "import {module}.{name} is a {kind}, whose state cannot be saved; define it inside"
            ),
            Self::Memory(fault) => fault.fmt(f),
            Self::Proposal { proposal, place } => {
                write!(f, "the {proposal} proposal is used")?;
                if let Some(place) = place {
                    write!(f, " in {place}")?;
                }
                write!(f, " and cannot be snapshotted; build without it")
            }
            Self::TableWrite { instruction, place } => write!(
                f,
                "{place} writes a table ({instruction}); tables must not change while running"
            ),
            Self::DataDrop { segment, place } => write!(
                f,
                "{place} drops data segment {segment}, which memory.init reads; use active segments"
            ),
            Self::ReferenceGlobal { global } => write!(
                f,
                "global {global} is mutable and holds a reference, which cannot be saved; \
                 build without reference types"
            ),
            Self::ReservedExport { name } => write!(
                f,
                "the module already exports {name}; give the module as it was before instrumenting"
            ),
            Self::StartCallsHost { place } => write!(
                f,
                "the start section runs {place}, which can call the host, at each restore; \
                 export it as _start or _initialize instead"
            ),
            Self::TailCall { place } => write!(
                f,
                "{place} makes a tail call that can end in a host call that unwinds; \
                 build without tail calls"
            ),
            Self::ReferenceAcrossCall { place } => write!(
                f,
                "{place} keeps a reference over a call that can unwind; \
                 build without reference types"
            ),
            Self::TooLarge { what, limit, place } => {
                write!(f, "{place} would have more than {limit} {what} once instrumented; split it")
            }
        }
    }
}

impl std::error::Error for InstrumentError {}

impl From<wasmparser::Error> for InstrumentError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid { message: error.message().to_owned(), offset: error.offset() }
    }
}
