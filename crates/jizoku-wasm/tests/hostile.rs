//! Host calls with hostile arguments, made by a real program in real WebAssembly.
//!
//! The program does what its client tells it: make this call with these arguments, and send back
//! what came of it. It keeps nothing in its memory that it needs, so the calls may write anywhere.
//! Calls that end it, or close what it talks over, are left to the tests beside the calls.

use std::fmt::Write;
use std::sync::OnceLock;

use jizoku_engine::{Exit, Input};
use jizoku_wasm::Prepared;

use crate::support::guests::text;
use crate::support::house::House;
use crate::support::kv::Draw;

/// Pages of 64 KiB that the program has.
const PAGES: u32 = 2;
const SIZE: u32 = PAGES << 16;
/// A command: the call's number and nine arguments, as 8 bytes each.
const WORDS: usize = 10;
/// The highest error number of preview 1.
const ERRNO_MAX: u32 = 76;
const FAULT: u32 = 21;

/// Each call with its parameters: `f` descriptor, `p` pointer to something that is written or read
/// whatever the other arguments are, `q` pointer to as many bytes as the next argument says, `v` to
/// as many buffers (of too many only the first ones are used), `w` to room of which only as much
/// is used as there is to say, `i` and `l` other numbers of 4 and 8 bytes.
const CALLS: [(&str, &str); 42] = [
    ("args_get", "pp"),
    ("args_sizes_get", "pp"),
    ("environ_get", "pp"),
    ("environ_sizes_get", "pp"),
    ("clock_res_get", "ip"),
    ("clock_time_get", "ilp"),
    ("random_get", "qi"),
    ("poll_oneoff", "ppip"),
    ("sched_yield", ""),
    ("sock_accept", "fip"),
    ("sock_recv", "fviipp"),
    ("sock_send", "fviip"),
    ("sock_shutdown", "fi"),
    ("fd_advise", "flli"),
    ("fd_allocate", "fll"),
    ("fd_datasync", "f"),
    ("fd_fdstat_get", "fp"),
    ("fd_fdstat_set_flags", "fi"),
    ("fd_fdstat_set_rights", "fll"),
    ("fd_filestat_get", "fp"),
    ("fd_filestat_set_size", "fl"),
    ("fd_filestat_set_times", "flli"),
    ("fd_pread", "fvilp"),
    ("fd_prestat_get", "fp"),
    ("fd_prestat_dir_name", "fwi"),
    ("fd_pwrite", "fvilp"),
    ("fd_read", "fvip"),
    ("fd_readdir", "fqilp"),
    ("fd_seek", "flip"),
    ("fd_sync", "f"),
    ("fd_tell", "fp"),
    ("fd_write", "fvip"),
    ("path_create_directory", "fqi"),
    ("path_filestat_get", "fiqip"),
    ("path_filestat_set_times", "fiqilli"),
    ("path_link", "fiqifqi"),
    ("path_open", "fiqiillip"),
    ("path_readlink", "fqiqip"),
    ("path_remove_directory", "fqi"),
    ("path_rename", "fqifqi"),
    ("path_symlink", "qifqi"),
    ("path_unlink_file", "fqi"),
];

fn program() -> &'static Prepared {
    static PROGRAM: OnceLock<Prepared> = OnceLock::new();
    PROGRAM.get_or_init(|| text(&module()))
}

