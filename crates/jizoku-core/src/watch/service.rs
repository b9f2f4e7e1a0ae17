//! What one node knows of one service in one epoch: its own checks, everybody's observations, and
//! the verdict that follows.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::spec::{CheckKind, CheckSpec};
use jizoku_types::{Epoch, Instant, NodeId, Span};

use super::roles::Role;
use super::{
    DETAIL_MAX, EVERY_MIN, GRACE, INTEREST, OBSERVERS_MAX, Observation, PROBERS, RESULT_LATE,
    TRAFFIC_BAD, TRAFFIC_FAILURES, TTL, Verdict, WAITING_MAX,
};

/// A check that this node does.
#[derive(Debug)]
struct Probe {
    next: Instant,
    /// When the one under way was started.
    started: Option<Instant>,
    failures: u8,
    succeeded: bool,
    detail: String,
}

/// What the gateway here sees.
#[derive(Debug)]
struct Traffic {
    at: Instant,
    bad: u8,
    detail: String,
}

/// An observation, on this node's clock.
#[derive(Debug)]
struct Seen {
    serving: bool,
    inside: bool,
    number: u64,
    at: Instant,
    detail: String,
}

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) epoch: Epoch,
    pub(super) active: Option<NodeId>,
    pub(super) role: Role,
    pub(super) verdict: Verdict,
    pub(super) wanted_until: Option<Instant>,
    /// When something is due next.
    pub(super) next: Option<Instant>,
    me: NodeId,
    since: Instant,
    checks: Vec<CheckSpec>,
    probes: BTreeMap<u8, Probe>,
    traffic: Option<Traffic>,
    number: u64,
    seen: BTreeMap<NodeId, Seen>,
    asked: Option<Instant>,
    waiting: BTreeSet<NodeId>,
}

impl Watched {
    pub(super) fn new(
        now: Instant,
        me: NodeId,
        epoch: Epoch,
        active: Option<NodeId>,
        checks: Vec<CheckSpec>,
    ) -> Watched {
        Watched {
            epoch,
            active,
            role: Role::None,
            verdict: Verdict::Unknown,
            wanted_until: None,
            next: Some(now),
            me,
            since: now,
            checks: or_default(checks),
            probes: BTreeMap::new(),
            traffic: None,
            number: 0,
            seen: BTreeMap::new(),
            asked: None,
            waiting: BTreeSet::new(),
        }
    }

    pub(super) fn is_same(
        &self,
        epoch: Epoch,
        active: Option<NodeId>,
        checks: &[CheckSpec],
    ) -> bool {
        let same_checks = if checks.is_empty() {
            self.checks == or_default(Vec::new())
        } else {
            self.checks == checks
        };
        self.epoch == epoch && self.active == active && same_checks
    }

    pub(super) fn set_role(&mut self, now: Instant, role: Role) {
        if self.role == role {
            return;
        }
        let was_steady = self.role.is_steady();
        self.role = role;
        let place = match &self.role {
            Role::Prober { place, .. } => *place,
            _ => 0,
        };
        let mut probes = BTreeMap::new();
        for (index, check) in self.checks.iter().enumerate() {
            let Ok(index) = u8::try_from(index) else { break };
            if !self.does(&check.kind) {
                continue;
            }
            // Probers take turns within a period.
            let turn = every(check) / PROBERS as u64 * place as u64;
            let fresh = || Probe {
                next: now + turn,
                started: None,
                failures: 0,
                succeeded: false,
                detail: String::new(),
            };
            probes.insert(index, self.probes.remove(&index).unwrap_or_else(fresh));
        }
        self.probes = probes;
        if was_steady && !self.role.is_steady() {
            self.seen.remove(&self.me);
        }
        self.next = Some(now);
    }

    /// Whether this node does checks of this kind.
    fn does(&self, kind: &CheckKind) -> bool {
        let outside = matches!(kind, CheckKind::Tcp { .. } | CheckKind::Http { .. });
        match &self.role {
            Role::Active { probers } => !outside || probers.is_empty(),
            Role::Prober { .. } => outside,
            Role::None | Role::Other { .. } => false,
        }
    }

    pub(super) fn want(&mut self, now: Instant) {
        self.wanted_until = Some(now + INTEREST);
        self.next = Some(now);
    }

