//! Between openraft's types and ours: which types openraft is instantiated with, and how its
//! votes, entries and members become those of [`crate::log`] and back.
//!
//! What it does not know: when anything is sent or stored.
//!
//! Invariant: a conversion and its reverse give back the same value.

use std::collections::BTreeMap;
use std::fmt;

use jizoku_types::NodeId;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership, Raft, StoredMembership};

use crate::log::{Command, Entry, LogId, Members, Payload, Vote};
use crate::machine::Machine;
use crate::record::SnapshotMeta;
use crate::runtime::Runtime;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {} of {:?}, {} bytes", self.id, self.origin, self.bytes.len())
    }
}

openraft::declare_raft_types!(
    /// The types that openraft is instantiated with. One leader in a term, as Raft has it.
    pub(crate) Types:
        D = Command,
        R = (),
        NodeId = NodeId,
        Node = (),
        LeaderId = LeaderId<u64, NodeId>,
        AsyncRuntime = Runtime,
);

pub(crate) type RaftHandle = Raft<Types, Machine>;
pub(crate) type RaftVote = VoteOf<Types>;
pub(crate) type RaftLogId = LogIdOf<Types>;
pub(crate) type RaftEntry = EntryOf<Types>;
pub(crate) type RaftSnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type RaftMembership = Membership<NodeId, ()>;
pub(crate) type RaftStoredMembership = StoredMembershipOf<Types>;

pub(crate) fn vote_in(vote: Vote) -> RaftVote {
    if vote.elected {
        RaftVote::new_committed(vote.term, vote.node)
    } else {
        RaftVote::new(vote.term, vote.node)
    }
}

pub(crate) fn vote_out(vote: &RaftVote) -> Vote {
    let LeaderId { term, voted_for } = *vote.leader_id();
    Vote { term, node: voted_for, elected: vote.is_committed() }
}

pub(crate) fn log_id_in(id: LogId) -> RaftLogId {
    // Only the term of an elected leader stands in a log id: who it was follows from the term.
    let leader = LeaderId { term: id.term, voted_for: NodeId([0; 32]) };
    RaftLogId { leader_id: leader.to_committed(), index: id.index }
}

pub(crate) fn log_id_out(id: &RaftLogId) -> LogId {
    LogId { term: *id.leader_id, index: id.index }
}

pub(crate) fn members_in(members: &Members) -> RaftMembership {
    let nodes: BTreeMap<NodeId, ()> = members.all.iter().map(|node| (*node, ())).collect();
    // Sound members are refused nowhere; none at all is openraft's own initial state.
    RaftMembership::new(members.voters.clone(), nodes).unwrap_or_default()
}

pub(crate) fn members_out(membership: &RaftMembership) -> Members {
    Members {
        voters: membership.get_joint_config().clone(),
        all: membership.nodes().map(|(node, ())| *node).collect(),
    }
}

pub(crate) fn entry_in(entry: Entry) -> RaftEntry {
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(command),
        Payload::Members(members) => EntryPayload::Membership(members_in(&members)),
    };
    RaftEntry { log_id: log_id_in(entry.id), payload }
}

pub(crate) fn entry_out(entry: RaftEntry) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(command) => Payload::Command(command),
        EntryPayload::Membership(members) => Payload::Members(members_out(&members)),
    };
    Entry { id: log_id_out(&entry.log_id), payload }
}

pub(crate) fn stored_members(meta: &SnapshotMeta) -> RaftStoredMembership {
    StoredMembership::new(meta.members_at.map(log_id_in), members_in(&meta.members))
}

pub(crate) fn meta_in(meta: &SnapshotMeta) -> RaftSnapshotMeta {
    RaftSnapshotMeta {
        last_log_id: meta.last.map(log_id_in),
        last_membership: stored_members(meta),
    }
}

pub(crate) fn meta_out(meta: &RaftSnapshotMeta) -> SnapshotMeta {
    SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_out),
        members_at: meta.last_membership.log_id().as_ref().map(log_id_out),
        members: members_out(meta.last_membership.membership()),
    }
}
