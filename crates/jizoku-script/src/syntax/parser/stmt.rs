//! Statements of tasks and monitors.

use alloc::vec::Vec;

use super::{Parsed, Parser, Reported};
use crate::syntax::lexer::Kind;
use crate::syntax::tree::{Block, Condition, If, Stmt, StmtKind};

impl Parser<'_> {
    pub(super) fn block(&mut self, what: &str) -> Parsed<Block> {
        let (stmts, place) = self.deeper(|parser| parser.braced(what, Self::stmt))?;
        Ok(Block { stmts, place })
    }

    fn stmt(&mut self) -> Parsed<Stmt> {
        let start = self.here();
        let kind = self.stmt_kind()?;
        Ok(Stmt { kind, place: start.to(self.before()) })
    }

    fn stmt_kind(&mut self) -> Parsed<StmtKind> {
        match self.word() {
            "let" | "var" => self.binding(),
            "if" => self.if_else(|parser| parser.block("block")).map(StmtKind::If),
            "for" => {
                self.bump();
                let name = self.name("the name of the element")?;
                self.expect_word("in")?;
                let list = self.expr()?;
                let body = self.block("loop")?;
                Ok(StmtKind::For { name, list, body })
            }
            "ensure" => {
                self.bump();
                let condition = self.expr()?;
                let message = if self.eat(Kind::Comma) { Some(self.expr()?) } else { None };
                Ok(StmtKind::Ensure { condition, message })
            }
            "fail" => {
                self.bump();
                Ok(StmtKind::Fail(self.expr()?))
            }
            "break" => Ok(self.single(StmtKind::Break)),
            "continue" => Ok(self.single(StmtKind::Continue)),
            "return" => Ok(self.single(StmtKind::Return)),
            "while" | "loop" => {
                let hint = "loops go over lists, so that they end: `for i in range(0, 10) {`";
                self.problems.hint(self.here(), "there is no loop without an end", hint);
                Err(Reported)
            }
            _ => self.assign_or_call(),
        }
    }

    fn single(&mut self, kind: StmtKind) -> StmtKind {
        self.bump();
        kind
    }

    fn binding(&mut self) -> Parsed<StmtKind> {
        let variable = self.word() == "var";
        self.bump();
        let name = self.name("a name")?;
        let kind = if self.eat(Kind::Colon) { Some(self.type_name()?) } else { None };
        self.expect(Kind::Assign, "`=` and a value")?;
        let value = self.expr()?;
        let otherwise = if self.eat_word("else") { Some(self.block("block")?) } else { None };
        Ok(StmtKind::Let { variable, name, kind, value, otherwise })
    }

    fn assign_or_call(&mut self) -> Parsed<StmtKind> {
        let next = self.ahead(1);
        if self.kind() == Kind::Name && next.kind == Kind::Assign && !next.newline {
            let name = self.bump().place;
            self.bump();
            return Ok(StmtKind::Assign { name, value: self.expr()? });
        }
        Ok(StmtKind::Expr(self.expr()?))
    }

    /// `if` with its arms, whose bodies are read by `body`.
    pub(super) fn if_else<B>(
        &mut self,
        mut body: impl FnMut(&mut Self) -> Parsed<B>,
    ) -> Parsed<If<B>> {
        let mut arms = Vec::new();
        loop {
            self.expect_word("if")?;
            let condition = self.condition()?;
            arms.push((condition, body(self)?));
            if !self.eat_word("else") {
                return Ok(If { arms, otherwise: None });
            }
            if !self.at_word("if") {
                return Ok(If { arms, otherwise: Some(body(self)?) });
            }
        }
    }

    fn condition(&mut self) -> Parsed<Condition> {
        if !self.eat_word("let") {
            return Ok(Condition::Holds(self.expr()?));
        }
        let name = self.name("a name")?;
        self.expect(Kind::Assign, "`=` and a value that may be absent")?;
        Ok(Condition::Present { name, value: self.expr()? })
    }
}