    pub(super) fn wait(&mut self, node: NodeId) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.insert(node);
        }
    }

    pub(super) fn probed(&mut self, now: Instant, check: u8, result: Result<(), String>) {
        let young = now < self.since + GRACE;
        let Some(probe) = self.probes.get_mut(&check) else { return };
        if probe.started.take().is_none() {
            return;
        }
        match result {
            Ok(()) => (probe.failures, probe.succeeded) = (0, true),
            Err(_) if young && !probe.succeeded => {}
            Err(detail) => {
                probe.failures = probe.failures.saturating_add(1);
                probe.detail = cut(detail);
            }
        }
        self.observe(now);
    }

    pub(super) fn traffic(&mut self, now: Instant, answers: u32, errors: u32, timeouts: u32) {
        let failed = errors.saturating_add(timeouts);
        let before = self.traffic.as_ref().map_or(0, |traffic| traffic.bad);
        let bad = match () {
            () if answers > 0 => 0,
            () if failed >= TRAFFIC_BAD => before.saturating_add(1),
            () => return,
        };
        let detail = alloc::format!("{errors} errors and {timeouts} time-outs, no answers");
        self.traffic = Some(Traffic { at: now, bad, detail });
        self.observe(now);
    }

    /// Makes an observation of what this node has seen itself.
    fn observe(&mut self, now: Instant) {
        let checks = &self.checks;
        let failing = self.probes.iter().find(|(index, probe)| {
            checks.get(usize::from(**index)).is_some_and(|check| probe.failures >= check.failures)
        });
        let traffic = self.traffic.as_ref().filter(|traffic| now.since(traffic.at) <= TTL);
        let starved = traffic.filter(|traffic| traffic.bad >= TRAFFIC_FAILURES);
        let tried = !self.probes.is_empty() && self.probes.values().all(|probe| probe.succeeded);
        let (serving, detail) = match (failing, starved) {
            (Some((_, probe)), _) => (false, probe.detail.clone()),
            (None, Some(traffic)) => (false, traffic.detail.clone()),
            (None, None) if tried || traffic.is_some_and(|traffic| traffic.bad == 0) => {
                (true, String::new())
            }
            (None, None) => return,
        };
        self.number += 1;
        let inside = self.active == Some(self.me);
        let seen = Seen { serving, inside, number: self.number, at: now, detail };
        self.insert(self.me, seen);
    }

    fn insert(&mut self, observer: NodeId, seen: Seen) {
        self.seen.insert(observer, seen);
        if self.seen.len() > OBSERVERS_MAX {
            let oldest = self.seen.iter().min_by_key(|(node, seen)| (seen.at, **node));
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.seen.remove(&oldest);
            }
        }
        self.next = Some(Instant::ORIGIN);
    }

    /// Takes others' observations in.
    pub(super) fn learn(&mut self, now: Instant, seen: BTreeMap<NodeId, Observation>) {
        for (observer, new) in seen.into_iter().take(OBSERVERS_MAX) {
            let at = now.before(new.age);
            let known = self.seen.get(&observer);
            // A younger one with a lower number is of an observer that started anew.
            let newer = known.is_none_or(|known| new.number > known.number || at > known.at + TTL);
            if observer == self.me || !newer || now.since(at) > self.fresh_for() {
                continue;
            }
            let Observation { serving, inside, number, detail, .. } = new;
            let inside = inside && self.active == Some(observer);
            self.insert(observer, Seen { serving, inside, number, at, detail: cut(detail) });
        }
    }

    /// What is known, as it is told to others.
    pub(super) fn tell(&self, now: Instant) -> BTreeMap<NodeId, Observation> {
        let fresh = self.seen.iter().filter(|(_, seen)| now.since(seen.at) <= self.fresh_for());
        fresh
            .map(|(node, seen)| {
                let Seen { serving, inside, number, at, ref detail } = *seen;
                let age = now.since(at);
                (*node, Observation { serving, inside, number, age, detail: detail.clone() })
            })
            .collect()
    }

    /// How long an observation counts here.
    fn fresh_for(&self) -> Span {
        let slowest = self.checks.iter().map(|check| every(check) + check.timeout).max();
        slowest.unwrap_or(Span::ZERO) + TTL * u64::from(1 + self.role.depth())
    }

    /// This node ran late: what it saw, or did not see in time, says nothing of others.
    pub(super) fn forget_own(&mut self, now: Instant) {
        for probe in self.probes.values_mut() {
            (probe.started, probe.failures, probe.next) = (None, 0, now);
        }
        self.traffic = None;
        self.seen.remove(&self.me);
        self.next = Some(now);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// The checks to do now. Counts those whose result never came.
    pub(super) fn due_probes(&mut self, now: Instant) -> Vec<u8> {
        let mut missing = Vec::new();
        for (index, probe) in &self.probes {
            let Some(check) = self.checks.get(usize::from(*index)) else { continue };
            let overdue = |started: Instant| now >= started + check.timeout + RESULT_LATE;
            if probe.started.is_some_and(overdue) {
                missing.push(*index);
            }
        }
        for index in missing {
            self.probed(now, index, Err("the check did not end in time".to_string()));
        }
        let mut due = Vec::new();
        for (index, probe) in &mut self.probes {
            let Some(check) = self.checks.get(usize::from(*index)) else { continue };
            if probe.started.is_none() && probe.next <= now {
                (probe.started, probe.next) = (Some(now), now + every(check));
                due.push(*index);
            }
        }
        due
    }

    fn is_interested(&self, now: Instant) -> bool {
        self.role.is_steady() || self.wanted_until.is_some_and(|until| now < until)
    }

    /// Whether it is time to ask; if so, the next time is later.
    pub(super) fn asks_now(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none_or(|asked| now >= asked + TTL);
        let asks = due && self.is_interested(now);
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// Who waited for something to be known, if something is.
    pub(super) fn served_now(&mut self, now: Instant) -> BTreeSet<NodeId> {
        if self.waiting.is_empty() || self.tell(now).is_empty() {
            return BTreeSet::new();
        }
        core::mem::take(&mut self.waiting)
    }

    /// The verdict, if it is another than before.
    pub(super) fn judge(&mut self, now: Instant) -> Option<Verdict> {
        let fresh_for = self.fresh_for();
        self.seen.retain(|_, seen| now.since(seen.at) <= fresh_for);
        let verdict = self.conclude();
        if verdict == self.verdict {
            return None;
        }
        self.verdict = verdict.clone();
        Some(verdict)
    }

    fn conclude(&self) -> Verdict {
        let inside = self.seen.values().find(|seen| seen.inside);
        if let Some(bad) = inside.filter(|seen| !seen.serving) {
            return Verdict::Failing { detail: bad.detail.clone() };
        }
        let outside: Vec<&Seen> = self.seen.values().filter(|seen| !seen.inside).collect();
        let bad: Vec<&&Seen> = outside.iter().filter(|seen| !seen.serving).collect();
        if let Some(first) = bad.first().filter(|_| bad.len() * 2 > outside.len()) {
            return Verdict::Failing { detail: first.detail.clone() };
        }
        // A process that lives is not a service that answers, if there is a check for that.
        let alone = matches!(&self.role, Role::Active { probers } if probers.is_empty());
        let no_answer_needed = self
            .checks
            .iter()
            .all(|check| matches!(check.kind, CheckKind::Alive | CheckKind::Command { .. }));
        if !outside.is_empty() || (inside.is_some() && (alone || no_answer_needed)) {
            Verdict::Serving
        } else {
            Verdict::Unknown
        }
    }

    /// Works out when something is due next.
    pub(super) fn set_next(&mut self, now: Instant) {
        let probes = self.probes.iter().filter_map(|(index, probe)| {
            let check = self.checks.get(usize::from(*index))?;
            Some(probe.started.map_or(probe.next, |at| at + check.timeout + RESULT_LATE))
        });
        let ask = self.is_interested(now).then(|| self.asked.map_or(now, |asked| asked + TTL));
        let fresh_for = self.fresh_for() + Span::nanos(1);
        let stale = self.seen.values().map(|seen| seen.at + fresh_for);
        self.next = probes.chain(ask).chain(stale).min();
    }
}

fn every(check: &CheckSpec) -> Span {
    check.every.max(EVERY_MIN)
}

fn or_default(checks: Vec<CheckSpec>) -> Vec<CheckSpec> {
    if !checks.is_empty() {
        return checks;
    }
    let second = Span::secs(1);
    vec![CheckSpec { kind: CheckKind::Alive, every: second, timeout: second, failures: 1 }]
}

/// Cuts a text to [`DETAIL_MAX`] bytes, between characters.
fn cut(mut text: String) -> String {
    let mut end = text.len().min(DETAIL_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
