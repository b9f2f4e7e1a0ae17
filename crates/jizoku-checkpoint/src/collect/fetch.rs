//! Fetches one image from all who have it, and verifies every piece.
//!
//! What it does not know: why this image, who else there is.
//!
//! Invariants
//! - A question is under way to one source at a time; unanswered, it is given to any other. An
//!   answer that comes after that is taken if it still tells something.
//! - A block is taken only with the digest that the survey found for it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use jizoku_types::{ByteCount, CheckpointId, Instant, NodeId, Span};

use super::{ANSWER_MAX, STRIKES_MAX, SourceLost, UNDER_WAY_MAX};
use crate::image::{
    BLOCKS_PER_QUESTION, Block, Diff, Digest, FANOUT, Found, Image, Part, Question, SpaceName,
    Survey, zero_digest,
};
use crate::message::{Answer, Ask, Terms, Why};

/// An answer that comes later than this is passed over.
const LATE_MAX: Span = Span::secs(30);

type Key = (SpaceName, u32);

struct UnderWay {
    node: NodeId,
    question: Question,
    sent: Instant,
    /// Whether another was asked meanwhile. A late answer is taken all the same.
    late: bool,
}

struct Source {
    /// How often in a row it left questions unanswered.
    strikes: u32,
    /// How long an answer may take, by those that came.
    patience: Span,
}

pub(super) struct Fetch {
    id: CheckpointId,
    root: Digest,
    base: Image,
    survey: Survey,
    /// The digest that each differing block has to have, until the block is here.
    wanted: BTreeMap<Key, Digest>,
    /// Those that nobody is asked for.
    todo: BTreeSet<Key>,
    got: BTreeMap<Key, Option<Arc<Block>>>,
    sources: BTreeMap<NodeId, Source>,
    under_way: BTreeMap<u64, UnderWay>,
    last_ticket: u64,
    fetched: ByteCount,
}

impl Fetch {
    pub(super) fn new(terms: Terms, id: CheckpointId, root: Digest, base: Image) -> Fetch {
        Fetch {
            id,
            root,
            survey: Survey::new(base.clone(), root),
            base,
            wanted: BTreeMap::new(),
            todo: BTreeSet::new(),
            got: BTreeMap::new(),
            sources: BTreeMap::new(),
            under_way: BTreeMap::new(),
            // Tickets of one epoch's fetches differ, so a late answer is never taken for another's.
            last_ticket: id.seq.wrapping_mul(1 << 20) ^ (terms.epoch.counter << 40),
            fetched: ByteCount(0),
        }
    }

    pub(super) fn root(&self) -> Digest {
        self.root
    }

    pub(super) fn fetched(&self) -> ByteCount {
        self.fetched
    }

    pub(super) fn add_source(&mut self, node: NodeId) {
        self.sources.entry(node).or_insert(Source { strikes: 0, patience: ANSWER_MAX });
    }

    pub(super) fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    pub(super) fn is_done(&self) -> bool {
        self.survey.is_done() && self.wanted.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.values().filter_map(|asked| self.late_at(asked)).min()
    }

    /// When another is asked instead.
    fn late_at(&self, asked: &UnderWay) -> Option<Instant> {
        let source = self.sources.get(&asked.node).filter(|_| !asked.late)?;
        Some(asked.sent + source.patience)
    }

    /// Gives up a source. False if it was none.
    pub(super) fn lose(&mut self, node: NodeId) -> bool {
        let was = self.sources.remove(&node).is_some();
        let of_node = |asked: &UnderWay| asked.node == node;
        for ticket in self.tickets(of_node) {
            self.give_away(ticket);
            self.under_way.remove(&ticket);
        }
        was
    }

