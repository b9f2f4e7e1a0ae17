//! Every limit of the system, named, with the relation to others that keeps it safe.
//!
//! What happens at a limit is written where the limit is enforced.

use crate::size::ByteCount;
use crate::time::Span;

/// Most nodes of a cluster.
pub const NODES_MAX: usize = 256;
/// Most services of a cluster.
pub const SERVICES_MAX: usize = 1024;
/// Longest service name, in bytes.
pub const SERVICE_NAME_MAX: usize = 63;
/// Most voters of the catalog.
pub const VOTERS_MAX: usize = 5;
/// Most holders of one service.
pub const HOLDERS_MAX: usize = 8;
/// Most published ports of one service.
pub const PORTS_MAX: usize = 16;
/// Most ends that one relayed frame passes through.
pub const HOPS_MAX: u8 = 8;

/// Largest body of one frame. A bigger thing travels in parts.
pub const FRAME_BODY_MAX: usize = 1 << 20;
/// Largest part of a checkpoint in one frame.
pub const PART_MAX: usize = 256 << 10;
const _: () = assert!(PART_MAX + 4096 <= FRAME_BODY_MAX, "a part must fit its frame");

/// Largest slice of a connection's bytes in one frame.
pub const STREAM_CHUNK_MAX: usize = 64 << 10;
const _: () = assert!(STREAM_CHUNK_MAX + 4096 <= FRAME_BODY_MAX, "a chunk must fit its frame");
/// Input that a gateway keeps for one connection before it stops reading the client.
pub const INPUT_WINDOW: usize = 1 << 20;
/// Output that an instance may have unconfirmed on one connection before it is not writable.
pub const OUTPUT_WINDOW: usize = 1 << 20;
/// Connections of one service through one gateway.
pub const CONNS_PER_GATEWAY_MAX: usize = 16_384;
/// New connections that a gateway keeps waiting for one service while it moves.
pub const CONNS_WAITING_MAX: usize = 4_096;

/// Size of a block of state: what a diff is made of.
pub const BLOCK: usize = 4096;
/// Largest state of one instance.
pub const STATE_MAX: ByteCount = ByteCount::gib(4);
/// Committed diffs that a holder keeps unfolded at most.
pub const CHAIN_MAX: usize = 64;

/// Longest time for which a lease is promised. DESIGN.md, "Fencing and time".
pub const LEASE_MAX: Span = Span::millis(400);
/// Share of the lease that its owner uses, in thousandths; the rest is for clock drift.
pub const LEASE_OWN_PERMILLE: u64 = 900;
const _: () = assert!(LEASE_OWN_PERMILLE < 1000, "the owner must stop before the voters do");
