//! Tasks of a script: `true` on one other node, and on ten at once, from the moment that the
//! controller decides to send it to the moment that it knows the end. The entry that says so is
//! copied to another node before anything is sent: that is part of it.

use jizoku_e2e::cluster::{Cluster, name};
use serde_json::{Value, json};

use crate::Bench;
use crate::figure::{Figure, Limit, round};

pub(crate) const BENCH: Bench = Bench {
    name: "tasks",
    what: "tasks of scripts: one on another node, ten on ten",
    seconds: 80,
    run,
};
/// The controller, and ten others.
const NODES: usize = 11;
/// Steps of a flow, of which the first ones warm up.
const STEPS: usize = 120;
const WARM: usize = 20;

fn run() -> Vec<Figure> {
    let three = Cluster::start(3);
    let one = measure(&three, &format!("node:{}", name(1)), 1);
    drop(three);
    let cluster = Cluster::start(NODES);
    let ten = measure(&cluster, &format!("all -node:{}", name(0)), NODES - 1);
    let figure = |what: &str, samples: (Vec<f64>, f64), limit, nodes: usize| {
        let conditions = format!(
            "{nodes} agents on one machine, loopback; `command.run(\"true\")`, {STEPS} steps one \
             after the other, the first {WARM} left out; a sample is one step"
        );
        let flow = round(samples.1);
        Figure::new(what, "ms", samples.0, limit)
            .under(&conditions)
            .with(json!({ "whole_flow_with_bind_ms": flow }))
    };
    vec![
        figure("`true` on another node, ended", one, Limit::MedianMost(2.0, 0.7), 3),
        figure("ten tasks on ten nodes, all ended", ten, Limit::MedianMost(8.0, 4.0), NODES),
    ]
}

/// Milliseconds of each step's slowest task, and of the flow.
fn measure(cluster: &Cluster, target: &str, nodes: usize) -> (Vec<f64>, f64) {
    let text = format!(
        "task quick() {{ command.run(\"true\") }}\n\
         flow many {{\n    for n in range(0, {STEPS}) {{ run quick() on \"{target}\" }}\n}}\n"
    );
    let path = cluster.folder().join("tasks.jz");
    std::fs::write(&path, text).expect("a script can be written");
    let script = path.to_str().expect("paths are text");
    let out = cluster.must(0, &["--json", "run", script]);
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("lines are JSON")).collect();
    let ended = lines.iter().filter_map(|line| line.get("task"));
    let took: Vec<f64> = ended
        .filter(|task| task["state"] == "succeeded")
        .map(|task| task["took_us"].as_f64().expect("a number") / 1000.0)
        .collect();
    assert_eq!(took.len(), STEPS * nodes, "every task ends");
    // A step begins when the one before has ended: its tasks stand together.
    let steps = took.chunks(nodes).map(|step| step.iter().copied().fold(0.0, f64::max));
    let end = &lines.last().expect("there is an end")["end"];
    let whole = end["took_us"].as_f64().expect("a number") / 1000.0;
    (steps.skip(WARM).collect(), whole)
}
