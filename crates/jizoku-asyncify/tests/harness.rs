//! A host that interrupts: it runs an export of a module and, at chosen calls of its imports,
//! unwinds, throws the instance away, and goes on in a new one.
//!
//! What the imports do is a [`World`]; the one here answers from a hash of name, arguments and a
//! counter. The buffer is lent from the guest's memory, as a real host does, so that the memory can
//! be compared byte for byte.

use jizoku_asyncify::{
    GLOBAL_EXPORT_PREFIX, InstrumentError, Instrumented, NoReturn, Options, instrument,
};
use wasmtime::{
    Caller, Config, Engine, Extern, ExternType, Func, FuncType, Instance, Linker, Memory, Module,
    OptLevel, Store, V128, Val, ValType,
};

/// Bytes of guest memory lent for the buffer, from address 0 (two pages must exist).
const BUFFER_BYTES: usize = 1 << 16;
/// Where the first frame goes, after `cur` and `end`.
const BUFFER_START: usize = 8;

/// When to interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// At every how manieth call that may unwind; 0 for never.
    pub every: u32,
    /// Whether a call that was resumed unwinds once more before it goes on.
    pub twice: bool,
}

/// All that can be seen of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Results, or that it trapped.
    pub results: Option<Vec<String>>,
    /// Every import call with its arguments.
    pub calls: Vec<String>,
    /// The memory afterwards.
    pub memory: Vec<u8>,
    /// The values of exported globals afterwards.
    pub globals: Vec<String>,
    /// What the world was given.
    pub output: Vec<u8>,
}

/// A run and how often it was interrupted.
pub(crate) struct Run {
    pub outcome: Outcome,
    pub unwound: u32,
    /// Most bytes of call stack at one interruption.
    pub stack_bytes_max: usize,
}

