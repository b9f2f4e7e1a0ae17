//! What the state store keeps, refuses and reports.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::scratch::Scratch;

const ONE: Line = Line { service: ServiceId(1), branch: BranchId::MAIN };
const TWO: Line = Line { service: ServiceId(2), branch: BranchId::MAIN };
const BRANCH: Line = Line { service: ServiceId(1), branch: BranchId([0xab; 16]) };

fn entry(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// A source that gives these entries.
fn source(entries: Vec<Vec<u8>>) -> Source {
    Box::new(move |put| entries.iter().try_for_each(|entry| put(entry)))
}

struct Opened {
    store: StateStore,
    found: Vec<(Line, Vec<Vec<u8>>, Verdict)>,
    done: Receiver<StateDone>,
}

fn open_with(folder: &DataFolder, change: impl FnOnce(&mut StateOptions)) -> Opened {
    let mut options = StateOptions::new(folder, ByteCount(0));
    change(&mut options);
    let (sender, done) = channel();
    let mut found = Vec::new();
    let mut entries = Vec::new();
    let mut visit = |line, one| match one {
        Found::Entry(entry) => entries.push(entry),
        Found::End(verdict) => found.push((line, std::mem::take(&mut entries), verdict)),
    };
    let tell = move |done| {
        let _ = sender.send(done);
    };
    let store = StateStore::open(folder, options, &mut visit, tell).unwrap();
    Opened { store, found, done }
}

fn open(folder: &DataFolder) -> Opened {
    open_with(folder, |_| {})
}

/// The entries of `line`, which must be good.
fn entries(opened: &Opened, line: Line) -> (Vec<Vec<u8>>, Tail) {
    let found = opened.found.iter().find(|(other, ..)| *other == line).expect("it was found");
    match &found.2 {
        Verdict::Good { tail } => (found.1.clone(), *tail),
        other => panic!("{other:?}"),
    }
}

fn journal_of(folder: &Path, line: Line) -> PathBuf {
    folder.join("state").join(line.folder_name()).join("journal")
}

#[test]
fn entries_come_back_by_line_and_in_order() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    let text = |line: Line, token: u64, at: u64| entry(&format!("{line:?} {token} {at}"));
    for token in 0..4 {
        for line in [ONE, TWO, BRANCH] {
            let group = vec![text(line, token, 0), text(line, token, 1)];
            opened.store.append(line, token, group, Urgency::Now).unwrap();
        }
    }
    let mut done: Vec<_> = opened.done.iter().take(12).collect();
    done.sort_by_key(|done| (done.line, done.token));
    for (at, one) in done.iter().enumerate() {
        assert_eq!(one.token, at as u64 % 4);
        assert!(one.result.as_ref().unwrap() > &ByteCount(0));
    }
    drop(opened);
    let opened = open(&folder);
    assert_eq!(opened.found.len(), 3);
    for line in [ONE, TWO, BRANCH] {
        let expected: Vec<_> = (0..8).map(|at| text(line, at / 2, at % 2)).collect();
        assert_eq!(entries(&opened, line), (expected, Tail::Whole));
    }
}

#[test]
fn soon_is_flushed_by_itself_and_shares_the_flush_of_now() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open_with(&folder, |options| options.flush_within = Duration::from_millis(30));
    opened.store.append(ONE, 1, vec![entry("b")], Urgency::Soon).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 1);
    drop(opened);
    let opened = open_with(&folder, |options| options.flush_within = Duration::from_secs(3600));
    opened.store.append(ONE, 2, vec![entry("d")], Urgency::Soon).unwrap();
    opened.store.append(ONE, 3, vec![entry("e")], Urgency::Now).unwrap();
    let tokens: Vec<_> = opened.done.iter().take(2).map(|done| done.token).collect();
    assert_eq!(tokens, [2, 3]);
    opened.store.append(ONE, 4, vec![entry("f")], Urgency::Soon).unwrap();
    drop(opened.store);
    assert_eq!(opened.done.iter().map(|done| done.token).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_rewrite_replaces_everything_and_what_is_appended_meanwhile_is_kept() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    for token in 0..50 {
        opened.store.append(ONE, token, vec![entry("old")], Urgency::Soon).unwrap();
    }
    // The source waits until the test lets it go on: so the appends come in the middle of it.
    let (go_on, wait) = channel::<()>();
    let large = vec![7; 5 << 20];
    let base = large.clone();
    let slow: Source = Box::new(move |put| {
        put(&base)?;
        let _ = wait.recv();
        put(b"end")
    });
    opened.store.rewrite(ONE, 100, slow).unwrap();
    for token in 101..110 {
        opened.store.append(ONE, token, vec![entry("new"), entry("er")], Urgency::Now).unwrap();
    }
    // They are safe in the old journal, whatever becomes of the rewrite.
    let early: Vec<_> = opened.done.iter().take(59).collect();
    assert!(early.iter().all(|done| done.result.is_ok() && done.token != 100), "{early:?}");
    let old = fs::read(journal_of(scratch.path(), ONE)).unwrap();
    go_on.send(()).unwrap();
    let last = opened.done.recv().unwrap();
    assert_eq!((last.token, last.result.is_ok()), (100, true));
    opened.store.append(ONE, 111, vec![entry("last")], Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 111);
    drop(opened);
    let (found, _) = entries(&open(&folder), ONE);
    let newer = (101..110).flat_map(|_| [entry("new"), entry("er")]);
    let mut expected: Vec<_> = [large, entry("end")].into_iter().chain(newer.clone()).collect();
    expected.push(entry("last"));
    assert_eq!(found, expected);
    // A crash before the end of the rewrite would have left this.
    fs::write(journal_of(scratch.path(), ONE), old).unwrap();
    let (found, _) = entries(&open(&folder), ONE);
    assert_eq!(found, (0..50).map(|_| entry("old")).chain(newer).collect::<Vec<_>>());
}

