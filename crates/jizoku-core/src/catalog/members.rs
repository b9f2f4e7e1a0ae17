//! Commands about the cluster itself: members, tickets, recovery, feature level.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::NODES_MAX;
use jizoku_types::{BranchId, ClusterId, Epoch, Generation, Member, NodeId, ServiceId, Span};

use super::outcome::{Change, Conflict, Rejection};
use super::record::{
    ADDRESS_MAX, ADDRESSES_MAX, LABEL_MAX, LABELS_MAX, MemberRecord, MemberSpec, NAME_MAX, Ticket,
    TicketHash,
};
use super::{Catalog, RECOVERY_JUMP, REMOVED_MAX, Refusal, TICKETS_MAX};

type Result = core::result::Result<Vec<Change>, Refusal>;

impl Catalog {
    pub(super) fn init(
        &mut self,
        cluster: ClusterId,
        generation: Generation,
        first: &MemberSpec,
    ) -> Result {
        if let Some(cluster) = self.cluster {
            return Err(Conflict::AlreadyInitialised { cluster }.into());
        }
        check_member(first)?;
        self.cluster = Some(cluster);
        self.generation = generation;
        self.members.insert(first.node, record_of(first, first.name.clone(), false));
        let node = first.node;
        Ok(vec![Change::Initialised { cluster, generation }, Change::MemberAdded { node }])
    }

    pub(super) fn add_member(&mut self, spec: &MemberSpec) -> Result {
        self.may_join(spec)?;
        let name = self.free_name(spec);
        self.members.insert(spec.node, record_of(spec, name, false));
        Ok(vec![Change::MemberAdded { node: spec.node }])
    }

    /// Whether `spec` may become a member. Changes nothing.
    fn may_join(&self, spec: &MemberSpec) -> core::result::Result<(), Refusal> {
        check_member(spec)?;
        if self.removed.contains_key(&spec.node) {
            return Err(Rejection::KeyRemoved.into());
        }
        if self.members.contains_key(&spec.node) {
            return Err(Rejection::AlreadyMember.into());
        }
        if self.members.len() >= NODES_MAX {
            return Err(Rejection::NodesFull.into());
        }
        self.understands(spec)
    }

    fn understands(&self, spec: &MemberSpec) -> core::result::Result<(), Refusal> {
        if spec.features < self.feature_level {
            let (current, node) = (self.feature_level, Some(spec.node));
            return Err(Rejection::FeatureLevel { current, node }.into());
        }
        Ok(())
    }

    pub(super) fn update_member(&mut self, spec: &MemberSpec) -> Result {
        check_member(spec)?;
        let node = spec.node;
        let Some(old) = self.members.get(&node) else {
            return Err(Rejection::NoSuchMember { node }.into());
        };
        if spec.incarnation < old.incarnation {
            return Err(Conflict::Incarnation { node, current: old.incarnation }.into());
        }
        self.understands(spec)?;
        let restarted = spec.incarnation > old.incarnation;
        let new = record_of(spec, self.free_name(spec), old.draining);
        if *old == new {
            return Ok(Vec::new());
        }
        self.members.insert(node, new);
        Ok(vec![Change::MemberUpdated { node, restarted }])
    }

    pub(super) fn remove_member(&mut self, node: NodeId, accept_loss: bool) -> Result {
        self.may_go(node)?;
        let only = |set: &BTreeSet<Member>| !set.is_empty() && set.iter().all(|m| m.node == node);
        let last: Vec<ServiceId> = self
            .services
            .iter()
            .filter(|(_, record)| record.born && only(&record.holders))
            .map(|(id, _)| *id)
            .collect();
        if !last.is_empty() && !accept_loss {
            return Err(Rejection::LastHolder { services: last }.into());
        }
        let mut changes = Vec::new();
        let ids: Vec<ServiceId> = self.services.keys().copied().collect();
        for service in ids {
            self.take_from_service(service, node, &mut changes);
        }
        self.members.remove(&node);
        self.remember_removed(node);
        changes.push(Change::MemberRemoved { node, refused: true });
        Ok(changes)
    }

