//! What the consensus log keeps through crashes.

use std::fs;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::scratch::Scratch;

type Opened = (ConsensusLog, Vec<Vec<u8>>, Tail, Receiver<LogDone>);

fn open(folder: &DataFolder) -> Result<Opened, LogError> {
    let (sender, receiver) = channel();
    let (log, records, tail) = ConsensusLog::open(folder, move |done| {
        let _ = sender.send(done);
    })?;
    Ok((log, records, tail, receiver))
}

fn record(number: u32) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

#[test]
fn what_was_reported_done_is_there_again_in_order() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (log, records, tail, done) = open(&folder).unwrap();
    assert_eq!((records.len(), tail), (0, Tail::Whole));
    for token in 0..100u32 {
        log.append(u64::from(token), vec![record(2 * token), record(2 * token + 1)]).unwrap();
    }
    for token in 0..100 {
        let one = done.recv().unwrap();
        assert_eq!(one.token, token);
        assert!(one.result.unwrap() > ByteCount(0));
    }
    // The crash: the file as it is now, without the writer's end.
    let bytes = fs::read(folder.consensus_path()).unwrap();
    drop(log);
    fs::write(folder.consensus_path(), bytes).unwrap();
    let (_, records, tail, _) = open(&folder).unwrap();
    assert_eq!((records, tail), ((0..200).map(record).collect(), Tail::Whole));
}

#[test]
fn dropping_the_log_writes_what_waits() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (log, ..) = open(&folder).unwrap();
    for token in 0..500u32 {
        log.append(u64::from(token), vec![record(token)]).unwrap();
    }
    drop(log);
    assert_eq!(open(&folder).unwrap().1.len(), 500);
}

#[test]
fn a_rewrite_leaves_all_of_the_old_or_all_of_the_new() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (log, _, _, done) = open(&folder).unwrap();
    log.append(1, (0..50).map(record).collect()).unwrap();
    log.rewrite(2, vec![record(100)]).unwrap();
    log.append(3, vec![record(101)]).unwrap();
    let lengths: Vec<_> = done.iter().take(3).map(|done| done.result.unwrap()).collect();
    assert!(lengths[2].0 < 300, "{lengths:?}");
    drop(log);
    assert_eq!(open(&folder).unwrap().1, [record(100), record(101)]);
    // A crash in the middle of the next rewrite leaves its beginning beside the journal.
    let half = fs::read(folder.consensus_path()).unwrap();
    fs::write(folder.consensus_path().with_extension("new"), &half[..half.len() / 2]).unwrap();
    assert_eq!(open(&folder).unwrap().1, [record(100), record(101)]);
}

#[test]
fn damage_of_what_was_flushed_is_not_taken_for_a_crash() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (log, ..) = open(&folder).unwrap();
    log.append(1, (0..5).map(record).collect()).unwrap();
    drop(log);
    let path = folder.consensus_path();
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&path, &bad).unwrap();
    let error = open(&folder).unwrap_err();
    assert!(matches!(error, LogError::Journal(JournalError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("join as a new one"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bad);
    fs::write(&path, &good[..good.len() - 3]).unwrap();
    assert!(open(&folder).is_err());
    // What never was flushed may be torn.
    fs::write(&path, [&good[..], b"half a record"].concat()).unwrap();
    let (_, records, tail, _) = open(&folder).unwrap();
    assert_eq!((records.len(), tail), (5, Tail::Torn { bytes: 13 }));
}

#[test]
fn a_queue_that_is_full_refuses() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (sender, receiver) = channel::<()>();
    let (log, ..) = ConsensusLog::open(&folder, move |_| {
        // The writer waits here until the test lets it go on.
        let _ = receiver.recv();
    })
    .unwrap();
    log.append(1, vec![record(1)]).unwrap();
    // Whatever the writer has taken by now, it can't take more than one batch.
    log.waiting.fetch_add(QUEUE_MAX.0, Ordering::Relaxed);
    assert!(matches!(log.append(2, vec![record(2)]), Err(LogError::Behind)));
    log.waiting.fetch_sub(QUEUE_MAX.0, Ordering::Relaxed);
    log.append(3, vec![record(3)]).unwrap();
    drop(sender);
    drop(log);
    assert_eq!(open(&folder).unwrap().1, [record(1), record(3)]);
}

#[test]
fn after_a_failed_write_everything_fails_and_what_was_done_stays() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (log, _, _, done) = open(&folder).unwrap();
    log.append(1, vec![record(1)]).unwrap();
    assert!(done.recv().unwrap().result.is_ok());
    // A folder where the new journal should be made: the rewrite fails.
    let obstacle = folder.consensus_path().with_extension("new");
    fs::create_dir(&obstacle).unwrap();
    log.rewrite(2, vec![record(2)]).unwrap();
    assert!(matches!(done.recv().unwrap().result, Err(LogError::Write(_))));
    log.append(3, vec![record(3)]).unwrap();
    assert!(matches!(done.recv().unwrap().result, Err(LogError::Write(_))));
    drop(log);
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(open(&folder).unwrap().1, [record(1)]);
}

#[test]
fn a_full_disk_is_waited_for_and_fails_nothing() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let (log, _, _, done) = open(&folder).unwrap();
    log.append(1, vec![record(1)]).unwrap();
    assert!(done.recv().unwrap().result.is_ok());
    // The new journal is a device without room at first; the writer removes what it can't use.
    let device = folder.consensus_path().with_extension("new");
    std::os::unix::fs::symlink("/dev/full", &device).unwrap();
    log.rewrite(2, vec![record(2)]).unwrap();
    log.append(3, vec![record(3)]).unwrap();
    assert!(done.recv().unwrap().result.is_ok());
    assert!(done.recv().unwrap().result.is_ok());
    drop(log);
    assert_eq!(open(&folder).unwrap().1, [record(2), record(3)]);
}