/// The program in the text format.
fn module() -> String {
    let mut imports = String::new();
    let mut cases = String::new();
    for (number, (name, kinds)) in CALLS.iter().enumerate() {
        let kind = |kind| if kind == 'l' { "i64" } else { "i32" };
        let types: Vec<&str> = kinds.chars().map(kind).collect();
        let types = types.join(" ");
        writeln!(
            imports,
            r#"(import "wasi_snapshot_preview1" "{name}"
                 (func ${name} (param {types}) (result i32)))"#
        )
        .unwrap();
        let args = kinds.chars().enumerate().map(|(at, kind)| match kind {
            'l' => format!("(local.get $a{at})"),
            _ => format!("(i32.wrap_i64 (local.get $a{at}))"),
        });
        let args: Vec<String> = args.collect();
        writeln!(
            cases,
            "(if (i32.eq (local.get $call) (i32.const {number}))
               (then (local.set $result (call ${name} {}))))",
            args.join(" ")
        )
        .unwrap();
    }
    let locals: Vec<String> = (0..WORDS - 1).map(|at| format!("(local $a{at} i64)")).collect();
    let loads = (0..WORDS - 1)
        .map(|at| format!("(local.set $a{at} (i64.load (i32.const {})))", COMMAND + 8 + 8 * at));
    let loads: Vec<String> = loads.collect();
    format!(
        r#"(module
          {imports}
          (memory (export "memory") {PAGES})
          (func $io (param $fd i32) (param $length i32) (param $sends i32) (result i32)
            (i32.store (i32.const 0) (i32.const {COMMAND}))
            (i32.store (i32.const 4) (local.get $length))
            (if (local.get $sends)
              (then (return (call $sock_send (local.get $fd)
                (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8)))))
            (call $sock_recv (local.get $fd)
              (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8) (i32.const 12)))
          (func (export "_start")
            (local $fd i32) (local $call i32) (local $result i32) {locals}
            (drop (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 16)))
            (local.set $fd (i32.load (i32.const 16)))
            (loop $next
              (if (call $io (local.get $fd) (i32.const {}) (i32.const 0)) (then (return)))
              (if (i32.ne (i32.load (i32.const 8)) (i32.const {})) (then (return)))
              (local.set $call (i32.load (i32.const {COMMAND})))
              {}
              (local.set $result (i32.const -1))
              {cases}
              (i32.store (i32.const {COMMAND}) (local.get $result))
              (drop (call $io (local.get $fd) (i32.const 4) (i32.const 1)))
              (br $next))))"#,
        WORDS * 8,
        WORDS * 8,
        loads.join("\n"),
        locals = locals.join(" "),
    )
}

/// Where the program puts a command, and its answer.
const COMMAND: usize = 1024;

/// What a call came to.
fn call(house: &mut House, conn: jizoku_types::ConnId, number: usize, args: &[u64]) -> u32 {
    let before = house.received(conn);
    let mut bytes = (number as u64).to_le_bytes().to_vec();
    let words = args.iter().copied().chain(std::iter::repeat(0)).take(WORDS - 1);
    bytes.extend(words.flat_map(u64::to_le_bytes));
    house.send(conn, &bytes);
    let name = CALLS[number].0;
    house.until(|house| {
        assert_eq!(house.exit, None, "{name}{args:?}");
        (house.received(conn) >= before + 4).then_some(())
    });
    let answer = &house.clients[&conn].received[before..];
    assert_eq!(answer.len(), 4);
    u32::from_le_bytes(answer.try_into().unwrap())
}

fn start() -> (House, jizoku_types::ConnId) {
    let mut house = House::new(program(), false);
    let conn = house.connect(0);
    (house, conn)
}

/// The descriptors that a fresh program has: standard ones, the listener, the root directory, and
/// the connection that it is told by.
const LISTENER: u64 = 3;
const ROOT: u64 = 4;
const OWN: u64 = 5;

/// Ranges of bytes that do not lie in memory, for a length of at least 8.
const OUTSIDE: [u64; 5] = [SIZE as u64 - 1, SIZE as u64, SIZE as u64 + 1, 1 << 31, u32::MAX as u64];

#[test]
fn pointers_out_of_memory_are_faults() {
    let (mut house, conn) = start();
    for (number, (name, kinds)) in CALLS.iter().enumerate() {
        let pointers = kinds.char_indices().filter(|(_, kind)| "pqvw".contains(*kind));
        for (at, kind) in pointers {
            // One byte is there, and may be enough.
            let some = usize::from(kind == 'w');
            for &outside in &OUTSIDE[some..] {
                for fd in [0, 1, LISTENER, ROOT, OWN, 77] {
                    // All other arguments are harmless.
                    let arg = |(other, kind): (usize, char)| match kind {
                        _ if other == at => outside,
                        'f' => fd,
                        'p' | 'q' | 'v' | 'w' => 2048,
                        'i' if other == at + 1 => 64,
                        'i' => 1,
                        _ => 0,
                    };
                    let args: Vec<u64> = kinds.char_indices().map(arg).collect();
                    let errno = call(&mut house, conn, number, &args);
                    assert!(errno <= ERRNO_MAX, "{name}{args:?}: {errno}");
                    // What is wrong with the descriptor or a flag may be found first.
                    let other_first = kinds.contains('f') || kinds.contains('i');
                    assert!(errno == FAULT || (errno != 0 && other_first), "{name}{args:?}");
                }
            }
        }
    }
}

