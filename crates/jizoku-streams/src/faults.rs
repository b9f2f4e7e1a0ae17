//! One-line bugs behind a test-only switch, to prove that the checkers find them.
//!
//! What it does not know: where they are planted; each end asks `has` at the place.
//!
//! Invariant: without the feature `faults` (and outside tests) none of this is compiled.

use core::ops::BitOr;

/// A set of planted bugs; empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// No bug.
    pub const NONE: Faults = Faults(0);
    /// Once its window has moved, the gateway sends input from one byte too far, under the right
    /// offset.
    pub const GATEWAY_FORGETS_OFFSET: Faults = Faults(1);
    /// The gateway gives `held` output to the client at once.
    pub const GATEWAY_RELEASES_EARLY: Faults = Faults(1 << 1);
    /// The captured state lacks the unconfirmed output.
    pub const CAPTURE_FORGETS_OUTPUT: Faults = Faults(1 << 2);
    /// The gateway keeps uncommitted output across a takeover.
    pub const GATEWAY_KEEPS_UNCOMMITTED: Faults = Faults(1 << 3);
    /// The instance takes messages that were meant for another epoch.
    pub const INSTANCE_TAKES_ANY_EPOCH: Faults = Faults(1 << 4);
    /// The gateway takes messages of a replaced instance.
    pub const GATEWAY_TAKES_ANY_EPOCH: Faults = Faults(1 << 5);
    /// Input is dropped when it is consumed, not when that is committed.
    pub const INPUT_DROPPED_AT_CONSUMPTION: Faults = Faults(1 << 6);
    /// The gateway doesn't ask whether released output lies in the restored history.
    pub const LINEAGE_IGNORED: Faults = Faults(1 << 7);
    /// The gateway confirms output when it arrives, not when the client has it.
    pub const CONFIRMS_AT_ARRIVAL: Faults = Faults(1 << 8);
    /// Output is marked as covered by the checkpoint before.
    pub const COVER_TOO_LOW: Faults = Faults(1 << 9);
    /// An end doesn't notice that messages are missing.
    pub const GAPS_IGNORED: Faults = Faults(1 << 10);
    /// The captured state lacks that the program has ended its output.
    pub const CAPTURE_FORGETS_FIN: Faults = Faults(1 << 11);
    /// The captured state lacks which connections it has already seen.
    pub const CAPTURE_FORGETS_HIGHEST: Faults = Faults(1 << 12);

    /// All of them, with their names.
    pub const ALL: [(&'static str, Faults); 13] = [
        ("gateway forgets offset", Faults::GATEWAY_FORGETS_OFFSET),
        ("gateway releases early", Faults::GATEWAY_RELEASES_EARLY),
        ("capture forgets output", Faults::CAPTURE_FORGETS_OUTPUT),
        ("gateway keeps uncommitted", Faults::GATEWAY_KEEPS_UNCOMMITTED),
        ("instance takes any epoch", Faults::INSTANCE_TAKES_ANY_EPOCH),
        ("gateway takes any epoch", Faults::GATEWAY_TAKES_ANY_EPOCH),
        ("input dropped at consumption", Faults::INPUT_DROPPED_AT_CONSUMPTION),
        ("lineage ignored", Faults::LINEAGE_IGNORED),
        ("confirms at arrival", Faults::CONFIRMS_AT_ARRIVAL),
        ("cover too low", Faults::COVER_TOO_LOW),
        ("gaps ignored", Faults::GAPS_IGNORED),
        ("capture forgets fin", Faults::CAPTURE_FORGETS_FIN),
        ("capture forgets highest", Faults::CAPTURE_FORGETS_HIGHEST),
    ];

    /// Whether all of `fault` are in the set.
    pub const fn has(self, fault: Faults) -> bool {
        self.0 & fault.0 == fault.0 && fault.0 != 0
    }
}

impl BitOr for Faults {
    type Output = Faults;
    fn bitor(self, other: Faults) -> Faults {
        Faults(self.0 | other.0)
    }
}
