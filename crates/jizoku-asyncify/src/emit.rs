//! Rewriting one function so that it can be left and entered again in the middle of a call.
//!
//! The rewritten code of a function with two calls that may unwind, `a` and `b`, in a row:
//!
//! ```text
//! block $unwind_b  block $unwind_a
//!   block $enter_b  block $enter_a
//!     if (state) ...            ;; rewinding: load the locals of the call that is on top of
//!                               ;; the saved stack, branch to $enter_a or $enter_b
//!     ...                       ;; code before a
//!   end $enter_a
//!   call a
//!   br_if $unwind_a (state)     ;; a is unwinding
//!   ...                         ;; code between a and b
//!   end $enter_b
//!   call b
//!   br_if $unwind_b (state)
//!   ...
//!   return
//! end $unwind_a                 ;; save the locals that are live after a, and the number of a
//!   return
//! end $unwind_b
//! ```
//!
//! So in normal execution a function costs one test of the state when it is entered and one after
//! each such call. What lies inside blocks and `if`s is reached the same way: where a block starts
//! makes no difference to WebAssembly, so all blocks with such calls inside are opened at the start
//! of the *region*. Only a loop cannot be entered in its middle; a loop with such calls is a region
//! of its own, with a test of the state at its head.
//!
//! Between a region's start and its inner ends nothing may stay on the operand stack, so values
//! there are moved to temporary locals, which the compiler keeps in registers anyway; `operands`
//! does this as late as it can.
//!
//! Calls after which the program only traps (as calls that report a panic) need no entry in the
//! middle: nothing after them is ever run, so they all are entered at the function's start and left
//! through one place.

mod choice;
mod operands;
mod regions;

use std::collections::BTreeSet;

use wasmparser::ValType;

use crate::binary::{Code, EMPTY_BLOCK, op, type_byte, write_u32};
use crate::body::{BlockKind, Body, Callee, Kind, Site};
use crate::error::InstrumentError;
use crate::liveness::Liveness;
use crate::module::Module;
use crate::plan::{Plan, commutes, resumed_reads};
use crate::runtime::Runtime;
use operands::{Operands, Slot};
use regions::{Event, EventKind, Region};

/// Most locals of a function that engines accept.
const LOCALS_MAX: usize = 50_000;
/// Longest function body that engines accept, in bytes.
const BODY_BYTES_MAX: usize = 7_654_321;
/// Most saved values of all sites of a function; more cannot fit `BODY_BYTES_MAX`, because each
/// takes four bytes at least (a read to save it and a write to load it).
const SAVED_MAX: usize = BODY_BYTES_MAX / 4;

/// Rewrites `body` as `plan` says; returns the new body without its length.
pub(crate) fn rewrite(
    module: &Module<'_>,
    body: &Body<'_>,
    plan: &Plan,
    liveness: &Liveness,
    runtime: &mut Runtime,
) -> Result<Vec<u8>, InstrumentError> {
    let constant = |instr: u32| body.code(&body.instrs[instr as usize]);
    let mut emitter = Emitter {
        module,
        body,
        plan,
        liveness,
        runtime,
        code: Code::default(),
        operands: Operands::new(body.locals.len() as u32, constant),
        labels: 1,
        label_of: vec![0; body.blocks.len()],
        else_label_of: vec![0; body.blocks.len()],
        events: regions::events(body, plan),
        regions: Vec::new(),
        closed_regions: Vec::new(),
        open: vec![Open { height: 0, params: Vec::new() }],
        resumed: vec![Vec::new(); body.sites.len()],
        saved: vec![Vec::new(); body.sites.len()],
        saved_total: 0,
        dead: false,
    };
    emitter.open_unwinding();
    emitter.open_region(0);
    for at in 0..body.instrs.len() as u32 {
        emitter.instr(at)?;
    }
    emitter.close_unwinding();
    emitter.finish()
}

/// A block that is open at the current instruction.
struct Open {
    /// Number of operands below its parameters.
    height: usize,
    /// For an `if` that is entered in its middle: where its parameters are.
    params: Vec<(Slot, ValType)>,
}

