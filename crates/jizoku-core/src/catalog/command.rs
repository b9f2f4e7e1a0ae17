//! What may be asked of the catalog, and its form in the log.
//!
//! A command in the log is one byte of version and a postcard encoding. Variants are only ever
//! added at the end, and emitted only when the feature level allows.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::frame::{self, DecodeError};
use jizoku_types::spec::ServiceSpec;
use jizoku_types::{BranchId, ClusterId, Epoch, Generation, Member, NodeId, ServiceId, Span};
use serde::{Deserialize, Serialize};

use super::record::{BranchRecord, MemberSpec, TicketHash, Wanted};

/// The version that this build writes, and the only one it reads.
pub const COMMAND_VERSION: u8 = 1;

/// One change of the catalog. Those that name what they expect are compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster.
    Init {
        /// Its id, drawn at random.
        cluster: ClusterId,
        /// Its first generation.
        generation: Generation,
        /// The node that made it.
        first: MemberSpec,
    },
    /// Adds a node that the proposer vouches for.
    AddMember {
        /// Which.
        member: MemberSpec,
    },
    /// What a node says of itself at each start of its agent. A lower incarnation conflicts.
    UpdateMember {
        /// Which, and what is true now.
        member: MemberSpec,
    },
    /// Removes a node for good: its key is refused from then on. Services that were active there
    /// get a new epoch without an active node; it drops out of all holder sets.
    RemoveMember {
        /// Which.
        node: NodeId,
        /// Also if it is the only holder of some service's state.
        accept_loss: bool,
    },
    /// A node goes, and may come back with a new ticket. Refused while it is active for, or holds,
    /// anything: drain it first.
    Leave {
        /// Which.
        node: NodeId,
    },
    /// A node shall become empty, or may be used again.
    SetDraining {
        /// Which.
        node: NodeId,
        /// Whether.
        draining: bool,
    },
    /// Allows one node to join.
    IssueTicket {
        /// Hash of the secret.
        ticket: TicketHash,
        /// How long; counted by each node from applying this.
        ttl: Span,
    },
    /// Uses the ticket and adds the node, in one step. The same node may repeat it.
    UseTicket {
        /// Hash of the secret.
        ticket: TicketHash,
        /// Who joins.
        member: MemberSpec,
    },
    /// Forgets a ticket, used or not.
    ExpireTicket {
        /// Which.
        ticket: TicketHash,
    },
    /// Creates a service, or changes its spec.
    ApplyService {
        /// What is asked for, complete.
        spec: Box<ServiceSpec>,
        /// None: a service of this name must not exist. Some: it must have this spec version.
        expect: Option<u64>,
    },
    /// Removes a service and, with it, the right to its state.
    RemoveService {
        /// Which.
        service: ServiceId,
    },
    /// Starts or stops a service.
    SetWanted {
        /// Which.
        service: ServiceId,
        /// What.
        wanted: Wanted,
    },
    /// Gives a service to a node, or to none. The epoch grows; the holder set stays as it is.
    TakeOver {
        /// Which.
        service: ServiceId,
        /// The epoch that the proposer knows.
        expect: Epoch,
        /// Who, in its current incarnation.
        to: Option<Member>,
    },
    /// Says who holds. Only the active node of the current epoch proposes it.
    SetHolders {
        /// Which.
        service: ServiceId,
        /// The proposer's epoch.
        epoch: Epoch,
        /// The set's version that the proposer knows.
        expect_version: u64,
        /// Everyone who has every committed checkpoint.
        holders: BTreeSet<Member>,
        /// Everyone who is being added.
        joining: BTreeSet<Member>,
        /// A checkpoint was committed to `holders`. Once said, it stays.
        born: bool,
    },
    /// An operator allows to go on without a current holder. Ends with the reign of the active
    /// node, or when a holder set is agreed again.
    AcceptLoss {
        /// Which.
        service: ServiceId,
        /// The epoch that the operator saw.
        epoch: Epoch,
    },
    /// Lists the state of a branch that stopped, or corrects what is listed.
    KeepBranch {
        /// Of which service.
        service: ServiceId,
        /// Which branch.
        branch: BranchId,
        /// What is kept, and where.
        record: BranchRecord,
    },
    /// Frees the state of a branch.
    DropBranch {
        /// Of which service.
        service: ServiceId,
        /// Which branch.
        branch: BranchId,
    },
    /// Makes a branch the main line: new epoch, its active node, its holders.
    ResolveBranch {
        /// Of which service.
        service: ServiceId,
        /// The epoch of the main line that the proposer knows.
        expect: Epoch,
        /// Which branch.
        branch: BranchId,
        /// The counter of its epoch: the main line goes on above it.
        reached: u64,
        /// Who is active for it.
        to: Member,
        /// Who has every committed checkpoint of it.
        holders: BTreeSet<Member>,
    },
    /// The majority is lost for good: a new generation, whose only voter at first is `survivor`.
    /// Members stay. All counters jump, and only `survivor` stays active for what it was.
    Recover {
        /// The cluster that is meant.
        cluster: ClusterId,
        /// The new generation, higher than any before.
        generation: Generation,
        /// The node on which the operator said so.
        survivor: NodeId,
    },
    /// Allows newer forms to be emitted. Only ever grows.
    SetFeatureLevel {
        /// The new level; every member must understand it.
        level: u16,
    },
}

/// Why bytes are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No bytes.
    Empty,
    /// Of another version than [`COMMAND_VERSION`].
    Version {
        /// Which.
        found: u8,
    },
    /// Not decodable.
    Body(DecodeError),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Empty => f.write_str("no bytes"),
            CommandError::Version { found } => {
                write!(f, "a command of version {found}; this build reads {COMMAND_VERSION}")
            }
            CommandError::Body(_) => f.write_str("a damaged command"),
        }
    }
}

impl core::error::Error for CommandError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            CommandError::Body(error) => Some(error),
            _ => None,
        }
    }
}

impl Command {
    /// The form in the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![COMMAND_VERSION];
        bytes.extend(frame::encode(self));
        bytes
    }

    /// Reads the form in the log.
    pub fn decode(bytes: &[u8]) -> Result<Command, CommandError> {
        match bytes {
            [] => Err(CommandError::Empty),
            [COMMAND_VERSION, body @ ..] => frame::decode(body).map_err(CommandError::Body),
            [found, ..] => Err(CommandError::Version { found: *found }),
        }
    }
}
