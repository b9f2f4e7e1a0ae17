//! The checkers: they see everything at once, which no node can, and say what must not be.
//!
//! Each has a number, which its complaint begins with:
//! 1. at most one instance for each service and epoch;
//! 2. `free`: once an epoch has emitted, no lower one does;
//! 3. nobody goes on from less than what was released, while a holder that has it lives; and
//!    nothing is released that a member of the holder set lacks, or too few others have;
//! 4. histories of `held` services are linearizable, and nothing acknowledged is lost;
//! 5. answers come on their connection in order, none lost, doubled or changed;
//! 6. a connection through a gateway that lives is not reset, but for a reason that is allowed;
//! 7. when all is healed every service answers again within a bound, and each question on a
//!    connection that lives is answered;
//! 8. all nodes apply the same commands, and end with the same catalog;
//! 9. queues stay bounded;
//! 10. branches: see [`crate::lines`] and [`crate::branches`];
//! 0. codecs, disks, panics: what is wrong in itself.
//!
//! Invariant: state may be lost only when no member of the last holder set lives. Then the service
//! is *tainted*: what clients saw of it is not compared any more, and it is counted.

use std::collections::{BTreeMap, BTreeSet};

use jizoku_types::{
    BranchId, CheckpointId, Epoch, Event, GatewayId, Instant, NodeId, ServiceId, Span,
};

use crate::lines::{Assigned, Bound, Lines, Started};
use crate::net::HostId;

/// How often things happened in a run: an idle run is seen by these.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Events of the simulator.
    pub events: u64,
    /// Frames that were sent.
    pub frames: u64,
    /// What was done to the cluster, by the plan.
    pub troubles: u64,
    /// Machines that came back with an empty disk, and states that were damaged on a disk.
    pub disks: u64,
    /// Agents that were killed, and machines that lost power.
    pub crashes: u64,
    /// Machines that stood still.
    pub pauses: u64,
    /// Links that broke.
    pub breaks: u64,
    /// New epochs that restored or started an instance.
    pub takeovers: u64,
    /// Holders that were sealed for an epoch.
    pub seals: u64,
    /// Changes of holder sets, as seen by all nodes together.
    pub sets: u64,
    /// Checkpoints that were committed.
    pub commits: u64,
    /// Branches that were opened.
    pub branches: u64,
    /// Orders of operators.
    pub orders: u64,
    /// Connections that were reset by the system.
    pub resets: u64,
    /// Operations that were answered.
    pub answers: u64,
    /// Operations that never were.
    pub open: u64,
    /// Services whose state was lost, as it may be.
    pub tainted: u64,
}

#[derive(Debug, Default)]
struct Watched {
    lines: Lines,
    emitted: u64,
    tainted: bool,
    /// When something of the main line was last released.
    released_at: Instant,
    /// The newest instance resets connections that may be poisonous.
    quarantine: bool,
    /// Until when one did so last.
    quarantined: Option<Instant>,
}

/// By any clock less than the time after which nodes give a gateway up.
const GIVEN_UP_AFTER: Span = Span::secs(28);

/// See the module's header.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What happened so far.
    pub counts: Counts,
    services: BTreeMap<ServiceId, Watched>,
    log: BTreeMap<u64, Vec<u8>>,
    gone: BTreeSet<GatewayId>,
    /// Whom a machine can't reach, since when.
    unreachable: BTreeMap<(HostId, NodeId), Instant>,
}

impl Oracle {
    /// Whether clients' views of the service say nothing any more.
    pub fn is_tainted(&self, service: ServiceId) -> bool {
        self.services.get(&service).is_some_and(|watched| watched.tainted)
    }

    /// The service's state may have been lost, as it is allowed.
    pub fn taint(&mut self, service: ServiceId) {
        let watched = self.services.entry(service).or_default();
        if !std::mem::replace(&mut watched.tainted, true) {
            self.counts.tainted += 1;
        }
    }

    /// A node gave this gateway up. `lives`: it is still the same agent.
    ///
    /// # Errors
    /// What must not be.
    pub fn gateway_gone(
        &mut self,
        at: Instant,
        host: HostId,
        gateway: GatewayId,
        lives: bool,
    ) -> Result<(), String> {
        self.gone.insert(gateway);
        let since = self.unreachable.get(&(host, gateway.node));
        if lives && since.is_none_or(|since| at.since(*since) < GIVEN_UP_AFTER) {
            return Err(format!("6: host {host} gave a gateway up that lives: {gateway:?}"));
        }
        Ok(())
    }

    /// A machine's agent ended: it sees nobody any more.
    pub fn crashed(&mut self, host: HostId) {
        self.unreachable.retain(|(observer, _), _| *observer != host);
    }

    /// The lines of a service, if it has any.
    pub fn lines(&self, service: ServiceId) -> Option<&Lines> {
        self.services.get(&service).map(|watched| &watched.lines)
    }

    /// The highest checkpoint of the main line that was released.
    pub fn last_released(&self, service: ServiceId) -> CheckpointId {
        self.lines(service).map_or(CheckpointId::default(), |lines| lines.released(BranchId::MAIN))
    }

    /// A state was captured.
    pub fn captured(&mut self, at: Instant, service: ServiceId, epoch: Epoch, seq: u64) {
        self.services.entry(service).or_default().lines.captured(at, epoch, seq);
    }

    /// When this was captured, if it was the last of its epoch.
    pub fn when_captured(&self, service: ServiceId, epoch: Epoch, seq: u64) -> Option<Instant> {
        self.lines(service)?.when_captured(epoch, seq)
    }

