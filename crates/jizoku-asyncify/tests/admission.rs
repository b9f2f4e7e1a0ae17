//! What is refused, and that the refusal says what, where and what to do; what passes all the same.

use jizoku_asyncify::{
    InstrumentError, Instrumented, MemoryFault, NoReturn, NumericType, Options, Place, instrument,
};

const HOST: &str = r#"(import "host" "wait" (func $wait (param i32) (result i32)))"#;
const MEMORY: &str = r#"(memory (export "memory") 1)"#;

fn run(text: &str) -> Result<Instrumented, InstrumentError> {
    let wasm = wat::parse_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let result = instrument(&wasm, &options());
    if let Ok(instrumented) = &result {
        wasmparser::validate(&instrumented.wasm).expect("the output is valid");
    }
    result
}

fn options() -> Options<'static> {
    Options {
        unwinding_imports: &[("host", "wait")],
        allowed_imports: Some(&[("host", "wait"), ("host", "other"), ("host", "constant")]),
        no_return: NoReturn::Unwind,
    }
}

/// Checks that a module with `HOST`, `MEMORY` and `rest` is refused with exactly this error, and
/// that its text has all of `words`.
fn refused(rest: &str, error: InstrumentError, words: &[&str]) {
    refused_whole(&format!("(module {HOST} {MEMORY} {rest})"), error, words);
}

fn refused_whole(text: &str, error: InstrumentError, words: &[&str]) {
    let found = run(text).expect_err(text);
    assert_eq!(found, error, "{text}");
    let shown = found.to_string();
    for word in words {
        assert!(shown.contains(word), "{shown:?} lacks {word:?}");
    }
}

fn place(function: u32, name: Option<&str>) -> Place {
    Place { function, name: name.map(str::to_owned) }
}

