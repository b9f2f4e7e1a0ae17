//! What records of one kind have in common, kept once: event, host, source, level, and the names
//! and types of their fields. With it a record's values are bytes at known places.
//!
//! What it does not know: records, time.
//!
//! Layout of a record's bytes: first the values of fixed size in the order of the fields (bool 1
//! byte; int, float, duration 8), then each text with its length before it (7 bits in a byte).

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::hash::Hasher;
use crate::record::Draft;
use crate::value::{Level, Type, Value, ValueRef};

/// Where a field's value is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// So many bytes from the record's beginning.
    Fixed(Type, usize),
    /// Which of its texts.
    Text(usize),
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) event: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) source: Box<str>,
    pub(crate) level: Level,
    pub(crate) important: bool,
    pub(crate) fields: Vec<(Box<str>, Slot)>,
    /// Bytes of all values of fixed size.
    pub(crate) fixed: usize,
    /// Which of the pool's sources it is of.
    pub(crate) quota: usize,
}

fn kind_of(value: ValueRef<'_>) -> Type {
    match value.kind() {
        Type::Level | Type::Time | Type::Trace => Type::Str,
        kind => kind,
    }
}

impl Shape {
    pub(crate) fn of(draft: &Draft<'_>, quota: usize) -> Shape {
        let (mut fixed, mut texts) = (0, 0);
        let fields = draft.fields.iter().map(|(name, value)| {
            let kind = kind_of(*value);
            let slot = match kind {
                Type::Str => {
                    texts += 1;
                    Slot::Text(texts - 1)
                }
                _ => {
                    fixed += if kind == Type::Bool { 1 } else { 8 };
                    Slot::Fixed(kind, fixed - if kind == Type::Bool { 1 } else { 8 })
                }
            };
            (Box::from(*name), slot)
        });
        let fields = fields.collect();
        Shape {
            event: draft.event.into(),
            host: draft.host.into(),
            source: draft.source.into(),
            level: draft.level,
            important: draft.important,
            fields,
            fixed,
            quota,
        }
    }

    pub(crate) fn hash(draft: &Draft<'_>, seed: u64) -> u64 {
        let mut hasher = Hasher::new(seed);
        hasher.text(draft.event);
        hasher.text(draft.host);
        hasher.text(draft.source);
        hasher.number(draft.level as u64 * 2 + u64::from(draft.important));
        for (name, value) in draft.fields {
            hasher.text(name);
            hasher.number(kind_of(*value) as u64);
        }
        hasher.finish()
    }

    pub(crate) fn is_of(&self, draft: &Draft<'_>) -> bool {
        *self.event == *draft.event
            && *self.host == *draft.host
            && *self.source == *draft.source
            && self.level == draft.level
            && self.important == draft.important
            && self.fields.len() == draft.fields.len()
            && self.fields.iter().zip(draft.fields).all(|((name, slot), (other, value))| {
                let kind = match slot {
                    Slot::Fixed(kind, _) => *kind,
                    Slot::Text(_) => Type::Str,
                };
                **name == **other && kind == kind_of(*value)
            })
    }

    /// Where a field is.
    pub(crate) fn slot(&self, name: &str) -> Option<Slot> {
        self.fields.iter().find(|(key, _)| **key == *name).map(|(_, slot)| *slot)
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.fields.iter().map(|(name, _)| name.len() + size_of::<(Box<str>, Slot)>());
        let texts = self.event.len() + self.host.len() + self.source.len();
        size_of::<Shape>() + texts + names.sum::<usize>() + 64
    }

    /// Writes a record's values.
    pub(crate) fn write(&self, draft: &Draft<'_>, arena: &mut Vec<u8>) {
        for (_, value) in draft.fields {
            match value {
                ValueRef::Bool(value) => arena.push(u8::from(*value)),
                ValueRef::Int(value) | ValueRef::Duration(value) => {
                    arena.extend_from_slice(&value.to_le_bytes());
                }
                ValueRef::Float(value) => arena.extend_from_slice(&value.to_le_bytes()),
                _ => {}
            }
        }
        for (_, value) in draft.fields {
            match value {
                ValueRef::Str(text) => write_text(text, arena),
                ValueRef::Level(_) | ValueRef::Time(_) | ValueRef::Trace(_) => {
                    write_text(&value.to_string(), arena);
                }
                _ => {}
            }
        }
    }

    /// All texts of a record, in order.
    pub(crate) fn texts<'b>(&self, bytes: &'b [u8]) -> Texts<'b> {
        Texts { rest: &bytes[self.fixed..] }
    }

    /// The value in a slot.
    pub(crate) fn read<'b>(&self, slot: Slot, bytes: &'b [u8]) -> ValueRef<'b> {
        match slot {
            Slot::Fixed(Type::Bool, at) => ValueRef::Bool(bytes[at] != 0),
            Slot::Fixed(Type::Int, at) => ValueRef::Int(i64::from_le_bytes(word(bytes, at))),
            Slot::Fixed(Type::Duration, at) => {
                ValueRef::Duration(i64::from_le_bytes(word(bytes, at)))
            }
            Slot::Fixed(_, at) => ValueRef::Float(f64::from_le_bytes(word(bytes, at))),
            Slot::Text(number) => {
                ValueRef::Str(self.texts(bytes).nth(number).expect("the shape says how many"))
            }
        }
    }

    /// All fields of a record.
    pub(crate) fn values(&self, bytes: &[u8]) -> Vec<(alloc::string::String, Value)> {
        let mut texts = self.texts(bytes);
        let value = |slot: &Slot| match slot {
            Slot::Fixed(..) => self.read(*slot, bytes).to_value(),
            Slot::Text(_) => Value::from(texts.next().expect("the shape says how many")),
        };
        let (names, slots): (Vec<_>, Vec<_>) =
            self.fields.iter().map(|(name, slot)| (name.to_string(), slot)).unzip();
        names.into_iter().zip(slots.into_iter().map(value)).collect()
    }
}

/// Eight bytes of a record.
pub(crate) fn word(bytes: &[u8], at: usize) -> [u8; 8] {
    bytes[at..at + 8].try_into().expect("eight bytes")
}

fn write_text(text: &str, arena: &mut Vec<u8>) {
    let mut length = text.len();
    while length >= 0x80 {
        arena.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    arena.push(length as u8);
    arena.extend_from_slice(text.as_bytes());
}

/// See [`Shape::texts`].
pub(crate) struct Texts<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Texts<'b> {
    type Item = &'b str;

    fn next(&mut self) -> Option<&'b str> {
        let (mut length, mut shift, mut at) = (0_usize, 0, 0);
        loop {
            let byte = *self.rest.get(at)?;
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (text, rest) = self.rest[at..].split_at(length);
        self.rest = rest;
        Some(core::str::from_utf8(text).expect("written from a text"))
    }
}
