//! One value against written messages: what must wait for the disk, and what must not be believed.
//! Clusters of values are in the crate's tests.

use alloc::vec;

use jizoku_types::{ClusterId, Generation};

use super::*;
use crate::interface::PersistToken;
use crate::record::number_of;
use crate::wire::seal;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const GENERATION: Generation = Generation(1);

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { id: id(term, index), payload: Payload::Blank }
}

fn command(term: u64, index: u64) -> Entry {
    let command = Command { origin: node(2), life: 1, id: index, bytes: vec![1] };
    Entry { id: id(term, index), payload: Payload::Command(command) }
}

fn three() -> Members {
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    Members { voters: vec![all.clone()], all }
}

/// Node 1 of three, and what it did.
struct Stage {
    value: Consensus,
    now: Instant,
    unsafe_tokens: VecDeque<PersistToken>,
    sent: Vec<(NodeId, Body)>,
    said: Vec<Output>,
}

impl Stage {
    /// A node that voted for itself in `term`, whose log is the three members and `entries`.
    fn new(term: u64, entries: Vec<Entry>) -> Stage {
        let mut recovered = Recovered::new();
        let members = Entry { id: id(0, 0), payload: Payload::Members(three()) };
        for change in [
            Change::Vote(crate::log::Vote { term, node: node(1), elected: false }),
            Change::Append([vec![members], entries].concat()),
        ] {
            recovered.replay(Record(change)).expect("in order");
        }
        let now = Instant::from_nanos(1_000_000_000);
        let config = Config::new(node(1), CLUSTER, GENERATION, 1);
        let value = Consensus::new(now, config, recovered).expect("sound");
        let (sent, said) = (Vec::new(), Vec::new());
        let mut stage = Stage { value, now, unsafe_tokens: VecDeque::new(), sent, said };
        stage.drain();
        stage
    }

