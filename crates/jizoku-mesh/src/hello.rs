//! The greeting: what the two ends of a fresh connection tell each other before any frame.
//!
//! The dialling end sends a [`Hello`], the accepting end an [`Answer`]. Once all connections of
//! a link were welcomed, the end with the lower id decides that this is the link, and says so
//! with an [`Adopt`] on the control lane: see [`crate::hub`].
//!
//! The Hello begins with the lowest and highest protocol version (two u16, little-endian), which
//! stay where they are in all versions to come; the rest is read only under a common version.
//!
//! What it does not know: sockets, TLS; whose key the peer has shown.
//!
//! Invariant: bytes of a peer without a common version are never interpreted.

use std::fmt;

use jizoku_types::{ClusterId, Generation, Incarnation, NodeId, decode, encode};
use serde::{Deserialize, Serialize};

use crate::wire::{Lane, with_length};

/// Longest message of a greeting.
pub(crate) const GREETING_MAX: usize = 512;

/// What a node says of itself to everybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) generation: Generation,
    pub(crate) incarnation: Incarnation,
    /// Lowest and highest protocol version.
    pub(crate) versions: (u16, u16),
}

/// The dialling end's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) lane: Lane,
    /// Tells the connections of one attempt from those of another.
    pub(crate) attempt: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) generation: Generation,
    pub(crate) incarnation: Incarnation,
    /// The newest link between the two that the dialling end knows of.
    pub(crate) seen: Adoption,
}

/// Which link between two nodes: numbered by the one with the lower id, in each incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Adoption {
    pub(crate) incarnation: Incarnation,
    pub(crate) number: u64,
}

/// The accepting end's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Welcome { version: u16, incarnation: Incarnation },
    Refused(Refusal),
}

/// The deciding end's message on the control lane, before all frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adopt(pub(crate) Adoption);

/// Why one node doesn't take another's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// The connecting key is no member, or not any more.
    NotMember,
    /// The two belong to different clusters.
    OtherCluster {
        /// The refusing node's.
        cluster: ClusterId,
    },
    /// The two belong to different generations of the cluster; the lower one is out of date.
    OtherGeneration {
        /// The refusing node's.
        generation: Generation,
    },
    /// No protocol version is spoken by both.
    NoCommonVersion {
        /// The refusing node's lowest.
        lowest: u16,
        /// The refusing node's highest.
        highest: u16,
    },
    /// A newer run of the connecting node's agent was seen: two agents have the same key, or its
    /// data folder was taken back to an older state.
    OldIncarnation {
        /// The newest that the refusing node has seen.
        known: Incarnation,
    },
    /// The link is there already.
    Duplicate,
    /// Another node answers at the address: its key isn't the one that was dialled.
    OtherKey,
    /// The answer made no sense.
    Unintelligible,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotMember => f.write_str("not a member of this cluster"),
            Refusal::OtherCluster { cluster } => write!(f, "belongs to {cluster}"),
            Refusal::OtherGeneration { generation } => {
                write!(f, "is at generation {} of the cluster", generation.0)
            }
            Refusal::NoCommonVersion { lowest, highest } => {
                write!(f, "speaks protocol versions {lowest} to {highest} only")
            }
            Refusal::OldIncarnation { known } => {
                write!(f, "has seen a newer run of this node's agent (incarnation {})", known.0)
            }
            Refusal::Duplicate => f.write_str("the link is there already"),
            Refusal::OtherKey => f.write_str("another node answers at this address"),
            Refusal::Unintelligible => f.write_str("the answer made no sense"),
        }
    }
}

impl Local {
    /// The Hello for one connection, as it goes on the wire.
    pub(crate) fn hello(&self, lane: Lane, attempt: u64, seen: Adoption) -> Vec<u8> {
        let hello = Hello {
            lane,
            attempt,
            cluster: self.cluster,
            generation: self.generation,
            incarnation: self.incarnation,
            seen,
        };
        let mut message = Vec::new();
        message.extend_from_slice(&self.versions.0.to_le_bytes());
        message.extend_from_slice(&self.versions.1.to_le_bytes());
        message.extend_from_slice(&encode(&hello));
        with_length(&message)
    }

    /// Reads a Hello, and finds the version to speak.
    pub(crate) fn read_hello(&self, message: &[u8]) -> Result<(Hello, u16), Refusal> {
        let Some((versions, rest)) = message.split_first_chunk::<4>() else {
            return Err(Refusal::Unintelligible);
        };
        let [a, b, c, d] = *versions;
        let (lowest, highest) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let version = highest.min(self.versions.1);
        if version < lowest.max(self.versions.0) {
            let (lowest, highest) = self.versions;
            return Err(Refusal::NoCommonVersion { lowest, highest });
        }
        let hello: Hello = decode(rest).map_err(|_| Refusal::Unintelligible)?;
        if hello.cluster != self.cluster {
            return Err(Refusal::OtherCluster { cluster: self.cluster });
        }
        if hello.generation != self.generation {
            return Err(Refusal::OtherGeneration { generation: self.generation });
        }
        Ok((hello, version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            node: NodeId([1; 32]),
            cluster: ClusterId([2; 16]),
            generation: Generation(3),
            incarnation: Incarnation(4),
            versions: (2, 5),
        }
    }

    fn judge(mutate: impl FnOnce(&mut Local)) -> Result<u16, Refusal> {
        let mut dialling = local();
        mutate(&mut dialling);
        let sent = dialling.hello(Lane::State, 7, Adoption::default());
        assert!(sent.len() <= GREETING_MAX);
        local().read_hello(&sent[4..]).map(|(hello, version)| {
            assert_eq!((hello.lane, hello.attempt), (Lane::State, 7));
            version
        })
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let none = Err(Refusal::NoCommonVersion { lowest: 2, highest: 5 });
        for (lowest, highest, expected) in
            [(1, 2, Ok(2)), (5, 9, Ok(5)), (1, 1, none), (6, 9, none), (3, 4, Ok(4))]
        {
            assert_eq!(judge(|other| other.versions = (lowest, highest)), expected);
        }
    }

    #[test]
    fn strangers_to_this_cluster_are_told_why() {
        let other = judge(|local| local.cluster = ClusterId([9; 16]));
        assert_eq!(other, Err(Refusal::OtherCluster { cluster: ClusterId([2; 16]) }));
        for generation in [2, 4] {
            let other = judge(|local| local.generation = Generation(generation));
            assert_eq!(other, Err(Refusal::OtherGeneration { generation: Generation(3) }));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = local().hello(Lane::Bulk, 1, Adoption::default())[4..].to_vec();
        assert!(local().read_hello(&good).is_ok());
        for cut in 0..good.len() {
            assert_eq!(local().read_hello(&good[..cut]), Err(Refusal::Unintelligible));
        }
        let mut long = good;
        long.push(0);
        assert_eq!(local().read_hello(&long), Err(Refusal::Unintelligible));
    }
}
