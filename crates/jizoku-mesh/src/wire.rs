//! How frames lie on a connection: length, header, body; and the lanes that carry them.
//!
//! ```text
//! u32 LE   length of what follows: header and body
//! 66 bytes header as postcard writes it: from (32), to (32), hops (1), channel (1)
//! n bytes  body, at most FRAME_BODY_MAX
//! ```
//!
//! The greeting before the frames uses the same length prefix; see [`crate::hello`].
//!
//! What it does not know: routes, queues, what bodies mean.
//!
//! Invariant: nothing is allocated for a length before it was checked.

use bytes::{Buf, Bytes, BytesMut};
use jizoku_types::frame::{Channel, Header};
use jizoku_types::limits::{FRAME_BODY_MAX, HOPS_MAX};
use jizoku_types::{NodeId, encode};
use serde::Serialize;

/// Bytes of the length.
pub(crate) const LENGTH: usize = 4;
/// Bytes of an encoded header.
const HEADER: usize = 66;
/// Bytes of a frame beside its body.
pub(crate) const PREFIX: usize = LENGTH + HEADER;
/// Bodies up to this size are copied out of the receive buffer, so that a small message that is
/// kept doesn't keep a large buffer alive.
const COPY_MAX: usize = 4 << 10;

/// The channels in the order of their wire numbers.
pub(crate) const CHANNELS: [Channel; 5] =
    [Channel::Consensus, Channel::Control, Channel::Streams, Channel::State, Channel::Bulk];

/// One of the TCP connections that make a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub(crate) enum Lane {
    /// Consensus and control.
    Control,
    /// Streams.
    Streams,
    /// State.
    State,
    /// Bulk.
    Bulk,
    /// Beats; carries no frames.
    Heart,
}

impl Lane {
    /// All of them; the first is dialled before the others.
    pub(crate) const ALL: [Lane; 5] =
        [Lane::Control, Lane::Streams, Lane::State, Lane::Bulk, Lane::Heart];

    /// How many lanes carry frames.
    pub(crate) const FRAMED: usize = 4;

    /// Which lane carries a channel.
    pub(crate) fn of(channel: Channel) -> Lane {
        match channel {
            Channel::Consensus | Channel::Control => Lane::Control,
            Channel::Streams => Lane::Streams,
            Channel::State => Lane::State,
            Channel::Bulk => Lane::Bulk,
        }
    }
}

/// The position of a channel in tables.
pub(crate) fn channel_index(channel: Channel) -> usize {
    channel as usize
}

/// A frame, sent or received.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) body: Bytes,
}

impl Frame {
    /// Length on the wire.
    pub(crate) fn len(&self) -> usize {
        PREFIX + self.body.len()
    }

    /// What goes before the body.
    pub(crate) fn prefix(&self) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        let length = u32::try_from(HEADER + self.body.len()).expect("bodies are bounded");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..36].copy_from_slice(&self.header.from.0);
        bytes[36..68].copy_from_slice(&self.header.to.0);
        bytes[68] = self.header.hops;
        bytes[69] = self.header.channel as u8;
        bytes
    }
}

/// Why a connection's bytes are not frames. The connection can't be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// Longer than a frame, or a greeting, may be.
    TooLong,
    /// Shorter than a header, an unknown channel, or too many hops.
    Malformed,
}

/// Takes the next frame off `plain`, or nothing if it isn't complete.
pub(crate) fn next_frame(plain: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    let Some(length) = next_length(plain, HEADER + FRAME_BODY_MAX)? else { return Ok(None) };
    if length < HEADER {
        return Err(WireError::Malformed);
    }
    if plain.len() < LENGTH + length {
        plain.reserve(LENGTH + length - plain.len());
        return Ok(None);
    }
    let header = header(&plain[LENGTH..PREFIX])?;
    plain.advance(PREFIX);
    let body = length - HEADER;
    let body = if body <= COPY_MAX {
        let copy = Bytes::copy_from_slice(&plain[..body]);
        plain.advance(body);
        copy
    } else {
        plain.split_to(body).freeze()
    };
    Ok(Some(Frame { header, body }))
}

