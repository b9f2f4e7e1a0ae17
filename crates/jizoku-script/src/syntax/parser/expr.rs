//! Expressions, by precedence: `||`, `&&`, comparisons, `??`, `+ -`, `* / %`, signs and `try`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Parsed, Parser, Reported};
use crate::limits::{DEPTH_MAX, TIME_MAX};
use crate::problem::Place;
use crate::syntax::lexer::{self, Kind, SIZE_UNITS};
use crate::syntax::tree::{Arg, Binary, Call, Expr, ExprKind, Piece, Unary};

/// Words that no value begins with: seeing one means that a value is missing.
const RESERVED: [&str; 17] = [
    "let", "var", "if", "else", "for", "in", "ensure", "fail", "break", "continue", "return", "do",
    "where", "within", "every", "then", "while",
];

/// Precedence of comparisons, which can't be chained.
const COMPARES: u8 = 3;

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.deeper(|parser| parser.binary(0))
    }

    fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        let mut links = 0;
        let mut compared = false;
        while let Some((operator, level)) = self.operator() {
            if level < least {
                break;
            }
            links += 1;
            if links + self.depth > DEPTH_MAX {
                return self.too_long();
            }
            let sign = self.bump().place;
            let right = self.deeper(|parser| parser.binary(level + 1))?;
            if level == COMPARES && compared {
                let hint = "join two comparisons with `&&`";
                self.problems.hint(sign, "comparisons can't be chained", hint);
            }
            compared = level == COMPARES;
            let place = left.place.to(right.place);
            left = Expr { kind: ExprKind::Binary(operator, left.into(), right.into()), place };
        }
        Ok(left)
    }

    fn too_long<T>(&mut self) -> Parsed<T> {
        let what = format!("more than {DEPTH_MAX} parts in one expression");
        self.problems.hint(self.here(), what, "give parts of it names with `let`");
        Err(Reported)
    }

    fn operator(&self) -> Option<(Binary, u8)> {
        let token = self.token();
        let found = match token.kind {
            Kind::Otherwise => (Binary::Otherwise, 4),
            Kind::Or => (Binary::Or, 1),
            Kind::And => (Binary::And, 2),
            Kind::Equal => (Binary::Equal, COMPARES),
            Kind::NotEqual => (Binary::NotEqual, COMPARES),
            Kind::Less => (Binary::Less, COMPARES),
            Kind::LessEqual => (Binary::LessEqual, COMPARES),
            Kind::Greater => (Binary::Greater, COMPARES),
            Kind::GreaterEqual => (Binary::GreaterEqual, COMPARES),
            Kind::Plus => (Binary::Add, 5),
            Kind::Minus => (Binary::Sub, 5),
            Kind::Star => (Binary::Mul, 6),
            Kind::Slash => (Binary::Div, 6),
            Kind::Percent => (Binary::Rem, 6),
            Kind::Name => match self.word() {
                "has" => (Binary::Has, COMPARES),
                "matches" => (Binary::Matches, COMPARES),
                _ => return None,
            },
            _ => return None,
        };
        // These can't begin a statement, so they go on with the line before.
        let joins = matches!(found.0, Binary::Otherwise | Binary::Or | Binary::And);
        (joins || !token.newline || self.parens > 0).then_some(found)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.here();
        let operator = match self.kind() {
            Kind::Not => Unary::Not,
            Kind::Minus => Unary::Minus,
            Kind::Name if self.word() == "try" => {
                self.bump();
                let inner = self.deeper(Self::unary)?;
                let place = start.to(inner.place);
                return Ok(Expr { kind: ExprKind::Try(inner.into()), place });
            }
            _ => return self.postfix(),
        };
        self.bump();
        let inner = self.deeper(Self::unary)?;
        let place = start.to(inner.place);
        let kind = match (operator, inner.kind) {
            (Unary::Minus, ExprKind::Int(n)) => ExprKind::Int(n.saturating_neg()),
            (Unary::Minus, ExprKind::Float(n)) => ExprKind::Float(-n),
            (_, kind) => ExprKind::Unary(operator, Expr { kind, place: inner.place }.into()),
        };
        Ok(Expr { kind, place })
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let start = self.here();
        let mut value = self.primary()?;
        // A long chain nests the tree as parentheses would.
        let mut links = 0;
        loop {
            let token = self.token();
            let kind = match token.kind {
                Kind::Dot => {
                    self.bump();
                    let field = self.name("the name of a field")?;
                    ExprKind::Field(value.into(), field)
                }
                Kind::BracketOpen if !token.newline => {
                    self.bump();
                    let index = self.enclosed(|parser| {
                        let index = parser.expr()?;
                        parser.expect(Kind::BracketClose, "`]`")?;
                        Ok(index)
                    })?;
                    ExprKind::Index(value.into(), index.into())
                }
                _ => return Ok(value),
            };
            links += 1;
            if links + self.depth > DEPTH_MAX {
                return self.too_long();
            }
            value = Expr { kind, place: start.to(self.before()) };
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.token();
        let place = token.place;
        let kind = match token.kind {
            Kind::Name => return self.named(),
            Kind::Int => ExprKind::Int(self.int(place)?),
            Kind::Float => {
                let digits: String = place.of(self.text).chars().filter(|c| *c != '_').collect();
                ExprKind::Float(digits.parse().unwrap_or(f64::MAX))
            }
            Kind::Duration => ExprKind::Duration(self.time(place)?),
            Kind::Size => ExprKind::Size(self.size(place)?),
            Kind::Text => ExprKind::Text(self.pieces(place)),
            Kind::Raw => {
                let text = place.of(self.text);
                ExprKind::Text([Piece::Text(dedented(&text[3..text.len() - 3]))].into())
            }
            Kind::ParenOpen => {
                self.bump();
                let mut inner = self.enclosed(|parser| {
                    let inner = parser.expr()?;
                    parser.expect(Kind::ParenClose, "`)`")?;
                    Ok(inner)
                })?;
                inner.place = place.to(self.before());
                return Ok(inner);
            }
            Kind::BracketOpen => {
                self.bump();
                let list = self.enclosed(|parser| {
                    parser.listed(Kind::BracketClose, "`,` or `]`", Self::expr)
                })?;
                return Ok(Expr { kind: ExprKind::List(list), place: place.to(self.before()) });
            }
            _ => return self.expected("a value"),
        };
        self.bump();
        Ok(Expr { kind, place })
    }

    /// Something inside an opening token that was eaten, where lines end nothing.
    fn enclosed<T>(&mut self, inside: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.parens += 1;
        let result = inside(self);
        self.parens -= 1;
        result
    }

    fn named(&mut self) -> Parsed<Expr> {
        let word = self.word();
        let place = self.here();
        let kind = match word {
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "none" => ExprKind::None,
            _ if RESERVED.contains(&word) => return self.expected("a value"),
            _ => return self.name_or_call(place),
        };
        self.bump();
        Ok(Expr { kind, place })
    }

    /// `name`, `name(...)`, `space.name(...)`
    fn name_or_call(&mut self, start: Place) -> Parsed<Expr> {
        self.bump();
        let opens = |parser: &Self, ahead: usize| {
            let token = parser.ahead(ahead);
            token.kind == Kind::ParenOpen && !token.newline
        };
        let name = if opens(self, 0) {
            start
        } else if self.kind() == Kind::Dot && self.ahead(1).kind == Kind::Name && opens(self, 2) {
            self.bump();
            start.to(self.bump().place)
        } else {
            return Ok(Expr { kind: ExprKind::Name, place: start });
        };
        let call = self.call(name)?;
        Ok(Expr { kind: ExprKind::Call(call.into()), place: start.to(self.before()) })
    }

    /// Arguments of a call whose name was eaten.
    pub(super) fn call(&mut self, name: Place) -> Parsed<Call> {
        self.expect(Kind::ParenOpen, "`(`")?;
        let (args, filter) = self.enclosed(Self::args)?;
        Ok(Call { name, args, filter })
    }

    fn args(&mut self) -> Parsed<(Vec<Arg>, Option<Place>)> {
        let mut args = Vec::new();
        let mut filter = None;
        while self.kind() != Kind::ParenClose {
            if self.at_word("where") {
                filter = self.filter()?;
            } else {
                args.push(self.arg()?);
            }
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        self.expect(Kind::ParenClose, "`,` or `)`")?;
        Ok((args, filter))
    }

    fn arg(&mut self) -> Parsed<Arg> {
        let named = self.kind() == Kind::Name && self.ahead(1).kind == Kind::Colon;
        let name = named.then(|| {
            let place = self.bump().place;
            self.bump();
            place
        });
        Ok(Arg { name, value: self.expr()? })
    }

    fn int(&mut self, place: Place) -> Parsed<i64> {
        let digits: String = place.of(self.text).chars().filter(|c| *c != '_').collect();
        digits.parse().map_err(|_| {
            self.problems.add(place, format!("too large: whole numbers go up to {}", i64::MAX));
            Reported
        })
    }

    /// A time's nanoseconds.
    fn time(&mut self, place: Place) -> Parsed<u64> {
        let nanos = lexer::nanos(place.of(self.text)).unwrap_or(u64::MAX);
        if nanos > TIME_MAX.as_nanos() {
            self.problems.add(place, "too long: a year at most");
            return Err(Reported);
        }
        Ok(nanos)
    }

    /// A size's bytes.
    fn size(&mut self, place: Place) -> Parsed<u64> {
        let text = place.of(self.text);
        let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let digits: String = text[..at].chars().filter(|c| *c != '_').collect();
        let unit = SIZE_UNITS.iter().find(|(name, _)| *name == &text[at..]).map_or(1, |(_, n)| *n);
        let value = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        value.filter(|n| i64::try_from(*n).is_ok()).ok_or_else(|| {
            self.problems.add(place, "too large");
            Reported
        })
    }
}

/// The text without its first line if that is empty, without the blanks that all lines begin
/// with, and without a last line of blanks.
fn dedented(text: &str) -> String {
    let Some(lines) = text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')) else {
        return text.into();
    };
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let filled = lines.lines().filter(|line| !line.trim().is_empty());
    let least = filled.map(indent).min().unwrap_or(0);
    let mut result = String::with_capacity(lines.len());
    for line in lines.lines() {
        result.push_str(line.get(least..).unwrap_or(""));
        result.push('\n');
    }
    let kept = result.trim_end().len();
    result.truncate(kept);
    result.push('\n');
    result
}
