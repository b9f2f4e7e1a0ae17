//! From the tree of a checked script to a program.
//!
//! What it does not know: types; they were checked. What a check would refuse is refused here
//! with a text, never with a panic.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use jizoku_log::expr;

use crate::functions::{self, By, Function, Gives, Means};
use crate::problem::Place;
use crate::program::{CallSite, Op, Program};
use crate::script::{Script, type_of};
use crate::syntax::tree::{
    Arg, Binary, Block, Call, Condition, Expr, ExprKind, Param, Piece, Stmt, StmtKind, TypeName,
};
use crate::types::{Base, Type};
use crate::value::Value;

type Made<T> = Result<T, String>;

/// Compiles a body with its parameters.
pub(crate) fn compile(script: &Script, params: &[Param], body: &Block) -> Made<Program> {
    let mut compiler = Compiler::new(script);
    compiler.params(params)?;
    compiler.block(body)?;
    compiler.emit(Op::End, body.place);
    Ok(compiler.finish(params))
}

/// Compiles a value that uses the parameters.
pub(crate) fn compile_value(script: &Script, params: &[&str], value: &Expr) -> Made<Program> {
    let mut compiler = Compiler::new(script);
    for name in params {
        compiler.slot(name)?;
    }
    compiler.expr(value)?;
    compiler.emit(Op::End, value.place);
    Ok(compiler.finish(&[]))
}

struct Compiler<'a> {
    script: &'a Script,
    text: &'a str,
    ops: Vec<Op>,
    places: Vec<Place>,
    calls: Vec<CallSite>,
    names: Vec<(&'a str, u16)>,
    free: u16,
    slots: u16,
    /// For each loop around: where it goes on, and jumps out of it that need their place.
    loops: Vec<(u32, Vec<usize>)>,
}

