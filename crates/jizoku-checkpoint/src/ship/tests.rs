//! The shipper's rules, one by one.

use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::BLOCK;

use super::*;
use crate::dice::Dice;
use crate::fixture::{DISK, LINE, MEMORY, from_holder, id, image, member, ms, node, point, terms};
use crate::holder::{self, Holder};
use crate::image::{CUT_MIN, DiffBuilder, Digest};
use crate::message::Ship;

/// A shipper on node 1, and what it has said.
struct Desk {
    shipper: Shipper,
    now: u64,
    sent: Vec<(NodeId, Channel, ToHolder)>,
}

impl Desk {
    fn new(durable: Durability, restored: Option<(CheckpointId, Image)>) -> Desk {
        let shipper = Shipper::new(node(1), terms(3, durable), restored);
        Desk { shipper, now: 0, sent: Vec::new() }
    }

    /// Restored from 2.7, with members 2 and 3, who have adopted that.
    fn settled() -> Desk {
        let mut desk = Desk::new(MEMORY, Some((id(2, 7), image(7))));
        desk.set(1, &[member(2, 1), member(3, 1)], &[]);
        desk.ack(2, 1, id(2, 7));
        assert_eq!(desk.ack(3, 1, id(2, 7)), [Output::Established { id: id(2, 7) }]);
        desk.sent.clear();
        desk
    }

    /// Gives an input, and returns what it says beside messages.
    fn input(&mut self, input: Input) -> Vec<Output> {
        self.shipper.handle(ms(self.now), input);
        let mut said = Vec::new();
        while let Some(output) = self.shipper.poll() {
            match output {
                Output::Send { to, channel, message } => self.sent.push((to, channel, message)),
                other => said.push(other),
            }
        }
        said
    }

    fn set(&mut self, version: u64, members: &[Member], joining: &[Member]) -> Vec<Output> {
        let members = members.iter().copied().collect();
        let joining = joining.iter().copied().collect();
        self.input(Input::SetHolders(HolderSet { members, joining, version }))
    }

    fn answer(&mut self, from: u8, incarnation: u64, answer: Answer) -> Vec<Output> {
        let message = from_holder(3, incarnation, answer);
        self.input(Input::Message { from: node(from), message })
    }

    fn ack(&mut self, from: u8, incarnation: u64, id: CheckpointId) -> Vec<Output> {
        self.answer(from, incarnation, Answer::Ack { id })
    }

    fn capture(&mut self, content: u64) -> Vec<Output> {
        let diff = Diff::between(self.shipper.shadow(), &image(content));
        self.input(Input::Captured { diff })
    }

    fn tick(&mut self, now: u64) -> Vec<Output> {
        self.now = now;
        self.input(Input::Tick)
    }

    fn ships(&self, to: u8) -> Vec<&Ship> {
        let to_node = |(n, _, _): &&(NodeId, Channel, ToHolder)| *n == node(to);
        let ships =
            self.sent.iter().filter(to_node).filter_map(|(_, _, message)| match &message.ask {
                Ask::Ship(ship) => Some(ship),
                _ => None,
            });
        ships.collect()
    }

    fn asks(&self, to: u8) -> Vec<&Ask> {
        let to_node = |(n, _, _): &&(NodeId, Channel, ToHolder)| *n == node(to);
        self.sent.iter().filter(to_node).map(|(_, _, message)| &message.ask).collect()
    }

    /// The number of what was sent last to a node.
    fn number(&self, to: u8) -> u64 {
        match self.asks(to).last() {
            Some(Ask::Ship(ship)) => ship.transfer,
            Some(Ask::Adopt { transfer, .. }) => *transfer,
            Some(Ask::Fetch { ticket, .. }) => *ticket,
            other => panic!("nothing numbered was sent: {other:?}"),
        }
    }

    fn refuse(&mut self, from: u8, why: Why) -> Vec<Output> {
        let number = self.number(from);
        self.answer(from, 1, Answer::Refuse { number, why })
    }
}

fn failed(n: u8, why: Failure) -> Vec<Output> {
    vec![Output::HolderFailed { member: member(n, 1), why }]
}