#[test]
fn a_newer_rewrite_replaces_one_under_way_and_both_are_reported() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    let (go_on, wait) = channel::<()>();
    let slow: Source = Box::new(move |put| {
        let _ = wait.recv();
        put(b"one that is never seen")
    });
    opened.store.rewrite(ONE, 1, slow).unwrap();
    opened.store.append(ONE, 2, vec![entry("covered by the next")], Urgency::Now).unwrap();
    opened.store.rewrite(ONE, 3, source(vec![entry("small")])).unwrap();
    go_on.send(()).unwrap();
    let mut done: Vec<_> = opened.done.iter().take(3).collect();
    done.sort_by_key(|done| done.token);
    assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
    drop(opened);
    assert_eq!(entries(&open(&folder), ONE).0, [entry("small")]);
}

#[test]
fn a_rewrite_that_fails_or_falls_behind_leaves_the_old_journal() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.append(ONE, 1, vec![entry("old")], Urgency::Now).unwrap();
    let failing: Source = Box::new(|put| {
        put(b"x")?;
        Err(io::Error::other("no more"))
    });
    opened.store.rewrite(ONE, 2, failing).unwrap();
    let results: Vec<_> = opened.done.iter().take(2).map(|done| done.result).collect();
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(WriteError::Failed("no more".to_owned())));
    let (go_on, wait) = channel::<()>();
    let slow: Source = Box::new(move |put| {
        let _ = wait.recv();
        put(b"y")
    });
    opened.store.rewrite(ONE, 3, slow).unwrap();
    let much = LATER_MAX.as_usize() / 4 + 1;
    for token in 4..8 {
        opened.store.append(ONE, token, vec![vec![0; much]], Urgency::Now).unwrap();
    }
    let done: Vec<_> = opened.done.iter().take(5).collect();
    let given_up = done.iter().find(|done| done.token == 3).unwrap();
    assert_eq!(given_up.result, Err(WriteError::Behind));
    assert!(done.iter().all(|done| done.token == 3 || done.result.is_ok()));
    drop(go_on);
    drop(opened);
    assert_eq!(entries(&open(&folder), ONE).0.len(), 5);
}

#[test]
fn a_crash_at_every_byte_of_what_was_not_flushed_keeps_the_rest() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open_with(&folder, |options| options.flush_within = Duration::from_secs(3600));
    opened.store.append(ONE, 1, vec![entry("base")], Urgency::Now).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    let path = journal_of(scratch.path(), ONE);
    let flushed = fs::read(&path).unwrap();
    opened.store.append(ONE, 2, vec![entry("1a"), entry("1b")], Urgency::Soon).unwrap();
    opened.store.append(ONE, 3, vec![entry("two")], Urgency::Soon).unwrap();
    // Another line's flush tells that the writer has got so far.
    opened.store.append(TWO, 4, vec![entry("x")], Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().line, TWO);
    let crashed = fs::read(&path).unwrap();
    drop(opened);
    let first_group = flushed.len() + 2 * 58;
    for length in flushed.len()..=crashed.len() {
        fs::write(&path, &crashed[..length]).unwrap();
        let (found, tail) = entries(&open(&folder), ONE);
        let all = [entry("base"), entry("1a"), entry("1b"), entry("two")];
        let whole = match length {
            length if length == crashed.len() => 4,
            length if length >= first_group => 3,
            _ => 1,
        };
        assert_eq!(found, all[..whole], "{length}");
        let ends = [flushed.len(), first_group, crashed.len()];
        assert_eq!(tail == Tail::Whole, ends.contains(&length), "{length}");
    }
}

