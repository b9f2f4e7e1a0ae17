//! The newest events of this agent, kept in memory, with cursors for readers that wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use jizoku_api::event::{Cursor, EventRecord, EventsAnswer};
use jizoku_types::{Event, Incarnation, Instant, NodeId};
use tokio::sync::watch;

/// Events that are kept; the oldest go first.
const KEPT_MAX: usize = 20_000;

/// The ring of events.
pub(crate) struct EventRing {
    node: NodeId,
    incarnation: Incarnation,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    /// All since the start, by type.
    counts: BTreeMap<String, u64>,
    records: VecDeque<EventRecord>,
    /// The number of the last one.
    newest: u64,
}

/// The name of an event's type, as the API has it.
fn type_of(event: &Event) -> String {
    let text = format!("{event:?}");
    let name = text.split([' ', '{', '(']).next().unwrap_or_default();
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

impl EventRing {
    pub(crate) fn new(node: NodeId, incarnation: Incarnation) -> EventRing {
        let kept = Mutex::new(Kept::default());
        EventRing { node, incarnation, kept, newest: watch::channel(0).0 }
    }

    /// Keeps one, and wakes who waits.
    pub(crate) fn add(&self, clock: Instant, event: Event) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut kept = self.kept.lock().expect("no panic while locked");
        *kept.counts.entry(type_of(&event)).or_default() += 1;
        kept.newest += 1;
        let number = kept.newest;
        if kept.records.len() == KEPT_MAX {
            kept.records.pop_front();
        }
        kept.records.push_back(EventRecord {
            cursor: Cursor { incarnation: self.incarnation, number },
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
            clock_ns: clock.as_nanos(),
            seen_by: self.node,
            event,
        });
        drop(kept);
        self.newest.send_replace(number);
    }

    /// Those after the cursor, at most `limit`, that `wanted` takes. A cursor of another
    /// incarnation counts as the beginning.
    pub(crate) fn read(
        &self,
        after: Option<Cursor>,
        limit: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> EventsAnswer {
        let same_run = after.filter(|after| after.incarnation == self.incarnation);
        let from = same_run.map_or(0, |after| after.number);
        let kept = self.kept.lock().expect("no panic while locked");
        let first = kept.records.front().map_or(kept.newest + 1, |record| record.cursor.number);
        let mut next = from.max(first.saturating_sub(1));
        let mut events = Vec::new();
        for record in kept.records.iter().filter(|record| record.cursor.number > from) {
            if events.len() == limit {
                break;
            }
            next = record.cursor.number;
            if wanted(&record.event) {
                events.push(record.clone());
            }
        }
        let next = Cursor { incarnation: self.incarnation, number: next };
        EventsAnswer { events, next, missed: after.is_some() && from + 1 < first }
    }

    /// How many there were since the start, by type.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.kept.lock().expect("no panic while locked").counts.clone()
    }

    /// Tells of newer events.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_from_its_cursor_and_learns_of_gaps() {
        let ring = EventRing::new(NodeId([1; 32]), Incarnation(3));
        for n in 0..10 {
            ring.add(Instant::from_nanos(n), Event::LeaderChanged { leader: None });
        }
        let first = ring.read(None, 4, |_| true);
        assert_eq!((first.events.len(), first.missed), (4, false));
        let rest = ring.read(Some(first.next), 100, |_| true);
        assert_eq!((rest.events.len(), rest.missed), (6, false));
        assert!(ring.read(Some(rest.next), 100, |_| true).events.is_empty());
        for n in 0..KEPT_MAX as u64 {
            ring.add(Instant::from_nanos(n), Event::LeaderChanged { leader: None });
        }
        assert!(ring.read(Some(first.next), 1, |_| true).missed);
        let expected = [("leader_changed".to_string(), KEPT_MAX as u64 + 10)];
        assert_eq!(ring.counts(), expected.into());
    }
}