#[test]
fn what_it_goes_on_from_is_established_by_all_members() {
    let mut desk = Desk::new(MEMORY, Some((id(2, 7), image(7))));
    assert!(desk.input(Input::Tick).is_empty() && desk.sent.is_empty(), "the set isn't known");
    desk.set(1, &[member(2, 1), member(3, 1)], &[]);
    let (root, joins) = (image(7).root(), false);
    assert_eq!(desk.asks(2), [&Ask::Adopt { transfer: 1, id: id(2, 7), root, joins }]);
    assert!(desk.ack(2, 1, id(2, 7)).is_empty());
    assert_eq!(desk.shipper.committed(), NONE);
    assert_eq!(desk.ack(3, 1, id(2, 7)), [Output::Established { id: id(2, 7) }]);
    assert_eq!((desk.shipper.committed(), desk.shipper.copies(id(2, 7))), (id(2, 7), 2));
    assert!(desk.ack(3, 1, id(2, 7)).is_empty(), "said once");
}

#[test]
fn a_checkpoint_is_committed_by_the_last_acknowledgement() {
    let mut desk = Desk::settled();
    assert!(desk.capture(8).is_empty());
    assert_eq!(desk.shipper.in_flight(), Some(id(3, 8)));
    let [ship] = desk.ships(2)[..] else { panic!("one part") };
    assert_eq!((ship.id, ship.base, ship.committed), (id(3, 8), id(2, 7), id(2, 7)));
    assert_eq!(ship.root, image(8).root());
    assert!(desk.ack(2, 1, id(3, 8)).is_empty());
    assert_eq!(desk.shipper.acknowledged(id(3, 8)).collect::<Vec<_>>(), [member(2, 1)]);
    assert!(desk.ack(2, 1, id(3, 8)).is_empty(), "a copy counts once");
    assert!(desk.ack(4, 1, id(3, 8)).is_empty(), "of who is no holder");
    assert_eq!(desk.ack(3, 1, id(3, 8)), [Output::Committed { id: id(3, 8), copies: 2 }]);
    assert_eq!((desk.shipper.in_flight(), desk.shipper.committed()), (None, id(3, 8)));
    let stats = desk.shipper.stats();
    assert_eq!((stats.captured, stats.committed), (1, 1));
    assert_eq!(stats.raw, ByteCount(BLOCK as u64));
    assert_eq!(stats.sent, ByteCount(2 * stats.last_encoded.0));
}

#[test]
fn only_this_epoch_and_the_named_incarnation_count() {
    let mut desk = Desk::settled();
    desk.capture(8);
    desk.ack(2, 1, id(3, 8));
    for (epoch, incarnation) in [(2, 1), (4, 1), (3, 0)] {
        let message = from_holder(epoch, incarnation, Answer::Ack { id: id(3, 8) });
        assert!(desk.input(Input::Message { from: node(3), message }).is_empty());
    }
    assert_eq!(desk.ack(3, 2, id(3, 8)), failed(3, Failure::Restarted));
    assert!(desk.ack(3, 2, id(3, 8)).is_empty(), "said once");
    // Without it, the other is enough.
    let committed = Output::Committed { id: id(3, 8), copies: 1 };
    assert_eq!(desk.set(2, &[member(2, 1)], &[]), [committed]);
}

#[test]
fn with_disk_a_later_incarnation_counts_too() {
    let mut desk = Desk::new(DISK, Some((id(2, 7), image(7))));
    desk.set(1, &[member(2, 4)], &[]);
    assert!(desk.ack(2, 3, id(2, 7)).is_empty(), "not an earlier one");
    assert_eq!(desk.ack(2, 9, id(2, 7)), [Output::Established { id: id(2, 7) }]);
}

