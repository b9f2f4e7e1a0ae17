//! What a shipper knows of one holder: what it has acknowledged, and what is under way to it.
//!
//! What it does not know: the other holders, what is committed.
//!
//! Invariants
//! - `resend_at` is set exactly while an answer is owed.
//! - A part is made again from the same diff and cuts, so its bytes are the same each time.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use jizoku_types::{ByteCount, Channel, CheckpointId, Instant, Span};

use super::{Failure, RESEND_FIRST, RESEND_MAX, SILENT_MAX, WINDOW};
use crate::chain::{NONE, Point};
use crate::image::{Cuts, Diff, Digest, Encoder, Lie, Part, Question, SpaceName, Survey};
use crate::message::{Answer, Ask, Ship};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Member,
    Joining,
}

pub(super) enum Stage {
    /// Asked to adopt what is settled.
    Adopting { transfer: u64, point: Point, joins: bool },
    /// Being compared with, since it lacks the base.
    Surveying(Box<Comparison>),
    /// A checkpoint is on its way.
    Sending(Box<Transfer>),
    /// Owes nothing.
    Following,
    /// Given up.
    Failed,
}

pub(super) struct Follower {
    pub(super) role: Role,
    /// Whether a joining holder once had all there was: then it has to acknowledge.
    pub(super) caught_up: bool,
    /// What it acknowledged last in this epoch; the empty point if it is known to have nothing.
    pub(super) acked: Option<Point>,
    pub(super) stage: Stage,
    /// The highest commit that it was told of.
    pub(super) told: CheckpointId,
    /// How often in a row it refused.
    pub(super) missing: u8,
    pub(super) resend_at: Option<Instant>,
    pub(super) told_failures: BTreeSet<Failure>,
    /// How long an answer took lately, at most.
    slowest: Span,
    backoff: Span,
    /// Since when it owes an answer and has said nothing.
    quiet_since: Option<Instant>,
}

impl Follower {
    pub(super) fn new(role: Role) -> Follower {
        Follower {
            role,
            caught_up: false,
            acked: None,
            stage: Stage::Following,
            told: NONE,
            missing: 0,
            resend_at: None,
            told_failures: BTreeSet::new(),
            slowest: Span::ZERO,
            backoff: RESEND_FIRST,
            quiet_since: None,
        }
    }

    /// Something was sent that it has to answer.
    pub(super) fn expect_answer(&mut self, now: Instant) {
        // On a slow link a window of parts takes longer than on most: wait for what is usual.
        self.backoff = (self.slowest * 2).max(RESEND_FIRST).min(RESEND_MAX);
        self.resend_at = Some(now + self.backoff);
        self.quiet_since.get_or_insert(now);
    }

    /// A part that was sent at `sent` has arrived.
    pub(super) fn measure(&mut self, now: Instant, sent: Instant) {
        let faded = self.slowest.permille(875);
        self.slowest = faded.max(now.since(sent));
    }

    pub(super) fn hear(&mut self, now: Instant) {
        self.quiet_since = self.quiet_since.map(|_| now);
        self.told_failures.remove(&Failure::Silent);
    }

    /// It did its part, and owes nothing any more.
    pub(super) fn recover(&mut self) {
        self.missing = 0;
        self.told_failures.retain(|why| !why.may_pass());
        self.stage = Stage::Following;
        self.resend_at = None;
        self.quiet_since = None;
    }

    pub(super) fn back_off(&mut self, now: Instant) {
        self.backoff = (self.backoff * 2).min(RESEND_MAX);
        self.resend_at = Some(now + self.backoff);
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.quiet_since.is_some_and(|since| now.since(since) >= SILENT_MAX)
    }

    /// Whether an answer with this number is to what was asked last.
    pub(super) fn awaits(&self, number: u64) -> bool {
        match &self.stage {
            Stage::Adopting { transfer, .. } => *transfer == number,
            Stage::Surveying(comparison) => comparison.ticket == number,
            Stage::Sending(transfer) => transfer.number == number,
            Stage::Following | Stage::Failed => false,
        }
    }
}

/// A diff, cut into parts.
pub(super) struct Parcel {
    diff: Diff,
    cuts: Cuts,
    encoded: Vec<Part>,
}

impl Parcel {
    /// One whose parts are made when they are sent.
    pub(super) fn new(diff: Diff, part_max: usize) -> Parcel {
        let cuts = diff.cut(part_max);
        Parcel { diff, cuts, encoded: Vec::new() }
    }

