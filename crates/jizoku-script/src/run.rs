//! The evaluator: one run of a task, as a value that is stepped.
//!
//! ```text
//! step(Go) -> Call(..)      the owner does it, or has it done
//! step(Answer(..)) -> Call(..) | Yield | Ended(..)
//! ```
//!
//! What it does not know: clocks, how a call is done, whether its owner still wants it.
//!
//! Invariants
//! - A run ends: as Succeeded or Failed, nothing else, once. What it used is freed with it.
//! - Each step is short ([`BURST`] instructions); between any two it can be stopped.
//! - Instructions, calls and the memory of its values are bounded; a limit that is reached fails
//!   the task, and nothing else.
//! - It asks for no call that its permissions don't allow, whatever the checker let through.
//! - An answer that isn't what the function gives fails the task.

mod builtin;
mod operate;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use jizoku_types::Instant;
use serde::{Deserialize, Serialize};

use crate::limits::{CALLS_MAX, DETAIL_MAX, FUEL, MEMORY_MAX, VALUE_MAX};
use crate::permission::Permissions;
use crate::problem::{Place, line_and_column};
use crate::program::{Op, Program};
use crate::types::Type;
use crate::value::{List, Value, cut, cut_text};

/// Most instructions of one step; one that handles a lot of text counts as many.
pub const BURST: u64 = 10_000;

/// What a run is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Begin, or go on after [`Output::Yield`].
    Go,
    /// What came of the last call; an error says why it failed, for people.
    Answer(Result<Value, String>),
    /// End now, as Failed: somebody stopped it, or its node goes down.
    Stop(String),
}

/// What a run wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Do this, and answer.
    Call(HostCall),
    /// Nothing for now: step it again when others had their turn.
    Yield,
    /// It has ended.
    Ended(Ended),
}

/// A call of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostCall {
    /// Which function, as in the table.
    pub function: &'static str,
    /// Values of its parameters, absent ones as [`Value::None`].
    pub args: Vec<Value>,
    /// Named values beside them: fields of a record, or environment.
    pub named: Vec<(Arc<str>, Value)>,
    /// A condition over records, all values filled in.
    pub filter: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It did what it should.
    Succeeded,
    /// It didn't.
    Failed(Failed),
}

/// Why a run failed, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What kind of failure.
    pub cause: Cause,
    /// What went wrong, for people.
    pub message: String,
    /// Line and column of the script, from 1.
    pub at: (u32, u32),
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// The script says so: `ensure`, `fail`.
    Said,
    /// A call failed.
    Call,
    /// It took too long.
    TimedOut,
    /// Somebody stopped it.
    Stopped,
    /// A limit was reached: instructions, memory, calls.
    Limit,
    /// A value that can't be: a division by zero, a number too large.
    Value,
    /// A right that the role doesn't hold.
    Denied,
    /// Its node or its agent was lost: nobody knows how it ended.
    Unknown,
}

impl Cause {
    /// The word for it in answers and records.
    pub fn symbol(self) -> &'static str {
        match self {
            Cause::Said => "failed",
            Cause::Call => "call_failed",
            Cause::TimedOut => "timed_out",
            Cause::Stopped => "stopped",
            Cause::Limit => "limit",
            Cause::Value => "bad_value",
            Cause::Denied => "denied",
            Cause::Unknown => "outcome_unknown",
        }
    }
}

/// A run of a task.
#[derive(Debug)]
pub struct Run {
    program: Arc<Program>,
    permissions: Permissions,
    at: usize,
    stack: Vec<Value>,
    slots: Vec<Value>,
    /// Bit by bit: which parameters were given.
    given: u64,
    /// Bytes that stack and variables hold.
    bytes: usize,
    fuel: u64,
    calls: u32,
    waiting: Option<u16>,
    deadline: Instant,
    ended: Option<Ended>,
}

type Step<T> = Result<T, (Cause, String)>;

impl Run {
    pub(crate) fn new(
        program: Arc<Program>,
        given: Vec<Option<Value>>,
        permissions: Permissions,
    ) -> Run {
        let mut slots = Vec::new();
        slots.resize(usize::from(program.slots), Value::None);
        let mut run = Run {
            permissions,
            at: 0,
            stack: Vec::new(),
            slots,
            given: 0,
            bytes: 0,
            fuel: FUEL,
            calls: 0,
            waiting: None,
            deadline: Instant::NEVER,
            ended: None,
            program,
        };
        for (at, value) in given.into_iter().enumerate() {
            if let (Some(value), Some(slot)) = (value, run.slots.get_mut(at)) {
                run.bytes = run.bytes.saturating_add(value.bytes());
                run.given |= 1 << (at % 64);
                *slot = value;
            }
        }
        run
    }

    /// When it must have ended.
    pub fn ends_by(mut self, deadline: Instant) -> Run {
        self.deadline = deadline;
        self
    }

