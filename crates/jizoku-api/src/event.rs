//! The stream of events, and the JSON form of each.
//!
//! A node keeps its last events in a ring. A reader asks for those after its cursor, and waits
//! for more if there are none; after a pause it is told whether it missed some.
//!
//! What it does not know: where events come from, how many are kept.
//!
//! Invariants
//! - Cursors of one incarnation of one node grow by one from event to event.
//! - The form here mirrors jizoku-types' `Event`, the one list of things that happen; the
//!   compiler holds the two together.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::event::{LinkDownCause, ResetCause};
use jizoku_types::{
    BranchId, ByteCount, CheckpointId, Epoch, Event, Incarnation, NodeId, ServiceId, ServiceName,
    Span,
};
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};
use crate::route::{Query, Route, take};
use crate::service::read_service;
use crate::text::{self, Text};

/// Most events of one answer.
pub const EVENTS_MAX: u32 = 1000;
/// Longest wait for an event, in milliseconds.
pub const WAIT_MAX_MS: u64 = 30_000;

/// A place in the events of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Which run of the node's agent.
    pub incarnation: Incarnation,
    /// The number of the last event that was read; 0: none yet.
    pub number: u64,
}

impl Text for Cursor {
    const FORM: &'static str = "two numbers with '-' between them";
    fn write(&self) -> String {
        format!("{}-{}", self.incarnation.0, self.number)
    }
    fn read(text: &str) -> Option<Cursor> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (incarnation, number) = text.split_once('-')?;
        if !digits(incarnation) || !digits(number) {
            return None;
        }
        let incarnation = Incarnation(incarnation.parse().ok()?);
        Some(Cursor { incarnation, number: number.parse().ok()? })
    }
}

/// Asks for events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Those after this one; none: the oldest that are kept.
    pub after: Option<Cursor>,
    /// At most so many, and never more than [`EVENTS_MAX`]; none: that many.
    pub limit: Option<u32>,
    /// Wait so long for the first, never longer than [`WAIT_MAX_MS`]; 0: don't.
    pub wait_ms: u64,
    /// Only those of one service.
    pub service: Option<ServiceName>,
}

impl Query for EventsQuery {
    const ROUTE: Route = Route::Events;
    type Answer = EventsAnswer;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        pairs.extend(self.after.map(|after| ("after", after.write())));
        pairs.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        if self.wait_ms > 0 {
            pairs.push(("wait_ms", self.wait_ms.to_string()));
        }
        pairs.extend(self.service.as_ref().map(|service| ("service", service.to_string())));
        pairs
    }

    fn from_pairs(pairs: &[(String, String)]) -> Result<EventsQuery, ApiError> {
        let known = ["after", "limit", "wait_ms", "service"];
        let bad = |key: &str, form: &str| {
            ApiError::new(ErrorCode::BadRequest, format!("parameter `{key}` must be {form}"))
        };
        let after = take(pairs, &known, "after")?.map(|text| Cursor::read(text).ok_or(text));
        let limit = take(pairs, &known, "limit")?.map(str::parse);
        let wait_ms = take(pairs, &known, "wait_ms")?.map(str::parse::<u64>);
        Ok(EventsQuery {
            after: after.transpose().map_err(|_| bad("after", Cursor::FORM))?,
            limit: limit.transpose().map_err(|_| bad("limit", "a number"))?,
            wait_ms: wait_ms.transpose().map_err(|_| bad("wait_ms", "a number"))?.unwrap_or(0),
            service: read_service(take(pairs, &known, "service")?)?,
        })
    }
}

/// Some events of the answering node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// The oldest first.
    pub events: Vec<EventRecord>,
    /// To ask for what follows.
    #[serde(with = "text")]
    pub next: Cursor,
    /// Events after the cursor that were not kept: some are missing before the first one here.
    pub missed: bool,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its place.
    #[serde(with = "text")]
    pub cursor: Cursor,
    /// The wall clock of the node that saw it, in milliseconds of Unix time. For people.
    pub unix_ms: u64,
    /// The clock that the node measures with, in nanoseconds: for differences between its events.
    pub clock_ns: u64,
    /// Who saw it.
    #[serde(with = "text")]
    pub seen_by: NodeId,
    /// What happened.
    #[serde(with = "EventForm")]
    pub event: Event,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Event", rename_all = "snake_case", tag = "type")]
enum EventForm {
    AgentStarted {
        incarnation: Incarnation,
    },
    LinkUp {
        #[serde(with = "text")]
        peer: NodeId,
    },
    LinkDown {
        #[serde(with = "text")]
        peer: NodeId,
        cause: LinkDownCause,
    },
    NodeReachable {
        #[serde(with = "text")]
        node: NodeId,
    },
    NodeUnreachable {
        #[serde(with = "text")]
        node: NodeId,
    },
    MemberAdded {
        #[serde(with = "text")]
        node: NodeId,
    },
    MemberRemoved {
        #[serde(with = "text")]
        node: NodeId,
    },
    LeaderChanged {
        #[serde(with = "text::option")]
        leader: Option<NodeId>,
    },
    ServiceApplied {
        #[serde(with = "text")]
        service: ServiceId,
        name: ServiceName,
    },
    ServiceRemoved {
        #[serde(with = "text")]
        service: ServiceId,
    },
    TakeoverProposed {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        from: Epoch,
    },
    ActiveChanged {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
        #[serde(with = "text")]
        node: NodeId,
    },
    Sealed {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
        #[serde(with = "text")]
        highest: CheckpointId,
    },
    StateCollected {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
        #[serde(with = "text")]
        checkpoint: CheckpointId,
        #[serde(rename = "fetched_bytes")]
        fetched: ByteCount,
    },
    InstanceRestored {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
        #[serde(with = "text")]
        checkpoint: CheckpointId,
        #[serde(rename = "took_ns")]
        took: Span,
    },
    InstanceStarted {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
    },
    InstanceExited {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
        reason: String,
    },
    InstanceFenced {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
    },
    FirstOutput {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        epoch: Epoch,
    },
    HoldersChanged {
        #[serde(with = "text")]
        service: ServiceId,
        holders: u8,
    },
    Unprotected {
        #[serde(with = "text")]
        service: ServiceId,
    },
    Unreachable {
        #[serde(with = "text")]
        service: ServiceId,
    },
    StateMayBeMissing {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        checkpoint: CheckpointId,
    },
    CopyCorrupt {
        #[serde(with = "text")]
        service: ServiceId,
        what: String,
    },
    WatchChanged {
        #[serde(with = "text")]
        service: ServiceId,
        serving: bool,
        detail: String,
    },
    BranchOpened {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        branch: BranchId,
    },
    BranchResolved {
        #[serde(with = "text")]
        service: ServiceId,
        #[serde(with = "text")]
        kept: BranchId,
    },
    ConnectionReset {
        #[serde(with = "text")]
        service: ServiceId,
        cause: ResetCause,
    },
    Trouble {
        what: String,
    },
}