/// What the imports of a module do.
#[derive(Clone, Copy)]
pub(crate) struct World {
    /// Whether the import of this name may unwind.
    pub may_unwind: fn(&str) -> bool,
    /// Sets the results of a call, which are zeros of the right types; `Err` traps.
    pub answer: fn(&mut Caller<'_, Host>, &str, &[Val], &mut [Val]) -> wasmtime::Result<()>,
}

/// Imports named `u...` may unwind; all results are hashes.
pub(crate) const HASHED: World =
    World { may_unwind: |name| name.starts_with('u'), answer: answer_hashed };

/// An engine as services get it.
pub(crate) fn engine(opt_level: OptLevel) -> Engine {
    let mut config = Config::new();
    config.cranelift_nan_canonicalization(true).cranelift_opt_level(opt_level);
    Engine::new(&config).expect("the configuration is valid")
}

/// Instruments with every `host.u*` import of the module as an unwinding one.
pub(crate) fn instrument_all(
    wasm: &[u8],
    no_return: NoReturn,
) -> Result<Instrumented, InstrumentError> {
    let names = ["u", "u0", "u1", "u2", "u3", "u4"].map(|name| ("host", name));
    let options = Options { unwinding_imports: &names, allowed_imports: None, no_return };
    let instrumented = instrument(wasm, &options)?;
    if let Err(error) = wasmparser::validate(&instrumented.wasm) {
        panic!("the output is not valid: {error}");
    }
    Ok(instrumented)
}

/// The host's side of a run; it outlives the instances.
pub(crate) struct Host {
    world: World,
    policy: Policy,
    /// For worlds: what was written so far.
    pub output: Vec<u8>,
    /// For worlds: a number that grows.
    pub counter: u64,
    /// Calls answered so far that may unwind.
    answered: u32,
    /// Whether the call being made was resumed already.
    resumed: bool,
    unwinding: bool,
    rewinding: bool,
    /// The call that was unwound.
    interrupted: Option<String>,
    /// Guest memory under the lent buffer.
    lent: Vec<u8>,
    calls: Vec<String>,
}

impl Host {
    fn new(world: World, policy: Policy) -> Self {
        Self {
            world,
            policy,
            output: Vec::new(),
            counter: 0,
            answered: 0,
            resumed: false,
            unwinding: false,
            rewinding: false,
            interrupted: None,
            lent: Vec::new(),
            calls: Vec::new(),
        }
    }
}

/// Runs `export` of `wasm` with `arguments`.
pub(crate) fn run(
    engine: &Engine,
    wasm: &[u8],
    (export, arguments): (&str, &[Val]),
    world: World,
    policy: Policy,
) -> Run {
    let module = Module::new(engine, wasm).expect("the module compiles");
    let mut linker = Linker::new(engine);
    for import in module.imports() {
        let ExternType::Func(ty) = import.ty() else { panic!("only functions are imported") };
        let name = import.name().to_owned();
        let result_types: Vec<ValType> = ty.results().collect();
        let func = move |caller: Caller<'_, Host>, args: &[Val], results: &mut [Val]| {
            for (result, ty) in results.iter_mut().zip(&result_types) {
                *result = zero(ty);
            }
            answer(caller, &name, args, results)
        };
        linker.func_new(import.module(), import.name(), ty, func).expect("names are unique");
    }
    let mut store = Store::new(engine, Host::new(world, policy));
    let mut instance = linker.instantiate(&mut store, &module).expect("it instantiates");
    let (mut unwound, mut stack_bytes_max) = (0, 0);
    loop {
        let func = instance.get_func(&mut store, export).expect("the export exists");
        let ty = func.ty(&store);
        let mut results: Vec<Val> = ty.results().map(|ty| zero(&ty)).collect();
        let returned = func.call(&mut store, arguments, &mut results);
        if returned.is_ok() && store.data().unwinding {
            let stack = take_stack(&mut store, instance);
            stack_bytes_max = stack_bytes_max.max(stack.len());
            unwound += 1;
            (store, instance) = move_instance(engine, &linker, &module, store, instance, &stack);
            continue;
        }
        assert!(!store.data().rewinding, "rewinding must reach the import");
        let memory = memory(&mut store, instance).data(&store).to_vec();
        let outcome = Outcome {
            results: returned.ok().map(|()| results.iter().map(show).collect()),
            calls: std::mem::take(&mut store.data_mut().calls),
            memory,
            globals: globals(&mut store, instance),
            output: std::mem::take(&mut store.data_mut().output),
        };
        return Run { outcome, unwound, stack_bytes_max };
    }
}

fn answer(
    mut caller: Caller<'_, Host>,
    name: &str,
    args: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let call = format!("{name}({})", args.iter().map(show).collect::<Vec<_>>().join(", "));
    let may_unwind = (caller.data().world.may_unwind)(name);
    if caller.data().rewinding {
        assert_eq!(state(&mut caller), 2);
        protocol(&mut caller, "asyncify_stop_rewind", &[]);
        let lent = std::mem::take(&mut caller.data_mut().lent);
        lend_back(&mut caller, &lent);
        let host = caller.data_mut();
        host.rewinding = false;
        assert_eq!(host.interrupted.take().as_deref(), Some(call.as_str()), "the same call");
        if host.policy.twice && !host.resumed {
            host.resumed = true;
            unwind(caller, call, results);
            return Ok(());
        }
    } else if may_unwind {
        let host = caller.data_mut();
        host.resumed = false;
        if host.policy.every > 0 && host.answered.is_multiple_of(host.policy.every) {
            unwind(caller, call, results);
            return Ok(());
        }
    }
    let host = caller.data_mut();
    host.answered += u32::from(may_unwind);
    host.calls.push(call);
    (host.world.answer)(&mut caller, name, args, results)
}

