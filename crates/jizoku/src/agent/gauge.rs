//! What can be read off a Runner's thread while it works: for people, and for checks.
//!
//! What it does not know: who reads it. It decides nothing.
//!
//! Invariant: a reading is of one moment; it is taken without waiting for the Runner's thread.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, MutexGuard};

use jizoku_node::runner::CheckpointStatus;
use jizoku_types::{ByteCount, CheckpointId, Incarnation, Instant, Member, NodeId, Span};
use serde::{Deserialize, Serialize};

/// Holders whose acknowledgements are shown; there are never so many at once.
const HOLDERS_MAX: usize = 64;
/// Ticks of a processor clock in a second, as /proc counts them on all Linux systems.
const TICKS_PER_SECOND: u64 = 100;

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    may_be_missing: bool,
    captured_at: Option<Instant>,
    commit: Option<Span>,
    last: Option<CheckpointStatus>,
    acknowledged: BTreeMap<(NodeId, Incarnation), CheckpointId>,
    changed: ByteCount,
    sent: ByteCount,
}

/// What an instance takes from its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Its process, if it has one of its own.
    pub(crate) pid: Option<u32>,
    /// Processor time, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Memory that it has in use, in bytes.
    pub(crate) memory_bytes: u64,
}

/// What the Runner's thread measures when it is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// What the instance takes.
    pub(crate) used: Used,
    /// For each port, why it takes no connections, seen from inside; none: it does.
    pub(crate) stuck: Vec<Option<String>>,
}

/// The last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    pub(crate) id: CheckpointId,
    /// How long ago all holders had it.
    pub(crate) age: Span,
    /// The whole state's size.
    pub(crate) size: ByteCount,
    /// What was shipped for it to each holder; nothing for what a takeover goes on from.
    pub(crate) shipped: ByteCount,
    /// How long the program stood still for it.
    pub(crate) pause: Span,
}

/// What a gauge shows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// The instance runs.
    pub(crate) running: bool,
    /// It went on from a state that may lack what was acknowledged last.
    pub(crate) may_be_missing: bool,
    /// What it takes; none: its thread did not answer in time.
    pub(crate) used: Option<Used>,
    /// From the last committed capture to its last acknowledgement.
    pub(crate) commit: Option<Span>,
    /// The last checkpoint that all holders have; none: there is none in this epoch yet.
    pub(crate) last: Option<Last>,
    /// The newest checkpoint that each holder acknowledged in this epoch.
    pub(crate) acknowledged: Vec<(Member, CheckpointId)>,
    /// Content of all blocks that changed in this epoch, as captures had them.
    pub(crate) changed: ByteCount,
    /// What was sent of that to all holders together, compressed, repetitions included.
    pub(crate) sent: ByteCount,
    /// For each port, why it takes no connections, seen from inside; none: it does.
    pub(crate) stuck: Vec<Option<String>>,
}

impl Reading {
    /// With what its thread measured.
    pub(crate) fn with(mut self, measured: Measured) -> Reading {
        self.used = Some(measured.used);
        self.stuck = measured.stuck;
        self
    }
}

impl Gauge {
    /// The instance began to run, or ended.
    pub(crate) fn set_running(&self, running: bool) {
        self.lock().running = running;
    }

    /// What it goes on from may lack what was acknowledged last.
    pub(crate) fn set_may_be_missing(&self) {
        self.lock().may_be_missing = true;
    }

    /// A capture came from the instance.
    pub(crate) fn captured(&self, now: Instant) {
        self.lock().captured_at = Some(now);
    }

    /// All holders have what this epoch goes on from.
    pub(crate) fn adopted(&self, last: CheckpointStatus) {
        // A service that begins has nothing to go on from.
        if last.id.seq > 0 {
            self.lock().last = Some(last);
        }
    }

    /// The last capture is committed.
    pub(crate) fn committed(&self, last: CheckpointStatus) {
        let mut state = self.lock();
        state.last = Some(last);
        if let Some(at) = state.captured_at.take() {
            state.commit = Some(last.at.since(at));
        }
    }

