//! The holder's rules, one by one.

use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::ServiceId;

use super::*;
use crate::fixture::{
    DISK, LINE, MEMORY, id, image, member, ms, node, point, ship, terms, to_holder,
};
use crate::image::Part;
use crate::message::Report;
use crate::record::Replay;

const FROM: u8 = 9;

/// A holder and what it has said.
struct Desk {
    holder: Holder,
    now: u64,
    stores: Vec<(Token, Record)>,
    events: Vec<Output>,
}

impl Desk {
    fn new() -> Desk {
        Desk::loaded(Vec::new())
    }

    fn loaded(loaded: Vec<Loaded>) -> Desk {
        let holder = Holder::new(member(1, 5));
        let mut desk = Desk { holder, now: 0, stores: Vec::new(), events: Vec::new() };
        desk.input(Input::Loaded(loaded));
        desk
    }

    /// Gives an input, and returns the answers.
    fn input(&mut self, input: Input) -> Vec<Answer> {
        self.holder.handle(ms(self.now), input);
        let mut answers = Vec::new();
        while let Some(output) = self.holder.poll() {
            match output {
                Output::Send { to, message, .. } => {
                    assert_eq!((to, message.incarnation), (node(FROM), Incarnation(5)));
                    answers.push(message.answer);
                }
                Output::Store { token, record } => self.stores.push((token, record)),
                event => self.events.push(event),
            }
        }
        answers
    }

    fn ask(&mut self, terms: Terms, ask: Ask) -> Vec<Answer> {
        self.input(Input::Message { from: node(FROM), message: to_holder(terms, ask) })
    }

    fn ship(&mut self, terms: Terms, transfer: u64, base: &Point, to: &Point) -> Vec<Answer> {
        self.ask(terms, Ask::Ship(ship(transfer, base, to)))
    }

    fn adopt(&mut self, terms: Terms, point: &Point, joins: bool) -> Vec<Answer> {
        let (id, root) = (point.id, point.root());
        self.ask(terms, Ask::Adopt { transfer: 7, id, root, joins })
    }

    fn seal(&mut self, terms: Terms) -> Vec<Answer> {
        self.ask(terms, Ask::Seal)
    }

    /// The disk has done all that it was given.
    fn flush(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while !self.stores.is_empty() {
            let (token, _) = self.stores.remove(0);
            answers.extend(self.input(Input::Stored { token }));
        }
        answers
    }

    fn ids(&self) -> Vec<CheckpointId> {
        self.holder.points(LINE).iter().map(|point| point.id).collect()
    }
}

fn ack(epoch: u64, seq: u64) -> Vec<Answer> {
    vec![Answer::Ack { id: id(epoch, seq) }]
}

fn refuse(number: u64, why: Why) -> Vec<Answer> {
    vec![Answer::Refuse { number, why }]
}

fn superseded(number: u64, by: u64) -> Vec<Answer> {
    refuse(number, Why::Superseded { by: Epoch::main(by) })
}

fn report(point: &Point, committed: CheckpointId, kept: bool) -> Vec<Answer> {
    let size = point.image.size();
    vec![Answer::Report(Report { top: point.id, root: point.root(), size, committed, kept })]
}

#[test]
fn checkpoints_are_kept_apart_until_they_are_committed() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let [one, two] = [point(1, 1), point(1, 2)];
    assert_eq!(desk.ship(terms, 1, &Point::none(), &one), ack(1, 1));
    assert_eq!(desk.holder.committed(LINE), NONE);
    assert_eq!(desk.holder.ready_image(LINE), Some((one.id, one.image.clone())));
    let with_commit = Ship { committed: one.id, ..ship(2, &one, &two) };
    assert_eq!(desk.ask(terms, Ask::Ship(with_commit)), ack(1, 2));
    assert_eq!(desk.holder.committed(LINE), one.id);
    assert_eq!(desk.holder.ready_image(LINE), Some((two.id, two.image.clone())));
    assert_eq!(desk.ask(terms, Ask::Commit { id: two.id }), vec![]);
    assert_eq!(desk.ids(), [two.id]);
    let committed = desk.events.iter().filter_map(|event| match event {
        Output::Changed { committed, .. } => Some(*committed),
        _ => None,
    });
    assert_eq!(committed.collect::<Vec<_>>(), [one.id, two.id]);
}

