//! The first look at every function body: validate it, refuse instructions whose effects a
//! snapshot would miss, and note whom it calls.
//!
//! It does not know which functions will be transformed.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{FuncValidatorAllocations, Operator, OperatorsReader};

use crate::binary::known_type;
use crate::error::InstrumentError;
use crate::module::{Function, Module};

/// Proposals whose instructions may pass. Everything else is refused by name.
const ALLOWED_PROPOSALS: [&str; 9] = [
    "mvp",
    "sign_extension",
    "saturating_float_to_int",
    "bulk_memory",
    "reference_types",
    "tail_call",
    "simd",
    "relaxed_simd",
    "wide_arithmetic",
];

/// Whom one function calls.
#[derive(Default)]
pub(crate) struct Calls {
    /// Functions called directly, by calls that may return.
    pub(crate) direct: BTreeSet<u32>,
    /// Functions called directly right before an `unreachable`: the call is not expected to
    /// return.
    pub(crate) last: BTreeSet<u32>,
    /// Type indices called through tables.
    pub(crate) indirect: BTreeSet<u32>,
    /// Functions that are called directly as tail calls.
    pub(crate) tail_direct: BTreeSet<u32>,
    /// Type indices that are called through tables as tail calls.
    pub(crate) tail_indirect: BTreeSet<u32>,
}

/// The calls of all functions, and what else their bodies tell about the module.
pub(crate) struct Scan {
    /// By position in `Module::functions`.
    pub(crate) calls: Vec<Calls>,
}

/// Scans all bodies of `module`; adds the functions they refer to to `module.referenced`.
pub(crate) fn scan(module: &mut Module<'_>) -> Result<Scan, InstrumentError> {
    let mut state = State::default();
    let mut calls = Vec::with_capacity(module.functions.len());
    let mut allocations = FuncValidatorAllocations::default();
    for function in &module.functions {
        let (found, reused) = state.function(module, function, allocations)?;
        allocations = reused;
        calls.push(found);
    }
    if let Some((segment, function)) =
        state.dropped.iter().find(|(segment, _)| state.initialised.contains(segment))
    {
        let place = module.place(*function);
        return Err(InstrumentError::DataDrop { segment: *segment, place });
    }
    module.referenced.append(&mut state.referenced);
    Ok(Scan { calls })
}

#[derive(Default)]
struct State {
    /// Data segments that are dropped, with the first function that does.
    dropped: BTreeMap<u32, u32>,
    /// Data segments that `memory.init` reads.
    initialised: BTreeSet<u32>,
    /// Functions named by `ref.func`.
    referenced: BTreeSet<u32>,
}

impl State {
    fn function(
        &mut self,
        module: &Module<'_>,
        function: &Function<'_>,
        allocations: FuncValidatorAllocations,
    ) -> Result<(Calls, FuncValidatorAllocations), InstrumentError> {
        let mut validator = function.to_validate().into_validator(allocations);
        let mut reader = function.body.get_binary_reader();
        validator.read_locals(&mut reader)?;
        let locals = validator.len_locals();
        // Locals come in runs; only declared ones need a look, parameters were checked as types.
        for local in function.body.get_locals_reader()? {
            if !known_type(local?.1) {
                return Err(refused("function-references", module, function));
            }
        }
        debug_assert!(locals as usize >= module.type_of(function.index).params().len());
        let mut reader = OperatorsReader::new(reader);
        let mut calls = Calls::default();
        let mut called = None;
        while !reader.eof() {
            let offset = reader.original_position();
            let operator = reader.read()?;
            validator.op(offset, &operator)?;
            if let Some(callee) = called.take() {
                let last = matches!(operator, Operator::Unreachable);
                if last { &mut calls.last } else { &mut calls.direct }.insert(callee);
            }
            if let Operator::Call { function_index } = operator {
                called = Some(function_index);
            } else {
                self.operator(module, function, &operator, &mut calls)?;
            }
        }
        let end = reader.original_position();
        reader.get_binary_reader().finish_expression(&validator.visitor(end))?;
        Ok((calls, validator.into_allocations()))
    }

    fn operator(
        &mut self,
        module: &Module<'_>,
        function: &Function<'_>,
        operator: &Operator<'_>,
        calls: &mut Calls,
    ) -> Result<(), InstrumentError> {
        match *operator {
            Operator::CallIndirect { type_index, .. } => {
                calls.indirect.insert(type_index);
            }
            Operator::ReturnCall { function_index } => {
                calls.tail_direct.insert(function_index);
            }
            Operator::ReturnCallIndirect { type_index, .. } => {
                calls.tail_indirect.insert(type_index);
            }
            Operator::RefFunc { function_index } => {
                self.referenced.insert(function_index);
            }
            Operator::MemoryInit { data_index, .. } => {
                self.initialised.insert(data_index);
            }
            Operator::DataDrop { data_index } => {
                self.dropped.entry(data_index).or_insert(function.index);
            }
            _ => {
                if let Some(instruction) = table_write(operator) {
                    let place = module.place(function.index);
                    return Err(InstrumentError::TableWrite { instruction, place });
                }
                let proposal = proposal_of(operator);
                if !ALLOWED_PROPOSALS.contains(&proposal) {
                    return Err(refused(proposal, module, function));
                }
            }
        }
        Ok(())
    }
}

fn refused(
    proposal: &'static str,
    module: &Module<'_>,
    function: &Function<'_>,
) -> InstrumentError {
    InstrumentError::Proposal { proposal, place: Some(module.place(function.index)) }
}

fn table_write(operator: &Operator<'_>) -> Option<&'static str> {
    Some(match operator {
        Operator::TableSet { .. } => "table.set",
        Operator::TableGrow { .. } => "table.grow",
        Operator::TableFill { .. } => "table.fill",
        Operator::TableCopy { .. } => "table.copy",
        Operator::TableInit { .. } => "table.init",
        _ => return None,
    })
}

macro_rules! define_proposal_of {
    ($( @$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident
        ($($ann:tt)*) )*) => {
        /// The proposal that an instruction came with.
        fn proposal_of(operator: &Operator<'_>) -> &'static str {
            match operator {
                $( Operator::$op { .. } => stringify!($proposal), )*
                _ => "unknown",
            }
        }
    };
}
wasmparser::for_each_operator!(define_proposal_of);
