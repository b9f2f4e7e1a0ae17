//! Runners: which services run here, and what becomes of them when they end, move or crash.
//!
//! A [`Local`] stands for one Runner, from the moment the catalog gave this node the epoch until
//! the catalog gives the service another. A Runner that ended stays listed as ended: its epoch is
//! spent, and the service goes on only under a new one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_core::catalog::{Command, Wanted};
use jizoku_core::{lease, watch};
use jizoku_engine::Exit;
use jizoku_types::spec::OutputMode;
use jizoku_types::{
    BranchId, CheckpointId, Epoch, Event, Instant, Member, NodeId, ServiceId, Span,
};

use super::requests::Purpose;
use super::sets::Wished;
use super::{Node, Order, Output};
use crate::fault::Fault;
use crate::runner::{Assignment, CheckpointStatus, Holders, Phase, Report};

/// First wait before a crashed service is started again; doubles with each crash.
const RESTART_AFTER: Span = Span::millis(100);
/// Longest wait.
const RESTART_AFTER_MAX: Span = Span::secs(30);
/// An instance that ran for so long has not "crashed at once": counting begins anew.
pub(super) const STABLE_AFTER: Span = Span::secs(60);
/// An instance that crashed sooner than this after it was restored was killed by what it was given
/// then: by its state, or by input that waited for it.
const POISON_WITHIN: Span = Span::secs(2);
/// Crashes in a row after which another node is tried.
const CRASHES_HERE_MAX: u32 = 3;
/// For so long a node that could not start or restore a service is not tried again.
const FAILED_FOR: Span = Span::secs(60);
/// A move that doesn't come about by then is given up.
const MOVE_WITHIN: Span = Span::secs(30);

/// One Runner, seen from the Node.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) last: CheckpointStatus,
    /// Holder set and recruits as they were last told to the Runner.
    pub(super) told: Holders,
    pub(super) recruits: BTreeSet<Member>,
    pub(super) caught_up: BTreeSet<Member>,
    /// Sets that were proposed and may yet become the catalog's.
    pub(super) promised: Promised,
    /// Holders that can't go on, each with when it may be tried again.
    pub(super) failed: BTreeMap<Member, Instant>,
    /// What shall come after this Runner.
    pub(super) next: Option<Next>,
    pub(super) wished: Option<Wished>,
    /// It was told that the whole cluster was restarted.
    pub(super) told_restarted: bool,
}

/// Who may become a holder by a proposal whose fate isn't known: until it is, they acknowledge too.
#[derive(Clone, Debug, Default)]
pub(super) struct Promised {
    /// The version of the set that the proposals expect. Under another one none of them counts.
    pub(super) version: u64,
    pub(super) members: BTreeSet<Member>,
    /// Of one of them nobody can say whether it will still take place.
    pub(super) unsure: bool,
}

/// What comes after a Runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the service is stopped.
    Stop,
    /// The same node, under a new epoch.
    Restart,
    /// Another node: this one, or by succession. Given up at the deadline.
    Move { to: Option<NodeId>, until: Instant },
}

/// What is remembered of a service's crashes on this node, across epochs.
#[derive(Clone, Debug, Default)]
pub(super) struct Crashes {
    /// In a row.
    pub(super) count: u32,
    /// From which checkpoint the last one began, and how many began from it.
    pub(super) from: CheckpointId,
    pub(super) from_count: u32,
    /// When it may be started here again.
    pub(super) retry_at: Instant,
    /// For so long it is not tried here at all.
    pub(super) not_here_until: Instant,
    /// Why, for people.
    pub(super) detail: String,
}

impl Node {
    /// Makes Runners be what the catalog says.
    pub(super) fn assign_duties(&mut self) {
        let me = self.me();
        let known: BTreeSet<ServiceId> =
            self.local.keys().chain(self.catalog.services().keys()).copied().collect();
        for service in known {
            let Some((epoch, wanted)) = self.reign_here(service, me) else {
                self.dismiss(service);
                continue;
            };
            match self.local.get(&service) {
                Some(local) if local.epoch == epoch => self.look_after(service, wanted),
                _ => {
                    self.dismiss(service);
                    if wanted == Wanted::Running {
                        self.activate(service);
                    }
                }
            }
        }
    }

    /// The epoch in which this node is active for a service, and whether an instance shall run.
    fn reign_here(&self, service: ServiceId, me: Member) -> Option<(Epoch, Wanted)> {
        if let Some(own) = self.branches.own(service) {
            return Some((own.epoch, Wanted::Running));
        }
        let record = self.catalog.service(service)?;
        let here = record.active == Some(me) && !self.branches.has_left(service, record.epoch);
        here.then_some((record.epoch, record.wanted))
    }

