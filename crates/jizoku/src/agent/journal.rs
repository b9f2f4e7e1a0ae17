//! What the agent writes to its standard error for the system's journal: one line for each event
//! that a person may want to see.

use jizoku_types::Event;

/// Prints an event, unless it is of the kind that happens all the time.
pub(crate) fn print(event: &Event) {
    match event {
        Event::FirstOutput { .. } | Event::Sealed { .. } => {}
        Event::Trouble { what } => eprintln!("<4>{what}"),
        event => eprintln!("<6>{event:?}"),
    }
}
