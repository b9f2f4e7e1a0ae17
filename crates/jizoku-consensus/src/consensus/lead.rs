//! Leading: what each member has, sending it what it lacks, and what is committed by that.
//!
//! What it does not know: elections; what commands mean.
//!
//! Invariants
//! - An entry is committed when a majority of each set of voters has it safe, and one of this
//!   leader's own term is among those (dissertation 3.6.2).
//! - A member gets entries in order, up to [`FLIGHTS_MAX`] messages ahead of its answers. What was
//!   lost shows at the next heartbeat, and is sent again from where the member says.
//! - An answer to a message that was sent before the last such step back moves nothing.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{Instant, NodeId};

use super::change::Changing;
use super::snapshot::Sending;
use super::{Consensus, LEARNER_TURN};
use crate::log::{Entry, LogId, Members, Payload, Vote};
use crate::wire::{APPEND_BYTES_MAX, Body, Notice};

/// Messages with entries that may be on their way to one member.
const FLIGHTS_MAX: usize = 16;

/// Entries in one message at most.
const ENTRIES_MAX: usize = 256;

/// What the leader knows of a member.
#[derive(Debug)]
pub(super) struct Peer {
    /// The next entry to send.
    pub(super) next: u64,
    /// How much it has, safe.
    pub(super) matched: u64,
    /// How much was committed as it was last told.
    told: u64,
    /// Where messages on their way end.
    flights: VecDeque<u64>,
    /// The newest message it answered was sent then.
    acked: Option<Instant>,
    /// Messages before this one were sent from another place in the log.
    since: u64,
    beats: u64,
    /// It gets a snapshot: the log doesn't go back far enough.
    pub(super) sending: Option<Sending>,
}

impl Peer {
    fn new(next: u64) -> Peer {
        Peer {
            next,
            matched: 0,
            told: 0,
            flights: VecDeque::new(),
            acked: None,
            since: 0,
            beats: 0,
            sending: None,
        }
    }

    /// It has this much.
    pub(super) fn has(&mut self, matched: u64) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched);
        while self.flights.pop_front_if(|end| *end <= self.matched).is_some() {}
        if self.sending.as_ref().is_some_and(|sending| sending.end() <= self.matched) {
            self.sending = None;
        }
    }
}

/// This node leads in its newest term.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// The last message's stamp.
    stamp: u64,
    /// The newest moment at which a majority still followed.
    pub(super) quorum_heard: Option<Instant>,
    pub(super) change: Option<Changing>,
    /// Whom to hand over to, once it has everything, and until when.
    handing: Option<(NodeId, Instant)>,
}

impl Leading {
    /// The name of a message sent now.
    pub(super) fn stamp(&mut self, now: Instant) -> u64 {
        self.stamp = now.as_nanos().max(self.stamp + 1);
        self.stamp
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.change.as_ref().map(|change| change.until)
    }
}

impl Consensus {
    /// This node was elected.
    pub(super) fn lead(&mut self) {
        let (term, me) = (self.state.term(), self.config.me);
        self.set_vote(Vote { term, node: me, elected: true });
        self.leading = Some(Leading {
            peers: BTreeMap::new(),
            stamp: 0,
            // A majority has just voted for it.
            quorum_heard: Some(self.now),
            change: None,
            handing: None,
        });
        self.members_changed();
        self.append_own(Payload::Blank);
    }

    /// This node leads no more, if it did.
    pub(super) fn step_down(&mut self) {
        if let Some(leading) = self.leading.take() {
            self.change_abandoned(leading.change);
        }
    }

    /// Sends to exactly the members.
    pub(super) fn members_changed(&mut self) {
        let Some(leading) = &mut self.leading else { return };
        let (me, next) = (self.config.me, self.state.len());
        leading.peers.retain(|node, _| self.members.all.contains(node));
        for node in self.members.all.iter().filter(|node| **node != me) {
            leading.peers.entry(*node).or_insert_with(|| Peer::new(next));
        }
    }