    pub(super) fn dismiss(&mut self, service: ServiceId) {
        if let Some(local) = self.local.remove(&service) {
            self.owner.handle(self.now, lease::OwnerInput::Release { service });
            if local.phase != Phase::Ended && !self.planted.has(Fault::NotDismissed) {
                self.order(service, local.epoch, Order::Stop);
                if !matches!(local.next, Some(Next::Move { .. })) {
                    self.event(Event::InstanceFenced { service, epoch: local.epoch });
                }
            }
        }
    }

    fn activate(&mut self, service: ServiceId) {
        let Some(record) = self.catalog.service(service) else { return };
        let Some(holders) = self.holders_of(service) else { return };
        let (epoch, fork, born) = match self.branches.own(service) {
            Some(own) => (own.epoch, Some(own.parent.branch), true),
            None => (record.epoch, record.fork, record.born),
        };
        let branch = epoch.branch != BranchId::MAIN;
        let cluster_restarted = self.cluster_restarted(service, &holders.members) && !branch
            || self.planted.has(Fault::ColdAlways);
        let crashes = self.crashes.get(&service);
        let assignment = Assignment {
            me: self.me(),
            service,
            spec: record.spec.clone(),
            epoch,
            born: born && !self.planted.has(Fault::BirthForgotten),
            holders: holders.clone(),
            everyone: self.catalog.current_members().collect(),
            accept_loss: record.loss_accepted && !branch,
            cluster_restarted,
            fork: fork.filter(|_| !self.planted.has(Fault::ForkForgotten)),
            poisonous: crashes.is_some_and(|crashes| crashes.from_count >= 2),
            local: Vec::new(),
        };
        if record.spec.needs_lease() && !branch {
            self.owner.handle(self.now, lease::OwnerInput::Want { service, epoch });
        }
        self.local.insert(
            service,
            Local {
                epoch,
                phase: Phase::Collecting,
                since: self.now,
                last: CheckpointStatus::default(),
                told: holders,
                recruits: BTreeSet::new(),
                caught_up: BTreeSet::new(),
                promised: Promised::default(),
                failed: BTreeMap::new(),
                next: None,
                wished: None,
                told_restarted: cluster_restarted,
            },
        );
        self.facts.urgent = true;
        self.outputs.push_back(Output::Activate(Box::new(assignment)));
    }

    /// A Runner of the right epoch is here: tell it what changed, end it, or start over.
    fn look_after(&mut self, service: ServiceId, wanted: Wanted) {
        let Some(now) = self.holders_of(service) else { return };
        let Some(local) = self.local.get_mut(&service) else { return };
        let epoch = local.epoch;
        if local.phase == Phase::Ended && epoch.branch != BranchId::MAIN {
            return self.reopen(service);
        }
        if local.phase == Phase::Ended {
            if wanted == Wanted::Running {
                self.start_over(service);
            }
            return;
        }
        if local.told != now {
            local.told = now.clone();
            self.order(service, epoch, Order::Holders(now));
        }
        // A branch neither moves nor stops: it ends when the sides meet.
        if epoch.branch == BranchId::MAIN {
            self.tell_restarted(service);
            self.quiesce_if_due(service, wanted);
        }
    }

    /// Nodes may be met, and be heard of themselves, after a takeover began.
    fn tell_restarted(&mut self, service: ServiceId) {
        let Some(local) = self.local.get(&service) else { return };
        let collects = matches!(local.phase, Phase::Collecting | Phase::Unreachable);
        if !collects {
            return;
        }
        let (epoch, holders) = (local.epoch, local.told.members.clone());
        let restarted = match local.told_restarted {
            true => !self.has_somebody_lived(service, &holders),
            false => self.cluster_restarted(service, &holders),
        };
        if restarted != local.told_restarted {
            self.order(service, epoch, Order::ClusterRestarted(restarted));
            self.local.entry(service).and_modify(|local| local.told_restarted = restarted);
        }
    }

