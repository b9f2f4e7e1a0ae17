//! In a takeover: finds the state that a service goes on from, and fetches what this node lacks.
//!
//! What it does not know: the catalog (it is told the set and the epoch), instances, leases.
//! It serves just as well to fetch a copy anew for a holder while nothing new is made.
//!
//! How it goes: every member of the set is asked to seal; they report. One report of a *current*
//! member is enough, since every member has all that was committed. The highest of the current
//! reports is taken; other answers are awaited only if this node would have to fetch that state,
//! and at most for [`BETTER_WAIT`]. Then the state is fetched from all who reported it, at once.
//!
//! Invariants
//! - Without a current report nothing is taken, unless loss was accepted or the whole cluster was
//!   restarted; then what is taken is marked: something may be missing. Who is away is waited for
//!   only for a time with `durable = "memory"`, since nobody may be current then; with "disk" who
//!   is away has all, so what others have instead (damaged copies) is taken only when all answered.
//! - A member is current in the incarnation that the set names; also in a later one, if it kept a
//!   verified copy and had flushed all that it acknowledged (`durable = "disk"`, then).
//! - All that is fetched is verified from the reported root down.
//!
//! Limits: [`UNDER_WAY_MAX`] questions to one holder at a time; who doesn't answer [`STRIKES_MAX`]
//! of them, or lies once, is asked no more. What was fetched is kept when its last source is lost.
//! A state that was reported and then not given is taken only if no other current report is left:
//! a lower one, if current, shows that it was not committed.

mod fetch;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::spec::Durability;
use jizoku_types::{
    BranchId, ByteCount, Channel, CheckpointId, Epoch, Incarnation, Instant, Member, NodeId, Span,
};

use crate::chain::{NONE, Point};
use crate::fault::{Fault, Planted};
use crate::image::{Digest, Image};
use crate::message::{Answer, Ask, FromHolder, Report, Terms, ToHolder, Why};
use fetch::Fetch;

/// How long better placed holders are waited for once a current one has reported.
pub const BETTER_WAIT: Span = Span::millis(50);
/// Who doesn't report is asked again after this long, then after twice as long, and so on.
pub const SEAL_RESEND_FIRST: Span = Span::millis(100);
/// Up to this.
pub const SEAL_RESEND_MAX: Span = Span::secs(1);
/// Without a current report for this long, the service is unreachable.
pub const UNREACHABLE_AFTER: Span = Span::secs(1);
/// When loss is accepted, those that haven't answered are waited for this long.
pub const ACCEPT_WAIT: Span = Span::secs(1);
/// A question that isn't answered for this long is given to another holder.
pub const ANSWER_MAX: Span = Span::millis(500);
/// Questions to one holder that may be under way.
pub const UNDER_WAY_MAX: usize = 4;
/// Unanswered questions after which a holder is asked no more.
pub const STRIKES_MAX: u32 = 3;

/// What a collector is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A holder's answer.
    Message {
        /// From this node, possibly the own one.
        from: NodeId,
        /// What.
        message: FromHolder,
    },
    /// This node can't be reached: don't wait for it.
    Unreachable {
        /// Which.
        node: NodeId,
    },
    /// A link was lost, and a way to this node is there again.
    LinkBack {
        /// Which.
        node: NodeId,
    },
    /// An operator accepts that what no current member reports may be lost.
    AcceptLoss,
    /// All nodes were restarted, so perhaps nobody is current: wait for every member, and take the
    /// highest that anybody has.
    WholeClusterRestarted {
        /// How long, unless all was flushed. `None`: it was not so, somebody has lived on.
        wait: Option<Span>,
    },
    /// Time passed.
    Tick,
}

/// What a collector wants done, or has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send {
        /// To whom, possibly the own node.
        to: NodeId,
        /// On which channel.
        channel: Channel,
        /// What.
        message: ToHolder,
    },
    /// This is the state to go on from. Nothing follows.
    Collected {
        /// Its number; none: the service starts without state.
        id: CheckpointId,
        /// The state.
        image: Image,
        /// Bytes that were fetched for it.
        fetched: ByteCount,
        /// Whether committed state may be missing from it.
        may_be_missing: bool,
    },
    /// No current member answers. It is asked on; said again when others are missing.
    Unreachable {
        /// The members that have not reported as such.
        missing: BTreeSet<Member>,
    },
    /// A holder is not fetched from any more.
    SourceLost {
        /// Which.
        node: NodeId,
        /// Why.
        why: SourceLost,
    },
    /// A holder knows of a higher epoch: somebody else took over. Nothing follows.
    Superseded {
        /// Which.
        by: Epoch,
    },
}

/// Why a holder is not fetched from any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceLost {
    /// It can't be reached, or doesn't answer.
    Silent,
    /// It no longer has that state.
    Gone,
    /// What it sent doesn't have the digest that it must have.
    Corrupt,
}

