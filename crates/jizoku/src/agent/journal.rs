//! What the agent writes to its standard error for the system's journal: one line for each event
//! that a person may want to see.
//!
//! A thread of its own writes: standard error may be a file on a slow disk or a pipe that nobody
//! reads, and no decision waits for those.
//!
//! Limits: [`LINES_MAX`] lines wait. Further ones are dropped; how many is written as soon as
//! there is room.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use jizoku_manifest::LogLevel;
use jizoku_types::Event;

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;

/// See the module's header.
pub(crate) struct Journal {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    level: LogLevel,
}

enum Line {
    Text(String),
    /// Everything before this was written.
    Mark(SyncSender<()>),
}

impl Journal {
    /// Starts the thread. Without one nothing is written, and the agent goes on.
    pub(crate) fn start(level: LogLevel) -> Journal {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        // Dropping the receiver makes `print` count what it drops.
        let _ = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(&waiting, &lost, &mut std::io::stderr()));
        Journal { lines, dropped, level }
    }

    /// Prints an event if the config's level wants it.
    pub(crate) fn print(&self, event: &Event) {
        let (level, text) = match event {
            // What happens all the time.
            Event::FirstOutput { .. } | Event::Sealed { .. } => {
                (LogLevel::Debug, format!("<7>{event:?}"))
            }
            Event::Trouble { what } => (LogLevel::Warn, format!("<4>{what}")),
            event => (LogLevel::Info, format!("<6>{event:?}")),
        };
        if level > self.level {
            return;
        }
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was printed so far is written, at most so long.
    pub(crate) fn finish(&self, within: Duration) {
        let (written, done) = sync_channel(1);
        if self.lines.try_send(Line::Mark(written)).is_ok() {
            // Late or not: the agent ends.
            let _ = done.recv_timeout(within);
        }
    }
}

fn write(lines: &Receiver<Line>, dropped: &AtomicU64, to: &mut dyn Write) {
    for line in lines {
        match line {
            // Nobody could be told that standard error is closed.
            Line::Text(text) => drop(writeln!(to, "{text}")),
            Line::Mark(written) => drop(written.send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(to, "<4>{lost} lines were dropped: nobody took them in time"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_counted() {
        let (lines, waiting) = sync_channel(2);
        let journal = Journal { lines, dropped: Arc::default(), level: LogLevel::Info };
        for n in 0..5 {
            let service = jizoku_types::ServiceId(1);
            let epoch = jizoku_types::Epoch::main(1);
            journal.print(&Event::FirstOutput { service, epoch });
            journal.print(&Event::Trouble { what: format!("trouble {n}") });
        }
        let Journal { lines, dropped, .. } = journal;
        drop(lines);
        let mut text = Vec::new();
        write(&waiting, &dropped, &mut text);
        let text = String::from_utf8(text).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "<4>trouble 0");
        assert_eq!(lines[1], "<4>3 lines were dropped: nobody took them in time");
        assert_eq!(lines[2], "<4>trouble 1");
    }
}