#[test]
fn what_is_asked_of_holders_may_change() {
    let mut desk = Desk::new(DISK, None);
    desk.set(1, &[member(2, 1)], &[]);
    desk.ack(2, 2, NONE);
    desk.capture(1);
    let committed = Output::Committed { id: id(3, 1), copies: 1 };
    assert_eq!(desk.ack(2, 2, id(3, 1)), [committed], "it was restarted: it has it on disk");
    desk.input(Input::Durable(MEMORY));
    desk.sent.clear();
    desk.capture(2);
    let terms: Vec<Durability> = desk.sent.iter().map(|(_, _, ask)| ask.terms.durable).collect();
    assert_eq!(terms, [MEMORY]);
    // In memory it is only in this run, which the set doesn't name.
    assert_eq!(desk.ack(2, 2, id(3, 2)), failed(2, Failure::Restarted));
}

#[test]
fn this_node_is_no_copy() {
    let mut desk = Desk::new(MEMORY, None);
    desk.set(1, &[member(1, 1)], &[]);
    assert_eq!(desk.ack(1, 1, NONE), [Output::Established { id: NONE }]);
    desk.capture(1);
    assert_eq!(desk.ack(1, 1, id(3, 1)), [Output::Committed { id: id(3, 1), copies: 0 }]);
}

#[test]
fn without_holders_all_is_committed_at_once_with_no_copies() {
    let mut desk = Desk::new(MEMORY, None);
    assert!(desk.capture(1).is_empty(), "the set isn't known");
    let committed = Output::Committed { id: id(3, 1), copies: 0 };
    assert_eq!(desk.set(0, &[], &[]), [Output::Established { id: NONE }, committed]);
}

#[test]
fn an_older_set_is_passed_over() {
    let mut desk = Desk::settled();
    desk.set(5, &[member(2, 1)], &[]);
    desk.set(4, &[member(2, 1), member(3, 1)], &[]);
    desk.capture(8);
    assert_eq!(desk.ack(2, 1, id(3, 8)), [Output::Committed { id: id(3, 8), copies: 1 }]);
}

#[test]
fn a_commit_is_told_with_the_next_checkpoint_or_after_a_while() {
    let mut desk = Desk::settled();
    desk.tick(20);
    assert_eq!(desk.asks(2), [&Ask::Commit { id: id(2, 7) }]);
    desk.sent.clear();
    desk.capture(8);
    desk.ack(2, 1, id(3, 8));
    desk.ack(3, 1, id(3, 8));
    assert_eq!(desk.shipper.deadline(), Some(ms(40)));
    desk.now = 30;
    desk.capture(9);
    assert_eq!(desk.ships(2).last().expect("sent").committed, id(3, 8));
    desk.tick(45);
    assert!(!desk.asks(2).contains(&&Ask::Commit { id: id(3, 8) }), "it was told");
    desk.ack(2, 1, id(3, 9));
    desk.ack(3, 1, id(3, 9));
    desk.sent.clear();
    desk.tick(65);
    assert_eq!(desk.asks(3), [&Ask::Commit { id: id(3, 9) }]);
    assert_eq!(desk.shipper.deadline(), None, "an idle service says nothing");
    // With the link, what was said last may have been lost.
    desk.sent.clear();
    desk.input(Input::LinkBack { node: node(3) });
    desk.tick(90);
    assert_eq!((desk.asks(2), desk.asks(3)), (vec![], vec![&Ask::Commit { id: id(3, 9) }]));
}

#[test]
fn what_isn_t_answered_is_sent_again_less_and_less_often() {
    let mut desk = Desk::settled();
    desk.tick(20);
    desk.capture(8);
    desk.ack(2, 1, id(3, 8));
    desk.sent.clear();
    let mut failures = Vec::new();
    let mut sent_at = Vec::new();
    while desk.now < 12_000 {
        let at = desk.shipper.deadline().expect("an answer is owed");
        failures.extend(desk.tick(at.as_nanos() / 1_000_000));
        sent_at.push(desk.now);
    }
    assert_eq!(sent_at[..6], [320, 920, 2120, 4520, 7520, 10_520]);
    assert_eq!(desk.ships(3).len(), sent_at.len());
    assert!(desk.asks(2).is_empty());
    assert_eq!(failures, failed(3, Failure::Silent), "said once");
    let committed = Output::Committed { id: id(3, 8), copies: 2 };
    assert_eq!(desk.ack(3, 1, id(3, 8)), [committed], "it is asked on");
}