impl fmt::Display for SourceLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceLost::Silent => "it doesn't answer",
            SourceLost::Gone => "it no longer has the state",
            SourceLost::Corrupt => "it sent damaged state",
        })
    }
}

struct Reported {
    incarnation: Incarnation,
    report: Report,
}

struct Asked {
    again_at: Instant,
    backoff: Span,
}

/// Collects the state of one service for one epoch.
pub struct Collector {
    terms: Terms,
    /// By what holders are sealed.
    seal: Ask,
    set: BTreeSet<Member>,
    local: Vec<Point>,
    started: Instant,
    /// Members' nodes that have not reported.
    asked: BTreeMap<NodeId, Asked>,
    reports: BTreeMap<NodeId, Reported>,
    unreachable: BTreeSet<NodeId>,
    /// Nodes that sent damaged state: neither reports nor blocks are taken from them.
    corrupt: BTreeSet<NodeId>,
    /// States that nobody gave though they were reported: others are preferred.
    given_up: BTreeSet<(CheckpointId, Digest)>,
    first_current: Option<Instant>,
    accepted: Option<Instant>,
    restarted: bool,
    /// Until when members are waited for after a restart of all.
    restart_until: Option<Instant>,
    /// When decisions were looked at last: what was due by then need not be waited for.
    looked: Instant,
    told_missing: Option<BTreeSet<Member>>,
    chosen: Option<Chosen>,
    fetch: Option<Fetch>,
    finished: bool,
    outputs: VecDeque<Output>,
    planted: Planted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Chosen {
    report: Report,
    may_be_missing: bool,
}

impl Collector {
    /// Asks all of `set` to seal under `terms`. `local` is what the holder of this node has: of
    /// that nothing needs to be fetched. (So let the local holder seal first.)
    pub fn new(now: Instant, terms: Terms, set: BTreeSet<Member>, local: Vec<Point>) -> Collector {
        Collector::asking(now, terms, Ask::Seal, set, local)
    }

    /// As [`Collector::new`], for a line that goes on from what `set` holds of the branch `parent`.
    pub fn fork(
        now: Instant,
        terms: Terms,
        parent: BranchId,
        set: BTreeSet<Member>,
        local: Vec<Point>,
    ) -> Collector {
        Collector::asking(now, terms, Ask::Fork { parent }, set, local)
    }

    fn asking(
        now: Instant,
        terms: Terms,
        seal: Ask,
        set: BTreeSet<Member>,
        local: Vec<Point>,
    ) -> Collector {
        let mut collector = Collector {
            terms,
            seal,
            local,
            started: now,
            asked: BTreeMap::new(),
            reports: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            corrupt: BTreeSet::new(),
            given_up: BTreeSet::new(),
            first_current: None,
            accepted: None,
            restarted: false,
            restart_until: None,
            looked: now,
            told_missing: None,
            chosen: None,
            fetch: None,
            finished: false,
            outputs: VecDeque::new(),
            planted: Planted::default(),
            set,
        };
        let nodes: BTreeSet<NodeId> = collector.set.iter().map(|member| member.node).collect();
        for node in nodes {
            collector.ask(now, node);
        }
        if collector.set.is_empty() {
            // Nobody ever held anything of it.
            collector.collected(Point::none(), ByteCount(0), false);
        }
        collector
    }

    /// Plants a mistake, with the feature `faults`.
    #[cfg(any(test, feature = "faults"))]
    pub fn plant(&mut self, fault: Fault) {
        self.planted.plant(fault);
    }

    /// The members that have not reported as current ones.
    pub fn missing(&self) -> BTreeSet<Member> {
        let current = |member: &&Member| {
            let reported = self.reports.get(&member.node);
            !reported.is_some_and(|reported| self.is_current(member.node, reported))
        };
        self.set.iter().filter(current).copied().collect()
    }

