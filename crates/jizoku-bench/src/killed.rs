//! The active node is killed: when does a connection that was open all the time get its first
//! answer?
//!
//! Counted from just before the signal to the end of the answer to a request that was sent right
//! after it.

use std::time::Instant;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::{Connection, Load};
use serde_json::json;

use crate::figure::{Figure, Limit};
use crate::stage::{Place, Stage, conditions, strike};
use crate::{Bench, clients};

pub(crate) const BENCH: Bench = Bench {
    name: "killed",
    what: "active node killed: first answer on an open connection",
    seconds: 200,
    run,
};
const KILLS: usize = 20;
/// Connections beside the one that is timed.
const WRITERS: usize = 7;

fn run() -> Vec<Figure> {
    let mut stage = Stage::new(Cluster::empty());
    let mut figures = Vec::new();
    let [one, other] = stage.gateways();
    let mut timed = Connection::open(one).expect("the service can be reached");
    let mut counted = 0;
    for place in Place::ALL {
        let writers: Vec<_> = [one, other].into_iter().cycle().take(WRITERS).collect();
        let load = Load::start(&writers);
        let mut samples = Vec::new();
        for kill in 1..=KILLS {
            load.wait_for_more(40);
            let roles = stage.arrange(place);
            let pid = stage.cluster.pid(roles.active);
            let began = Instant::now();
            strike(pid);
            let answer = timed.call(&["INCR", "timed"]).expect("the connection goes on");
            let took = began.elapsed();
            counted += 1;
            assert_eq!(answer, counted.to_string(), "a write was lost or done twice");
            samples.push(took.as_secs_f64());
            eprintln!("bench: kill {kill} of {KILLS}, {}: {took:?}", place.text());
            stage.revive(roles.active);
        }
        let writes = clients::settle(load, other);
        let conditions = conditions("SIGKILL; 8 connections, all of them busy", place);
        figures.push(
            Figure::new("first answer on an open connection", "s", samples, Limit::Most(0.4, 0.15))
                .under(&conditions)
                .with(json!({ "place": place.text(), "acknowledged": writes, "lost": 0 })),
        );
    }
    figures
}
