//! Clusters of 50, 100 and 200 nodes in the simulator: what nodes say to each other, and how fast
//! all know of a death.
//!
//! The simulator counts it (`jizoku-sim --idle N`); here it is read and compared.

use std::path::Path;
use std::process::Command;

use jizoku_e2e::build;
use serde_json::{Value, json};

use crate::Bench;
use crate::figure::{Figure, Limit};

pub(crate) const BENCH: Bench = Bench {
    name: "scale",
    what: "200 nodes in the simulator: messages, bytes, time until all know of a death",
    seconds: 90,
    run,
};
const SIZES: [usize; 3] = [50, 100, 200];

fn run() -> Vec<Figure> {
    let simulator = build::program("jizoku-sim");
    // What is simulated doesn't depend on how long that takes: all at once.
    let all: Vec<Seen> = std::thread::scope(|scope| {
        let runs = SIZES.map(|nodes| {
            scope.spawn({
                let simulator = &simulator;
                move || see(simulator, nodes)
            })
        });
        runs.map(|run| run.join().expect("the simulator says something")).into()
    });
    let by_size = |of: fn(&Seen) -> Value| -> Value {
        let pairs = SIZES.iter().zip(&all).map(|(nodes, seen)| (nodes.to_string(), of(seen)));
        Value::Object(pairs.collect())
    };
    let last = all.last().expect("there are sizes");
    let conditions = "the simulator, seed 0, no services, 15 s of calm, then 20 s counted; without \
                      the mesh's own heartbeats and the headers of frames; then one node loses power";
    let figure = |what: &str, unit, value: f64, more: Value| {
        Figure::new(what, unit, vec![value], Limit::None).under(conditions).with(more)
    };
    vec![
        figure(
            "messages a node and second, 200 nodes",
            "",
            last.frames,
            json!({ "by_nodes": by_size(|seen| json!(seen.frames)) }),
        ),
        figure(
            "bytes a node and second, 200 nodes",
            "",
            last.bytes,
            json!({ "by_nodes": by_size(|seen| json!(seen.bytes)) }),
        ),
        figure(
            "until all know of a death, 200 nodes",
            "s",
            last.last,
            json!({ "by_nodes": by_size(|seen| json!({ "half": seen.half, "last": seen.last })) }),
        ),
    ]
}

fn see(simulator: &Path, nodes: usize) -> Seen {
    let output = Command::new(simulator).args(["--idle", &nodes.to_string()]).output();
    let output = output.expect("the simulator can be started");
    assert!(output.status.success(), "{nodes} nodes: {output:?}");
    Seen::read(&String::from_utf8_lossy(&output.stdout))
}

/// What the simulator said of one size.
struct Seen {
    frames: f64,
    bytes: f64,
    half: f64,
    last: f64,
}

impl Seen {
    fn read(text: &str) -> Seen {
        let mut seen = Seen { frames: 0.0, bytes: 0.0, half: f64::NAN, last: f64::NAN };
        for line in text.lines() {
            if let Some((before, after)) = line.split_once(" frames, ") {
                let frames = before.rsplit(' ').next().and_then(|number| number.parse().ok());
                let bytes = after.split(' ').next().and_then(|number| number.parse().ok());
                let (Some(frames), Some(bytes)) = (frames, bytes) else { continue };
                let (frames, bytes): (f64, f64) = (frames, bytes);
                seen.frames += frames;
                seen.bytes += bytes;
            }
            if let Some((half, last)) = line.split_once("; half after ").and_then(halves) {
                (seen.half, seen.last) = (half, last);
            }
        }
        assert!(seen.frames > 0.0 && seen.last.is_finite(), "the simulator said {text}");
        seen
    }
}

fn halves((_, rest): (&str, &str)) -> Option<(f64, f64)> {
    let (half, last) = rest.split_once(", the last after ")?;
    Some((seconds(half)?, seconds(last.trim())?))
}

/// A span as the project prints it, in seconds.
fn seconds(text: &str) -> Option<f64> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("s", 1.0)];
    let (unit, scale) = units.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn what_the_simulator_says_is_read() {
        let text = "5 nodes: all know all after 1.2s\n  Consensus: 2.5 frames, 100 bytes a node and \
                    second\n  Control: 7.5 frames, 900 bytes a node and second\n  a death: 4 of 4 \
                    know; half after 150ms, the last after 1.25s\n";
        let seen = Seen::read(text);
        assert_eq!((seen.frames, seen.bytes), (10.0, 1000.0));
        assert_eq!((seen.half, seen.last), (0.15, 1.25));
    }
}