#[test]
fn lower_epochs_are_refused_whatever_they_want() {
    let mut desk = Desk::new();
    let [one, two] = [point(1, 1), point(1, 2)];
    desk.ship(terms(1, MEMORY), 1, &Point::none(), &one);
    assert_eq!(desk.seal(terms(3, MEMORY)), report(&one, NONE, false));
    let old = terms(2, MEMORY);
    assert_eq!(desk.ship(old, 4, &one, &two), superseded(4, 3));
    assert_eq!(desk.adopt(old, &one, false), superseded(7, 3));
    assert_eq!(desk.ask(old, Ask::Commit { id: one.id }), superseded(0, 3));
    assert_eq!(desk.seal(old), superseded(0, 3));
    assert_eq!(desk.holder.committed(LINE), NONE);
    assert_eq!(desk.ids(), [one.id]);
}

#[test]
fn another_branch_is_another_line() {
    let mut desk = Desk::new();
    let one = point(5, 1);
    desk.ship(terms(5, MEMORY), 1, &Point::none(), &one);
    let branch = BranchId([1; 16]);
    let epoch = Epoch { branch, counter: 6 };
    let in_branch = Terms { epoch, ..terms(6, MEMORY) };
    let fork = Ask::Fork { parent: BranchId::MAIN };
    assert_eq!(desk.ask(in_branch, fork.clone()), report(&one, NONE, false));
    assert_eq!(desk.ship(in_branch, 1, &one, &point(6, 2)), ack(6, 2));
    // The other goes on as if nothing had happened.
    assert_eq!(desk.ship(terms(5, MEMORY), 2, &one, &point(5, 2)), ack(5, 2));
    assert_eq!(desk.ids(), [one.id, id(5, 2)]);
    assert_eq!(desk.holder.lines().count(), 2);
    // Asked again it has what it has by then.
    assert_eq!(desk.ask(in_branch, fork), report(&point(6, 2), NONE, false));
}

#[test]
fn the_main_line_goes_on_from_a_branch_only_while_that_is_newer() {
    let mut desk = Desk::new();
    let one = point(5, 1);
    desk.ship(terms(5, MEMORY), 1, &Point::none(), &one);
    desk.ship(terms(5, MEMORY), 2, &one, &point(5, 2));
    let branch = BranchId([1; 16]);
    let in_branch = Terms { epoch: Epoch { branch, counter: 6 }, ..terms(6, MEMORY) };
    let fork = Ask::Fork { parent: branch };
    let gone = |desk: &mut Desk, counter| {
        let said = desk.ask(terms(counter, MEMORY), fork.clone());
        matches!(said[..], [Answer::Refuse { why: Why::Gone, .. }])
    };
    assert!(gone(&mut desk, 7), "nothing is held of it: an older state is not reported for it");
    desk.ask(in_branch, Ask::Fork { parent: BranchId::MAIN });
    desk.ship(in_branch, 1, &point(5, 2), &point(6, 3));
    assert_eq!(desk.ask(terms(7, MEMORY), fork.clone()), report(&point(6, 3), NONE, false));
    desk.ship(terms(7, MEMORY), 1, &point(6, 3), &point(7, 4));
    // The next takeover may not know yet that the main line has gone on.
    assert_eq!(desk.ask(terms(8, MEMORY), fork.clone()), report(&point(7, 4), NONE, false));
    assert_eq!(desk.ask(terms(7, MEMORY), fork), superseded(0, 8));
}

