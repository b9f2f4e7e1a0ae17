//! What a collector decides, and how it fetches.

use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::spec::Durability;

use super::*;
use crate::fixture::{
    DISK, LINE, MEMORY, from_holder, id, image, member, ms, node, point, terms, to_holder,
};
use crate::holder::{self, Holder};
use crate::image::{Part, Question};

const EPOCH: u64 = 5;

/// A collector, and what it has said.
struct Desk {
    collector: Collector,
    now: u64,
    sent: Vec<(NodeId, ToHolder)>,
}

impl Desk {
    fn new(durable: Durability, set: &[Member], local: Vec<Point>) -> Desk {
        let set = set.iter().copied().collect();
        let collector = Collector::new(ms(0), terms(EPOCH, durable), set, local);
        let mut desk = Desk { collector, now: 0, sent: Vec::new() };
        assert!(desk.drain().is_empty());
        desk
    }

    fn drain(&mut self) -> Vec<Output> {
        let mut said = Vec::new();
        while let Some(output) = self.collector.poll() {
            match output {
                Output::Send { to, message, .. } => self.sent.push((to, message)),
                other => said.push(other),
            }
        }
        said
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.collector.handle(ms(self.now), input);
        self.drain()
    }

    fn tick(&mut self, now: u64) -> Vec<Output> {
        self.now = now;
        self.input(Input::Tick)
    }

    fn report(&mut self, from: Member, point: &Point, kept: bool) -> Vec<Output> {
        let (root, size) = (point.root(), point.image.size());
        let report = Report { top: point.id, root, size, committed: NONE, kept };
        let message = from_holder(EPOCH, from.incarnation.0, Answer::Report(report));
        self.input(Input::Message { from: from.node, message })
    }

    /// Who is asked for the state itself.
    fn asked(&self) -> BTreeSet<NodeId> {
        let fetches = self.sent.iter().filter(|(_, m)| matches!(m.ask, Ask::Fetch { .. }));
        fetches.map(|(to, _)| *to).collect()
    }

    fn seals(&self, to: u8) -> usize {
        let seals = |(n, m): &&(NodeId, ToHolder)| *n == node(to) && m.ask == Ask::Seal;
        self.sent.iter().filter(seals).count()
    }
}

fn collected(point: &Point, may_be_missing: bool) -> Vec<Output> {
    let (id, image) = (point.id, point.image.clone());
    vec![Output::Collected { id, image, fetched: ByteCount(0), may_be_missing }]
}

const SET: [(u8, u64); 3] = [(2, 1), (3, 1), (4, 1)];

fn set() -> Vec<Member> {
    SET.iter().map(|(n, incarnation)| member(*n, *incarnation)).collect()
}

#[test]
fn without_a_set_there_is_nothing() {
    let mut collector =
        Collector::new(ms(0), terms(EPOCH, MEMORY), BTreeSet::new(), vec![point(1, 1)]);
    assert_eq!(collector.poll(), collected(&Point::none(), false).pop());
    assert_eq!((collector.poll(), collector.deadline()), (None, None));
}

#[test]
fn one_current_report_is_enough_if_its_state_is_here() {
    let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 8), point(1, 9)]);
    assert_eq!((desk.seals(2), desk.seals(3), desk.seals(4)), (1, 1, 1));
    assert_eq!(desk.report(member(2, 1), &point(1, 8), false), collected(&point(1, 8), false));
    assert!(desk.report(member(3, 1), &point(1, 9), false).is_empty(), "it is over");
}

#[test]
fn better_placed_ones_are_waited_for_if_it_has_to_be_fetched() {
    let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 9)]);
    desk.now = 10;
    assert!(desk.report(member(2, 1), &point(1, 8), false).is_empty());
    assert!(desk.asked().is_empty());
    assert_eq!(desk.collector.deadline(), Some(ms(60)));
    // The higher one is here, so nothing needs to be fetched.
    assert_eq!(desk.report(member(3, 1), &point(1, 9), false), collected(&point(1, 9), false));
}

