//! Whether an instance takes connections, seen from inside.
//!
//! A connection to a gateway proves only that the gateway listens, and a connection through it to
//! the program would be part of the program's state: each probe would make a checkpoint of an idle
//! service. So nothing is connected. An engine sees what a probe could only guess: whether its
//! program waits for work or computes, and whether somebody waits in vain to be accepted.
//!
//! What it does not know: checks of manifests, who asks, what the program answers to a request.

use alloc::vec::Vec;
use core::fmt;

use jizoku_types::Span;

/// Signs of life of an instance at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// It has said `Running`, and not `Exited`.
    pub runs: bool,
    /// How long the program has computed without a call that could wait; zero while it waits.
    pub silent: Span,
    /// For each port: how long connections have waited there without one being accepted; zero if
    /// none waits.
    pub unaccepted: Vec<Span>,
}

/// Why an instance does not take connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It does not run yet, or no more.
    NotRunning,
    /// It has no such port.
    NoPort,
    /// It has computed for so long without looking whether there is anything to do.
    Silent(Span),
    /// Connections have waited for so long, and none was accepted.
    NotAccepting(Span),
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stuck::NotRunning => f.write_str("it does not run"),
            Stuck::NoPort => f.write_str("it has no such port"),
            Stuck::Silent(span) => {
                write!(f, "it has been busy for {} ms without a pause", span.as_millis())
            }
            Stuck::NotAccepting(span) => {
                write!(f, "it has accepted no connection for {} ms", span.as_millis())
            }
        }
    }
}

impl core::error::Error for Stuck {}

impl Pulse {
    /// Whether a client who connects to `port` now would be served, as far as can be seen from
    /// outside of the program, if it may take `patience` to be accepted.
    pub fn check(&self, port: usize, patience: Span) -> Result<(), Stuck> {
        if !self.runs {
            return Err(Stuck::NotRunning);
        }
        let waits = *self.unaccepted.get(port).ok_or(Stuck::NoPort)?;
        if self.silent > patience {
            return Err(Stuck::Silent(self.silent));
        }
        if waits > patience {
            return Err(Stuck::NotAccepting(waits));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn each_way_of_being_stuck_is_told() {
        let patience = Span::secs(1);
        let well = Pulse { runs: true, silent: Span::ZERO, unaccepted: vec![Span::millis(999)] };
        let ended = Pulse { runs: false, ..well.clone() };
        let busy = Pulse { silent: Span::secs(2), ..well.clone() };
        let deaf = Pulse { unaccepted: vec![Span::ZERO, Span::secs(3)], ..well.clone() };
        let table = [
            (&well, 0, Ok(())),
            (&well, 1, Err(Stuck::NoPort)),
            (&ended, 0, Err(Stuck::NotRunning)),
            (&busy, 0, Err(Stuck::Silent(Span::secs(2)))),
            (&deaf, 0, Ok(())),
            (&deaf, 1, Err(Stuck::NotAccepting(Span::secs(3)))),
        ];
        for (pulse, port, expected) in table {
            assert_eq!(pulse.check(port, patience), expected, "{pulse:?} {port}");
        }
    }
}
