//! Records through entries and back; logs that break off or are damaged.

use super::*;
use crate::chain::NONE;
use crate::fixture::{DISK, LINE, MEMORY, id, point, ship};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries(record: &Record) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut put = |entry: &Entry| {
        entries.push(entry.clone());
        Ok::<(), ()>(())
    };
    record.write(&mut put).expect("it never fails");
    entries
}

fn checkpoint(counter: u64, base: &Point, to: &Point) -> Record {
    let part = ship(1, base, to).body;
    let (id, base, root) = (to.id, base.id, to.root());
    let head = Head { id, base, root, counter, durable: DISK, parts: 1 };
    Record::Checkpoint { line: LINE, head, parts: vec![part] }
}

/// Some records, and what they leave behind.
fn sample() -> (Vec<Record>, Loaded) {
    let [one, two, three, other] = [point(1, 1), point(1, 2), point(1, 3), point(2, 3)];
    let records = vec![
        Record::Sealed { line: LINE, counter: 1, durable: MEMORY, above: None },
        checkpoint(1, &Point::none(), &one),
        checkpoint(1, &one, &two),
        Record::Committed { line: LINE, id: one.id },
        checkpoint(1, &two, &three),
        Record::Sealed { line: LINE, counter: 2, durable: DISK, above: Some(two.id) },
        checkpoint(2, &two, &other),
    ];
    let mut chain = Chain::default();
    chain.push(NONE, one.clone());
    chain.commit(one.id);
    chain.push(one.id, two.clone());
    chain.push(two.id, other);
    (records, Loaded { line: LINE, counter: 2, durable: DISK, chain, whole: true })
}

fn replay(entries: &[Entry]) -> Result<Loaded, ReplayError> {
    let mut replay = Replay::new();
    entries.iter().try_for_each(|entry| replay.push(entry))?;
    Ok(replay.finish(LINE, true))
}

fn assert_same(a: &Loaded, b: &Loaded) {
    assert_eq!((a.counter, a.durable, a.whole), (b.counter, b.durable, b.whole));
    assert_eq!(a.chain.ready(), b.chain.ready());
    assert_eq!(a.chain.pending(), b.chain.pending());
}

#[test]
fn records_read_back_to_what_they_left() {
    let (records, loaded) = sample();
    let log: Vec<Entry> = records.iter().flat_map(entries).collect();
    for entry in &log {
        let bytes = jizoku_types::encode(entry);
        assert!(bytes.len() <= PART_MAX + 200);
        assert_eq!(jizoku_types::decode(&bytes).as_ref(), Ok(entry));
    }
    assert_same(&replay(&log).expect("own records"), &loaded);
}

#[test]
fn a_snapshot_says_all_and_an_unfinished_one_nothing() {
    let (records, loaded) = sample();
    let (counter, durable, chain) = (loaded.counter, loaded.durable, loaded.chain.clone());
    let snapshot = entries(&Record::Snapshot { line: LINE, counter, durable, chain });
    assert_same(&replay(&snapshot).expect("own records"), &loaded);
    // After other records, at whatever entry the writing ended.
    let log: Vec<Entry> = records[..3].iter().flat_map(entries).collect();
    let before = replay(&log).expect("own records");
    for end in 0..snapshot.len() {
        let torn: Vec<Entry> = log.iter().chain(&snapshot[..end]).cloned().collect();
        assert_same(&replay(&torn).expect("own records"), &before);
    }
}

#[test]
fn a_checkpoint_counts_as_a_whole_or_not() {
    let (records, _) = sample();
    let log: Vec<Entry> = records[..3].iter().flat_map(entries).collect();
    let torn = replay(&log[..log.len() - 1]).expect("its parts are missing");
    assert_eq!(torn.chain.top_id(), id(1, 1));
}

#[test]
fn what_can_t_be_is_refused_and_what_was_before_stands() {
    let (records, _) = sample();
    let log: Vec<Entry> = records.iter().flat_map(entries).collect();
    let mut damaged = log.clone();
    let Entry::Checkpoint(head) = &mut damaged[3] else { panic!("a head") };
    head.root.0[0] ^= 1;
    let part = Entry::Part(Part::new(vec![1]));
    let mut no_parts = log.clone();
    let Entry::Checkpoint(head) = &mut no_parts[1] else { panic!("a head") };
    head.parts = 0;
    for (what, log, error) in [
        ("a wrong root", damaged, ReplayError::Damaged),
        ("a damaged part", vec![log[1].clone(), part.clone()], ReplayError::Damaged),
        ("no parts", no_parts, ReplayError::Damaged),
        ("a part of nothing", vec![part], ReplayError::OutOfPlace),
        ("an end of nothing", vec![Entry::End], ReplayError::OutOfPlace),
        ("two heads", vec![log[1].clone(), log[1].clone()], ReplayError::OutOfPlace),
        ("no base", log[3..].to_vec(), ReplayError::BaseMissing),
    ] {
        assert_eq!(replay(&log).map(|_| ()), Err(error), "{what}: {error}");
    }
    let mut reading = Replay::new();
    log[..3].iter().for_each(|entry| reading.push(entry).expect("own records"));
    assert_eq!(reading.push(&Entry::End), Err(ReplayError::OutOfPlace));
    let loaded = reading.finish(LINE, false);
    assert_eq!((loaded.chain.top_id(), loaded.whole), (id(1, 1), false));
}

#[test]
fn an_empty_log_is_an_empty_line() {
    let loaded = replay(&[]).expect("nothing");
    assert_eq!((loaded.counter, loaded.durable, loaded.chain.top()), (0, MEMORY, None));
    assert!(entries(&Record::Forgotten { line: LINE }).is_empty());
}

#[test]
fn entries_are_golden() {
    let root = Digest([0xaa; 32]);
    let (id, base) = (id(3, 300), id(2, 299));
    let head = Head { id, base, root, counter: 4, durable: DISK, parts: 2 };
    for (entry, expected) in [
        (Entry::Begin { counter: 4, durable: MEMORY }, String::from("000400")),
        (Entry::End, "01".into()),
        (Entry::Checkpoint(head), format!("0203ac0202ab02{}040102", "aa".repeat(32))),
        (Entry::Part(Part::new(vec![7, 8])), "03020708".into()),
        (Entry::Committed { id }, "0403ac02".into()),
        (Entry::Sealed { counter: 4, durable: DISK, above: None }, "05040100".into()),
        (Entry::Sealed { counter: 4, durable: DISK, above: Some(id) }, "0504010103ac02".into()),
    ] {
        assert_eq!(hex(&jizoku_types::encode(&entry)), expected);
    }
}
