//! The cable of the active node's machine is pulled: when does a connection that was open all the
//! time get its first answer?
//!
//! Each node has a network namespace; the switch's side of its cable is set down, and the node
//! itself lives on. The time that `ip` takes to do so is part of the figure.

use std::time::Instant;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::{Connection, Load};
use jizoku_e2e::spaces;
use serde_json::json;

use crate::figure::{Figure, Limit};
use crate::stage::{Place, Stage, conditions};
use crate::{Bench, clients};

pub(crate) const BENCH: Bench = Bench {
    name: "cut",
    what: "active node's cable pulled (network namespaces, needs root): the same",
    seconds: 200,
    run,
};
const CUTS: usize = 20;
/// Connections beside the one that is timed.
const WRITERS: usize = 7;

fn run() -> Vec<Figure> {
    assert!(spaces::available(), "this bench needs root and network namespaces");
    let mut figures = Vec::new();
    spaces::within(|spaces| {
        let stage = Stage::new(Cluster::apart(spaces, 0));
        figures = Place::ALL.map(|place| measure(&stage, place)).into();
    });
    figures
}

fn measure(stage: &Stage, place: Place) -> Figure {
    let [one, other] = stage.gateways();
    let mut timed = Connection::open(one).expect("the service can be reached");
    let key = format!("timed-{place:?}");
    let writers: Vec<_> = [one, other].into_iter().cycle().take(WRITERS).collect();
    let load = Load::start(&writers);
    let mut samples = Vec::new();
    for cut in 1..=CUTS {
        load.wait_for_more(40);
        let roles = stage.arrange(place);
        let began = Instant::now();
        stage.cluster.spaces().unplug(roles.active);
        let answer = timed.call(&["INCR", &key]).expect("the connection goes on");
        let took = began.elapsed();
        assert_eq!(answer, cut.to_string(), "a write was lost or done twice");
        samples.push(took.as_secs_f64());
        eprintln!("bench: cut {cut} of {CUTS}, {}: {took:?}", place.text());
        stage.cluster.spaces().plug(roles.active);
        stage.cluster.wait_until_held("kv", 2);
    }
    let writes = clients::settle(load, other);
    let conditions = conditions("cable pulled; 8 connections, all of them busy", place);
    Figure::new("first answer on an open connection", "s", samples, Limit::Most(0.8, 0.4))
        .under(&conditions)
        .with(json!({ "place": place.text(), "acknowledged": writes, "lost": 0 }))
}