    fn quiesce_if_due(&mut self, service: ServiceId, wanted: Wanted) {
        let draining = self.catalog.member(&self.me().node).is_some_and(|me| me.draining);
        let until = self.now + MOVE_WITHIN;
        let Some(local) = self.local.get_mut(&service) else { return };
        if wanted == Wanted::Stopped {
            local.next = Some(Next::Stop);
        } else if draining && local.next.is_none() && local.phase == Phase::Serving {
            local.next = Some(Next::Move { to: None, until });
        }
        let epoch = local.epoch;
        match local.next {
            Some(Next::Move { until, .. }) if until <= self.now => {
                local.next = None;
                let what = alloc::format!("{service} could not be moved within {MOVE_WITHIN}");
                self.event(Event::Trouble { what });
            }
            Some(Next::Move { to, .. }) if local.phase == Phase::Serving => {
                let ready = self.successor(service, to, true);
                let ready = ready.filter(|to| self.holds_or_needs_nothing(service, *to));
                match ready {
                    Some(to) if self.may_be_taken(service) => self.hand_over(service, epoch, to),
                    Some(_) => self.quiesce(service, epoch),
                    None => {}
                }
            }
            Some(Next::Stop | Next::Restart) if local.phase != Phase::Quiescing => {
                self.quiesce(service, epoch);
            }
            _ => {}
        }
    }

    fn quiesce(&mut self, service: ServiceId, epoch: Epoch) {
        if let Some(local) = self.local.get_mut(&service) {
            local.phase = Phase::Quiescing;
        }
        self.order(service, epoch, Order::Quiesce);
    }

    /// Whether a service can be taken from a living instance as it is from a dead one: what a
    /// client was told is in every copy, and what it asked is asked again. Of others something
    /// would be lost, so they are quiesced first.
    fn may_be_taken(&self, service: ServiceId) -> bool {
        let spec = self.catalog.service(service).map(|record| &record.spec);
        spec.is_some_and(|spec| spec.has_state() && spec.output == OutputMode::Held)
    }

    /// Gives the epoch to another node while the instance here goes on serving: it ends when the
    /// catalog has decided, so nobody waits for that.
    fn hand_over(&mut self, service: ServiceId, expect: Epoch, to: Member) {
        let Some(record) = self.catalog.service(service) else { return };
        let ready = record.epoch == expect && self.is_prepared(to.node, service, record);
        let under_way = self.is_under_way(&Purpose::TakeOver(service));
        if !ready || under_way || self.leader.is_none() || !self.reaches_majority() {
            return;
        }
        self.event(Event::TakeoverProposed { service, from: expect });
        let command = Command::TakeOver { service, expect, to: Some(to) };
        self.propose(Purpose::TakeOver(service), &command);
    }

    fn holds_or_needs_nothing(&self, service: ServiceId, to: Member) -> bool {
        self.catalog
            .service(service)
            .is_some_and(|record| !record.spec.has_state() || record.is_holder(&to))
    }

    /// The node that a service shall move to: the wish if it can be met, else by succession.
    pub(super) fn successor(
        &self,
        service: ServiceId,
        wish: Option<NodeId>,
        elsewhere: bool,
    ) -> Option<Member> {
        let me = self.me();
        let ranked = self.ranked(service);
        let others = || ranked.iter().filter(|member| !elsewhere || member.node != me.node);
        let wished = others().find(|member| Some(member.node) == wish);
        wished.or_else(|| others().next()).copied()
    }

    /// The epoch is spent: propose the next one, for whoever shall go on.
    fn start_over(&mut self, service: ServiceId) {
        let crashes = self.crashes.get(&service).cloned().unwrap_or_default();
        let Some(local) = self.local.get(&service) else { return };
        let (epoch, next) = (local.epoch, local.next);
        let under_way = self.is_under_way(&Purpose::TakeOver(service));
        if crashes.retry_at > self.now || under_way || !self.reaches_majority() {
            return;
        }
        if self.planted.has(Fault::RestartsInPlace) {
            return self.activate(service);
        }
        let not_here = crashes.not_here_until > self.now;
        let worn_out = crashes.count > 0 && crashes.count.is_multiple_of(CRASHES_HERE_MAX);
        let me = Some(self.me()).filter(|me| self.catalog.may_be_active(service, *me));
        let to = match next {
            Some(Next::Move { to, .. }) => self.successor(service, to, true),
            _ if not_here || worn_out || me.is_none() => self.successor(service, None, true),
            _ => None,
        };
        // With nobody who may, it waits until there is somebody.
        let Some(to) = to.or(me) else { return };
        self.event(Event::TakeoverProposed { service, from: epoch });
        let command = Command::TakeOver { service, expect: epoch, to: Some(to) };
        self.propose(Purpose::TakeOver(service), &command);
    }

