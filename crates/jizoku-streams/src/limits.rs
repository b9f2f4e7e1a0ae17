//! Windows, sizes and times of the streams' protocol.
//!
//! What it does not know: what happens at a limit; that is written where it is enforced.
//!
//! Units: bytes, unless the name or the type says otherwise.

use jizoku_types::Span;
use jizoku_types::limits::{
    FRAME_BODY_MAX, INPUT_WINDOW, NODES_MAX, OUTPUT_WINDOW, STREAM_CHUNK_MAX,
};

/// Stream bytes in one message at most. A fast stream is cut into several.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
const _: () = assert!(STREAM_CHUNK_MAX <= MESSAGE_BYTES_MAX, "one chunk must fit a message");
/// Parts of one message at most, beside an attach's list.
pub const MESSAGE_FRAMES_MAX: usize = 4096;
/// Longest encoding of a part without its bytes: four numbers, an address and some flags.
const FRAME_HEAD_MAX: usize = 4 * 10 + 24;
const _: () = assert!(
    MESSAGE_BYTES_MAX + MESSAGE_FRAMES_MAX * FRAME_HEAD_MAX + 4096 <= FRAME_BODY_MAX,
    "a message must fit its frame"
);

/// Gateways that one instance remembers, with those that are gone.
pub const GATEWAYS_MAX: usize = 2 * NODES_MAX;
/// Reigns that a state remembers. A connection whose last output is older is reset at a takeover.
pub const LINEAGE_MAX: usize = 32;
/// Captures that may wait for their commit; older ones are then told with the next.
pub const CAPTURES_MAX: usize = 64;
/// Marks of one connection that tell which checkpoint covers which output. Beyond that the
/// oldest bytes count as covered by the next newer mark, which is late but safe.
pub const COVERS_MAX: usize = 16;

/// Input that one gateway keeps for one service, before only small shares are read.
pub const INPUT_TOTAL_MAX: usize = 64 << 20;
/// Unconfirmed output of one instance, before its program may write small shares only.
pub const OUTPUT_TOTAL_MAX: usize = 64 << 20;
/// What each connection may keep although the total is used up.
pub const SHARE_MIN: usize = 4 << 10;

/// Time to the first repetition of an attach; doubles up to [`ATTACH_EVERY`].
pub const ATTACH_FIRST: Span = Span::millis(25);
/// Time between repetitions of an attach.
pub const ATTACH_EVERY: Span = Span::millis(200);
/// How long a gateway collects confirmations before it sends them alone.
pub const CONFIRM_AFTER: Span = Span::millis(5);
/// How long an end waits for something to say before it acknowledges with an empty message.
pub const ACK_AFTER: Span = Span::millis(40);
/// How long an end waits for an acknowledgement before it asks; doubles up to [`PROBE_MAX`].
pub const PROBE_AFTER: Span = Span::millis(200);
/// Longest time between two questions for an acknowledgement.
pub const PROBE_MAX: Span = Span::millis(3200);

/// The sizes that both ends are built with; tests make them small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Input that a gateway keeps for one connection.
    pub input_window: usize,
    /// Output that an instance keeps unconfirmed for one connection.
    pub output_window: usize,
    /// Largest slice of a stream in one part of a message.
    pub chunk: usize,
    /// Input that a gateway keeps for all connections of a service.
    pub input_total: usize,
    /// Output that an instance keeps unconfirmed for all connections.
    pub output_total: usize,
    /// What each connection may keep although the total is used up.
    pub share: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            input_window: INPUT_WINDOW,
            output_window: OUTPUT_WINDOW,
            chunk: STREAM_CHUNK_MAX,
            input_total: INPUT_TOTAL_MAX,
            output_total: OUTPUT_TOTAL_MAX,
            share: SHARE_MIN,
        }
    }
}
