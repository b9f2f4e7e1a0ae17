//! A node that only holds the state is killed: for how long does output stall that waits for it?
//!
//! One connection asks all the time; the longest time between two of its answers counts, from the
//! kill on.

use std::time::{Duration, Instant};

use jizoku_e2e::cluster::Cluster;
use serde_json::json;

use crate::Bench;
use crate::clients::Recorder;
use crate::figure::{Figure, Limit};
use crate::stage::{Place, Stage, conditions, strike};

pub(crate) const BENCH: Bench = Bench {
    name: "holder",
    what: "a holder killed: how long held output stalls",
    seconds: 200,
    run,
};
const KILLS: usize = 20;
/// What is looked at after a kill.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Follower,
    Leader,
}

fn run() -> Vec<Figure> {
    let mut stage = Stage::new(Cluster::empty());
    let positions = [
        (Place::Apart, Victim::Follower),
        (Place::Leader, Victim::Follower),
        (Place::Apart, Victim::Leader),
    ];
    positions.map(|(place, victim)| measure(&mut stage, place, victim)).into()
}

fn measure(stage: &mut Stage, place: Place, victim: Victim) -> Figure {
    let recorder = Recorder::start(stage.gateways()[0]);
    let mut samples = Vec::new();
    while samples.len() < KILLS {
        let roles = stage.arrange(place);
        let leads = |node: &usize| (*node == roles.leader) == (victim == Victim::Leader);
        let others = Stage::runners().filter(|node| *node != roles.active);
        let Some(holder) = others.into_iter().find(leads) else {
            // A gateway's node leads: it gives that away in a moment.
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        recorder.begin(50);
        let pid = stage.cluster.pid(holder);
        let began = Instant::now();
        strike(pid);
        let stall = recorder.longest(began, 50, LOOKED_AT);
        samples.push(stall.as_secs_f64());
        eprintln!("bench: kill {} of {KILLS}: {stall:?}", samples.len());
        stage.revive(holder);
    }
    let answers = recorder.finish();
    let who = match victim {
        Victim::Follower => "the holder doesn't lead the catalog",
        Victim::Leader => "the holder leads the catalog",
    };
    let what = format!("SIGKILL of a holder; one busy connection; {who}");
    Figure::new("longest time between two answers", "s", samples, Limit::Most(0.5, 0.2))
        .under(&conditions(&what, place))
        .with(json!({ "place": place.text(), "victim": who, "answers": answers }))
}