#[test]
fn the_wait_ends_after_a_while_or_when_all_have_answered() {
    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    desk.now = 10;
    desk.report(member(2, 1), &point(1, 8), false);
    desk.tick(59);
    assert!(desk.asked().is_empty());
    desk.tick(60);
    assert_eq!(desk.asked(), BTreeSet::from([node(2)]));

    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    desk.report(member(2, 1), &point(1, 8), false);
    desk.report(member(3, 1), &point(1, 9), false);
    assert!(desk.asked().is_empty());
    desk.input(Input::Unreachable { node: node(4) });
    assert_eq!(desk.asked(), BTreeSet::from([node(3)]), "the highest, from who has it");
}

#[test]
fn only_current_members_count() {
    let state = point(1, 9);
    for (durable, from, kept, current) in [
        (MEMORY, member(2, 1), false, true),
        // It acknowledged under `disk`, before the service's user changed that.
        (MEMORY, member(2, 2), true, true),
        (MEMORY, member(2, 2), false, false),
        (DISK, member(2, 2), true, true),
        (DISK, member(2, 2), false, false),
        (DISK, member(2, 0), true, false),
        (DISK, member(2, 1), false, true),
        (MEMORY, member(7, 1), true, false),
    ] {
        let mut desk = Desk::new(durable, &set(), vec![state.clone()]);
        let expected = if current { collected(&state, false) } else { vec![] };
        assert_eq!(desk.report(from, &state, kept), expected, "{durable:?} {from:?} {kept}");
    }
}

#[test]
fn reports_that_make_no_sense_are_passed_over() {
    for top in [id(EPOCH + 1, 3), id(1, u64::MAX)] {
        let mut desk = Desk::new(MEMORY, &set(), Vec::new());
        let state = Point { id: top, ..point(1, 1) };
        assert!(desk.report(member(2, 1), &state, false).is_empty());
        desk.tick(60);
        assert!(desk.asked().is_empty());
    }
}

#[test]
fn without_a_current_report_the_service_is_unreachable() {
    let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 9)]);
    desk.report(member(2, 2), &point(1, 9), false);
    let missing: BTreeSet<Member> = set().into_iter().collect();
    assert_eq!(desk.collector.missing(), missing);
    assert!(desk.tick(999).is_empty());
    assert_eq!(desk.tick(1000), [Output::Unreachable { missing }]);
    assert!(desk.tick(5000).is_empty(), "said once");
    assert!(desk.seals(3) > 1, "but asked on");
    assert_eq!(desk.seals(2), 1, "who has answered isn't");
    assert_eq!(desk.report(member(4, 1), &point(1, 9), false), collected(&point(1, 9), false));
}

#[test]
fn seals_are_repeated_less_and_less_often() {
    let mut desk = Desk::new(MEMORY, &[member(2, 1)], Vec::new());
    let mut at = Vec::new();
    for now in 0..5000 {
        let before = desk.seals(2);
        desk.tick(now);
        if desk.seals(2) > before {
            at.push(now);
        }
    }
    assert_eq!(at, [100, 300, 700, 1500, 2500, 3500, 4500]);
    let before = desk.seals(2);
    desk.input(Input::LinkBack { node: node(2) });
    assert_eq!(desk.seals(2), before + 1);
}

#[test]
fn loss_is_accepted_only_by_order() {
    let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 9)]);
    desk.report(member(2, 2), &point(1, 8), false);
    desk.report(member(3, 2), &point(1, 9), false);
    desk.tick(2000);
    assert!(desk.input(Input::AcceptLoss).is_empty(), "one may still answer");
    assert!(desk.tick(2999).is_empty());
    assert_eq!(desk.tick(3000), collected(&point(1, 9), true));
}

#[test]
fn accepted_loss_with_nothing_left_starts_anew() {
    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    desk.input(Input::AcceptLoss);
    assert!(desk.tick(999).iter().all(|output| matches!(output, Output::Unreachable { .. })));
    assert_eq!(desk.tick(1000), collected(&Point::none(), true));
}

#[test]
fn a_current_report_beats_accepted_loss() {
    let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 8), point(1, 9)]);
    desk.input(Input::AcceptLoss);
    desk.report(member(2, 2), &point(1, 9), false);
    assert_eq!(desk.report(member(3, 1), &point(1, 8), false), collected(&point(1, 8), false));
}