#[test]
fn with_disk_an_acknowledgement_waits_for_the_flush() {
    let (mut desk, terms) = (Desk::new(), terms(1, DISK));
    let [one, two] = [point(1, 1), point(1, 2)];
    assert_eq!(desk.ship(terms, 1, &Point::none(), &one), vec![]);
    assert_eq!(desk.ship(terms, 1, &Point::none(), &one), vec![], "once is enough");
    assert_eq!(desk.flush(), ack(1, 1));
    assert_eq!(desk.ship(terms, 1, &Point::none(), &one), ack(1, 1), "it is on disk");
    assert_eq!(desk.ship(terms, 2, &one, &two), vec![]);
    assert_eq!(desk.seal(terms), vec![], "the report covers what is not flushed yet");
    assert_eq!(desk.flush(), [ack(1, 2), report(&two, NONE, false)].concat());
}

#[test]
fn what_was_sealed_off_before_the_flush_is_not_acknowledged() {
    let mut desk = Desk::new();
    let one = point(1, 1);
    assert_eq!(desk.ship(terms(1, DISK), 3, &Point::none(), &one), vec![]);
    assert_eq!(desk.seal(terms(2, DISK)), vec![]);
    assert_eq!(desk.flush(), [superseded(3, 2), report(&one, NONE, false)].concat());
}

#[test]
fn going_over_to_memory_waits_until_the_disk_knows() {
    let mut desk = Desk::new();
    let [one, two, three] = [point(1, 1), point(1, 2), point(1, 3)];
    desk.ship(terms(1, DISK), 1, &Point::none(), &one);
    desk.flush();
    let memory = terms(1, MEMORY);
    assert_eq!(desk.ship(memory, 2, &one, &two), vec![], "the disk still says \"disk\"");
    assert_eq!(desk.flush(), ack(1, 2));
    assert_eq!(desk.ship(memory, 3, &two, &three), ack(1, 3));
}

#[test]
fn with_memory_a_report_doesn_t_wait() {
    let mut desk = Desk::new();
    let nothing = Report {
        top: NONE,
        root: Digest::default(),
        size: ByteCount(0),
        committed: NONE,
        kept: false,
    };
    assert_eq!(desk.seal(terms(4, MEMORY)), vec![Answer::Report(nothing)]);
    assert!(matches!(desk.stores[..], [(_, Record::Sealed { counter: 4, .. })]));
}

#[test]
fn a_base_that_is_not_here_is_told() {
    let mut desk = Desk::new();
    let [one, two, three] = [point(1, 1), point(1, 2), point(1, 3)];
    let missing = |have: &Point| Why::BaseMissing { have: have.id, root: have.root() };
    let nothing = Why::BaseMissing { have: NONE, root: Digest::default() };
    assert_eq!(desk.ship(terms(1, MEMORY), 1, &one, &two), refuse(1, nothing));
    assert_eq!(desk.adopt(terms(1, MEMORY), &one, false), refuse(7, nothing));
    desk.ship(terms(1, MEMORY), 2, &Point::none(), &one);
    assert_eq!(desk.ship(terms(1, MEMORY), 3, &two, &three), refuse(3, missing(&one)));
    assert_eq!(desk.adopt(terms(1, MEMORY), &two, false), refuse(7, missing(&one)));
}

#[test]
fn a_newer_epoch_drops_what_is_above_its_base() {
    let mut desk = Desk::new();
    let [one, two, three] = [point(1, 1), point(1, 2), point(1, 3)];
    desk.ship(terms(1, MEMORY), 1, &Point::none(), &one);
    desk.ship(terms(1, MEMORY), 2, &one, &two);
    desk.ship(terms(1, MEMORY), 3, &two, &three);
    let next = point(2, 2);
    assert_eq!(desk.ship(terms(2, MEMORY), 1, &one, &next), ack(2, 2));
    assert_eq!(desk.ids(), [one.id, next.id]);
    // What this epoch has made itself is never dropped for another base.
    let other = Point { id: id(2, 3), ..point(2, 9) };
    let why = Why::BaseMissing { have: next.id, root: next.root() };
    assert_eq!(desk.ship(terms(2, MEMORY), 2, &one, &other), refuse(2, why));
    assert_eq!(desk.ids(), [one.id, next.id]);
}

