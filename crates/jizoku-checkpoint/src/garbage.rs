//! Whatever arrives, nothing panics: real messages with bits turned, given to the real values.

use alloc::vec;
use alloc::vec::Vec;

use crate::chain::{NONE, Point};
use crate::collect::{self, Collector};
use crate::dice::Dice;
use crate::fixture::{
    DISK, LINE, MEMORY, from_holder, id, image, member, ms, node, point, ship, terms, to_holder,
};
use crate::holder::{self, Holder};
use crate::image::{Digest, Part, Question, SpaceName};
use crate::message::{Answer, Ask, FromHolder, Report, ToHolder, Why};
use crate::record::{Entry, Replay};
use crate::ship::{self, HolderSet, Shipper};

/// Turns some bits, or cuts, or adds.
fn spoil(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..1 + dice.below(3) {
        let at = dice.below(bytes.len() as u64) as usize;
        match dice.below(8) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.insert(at, dice.next() as u8),
            2 => bytes[at] = 0xff,
            _ => bytes[at] ^= 1 << dice.below(8),
        }
    }
}

fn asks() -> Vec<ToHolder> {
    let [none, one, two] = [Point::none(), point(1, 1), point(1, 2)];
    let space = SpaceName::new("memory").expect("a name");
    let fetch = |question| Ask::Fetch { ticket: 3, id: one.id, question };
    let asks = [
        Ask::Ship(ship(1, &none, &one)),
        Ask::Ship(ship(2, &one, &two)),
        Ask::Commit { id: one.id },
        Ask::Adopt { transfer: 4, id: one.id, root: one.root(), joins: true },
        Ask::Seal,
        fetch(Question::Outline),
        fetch(Question::Nodes { space: space.clone(), level: 1, indices: vec![0] }),
        fetch(Question::Blocks { space, indices: vec![0, 3, 5] }),
    ];
    asks.into_iter().map(|ask| to_holder(terms(1, DISK), ask)).collect()
}

fn answers() -> Vec<FromHolder> {
    let one = point(1, 1);
    let root = one.root();
    let there = one.image.space("memory").expect("there");
    let report = Report { top: one.id, root, size: one.image.size(), committed: NONE, kept: true };
    let answers = [
        Answer::Ack { id: id(1, 1) },
        Answer::Ack { id: id(3, 2) },
        Answer::Received { transfer: 2, part: 0, have: 1 },
        Answer::Refuse { number: 1, why: Why::BaseMissing { have: one.id, root } },
        Answer::Refuse { number: 1, why: Why::BaseMissing { have: NONE, root: Digest([0; 32]) } },
        Answer::Refuse { number: 2, why: Why::Corrupt },
        Answer::Report(report),
        Answer::Outline { ticket: 2, spaces: one.image.outline() },
        Answer::Nodes { ticket: 3, nodes: vec![there.node(1, 0).expect("there")] },
        Answer::Blocks { ticket: 4, body: Part::new(vec![1, 0, 1, 0, 0, 0, 9]) },
    ];
    answers.into_iter().map(|answer| from_holder(3, 1, answer)).collect()
}

#[test]
fn a_holder_takes_anything() {
    let (asks, mut taken) = (asks(), 0);
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut holder = Holder::new(member(1, 1));
        holder.handle(ms(0), holder::Input::Loaded(Vec::new()));
        for step in 0..30 {
            let mut bytes = jizoku_types::encode(dice.pick(&asks).expect("some"));
            if dice.chance(70) {
                spoil(&mut dice, &mut bytes);
            }
            if let Ok(message) = jizoku_types::decode(&bytes) {
                taken += 1;
                holder.handle(ms(step), holder::Input::Message { from: node(2), message });
            }
            while let Some(output) = holder.poll() {
                if let holder::Output::Store { token, .. } = output {
                    let input = match dice.below(4) {
                        0 => holder::Input::StoreFailed { token },
                        _ => holder::Input::Stored { token: token + dice.below(8) / 7 },
                    };
                    holder.handle(ms(step), input);
                }
            }
            assert!(holder.points(LINE).iter().all(|point| point.id != NONE));
        }
    }
    assert!(taken > 3000, "only {taken} were messages at all");
}

#[test]
fn a_shipper_and_a_collector_take_anything() {
    let (answers, mut taken) = (answers(), 0);
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut shipper = Shipper::new(node(1), terms(3, MEMORY), Some((id(1, 1), image(5))));
        let members = [member(2, 1)].into();
        let joining = [member(3, 1)].into();
        let set = HolderSet { members, joining, version: 1 };
        shipper.handle(ms(0), ship::Input::SetHolders(set));
        let set = [member(2, 1), member(3, 1)].into();
        let mut collector = Collector::new(ms(0), terms(3, MEMORY), set, vec![point(1, 2)]);
        for step in 0..60 {
            let mut bytes = jizoku_types::encode(dice.pick(&answers).expect("some"));
            if dice.chance(50) {
                spoil(&mut dice, &mut bytes);
            }
            if let Ok(message) = jizoku_types::decode::<FromHolder>(&bytes) {
                taken += 1;
                let from = node(2 + dice.below(2) as u8);
                let copy = message.clone();
                shipper.handle(ms(step * 20), ship::Input::Message { from, message: copy });
                collector.handle(ms(step * 20), collect::Input::Message { from, message });
            }
            while shipper.poll().is_some() {}
            while collector.poll().is_some() {}
        }
    }
    assert!(taken > 6000, "only {taken} were messages at all");
}

#[test]
fn a_replay_takes_anything() {
    let [none, one, two] = [Point::none(), point(1, 1), point(1, 2)];
    let mut entries = vec![Entry::Begin { counter: 1, durable: DISK }, Entry::End];
    for (base, to) in [(&none, &one), (&one, &two)] {
        let (id, base_id, root) = (to.id, base.id, to.root());
        let head =
            crate::record::Head { id, base: base_id, root, counter: 1, durable: DISK, parts: 1 };
        entries.extend([Entry::Checkpoint(head), Entry::Part(ship(1, base, to).body)]);
    }
    entries.push(Entry::Committed { id: one.id });
    entries.push(Entry::Sealed { counter: 2, durable: DISK, above: Some(one.id) });
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut replay = Replay::new();
        for _ in 0..20 {
            let mut bytes = jizoku_types::encode(dice.pick(&entries).expect("some"));
            if dice.chance(40) {
                spoil(&mut dice, &mut bytes);
            }
            if let Ok(entry) = jizoku_types::decode(&bytes) {
                let _ = replay.push(&entry);
            }
        }
        let loaded = replay.finish(LINE, false);
        assert!(loaded.chain.points().all(|point| point.id.seq < 3 || point.id != one.id));
    }
}
