//! Checkpoints: messages of shippers, holders and collectors; parts of diffs; records on disk.

use std::collections::BTreeSet;

use jizoku_checkpoint::chain::Point;
use jizoku_checkpoint::collect::{self, Collector};
use jizoku_checkpoint::holder::{self, Holder};
use jizoku_checkpoint::image::{Diff, DiffBuilder, Image, Part, Question, SpaceName};
use jizoku_checkpoint::message::{
    Answer, Ask, FromHolder, Line, Report, Ship, Terms, ToHolder, Why,
};
use jizoku_checkpoint::record::{Entry, Head, Replay};
use jizoku_checkpoint::ship::{self, HolderSet, Shipper};
use jizoku_types::spec::Durability;
use jizoku_types::{BranchId, CheckpointId, Epoch, Incarnation, ServiceId};

use crate::{Seed, chunks, decoded, for_choice, join, member, moment, node, pick};

const SERVICE: ServiceId = ServiceId(1);
const LINE: Line = Line { service: SERVICE, branch: BranchId::MAIN };
const DISK: Durability = Durability::Disk;

fn terms(epoch: u64) -> Terms {
    Terms { service: SERVICE, epoch: Epoch::main(epoch), durable: DISK }
}

fn id(epoch: u64, seq: u64) -> CheckpointId {
    CheckpointId { epoch, seq }
}

fn point(seq: u64) -> Point {
    let mut bytes = vec![seq as u8; 3 * 4096];
    bytes[..8].copy_from_slice(&seq.to_le_bytes());
    let mut builder = DiffBuilder::new(Some(Image::empty()));
    builder.bytes("memory", &bytes);
    let mut image = Image::empty();
    image.apply_unrooted(&builder.finish()).expect("small");
    Point { id: id(1, seq), image }
}

/// Holders, and what they read from their disk.
pub(crate) fn holder(data: &[u8]) {
    pick(data, &[told, replay]);
}

/// A holder that is told anything. A chunk's first byte says what becomes of its writes.
fn told(data: &[u8]) {
    let mut holder = Holder::new(member(1));
    holder.handle(moment(0), holder::Input::Loaded(Vec::new()));
    for (step, chunk) in chunks(data).enumerate() {
        let Some((luck, chunk)) = chunk.split_first() else { continue };
        let Some(message) = decoded::<ToHolder>(chunk) else { continue };
        let now = moment(step);
        holder.handle(now, holder::Input::Message { from: node(2), message });
        while let Some(output) = holder.poll() {
            let holder::Output::Store { token, .. } = output else { continue };
            match luck % 4 {
                0 => holder.handle(now, holder::Input::StoreFailed { token }),
                1 => {}
                _ => holder.handle(now, holder::Input::Stored { token }),
            }
        }
    }
    for line in holder.lines().collect::<Vec<_>>() {
        let points = holder.points(line);
        assert!(points.iter().all(|point| point.id != CheckpointId::default()));
    }
}

/// Shippers and collectors, and diffs.
pub(crate) fn shipper(data: &[u8]) {
    pick(data, &[answered, parts]);
}

/// A shipper and a collector that are answered anything.
fn answered(data: &[u8]) {
    let mut shipper = Shipper::new(node(1), terms(3), Some((id(1, 1), point(1).image)));
    let set = HolderSet { members: [member(2)].into(), joining: [member(3)].into(), version: 1 };
    shipper.handle(moment(0), ship::Input::SetHolders(set));
    let set: BTreeSet<_> = [member(2), member(3)].into();
    let mut collector = Collector::new(moment(0), terms(3), set, vec![point(2)]);
    for (step, chunk) in chunks(data).enumerate() {
        let Some((from, chunk)) = chunk.split_first() else { continue };
        let Some(message) = decoded::<FromHolder>(chunk) else { continue };
        let (now, from) = (moment(step), node(2 + from % 3));
        shipper.handle(now, ship::Input::Message { from, message: message.clone() });
        collector.handle(now, collect::Input::Message { from, message });
        while shipper.poll().is_some() {}
        while let Some(output) = collector.poll() {
            if let collect::Output::Collected { .. } = output {
                return;
            }
        }
    }
}