#[test]
fn adopting_drops_what_is_above_but_a_late_copy_of_it_nothing() {
    let mut desk = Desk::new();
    let [one, two] = [point(1, 1), point(1, 2)];
    desk.ship(terms(1, MEMORY), 1, &Point::none(), &one);
    desk.ship(terms(1, MEMORY), 2, &one, &two);
    assert_eq!(desk.adopt(terms(2, MEMORY), &one, false), ack(1, 1));
    assert_eq!(desk.ids(), [one.id]);
    assert_eq!(desk.holder.committed(LINE), NONE, "adopting commits nothing");
    let next = point(2, 2);
    desk.ship(terms(2, MEMORY), 1, &one, &next);
    assert_eq!(desk.adopt(terms(2, MEMORY), &one, false), ack(1, 1));
    assert_eq!(desk.ids(), [one.id, next.id]);
}

#[test]
fn a_late_copy_of_a_whole_image_replaces_nothing() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let [one, two] = [point(1, 1), point(1, 2)];
    desk.ship(terms, 1, &Point::none(), &one);
    desk.ship(terms, 2, &one, &two);
    desk.ask(terms, Ask::Commit { id: two.id });
    assert_eq!(desk.ship(terms, 1, &Point::none(), &one), ack(1, 1));
    assert_eq!(desk.ids(), [two.id]);
}

#[test]
fn the_committed_one_is_dropped_only_for_who_joins_anew() {
    let mut desk = Desk::new();
    let nine = point(1, 9);
    desk.ship(terms(1, MEMORY), 1, &Point::none(), &nine);
    desk.ask(terms(1, MEMORY), Ask::Commit { id: nine.id });
    let ahead = Why::Ahead { committed: nine.id };
    let older = point(1, 5);
    assert_eq!(desk.adopt(terms(2, MEMORY), &older, false), refuse(7, ahead));
    assert_eq!(desk.adopt(terms(2, MEMORY), &older, true), refuse(7, ahead));
    assert_eq!(desk.adopt(terms(2, MEMORY), &Point::none(), false), refuse(7, ahead));
    assert_eq!(desk.ids(), [nine.id]);
    // A whole image, even of a lower number, if a newer epoch goes on from it.
    assert_eq!(desk.ship(terms(2, MEMORY), 1, &Point::none(), &older), ack(1, 5));
    assert_eq!(desk.ids(), [older.id]);
    desk.ask(terms(2, MEMORY), Ask::Commit { id: older.id });
    assert_eq!(desk.adopt(terms(2, MEMORY), &Point::none(), true), ack(0, 0));
    assert_eq!(desk.ids(), []);
}

#[test]
fn damaged_and_senseless_parts_are_refused() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let one = point(1, 1);
    let good = ship(1, &Point::none(), &one);
    let cases = [
        (Ship { root: Digest([1; 32]), ..good.clone() }, Why::Corrupt),
        (Ship { body: Part::new(vec![1, 2, 3]), ..good.clone() }, Why::Corrupt),
        (Ship { parts: u32::MAX, ..good.clone() }, Why::Corrupt),
        (Ship { part: 1, ..good.clone() }, Why::Malformed),
        (Ship { parts: 0, ..good.clone() }, Why::Malformed),
        (Ship { id: id(2, 1), ..good.clone() }, Why::Malformed),
        (Ship { id: id(1, 0), ..good.clone() }, Why::Malformed),
        (Ship { base: id(1, 1), ..good.clone() }, Why::Malformed),
    ];
    for (bad, why) in cases {
        assert_eq!(desk.ask(terms, Ask::Ship(bad)), refuse(1, why));
        assert_eq!(desk.ids(), []);
    }
    assert_eq!(desk.events.len(), 3, "damage is told");
    assert_eq!(desk.ask(terms, Ask::Ship(good.clone())), ack(1, 1));
    let other = Point { id: one.id, image: image(77) };
    let again = Ship { base: id(0, 1), ..ship(2, &Point::none(), &other) };
    assert_eq!(desk.ask(terms, Ask::Ship(again)), refuse(2, Why::Corrupt));
}

