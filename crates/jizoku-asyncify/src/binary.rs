//! Writing WebAssembly bytes: LEB128 numbers, opcodes, and a code buffer with one method per
//! instruction that the pass emits.
//!
//! It does not know what is instrumented, nor any module. Instructions of the input are copied as
//! bytes; only the handful that the pass adds are written through here.

use wasmparser::{RefType, ValType};

/// Opcodes that the pass writes or looks for.
pub(crate) mod op {
    pub(crate) const UNREACHABLE: u8 = 0x00;
    pub(crate) const BLOCK: u8 = 0x02;
    pub(crate) const IF: u8 = 0x04;
    pub(crate) const END: u8 = 0x0b;
    pub(crate) const BR: u8 = 0x0c;
    pub(crate) const BR_IF: u8 = 0x0d;
    pub(crate) const BR_TABLE: u8 = 0x0e;
    pub(crate) const RETURN: u8 = 0x0f;
    pub(crate) const CALL: u8 = 0x10;
    pub(crate) const LOCAL_GET: u8 = 0x20;
    pub(crate) const LOCAL_SET: u8 = 0x21;
    pub(crate) const LOCAL_TEE: u8 = 0x22;
    pub(crate) const GLOBAL_GET: u8 = 0x23;
    pub(crate) const GLOBAL_SET: u8 = 0x24;
    pub(crate) const I32_LOAD: u8 = 0x28;
    pub(crate) const I32_STORE: u8 = 0x36;
    pub(crate) const I32_CONST: u8 = 0x41;
    pub(crate) const I64_CONST: u8 = 0x42;
    pub(crate) const F32_CONST: u8 = 0x43;
    pub(crate) const F64_CONST: u8 = 0x44;
    pub(crate) const I32_EQZ: u8 = 0x45;
    pub(crate) const I32_NE: u8 = 0x47;
    pub(crate) const I32_LT_U: u8 = 0x49;
    pub(crate) const I32_GT_U: u8 = 0x4b;
    pub(crate) const I32_ADD: u8 = 0x6a;
    pub(crate) const I32_SUB: u8 = 0x6b;
    pub(crate) const REF_NULL: u8 = 0xd0;
    pub(crate) const SIMD: u8 = 0xfd;
}

/// The block type of a block without parameters and results.
pub(crate) const EMPTY_BLOCK: u8 = 0x40;

/// Appends `value` as unsigned LEB128.
pub(crate) fn write_u32(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` as signed LEB128.
pub(crate) fn write_i64(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = value as u8 & 0x7f;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// Appends `text` with its length.
pub(crate) fn write_name(out: &mut Vec<u8>, text: &str) {
    write_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

/// The byte of a value type. The admission check lets only these seven types in.
pub(crate) fn type_byte(ty: ValType) -> u8 {
    match ty {
        ValType::I32 => 0x7f,
        ValType::I64 => 0x7e,
        ValType::F32 => 0x7d,
        ValType::F64 => 0x7c,
        ValType::V128 => 0x7b,
        ValType::Ref(RefType::FUNCREF) => 0x70,
        ValType::Ref(_) => 0x6f,
    }
}

/// Whether `ty` is one of the seven types that the pass knows.
pub(crate) fn known_type(ty: ValType) -> bool {
    match ty {
        ValType::Ref(reference) => reference == RefType::FUNCREF || reference == RefType::EXTERNREF,
        _ => true,
    }
}

/// A growing run of instructions.
#[derive(Default)]
pub(crate) struct Code {
    pub(crate) bytes: Vec<u8>,
}

impl Code {
    /// An instruction without immediates.
    pub(crate) fn op(&mut self, opcode: u8) {
        self.bytes.push(opcode);
    }

    /// An instruction with one unsigned immediate: an index or a branch depth.
    pub(crate) fn op_u32(&mut self, opcode: u8, immediate: u32) {
        self.bytes.push(opcode);
        write_u32(&mut self.bytes, immediate);
    }

    /// `i32.const`.
    pub(crate) fn i32_const(&mut self, value: i32) {
        self.bytes.push(op::I32_CONST);
        write_i64(&mut self.bytes, i64::from(value));
    }

    /// `block` or `if` without parameters and results.
    pub(crate) fn open(&mut self, opcode: u8) {
        self.bytes.extend_from_slice(&[opcode, EMPTY_BLOCK]);
    }

    /// A load or store of `ty` at a constant offset from the address on the stack.
    pub(crate) fn memory(&mut self, ty: ValType, store: bool, offset: u32) {
        let (opcode, align) = match ty {
            ValType::I32 => (op::I32_LOAD, 2),
            ValType::I64 => (op::I32_LOAD + 1, 3),
            ValType::F32 => (op::I32_LOAD + 2, 2),
            ValType::F64 => (op::I32_LOAD + 3, 3),
            ValType::V128 => (op::SIMD, 4),
            ValType::Ref(_) => unreachable!("references are never saved"),
        };
        if ty == ValType::V128 {
            self.bytes.extend_from_slice(&[opcode, if store { 0x0b } else { 0x00 }]);
        } else {
            self.bytes.push(if store { opcode + (op::I32_STORE - op::I32_LOAD) } else { opcode });
        }
        self.bytes.push(align);
        write_u32(&mut self.bytes, offset);
    }

    /// The zero (or null) of `ty`.
    pub(crate) fn zero(&mut self, ty: ValType) {
        match ty {
            ValType::I32 => self.bytes.extend_from_slice(&[op::I32_CONST, 0]),
            ValType::I64 => self.bytes.extend_from_slice(&[op::I64_CONST, 0]),
            ValType::F32 => self.bytes.extend_from_slice(&[op::F32_CONST, 0, 0, 0, 0]),
            ValType::F64 => self.bytes.extend_from_slice(&[op::F64_CONST, 0, 0, 0, 0, 0, 0, 0, 0]),
            ValType::V128 => {
                self.bytes.extend_from_slice(&[op::SIMD, 0x0c]);
                self.bytes.extend_from_slice(&[0; 16]);
            }
            ValType::Ref(_) => self.bytes.extend_from_slice(&[op::REF_NULL, type_byte(ty)]),
        }
    }
}
