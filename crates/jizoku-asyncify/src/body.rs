//! One function body, decoded and typed: what each instruction takes from and leaves on the
//! operand stack, the tree of its blocks, and where it can unwind.
//!
//! It decides nothing about the rewritten code; that is `plan` and `emit`.
//!
//! Instructions that can never run (after a branch, up to the end of their block) are left out
//! entirely, so that every remaining one has known operands. As in the format's own validation,
//! the point after the end of a block always counts as reachable.

use wasmparser::{
    BlockType, FuncValidator, FuncValidatorAllocations, Operator, OperatorsReader, ValType,
    ValidatorResources,
};

use crate::binary::op;
use crate::error::InstrumentError;
use crate::module::{Function, Module};
use crate::reach::Reach;

/// Index of a value that no instruction takes: it is dropped by a branch.
pub(crate) const NEVER: u32 = u32::MAX;

/// What an instruction is to the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Copied as it is.
    Plain,
    /// Pushes a constant; may be repeated anywhere.
    Const,
    /// `local.get` of the local.
    Get(u32),
    /// `local.set` of the local.
    Set(u32),
    /// `local.tee` of the local.
    Tee(u32),
    /// Start of the block with this index.
    Block(u32),
    /// Start of the loop with this index.
    Loop(u32),
    /// Start of the `if` with this index.
    If(u32),
    /// `else` of the `if` with this index.
    Else(u32),
    /// `end` of the block with this index.
    End(u32),
    /// Branch out of (or to the start of) the block with this index.
    Br(u32),
    /// The same if the top of the stack is not zero.
    BrIf(u32),
    /// Branch by index; the targets are in `Body::table_targets`.
    BrTable {
        /// Position of the first target.
        first: u32,
        /// Number of targets, the default target (the last) included.
        count: u32,
    },
    /// Leaves the function: `return`, and tail calls (copied as they are).
    Leave,
    /// `unreachable`.
    Trap,
    /// A call that may unwind and then goes on; index in `Body::sites`.
    Site(u32),
    /// A call that may unwind but after which the program does not go on; index in
    /// `Body::last_callees`.
    LastCall(u32),
}

/// One reachable instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instr {
    pub(crate) kind: Kind,
    /// First byte in the body.
    pub(crate) start: u32,
    /// Byte after it.
    pub(crate) end: u32,
    /// Number of values on the operand stack before it.
    pub(crate) height: u32,
    /// Number of values it takes.
    pub(crate) pops: u32,
    /// First of the values it pushes, in `Body::values`.
    pub(crate) first_value: u32,
    /// Number of values it pushes.
    pub(crate) pushes: u32,
}

/// A value on the operand stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    /// The instruction that pushes it.
    pub(crate) producer: u32,
    /// The instruction that takes it, or `NEVER`.
    pub(crate) consumer: u32,
    pub(crate) ty: ValType,
}

/// What kind of block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// The function body itself.
    Function,
    Block,
    Loop,
    If,
}

/// A block of structured control flow. Index 0 is the function body.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) kind: BlockKind,
    /// The enclosing block; the function body is its own.
    pub(crate) parent: u32,
    /// Index of its first instruction (`block`, `loop`, `if`).
    pub(crate) start: u32,
    /// Index of its `else`.
    pub(crate) else_at: Option<u32>,
    /// Index of its `end`.
    pub(crate) end: u32,
    pub(crate) params: Vec<ValType>,
    pub(crate) results: Vec<ValType>,
    /// Whether a reachable branch names it.
    pub(crate) targeted: bool,
}

/// What a call that may unwind is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    /// A function of the module. When it is called to rewind, its arguments don't matter.
    Inner,
    /// An imported function, or perhaps one: it is resumed with the arguments it had.
    Host,
    /// Through a table, surely to a function of the module: only the table index matters.
    Table,
}

/// A call that may unwind, after which the function goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Its instruction.
    pub(crate) at: u32,
    /// The innermost block around it.
    pub(crate) block: u32,
    pub(crate) callee: Callee,
}

/// A decoded function body.
pub(crate) struct Body<'a> {
    /// The function's index, for error texts.
    pub(crate) function: u32,
    /// The bytes that `Instr::start` counts in.
    pub(crate) bytes: &'a [u8],
    /// Types of parameters and declared locals.
    pub(crate) locals: Vec<ValType>,
    /// Number of parameters among them.
    pub(crate) params: usize,
    pub(crate) instrs: Vec<Instr>,
    pub(crate) values: Vec<Value>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) sites: Vec<Site>,
    /// The functions called by `Kind::LastCall`.
    pub(crate) last_callees: Vec<u32>,
    pub(crate) table_targets: Vec<u32>,
}

