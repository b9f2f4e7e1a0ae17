//! The second thread: makes journals anew, one after the other, beside the old ones.
//!
//! What it does not know: what is appended meanwhile; the writer adds that and puts the journal in
//! place.
//!
//! Invariant: a job that was cancelled ends at its next entry, and is reported all the same.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::{Call, Line, Source};
use crate::folder::make_folder;
use crate::journal::Journal;

/// How much is written before it is flushed, so that the last flush, for which others wait, is
/// short.
const SLICE: u64 = 4 << 20;

/// A journal to be made.
pub(super) struct Job {
    pub(super) line: Line,
    /// Told back with the result.
    pub(super) number: u64,
    /// Where the journal will be.
    pub(super) journal: PathBuf,
    pub(super) source: Source,
    pub(super) cancelled: Arc<AtomicBool>,
}

/// The thread's handle.
pub(super) struct Rewriter {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Rewriter {
    pub(super) fn start(results: Sender<Call>) -> io::Result<Rewriter> {
        let (jobs, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("state-rewriter".to_owned())
            .spawn(move || run(&receiver, &results))?;
        Ok(Rewriter { jobs: Some(jobs), thread: Some(thread) })
    }

    pub(super) fn send(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().expect("open until dropped");
        jobs.send(job).map_err(|_| io::Error::other("the rewriter has ended"))
    }
}

impl Drop for Rewriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic was printed by its thread; here nothing is left to do.
            let _ = thread.join();
        }
    }
}

fn run(jobs: &Receiver<Job>, results: &Sender<Call>) {
    for Job { line, number, journal, source, cancelled } in jobs {
        let result = make(line, &journal, source, &cancelled);
        if results.send(Call::Rewritten { line, number, result }).is_err() {
            return;
        }
    }
}

fn make(
    line: Line,
    path: &std::path::Path,
    source: Source,
    cancelled: &AtomicBool,
) -> io::Result<Journal> {
    let replaced = || io::Error::other("a newer rewrite takes its place");
    if cancelled.load(Ordering::Relaxed) {
        return Err(replaced());
    }
    make_folder(path.parent().expect("a journal is in its line's folder"))?;
    let mut fresh = Journal::create(path, line.purpose())?;
    let mut flushed = 0;
    source(&mut |entry| {
        if cancelled.load(Ordering::Relaxed) {
            return Err(replaced());
        }
        fresh.append(&[entry])?;
        if fresh.bytes() - flushed >= SLICE {
            fresh.flush()?;
            flushed = fresh.bytes();
        }
        Ok(())
    })?;
    fresh.flush()?;
    Ok(fresh)
}
