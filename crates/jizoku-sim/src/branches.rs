//! What must hold of branches (checker 10), beside what [`crate::lines`] says.
//!
//! - A service with `partition = "stop"` never has one.
//! - What clients saw on the way to each epoch, branches left out that it doesn't come from, is
//!   linearizable, with the state that each epoch on the way began with.
//! - When all is healed, one line is left: no node runs a branch, and no holder keeps the state of
//!   one that the catalog doesn't list, and that the main line doesn't just begin from. Left out:
//!   branches whose opener died before it could list or end them (docs/internals/protocols.md,
//!   "Known limits").

use jizoku_types::spec::PartitionPolicy;
use jizoku_types::{BranchId, Epoch, ServiceId};

use crate::history::History;
use crate::lines::{Assigned, Lines};
use crate::net::HostId;
use crate::world::World;

/// The first contradiction in what was seen of any line.
///
/// # Errors
/// It.
pub fn check_lines(history: &History, lines: &Lines) -> Result<(), String> {
    lines.epochs().try_for_each(|epoch| {
        let seen = history.of_line(lines, epoch).check();
        seen.map_err(|wrong| format!("on the way to {epoch}: {wrong}"))
    })
}

impl World {
    /// A node shall run an epoch.
    pub(crate) fn assigned(
        &mut self,
        place: (HostId, u64),
        service: ServiceId,
        epoch: Epoch,
        fork: Option<BranchId>,
    ) {
        let index = self.ids.iter().position(|id| *id == Some(service));
        let stops = |index: usize| self.plan.services[index].partition == PartitionPolicy::Stop;
        if index.is_some_and(stops) && (epoch.branch != BranchId::MAIN || fork.is_some()) {
            self.complain(format!("10: {service} {epoch} may have no branch"));
        }
        let life = self.machines[place.0].life.as_ref();
        let record = life.and_then(|life| life.node.catalog().service(service));
        let version = record.map_or(0, |record| record.holders_version);
        // What a planted bug hides from the Runner is known here.
        let fork = match epoch.branch {
            BranchId::MAIN => record.and_then(|record| record.fork),
            _ => Some(fork.unwrap_or(BranchId::MAIN)),
        };
        self.oracle.assigned(service, epoch, Assigned { place, fork, version });
    }

    /// What is left of a branch that ought to have ended, if anything is.
    pub(crate) fn branch_left(&self) -> Option<String> {
        self.machines.iter().find_map(|machine| {
            let life = machine.life.as_ref()?;
            let host = machine.host;
            let runs = |(_, one): &(&ServiceId, &crate::life::Running)| {
                one.runner.epoch().branch != BranchId::MAIN
            };
            if let Some((service, one)) = life.runners.iter().find(runs) {
                return Some(format!("n{host} still runs {service} {}", one.runner.epoch()));
            }
            let left = life.lines().find(|line| {
                let listed = life.node.catalog().branches(line.service);
                let listed = listed.is_some_and(|listed| listed.contains_key(&line.branch));
                let record = life.node.catalog().service(line.service);
                // The main line goes on from it, and has committed nothing since.
                let begun = record.is_some_and(|record| record.fork == Some(line.branch));
                line.branch != BranchId::MAIN
                    && !listed
                    && !begun
                    && self.opener_lives(line.service, line.branch)
            });
            left.map(|line| format!("n{host} still holds {line}"))
        })
    }

    /// An instance of an epoch that the catalog has left behind.
    pub(crate) fn stale_instance(&self) -> Option<String> {
        self.machines.iter().find_map(|machine| {
            let life = machine.life.as_ref()?;
            life.runners.iter().find_map(|(service, one)| {
                let record = life.node.catalog().service(*service)?;
                let epoch = one.runner.epoch();
                let host = machine.host;
                let stale = record.epoch.supersedes(&epoch);
                stale.then(|| format!("n{host} still runs {service} {epoch}"))
            })
        })
    }

    fn opener_lives(&self, service: ServiceId, branch: BranchId) -> bool {
        let opener = self.oracle.lines(service).and_then(|lines| lines.opener(branch));
        opener.is_some_and(|(host, number)| {
            self.machines[host].life.as_ref().is_some_and(|life| life.number == number)
        })
    }
}
