//! What running, capturing and restoring a program costs.
//!
//! `cargo bench -p jizoku-wasm` prints a table. All figures are of this machine and this moment;
//! gateway and clients run in the same process, on the thread of the benchmark.

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod support;

use std::time::{Duration, Instant};

use jizoku_types::ConnId;
use jizoku_wasm::{Engine, Settings, Tracking};

use support::guests::{Tool, example_by, example_module, tools};
use support::house::House;
use support::kv::request;

/// Keys and bytes for each value of the large server: about 64 MiB of memory.
const KEYS: usize = 52_000;
const VALUE: usize = 1000;
/// Share of its pages that are written between two captures: one in so many.
const DIRTY_SHARE: usize = 100;
const ROUNDS: usize = 40;

fn main() {
    for tracking in [Tracking::Userfault, Tracking::Compare] {
        pauses_and_restores(tracking);
    }
    for tool in tools() {
        requests(tool, Tracking::Userfault);
    }
    requests(Tool::Ours, Tracking::Compare);
}

fn pauses_and_restores(tracking: Tracking) {
    let mut house = House::new(&example_by("kv", Tool::Ours, Some(tracking)), false);
    let conn = fill(&mut house);
    let (first, _) = house.checkpoint();
    let memory = house.image.space("memory.0").expect("a program has memory").len();
    let pages = memory as usize / 4096;
    println!("\n{tracking:?}: {} MiB of memory, first capture {first}", memory >> 20);
    let mut pauses = Vec::new();
    let mut latencies = Vec::new();
    let mut blocks = 0;
    for round in 0..ROUNDS {
        touch(&mut house, conn, round, pages / DIRTY_SHARE);
        let began = Instant::now();
        let (pause, changed) = house.checkpoint();
        latencies.push(began.elapsed());
        pauses.push(Duration::from_nanos(pause.as_nanos()));
        blocks += changed;
    }
    println!("  changed blocks of one capture: {}", blocks / ROUNDS);
    show("  pause", &mut pauses);
    show("  asked until diff was there", &mut latencies);
    let mut restores = Vec::new();
    for _ in 0..10 {
        house.fail_over();
        house.until_running();
        restores.push(Duration::from_nanos(house.took.as_nanos()));
    }
    show("  restore", &mut restores);
    restores_from_ready(&mut house, tracking);
}

/// The same between two engines, each of which has laid out the memory when it takes over.
fn restores_from_ready(house: &mut House, tracking: Tracking) {
    let engines = [(); 2].map(|()| {
        let engine = Engine::new(Settings { tracking: Some(tracking) }).expect("wasmtime runs");
        let prepared = engine.prepare(&example_module("kv")).expect("an example is admitted");
        (engine, prepared)
    });
    let [mut restores, mut firsts, mut pauses, mut ahead] = <[Vec<Duration>; 4]>::default();
    for (engine, prepared) in engines.iter().cycle().take(10) {
        let began = Instant::now();
        engine.keep_ready(house.service, &house.image);
        ahead.push(began.elapsed());
        house.move_to(prepared);
        house.until_running();
        restores.push(Duration::from_nanos(house.took.as_nanos()));
        let began = Instant::now();
        let conn = house.connect(0);
        answered(house, conn, &request(&["GET", "key:000017"]), VALUE);
        firsts.push(began.elapsed());
        let (pause, _) = house.checkpoint();
        pauses.push(Duration::from_nanos(pause.as_nanos()));
    }
    show("  laying out ahead", &mut ahead);
    show("  restore of what was laid out", &mut restores);
    show("  first answer after that", &mut firsts);
    show("  pause of the first capture after that", &mut pauses);
}

fn fill(house: &mut House) -> ConnId {
    let conn = house.connect(0);
    let value = "v".repeat(VALUE);
    for start in (0..KEYS).step_by(500) {
        let mut bytes = Vec::new();
        for key in start..(start + 500).min(KEYS) {
            bytes.extend(request(&["SET", &format!("key:{key:06}"), &value]));
        }
        answered(house, conn, &bytes, 500.min(KEYS - start) * 5);
    }
    conn
}

/// Writes to as many keys, far from each other.
fn touch(house: &mut House, conn: ConnId, round: usize, count: usize) {
    let value = char::from(b'a' + (round % 26) as u8).to_string().repeat(VALUE);
    let mut bytes = Vec::new();
    for number in 0..count {
        let key = (number * 7919 + round * 31) % KEYS;
        bytes.extend(request(&["SET", &format!("key:{key:06}"), &value]));
    }
    answered(house, conn, &bytes, count * 5);
}

/// Sends requests and waits for their answers, with checkpoints when they are needed.
fn answered(house: &mut House, conn: ConnId, bytes: &[u8], answer: usize) {
    house.clients.get_mut(&conn).expect("it is connected").received.clear();
    house.send(conn, bytes);
    house.serve_until(|house| house.received(conn) >= answer);
}

fn requests(tool: Tool, tracking: Tracking) {
    const CLIENTS: usize = 16;
    let mut house = House::new(&example_by("kv", tool, Some(tracking)), false);
    house.until_running();
    println!("\n{tool:?}, {tracking:?}: {CLIENTS} clients, requests for each in one go");
    let clients: Vec<ConnId> = (0..CLIENTS).map(|_| house.connect(0)).collect();
    for depth in [1, 16] {
        let set = request(&["SET", "some:key", "some value of thirty-two bytes.."]);
        let get = request(&["GET", "some:key"]);
        let bytes: Vec<u8> = [set, get].concat().repeat(depth);
        let answer = depth * (5 + 39);
        let began = Instant::now();
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(2) {
            for &conn in &clients {
                house.clients.get_mut(&conn).expect("connected").received.clear();
                house.send(conn, &bytes);
            }
            let all =
                |house: &mut House| clients.iter().all(|&conn| house.received(conn) >= answer);
            house.serve_until(all);
            count += CLIENTS * depth * 2;
        }
        let rate = count as f64 / began.elapsed().as_secs_f64();
        println!("  {:>3} at once: {:>9.0} requests/s", 2 * depth, rate);
    }
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: least {least:.2?}, median {median:.2?}, most {most:.2?}");
}
