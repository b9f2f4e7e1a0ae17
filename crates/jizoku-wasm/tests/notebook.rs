//! Blocking calls and files: the `notes` example.

use jizoku_types::{ByteCount, ConnId};

use crate::support::guests::{example, example_by, tools};
use crate::support::house::{House, program};

fn ask(house: &mut House, conn: ConnId, line: &str) -> String {
    let before = house.received(conn);
    house.send(conn, format!("{line}\n").as_bytes());
    let many = line.starts_with("show") || line.starts_with("list");
    house.serve_until(|house| {
        let got = &house.clients[&conn].received[before..];
        let error = got.starts_with(b"error") && got.ends_with(b"\n");
        error || if many { got.ends_with(b".\n") } else { got.ends_with(b"\n") }
    });
    String::from_utf8(house.clients[&conn].received[before..].to_vec()).unwrap()
}

#[test]
fn notes_outlive_the_instance() {
    for tool in tools() {
        let mut house = House::new(&example_by("notes", tool, None), true);
        let conn = house.connect(0);
        assert_eq!(ask(&mut house, conn, "add a first line"), "11\n");
        assert_eq!(ask(&mut house, conn, "add b other"), "6\n");
        house.fail_over();
        assert_eq!(ask(&mut house, conn, "add a second"), "18\n");
        assert_eq!(ask(&mut house, conn, "show a"), "first line\nsecond\n.\n");
        house.checkpoint();
        house.fail_over();
        assert_eq!(ask(&mut house, conn, "list"), "a\nb\n.\n");
        assert_eq!(ask(&mut house, conn, "remove a"), "removed\n");
        house.fail_over();
        assert_eq!(ask(&mut house, conn, "list"), "b\n.\n");
        assert!(ask(&mut house, conn, "show a").starts_with("error: "));
        assert!(ask(&mut house, conn, "show ../x").starts_with("error: "));
        // The next client is served when this one is gone; its bytes wait meanwhile.
        let next = house.connect(0);
        house.send(next, b"list\n");
        house.checkpoint();
        house.fail_over();
        house.finish(conn);
        house.serve_until(|house| house.clients[&next].received == b"b\n.\n");
        assert!(house.printed.iter().any(|line| line == "the notebook is open"));
        assert!(house.printed.iter().any(|line| line.starts_with("a client is gone after")));
    }
}

#[test]
fn a_full_tree_is_told_to_the_program() {
    let small = jizoku_wasm::Program { files_max: ByteCount::kib(64), ..program() };
    let mut house = House::with(&example("notes"), small, false);
    let conn = house.connect(0);
    let line = format!("add big {}", "x".repeat(20_000));
    for _ in 0..2 {
        assert!(!ask(&mut house, conn, &line).starts_with("error"));
    }
    let answer = (0..3).map(|_| ask(&mut house, conn, &line)).find(|got| got.starts_with("error"));
    assert!(answer.is_some_and(|answer| answer.contains("space")));
    assert_eq!(ask(&mut house, conn, "remove big"), "removed\n");
    assert_eq!(ask(&mut house, conn, &line), "20001\n");
}

#[test]
fn a_wait_goes_on_where_it_was() {
    let mut house = House::new(&example("notes"), true);
    let conn = house.connect(0);
    ask(&mut house, conn, "add a b");
    let began = std::time::Instant::now();
    house.send(conn, b"wait 600\n");
    let before = house.received(conn);
    // Captured and moved in the middle of its sleep, more than once: it takes as long as it takes.
    for _ in 0..4 {
        house.until(|house| (house.changes > 0).then_some(()));
        house.checkpoint();
        house.fail_over();
        house.until_running();
    }
    house.serve_until(|house| house.received(conn) > before);
    assert!(house.clients[&conn].received.ends_with(b"waited\n"));
    let took = began.elapsed().as_millis();
    assert!((590..2000).contains(&took), "{took}");
}

#[test]
fn a_blocked_writer_is_captured_and_goes_on() {
    // The client asks for far more than fits into the window of a held connection.
    let mut house = House::new(&example("notes"), true);
    let conn = house.connect(0);
    let line = format!("add big {}", "y".repeat(1 << 20));
    assert_eq!(ask(&mut house, conn, &line), format!("{}\n", (1 << 20) + 1));
    for _ in 0..3 {
        house.send(conn, b"show big\n");
    }
    let before = house.received(conn);
    let wanted = before + 3 * ((1 << 20) + 3);
    house.serve_until(|house| house.received(conn) >= wanted);
    assert_eq!(house.received(conn), wanted);
    house.fail_over();
    assert_eq!(ask(&mut house, conn, "list"), "big\n.\n");
}