#[test]
fn huge_lengths_are_errors() {
    let (mut house, conn) = start();
    for (number, (name, kinds)) in CALLS.iter().enumerate() {
        let lengths = kinds.char_indices().filter(|(at, _)| {
            at.checked_sub(1).is_some_and(|before| kinds.as_bytes()[before] == b'q')
        });
        for (at, _) in lengths {
            for length in [u64::from(SIZE), 1 << 29, 1 << 31, u64::from(u32::MAX) - 7] {
                for fd in [0, 1, LISTENER, ROOT, OWN, 77] {
                    let arg = |(other, kind): (usize, char)| match kind {
                        _ if other == at => length,
                        'f' => fd,
                        'p' | 'q' | 'v' | 'w' => 2048,
                        _ => 0,
                    };
                    let args: Vec<u64> = kinds.char_indices().map(arg).collect();
                    let errno = call(&mut house, conn, number, &args);
                    assert!((1..=ERRNO_MAX).contains(&errno), "{name}{args:?}: {errno}");
                }
            }
        }
    }
}

#[test]
fn any_arguments_give_an_error_number() {
    const CALLS_OF_A_SEED: usize = 1500;
    for seed in 1..=6 {
        let mut draw = Draw(seed);
        let (mut house, conn) = start();
        let mut succeeded = 0;
        for _ in 0..CALLS_OF_A_SEED {
            let number = draw.below(CALLS.len() as u64) as usize;
            let (name, kinds) = CALLS[number];
            let mut args: Vec<u64> = kinds.chars().map(|kind| arg(&mut draw, kind)).collect();
            make_harmless(name, kinds, &mut args);
            let errno = call(&mut house, conn, number, &args);
            assert!(errno <= ERRNO_MAX, "seed {seed}: {name}{args:?}: {errno}");
            succeeded += usize::from(errno == 0);
            if draw.below(200) == 0 {
                house.checkpoint();
            }
        }
        assert!(succeeded > CALLS_OF_A_SEED / 50, "only {succeeded} calls did anything");
        house.tell(Input::Stop);
        assert_eq!(house.until_exit(), Exit::Stopped);
    }
}

/// An argument as a hostile program would choose it: near every edge.
fn arg(draw: &mut Draw, kind: char) -> u64 {
    let wild = |draw: &mut Draw| match draw.below(5) {
        0 => u64::from(u32::MAX) - draw.below(3),
        1 => (1 << 31) - 1 + draw.below(3),
        2 => u64::from(SIZE) - draw.below(40),
        _ => draw.below(u64::from(SIZE)),
    };
    match kind {
        'f' => match draw.below(4) {
            0 => wild(draw),
            _ => draw.below(9),
        },
        'p' | 'q' | 'v' | 'w' => match draw.below(3) {
            0 => wild(draw),
            _ => 2048 + 8 * draw.below(4096),
        },
        'l' => match draw.below(4) {
            0 => u64::MAX - draw.below(3),
            1 => i64::MAX as u64 + draw.below(3),
            _ => draw.below(100),
        },
        _ => match draw.below(4) {
            0 => wild(draw),
            _ => draw.below(20),
        },
    }
}

/// Keeps a call from waiting for ever, from eating the next command, and from breaking the
/// connection that the test needs.
fn make_harmless(name: &str, kinds: &str, args: &mut [u64]) {
    let own = |args: &[u64]| {
        let mut fds = kinds.chars().zip(args).filter(|(kind, _)| *kind == 'f');
        // New descriptors are files: only these two are connections or listeners.
        fds.any(|(_, fd)| *fd == OWN || *fd == LISTENER)
    };
    match name {
        "poll_oneoff" => args[2] = if args[2] < 10 { 0 } else { u64::from(u32::MAX) - args[2] % 9 },
        "sock_accept"
        | "sock_recv"
        | "sock_send"
        | "sock_shutdown"
        | "fd_read"
        | "fd_write"
        | "fd_fdstat_set_flags"
            if own(args) =>
        {
            args[0] = 77;
        }
        _ => {}
    }
}
