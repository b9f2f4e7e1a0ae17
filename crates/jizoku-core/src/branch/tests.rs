//! Ids, contests and the table of notices.

use jizoku_types::Incarnation;

use super::*;

const SERVICE: ServiceId = ServiceId(1);

fn member(n: u8) -> Member {
    Member { node: NodeId([n; 32]), incarnation: Incarnation(1) }
}

fn at(ms: u64) -> Instant {
    Instant::ORIGIN + Span::millis(ms)
}

fn notice(opener: u8, checkpoints: u64, number: u64) -> Notice {
    let parent = Epoch::main(4);
    let branch = id(SERVICE, parent, member(opener), 1);
    Notice {
        service: SERVICE,
        epoch: Epoch { branch, counter: 5 },
        parent,
        root: 4,
        opener: member(opener),
        holders: BTreeSet::new(),
        checkpoints,
        own_checkpoints: checkpoints,
        size: ByteCount(0),
        ancestors: Vec::new(),
        lives: true,
        number,
        fixed: BTreeMap::new(),
    }
}

#[test]
fn ids_differ_in_each_of_their_parts() {
    let later = Member { incarnation: Incarnation(2), ..member(1) };
    let branch = BranchId([1; 16]);
    let ids = [
        id(SERVICE, Epoch::main(4), member(1), 1),
        id(ServiceId(2), Epoch::main(4), member(1), 1),
        id(SERVICE, Epoch::main(5), member(1), 1),
        id(SERVICE, Epoch { branch, counter: 4 }, member(1), 1),
        id(SERVICE, Epoch::main(4), member(2), 1),
        id(SERVICE, Epoch::main(4), later, 1),
        id(SERVICE, Epoch::main(4), member(1), 2),
    ];
    assert_eq!(BTreeSet::from(ids).len(), ids.len());
}

#[test]
fn more_checkpoints_go_on_and_else_the_lower_id() {
    let (low, high) = (BranchId([1; 16]), BranchId([2; 16]));
    for (one, other, first) in [
        ((3, high), (2, low), true),
        ((2, low), (3, high), false),
        ((2, low), (2, high), true),
        ((2, high), (2, low), false),
    ] {
        assert_eq!(goes_on(one, other), first, "{one:?} {other:?}");
        assert_eq!(goes_on(other, one), !first, "exactly one of two");
    }
}

#[test]
fn both_openers_judge_alike_although_both_count_on() {
    let (mut one, mut other) = (notice(1, 5, 1), notice(2, 4, 1));
    // Each hears of the other at another moment of its life, and fixes its count then.
    one.fixed.insert(other.branch(), 5);
    assert_eq!(contest(one.branch(), &one.fixed, &other), Contest::Open);
    (other.checkpoints, one.checkpoints) = (9, 30);
    other.fixed.insert(one.branch(), 9);
    assert_eq!(contest(one.branch(), &one.fixed, &other), Contest::Lost);
    assert_eq!(contest(other.branch(), &other.fixed, &one), Contest::Won);
}

#[test]
fn only_openers_speak_and_old_words_change_nothing() {
    let mut table = Table::new();
    assert!(!table.hear(at(0), member(3).node, notice(1, 5, 2)), "not its opener");
    assert!(table.hear(at(0), member(1).node, notice(1, 5, 2)));
    assert!(!table.hear(at(1), member(1).node, notice(1, 4, 1)), "overtaken");
    assert!(!table.hear(at(2), member(1).node, notice(1, 5, 3)), "repeated");
    assert!(table.hear(at(3), member(1).node, notice(1, 6, 4)));
    assert_eq!(table.of(SERVICE).map(|notice| notice.checkpoints).collect::<Vec<_>>(), [6]);
}

#[test]
fn a_branch_lives_while_it_is_heard_of() {
    let mut table = Table::new();
    table.hear(at(0), member(1).node, notice(1, 5, 1));
    let living = |table: &Table, ms| table.living(at(ms), SERVICE, 4).count();
    assert_eq!((living(&table, 4_999), living(&table, 5_000)), (1, 0));
    table.hear(at(4_000), member(1).node, notice(1, 5, 2));
    assert_eq!((living(&table, 8_999), living(&table, 9_000)), (1, 0));
    assert_eq!(table.living(at(4_000), SERVICE, 5).count(), 0, "of another root");
    assert_eq!(table.of(SERVICE).count(), 1, "what it was is remembered");
    table.hear(at(4_001), member(1).node, Notice { lives: false, ..notice(1, 5, 3) });
    assert_eq!(living(&table, 4_001), 0);
    table.settle(SERVICE, Some(5));
    assert_eq!(table.of(SERVICE).count(), 0);
}

#[test]
fn the_oldest_is_forgotten_at_the_limit() {
    let mut table = Table::new();
    for n in 0..=HEARD_MAX as u8 {
        table.hear(at(u64::from(n)), member(n).node, notice(n, 1, 1));
    }
    let openers: BTreeSet<Member> = table.of(SERVICE).map(|notice| notice.opener).collect();
    assert_eq!(openers.len(), HEARD_MAX);
    assert!(!openers.contains(&member(0)));
}