    /// Gives away what was asked too long ago. Gives the sources that have to be given up.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        self.under_way.retain(|_, asked| !asked.late || now.since(asked.sent) < LATE_MAX);
        let mut struck = BTreeSet::new();
        for ticket in self.tickets(|asked| self.late_at(asked).is_some_and(|at| at <= now)) {
            struck.insert(self.under_way[&ticket].node);
            self.give_away(ticket);
        }
        // All that was lost with one broken link counts once.
        struck.retain(|node| {
            let source = self.sources.get_mut(node);
            source.is_some_and(|source| {
                source.strikes += 1;
                source.strikes >= STRIKES_MAX
            })
        });
        struck.into_iter().collect()
    }

    fn tickets(&self, which: impl Fn(&UnderWay) -> bool) -> Vec<u64> {
        let matching = self.under_way.iter().filter(|(_, asked)| which(asked));
        matching.map(|(ticket, _)| *ticket).collect()
    }

    /// Lets another be asked what is under way with this number.
    fn give_away(&mut self, ticket: u64) {
        let Some(asked) = self.under_way.get_mut(&ticket).filter(|asked| !asked.late) else {
            return;
        };
        asked.late = true;
        if let Question::Blocks { space, indices } = &asked.question {
            let keys = indices.iter().map(|index| (space.clone(), *index));
            self.todo.extend(keys.filter(|key| self.wanted.contains_key(key)));
        }
        self.survey.give_back(&asked.question);
    }

    /// Questions to be asked now, spread evenly over the sources.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<(NodeId, Ask)> {
        let mut asks = Vec::new();
        loop {
            let busy = |node: &NodeId| {
                let under_way = self.under_way.values();
                under_way.filter(|asked| asked.node == *node && !asked.late).count()
            };
            let free = self.sources.keys().map(|node| (busy(node), *node)).min();
            let Some((_, node)) = free.filter(|(busy, _)| *busy < UNDER_WAY_MAX) else { break };
            let Some(question) = self.survey.ask().or_else(|| self.ask_blocks()) else { break };
            self.last_ticket = self.last_ticket.wrapping_add(1);
            let ticket = self.last_ticket;
            asks.push((node, Ask::Fetch { ticket, id: self.id, question: question.clone() }));
            self.under_way.insert(ticket, UnderWay { node, question, sent: now, late: false });
        }
        asks
    }

    fn ask_blocks(&mut self) -> Option<Question> {
        let space = self.todo.first()?.0.clone();
        let of_space = (space.clone(), 0)..=(space.clone(), u32::MAX);
        let indices: Vec<u32> =
            self.todo.range(of_space).take(BLOCKS_PER_QUESTION).map(|key| key.1).collect();
        for index in &indices {
            self.todo.remove(&(space.clone(), *index));
        }
        Some(Question::Blocks { space, indices })
    }

    /// Takes an answer. On an error its giver is no source any more.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        from: NodeId,
        answer: Answer,
        checks: bool,
    ) -> Result<(), SourceLost> {
        let ticket = match &answer {
            Answer::Outline { ticket, .. }
            | Answer::Nodes { ticket, .. }
            | Answer::Blocks { ticket, .. } => *ticket,
            Answer::Refuse { number, .. } => *number,
            Answer::Ack { .. } | Answer::Received { .. } | Answer::Report(_) => return Ok(()),
        };
        if self.under_way.get(&ticket).is_none_or(|asked| asked.node != from) {
            return Ok(());
        }
        if let Answer::Refuse { why, .. } = answer {
            return Err(if why == Why::Gone { SourceLost::Gone } else { SourceLost::Corrupt });
        }
        let question = self.under_way[&ticket].question.clone();
        let taken = match (&question, answer) {
            (Question::Outline, Answer::Outline { spaces, .. }) => {
                self.survey.outline(spaces).ok().map(|found| self.found(found))
            }
            (Question::Nodes { space, level, indices }, Answer::Nodes { nodes, .. }) => {
                self.fetched += ByteCount((nodes.len() * FANOUT * 32) as u64);
                let found = self.survey.nodes(space, *level, indices, &nodes);
                found.ok().map(|found| self.found(found))
            }
            (Question::Blocks { space, indices }, Answer::Blocks { body, .. }) => {
                self.blocks(space, indices, &body, checks)
            }
            _ => None,
        };
        if taken.is_none() {
            return Err(SourceLost::Corrupt);
        }
        let asked = self.under_way.remove(&ticket).expect("it was answered");
        if let Some(source) = self.sources.get_mut(&from) {
            source.strikes = 0;
            source.patience = ANSWER_MAX.max(now.since(asked.sent) * 2).min(LATE_MAX);
        }
        Ok(())
    }

    fn found(&mut self, found: Vec<Found>) {
        for Found { space, index, digest } in found {
            if digest == zero_digest(0) {
                self.got.insert((space, index), None);
            } else {
                self.wanted.insert((space.clone(), index), digest);
                self.todo.insert((space, index));
            }
        }
    }

    /// `None` if a block isn't what it must be; then nothing was taken.
    fn blocks(
        &mut self,
        space: &SpaceName,
        indices: &[u32],
        body: &Part,
        checks: bool,
    ) -> Option<()> {
        let diff = Diff::decode(core::slice::from_ref(body)).ok()?;
        let writes = diff.writes(space.as_str());
        let asked_for = writes.iter().map(|write| &write.0).eq(indices);
        let digest =
            |block: &Option<Arc<Block>>| block.as_ref().map_or(zero_digest(0), |b| b.digest());
        let right = writes.iter().all(|(index, block)| {
            let wanted = self.wanted.get(&(space.clone(), *index));
            wanted.is_none_or(|wanted| *wanted == digest(block))
        });
        if !asked_for || (checks && !right) {
            return None;
        }
        self.fetched += ByteCount(body.bytes().len() as u64);
        for (index, block) in writes {
            let key = (space.clone(), *index);
            // What another has answered meanwhile is here already.
            if self.wanted.remove(&key).is_some() {
                self.todo.remove(&key);
                self.got.insert(key, block.clone());
            }
        }
        Some(())
    }

    /// The image, once all is here; `None` if it isn't what it should be.
    pub(super) fn finish(&mut self, checks: bool) -> Option<Image> {
        let spaces = self.survey.spaces()?.to_vec();
        let diff = Diff::to_outline(&self.base, &spaces, core::mem::take(&mut self.got));
        let mut image = self.base.clone();
        let done = if checks { image.apply(&diff, self.root) } else { image.apply_unrooted(&diff) };
        done.ok().map(|()| image)
    }
}