    /// What was captured and sent in this epoch so far.
    pub(crate) fn shipped(&self, changed: ByteCount, sent: ByteCount) {
        let mut state = self.lock();
        (state.changed, state.sent) = (changed, sent);
    }

    /// A holder has this checkpoint, and all before it.
    pub(crate) fn acknowledged(&self, holder: Member, id: CheckpointId) {
        let mut state = self.lock();
        let key = (holder.node, holder.incarnation);
        if state.acknowledged.len() < HOLDERS_MAX || state.acknowledged.contains_key(&key) {
            let highest = state.acknowledged.entry(key).or_default();
            *highest = id.max(*highest);
        }
    }

    /// Whether the instance runs.
    pub(crate) fn is_running(&self) -> bool {
        self.lock().running
    }

    /// What is to be seen now.
    pub(crate) fn read(&self, now: Instant) -> Reading {
        let state = self.lock();
        let CheckpointStatus { id, at, size, shipped, pause } = state.last.unwrap_or_default();
        let last = Last { id, age: now.since(at), size, shipped, pause };
        let acknowledged = state.acknowledged.iter().map(|((node, incarnation), id)| {
            (Member { node: *node, incarnation: *incarnation }, *id)
        });
        Reading {
            running: state.running,
            may_be_missing: state.may_be_missing,
            used: None,
            commit: state.commit,
            last: state.last.map(|_| last),
            acknowledged: acknowledged.collect(),
            changed: state.changed,
            sent: state.sent,
            stuck: Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }
}

/// Processor time in milliseconds, and resident memory in bytes; see proc(5). None: it ended.
pub(crate) fn of_process(pid: u32) -> (Option<u64>, Option<u64>) {
    let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    (cpu_of(&text("stat")), resident(&text("status")))
}

fn cpu_of(stat: &str) -> Option<u64> {
    // The name may hold blanks and brackets: what follows the last bracket doesn't.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) * 1000 / TICKS_PER_SECOND)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_timed_from_its_capture() {
        let gauge = Gauge::default();
        let now = Instant::from_nanos(50);
        let at = |seq, nanos| CheckpointStatus {
            id: CheckpointId { epoch: 1, seq },
            at: Instant::from_nanos(nanos),
            size: ByteCount(7),
            ..CheckpointStatus::default()
        };
        let last = |gauge: &Gauge| gauge.read(now).last.map(|last| (last.id.seq, last.age));
        gauge.adopted(at(0, 1));
        assert_eq!((gauge.read(now).commit, last(&gauge)), (None, None));
        gauge.adopted(at(3, 5));
        assert_eq!((gauge.read(now).commit, last(&gauge)), (None, Some((3, Span::nanos(45)))));
        gauge.captured(Instant::from_nanos(10));
        gauge.committed(at(4, 30));
        let commit = gauge.read(now).commit;
        assert_eq!((commit, last(&gauge)), (Some(Span::nanos(20)), Some((4, Span::nanos(20)))));
    }

    #[test]
    fn an_older_acknowledgement_changes_nothing() {
        let gauge = Gauge::default();
        let holder = Member { node: NodeId([1; 32]), incarnation: Incarnation(1) };
        let id = |seq| CheckpointId { epoch: 1, seq };
        gauge.acknowledged(holder, id(5));
        gauge.acknowledged(holder, id(4));
        assert_eq!(gauge.read(Instant::ORIGIN).acknowledged, [(holder, id(5))]);
    }

    #[test]
    fn a_process_is_looked_at() {
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_of(stat), Some(2000));
        assert_eq!(resident("Name: x\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert_eq!((cpu_of(""), resident("")), (None, None));
        let (cpu, memory) = of_process(std::process::id());
        assert!(cpu.is_some() && memory.is_some_and(|bytes| bytes > 0));
    }
}
