//! What gateways and instances say to each other.
//!
//! Between a gateway and an instance there is a *session*, begun by the gateway with an attach, and
//! begun anew whenever something may have been lost. Messages of a session are numbered from 1 in
//! each direction; the gateway's first is the attach, the instance's first the answer to it. Each
//! message acknowledges what was heard. Messages that carry nothing which may not be lost have
//! the number 0.
//!
//! What it does not know: how messages are carried, what the ends do with them.
//!
//! Invariants
//! - All streams' offsets are absolute, so whatever is repeated in a new session is recognised.
//! - A message fits a frame ([`MESSAGE_BYTES_MAX`], [`MESSAGE_FRAMES_MAX`]); so do an attach and
//!   its answer with all connections that a gateway may have.
//! - Nothing here is trusted because it was decoded: the ends check every number.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use jizoku_types::limits::{CONNS_PER_GATEWAY_MAX, FRAME_BODY_MAX};
use jizoku_types::{Epoch, ServiceId};
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::limits::{MESSAGE_BYTES_MAX, MESSAGE_FRAMES_MAX};
use crate::lineage::Reign;

/// Longest encoding of what an answer to an attach says of one connection: five numbers.
const ATTACHED_CONN_MAX: usize = 5 * 10;
const _: () = assert!(
    CONNS_PER_GATEWAY_MAX * ATTACHED_CONN_MAX + 8192 <= FRAME_BODY_MAX,
    "the answer to an attach must fit its frame"
);

/// From a gateway to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToInstance {
    /// The service; the instance drops messages for others.
    pub service: ServiceId,
    /// The epoch that the gateway believes in; the instance drops messages for others.
    pub epoch: Epoch,
    /// The gateway's session, from 1, growing for the gateway's whole life.
    pub session: u64,
    /// Number within the session, from 1; 0 for what may be lost.
    pub number: u64,
    /// Highest number heard from the instance in this session.
    pub heard: u64,
    /// What.
    pub body: InstanceBody,
}

/// What a gateway says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceBody {
    /// Begins a session: all connections that the gateway has and that were ever opened, in
    /// growing order of their counters. The instance closes for its program those that it has
    /// and that aren't listed.
    Attach(Vec<AttachConn>),
    /// News of connections, in order.
    Frames(Vec<InstanceFrame>),
    /// Wants an acknowledgement at once.
    Probe,
    /// Acknowledges only. Number 0.
    Ack,
}

/// What a gateway has of a connection when it attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachConn {
    /// The connection's counter.
    pub counter: u64,
    /// Output that it has: send from here on.
    pub have: u64,
    /// Input bytes that it has ever sent, to whatever instance.
    pub sent: u64,
    /// Whether it has ever sent the input's end.
    pub fin_sent: bool,
}

/// News of one connection, for the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceFrame {
    /// A client has connected. In growing order of counters.
    Open {
        /// The connection's counter.
        counter: u64,
        /// Index of the service's port.
        port: u8,
        /// The client's address.
        peer: SocketAddr,
    },
    /// Bytes of the client.
    Data {
        /// The connection's counter.
        counter: u64,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The client will send nothing more.
    Fin {
        /// The connection's counter.
        counter: u64,
        /// Where its input ends.
        offset: u64,
    },
    /// The client has the output up to here; the instance may forget it.
    Confirm {
        /// The connection's counter.
        counter: u64,
        /// Offset after the last byte that the client has.
        offset: u64,
    },
    /// The gateway no longer has this connection: the client reset it, or all of it is over.
    Gone {
        /// The connection's counter.
        counter: u64,
    },
}

/// From an instance to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToGateway {
    /// The service.
    pub service: ServiceId,
    /// The instance's epoch; the gateway drops messages of others than the one it follows.
    pub epoch: Epoch,
    /// The session that it belongs to; 0 with `Hello`.
    pub session: u64,
    /// Number within the session, from 1; 0 for what may be lost.
    pub number: u64,
    /// Highest number heard from the gateway in this session.
    pub heard: u64,
    /// Highest committed checkpoint. What it covers may be given to clients.
    pub committed: u64,
    /// What.
    pub body: GatewayBody,
}

impl ToGateway {
    /// The highest number of a checkpoint that anything in it waits for; 0 if nothing does.
    pub fn cover(&self) -> u64 {
        let GatewayBody::Frames(frames) = &self.body else { return 0 };
        frames.iter().map(GatewayFrame::cover).max().unwrap_or(0)
    }
}

/// What an instance says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayBody {
    /// It runs, and knows this gateway from its state: attach now. Number 0.
    Hello,
    /// The answer to an attach; number 1 of the session.
    Attached(Box<Attached>),
    /// News of connections, in order.
    Frames(Vec<GatewayFrame>),
    /// Wants an acknowledgement at once.
    Probe,
    /// Acknowledges only. Number 0.
    Ack,
    /// Something is missing in this session: attach anew. Number 0.
    Reattach,
}

/// What an instance has when a gateway attaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Whether this instance's output waits for commits.
    pub held: bool,
    /// Whether its state does not outlive it (`exec`).
    pub stateless: bool,
    /// Highest counter that it has seen of this gateway. Connections above are to be opened;
    /// others that aren't listed were closed.
    pub highest: u64,
    /// The reigns that its state went through, oldest first, its own last.
    pub lineage: Vec<Reign>,
    /// The connections that it has of this gateway, in growing order of their counters.
    pub conns: Vec<AttachedConn>,
    /// Connections that it reset because their input may be what kills the program.
    pub poisonous: Vec<u64>,
}

