//! Bytes that nobody's compiler wrote: the pass returns an error or a valid module, in bounded
//! time, and never panics.

use jizoku_asyncify::{InstrumentError, NoReturn, Options, instrument};

use crate::random::{Rng, program};

fn options() -> Options<'static> {
    Options {
        unwinding_imports: &[("host", "u0"), ("host", "u1"), ("host", "u2"), ("host", "u3")],
        allowed_imports: None,
        no_return: NoReturn::Unwind,
    }
}

#[test]
fn damaged_modules_are_refused_or_instrumented() {
    let mut rng = Rng(7);
    let (mut refused, mut passed) = (0, 0);
    for seed in 0..25 {
        let whole = wat::parse_str(program(seed)).expect("the generator is right");
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..1 + rng.below(3) {
                damage(&mut bytes, &mut rng);
            }
            match instrument(&bytes, &options()) {
                Ok(instrumented) => {
                    passed += 1;
                    if let Err(error) = wasmparser::validate(&instrumented.wasm) {
                        panic!("seed {seed}: the output is not valid: {error}");
                    }
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 500 && passed > 100, "{refused} refused, {passed} passed");
}

/// The validator would make room for so many imports before it looked for the first.
#[test]
fn a_section_that_claims_more_items_than_it_has_bytes_is_refused() {
    let module = b"\0asm\x01\0\0\0\x02\x0c\x8d\xeb\x38\x03env\x04wait\0\0";
    let error = instrument(module, &options()).expect_err("12 bytes are no 931,213 imports");
    let InstrumentError::Invalid { message, .. } = &error else { panic!("{error}") };
    assert!(message.contains("can't have 931213 items"), "{message}");
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len());
    match rng.below(8) {
        0 => bytes.truncate(at),
        1 => {
            bytes.insert(at, rng.next() as u8);
        }
        2 => {
            bytes.remove(at);
        }
        // Opcodes near each other are alike: the result is more often valid.
        3..=5 => bytes[at] ^= 1 << rng.below(3),
        _ => bytes[at] = rng.next() as u8,
    }
}

/// A module with one function whose body is `body`, between locals and results.
fn one_function(locals: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (import "host" "u2" (func $u2))
           (import "host" "u0" (func $u0 (param i32) (result i32)))
           (memory (export "memory") 1) (func (export "run") (param i32) {locals} {body}))"#
    );
    wat::parse_str(text).expect("it parses")
}

#[test]
fn deep_nesting() {
    for open in ["block", "loop", "local.get 0 if"] {
        let depth = 5_000;
        let body = format!("{open} call $u2 ").repeat(depth) + &"call $u2 end ".repeat(depth);
        let wasm = one_function("", &body);
        let instrumented = instrument(&wasm, &options()).expect("it is instrumented");
        assert_eq!(instrumented.report.sites, 2 * depth);
        wasmparser::validate(&instrumented.wasm).expect("the output is valid");
    }
}

#[test]
fn wide_functions() {
    let sites = 20_000;
    let wasm = one_function("(local i64 f64)", &"call $u2 ".repeat(sites));
    let instrumented = instrument(&wasm, &options()).expect("it is instrumented");
    assert_eq!(instrumented.report.sites, sites);
    wasmparser::validate(&instrumented.wasm).expect("the output is valid");
    // Values that pile up, and need no place of their own.
    let piled = "i32.const 1 call $u2 ".repeat(20_000) + &"drop ".repeat(20_000);
    let instrumented = instrument(&one_function("", &piled), &options()).expect("it passes");
    assert_eq!(instrumented.report.sites, 20_000);
    // Values that pile up on the stack over many calls.
    let piled = "i32.const 1 call $u0 ".repeat(600) + &"drop ".repeat(600);
    let instrumented = instrument(&one_function("", &piled), &options()).expect("it passes");
    wasmparser::validate(&instrumented.wasm).expect("the output is valid");
}

#[test]
fn more_than_engines_accept_is_refused() {
    // Every one of many locals must be saved at every one of many calls.
    let locals = "(local ".to_owned() + &"i32 ".repeat(20_000) + ")";
    let reads: String = (1..20_000).map(|i| format!("local.get {i} drop ")).collect();
    let wasm = one_function(&locals, &("call $u2 ".repeat(500) + &reads));
    let found = instrument(&wasm, &options()).expect_err("too much to save");
    assert!(matches!(found, InstrumentError::TooLarge { .. }), "{found}");
    assert!(found.to_string().contains("function 2 (run)"), "{found}");
    // Temporary locals on top of almost as many as there may be.
    let locals = "(local ".to_owned() + &"i64 ".repeat(49_900) + ")";
    let piled = "i32.const 1 call $u0 ".repeat(200) + &"drop ".repeat(200);
    let found = instrument(&one_function(&locals, &piled), &options()).expect_err("too many");
    assert!(matches!(found, InstrumentError::TooLarge { what: "locals", .. }), "{found}");
}
