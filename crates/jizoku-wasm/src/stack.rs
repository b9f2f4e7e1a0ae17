//! The program's call stack: taken out for a capture, and put back, by the asyncify protocol.
//!
//! An instrumented program writes its call stack into a buffer in its own memory when it is told
//! to unwind, and reads it from one when it is told to rewind. The buffer is borrowed: it is the
//! end of the memory, whatever the program keeps there. What was there is put back before anybody
//! can see it, so the program's state is the same as if it had never been unwound.
//!
//! The buffer lies at the very end so that a stack that is too large for it traps, instead of
//! overwriting the program's data. Its size follows from the depth of the native stack.
//!
//! What it does not know: checkpoints, what the host call does that the program stands in.
//!
//! Invariants
//! - Between two host calls the phase is `Running`, and the memory holds no borrowed buffer.
//! - The stack's bytes hold no address of the buffer: they can be put back anywhere.

use std::time::Instant;

use wasmtime::{AsContextMut, Caller, Instance, Memory, TypedFunc};

use crate::capture::Snapshot;
use crate::host::Host;
use crate::wasi::errno::End;

/// Names of the functions that an instrumented module exports.
pub(crate) const START_UNWIND: &str = "asyncify_start_unwind";
pub(crate) const STOP_UNWIND: &str = "asyncify_stop_unwind";
pub(crate) const START_REWIND: &str = "asyncify_start_rewind";
pub(crate) const STOP_REWIND: &str = "asyncify_stop_rewind";

/// Two addresses at the buffer's start: where the next byte goes, and the end.
const HEADER: usize = 8;
/// Size of the buffer for a native stack of no depth.
const BUFFER_MIN: usize = 64 << 10;
/// Bytes of buffer for each byte of native stack. A native frame holds what lives across a call,
/// mostly in words of 8 bytes, and a return address; the buffer holds the same in words of 4 or 8.
/// The factor is for values that the compiler folded into one, or computes again.
const BUFFER_PER_NATIVE: usize = 16;
const ALIGNMENT: usize = 16;

/// What the program's stack is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing: the program runs.
    Running,
    /// Being written into the buffer.
    Unwinding,
    /// Being read from the buffer.
    Rewinding,
}

/// The protocol's side of one program.
pub(crate) struct Stack {
    pub(crate) phase: Phase,
    exports: Option<Exports>,
    /// Address of something in the frame that called the program: where its native stack began.
    base: usize,
    /// Where the buffer is.
    buffer: usize,
    /// What the program has there.
    borrowed: Vec<u8>,
    /// When the unwinding began.
    began: Instant,
    /// What was captured, to be handed on when the program runs again.
    pub(crate) snapshot: Option<Box<Snapshot>>,
}

#[derive(Clone)]
struct Exports {
    start_unwind: TypedFunc<u32, ()>,
    stop_unwind: TypedFunc<(), ()>,
    start_rewind: TypedFunc<u32, ()>,
    stop_rewind: TypedFunc<(), ()>,
}

impl Stack {
    pub(crate) fn new() -> Stack {
        Stack {
            phase: Phase::Running,
            exports: None,
            base: 0,
            buffer: 0,
            borrowed: Vec::new(),
            began: Instant::now(),
            snapshot: None,
        }
    }

    /// To be called once, with the program's exports.
    pub(crate) fn connect(
        mut store: impl AsContextMut<Data = Host>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        let mut store = store.as_context_mut();
        let exports = Exports {
            start_unwind: instance.get_typed_func(&mut store, START_UNWIND)?,
            stop_unwind: instance.get_typed_func(&mut store, STOP_UNWIND)?,
            start_rewind: instance.get_typed_func(&mut store, START_REWIND)?,
            stop_rewind: instance.get_typed_func(&mut store, STOP_REWIND)?,
        };
        store.data_mut().stack.exports = Some(exports);
        Ok(())
    }

    /// Notes where the native stack is, right before the program is called.
    pub(crate) fn set_base(&mut self) {
        self.base = here();
    }

    fn exports(&self) -> Exports {
        self.exports.clone().expect("connected when the program was instantiated")
    }
}

