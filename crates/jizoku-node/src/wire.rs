//! What nodes say to each other on the channels Control, Streams and State (and Bulk), and what a
//! node says that wants in.
//!
//! Each channel has one message type, encoded with `jizoku_types::frame::encode`. The channel
//! Consensus belongs to jizoku-consensus.
//!
//! Invariant: a new variant goes to the end of its enum, so that older nodes refuse it as
//! malformed instead of taking it for another.

use alloc::string::String;
use alloc::vec::Vec;

use jizoku_checkpoint::message::{FromHolder, ToHolder};
use jizoku_core::catalog::MemberSpec;
use jizoku_core::{branch, lease, reach, watch};
use jizoku_streams::{ToGateway, ToInstance};
use jizoku_types::{ClusterId, Epoch, GatewayId, Generation, NodeId, ServiceId};
use serde::{Deserialize, Serialize};

/// On `Channel::Control`: from Node to Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// Link states and facts.
    Reach(reach::Message),
    /// Asking for and giving leases.
    Lease(lease::Message),
    /// Verdicts on services.
    Watch(watch::Message),
    /// To the active node: let this service go on at `to`.
    Move {
        /// Which.
        service: ServiceId,
        /// In which epoch the sender saw it.
        epoch: Epoch,
        /// Where to; none: wherever the succession says.
        to: Option<NodeId>,
    },
    /// What the opener of a branch says of it.
    Branch(branch::Notice),
}

/// On `Channel::State` and `Channel::Bulk`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StateMessage {
    /// To a node's Holder.
    ToHolder(ToHolder),
    /// To the Runner of the service that it names.
    FromHolder(FromHolder),
    /// To whoever keeps the modules of a node.
    Module(ModuleMessage),
    /// To whoever shows a node to people.
    Look(LookMessage),
    /// To a node's log pool, in the form of the agents; nodes don't look into it.
    Log(Vec<u8>),
    /// To whoever runs scripts on a node, likewise.
    Script(Vec<u8>),
}

/// What only another node can see, for people. Nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LookMessage {
    /// What do you see?
    Ask {
        /// Of the asker's questions.
        number: u64,
        /// More about this service; none: a little about all.
        service: Option<ServiceId>,
    },
    /// This.
    Tell {
        /// The question's number.
        number: u64,
        /// In the form of the agents; nodes don't look into it.
        bytes: Vec<u8>,
    },
}

/// About modules of `wasm` services, which are content with a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleMessage {
    /// This module is wanted.
    Want {
        /// Its BLAKE3 hash.
        hash: [u8; 32],
        /// From which byte on.
        offset: u64,
    },
    /// A part of it.
    Part {
        /// Its BLAKE3 hash.
        hash: [u8; 32],
        /// The module's length.
        length: u64,
        /// Where this part begins.
        offset: u64,
        /// The part.
        bytes: Vec<u8>,
    },
}

/// On `Channel::Streams`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMessage {
    /// To an instance.
    ToInstance {
        /// Of which gateway; its node must be the frame's sender.
        gateway: GatewayId,
        /// What.
        message: ToInstance,
    },
    /// To a gateway in this incarnation.
    ToGateway {
        /// Which.
        gateway: GatewayId,
        /// What.
        message: ToGateway,
    },
}

/// What a node says that wants to join: the only message of somebody who isn't a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAsk {
    /// Of the ticket that it was given.
    pub secret: [u8; 32],
    /// Itself.
    pub member: MemberSpec,
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// It is a member now.
    Welcome {
        /// Of this cluster.
        cluster: ClusterId,
        /// In this generation.
        generation: Generation,
        /// All members, with their addresses.
        members: Vec<(NodeId, Vec<String>)>,
        /// What the cluster calls it.
        name: String,
    },
    /// No, and why.
    Refused(String),
}