    /// When to call `handle` with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let seals = self.asked.values().map(|asked| asked.again_at);
        let decisions = match self.chosen {
            Some(_) => None,
            None => [
                self.first_current.map(|at| at + BETTER_WAIT),
                self.accepted.map(|at| at + ACCEPT_WAIT),
                self.restart_until,
                self.told_missing.is_none().then(|| self.started + UNREACHABLE_AFTER),
            ]
            .into_iter()
            .flatten()
            .filter(|at| *at > self.looked)
            .min(),
        };
        let answers = self.fetch.as_ref().and_then(Fetch::deadline);
        seals.chain(decisions).chain(answers).min()
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes an input; then `poll` until `None`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.finished {
            return;
        }
        match input {
            Input::Message { from, message } => self.message(now, from, message),
            Input::Unreachable { node } => {
                self.unreachable.insert(node);
                self.lose(node, SourceLost::Silent);
            }
            Input::LinkBack { node } => {
                self.unreachable.remove(&node);
                if self.asked.contains_key(&node) {
                    self.ask(now, node);
                }
            }
            Input::AcceptLoss => {
                self.accepted.get_or_insert(now);
            }
            Input::WholeClusterRestarted { wait: None } => {
                self.restarted = false;
                self.restart_until = None;
            }
            Input::WholeClusterRestarted { wait: Some(wait) } => {
                self.restarted = true;
                // The copies of another branch may have been made without a flush.
                let flushed = self.terms.durable == Durability::Disk && self.seal == Ask::Seal;
                if !flushed {
                    self.restart_until.get_or_insert(now + wait);
                }
            }
            Input::Tick => {}
        }
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
        if self.finished {
            return;
        }
        if let Some(fetch) = &mut self.fetch {
            for node in fetch.expire(now) {
                self.lose(node, SourceLost::Silent);
            }
        }
        self.looked = now;
        if self.chosen.is_none() {
            self.decide(now);
        }
        self.pursue(now);
        if self.finished {
            return;
        }
        let late = self.asked.iter().filter(|(_, asked)| asked.again_at <= now);
        let late: Vec<NodeId> = late.map(|(node, _)| *node).collect();
        for node in late {
            self.ask(now, node);
        }
    }

    /// Asks a node to seal, or asks again.
    fn ask(&mut self, now: Instant, node: NodeId) {
        let backoff = match self.asked.get(&node) {
            Some(asked) => (asked.backoff * 2).min(SEAL_RESEND_MAX),
            None => SEAL_RESEND_FIRST,
        };
        self.asked.insert(node, Asked { again_at: now + backoff, backoff });
        let message = ToHolder { terms: self.terms, ask: self.seal.clone() };
        self.outputs.push_back(Output::Send { to: node, channel: Channel::State, message });
    }

    fn message(&mut self, now: Instant, from: NodeId, message: FromHolder) {
        let FromHolder { service, epoch, incarnation, answer } = message;
        if service != self.terms.service {
            return;
        }
        if let Answer::Refuse { why: Why::Superseded { by }, .. } = answer
            && by.supersedes(&self.terms.epoch)
        {
            self.finished = true;
            self.outputs.push_back(Output::Superseded { by });
            return;
        }
        let member = self.set.iter().any(|member| member.node == from);
        if epoch != self.terms.epoch || !member || self.corrupt.contains(&from) {
            return;
        }
        self.unreachable.remove(&from);
        if let Answer::Report(report) = answer {
            return self.reported(now, from, incarnation, report);
        }
        let checks = !self.planted.has(Fault::SkipsVerification);
        let Some(fetch) = &mut self.fetch else { return };
        if let Err(why) = fetch.answer(now, from, answer, checks) {
            self.lose(from, why);
        }
    }

    fn reported(&mut self, now: Instant, from: NodeId, incarnation: Incarnation, report: Report) {
        let sane = report.top.epoch <= self.terms.epoch.counter && report.top.seq < u64::MAX;
        let known = self.reports.get(&from);
        if !sane || known.is_some_and(|known| known.incarnation > incarnation) {
            return;
        }
        self.asked.remove(&from);
        let reported = Reported { incarnation, report };
        if self.is_current(from, &reported) {
            self.first_current.get_or_insert(now);
        }
        self.reports.insert(from, reported);
        // Who reports the chosen state while it is fetched can help.
        if let (Some(chosen), Some(fetch)) = (self.chosen, &mut self.fetch)
            && is_same_state(&chosen.report, &report)
        {
            fetch.add_source(from);
        }
    }

    fn is_current(&self, node: NodeId, reported: &Reported) -> bool {
        self.set.iter().filter(|member| member.node == node).any(|member| {
            let later = reported.incarnation > member.incarnation;
            reported.incarnation == member.incarnation
                || (later && reported.report.kept)
                || self.planted.has(Fault::TrustsRestarted)
        })
    }

