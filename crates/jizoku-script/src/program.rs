//! Programs: what a task's body becomes before it runs. A list of instructions over a stack and
//! numbered variables, so that a run is a number and two lists: it can stop anywhere.
//!
//! Invariants (kept by the compiler, and looked at again by the evaluator where a mistake would
//! cost a right or the agent)
//! - Jumps lead inside the program; only loops lead backwards, each over a list.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use jizoku_log::Expr as Filter;

use crate::functions::{Builtin, Function};
use crate::offer::Fields;
use crate::problem::Place;
use crate::syntax::tree::{Binary, Unary};
use crate::types::Type;
use crate::value::Value;

/// One instruction.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Push(Value),
    Load(u16),
    Store(u16),
    Pop,
    Jump(u32),
    /// Takes a `bool`; goes on at the place if it is false.
    Unless(u32),
    /// Looks at a `bool`: goes on at the place if it is this, else drops it.
    KeepIf(bool, u32),
    /// Takes a value; goes on at the place if it is absent, else puts it back.
    IfAbsent(u32),
    /// Looks at a value: goes on at the place if it is there, else drops it.
    IfPresent(u32),
    /// Goes on at the place if the parameter was given.
    IfGiven(u16, u32),
    Unary(Unary),
    Binary(Binary),
    /// Joins so many values to a text.
    Text(u16),
    List(u16),
    Field(Arc<str>),
    Index,
    /// A whole number becomes one with a fraction.
    Widen,
    Builtin(Builtin, u8),
    /// Asks the host.
    Call(u16),
    /// Begins a loop: the list is taken into a variable, and the next one counts.
    Loop(u16),
    /// Puts the next element on the stack, or goes on at the place.
    Next(u16, u32),
    /// Takes a text: the task has failed.
    Fail,
    End,
}

/// A call of the host.
#[derive(Debug)]
pub(crate) struct CallSite {
    pub(crate) function: &'static Function,
    /// Names of the values beside the parameters: fields, or environment.
    pub(crate) names: Vec<Arc<str>>,
    /// A condition over records, and the variables that it uses by `$name`.
    pub(crate) filter: Option<(Filter, Vec<(String, u16)>)>,
    /// The type of its answer.
    pub(crate) result: Type,
    /// A failure is an absent value.
    pub(crate) tried: bool,
}

/// A program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) ops: Vec<Op>,
    /// For each instruction, what it was made of.
    pub(crate) places: Vec<Place>,
    pub(crate) calls: Vec<CallSite>,
    /// How many variables there are.
    pub(crate) slots: u16,
    /// How many of them are parameters: the first ones.
    pub(crate) params: u16,
    pub(crate) text: Arc<str>,
    pub(crate) events: Vec<(String, Fields)>,
}
