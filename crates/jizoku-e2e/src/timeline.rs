//! What the agents print and what is done to them, on one timeline: what a failed test shows.
//! `JIZOKU_E2E_TIMELINE=FILE` appends every line to a file, also of tests that pass.
//!
//! Limit: the newest [`LINES_MAX`] lines are kept.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that are kept.
const LINES_MAX: usize = 20_000;

/// See the module's header. Clones are the same timeline.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Timeline {
    /// Adds a line that begins with the time of day, UTC.
    pub fn add(&self, who: &str, what: &str) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since.as_secs(), since.subsec_millis());
        let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        let line = format!("{h:02}:{m:02}:{s:02}.{millis:03} {who:<4} {what}");
        if let Some(file) = std::env::var_os("JIZOKU_E2E_TIMELINE") {
            let file = File::options().create(true).append(true).open(file);
            let written = file.and_then(|mut file| writeln!(file, "{line}"));
            written.expect("the file of JIZOKU_E2E_TIMELINE can be written");
        }
        lines.push_back(line);
    }

    /// Adds whatever comes from somebody, until that ends.
    pub fn follow(&self, who: String, from: impl Read + Send + 'static) {
        let timeline = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                timeline.add(&who, &String::from_utf8_lossy(&line));
            }
        });
    }

    /// The newest lines.
    pub fn newest(&self, count: usize) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = lines.iter().skip(lines.len().saturating_sub(count));
        newest.map(|line| format!("{line}\n")).collect()
    }
}
