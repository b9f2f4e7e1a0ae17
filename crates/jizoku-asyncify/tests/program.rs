//! A real program: Rust's standard library on WASI preview 1, interrupted wherever it waits.

use std::path::PathBuf;
use std::process::Command;

use jizoku_asyncify::{Instrumented, NoReturn, Options, instrument};
use wasmtime::{Caller, Engine, Extern, OptLevel, Val};

use crate::harness::{Host, Outcome, Policy, Run, World, engine, run};

const WASI: &str = "wasi_snapshot_preview1";
/// The listed imports of a service, of which this program uses three.
const UNWINDING: [(&str, &str); 7] = [
    (WASI, "poll_oneoff"),
    (WASI, "sched_yield"),
    (WASI, "fd_write"),
    (WASI, "fd_read"),
    (WASI, "sock_accept"),
    (WASI, "sock_recv"),
    (WASI, "sock_send"),
];

const WORLD: World =
    World { may_unwind: |name| UNWINDING.iter().any(|(_, n)| *n == name), answer: answer_wasi };

const NEVER: Policy = Policy { every: 0, twice: false };

#[test]
fn a_program_of_the_standard_library_does_not_notice_interruptions() {
    let Some(wasm) = compile("ledger", "3") else { return };
    let engine = engine(OptLevel::Speed);
    let expected = start(&engine, &wasm, NEVER).outcome;
    assert!(expected.results.is_some(), "the guest must not trap");
    assert!(String::from_utf8_lossy(&expected.output).contains("is used up"));
    let instrumented = instrumented(&wasm, NoReturn::Unwind);
    assert!(instrumented.report.functions_transformed > 10);
    assert!(instrumented.report.functions_transformed < instrumented.report.functions);
    for (every, twice) in [(0, false), (1, false), (7, true)] {
        let run = start(&engine, &instrumented.wasm, Policy { every, twice });
        same(&run.outcome, &expected);
        assert_eq!(run.unwound > 100, every == 1, "{} interruptions", run.unwound);
        assert!(run.stack_bytes_max < 4096, "{} bytes of stack", run.stack_bytes_max);
    }
}

#[test]
fn an_unoptimised_program_does_not_notice_interruptions() {
    let Some(wasm) = compile("ledger", "0") else { return };
    let engine = engine(OptLevel::Speed);
    let expected = start(&engine, &wasm, NEVER).outcome;
    let run = start(
        &engine,
        &instrumented(&wasm, NoReturn::Trap).wasm,
        Policy { every: 2, twice: false },
    );
    same(&run.outcome, &expected);
    assert!(run.unwound > 50);
}

fn same(outcome: &Outcome, expected: &Outcome) {
    assert_eq!(String::from_utf8_lossy(&outcome.output), String::from_utf8_lossy(&expected.output));
    assert_eq!(outcome.results, expected.results);
    assert!(outcome.calls == expected.calls, "calls differ");
    assert!(outcome.memory == expected.memory, "memory differs");
}

fn start(engine: &Engine, wasm: &[u8], policy: Policy) -> Run {
    run(engine, wasm, ("_start", &[]), WORLD, policy)
}

fn instrumented(wasm: &[u8], no_return: NoReturn) -> Instrumented {
    let options = Options { unwinding_imports: &UNWINDING, allowed_imports: None, no_return };
    let instrumented = instrument(wasm, &options).expect("it can be instrumented");
    wasmparser::validate(&instrumented.wasm).expect("the output is valid");
    instrumented
}

/// Compiles a guest; `None` if this machine cannot, which only CI takes as a failure.
fn compile(guest: &str, opt_level: &str) -> Option<Vec<u8>> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guests/{guest}.rs"));
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{guest}-o{opt_level}.wasm"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done = Command::new(rustc)
        .args(["--edition", "2024", "--target", "wasm32-wasip1", "-C", "panic=abort"])
        .args(["-C", &format!("opt-level={opt_level}"), "-C", "strip=debuginfo", "-o"])
        .arg(&out)
        .arg(source)
        .output()
        .expect("rustc starts");
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("skipped: the guest does not compile here: {why}");
        return None;
    }
    Some(std::fs::read(out).expect("rustc wrote it"))
}

/// The few functions of WASI that the guests use. Nothing here depends on the machine.
fn answer_wasi(
    caller: &mut Caller<'_, Host>,
    name: &str,
    args: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let arg = |index: usize| match args[index] {
        Val::I32(value) => value as u32 as usize,
        Val::I64(value) => value as usize,
        _ => panic!("WASI passes integers"),
    };
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { panic!("memory") };
    let (data, host) = memory.data_and_store_mut(caller);
    let word = |data: &[u8], at: usize| {
        u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]) as usize
    };
    host.counter += 1;
    match name {
        "sched_yield" | "environ_get" => {}
        "environ_sizes_get" => {
            data[arg(0)..arg(0) + 4].fill(0);
            data[arg(1)..arg(1) + 4].fill(0);
        }
        "random_get" => data[arg(0)..arg(0) + arg(1)].fill(host.counter as u8),
        "clock_time_get" => {
            data[arg(2)..arg(2) + 8].copy_from_slice(&(host.counter << 20).to_le_bytes());
        }
        "poll_oneoff" => {
            // One event for each clock: the user's number, then zeros (no error, a clock).
            for index in 0..arg(2) {
                let (from, to) = (arg(0) + index * 48, arg(1) + index * 32);
                data.copy_within(from..from + 8, to);
                data[to + 8..to + 32].fill(0);
            }
            data[arg(3)..arg(3) + 4].copy_from_slice(&(arg(2) as u32).to_le_bytes());
        }
        "fd_write" => {
            let mut written = 0;
            for index in 0..arg(2) {
                let (at, len) =
                    (word(data, arg(1) + index * 8), word(data, arg(1) + index * 8 + 4));
                host.output.extend_from_slice(&data[at..at + len]);
                written += len as u32;
            }
            data[arg(3)..arg(3) + 4].copy_from_slice(&written.to_le_bytes());
        }
        "proc_exit" => return Err(wasmtime::format_err!("exit {}", arg(0))),
        // EBADF: no directories are open.
        "fd_prestat_get" => results[0] = Val::I32(8),
        _ => panic!("{name} is not part of this world"),
    }
    Ok(())
}
