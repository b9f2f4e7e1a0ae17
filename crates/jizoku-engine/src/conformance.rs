//! What every engine behind the contract must hold, as a list of properties.
//!
//! An engine's tests make it a [`Subject`]: it starts one program, the *actor*, which does what
//! its clients tell it by [`verb`]s. The suite talks to it through a real `GatewayEnd`, takes
//! checkpoints, loses instances and restores them. An engine that promises less than the others
//! says so by its [`Capabilities`]; what is then not asked of it is listed in the [`Report`], and
//! its test compares that list, so that nothing is left out unseen.
//!
//! What it does not know: how an engine runs programs. It uses std: threads' wakers and a clock.
//!
//! Invariant: a property is held or not held; nothing that an engine does makes the suite panic or
//! wait for ever ([`Capabilities::patience`]).

mod serving;
mod stage;
mod state;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::{Identity, Instance, Origin};

/// What a client tells the actor by its first byte. The actor serves port 0.
pub mod verb {
    /// All that follows is sent back in order; after the client's end it closes.
    pub const ECHO: u8 = b'e';
    /// All that follows is kept, and sent back after the client's end; then it closes.
    pub const KEEP: u8 = b'k';
    /// It ends its output at once, reads to the client's end, then closes.
    pub const FINISH: u8 = b'f';
    /// It reads nothing more.
    pub const DEAF: u8 = b'd';
    /// For each byte that follows it sends its monotonic clock: 8 bytes of nanoseconds.
    pub const CLOCK: u8 = b'c';
    /// After as many milliseconds as the next 4 bytes say it sends `!` and closes.
    pub const TIMER: u8 = b't';
    /// It sends how many connections it has open, this one too, as 8 bytes, and closes.
    pub const COUNT: u8 = b'n';
    /// It prints what follows up to the end of line.
    pub const PRINT: u8 = b'p';
    /// It crashes.
    pub const CRASH: u8 = b'x';
    /// It ends with the next byte as its status.
    pub const STATUS: u8 = b's';
    /// It computes without end.
    pub const LOOP: u8 = b'l';
    /// It takes memory without end.
    pub const HOG: u8 = b'm';
    // Numbers are little endian.
}

/// Called, from any thread, when an instance's `poll` has something to give.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// What an engine promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Its instances' state is captured and restored. If not, `Changed` is never said, captures
    /// are empty, and output is always `free`.
    pub state: bool,
    /// Memory is limited: a program that takes more crashes.
    pub bounds_memory: bool,
    /// Lines that the program prints are passed on.
    pub prints: bool,
    /// Processor time is measured.
    pub measures: bool,
    /// It sees whether its program computes or waits.
    pub sees_loops: bool,
    /// Bytes of a client that may be taken although the program has not read them, beyond the
    /// gateway's window: what lies in the system's buffers.
    pub buffers: usize,
    /// What takes longer than this is taken for never.
    pub patience: Duration,
}

/// An engine under test.
pub trait Subject {
    /// What it promises.
    fn capabilities(&self) -> Capabilities;
    /// Starts the actor.
    fn start(&self, identity: &Identity, origin: Origin, waker: Waker) -> Box<dyn Instance>;
}

/// What the suite found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the properties that hold.
    pub held: Vec<&'static str>,
    /// Those that do not, with what was seen.
    pub failed: Vec<(&'static str, String)>,
    /// Those that the engine doesn't promise.
    pub not_promised: Vec<&'static str>,
}

type Check = fn(&dyn Subject) -> Result<(), String>;

/// One property: its name, who promises it, how it is checked.
struct Property {
    name: &'static str,
    promised: fn(&Capabilities) -> bool,
    check: Check,
}

impl Property {
    /// Checks it; a panic of the engine on this thread is a failure like others.
    fn verdict(&self, subject: &dyn Subject) -> Result<(), String> {
        let check = AssertUnwindSafe(|| (self.check)(subject));
        catch_unwind(check).unwrap_or_else(|_| Err(String::from("the engine panicked")))
    }
}

const fn always(name: &'static str, check: Check) -> Property {
    Property { name, promised: |_| true, check }
}

const fn with_state(name: &'static str, check: Check) -> Property {
    Property { name, promised: |can| can.state, check }
}

const PROPERTIES: &[Property] = &[
    always("starts, serves and stops", serving::serves),
    always("bytes come back in order", serving::echoes),
    always("the client's end is passed on", serving::client_ends_first),
    always("the program's end is passed on", serving::program_ends_first),
    always("a reset is passed on", serving::resets),
    always("what is not read stays with the gateway", serving::window),
    always("stopping twice is stopping once", serving::stops_once),
    always("a crash is told once, with its cause", serving::crashes),
    always("a status is told", serving::status),
    always("a loop disturbs nobody and is stopped", serving::loops),
    always("a capture is answered once", serving::captures_once),
    always("looking at it leaves no trace", serving::pulse),
    Property {
        name: "a loop is seen",
        promised: |can| can.sees_loops,
        check: serving::loop_is_seen,
    },
    Property {
        name: "memory is limited, and its end disturbs nobody",
        promised: |can| can.bounds_memory,
        check: serving::hogs,
    },
    Property { name: "lines are passed on", promised: |can| can.prints, check: serving::prints },
    Property { name: "its use is measured", promised: |can| can.measures, check: serving::usage },
    Property {
        name: "without state nothing is captured",
        promised: |can| !can.state,
        check: serving::captures_nothing,
    },
    with_state("without a change the diff is empty", state::idle_diff),
    with_state("changes are told", state::tells_changes),
    with_state("held output waits for its commit", state::holds_output),
    with_state("it goes on in place after a capture", state::goes_on_in_place),
    with_state("it goes on elsewhere without a byte lost or doubled", state::goes_on_elsewhere),
    with_state("output is marked with the checkpoint that holds it", state::marks_output),
    with_state("ends and resets survive", state::ends_survive),
    with_state("the clock never runs backward", state::clock),
    with_state("timers go on", state::timers),
    with_state("a foreign or damaged state is refused", state::refuses_damage),
];

/// Checks all that the engine promises.
pub fn run(subject: &dyn Subject) -> Report {
    let can = subject.capabilities();
    let mut report = Report::default();
    for property in PROPERTIES {
        if !(property.promised)(&can) {
            report.not_promised.push(property.name);
            continue;
        }
        match property.verdict(subject) {
            Ok(()) => report.held.push(property.name),
            Err(what) => report.failed.push((property.name, what)),
        }
    }
    report
}

/// Checks all that the engine promises; `not_promised` must be exactly what it doesn't.
///
/// # Panics
/// If a property does not hold, or the lists differ.
pub fn assert_conforms(subject: &dyn Subject, not_promised: &[&str]) {
    let report = run(subject);
    assert!(report.failed.is_empty(), "not held:\n{:#?}", report.failed);
    assert_eq!(report.not_promised, not_promised);
    assert_eq!(report.held.len() + not_promised.len(), PROPERTIES.len());
}