#[test]
fn after_a_restart_of_all_every_member_is_waited_for() {
    let wait = Span::secs(30);
    for all_answer in [true, false] {
        let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 9)]);
        desk.input(Input::WholeClusterRestarted { wait: Some(wait) });
        desk.report(member(2, 2), &point(1, 8), false);
        desk.report(member(3, 2), &point(1, 9), false);
        desk.tick(29_000);
        if all_answer {
            let said = desk.report(member(4, 2), &point(1, 7), false);
            assert_eq!(said, collected(&point(1, 9), true));
        } else {
            assert!(desk.tick(29_999).is_empty());
            assert_eq!(desk.tick(30_000), collected(&point(1, 9), true));
        }
    }
}

#[test]
fn when_somebody_has_lived_on_nothing_older_is_taken() {
    let mut desk = Desk::new(MEMORY, &set(), vec![point(1, 9)]);
    desk.input(Input::WholeClusterRestarted { wait: Some(Span::secs(30)) });
    for from in 2..=3 {
        desk.report(member(from, 2), &point(1, 9), false);
    }
    desk.tick(29_000);
    desk.input(Input::WholeClusterRestarted { wait: None });
    assert!(desk.tick(40_000).is_empty());
    assert!(desk.report(member(4, 2), &point(1, 9), false).iter().all(is_unreachable));
    assert_eq!(desk.input(Input::AcceptLoss), collected(&point(1, 9), true));
}

fn is_unreachable(output: &Output) -> bool {
    matches!(output, Output::Unreachable { .. })
}

#[test]
fn with_disk_damaged_copies_wait_for_who_is_away() {
    let wait = Span::secs(30);
    let away = Output::Unreachable { missing: set().into_iter().collect() };
    let mut desk = Desk::new(DISK, &set(), vec![point(1, 8)]);
    desk.input(Input::WholeClusterRestarted { wait: Some(wait) });
    // Two have damaged copies; whatever was told to clients is with the third.
    desk.report(member(2, 2), &point(1, 7), false);
    desk.report(member(3, 2), &point(1, 8), false);
    assert_eq!(desk.tick(30_000), [away]);
    assert!(desk.tick(300_000).is_empty());
    assert!(desk.report(member(4, 2), &point(1, 9), true).is_empty());
    assert_eq!(desk.asked(), [node(4)].into(), "it is fetched");
    // If its copy is damaged too, nobody is left to be waited for.
    let mut desk = Desk::new(DISK, &set(), vec![point(1, 8)]);
    desk.input(Input::WholeClusterRestarted { wait: Some(wait) });
    desk.report(member(2, 2), &point(1, 7), false);
    desk.report(member(3, 2), &point(1, 8), false);
    assert_eq!(desk.report(member(4, 2), &point(1, 6), false), collected(&point(1, 8), true));
}

#[test]
fn what_has_passed_is_not_waited_for() {
    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    desk.input(Input::WholeClusterRestarted { wait: Some(Span::secs(30)) });
    for at in [30_000, 30_001, 90_000] {
        desk.tick(at);
        assert!(desk.collector.deadline().is_some_and(|due| due > ms(at)), "no news at {at} ms");
    }
}

#[test]
fn a_newer_epoch_ends_it() {
    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    let by = jizoku_types::Epoch::main(EPOCH + 1);
    let answer = Answer::Refuse { number: 0, why: Why::Superseded { by } };
    let message = from_holder(EPOCH, 1, answer);
    let said = desk.input(Input::Message { from: node(3), message });
    assert_eq!((said, desk.collector.deadline()), (vec![Output::Superseded { by }], None));
}

/// Real holders, and what happens on the way to and from them.
struct Peers {
    holders: BTreeMap<NodeId, Holder>,
    /// Nodes that answer no questions.
    mute: BTreeSet<NodeId>,
    /// Nodes whose blocks are damaged.
    lying: BTreeSet<NodeId>,
    answered: BTreeMap<NodeId, usize>,
}

impl Peers {
    fn new(states: &[(u8, &Point)]) -> Peers {
        let mut holders = BTreeMap::new();
        for (n, point) in states {
            let mut holder = Holder::new(member(*n, 1));
            holder.handle(ms(0), holder::Input::Loaded(Vec::new()));
            let (terms, point) = (terms(1, MEMORY), (*point).clone());
            holder.handle(ms(0), holder::Input::Install { terms, point });
            while holder.poll().is_some() {}
            holders.insert(node(*n), holder);
        }
        let (mute, lying) = (BTreeSet::new(), BTreeSet::new());
        Peers { holders, mute, lying, answered: BTreeMap::new() }
    }

