//! What crashes and bit flips do to a journal.

use super::*;
use crate::scratch::Scratch;

const PURPOSE: Purpose = Purpose::State { service: 7, branch: [0; 16] };

fn bodies() -> Vec<Vec<u8>> {
    vec![b"first".to_vec(), Vec::new(), vec![0x9d; 300], b"last".to_vec()]
}

/// A journal with `flushed` records flushed and the rest only written.
fn written(path: &Path, flushed: usize) -> Journal {
    let mut journal = Journal::create(path, PURPOSE).unwrap();
    journal.put_in_place().unwrap();
    for (at, body) in bodies().iter().enumerate() {
        journal.append(&[body]).unwrap();
        if at + 1 == flushed {
            journal.flush().unwrap();
        }
    }
    journal
}

type Read = (Vec<Vec<u8>>, Journal, Tail);

fn open(path: &Path) -> Result<Read, JournalError> {
    let mut found = Vec::new();
    let mut visit = |body| found.push(body);
    let (journal, tail) = Journal::open(path, PURPOSE, &mut visit)?.expect("the file is there");
    Ok((found, journal, tail))
}

#[test]
fn records_come_back_and_more_can_follow() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 4));
    let (found, mut journal, tail) = open(&path).unwrap();
    assert_eq!((found, tail), (bodies(), Tail::Whole));
    journal.append(&[b"more"]).unwrap();
    journal.flush().unwrap();
    let (found, _, _) = open(&path).unwrap();
    assert_eq!(found.last().unwrap(), b"more");
    assert!(Journal::open(&scratch.path().join("none"), PURPOSE, &mut |_| {}).unwrap().is_none());
}

#[test]
fn a_cut_at_every_byte_of_what_was_not_flushed_loses_only_the_end() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 2));
    let good = fs::read(&path).unwrap();
    let flushed_end = HEAD_BYTES as usize + 2 * 56 + 5;
    for length in flushed_end..=good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let (found, mut journal, tail) = open(&path).unwrap();
        assert!(found.len() >= 2 && bodies().starts_with(&found), "{length}");
        let whole = journal.bytes() as usize;
        let expected = match length - whole {
            0 => Tail::Whole,
            cut => Tail::Torn { bytes: cut as u64 },
        };
        assert_eq!(tail, expected);
        // What follows takes the place of what was cut off.
        journal.append(&[b"again"]).unwrap();
        journal.flush().unwrap();
        let (after, _, tail) = open(&path).unwrap();
        assert_eq!((after.len(), tail), (found.len() + 1, Tail::Whole));
    }
}

#[test]
fn a_cut_of_what_was_flushed_is_damage() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 4));
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{length}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_what_was_flushed_is_damage() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    let mut journal = written(&path, 4);
    journal.append(&[b"not flushed"]).unwrap();
    let good = fs::read(&path).unwrap();
    let flushed_end = good.len() - 56 - 11;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        match open(&path) {
            Err(JournalError::Damaged { .. }) => assert!(at < flushed_end, "{at}"),
            Err(JournalError::NewerFormat { .. }) => assert!((8..12).contains(&at), "{at}"),
            Err(error) => panic!("{at}: {error}"),
            // The mark, or unused bytes of the head: the records prove themselves.
            Ok((found, _, Tail::Whole)) => {
                assert!((48..64).contains(&at), "{at}");
                assert_eq!(found.len(), 5);
            }
            Ok((found, _, Tail::Torn { .. })) => {
                assert!(at >= flushed_end, "{at}");
                assert_eq!(found, bodies());
            }
        }
    }
}

#[test]
fn unflushed_records_may_reach_the_disk_in_any_order() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 1));
    let mut bytes = fs::read(&path).unwrap();
    // The second record never reached the disk, the third and fourth did.
    let second = HEAD_BYTES as usize + 56 + 5;
    bytes[second..second + 56].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (found, _, tail) = open(&path).unwrap();
    assert_eq!(found, bodies()[..1]);
    assert_eq!(tail, Tail::Torn { bytes: (bytes.len() - second) as u64 });
}

#[test]
fn a_later_record_proves_that_an_earlier_one_was_flushed() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 2));
    let mut bytes = fs::read(&path).unwrap();
    // The mark never reached the disk, and the second record is gone.
    let head = FileHead { format: JOURNAL_FORMAT, purpose: PURPOSE, mark: Some(0) };
    bytes[..HEAD_BYTES as usize].copy_from_slice(&head.encode());
    let second = HEAD_BYTES as usize + 56 + 5;
    bytes[second + 9] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { at, .. } if at == second as u64), "{error}");
}

#[test]
fn another_journal_and_a_newer_format_are_refused() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 4));
    let error = Journal::open(&path, Purpose::Consensus, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("it is the journal of another"), "{error}");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, JournalError::NewerFormat { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("use a newer jizoku"), "{error}");
}

#[test]
fn a_lying_length_is_not_believed() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 0));
    let lie =
        RecordHead { length: u32::MAX, number: 5, flushed: 0, last: true, body_hash: [0; 16] };
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(&lie.encode());
    fs::write(&path, &bytes).unwrap();
    let (found, _, tail) = open(&path).unwrap();
    assert_eq!((found, tail), (bodies(), Tail::Torn { bytes: 56 }));
}

#[test]
fn a_journal_that_was_being_made_has_no_say() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    drop(written(&path, 4));
    let mut unfinished_one = Journal::create(&path, PURPOSE).unwrap();
    unfinished_one.append(&[b"half"]).unwrap();
    drop(unfinished_one);
    let (found, _, _) = open(&path).unwrap();
    assert_eq!(found, bodies());
    assert!(!unfinished(&path).exists());
}

#[test]
fn the_search_for_later_records_crosses_its_windows() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    let mut journal = Journal::create(&path, PURPOSE).unwrap();
    journal.put_in_place().unwrap();
    // The head of the third record lies across the border of the search's first window.
    journal.append(&[b"x"]).unwrap();
    let first_end = journal.bytes() as usize;
    journal.append(&[vec![1; (1 << 20) - 56 - 20]]).unwrap();
    journal.flush().unwrap();
    journal.append(&[b"y"]).unwrap();
    drop(journal);
    let mut bytes = fs::read(&path).unwrap();
    let head = FileHead { format: JOURNAL_FORMAT, purpose: PURPOSE, mark: Some(0) };
    bytes[..HEAD_BYTES as usize].copy_from_slice(&head.encode());
    bytes[first_end + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(open(&path), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_group_that_is_not_whole_is_cut_off() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    let mut journal = Journal::create(&path, PURPOSE).unwrap();
    journal.put_in_place().unwrap();
    journal.append(&[b"a", b"b"]).unwrap();
    let first = journal.bytes();
    journal.append(&[b"c", b"d", b"e"]).unwrap();
    drop(journal);
    let good = fs::read(&path).unwrap();
    for length in first as usize..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let (found, journal, _) = open(&path).unwrap();
        assert_eq!((found, journal.bytes()), (vec![b"a".to_vec(), b"b".to_vec()], first));
        assert_eq!(fs::metadata(&path).unwrap().len(), first);
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(open(&path).unwrap().0.len(), 5);
}