#[test]
fn who_joins_is_awaited_from_when_it_has_caught_up() {
    let mut desk = Desk::settled();
    desk.set(1, &[member(2, 1), member(3, 1)], &[member(4, 1)]);
    assert!(matches!(desk.asks(4)[..], [Ask::Adopt { joins: true, .. }]));
    desk.capture(8);
    desk.ack(2, 1, id(3, 8));
    let committed = |seq| Output::Committed { id: id(3, seq), copies: 2 };
    assert_eq!(desk.ack(3, 1, id(3, 8)), [committed(8)], "it isn't awaited yet");
    // It has nothing: it gets all, and meanwhile there is a newer checkpoint.
    let nothing = Why::BaseMissing { have: NONE, root: Digest::default() };
    desk.refuse(4, nothing);
    let [whole] = desk.ships(4)[..] else { panic!("one part") };
    assert_eq!((whole.id, whole.base), (id(3, 8), NONE));
    assert_eq!(desk.sent.last().expect("sent").1, Channel::Bulk);
    desk.capture(9);
    desk.ack(2, 1, id(3, 9));
    assert_eq!(desk.ack(3, 1, id(3, 9)), [committed(9)]);
    desk.capture(10);
    assert!(desk.ack(4, 1, id(3, 8)).is_empty());
    let next = desk.ships(4)[1];
    assert_eq!((next.id, next.base), (id(3, 10), id(3, 8)), "one diff over both");
    assert_eq!(desk.ack(4, 1, id(3, 10)), [Output::CaughtUp { member: member(4, 1) }]);
    desk.ack(2, 1, id(3, 10));
    desk.ack(3, 1, id(3, 10));
    // From now on it has to acknowledge, before the set is changed, and after.
    desk.capture(11);
    desk.ack(2, 1, id(3, 11));
    assert!(desk.ack(3, 1, id(3, 11)).is_empty());
    assert_eq!(desk.ack(4, 1, id(3, 11)), [committed(11)], "a copy only as a member");
    desk.set(2, &[member(2, 1), member(3, 1), member(4, 1)], &[]);
    assert_eq!(desk.shipper.copies(id(3, 11)), 3);
}

#[test]
fn who_leaves_isn_t_awaited() {
    let mut desk = Desk::settled();
    desk.set(1, &[member(2, 1), member(3, 1)], &[member(4, 1)]);
    assert_eq!(desk.ack(4, 1, id(2, 7)), [Output::CaughtUp { member: member(4, 1) }]);
    desk.capture(8);
    desk.ack(2, 1, id(3, 8));
    desk.ack(3, 1, id(3, 8));
    let committed = Output::Committed { id: id(3, 8), copies: 2 };
    assert_eq!(desk.set(1, &[member(2, 1), member(3, 1)], &[]), [committed]);
}

#[test]
fn a_newer_epoch_ends_it() {
    let mut desk = Desk::settled();
    let by = Epoch::main(4);
    let refuse = Answer::Refuse { number: 0, why: Why::Superseded { by } };
    // Even in answer to a message that it doesn't remember.
    assert_eq!(desk.answer(9, 5, refuse), [Output::Superseded { by }]);
    assert_eq!(desk.shipper.deadline(), None);
    desk.sent.clear();
    assert!(desk.capture(8).is_empty() && desk.sent.is_empty());
}

#[test]
fn refusals_of_members_are_failures() {
    for (why, failure) in [
        (Why::BaseMissing { have: NONE, root: Digest::default() }, Failure::LostState),
        (Why::Ahead { committed: id(2, 9) }, Failure::Ahead),
        (Why::Malformed, Failure::Malformed),
        (Why::NoRoom, Failure::NoRoom),
        (Why::NotStored, Failure::NotStored),
    ] {
        let mut desk = Desk::settled();
        desk.capture(8);
        desk.ack(3, 1, id(3, 8));
        assert_eq!(desk.refuse(2, why), failed(2, failure));
        assert!(desk.refuse(2, why).is_empty(), "said once");
        desk.sent.clear();
        desk.tick(3000);
        assert_eq!(desk.ships(2).is_empty(), !failure.may_pass(), "{failure:?}");
        assert_eq!(desk.ack(2, 1, id(3, 8)).is_empty(), !failure.may_pass(), "{failure:?}");
    }
}

