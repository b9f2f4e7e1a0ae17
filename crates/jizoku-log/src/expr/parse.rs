//! From tokens to an expression, by the binding strength of operators.
//!
//! What it does not know: types, whether names exist.
//!
//! Invariant: it ends, whatever the text is, and its recursion is bounded by `DEPTH_MAX`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::lex::{Lexed, Lexer, Token};
use super::syntax::{Expr, Kind, Op};
use super::{DEPTH_MAX, NODES_MAX, TEXT_MAX};
use crate::problem::{Place, Problem};
use crate::value::Value;

/// Reads a text that is one expression and nothing else.
pub fn parse(text: &str) -> Result<Expr, Problem> {
    let mut parser = Parser::new(text, 0, false)?;
    let expr = parser.expression()?;
    match &parser.peeked.token {
        Token::End => Ok(expr),
        Token::Bad(problem) => Err(problem.clone()),
        _ => {
            let place = parser.peeked.place;
            let what = format!("`{}` is not expected here", &text[place.start..place.end]);
            Err(Problem::new(place, what).hint("`&&` or `||` joins two conditions"))
        }
    }
}

/// Reads the expression that begins at `at`, as far as it goes, and says where it ends. What
/// follows isn't looked at. A new line ends it, except within parentheses, behind an operator
/// and before `&&` and `||`.
pub fn parse_prefix(text: &str, at: usize) -> Result<(Expr, usize), Problem> {
    let mut parser = Parser::new(text, at, true)?;
    let expr = parser.expression()?;
    Ok((expr, parser.end))
}

/// Where reading is.
pub(crate) struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    /// The next token.
    pub(crate) peeked: Lexed,
    /// Where the last token that was taken ends.
    pub(crate) end: usize,
    depth: usize,
    nodes: usize,
    /// Whether a new line may end the expression.
    lines: bool,
    brackets: usize,
}

