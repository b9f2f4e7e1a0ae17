//! The engine's contract: an instance's life, what it says and when.

use jizoku_engine::{Exit, Input};
use jizoku_wasm::{PrepareError, Refused};

use crate::support::guests::{engine, example, instrumented, text};
use crate::support::house::House;
use crate::support::kv::ask;

/// Waits for ever.
const WAITS: &str = r#"
    (module
      (import "wasi_snapshot_preview1" "sock_accept"
        (func $accept (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (drop (call $accept (i32.const 3) (i32.const 0) (i32.const 0)))))
"#;

#[test]
fn a_program_serves_and_is_stopped() {
    let mut house = House::new(&example("kv"), false);
    house.until_running();
    let conn = house.connect(0);
    ask(&mut house, conn, &["PING"], "+PONG\r\n");
    ask(&mut house, conn, &["SET", "a", "1"], "+OK\r\n");
    ask(&mut house, conn, &["INCR", "a"], ":2\r\n");
    house.tell(Input::Stop);
    assert_eq!(house.until_exit(), Exit::Stopped);
    // What comes after is ignored.
    house.tell(Input::Capture { seq: 1 });
    house.tell(Input::Stop);
    house.pump();
}

#[test]
fn it_says_once_that_it_changed_and_nothing_when_it_idles() {
    let mut house = House::new(&text(WAITS), false);
    house.until_running();
    house.checkpoint();
    // It has run up to its wait before the capture, and not since.
    assert_eq!(house.changes, 0);
    let (_, changed) = house.checkpoint();
    assert_eq!(house.changes, 0);
    // Nothing but the clock.
    assert!(changed <= 2, "{changed}");
    house.connect(0);
    assert_eq!(house.until_exit(), Exit::Status(0));
    assert_eq!(house.changes, 1);
}

#[test]
fn held_output_asks_for_a_checkpoint_and_is_then_released() {
    let mut house = House::new(&example("kv"), true);
    let conn = house.connect(0);
    house.send(conn, b"PING\r\n");
    house.until(|house| house.output_waits.then_some(()));
    assert_eq!(house.received(conn), 0);
    house.checkpoint();
    house.until(|house| (house.received(conn) == 7).then_some(()));
}

#[test]
fn a_program_ends_with_its_status() {
    let program = text(
        r#"
        (module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (func (export "_start") (call $exit (i32.const 42))))
        "#,
    );
    assert_eq!(House::new(&program, false).until_exit(), Exit::Status(42));
}

#[test]
fn modules_that_could_not_be_captured_are_refused() {
    let refused = |text: &str| {
        let bytes = wat::parse_str(text).unwrap();
        match engine(None).prepare(&bytes) {
            Err(PrepareError::Refused(why)) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was admitted: {text}"),
        }
    };
    // What instrumenting adds, by hand, so that each fault is the only one.
    let with = |rest: &str| {
        format!(
            r#"(module
              {rest}
              (func (export "_start"))
              (func (export "asyncify_start_unwind") (param i32))
              (func (export "asyncify_stop_unwind"))
              (func (export "asyncify_start_rewind") (param i32))
              (func (export "asyncify_stop_rewind")))"#
        )
    };
    let memory = r#"(memory (export "memory") 1)"#;
    assert!(engine(None).prepare(&wat::parse_str(with(memory)).unwrap()).is_ok());
    assert!(matches!(
        refused(r#"(module (memory (export "memory") 1) (func (export "_start")))"#),
        Refused::NotInstrumented(_)
    ));
    assert_eq!(refused(&with("")), Refused::Memory);
    assert_eq!(refused(&with("(memory 1)")), Refused::Memory);
    let import = r#"(import "env" "abort" (func))"#;
    assert_eq!(refused(&with(&format!("{import} {memory}"))), Refused::Import("env.abort".into()));
    let global = "(global (mut i32) (i32.const 0))";
    assert_eq!(refused(&with(&format!("{memory} {global}"))), Refused::Global(0));
    let exported = r#"(global (export "g") (mut externref) (ref.null extern))"#;
    assert_eq!(refused(&with(&format!("{memory} {exported}"))), Refused::Global(0));
    let start = "(func $s) (start $s)";
    assert_eq!(refused(&with(&format!("{memory} {start}"))), Refused::StartFunction);
    let table = "(table 1 funcref)
        (func (table.set (i32.const 0) (ref.null func)))";
    assert_eq!(refused(&with(&format!("{memory} {table}"))), Refused::Uncaptured("a table"));
    assert!(matches!(
        engine(None).prepare(b"\0asm\x01\0\0\0junk"),
        Err(PrepareError::Refused(Refused::NotAModule(_)))
    ));
}

#[test]
fn equal_modules_are_compiled_once() {
    let bytes = instrumented(&wat::parse_str(WAITS).unwrap());
    let first = engine(None).prepare(&bytes).unwrap();
    let began = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(engine(None).prepare(&bytes).unwrap().hash(), first.hash());
    }
    // Compiling 200 times would take far longer.
    assert!(began.elapsed().as_millis() < 200, "{:?}", began.elapsed());
}