fn answer_hashed(
    caller: &mut Caller<'_, Host>,
    _: &str,
    _: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let calls = &caller.data().calls;
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ calls.len() as u64;
    for byte in calls.last().into_iter().flat_map(|call| call.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for result in results {
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        *result = match result {
            Val::I32(_) => Val::I32(hash as i32),
            Val::I64(_) => Val::I64(hash as i64),
            Val::F32(_) => Val::F32((hash as i16 as f32).to_bits()),
            Val::F64(_) => Val::F64((hash as i32 as f64).to_bits()),
            Val::V128(_) => Val::V128(V128::from(u128::from(hash) << 32)),
            _ => panic!("no reference results"),
        };
    }
    Ok(())
}

fn unwind(mut caller: Caller<'_, Host>, call: String, results: &mut [Val]) {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { panic!("memory") };
    let (data, host) = memory.data_and_store_mut(&mut caller);
    host.lent = data[..BUFFER_BYTES].to_vec();
    host.interrupted = Some(call);
    host.unwinding = true;
    write_header(data, BUFFER_START);
    protocol(&mut caller, "asyncify_start_unwind", &[Val::I32(0)]);
    // What an unwinding call returns must not matter.
    for result in results {
        match result {
            Val::I32(v) => *v = -1,
            Val::I64(v) => *v = -1,
            Val::F32(v) => *v = u32::MAX,
            Val::F64(v) => *v = u64::MAX,
            _ => {}
        }
    }
}

fn write_header(data: &mut [u8], cur: usize) {
    data[..4].copy_from_slice(&(cur as u32).to_le_bytes());
    data[4..8].copy_from_slice(&(BUFFER_BYTES as u32).to_le_bytes());
}

fn state(caller: &mut Caller<'_, Host>) -> i32 {
    let Some(Extern::Func(func)) = caller.get_export("asyncify_get_state") else { panic!("state") };
    let mut result = [Val::I32(9)];
    func.call(caller, &[], &mut result).expect("it returns the state");
    result[0].unwrap_i32()
}

fn protocol(caller: &mut Caller<'_, Host>, name: &str, args: &[Val]) {
    let Some(Extern::Func(func)) = caller.get_export(name) else { panic!("{name}") };
    func.call(caller, args, &mut []).expect("the protocol's functions return");
}

fn lend_back(caller: &mut Caller<'_, Host>, lent: &[u8]) {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { panic!("memory") };
    memory.data_mut(caller)[..BUFFER_BYTES].copy_from_slice(lent);
}

fn memory(store: &mut Store<Host>, instance: Instance) -> Memory {
    instance.get_memory(store, "memory").expect("the memory is exported")
}

/// Ends unwinding: gives the guest its memory back and returns the call stack.
fn take_stack(store: &mut Store<Host>, instance: Instance) -> Vec<u8> {
    call_protocol(store, instance, "asyncify_stop_unwind", &[]);
    let memory = memory(store, instance);
    let (data, host) = memory.data_and_store_mut(store);
    let cur = u32::from_le_bytes([data[0], data[1], data[2], data[3]]) as usize;
    assert!((BUFFER_START..=BUFFER_BYTES).contains(&cur));
    let stack = data[BUFFER_START..cur].to_vec();
    data[..BUFFER_BYTES].copy_from_slice(&host.lent);
    host.lent.clear();
    host.unwinding = false;
    stack
}

fn call_protocol(store: &mut Store<Host>, instance: Instance, name: &str, args: &[Val]) {
    let func: Func = instance.get_func(&mut *store, name).expect("the protocol is exported");
    func.call(store, args, &mut []).expect("the protocol's functions return");
}

/// Makes a new instance with the memory and globals of the old one, about to rewind.
fn move_instance(
    engine: &Engine,
    linker: &Linker<Host>,
    module: &Module,
    mut old: Store<Host>,
    old_instance: Instance,
    stack: &[u8],
) -> (Store<Host>, Instance) {
    let bytes = memory(&mut old, old_instance).data(&old).to_vec();
    let mut values = Vec::new();
    for export in module.exports().filter(|e| e.name().starts_with(GLOBAL_EXPORT_PREFIX)) {
        let global = old_instance.get_global(&mut old, export.name()).expect("it is a global");
        values.push((export.name().to_owned(), global.get(&mut old)));
    }
    let mut store = Store::new(engine, old.into_data());
    let instance = linker.instantiate(&mut store, module).expect("it instantiates again");
    for (name, value) in values {
        let global = instance.get_global(&mut store, &name).expect("the same exports");
        global.set(&mut store, value).expect("the same type");
    }
    let memory = memory(&mut store, instance);
    let missing = (bytes.len() - memory.data_size(&store)) / (1 << 16);
    memory.grow(&mut store, missing as u64).expect("it was as large before");
    let (data, host) = memory.data_and_store_mut(&mut store);
    data.copy_from_slice(&bytes);
    host.lent = bytes[..BUFFER_BYTES].to_vec();
    host.rewinding = true;
    write_header(data, BUFFER_START + stack.len());
    data[BUFFER_START..BUFFER_START + stack.len()].copy_from_slice(stack);
    call_protocol(&mut store, instance, "asyncify_start_rewind", &[Val::I32(0)]);
    (store, instance)
}

/// The exported globals that the module had before instrumenting.
fn globals(store: &mut Store<Host>, instance: Instance) -> Vec<String> {
    let named: Vec<_> = instance
        .exports(&mut *store)
        .filter(|export| !export.name().starts_with(GLOBAL_EXPORT_PREFIX))
        .filter_map(|export| export.into_global())
        .collect();
    named.into_iter().map(|global| show(&global.get(&mut *store))).collect()
}

fn zero(ty: &ValType) -> Val {
    Val::default_for_ty(ty).expect("every type here has a default")
}

fn show(value: &Val) -> String {
    match value {
        Val::I32(v) => format!("i32 {v}"),
        Val::I64(v) => format!("i64 {v}"),
        Val::F32(v) => format!("f32 {v:#x}"),
        Val::F64(v) => format!("f64 {v:#x}"),
        Val::V128(v) => format!("v128 {:#x}", v.as_u128()),
        Val::FuncRef(v) => format!("funcref {}", v.is_some()),
        _ => "reference".to_owned(),
    }
}

/// The type of an export, for tests that call it with numbers of their own.
pub(crate) fn arguments(wasm: &[u8], engine: &Engine, export: &str) -> Vec<Val> {
    let module = Module::new(engine, wasm).expect("the module compiles");
    let ty: FuncType = module.get_export(export).expect("it exists").unwrap_func().clone();
    let number = |(index, ty): (usize, ValType)| match ty {
        ValType::I32 => Val::I32(7 + index as i32 * 1000),
        ValType::I64 => Val::I64(-5 - index as i64),
        ValType::F32 => Val::F32((1.5f32 + index as f32).to_bits()),
        ValType::F64 => Val::F64((-2.25f64 - index as f64).to_bits()),
        other => zero(&other),
    };
    ty.params().enumerate().map(number).collect()
}

/// Checks that interruptions cannot be noticed, for several policies. Returns how often it
/// interrupted in all, so that a test can see that something was tested.
pub(crate) fn check(engine: &Engine, wasm: &[u8], what: &str) -> u32 {
    let never = Policy { every: 0, twice: false };
    let arguments = arguments(wasm, engine, "run");
    let call = ("run", arguments.as_slice());
    let expected = run(engine, wasm, call, HASHED, never).outcome;
    let mut interruptions = 0;
    for no_return in [NoReturn::Unwind, NoReturn::Trap] {
        let instrumented =
            instrument_all(wasm, no_return).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(instrument_all(wasm, no_return), Ok(instrumented.clone()), "deterministic");
        for (every, twice) in [(0, false), (1, false), (1, true), (3, false)] {
            if every > 0 && no_return == NoReturn::Trap {
                continue;
            }
            let policy = Policy { every, twice };
            let run = run(engine, &instrumented.wasm, call, HASHED, policy);
            interruptions += run.unwound;
            assert!(run.outcome.calls == expected.calls, "{what}: {policy:?}: calls differ");
            assert_eq!(run.outcome.results, expected.results, "{what}: {policy:?}");
            assert_eq!(run.outcome.globals, expected.globals, "{what}: {policy:?}");
            assert!(run.outcome.memory == expected.memory, "{what}: {policy:?}: memory differs");
        }
    }
    interruptions
}
