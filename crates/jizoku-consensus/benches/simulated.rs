//! What the value costs in CPU time, in virtual time: idle clusters, proposals one after the
//! other, and fail-over times. Prints figures; `cargo bench -p jizoku-consensus`.

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::{World, node};
use jizoku_consensus::Input;
use jizoku_types::Span;

/// CPU seconds that this process has used.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let nanos: f64 = stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    nanos / 1e9
}

fn idle(count: u8, minutes: u64) {
    let mut world = World::cluster(1, count);
    world.run(Span::secs(1));
    let (before, handled) = (cpu_seconds(), world.handled);
    world.run(Span::secs(60 * minutes));
    let used = cpu_seconds() - before;
    let node_minutes = f64::from(count) * minutes as f64;
    let inputs = (world.handled - handled) as f64;
    println!(
        "idle, {count} nodes: {:.2} ms of CPU for a node-minute; {:.2} node-hours per CPU second; \
         {:.0} inputs per CPU second",
        used * 1000.0 / node_minutes,
        node_minutes / 60.0 / used,
        inputs / used,
    );
}

fn proposals(count: u8, total: u64) {
    let mut world = World::cluster(2, count);
    let leader = world.leader().expect("quiet");
    let (before, handled, start) = (cpu_seconds(), world.handled, world.now);
    for _ in 0..total {
        let id = world.propose(leader);
        world.run_until("applied", Span::secs(1), |w| w.ends.contains_key(&id));
    }
    let used = cpu_seconds() - before;
    let inputs = (world.handled - handled) as f64;
    println!(
        "{total} proposals one by one, {count} nodes: {:.0} us of CPU each, {} of virtual time \
         each; {:.0} inputs per CPU second",
        used * 1e6 / total as f64,
        world.now.since(start) / total,
        inputs / used,
    );
}

fn fail_over(count: u8, hint: bool, flush_max: Span) {
    let mut spans: Vec<Span> = (0..200)
        .map(|seed| {
            let mut world = World::cluster(seed, count);
            world.weather.flush.1 = flush_max;
            world.run(Span::secs(1) + Span::millis(seed * 7));
            let leader = world.leader().expect("quiet");
            world.crash(leader);
            let start = world.now;
            if hint {
                for id in world.up() {
                    world.input(id, Input::PeerDown { node: leader });
                }
            }
            let at = world.up()[0];
            let id = world.propose(at);
            world.run_until("applied", Span::secs(5), |w| w.ends.contains_key(&id));
            world.now.since(start)
        })
        .collect();
    spans.sort();
    println!(
        "fail-over to the first commit, {count} nodes, flush up to {flush_max}{}: half {}, \
         99 of 100 {}, all {}",
        if hint { ", death known" } else { "" },
        spans[spans.len() / 2],
        spans[spans.len() * 99 / 100],
        spans[spans.len() - 1],
    );
}

fn main() {
    assert!(node(1) != node(2));
    for count in [1, 3, 5, 9] {
        idle(count, 5);
    }
    proposals(1, 2000);
    proposals(3, 2000);
    proposals(5, 2000);
    for count in [3, 5] {
        for hint in [false, true] {
            fail_over(count, hint, Span::millis(3));
        }
    }
    fail_over(5, false, Span::millis(20));
}