impl<'a> Body<'a> {
    /// Decodes `function`, which `scan` has validated.
    pub(crate) fn decode(
        module: &Module<'_>,
        reach: &Reach,
        function: &Function<'a>,
        unwind_last_calls: bool,
        allocations: FuncValidatorAllocations,
    ) -> Result<(Self, FuncValidatorAllocations), InstrumentError> {
        let mut validator = function.to_validate().into_validator(allocations);
        let mut reader = function.body.get_binary_reader();
        validator.read_locals(&mut reader)?;
        let ty = module.type_of(function.index);
        let locals = (0..validator.len_locals()).map_while(|i| validator.get_local_type(i));
        let body = Body {
            function: function.index,
            bytes: function.body.as_bytes(),
            locals: locals.collect(),
            params: ty.params().len(),
            instrs: Vec::new(),
            values: Vec::new(),
            blocks: vec![Block {
                kind: BlockKind::Function,
                parent: 0,
                start: 0,
                else_at: None,
                end: 0,
                params: Vec::new(),
                results: ty.results().to_vec(),
                targeted: false,
            }],
            sites: Vec::new(),
            last_callees: Vec::new(),
            table_targets: Vec::new(),
        };
        let mut decoder = Decoder {
            module,
            reach,
            unwind_last_calls,
            base: function.body.range().start,
            body,
            stack: Vec::new(),
            open: vec![Open { block: 0, height: 0 }],
            dead: false,
        };
        decoder.run(&mut validator, OperatorsReader::new(reader))?;
        Ok((decoder.body, validator.into_allocations()))
    }

    /// The bytes of an instruction.
    pub(crate) fn code(&self, instr: &Instr) -> &'a [u8] {
        &self.bytes[instr.start as usize..instr.end as usize]
    }

    /// The first byte of an instruction.
    pub(crate) fn opcode(&self, instr: &Instr) -> u8 {
        self.bytes[instr.start as usize]
    }

    /// Types of the values that a branch to `block` carries.
    pub(crate) fn label_arity(&self, block: u32) -> usize {
        let block = &self.blocks[block as usize];
        if block.kind == BlockKind::Loop { block.params.len() } else { block.results.len() }
    }
}

/// A block that is open at the current instruction.
struct Open {
    block: u32,
    /// Stack height below its parameters.
    height: usize,
}

struct Decoder<'m, 'a> {
    module: &'m Module<'m>,
    reach: &'m Reach,
    unwind_last_calls: bool,
    base: usize,
    body: Body<'a>,
    /// Indices in `Body::values`.
    stack: Vec<u32>,
    open: Vec<Open>,
    dead: bool,
}

