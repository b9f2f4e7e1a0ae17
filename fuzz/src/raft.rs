//! What members' logs say to each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;

use jizoku_consensus::{Config, Consensus, Input, Output, PersistToken, Record, Recovered};
use jizoku_types::{ClusterId, Generation, Instant, NodeId, Span};

use crate::{Seed, chunks, for_choice, join, moment, node};

const COUNT: u8 = 3;

fn started(n: u8, disk: Recovered) -> Consensus {
    let config = Config::new(node(n), ClusterId([3; 16]), Generation(1), u64::from(n));
    Consensus::new(moment(0), config, disk).expect("a sound past")
}

/// Three nodes on a perfect network. Node 1 begins, and makes the others voters.
struct Trio {
    now: Instant,
    nodes: BTreeMap<NodeId, Consensus>,
    written: VecDeque<(NodeId, PersistToken)>,
    sent: VecDeque<(NodeId, NodeId, Vec<u8>)>,
    /// Everything that node 1 was told, from whom.
    heard: Vec<(NodeId, Vec<u8>)>,
    /// What node 1 has on its disk.
    disk: Recovered,
}

impl Trio {
    fn new() -> Trio {
        let nodes = (1..=COUNT).map(|n| (node(n), started(n, Recovered::new()))).collect();
        let (written, sent) = (VecDeque::new(), VecDeque::new());
        let mut trio = Trio {
            now: moment(1),
            nodes,
            written,
            sent,
            heard: Vec::new(),
            disk: Recovered::new(),
        };
        trio.input(node(1), Input::Bootstrap);
        trio.pass(Span::millis(300));
        let (voters, learners) = ((1..=COUNT).map(node).collect(), BTreeSet::new());
        trio.input(node(1), Input::ChangeVoters { id: 1, voters, learners });
        trio.pass(Span::millis(300));
        trio.input(node(2), Input::Propose { id: 2, command: b"a command".to_vec() });
        trio.pass(Span::millis(100));
        trio
    }

    fn input(&mut self, at: NodeId, input: Input) {
        let Some(value) = self.nodes.get_mut(&at) else { return };
        value.handle(self.now, input);
        while let Some(output) = value.poll() {
            match output {
                Output::Send { to, bytes } => self.sent.push_back((at, to, bytes)),
                Output::Persist { token, records } => {
                    self.written.push_back((at, token));
                    for record in records.into_iter().filter(|_| at == node(1)) {
                        self.disk.replay(record).expect("records in order");
                    }
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            while let Some((at, token)) = self.written.pop_front() {
                self.input(at, Input::Persisted { token });
            }
            if let Some((from, to, bytes)) = self.sent.pop_front() {
                if to == node(1) {
                    self.heard.push((from, bytes.clone()));
                }
                self.input(to, Input::Message { from, bytes });
                continue;
            }
            self.now += Span::millis(5);
            for n in 1..=COUNT {
                self.input(node(n), Input::Tick);
            }
        }
    }
}

/// A voter that others tell anything. A chunk's first byte says who, or that time passes, or that
/// the disk has written something.
pub(crate) fn raft(data: &[u8]) {
    static DISK: OnceLock<Recovered> = OnceLock::new();
    let disk = DISK.get_or_init(|| Trio::new().disk).clone();
    let mut value = started(1, disk);
    let (mut now, mut written, mut last) = (moment(1), VecDeque::new(), None);
    for chunk in chunks(data) {
        let Some((what, bytes)) = chunk.split_first() else { continue };
        now += Span::millis(u64::from(what >> 4) * 10);
        let input = match what % 4 {
            0 => Input::Tick,
            1 => match written.pop_front() {
                Some(token) => Input::Persisted { token },
                None => continue,
            },
            from => Input::Message { from: node(from), bytes: bytes.to_vec() },
        };
        value.handle(now, input);
        while let Some(output) = value.poll() {
            match output {
                Output::Persist { token, .. } => written.push_back(token),
                Output::Applied { index, .. } | Output::InstallSnapshot { index, .. } => {
                    assert!(last < Some(index), "{index} after {last:?}");
                    last = Some(index);
                }
                _ => {}
            }
        }
        let status = value.status();
        assert!(status.applied.map(|id| id.index) <= status.last.map(|id| id.index));
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let Trio { heard, disk, .. } = Trio::new();
    let records: Vec<Vec<u8>> = disk.records().iter().map(Record::encode).collect();
    let steps = heard.chunks(12).map(|some| {
        let with_flushes = some.iter().flat_map(|(from, bytes)| {
            let message = [&[from.0[0]], &bytes[..]].concat();
            [message, vec![1]]
        });
        ("raft", join(&with_flushes.collect::<Vec<_>>()))
    });
    steps.chain([for_choice("catalog", 2, join(&records))]).collect()
}
