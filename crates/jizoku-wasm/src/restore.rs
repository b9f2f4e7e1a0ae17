//! Putting a program back into the state of an image.
//!
//! What it does not know: where the image came from; it has been verified, but may still not be
//! the state of this program, so that nothing here panics on it.

use std::sync::Arc;

use jizoku_checkpoint::image::{Image, Space};
use jizoku_types::limits::BLOCK;
use wasmtime::{Instance, Memory, Store};

use crate::capture::{GLOBALS, HOST, MEMORY};
use crate::files::{self, Tree};
use crate::globals;
use crate::host::Host;
use crate::ready::Layout;
use crate::state::{self, Globals, HostState};
use crate::track::{Content, is_zero};

const WASM_PAGE: u64 = 64 << 10;
/// From this many bytes on, memory is asked for in huge pages before it is filled.
const HUGE_MIN: usize = 4 << 20;

/// What the host keeps, if it is of the program `module`.
pub(crate) fn host_state(image: &Image, module: [u8; 32]) -> Result<HostState, String> {
    let bytes = image.read_all(HOST).ok_or("the state has no host part")?;
    let state: HostState = state::decode(&bytes).ok_or("the state's host part is unreadable")?;
    if state.module != module {
        return Err("the state is of another program".into());
    }
    Ok(state)
}

/// The file tree.
pub(crate) fn tree(image: &Image, limit: u64) -> Result<Tree, String> {
    let mut lengths = [0; 3];
    for (length, name) in lengths.iter_mut().zip(files::SPACES) {
        *length = image.space(name).ok_or("the state has no files")?.len();
    }
    let read = |space: usize, at: u64| {
        let space = image.space(files::SPACES[space]);
        let block = space.zip(u32::try_from(at).ok()).and_then(|(space, at)| space.block(at));
        Arc::new(block.map_or([0; BLOCK], |block| *block.bytes()))
    };
    Tree::restore(limit, lengths, read)
        .map_err(|files::Damaged(why)| format!("the state's files are damaged: {why}"))
}

/// Gives the memory its size and its content: by mapping what was laid out, if there is something,
/// else by copying.
pub(crate) fn memory(
    store: &mut Store<Host>,
    memory: Memory,
    image: &Image,
    layout: Option<Layout>,
) -> Result<Content, String> {
    let space = image.space(MEMORY).ok_or("the state has no memory")?;
    let size = memory.data_size(&mut *store) as u64;
    if space.len() < size || !space.len().is_multiple_of(WASM_PAGE) {
        return Err("the state's memory is not of this program".into());
    }
    memory
        .grow(&mut *store, (space.len() - size) / WASM_PAGE)
        .map_err(|_| "the state's memory is more than the program may have")?;
    let bytes = memory.data_mut(store);
    let layout = layout.and_then(|layout| layout.following(image).ok());
    if let Some(layout) = layout {
        // SAFETY: a memory of wasmtime's is a private mapping that begins with a page and is
        // unmapped as a whole when the store goes. Its program does not run yet, and the store is
        // borrowed for ourselves, so that nobody else has a reference into it.
        let mapped = unsafe { layout.map_over(bytes) };
        // What failed may have left a hole: the memory can't be used any more.
        mapped.map_err(|why| format!("the state's memory can't be mapped: {why}"))?;
        return Ok(Content::Mapped);
    }
    let (first, added) = bytes.split_at_mut(size as usize);
    // Where the module has data of its own, zeros of the state must be written too.
    for (page, at) in first.chunks_exact_mut(BLOCK).zip(0..) {
        if space.block(at).is_none() && !is_zero(page) {
            page.fill(0);
        }
    }
    if added.len() >= HUGE_MIN {
        want_huge_pages(added);
    }
    for (at, block) in space.blocks() {
        let start = at as usize * BLOCK;
        bytes[start..start + BLOCK].copy_from_slice(block.bytes());
    }
    Ok(Content::Copied)
}

/// Gives the globals their values.
pub(crate) fn globals(
    store: &mut Store<Host>,
    instance: &Instance,
    image: &Image,
) -> Result<(), String> {
    let bytes = image.read_all(GLOBALS).ok_or("the state has no globals")?;
    let globals: Globals = state::decode(&bytes).ok_or("the state's globals are unreadable")?;
    if !globals::set(store, instance, &globals) {
        return Err("the state's globals are not of this program".into());
    }
    Ok(())
}

/// Whether the block at `page` of a space is `bytes`.
pub(crate) fn is_same(space: Option<&Space>, page: u32, bytes: &[u8]) -> bool {
    match space.and_then(|space| space.block(page)) {
        Some(block) => block.bytes() == bytes,
        None => is_zero(bytes),
    }
}

/// Asks for fewer and larger page faults. Only a wish: nothing depends on its being granted.
fn want_huge_pages(bytes: &mut [u8]) {
    let start = bytes.as_mut_ptr() as usize;
    let aligned = start.next_multiple_of(BLOCK);
    let length = (start + bytes.len() - aligned) / BLOCK * BLOCK;
    // SAFETY: the range lies within memory that is ours; the advice changes no content.
    unsafe { libc::madvise(aligned as *mut libc::c_void, length, libc::MADV_HUGEPAGE) };
}
