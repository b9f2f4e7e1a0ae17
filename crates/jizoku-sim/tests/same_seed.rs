//! The same seed gives the same run: without this no failure could be replayed.

use jizoku_sim::plan::{Choice, KINDS};
use jizoku_sim::world::World;

#[test]
fn the_same_seed_gives_the_same_trace() {
    let choice = Choice { minutes: 1, nodes: Some(3), kinds: KINDS.to_vec() };
    let run = |seed| {
        let verdict = World::new(seed, &choice, None, false).run();
        (verdict.trace, verdict.counts.events, verdict.violation)
    };
    let once = run(3);
    assert!(once.1 > 10_000, "an idle run proves nothing");
    assert_eq!(run(3), once);
    assert_ne!(run(4).0, once.0);
}