/// The parts of a whole image, one block each.
fn parts_of(point: &Point, transfer: u64) -> Vec<Ship> {
    let diff = Diff::of(&point.image);
    let cuts = diff.cut(crate::image::CUT_MIN);
    let make = |part| Ship {
        part,
        parts: cuts.parts(),
        tell: true,
        body: diff.encode_part(&cuts, part),
        ..ship(transfer, &Point::none(), point)
    };
    (0..cuts.parts()).map(make).collect()
}

#[test]
fn parts_come_in_any_order_and_are_told_when_asked_for() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let one = point(1, 1);
    let parts = parts_of(&one, 4);
    assert_eq!(parts.len(), 6);
    for (have, part) in [(1, 5), (2, 0), (2, 5), (3, 3), (4, 1), (5, 4)] {
        let expected = vec![Answer::Received { transfer: 4, part, have }];
        assert_eq!(desk.ask(terms, Ask::Ship(parts[part as usize].clone())), expected);
    }
    // A damaged copy of a part that is here changes nothing, and isn't what is written down.
    let damaged = Ship { body: Part::new(vec![1, 2, 3]), ..parts[5].clone() };
    desk.ask(terms, Ask::Ship(damaged));
    assert_eq!(desk.ask(terms, Ask::Ship(parts[2].clone())), ack(1, 1));
    let Some((_, Record::Checkpoint { parts: written, .. })) = desk.stores.last() else {
        panic!("it is written down");
    };
    assert_eq!(*written, parts.iter().map(|ship| ship.body.clone()).collect::<Vec<_>>());
}

#[test]
fn an_unfinished_transfer_is_replaced_by_a_newer_and_expires() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let [older, newer] = [parts_of(&point(1, 1), 4), parts_of(&point(1, 2), 5)];
    let have = |transfer, have| vec![Answer::Received { transfer, part: 0, have }];
    assert_eq!(desk.ask(terms, Ask::Ship(older[0].clone())), have(4, 1));
    assert_eq!(desk.ask(terms, Ask::Ship(newer[1].clone())).len(), 1);
    assert_eq!(desk.ask(terms, Ask::Ship(older[1].clone())), vec![], "of the older: passed over");
    assert_eq!(desk.ask(terms, Ask::Ship(newer[0].clone())), have(5, 2));
    let expires = desk.holder.deadline().expect("it waits for the rest");
    assert_eq!(expires, ms(0) + UNFINISHED_MAX);
    desk.now = UNFINISHED_MAX.as_millis();
    desk.input(Input::Tick);
    assert_eq!(desk.holder.deadline(), None);
    assert_eq!(desk.ask(terms, Ask::Ship(newer[0].clone())), have(5, 1));
    // A newer epoch begins anew.
    desk.seal(crate::fixture::terms(2, MEMORY));
    assert_eq!(desk.holder.deadline(), None);
}

