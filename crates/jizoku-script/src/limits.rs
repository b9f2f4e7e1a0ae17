//! Every limit of the language, named. What happens at a limit is an error that says so.

use jizoku_types::Span;
use jizoku_types::limits::FRAME_BODY_MAX;

/// Largest script, in bytes: it travels to its targets in one frame.
pub const SOURCE_MAX: usize = 256 << 10;
const _: () = assert!(SOURCE_MAX * 2 < FRAME_BODY_MAX, "a script and its arguments fit a frame");
/// Most problems that one check reports; with the last it says that there may be more.
pub const PROBLEMS_MAX: usize = 100;
/// Deepest nesting of expressions, blocks and steps: what parser and checker recurse by.
pub const DEPTH_MAX: u32 = 64;
/// Most parameters of a task or flow, and most fields of an event.
pub const PARAMS_MAX: usize = 32;
/// Longest name, in bytes.
pub const NAME_MAX: usize = 64;
/// Variables that one task may hold at once.
pub const LOCALS_MAX: usize = 256;
/// Longest shell text, in bytes.
pub const SHELL_MAX: usize = 64 << 10;

/// Instructions that one task may execute, host calls not counted.
pub const FUEL: u64 = 10_000_000;
/// Bytes that the values of one task may hold at once.
pub const MEMORY_MAX: usize = 8 << 20;
/// Bytes of one value.
pub const VALUE_MAX: usize = 1 << 20;
/// Host calls that one task may make.
pub const CALLS_MAX: u32 = 10_000;

/// Steps that one flow may unfold to.
pub const STEPS_MAX: usize = 1_024;
/// Tasks that one flow may start, on all nodes together.
pub const TASKS_MAX: usize = 16_384;
/// Longest time that may be named anywhere in a script.
pub const TIME_MAX: Span = Span::secs(366 * 86_400);
/// How long a step of a flow may take if it doesn't say.
pub const STEP_WITHIN: Span = Span::secs(600);
/// Shortest time between two runs of a monitor.
pub const EVERY_MIN: Span = Span::millis(100);
/// Keys (`by ...`) that one trigger follows at once.
pub const KEYS_MAX: usize = 4_096;
/// Longest text of an answer, in bytes; longer ones are cut.
pub const DETAIL_MAX: usize = 4_096;
