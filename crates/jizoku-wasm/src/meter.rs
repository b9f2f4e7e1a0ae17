//! What a program uses: processor time of its threads, memory.
//!
//! What it does not know: what the threads do, who asks.
//!
//! Invariant: the time never gets less: a thread adds what it used before it ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of one instance.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    threads: Mutex<Threads>,
    memory: AtomicU64,
    files: AtomicU64,
}

#[derive(Debug, Default)]
struct Threads {
    /// The processor clocks of those that run.
    clocks: Vec<libc::clockid_t>,
    /// What those have used that have ended.
    ended: Duration,
}

/// A thread that is counted until this is dropped, on the same thread.
pub(crate) struct Metered {
    meter: Arc<Meter>,
    clock: libc::clockid_t,
}

impl Meter {
    /// Counts the calling thread from now on.
    pub(crate) fn this_thread(self: &Arc<Meter>) -> Option<Metered> {
        let mut clock = 0;
        // SAFETY: the thread is the calling one, and `clock` a valid place for its clock's number.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        if failed != 0 {
            return None;
        }
        self.lock().clocks.push(clock);
        Some(Metered { meter: Arc::clone(self), clock })
    }

    /// Processor time of all threads, those that have ended too.
    pub(crate) fn time(&self) -> Duration {
        // Under the lock no thread that is counted can end: its clock is there.
        let threads = self.lock();
        threads.clocks.iter().map(|clock| read(*clock)).sum::<Duration>() + threads.ended
    }

    /// Bytes of memory and of private files.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed) + self.files.load(Ordering::Relaxed)
    }

    pub(crate) fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_files(&self, bytes: u64) {
        self.files.store(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let mut threads = self.meter.lock();
        threads.ended += read(self.clock);
        threads.clocks.retain(|clock| *clock != self.clock);
    }
}

/// What a clock shows; nothing if there is no such clock.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write one timespec to; a clock that is gone is an error.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_threads_is_counted_and_kept() {
        let meter = Arc::new(Meter::default());
        let counted = Arc::clone(&meter);
        let work = std::thread::spawn(move || {
            let metered = counted.this_thread();
            while counted.time() < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
            drop(metered);
        });
        work.join().unwrap();
        let used = meter.time();
        assert!(used >= Duration::from_millis(5), "{used:?}");
        assert_eq!(meter.time(), used);
    }
}
