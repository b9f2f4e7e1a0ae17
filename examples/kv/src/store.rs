//! The keys and their values.

use std::collections::{HashMap, VecDeque};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Bytes.
    String(Vec<u8>),
    /// A list of bytes; never empty.
    List(VecDeque<Vec<u8>>),
}

/// Why a command did not do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key holds a value of another kind.
    WrongKind,
    /// The value is not a number of 64 bits.
    NotAnInteger,
    /// The result would not be a number of 64 bits.
    Overflow,
}

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its first element.
    Left,
    /// Its last element.
    Right,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Store {
    values: HashMap<Vec<u8>, Value>,
}

impl Store {
    /// The string at `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Refusal> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => Ok(Some(bytes)),
            Some(Value::List(_)) => Err(Refusal::WrongKind),
        }
    }

    /// Puts a string at `key`, whatever was there.
    pub fn set(&mut self, key: &[u8], bytes: &[u8]) {
        match self.values.get_mut(key) {
            // The same place in memory, if it fits: then little of it changes.
            Some(Value::String(old)) => {
                old.clear();
                old.extend_from_slice(bytes);
            }
            _ => {
                self.values.insert(key.to_vec(), Value::String(bytes.to_vec()));
            }
        }
    }

    /// Lengthens the string at `key`, and gives its new length.
    pub fn append(&mut self, key: &[u8], bytes: &[u8]) -> Result<usize, Refusal> {
        let string = self.string(key)?;
        string.extend_from_slice(bytes);
        Ok(string.len())
    }

    /// Adds to the number at `key`, and gives the sum.
    pub fn add(&mut self, key: &[u8], amount: i64) -> Result<i64, Refusal> {
        let old = match self.get(key)? {
            None => 0,
            Some(bytes) => parse_integer(bytes).ok_or(Refusal::NotAnInteger)?,
        };
        let sum = old.checked_add(amount).ok_or(Refusal::Overflow)?;
        self.set(key, sum.to_string().as_bytes());
        Ok(sum)
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.values.remove(key).is_some()
    }

    /// The value at `key`, of whatever kind.
    pub fn value(&self, key: &[u8]) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.values.keys().map(Vec::as_slice)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// Adds an element to the list at `key`, and gives its new length.
    pub fn push(&mut self, key: &[u8], end: End, element: &[u8]) -> Result<usize, Refusal> {
        if !self.values.contains_key(key) {
            self.values.insert(key.to_vec(), Value::List(VecDeque::new()));
        }
        match self.values.get_mut(key) {
            Some(Value::List(list)) => {
                match end {
                    End::Left => list.push_front(element.to_vec()),
                    End::Right => list.push_back(element.to_vec()),
                }
                Ok(list.len())
            }
            _ => Err(Refusal::WrongKind),
        }
    }

    /// Takes an element from the list at `key`.
    pub fn pop(&mut self, key: &[u8], end: End) -> Result<Option<Vec<u8>>, Refusal> {
        let list = match self.values.get_mut(key) {
            None => return Ok(None),
            Some(Value::List(list)) => list,
            Some(Value::String(_)) => return Err(Refusal::WrongKind),
        };
        let element = match end {
            End::Left => list.pop_front(),
            End::Right => list.pop_back(),
        };
        if list.is_empty() {
            self.values.remove(key);
        }
        Ok(element)
    }

    /// The list at `key`.
    pub fn list(&self, key: &[u8]) -> Result<Option<&VecDeque<Vec<u8>>>, Refusal> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(Value::String(_)) => Err(Refusal::WrongKind),
        }
    }

    fn string(&mut self, key: &[u8]) -> Result<&mut Vec<u8>, Refusal> {
        if !self.values.contains_key(key) {
            self.values.insert(key.to_vec(), Value::String(Vec::new()));
        }
        match self.values.get_mut(key) {
            Some(Value::String(bytes)) => Ok(bytes),
            _ => Err(Refusal::WrongKind),
        }
    }
}

/// A whole number, as the protocol writes them.
pub fn parse_integer(bytes: &[u8]) -> Option<i64> {
    // "+1" is none, although the standard library takes it.
    let digits = bytes.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-');
    digits.then(|| std::str::from_utf8(bytes).ok()?.parse().ok()).flatten()
}
