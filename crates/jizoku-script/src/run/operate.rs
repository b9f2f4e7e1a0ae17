//! Operators: what two values, or one, make.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt::Write;

use super::{Cause, Run, Step, broken, builtin, list};
use crate::limits::VALUE_MAX;
use crate::program::Op;
use crate::syntax::tree::{Binary, Unary};
use crate::types::Type;
use crate::value::Value;

/// Bytes of a new value that cost as much as one instruction.
const BYTES_PER_FUEL: usize = 32;

impl Run {
    /// Instructions that only make values of values.
    pub(super) fn operate(&mut self, op: &Op) -> Step<()> {
        let value = match op {
            Op::Unary(Unary::Not) => Value::Bool(self.pop()? != Value::Bool(true)),
            Op::Unary(Unary::Minus) => match self.pop()? {
                Value::Int(n) => Value::Int(n.checked_neg().ok_or_else(too_large)?),
                Value::Float(n) => Value::Float(-n),
                _ => return Err(broken()),
            },
            Op::Binary(operator) => {
                let right = self.pop()?;
                let left = self.pop()?;
                self.burn((left.bytes() + right.bytes()) / BYTES_PER_FUEL)?;
                if *operator == Binary::Matches {
                    // In the worst case each part of the text meets the whole pattern.
                    let product = left.bytes().saturating_mul(right.bytes());
                    self.burn(product / (8 * BYTES_PER_FUEL))?;
                }
                binary(*operator, &left, &right)?
            }
            Op::Text(count) => {
                let values = self.pop_many(usize::from(*count))?;
                Value::text(joined(&values)?)
            }
            Op::List(count) => list(self.pop_many(usize::from(*count))?),
            Op::Field(name) => match self.pop()? {
                Value::Record(record) => record.get(name).cloned().unwrap_or(Value::None),
                _ => return Err(broken()),
            },
            Op::Index => {
                let index = self.pop()?;
                match (self.pop()?, index) {
                    (Value::List(list), Value::Int(n)) => {
                        let at = usize::try_from(n).ok();
                        at.and_then(|at| list.values().get(at)).cloned().unwrap_or(Value::None)
                    }
                    _ => return Err(broken()),
                }
            }
            Op::Widen => self.pop()?.widened(Type::FLOAT),
            Op::Builtin(which, count) => {
                let values = self.pop_many(usize::from(*count))?;
                let bytes: usize = values.iter().map(Value::bytes).sum();
                self.burn(bytes / BYTES_PER_FUEL)?;
                builtin::call(*which, values)?
            }
            _ => return Err(broken()),
        };
        self.burn(value.bytes() / BYTES_PER_FUEL)?;
        self.push(value)
    }
}

fn joined(values: &[Value]) -> Step<String> {
    let mut text = String::new();
    for value in values {
        // Nothing is written to a text that is full.
        let _ = write!(text, "{value}");
        if text.len() > VALUE_MAX {
            return Err((Cause::Limit, format!("a text of more than {VALUE_MAX} bytes")));
        }
    }
    Ok(text)
}

fn too_large() -> (Cause, String) {
    (Cause::Value, "the result is too large".to_string())
}

fn binary(operator: Binary, left: &Value, right: &Value) -> Step<Value> {
    use Binary::{Equal, Greater, GreaterEqual, Has, Less, LessEqual, Matches, NotEqual};
    let ordered =
        |fits: fn(Ordering) -> bool| Ok(Value::Bool(order(left, right).is_some_and(fits)));
    match operator {
        Equal => Ok(Value::Bool(equal(left, right))),
        NotEqual => Ok(Value::Bool(!equal(left, right))),
        Less => ordered(Ordering::is_lt),
        LessEqual => ordered(Ordering::is_le),
        Greater => ordered(Ordering::is_gt),
        GreaterEqual => ordered(Ordering::is_ge),
        Has => match (left, right) {
            (Value::Str(text), Value::Str(part)) => Ok(Value::Bool(text.contains(&**part))),
            (Value::List(list), value) => {
                Ok(Value::Bool(list.values().iter().any(|element| equal(element, value))))
            }
            _ => Err(broken()),
        },
        Matches => match (left, right) {
            (Value::Str(text), Value::Str(pattern)) => {
                Ok(Value::Bool(matches(text.as_bytes(), pattern.as_bytes())))
            }
            _ => Err(broken()),
        },
        operator => arithmetic(operator, left, right),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(_), Value::Float(_)) | (Value::Float(_), Value::Int(_)) => {
            left.number() == right.number()
        }
        _ => left == right,
    }
}

