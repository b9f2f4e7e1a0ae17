//! Who and what: typed ids that print with a prefix, so that one can't be taken for another.
//!
//! Invariant: an id never changes its meaning; a number that went with a removed thing is not
//! given out again.

use alloc::string::{String, ToString};
use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::SERVICE_NAME_MAX;

/// A node: one machine running the agent. Its id is its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

impl Ord for NodeId {
    /// As strings of bytes. Nearly every table is ordered by node, and keys are random: so the
    /// first eight bytes are compared as one number, and the rest only if these are equal.
    #[inline]
    fn cmp(&self, other: &NodeId) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for NodeId {
    #[inline]
    fn partial_cmp(&self, other: &NodeId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl NodeId {
    /// The first bytes as a number that has their order.
    #[inline]
    fn head(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(head)
    }

    /// The first bytes in hex: enough for people to tell nodes apart.
    pub fn short(&self) -> String {
        let mut text = String::new();
        for byte in &self.0[..4] {
            text.push_str(&alloc::format!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("node_")?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node_{}", self.short())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<NodeId, ParseIdError> {
        let hex = text.strip_prefix("node_").ok_or(ParseIdError::Prefix)?;
        parse_hex(hex).map(NodeId)
    }
}

/// Which run of a node's agent: grows at each agent start, kept on the node's disk.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// A node in one of its incarnations: what a holder set lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its incarnation when it was listed.
    pub incarnation: Incarnation,
}

/// A cluster's id, drawn at random by `init`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cluster_")?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Counts how often a cluster was recovered without its majority. Older ones are refused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

/// A service, numbered by the catalog. A name that is removed and applied again gets a new number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub u64);

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "svc_{}", self.0)
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A service's name: 1 to [`SERVICE_NAME_MAX`] of `a-z 0-9 -`, starting with a letter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

impl ServiceName {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<ServiceName, ParseIdError> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        let fits = text.len() <= SERVICE_NAME_MAX;
        let clean = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if starts_well && fits && clean {
            Ok(ServiceName(text.to_string()))
        } else {
            Err(ParseIdError::Name)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServiceName {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<ServiceName, ParseIdError> {
        ServiceName::new(&text)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> String {
        name.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A gateway: the proxy of one node in one of its incarnations.
pub type GatewayId = Member;

/// A client's connection: the gateway that accepted it, and the gateway's counter.
/// Counters of one gateway grow in the order of its accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnId {
    /// Who accepted it.
    pub gateway: GatewayId,
    /// The how-manieth connection of that gateway, from 1.
    pub counter: u64,
}

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseIdError {
    /// The prefix that tells what kind of id it is was missing.
    Prefix,
    /// Not hex digits, or not the right number of them.
    Hex,
    /// Not a name: see [`ServiceName`].
    Name,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseIdError::Prefix => f.write_str("the prefix that names the kind of id is missing"),
            ParseIdError::Hex => f.write_str("expected hex digits, two for each byte"),
            ParseIdError::Name => write!(
                f,
                "expected 1 to {SERVICE_NAME_MAX} of a-z, 0-9 and '-', starting with a letter"
            ),
        }
    }
}

impl core::error::Error for ParseIdError {}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(hex: &str) -> Result<[u8; N], ParseIdError> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return Err(ParseIdError::Hex);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).map_err(|_| ParseIdError::Hex)?;
        if pair.starts_with('+') {
            return Err(ParseIdError::Hex);
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseIdError::Hex)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_read_back() {
        let id = NodeId([0xa5; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("a5".parse::<NodeId>(), Err(ParseIdError::Prefix));
        assert_eq!("node_a5".parse::<NodeId>(), Err(ParseIdError::Hex));
        let signed = alloc::format!("node_{}", "+1".repeat(32));
        assert_eq!(signed.parse::<NodeId>(), Err(ParseIdError::Hex));
    }

    #[test]
    fn node_ids_have_the_order_of_their_bytes() {
        let ids = |at: usize| {
            [0, 1, 0x7f, 0x80, 0xff].map(|byte| {
                let mut id = [0x55; 32];
                id[at] = byte;
                id
            })
        };
        let all: alloc::vec::Vec<[u8; 32]> = [0, 1, 7, 8, 31].into_iter().flat_map(ids).collect();
        for one in &all {
            for other in &all {
                assert_eq!(NodeId(*one).cmp(&NodeId(*other)), one.cmp(other));
            }
        }
    }

    #[test]
    fn service_names_are_checked() {
        for (text, good) in
            [("kv", true), ("a-1", true), ("", false), ("1a", false), ("Kv", false), ("k_v", false)]
        {
            assert_eq!(ServiceName::new(text).is_ok(), good, "{text:?}");
        }
        assert!(ServiceName::new(&"a".repeat(SERVICE_NAME_MAX)).is_ok());
        assert!(ServiceName::new(&"a".repeat(SERVICE_NAME_MAX + 1)).is_err());
    }
}
