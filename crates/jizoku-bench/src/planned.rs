//! A service is moved on purpose: for how long does nobody answer, and do connections stay?
//!
//! One connection asks all the time; the longest time between two of its answers counts, from the
//! order on. Seven more are open, ask nothing meanwhile, and are asked after each move.

use std::time::{Duration, Instant};

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use serde_json::json;

use crate::Bench;
use crate::clients::Recorder;
use crate::figure::{Figure, Limit};
use crate::stage::{Place, Stage, conditions};

pub(crate) const BENCH: Bench = Bench {
    name: "move",
    what: "planned move of 64 MiB: how long nobody answers",
    seconds: 130,
    run,
};
const MOVES: usize = 20;
const OTHERS: usize = 7;

fn run() -> Vec<Figure> {
    let stage = Stage::new(Cluster::empty());
    Place::ALL.map(|place| measure(&stage, place)).into()
}

fn measure(stage: &Stage, place: Place) -> Figure {
    let [one, other] = stage.gateways();
    let recorder = Recorder::start(one);
    let open = |number| Connection::open([one, other][number % 2]).expect("it can be reached");
    let mut others: Vec<Connection> = (0..OTHERS).map(open).collect();
    let mut samples = Vec::new();
    for round in 1..=MOVES {
        let roles = stage.arrange(place);
        let to = Stage::runners().find(|node| *node != roles.active).expect("three run");
        recorder.begin(50);
        let began = Instant::now();
        stage.cluster.must(roles.active, &["move", "kv", "--to", &cluster::name(to)]);
        let longest = recorder.longest(began, 50, Duration::from_millis(500));
        samples.push(longest.as_secs_f64() * 1000.0);
        eprintln!("bench: move {round} of {MOVES}, {}: {longest:?}", place.text());
        for (number, connection) in others.iter_mut().enumerate() {
            let key = format!("other-{place:?}-{number}");
            let answer = connection.call(&["INCR", &key]).expect("its connection is kept");
            assert_eq!(answer, round.to_string(), "a write was lost or done twice");
        }
    }
    let answers = recorder.finish();
    let what = "`jizoku move`; 8 connections, one of them busy, none broke";
    Figure::new("longest time between two answers", "ms", samples, Limit::Most(50.0, 10.0))
        .under(&conditions(what, place))
        .with(json!({ "place": place.text(), "answers": answers, "broken": 0 }))
}
