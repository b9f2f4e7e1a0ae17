//! Memory that was laid out ahead: a restore from it is as good as any other, and faster.

use jizoku_wasm::{Engine, Prepared, Settings};

use crate::pages::fill;
use crate::support::guests::{engine, example, example_module};
use crate::support::house::House;
use crate::support::kv::ask;

/// Another node: an engine of its own, with the key-value server.
fn elsewhere() -> (Engine, Prepared) {
    let engine = Engine::new(Settings::default()).expect("wasmtime runs here");
    let prepared = engine.prepare(&example_module("kv")).expect("an example is admitted");
    (engine, prepared)
}

/// Whether this process has laid out memory mapped as the memory of a program.
fn is_mapped() -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains("memfd:jizoku-ready")
}

#[test]
fn a_restore_goes_on_from_laid_out_memory() {
    let (there, prepared) = elsewhere();
    let mut house = House::new(&example("kv"), true);
    let conn = fill(&mut house, 4_000);
    house.checkpoint();
    there.keep_ready(house.service, &house.image);
    for round in 0..5 {
        ask(&mut house, conn, &["SET", &format!("key:{round:06}"), "changed"], "+OK\r\n");
        house.checkpoint();
        if round % 2 == 0 {
            there.keep_ready(house.service, &house.image);
        }
    }
    // What was laid out is a checkpoint behind.
    ask(&mut house, conn, &["SET", "key:000017", "last"], "+OK\r\n");
    house.checkpoint();
    let before = house.image.clone();
    house.move_to(&prepared);
    house.until_running();
    assert!(is_mapped());
    let (diff, _) = house.capture();
    for space in ["memory.0", "globals", "stack", "files", "owners", "inodes"] {
        assert!(diff.writes(space).is_empty(), "{space} differs");
    }
    assert!(before.space("memory.0").is_some_and(|memory| memory.len() > 4_000_000));
    house.commit(&diff);
    for (key, value) in [(0, "changed"), (4, "changed"), (17, "last")] {
        let answer = format!("${}\r\n{value}\r\n", value.len());
        ask(&mut house, conn, &["GET", &format!("key:{key:06}")], &answer);
    }
    // It reads and writes, grows, and is captured and restored as others are.
    for key in 20..40 {
        ask(&mut house, conn, &["STRLEN", &format!("key:{key:06}")], ":1000\r\n");
    }
    ask(&mut house, conn, &["SET", "key:000018", "after"], "+OK\r\n");
    let (_, changed) = house.checkpoint();
    assert!(changed < 40, "{changed} blocks");
    fill(&mut house, 8_000);
    house.checkpoint();
    house.move_to(&example("kv"));
    ask(&mut house, conn, &["STRLEN", "key:007999"], ":1000\r\n");
}

#[test]
fn the_layout_of_another_state_does_no_harm() {
    let (there, prepared) = elsewhere();
    let mut other = House::new(&example("kv"), true);
    fill(&mut other, 3_000);
    other.checkpoint();
    let mut house = House::new(&example("kv"), true);
    let conn = house.connect(0);
    ask(&mut house, conn, &["SET", "a", "mine"], "+OK\r\n");
    house.checkpoint();
    // A larger state than the one that is restored, and none at all.
    there.keep_ready(house.service, &other.image);
    house.move_to(&prepared);
    ask(&mut house, conn, &["GET", "a"], "$4\r\nmine\r\n");
    ask(&mut house, conn, &["GET", "key:000001"], "$-1\r\n");
    house.checkpoint();
    let back = engine(None);
    back.keep_ready(house.service, &jizoku_checkpoint::image::Image::empty());
    house.move_to(&example("kv"));
    ask(&mut house, conn, &["GET", "a"], "$4\r\nmine\r\n");
}

#[test]
fn nothing_is_laid_out_beside_an_instance() {
    let (there, prepared) = elsewhere();
    let mut house = House::new(&prepared, false);
    let conn = house.connect(0);
    ask(&mut house, conn, &["SET", "a", "1"], "+OK\r\n");
    house.checkpoint();
    there.keep_ready(house.service, &house.image);
    house.fail_over();
    ask(&mut house, conn, &["GET", "a"], "$1\r\n1\r\n");
    there.forget_ready(house.service);
    there.forget_ready(house.service);
}
