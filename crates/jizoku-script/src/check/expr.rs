//! Values: the type of each.

use alloc::format;
use alloc::string::ToString;

use super::Checker;
use crate::nearest::suggestion;
use crate::problem::Place;
use crate::syntax::tree::{Binary, Expr, ExprKind, Piece, Unary};
use crate::types::{Base, RECORD_FIELDS, Type};

impl<'a> Checker<'a> {
    pub(super) fn expr(&mut self, expr: &'a Expr) -> Type {
        match &expr.kind {
            ExprKind::Bool(_) => Type::BOOL,
            ExprKind::Int(_) => Type::INT,
            ExprKind::Float(_) => Type::FLOAT,
            ExprKind::Duration(_) => Type::DURATION,
            ExprKind::Size(_) => Type::SIZE,
            ExprKind::None => Type::NONE,
            ExprKind::Wrong => Type::ANY,
            ExprKind::Text(pieces) => {
                for piece in pieces {
                    if let Piece::Value(value) = piece {
                        self.shown(value);
                    }
                }
                Type::STR
            }
            ExprKind::List(list) => self.list(list),
            ExprKind::Name => match self.local(self.word(expr.place)) {
                Some(local) => local.kind,
                None => {
                    self.unknown_name(expr.place);
                    Type::ANY
                }
            },
            ExprKind::Field(value, field) => {
                let found = self.expr(value);
                self.field(value.place, found, *field)
            }
            ExprKind::Index(list, index) => {
                let found = self.expr(list);
                let element = self.element(list.place, found);
                let number = self.expr(index);
                self.expect(index.place, number, Type::INT, "the index");
                element.optional()
            }
            ExprKind::Call(call) => self.call(call),
            ExprKind::Try(inner) => self.try_call(inner),
            ExprKind::Unary(operator, inner) => self.unary(*operator, inner),
            ExprKind::Binary(operator, left, right) => self.binary(*operator, left, right),
        }
    }

    /// A value inside a text.
    fn shown(&mut self, value: &'a Expr) {
        let found = self.expr(value);
        if found == Type::NOTHING {
            self.problems.add(value.place, "this gives nothing that could be shown");
        } else if let Some(inner) = found.present()
            && !inner.is_any()
        {
            let what = format!("this is {}: it may be absent", self.show(found));
            self.problems.hint(value.place, what, "give another with `??`");
        }
    }

    fn list(&mut self, list: &'a [Expr]) -> Type {
        let mut joined: Option<Type> = None;
        for value in list {
            let found = self.expr(value);
            joined = match joined {
                None => Some(found),
                Some(before) => match before.join(found) {
                    Some(kind) => Some(kind),
                    None => {
                        let what = format!(
                            "a list holds values of one type: {}, but this is {}",
                            self.show(before),
                            self.show(found)
                        );
                        self.problems.add(value.place, what);
                        Some(Type::ANY)
                    }
                },
            };
        }
        let element = joined.unwrap_or(Type::ANY);
        if element.is_full() { Type::ANY } else { element.list() }
    }

    fn field(&mut self, place: Place, found: Type, field: Place) -> Type {
        let name = self.word(field);
        let fields: &[_] = match found.plain() {
            Some(Base::Any) => return Type::ANY,
            Some(Base::Shape(shape)) => shape.fields,
            Some(Base::Event(number)) => {
                let event = &self.events[usize::from(number)];
                if let Some((_, kind)) = event.fields.iter().find(|(known, _)| *known == name) {
                    return *kind;
                }
                &RECORD_FIELDS
            }
            _ => {
                let what = format!("{} has no fields", self.show(found));
                if found.present().is_some() {
                    let hint = "it may be absent: test it with `if let`, or `let ... else`";
                    self.problems.hint(place, what, hint);
                } else {
                    self.problems.add(place, what);
                }
                return Type::ANY;
            }
        };
        if let Some((_, kind, _)) = fields.iter().find(|(known, ..)| *known == name) {
            return *kind;
        }
        let what = format!("{} has no field `{name}`", self.show(found));
        let mut known: alloc::vec::Vec<&str> = fields.iter().map(|(name, ..)| *name).collect();
        if let Some(Base::Event(number)) = found.plain() {
            let event = &self.events[usize::from(number)];
            known.extend(event.fields.iter().map(|(name, _)| *name));
        }
        let hint = suggestion(name, known.iter().copied())
            .unwrap_or_else(|| format!("it has {}", known.join(", ")));
        self.problems.hint(field, what, hint);
        Type::ANY
    }

    /// `try call()`: absent if the call fails; of a call that gives nothing, whether it succeeded.
    fn try_call(&mut self, inner: &'a Expr) -> Type {
        let found = self.expr(inner);
        if !matches!(inner.kind, ExprKind::Call(_)) {
            if !found.is_any() {
                let hint = "only calls fail: `try http.get(url)`";
                self.problems.hint(inner.place, "this can't fail", hint);
            }
            return Type::ANY;
        }
        match found {
            Type::NOTHING => Type::BOOL,
            found if found.is_any() || found.is_full() => Type::ANY,
            found => found.optional(),
        }
    }

