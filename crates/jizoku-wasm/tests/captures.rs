//! Captured under load, restored in a new instance: nothing is lost, doubled or different.

use jizoku_types::ConnId;
use jizoku_wasm::Tracking;

use crate::support::guests::{example, example_by, tools};
use crate::support::house::House;
use crate::support::kv::{Draw, Model, ask};

/// Clients that ask pipelined questions, and the answers that each must get.
struct Load {
    draw: Draw,
    model: Model,
    clients: Vec<(ConnId, Vec<u8>)>,
}

impl Load {
    fn new(seed: u64) -> Load {
        Load { draw: Draw(seed), model: Model::default(), clients: Vec::new() }
    }

    /// Some clients connect, and some send some requests, cut anywhere.
    fn step(&mut self, house: &mut House) {
        if self.clients.len() < 8 {
            self.clients.push((house.connect(0), Vec::new()));
        }
        for _ in 0..1 + self.draw.below(4) {
            let number = self.draw.below(self.clients.len() as u64) as usize;
            for _ in 0..1 + self.draw.below(10) {
                let (bytes, answer) = self.model.draw(&mut self.draw, number);
                let (conn, expected) = &mut self.clients[number];
                let cut = self.draw.below(bytes.len() as u64 + 1) as usize;
                house.send(*conn, &bytes[..cut]);
                if self.draw.below(8) == 0 {
                    house.pump();
                }
                house.send(*conn, &bytes[cut..]);
                expected.extend(answer);
            }
        }
    }

    fn is_answered(&self, house: &House) -> bool {
        self.clients.iter().all(|(conn, expected)| house.received(*conn) >= expected.len())
    }

    fn check(&self, house: &House) {
        for (conn, expected) in &self.clients {
            let client = &house.clients[conn];
            assert!(!client.reset && !client.ended, "{conn:?}");
            assert!(client.received == *expected, "{conn:?} got something else");
        }
    }
}

/// Steps of load with captures at arbitrary moments, and failures.
fn run(house: &mut House, load: &mut Load, steps: usize) {
    for _ in 0..steps {
        load.step(house);
        match load.draw.below(6) {
            0 | 1 => drop(house.checkpoint()),
            2 => house.pump(),
            3 if house.seq > 0 => {
                // Some of what was answered since is lost, and asked again by the gateway.
                house.fail_over();
            }
            _ => {}
        }
    }
    house.serve_until(|house| load.is_answered(house));
    load.check(house);
}

#[test]
fn held_answers_are_right_through_any_failures() {
    for tool in tools() {
        for seed in 0..6 {
            let mut house = House::new(&example_by("kv", tool, None), true);
            let mut load = Load::new(seed);
            run(&mut house, &mut load, 60);
        }
    }
}

#[test]
fn the_same_with_pages_found_by_comparing() {
    let mut house = House::new(&example_by("kv", tools()[0], Some(Tracking::Compare)), true);
    assert_eq!(house.instance.as_ref().unwrap().tracking(), Tracking::Compare);
    run(&mut house, &mut Load::new(77), 80);
}

#[test]
fn a_restored_instance_has_the_state_that_was_captured() {
    for tracking in [None, Some(Tracking::Compare)] {
        let mut house = House::new(&example_by("kv", tools()[0], tracking), true);
        let mut load = Load::new(5);
        run(&mut house, &mut load, 20);
        house.checkpoint();
        let before = house.image.clone();
        house.fail_over();
        house.until_running();
        // Right away, before any input: all that may differ is what the clock shows, and that
        // the connections know of another epoch.
        let (diff, _) = house.capture();
        for space in ["memory.0", "globals", "stack", "files", "owners", "inodes"] {
            assert!(diff.writes(space).is_empty(), "{space} differs: {tracking:?}");
        }
        assert!(before.space("memory.0").is_some_and(|memory| memory.len() >= 1 << 20));
    }
}

#[test]
fn it_is_captured_at_every_point_of_its_life() {
    let mut house = House::new(&example("kv"), false);
    for round in 0..200 {
        let conn = house.connect(0);
        house.send(conn, format!("SET k{round} {round}\r\nGET k{round}\r\n").as_bytes());
        house.checkpoint();
        let answer = format!("+OK\r\n${}\r\n{round}\r\n", round.to_string().len());
        house.until(|house| (house.received(conn) >= answer.len()).then_some(()));
        assert_eq!(house.clients[&conn].received, answer.as_bytes());
        house.finish(conn);
    }
    house.checkpoint();
    house.fail_over();
    let conn = house.connect(0);
    ask(&mut house, conn, &["DBSIZE"], ":200\r\n");
}

#[test]
fn a_busy_program_is_captured_between_two_requests() {
    let mut house = House::new(&example("kv"), false);
    let conn = house.connect(0);
    let pipelined = b"INCR n\r\n".repeat(10_000);
    for _ in 0..10 {
        house.send(conn, &pipelined);
        house.checkpoint();
    }
    house.until(|house| house.clients[&conn].received.ends_with(b":100000\r\n").then_some(()));
}

#[test]
fn tokio_goes_on_with_its_tasks_and_timers() {
    for tool in tools() {
        let mut house = House::new(&example_by("echo-tokio", tool, None), true);
        let mut draw = Draw(3);
        let mut clients: Vec<(ConnId, Vec<u8>)> = Vec::new();
        for step in 0..150 {
            if clients.len() < 10 {
                clients.push((house.connect(0), Vec::new()));
            }
            let number = draw.below(clients.len() as u64) as usize;
            let bytes = vec![step as u8; 1 + draw.below(20_000) as usize];
            let (conn, sent) = &mut clients[number];
            house.send(*conn, &bytes);
            sent.extend(bytes);
            match draw.below(5) {
                0 => drop(house.checkpoint()),
                1 if house.seq > 0 => house.fail_over(),
                _ => house.pump(),
            }
        }
        let all = |house: &mut House| {
            clients.iter().all(|(conn, sent)| house.received(*conn) >= sent.len())
        };
        house.serve_until(all);
        for (conn, sent) in &clients {
            assert!(house.clients[conn].received == *sent, "{tool:?} {conn:?}");
        }
        for (conn, _) in &clients {
            house.finish(*conn);
        }
        house.serve_until(|house| clients.iter().all(|(conn, _)| house.clients[conn].ended));
    }
}

#[test]
fn states_of_both_instrumenting_tools_are_told_apart() {
    let tools = tools();
    if tools.len() < 2 {
        return;
    }
    let mut house = House::new(&example_by("kv", tools[0], None), false);
    house.checkpoint();
    let mut other = House::new(&example_by("kv", tools[1], None), false);
    other.image = house.image.clone();
    other.seq = house.seq;
    other.fail_over();
    let exit = other.until_exit();
    assert!(matches!(&exit, jizoku_engine::Exit::CannotStart(why) if why.contains("another")));
}
