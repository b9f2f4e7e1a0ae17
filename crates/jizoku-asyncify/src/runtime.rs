//! What is added to a module beside its rewritten functions: the two globals, the five exported
//! functions of the protocol, and small functions that save locals to the call stack's buffer
//! and load them back.
//!
//! The buffer is described by two words in the guest's memory at the address that the host gave:
//! `cur`, where the next frame goes, and `end`, the byte after the buffer. A frame is the saved
//! locals of one function followed by the number (i32) of the call at which it was left. Frames
//! grow upwards; when rewinding, the top one is the function to enter next. Running out of space
//! traps before anything is written past `end`.

use std::collections::{BTreeMap, HashMap};

use wasmparser::ValType;

use crate::PROTOCOL_EXPORTS;
use crate::binary::{Code, op, type_byte, write_u32};
use crate::module::Module;

/// Values of the state global, as the protocol has them.
const NORMAL: i32 = 0;
const UNWINDING: i32 = 1;
const REWINDING: i32 = 2;

/// Most values that one helper function saves or loads.
pub(crate) const CHUNK_MAX: usize = 16;

/// Types in the order in which the values of a frame are saved. `i32` is last, so that the call's
/// number can share its helper.
pub(crate) const SAVE_ORDER: [ValType; 5] =
    [ValType::V128, ValType::F64, ValType::F32, ValType::I64, ValType::I32];

/// A function that is made when it is first needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Helper {
    /// Saves `count` values of `SAVE_ORDER[ty]`.
    Save { ty: usize, count: usize },
    /// Loads them back; with `call_number`, there is one above them to be dropped.
    Load { ty: usize, count: usize, call_number: bool },
    /// The call number of the top frame.
    Top,
    /// Saves a frame that is only a call number if unwinding; traps if not.
    LastCall,
}

/// Parameters and results of a type that was added.
pub(crate) type AddedType = (Vec<ValType>, Vec<ValType>);

/// A function added to the module.
pub(crate) struct AddedFunction {
    /// Its type index.
    pub(crate) type_index: u32,
    /// Its body without the length.
    pub(crate) body: Vec<u8>,
}

/// The additions, collected while functions are rewritten.
pub(crate) struct Runtime {
    /// The state: normal, unwinding or rewinding.
    state: u32,
    /// The address that the host gave.
    data: u32,
    first_function: u32,
    functions: Vec<AddedFunction>,
    helpers: BTreeMap<Helper, u32>,
    type_indices: HashMap<(Vec<ValType>, Vec<ValType>), u32>,
    first_type: u32,
    added_types: Vec<(Vec<ValType>, Vec<ValType>)>,
}

impl Runtime {
    /// The additions that every instrumented module gets.
    pub(crate) fn new(module: &Module<'_>) -> Self {
        let mut type_indices = HashMap::new();
        for (index, ty) in (0..).zip(&module.types) {
            let key = (ty.params().to_vec(), ty.results().to_vec());
            type_indices.entry(key).or_insert(index);
        }
        let globals = module.globals.len() as u32;
        let mut runtime = Self {
            state: globals,
            data: globals + 1,
            first_function: module.function_types.len() as u32,
            functions: Vec::new(),
            helpers: BTreeMap::new(),
            type_indices,
            first_type: module.types.len() as u32,
            added_types: Vec::new(),
        };
        runtime.add_start(UNWINDING);
        runtime.add_stop();
        runtime.add_start(REWINDING);
        runtime.add_stop();
        let mut code = Code::default();
        code.op_u32(op::GLOBAL_GET, runtime.state);
        runtime.add(&[], &[ValType::I32], &[], code);
        assert_eq!(runtime.functions.len(), PROTOCOL_EXPORTS.len());
        runtime
    }

    /// The functions added so far, and the types they and rewritten functions needed.
    pub(crate) fn finish(self) -> (Vec<AddedFunction>, Vec<AddedType>) {
        (self.functions, self.added_types)
    }

    /// Index of the state global, which is zero in normal execution.
    pub(crate) fn state(&self) -> u32 {
        self.state
    }

    /// Index of a function type.
    pub(crate) fn type_index(&mut self, params: &[ValType], results: &[ValType]) -> u32 {
        let next = self.first_type + self.added_types.len() as u32;
        let key = (params.to_vec(), results.to_vec());
        let index = *self.type_indices.entry(key).or_insert(next);
        if index == next {
            self.added_types.push((params.to_vec(), results.to_vec()));
        }
        index
    }

    /// The function that takes `count` values of `SAVE_ORDER[ty]` and saves them.
    pub(crate) fn save(&mut self, ty: usize, count: usize) -> u32 {
        self.helper(Helper::Save { ty, count })
    }

    /// The function that returns `count` values of `SAVE_ORDER[ty]` and drops them from the
    /// buffer, and, with `call_number`, a call number that lies above them.
    pub(crate) fn load(&mut self, ty: usize, count: usize, call_number: bool) -> u32 {
        self.helper(Helper::Load { ty, count, call_number })
    }

    /// The function that returns the call number of the top frame.
    pub(crate) fn top(&mut self) -> u32 {
        self.helper(Helper::Top)
    }

    /// The function that takes a call number and saves it if unwinding, and traps if not.
    pub(crate) fn last_call(&mut self) -> u32 {
        self.helper(Helper::LastCall)
    }

