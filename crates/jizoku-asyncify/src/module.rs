//! The input module: its sections as bytes, and the facts about them that the pass needs.
//!
//! Reading validates every section except function bodies (those are validated in `scan`), and
//! refuses what shows in sections alone: imported state, unusual memories, reference globals,
//! taken export names. It knows nothing of call stacks.
//!
//! Invariant of a `Module`: all its types are plain function types, its only imports are functions
//! and immutable globals, and it has exactly one exported 32-bit unshared memory of its own.

use std::collections::BTreeSet;
use std::ops::Range;

use wasmparser::{
    CompositeInnerType, ConstExpr, Element, ElementItems, ElementKind, Export, ExternalKind,
    FuncToValidate, FuncType, FunctionBody, GlobalType, Import, MemoryType, Operator, Parser,
    Payload, TypeRef, TypeSectionReader, ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

use crate::binary::known_type;
use crate::error::{InstrumentError, MemoryFault, Place};
use crate::{GLOBAL_EXPORT_PREFIX, Options, PROTOCOL_EXPORTS};

/// What the validator accepts: more than the admission check lets through, so that the refusal
/// can name the proposal instead of an opcode.
const FEATURES: WasmFeatures = WasmFeatures::WASM3
    .union(WasmFeatures::LEGACY_EXCEPTIONS)
    .union(WasmFeatures::CUSTOM_PAGE_SIZES)
    .union(WasmFeatures::WIDE_ARITHMETIC);

/// The section number of custom sections.
pub(crate) const CUSTOM_SECTION: u8 = 0;

/// One section of the input.
pub(crate) struct Section<'a> {
    /// Section number of the binary format.
    pub(crate) id: u8,
    /// Its contents, without number and length.
    pub(crate) bytes: &'a [u8],
}

/// A function defined in the module.
pub(crate) struct Function<'a> {
    /// Index in the function index space.
    pub(crate) index: u32,
    /// Its locals and instructions.
    pub(crate) body: FunctionBody<'a>,
    /// What its validation needs.
    resources: ValidatorResources,
    type_index: u32,
}

impl Function<'_> {
    /// A fresh ticket to validate, and thereby type, this function.
    pub(crate) fn to_validate(&self) -> FuncToValidate<ValidatorResources> {
        FuncToValidate {
            resources: self.resources.clone(),
            index: self.index,
            ty: self.type_index,
            features: FEATURES,
        }
    }
}

/// The input module.
#[derive(Default)]
pub(crate) struct Module<'a> {
    /// All sections in input order.
    pub(crate) sections: Vec<Section<'a>>,
    /// The function types by type index.
    pub(crate) types: Vec<FuncType>,
    /// Type index of each function, imports first.
    pub(crate) function_types: Vec<u32>,
    /// Names of the imported functions.
    pub(crate) imported_functions: Vec<(&'a str, &'a str)>,
    /// Types of all globals, imports first.
    pub(crate) globals: Vec<GlobalType>,
    /// Functions that a table may hold or a reference may name.
    pub(crate) referenced: BTreeSet<u32>,
    /// The functions with bodies.
    pub(crate) functions: Vec<Function<'a>>,
    /// The start function.
    pub(crate) start: Option<u32>,
    exports: Vec<Export<'a>>,
    memories: Vec<MemoryType>,
    names: Option<wasmparser::NameSectionReader<'a>>,
}

/// Refuses a section that claims to have more items than bytes: the validator makes room for them
/// before it looks for the first.
fn check_count(payload: &Payload<'_>) -> Result<(), InstrumentError> {
    let (count, range) = match payload {
        Payload::TypeSection(items) => (items.count(), items.range()),
        Payload::ImportSection(items) => (items.count(), items.range()),
        Payload::FunctionSection(items) => (items.count(), items.range()),
        Payload::TableSection(items) => (items.count(), items.range()),
        Payload::MemorySection(items) => (items.count(), items.range()),
        Payload::TagSection(items) => (items.count(), items.range()),
        Payload::GlobalSection(items) => (items.count(), items.range()),
        Payload::ExportSection(items) => (items.count(), items.range()),
        Payload::ElementSection(items) => (items.count(), items.range()),
        Payload::DataSection(items) => (items.count(), items.range()),
        _ => return Ok(()),
    };
    if count as usize <= range.len() {
        return Ok(());
    }
    let message = format!("a section of {} bytes can't have {count} items", range.len());
    Err(InstrumentError::Invalid { message, offset: range.start })
}

