//! The envelope of everything that crosses the mesh, and the bounded codec of its bodies.
//!
//! A frame is a [`Header`] and a body. The header says who sent it, who shall get it, through how
//! many more nodes it may go, and which part of the node understands the body. Relays read the
//! header only.
//!
//! What it does not know: links, keys, routes; what the bodies mean.
//!
//! Invariants
//! - Bodies are at most [`FRAME_BODY_MAX`] bytes; longer ones are refused before they are read.
//! - Decoding never panics, and allocates no more than the bytes that it was given allow.
//! - A body that has bytes left after it was decoded is refused: it is of another version.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::id::NodeId;
use crate::limits::{FRAME_BODY_MAX, HOPS_MAX};

/// The protocol version that this build speaks at most.
pub const PROTOCOL_HIGHEST: u16 = 1;
/// The oldest protocol version that this build still speaks.
pub const PROTOCOL_LOWEST: u16 = 1;

/// Which part of a node a frame is for. Each channel keeps its order from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// Catalog replication.
    Consensus,
    /// Node to node: link states, leases, watch, gossip, forwarded requests.
    Control,
    /// Connections' bytes between gateways and instances.
    Streams,
    /// Checkpoint diffs, acknowledgements, seals: small and urgent ones.
    State,
    /// Whole images and collection: large ones that must not delay the others.
    Bulk,
}

/// What a relay needs to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Who made it.
    pub from: NodeId,
    /// Who shall get it.
    pub to: NodeId,
    /// Through how many more nodes it may go; a relay takes one off and drops it at zero.
    pub hops: u8,
    /// Which part of the node understands the body.
    pub channel: Channel,
}

impl Header {
    /// A header for a fresh frame.
    pub fn new(from: NodeId, to: NodeId, channel: Channel) -> Header {
        Header { from, to, hops: HOPS_MAX, channel }
    }
}

/// Why bytes are not a message. Nothing was taken from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Longer than [`FRAME_BODY_MAX`].
    TooLong,
    /// Not an encoding of the expected type.
    Malformed,
    /// Decoded, but bytes were left over.
    Trailing,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::TooLong => "longer than a frame may be",
            DecodeError::Malformed => "not of the expected form",
            DecodeError::Trailing => "bytes left over at the end",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Encodes a message in postcard's form.
///
/// # Panics
/// If the type can't be encoded (an iterator of unknown length): a programmer's error.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("wire types are encodable")
}

/// Decodes a message that came from the wire.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > FRAME_BODY_MAX {
        return Err(DecodeError::TooLong);
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(DecodeError::Trailing),
        Err(_) => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_lying_length_is_refused_without_allocating_for_it() {
        let claims_four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
        assert_eq!(decode::<Vec<u8>>(&claims_four_gib), Err(DecodeError::Malformed));
    }

    #[test]
    fn leftovers_and_oversize_are_refused() {
        let mut bytes = encode(&7u32);
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(DecodeError::Trailing));
        assert_eq!(decode::<u32>(&vec![0; FRAME_BODY_MAX + 1]), Err(DecodeError::TooLong));
    }
}