/// How two values of one type stand; `None` where they don't (not a number).
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) | (Value::Size(a), Value::Size(b)) => {
            Some(a.cmp(b))
        }
        _ => left.number()?.partial_cmp(&right.number()?),
    }
}

/// Whether a text fits a pattern: `*` any letters, `?` one byte. Takes time in proportion to the
/// product of both lengths at most, which was paid for before.
pub(super) fn matches(text: &[u8], pattern: &[u8]) -> bool {
    let (mut t, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(b'?') => (t, p) = (t + 1, p + 1),
            Some(byte) if *byte == text[t] => (t, p) = (t + 1, p + 1),
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (t, p) = (from + 1, star + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn arithmetic(operator: Binary, left: &Value, right: &Value) -> Step<Value> {
    use Binary::{Add, Div, Mul, Rem, Sub};
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            if *b == 0 && matches!(operator, Div | Rem) {
                return Err((Cause::Value, "a division by zero".to_string()));
            }
            let result = match operator {
                Add => a.checked_add(*b),
                Sub => a.checked_sub(*b),
                Mul => a.checked_mul(*b),
                Div => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            result.map(Value::Int).ok_or_else(too_large)
        }
        (Value::Str(a), Value::Str(b)) if operator == Add => {
            joined(&[Value::Str(a.clone()), Value::Str(b.clone())]).map(Value::text)
        }
        (Value::List(a), Value::List(b)) if operator == Add => {
            let values: Vec<Value> = a.values().iter().chain(b.values()).cloned().collect();
            Ok(list(values))
        }
        (Value::Duration(a), right) => amount(operator, *a, right, Value::Duration),
        (Value::Size(a), right) => amount(operator, *a, right, Value::Size),
        (left, Value::Duration(b)) if operator == Mul => {
            amount(operator, *b, left, Value::Duration)
        }
        (left, Value::Size(b)) if operator == Mul => amount(operator, *b, left, Value::Size),
        _ => {
            let (a, b) = (left.number().ok_or_else(broken)?, right.number().ok_or_else(broken)?);
            Ok(Value::Float(match operator {
                Add => a + b,
                Sub => a - b,
                Mul => a * b,
                Div => a / b,
                _ => a % b,
            }))
        }
    }
}

/// A time or size with another, or with a number.
#[allow(clippy::cast_precision_loss)] // Shares of times and sizes are fractions.
fn amount(operator: Binary, a: u64, right: &Value, make: fn(u64) -> Value) -> Step<Value> {
    use Binary::{Add, Div, Mul, Sub};
    let zero = || (Cause::Value, "a division by zero".to_string());
    if let Value::Duration(b) | Value::Size(b) = right {
        return match operator {
            Add => a.checked_add(*b).map(make).ok_or_else(too_large),
            Sub => Ok(make(a.saturating_sub(*b))),
            Div => Ok(Value::Float(a as f64 / *b as f64)),
            _ => a.checked_rem(*b).map(make).ok_or_else(zero),
        };
    }
    let factor = right.number().ok_or_else(broken)?;
    let result = match operator {
        Mul => a as f64 * factor,
        Div if factor == 0.0 => return Err(zero()),
        Div => a as f64 / factor,
        _ => return Err(broken()),
    };
    if result.is_nan() || result < 0.0 || result >= i64::MAX as f64 {
        return Err((Cause::Value, "a time or size that can't be".to_string()));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Looked at above.
    Ok(make(result as u64))
}
