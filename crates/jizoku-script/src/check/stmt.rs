//! Statements.

use alloc::format;

use super::Checker;
use crate::problem::Place;
use crate::syntax::tree::{Block, Condition, ExprKind, If, Stmt, StmtKind};
use crate::types::Type;

impl<'a> Checker<'a> {
    pub(super) fn block(&mut self, block: &'a Block) {
        self.scope(|checker| {
            for (at, stmt) in block.stmts.iter().enumerate() {
                checker.stmt(stmt);
                if ends(stmt)
                    && let Some(next) = block.stmts.get(at + 1)
                {
                    let what = "this is never reached";
                    checker.problems.add(next.place, what);
                    break;
                }
            }
        });
    }

    fn stmt(&mut self, stmt: &'a Stmt) {
        match &stmt.kind {
            StmtKind::Let { variable, name, kind, value, otherwise } => {
                let mut found = self.expr(value);
                if let Some(block) = otherwise {
                    found = self.present(value.place, found, "`else` here");
                    self.block(block);
                    if !block.stmts.last().is_some_and(ends) {
                        let hint = "end it with fail, return, break or continue";
                        self.problems.hint(block.place, "this may not go on behind", hint);
                    }
                }
                if let Some(kind) = kind {
                    let expected = self.type_of(kind);
                    self.expect(value.place, found, expected, "the value");
                    found = expected;
                } else if found == Type::NONE {
                    let what = format!("what could `{}` be beside `none`?", self.word(*name));
                    self.problems.hint(value.place, what, "name its type: `let x: int? = none`");
                    found = Type::ANY;
                }
                self.declare(*name, found, *variable);
            }
            StmtKind::Assign { name, value } => self.assign(*name, value),
            StmtKind::If(branches) => self.if_else(branches, Self::block),
            StmtKind::For { name, list, body } => {
                let found = self.expr(list);
                let element = self.element(list.place, found);
                self.loops += 1;
                self.scope(|checker| {
                    checker.declare(*name, element, false);
                    checker.block(body);
                });
                self.loops -= 1;
            }
            StmtKind::Break | StmtKind::Continue => {
                if self.loops == 0 {
                    self.problems.add(stmt.place, "there is no loop around this");
                }
            }
            StmtKind::Return => {}
            StmtKind::Ensure { condition, message } => {
                let found = self.expr(condition);
                self.expect(condition.place, found, Type::BOOL, "the condition");
                if let Some(message) = message {
                    let found = self.expr(message);
                    self.expect(message.place, found, Type::STR, "the message");
                }
            }
            StmtKind::Fail(message) => {
                let found = self.expr(message);
                self.expect(message.place, found, Type::STR, "the message");
            }
            StmtKind::Expr(expr) => {
                let found = self.expr(expr);
                let acts = matches!(&expr.kind, ExprKind::Call(_) | ExprKind::Try(_));
                if !acts && !found.is_any() {
                    let hint = "give it a name with `let`, or test it with `ensure`";
                    self.problems.hint(expr.place, "nothing is done with this value", hint);
                }
            }
        }
    }

    fn assign(&mut self, name: Place, value: &'a crate::syntax::tree::Expr) {
        let found = self.expr(value);
        let word = self.word(name);
        let Some(local) = self.local(word) else { return self.unknown_name(name) };
        let (kind, variable) = (local.kind, local.variable);
        if !variable {
            let what = format!("`{word}` can't be changed");
            self.problems.hint(name, what, format!("declare it with `var {word} = ...`"));
        }
        self.expect(value.place, found, kind, "the value");
    }

    /// The type of an optional value when it is there.
    fn present(&mut self, place: Place, found: Type, what: &str) -> Type {
        if found.is_any() {
            return found;
        }
        found.present().unwrap_or_else(|| {
            let what = format!("{what} has no use: the value is never absent");
            self.problems.add(place, what);
            found
        })
    }

    pub(super) fn element(&mut self, place: Place, found: Type) -> Type {
        if found.is_any() {
            return found;
        }
        found.element().unwrap_or_else(|| {
            let what = format!("a list is expected, but this is {}", self.show(found));
            match found {
                Type::INT => {
                    self.problems.hint(place, what, "`range(0, n)` counts from 0 to before n");
                }
                Type::STR => self.problems.hint(place, what, "`lines(text)` gives its lines"),
                _ => self.problems.add(place, what),
            }
            Type::ANY
        })
    }

    pub(super) fn if_else<B>(
        &mut self,
        branches: &'a If<B>,
        mut body: impl FnMut(&mut Self, &'a B),
    ) {
        for (condition, block) in &branches.arms {
            let before = self.locals.len();
            match condition {
                Condition::Holds(expr) => {
                    let found = self.expr(expr);
                    self.expect(expr.place, found, Type::BOOL, "the condition");
                }
                Condition::Present { name, value } => {
                    let found = self.expr(value);
                    let kind = self.present(value.place, found, "`if let` here");
                    self.declare(*name, kind, false);
                }
            }
            body(self, block);
            self.locals.truncate(before);
        }
        if let Some(block) = &branches.otherwise {
            body(self, block);
        }
    }
}

/// Whether nothing behind this statement is reached.
fn ends(stmt: &Stmt) -> bool {
    match &stmt.kind {
        StmtKind::Fail(_) | StmtKind::Return | StmtKind::Break | StmtKind::Continue => true,
        StmtKind::If(branches) => {
            let ends = |block: &Block| block.stmts.last().is_some_and(ends);
            branches.otherwise.as_ref().is_some_and(ends)
                && branches.arms.iter().all(|(_, block)| ends(block))
        }
        _ => false,
    }
}
