//! Every limit of the mesh, and what happens at it.

use std::time::Duration;

use jizoku_types::limits::FRAME_BODY_MAX;

use crate::wire::Lane;

/// How long one TCP connection may take to be established: longer than any round trip, and
/// about as long as TCP itself waits before it tries again.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long TLS and the greeting may take after that. The connection is dropped and counted.
pub(crate) const GREET_MAX: Duration = Duration::from_secs(3);
/// How long a welcomed attempt waits to be adopted, or for its other connections.
pub(crate) const ADOPT_MAX: Duration = Duration::from_secs(3);
/// How long a refused peer may take to read why.
pub(crate) const LINGER_MAX: Duration = Duration::from_millis(250);
/// The next address of a peer is tried when the one before hasn't answered for this long.
pub(crate) const STAGGER: Duration = Duration::from_millis(100);
/// Most addresses of one peer that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// Pause after the first failure to dial.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two attempts.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(2);
/// The end with the higher id dials this much later, so that both seldom dial at once.
pub(crate) const YIELD: Duration = Duration::from_millis(30);

/// Connections of one listener that may be greeting at once. The oldest is dropped for a newer
/// one: honest greetings take milliseconds.
pub(crate) const GREETINGS_MAX: usize = 256;
/// Unfinished attempts of one peer. The oldest is dropped for a newer one.
pub(crate) const ATTEMPTS_MAX: usize = 4;
/// Refusals of strangers remembered, so that each is reported once. More are counted and not
/// reported. Those of members are always reported.
pub(crate) const REPORTED_MAX: usize = 512;

/// Join requests that may wait for the owner's answer at once. More are refused.
pub(crate) const JOINS_MAX: usize = 8;
/// Join requests in a row, and how fast they may follow each other after that. More are refused.
pub(crate) const JOIN_BURST: u32 = 16;
/// One more join request is allowed each time this has gone by.
pub(crate) const JOIN_EVERY: Duration = Duration::from_millis(200);
/// How long the owner may take to answer a join request.
pub(crate) const JOIN_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest join request. A stranger sends it, so it is short.
pub const JOIN_REQUEST_MAX: usize = 16 << 10;
/// Longest answer to one.
pub const JOIN_REPLY_MAX: usize = FRAME_BODY_MAX;

/// Events that wait for the owner. More make the mesh wait before it changes any link.
pub(crate) const EVENTS_MAX: usize = 1024;
/// Connections handed over and not yet looked at. More make the greetings wait.
pub(crate) const ARRIVALS_MAX: usize = 256;

/// How long a relay holds a bulk frame for which the next node has no room. Then it is dropped,
/// so that relays that wait for each other in a ring don't wait for ever.
pub(crate) const RELAY_WAIT: Duration = Duration::from_secs(5);
/// How long a closing mesh waits for peers that have not read all that is queued for them. A dead
/// one is silent before that.
pub(crate) const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Most bytes queued for one lane of one peer. At the limit the link is broken, since the peer
/// reads too slowly; on the bulk lane the sender is told, and may wait.
pub(crate) const fn queue_limit(lane: Lane) -> usize {
    match lane {
        Lane::Control => 16 << 20,
        Lane::Streams | Lane::State => 64 << 20,
        Lane::Bulk => 8 << 20,
        Lane::Heart => 0,
    }
}