/// Takes the next message of the greeting off `plain`, or nothing if it isn't complete.
pub(crate) fn next_message(plain: &mut BytesMut, max: usize) -> Result<Option<Bytes>, WireError> {
    let Some(length) = next_length(plain, max)? else { return Ok(None) };
    if plain.len() < LENGTH + length {
        return Ok(None);
    }
    plain.advance(LENGTH);
    Ok(Some(plain.split_to(length).freeze()))
}

/// A message of the greeting with its length before it.
pub(crate) fn with_length(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("messages are bounded");
    [&length.to_le_bytes(), message].concat()
}

/// An encoded message of the greeting.
pub(crate) fn message<T: Serialize>(message: &T) -> Vec<u8> {
    with_length(&encode(message))
}

fn next_length(plain: &[u8], max: usize) -> Result<Option<usize>, WireError> {
    let Some(length) = plain.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > max { Err(WireError::TooLong) } else { Ok(Some(length)) }
}

fn header(bytes: &[u8]) -> Result<Header, WireError> {
    let malformed = WireError::Malformed;
    let (from, rest) = bytes.split_first_chunk::<32>().ok_or(malformed)?;
    let (to, rest) = rest.split_first_chunk::<32>().ok_or(malformed)?;
    let [hops, channel] = rest else { return Err(malformed) };
    if *hops > HOPS_MAX {
        return Err(malformed);
    }
    let channel = *CHANNELS.get(usize::from(*channel)).ok_or(malformed)?;
    Ok(Header { from: NodeId(*from), to: NodeId(*to), hops: *hops, channel })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jizoku_types::decode;

    fn frame(channel: Channel, body: &[u8]) -> Frame {
        let header = Header { from: NodeId([1; 32]), to: NodeId([2; 32]), hops: 3, channel };
        Frame { header, body: Bytes::copy_from_slice(body) }
    }

    fn bytes(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&frame.prefix());
        bytes.extend_from_slice(&frame.body);
        bytes
    }

    #[test]
    fn the_header_is_what_postcard_writes() {
        for channel in CHANNELS {
            let frame = frame(channel, b"");
            assert_eq!(frame.prefix()[LENGTH..], encode(&frame.header)[..]);
            assert_eq!(decode::<Header>(&frame.prefix()[LENGTH..]), Ok(frame.header));
            assert_eq!(CHANNELS[channel_index(channel)], channel);
        }
    }

    #[test]
    fn frames_come_back_whatever_the_pieces() {
        let sent = [
            frame(Channel::Control, b""),
            frame(Channel::State, &[7; COPY_MAX]),
            frame(Channel::Bulk, &vec![9; FRAME_BODY_MAX]),
            frame(Channel::Streams, b"end"),
        ];
        let mut wire = BytesMut::new();
        for frame in &sent {
            wire.unsplit(bytes(frame));
        }
        for piece in [1, 69, 70, 4096, 1 << 20] {
            let mut plain = BytesMut::new();
            let mut got = Vec::new();
            for chunk in wire.chunks(piece) {
                plain.extend_from_slice(chunk);
                while let Some(frame) = next_frame(&mut plain).expect("well-formed") {
                    got.push(frame);
                }
            }
            assert!(plain.is_empty());
            assert_eq!(got.len(), sent.len());
            for (got, sent) in got.iter().zip(&sent) {
                assert_eq!(got.header, sent.header);
                assert_eq!(got.body, sent.body);
            }
        }
    }

    #[test]
    fn lies_are_refused_before_anything_is_allocated() {
        let mut long = bytes(&frame(Channel::Bulk, b""));
        let length = u32::try_from(HEADER + FRAME_BODY_MAX + 1).expect("small");
        long[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(next_frame(&mut long).unwrap_err(), WireError::TooLong);

        let good = bytes(&frame(Channel::Bulk, b""));
        for (at, value) in [(0, 65), (68, HOPS_MAX + 1), (69, 5), (69, 255)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(next_frame(&mut bad).unwrap_err(), WireError::Malformed, "byte {at}");
        }
        let mut message = BytesMut::from(&with_length(&[0; 11])[..]);
        assert_eq!(next_message(&mut message.clone(), 10).unwrap_err(), WireError::TooLong);
        assert_eq!(next_message(&mut message, 11).expect("fits").expect("whole").len(), 11);
    }
}