#[test]
fn a_disk_that_stays_broken_for_long_is_asked_on() {
    let mut desk = Desk::settled();
    desk.capture(8);
    desk.ack(3, 1, id(3, 8));
    assert_eq!(desk.refuse(2, Why::NotStored), failed(2, Failure::NotStored));
    for round in 1..400 {
        desk.tick(3000 * round);
        assert!(desk.refuse(2, Why::NotStored).is_empty());
    }
    assert_eq!(desk.ack(2, 1, id(3, 8)), [Output::Committed { id: id(3, 8), copies: 2 }]);
}

#[test]
fn what_was_damaged_is_sent_again_a_few_times() {
    let mut desk = Desk::settled();
    desk.capture(8);
    assert!(desk.refuse(2, Why::Corrupt).is_empty());
    assert!(desk.refuse(2, Why::Corrupt).is_empty());
    assert_eq!(desk.refuse(2, Why::Corrupt), failed(2, Failure::Corrupt));
    assert_eq!(desk.ships(2).len(), 3);
}

#[test]
fn a_refusal_of_what_isn_t_asked_any_more_means_nothing() {
    let mut desk = Desk::settled();
    desk.capture(8);
    let number = desk.number(2) - 1;
    let why = Why::NoRoom;
    assert!(desk.answer(2, 1, Answer::Refuse { number, why }).is_empty());
    desk.ack(2, 1, id(3, 8));
    assert_eq!(desk.ack(3, 1, id(3, 8)).len(), 1);
}

#[test]
#[should_panic(expected = "one checkpoint is in flight")]
fn two_captures_in_flight_are_a_mistake() {
    let mut desk = Desk::settled();
    desk.capture(8);
    desk.capture(9);
}

/// A state that takes many parts at one block each.
fn large(blocks: usize) -> Image {
    let mut builder = DiffBuilder::new(Some(Image::empty()));
    builder.bytes("memory", &Dice::new(1).bytes(blocks * BLOCK));
    let mut image = Image::empty();
    image.apply_unrooted(&builder.finish()).expect("small enough");
    image
}

#[test]
fn a_long_transfer_is_paced_and_goes_on_after_a_broken_link() {
    let mut desk = Desk::new(MEMORY, Some((id(2, 7), large(20))));
    desk.shipper = desk.shipper.with_part_max(CUT_MIN);
    desk.set(1, &[], &[member(2, 1)]);
    desk.refuse(2, Why::BaseMissing { have: NONE, root: Digest::default() });
    let parts = |desk: &Desk| desk.ships(2).iter().map(|ship| ship.part).collect::<Vec<_>>();
    assert_eq!(parts(&desk), (0..8).collect::<Vec<_>>());
    let transfer = desk.number(2);
    let received = |part, have| Answer::Received { transfer, part, have };
    desk.answer(2, 1, received(3, 1));
    desk.answer(2, 1, received(0, 2));
    assert_eq!(parts(&desk)[8..], [8, 9]);
    desk.sent.clear();
    desk.input(Input::LinkBack { node: node(2) });
    assert_eq!(parts(&desk), [1, 2, 4, 5, 6, 7, 8, 9], "only what is not known to be there");
    for (part, have) in (4..20).chain(1..3).zip(3..) {
        desk.answer(2, 1, received(part, have));
    }
    // All are told to be there, and yet no acknowledgement: so the holder has dropped some.
    assert!(desk.number(2) > transfer, "it begins anew");
    assert_eq!(desk.ack(2, 1, id(2, 7)), [Output::CaughtUp { member: member(2, 1) }]);
}

