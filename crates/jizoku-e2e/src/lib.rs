//! L5: the thin ring of tests with real processes, real sockets and real clients.
//!
//! - [`build`]: the programs under test: `jizoku` itself and the guests of `examples/`
//! - [`cluster`]: agents as processes, driven by the command line
//! - [`spaces`]: network namespaces, to cut links in
//! - [`timeline`]: what a failed test shows
//! - [`resp`]: connections that stay open and check every answer, and load made of them
//! - [`clients`]: programs that others wrote: redis-cli, curl, python3
//!
//! What it does not know: anything that a user could not know. It reads what the command line
//! prints and what clients are sent, nothing else. What can be said without processes is said by
//! the simulator and the crates' own tests.
//!
//! Invariants
//! - Whatever a test starts ends with it, also when it panics.
//! - Two runs on one machine don't meet: each cluster claims a network of its own in 127.1/16.
//! - A test waits for what it wants to see, never for time to pass; where time is the subject
//!   the test says so.

#![forbid(unsafe_code)]

pub mod build;
pub mod clients;
pub mod cluster;
pub mod resp;
pub mod spaces;
pub mod timeline;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often something that is waited for is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Lets one test at a time go on: each needs the machine for itself.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that could harm the next.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks until there is something.
///
/// # Panics
/// If there is nothing in time.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < within, "no sign of this within {within:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