    /// What an instance of this epoch goes on from is in checkpoint `seq`.
    pub fn id_of(&self, service: ServiceId, epoch: Epoch, seq: u64) -> CheckpointId {
        self.lines(service).map_or(CheckpointId::default(), |lines| lines.id_of(epoch, seq))
    }

    /// Whether the service ever had a branch: then connections may have been in another line.
    pub fn has_branched(&self, service: ServiceId) -> bool {
        self.lines(service).is_some_and(Lines::has_branched)
    }

    /// When something of the main line was last released.
    pub fn released_at(&self, service: ServiceId) -> Instant {
        self.services.get(&service).map_or(Instant::ORIGIN, |watched| watched.released_at)
    }

    /// Whether some node gave this gateway up.
    pub fn is_gone(&self, gateway: GatewayId) -> bool {
        self.gone.contains(&gateway)
    }

    /// Something happened on a machine.
    pub fn saw(&mut self, at: Instant, host: HostId, event: &Event) {
        match event {
            Event::NodeUnreachable { node } => {
                self.unreachable.insert((host, *node), at);
            }
            Event::NodeReachable { node } => {
                self.unreachable.remove(&(host, *node));
            }
            Event::Sealed { .. } => self.counts.seals += 1,
            Event::HoldersChanged { .. } => self.counts.sets += 1,
            Event::StateCollected { service, epoch, checkpoint, .. } => {
                let watched = self.services.entry(*service).or_default();
                watched.lines.collected(*epoch, *checkpoint);
            }
            Event::BranchOpened { .. } => self.counts.branches += 1,
            _ => {}
        }
    }

    /// A node shall run an epoch.
    pub fn assigned(&mut self, service: ServiceId, epoch: Epoch, assigned: Assigned) {
        self.services.entry(service).or_default().lines.assigned(epoch, assigned);
    }

    /// An instance was made. `quarantine`: it resets connections that may be poisonous.
    pub fn quarantine(&mut self, at: Instant, service: ServiceId, quarantine: bool) {
        let watched = self.services.entry(service).or_default();
        if quarantine || watched.quarantine {
            watched.quarantined = Some(at);
        }
        watched.quarantine = quarantine;
    }

    /// Whether a connection that was opened then may have been reset as poisonous.
    pub fn was_quarantined(&self, service: ServiceId, opened: Instant) -> bool {
        let watched = self.services.get(&service);
        watched.is_some_and(|watched| watched.quarantined >= Some(opened))
    }

    /// An instance was made. `kept`: a member of the last holder set lives.
    ///
    /// # Errors
    /// What must not be.
    pub fn started(
        &mut self,
        at: Instant,
        service: ServiceId,
        epoch: Epoch,
        started: Started,
        kept: bool,
    ) -> Result<(), String> {
        self.counts.takeovers += 1;
        let watched = self.services.entry(service).or_default();
        let lines = &mut watched.lines;
        let (from, bound) = lines.started(at, epoch, started).map_err(|(one, other)| {
            format!("1: {service} {epoch} has two instances: host and life {one:?} and {other:?}")
        })?;
        if from < bound.id && kept && !watched.tainted {
            let Bound { id, rule } = bound;
            return Err(format!("{rule}: {service} {epoch} goes on from {from}, but {id} counts"));
        }
        if from < bound.id {
            lines.lower(epoch.branch, from);
            self.taint(service);
        }
        Ok(())
    }

    /// An instance was told that this is committed. `alone`: nobody else held it. `version`: of
    /// the holder set, as the Runner knew it.
    ///
    /// # Errors
    /// What must not be.
    pub fn released(
        &mut self,
        at: Instant,
        service: ServiceId,
        (epoch, seq): (Epoch, u64),
        alone: bool,
        version: u64,
    ) -> Result<(), String> {
        let watched = self.services.entry(service).or_default();
        let id = watched.lines.id_of(epoch, seq);
        if let Some((by, from)) = watched.lines.left_behind(epoch, id) {
            if !alone && !watched.tainted {
                return Err(format!(
                    "3: {service} {epoch} released {id}, but {by} had gone on from {from}"
                ));
            }
            self.taint(service);
            return Ok(());
        }
        watched.lines.release(epoch, id, version);
        if epoch.branch == BranchId::MAIN {
            watched.released_at = at;
        }
        Ok(())
    }

    /// Something of a `free` service went out.
    ///
    /// # Errors
    /// What must not be.
    pub fn emitted(&mut self, service: ServiceId, epoch: Epoch) -> Result<(), String> {
        let watched = self.services.entry(service).or_default();
        // In a branch nobody but its opener ever emits: rule 1 says so.
        if epoch.branch != BranchId::MAIN {
            return Ok(());
        }
        if epoch.counter < watched.emitted {
            let newer = watched.emitted;
            return Err(format!("2: {service} {epoch} emits after e{newer} has"));
        }
        watched.emitted = epoch.counter;
        Ok(())
    }

    /// A node applied a command.
    ///
    /// # Errors
    /// What must not be.
    pub fn applied(&mut self, host: HostId, index: u64, command: Vec<u8>) -> Result<(), String> {
        match self.log.get(&index) {
            Some(known) if *known != command => {
                Err(format!("8: host {host} applies another command than others at {index}"))
            }
            Some(_) => Ok(()),
            None => {
                self.log.insert(index, command);
                Ok(())
            }
        }
    }
}