    /// Carries messages, and lets time pass when all is silent, until `end`.
    fn talk(&mut self, desk: &mut Desk, end: u64) -> Vec<Output> {
        let mut said = Vec::new();
        while desk.now < end {
            if desk.sent.is_empty() {
                let Some(at) = desk.collector.deadline() else { break };
                let at = (at.as_nanos() / 1_000_000).max(desk.now);
                said.extend(desk.tick(at));
                continue;
            }
            let (to, message) = desk.sent.remove(0);
            let fetches = matches!(message.ask, Ask::Fetch { .. });
            let Some(holder) = self.holders.get_mut(&to) else { continue };
            if fetches && self.mute.contains(&to) {
                continue;
            }
            holder.handle(ms(desk.now), holder::Input::Message { from: node(1), message });
            let answers: Vec<_> = core::iter::from_fn(|| holder.poll()).collect();
            for answer in answers {
                let holder::Output::Send { mut message, .. } = answer else { continue };
                if let Answer::Blocks { body, .. } = &mut message.answer
                    && self.lying.contains(&to)
                {
                    let mut bytes = body.bytes().to_vec();
                    *bytes.last_mut().expect("not empty") ^= 1;
                    *body = Part::new(bytes);
                }
                *self.answered.entry(to).or_default() += usize::from(fetches);
                said.extend(desk.input(Input::Message { from: to, message }));
            }
        }
        said
    }
}

/// A state of many blocks that can't be compressed.
fn large(seed: u64) -> Point {
    let mut builder = crate::image::DiffBuilder::new(Some(Image::empty()));
    let bytes = crate::dice::Dice::new(1).bytes(1000 * 4096);
    builder.bytes("memory", &bytes).bytes("globals", &seed.to_le_bytes());
    builder.block("memory", seed as u32, &[1]);
    let mut image = Image::empty();
    image.apply_unrooted(&builder.finish()).expect("small enough");
    Point { id: id(1, seed), image }
}

fn the_collected(said: &[Output]) -> Option<(CheckpointId, Image, ByteCount)> {
    said.iter().find_map(|output| match output {
        Output::Collected { id, image, fetched, .. } => Some((*id, image.clone(), *fetched)),
        _ => None,
    })
}

#[test]
fn a_state_is_fetched_from_all_who_have_it() {
    let state = large(7);
    let mut peers = Peers::new(&[(2, &state), (3, &state), (4, &state)]);
    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    let said = peers.talk(&mut desk, 100);
    let (id, image, fetched) = the_collected(&said).expect("collected");
    assert_eq!((id, image), (state.id, state.image));
    assert!(fetched.0 > 1000 * 4096, "{fetched}");
    let least = *peers.answered.values().min().expect("they answered");
    assert!(least >= 5 && peers.answered.len() == 3, "{:?}", peers.answered);
}

#[test]
fn only_what_differs_is_fetched() {
    let (old, new) = (large(6), large(7));
    let mut peers = Peers::new(&[(2, &new)]);
    let mut desk = Desk::new(MEMORY, &[member(2, 1)], vec![old]);
    let said = peers.talk(&mut desk, 100);
    let (id, image, fetched) = the_collected(&said).expect("collected");
    assert_eq!((id, image), (new.id, new.image));
    // Two blocks of memory, one of the globals, and the digests on the way to them.
    assert!(fetched.0 < 3 * 4096, "{fetched}");
}

#[test]
fn liars_and_the_mute_are_left_out() {
    let state = large(7);
    let mut peers = Peers::new(&[(2, &state), (3, &state), (4, &state)]);
    peers.lying.insert(node(2));
    peers.mute.insert(node(3));
    let mut desk = Desk::new(MEMORY, &set(), Vec::new());
    let said = peers.talk(&mut desk, 20_000);
    let (id, image, _) = the_collected(&said).expect("collected");
    assert_eq!((id, image), (state.id, state.image));
    let lost = |n, why| Output::SourceLost { node: node(n), why };
    assert!(said.contains(&lost(2, SourceLost::Corrupt)));
    assert!(said.contains(&lost(3, SourceLost::Silent)));
}

