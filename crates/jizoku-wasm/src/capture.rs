//! Captures: what is taken while the program stands still, and what becomes of it afterwards.
//!
//! While the program stands still only what changed is copied, into a [`Snapshot`]. A thread of
//! its own, the recorder, then compares, hashes and makes the diff while the program runs.
//!
//! What it does not know: how the program is stopped, how pages are tracked.
//!
//! Invariants
//! - The recorder's image is the state at the last capture, or the origin before the first.
//! - Snapshots become diffs in the order in which they were taken, each against the one before.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jizoku_checkpoint::image::{Diff, DiffBuilder, Image};
use jizoku_engine::Exit;
use jizoku_types::Span;
use jizoku_types::limits::BLOCK;

use crate::files;
use crate::instance::Shared;

/// Names of the byte spaces, beside those of the files.
pub(crate) const MEMORY: &str = "memory.0";
pub(crate) const GLOBALS: &str = "globals";
pub(crate) const STACK: &str = "stack";
pub(crate) const SOCKETS: &str = "sockets";
pub(crate) const HOST: &str = "host";

/// A page buffer that is kept for the next capture has at most this capacity.
const BUFFER_KEPT_MAX: usize = 16 << 20;

/// What was taken while the program stood still.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) seq: u64,
    pub(crate) memory_size: u64,
    /// Numbers of the pages that may have changed, ascending.
    pub(crate) changed: Vec<u32>,
    /// Their bytes, one after the other.
    pub(crate) pages: Vec<u8>,
    pub(crate) globals: Vec<u8>,
    pub(crate) stack: Vec<u8>,
    pub(crate) sockets: Vec<u8>,
    pub(crate) host: Vec<u8>,
    pub(crate) files: files::Changes,
    pub(crate) pause: Span,
}

/// The thread that makes diffs, as the program's thread sees it.
pub(crate) struct Recorder {
    snapshots: Option<SyncSender<Box<Snapshot>>>,
    /// Page buffers that were used and can be used again: memory that is already mapped.
    used: Receiver<Vec<u8>>,
    image: Arc<Mutex<Image>>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshot {
    /// Copies pages, into the buffer that is there.
    pub(crate) fn copy_pages(&mut self, memory: &[u8]) {
        self.pages.clear();
        self.pages.reserve(self.changed.len() * BLOCK);
        let mut rest = &self.changed[..];
        while let Some(&first) = rest.first() {
            // Neighbours are copied at once.
            let together = (first..).zip(rest).take_while(|(a, b)| a == *b).count();
            let start = first as usize * BLOCK;
            self.pages.extend_from_slice(&memory[start..start + together * BLOCK]);
            rest = &rest[together..];
        }
    }

    /// What changed against `base`.
    fn diff(&self, base: Image) -> Diff {
        let mut builder = DiffBuilder::new(Some(base));
        builder.resize(MEMORY, self.memory_size);
        for (&page, bytes) in self.changed.iter().zip(self.pages.chunks_exact(BLOCK)) {
            builder.block(MEMORY, page, bytes);
        }
        builder.bytes(GLOBALS, &self.globals);
        builder.bytes(STACK, &self.stack);
        builder.bytes(SOCKETS, &self.sockets);
        builder.bytes(HOST, &self.host);
        let spaces = files::SPACES.iter().zip(&self.files.lengths).zip(&self.files.blocks);
        for ((name, length), blocks) in spaces {
            builder.resize(name, *length);
            for (at, block) in blocks {
                let bytes: &[u8] = block.as_ref().map_or(&[0; BLOCK], |block| &block[..]);
                builder.block(name, *at as u32, bytes);
            }
        }
        builder.finish()
    }
}

impl Recorder {
    /// Starts the thread. `image`: what the first diff is made against.
    pub(crate) fn start(image: Image, shared: Arc<Shared>) -> std::io::Result<Recorder> {
        let image = Arc::new(Mutex::new(image));
        // One capture is under way at a time: one place is enough for the program not to wait.
        let (snapshots, incoming) = sync_channel::<Box<Snapshot>>(1);
        let (give_back, used) = channel();
        let own = Arc::clone(&image);
        let record = move || {
            let _metered = shared.meter.this_thread();
            record(&incoming, &give_back, &own, &shared);
        };
        let thread = std::thread::Builder::new().name("wasm-recorder".into()).spawn(record)?;
        Ok(Recorder { snapshots: Some(snapshots), used, image, thread: Some(thread) })
    }

    /// A buffer for pages, warm if there is one.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.used.try_recv().unwrap_or_default()
    }

    /// The state at the last capture.
    pub(crate) fn image(&self) -> Image {
        self.image.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a snapshot over.
    pub(crate) fn record(&self, snapshot: Box<Snapshot>) {
        if let Some(snapshots) = &self.snapshots {
            // It fails only if the recorder has ended, which it then has said itself.
            let _ = snapshots.send(snapshot);
        }
    }
}

impl Drop for Recorder {
    /// Waits for the last diff: `Captured` must come before `Exited`.
    fn drop(&mut self) {
        self.snapshots = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn record(
    incoming: &Receiver<Box<Snapshot>>,
    give_back: &Sender<Vec<u8>>,
    image: &Mutex<Image>,
    shared: &Shared,
) {
    for mut snapshot in incoming {
        let mut next = image.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let diff = snapshot.diff(next.clone());
        let mut pages = std::mem::take(&mut snapshot.pages);
        pages.clear();
        pages.shrink_to(BUFFER_KEPT_MAX);
        // Nobody takes it back when the program has ended.
        let _ = give_back.send(pages);
        if let Err(why) = next.apply_unrooted(&diff) {
            return shared.abort(Exit::Crashed(format!("its state can't be captured: {why}")));
        }
        *image.lock().unwrap_or_else(PoisonError::into_inner) = next;
        shared.captured(snapshot.seq, diff, snapshot.pause);
    }
}