impl<'a> Module<'a> {
    /// Reads and checks all sections of `wasm`.
    pub(crate) fn read(wasm: &'a [u8], options: &Options<'_>) -> Result<Self, InstrumentError> {
        if Parser::is_component(wasm) {
            return Err(InstrumentError::Component);
        }
        let mut module = Self::default();
        let mut validator = Validator::new_with_features(FEATURES);
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        for payload in parser.parse_all(wasm) {
            let payload = payload?;
            check_count(&payload)?;
            if let ValidPayload::Func(ticket, body) = validator.payload(&payload)? {
                module.functions.push(Function {
                    index: ticket.index,
                    type_index: ticket.ty,
                    resources: ticket.resources,
                    body,
                });
            }
            module.payload(wasm, payload, options)?;
        }
        module.check_exports()?;
        module.check_memory()?;
        Ok(module)
    }

    /// The type of a function.
    pub(crate) fn type_of(&self, function: u32) -> &FuncType {
        &self.types[self.function_types[function as usize] as usize]
    }

    /// The function with its name, for error texts.
    pub(crate) fn place(&self, function: u32) -> Place {
        let exported = || {
            let is_it = |e: &&Export<'_>| e.kind == ExternalKind::Func && e.index == function;
            self.exports.iter().find(is_it).map(|e| e.name.to_owned())
        };
        Place { function, name: self.debug_name(function).or_else(exported) }
    }

    fn debug_name(&self, function: u32) -> Option<String> {
        for subsection in self.names.clone()? {
            if let Ok(wasmparser::Name::Function(map)) = subsection {
                let found = map.into_iter().flatten().find(|naming| naming.index == function);
                return found.map(|naming| naming.name.to_owned());
            }
        }
        None
    }

