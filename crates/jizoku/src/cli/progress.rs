//! A sign of life on standard error while something takes longer than a second.
//!
//! Nothing is shown for what is quick. On a terminal one line is written over and over, and wiped
//! at the end; elsewhere a line is written now and then.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is quicker than this is not spoken of.
const QUIET: Duration = Duration::from_secs(1);
/// Time between two lines where there is no terminal.
const LINES_EVERY: u64 = 5;

/// Waits for the end of something, saying what it is.
pub(super) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let began = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let mut shown = false;
    loop {
        match tokio::time::timeout(QUIET, &mut work).await {
            Ok(result) => {
                if shown && terminal {
                    say("\r\x1b[K");
                }
                return result;
            }
            Err(_) => {
                let seconds = began.elapsed().as_secs();
                if terminal {
                    say(&format!("\r\x1b[K{what} ({seconds} s)"));
                } else if !shown || seconds.is_multiple_of(LINES_EVERY) {
                    say(&format!("{what} ({seconds} s)\n"));
                }
                shown = true;
            }
        }
    }
}

fn say(text: &str) {
    let mut errors = std::io::stderr();
    // Nobody can be told that standard error is closed.
    let _ = errors.write_all(text.as_bytes()).and_then(|()| errors.flush());
}
