//! What goes into a [`Consensus`](crate::Consensus) and what comes out of it.
//!
//! What it does not know: how it is done.
//!
//! Limits and defaults: [`Config`] and the constants beside it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_types::{ClusterId, Generation, NodeId, Span};
use serde::{Deserialize, Serialize};

use crate::log::LogId;
use crate::record::Record;

/// Proposals and changes of voters that one node may have under way. More are refused.
pub const PROPOSALS_MAX: usize = 1024;

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Messages of other clusters are dropped.
    pub cluster: ClusterId,
    /// Messages of other generations are dropped.
    pub generation: Generation,
    /// A leader's heartbeats are this far apart. Longer than a round trip between voters.
    pub heartbeat: Span,
    /// A follower that heard nothing from its leader for at least this long, and at most
    /// `election_max`, asks for an election. At least twice `heartbeat`.
    pub election_min: Span,
    /// See `election_min`. Also how long a leader that reaches no majority still calls itself one.
    pub election_max: Span,
    /// A proposal whose fate isn't known after this time is given back as refused.
    pub proposal_timeout: Span,
    /// Entries after which the log is replaced by a snapshot. At least 1.
    pub snapshot_every: u64,
    /// Randomness: different for each node and for each start.
    pub seed: u64,
}

impl Config {
    /// The defaults: 100 ms heartbeats, elections after 300 to 600 ms of silence, proposals given
    /// up after 2 s, a snapshot every 4096 entries.
    ///
    /// A dead leader is known sooner than that, by its links: see [`Input::PeerDown`].
    pub fn new(me: NodeId, cluster: ClusterId, generation: Generation, seed: u64) -> Config {
        Config {
            me,
            cluster,
            generation,
            heartbeat: Span::millis(100),
            election_min: Span::millis(300),
            election_max: Span::millis(600),
            proposal_timeout: Span::secs(2),
            snapshot_every: 4096,
            seed,
        }
    }

    /// # Panics
    /// If the times contradict each other: a programmer's error, or one in a file that its reader
    /// should have refused.
    pub(crate) fn check(&self) {
        assert!(self.heartbeat >= Span::millis(1), "heartbeats are at least 1 ms apart");
        assert!(
            self.election_min >= self.heartbeat * 2,
            "a follower waits for at least two heartbeats"
        );
        assert!(self.election_max > self.election_min, "election times need room for chance");
        assert!(self.snapshot_every > 0, "a snapshot covers at least one entry");
    }
}

