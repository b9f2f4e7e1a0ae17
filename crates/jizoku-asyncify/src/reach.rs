//! Which functions can be on the call stack while an unwinding import runs.
//!
//! Direct calls are followed as they are. A call through a table may end in any function that a
//! table or reference of the module can hold and whose type is the one called; this is exact as
//! far as types tell, because the admission check refuses tables that change. Everything not in
//! the set is left untouched, so the set must never be too small.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::FuncType;

use crate::error::InstrumentError;
use crate::module::Module;
use crate::scan::Scan;
use crate::{NoReturn, Options};

/// The functions and function types through which an unwinding import can be reached.
pub(crate) struct Reach {
    functions: Vec<bool>,
    /// First index of an equal type, by type index.
    canonical: Vec<u32>,
    /// Canonical types through which a reaching function may be called.
    types: BTreeSet<u32>,
    /// Those of them through which an unwinding import itself may be called.
    import_types: BTreeSet<u32>,
}

impl Reach {
    /// Follows the calls of `module` backwards from the unwinding imports.
    pub(crate) fn new(
        module: &Module<'_>,
        scan: &Scan,
        options: &Options<'_>,
    ) -> Result<Self, InstrumentError> {
        let unwinding = |name: &(&str, &str)| options.unwinding_imports.contains(name);
        let seeds = seeds(module, unwinding);
        let mut reach = Self::follow(module, scan, &seeds, options.no_return == NoReturn::Unwind);
        for import in seeds {
            if module.referenced.contains(&import) {
                reach.import_types.insert(reach.canonical_of(module, import));
            }
        }
        reach.check_tail_calls(module, scan)?;
        check_start(module, scan)?;
        Ok(reach)
    }

    /// Whether calling `function` can end in an unwinding import.
    pub(crate) fn function(&self, function: u32) -> bool {
        self.functions[function as usize]
    }

    /// Whether calling some function of type `type_index` through a table can.
    pub(crate) fn indirect(&self, type_index: u32) -> bool {
        self.types.contains(&self.canonical[type_index as usize])
    }

    /// Whether such a call can be to an unwinding import itself.
    pub(crate) fn indirect_import(&self, type_index: u32) -> bool {
        self.import_types.contains(&self.canonical[type_index as usize])
    }

    fn follow(module: &Module<'_>, scan: &Scan, seeds: &[u32], through_last: bool) -> Self {
        let mut reach = Self {
            functions: vec![false; module.function_types.len()],
            canonical: canonical(&module.types),
            types: BTreeSet::new(),
            import_types: BTreeSet::new(),
        };
        let mut callers = vec![Vec::new(); module.function_types.len()];
        let mut type_callers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (function, calls) in module.functions.iter().zip(&scan.calls) {
            let last = calls.last.iter().filter(|_| through_last);
            for callee in calls.direct.iter().chain(last).chain(&calls.tail_direct) {
                callers[*callee as usize].push(function.index);
            }
            for ty in calls.indirect.iter().chain(&calls.tail_indirect) {
                let ty = reach.canonical[*ty as usize];
                type_callers.entry(ty).or_default().push(function.index);
            }
        }
        let mut work = seeds.to_vec();
        while let Some(function) = work.pop() {
            if std::mem::replace(&mut reach.functions[function as usize], true) {
                continue;
            }
            work.append(&mut callers[function as usize]);
            if module.referenced.contains(&function) {
                let ty = reach.canonical_of(module, function);
                if reach.types.insert(ty) {
                    work.append(&mut type_callers.remove(&ty).unwrap_or_default());
                }
            }
        }
        reach
    }

    fn canonical_of(&self, module: &Module<'_>, function: u32) -> u32 {
        self.canonical[module.function_types[function as usize] as usize]
    }

    fn check_tail_calls(&self, module: &Module<'_>, scan: &Scan) -> Result<(), InstrumentError> {
        for (function, calls) in module.functions.iter().zip(&scan.calls) {
            if calls.tail_direct.iter().any(|callee| self.function(*callee))
                || calls.tail_indirect.iter().any(|ty| self.indirect(*ty))
            {
                return Err(InstrumentError::TailCall { place: module.place(function.index) });
            }
        }
        Ok(())
    }
}

fn seeds(module: &Module<'_>, wanted: impl Fn(&(&str, &str)) -> bool) -> Vec<u32> {
    let imports = (0..).zip(&module.imported_functions);
    imports.filter(|(_, name)| wanted(name)).map(|(index, _)| index).collect()
}

/// A start function runs again whenever an instance is made to restore a snapshot into, so it
/// must not be able to call any import at all.
fn check_start(module: &Module<'_>, scan: &Scan) -> Result<(), InstrumentError> {
    let Some(start) = module.start else { return Ok(()) };
    let calling = Reach::follow(module, scan, &seeds(module, |_| true), true);
    if calling.function(start) {
        return Err(InstrumentError::StartCallsHost { place: module.place(start) });
    }
    Ok(())
}

fn canonical(types: &[FuncType]) -> Vec<u32> {
    let mut first = std::collections::HashMap::new();
    (0..).zip(types).map(|(index, ty)| *first.entry(ty).or_insert(index)).collect()
}