    /// One that is encoded at once if it has at most `eager_max` parts.
    pub(super) fn eager(
        diff: Diff,
        part_max: usize,
        eager_max: u32,
        encoder: &mut Encoder,
    ) -> Parcel {
        let mut parcel = Parcel::new(diff, part_max);
        if parcel.parts() <= eager_max {
            let Parcel { diff, cuts, encoded } = &mut parcel;
            encoded.extend((0..cuts.parts()).map(|index| encoder.encode(diff, cuts, index)));
        }
        parcel
    }

    pub(super) fn parts(&self) -> u32 {
        self.cuts.parts()
    }

    pub(super) fn encoded_bytes(&self) -> ByteCount {
        ByteCount(self.encoded.iter().map(|part| part.bytes().len() as u64).sum())
    }

    fn part(&self, index: u32) -> Part {
        match self.encoded.get(index as usize) {
            Some(part) => part.clone(),
            None => self.diff.encode_part(&self.cuts, index),
        }
    }
}

/// A checkpoint on its way to one holder.
pub(super) struct Transfer {
    pub(super) number: u64,
    pub(super) channel: Channel,
    pub(super) target: Point,
    /// Parts that were sent and are not known to have arrived, and when.
    pub(super) flying: BTreeMap<u32, Instant>,
    base: CheckpointId,
    parcel: Arc<Parcel>,
    next: u32,
}

impl Transfer {
    pub(super) fn new(
        number: u64,
        channel: Channel,
        parcel: Arc<Parcel>,
        base: CheckpointId,
        target: Point,
    ) -> Transfer {
        Transfer { number, channel, target, flying: BTreeMap::new(), base, parcel, next: 0 }
    }

    /// Whether each part's arrival is told: not if all are sent at once.
    fn is_paced(&self) -> bool {
        self.parcel.parts() as usize > WINDOW
    }

    /// The parts to be sent now, so that at most `window` are under way.
    pub(super) fn next_parts(&mut self, now: Instant, window: usize) -> Vec<u32> {
        let room = window.saturating_sub(self.flying.len()) as u32;
        let end = self.parcel.parts().min(self.next + room);
        let parts: Vec<u32> = (self.next..end).collect();
        self.flying.extend(parts.iter().map(|part| (*part, now)));
        self.next = end;
        parts
    }

    /// Whether all parts have arrived, as far as the holder told. The last one's arrival is told by
    /// an acknowledgement, so this is only so if the holder lost some.
    pub(super) fn is_spent(&self) -> bool {
        self.flying.is_empty() && self.next == self.parcel.parts()
    }

    pub(super) fn ship(&self, part: u32, committed: CheckpointId) -> Ship {
        Ship {
            transfer: self.number,
            id: self.target.id,
            base: self.base,
            root: self.target.root(),
            committed,
            part,
            parts: self.parcel.parts(),
            tell: self.is_paced(),
            body: self.parcel.part(part),
        }
    }
}

/// Finds out what leads from what a holder has to the target.
pub(super) struct Comparison {
    /// The number of the question under way.
    pub(super) ticket: u64,
    have: CheckpointId,
    target: Point,
    survey: Survey,
    question: Option<Question>,
    differing: BTreeSet<(SpaceName, u32)>,
}

impl Comparison {
    pub(super) fn new(have: CheckpointId, root: Digest, target: Point) -> Comparison {
        let survey = Survey::new(target.image.clone(), root);
        Comparison { ticket: 0, have, target, survey, question: None, differing: BTreeSet::new() }
    }

    /// The next question; `None` when all is known.
    pub(super) fn ask(&mut self, ticket: u64) -> Option<Ask> {
        self.question = Some(self.survey.ask()?);
        self.ticket = ticket;
        Some(self.again())
    }

    /// The question under way.
    pub(super) fn again(&self) -> Ask {
        let question = self.question.clone().expect("one is under way");
        Ask::Fetch { ticket: self.ticket, id: self.have, question }
    }

    pub(super) fn take(&mut self, answer: Answer) -> Result<(), Lie> {
        let found = match (self.question.take(), answer) {
            (Some(Question::Outline), Answer::Outline { spaces, .. }) => {
                self.survey.outline(spaces)?
            }
            (Some(Question::Nodes { space, level, indices }), Answer::Nodes { nodes, .. }) => {
                self.survey.nodes(&space, level, &indices, &nodes)?
            }
            _ => return Err(Lie),
        };
        self.differing.extend(found.into_iter().map(|found| (found.space, found.index)));
        Ok(())
    }

    /// The diff, what it is based on, and where it leads.
    pub(super) fn finish(&self) -> (Diff, CheckpointId, Point) {
        let spaces = self.survey.spaces().expect("everything was answered");
        let diff = Diff::from_outline(&self.target.image, spaces, &self.differing);
        (diff, self.have, self.target.clone())
    }
}
