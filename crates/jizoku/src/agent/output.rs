//! The last lines that services wrote, kept in memory for `inspect`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use jizoku_types::ServiceId;

/// Lines that are kept for each service; the oldest go first.
const LINES_MAX: usize = 1000;

/// The rings of all services.
#[derive(Default)]
pub(crate) struct OutputRing {
    lines: Mutex<BTreeMap<ServiceId, VecDeque<String>>>,
}

impl OutputRing {
    pub(crate) fn add(&self, service: ServiceId, line: String) {
        let mut lines = self.lines.lock().expect("no panic while locked");
        let ring = lines.entry(service).or_default();
        if ring.len() == LINES_MAX {
            ring.pop_front();
        }
        ring.push_back(line);
    }

    pub(crate) fn last(&self, service: ServiceId, count: usize) -> Vec<String> {
        let lines = self.lines.lock().expect("no panic while locked");
        let ring = lines.get(&service).into_iter().flatten();
        let skip = lines.get(&service).map_or(0, VecDeque::len).saturating_sub(count);
        ring.skip(skip).cloned().collect()
    }
}