impl<'a> Compiler<'a> {
    fn new(script: &'a Script) -> Compiler<'a> {
        Compiler {
            script,
            text: &script.text,
            ops: Vec::new(),
            places: Vec::new(),
            calls: Vec::new(),
            names: Vec::new(),
            free: 0,
            slots: 0,
            loops: Vec::new(),
        }
    }

    fn finish(self, params: &[Param]) -> Program {
        Program {
            ops: self.ops,
            places: self.places,
            calls: self.calls,
            slots: self.slots,
            params: u16::try_from(params.len()).unwrap_or(u16::MAX),
            text: self.script.text.clone(),
            events: self.script.events.clone(),
        }
    }

    fn emit(&mut self, op: Op, place: Place) -> usize {
        self.ops.push(op);
        self.places.push(place);
        self.ops.len() - 1
    }

    fn here(&self) -> u32 {
        u32::try_from(self.ops.len()).unwrap_or(u32::MAX)
    }

    /// Gives a jump that was emitted the place where the next instruction will be.
    fn land(&mut self, at: usize) {
        let here = self.here();
        match &mut self.ops[at] {
            Op::Jump(to)
            | Op::Unless(to)
            | Op::KeepIf(_, to)
            | Op::IfAbsent(to)
            | Op::IfPresent(to)
            | Op::IfGiven(_, to)
            | Op::Next(_, to) => *to = here,
            _ => {}
        }
    }

    fn hidden_slot(&mut self) -> Made<u16> {
        let slot = self.free;
        self.free = self.free.checked_add(1).ok_or("too many names")?;
        self.slots = self.slots.max(self.free);
        Ok(slot)
    }

    fn slot(&mut self, name: &'a str) -> Made<u16> {
        let slot = self.hidden_slot()?;
        self.names.push((name, slot));
        Ok(slot)
    }

    fn find(&self, place: Place) -> Made<u16> {
        let name = place.of(self.text);
        let found = self.names.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, slot)| *slot).ok_or_else(|| format!("no `{name}`"))
    }

    fn params(&mut self, params: &'a [Param]) -> Made<()> {
        for param in params {
            self.slot(param.name.of(self.text))?;
        }
        for (slot, param) in (0..).zip(params) {
            if let Some(default) = &param.default {
                let given = self.emit(Op::IfGiven(slot, 0), default.place);
                self.expr(default)?;
                self.widen(&param.kind, default.place);
                self.emit(Op::Store(slot), default.place);
                self.land(given);
            }
        }
        Ok(())
    }

    fn widen(&mut self, kind: &TypeName, place: Place) {
        let kind = type_of(self.text, kind);
        if kind.present().unwrap_or(kind) == Type::FLOAT {
            self.emit(Op::Widen, place);
        }
    }

    /// Compiles something, and forgets the names that it declared.
    fn scope(&mut self, inside: impl FnOnce(&mut Self) -> Made<()>) -> Made<()> {
        let (names, free) = (self.names.len(), self.free);
        inside(self)?;
        self.names.truncate(names);
        self.free = free;
        Ok(())
    }

    fn block(&mut self, block: &'a Block) -> Made<()> {
        self.scope(|compiler| block.stmts.iter().try_for_each(|stmt| compiler.stmt(stmt)))
    }

    fn stmt(&mut self, stmt: &'a Stmt) -> Made<()> {
        let place = stmt.place;
        match &stmt.kind {
            StmtKind::Let { name, kind, value, otherwise, .. } => {
                self.expr(value)?;
                if let Some(block) = otherwise {
                    let present = self.emit(Op::IfPresent(0), value.place);
                    self.block(block)?;
                    // The checker saw that the block doesn't get here.
                    self.emit(Op::End, block.place);
                    self.land(present);
                }
                if let Some(kind) = kind {
                    self.widen(kind, value.place);
                }
                let slot = self.slot(name.of(self.text))?;
                self.emit(Op::Store(slot), place);
            }
            StmtKind::Assign { name, value } => {
                self.expr(value)?;
                let slot = self.find(*name)?;
                self.emit(Op::Store(slot), place);
            }
            StmtKind::If(branches) => self.if_else(branches)?,
            StmtKind::For { name, list, body } => self.for_loop(*name, list, body)?,
            StmtKind::Break => {
                let jump = self.emit(Op::Jump(0), place);
                self.loops.last_mut().ok_or("no loop")?.1.push(jump);
            }
            StmtKind::Continue => {
                let to = self.loops.last().ok_or("no loop")?.0;
                self.emit(Op::Jump(to), place);
            }
            StmtKind::Return => {
                self.emit(Op::End, place);
            }
            StmtKind::Ensure { condition, message } => self.ensure(condition, message.as_ref())?,
            StmtKind::Fail(message) => {
                self.expr(message)?;
                self.emit(Op::Fail, place);
            }
            StmtKind::Expr(value) => {
                self.expr(value)?;
                self.emit(Op::Pop, place);
            }
        }
        Ok(())
    }

    fn ensure(&mut self, condition: &'a Expr, message: Option<&'a Expr>) -> Made<()> {
        self.expr(condition)?;
        let holds = self.emit(Op::KeepIf(true, 0), condition.place);
        match message {
            Some(message) => self.expr(message)?,
            None => {
                let source = condition.place.of(self.text);
                let text = format!("this doesn't hold: {source}");
                self.emit(Op::Push(Value::text(text)), condition.place);
            }
        }
        self.emit(Op::Fail, condition.place);
        self.land(holds);
        self.emit(Op::Pop, condition.place);
        Ok(())
    }

    fn if_else(&mut self, branches: &'a crate::syntax::tree::If<Block>) -> Made<()> {
        let mut ends = Vec::new();
        for (condition, block) in &branches.arms {
            let mut otherwise = 0;
            self.scope(|compiler| {
                match condition {
                    Condition::Holds(expr) => {
                        compiler.expr(expr)?;
                        otherwise = compiler.emit(Op::Unless(0), expr.place);
                    }
                    Condition::Present { name, value } => {
                        compiler.expr(value)?;
                        otherwise = compiler.emit(Op::IfAbsent(0), value.place);
                        let slot = compiler.slot(name.of(compiler.text))?;
                        compiler.emit(Op::Store(slot), value.place);
                    }
                }
                compiler.block(block)?;
                ends.push(compiler.emit(Op::Jump(0), block.place));
                Ok(())
            })?;
            self.land(otherwise);
        }
        if let Some(block) = &branches.otherwise {
            self.block(block)?;
        }
        ends.into_iter().for_each(|end| self.land(end));
        Ok(())
    }

    fn for_loop(&mut self, name: Place, list: &'a Expr, body: &'a Block) -> Made<()> {
        self.scope(|compiler| {
            compiler.expr(list)?;
            let hidden = compiler.hidden_slot()?;
            compiler.hidden_slot()?;
            compiler.emit(Op::Loop(hidden), list.place);
            let start = compiler.here();
            let next = compiler.emit(Op::Next(hidden, 0), list.place);
            let slot = compiler.slot(name.of(compiler.text))?;
            compiler.emit(Op::Store(slot), name);
            compiler.loops.push((start, Vec::new()));
            compiler.block(body)?;
            compiler.emit(Op::Jump(start), body.place);
            compiler.land(next);
            let (_, breaks) = compiler.loops.pop().unwrap_or_default();
            breaks.into_iter().for_each(|at| compiler.land(at));
            Ok(())
        })
    }

    fn expr(&mut self, expr: &'a Expr) -> Made<()> {
        let place = expr.place;
        let op = match &expr.kind {
            ExprKind::Bool(value) => Op::Push(Value::Bool(*value)),
            ExprKind::Int(value) => Op::Push(Value::Int(*value)),
            ExprKind::Float(value) => Op::Push(Value::Float(*value)),
            ExprKind::Duration(nanos) => Op::Push(Value::Duration(*nanos)),
            ExprKind::Size(bytes) => Op::Push(Value::Size(*bytes)),
            ExprKind::None => Op::Push(Value::None),
            ExprKind::Name => Op::Load(self.find(place)?),
            ExprKind::Text(pieces) => return self.text(pieces, place),
            ExprKind::List(list) => {
                list.iter().try_for_each(|value| self.expr(value))?;
                Op::List(u16::try_from(list.len()).map_err(|_| "a list that is too long")?)
            }
            ExprKind::Field(value, field) => {
                self.expr(value)?;
                Op::Field(field.of(self.text).into())
            }
            ExprKind::Index(list, index) => {
                self.expr(list)?;
                self.expr(index)?;
                Op::Index
            }
            ExprKind::Unary(operator, inner) => {
                self.expr(inner)?;
                Op::Unary(*operator)
            }
            ExprKind::Binary(operator, left, right) => {
                return self.binary(*operator, left, right, place);
            }
            ExprKind::Call(call) => return self.call(call, false),
            ExprKind::Try(inner) => {
                return match &inner.kind {
                    ExprKind::Call(call) => self.call(call, true),
                    _ => Err("`try` without a call".to_string()),
                };
            }
            ExprKind::Wrong => return Err("a mistake that was reported".to_string()),
        };
        self.emit(op, place);
        Ok(())
    }

    fn text(&mut self, pieces: &'a [Piece], place: Place) -> Made<()> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => {
                    self.emit(Op::Push(Value::text(text.as_str())), place);
                }
                Piece::Value(value) => self.expr(value)?,
            }
        }
        if !matches!(pieces, [Piece::Text(_)]) {
            let count = u16::try_from(pieces.len()).map_err(|_| "a text of too many pieces")?;
            self.emit(Op::Text(count), place);
        }
        Ok(())
    }

    fn binary(
        &mut self,
        operator: Binary,
        left: &'a Expr,
        right: &'a Expr,
        place: Place,
    ) -> Made<()> {
        self.expr(left)?;
        let shortcut = match operator {
            Binary::And => Op::KeepIf(false, 0),
            Binary::Or => Op::KeepIf(true, 0),
            Binary::Otherwise => Op::IfPresent(0),
            _ => {
                self.expr(right)?;
                self.emit(Op::Binary(operator), place);
                return Ok(());
            }
        };
        let jump = self.emit(shortcut, place);
        self.expr(right)?;
        self.land(jump);
        Ok(())
    }

    fn call(&mut self, call: &'a Call, tried: bool) -> Made<()> {
        let name = call.name.of(self.text);
        let function = functions::find(name).ok_or_else(|| format!("no function `{name}`"))?;
        let mut extra = Vec::new();
        let mut given: Vec<Option<&Expr>> = function.params.iter().map(|_| None).collect();
        let mut next = 0;
        for arg in &call.args {
            let at = match arg.name {
                Some(name) => function.param(name.of(self.text)),
                None => Some(next),
            };
            match (at, arg.name) {
                (Some(at), name) if at < given.len() => {
                    given[at] = Some(&arg.value);
                    if name.is_none() {
                        next = at + 1;
                    }
                }
                (_, Some(_)) => extra.push(arg),
                _ => return Err(format!("`{name}` takes fewer values")),
            }
        }
        for (param, value) in function.params.iter().zip(&given) {
            match value {
                Some(value) => self.expr(value)?,
                None => {
                    self.emit(Op::Push(Value::None), call.name);
                }
            }
            if param.kind == Type::FLOAT && function.result != Gives::Same {
                self.emit(Op::Widen, call.name);
            }
        }
        match function.by {
            By::Evaluator(builtin) => {
                let count = u8::try_from(given.len()).unwrap_or(u8::MAX);
                self.emit(Op::Builtin(builtin, count), call.name);
                Ok(())
            }
            By::Host => self.host_call(function, call, &given, &extra, tried),
        }
    }

    fn host_call(
        &mut self,
        function: &'static Function,
        call: &'a Call,
        given: &[Option<&'a Expr>],
        extra: &[&'a Arg],
        tried: bool,
    ) -> Made<()> {
        let mut event = None;
        if function.params.first().is_some_and(|param| param.means == Means::Event)
            && let Some(Some(expr)) = given.first()
            && let ExprKind::Text(pieces) = &expr.kind
            && let [Piece::Text(name)] = pieces.as_slice()
        {
            event = self.script.event(name);
        }
        let fields = event.map(|number| &self.script.events[usize::from(number)].1);
        let mut names: Vec<Arc<str>> = Vec::new();
        for arg in extra {
            let name = arg.name.map_or("", |name| name.of(self.text));
            self.expr(&arg.value)?;
            let field = fields.and_then(|fields| fields.iter().find(|(known, _)| known == name));
            if field.is_some_and(|(_, kind)| kind.present().unwrap_or(*kind) == Type::FLOAT) {
                self.emit(Op::Widen, arg.value.place);
            }
            names.push(name.into());
        }
        let record = event.map_or(Type::ANY, |number| Type::of(Base::Event(number)));
        let result = match function.result {
            Gives::Value(kind) => kind,
            Gives::Record => record,
            Gives::RecordIfAny => record.optional(),
            Gives::Records => record.list(),
            Gives::Element | Gives::Same => Type::ANY,
        };
        let filter = match call.filter {
            Some(place) => Some(self.filter(place)?),
            None => None,
        };
        let site = u16::try_from(self.calls.len()).map_err(|_| "too many calls")?;
        self.calls.push(CallSite { function, names, filter, result, tried });
        self.emit(Op::Call(site), call.name);
        Ok(())
    }

    fn filter(&self, place: Place) -> Made<(jizoku_log::Expr, Vec<(String, u16)>)> {
        let filter = expr::parse(place.of(self.text)).map_err(|problem| problem.what)?;
        let mut uses = BTreeMap::new();
        filter.outer(&mut |name, _| {
            if let Some((_, slot)) = self.names.iter().rev().find(|(known, _)| *known == name) {
                uses.insert(name.to_string(), *slot);
            }
        });
        Ok((filter, uses.into_iter().collect()))
    }
}