    /// Sends each member what it lacks. `beat`: and something in any case, so that it hears this
    /// leader.
    pub(super) fn replicate(&mut self, now: Instant, beat: bool) {
        let Some(mut leading) = self.leading.take() else { return };
        let mut peers = core::mem::take(&mut leading.peers);
        for (node, peer) in &mut peers {
            let mut heartbeat = beat;
            if beat && !self.is_voter(node) {
                peer.beats += 1;
                heartbeat = peer.beats.is_multiple_of(LEARNER_TURN);
            }
            self.feed(now, &mut leading, *node, peer, heartbeat);
        }
        leading.peers = peers;
        self.leading = Some(leading);
    }

    fn is_voter(&self, node: &NodeId) -> bool {
        self.members.voters.iter().any(|set| set.contains(node))
    }

    fn feed(
        &mut self,
        now: Instant,
        leading: &mut Leading,
        to: NodeId,
        peer: &mut Peer,
        beat: bool,
    ) {
        let up_to_date = peer.next == self.state.len() && peer.told == self.committed;
        if !beat && up_to_date && peer.sending.is_none() {
            return;
        }
        let mut sent = false;
        while peer.sending.is_none()
            && peer.next < self.state.len()
            && peer.flights.len() < FLIGHTS_MAX
        {
            let Some(before) = self.id_before(peer.next) else { break };
            let entries = self.some_entries(peer.next);
            peer.next += entries.len() as u64;
            peer.flights.push_back(peer.next);
            self.send_append(leading.stamp(now), to, before, entries);
            sent = true;
        }
        if peer.sending.is_none() && self.id_before(peer.next).is_none() {
            peer.sending = self.begin_sending();
        }
        match &mut peer.sending {
            Some(sending) => {
                if beat {
                    let before = Some(sending.last());
                    self.send_append(leading.stamp(now), to, before, Vec::new());
                }
                let patience = self.config.election_max * 4;
                if let Some(part) = sending.due(now, patience) {
                    let term = self.state.term();
                    self.outbox.send(to, part.message(term, leading.stamp(now)));
                }
            }
            None if !sent && (beat || peer.told < self.committed) => {
                let before = self.id_before(peer.next).flatten();
                self.send_append(leading.stamp(now), to, before, Vec::new());
            }
            None => {}
        }
        peer.told = self.committed;
    }

    fn send_append(&mut self, stamp: u64, to: NodeId, before: Option<LogId>, entries: Vec<Entry>) {
        let (term, committed) = (self.state.term(), self.committed);
        self.outbox.send(to, Body::Append { term, stamp, before, entries, committed });
    }

    /// The entry before the one at `index`: outside `None` if the log doesn't go back so far,
    /// inside if there is none.
    fn id_before(&self, index: u64) -> Option<Option<LogId>> {
        let Some(index) = index.checked_sub(1) else {
            return self.state.purged.is_none().then_some(None);
        };
        self.state.term_at(index).map(|term| Some(LogId { term, index }))
    }

    /// Entries for one message: as many as fit, at least one.
    fn some_entries(&self, from: u64) -> Vec<Entry> {
        let mut bytes = 0;
        let fitting =
            self.state.entries.range(from..).take(ENTRIES_MAX).take_while(|(_, entry)| {
                let fits = bytes < APPEND_BYTES_MAX;
                bytes += entry.weight();
                fits
            });
        fitting.map(|(_, entry)| entry.clone()).collect()
    }

