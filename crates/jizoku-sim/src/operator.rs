//! The operators: they make the cluster, apply its services, and ask for what the plan wants.
//!
//! They look twice a second through a random node, and ask for the first thing that is not as it
//! should be. So whatever a fault spoils is asked again.

use std::collections::BTreeSet;

use jizoku_core::catalog::{Command, Outcome, Wanted};
use jizoku_node::node::{self, Refusal, Request};
use jizoku_node::runner::Phase;
use jizoku_types::spec::Durability;
use jizoku_types::{Instant, NodeId, ServiceId, Span};

use crate::machine::{CLUSTER, GENERATION};
use crate::net::HostId;
use crate::plan::Changed;
use crate::world::{What, World};

/// How often they look.
const LOOK_EVERY: Span = Span::millis(500);
/// How often while the cluster is being made.
const MAKE_EVERY: Span = Span::millis(20);
/// Without an answer for so long, they ask again.
const PATIENCE: Span = Span::secs(4);
/// For so long nobody may hold a state before its loss is accepted.
const LOSS_AFTER: Span = Span::secs(15);

/// See the module's header.
#[derive(Debug, Default)]
pub struct Operator {
    /// Machines that shall become empty.
    pub draining: BTreeSet<HostId>,
    /// Services that shall not run.
    pub stopped: BTreeSet<usize>,
    /// When a disk was last replaced.
    pub wiped_at: Option<Instant>,
    /// Since when members are listed that no machine is any more.
    lost_members: std::collections::BTreeMap<NodeId, Instant>,
    pending: Option<(u64, Instant)>,
    last_request: u64,
    /// Since when a service has nobody who holds its state.
    lost_since: std::collections::BTreeMap<usize, Instant>,
}

impl World {
    pub(crate) fn operate(&mut self) {
        let made = self.ids.iter().all(Option::is_some);
        self.after(if made { LOOK_EVERY } else { MAKE_EVERY }, What::Operate);
        let waiting = self.operator.pending;
        if waiting.is_some_and(|(_, since)| self.now.since(since) < PATIENCE) {
            return;
        }
        let host = if made { self.rng.index(self.machines.len()) } else { 0 };
        if self.answers_from(host).is_none_or(|at| at > self.now) {
            return;
        }
        if let Some(command) = self.next_command(host) {
            self.say(|| format!("n{host} is asked: {command:?}"));
            self.request(host, Request::Command(Box::new(command)));
        }
    }

    fn request(&mut self, host: HostId, request: Request) {
        self.oracle.counts.orders += 1;
        self.operator.last_request += 1;
        let id = self.operator.last_request;
        self.operator.pending = Some((id, self.now));
        self.tell_node(host, node::Input::Request { id, request });
    }

    pub(crate) fn operator_answered(&mut self, id: u64, result: Result<Outcome, Refusal>) {
        if self.operator.pending.is_some_and(|(pending, _)| pending == id) {
            self.operator.pending = None;
        }
        self.say(|| format!("answer {id}: {result:?}"));
    }

    pub(crate) fn order_move(&mut self, service: usize, to: Option<HostId>) {
        let Some(service) = self.ids[service] else { return };
        let host = self.rng.index(self.machines.len());
        if self.answers_from(host).is_some_and(|at| at <= self.now) {
            let to = to.map(|to| self.machines[to].key);
            self.request(host, Request::Move { service, to });
        }
    }

    /// Asks the first machine for what the cluster still lacks, if nothing is being asked for.
    /// Gives whether it lacks nothing.
    pub(crate) fn make(&mut self) -> bool {
        if self.operator.pending.is_some() {
            return false;
        }
        let command = self.next_command(0);
        let made = command.is_none();
        if let Some(command) = command {
            self.request(0, Request::Command(Box::new(command)));
        }
        made
    }

    fn next_command(&mut self, host: HostId) -> Option<Command> {
        let life = self.machines[host].life.as_ref()?;
        let catalog = life.node.catalog();
        if catalog.cluster().is_none() {
            let first = self.machines[host].spec();
            return (host == 0 && self.ids.iter().all(Option::is_none)).then_some(Command::Init {
                cluster: CLUSTER,
                generation: GENERATION,
                first,
            });
        }
        for machine in &self.machines {
            if catalog.member(&machine.key).is_none() {
                return Some(Command::AddMember { member: machine.spec() });
            }
        }
        for (index, spec) in self.plan.services.iter().enumerate() {
            match catalog.service_named(&spec.name) {
                Some((id, _)) => self.ids[index] = Some(id),
                None => {
                    let spec = Box::new(spec.clone());
                    return Some(Command::ApplyService { spec, expect: None });
                }
            }
            let record = catalog.service_named(&spec.name).map(|(_, record)| record);
            if let Some(record) = record.filter(|record| record.spec != *spec) {
                let (spec, expect) = (Box::new(spec.clone()), Some(record.version));
                return Some(Command::ApplyService { spec, expect });
            }
        }
        self.upkeep(host)
    }