impl<'t> Parser<'t> {
    pub(crate) fn new(text: &'t str, at: usize, lines: bool) -> Result<Parser<'t>, Problem> {
        let long = !lines && text.len() > TEXT_MAX;
        if long || !text.is_char_boundary(at) {
            let what = format!("longer than {TEXT_MAX} bytes");
            return Err(Problem::new(Place::new(0, 0), what));
        }
        let mut lexer = Lexer::new(text, at);
        let peeked = lexer.next();
        let (end, depth, nodes, brackets) = (at, 0, 0, 0);
        Ok(Parser { text, lexer, peeked, end, depth, nodes, lines, brackets })
    }

    pub(crate) fn take(&mut self) -> Lexed {
        let next = self.lexer.next();
        self.end = self.peeked.place.end;
        core::mem::replace(&mut self.peeked, next)
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        matches!(&self.peeked.token, Token::Sign(found) if *found == sign)
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(&self.peeked.token, Token::Word(found) if found == word)
    }

    /// What stands where something else was expected.
    pub(crate) fn unexpected(&self, wanted: &str) -> Problem {
        let place = self.peeked.place;
        match &self.peeked.token {
            Token::Bad(problem) => problem.clone(),
            Token::End => Problem::new(place, format!("{wanted} is missing at the end")),
            _ => {
                let found = &self.text[place.start..place.end];
                Problem::new(place, format!("expected {wanted}, found `{found}`"))
            }
        }
    }

    pub(crate) fn expression(&mut self) -> Result<Expr, Problem> {
        self.binary(1)
    }

    fn deeper(&mut self) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let what = format!("nested deeper than {DEPTH_MAX}");
            return Err(Problem::new(self.peeked.place, what));
        }
        Ok(())
    }

    fn node(&mut self, kind: Kind, place: Place) -> Result<Expr, Problem> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let what = format!("more than {NODES_MAX} names, values and operators");
            return Err(Problem::new(place, what));
        }
        Ok(Expr { kind, place })
    }

    /// The operator that comes next, if the expression goes on.
    fn operator(&self) -> Option<Op> {
        let op = match &self.peeked.token {
            Token::Sign("||") => Op::Or,
            Token::Sign("&&") => Op::And,
            Token::Sign("==") => Op::Eq,
            Token::Sign("!=") => Op::Ne,
            Token::Sign("<") => Op::Lt,
            Token::Sign("<=") => Op::Le,
            Token::Sign(">") => Op::Gt,
            Token::Sign(">=") => Op::Ge,
            Token::Sign("+") => Op::Add,
            Token::Sign("-") => Op::Sub,
            Token::Sign("*") => Op::Mul,
            Token::Sign("/") => Op::Div,
            Token::Sign("%") => Op::Rem,
            Token::Word(word) if word == "has" => Op::Has,
            Token::Word(word) if word == "matches" => Op::Matches,
            Token::Word(word) if word == "in" => Op::In,
            _ => return None,
        };
        let new_line = self.lines && self.brackets == 0 && self.peeked.first;
        (!new_line || matches!(op, Op::Or | Op::And)).then_some(op)
    }

    fn binary(&mut self, least: u8) -> Result<Expr, Problem> {
        let mut left = self.unary()?;
        while let Some(op) = self.operator() {
            if op.binds() < least {
                break;
            }
            if op.binds() == 3
                && let Kind::Binary(other, ..) = &left.kind
                && other.binds() == 3
                && !self.text[..left.place.end].ends_with(')')
            {
                let problem = Problem::new(self.peeked.place, "comparisons don't chain");
                return Err(problem.hint("write `a < b && b < c`"));
            }
            self.take();
            let right = self.binary(op.binds() + 1)?;
            let place = left.place.to(right.place);
            left = self.node(Kind::Binary(op, Box::new(left), Box::new(right)), place)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Problem> {
        self.deeper()?;
        let start = self.peeked.place;
        let expr = if self.is_sign("!") {
            self.take();
            let inner = self.unary()?;
            let place = start.to(inner.place);
            self.node(Kind::Not(Box::new(inner)), place)?
        } else if self.is_sign("-") {
            self.take();
            self.minus(start)?
        } else if self.is_word("exists") {
            self.take();
            let name = self.primary()?;
            let place = start.to(name.place);
            if !matches!(name.kind, Kind::Name(_) | Kind::Field(_)) {
                return Err(Problem::new(name.place, "`exists` takes the name of a field"));
            }
            self.node(Kind::Exists(Box::new(name)), place)?
        } else if self.is_word("has") {
            self.take();
            let part = self.primary()?;
            let place = start.to(part.place);
            self.node(Kind::HasAny(Box::new(part)), place)?
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// A number with its sign is one value; the sign of anything else is an operation.
    fn minus(&mut self, start: Place) -> Result<Expr, Problem> {
        let place = start.to(self.peeked.place);
        let value = match &self.peeked.token {
            Token::Int(n) => i64::try_from(-i128::from(*n)).ok().map(Value::Int),
            Token::Float(n) => Some(Value::Float(-n)),
            Token::Duration(n) => i64::try_from(*n).ok().map(|n| Value::Duration(-n)),
            _ => {
                let inner = self.unary()?;
                let place = start.to(inner.place);
                return self.node(Kind::Minus(Box::new(inner)), place);
            }
        };
        self.take();
        let value = value.ok_or_else(|| Problem::new(place, "too large a number"))?;
        self.node(Kind::Literal(value), place)
    }

    fn primary(&mut self) -> Result<Expr, Problem> {
        let place = self.peeked.place;
        let kind = match &self.peeked.token {
            Token::Word(word) if word == "true" => Kind::Literal(Value::Bool(true)),
            Token::Word(word) if word == "false" => Kind::Literal(Value::Bool(false)),
            Token::Word(word) if matches!(word.as_str(), "has" | "in" | "matches" | "exists") => {
                return Err(self.unexpected("a name or a value"));
            }
            Token::Word(word) => Kind::Name(word.to_string()),
            Token::Field(name) => Kind::Field(name.to_string()),
            Token::Outer(name) => Kind::Outer(name.to_string()),
            Token::Int(n) => match i64::try_from(*n) {
                Ok(n) => Kind::Literal(Value::Int(n)),
                Err(_) => return Err(Problem::new(place, "too large a number")),
            },
            Token::Float(n) => Kind::Literal(Value::Float(*n)),
            Token::Str(text) => Kind::Literal(Value::Str(text.to_string())),
            Token::Duration(n) => {
                Kind::Literal(Value::Duration(i64::try_from(*n).unwrap_or(i64::MAX)))
            }
            Token::Sign("(") => return self.parenthesis(),
            Token::Sign("[") => return self.list(),
            _ => return Err(self.unexpected("a name or a value")),
        };
        self.take();
        self.node(kind, place)
    }

    fn parenthesis(&mut self) -> Result<Expr, Problem> {
        let start = self.take().place;
        self.brackets += 1;
        let mut inner = self.expression()?;
        self.brackets -= 1;
        if !self.is_sign(")") {
            return Err(self.unexpected("`)`"));
        }
        inner.place = start.to(self.take().place);
        Ok(inner)
    }

    fn list(&mut self) -> Result<Expr, Problem> {
        let start = self.take().place;
        self.brackets += 1;
        let mut items = Vec::new();
        while !self.is_sign("]") {
            items.push(self.unary()?);
            if self.is_sign(",") {
                self.take();
            } else if !self.is_sign("]") {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
        self.brackets -= 1;
        let place = start.to(self.take().place);
        self.node(Kind::List(items), place)
    }
}