    fn helper(&mut self, helper: Helper) -> u32 {
        if let Some(index) = self.helpers.get(&helper) {
            return *index;
        }
        let index = match helper {
            Helper::Save { ty, count } => self.add_save(SAVE_ORDER[ty], count),
            Helper::Load { ty, count, call_number } => {
                self.add_load(SAVE_ORDER[ty], count, call_number)
            }
            Helper::Top => self.add_top(),
            Helper::LastCall => self.add_last_call(),
        };
        self.helpers.insert(helper, index);
        index
    }

    fn add(
        &mut self,
        params: &[ValType],
        results: &[ValType],
        locals: &[ValType],
        mut code: Code,
    ) -> u32 {
        let mut body = Vec::new();
        write_u32(&mut body, locals.len() as u32);
        for ty in locals {
            body.extend_from_slice(&[1, type_byte(*ty)]);
        }
        code.op(op::END);
        body.append(&mut code.bytes);
        let type_index = self.type_index(params, results);
        self.functions.push(AddedFunction { type_index, body });
        self.first_function + self.functions.len() as u32 - 1
    }

    /// `start_unwind` and `start_rewind`: take the address, refuse a buffer that is full.
    fn add_start(&mut self, state: i32) {
        let mut code = Code::default();
        code.i32_const(state);
        code.op_u32(op::GLOBAL_SET, self.state);
        code.op_u32(op::LOCAL_GET, 0);
        code.op_u32(op::GLOBAL_SET, self.data);
        self.trap_if_full(&mut code);
        self.add(&[ValType::I32], &[], &[], code);
    }

    fn add_stop(&mut self) {
        let mut code = Code::default();
        code.i32_const(NORMAL);
        code.op_u32(op::GLOBAL_SET, self.state);
        self.trap_if_full(&mut code);
        self.add(&[], &[], &[], code);
    }

    fn trap_if_full(&self, code: &mut Code) {
        code.op_u32(op::GLOBAL_GET, self.data);
        code.memory(ValType::I32, false, 0);
        code.op_u32(op::GLOBAL_GET, self.data);
        code.memory(ValType::I32, false, 4);
        code.op(op::I32_GT_U);
        trap_if(code);
    }

    fn add_save(&mut self, ty: ValType, count: usize) -> u32 {
        let (size, cur) = (width(ty) * count as u32, count as u32);
        let mut code = Code::default();
        code.op_u32(op::GLOBAL_GET, self.data);
        code.memory(ValType::I32, false, 4);
        code.op_u32(op::GLOBAL_GET, self.data);
        code.memory(ValType::I32, false, 0);
        code.op_u32(op::LOCAL_TEE, cur);
        code.op(op::I32_SUB);
        code.i32_const(size as i32);
        code.op(op::I32_LT_U);
        trap_if(&mut code);
        for value in 0..count as u32 {
            code.op_u32(op::LOCAL_GET, cur);
            code.op_u32(op::LOCAL_GET, value);
            code.memory(ty, true, value * width(ty));
        }
        code.op_u32(op::GLOBAL_GET, self.data);
        code.op_u32(op::LOCAL_GET, cur);
        code.i32_const(size as i32);
        code.op(op::I32_ADD);
        code.memory(ValType::I32, true, 0);
        self.add(&vec![ty; count], &[], &[ValType::I32], code)
    }

    fn add_load(&mut self, ty: ValType, count: usize, call_number: bool) -> u32 {
        let size = width(ty) * count as u32 + if call_number { 4 } else { 0 };
        let mut code = Code::default();
        code.op_u32(op::GLOBAL_GET, self.data);
        code.op_u32(op::GLOBAL_GET, self.data);
        code.memory(ValType::I32, false, 0);
        code.i32_const(size as i32);
        code.op(op::I32_SUB);
        code.op_u32(op::LOCAL_TEE, 0);
        code.memory(ValType::I32, true, 0);
        for value in 0..count as u32 {
            code.op_u32(op::LOCAL_GET, 0);
            code.memory(ty, false, value * width(ty));
        }
        self.add(&[], &vec![ty; count], &[ValType::I32], code)
    }

    fn add_top(&mut self) -> u32 {
        let mut code = Code::default();
        code.op_u32(op::GLOBAL_GET, self.data);
        code.memory(ValType::I32, false, 0);
        code.i32_const(4);
        code.op(op::I32_SUB);
        code.memory(ValType::I32, false, 0);
        self.add(&[], &[ValType::I32], &[], code)
    }

    fn add_last_call(&mut self) -> u32 {
        let save = self.save(SAVE_ORDER.len() - 1, 1);
        let mut code = Code::default();
        code.op_u32(op::GLOBAL_GET, self.state);
        code.op(op::I32_EQZ);
        trap_if(&mut code);
        code.op_u32(op::LOCAL_GET, 0);
        code.op_u32(op::CALL, save);
        self.add(&[ValType::I32], &[], &[], code)
    }
}

fn trap_if(code: &mut Code) {
    code.open(op::IF);
    code.op(op::UNREACHABLE);
    code.op(op::END);
}

/// Bytes of a saved value.
fn width(ty: ValType) -> u32 {
    match ty {
        ValType::V128 => 16,
        ValType::I64 | ValType::F64 => 8,
        _ => 4,
    }
}
