//! What `held` adds to one answer, against `free` in the same run.
//!
//! Two services on the same nodes, one connection each through a node that only passes it on;
//! they are asked in turn.

use std::time::{Duration, Instant};

use jizoku_e2e::cluster;
use jizoku_e2e::resp::Connection;
use serde_json::json;

use crate::Bench;
use crate::figure::{Figure, Limit, median, round};
use crate::stage::{PORT, Pair, Place};

pub(crate) const BENCH: Bench =
    Bench { name: "added", what: "what held adds to one answer, one connection", seconds: 40, run };
const ROUNDS: usize = 20;
const ASKED: usize = 100;

fn run() -> Vec<Figure> {
    let pair = Pair::new();
    Place::ALL.map(|place| measure(&pair, place)).into()
}

fn measure(pair: &Pair, place: Place) -> Figure {
    let through = pair.arrange(place);
    let address = |port| pair.cluster.address(through, port);
    let open = |port| Connection::open(address(port)).expect("the service can be reached");
    let (mut held, mut free) = (open(PORT), open(PORT + 1));
    let (mut added, mut of_held, mut of_free) = (Vec::new(), Vec::new(), Vec::new());
    // The first ones warm up.
    for number in 0..=ROUNDS {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ASKED {
            with.push(ask(&mut held));
            without.push(ask(&mut free));
        }
        if number > 0 {
            added.push(median(&with) - median(&without));
            of_held.push(median(&with));
            of_free.push(median(&without));
        }
    }
    let conditions = format!(
        "{}; kv (wasm, shipped defaults) held and free, two copies, on three agents; one connection \
         each through {}, a node that runs neither; a sample is the difference of the medians of \
         {ASKED} answers each, asked in turn",
        place.text(),
        cluster::name(through)
    );
    Figure::new("held added to one answer", "ms", added, Limit::MedianMost(5.0, 1.0))
        .under(&conditions)
        .with(json!({ "place": place.text(), "held_ms": round(median(&of_held)),
                      "free_ms": round(median(&of_free)) }))
}

/// Milliseconds to an answer.
fn ask(connection: &mut Connection) -> f64 {
    let began = Instant::now();
    connection.call(&["INCR", "added"]).expect("an answer");
    let took: Duration = began.elapsed();
    took.as_secs_f64() * 1000.0
}