impl<'a> Decoder<'_, 'a> {
    fn run(
        &mut self,
        validator: &mut FuncValidator<ValidatorResources>,
        mut reader: OperatorsReader<'a>,
    ) -> Result<(), InstrumentError> {
        let mut skipped_blocks = 0u32;
        while !reader.eof() {
            let offset = reader.original_position();
            let operator = reader.read()?;
            if self.dead {
                match operator {
                    Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                        skipped_blocks += 1;
                        continue;
                    }
                    Operator::End if skipped_blocks > 0 => {
                        skipped_blocks -= 1;
                        continue;
                    }
                    Operator::Else if skipped_blocks == 0 => {}
                    Operator::End => {}
                    _ => continue,
                }
            }
            // A call is a last call if the next instruction traps.
            let last = matches!(operator, Operator::Call { .. })
                && reader.get_binary_reader().read_u8().is_ok_and(|byte| byte == op::UNREACHABLE);
            let arity = operator.operator_arity(&validator.visitor(offset));
            validator.op(offset, &operator)?;
            let (pops, pushes) = arity.unwrap_or((0, 0));
            let end = reader.original_position();
            self.operator(validator, &operator, last, (pops, pushes), (offset, end))?;
            if self.dead && matches!(operator, Operator::Call { .. }) {
                // The trap after a last call is left out here, but typing has to see it.
                validator.op(end, &Operator::Unreachable)?;
            }
        }
        Ok(())
    }

    fn operator(
        &mut self,
        validator: &FuncValidator<ValidatorResources>,
        operator: &Operator<'_>,
        last: bool,
        (pops, pushes): (u32, u32),
        (offset, end): (usize, usize),
    ) -> Result<(), InstrumentError> {
        let at = self.body.instrs.len() as u32;
        let (pops, pushes) = match operator {
            // The reachable end of a dead block has nothing to take.
            Operator::Else | Operator::End if self.dead => {
                let open = self.open.last().map_or(0, |open| open.height);
                self.stack.truncate(open);
                (0, pushes)
            }
            _ => (pops, pushes),
        };
        let kind = self.kind(operator, last, at)?;
        let height = self.stack.len();
        let kept = height.saturating_sub(pops as usize);
        for value in self.stack.drain(kept..) {
            self.body.values[value as usize].consumer = at;
        }
        let pushes = if self.open.is_empty() || self.dead { 0 } else { pushes };
        let first_value = self.body.values.len() as u32;
        for index in 0..pushes {
            let depth = (pushes - 1 - index) as usize;
            let ty = validator.get_operand_type(depth).flatten().unwrap_or(ValType::I32);
            self.stack.push(self.body.values.len() as u32);
            self.body.values.push(Value { producer: at, consumer: NEVER, ty });
        }
        self.body.instrs.push(Instr {
            kind,
            start: (offset - self.base) as u32,
            end: (end - self.base) as u32,
            height: height as u32,
            pops,
            first_value,
            pushes,
        });
        if let Kind::Block(block) | Kind::Loop(block) | Kind::If(block) = kind {
            let params = self.body.blocks[block as usize].params.len();
            self.open.push(Open { block, height: self.stack.len() - params });
        }
        Ok(())
    }

    fn kind(
        &mut self,
        operator: &Operator<'_>,
        last: bool,
        at: u32,
    ) -> Result<Kind, InstrumentError> {
        let kind = match operator {
            Operator::Block { blockty } => Kind::Block(self.block(BlockKind::Block, *blockty, at)),
            Operator::Loop { blockty } => Kind::Loop(self.block(BlockKind::Loop, *blockty, at)),
            Operator::If { blockty } => Kind::If(self.block(BlockKind::If, *blockty, at)),
            Operator::Else => {
                let block = self.innermost();
                self.body.blocks[block as usize].else_at = Some(at);
                self.dead = false;
                Kind::Else(block)
            }
            Operator::End => {
                let block = self.innermost();
                self.body.blocks[block as usize].end = at;
                self.open.pop();
                self.dead = false;
                Kind::End(block)
            }
            Operator::Br { relative_depth } => {
                self.dead = true;
                Kind::Br(self.target(*relative_depth))
            }
            Operator::BrIf { relative_depth } => Kind::BrIf(self.target(*relative_depth)),
            Operator::BrTable { targets } => {
                let first = self.body.table_targets.len() as u32;
                for depth in targets.targets().chain([Ok(targets.default())]) {
                    let target = self.target(depth?);
                    self.body.table_targets.push(target);
                }
                self.dead = true;
                Kind::BrTable { first, count: self.body.table_targets.len() as u32 - first }
            }
            Operator::Return
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. } => {
                self.dead = true;
                Kind::Leave
            }
            Operator::Unreachable => {
                self.dead = true;
                Kind::Trap
            }
            Operator::Call { function_index } => self.call(*function_index, last, at),
            Operator::CallIndirect { type_index, .. } if self.reach.indirect(*type_index) => {
                let host = self.reach.indirect_import(*type_index);
                self.site(if host { Callee::Host } else { Callee::Table }, at)
            }
            Operator::LocalGet { local_index } => Kind::Get(*local_index),
            Operator::LocalSet { local_index } => Kind::Set(*local_index),
            Operator::LocalTee { local_index } => Kind::Tee(*local_index),
            Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::RefNull { .. }
            | Operator::RefFunc { .. } => Kind::Const,
            _ => Kind::Plain,
        };
        Ok(kind)
    }

    fn call(&mut self, callee: u32, last: bool, at: u32) -> Kind {
        if !self.reach.function(callee) {
            return Kind::Plain;
        }
        if (callee as usize) < self.module.imported_functions.len() {
            return self.site(Callee::Host, at);
        }
        if !last {
            return self.site(Callee::Inner, at);
        }
        if !self.unwind_last_calls {
            return Kind::Plain;
        }
        self.dead = true;
        let known = self.body.last_callees.iter().position(|known| *known == callee);
        let index = known.unwrap_or_else(|| {
            self.body.last_callees.push(callee);
            self.body.last_callees.len() - 1
        });
        Kind::LastCall(index as u32)
    }

    fn site(&mut self, callee: Callee, at: u32) -> Kind {
        let block = self.innermost();
        self.body.sites.push(Site { at, block, callee });
        Kind::Site(self.body.sites.len() as u32 - 1)
    }

    fn block(&mut self, kind: BlockKind, ty: BlockType, at: u32) -> u32 {
        let (params, results) = match ty {
            BlockType::Empty => (Vec::new(), Vec::new()),
            BlockType::Type(ty) => (Vec::new(), vec![ty]),
            BlockType::FuncType(index) => {
                let ty = &self.module.types[index as usize];
                (ty.params().to_vec(), ty.results().to_vec())
            }
        };
        self.body.blocks.push(Block {
            kind,
            parent: self.innermost(),
            start: at,
            else_at: None,
            end: 0,
            params,
            results,
            targeted: false,
        });
        self.body.blocks.len() as u32 - 1
    }

    fn innermost(&self) -> u32 {
        self.open.last().map_or(0, |open| open.block)
    }

    fn target(&mut self, depth: u32) -> u32 {
        // Validated: the depth names an open block.
        let block = self.open[self.open.len() - 1 - depth as usize].block;
        self.body.blocks[block as usize].targeted = true;
        block
    }
}

/// Whether running an instruction once more does no harm: it cannot trap, and it reads and
/// writes nothing but the operand stack and locals (or globals, which is asked for apart).
pub(crate) fn repeatable(opcode: u8, globals: bool) -> bool {
    match opcode {
        op::LOCAL_GET | op::I32_CONST..=op::F64_CONST => true,
        op::GLOBAL_GET => globals,
        // select
        0x1b => true,
        // Integer division and truncation of floats can trap; the rest of arithmetic cannot.
        0x6d..=0x70 | 0x7f..=0x82 | 0xa8..=0xab | 0xae..=0xb1 => false,
        0x45..=0xc4 => true,
        _ => false,
    }
}