#[test]
fn on_a_slow_link_parts_are_not_sent_again_too_soon() {
    let mut desk = Desk::new(MEMORY, Some((id(2, 7), large(40))));
    desk.shipper = desk.shipper.with_part_max(CUT_MIN);
    desk.set(1, &[], &[member(2, 1)]);
    desk.refuse(2, Why::BaseMissing { have: NONE, root: Digest::default() });
    let transfer = desk.number(2);
    desk.now = 290;
    desk.answer(2, 1, Answer::Received { transfer, part: 0, have: 1 });
    assert_eq!(desk.shipper.deadline(), Some(ms(290 + 580)));
}

/// Carries messages between a shipper on node 1 and a holder on node 2 until they are silent.
fn talk(desk: &mut Desk, holder: &mut Holder) -> (Vec<Output>, usize, usize) {
    let (mut said, mut shipped, mut asked) = (Vec::new(), 0, 0);
    while let Some((_, _, message)) = (!desk.sent.is_empty()).then(|| desk.sent.remove(0)) {
        match &message.ask {
            Ask::Ship(ship) => shipped += ship.body.bytes().len(),
            Ask::Fetch { .. } => asked += 1,
            _ => {}
        }
        holder.handle(ms(desk.now), holder::Input::Message { from: node(1), message });
        while let Some(output) = holder.poll() {
            if let holder::Output::Send { message, .. } = output {
                said.extend(desk.input(Input::Message { from: node(2), message }));
            }
        }
    }
    (said, shipped, asked)
}

#[test]
fn who_lags_gets_only_what_differs() {
    let mut holder = Holder::new(member(2, 1));
    holder.handle(ms(0), holder::Input::Loaded(Vec::new()));
    let stale = crate::chain::Point { id: id(1, 4), image: large(300) };
    let terms = terms(1, MEMORY);
    holder.handle(ms(0), holder::Input::Install { terms, point: stale.clone() });
    let mut builder = DiffBuilder::new(Some(stale.image.clone()));
    builder.block("memory", 17, &[1]).block("memory", 200, &[2]).bytes("globals", &[3]);
    builder.resize("memory", 310 * BLOCK as u64).block("memory", 305, &[4]);
    let mut newer = stale.image;
    newer.apply_unrooted(&builder.finish()).expect("fits");
    for (members, joining) in [(vec![member(2, 1)], vec![]), (vec![], vec![member(2, 1)])] {
        let mut holder_copy = Holder::new(member(2, 1));
        core::mem::swap(&mut holder_copy, &mut holder);
        let mut desk = Desk::new(MEMORY, Some((id(2, 7), newer.clone())));
        let mut said = desk.set(1, &members, &joining);
        let (more, shipped, asked) = talk(&mut desk, &mut holder_copy);
        said.extend(more);
        assert!(said.contains(&Output::Established { id: id(2, 7) }), "{said:?}");
        assert_eq!(holder_copy.ready_image(LINE), Some((id(2, 7), newer.clone())));
        assert!(shipped < 2000, "{shipped} bytes of parts");
        assert!((1..=5).contains(&asked), "{asked} questions");
        assert!(holder_copy.points(LINE).len() == 2, "the diff is based on what it had");
        holder = Holder::new(member(2, 1));
        holder.handle(ms(0), holder::Input::Loaded(Vec::new()));
        let point = holder_copy.points(LINE).remove(0);
        holder.handle(ms(0), holder::Input::Install { terms, point });
    }
}

#[test]
fn a_stranger_state_is_replaced_whole() {
    let mut holder = Holder::new(member(2, 1));
    holder.handle(ms(0), holder::Input::Loaded(Vec::new()));
    let terms = terms(2, MEMORY);
    holder.handle(ms(0), holder::Input::Install { terms, point: point(2, 9) });
    let commit = ToHolder { terms, ask: Ask::Commit { id: id(2, 9) } };
    holder.handle(ms(0), holder::Input::Message { from: node(1), message: commit });
    let mut desk = Desk::new(MEMORY, Some((id(1, 7), image(7))));
    desk.set(1, &[], &[member(2, 1)]);
    let (said, _, _) = talk(&mut desk, &mut holder);
    assert_eq!(said.last(), Some(&Output::CaughtUp { member: member(2, 1) }));
    assert_eq!(holder.ready_image(LINE), Some((id(1, 7), image(7))));
}
