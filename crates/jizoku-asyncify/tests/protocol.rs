//! The exported protocol by itself: states, the limits of the buffer, and what a frame costs.

use jizoku_asyncify::{NoReturn, PROTOCOL_EXPORTS};
use wasmtime::{
    Caller, Engine, Extern, Func, Instance, Memory, Module, OptLevel, Store, Val, ValType,
};

use crate::harness::{engine, instrument_all};

/// Calls itself to the given depth, with a local alive over each call, then waits.
const DEEP: &str = r#"(module
  (import "host" "u0" (func $u0 (param i32) (result i32)))
  (memory (export "memory") 2)
  (func $down (export "run") (param i32) (result i32)
    (if (i32.eqz (local.get 0)) (then (return (call $u0 (i32.const 0)))))
    (i32.add (local.get 0) (call $down (i32.sub (local.get 0) (i32.const 1))))))"#;

const BUFFER: usize = 1000;
/// A frame: one saved local and the call number.
const FRAME_BYTES: usize = 8;

struct Guest {
    store: Store<()>,
    instance: Instance,
    memory: Memory,
}

impl Guest {
    /// An instance whose import starts to unwind into `[BUFFER + 8, end)`, or to go on.
    fn new(engine: &Engine, end: usize) -> Self {
        let wasm = wat::parse_str(DEEP).expect("it parses");
        let wasm = instrument_all(&wasm, NoReturn::Unwind).expect("it is instrumented").wasm;
        let module = Module::new(engine, wasm).expect("it compiles");
        let mut store = Store::new(engine, ());
        let import = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>, _: i32| -> i32 {
            let (name, arg) = if export(&mut caller, "asyncify_get_state", &[]) == 2 {
                ("asyncify_stop_rewind", vec![])
            } else {
                ("asyncify_start_unwind", vec![Val::I32(BUFFER as i32)])
            };
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else { panic!() };
            if name == "asyncify_start_unwind" {
                describe(memory.data_mut(&mut caller), BUFFER + 8, end);
            }
            export(&mut caller, name, &arg);
            100
        });
        let instance = Instance::new(&mut store, &module, &[import.into()]).expect("it fits");
        let memory = instance.get_memory(&mut store, "memory").expect("it is exported");
        Self { store, instance, memory }
    }

    fn call(&mut self, name: &str, args: &[Val]) -> wasmtime::Result<i32> {
        let func = self.instance.get_func(&mut self.store, name).expect("it is exported");
        let mut results = vec![Val::I32(0); func.ty(&self.store).results().len()];
        func.call(&mut self.store, args, &mut results)?;
        Ok(results.first().map_or(0, Val::unwrap_i32))
    }

    fn describe(&mut self, cur: usize, end: usize) {
        describe(self.memory.data_mut(&mut self.store), cur, end);
    }

    fn cur(&self) -> usize {
        let data = &self.memory.data(&self.store)[BUFFER..BUFFER + 4];
        u32::from_le_bytes([data[0], data[1], data[2], data[3]]) as usize
    }
}

fn describe(data: &mut [u8], cur: usize, end: usize) {
    data[BUFFER..BUFFER + 4].copy_from_slice(&(cur as u32).to_le_bytes());
    data[BUFFER + 4..BUFFER + 8].copy_from_slice(&(end as u32).to_le_bytes());
}

fn export(caller: &mut Caller<'_, ()>, name: &str, args: &[Val]) -> i32 {
    let Some(Extern::Func(func)) = caller.get_export(name) else { panic!("{name}") };
    let mut results = vec![Val::I32(0); func.ty(&*caller).results().len()];
    func.call(caller, args, &mut results).expect("the buffer is described rightly");
    results.first().map_or(0, Val::unwrap_i32)
}

#[test]
fn the_exports_are_those_of_the_protocol() {
    let engine = engine(OptLevel::None);
    let mut guest = Guest::new(&engine, 60_000);
    for name in PROTOCOL_EXPORTS {
        let func = guest.instance.get_func(&mut guest.store, name).expect("it is exported");
        let ty = func.ty(&guest.store);
        let params = usize::from(name.contains("start"));
        assert_eq!(ty.params().filter(|ty| matches!(ty, ValType::I32)).count(), params, "{name}");
        assert_eq!(ty.params().len(), params, "{name}");
        assert_eq!(ty.results().len(), usize::from(name.ends_with("state")), "{name}");
    }
}

#[test]
fn states_follow_each_other_and_frames_are_small() {
    let engine = engine(OptLevel::None);
    let mut guest = Guest::new(&engine, 60_000);
    let state = |guest: &mut Guest| guest.call("asyncify_get_state", &[]).expect("it returns");
    assert_eq!(state(&mut guest), 0);
    guest.call("run", &[Val::I32(20)]).expect("it unwinds");
    assert_eq!(state(&mut guest), 1);
    guest.call("asyncify_stop_unwind", &[]).expect("the buffer sufficed");
    assert_eq!(state(&mut guest), 0);
    // Twenty frames with a local, and the innermost with none.
    assert_eq!(guest.cur(), BUFFER + 8 + 20 * FRAME_BYTES + 4);
    guest.call("asyncify_start_rewind", &[Val::I32(BUFFER as i32)]).expect("it is ready");
    assert_eq!(state(&mut guest), 2);
    let result = guest.call("run", &[Val::I32(-1)]).expect("it goes on");
    assert_eq!((result, state(&mut guest)), (100 + 20 * 21 / 2, 0));
    assert_eq!(guest.cur(), BUFFER + 8, "everything was taken back");
}

#[test]
fn a_buffer_that_is_too_small_traps_and_nothing_is_written_past_it() {
    let engine = engine(OptLevel::None);
    let needed = 20 * FRAME_BYTES + 4;
    for size in 0..=needed {
        let end = BUFFER + 8 + size;
        let mut guest = Guest::new(&engine, end);
        guest.memory.data_mut(&mut guest.store)[end..end + 64].fill(0xaa);
        let fits = guest.call("run", &[Val::I32(20)]).is_ok();
        assert_eq!(fits, size == needed, "{size} bytes");
        assert!(guest.memory.data(&guest.store)[end..end + 64].iter().all(|byte| *byte == 0xaa));
    }
}

#[test]
fn a_wrong_description_traps_at_once() {
    let engine = engine(OptLevel::None);
    for name in ["asyncify_start_unwind", "asyncify_start_rewind"] {
        let mut guest = Guest::new(&engine, 60_000);
        guest.describe(BUFFER + 9, BUFFER + 8);
        assert!(guest.call(name, &[Val::I32(BUFFER as i32)]).is_err(), "{name}: cur > end");
        let mut guest = Guest::new(&engine, 60_000);
        assert!(guest.call(name, &[Val::I32(-4)]).is_err(), "{name}: outside of memory");
    }
}
