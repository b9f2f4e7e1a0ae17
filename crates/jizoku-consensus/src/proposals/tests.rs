//! Proposals end once, whatever happens to them.

use alloc::vec;

use super::*;

const PATIENCE: Span = Span::millis(70);
const ME: NodeId = NodeId([1; 32]);

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Span::millis(millis)
}

fn wish() -> Wish {
    Wish::Command(vec![1])
}

fn applied(origin: NodeId, life: u64, id: u64) -> Command {
    Command { origin, life, id, bytes: vec![1] }
}

fn with_one(id: u64) -> Proposals {
    let mut proposals = Proposals::new(ME, 7);
    proposals.add(at(0), id, wish(), at(100));
    proposals
}

#[test]
fn an_open_attempt_is_not_made_again() {
    let mut proposals = with_one(5);
    let attempt = proposals.next(at(0), 1, PATIENCE).expect("one waits");
    assert_eq!((attempt.id, attempt.attempt), (5, 1));
    assert!(proposals.next(at(50), 2, PATIENCE).is_none());
    proposals.applied_term(1);
    assert!(proposals.next(at(50), 2, PATIENCE).is_none(), "its own term says nothing");
    proposals.applied_term(2);
    assert_eq!(proposals.next(at(50), 2, PATIENCE).expect("lost for certain").attempt, 2);
    // The answer to the first attempt is old news.
    proposals.not_taken(at(50), 5, 1, Span::ZERO);
    assert!(proposals.next(at(60), 2, PATIENCE).is_none());
    proposals.not_taken(at(60), 5, 2, Span::millis(5));
    assert!(proposals.next(at(64), 2, PATIENCE).is_none());
    assert!(proposals.next(at(65), 2, PATIENCE).is_some());
}

#[test]
fn an_attempt_that_may_be_lost_is_sent_again_to_the_same_leader() {
    let mut proposals = with_one(5);
    proposals.next(at(0), 1, PATIENCE);
    assert!(proposals.next(at(69), 1, PATIENCE).is_none());
    assert_eq!(proposals.next(at(70), 1, PATIENCE).expect("again").attempt, 1, "the same one");
    assert!(proposals.next(at(71), 1, PATIENCE).is_none());
    assert!(proposals.next(at(200), 2, PATIENCE).is_none(), "never to another");
}

#[test]
fn a_proposal_ends_once() {
    let mut proposals = with_one(5);
    proposals.next(at(0), 1, PATIENCE);
    assert_eq!(proposals.settle(&applied(NodeId([2; 32]), 7, 5)), None);
    assert_eq!(proposals.settle(&applied(ME, 6, 5)), None, "of an earlier life");
    assert_eq!(proposals.settle(&applied(ME, 7, 5)), Some(5));
    assert_eq!(proposals.settle(&applied(ME, 7, 5)), None);
    proposals.expire(at(1000));
    assert_eq!(proposals.next_refused(), None);
}

#[test]
fn what_is_known_decides_how_a_proposal_is_given_back() {
    let mut proposals = with_one(5);
    proposals.expire(at(100));
    assert_eq!(proposals.next_refused(), Some((5, RefuseReason::NotTaken)));

    let mut proposals = with_one(5);
    proposals.next(at(0), 1, PATIENCE);
    assert_eq!(proposals.deadline(Some(1)), Some(at(70)));
    assert_eq!(proposals.deadline(Some(2)), Some(at(100)));
    assert_eq!(proposals.deadline(None), Some(at(100)));
    proposals.expire(at(99));
    assert_eq!(proposals.next_refused(), None);
    proposals.expire(at(100));
    assert_eq!(proposals.next_refused(), Some((5, RefuseReason::Unknown)));
    assert_eq!(proposals.settle(&applied(ME, 7, 5)), None, "too late for its id");

    let mut proposals = with_one(5);
    proposals.add(at(0), 6, wish(), at(100));
    proposals.next(at(0), 3, PATIENCE);
    proposals.skipped_to(3);
    assert_eq!(proposals.next_refused(), Some((5, RefuseReason::Unknown)));
    assert_eq!(proposals.next(at(0), 4, PATIENCE).expect("never sent, so not lost").id, 6);
}

#[test]
fn more_than_the_limit_is_refused() {
    let mut proposals = Proposals::new(ME, 7);
    for id in 0..PROPOSALS_MAX as u64 {
        proposals.add(at(0), id, wish(), at(100));
    }
    assert_eq!(proposals.next_refused(), None);
    proposals.add(at(0), u64::MAX, wish(), at(100));
    assert_eq!(proposals.next_refused(), Some((u64::MAX, RefuseReason::Full)));
}

#[test]
fn a_leader_decides_once_about_an_attempt() {
    let mut proposals = Proposals::new(ME, 7);
    let key = AttemptKey { origin: NodeId([2; 32]), life: 1, id: 1, attempt: 1 };
    assert_eq!(proposals.arrived(key), Arrival::New);
    assert_eq!(proposals.arrived(key), Arrival::Seen);
    proposals.decide_refused(key);
    assert_eq!(proposals.arrived(key), Arrival::Refused);
    assert_eq!(proposals.arrived(AttemptKey { attempt: 2, ..key }), Arrival::New);
    for id in 2..2 + DECISIONS_MAX as u64 {
        proposals.arrived(AttemptKey { id, ..key });
    }
    assert_eq!(proposals.arrived(key), Arrival::New, "forgotten after very many others");
}