#[test]
fn limits_refuse_and_change_nothing() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    desk.input(Input::NoRoom(true));
    let no_room = |number| refuse(number, Why::NoRoom);
    assert_eq!(desk.ship(terms, 1, &Point::none(), &point(1, 1)), no_room(1));
    desk.input(Input::NoRoom(false));
    let mut base = Point::none();
    for seq in 1..=CHAIN_MAX as u64 {
        let next = point(1, seq);
        assert_eq!(desk.ship(terms, seq, &base, &next), ack(1, seq));
        base = next;
    }
    let next = point(1, 1000);
    assert_eq!(desk.ship(terms, 1000, &base, &next), no_room(1000));
    assert_eq!(desk.ids().len(), CHAIN_MAX);
    desk.ask(terms, Ask::Commit { id: base.id });
    assert_eq!(desk.ship(terms, 1001, &base, &next), ack(1, 1000));
    for n in 1..LINES_MAX as u64 {
        let service = ServiceId(1000 + n);
        assert!(matches!(desk.seal(Terms { service, ..terms })[..], [Answer::Report(_)]));
    }
    let service = ServiceId(9);
    assert_eq!(desk.seal(Terms { service, ..terms }), no_room(0));
}

#[test]
fn questions_are_answered_for_what_is_complete() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let one = point(1, 1);
    desk.ship(terms, 1, &Point::none(), &one);
    let space = SpaceName::new("memory").expect("a name");
    let there = one.image.space("memory").expect("there");
    let nodes = |level, indices: Vec<u32>| Question::Nodes { space: space.clone(), level, indices };
    let blocks = |indices: Vec<u32>| Question::Blocks { space: space.clone(), indices };
    let writes = vec![(2, there.block(2).cloned()), (5, there.block(5).cloned())];
    let diff = Diff::of_blocks(space.clone(), there.len(), writes);
    let node = there.node(1, 0).expect("the only one");
    let malformed = Answer::Refuse { number: 3, why: Why::Malformed };
    let elsewhere =
        Question::Blocks { space: SpaceName::new("x").expect("a name"), indices: vec![] };
    for (question, answer) in [
        (Question::Outline, Answer::Outline { ticket: 3, spaces: one.image.outline() }),
        (nodes(1, vec![0]), Answer::Nodes { ticket: 3, nodes: vec![node] }),
        (nodes(2, vec![0]), malformed.clone()),
        (nodes(0, vec![0]), malformed.clone()),
        (nodes(1, vec![0; NODES_PER_QUESTION + 1]), malformed.clone()),
        (blocks(vec![2, 5]), Answer::Blocks { ticket: 3, body: diff.encode().remove(0) }),
        (blocks(vec![5, 2]), malformed.clone()),
        (blocks((0..BLOCKS_PER_QUESTION as u32 + 1).collect()), malformed.clone()),
        (elsewhere, malformed),
    ] {
        assert_eq!(desk.ask(terms, Ask::Fetch { ticket: 3, id: one.id, question }), vec![answer]);
    }
    let gone = Ask::Fetch { ticket: 3, id: id(1, 2), question: Question::Outline };
    assert_eq!(desk.ask(terms, gone), refuse(3, Why::Gone));
}

#[test]
fn a_failed_disk_is_told_and_made_up_for_by_a_snapshot() {
    let (mut desk, terms) = (Desk::new(), terms(1, DISK));
    let [one, two] = [point(1, 1), point(1, 2)];
    desk.ship(terms, 1, &Point::none(), &one);
    let (token, _) = desk.stores.remove(0);
    assert_eq!(desk.input(Input::StoreFailed { token }), refuse(1, Why::NotStored));
    assert_eq!(desk.ship(terms, 1, &Point::none(), &one), refuse(1, Why::NotStored), "too soon");
    assert!(desk.stores.is_empty());
    desk.now = STORE_RETRY.as_millis();
    assert_eq!(desk.ship(terms, 2, &one, &two), vec![]);
    let [(_, Record::Snapshot { chain, .. })] = &desk.stores[..] else { panic!("a snapshot") };
    assert_eq!(chain.points().map(|point| point.id).collect::<Vec<_>>(), [one.id, two.id]);
    assert_eq!(desk.flush(), ack(1, 2));
}