    /// Takes a node that goes out of everything that a service lists.
    fn take_from_service(&mut self, service: ServiceId, node: NodeId, changes: &mut Vec<Change>) {
        let Some(record) = self.services.get_mut(&service) else { return };
        if let Some(active) = record.active.filter(|active| active.node == node) {
            record.epoch = next(record.epoch);
            record.active = None;
            let epoch = record.epoch;
            changes.push(Change::ActiveChanged { service, epoch, from: Some(active), to: None });
        }
        let before = record.holders.len() + record.joining.len();
        record.holders.retain(|holder| holder.node != node);
        record.joining.retain(|joining| joining.node != node);
        if record.holders.len() + record.joining.len() < before {
            record.holders_version = record.holders_version.saturating_add(1);
            // Reached only with `accept_loss`: nobody has the state any more.
            if record.born && record.holders.is_empty() && !record.loss_accepted {
                record.loss_accepted = true;
                changes.push(Change::LossAccepted { service, epoch: record.epoch });
            }
            changes.push(Change::HoldersChanged { service, version: record.holders_version });
        }
        let mut gone: Vec<BranchId> = Vec::new();
        for (branch, kept) in &mut record.branches {
            if kept.holders.remove(&node) && kept.holders.is_empty() {
                gone.push(*branch);
            }
        }
        for branch in gone {
            record.branches.remove(&branch);
            changes.push(Change::BranchDropped { service, branch });
        }
    }

    pub(super) fn leave(&mut self, node: NodeId) -> Result {
        self.may_go(node)?;
        let branch_of = |(_, record): &(&ServiceId, &super::ServiceRecord)| {
            record.branches.values().any(|kept| kept.holders.contains(&node))
        };
        let needed = self
            .active_on(node)
            .chain(self.held_on(node))
            .map(|(id, _)| id)
            .next()
            .or_else(|| self.services.iter().find(branch_of).map(|(id, _)| *id));
        if let Some(service) = needed {
            return Err(Rejection::StillNeeded { service }.into());
        }
        self.members.remove(&node);
        Ok(vec![Change::MemberRemoved { node, refused: false }])
    }

    fn may_go(&self, node: NodeId) -> core::result::Result<(), Refusal> {
        if !self.members.contains_key(&node) {
            return Err(Rejection::NoSuchMember { node }.into());
        }
        if self.members.len() == 1 {
            return Err(Rejection::LastMember.into());
        }
        Ok(())
    }

