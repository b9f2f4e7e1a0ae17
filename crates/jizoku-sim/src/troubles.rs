//! What goes wrong, and how it heals.

use std::collections::{BTreeMap, BTreeSet};

use jizoku_checkpoint::holder;
use jizoku_checkpoint::message::Line;
use jizoku_node::node;
use jizoku_types::event::LinkDownCause;
use jizoku_types::spec::{Durability, OutputMode};
use jizoku_types::{BranchId, CheckpointId, Epoch, Instant, Member, ServiceId, Span};

use crate::life::Life;
use crate::machine::Machine;
use crate::net::{HostId, Weather};
use crate::plan::Trouble;
use crate::world::{What, World};

/// A link whose end stands still for longer than this may be judged dead.
const STILL_MIN: Span = Span::millis(150);
const STILL_MAX: Span = Span::millis(900);
/// A machine that stood still for longer than this knows that it did.
const LATE_AFTER: Span = Span::millis(100);
/// After standing still a machine has heard everybody again after this.
const HEARD_AFTER: Span = Span::millis(600);

/// Whoever is to be overtaken stands still for no longer than this.
const OVERTAKEN_MAX: Span = Span::secs(8);
/// No two disks are replaced within this time.
const WIPE_EVERY: Span = Span::secs(90);

/// Trouble that ends.
#[derive(Clone, Debug)]
pub enum Healing {
    /// The agent of a machine starts.
    Start(HostId),
    /// Frames pass from the first to the second machine again.
    Link(HostId, HostId),
    /// The weather is clear again.
    Weather,
    /// The disk is fast again, and has room.
    Disk(HostId),
    /// The machine may be used again.
    Undrain(HostId),
    /// Instances can be made on the machine again.
    Able(HostId),
    /// The service shall run again.
    Run(usize),
}

/// Troubles that wait for their moment.
#[derive(Debug, Default)]
pub(crate) struct Plots {
    /// A machine that stands still goes on when others have been sealed for a service.
    overtaken: Option<(ServiceId, HostId)>,
    /// The next agent that begins to serve it is ended too.
    again: Option<(ServiceId, Span)>,
    /// The newest version of each holder set that was looked at.
    sets: BTreeMap<ServiceId, u64>,
}

impl World {
    pub(crate) fn trouble(&mut self, index: usize) {
        let trouble = self.plan.troubles[index].1.clone();
        self.oracle.counts.troubles += 1;
        self.say(|| format!("trouble: {trouble:?}"));
        match trouble {
            Trouble::KillAgent(host, down) => self.crash(host, LinkDownCause::Reset, down),
            Trouble::PowerLoss(host, down) => self.crash(host, LinkDownCause::Silence, down),
            Trouble::KillServer { service, with_holder, down } => {
                let Some(host) = self.server_of(service) else { return };
                let holder = with_holder.then(|| self.holder_of(host, service)).flatten();
                self.crash(host, LinkDownCause::Silence, down);
                if let Some(holder) = holder {
                    self.crash(holder, LinkDownCause::Silence, down);
                }
            }
            Trouble::KillLeader { with_server, down } => {
                let server = with_server.and_then(|service| self.server_of(service));
                for host in self.leader().into_iter().chain(server) {
                    self.crash(host, LinkDownCause::Silence, down);
                }
            }
            Trouble::KillAll(down) => {
                for host in 0..self.machines.len() {
                    let more = self.rng.span(Span::ZERO, Span::secs(2));
                    self.crash(host, LinkDownCause::Reset, down + more);
                }
            }
            Trouble::Pause(host, span) => self.pause(host, span),
            Trouble::Flap(service, down) => {
                let Some(host) = self.server_of(service) else { return };
                self.partition(&[host], down);
            }
            Trouble::Overtaken(service) => {
                let (Some(host), Some(id)) = (self.server_of(service), self.ids[service]) else {
                    return;
                };
                if self.machines[host].answers(self.now) {
                    self.plots.overtaken = Some((id, host));
                    self.pause(host, OVERTAKEN_MAX);
                }
            }
            Trouble::Again { service, down } => {
                let Some(host) = self.server_of(service) else { return };
                self.plots.again = self.ids[service].map(|id| (id, down));
                self.crash(host, LinkDownCause::Reset, down);
            }
            Trouble::Cut { a, b, one_way, down } => {
                self.cut(a, b, down);
                if !one_way {
                    self.cut(b, a, down);
                }
            }
            Trouble::Partition(some, down) => self.partition(&some, down),
            Trouble::Wipe(host, down) => self.wipe(host, down),
            Trouble::Rot(host, down) => self.rot(host, down),
            other => self.mild(other),
        }
    }

