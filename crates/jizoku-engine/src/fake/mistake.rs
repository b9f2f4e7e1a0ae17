//! Mistakes that an engine could make, for the fake to make on purpose.
//!
//! They are planted only with the feature `faults`, to prove that the conformance suite finds
//! each of them.

/// A mistake of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// What is wrong with a state is found, and the program started all the same.
    TrustsAnyState,
    /// The end is told twice.
    EndsTwice,
    /// After its end it still answers.
    GoesOnAfterEnd,
    /// A capture is answered twice.
    AnswersTwice,
    /// That the state changed is not told.
    HidesChanges,
    /// The connections in the state are those of the first capture.
    OldConnections,
    /// A program that computes without end can't be stopped.
    LoopsForEver,
    /// Output that did not fit is lost from the state.
    LosesUnsent,
    /// Output that did not fit is in the state twice.
    DoublesUnsent,
    /// Everything counts as changed, always.
    AlwaysDirty,
    /// Input is taken although the program doesn't read it.
    ReadsAhead,
    /// The client's end closes the connection, whatever is still to be sent.
    EndsWithClient,
    /// The program's end of output is not passed on.
    HidesEnd,
    /// The clock begins anew after a restore.
    ClockRestarts,
    /// Timers are not part of the state.
    TimersLost,
    /// A connection that was reset stays open for the program.
    KeepsReset,
    /// A crash is told as the end that was asked for.
    CrashIsStop,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 17] = [
        Mistake::TrustsAnyState,
        Mistake::EndsTwice,
        Mistake::GoesOnAfterEnd,
        Mistake::AnswersTwice,
        Mistake::HidesChanges,
        Mistake::OldConnections,
        Mistake::LoopsForEver,
        Mistake::LosesUnsent,
        Mistake::DoublesUnsent,
        Mistake::AlwaysDirty,
        Mistake::ReadsAhead,
        Mistake::EndsWithClient,
        Mistake::HidesEnd,
        Mistake::ClockRestarts,
        Mistake::TimersLost,
        Mistake::KeepsReset,
        Mistake::CrashIsStop,
    ];
}