    /// A Runner's report.
    pub(super) fn reported(&mut self, service: ServiceId, epoch: Epoch, report: Report) {
        let now = self.now;
        let Some(local) = self.local.get_mut(&service).filter(|local| local.epoch == epoch) else {
            return;
        };
        let dirty = core::mem::replace(&mut self.dirty, true);
        match report {
            Report::Phase(phase) => {
                local.phase = phase;
                local.since = now;
                self.facts.urgent = true;
                if phase == Phase::Unreachable {
                    self.event(Event::Unreachable { service });
                    self.abandon(service, epoch);
                }
            }
            Report::CaughtUp(member) => {
                local.caught_up.insert(member);
            }
            Report::HolderFailed { member, why } => {
                local.caught_up.remove(&member);
                local.failed.insert(member, now + FAILED_FOR / 2);
                let what = alloc::format!("{:?} can't hold {service}: {why}", member.node);
                self.event(Event::Trouble { what });
            }
            Report::Superseded(_) => {
                local.phase = Phase::Ended;
                self.owner.handle(now, lease::OwnerInput::Release { service });
                self.order(service, epoch, Order::Stop);
            }
            Report::Exited { exit, restored, ran } => {
                local.phase = Phase::Ended;
                local.since = now;
                self.facts.urgent = true;
                self.owner.handle(now, lease::OwnerInput::Release { service });
                self.crashed(service, epoch, exit, restored, ran);
            }
            Report::Quiesced => {
                local.phase = Phase::Ended;
                local.since = now;
                self.owner.handle(now, lease::OwnerInput::Release { service });
            }
            // These change nothing that duties depend on.
            Report::Committed(status) => {
                local.last = status;
                self.dirty = dirty;
                self.branch_committed(service, epoch, &status);
            }
            Report::Adopted(_) | Report::Printed(_) => self.dirty = dirty,
        }
    }

    fn crashed(
        &mut self,
        service: ServiceId,
        epoch: Epoch,
        exit: Exit,
        restored: CheckpointId,
        ran: Span,
    ) {
        self.facts.urgent = true;
        let reason = exit.to_string();
        self.event(Event::InstanceExited { service, epoch, reason: reason.clone() });
        let crashes = self.crashes.entry(service).or_default();
        if ran >= STABLE_AFTER {
            *crashes = Crashes::default();
        }
        // Others may have written between restoring and the crash: a crash that soon after is
        // taken for one from the same checkpoint.
        if crashes.from != restored && ran >= POISON_WITHIN {
            crashes.from_count = 0;
        }
        crashes.from = restored;
        crashes.from_count += 1;
        let doublings = crashes.count.min(16);
        crashes.count += 1;
        let wait = RESTART_AFTER * (1 << doublings);
        crashes.retry_at = self.now + wait.min(RESTART_AFTER_MAX);
        crashes.detail = reason;
        if matches!(exit, Exit::CannotStart(_)) {
            crashes.not_here_until = self.now + FAILED_FOR;
        }
    }

    /// A service's spec changed.
    pub(super) fn updated(&mut self, service: ServiceId, restart: bool) {
        let local = self.local.get_mut(&service).filter(|_| restart);
        if let Some(local) = local.filter(|local| local.phase < Phase::Quiescing) {
            local.next = Some(Next::Restart);
        }
    }

    /// Someone asks the active node to let a service go on elsewhere.
    pub(super) fn move_here(&mut self, service: ServiceId, epoch: Epoch, to: Option<NodeId>) {
        let until = self.now + MOVE_WITHIN;
        let local = self.local.get_mut(&service).filter(|local| local.epoch == epoch);
        if let Some(local) = local.filter(|local| local.phase < Phase::Quiescing) {
            local.next = Some(Next::Move { to, until });
            self.dirty = true;
        }
    }

    /// The watch's verdict changed.
    pub(super) fn judged(&mut self, service: ServiceId, epoch: Epoch, verdict: &watch::Verdict) {
        self.judged_at.insert(service, self.now);
        let detail = match verdict {
            watch::Verdict::Unknown => return,
            watch::Verdict::Serving => String::new(),
            watch::Verdict::Failing { detail } => detail.clone(),
        };
        let serving = *verdict == watch::Verdict::Serving;
        self.event(Event::WatchChanged { service, serving, detail: detail.clone() });
        let local = self.local.get_mut(&service).filter(|local| local.epoch == epoch);
        let Some(local) = local.filter(|local| !serving && local.phase == Phase::Serving) else {
            return;
        };
        // It runs, and doesn't serve: to its users it has crashed.
        let ran = self.now.since(local.since);
        local.phase = Phase::Ended;
        let restored = local.last.id;
        self.order(service, epoch, Order::Stop);
        self.owner.handle(self.now, lease::OwnerInput::Release { service });
        self.crashed(service, epoch, Exit::Crashed(detail), restored, ran);
        self.dirty = true;
    }
}
