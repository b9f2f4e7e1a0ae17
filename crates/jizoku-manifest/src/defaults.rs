//! Every default of a manifest and of a node's config, in one place, with its reason.
//!
//! What it does not know: how the values are written in a file.

use jizoku_types::{ByteCount, Span};

/// Holders beside the active node: one may die while another is being replaced, and a service
/// on three nodes still has them all.
pub const COPIES: u8 = 2;

/// Holders without which `held` output waits: one copy elsewhere is what makes "acknowledged"
/// mean anything. 0 must be written by hand.
pub const MIN_COPIES: u8 = 1;

/// Longest time between two checkpoints of a service that changes without output waiting. With
/// `free` it is what can be lost. A capture stops the program for a fraction of a millisecond, so
/// 20 of them in a second cost it little.
pub const INTERVAL: Span = Span::millis(50);

/// How long to wait for every member of the last holder set after the whole cluster was
/// restarted: machines that lost power together boot within half a minute of each other.
pub const RESTART_WAIT: Span = Span::secs(30);

/// Branch states kept after a partition: a few states of usual size, on any disk.
pub const BRANCH_LIMIT: ByteCount = ByteCount::gib(1);

/// Linear memory of a `wasm` service: usual servers fit, and a leak is stopped before it fills
/// its holders' memory too.
pub const MEMORY: ByteCount = ByteCount::mib(256);

/// Private files of a `wasm` service: they are state, so every byte is also at each holder.
pub const FILES: ByteCount = ByteCount::mib(64);

/// Between two tries of a check: detection of a dead node doesn't need checks (heartbeats do
/// that), so this finds only programs that hang, and a second is soon enough.
pub const CHECK_EVERY: Span = Span::secs(1);

/// How long an answer to a check may take: half of the time between two tries.
pub const CHECK_TIMEOUT: Span = Span::millis(500);

/// Failures in a row that mean "does not serve": one may be a busy moment, three are not.
pub const CHECK_FAILURES: u8 = 3;

/// Expected status of an HTTP check.
pub const CHECK_STATUS: u16 = 200;

/// Path of an HTTP check.
pub const CHECK_PATH: &str = "/";

/// Port of the mesh. Not registered, not in the range that systems give to outgoing connections.
pub const MESH_PORT: u16 = 7645;

/// The agent's API socket, in the data folder.
pub const API_SOCKET: &str = "api.sock";

/// Room that the agent leaves free on its disk: without it the node refuses to be a holder.
pub const DISK_RESERVE: ByteCount = ByteCount::mib(512);

/// Shortest silence of a link that may mean a death. Below it a busy scheduler looks like one.
pub const SILENCE_MIN: Span = Span::millis(150);

/// Longest silence of a link before it counts as down, however unsteady it was before.
pub const SILENCE_MAX: Span = Span::secs(1);