    fn unary(&mut self, operator: Unary, inner: &'a Expr) -> Type {
        let found = self.expr(inner);
        match operator {
            Unary::Not => {
                self.expect(inner.place, found, Type::BOOL, "the value behind `!`");
                Type::BOOL
            }
            Unary::Minus if matches!(found, Type::INT | Type::FLOAT | Type::ANY) => found,
            Unary::Minus => {
                let what = format!("`-` needs a number, but this is {}", self.show(found));
                self.problems.add(inner.place, what);
                Type::ANY
            }
        }
    }

    fn binary(&mut self, operator: Binary, left: &'a Expr, right: &'a Expr) -> Type {
        let (a, b) = (self.expr(left), self.expr(right));
        match operator {
            Binary::And | Binary::Or => {
                let what = "a value joined by `&&` or `||`";
                self.expect(left.place, a, Type::BOOL, what);
                self.expect(right.place, b, Type::BOOL, what);
                Type::BOOL
            }
            Binary::Otherwise => self.otherwise(left.place, a, right.place, b),
            Binary::Equal | Binary::NotEqual => {
                if a == Type::NOTHING || b == Type::NOTHING || a.join(b).is_none() {
                    self.unlike(left.place.to(right.place), "compared", a, b);
                }
                Type::BOOL
            }
            Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => {
                let kind = a.join(b);
                if kind.is_none_or(|kind| !ordered(kind)) {
                    self.unlike(left.place.to(right.place), "ordered", a, b);
                }
                Type::BOOL
            }
            Binary::Has => self.has(left, a, right, b),
            Binary::Matches => {
                self.expect(left.place, a, Type::STR, "the value before `matches`");
                self.expect(right.place, b, Type::STR, "the pattern");
                Type::BOOL
            }
            _ => arithmetic(operator, a, b).unwrap_or_else(|| {
                self.no_arithmetic(operator, left.place.to(right.place), a, b);
                Type::ANY
            }),
        }
    }

    fn has(&mut self, left: &'a Expr, a: Type, right: &'a Expr, b: Type) -> Type {
        if let Some(element) = a.element() {
            self.expect(right.place, b, element, "the value behind `has`");
        } else if self.expect(left.place, a, Type::STR, "the value before `has`") {
            self.expect(right.place, b, Type::STR, "the value behind `has`");
        }
        Type::BOOL
    }

    fn otherwise(&mut self, left: Place, a: Type, right: Place, b: Type) -> Type {
        let Some(inner) = a.present() else {
            if !a.is_any() {
                self.problems.add(left, "`??` has no use: the value is never absent");
            }
            return a;
        };
        let join = if b.present().is_some() { a.join(b) } else { inner.join(b) };
        join.unwrap_or_else(|| {
            let what = format!("the value is {}, but the other {}", self.show(inner), self.show(b));
            self.problems.add(right, what);
            inner
        })
    }

    fn unlike(&mut self, place: Place, what: &str, a: Type, b: Type) {
        let message = format!("{} and {} can't be {what}", self.show(a), self.show(b));
        let absent = a.present().is_some() || b.present().is_some();
        if absent {
            let hint = "one may be absent: give another with `??`";
            self.problems.hint(place, message, hint);
        } else {
            self.problems.add(place, message);
        }
    }

    fn no_arithmetic(&mut self, operator: Binary, place: Place, a: Type, b: Type) {
        let sign = match operator {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            _ => "%",
        };
        let message = format!("`{sign}` doesn't join {} and {}", self.show(a), self.show(b));
        let text = operator == Binary::Add && (a == Type::STR || b == Type::STR);
        let hint = if text {
            "write values inside a text: \"{a} {b}\"".to_string()
        } else if a.present().is_some() || b.present().is_some() {
            "one may be absent: give another with `??`".to_string()
        } else {
            return self.problems.add(place, message);
        };
        self.problems.hint(place, message, hint);
    }
}

fn ordered(kind: Type) -> bool {
    kind.plain().is_some_and(|base| {
        let orders = [Base::Int, Base::Float, Base::Str, Base::Duration, Base::Size, Base::Any];
        orders.contains(&base)
    })
}

/// The type of a sum, difference, product, quotient or rest.
pub(super) fn arithmetic(operator: Binary, a: Type, b: Type) -> Option<Type> {
    use Binary::{Add, Div, Mul, Rem, Sub};
    if a.is_any() || b.is_any() {
        return Some(Type::ANY);
    }
    let number = |kind: Type| kind == Type::INT || kind == Type::FLOAT;
    let amount = |kind: Type| kind == Type::DURATION || kind == Type::SIZE;
    match operator {
        _ if number(a) && number(b) => a.join(b),
        Add if a == Type::STR && b == Type::STR => Some(Type::STR),
        Add if a.element().is_some() => a.join(b),
        Add | Sub | Rem if amount(a) && a == b => Some(a),
        Div if amount(a) && a == b => Some(Type::FLOAT),
        Mul | Div if amount(a) && number(b) => Some(a),
        Mul if number(a) && amount(b) => Some(b),
        _ => None,
    }
}
