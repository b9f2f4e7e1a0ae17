//! What the state store keeps, refuses and reports.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::scratch::Scratch;

const ONE: ServiceId = ServiceId(1);
const TWO: ServiceId = ServiceId(2);

fn record(kind: RecordKind, text: &str) -> Record {
    Record { kind, bytes: text.as_bytes().to_vec() }
}

fn base(text: &str) -> Record {
    record(RecordKind::Base, text)
}

fn diff(text: &str) -> Record {
    record(RecordKind::Diff, text)
}

struct Opened {
    store: StateStore,
    found: Vec<(ServiceId, Verdict)>,
    done: Receiver<StateDone>,
}

fn open_with(folder: &DataFolder, change: impl FnOnce(&mut StateOptions)) -> Opened {
    let mut options = StateOptions::new(folder, ByteCount(0));
    change(&mut options);
    let (sender, done) = channel();
    let mut found = Vec::new();
    let store = StateStore::open(
        folder,
        options,
        &mut |service, verdict| found.push((service, verdict)),
        move |done| {
            let _ = sender.send(done);
        },
    )
    .unwrap();
    Opened { store, found, done }
}

fn open(folder: &DataFolder) -> Opened {
    open_with(folder, |_| {})
}

/// The records of `service`, which must be good.
fn records(opened: &Opened, service: ServiceId) -> (Vec<Record>, Tail) {
    let found = opened.found.iter().find(|(id, _)| *id == service);
    match &found.expect("it was found").1 {
        Verdict::Good { records, tail } => (records.clone(), *tail),
        other => panic!("{other:?}"),
    }
}

fn journal_of(folder: &Path, service: ServiceId) -> PathBuf {
    folder.join(format!("state/{service}/journal"))
}

#[test]
fn records_come_back_by_service_and_in_order() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    let kinds = [RecordKind::Base, RecordKind::Diff, RecordKind::Commit, RecordKind::Seal];
    for (token, kind) in kinds.into_iter().enumerate() {
        for service in [ONE, TWO] {
            let record = record(kind, &format!("{service} {token}"));
            opened.store.append(service, token as u64, record, Urgency::Now).unwrap();
        }
    }
    let mut done: Vec<_> = opened.done.iter().take(8).collect();
    done.sort_by_key(|done| (done.service, done.token));
    for (at, one) in done.iter().enumerate() {
        assert_eq!(one.token, at as u64 % 4);
        assert!(one.result.as_ref().unwrap() > &ByteCount(0));
    }
    drop(opened);
    let opened = open(&folder);
    assert_eq!(opened.found.len(), 2);
    let (found, tail) = records(&opened, TWO);
    let expected: Vec<_> = kinds
        .into_iter()
        .enumerate()
        .map(|(token, kind)| record(kind, &format!("{TWO} {token}")))
        .collect();
    assert_eq!((found, tail), (expected, Tail::Whole));
}

#[test]
fn soon_is_flushed_by_itself_and_shares_the_flush_of_now() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open_with(&folder, |options| options.flush_within = Duration::from_millis(30));
    opened.store.append(ONE, 1, base("b"), Urgency::Soon).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 1);
    drop(opened);
    let opened = open_with(&folder, |options| options.flush_within = Duration::from_secs(3600));
    opened.store.append(ONE, 2, diff("d"), Urgency::Soon).unwrap();
    opened.store.append(ONE, 3, diff("e"), Urgency::Now).unwrap();
    let tokens: Vec<_> = opened.done.iter().take(2).map(|done| done.token).collect();
    assert_eq!(tokens, [2, 3]);
    opened.store.append(ONE, 4, diff("f"), Urgency::Soon).unwrap();
    drop(opened.store);
    assert_eq!(opened.done.iter().map(|done| done.token).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_rewrite_replaces_everything_and_what_follows_is_kept() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    for token in 0..50 {
        opened.store.append(ONE, token, diff("old"), Urgency::Soon).unwrap();
    }
    // Several slices long, so that appends come in the middle of it.
    let large = Record { kind: RecordKind::Base, bytes: vec![7; 6 << 20] };
    opened.store.rewrite(ONE, 100, vec![large.clone(), large.clone()]).unwrap();
    for token in 101..110 {
        opened.store.append(ONE, token, diff("new"), Urgency::Now).unwrap();
    }
    let all: Vec<_> = opened.done.iter().take(60).collect();
    assert!(all.iter().all(|done| done.result.is_ok()), "{all:?}");
    opened.store.append(ONE, 111, diff("last"), Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 111);
    drop(opened);
    let (found, _) = records(&open(&folder), ONE);
    let mut expected = vec![large.clone(), large];
    expected.extend((101..110).map(|_| diff("new")));
    expected.push(diff("last"));
    assert_eq!(found, expected);
}

#[test]
fn a_newer_rewrite_replaces_one_under_way_and_both_are_reported() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    let large = Record { kind: RecordKind::Base, bytes: vec![7; 20 << 20] };
    opened.store.rewrite(ONE, 1, vec![large.clone(), large]).unwrap();
    opened.store.rewrite(ONE, 2, vec![base("small")]).unwrap();
    let mut done: Vec<_> = opened.done.iter().take(2).collect();
    done.sort_by_key(|done| done.token);
    assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [1, 2]);
    assert!(done.iter().all(|done| done.result.is_ok()));
    drop(opened);
    assert_eq!(records(&open(&folder), ONE).0, [base("small")]);
}

