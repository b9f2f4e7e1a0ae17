//! Mistakes that the simulator can plant in a Node and its Runners, to show that its checkers
//! would find them.
//!
//! Without the feature `faults` nothing can be planted, and asking costs nothing.
//!
//! What it does not know: what the mistakes do; each is made where it would be made.

use jizoku_checkpoint::fault::Fault as CheckpointFault;
use jizoku_core::{catalog, lease, reach};

/// A known mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// In collectors and shippers.
    Checkpoint(CheckpointFault),
    /// In the catalog, as every node applies it.
    Catalog(catalog::Fault),
    /// In owners and voters of leases.
    Lease(lease::Fault),
    /// In the link states.
    Reach(reach::Fault),
    /// A Runner tells its instance that a checkpoint is committed when it was captured.
    ReleasesUncommitted,
    /// A Runner releases what it restored before the holders adopted it.
    ReleasesUnadopted,
    /// A Runner releases `held` output although too few others have it.
    CopiesIgnored,
    /// A Runner lets `free` output out without looking at its lease.
    LeaseIgnored,
    /// A Runner is told that no checkpoint was ever committed.
    BirthForgotten,
    /// A Runner is told that the whole cluster was restarted.
    ColdAlways,
    /// Recruits are added to a set before they have the state.
    AddsUnready,
    /// A Runner hears of a new set when it is proposed, not when it is there.
    SetToldEarly,
    /// A Runner whose service goes on elsewhere is not told to end.
    NotDismissed,
    /// A service whose active node was restarted counts as served.
    RestartUnseen,
    /// A service that ended is started again under the same epoch.
    RestartsInPlace,
    /// A Runner wants to be woken for a capture although one is under way.
    DeadlineStuck,
    /// A gateway is given up as soon as it can't be reached.
    GatewayGivenUpEarly,
    /// A node that judges nobody, since it was late, doesn't apply commands either.
    LateSkips,
    /// A Runner isn't told from which branch its line goes on.
    ForkForgotten,
    /// A branch that lost goes on.
    LoserGoesOn,
}

/// What is planted in one value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted(#[cfg(feature = "faults")] Option<Fault>);

impl Planted {
    #[cfg(feature = "faults")]
    pub(crate) fn plant(&mut self, fault: Fault) {
        self.0 = Some(fault);
    }

    #[cfg(feature = "faults")]
    pub(crate) fn get(self) -> Option<Fault> {
        self.0
    }

    /// Whether the mistake is to be made.
    #[inline]
    pub(crate) fn has(self, fault: Fault) -> bool {
        #[cfg(feature = "faults")]
        return self.0 == Some(fault);
        #[cfg(not(feature = "faults"))]
        {
            let _ = fault;
            false
        }
    }
}