#[test]
fn a_damaged_only_copy_is_not_taken() {
    let state = large(7);
    let mut peers = Peers::new(&[(2, &state)]);
    peers.lying.insert(node(2));
    let mut desk = Desk::new(MEMORY, &[member(2, 1)], Vec::new());
    let said = peers.talk(&mut desk, 10_000);
    assert_eq!(the_collected(&said), None);
    assert!(matches!(said.last(), Some(Output::Unreachable { .. })), "{said:?}");
}

#[test]
fn if_the_highest_can_t_be_had_the_next_is_taken() {
    let (lower, higher) = (large(6), large(7));
    let mut peers = Peers::new(&[(2, &lower), (3, &higher)]);
    peers.mute.insert(node(3));
    let mut desk = Desk::new(MEMORY, &[member(2, 1), member(3, 1)], Vec::new());
    let said = peers.talk(&mut desk, 20_000);
    let (id, image, _) = the_collected(&said).expect("collected");
    // It wasn't committed: a current member doesn't have it.
    assert_eq!((id, image), (lower.id, lower.image));
}

#[test]
fn a_late_answer_still_counts_and_a_second_one_does_no_harm() {
    let state = point(1, 9);
    let mut peers = Peers::new(&[(2, &state)]);
    let mut desk = Desk::new(MEMORY, &[member(2, 1)], Vec::new());
    let seal = desk.sent.remove(0);
    desk.report(member(2, 1), &state, false);
    let outline = desk.sent.remove(0);
    assert!(matches!(&outline.1.ask, Ask::Fetch { question: Question::Outline, .. }));
    desk.tick(500);
    let again = desk.sent.remove(0);
    assert!(matches!(&again.1.ask, Ask::Fetch { question: Question::Outline, .. }));
    desk.sent.extend([outline, again, seal]);
    let said = peers.talk(&mut desk, 900);
    assert_eq!(
        the_collected(&said).map(|(id, image, _)| (id, image)),
        Some((state.id, state.image))
    );
}

#[test]
fn what_was_fetched_is_kept_while_the_only_source_is_away() {
    let state = large(7);
    let mut peers = Peers::new(&[(2, &state)]);
    let mut desk = Desk::new(MEMORY, &[member(2, 1)], Vec::new());
    // Some answers, then the link breaks.
    desk.report(member(2, 1), &state, false);
    for _ in 0..12 {
        let (to, message) = desk.sent.remove(0);
        let holder = peers.holders.get_mut(&to).expect("it is there");
        holder.handle(ms(0), holder::Input::Message { from: node(1), message });
        while let Some(output) = holder.poll() {
            if let holder::Output::Send { message, .. } = output {
                assert!(desk.input(Input::Message { from: to, message }).is_empty());
            }
        }
    }
    desk.sent.clear();
    let lost = Output::SourceLost { node: node(2), why: SourceLost::Silent };
    assert_eq!(desk.input(Input::Unreachable { node: node(2) }), [lost]);
    desk.sent.clear();
    desk.input(Input::LinkBack { node: node(2) });
    let said = peers.talk(&mut desk, 100);
    let (_, image, fetched) = the_collected(&said).expect("collected");
    assert_eq!(image, state.image);
    assert!(fetched.0 < 1100 * 4096, "nothing was fetched twice: {fetched}");
}

#[test]
fn a_holder_of_this_node_is_asked_like_the_others() {
    let state = point(1, 9);
    let mut peers = Peers::new(&[(1, &state)]);
    let mut desk = Desk::new(MEMORY, &[member(1, 1)], vec![state.clone()]);
    assert_eq!(peers.talk(&mut desk, 100), collected(&state, false));
    // It is sealed now.
    let old = to_holder(terms(EPOCH - 1, MEMORY), Ask::Commit { id: state.id });
    let holder = peers.holders.get_mut(&node(1)).expect("it is there");
    holder.handle(ms(0), holder::Input::Message { from: node(1), message: old });
    assert_eq!(holder.committed(LINE), NONE);
    assert_eq!(image(1009), state.image);
}