/// Names the records of one [`Output::Persist`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersistToken(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Another member's value sent this. The mesh vouches for `from`.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What its [`Output::Send`] had.
        bytes: Vec<u8>,
    },
    /// Put this command into the log. Works on any node. Ends in [`Output::Applied`] with this
    /// id, or in [`Output::Refused`]; never in both, never in more than one `Applied`.
    Propose {
        /// The caller's number for it; not used again while it is under way.
        id: u64,
        /// At most [`COMMAND_MAX`](crate::COMMAND_MAX) bytes.
        command: Vec<u8>,
    },
    /// The records of this token, and of all earlier ones, will be found after a crash.
    Persisted {
        /// From [`Output::Persist`].
        token: PersistToken,
    },
    /// The disk failed. The value stops; it may be built anew from what the disk has.
    PersistFailed {
        /// From [`Output::Persist`].
        token: PersistToken,
    },
    /// The answer to [`Output::TakeSnapshot`].
    SnapshotTaken {
        /// The same index.
        index: u64,
        /// The state after every command up to that index.
        bytes: Vec<u8>,
    },
    /// Make exactly these nodes voters and learners. Works on any node; ends in
    /// [`Output::VotersChanged`] or [`Output::Refused`]. New voters first catch up as learners.
    ChangeVoters {
        /// The caller's number, from the same space as those of `Propose`.
        id: u64,
        /// At least one.
        voters: BTreeSet<NodeId>,
        /// Every other member.
        learners: BTreeSet<NodeId>,
    },
    /// Another voter shall lead: this one, or whichever is furthest. Works on any node; nothing
    /// happens if there is no leader or no such voter.
    TransferLeader {
        /// The voter to lead next.
        to: Option<NodeId>,
    },
    /// This node is the first of a new cluster: it becomes the only voter. Ignored by a node that
    /// has a log.
    Bootstrap,
    /// All links to this node were reset: it is dead, or restarting. Only a hint; a message from
    /// that node takes it back. Followers of that node elect another leader almost at once, if a
    /// majority of voters had the same hint.
    PeerDown {
        /// Whose links were reset.
        node: NodeId,
    },
    /// The deadline was reached.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to that member. May be lost, late, or arrive twice.
    Send {
        /// The receiver.
        to: NodeId,
        /// At most a frame's body.
        bytes: Vec<u8>,
    },
    /// Write these records after all earlier ones, flush, then answer with the token. Tokens may
    /// be answered together, in order.
    Persist {
        /// What to answer.
        token: PersistToken,
        /// In this order.
        records: Vec<Record>,
    },
    /// A command is committed: apply it. Every node gets the same ones in the same order. Indexes
    /// grow, with gaps. After a restart they begin again after the snapshot.
    Applied {
        /// Its place in the log.
        index: u64,
        /// The number it was proposed under, if it was proposed here in this life.
        id: Option<u64>,
        /// What was proposed.
        command: Vec<u8>,
    },
    /// Replace the state machine's state by this one.
    InstallSnapshot {
        /// The last entry whose effect is in it.
        index: u64,
        /// What a `SnapshotTaken` had, here or elsewhere.
        bytes: Vec<u8>,
    },
    /// Answer with the state as it is now, after every `Applied` before this output. Applying may
    /// go on meanwhile.
    TakeSnapshot {
        /// The last entry whose effect is in it.
        index: u64,
    },
    /// The members are now these.
    VotersChanged {
        /// From [`Input::ChangeVoters`].
        id: u64,
    },
    /// What was proposed under this number ended without being known to be applied.
    Refused {
        /// From [`Input::Propose`] or [`Input::ChangeVoters`].
        id: u64,
        /// The leader, if one is known.
        leader: Option<NodeId>,
        /// What is known of its fate.
        reason: RefuseReason,
    },
    /// The leader changed, as far as this node knows.
    LeaderIs {
        /// `None`: there is none, or it wasn't heard of for too long, or this node is one that
        /// reaches no majority.
        leader: Option<NodeId>,
        /// The newest term this node knows.
        term: u64,
    },
    /// The committed members changed. Not given out in the middle of a change of voters.
    VotersAre {
        /// The place in the log, counted from 1, of the entry that says so. Learners change it too.
        number: u64,
        /// Who votes.
        voters: BTreeSet<NodeId>,
        /// Who only follows.
        learners: BTreeSet<NodeId>,
    },
    /// What this node's log says of its members, committed or not, changed. It goes back when
    /// entries are dropped that were never committed.
    MembersLogged {
        /// The number, as in [`Output::VotersAre`], of the newest entry that names one set of
        /// voters.
        voters: u64,
        /// Whether a newer entry names two sets: a change of voters is under way.
        changing: bool,
    },
    /// This value does nothing any more. Build it anew from what the disk has.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

/// Why a proposal was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// It is not in the log, and will never be.
    NotTaken,
    /// It may be in the log now or later. If it is applied, that shows without its id.
    Unknown,
    /// Not taken: larger than [`COMMAND_MAX`](crate::COMMAND_MAX), or too many members, or none.
    OutOfBounds,
    /// Not taken: [`PROPOSALS_MAX`] are under way.
    Full,
    /// Another change of voters is under way. Nothing changed.
    Busy,
    /// A new voter did not catch up in time. It stays a learner.
    Lagging,
}

/// Why a value stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A record could not be written.
    Disk,
}

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub me: NodeId,
    /// As in [`Output::LeaderIs`].
    pub leader: Option<NodeId>,
    /// The newest term this node knows.
    pub term: u64,
    /// Who votes, by the newest entry that says so, committed or not.
    pub voters: BTreeSet<NodeId>,
    /// Who only follows, likewise.
    pub learners: BTreeSet<NodeId>,
    /// The last entry of the log.
    pub last: Option<LogId>,
    /// The last entry whose effect was given out.
    pub applied: Option<LogId>,
    /// The last entry that the newest snapshot covers.
    pub snapshot: Option<LogId>,
    /// What was dropped since the value was made.
    pub dropped: Dropped,
}

/// Messages that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Not messages of this format, unsound ones, or such as no member that keeps to the protocol
    /// sends.
    pub malformed: u64,
    /// Of another cluster or generation.
    pub foreign: u64,
}
