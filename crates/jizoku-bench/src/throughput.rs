//! What `held` leaves of the throughput of `free`, with 64 connections.
//!
//! redis-benchmark asks the one and the other in turn, through a node that only passes it on.

use jizoku_e2e::clients;
use serde_json::json;

use crate::Bench;
use crate::figure::{Figure, Limit, median, round};
use crate::stage::{PORT, Pair, Place};

pub(crate) const BENCH: Bench = Bench {
    name: "throughput",
    what: "throughput of held as part of free's, 64 connections",
    seconds: 90,
    run,
};
const ROUNDS: usize = 20;
const REQUESTS: &str = "10000";

fn run() -> Vec<Figure> {
    assert!(clients::installed(&["redis-benchmark"]), "this bench needs redis-benchmark");
    let pair = Pair::new();
    Place::ALL.map(|place| measure(&pair, place)).into()
}

fn measure(pair: &Pair, place: Place) -> Figure {
    let through = pair.arrange(place);
    let host = pair.cluster.host(through);
    let (mut ratios, mut of_held, mut of_free) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=ROUNDS {
        let (held, free) = (rate(&host, PORT), rate(&host, PORT + 1));
        // The first ones warm up.
        if number > 0 {
            ratios.push(held / free);
            of_held.push(held);
            of_free.push(free);
        }
    }
    let conditions = format!(
        "{}; redis-benchmark, 64 connections, {REQUESTS} times INCR a sample, held and free in \
         turn; kv (wasm, shipped defaults), two copies, on three agents, through a node that runs \
         neither",
        place.text()
    );
    Figure::new("throughput of held, of free's", "", ratios, Limit::MedianLeast(0.5, 0.8))
        .under(&conditions)
        .with(json!({ "place": place.text(), "held_per_s": round(median(&of_held)),
                      "free_per_s": round(median(&of_free)) }))
}

/// Answers a second.
fn rate(host: &str, port: u16) -> f64 {
    let port = port.to_string();
    let arguments =
        ["-h", host, "-p", &port, "-c", "64", "-n", REQUESTS, "--csv", "INCR", "throughput"];
    let output = clients::run("redis-benchmark", &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("\"INCR"));
    let number = line.and_then(|line| line.split(',').nth(1));
    let number = number.and_then(|number| number.trim_matches('"').parse().ok());
    number.unwrap_or_else(|| panic!("redis-benchmark printed {text} {output:?}"))
}