#[test]
fn records_that_follow_a_failed_one_don_t_count() {
    let (mut desk, terms) = (Desk::new(), terms(1, DISK));
    let one = point(1, 1);
    desk.ship(terms, 1, &Point::none(), &one);
    desk.seal(terms);
    desk.ask(terms, Ask::Commit { id: one.id });
    let tokens: Vec<Token> = desk.stores.drain(..).map(|(token, _)| token).collect();
    assert_eq!(tokens.len(), 2, "the checkpoint and the commit");
    desk.input(Input::StoreFailed { token: tokens[0] });
    assert_eq!(desk.input(Input::Stored { token: tokens[1] }), vec![]);
    assert_eq!(desk.seal(terms), refuse(0, Why::NotStored));
}

#[test]
fn a_slow_disk_is_not_given_more_than_it_can_take() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let mut base = Point::none();
    for seq in 1..=STORES_MAX as u64 {
        let next = point(1, seq);
        let ship = Ship { committed: base.id, ..ship(seq, &base, &next) };
        assert_eq!(desk.ask(terms, Ask::Ship(ship)), ack(1, seq));
        base = next;
    }
    assert_eq!(desk.stores.len(), STORES_MAX);
    let (token, _) = desk.stores.remove(0);
    desk.input(Input::Stored { token });
    let snapshots = desk.stores.iter().filter(|(_, r)| matches!(r, Record::Snapshot { .. }));
    assert_eq!(snapshots.count(), 1, "as soon as there is room");
    desk.flush();
    let next = point(1, 900);
    desk.ship(terms, 900, &base, &next);
    assert!(matches!(desk.stores[..], [(_, Record::Checkpoint { .. })]));
}

#[test]
fn what_was_loaded_is_kept_only_if_it_is_whole_and_was_always_flushed() {
    for (durable, whole, kept) in
        [(DISK, true, true), (DISK, false, false), (MEMORY, true, false), (MEMORY, false, false)]
    {
        let one = point(2, 4);
        let mut chain = crate::chain::Chain::default();
        chain.push(NONE, one.clone());
        let loaded = Loaded { line: LINE, counter: 3, durable, chain, whole };
        let mut desk = Desk::loaded(vec![loaded]);
        let corrupt = desk.events.iter().any(|event| matches!(event, Output::Corrupt { .. }));
        assert_eq!(corrupt, !whole);
        assert_eq!(desk.seal(terms(2, DISK)), superseded(0, 3), "the seal lasts");
        let mut answers = desk.seal(terms(4, DISK));
        answers.extend(desk.flush());
        assert_eq!(answers, report(&one, NONE, kept), "{durable:?}, whole: {whole}");
    }
}

/// A seal is written over a damaged copy as over any other; the restart after that sees no damage.
#[test]
fn a_damaged_copy_is_not_believed_in_after_another_restart_either() {
    let (one, next) = (point(2, 4), point(4, 5));
    let mut chain = crate::chain::Chain::default();
    chain.push(NONE, one.clone());
    let loaded = Loaded { line: LINE, counter: 3, durable: DISK, chain, whole: false };
    for made_up in [false, true] {
        let mut desk = Desk::loaded(vec![loaded.clone()]);
        let mut replay = Replay::new();
        let mut written = desk.seal(terms(4, DISK));
        let mut records: Vec<Record> = desk.stores.iter().map(|(_, one)| one.clone()).collect();
        written.extend(desk.flush());
        if made_up {
            desk.ship(terms(4, DISK), 400, &one, &next);
            records.extend(desk.stores.iter().map(|(_, one)| one.clone()));
        }
        for record in &records {
            record.write(&mut |entry| replay.push(entry)).expect("own records read back");
        }
        let again = replay.finish(LINE, true);
        let mut desk = Desk::loaded(vec![again]);
        let mut answers = desk.seal(terms(5, DISK));
        answers.extend(desk.flush());
        let top = if made_up { &next } else { &one };
        assert_eq!(answers, report(top, NONE, made_up));
    }
}

