//! Messages read back; foreign and damaged ones are dropped.

use alloc::vec;

use super::*;
use crate::log::{Command, Members, Payload};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const GENERATION: Generation = Generation(3);

fn entry(term: u64, index: u64, payload: Payload) -> Entry {
    Entry { id: LogId { term, index }, payload }
}

fn append(before: Option<LogId>, entries: Vec<Entry>) -> Body {
    Body::Append { term: 5, stamp: 1, before, entries, committed: 0 }
}

fn opened(body: &Body) -> Result<Body, Refusal> {
    open(CLUSTER, GENERATION, &seal(CLUSTER, GENERATION, body.clone()))
}

#[test]
fn messages_of_other_clusters_generations_and_formats_are_told_apart() {
    let body = Body::Notice(Notice::TransferLeader { to: None });
    assert_eq!(opened(&body), Ok(body.clone()));
    let mut bytes = seal(CLUSTER, GENERATION, body);
    assert_eq!(open(ClusterId([2; 16]), GENERATION, &bytes), Err(Refusal::Foreign));
    assert_eq!(open(CLUSTER, Generation(2), &bytes), Err(Refusal::Foreign));
    bytes[0] = WIRE_FORMAT + 1;
    assert_eq!(open(CLUSTER, GENERATION, &bytes), Err(Refusal::Malformed));
    assert_eq!(open(CLUSTER, GENERATION, &[]), Err(Refusal::Malformed));
}

#[test]
fn entries_must_follow_each_other() {
    let blank = |term, index| entry(term, index, Payload::Blank);
    let before = Some(LogId { term: 2, index: 7 });
    for (before, entries, sound) in [
        (before, vec![], true),
        (before, vec![blank(2, 8), blank(5, 9)], true),
        (None, vec![blank(0, 0)], true),
        (None, vec![blank(1, 1)], false),
        (before, vec![blank(2, 9)], false),
        (before, vec![blank(1, 8)], false),
        (before, vec![blank(2, 8), blank(2, 8)], false),
        (before, vec![blank(6, 8)], false),
        (Some(LogId { term: 2, index: u64::MAX }), vec![blank(2, 0)], false),
    ] {
        let body = append(before, entries);
        assert_eq!(opened(&body).is_ok(), sound, "{body:?}");
    }
}

#[test]
fn what_raft_takes_for_granted_is_checked() {
    let large =
        Command { origin: NodeId([1; 32]), life: 0, id: 0, bytes: vec![0; COMMAND_MAX + 1] };
    let nobody = Members { voters: vec![BTreeSet::new()], all: BTreeSet::new() };
    let meta = |term| SnapshotMeta {
        last: Some(LogId { term, index: 3 }),
        members_at: None,
        members: Members {
            voters: vec![BTreeSet::from([NodeId([1; 32])])],
            all: BTreeSet::from([NodeId([1; 32])]),
        },
    };
    let part = |meta, total, offset| {
        let part = vec![1, 2];
        Body::Snapshot { term: 5, stamp: 1, meta, total, offset, part }
    };
    let vote = |term| Body::AskVote { term, last: None, pre: false, transfer: false };
    for (body, sound) in [
        (append(None, vec![entry(0, 0, Payload::Command(large))]), false),
        (append(None, vec![entry(0, 0, Payload::Members(nobody))]), false),
        (part(meta(5), 4, 2), true),
        (part(meta(5), 4, 3), false),
        (part(meta(5), 4, u64::MAX), false),
        (part(meta(5), SNAPSHOT_MAX as u64 + 1, 0), false),
        (part(meta(6), 4, 0), false),
        (part(SnapshotMeta::default(), 4, 0), false),
        (vote(TERM_MAX), true),
        (vote(TERM_MAX + 1), false),
        (append(Some(LogId { term: 6, index: 1 }), vec![]), false),
    ] {
        assert_eq!(opened(&body).is_ok(), sound, "{body:?}");
    }
}

#[test]
fn the_largest_messages_fit_a_frame() {
    let full = |index| {
        let bytes = vec![7; COMMAND_MAX];
        let command = Command { origin: NodeId([1; 32]), life: u64::MAX, id: u64::MAX, bytes };
        entry(5, index, Payload::Command(command))
    };
    // The leader stops once the limit is reached, so the last entry may begin just below it.
    let count = APPEND_BYTES_MAX / full(0).weight() + 1;
    let entries = (0..count as u64).map(full).collect();
    let bytes = seal(CLUSTER, GENERATION, append(None, entries));
    assert!(bytes.len() <= FRAME_BODY_MAX, "{}", bytes.len());
    assert!(open(CLUSTER, GENERATION, &bytes).is_ok());

    let all: BTreeSet<NodeId> = (0..MEMBERS_MAX).map(|n| NodeId([n as u8; 32])).collect();
    let members = Members { voters: vec![all.clone(), all.clone()], all };
    let last = Some(LogId { term: 5, index: INDEX_MAX });
    let meta = SnapshotMeta { last, members_at: last, members };
    let (total, offset) = (SNAPSHOT_PART as u64, 0);
    let part = vec![1; SNAPSHOT_PART];
    let body = Body::Snapshot { term: 5, stamp: u64::MAX, meta, total, offset, part };
    let bytes = seal(CLUSTER, GENERATION, body);
    assert!(open(CLUSTER, GENERATION, &bytes).is_ok(), "{}", bytes.len());
}