    /// Chooses the state to go on from, if that can be done now.
    fn decide(&mut self, now: Instant) {
        let current: Vec<Report> = self
            .reports
            .iter()
            .filter(|(node, reported)| self.is_current(**node, reported))
            .map(|(_, reported)| reported.report)
            .collect();
        let all: Vec<Report> = self.reports.values().map(|reported| reported.report).collect();
        let all_answered = self.asked.keys().all(|node| self.unreachable.contains(node));
        let past = |at: Option<Instant>, wait: Span| at.is_some_and(|at| now >= at + wait);
        if !current.is_empty() {
            let given_up = |report: &Report| self.given_up.contains(&(report.top, report.root));
            let best = if self.planted.has(Fault::TakesLowest) {
                all.iter().min_by_key(|report| report.top)
            } else {
                current.iter().max_by_key(|report| (!given_up(report), report.top))
            };
            let best = *best.expect("there is a report");
            let is_here = best.top == NONE || self.local_copy(&best).is_some();
            if is_here || all_answered || past(self.first_current, BETTER_WAIT) {
                self.choose(best, false);
            }
            return;
        }
        let accepted = self.accepted.is_some() && all_answered;
        let nobody_missing = self.restarted && self.asked.is_empty();
        let waited_enough =
            past(self.accepted, ACCEPT_WAIT) || past(self.restart_until, Span::ZERO);
        if accepted || nobody_missing || waited_enough {
            // The highest copy of all; without any, only an operator's word lets it start anew.
            match all.iter().max_by_key(|report| report.top) {
                Some(best) => return self.choose(*best, true),
                None if self.accepted.is_some() => {
                    return self.collected(Point::none(), ByteCount(0), true);
                }
                None => {}
            }
        }
        if now >= self.started + UNREACHABLE_AFTER {
            let missing = self.missing();
            if self.told_missing.as_ref() != Some(&missing) {
                self.told_missing = Some(missing.clone());
                self.outputs.push_back(Output::Unreachable { missing });
            }
        }
    }

    fn local_copy(&self, report: &Report) -> Option<&Point> {
        let same = |point: &&Point| point.id == report.top && point.root() == report.root;
        self.local.iter().rev().find(same)
    }

    fn choose(&mut self, report: Report, may_be_missing: bool) {
        self.chosen = Some(Chosen { report, may_be_missing });
        if report.top == NONE {
            return self.collected(Point::none(), ByteCount(0), may_be_missing);
        }
        if let Some(point) = self.local_copy(&report).cloned() {
            let fetched = self.fetch.as_ref().map_or(ByteCount(0), Fetch::fetched);
            return self.collected(point, fetched, may_be_missing);
        }
        // What was fetched of the same state before its last source was lost is still good.
        if self.fetch.as_ref().is_none_or(|fetch| fetch.root() != report.root) {
            let base = self.local.last().map_or(Image::empty(), |point| point.image.clone());
            self.fetch = Some(Fetch::new(self.terms, report.top, report.root, base));
        }
        let fetch = self.fetch.as_mut().expect("just made");
        for (node, reported) in &self.reports {
            if is_same_state(&reported.report, &report) {
                fetch.add_source(*node);
            }
        }
    }

    /// Asks for more of the chosen state, or finishes with it, or chooses another.
    fn pursue(&mut self, now: Instant) {
        let (Some(chosen), false) = (self.chosen, self.finished) else { return };
        let Some(fetch) = &mut self.fetch else { return };
        if fetch.is_done() {
            let checks = !self.planted.has(Fault::SkipsVerification);
            let fetched = fetch.fetched();
            match fetch.finish(checks) {
                Some(image) => {
                    let point = Point { id: chosen.report.top, image };
                    self.collected(point, fetched, chosen.may_be_missing);
                }
                // Verified piece by piece, so this can't be; if it is, begin anew.
                None => (self.fetch, self.chosen) = (None, None),
            }
            return;
        }
        if fetch.has_sources() {
            let questions = fetch.ask(now);
            for (to, ask) in questions {
                let message = ToHolder { terms: self.terms, ask };
                self.outputs.push_back(Output::Send { to, channel: Channel::Bulk, message });
            }
            return;
        }
        // Everybody who reported this state is lost. Their reports no longer count; another current
        // report, if lower, shows that this state was not committed.
        self.chosen = None;
        self.given_up.insert((chosen.report.top, chosen.report.root));
        let lost: Vec<NodeId> = self
            .reports
            .iter()
            .filter(|(_, reported)| is_same_state(&reported.report, &chosen.report))
            .map(|(node, _)| *node)
            .collect();
        for node in lost {
            self.reports.remove(&node);
            if !self.corrupt.contains(&node) {
                self.ask(now, node);
            }
        }
        self.first_current = self
            .reports
            .iter()
            .any(|(node, reported)| self.is_current(*node, reported))
            .then_some(now);
        self.started = now;
        self.told_missing = None;
    }

    fn lose(&mut self, node: NodeId, why: SourceLost) {
        let was_source = self.fetch.as_mut().is_some_and(|fetch| fetch.lose(node));
        if why == SourceLost::Corrupt {
            self.corrupt.insert(node);
        }
        if was_source {
            self.outputs.push_back(Output::SourceLost { node, why });
        }
    }

    fn collected(&mut self, point: Point, fetched: ByteCount, may_be_missing: bool) {
        self.finished = true;
        let Point { id, image } = point;
        self.outputs.push_back(Output::Collected { id, image, fetched, may_be_missing });
    }
}

fn is_same_state(a: &Report, b: &Report) -> bool {
    a.top == b.top && a.root == b.root
}

#[cfg(test)]
mod tests;