/// What an instance has of a connection when a gateway attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedConn {
    /// The connection's counter.
    pub counter: u64,
    /// Input that it has: send from here on.
    pub received: u64,
    /// Input that a committed checkpoint has consumed: never needed again.
    pub consumed: u64,
    /// Output that the gateway is known to have given to the client.
    pub confirmed: u64,
    /// Output that the program has produced.
    pub produced: u64,
}

/// News of one connection, for the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayFrame {
    /// Bytes of the program.
    Data {
        /// The connection's counter.
        counter: u64,
        /// Offset of the first byte.
        offset: u64,
        /// Number of the checkpoint that holds their having been produced.
        cover: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The program will send nothing more.
    Fin {
        /// The connection's counter.
        counter: u64,
        /// Where its output ends.
        offset: u64,
        /// Number of the checkpoint that holds it.
        cover: u64,
    },
    /// The program has closed the connection: it won't read any more either. After `Fin`.
    Close {
        /// The connection's counter.
        counter: u64,
        /// Number of the checkpoint that holds it.
        cover: u64,
    },
    /// The program has reset the connection, or it was refused.
    Reset {
        /// The connection's counter.
        counter: u64,
        /// Number of the checkpoint that holds it; 0: at once.
        cover: u64,
    },
    /// Input that a committed checkpoint has consumed: the gateway may forget it.
    Consumed {
        /// The connection's counter.
        counter: u64,
        /// Offset after the last such byte.
        offset: u64,
    },
}

impl GatewayFrame {
    /// Which connection it is about.
    pub fn counter(&self) -> u64 {
        match *self {
            GatewayFrame::Data { counter, .. }
            | GatewayFrame::Fin { counter, .. }
            | GatewayFrame::Close { counter, .. }
            | GatewayFrame::Reset { counter, .. }
            | GatewayFrame::Consumed { counter, .. } => counter,
        }
    }

    /// Number of the checkpoint that it waits for; 0 if it waits for none.
    pub fn cover(&self) -> u64 {
        match *self {
            GatewayFrame::Data { cover, .. }
            | GatewayFrame::Fin { cover, .. }
            | GatewayFrame::Close { cover, .. }
            | GatewayFrame::Reset { cover, .. } => cover,
            GatewayFrame::Consumed { .. } => 0,
        }
    }
}

/// Bytes that are encoded as one block, not one by one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block of bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LINEAGE_MAX, MESSAGE_BYTES_MAX, MESSAGE_FRAMES_MAX};
    use alloc::vec;
    use jizoku_types::{BranchId, decode, encode};

    const MAX: u64 = u64::MAX;

    fn widest_epoch() -> Epoch {
        Epoch { branch: BranchId([0xff; 16]), counter: MAX }
    }

    fn to_gateway(body: GatewayBody) -> ToGateway {
        ToGateway {
            service: ServiceId(MAX),
            epoch: widest_epoch(),
            session: MAX,
            number: MAX,
            heard: MAX,
            committed: MAX,
            body,
        }
    }

    fn to_instance(body: InstanceBody) -> ToInstance {
        ToInstance {
            service: ServiceId(MAX),
            epoch: widest_epoch(),
            session: MAX,
            number: MAX,
            heard: MAX,
            body,
        }
    }

    #[test]
    fn the_largest_messages_fit_a_frame_and_read_back() {
        let conn = AttachConn { counter: MAX, have: MAX, sent: MAX, fin_sent: true };
        let attach = to_instance(InstanceBody::Attach(vec![conn; CONNS_PER_GATEWAY_MAX]));
        assert_eq!(decode::<ToInstance>(&encode(&attach)), Ok(attach));

        let conn = AttachedConn {
            counter: MAX,
            received: MAX,
            consumed: MAX,
            confirmed: MAX,
            produced: MAX,
        };
        let attached = to_gateway(GatewayBody::Attached(Box::new(Attached {
            held: true,
            stateless: true,
            highest: MAX,
            lineage: vec![Reign { epoch: widest_epoch(), restored: MAX }; LINEAGE_MAX],
            conns: vec![conn; CONNS_PER_GATEWAY_MAX],
            poisonous: vec![],
        })));
        assert_eq!(decode::<ToGateway>(&encode(&attached)), Ok(attached));

        let head = GatewayFrame::Data {
            counter: MAX,
            offset: MAX,
            cover: MAX,
            bytes: Bytes(vec![7; MESSAGE_BYTES_MAX / MESSAGE_FRAMES_MAX]),
        };
        let frames = to_gateway(GatewayBody::Frames(vec![head; MESSAGE_FRAMES_MAX]));
        assert_eq!(decode::<ToGateway>(&encode(&frames)), Ok(frames));

        let peer = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
        let open = InstanceFrame::Open { counter: MAX, port: 255, peer };
        let frames = to_instance(InstanceBody::Frames(vec![open; MESSAGE_FRAMES_MAX]));
        assert_eq!(decode::<ToInstance>(&encode(&frames)), Ok(frames));
    }

    #[test]
    fn bytes_are_encoded_as_a_block() {
        let encoded = encode(&Bytes(vec![0xff; 300]));
        assert_eq!(encoded.len(), 302);
        assert_eq!(decode(&encoded), Ok(Bytes(vec![0xff; 300])));
        assert!(decode::<Bytes>(&[0xff, 0xff, 0xff, 0x7f, 1]).is_err());
    }
}