    /// When it wants to be stepped even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        (self.ended.is_none() && self.deadline != Instant::NEVER).then_some(self.deadline)
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Goes on until it wants something. `Go` while a call is under way changes nothing but for
    /// the deadline; an answer that nobody asked for is ignored.
    pub fn step(&mut self, now: Instant, input: Input) -> Output {
        if let Some(ended) = &self.ended {
            return Output::Ended(ended.clone());
        }
        if let Input::Stop(why) = input {
            return self.end(Err((Cause::Stopped, why)));
        }
        if now >= self.deadline {
            return self.end(Err((Cause::TimedOut, "it took too long".to_string())));
        }
        match (self.waiting, input) {
            (Some(site), Input::Answer(answer)) => {
                self.waiting = None;
                if let Err(failure) = self.answered(site, answer) {
                    return self.end(Err(failure));
                }
            }
            (Some(_), _) => return Output::Yield,
            (None, _) => {}
        }
        let from = self.fuel;
        while from - self.fuel < BURST {
            match self.one() {
                Ok(None) => {}
                Ok(Some(Output::Ended(_))) => return self.end(Ok(())),
                Ok(Some(output)) => return output,
                Err(failure) => return self.end(Err(failure)),
            }
        }
        Output::Yield
    }

    fn end(&mut self, result: Step<()>) -> Output {
        let ended = match result {
            Ok(()) => Ended::Succeeded,
            Err((cause, message)) => {
                let place = self.place();
                let (line, column) = line_and_column(&self.program.text, place.start as usize);
                let at = (u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0));
                Ended::Failed(Failed { cause, message: cut_text(&message, DETAIL_MAX), at })
            }
        };
        self.stack = Vec::new();
        self.slots = Vec::new();
        self.ended = Some(ended.clone());
        Output::Ended(ended)
    }

    /// What the last instruction was made of.
    fn place(&self) -> Place {
        self.program.places.get(self.at.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn answered(&mut self, site: u16, answer: Result<Value, String>) -> Step<()> {
        let program = self.program.clone();
        let site = &program.calls[usize::from(site)];
        let nothing = site.result == Type::NOTHING;
        match answer {
            Ok(value) => {
                let event = |number: u16| {
                    program.events.get(usize::from(number)).map_or(Vec::new(), |e| e.1.clone())
                };
                if !value.is_shallow(0) || !value.is_a(site.result, &event) {
                    let what = format!("`{}` answered what it shouldn't", site.function.name);
                    return Err((Cause::Call, what));
                }
                let value = if nothing && site.tried { Value::Bool(true) } else { value };
                self.push(value.widened(site.result))
            }
            Err(_) if site.tried && nothing => self.push(Value::Bool(false)),
            Err(_) if site.tried => self.push(Value::None),
            Err(why) => Err((Cause::Call, format!("{}: {why}", site.function.name))),
        }
    }

    fn push(&mut self, value: Value) -> Step<()> {
        let bytes = value.bytes();
        if bytes > VALUE_MAX {
            let what = format!("a value of more than {VALUE_MAX} bytes");
            return Err((Cause::Limit, what));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MEMORY_MAX {
            let what = format!("its values take more than {MEMORY_MAX} bytes");
            return Err((Cause::Limit, what));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Step<Value> {
        let value = self.stack.pop().ok_or_else(broken)?;
        self.bytes = self.bytes.saturating_sub(value.bytes());
        Ok(value)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Value>> {
        let from = self.stack.len().checked_sub(count).ok_or_else(broken)?;
        let values = self.stack.split_off(from);
        let bytes: usize = values.iter().map(Value::bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(values)
    }

    fn store(&mut self, slot: u16, value: Value) -> Step<()> {
        let place = self.slots.get_mut(usize::from(slot)).ok_or_else(broken)?;
        let (before, after) = (place.bytes(), value.bytes());
        *place = value;
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        if self.bytes > MEMORY_MAX {
            let what = format!("its values take more than {MEMORY_MAX} bytes");
            return Err((Cause::Limit, what));
        }
        Ok(())
    }

    fn burn(&mut self, fuel: usize) -> Step<()> {
        self.fuel = self.fuel.saturating_sub(fuel as u64);
        if self.fuel == 0 {
            return Err((Cause::Limit, format!("more than {FUEL} steps")));
        }
        Ok(())
    }

    /// One instruction.
    fn one(&mut self) -> Step<Option<Output>> {
        self.burn(1)?;
        let program = self.program.clone();
        let op = program.ops.get(self.at).ok_or_else(broken)?;
        self.at += 1;
        match op {
            Op::Push(value) => self.push(value.clone())?,
            Op::Load(slot) => {
                let value = self.slots.get(usize::from(*slot)).ok_or_else(broken)?.clone();
                self.push(value)?;
            }
            Op::Store(slot) => {
                let value = self.pop()?;
                self.store(*slot, value)?;
            }
            Op::Pop => {
                self.pop()?;
            }
            Op::Jump(to) => self.at = *to as usize,
            Op::Unless(to) => {
                if self.pop()? != Value::Bool(true) {
                    self.at = *to as usize;
                }
            }
            Op::KeepIf(wanted, to) => self.keep_if(*to, |top| *top == Value::Bool(*wanted))?,
            Op::IfPresent(to) => self.keep_if(*to, |top| *top != Value::None)?,
            Op::IfAbsent(to) => {
                if self.stack.last() == Some(&Value::None) {
                    self.pop()?;
                    self.at = *to as usize;
                }
            }
            Op::IfGiven(slot, to) => {
                if self.given & 1 << (slot % 64) != 0 && *slot < program.params {
                    self.at = *to as usize;
                }
            }
            Op::Call(site) => return self.call(*site).map(Some),
            Op::Loop(slot) => {
                let list = self.pop()?;
                self.store(*slot, list)?;
                self.store(slot + 1, Value::Int(0))?;
            }
            Op::Next(slot, to) => self.next(*slot, *to)?,
            Op::Fail => {
                let message = self.pop()?;
                return Err((Cause::Said, cut(&message, DETAIL_MAX)));
            }
            Op::End => return Ok(Some(Output::Ended(Ended::Succeeded))),
            op => self.operate(op)?,
        }
        Ok(None)
    }

    /// Goes on elsewhere if what is on top is so, else drops it.
    fn keep_if(&mut self, to: u32, is_so: impl Fn(&Value) -> bool) -> Step<()> {
        if is_so(self.stack.last().ok_or_else(broken)?) {
            self.at = to as usize;
        } else {
            self.pop()?;
        }
        Ok(())
    }

    fn next(&mut self, slot: u16, to: u32) -> Step<()> {
        let slot = usize::from(slot);
        let (list, number) = match (self.slots.get(slot), self.slots.get(slot + 1)) {
            (Some(Value::List(list)), Some(Value::Int(number))) => (list, *number),
            _ => return Err(broken()),
        };
        let element = usize::try_from(number).ok().and_then(|at| list.values().get(at)).cloned();
        match element {
            Some(value) => {
                self.slots[slot + 1] = Value::Int(number + 1);
                self.push(value)
            }
            None => {
                self.at = to as usize;
                Ok(())
            }
        }
    }

    fn call(&mut self, number: u16) -> Step<Output> {
        let program = self.program.clone();
        let site = program.calls.get(usize::from(number)).ok_or_else(broken)?;
        let function = site.function;
        if function.needs.is_some_and(|needs| !self.permissions.allow(needs)) {
            let what = format!("the role may not use `{}`", function.name);
            return Err((Cause::Denied, what));
        }
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return Err((Cause::Limit, format!("more than {CALLS_MAX} calls")));
        }
        let values = self.pop_many(site.names.len())?;
        let named = site.names.iter().cloned().zip(values).collect();
        let args = self.pop_many(function.params.len())?;
        let filter = match &site.filter {
            None => None,
            Some((filter, uses)) => Some(self.bound(filter, uses)?),
        };
        self.waiting = Some(number);
        Ok(Output::Call(HostCall { function: function.name, args, named, filter }))
    }

    /// A filter's text with all values filled in.
    fn bound(&self, filter: &jizoku_log::Expr, uses: &[(String, u16)]) -> Step<String> {
        let mut values = BTreeMap::new();
        for (name, slot) in uses {
            let value = self.slots.get(usize::from(*slot)).ok_or_else(broken)?;
            values.insert(name.clone(), log_value(value).ok_or_else(|| absent(name))?);
        }
        let bound = filter.bind(&values).map_err(|problem| (Cause::Value, problem.what))?;
        Ok(bound.to_string())
    }

    /// The value that was left on the stack: of a program that computes one.
    pub(crate) fn result(program: Program, given: Vec<Value>) -> Result<Value, String> {
        let given = given.into_iter().map(Some).collect();
        let mut run = Run::new(Arc::new(program), given, Permissions::NONE);
        loop {
            match run.one() {
                Ok(None) => {}
                Ok(Some(Output::Ended(_))) => return run.pop().map_err(|(_, what)| what),
                Ok(Some(_)) => return Err("it needs the host".to_string()),
                Err((_, what)) => return Err(what),
            }
        }
    }
}

/// The value as the log holds it.
pub fn log_value(value: &Value) -> Option<jizoku_log::Value> {
    Some(match value {
        Value::Bool(value) => jizoku_log::Value::Bool(*value),
        Value::Int(value) => jizoku_log::Value::Int(*value),
        Value::Float(value) => jizoku_log::Value::Float(*value),
        Value::Str(text) => jizoku_log::Value::Str(text.to_string()),
        Value::Duration(nanos) => jizoku_log::Value::Duration(i64::try_from(*nanos).ok()?),
        Value::Size(bytes) => jizoku_log::Value::Int(i64::try_from(*bytes).ok()?),
        Value::None | Value::List(_) | Value::Record(_) => return None,
    })
}

fn absent(name: &str) -> (Cause, String) {
    (Cause::Value, format!("`${name}` is absent, and can't be compared with"))
}

/// What can only be if the compiler made a mistake.
fn broken() -> (Cause, String) {
    (Cause::Value, "the program is broken".to_string())
}

fn list(values: Vec<Value>) -> Value {
    Value::List(List::new(values))
}