struct Emitter<'b> {
    module: &'b Module<'b>,
    body: &'b Body<'b>,
    plan: &'b Plan,
    liveness: &'b Liveness,
    runtime: &'b mut Runtime,
    code: Code,
    operands: Operands<'b>,
    /// Number of labels around the current place in the rewritten code, the function's included.
    labels: u32,
    /// By block: number of labels around its own label.
    label_of: Vec<u32>,
    /// By block: number of labels around the label of its `else` part.
    else_label_of: Vec<u32>,
    /// By region: what ends inside it, to be taken when it is opened.
    events: Vec<Vec<Event>>,
    /// The regions around the current place.
    regions: Vec<Region>,
    closed_regions: Vec<Region>,
    open: Vec<Open>,
    /// By site: locals that must be right when the call is resumed.
    resumed: Vec<Vec<u32>>,
    /// By site: the locals that are saved.
    saved: Vec<Vec<u32>>,
    saved_total: usize,
    /// Whether the current place cannot be reached, up to the next `else` or `end`.
    dead: bool,
}

impl Emitter<'_> {
    fn instr(&mut self, at: u32) -> Result<(), InstrumentError> {
        self.enter_site(at);
        let instr = self.body.instrs[at as usize];
        let deferred = self.plan.deferred[at as usize];
        match instr.kind {
            Kind::Get(local) if deferred => self.push_deferred(at, Slot::Local(local)),
            Kind::Const if deferred => self.push_deferred(at, Slot::Const(at)),
            Kind::Tee(local) if deferred => {
                self.need(1);
                self.operands.pop();
                self.code.op_u32(op::LOCAL_SET, local);
                self.push_deferred(at, Slot::Local(local));
            }
            Kind::Plain | Kind::Const | Kind::Get(_) | Kind::Set(_) | Kind::Tee(_) => self.copy(at),
            Kind::Block(block) | Kind::Loop(block) | Kind::If(block) => self.block(at, block),
            Kind::Else(block) => self.else_part(at, block),
            Kind::End(block) => self.end(at, block),
            Kind::Br(block) => {
                self.need(self.body.label_arity(block));
                self.branch(op::BR, block);
                self.dead = true;
            }
            Kind::BrIf(block) => {
                self.need(self.body.label_arity(block) + 1);
                self.operands.pop();
                self.branch(op::BR_IF, block);
            }
            Kind::BrTable { first, count } => self.branch_table(first as usize, count),
            Kind::Leave | Kind::Trap => {
                self.need(instr.pops as usize);
                self.copy_bytes(at);
                self.dead = true;
            }
            Kind::LastCall(callee) => {
                self.need(instr.pops as usize);
                self.copy_bytes(at);
                self.leave_by_last_call(callee);
                self.dead = true;
            }
            Kind::Site(site) => self.site(at, site)?,
        }
        Ok(())
    }

    fn need(&mut self, count: usize) {
        self.operands.need(count, &mut self.code);
    }

    fn copy_bytes(&mut self, at: u32) {
        self.code.bytes.extend_from_slice(self.body.code(&self.body.instrs[at as usize]));
    }

    fn push_deferred(&mut self, at: u32, slot: Slot) {
        let value = self.body.instrs[at as usize].first_value;
        self.operands.push(slot, self.body.values[value as usize].ty);
    }

    fn push_results(&mut self, at: u32) {
        let instr = &self.body.instrs[at as usize];
        let first = instr.first_value as usize;
        for value in &self.body.values[first..first + instr.pushes as usize] {
            self.operands.push(Slot::Stack, value.ty);
        }
    }

    /// An instruction that stays as it is.
    fn copy(&mut self, at: u32) {
        let instr = self.body.instrs[at as usize];
        if instr.pops == 2 && commutes(self.body.opcode(&instr)) {
            self.operands.need_either_order(&mut self.code);
        } else {
            self.need(instr.pops as usize);
        }
        self.copy_bytes(at);
        self.operands.truncate(self.operands.len() - instr.pops as usize);
        self.push_results(at);
    }

    fn branch(&mut self, opcode: u8, block: u32) {
        if opcode == op::BR && block == 0 {
            return self.code.op(op::RETURN);
        }
        let label = self.label_of[block as usize];
        self.code.op_u32(opcode, self.labels - 1 - label);
    }

    fn branch_table(&mut self, first: usize, count: u32) {
        let targets = &self.body.table_targets[first..first + count as usize];
        self.need(self.body.label_arity(targets[0]) + 1);
        self.code.op_u32(op::BR_TABLE, count - 1);
        for target in targets {
            let depth = self.labels - 1 - self.label_of[*target as usize];
            write_u32(&mut self.code.bytes, depth);
        }
        self.dead = true;
    }

    fn block(&mut self, at: u32, block: u32) {
        let info = &self.body.blocks[block as usize];
        let params = info.params.len();
        if !self.plan.holds_site[block as usize] {
            let condition = usize::from(info.kind == BlockKind::If);
            self.need(params + condition);
            self.copy_bytes(at);
            self.operands.truncate(self.operands.len() - condition);
            self.label_of[block as usize] = self.labels;
            self.labels += 1;
            self.open(block, Vec::new());
            return;
        }
        match info.kind {
            BlockKind::If => self.hoisted_if(block),
            BlockKind::Loop => self.region_loop(at, block),
            BlockKind::Block | BlockKind::Function => {
                self.operands.spill(&mut self.code);
                self.operands.pin(params, &mut self.code);
                self.open(block, Vec::new());
            }
        }
    }

    /// Notes that `block`, whose parameters are the top operands, is open.
    fn open(&mut self, block: u32, params: Vec<(Slot, ValType)>) {
        let height = self.operands.len() - self.body.blocks[block as usize].params.len();
        self.open.push(Open { height, params });
    }

    /// An `if` with a site inside. Its labels are open already; what remains is the choice.
    fn hoisted_if(&mut self, block: u32) {
        let (condition, ty) = self.operands.pop();
        if condition == Slot::Stack && self.operands.any_on_stack() {
            let temp = self.operands.temp(ty);
            self.code.op_u32(op::LOCAL_SET, temp);
            self.operands.push(Slot::Temp(temp), ty);
            self.operands.spill(&mut self.code);
            self.operands.pop();
            self.code.op_u32(op::LOCAL_GET, temp);
        } else {
            self.operands.spill(&mut self.code);
            self.operands.read(condition, &mut self.code);
        }
        let info = &self.body.blocks[block as usize];
        self.operands.pin(info.params.len(), &mut self.code);
        let below = self.operands.len() - info.params.len();
        let params = self.operands.slots()[below..].to_vec();
        self.code.op(op::I32_EQZ);
        let target = if regions::has_else_label(info) {
            self.else_label_of[block as usize]
        } else {
            self.label_of[block as usize]
        };
        self.code.op_u32(op::BR_IF, self.labels - 1 - target);
        self.open(block, params);
    }

    /// A loop with a site inside: it starts with the choice of where to go when rewinding.
    fn region_loop(&mut self, at: u32, block: u32) {
        let info = &self.body.blocks[block as usize];
        self.operands.spill(&mut self.code);
        self.close_event(EventKind::Loop(block));
        self.need(info.params.len());
        self.copy_bytes(at);
        self.label_of[block as usize] = self.labels;
        self.labels += 1;
        self.operands.spill(&mut self.code);
        self.open(block, Vec::new());
        self.open_region(block);
    }

    fn else_part(&mut self, at: u32, block: u32) {
        let info = &self.body.blocks[block as usize];
        if self.plan.holds_site[block as usize] {
            self.then_to_end(block);
            self.close_event(EventKind::Else(block));
            self.start_else();
        } else {
            self.copy_bytes(at);
            self.operands.truncate(self.open[self.open.len() - 1].height);
            self.operands.push_all(&info.params);
        }
        self.dead = false;
    }

    /// The end of the first part of an `if` that has a second.
    fn then_to_end(&mut self, block: u32) {
        if !self.dead {
            self.need(self.body.blocks[block as usize].results.len());
            self.branch(op::BR, block);
        }
    }

    /// The operands at the start of the second part of an `if`.
    fn start_else(&mut self) {
        let last = self.open.len() - 1;
        self.operands.truncate(self.open[last].height);
        for (slot, ty) in std::mem::take(&mut self.open[last].params) {
            self.operands.push(slot, ty);
        }
    }

    fn end(&mut self, at: u32, block: u32) {
        let info = &self.body.blocks[block as usize];
        if self.plan.holds_site[block as usize]
            && info.kind == BlockKind::If
            && info.else_at.is_none()
            && regions::has_else_label(info)
        {
            // No second part: the parameters are the results.
            self.then_to_end(block);
            self.close_event(EventKind::Else(block));
            self.start_else();
            self.dead = false;
        }
        if !self.dead {
            self.need(info.results.len());
        }
        match info.kind {
            BlockKind::Function => {
                if !self.dead {
                    self.code.op(op::RETURN);
                }
                self.close_region();
            }
            _ if !self.plan.holds_site[block as usize] => self.close_label(at),
            BlockKind::Loop => {
                self.close_region();
                self.close_label(at);
            }
            BlockKind::Block if !info.targeted => {}
            BlockKind::Block | BlockKind::If => self.close_event(EventKind::End(block)),
        }
        let height = self.open.pop().map_or(0, |open| open.height);
        self.operands.truncate(height);
        if info.kind != BlockKind::Function {
            self.operands.push_all(&info.results);
        }
        self.dead = false;
    }

    fn close_label(&mut self, at: u32) {
        self.copy_bytes(at);
        self.labels -= 1;
    }

    /// If execution re-enters before instruction `at` for a call, ends the block that leads there.
    fn enter_site(&mut self, at: u32) {
        let Some(EventKind::Site(site)) = self.next_event_at(at) else { return };
        self.operands.spill(&mut self.code);
        self.close_event(EventKind::Site(site));
        let Site { at, callee, .. } = self.body.sites[site as usize];
        let call = &self.body.instrs[at as usize];
        let below = (call.height - call.pops) as usize;
        let arguments = &self.operands.slots()[below..];
        let matter = match callee {
            Callee::Inner => &[],
            Callee::Host => arguments,
            Callee::Table if arguments.len() == call.pops as usize => {
                &arguments[arguments.len() - 1..]
            }
            Callee::Table => &[],
        };
        let locals = matter.iter().filter_map(|(slot, _)| slot_local(*slot));
        self.resumed[site as usize] =
            locals.chain(resumed_reads(self.body, self.plan, site)).collect();
        self.need(self.operands.len() - below);
    }

    /// A call that may unwind.
    fn site(&mut self, at: u32, site: u32) -> Result<(), InstrumentError> {
        let pops = self.body.instrs[at as usize].pops as usize;
        self.need(pops);
        self.operands.truncate(self.operands.len() - pops);
        self.save_set(site)?;
        self.copy_bytes(at);
        self.leave_if_unwinding(site);
        self.push_results(at);
        Ok(())
    }

    fn save_set(&mut self, site: u32) -> Result<(), InstrumentError> {
        let below = self.operands.locals();
        let resumed = std::mem::take(&mut self.resumed[site as usize]);
        let locals: BTreeSet<u32> = self.liveness.after(site).chain(below).chain(resumed).collect();
        let place = || self.module.place(self.body.function);
        if locals.iter().any(|local| self.local_type(*local).is_reference_type()) {
            return Err(InstrumentError::ReferenceAcrossCall { place: place() });
        }
        self.saved_total += locals.len();
        if self.saved_total > SAVED_MAX {
            return Err(InstrumentError::TooLarge {
                what: "saved values",
                limit: SAVED_MAX,
                place: place(),
            });
        }
        self.saved[site as usize] = locals.into_iter().collect();
        Ok(())
    }

    fn local_type(&self, local: u32) -> ValType {
        let own = self.body.locals.len();
        match self.body.locals.get(local as usize) {
            Some(ty) => *ty,
            None => self.operands.temps()[local as usize - own],
        }
    }

    /// Puts declarations, code and the choices of all regions together.
    fn finish(mut self) -> Result<Vec<u8>, InstrumentError> {
        let (module, function) = (self.module, self.body.function);
        let too_large = |what, limit| {
            Err(InstrumentError::TooLarge { what, limit, place: module.place(function) })
        };
        let mut declared = self.body.locals[self.body.params..].to_vec();
        declared.extend_from_slice(self.operands.temps());
        if declared.len() + self.body.params > LOCALS_MAX {
            return too_large("locals", LOCALS_MAX);
        }
        let mut out = Vec::with_capacity(self.code.bytes.len() * 2);
        let runs = declared.chunk_by(|a, b| a == b);
        write_u32(&mut out, runs.clone().count() as u32);
        for run in runs {
            write_u32(&mut out, run.len() as u32);
            out.push(type_byte(run[0]));
        }
        let mut regions = std::mem::take(&mut self.closed_regions);
        regions.sort_by_key(|region| region.choice_at);
        let mut copied = 0;
        for region in &regions {
            out.extend_from_slice(&self.code.bytes[copied..region.choice_at]);
            copied = region.choice_at;
            out.append(&mut self.choice(region).bytes);
        }
        out.extend_from_slice(&self.code.bytes[copied..]);
        if out.len() > BODY_BYTES_MAX {
            return too_large("bytes", BODY_BYTES_MAX);
        }
        Ok(out)
    }

    /// Opens a block that ends with `results` on the stack.
    fn open_block(&mut self, results: &[ValType]) {
        self.code.op(op::BLOCK);
        match results {
            [] => self.code.op(EMPTY_BLOCK),
            [ty] => self.code.op(type_byte(*ty)),
            _ => {
                let index = self.runtime.type_index(&[], results);
                crate::binary::write_i64(&mut self.code.bytes, i64::from(index));
            }
        }
        self.labels += 1;
    }
}

fn slot_local(slot: Slot) -> Option<u32> {
    match slot {
        Slot::Temp(local) | Slot::Local(local) => Some(local),
        Slot::Stack | Slot::Const(_) => None,
    }
}
