//! Records read back; damage is refused.

use super::*;
use crate::log::Command;

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { id: id(term, index), payload: Payload::Blank }
}

fn command(term: u64, index: u64) -> Entry {
    let command = Command { origin: NodeId([1; 32]), life: 2, id: index, bytes: vec![3; 10] };
    Entry { id: id(term, index), payload: Payload::Command(command) }
}

fn snapshot(term: u64, index: u64) -> Record {
    let meta = SnapshotMeta { last: Some(id(term, index)), ..SnapshotMeta::default() };
    Record(Change::Snapshot(meta, vec![1, 2, 3]))
}

fn replayed(records: &[Record]) -> Recovered {
    let mut recovered = Recovered::new();
    for record in records {
        let read = Record::decode(&record.encode()).expect("what was encoded");
        recovered.replay(read).expect("in order");
    }
    recovered
}

#[test]
fn records_add_up_and_can_be_rewritten() {
    let recovered = replayed(&[
        Record(Change::Append(vec![blank(1, 0), command(1, 1), command(1, 2), command(1, 3)])),
        Record(Change::Vote(Vote { term: 2, node: NodeId([2; 32]), elected: true })),
        Record(Change::Truncate(3)),
        Record(Change::Append(vec![blank(2, 3), command(2, 4)])),
        snapshot(2, 3),
        Record(Change::Purge(id(1, 2))),
    ]);
    assert_eq!(recovered.last(), Some(id(2, 4)));
    assert_eq!(recovered.entries.keys().copied().collect::<Vec<_>>(), [3, 4]);
    assert_eq!(replayed(&recovered.records()), recovered);
    assert!(!recovered.is_empty());
}

#[test]
fn a_snapshot_may_lie_beyond_the_log() {
    let recovered = replayed(&[
        Record(Change::Append(vec![blank(1, 0)])),
        snapshot(4, 100),
        Record(Change::Purge(id(4, 100))),
        Record(Change::Append(vec![blank(4, 101)])),
    ]);
    assert_eq!(recovered.last(), Some(id(4, 101)));
    assert_eq!(replayed(&recovered.records()), recovered);
}

#[test]
fn a_record_out_of_place_is_refused_and_changes_nothing() {
    let before = replayed(&[
        Record(Change::Append(vec![blank(3, 0), blank(3, 1), blank(3, 2)])),
        snapshot(3, 1),
        Record(Change::Purge(id(3, 1))),
    ]);
    for record in [
        Record(Change::Append(vec![blank(3, 4)])),
        Record(Change::Append(vec![blank(3, 2)])),
        Record(Change::Append(vec![blank(2, 3)])),
        Record(Change::Truncate(1)),
        snapshot(2, 9),
        Record(Change::Purge(id(3, 2))),
    ] {
        let mut recovered = before.clone();
        assert_eq!(recovered.replay(record.clone()), Err(RecoverError::OutOfPlace), "{record:?}");
        assert_eq!(recovered, before);
    }
}

#[test]
fn bytes_that_are_no_record_are_refused() {
    let good = snapshot(1, 1).encode();
    assert_eq!(Record::decode(&[]), Err(RecoverError::Malformed));
    assert_eq!(Record::decode(&good[..good.len() - 1]), Err(RecoverError::Malformed));
    assert_eq!(Record::decode(&[good.clone(), vec![0]].concat()), Err(RecoverError::Malformed));
    let mut newer = good;
    newer[0] = RECORD_FORMAT + 1;
    assert_eq!(Record::decode(&newer), Err(RecoverError::Format(RECORD_FORMAT + 1)));
}

#[test]
fn taking_over_keeps_every_entry_and_leaves_one_voter() {
    let me = NodeId([9; 32]);
    for past in [
        vec![],
        vec![Record(Change::Append(vec![blank(1, 0), command(5, 1)]))],
        vec![snapshot(7, 30), Record(Change::Purge(id(7, 30)))],
    ] {
        let mut recovered = replayed(&past);
        let before = recovered.clone();
        let records = recovered.take_over(me);
        let mut written = before.clone();
        for record in records {
            written.replay(record).expect("in order");
        }
        assert_eq!(written, recovered);
        assert!(before.entries.iter().all(|(index, entry)| recovered.entries[index] == *entry));
        let (_, last) = recovered.entries.last_key_value().expect("one was added");
        let Payload::Members(members) = &last.payload else { panic!("{last:?}") };
        assert_eq!((members.voters(), members.all.len()), (BTreeSet::from([me]), 1));
    }
}
