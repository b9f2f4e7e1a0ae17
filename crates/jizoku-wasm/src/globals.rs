//! The program's mutable globals: all of them are exported, and read and set by name.

use wasmtime::{AsContextMut, Global, Instance, Mutability, Val};

use crate::state::{Globals, Value};

/// All mutable globals that the program exports, in the order of its exports.
pub(crate) fn read(mut store: impl AsContextMut, instance: &Instance) -> Globals {
    let mut store = store.as_context_mut();
    let exported: Vec<(String, Global)> = instance
        .exports(&mut store)
        .filter_map(|export| Some((export.name().to_string(), export.into_global()?)))
        .collect();
    let mut globals = Vec::new();
    for (name, global) in exported {
        if global.ty(&store).mutability() == Mutability::Var
            && let Some(value) = Value::of(&global.get(&mut store))
        {
            globals.push((name, value));
        }
    }
    Globals(globals)
}

/// Sets the program's globals. False if one of them is not there, or of another type.
pub(crate) fn set(mut store: impl AsContextMut, instance: &Instance, globals: &Globals) -> bool {
    let mut store = store.as_context_mut();
    globals.0.iter().all(|(name, value)| match instance.get_global(&mut store, name) {
        Some(global) => global.set(&mut store, value.val()).is_ok(),
        None => false,
    })
}

impl Value {
    /// The value, unless it is a reference: admission has seen to it that there are none.
    fn of(val: &Val) -> Option<Value> {
        match *val {
            Val::I32(value) => Some(Value::I32(value)),
            Val::I64(value) => Some(Value::I64(value)),
            Val::F32(bits) => Some(Value::F32(bits)),
            Val::F64(bits) => Some(Value::F64(bits)),
            Val::V128(value) => Some(Value::V128(value.as_u128())),
            _ => None,
        }
    }

    fn val(self) -> Val {
        match self {
            Value::I32(value) => Val::I32(value),
            Value::I64(value) => Val::I64(value),
            Value::F32(bits) => Val::F32(bits),
            Value::F64(bits) => Val::F64(bits),
            Value::V128(value) => Val::V128(value.into()),
        }
    }
}
