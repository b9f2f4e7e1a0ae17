//! Mistakes that a test can plant, to show that the checks would find them.
//!
//! Without the feature `faults` nothing can be planted, and asking costs nothing.
//!
//! What it does not know: what the mistakes do; each is made where it would be made.

/// A known mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A holder takes messages of an epoch below the one that it is sealed for.
    TakesOldEpoch,
    /// A holder folds what isn't committed into its ready image.
    FoldsUncommitted,
    /// A holder keeps what is above an adopted checkpoint.
    AdoptKeepsLater,
    /// A holder with `durable = "disk"` acknowledges before the flush.
    AcksBeforeFlush,
    /// A holder with `durable = "disk"` reports before its seal is on disk.
    ReportsBeforeFlush,
    /// The active node commits although one required holder hasn't acknowledged.
    CommitsWithoutOne,
    /// The active node doesn't wait for a holder that is being added.
    JoiningNotAwaited,
    /// The active node counts the acknowledgements of a holder that restarted.
    CountsRestarted,
    /// A takeover trusts a holder that restarted as if it had all that it acknowledged.
    TrustsRestarted,
    /// A takeover takes the lowest report instead of the highest.
    TakesLowest,
    /// A takeover doesn't check what it fetches.
    SkipsVerification,
}

/// What is planted in one value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted(#[cfg(feature = "faults")] Option<Fault>);

impl Planted {
    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn plant(&mut self, fault: Fault) {
        #[cfg(feature = "faults")]
        {
            self.0 = Some(fault);
        }
        let _ = fault;
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