    fn payload(
        &mut self,
        wasm: &'a [u8],
        payload: Payload<'a>,
        options: &Options<'_>,
    ) -> Result<(), InstrumentError> {
        if let Some((id, range)) = payload.as_section() {
            self.push_section(wasm, id, range)?;
        }
        match payload {
            Payload::TypeSection(reader) => self.read_types(reader)?,
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    self.read_import(import?, options)?;
                }
            }
            Payload::FunctionSection(reader) => {
                for type_index in reader {
                    self.function_types.push(type_index?);
                }
            }
            Payload::TableSection(reader) => {
                for table in reader {
                    let table = table?;
                    if table.ty.table64 || table.ty.shared {
                        return Err(proposal("memory64"));
                    }
                    if !known_type(table.ty.element_type.into()) {
                        return Err(proposal("function-references"));
                    }
                    if let wasmparser::TableInit::Expr(init) = table.init {
                        self.read_constant(&init)?;
                    }
                }
            }
            Payload::MemorySection(reader) => {
                for memory in reader {
                    self.memories.push(memory?);
                }
            }
            Payload::TagSection(_) => return Err(proposal("exception-handling")),
            Payload::GlobalSection(reader) => {
                for global in reader {
                    let global = global?;
                    self.read_global(global.ty)?;
                    self.read_constant(&global.init_expr)?;
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader {
                    self.exports.push(export?);
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(reader) => {
                for element in reader {
                    self.read_element(element?)?;
                }
            }
            Payload::CustomSection(reader) => {
                if let wasmparser::KnownCustom::Name(names) = reader.as_known() {
                    self.names = Some(names);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push_section(
        &mut self,
        wasm: &'a [u8],
        id: u8,
        range: Range<usize>,
    ) -> Result<(), InstrumentError> {
        // The parser believes the length that the code section claims until it gets there.
        let offset = range.start;
        let bytes = wasm.get(range).ok_or_else(|| InstrumentError::Invalid {
            message: "a section is longer than the module".to_owned(),
            offset,
        })?;
        self.sections.push(Section { id, bytes });
        Ok(())
    }

    fn read_types(&mut self, reader: TypeSectionReader<'a>) -> Result<(), InstrumentError> {
        for group in reader {
            let group = group?;
            if group.is_explicit_rec_group() {
                return Err(proposal("garbage-collection"));
            }
            for sub_type in group.into_types() {
                let plain = sub_type.is_final
                    && sub_type.supertype_idx.is_none()
                    && !sub_type.composite_type.shared;
                let CompositeInnerType::Func(ty) = sub_type.composite_type.inner else {
                    return Err(proposal("garbage-collection"));
                };
                if !plain {
                    return Err(proposal("garbage-collection"));
                }
                if !ty.params().iter().chain(ty.results()).all(|ty| known_type(*ty)) {
                    return Err(proposal("function-references"));
                }
                self.types.push(ty);
            }
        }
        Ok(())
    }

    fn read_import(
        &mut self,
        import: Import<'a>,
        options: &Options<'_>,
    ) -> Result<(), InstrumentError> {
        let name = (import.module, import.name);
        let state = |kind| InstrumentError::ImportedState {
            module: name.0.to_owned(),
            name: name.1.to_owned(),
            kind,
        };
        match import.ty {
            TypeRef::Func(type_index) => {
                self.function_types.push(type_index);
                self.imported_functions.push(name);
            }
            TypeRef::Global(ty) if !ty.mutable => self.read_global(ty)?,
            TypeRef::Global(_) => return Err(state("mutable global")),
            TypeRef::Table(_) => return Err(state("table")),
            TypeRef::Memory(_) => return Err(InstrumentError::Memory(MemoryFault::Imported)),
            TypeRef::Tag(_) => return Err(proposal("exception-handling")),
            TypeRef::FuncExact(_) => return Err(proposal("custom-descriptors")),
        }
        match options.allowed_imports {
            Some(allowed) if !allowed.contains(&name) => Err(InstrumentError::UnknownImport {
                module: name.0.to_owned(),
                name: name.1.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn read_global(&mut self, ty: GlobalType) -> Result<(), InstrumentError> {
        if ty.shared {
            return Err(proposal("shared-everything-threads"));
        }
        if !known_type(ty.content_type) {
            return Err(proposal("function-references"));
        }
        if ty.mutable && ty.content_type.is_reference_type() {
            return Err(InstrumentError::ReferenceGlobal { global: self.globals.len() as u32 });
        }
        self.globals.push(ty);
        Ok(())
    }

    fn read_element(&mut self, element: Element<'a>) -> Result<(), InstrumentError> {
        if let ElementKind::Active { offset_expr, .. } = &element.kind {
            self.read_constant(offset_expr)?;
        }
        match element.items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    self.referenced.insert(function?);
                }
            }
            ElementItems::Expressions(ty, expressions) => {
                if !known_type(ty.into()) {
                    return Err(proposal("function-references"));
                }
                for expression in expressions {
                    self.read_constant(&expression?)?;
                }
            }
        }
        Ok(())
    }

    fn read_constant(&mut self, expression: &ConstExpr<'a>) -> Result<(), InstrumentError> {
        for operator in expression.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.referenced.insert(function_index);
            }
        }
        Ok(())
    }

    fn check_exports(&self) -> Result<(), InstrumentError> {
        for export in &self.exports {
            if PROTOCOL_EXPORTS.contains(&export.name)
                || export.name.starts_with(GLOBAL_EXPORT_PREFIX)
            {
                return Err(InstrumentError::ReservedExport { name: export.name.to_owned() });
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), InstrumentError> {
        let fault = match self.memories.as_slice() {
            [] => MemoryFault::Missing,
            [_, _, ..] => MemoryFault::Several,
            [memory] if memory.shared => MemoryFault::Shared,
            [memory] if memory.memory64 || memory.page_size_log2.is_some() => MemoryFault::Unusual,
            [_] if self.exports.iter().any(|e| e.kind == ExternalKind::Memory) => return Ok(()),
            [_] => MemoryFault::NotExported,
        };
        Err(InstrumentError::Memory(fault))
    }
}

fn proposal(proposal: &'static str) -> InstrumentError {
    InstrumentError::Proposal { proposal, place: None }
}