/// Begins to unwind, in the host call that `caller` made. The call must return right after.
pub(crate) fn unwind(caller: &mut Caller<'_, Host>) -> wasmtime::Result<()> {
    let memory = caller.data().memory();
    let (bytes, host) = memory.data_and_store_mut(&mut *caller);
    let depth = host.stack.base.saturating_sub(here());
    let size = (BUFFER_MIN + BUFFER_PER_NATIVE * depth).min(bytes.len());
    let buffer = (bytes.len() - size).next_multiple_of(ALIGNMENT);
    let end = bytes.len() - ALIGNMENT;
    if buffer + HEADER > end {
        return Err(End::Crashed("its memory is too small to hold its call stack".into()).into());
    }
    let stack = &mut host.stack;
    stack.began = Instant::now();
    stack.phase = Phase::Unwinding;
    stack.buffer = buffer;
    stack.borrowed.clear();
    stack.borrowed.extend_from_slice(&bytes[buffer..]);
    write_header(bytes, buffer, buffer + HEADER, end);
    let exports = stack.exports();
    exports.start_unwind.call(caller, buffer as u32)
}

/// Ends the unwinding, after the program has returned. Gives its call stack.
pub(crate) fn finish_unwind(
    mut store: impl AsContextMut<Data = Host>,
    memory: Memory,
) -> wasmtime::Result<Vec<u8>> {
    let mut store = store.as_context_mut();
    let exports = store.data().stack.exports();
    exports.stop_unwind.call(&mut store, ())?;
    let (bytes, host) = memory.data_and_store_mut(&mut store);
    let stack = &mut host.stack;
    let start = stack.buffer + HEADER;
    let cursor: [u8; 4] = bytes[stack.buffer..stack.buffer + 4].try_into().expect("4 bytes");
    let end = u32::from_le_bytes(cursor) as usize;
    if !(start..=bytes.len()).contains(&end) {
        return Err(End::Crashed("its call stack lies outside of the buffer".into()).into());
    }
    let frames = bytes[start..end].to_vec();
    bytes[stack.buffer..end].copy_from_slice(&stack.borrowed[..end - stack.buffer]);
    stack.phase = Phase::Running;
    Ok(frames)
}

/// Begins to rewind: the program is to be called from its start right after, and comes back into
/// the host call that it was unwound from.
pub(crate) fn rewind(
    mut store: impl AsContextMut<Data = Host>,
    memory: Memory,
    frames: &[u8],
) -> wasmtime::Result<()> {
    let mut store = store.as_context_mut();
    let (bytes, host) = memory.data_and_store_mut(&mut store);
    let size = (HEADER + frames.len()).next_multiple_of(ALIGNMENT) + ALIGNMENT;
    let Some(buffer) = bytes.len().checked_sub(size) else {
        return Err(End::Crashed("its memory is too small to hold its call stack".into()).into());
    };
    let end = buffer + HEADER + frames.len();
    let stack = &mut host.stack;
    stack.phase = Phase::Rewinding;
    stack.buffer = buffer;
    stack.borrowed.clear();
    stack.borrowed.extend_from_slice(&bytes[buffer..end]);
    write_header(bytes, buffer, end, end);
    bytes[buffer + HEADER..end].copy_from_slice(frames);
    let exports = stack.exports();
    exports.start_rewind.call(&mut store, buffer as u32)
}

/// Ends a rewind that has come to this host call, if there is one. Nothing of the state is
/// touched: the call is then made as if for the first time.
pub(crate) fn resume(caller: &mut Caller<'_, Host>) -> wasmtime::Result<()> {
    if caller.data().stack.phase != Phase::Rewinding {
        return Ok(());
    }
    let exports = caller.data().stack.exports();
    exports.stop_rewind.call(&mut *caller, ())?;
    let memory = caller.data().memory();
    let (bytes, host) = memory.data_and_store_mut(&mut *caller);
    let stack = &mut host.stack;
    bytes[stack.buffer..stack.buffer + stack.borrowed.len()].copy_from_slice(&stack.borrowed);
    stack.phase = Phase::Running;
    let pause = stack.began.elapsed();
    let snapshot = stack.snapshot.take();
    host.goes_on(snapshot, pause);
    Ok(())
}

fn write_header(bytes: &mut [u8], buffer: usize, cursor: usize, end: usize) {
    bytes[buffer..buffer + 4].copy_from_slice(&(cursor as u32).to_le_bytes());
    bytes[buffer + 4..buffer + HEADER].copy_from_slice(&(end as u32).to_le_bytes());
}

/// The address of something in this frame, roughly the native stack pointer.
#[inline(never)]
fn here() -> usize {
    let marker = 0u8;
    std::hint::black_box(std::ptr::from_ref(&marker)) as usize
}
