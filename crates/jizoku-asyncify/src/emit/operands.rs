//! The operand stack of the function being rewritten: for each value, whether it really is on the
//! stack or can be read from a local or constant, and the temporary locals that hold the rest.
//!
//! Invariant: the values that are `Slot::Stack` are on the stack of the rewritten code in the same
//! order, with nothing between or above them.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::ValType;

use crate::binary::{Code, op, type_byte};

/// Where a value of the operand stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// On the stack.
    Stack,
    /// In a temporary local, which is its own.
    Temp(u32),
    /// In a local of the program, which is not written while this slot exists.
    Local(u32),
    /// The constant that the instruction with this index pushes.
    Const(u32),
}

/// The operand stack.
pub(crate) struct Operands<'b> {
    slots: Vec<(Slot, ValType)>,
    /// All slots below this index are off the stack.
    settled: usize,
    /// Number of slots on the stack.
    on_stack: usize,
    /// The locals that slots are in, and how many slots each.
    locals: BTreeMap<u32, u32>,
    /// Types of the temporary locals.
    temps: Vec<ValType>,
    /// The unused ones by type.
    free: BTreeMap<u8, BTreeSet<u32>>,
    first_temp: u32,
    constant: Box<dyn Fn(u32) -> &'b [u8] + 'b>,
}

impl<'b> Operands<'b> {
    /// An empty stack. `constant` gives the bytes of the instruction of a `Slot::Const`.
    pub(crate) fn new(first_temp: u32, constant: impl Fn(u32) -> &'b [u8] + 'b) -> Self {
        Self {
            slots: Vec::new(),
            settled: 0,
            on_stack: 0,
            locals: BTreeMap::new(),
            temps: Vec::new(),
            free: BTreeMap::new(),
            first_temp,
            constant: Box::new(constant),
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The values, bottom first.
    pub(crate) fn slots(&self) -> &[(Slot, ValType)] {
        &self.slots
    }

    /// The locals that hold values, ascending.
    pub(crate) fn locals(&self) -> impl Iterator<Item = u32> + '_ {
        self.locals.keys().copied()
    }

    /// Types of the temporary locals used so far.
    pub(crate) fn temps(&self) -> &[ValType] {
        &self.temps
    }

    /// Whether anything is really on the stack.
    pub(crate) fn any_on_stack(&self) -> bool {
        self.on_stack > 0
    }

    /// Adds a value.
    pub(crate) fn push(&mut self, slot: Slot, ty: ValType) {
        self.slots.push((slot, ty));
        self.acquired(slot, ty);
    }

    /// Adds a value that was left on the stack for each type.
    pub(crate) fn push_all(&mut self, types: &[ValType]) {
        for ty in types {
            self.push(Slot::Stack, *ty);
        }
    }

    /// Removes the top value.
    pub(crate) fn pop(&mut self) -> (Slot, ValType) {
        let (slot, ty) = self.slots.pop().expect("the input was validated");
        self.settled = self.settled.min(self.slots.len());
        self.released(slot, ty);
        (slot, ty)
    }

    /// Removes all values above `height`.
    pub(crate) fn truncate(&mut self, height: usize) {
        while self.slots.len() > height {
            self.pop();
        }
    }

    /// An unused temporary local. It stays unused until a slot for it is pushed.
    pub(crate) fn temp(&mut self, ty: ValType) -> u32 {
        let free = self.free.entry(type_byte(ty)).or_default();
        if let Some(temp) = free.first() {
            return *temp;
        }
        let temp = self.first_temp + self.temps.len() as u32;
        self.temps.push(ty);
        free.insert(temp);
        temp
    }

    /// Pushes the value of a slot that is off the stack.
    pub(crate) fn read(&self, slot: Slot, code: &mut Code) {
        match slot {
            Slot::Stack => {}
            Slot::Temp(local) | Slot::Local(local) => code.op_u32(op::LOCAL_GET, local),
            Slot::Const(instr) => code.bytes.extend_from_slice((self.constant)(instr)),
        }
    }

    /// Moves everything off the stack.
    pub(crate) fn spill(&mut self, code: &mut Code) {
        for index in (self.settled..self.slots.len()).rev() {
            if self.slots[index].0 == Slot::Stack {
                self.store(index, code);
            }
        }
        self.settled = self.slots.len();
        assert_eq!(self.on_stack, 0);
    }

    /// Puts the top `count` values on the stack.
    pub(crate) fn need(&mut self, count: usize, code: &mut Code) {
        let base = self.slots.len() - count;
        let off = |(slot, _): &(Slot, ValType)| *slot != Slot::Stack;
        let Some(first) = self.slots[base..].iter().position(off) else { return };
        let first = base + first;
        // Values on the stack above the first that is not must step aside.
        for index in (first..self.slots.len()).rev() {
            if self.slots[index].0 == Slot::Stack {
                self.store(index, code);
            }
        }
        self.settled = self.settled.min(first);
        for index in first..self.slots.len() {
            let (slot, ty) = self.slots[index];
            self.read(slot, code);
            self.released(slot, ty);
            self.slots[index].0 = Slot::Stack;
            self.acquired(Slot::Stack, ty);
        }
    }

    /// Puts the top two values on the stack in any order.
    pub(crate) fn need_either_order(&mut self, code: &mut Code) {
        let top = self.slots.len() - 2;
        let (below, ty) = self.slots[top];
        if below == Slot::Stack || self.slots[top + 1].0 != Slot::Stack {
            return self.need(2, code);
        }
        self.read(below, code);
        self.released(below, ty);
        self.slots[top].0 = Slot::Stack;
        self.acquired(Slot::Stack, ty);
        self.settled = self.settled.min(top);
    }

    /// Copies those of the top `count` values that are in locals of the program to temporary
    /// ones, so that the program may write its locals.
    pub(crate) fn pin(&mut self, count: usize, code: &mut Code) {
        for index in self.slots.len() - count..self.slots.len() {
            if matches!(self.slots[index].0, Slot::Local(_)) {
                self.read(self.slots[index].0, code);
                self.store(index, code);
            }
        }
    }

    /// Moves the value at `index`, which is on top of the stack, to a temporary local.
    fn store(&mut self, index: usize, code: &mut Code) {
        let (slot, ty) = self.slots[index];
        let temp = self.temp(ty);
        code.op_u32(op::LOCAL_SET, temp);
        self.released(slot, ty);
        self.slots[index].0 = Slot::Temp(temp);
        self.acquired(Slot::Temp(temp), ty);
    }

    fn acquired(&mut self, slot: Slot, ty: ValType) {
        match slot {
            Slot::Stack => self.on_stack += 1,
            Slot::Temp(temp) => {
                self.free.entry(type_byte(ty)).or_default().remove(&temp);
                self.locals.insert(temp, 1);
            }
            Slot::Local(local) => *self.locals.entry(local).or_default() += 1,
            Slot::Const(_) => {}
        }
    }

    fn released(&mut self, slot: Slot, ty: ValType) {
        match slot {
            Slot::Stack => self.on_stack -= 1,
            Slot::Temp(temp) => {
                self.free.entry(type_byte(ty)).or_default().insert(temp);
                self.locals.remove(&temp);
            }
            Slot::Local(local) => {
                let count = self.locals.entry(local).or_default();
                *count -= 1;
                if *count == 0 {
                    self.locals.remove(&local);
                }
            }
            Slot::Const(_) => {}
        }
    }
}