#[test]
fn a_crash_at_every_byte_of_what_was_not_flushed_keeps_the_rest() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open_with(&folder, |options| options.flush_within = Duration::from_secs(3600));
    opened.store.append(ONE, 1, base("base"), Urgency::Now).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    let path = journal_of(scratch.path(), ONE);
    let flushed = fs::read(&path).unwrap();
    opened.store.append(ONE, 2, diff("one"), Urgency::Soon).unwrap();
    opened.store.append(ONE, 3, diff("two"), Urgency::Soon).unwrap();
    // Another service's flush tells that the writer has got so far.
    opened.store.append(TWO, 4, base("x"), Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().service, TWO);
    let crashed = fs::read(&path).unwrap();
    drop(opened);
    for length in flushed.len()..=crashed.len() {
        fs::write(&path, &crashed[..length]).unwrap();
        let (found, tail) = records(&open(&folder), ONE);
        let all = [base("base"), diff("one"), diff("two")];
        assert!(!found.is_empty() && all.starts_with(&found), "{length}");
        let ends = [flushed.len(), flushed.len() + 59, crashed.len()];
        assert_eq!(tail == Tail::Whole, ends.contains(&length), "{length}");
    }
}

#[test]
fn a_damaged_service_is_moved_aside_and_the_others_are_not_touched() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    for service in [ONE, TWO] {
        opened.store.append(service, 1, base("base"), Urgency::Now).unwrap();
        opened.store.append(service, 2, diff("diff"), Urgency::Now).unwrap();
    }
    drop(opened);
    let path = journal_of(scratch.path(), ONE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 56] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let opened = open(&folder);
    let Verdict::Damaged { what, moved_to } = &opened.found[0].1 else {
        panic!("{:?}", opened.found[0]);
    };
    assert!(what.contains("damaged at byte 64"), "{what}");
    assert_eq!(fs::read(moved_to.as_ref().unwrap().join("journal")).unwrap(), bytes);
    assert_eq!(records(&opened, TWO).0.len(), 2);
    // The service can be held anew.
    opened.store.rewrite(ONE, 3, vec![base("again")]).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    drop(opened);
    assert_eq!(records(&open(&folder), ONE).0, [base("again")]);
}

#[test]
fn a_newer_journal_is_left_alone() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.append(ONE, 1, base("base"), Urgency::Now).unwrap();
    drop(opened);
    let path = journal_of(scratch.path(), ONE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 7;
    fs::write(&path, &bytes).unwrap();
    let opened = open(&folder);
    assert!(matches!(&opened.found[0].1, Verdict::Newer { what } if what.contains("format 7")));
    opened.store.append(ONE, 2, diff("d"), Urgency::Now).unwrap();
    opened.store.rewrite(ONE, 3, vec![base("b")]).unwrap();
    for done in opened.done.iter().take(2) {
        assert!(matches!(done.result, Err(WriteError::Failed(_))), "{done:?}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn without_room_states_are_refused_and_seals_are_not() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open_with(&folder, |options| {
        options.reserve = ByteCount::mib(1);
        options.room = Box::new(|| Ok(ByteCount::kib(900)));
    });
    assert!(!opened.store.has_room());
    assert_eq!(opened.store.append(ONE, 1, base("b"), Urgency::Now), Err(Refused::NoRoom));
    assert_eq!(opened.store.append(ONE, 2, diff("d"), Urgency::Now), Err(Refused::NoRoom));
    assert_eq!(opened.store.rewrite(ONE, 3, vec![base("b")]), Err(Refused::NoRoom));
    let seal = record(RecordKind::Seal, "s");
    opened.store.append(ONE, 4, seal.clone(), Urgency::Now).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    drop(opened);
    assert_eq!(records(&open(&folder), ONE).0, [seal]);
}

#[test]
fn after_a_failed_write_nothing_follows_until_a_rewrite() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    // A file where the service's folder should be: its journal can't be made.
    let obstacle = scratch.path().join("state/svc_1");
    fs::write(&obstacle, "").unwrap();
    opened.store.append(ONE, 1, base("b"), Urgency::Now).unwrap();
    assert!(matches!(opened.done.recv().unwrap().result, Err(WriteError::Failed(_))));
    fs::remove_file(&obstacle).unwrap();
    opened.store.append(ONE, 2, diff("d"), Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().result, Err(WriteError::Gap));
    opened.store.rewrite(ONE, 3, vec![base("new")]).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    opened.store.append(ONE, 4, diff("d"), Urgency::Now).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    drop(opened);
    assert_eq!(records(&open(&folder), ONE).0, [base("new"), diff("d")]);
}

#[test]
fn a_removed_service_is_gone() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.append(ONE, 1, base("b"), Urgency::Soon).unwrap();
    opened.store.remove(ONE, 2).unwrap();
    opened.store.remove(TWO, 3).unwrap();
    let tokens: Vec<_> = opened.done.iter().take(3).map(|done| done.token).collect();
    assert_eq!(tokens, [1, 2, 3]);
    assert!(!scratch.path().join("state/svc_1").exists());
    drop(opened);
    assert!(open(&folder).found.is_empty());
}

#[test]
fn strange_names_and_empty_folders_are_passed_over() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    for name in ["svc_", "svc_007", "svc_x", "other", "svc_9"] {
        fs::create_dir(scratch.path().join("state").join(name)).unwrap();
    }
    let opened = open(&folder);
    assert_eq!(opened.found.len(), 1);
    assert_eq!(records(&opened, ServiceId(9)), (Vec::new(), Tail::Whole));
}

#[test]
fn a_full_queue_refuses() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.shared.waiting.fetch_add(QUEUE_MAX.0, Ordering::Relaxed);
    assert_eq!(opened.store.append(ONE, 1, base("b"), Urgency::Now), Err(Refused::Behind));
    assert_eq!(opened.store.waiting(), QUEUE_MAX);
    opened.store.shared.waiting.fetch_sub(QUEUE_MAX.0, Ordering::Relaxed);
    opened.store.append(ONE, 2, base("b"), Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 2);
}