    fn upkeep(&mut self, host: HostId) -> Option<Command> {
        let catalog = self.machines[host].life.as_ref()?.node.catalog();
        for machine in &self.machines {
            let draining = self.operator.draining.contains(&machine.host);
            if catalog.member(&machine.key).is_some_and(|known| known.draining != draining) {
                return Some(Command::SetDraining { node: machine.key, draining });
            }
        }
        for (index, id) in self.ids.iter().enumerate() {
            let Some(service) = *id else { continue };
            let stopped = self.operator.stopped.contains(&index);
            let wanted = if stopped { Wanted::Stopped } else { Wanted::Running };
            if catalog.service(service).is_some_and(|known| known.wanted != wanted) {
                return Some(Command::SetWanted { service, wanted });
            }
        }
        if let Some(command) = self.drop_listed(host) {
            return Some(command);
        }
        let lost = (0..self.ids.len()).find_map(|index| self.accept_loss(host, index));
        lost.or_else(|| self.remove_lost(host))
    }

    /// Of more than one listed state of a service people drop the first.
    fn drop_listed(&self, host: HostId) -> Option<Command> {
        let catalog = self.machines[host].life.as_ref()?.node.catalog();
        self.ids.iter().flatten().find_map(|service| {
            let listed = catalog.branches(*service)?;
            let (branch, _) = listed.first_key_value().filter(|_| listed.len() > 1)?;
            Some(Command::DropBranch { service: *service, branch: *branch })
        })
    }

    /// A member is listed whose machine came back as another.
    fn remove_lost(&mut self, host: HostId) -> Option<Command> {
        let catalog = self.machines[host].life.as_ref()?.node.catalog();
        let is_lost = |node: &&NodeId| self.host_of(**node).is_none();
        let node = *catalog.members().keys().find(is_lost)?;
        let now = self.now;
        let since = *self.operator.lost_members.entry(node).or_insert(now);
        // If it was the only one who held some state, that is lost: but first others try.
        let accept_loss = now.since(since) >= LOSS_AFTER;
        Some(Command::RemoveMember { node, accept_loss })
    }

    /// The users of a service want something else of it.
    pub(crate) fn change_spec(&mut self, service: usize, changed: Changed) {
        let spec = &mut self.plan.services[service];
        match changed {
            Changed::Copies(copies) => {
                spec.copies = copies;
                spec.min_copies = spec.min_copies.min(copies);
            }
            Changed::Interval(interval) => spec.interval = interval,
            Changed::Memory => spec.durable = Durability::Memory,
        }
    }

    /// Nobody who held the service's state has lived for a while: go on without.
    fn accept_loss(&mut self, host: HostId, index: usize) -> Option<Command> {
        let service = self.ids[index]?;
        let unreachable = self.server_of(index).is_some_and(|server| {
            let life = self.machines[server].life.as_ref();
            let runner = life.and_then(|life| life.runners.get(&service));
            runner.is_some_and(|one| one.runner.phase() == Phase::Unreachable)
        });
        if !unreachable || self.may_come_back(host, service) {
            self.operator.lost_since.remove(&index);
            return None;
        }
        let now = self.now;
        let since = *self.operator.lost_since.entry(index).or_insert(now);
        let record = self.machines[host].life.as_ref()?.node.catalog().service(service)?;
        let due = now.since(since) >= LOSS_AFTER && !record.loss_accepted;
        due.then_some(Command::AcceptLoss { service, epoch: record.epoch })
    }

    /// Whether a member of the last holder set lives, or has its state on its disk.
    fn may_come_back(&self, host: HostId, service: ServiceId) -> bool {
        let life = self.machines[host].life.as_ref();
        let record = life.and_then(|life| life.node.catalog().service(service));
        record.is_some_and(|record| {
            let disk = record.spec.durable == Durability::Disk;
            let whole = |holder| !self.is_spoiled(holder, service);
            let mut holders = record.holders.iter().filter_map(|one| self.host_of(one.node));
            disk && holders.any(whole) || self.is_kept(host, service)
        })
    }
}
