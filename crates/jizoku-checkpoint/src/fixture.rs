//! What the tests of several modules build on: names, small states, messages.

use alloc::vec::Vec;

use jizoku_types::limits::BLOCK;
use jizoku_types::spec::Durability;
use jizoku_types::{
    BranchId, CheckpointId, Epoch, Incarnation, Instant, Member, NodeId, ServiceId, Span,
};

use crate::chain::Point;
use crate::image::{Diff, DiffBuilder, Image};
use crate::message::{Answer, Ask, FromHolder, Line, Ship, Terms, ToHolder};

pub(crate) const MEMORY: Durability = Durability::Memory;
pub(crate) const DISK: Durability = Durability::Disk;
pub(crate) const SERVICE: ServiceId = ServiceId(1);
pub(crate) const LINE: Line = Line { service: SERVICE, branch: BranchId::MAIN };

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

pub(crate) fn member(n: u8, incarnation: u64) -> Member {
    Member { node: node(n), incarnation: Incarnation(incarnation) }
}

pub(crate) fn terms(epoch: u64, durable: Durability) -> Terms {
    Terms { service: SERVICE, epoch: Epoch::main(epoch), durable }
}

pub(crate) fn id(epoch: u64, seq: u64) -> CheckpointId {
    CheckpointId { epoch, seq }
}

/// A moment, in milliseconds.
pub(crate) fn ms(n: u64) -> Instant {
    Instant::ORIGIN + Span::millis(n)
}

/// A state of six blocks, of which only the first depends on `content`.
pub(crate) fn image(content: u64) -> Image {
    let mut bytes: Vec<u8> = (0..6 * BLOCK).map(|at| (at / BLOCK + at % 251) as u8).collect();
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    let mut builder = DiffBuilder::new(Some(Image::empty()));
    builder.bytes("memory", &bytes);
    let mut image = Image::empty();
    image.apply_unrooted(&builder.finish()).expect("small");
    image
}

/// A checkpoint whose state is made from its number.
pub(crate) fn point(epoch: u64, seq: u64) -> Point {
    Point { id: id(epoch, seq), image: image(epoch * 1000 + seq) }
}

/// The single part that leads from `base` to `to`.
pub(crate) fn ship(transfer: u64, base: &Point, to: &Point) -> Ship {
    let mut parts = Diff::between(&base.image, &to.image).encode();
    assert_eq!(parts.len(), 1, "small");
    Ship {
        transfer,
        id: to.id,
        base: base.id,
        root: to.root(),
        committed: CheckpointId::default(),
        part: 0,
        parts: 1,
        tell: false,
        body: parts.remove(0),
    }
}

pub(crate) fn to_holder(terms: Terms, ask: Ask) -> ToHolder {
    ToHolder { terms, ask }
}

pub(crate) fn from_holder(epoch: u64, incarnation: u64, answer: Answer) -> FromHolder {
    let (epoch, incarnation) = (Epoch::main(epoch), Incarnation(incarnation));
    FromHolder { service: SERVICE, epoch, incarnation, answer }
}
