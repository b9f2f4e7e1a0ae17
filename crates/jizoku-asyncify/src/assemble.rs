//! Writing the output module: the sections of the input, with what was added at the end of each
//! list, so that no index of the input changes.
//!
//! Custom sections that speak of byte positions in the code (debug information, source maps,
//! relocations, code metadata) would be wrong now and are left out; names stay.

use wasmparser::{BinaryReader, ValType};

use crate::binary::{op, type_byte, write_name, write_u32};
use crate::module::{CUSTOM_SECTION, Module, Section};
use crate::runtime::AddedFunction;
use crate::{ExportedGlobal, PROTOCOL_EXPORTS};

const TYPE_SECTION: u8 = 1;
const FUNCTION_SECTION: u8 = 3;
const GLOBAL_SECTION: u8 = 6;
const EXPORT_SECTION: u8 = 7;
const CODE_SECTION: u8 = 10;

/// The order of sections in a module.
const SECTION_ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

const EXPORT_FUNCTION: u8 = 0;
const EXPORT_GLOBAL: u8 = 3;

/// What the output has beside the input.
pub(crate) struct Additions {
    /// Function types.
    pub(crate) types: Vec<(Vec<ValType>, Vec<ValType>)>,
    /// Functions; the first are those of `PROTOCOL_EXPORTS`.
    pub(crate) functions: Vec<AddedFunction>,
    /// Mutable globals of the input and the names to export them by.
    pub(crate) globals: Vec<ExportedGlobal>,
    /// The bodies of all functions of the input, rewritten or not, without their lengths.
    pub(crate) bodies: Vec<Vec<u8>>,
}

/// Writes the module.
pub(crate) fn assemble(module: &Module<'_>, additions: &Additions) -> Vec<u8> {
    let mut out = b"\0asm\x01\0\0\0".to_vec();
    let lists = [
        (TYPE_SECTION, added_types(additions)),
        (FUNCTION_SECTION, added_functions(additions)),
        (GLOBAL_SECTION, added_globals()),
        (EXPORT_SECTION, added_exports(module, additions)),
    ];
    let mut lists = lists.iter().peekable();
    let mut code_written = false;
    for Section { id, bytes } in &module.sections {
        if *id == CUSTOM_SECTION {
            if keep_custom(bytes) {
                write_section(&mut out, *id, bytes);
            }
            continue;
        }
        // A list that the input does not have goes before the first section that must follow it.
        while let Some((list, added)) = lists.peek()
            && rank(*list) < rank(*id)
        {
            write_list(&mut out, *list, &[], added);
            lists.next();
        }
        if !code_written && rank(CODE_SECTION) <= rank(*id) {
            write_code(&mut out, additions);
            code_written = true;
        }
        match lists.peek() {
            Some((list, added)) if list == id => {
                write_list(&mut out, *id, bytes, added);
                lists.next();
            }
            _ if *id == CODE_SECTION => {}
            _ => write_section(&mut out, *id, bytes),
        }
    }
    for (list, added) in lists {
        write_list(&mut out, *list, &[], added);
    }
    if !code_written {
        write_code(&mut out, additions);
    }
    out
}

fn rank(id: u8) -> usize {
    SECTION_ORDER.iter().position(|known| *known == id).unwrap_or(SECTION_ORDER.len())
}

/// Whether a custom section still holds for the output.
fn keep_custom(bytes: &[u8]) -> bool {
    const DROPPED: [&str; 4] = ["sourceMappingURL", "external_debug_info", "linking", "dylink.0"];
    const DROPPED_PREFIXES: [&str; 3] = [".debug_", "reloc.", "metadata.code."];
    let name = BinaryReader::new(bytes, 0).read_string().unwrap_or_default();
    !DROPPED.contains(&name) && !DROPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn write_section(out: &mut Vec<u8>, id: u8, bytes: &[u8]) {
    out.push(id);
    write_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

/// Entries to add to a list: how many, and their bytes.
type Added = (u32, Vec<u8>);

/// Writes a section that is a list: the entries it had in the input, and the added ones.
fn write_list(out: &mut Vec<u8>, id: u8, old: &[u8], (count, added): &Added) {
    let mut reader = BinaryReader::new(old, 0);
    let old_count = reader.read_var_u32().unwrap_or(0);
    let mut bytes = Vec::with_capacity(old.len() + added.len());
    write_u32(&mut bytes, old_count + count);
    bytes.extend_from_slice(&old[reader.current_position()..]);
    bytes.extend_from_slice(added);
    write_section(out, id, &bytes);
}

fn added_types(additions: &Additions) -> Added {
    let mut bytes = Vec::new();
    for (params, results) in &additions.types {
        bytes.push(0x60);
        for types in [params, results] {
            write_u32(&mut bytes, types.len() as u32);
            bytes.extend(types.iter().map(|ty| type_byte(*ty)));
        }
    }
    (additions.types.len() as u32, bytes)
}

fn added_functions(additions: &Additions) -> Added {
    let mut bytes = Vec::new();
    for function in &additions.functions {
        write_u32(&mut bytes, function.type_index);
    }
    (additions.functions.len() as u32, bytes)
}

/// The state, and the address of the buffer's description: two mutable `i32`, zero at first.
fn added_globals() -> Added {
    let global = [type_byte(ValType::I32), 1, op::I32_CONST, 0, op::END];
    (2, global.repeat(2))
}

fn added_exports(module: &Module<'_>, additions: &Additions) -> Added {
    let mut bytes = Vec::new();
    let first = module.function_types.len() as u32;
    for (index, name) in (first..).zip(PROTOCOL_EXPORTS) {
        write_name(&mut bytes, name);
        bytes.push(EXPORT_FUNCTION);
        write_u32(&mut bytes, index);
    }
    for global in &additions.globals {
        write_name(&mut bytes, &global.export);
        bytes.push(EXPORT_GLOBAL);
        write_u32(&mut bytes, global.index);
    }
    ((PROTOCOL_EXPORTS.len() + additions.globals.len()) as u32, bytes)
}

fn write_code(out: &mut Vec<u8>, additions: &Additions) {
    let added = additions.functions.iter().map(|function| &function.body);
    let mut bytes = Vec::new();
    write_u32(&mut bytes, (additions.bodies.len() + additions.functions.len()) as u32);
    for body in additions.bodies.iter().chain(added) {
        write_u32(&mut bytes, body.len() as u32);
        bytes.extend_from_slice(body);
    }
    write_section(out, CODE_SECTION, &bytes);
}
