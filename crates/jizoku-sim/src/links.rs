//! Connections between machines, as each end knows them.
//!
//! What it does not know: who may link to whom, what frames carry.
//!
//! Invariant: a frame belongs to the session in which it was sent, and dies with it.

use jizoku_types::NodeId;

use crate::net::{HostId, Ways};

/// A link between two machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Counts connections, from 1.
    pub session: u64,
    /// Whether the connection carries frames.
    pub live: bool,
    /// Whether the end with the lower and the one with the higher number think that it is up.
    pub up: [bool; 2],
    /// The keys of both ends in this session. A machine that returns with an empty disk has another
    /// one by the time at which the other end notices.
    pub keys: [Option<NodeId>; 2],
    /// Someone tries to connect.
    pub dialing: bool,
}

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    /// From the machine with the lower number to the one with the higher.
    links: Ways<Link>,
}

impl Links {
    /// The link of two machines.
    pub fn get(&self, a: HostId, b: HostId) -> Link {
        self.links.get(a.min(b), a.max(b))
    }

    /// The link of two machines.
    pub fn get_mut(&mut self, a: HostId, b: HostId) -> &mut Link {
        self.links.get_mut(a.min(b), a.max(b))
    }

    /// Whether `a` thinks that its link to `b` is up.
    pub fn up(&self, a: HostId, b: HostId) -> bool {
        self.get(a, b).up[end(a, b)]
    }
}

/// Which end of the link to `b` is `a`'s.
pub fn end(a: HostId, b: HostId) -> usize {
    usize::from(a > b)
}