    /// An answer to a message of this leader's: who sent it, if it counts.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        from: NodeId,
        (term, stamp): (u64, u64),
    ) -> Option<&mut Peer> {
        if term > self.state.term() {
            self.later_term(from, term);
            return None;
        }
        if term < self.state.term() {
            return None;
        }
        let leading = self.leading.as_mut()?;
        if stamp > leading.stamp || !leading.peers.contains_key(&from) {
            self.dropped.malformed += 1;
            return None;
        }
        let peer = leading.peers.get_mut(&from)?;
        peer.acked = peer.acked.max(Some(Instant::from_nanos(stamp).min(now)));
        let heard = |node: &NodeId| leading.peers.get(node).and_then(|peer| peer.acked);
        let newest = majority(&self.members, &self.config.me, Some(now), heard);
        leading.quorum_heard = leading.quorum_heard.max(newest);
        leading.peers.get_mut(&from)
    }

    /// A member says how much it has.
    pub(super) fn appended(
        &mut self,
        now: Instant,
        from: NodeId,
        message: (u64, u64),
        matched: u64,
    ) {
        let len = self.state.len();
        let Some(peer) = self.answered(now, from, message) else { return };
        if matched <= len {
            peer.has(matched);
            self.hand_over_if_ready(now);
        } else {
            self.dropped.malformed += 1;
        }
    }

    /// A member lacks what came before a message's entries, or has something else there.
    pub(super) fn conflict(&mut self, now: Instant, from: NodeId, message: (u64, u64), hint: u64) {
        let Some(peer) = self.answered(now, from, message) else { return };
        let back = hint.max(peer.matched);
        if peer.sending.is_none() && message.1 >= peer.since && back < peer.next {
            (peer.next, peer.since) = (back, 0);
            peer.flights.clear();
            if let Some(leading) = &mut self.leading
                && let Some(peer) = leading.peers.get_mut(&from)
            {
                peer.since = leading.stamp + 1;
            }
        }
    }

    /// Commits what a majority has safe. Gives whether that is more than before.
    pub(super) fn commit(&mut self) -> bool {
        let Some(leading) = &self.leading else { return false };
        let has = |node: &NodeId| leading.peers.get(node).map_or(0, |peer| peer.matched);
        let everywhere = majority(&self.members, &self.config.me, self.flushed, has);
        let own = everywhere.checked_sub(1).and_then(|index| self.state.term_at(index));
        let more = everywhere > self.committed && own == Some(self.state.term());
        if more {
            self.committed = everywhere;
        }
        more
    }

    /// Hands the lead over to that voter, or to the one that is furthest. `ours`: asked for here,
    /// so it may be passed on to the leader.
    pub(super) fn transfer_leader(&mut self, to: Option<NodeId>, ours: bool) {
        let Some(leading) = &self.leading else {
            if ours && let Some(leader) = self.leader {
                self.outbox.notify(leader, Notice::TransferLeader { to });
            }
            return;
        };
        let furthest = || {
            let others = leading
                .peers
                .iter()
                .filter(|(node, _)| self.is_voter(node) && !self.gone.contains(*node));
            others.max_by_key(|(_, peer)| (peer.matched, peer.acked)).map(|(node, _)| *node)
        };
        let Some(to) = to.or_else(furthest) else { return };
        if to == self.config.me || !self.is_voter(&to) {
            return;
        }
        let until = self.now + self.config.election_max;
        if let Some(leading) = &mut self.leading {
            leading.handing = Some((to, until));
        }
        self.hand_over_if_ready(self.now);
    }

    fn hand_over_if_ready(&mut self, now: Instant) {
        let (len, term) = (self.state.len(), self.state.term());
        let Some(leading) = &mut self.leading else { return };
        let Some((to, until)) = leading.handing else { return };
        let ready = leading.peers.get(&to).is_some_and(|peer| peer.matched == len);
        if ready || until <= now {
            leading.handing = None;
        }
        if ready && until > now {
            self.outbox.send(to, Body::HandOver { term });
        }
    }
}

/// The largest value that a majority of each set of voters has reached. `own`: of this node.
fn majority<T: Ord + Copy + Default>(
    members: &Members,
    me: &NodeId,
    own: T,
    of: impl Fn(&NodeId) -> T,
) -> T {
    let reached = members.voters.iter().map(|set| {
        let mut values: Vec<T> =
            set.iter().map(|node| if node == me { own } else { of(node) }).collect();
        values.sort_unstable();
        // So many are at least as large: more than half.
        values.get((values.len().max(1) - 1) / 2).copied().unwrap_or_default()
    });
    reached.min().unwrap_or_default()
}
