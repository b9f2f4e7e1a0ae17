//! The parts of a program's state that are neither memory nor files: how they are written down.
//!
//! Nothing of it depends on wasmtime, nor on this machine. Encoded with postcard, behind a number
//! for the format; a state of another format, or of another program, is refused.
//!
//! What it does not know: where the parts are kept while the program runs.

use serde::{Deserialize, Serialize};

use crate::wasi::descriptors::{Descriptor, Fd};

/// Grows when older states can't be read any more.
const FORMAT: u8 = 1;

/// What the host keeps for the program: the space `host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostState {
    /// BLAKE3 hash of the module that the program runs.
    pub(crate) module: [u8; 32],
    /// What its monotonic clock showed.
    pub(crate) monotonic: u64,
    /// When the wait began that it stands in, on the same clock, if that matters.
    pub(crate) waiting_since: Option<u64>,
    /// What it has open.
    pub(crate) descriptors: Vec<(Fd, Descriptor)>,
    /// Unfinished lines of standard output and error.
    pub(crate) partial: [Vec<u8>; 2],
}

/// The program's mutable globals by their exported names: the space `globals`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Globals(pub(crate) Vec<(String, Value)>);

/// The value of a global, floats as their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Value {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
}

/// Writes a part down.
pub(crate) fn encode(part: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(&(FORMAT, part)).expect("the parts are encodable")
}

/// Reads a part that was written down.
pub(crate) fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
            Ok((part, [])) => Some(part),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasi::descriptors::Target;

    #[test]
    fn what_was_written_reads_back_and_nothing_else_does() {
        let state = HostState {
            module: [7; 32],
            monotonic: u64::MAX,
            waiting_since: Some(3),
            descriptors: vec![(3, Descriptor { target: Target::Listener(1), nonblocking: true })],
            partial: [b"unfinished".to_vec(), Vec::new()],
        };
        let bytes = encode(&state);
        assert_eq!(decode(&bytes), Some(state));
        assert_eq!(decode::<HostState>(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode::<HostState>(&[]), None);
        let mut newer = bytes;
        newer[0] = FORMAT + 1;
        assert_eq!(decode::<HostState>(&newer), None);
        let globals = Globals(vec![("__stack_pointer".into(), Value::I32(-1))]);
        assert_eq!(decode(&encode(&globals)), Some(globals));
    }
}
