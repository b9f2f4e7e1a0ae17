//! Functions of values alone.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::operate::order;
use super::{Cause, Step, broken, list};
use crate::functions::Builtin;
use crate::limits::VALUE_MAX;
use crate::value::Value;

/// Most numbers of a range.
const RANGE_MAX: i64 = 10_000;

pub(super) fn call(which: Builtin, values: Vec<Value>) -> Step<Value> {
    let mut values = values.into_iter();
    let first = values.next().ok_or_else(broken)?;
    let rest: Vec<Value> = values.collect();
    match first {
        Value::Str(text) if which != Builtin::Str => of_text(which, &text, &rest),
        Value::List(elements) if which != Builtin::Str => of_list(which, elements.values(), &rest),
        value => of_other(which, &value, &rest),
    }
}

fn text_of(values: &[Value], at: usize) -> Step<&Arc<str>> {
    match values.get(at) {
        Some(Value::Str(text)) => Ok(text),
        _ => Err(broken()),
    }
}

fn texts<'a>(parts: impl Iterator<Item = &'a str>) -> Value {
    list(parts.map(Value::text).collect())
}

fn of_text(which: Builtin, text: &Arc<str>, rest: &[Value]) -> Step<Value> {
    Ok(match which {
        Builtin::Ends => Value::Bool(text.ends_with(&**text_of(rest, 0)?)),
        Builtin::Starts => Value::Bool(text.starts_with(&**text_of(rest, 0)?)),
        Builtin::Float => {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            number.map_or(Value::None, Value::Float)
        }
        Builtin::Int => text.trim().parse::<i64>().map_or(Value::None, Value::Int),
        Builtin::Len => count(text.chars().count()),
        Builtin::Lines => texts(text.lines()),
        Builtin::Words => texts(text.split_whitespace()),
        Builtin::Lower => Value::text(text.to_lowercase()),
        Builtin::Upper => Value::text(text.to_uppercase()),
        Builtin::Trim => Value::text(text.trim()),
        Builtin::Split => {
            let at = text_of(rest, 0)?;
            if at.is_empty() {
                list([Value::Str(text.clone())].into())
            } else {
                texts(text.split(&**at))
            }
        }
        Builtin::Replace => {
            let (what, with) = (text_of(rest, 0)?, text_of(rest, 1)?);
            if what.is_empty() {
                return Ok(Value::Str(text.clone()));
            }
            // What it would take is known before it is made.
            let times = text.matches(&**what).count();
            if text.len() + times.saturating_mul(with.len()) > VALUE_MAX + times * what.len() {
                return Err((Cause::Limit, format!("a text of more than {VALUE_MAX} bytes")));
            }
            Value::text(text.replace(&**what, with))
        }
        _ => return Err(broken()),
    })
}

fn of_list(which: Builtin, values: &[Value], rest: &[Value]) -> Step<Value> {
    let least = |a: &Value, b: &Value| order(a, b).unwrap_or(Ordering::Equal);
    Ok(match which {
        Builtin::First => values.first().cloned().unwrap_or(Value::None),
        Builtin::Last => values.last().cloned().unwrap_or(Value::None),
        Builtin::Len => count(values.len()),
        Builtin::Max => values.iter().max_by(|a, b| least(a, b)).cloned().unwrap_or(Value::None),
        Builtin::Min => values.iter().min_by(|a, b| least(a, b)).cloned().unwrap_or(Value::None),
        Builtin::Sort => {
            let mut sorted = values.to_vec();
            // Not every list has an order: numbers that are none stay where they fall.
            sorted.sort_by(total);
            list(sorted)
        }
        Builtin::Sum => {
            Value::Float(values.iter().map(|value| value.number().unwrap_or(0.0)).sum())
        }
        Builtin::Join => {
            let between = text_of(rest, 0)?;
            let mut text = String::new();
            for (at, value) in values.iter().enumerate() {
                let Value::Str(part) = value else { return Err(broken()) };
                if at > 0 {
                    text.push_str(between);
                }
                text.push_str(part);
                if text.len() > VALUE_MAX {
                    return Err((Cause::Limit, format!("a text of more than {VALUE_MAX} bytes")));
                }
            }
            Value::text(text)
        }
        _ => return Err(broken()),
    })
}

/// An order in which every value has its place: sorting asks for one.
fn total(a: &Value, b: &Value) -> Ordering {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => order(a, b).unwrap_or(Ordering::Equal),
    }
}

#[allow(clippy::cast_possible_truncation)] // Looked at before.
fn of_other(which: Builtin, value: &Value, rest: &[Value]) -> Step<Value> {
    Ok(match (which, value) {
        (Builtin::Str, value) => Value::text(value.to_string()),
        (Builtin::Abs, Value::Int(n)) => {
            let absolute = n.checked_abs();
            Value::Int(absolute.ok_or((Cause::Value, "the result is too large".to_string()))?)
        }
        (Builtin::Abs, Value::Float(n)) => Value::Float(n.abs()),
        (Builtin::Round, value) => {
            let number = value.number().ok_or_else(broken)?;
            if number.is_nan() || number.abs() >= 9e18 {
                let what = format!("{number} is no number that could be rounded");
                return Err((Cause::Value, what));
            }
            Value::Int(rounded(number))
        }
        (Builtin::Seconds, Value::Duration(nanos)) => {
            #[allow(clippy::cast_precision_loss)] // A fraction is what was asked for.
            Value::Float(*nanos as f64 / 1e9)
        }
        (Builtin::Range, Value::Int(from)) => {
            let Some(Value::Int(to)) = rest.first() else { return Err(broken()) };
            if to.saturating_sub(*from) > RANGE_MAX {
                return Err((Cause::Limit, format!("a range of more than {RANGE_MAX} numbers")));
            }
            list((*from..*to).map(Value::Int).collect())
        }
        _ => return Err(broken()),
    })
}

#[allow(clippy::cast_possible_truncation)] // The caller looked at its size.
fn rounded(number: f64) -> i64 {
    let whole = number as i64;
    #[allow(clippy::cast_precision_loss)] // Beyond 2^53 there is no fraction.
    let fraction = number - whole as f64;
    match fraction {
        fraction if fraction >= 0.5 => whole + 1,
        fraction if fraction <= -0.5 => whole - 1,
        _ => whole,
    }
}

fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}