#[test]
fn what_is_not_a_module() {
    let bytes = b"\0asm\x01\0\0\0\x01\x7f";
    let found = instrument(bytes, &options()).expect_err("it is cut off");
    assert!(matches!(found, InstrumentError::Invalid { .. }), "{found}");
    assert!(found.to_string().contains("at byte"));
    let component = b"\0asm\x0d\0\x01\0";
    assert_eq!(instrument(component, &options()), Err(InstrumentError::Component));
    assert!(InstrumentError::Component.to_string().contains("wasm32-wasip1"));
    let untyped = wat::parse_str(r#"(module (func (result i32)))"#).expect("it parses");
    let found = instrument(&untyped, &options()).expect_err("it has no memory or result");
    assert!(matches!(found, InstrumentError::Invalid { .. } | InstrumentError::Memory(_)));
}

#[test]
fn memories() {
    use MemoryFault::*;
    for (memories, fault) in [
        ("", Missing),
        (r#"(memory (export "memory") 1) (memory 1)"#, Several),
        (r#"(import "host" "other" (memory 1))"#, Imported),
        (r#"(memory (export "memory") 1 1 shared)"#, Shared),
        (r#"(memory (export "memory") i64 1)"#, Unusual),
        (r#"(memory (export "memory") 1 (pagesize 1))"#, Unusual),
        ("(memory 1)", NotExported),
    ] {
        let text = format!("(module {memories})");
        refused_whole(&text, InstrumentError::Memory(fault), &[";"]);
    }
}

#[test]
fn imports() {
    refused_whole(
        r#"(module (import "env" "fork" (func)) (memory (export "memory") 1))"#,
        InstrumentError::UnknownImport { module: "env".into(), name: "fork".into() },
        &["env.fork", "not provided"],
    );
    for (import, kind) in [("(global (mut i32))", "mutable global"), ("(table 1 funcref)", "table")]
    {
        let (module, name) = ("host".to_owned(), "other".to_owned());
        refused_whole(
            &format!(r#"(module (import "host" "other" {import}) {MEMORY})"#),
            InstrumentError::ImportedState { module, name, kind },
            &["host.other", kind, "define it inside"],
        );
    }
    let passes = format!(r#"(module (import "host" "constant" (global i32)) {MEMORY})"#);
    assert!(run(&passes).is_ok());
}

#[test]
fn table_writes() {
    for (instruction, code) in [
        ("table.set", "i32.const 0 ref.null func table.set 0"),
        ("table.grow", "ref.null func i32.const 1 table.grow 0 drop"),
        ("table.fill", "i32.const 0 ref.null func i32.const 1 table.fill 0"),
        ("table.copy", "i32.const 0 i32.const 0 i32.const 1 table.copy"),
        ("table.init", "i32.const 0 i32.const 0 i32.const 1 table.init 0"),
    ] {
        let rest = format!("(table 4 funcref) (elem func $wait) (func $change {code})");
        let error = InstrumentError::TableWrite { instruction, place: place(1, Some("change")) };
        refused(&rest, error, &[instruction, "function 1 (change)", "must not change"]);
    }
}

#[test]
fn dropped_segments() {
    let init = "i32.const 0 i32.const 0 i32.const 0 memory.init 1";
    refused(
        &format!(r#"(data "a") (data "b") (func {init}) (func (export "quit") data.drop 1)"#),
        InstrumentError::DataDrop { segment: 1, place: place(2, Some("quit")) },
        &["segment 1", "function 2 (quit)", "active segments"],
    );
    // Dropping what nobody reads changes nothing that can be seen, nor does dropping elements.
    let passes = format!(
        r#"(module {HOST} {MEMORY} (data "a") (data "b") (elem func $wait)
           (func {init} data.drop 0 elem.drop 0))"#
    );
    assert!(run(&passes).is_ok());
}

#[test]
fn references() {
    refused(
        "(global i32 (i32.const 1)) (global (mut externref) (ref.null extern))",
        InstrumentError::ReferenceGlobal { global: 1 },
        &["global 1", "reference types"],
    );
    refused(
        "(func $keep (param funcref) (result funcref)
           (drop (call $wait (i32.const 1))) (local.get 0))",
        InstrumentError::ReferenceAcrossCall { place: place(1, Some("keep")) },
        &["function 1 (keep)", "over a call"],
    );
    refused(
        "(func $keep (param externref) (result externref i32)
           local.get 0 (call $wait (i32.const 1)))",
        InstrumentError::ReferenceAcrossCall { place: place(1, Some("keep")) },
        &[],
    );
    // A reference that is done with before the call, or made after it, is no trouble.
    let passes = format!(
        "(module {HOST} {MEMORY} (elem declare func $wait)
         (func (param funcref) (result funcref)
           (drop (ref.is_null (local.get 0))) (drop (call $wait (i32.const 1))) (ref.func $wait)))"
    );
    assert!(run(&passes).is_ok());
}

#[test]
fn proposals() {
    let of = |proposal, place| InstrumentError::Proposal { proposal, place };
    refused(
        "(func $f (drop (i32.atomic.load (i32.const 0))))",
        of("threads", Some(place(1, Some("f")))),
        &["threads", "function 1 (f)"],
    );
    refused("(tag)", of("exception-handling", None), &["exception-handling"]);
    refused(
        "(func (try_table (catch_all 0)))",
        of("exceptions", Some(place(1, None))),
        &["exceptions", "function 1 "],
    );
    refused("(type (struct))", of("garbage-collection", None), &[]);
    refused("(type $t (func)) (func (param (ref $t)))", of("function-references", None), &[]);
    refused(
        "(type $t (func)) (func (local (ref null $t)))",
        of("function-references", Some(place(1, None))),
        &[],
    );
    refused("(table i64 1 funcref)", of("memory64", None), &[]);
}

#[test]
fn reserved_exports() {
    for name in ["asyncify_get_state", "asyncify_start_unwind", "__jz_g0"] {
        refused(
            &format!(r#"(func (export "{name}"))"#),
            InstrumentError::ReservedExport { name: name.into() },
            &[name, "before instrumenting"],
        );
    }
    let once = run(&format!("(module {HOST} {MEMORY})")).expect("it passes once");
    let twice = instrument(&once.wasm, &options()).expect_err("not twice");
    assert!(matches!(twice, InstrumentError::ReservedExport { .. }));
}

#[test]
fn start_functions() {
    refused(
        "(func $init (drop (call $wait (i32.const 1)))) (start $init)",
        InstrumentError::StartCallsHost { place: place(1, Some("init")) },
        &["function 1 (init)", "_initialize"],
    );
    let other = r#"(module (import "host" "other" (func $other)) {MEMORY}
        (func $init (call $other) unreachable) (start $init))"#;
    refused_whole(
        &other.replace("{MEMORY}", MEMORY),
        InstrumentError::StartCallsHost { place: place(1, Some("init")) },
        &[],
    );
    let passes = "(func $init (i32.store (i32.const 0) (i32.const 1))) (start $init)";
    assert!(run(&format!("(module {HOST} {MEMORY} {passes})")).is_ok());
}

#[test]
fn tail_calls() {
    refused(
        "(func $f (param i32) (result i32) (return_call $wait (local.get 0)))",
        InstrumentError::TailCall { place: place(1, Some("f")) },
        &["function 1 (f)", "without tail calls"],
    );
    refused(
        "(type $t (func (param i32) (result i32))) (table funcref (elem $wait))
         (func $f (type $t) (return_call_indirect (type $t) (local.get 0) (i32.const 0)))",
        InstrumentError::TailCall { place: place(1, Some("f")) },
        &[],
    );
    let passes = format!(
        "(module {HOST} {MEMORY} (func $leaf (result i32) (i32.const 3))
         (func (result i32) (drop (call $wait (i32.const 1))) (return_call $leaf)))"
    );
    assert!(run(&passes).is_ok());
}

#[test]
fn mutable_globals_are_exported_in_order() {
    let report = run(&format!(
        r#"(module {HOST} {MEMORY}
            (global (mut i64) (i64.const 1)) (global i32 (i32.const 1))
            (global (export "own") (mut f32) (f32.const 1))
            (global (mut v128) (v128.const i64x2 1 2))
            (global (mut i32) (i32.const 1)) (global (mut f64) (f64.const 1)))"#
    ))
    .expect("it passes")
    .report;
    use NumericType::*;
    let found: Vec<_> = report.globals.iter().map(|g| (g.export.as_str(), g.index, g.ty)).collect();
    let expected = [
        ("__jz_g0", 0, I64),
        ("__jz_g1", 2, F32),
        ("__jz_g2", 3, V128),
        ("__jz_g3", 4, I32),
        ("__jz_g4", 5, F64),
    ];
    assert_eq!(found, expected);
}

#[test]
fn only_functions_on_the_way_to_a_wait_are_touched() {
    let report = run(&format!(
        "(module {HOST} {MEMORY}
         (type $in (func (param i32) (result i32))) (type $out (func (param i64)))
         (table funcref (elem $waits $quiet))
         (func $waits (type $in) (call $wait (local.get 0)))
         (func $quiet (type $out))
         (func $calls_by_type (type $in) (call_indirect (type $in) (i32.const 1) (i32.const 0)))
         (func $calls_other_type (call_indirect (type $out) (i64.const 1) (i32.const 1)))
         (func $calls_nobody)
         (func $waits_if_never (result i32) (return (i32.const 1)) (call $wait (i32.const 1))))"
    ))
    .expect("it passes")
    .report;
    assert_eq!((report.functions, report.functions_transformed, report.sites), (6, 2, 2));
}

#[test]
fn custom_sections_that_count_bytes_are_dropped() {
    let text = format!(
        r#"(module {HOST} {MEMORY} (@custom ".debug_info" "x") (@custom "producers" "\00")
            (@custom "sourceMappingURL" "x") (func $named (drop (call $wait (i32.const 1)))))"#
    );
    let wasm = run(&text).expect("it passes").wasm;
    let has = |name: &str| wasm.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(has("producers") && has("named"));
    assert!(!has(".debug_info") && !has("sourceMappingURL"));
}

#[test]
fn sections_that_were_missing_are_added() {
    for rest in ["", "(data (i32.const 1) \"x\")", "(global i32 (i32.const 1))"] {
        assert!(run(&format!("(module {MEMORY} {rest})")).is_ok());
    }
}
