//! Programs that misbehave harm nobody but themselves.

use std::time::{Duration, Instant};

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_engine::{Exit, Input};
use jizoku_types::ByteCount;

use crate::support::guests::{example, text};
use crate::support::house::{House, program};
use crate::support::kv::ask;

const LOOPS: &str = r#"
    (module
      (memory (export "memory") 1)
      (func (export "_start") (loop $l (br $l))))
"#;

#[test]
fn a_loop_is_stopped_and_disturbs_nobody() {
    let mut quiet = House::new(&example("kv"), false);
    let mut house = House::new(&text(LOOPS), false);
    house.until_running();
    house.tell(Input::Capture { seq: 1 });
    // A capture of a program that never makes a host call just waits.
    let conn = quiet.connect(0);
    ask(&mut quiet, conn, &["PING"], "+PONG\r\n");
    let began = Instant::now();
    house.tell(Input::Stop);
    assert_eq!(house.until_exit(), Exit::Stopped);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    // The other one was looked at too, and goes on.
    ask(&mut quiet, conn, &["PING"], "+PONG\r\n");
}

#[test]
fn dropping_an_instance_ends_its_program() {
    for _ in 0..20 {
        let mut house = House::new(&text(LOOPS), false);
        house.until_running();
        house.instance = None;
    }
    // All threads of programs that loop would make this one very slow.
    let mut house = House::new(&example("kv"), false);
    let conn = house.connect(0);
    ask(&mut house, conn, &["PING"], "+PONG\r\n");
}

#[test]
fn a_trap_is_a_crash_that_says_where() {
    let trap = text(
        r#"
        (module
          (memory (export "memory") 1)
          (func $deep (unreachable))
          (func (export "_start") (call $deep)))
        "#,
    );
    match House::new(&trap, false).until_exit() {
        Exit::Crashed(why) => assert!(why.contains("unreachable") && why.contains("deep"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endless_recursion_is_a_crash() {
    let deep = text(
        r#"
        (module
          (memory (export "memory") 1)
          (func $down (param i32) (result i32)
            (i32.add (local.get 0) (call $down (i32.add (local.get 0) (i32.const 1)))))
          (func (export "_start") (drop (call $down (i32.const 0)))))
        "#,
    );
    match House::new(&deep, false).until_exit() {
        Exit::Crashed(why) => assert!(why.contains("stack"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_limited() {
    let grows = text(
        r#"
        (module
          (memory (export "memory") 1)
          (func (export "_start")
            (loop $more
              (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            (unreachable)))
        "#,
    );
    let limited = jizoku_wasm::Program { memory_max: ByteCount::mib(3), ..program() };
    match House::with(&grows, limited, false).until_exit() {
        Exit::Crashed(why) => assert!(why.contains("3 MiB"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Less than it needs to begin with.
    let none = jizoku_wasm::Program { memory_max: ByteCount::kib(1), ..program() };
    let exit = House::with(&grows, none, false).until_exit();
    assert!(matches!(exit, Exit::CannotStart(_)), "{exit:?}");
}

#[test]
fn a_server_out_of_memory_crashes_alone_and_comes_back() {
    let limited = jizoku_wasm::Program { memory_max: ByteCount::mib(8), ..program() };
    let mut house = House::with(&example("kv"), limited, true);
    let conn = house.connect(0);
    ask(&mut house, conn, &["SET", "a", "kept"], "+OK\r\n");
    let value = "x".repeat(1 << 20);
    for key in 0..16 {
        house.send(conn, format!("*3\r\n$3\r\nSET\r\n$2\r\n{key:02}\r\n$1048576\r\n").as_bytes());
        house.send(conn, value.as_bytes());
        house.send(conn, b"\r\n");
    }
    house.serve_until(|house| house.exit.is_some());
    let exit = house.exit.clone();
    assert!(matches!(&exit, Some(Exit::Crashed(why)) if why.contains("8 MiB")), "{exit:?}");
    house.reset(conn);
    house.fail_over();
    let conn = house.connect(0);
    ask(&mut house, conn, &["GET", "a"], "$4\r\nkept\r\n");
}

#[test]
fn a_deep_call_stack_is_captured() {
    // Waits at the bottom of a recursion that holds a number in each frame, then adds them up.
    let deep = text(
        r#"
        (module
          (import "wasi_snapshot_preview1" "sock_accept"
            (func $accept (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 64)
          (func $down (param $left i32) (result i32)
            (if (i32.eqz (local.get $left))
              (then
                (drop (call $accept (i32.const 3) (i32.const 0) (i32.const 0)))
                (return (i32.const 0))))
            (i32.add
              (i32.and (local.get $left) (i32.const 1))
              (call $down (i32.sub (local.get $left) (i32.const 1)))))
          (func (export "_start") (call $exit (call $down (i32.const 20000)))))
        "#,
    );
    let mut house = House::new(&deep, false);
    house.checkpoint();
    assert!(house.image.space("stack").unwrap().len() > 100_000);
    house.fail_over();
    house.checkpoint();
    house.connect(0);
    assert_eq!(house.until_exit(), Exit::Status(10_000));
}

#[test]
fn damaged_states_are_refused_and_never_panic() {
    let mut house = House::new(&example("kv"), false);
    let conn = house.connect(0);
    ask(&mut house, conn, &["SET", "a", "1"], "+OK\r\n");
    house.checkpoint();
    let good = house.image.clone();
    for space in ["memory.0", "globals", "stack", "sockets", "host", "files", "owners", "inodes"] {
        let mut missing = DiffBuilder::new(Some(good.clone()));
        missing.drop_space(space);
        let mut junk = DiffBuilder::new(Some(good.clone()));
        junk.bytes(space, &[0xa5; 5000]);
        let mut empty = DiffBuilder::new(Some(good.clone()));
        empty.bytes(space, &[]);
        for diff in [missing.finish(), junk.finish(), empty.finish()] {
            house.image = good.clone();
            house.image.apply_unrooted(&diff).unwrap();
            house.fail_over();
            house.tell(Input::Capture { seq: house.seq + 1 });
            let exit = house
                .until(|house| (house.exit.is_some() || house.running).then(|| house.exit.clone()));
            match exit {
                Some(Exit::CannotStart(_) | Exit::Crashed(_)) => {}
                // Nobody can tell what bytes in a file should be.
                None if space == "files" => {}
                other => panic!("{space}: {other:?}"),
            }
        }
    }
    house.image = Image::empty();
    house.fail_over();
    assert!(matches!(house.until_exit(), Exit::CannotStart(_)));
    house.image = good;
    house.fail_over();
    ask(&mut house, conn, &["GET", "a"], "$1\r\n1\r\n");
}