    fn drain(&mut self) {
        while let Some(output) = self.value.poll() {
            match output {
                Output::Send { to, bytes } => {
                    let body = open(CLUSTER, GENERATION, &bytes).expect("what was sealed");
                    self.sent.push((to, body));
                }
                Output::Persist { token, .. } => self.unsafe_tokens.push_back(token),
                other => self.said.push(other),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.value.handle(self.now, input);
        self.drain();
    }

    fn hear(&mut self, from: u8, body: Body) -> Vec<Body> {
        self.sent.clear();
        let bytes = seal(CLUSTER, GENERATION, body);
        self.input(Input::Message { from: node(from), bytes });
        self.answers(from)
    }

    fn answers(&mut self, to: u8) -> Vec<Body> {
        let sent = core::mem::take(&mut self.sent);
        sent.into_iter().filter(|(at, _)| *at == node(to)).map(|(_, body)| body).collect()
    }

    /// The oldest write is done.
    fn flush(&mut self) {
        let token = self.unsafe_tokens.pop_front().expect("something is being written");
        self.input(Input::Persisted { token });
    }

    fn flush_all(&mut self) {
        while !self.unsafe_tokens.is_empty() {
            self.flush();
        }
    }

    fn wait(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.value.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    fn applied(&self) -> Vec<u64> {
        let applied = self.said.iter().filter_map(|output| match output {
            Output::Applied { index, .. } => Some(*index),
            _ => None,
        });
        applied.collect()
    }

    /// Elected by node 2, with everything written; in the term that is given back.
    fn elected(term: u64, entries: Vec<Entry>) -> (Stage, u64) {
        let mut stage = Stage::new(term, entries);
        stage.wait(Span::millis(700));
        let term = term + 1;
        stage.hear(2, Body::Voted { term, pre: true });
        stage.flush_all();
        stage.hear(2, Body::Voted { term, pre: false });
        assert!(stage.value.leading.is_some());
        stage.flush_all();
        (stage, term)
    }
}

fn append(term: u64, stamp: u64, before: LogId, entries: Vec<Entry>, committed: u64) -> Body {
    Body::Append { term, stamp, before: Some(before), entries, committed }
}

#[test]
fn a_vote_is_given_once_it_is_safe() {
    let mut stage = Stage::new(1, vec![]);
    let ask = Body::AskVote { term: 5, last: Some(id(1, 3)), pre: false, transfer: false };
    assert_eq!(stage.hear(2, ask), []);
    stage.flush();
    assert_eq!(stage.answers(2), [Body::Voted { term: 5, pre: false }]);
    let other = Body::AskVote { term: 5, last: Some(id(1, 3)), pre: false, transfer: false };
    assert_eq!(stage.hear(3, other), [], "one vote in a term");
}

#[test]
fn its_own_vote_counts_once_it_is_safe() {
    let mut stage = Stage::new(1, vec![]);
    stage.hear(2, append(2, 1, id(0, 0), vec![], 1));
    stage.wait(Span::millis(700));
    stage.hear(3, Body::Voted { term: 3, pre: true });
    stage.hear(3, Body::Voted { term: 3, pre: false });
    assert!(stage.value.leading.is_none());
    stage.flush();
    assert!(stage.value.leading.is_none(), "that was something else");
    stage.flush();
    assert!(stage.value.leading.is_some());
}

#[test]
fn who_hears_a_leader_gives_no_vote() {
    let mut stage = Stage::new(1, vec![]);
    stage.hear(2, append(2, 1, id(0, 0), vec![], 1));
    stage.flush_all();
    let ask = |pre, transfer| Body::AskVote { term: 3, last: Some(id(2, 9)), pre, transfer };
    assert_eq!(stage.hear(3, ask(true, false)), []);
    assert_eq!(stage.hear(3, ask(false, false)), []);
    assert_eq!(stage.value.state.term(), 2);
    stage.now += Span::millis(310);
    assert_eq!(stage.hear(3, ask(true, false)), [Body::Voted { term: 3, pre: true }]);
    stage.hear(2, append(2, 1, id(0, 0), vec![], 1));
    stage.hear(3, ask(false, true));
    stage.flush_all();
    assert_eq!(stage.answers(3), [Body::Voted { term: 3, pre: false }], "it was handed over");
}

#[test]
fn entries_are_confirmed_and_applied_once_they_are_safe() {
    let mut stage = Stage::new(1, vec![]);
    let entries = vec![command(2, 1), command(2, 2)];
    assert_eq!(stage.hear(2, append(2, 1, id(0, 0), entries, 3)), []);
    assert_eq!(stage.applied(), [] as [u64; 0]);
    stage.flush();
    assert_eq!(stage.answers(2), [Body::Appended { term: 2, stamp: 1, matched: 3 }]);
    assert_eq!(stage.applied(), [1, 2]);
    // A heartbeat is answered at once, with what is safe.
    assert_eq!(stage.hear(2, append(2, 2, id(2, 2), vec![command(2, 3)], 3)), []);
    let answer = Body::Appended { term: 2, stamp: 3, matched: 3 };
    assert_eq!(stage.hear(2, append(2, 3, id(2, 3), vec![], 3)), [answer]);
    stage.flush();
    assert_eq!(stage.answers(2), [Body::Appended { term: 2, stamp: 3, matched: 4 }]);
}

#[test]
fn what_another_leader_verified_is_not_confirmed() {
    let mut stage = Stage::new(1, vec![]);
    stage.hear(2, append(2, 1, id(0, 0), vec![command(2, 1), command(2, 2)], 1));
    stage.flush_all();
    let answers = stage.hear(3, append(3, 1, id(2, 1), vec![], 1));
    assert_eq!(answers, [], "the term is not safe yet");
    stage.flush();
    assert_eq!(stage.answers(3), [Body::Appended { term: 3, stamp: 1, matched: 2 }]);
}

#[test]
fn a_write_that_is_void_confirms_nothing() {
    let mut stage = Stage::new(1, vec![]);
    stage.hear(2, append(2, 1, id(0, 0), vec![], 1));
    stage.flush_all();
    stage.hear(2, append(2, 2, id(0, 0), vec![command(2, 1), command(2, 2)], 1));
    stage.hear(3, append(3, 1, id(0, 0), vec![command(3, 1), command(3, 2)], 1));
    stage.flush();
    assert_eq!(stage.value.flushed, 1, "those entries are not in the log any more");
    stage.flush();
    assert_eq!(stage.answers(3), [Body::Appended { term: 3, stamp: 1, matched: 3 }]);
}

#[test]
fn what_is_committed_can_not_be_replaced() {
    let mut stage = Stage::new(1, vec![]);
    stage.hear(2, append(2, 1, id(0, 0), vec![command(2, 1), command(2, 2)], 3));
    stage.flush_all();
    stage.hear(3, append(3, 1, id(0, 0), vec![command(3, 1)], 2));
    stage.flush_all();
    assert_eq!(stage.value.state.term_at(1), Some(2));
    assert_eq!(stage.value.state.len(), 3);
}

#[test]
fn a_conflict_says_where_to_try_next() {
    let entries = vec![blank(1, 1), blank(1, 2), blank(2, 3), blank(2, 4)];
    let hint = |before: LogId| {
        let mut stage = Stage::new(2, entries.clone());
        stage.hear(2, append(9, 1, before, vec![], 0));
        stage.flush_all();
        match &stage.answers(2)[..] {
            [Body::Conflict { hint, .. }] => *hint,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hint(id(3, 9)), 5, "it ends there");
    assert_eq!(hint(id(3, 4)), 3, "nothing of that term need be right");
    assert_eq!(hint(id(3, 1)), 1);
}

#[test]
fn entries_of_earlier_terms_are_committed_by_one_of_its_own() {
    let (mut stage, term) = Stage::elected(4, vec![command(2, 1)]);
    let matched = |matched| Body::Appended { term, stamp: 1, matched };
    stage.hear(2, matched(2));
    assert_eq!(stage.applied(), [] as [u64; 0], "dissertation 3.6.2, figure 3.7");
    stage.hear(2, matched(3));
    assert_eq!(stage.applied(), [1]);
}

#[test]
fn a_leader_needs_its_own_disk_or_that_of_a_majority() {
    let (mut stage, term) = Stage::elected(1, vec![]);
    stage.input(Input::Propose { id: 1, command: vec![7] });
    stage.hear(2, Body::Appended { term, stamp: 1, matched: 3 });
    assert_eq!(stage.value.committed, 2, "it is not written here");
    stage.hear(3, Body::Appended { term, stamp: 1, matched: 3 });
    assert_eq!(stage.value.committed, 3);
    assert_eq!(stage.applied(), [] as [u64; 0]);
    stage.flush();
    assert_eq!(stage.applied(), [2]);
}

#[test]
fn what_was_lost_is_sent_again_once() {
    let (mut stage, term) = Stage::elected(1, vec![]);
    for number in 0..5 {
        stage.input(Input::Propose { id: number, command: vec![7] });
    }
    stage.flush_all();
    let entries = |sent: &[Body]| -> Vec<u64> {
        let all = sent.iter().flat_map(|body| match body {
            Body::Append { entries, .. } => entries.iter().map(|entry| entry.id.index).collect(),
            _ => vec![],
        });
        all.collect()
    };
    assert_eq!(entries(&stage.answers(2)), [2, 3, 4, 5, 6]);
    stage.sent.clear();
    stage.wait(Span::millis(110));
    let beats = stage.answers(2);
    let [.., Body::Append { stamp, .. }] = beats[..] else { panic!("{beats:?}") };
    let conflict = Body::Conflict { term, stamp, hint: 2 };
    assert_eq!(entries(&stage.hear(2, conflict.clone())), [2, 3, 4, 5, 6]);
    assert_eq!(entries(&stage.hear(2, conflict)), [] as [u64; 0], "it was sent before that");
}

#[test]
fn a_snapshot_is_installed_once_it_is_safe() {
    let mut stage = Stage::new(1, vec![command(1, 1)]);
    let (last, bytes) = (id(2, 40), vec![5; 10]);
    let meta = SnapshotMeta { last: Some(last), members_at: Some(id(0, 0)), members: three() };
    let part = |offset: usize, end: usize| Body::Snapshot {
        term: 3,
        stamp: 1,
        meta: meta.clone(),
        total: 10,
        offset: offset as u64,
        part: bytes[offset..end].to_vec(),
    };
    let at = |next| Body::SnapshotAt { term: 3, stamp: 1, last, next };
    stage.hear(2, part(4, 10));
    stage.flush_all();
    assert_eq!(stage.answers(2), [at(0)], "from the beginning");
    stage.hear(2, append(3, 2, id(1, 1), vec![blank(3, 2)], 0));
    assert_eq!(stage.hear(2, part(0, 4)), [at(4)]);
    assert_eq!(stage.hear(2, part(0, 4)), [at(4)], "twice is once");
    assert_eq!(stage.hear(2, part(4, 10)), []);
    let installed = |stage: &Stage| {
        stage.said.iter().any(|output| matches!(output, Output::InstallSnapshot { index: 40, .. }))
    };
    stage.flush();
    assert!(!installed(&stage), "that was something else");
    stage.flush_all();
    assert!(installed(&stage));
    assert!(stage.answers(2).contains(&at(10)));
    assert_eq!((stage.value.applied, stage.value.state.len()), (41, 41));
    let told = Output::VotersAre {
        number: number_of(id(0, 0)),
        voters: three().voters(),
        learners: BTreeSet::new(),
    };
    assert!(stage.said.contains(&told));
}

#[test]
fn a_crash_between_a_snapshot_and_its_log_is_mended() {
    let meta = SnapshotMeta { last: Some(id(2, 40)), members_at: None, members: three() };
    let mut recovered = Recovered::new();
    for change in [
        Change::Vote(crate::log::Vote { term: 3, node: node(2), elected: true }),
        Change::Append(vec![blank(1, 0), blank(1, 1)]),
        Change::Snapshot(meta, vec![1]),
    ] {
        recovered.replay(Record(change)).expect("in order");
    }
    let config = Config::new(node(1), CLUSTER, GENERATION, 1);
    let value = Consensus::new(Instant::ORIGIN, config, recovered).expect("sound");
    assert_eq!((value.state.last(), value.applied), (Some(id(2, 40)), 41));
    assert!(value.state.entries.is_empty());
}

#[test]
fn a_log_newer_than_every_term_is_refused() {
    let mut recovered = Recovered::new();
    recovered.replay(Record(Change::Append(vec![blank(1, 0)]))).expect("in order");
    let config = Config::new(node(1), CLUSTER, GENERATION, 1);
    let refused = Consensus::new(Instant::ORIGIN, config, recovered);
    assert!(matches!(refused, Err(RecoverError::Refused)));
}
