//! The fake holds every property, and each planted mistake is found.

use std::collections::BTreeSet;

use super::*;
use crate::fake::{FakeInstance, Mistake};

struct Fake {
    mistake: Option<Mistake>,
    patience: Duration,
}

impl Subject for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            state: true,
            bounds_memory: true,
            prints: false,
            measures: false,
            sees_loops: true,
            buffers: 0,
            patience: self.patience,
        }
    }

    fn start(&self, identity: &Identity, origin: Origin, _waker: Waker) -> Box<dyn Instance> {
        Box::new(match self.mistake {
            None => FakeInstance::start_actor(identity, origin),
            Some(mistake) => FakeInstance::start_mistaken(identity, origin, mistake),
        })
    }
}

#[test]
fn the_fake_engine_conforms() {
    let fake = Fake { mistake: None, patience: Duration::from_secs(60) };
    let not_promised =
        ["lines are passed on", "its use is measured", "without state nothing is captured"];
    assert_conforms(&fake, &not_promised);
}

/// The property that must find a mistake first of all.
fn finder(mistake: Mistake) -> &'static str {
    match mistake {
        Mistake::TrustsAnyState => "a foreign or damaged state is refused",
        Mistake::EndsTwice | Mistake::GoesOnAfterEnd => "stopping twice is stopping once",
        Mistake::AnswersTwice => "a capture is answered once",
        Mistake::HidesChanges => "changes are told",
        Mistake::OldConnections | Mistake::LosesUnsent | Mistake::DoublesUnsent => {
            "it goes on elsewhere without a byte lost or doubled"
        }
        Mistake::LoopsForEver => "a loop disturbs nobody and is stopped",
        Mistake::AlwaysDirty => "without a change the diff is empty",
        Mistake::ReadsAhead => "what is not read stays with the gateway",
        Mistake::EndsWithClient => "the client's end is passed on",
        Mistake::HidesEnd => "the program's end is passed on",
        Mistake::ClockRestarts => "the clock never runs backward",
        Mistake::TimersLost => "timers go on",
        Mistake::KeepsReset => "a reset is passed on",
        Mistake::CrashIsStop => "a crash is told once, with its cause",
    }
}

#[test]
fn every_mistake_is_found() {
    let mut found = BTreeSet::new();
    for mistake in Mistake::ALL {
        // Long enough for what is right even on a busy machine, as the fake needs no time.
        let fake = Fake { mistake: Some(mistake), patience: Duration::from_secs(2) };
        let name = finder(mistake);
        let property = PROPERTIES.iter().find(|property| property.name == name);
        let property = property.expect("the finder is in the list");
        let result = property.verdict(&fake);
        assert!(result.is_err(), "{mistake:?} was not found by `{name}`");
        found.insert(name);
    }
    assert!(found.len() > 10, "too few properties find anything: {found:?}");
}