/// After a restart: what the main line and, if there is one, the branch have on disk, and whether
/// what goes on from the other one counts as kept.
#[test]
fn what_goes_on_from_a_kept_copy_is_kept_unless_something_of_its_own_was_lost() {
    let branch = BranchId([7; 16]);
    let in_branch = Terms { epoch: Epoch { branch, counter: 5 }, ..terms(0, DISK) };
    let loaded = |line: Line, point: &Point, counter: u64, whole: bool| {
        let mut chain = crate::chain::Chain::default();
        chain.push(NONE, point.clone());
        Loaded { line, counter, durable: DISK, chain, whole }
    };
    let (of_main, of_branch) = (point(4, 1), point(5, 2));
    for whole in [true, false] {
        let mut desk = Desk::loaded(vec![loaded(LINE, &of_main, 4, whole)]);
        desk.ask(in_branch, Ask::Fork { parent: BranchId::MAIN });
        assert_eq!(desk.flush(), report(&of_main, NONE, whole), "a branch never was here before");
    }
    for (main, kept) in [(Some(true), true), (Some(false), false), (None, false)] {
        let mut all = vec![loaded(in_branch.line(), &of_branch, 5, true)];
        all.extend(main.map(|whole| loaded(LINE, &of_main, 4, whole)));
        let mut desk = Desk::loaded(all);
        desk.ask(terms(6, DISK), Ask::Fork { parent: branch });
        assert_eq!(desk.flush(), report(&of_branch, NONE, kept), "{main:?}");
    }
}

#[test]
fn before_the_disk_is_read_nothing_is_answered() {
    let mut holder = Holder::new(member(1, 1));
    let message = to_holder(terms(1, DISK), Ask::Seal);
    holder.handle(ms(0), Input::Message { from: node(FROM), message });
    assert!(holder.poll().is_none());
}

#[test]
fn a_collected_state_is_installed_and_a_forgotten_line_is_gone() {
    let (mut desk, terms) = (Desk::new(), terms(2, MEMORY));
    let one = point(1, 7);
    desk.input(Input::Install { terms, point: one.clone() });
    assert_eq!(desk.adopt(terms, &one, false), ack(1, 7));
    let old = Input::Install { terms: crate::fixture::terms(1, MEMORY), point: point(1, 8) };
    desk.input(old);
    assert_eq!(desk.ids(), [one.id], "an old epoch installs nothing");
    desk.input(Input::Forget(LINE));
    assert_eq!(desk.ids(), []);
    assert!(matches!(desk.stores.last(), Some((_, Record::Forgotten { .. }))));
    assert_eq!(desk.flush(), vec![]);
}

#[test]
fn what_was_being_written_of_a_forgotten_line_is_nobodys() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let one = point(1, 1);
    desk.ship(terms, 1, &Point::none(), &one);
    assert!(!desk.stores.is_empty());
    desk.input(Input::Forget(LINE));
    // The disk answers for the old line's records while the new line's are under way.
    assert_eq!(desk.ship(terms, 2, &Point::none(), &one), ack(1, 1));
    desk.flush();
    assert_eq!(desk.ids(), [one.id]);
}

#[test]
fn a_long_log_is_written_anew() {
    let (mut desk, terms) = (Desk::new(), terms(1, MEMORY));
    let mut base = Point::none();
    let mut snapshots = 0;
    // Two records each, and none of them large.
    for seq in 1..3000 {
        let next = Point { id: id(1, seq), image: base.image.clone() };
        let ship = Ship { committed: base.id, ..ship(seq, &base, &next) };
        assert_eq!(desk.ask(terms, Ask::Ship(ship)), ack(1, seq));
        let written = |(_, r): &&(Token, Record)| matches!(r, Record::Snapshot { .. });
        snapshots += desk.stores.iter().filter(written).count();
        desk.flush();
        base = next;
    }
    assert_eq!(snapshots, 1);
}
