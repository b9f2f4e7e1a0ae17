//! Planted violations, each of which the checker must find, and what it must let pass.

use super::*;

fn at(millis: u64) -> Moment {
    Duration::from_millis(millis)
}

/// A book in which ten were acknowledged, one each 100 ms from 100 ms on, and two more asked for.
fn book(promise: Promise) -> Book {
    let mut book = Book::new(promise);
    for number in 1..=10 {
        book.ask("k");
        book.tell("k", &number.to_string(), at(number * 100)).expect("the next");
    }
    book.ask("k");
    book.ask("k");
    book
}

fn died(node: usize) -> Excuses {
    let what = Disturbance { node, from: at(900), until: Some(at(1500)), died: true };
    Excuses {
        began: at(900),
        disturbed: vec![what],
        power_lost: None,
        flush: at(0),
        restored: true,
    }
}

fn broken(gateway: usize) -> Break {
    Break { key: "k".into(), gateway, opened: at(0), at: at(1000), error: "reset".into() }
}

#[test]
fn an_answer_that_is_not_the_next_is_found() {
    for wrong in ["10", "12", "9", "OK", ""] {
        let told = book(Promise::Memory).tell("k", wrong, at(1100));
        assert!(matches!(told, Err(Violation::Wrong { expected: 11, .. })), "{wrong}: {told:?}");
    }
    let mut book = book(Promise::Memory);
    book.tell("k", "11", at(1100)).expect("the next");
    book.tell("k", "12", at(1200)).expect("the next");
    // Nobody asked for it.
    assert!(book.tell("k", "13", at(1300)).is_err());
}

#[test]
fn what_was_acknowledged_must_be_there_and_nothing_twice() {
    let excuses = died(0);
    for promise in [Promise::Disk, Promise::Memory] {
        for found in 10..=12 {
            assert_eq!(book(promise).found("k", found, &excuses), Ok(None), "{found}");
        }
        let lost = book(promise).found("k", 9, &excuses);
        assert!(matches!(lost, Err(Violation::Lost { least: 10, .. })), "{lost:?}");
    }
    for promise in [Promise::Disk, Promise::Memory, Promise::Free] {
        let doubled = book(promise).found("k", 13, &excuses);
        assert!(matches!(doubled, Err(Violation::Doubled { most: 12, .. })), "{doubled:?}");
    }
}

#[test]
fn a_key_stays_as_it_was_found() {
    let mut book = book(Promise::Memory);
    book.broke("k");
    assert_eq!(book.doubtful(), ["k"]);
    book.found("k", 11, &died(0)).expect("in bounds");
    assert!(book.doubtful().is_empty());
    assert_eq!(book.found("k", 11, &Excuses::default()), Ok(None));
    assert!(book.found("k", 12, &Excuses::default()).is_err(), "one more than was left");
    assert!(book.found("k", 10, &Excuses::default()).is_err(), "one less than was left");
}

#[test]
fn free_loses_an_interval_and_a_commit_and_no_more() {
    let mut late = died(0);
    (late.began, late.disturbed[0].from) = (at(2_800), at(2_800));
    // From 750 ms on anything may be gone.
    assert_eq!(allowed_loss(Promise::Free, &late), Some(at(750)));
    let lost = book(Promise::Free).found("k", 7, &late).expect("allowed");
    assert_eq!(lost, Some(at(2_000)), "the first that is gone was told at 800 ms");
    let lost = book(Promise::Free).found("k", 6, &late);
    assert!(matches!(lost, Err(Violation::Lost { least: 7, .. })), "{lost:?}");
    // Without a takeover nothing.
    late.restored = false;
    assert!(book(Promise::Free).found("k", 9, &late).is_err());
}

#[test]
fn power_loss_takes_a_second_of_memory_and_nothing_of_disk() {
    let mut excuses = died(0);
    excuses.power_lost = Some(at(1_850));
    assert_eq!(allowed_loss(Promise::Memory, &excuses), Some(at(850)));
    let lost = book(Promise::Memory).found("k", 8, &excuses).expect("allowed");
    assert_eq!(lost, Some(at(950)));
    assert!(book(Promise::Memory).found("k", 7, &excuses).is_err());
    assert!(book(Promise::Disk).found("k", 9, &excuses).is_err());
    // A disk that takes 0.2 s for a flush is 0.2 s more behind.
    excuses.flush = at(200);
    assert!(book(Promise::Memory).found("k", 6, &excuses).is_ok());
    assert!(book(Promise::Memory).found("k", 5, &excuses).is_err());
    assert!(book(Promise::Disk).found("k", 9, &excuses).is_err());
}

#[test]
fn all_of_a_young_key_may_be_gone_with_the_last_second() {
    let mut excuses = died(0);
    excuses.power_lost = Some(at(1_050));
    assert_eq!(book(Promise::Memory).found("k", 0, &excuses), Ok(Some(at(950))));
}

#[test]
fn connections_break_with_their_gateway_only() {
    let allowed =
        |one: &Break, promise, excuses: &Excuses| super::may_break(one, promise, excuses).is_some();
    let excuses = died(3);
    for promise in [Promise::Disk, Promise::Memory] {
        assert!(allowed(&broken(3), promise, &excuses));
        assert!(!allowed(&broken(2), promise, &excuses), "another node died");
        let mut early = broken(3);
        early.at = at(899);
        assert!(!allowed(&early, promise, &excuses), "it broke before");
        let mut young = broken(3);
        (young.opened, young.at) = (at(1_600), at(1_700));
        assert!(!allowed(&young, promise, &excuses), "it was opened afterwards");
        let mut silent = excuses.clone();
        silent.disturbed[0].died = false;
        assert!(!allowed(&broken(3), promise, &silent), "its gateway lives");
    }
    assert!(allowed(&broken(2), Promise::Free, &excuses));
    assert!(!allowed(&broken(2), Promise::Free, &Excuses::default()), "nothing happened");
}

#[test]
fn a_gateway_that_was_silent_for_long_may_be_given_up() {
    let what = |until| Disturbance { node: 1, from: at(100), until: Some(until), died: false };
    let mut one = broken(1);
    one.at = at(40_000);
    let mut excuses = Excuses { disturbed: vec![what(at(20_000))], ..Excuses::default() };
    assert_eq!(may_break(&one, Promise::Memory, &excuses), None);
    excuses.disturbed = vec![what(at(35_000))];
    assert!(may_break(&one, Promise::Memory, &excuses).is_some());
}

#[test]
fn readers_see_nothing_stale_and_nothing_that_nobody_asked_for() {
    let book = book(Promise::Memory);
    let (key, least) = book.open_key(5).expect("one is open");
    assert_eq!((key.as_str(), least), ("k", 10));
    assert_eq!(book.read("k", 10, 10), Ok(()));
    assert_eq!(book.read("k", 10, 12), Ok(()));
    assert!(book.read("k", 10, 9).is_err(), "stale");
    assert!(book.read("k", 10, 13).is_err(), "from nowhere");
}