    fn remember_removed(&mut self, node: NodeId) {
        if self.removed.len() >= REMOVED_MAX {
            let oldest = self.removed.iter().min_by_key(|(_, number)| **number);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.removed.remove(&oldest);
            }
        }
        self.removals = self.removals.saturating_add(1);
        self.removed.insert(node, self.removals);
    }

    pub(super) fn set_draining(&mut self, node: NodeId, draining: bool) -> Result {
        let Some(record) = self.members.get_mut(&node) else {
            return Err(Rejection::NoSuchMember { node }.into());
        };
        if record.draining == draining {
            return Ok(Vec::new());
        }
        record.draining = draining;
        Ok(vec![Change::DrainingChanged { node, draining }])
    }

    pub(super) fn issue_ticket(&mut self, ticket: TicketHash, ttl: Span) -> Result {
        if self.tickets.contains_key(&ticket) {
            return Err(Conflict::TicketExists.into());
        }
        if self.tickets.len() >= TICKETS_MAX {
            return Err(Rejection::TicketsFull.into());
        }
        self.tickets.insert(ticket, Ticket { ttl, used_by: None });
        Ok(vec![Change::TicketIssued { ticket, ttl }])
    }

    pub(super) fn use_ticket(&mut self, ticket: TicketHash, spec: &MemberSpec) -> Result {
        let node = spec.node;
        match self.tickets.get(&ticket) {
            None => Err(Rejection::NoSuchTicket.into()),
            // The answer to the first time was lost.
            Some(Ticket { used_by: Some(by), .. })
                if *by == node && self.members.contains_key(&node) =>
            {
                Ok(Vec::new())
            }
            Some(Ticket { used_by: Some(_), .. }) => Err(Conflict::TicketUsed.into()),
            Some(Ticket { used_by: None, ttl }) => {
                let ttl = *ttl;
                let mut changes = self.add_member(spec)?;
                self.tickets.insert(ticket, Ticket { ttl, used_by: Some(node) });
                changes.push(Change::TicketUsed { ticket, node });
                Ok(changes)
            }
        }
    }

    pub(super) fn expire_ticket(&mut self, ticket: TicketHash) -> Result {
        match self.tickets.remove(&ticket) {
            Some(_) => Ok(vec![Change::TicketExpired { ticket }]),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn recover(&mut self, generation: Generation, survivor: NodeId) -> Result {
        if !self.members.contains_key(&survivor) {
            return Err(Rejection::NoSuchMember { node: survivor }.into());
        }
        if generation <= self.generation {
            return Err(Conflict::Generation { current: self.generation }.into());
        }
        self.generation = generation;
        self.last_service = self.last_service.saturating_add(RECOVERY_JUMP);
        self.removals = self.removals.saturating_add(RECOVERY_JUMP);
        let mut changes = vec![Change::Recovered { generation, survivor }];
        for (service, record) in &mut self.services {
            record.version = record.version.saturating_add(RECOVERY_JUMP);
            record.holders_version = record.holders_version.saturating_add(RECOVERY_JUMP);
            let counter = record.epoch.counter.saturating_add(RECOVERY_JUMP);
            record.epoch = Epoch { branch: record.epoch.branch, counter };
            let from = record.active;
            // An instance on the survivor may be all that is left of the state: it stays, under
            // the new epoch. Others may have been replaced by commands that are lost.
            record.active = from.filter(|active| active.node == survivor);
            let (service, epoch, to) = (*service, record.epoch, record.active);
            changes.push(Change::ActiveChanged { service, epoch, from, to });
            let version = record.holders_version;
            changes.push(Change::HoldersChanged { service, version });
        }
        Ok(changes)
    }

    pub(super) fn set_feature_level(&mut self, level: u16) -> Result {
        let current = self.feature_level;
        if level == current {
            return Ok(Vec::new());
        }
        if level < current {
            return Err(Rejection::FeatureLevel { current, node: None }.into());
        }
        if let Some((node, _)) = self.members.iter().find(|(_, member)| member.features < level) {
            return Err(Rejection::FeatureLevel { current, node: Some(*node) }.into());
        }
        self.feature_level = level;
        Ok(vec![Change::FeatureLevelChanged { level }])
    }

    /// The name that was asked for, with a number behind it if another member has it.
    fn free_name(&self, spec: &MemberSpec) -> String {
        let taken: BTreeSet<&str> = self
            .members
            .iter()
            .filter(|(node, _)| **node != spec.node)
            .map(|(_, record)| record.name.as_str())
            .collect();
        let mut name = spec.name.clone();
        let mut number = 1;
        while taken.contains(name.as_str()) {
            number += 1;
            let suffix = format!("-{number}");
            name.clone_from(&spec.name);
            while name.len() + suffix.len() > NAME_MAX {
                name.pop();
            }
            name.push_str(&suffix);
        }
        name
    }
}

/// The epoch after `epoch`. Saturates: a damaged counter must not stop the agent.
pub(super) fn next(epoch: Epoch) -> Epoch {
    Epoch { branch: epoch.branch, counter: epoch.counter.saturating_add(1) }
}

fn record_of(spec: &MemberSpec, name: String, draining: bool) -> MemberRecord {
    MemberRecord {
        name,
        addresses: spec.addresses.clone(),
        labels: spec.labels.clone(),
        witness: spec.witness,
        draining,
        incarnation: spec.incarnation,
        features: spec.features,
    }
}

fn check_member(spec: &MemberSpec) -> core::result::Result<(), Refusal> {
    let wrong = |field: &str, problem: String| {
        Err(Rejection::BadMember { field: field.into(), problem }.into())
    };
    let clean = |text: &str| !text.chars().any(char::is_control);
    if spec.name.is_empty() || spec.name.len() > NAME_MAX || !clean(&spec.name) {
        return wrong("name", format!("1 to {NAME_MAX} bytes, without control characters"));
    }
    let fits =
        |address: &String| !address.is_empty() && address.len() <= ADDRESS_MAX && clean(address);
    if spec.addresses.len() > ADDRESSES_MAX || !spec.addresses.iter().all(fits) {
        let problem = format!("at most {ADDRESSES_MAX}, each 1 to {ADDRESS_MAX} bytes");
        return wrong("addresses", problem);
    }
    let fits = |(key, value): (&String, &String)| {
        let short = key.len() <= LABEL_MAX && value.len() <= LABEL_MAX;
        !key.is_empty() && short && clean(key) && clean(value)
    };
    if spec.labels.len() > LABELS_MAX || !spec.labels.iter().all(fits) {
        let problem = format!("at most {LABELS_MAX}, keys and values up to {LABEL_MAX} bytes");
        return wrong("labels", problem);
    }
    Ok(())
}