/// Parts of a diff, put together and applied.
fn parts(data: &[u8]) {
    let parts: Vec<Part> = chunks(data).map(|chunk| Part::new(chunk.to_vec())).collect();
    let Ok(diff) = Diff::decode(&parts) else { return };
    let mut image = point(1).image;
    let before = image.root();
    if image.apply(&diff, before).is_err() {
        assert_eq!(image.root(), before, "a diff that doesn't fit changes nothing");
    }
    let _ = image.apply_unrooted(&diff);
}

/// Entries of a journal.
fn replay(data: &[u8]) {
    let mut replay = Replay::new();
    for chunk in chunks(data) {
        if let Some(entry) = decoded::<Entry>(chunk) {
            let _ = replay.push(&entry);
        }
    }
    let loaded = replay.finish(LINE, false);
    assert!(loaded.chain.points().all(|point| point.id != CheckpointId::default()));
}

fn ship(transfer: u64, base: &Point, to: &Point) -> Ship {
    let mut parts = Diff::between(&base.image, &to.image).encode();
    Ship {
        transfer,
        id: to.id,
        base: base.id,
        root: to.root(),
        committed: base.id,
        part: 0,
        parts: 1,
        tell: false,
        body: parts.pop().expect("one"),
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let (one, two) = (point(1), point(2));
    let none = Point { id: CheckpointId::default(), image: Image::empty() };
    let space = SpaceName::new("memory").expect("a name");
    let blocks = Question::Blocks { space, indices: vec![0, 2] };
    let adopt = Ask::Adopt { transfer: 4, id: one.id, root: one.root(), joins: true };
    let asks = [
        Ask::Ship(ship(1, &none, &one)),
        Ask::Ship(ship(2, &one, &two)),
        Ask::Commit { id: one.id },
        adopt,
        Ask::Seal,
        Ask::Fetch { ticket: 3, id: one.id, question: Question::Outline },
        Ask::Fetch { ticket: 4, id: one.id, question: blocks },
    ];
    let asks = asks.map(|ask| {
        let message = ToHolder { terms: terms(1), ask };
        [&[2][..], &jizoku_types::encode(&message)].concat()
    });
    let root = one.root();
    let report =
        Report { top: one.id, root, size: one.image.size(), committed: none.id, kept: true };
    let answers = [
        Answer::Ack { id: id(1, 1) },
        Answer::Refuse { number: 1, why: Why::BaseMissing { have: one.id, root } },
        Answer::Report(report),
        Answer::Outline { ticket: 1, spaces: one.image.outline() },
    ];
    let answers = answers.map(|answer| {
        let (service, epoch) = (SERVICE, Epoch::main(3));
        let message = FromHolder { service, epoch, incarnation: Incarnation(1), answer };
        [&[0][..], &jizoku_types::encode(&message)].concat()
    });
    let head = |base: &Point, to: &Point| Head {
        id: to.id,
        base: base.id,
        root: to.root(),
        counter: 1,
        durable: DISK,
        parts: 1,
    };
    let entries = [
        Entry::Begin { counter: 1, durable: DISK },
        Entry::End,
        Entry::Checkpoint(head(&none, &one)),
        Entry::Part(ship(1, &none, &one).body),
        Entry::Committed { id: one.id },
        Entry::Sealed { counter: 2, durable: DISK, above: Some(one.id) },
    ];
    let entries = entries.map(|entry| jizoku_types::encode(&entry));
    let part = |part: &Part| part.bytes().to_vec();
    let parts: Vec<Vec<u8>> =
        Diff::between(&one.image, &two.image).encode().iter().map(part).collect();
    vec![
        for_choice("holder", 0, join(&asks)),
        for_choice("shipper", 0, join(&answers)),
        for_choice("holder", 1, join(&entries)),
        for_choice("shipper", 1, join(&parts)),
    ]
}
