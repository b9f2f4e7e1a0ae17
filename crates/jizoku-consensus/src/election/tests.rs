//! Elections by hand: time-outs, pre-votes, hints.

use jizoku_types::{ClusterId, Generation};

use alloc::vec;

use super::*;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Span::millis(millis)
}

fn five() -> Members {
    let all: BTreeSet<NodeId> = (1..=5).map(node).collect();
    Members { voters: vec![all.clone()], all }
}

/// Node `me` of five, following node 1 of term 7: heartbeats every 40 ms, 120 to 240 ms of
/// patience.
fn follower(me: u8) -> Election {
    let config = Config {
        heartbeat: Span::millis(40),
        election_min: Span::millis(120),
        election_max: Span::millis(240),
        ..Config::new(node(me), ClusterId([0; 16]), Generation(0), 0)
    };
    let mut election = Election::new(&config);
    election.set_role(at(0), Role::Voter, false, 0);
    election.set_leader(Some((node(1), 7)));
    election
}

const LOG: Option<LogId> = Some(LogId { term: 7, index: 9 });

#[test]
fn a_follower_waits_and_waits_anew_when_it_hears_its_leader() {
    let mut election = follower(2);
    assert_eq!(election.due(at(119), 0), None);
    election.wait_anew(at(100), 0);
    assert_eq!(election.due(at(219), 0), None);
    assert_eq!(election.due(at(220), 0), Some(Due::PreVote));
    assert_eq!(election.due(at(220), 0), None, "once");
    assert_eq!(election.deadline(), Some(at(280)), "again after half the time");
}

#[test]
fn a_voter_that_looks_too_late_waits_once_more() {
    let mut election = follower(2);
    assert_eq!(election.due(at(1000), 0), None, "it was paused: its leader may be there");
    assert_eq!(election.deadline(), Some(at(1120)));
    assert_eq!(election.due(at(2000), 0), Some(Due::PreVote), "starved or not");
    election.wait_anew(at(2000), 0);
    assert_eq!(election.due(at(2200), 0), None, "heard meanwhile, so excused anew");
    assert_eq!(election.due(at(2320), 0), Some(Due::PreVote));
}

#[test]
fn the_wait_is_within_its_bounds_whatever_chance_says() {
    for random in [0, 1, u64::MAX / 3, u64::MAX] {
        let mut election = follower(2);
        election.wait_anew(at(0), random);
        let deadline = election.deadline().expect("a voter waits");
        assert!(deadline >= at(120) && deadline < at(240), "{deadline}");
    }
}

#[test]
fn a_leader_sends_heartbeats_and_a_learner_nothing() {
    let mut election = follower(2);
    election.set_role(at(5), Role::Leader, false, 0);
    assert_eq!(election.due(at(5), 0), Some(Due::Heartbeat));
    assert_eq!(election.due(at(44), 0), None);
    assert_eq!(election.due(at(45), 0), Some(Due::Heartbeat));
    election.set_role(at(50), Role::Learner, false, 0);
    assert_eq!(election.deadline(), None);
}

#[test]
fn a_known_death_leads_to_an_election_only_with_a_majority() {
    let mut election = follower(2);
    assert!(election.peer_gone(at(10), node(3), &five(), LOG).is_empty(), "not the leader");
    assert_eq!(election.due(at(10), 0), None);
    election.peer_gone(at(10), node(1), &five(), LOG);
    assert_eq!(election.due(at(10), 0), Some(Due::AskGone { term: 7 }));
    assert_eq!(election.agreed_gone(node(3), 6, &five()), None, "another term");
    assert_eq!(election.agreed_gone(node(3), 7, &five()), None);
    assert_eq!(election.agreed_gone(node(3), 7, &five()), None, "counts once");
    assert_eq!(election.agreed_gone(node(9), 7, &five()), None, "no voter");
    assert_eq!(election.agreed_gone(node(4), 7, &five()), Some(Act::Elect));
    assert_eq!(election.agreed_gone(node(5), 7, &five()), None, "one election");
}

#[test]
fn voters_take_turns_after_a_death() {
    let mut election = follower(4);
    election.peer_gone(at(10), node(1), &five(), LOG);
    assert_eq!(election.deadline(), Some(at(30)), "after nodes 2 and 3");
    let act = election.asked_gone(at(12), node(2), 7, LOG, LOG);
    assert_eq!(act, Some(Act::Agree { to: node(2), term: 7 }));
    assert_eq!(election.due(at(119), 0), None, "node 2 is at it");
}

#[test]
fn a_node_agrees_once_it_knows_too_and_only_if_the_log_is_good_enough() {
    let mut election = follower(4);
    let shorter = Some(LogId { term: 7, index: 8 });
    assert_eq!(election.asked_gone(at(1), node(2), 7, LOG, LOG), None, "not known here");
    assert_eq!(election.asked_gone(at(1), node(3), 7, shorter, LOG), None);
    let acts = election.peer_gone(at(2), node(1), &five(), LOG);
    assert_eq!(acts, [Act::Agree { to: node(2), term: 7 }]);
    assert_eq!(election.asked_gone(at(3), node(5), 7, shorter, LOG), None);
    assert_eq!(election.asked_gone(at(3), node(5), 8, LOG, LOG), None, "another term");
}

#[test]
fn a_leader_that_is_heard_again_is_not_gone() {
    let mut election = follower(2);
    election.peer_gone(at(10), node(1), &five(), LOG);
    election.peer_back(node(1));
    assert_eq!(election.due(at(50), 0), None);
    election.peer_gone(at(60), node(1), &five(), LOG);
    election.set_leader(Some((node(5), 8)));
    assert_eq!(election.due(at(61), 0), None, "there is another leader");
    assert_eq!(election.agreed_gone(node(3), 7, &five()), None);
}

#[test]
fn who_would_only_split_the_votes_waits() {
    let mut election = follower(2);
    election.wait_anew(at(0), 0);
    election.yield_turn(at(118));
    assert_eq!(election.deadline(), Some(at(178)));
    election.yield_turn(at(100));
    assert_eq!(election.deadline(), Some(at(178)), "never sooner");
}