    fn mild(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Storm(down) => self.weather(Weather::FOUL, down),
            Trouble::Doubling(down) => self.weather(Weather::DOUBLING, down),
            Trouble::Apply(service, changed) => self.change_spec(service, changed),
            Trouble::SlowDisk(host, down) => {
                let slow = self.rng.span(Span::millis(5), Span::millis(1000));
                self.machines[host].disk.slow = slow;
                self.after(down, What::Heal(Healing::Disk(host)));
            }
            Trouble::FullDisk(host, down) => {
                self.machines[host].disk.full = true;
                self.tell_holder(host, holder::Input::NoRoom(true));
                self.after(down, What::Heal(Healing::Disk(host)));
            }
            Trouble::Unable(host, down) => {
                self.set_unable(host, true);
                self.after(down, What::Heal(Healing::Able(host)));
            }
            Trouble::Move(service, to) => self.order_move(service, to),
            Trouble::Drain(host, down) => {
                self.operator.draining.insert(host);
                self.after(down, What::Heal(Healing::Undrain(host)));
            }
            Trouble::Stop(service, down) => {
                self.operator.stopped.insert(service);
                self.after(down, What::Heal(Healing::Run(service)));
            }
            Trouble::Poison(service) => {
                let of = |client: &&mut crate::clients::Client| client.service == service;
                if let Some(client) = self.clients.iter_mut().find(of) {
                    client.poison = true;
                }
            }
            _ => unreachable!("taken before"),
        }
    }

    fn weather(&mut self, weather: Weather, down: Span) {
        for a in 0..self.machines.len() {
            for b in 0..self.machines.len() {
                self.net.set_weather(a, b, weather);
            }
        }
        self.after(down, What::Heal(Healing::Weather));
    }

    /// A machine crashes, and comes back with an empty disk; or with its own, if the cluster
    /// could lose its majority for ever: operators don't replace two disks at once.
    fn wipe(&mut self, host: HostId, down: Span) {
        let calm = self.operator.wiped_at.is_none_or(|at| self.now.since(at) > WIPE_EVERY);
        let whole = self.machines.iter().all(|machine| machine.life.is_some()) && self.is_settled();
        self.crash(host, LinkDownCause::Silence, down);
        if !calm || !whole || self.is_bridge(host) {
            return;
        }
        self.operator.wiped_at = Some(self.now);
        self.oracle.counts.disks += 1;
        let machine = &mut self.machines[host];
        self.hosts.remove(&machine.key);
        machine.wipe();
        self.hosts.insert(machine.key, host);
        let keys: Vec<_> = self.machines.iter().map(|machine| machine.key).collect();
        let others = keys.iter().copied().filter(|key| *key != keys[host]);
        self.machines[host].peers = others.collect();
        for (peer, machine) in self.machines.iter_mut().enumerate() {
            if peer != host {
                machine.peers.insert(keys[host]);
            }
        }
    }

    /// Whether some of the others have no way to each other but over this machine. Under a new key
    /// it couldn't bring them together: it needs a majority first that takes it in.
    fn is_bridge(&self, host: HostId) -> bool {
        let others = || (0..self.machines.len()).filter(|other| *other != host);
        let mut found: BTreeSet<HostId> = others().take(1).collect();
        loop {
            let linked = |a: &HostId| found.iter().any(|b| self.net.is_linkable(*a, *b));
            let next: Vec<HostId> = others().filter(|a| !found.contains(a) && linked(a)).collect();
            if next.is_empty() {
                return found.len() + 1 < self.machines.len();
            }
            found.extend(next);
        }
    }

    /// Whether all nodes agree that the members are the machines.
    fn is_settled(&self) -> bool {
        let mut keys: Vec<_> = self.machines.iter().map(|machine| machine.key).collect();
        keys.sort_unstable();
        self.machines.iter().filter_map(|machine| machine.life.as_ref()).all(|life| {
            life.node.catalog().members().keys().eq(keys.iter()) && life.node.leader().is_some()
        })
    }

    fn rot(&mut self, host: HostId, down: Span) {
        self.crash(host, LinkDownCause::Silence, down);
        if self.machines[host].life.is_none() {
            let rotten = self.machines[host].disk.rot(&mut self.rng);
            self.oracle.counts.disks += u64::from(rotten.is_some());
        }
    }

    /// Ends a machine's agent now, and lets it start again later. `cause`: how others notice.
    pub(crate) fn crash(&mut self, host: HostId, cause: LinkDownCause, down: Span) {
        if self.machines[host].life.is_none() {
            return;
        }
        self.oracle.counts.crashes += 1;
        self.say(|| format!("n{host} crashes"));
        self.oracle.crashed(host);
        self.machines[host].gone_since = self.now;
        let crashed = self.machines[host].crash();
        self.check(crashed);
        for peer in 0..self.machines.len() {
            if peer != host {
                self.break_now(host, peer, cause);
                let link = self.links.get_mut(host, peer);
                link.up[crate::links::end(host, peer)] = false;
                self.dial(host.min(peer), host.max(peer));
            }
        }
        let lost = |client: &crate::clients::Client| client.conn.is_some_and(|c| c.host == host);
        let lost: Vec<usize> =
            (0..self.clients.len()).filter(|index| lost(&self.clients[*index])).collect();
        for client in lost {
            if let (Some(conn), Some(id)) =
                (self.clients[client].conn, self.ids[self.clients[client].service])
            {
                self.by_conn.remove(&(id, conn.id));
            }
            self.lost_connection(client);
        }
        self.after(down, What::Heal(Healing::Start(host)));
    }

    fn pause(&mut self, host: HostId, span: Span) {
        let now = self.now;
        if !self.machines[host].answers(now) {
            return;
        }
        self.oracle.counts.pauses += 1;
        self.machines[host].paused_until = now + span;
        for peer in 0..self.machines.len() {
            let patience = self.rng.span(STILL_MIN, STILL_MAX);
            let link = self.links.get(host, peer);
            if peer != host && link.live && patience < span {
                let (session, cause) = (link.session, LinkDownCause::Silence);
                self.after(patience, What::Break { a: host, b: peer, session, cause });
            }
        }
        self.after(span, What::Resume { host, late: span > LATE_AFTER });
    }

    pub(crate) fn resume(&mut self, host: HostId, late: bool) {
        let until = self.machines[host].paused_until;
        // It may have gone on before, or stand still again.
        if until > self.now || (late && until != self.now) {
            return;
        }
        self.go_on(host);
        self.tell_node(host, node::Input::Late(late));
        if late {
            self.after(HEARD_AFTER, What::Resume { host, late: false });
        }
    }

    /// What came while a machine stood still happens now.
    pub(crate) fn go_on(&mut self, host: HostId) {
        for what in std::mem::take(&mut self.machines[host].waiting) {
            self.at(self.now, what);
        }
    }

    /// Holders refuse what is older: whoever stood still for that goes on, about now.
    pub(crate) fn sealed(&mut self, service: ServiceId, epoch: Epoch) {
        let Some((_, host)) = self.plots.overtaken.filter(|(of, _)| *of == service) else { return };
        let machine = &self.machines[host];
        let running = machine.life.as_ref().and_then(|life| life.runners.get(&service));
        let older = running.is_some_and(|one| epoch.supersedes(&one.runner.epoch()));
        if !older || machine.paused_until <= self.now {
            return;
        }
        self.plots.overtaken = None;
        let until = self.now + self.rng.span(Span::ZERO, Span::millis(30));
        self.machines[host].paused_until = until;
        self.at(until, What::Resume { host, late: true });
    }

    /// An agent began to serve: it may be the next to end.
    pub(crate) fn strike_again(&mut self, host: HostId, life: u64, service: ServiceId) {
        if let Some((_, down)) = self.plots.again.take_if(|(of, _)| *of == service) {
            let soon = self.rng.span(Span::ZERO, Span::millis(300));
            self.after(soon, What::Strike { host, life, down });
        }
    }

    pub(crate) fn strike(&mut self, host: HostId, life: u64, down: Span) {
        if self.machines[host].life.as_ref().is_some_and(|one| one.number == life) {
            self.crash(host, LinkDownCause::Silence, down);
        }
    }

    fn cut(&mut self, from: HostId, to: HostId, down: Span) {
        self.net.cut(from, to);
        self.break_now(from, to, LinkDownCause::Silence);
        self.after(down, What::Heal(Healing::Link(from, to)));
    }

    fn partition(&mut self, some: &[HostId], down: Span) {
        for a in 0..self.machines.len() {
            for b in 0..self.machines.len() {
                if some.contains(&a) != some.contains(&b) {
                    self.cut(a, b, down);
                }
            }
        }
    }

    pub(crate) fn heal(&mut self, healing: Healing) {
        self.say(|| format!("heals: {healing:?}"));
        match healing {
            Healing::Start(host) => self.start(host),
            Healing::Link(from, to) => self.net.heal(from, to),
            Healing::Weather => self.net.clear_weather(),
            Healing::Disk(host) => self.heal_disk(host),
            Healing::Undrain(host) => {
                self.operator.draining.remove(&host);
            }
            Healing::Able(host) => self.set_unable(host, false),
            Healing::Run(service) => {
                self.operator.stopped.remove(&service);
            }
        }
    }

    fn set_unable(&mut self, host: HostId, unable: bool) {
        let machine = &mut self.machines[host];
        machine.unable = unable;
        if let Some(life) = &mut machine.life {
            life.unable = unable;
        }
    }

    fn heal_disk(&mut self, host: HostId) {
        let disk = &mut self.machines[host].disk;
        disk.slow = Span::ZERO;
        if std::mem::replace(&mut disk.full, false) {
            self.tell_holder(host, holder::Input::NoRoom(false));
        }
    }

    fn tell_holder(&mut self, host: HostId, input: holder::Input) {
        let machine = &mut self.machines[host];
        let local = machine.clock.local(self.now);
        if let Some(life) = machine.life.as_mut().filter(|_| machine.paused_until <= self.now) {
            life.tell_holder(local, input);
        }
        self.settle(host);
    }

    /// Everything is well again, and every machine is up.
    pub(crate) fn heal_all(&mut self) {
        self.net.heal_all();
        self.operator.draining = BTreeSet::new();
        self.operator.stopped = BTreeSet::new();
        for host in 0..self.machines.len() {
            self.start(host);
            self.heal_disk(host);
            self.set_unable(host, false);
            if self.machines[host].paused_until > self.now {
                self.machines[host].paused_until = self.now;
                self.resume(host, true);
            }
        }
    }

    /// The machine that runs the newest epoch of a service.
    pub(crate) fn server_of(&self, service: usize) -> Option<HostId> {
        let id = self.ids[service]?;
        let epoch = |host: &HostId| {
            let runner = self.machines[*host].life.as_ref()?.runners.get(&id)?;
            Some(runner.runner.epoch().counter)
        };
        (0..self.machines.len()).filter(|host| epoch(host).is_some()).max_by_key(epoch)
    }

    fn holder_of(&self, server: HostId, service: usize) -> Option<HostId> {
        let record =
            self.machines[server].life.as_ref()?.node.catalog().service(self.ids[service]?)?;
        let others = record.holders.iter().filter_map(|member| self.host_of(member.node));
        others.into_iter().find(|host| *host != server)
    }

    fn leader(&self) -> Option<HostId> {
        self.machines.iter().position(|machine| {
            machine.life.as_ref().is_some_and(|life| life.node.leader() == Some(machine.key))
        })
    }

    /// Whether this agent still lives.
    pub(crate) fn lives(&self, member: Member) -> bool {
        let host = self.host_of(member.node);
        let life = host.and_then(|host| self.machines[host].life.as_ref());
        life.is_some_and(|life| life.me == member)
    }

    /// What is released must be held by every member of the set, and by enough others.
    pub(crate) fn kept_by_all(
        &self,
        host: HostId,
        service: ServiceId,
        epoch: Epoch,
        seq: u64,
    ) -> Result<(), String> {
        let Some(life) = &self.machines[host].life else { return Ok(()) };
        let Some(record) = life.node.catalog().service(service) else { return Ok(()) };
        let Some(running) = life.runners.get(&service) else { return Ok(()) };
        let line = Line { service, branch: epoch.branch };
        let main = epoch.branch == BranchId::MAIN;
        if (main && record.epoch != epoch) || self.oracle.is_tainted(service) {
            return Ok(());
        }
        // The set of a branch is its opener's own.
        let members = if main { &record.holders } else { &running.told.members };
        let id = self.oracle.id_of(service, epoch, seq);
        let captured = self.oracle.when_captured(service, epoch, seq);
        // What is asked may have changed since the epoch began; what was acknowledged from disk
        // before that counts.
        let (spec, begun) = (&record.spec, &running.assignment.spec);
        let disk = [spec.durable, begun.durable].contains(&Durability::Disk);
        for member in members {
            let Some(holder) = self.host_of(member.node) else { continue };
            let machine = &self.machines[holder];
            let there = machine.life.as_ref().filter(|life| life.me == *member);
            let lives = there.is_some();
            // Of an opener that stood still the others may have gone on from what it had, and
            // have forgotten it under its name.
            let there = there.filter(|life| !self.has_heir(life, epoch, service, id));
            if there.is_some_and(|life| life.holds_of(line) < id) {
                return Err(format!("3: {service} {epoch} releases {id}; n{holder} lacks it"));
            }
            let flushes = [spec.durable, begun.durable] == [Durability::Disk; 2];
            if there.is_some() && flushes && machine.disk.written(line).top < id {
                return Err(format!(
                    "3: {service} {epoch} releases {id}; n{holder} has it in memory only"
                ));
            }
            // Gone before it was captured: it can't have acknowledged it.
            let late = captured.is_some_and(|at| machine.gone_since < at);
            if !lives && late && !disk {
                return Err(format!(
                    "3: {service} {epoch} releases {id}; n{holder}, of its set, was gone before"
                ));
            }
        }
        let holds = |machine: &&Machine| {
            let holds = machine.life.as_ref().is_some_and(|life| {
                life.holds_of(line) >= id || self.has_heir(life, epoch, service, id)
            });
            let recently = self.now.since(machine.gone_since) < Span::secs(30);
            machine.host != host && (holds || machine.life.is_none() || recently)
        };
        let copies = self.machines.iter().filter(holds).count();
        if spec.output == OutputMode::Held && copies < usize::from(spec.min_copies) {
            return Err(format!("3: {service} {epoch} releases {id}, held by {copies} others"));
        }
        Ok(())
    }

    /// When a set changes, every member of the new one has what was released.
    pub(crate) fn set_is_whole(&mut self, host: HostId, service: ServiceId) -> Result<(), String> {
        let Some(life) = &self.machines[host].life else { return Ok(()) };
        let Some(record) = life.node.catalog().service(service) else { return Ok(()) };
        let newest = self.plots.sets.entry(service).or_default();
        let seen = *newest >= record.holders_version;
        *newest = (*newest).max(record.holders_version);
        // Where a branch became the main line, holders have it under the branch's name first.
        if seen || record.fork.is_some() || self.oracle.is_tainted(service) {
            return Ok(());
        }
        let released = self.oracle.last_released(service);
        for member in &record.holders {
            let Some(holder) = self.host_of(member.node) else { continue };
            let there = self.machines[holder].life.as_ref().filter(|life| life.me == *member);
            if let Some(holds) = there.map(|life| life.holds(service))
                && holds < released
            {
                return Err(format!(
                    "3: n{holder} is a holder of {service} now, and has {holds}, not {released}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a line is held here that goes on from this checkpoint of a branch.
    fn has_heir(&self, life: &Life, epoch: Epoch, service: ServiceId, id: CheckpointId) -> bool {
        let lines = self.oracle.lines(service).filter(|_| epoch.branch != BranchId::MAIN);
        lines.is_some_and(|lines| {
            let mut held = life.lines().filter(|line| line.service == service);
            held.any(|line| lines.is_heir(line.branch, epoch, id))
        })
    }

    /// With `durable = "disk"` somebody goes on only when a seal is on a disk: a holder that
    /// crashes must not take from the one before afterwards.
    pub(crate) fn seals_are_written(
        &self,
        host: HostId,
        service: ServiceId,
        epoch: Epoch,
    ) -> Result<(), String> {
        let Some(life) = &self.machines[host].life else { return Ok(()) };
        let Some(record) = life.node.catalog().service(service) else { return Ok(()) };
        let line = Line { service, branch: BranchId::MAIN };
        let flushes = record.spec.durable == Durability::Disk && record.fork.is_none();
        if epoch.branch != BranchId::MAIN || !flushes || self.oracle.is_tainted(service) {
            return Ok(());
        }
        let holders = record.holders.iter().filter_map(|member| self.host_of(member.node));
        let mut living = holders.filter(|holder| self.machines[*holder].life.is_some()).peekable();
        let written =
            |holder: HostId| self.machines[holder].disk.written(line).sealed >= epoch.counter;
        if living.peek().is_some() && !living.any(written) {
            return Err(format!("3: {service} {epoch} goes on, and no seal is on a disk"));
        }
        Ok(())
    }

    /// Whether what nobody has any more may be given up here: operators said so, there was
    /// nothing to be kept, or the whole cluster was restarted.
    pub(crate) fn may_lose(&self, host: HostId, service: ServiceId) -> bool {
        let running = self.machines[host].life.as_ref().and_then(|life| life.runners.get(&service));
        let Some(running) = running else { return true };
        let cold = self.is_cold(host, service);
        running.accepts_loss || running.assignment.holders.members.is_empty() || cold
    }

    /// Whether a service goes on here as after a restart of the whole cluster, and rightly so.
    fn is_cold(&self, host: HostId, service: ServiceId) -> bool {
        let running = self.machines[host].life.as_ref().and_then(|life| life.runners.get(&service));
        running.is_some_and(|running| running.assignment.cluster_restarted)
            && self.all_restarted(host, service)
    }

    /// Whether nobody that this machine can reach was there when something was last released. Who
    /// has known no leader since its start was alone all the time, and knows nothing.
    fn all_restarted(&self, host: HostId, service: ServiceId) -> bool {
        let since = self.oracle.released_at(service);
        let (mut near, mut next) = (BTreeSet::from([host]), vec![host]);
        while let Some(one) = next.pop() {
            let linked = |peer: &HostId| *peer != one && self.links.get(one, *peer).live;
            for peer in (0..self.machines.len()).filter(linked) {
                if near.insert(peer) {
                    next.push(peer);
                }
            }
        }
        near.into_iter().all(|host| self.machines[host].led.is_none_or(|at| at >= since))
    }

    /// Whether a member of the last holder set that this machine knows of lives, and may be
    /// reached. With `durable = "memory"`, who is away when all others were restarted is taken for
    /// dead after `restart_wait`.
    pub(crate) fn is_kept(&self, host: HostId, service: ServiceId) -> bool {
        let Some(life) = &self.machines[host].life else { return false };
        let Some(record) = life.node.catalog().service(service) else { return false };
        let disk = record.spec.durable == Durability::Disk;
        if !disk && self.is_cold(host, service) {
            return false;
        }
        record.holders.iter().any(|member| {
            let Some(holder) = self.host_of(member.node) else { return false };
            let alive = self.machines[holder].life.as_ref();
            let flushed = disk && !self.is_spoiled(holder, service);
            alive.is_some_and(|life| flushed || life.me == *member)
        })
    }

    /// Whether what this machine had written of a service was damaged, and not made good since.
    pub(crate) fn is_spoiled(&self, host: HostId, service: ServiceId) -> bool {
        let machine = &self.machines[host];
        let holds = machine.life.as_ref().map(|life| life.holds(service));
        machine.disk.spoiled.contains(&service)
            && holds.is_none_or(|holds| holds < self.oracle.last_released(service))
    }

    /// Whether nobody but this machine is in the holder set, as far as it knows.
    pub(crate) fn is_alone(&self, host: HostId, service: ServiceId) -> bool {
        let Some(life) = &self.machines[host].life else { return true };
        let record = life.node.catalog().service(service);
        record.is_none_or(|record| record.holders.iter().all(|member| *member == life.me))
    }

    /// The moment from which a machine answers.
    pub(crate) fn answers_from(&self, host: HostId) -> Option<Instant> {
        let machine = &self.machines[host];
        machine.life.as_ref().map(|_| machine.paused_until)
    }
}