#[test]
fn a_damaged_line_is_moved_aside_and_the_others_are_not_touched() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    for line in [ONE, TWO] {
        opened.store.append(line, 1, vec![entry("base")], Urgency::Now).unwrap();
        opened.store.append(line, 2, vec![entry("diff")], Urgency::Now).unwrap();
    }
    drop(opened);
    let path = journal_of(scratch.path(), ONE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 56] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let opened = open(&folder);
    let Verdict::Damaged { what, moved_to } = &opened.found[0].2 else {
        panic!("{:?}", opened.found[0]);
    };
    assert!(what.contains("damaged at byte 64"), "{what}");
    assert_eq!(fs::read(moved_to.as_ref().unwrap().join("journal")).unwrap(), bytes);
    assert_eq!(entries(&opened, TWO).0.len(), 2);
    // A diff without its base would be worse than nothing.
    opened.store.append(ONE, 3, vec![entry("diff")], Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().result, Err(WriteError::Gap));
    opened.store.rewrite(ONE, 4, source(vec![entry("again")])).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    drop(opened);
    assert_eq!(entries(&open(&folder), ONE).0, [entry("again")]);
}

#[test]
fn a_newer_journal_is_left_alone() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.append(ONE, 1, vec![entry("base")], Urgency::Now).unwrap();
    drop(opened);
    let path = journal_of(scratch.path(), ONE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 7;
    fs::write(&path, &bytes).unwrap();
    let opened = open(&folder);
    assert!(matches!(&opened.found[0].2, Verdict::Newer { what } if what.contains("format 7")));
    opened.store.append(ONE, 2, vec![entry("d")], Urgency::Now).unwrap();
    opened.store.rewrite(ONE, 3, source(vec![entry("b")])).unwrap();
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
    let large = vec![vec![0; 3000], vec![0; 3000]];
    assert_eq!(opened.store.append(ONE, 1, large, Urgency::Now), Err(Refused::NoRoom));
    assert_eq!(opened.store.rewrite(ONE, 3, source(Vec::new())), Err(Refused::NoRoom));
    opened.store.append(ONE, 4, vec![entry("seal")], Urgency::Now).unwrap();
    assert!(opened.done.recv().unwrap().result.is_ok());
    drop(opened);
    assert_eq!(entries(&open(&folder), ONE).0, [entry("seal")]);
}

#[test]
fn after_a_failed_write_nothing_follows_until_a_rewrite() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    // A file where the line's folder should be: its journal can't be made.
    let obstacle = scratch.path().join("state/svc_1");
    fs::write(&obstacle, "").unwrap();
    opened.store.append(ONE, 1, vec![entry("b")], Urgency::Now).unwrap();
    assert!(matches!(opened.done.recv().unwrap().result, Err(WriteError::Failed(_))));
    fs::remove_file(&obstacle).unwrap();
    opened.store.append(ONE, 2, vec![entry("d")], Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().result, Err(WriteError::Gap));
    opened.store.rewrite(ONE, 3, source(vec![entry("new")])).unwrap();
    // What comes meanwhile is safe when the rewrite is.
    opened.store.append(ONE, 4, vec![entry("d")], Urgency::Now).unwrap();
    let mut done: Vec<_> = opened.done.iter().take(2).collect();
    done.sort_by_key(|done| done.token);
    assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
    drop(opened);
    assert_eq!(entries(&open(&folder), ONE).0, [entry("new"), entry("d")]);
}

#[test]
fn a_removed_line_is_gone_and_its_branches_are_not() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.append(BRANCH, 0, vec![entry("b")], Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 0);
    opened.store.append(ONE, 1, vec![entry("b")], Urgency::Soon).unwrap();
    opened.store.remove(ONE, 2).unwrap();
    opened.store.remove(TWO, 3).unwrap();
    let tokens: Vec<_> = opened.done.iter().take(3).map(|done| done.token).collect();
    assert_eq!(tokens, [1, 2, 3]);
    assert!(!scratch.path().join("state/svc_1").exists());
    drop(opened);
    let opened = open(&folder);
    assert_eq!(opened.found.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [BRANCH]);
}

#[test]
fn strange_names_and_empty_folders_are_passed_over() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let zero = format!("svc_3.br_{}", "0".repeat(32));
    let upper = format!("svc_3.br_{}", "AB".repeat(16));
    for name in
        ["svc_", "svc_007", "svc_+7", "svc_x", "other", "svc_9", "svc_3.br_1", &zero, &upper]
    {
        fs::create_dir(scratch.path().join("state").join(name)).unwrap();
    }
    let opened = open(&folder);
    assert_eq!(opened.found.len(), 1);
    let nine = Line { service: ServiceId(9), branch: BranchId::MAIN };
    assert_eq!(entries(&opened, nine), (Vec::new(), Tail::Whole));
}

#[test]
fn a_full_queue_refuses() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(scratch.path()).unwrap();
    let opened = open(&folder);
    opened.store.shared.waiting.fetch_add(QUEUE_MAX.0, Ordering::Relaxed);
    let refused = opened.store.append(ONE, 1, vec![entry("b")], Urgency::Now);
    assert_eq!(refused, Err(Refused::Behind));
    assert_eq!(opened.store.waiting(), QUEUE_MAX);
    opened.store.shared.waiting.fetch_sub(QUEUE_MAX.0, Ordering::Relaxed);
    opened.store.append(ONE, 2, vec![entry("b")], Urgency::Now).unwrap();
    assert_eq!(opened.done.recv().unwrap().token, 2);
}
