//! Who goes on: which services are vacant, and this node's place among the candidates.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_core::catalog::{Command, ServiceRecord, Wanted};
use jizoku_core::succession::{self, Candidate, Vacancy};
use jizoku_types::spec::PartitionPolicy;
use jizoku_types::{ByteCount, Epoch, Event, Member, NodeId, ServiceId, Span};

use super::Node;
use super::requests::Purpose;
use crate::fault::Fault;

impl Node {
    /// Tells the attempts which services are vacant.
    pub(super) fn takeover_duties(&mut self) {
        let me = self.me();
        let services: Vec<ServiceId> = self.catalog.services().keys().copied().collect();
        for service in services {
            let Some(record) = self.catalog.service(service) else { continue };
            let expect = record.epoch;
            let able = self.leader.is_some() && self.may_judge() && self.reaches_majority();
            let place = if able && self.is_vacant(service, record) {
                self.ranked(service).iter().position(|member| *member == me)
            } else {
                None
            };
            let input = match place {
                Some(place) => succession::Input::Vacant { service, expect, place },
                None => succession::Input::Settled { service },
            };
            self.attempts.handle(self.now, input);
        }
    }

    /// Whether enough voters are in reach to decide something now. A takeover that is asked for
    /// without them may take place when a cut is healed, after branches have gone on.
    pub(super) fn reaches_majority(&self) -> bool {
        let me = self.me().node;
        let here = |node: &&NodeId| **node == me || self.reach.reaches(**node);
        self.voters.iter().filter(here).count() * 2 > self.voters.len()
    }

    /// Nobody serves although somebody should. A living active node cares for itself, and so do
    /// branches that live: they decide first which of them goes on.
    fn is_vacant(&self, service: ServiceId, record: &ServiceRecord) -> bool {
        let meeting = record.spec.partition == PartitionPolicy::Continue
            && record.born
            && self.branches.is_meeting(self.now);
        record.wanted == Wanted::Running
            && !meeting
            && !self.is_main_served(service, record)
            && self.followed(service, record).is_none()
    }

    /// Whether the active node that the catalog has is there, in that incarnation, and has not
    /// left the main line for a branch.
    pub(super) fn is_main_served(&self, service: ServiceId, record: &ServiceRecord) -> bool {
        record.active.is_some_and(|active| {
            let there = self.catalog.is_current(&active) || self.planted.has(Fault::RestartUnseen);
            let left = self.has_left(service, active, record.epoch);
            there && self.reach.reaches(active.node) && !left
        })
    }

    pub(super) fn attempt(&mut self, service: ServiceId, expect: Epoch) {
        if self.is_under_way(&Purpose::TakeOver(service)) {
            return;
        }
        self.event(Event::TakeoverProposed { service, from: expect });
        let command = Command::TakeOver { service, expect, to: Some(self.me()) };
        self.propose(Purpose::TakeOver(service), &command);
    }

    /// Candidates for a service, best first.
    pub(super) fn ranked(&self, service: ServiceId) -> Vec<Member> {
        let Some(record) = self.catalog.service(service) else { return Vec::new() };
        self.ranked_by(service, record, &record.holders)
    }

    /// Candidates for what `holders` hold of a service, best first.
    pub(super) fn ranked_by(
        &self,
        service: ServiceId,
        record: &ServiceRecord,
        holders: &BTreeSet<Member>,
    ) -> Vec<Member> {
        let mut failed = BTreeSet::new();
        let crashed = self.crashes.get(&service);
        if crashed.is_some_and(|crashes| crashes.not_here_until > self.now) {
            failed.insert(self.me().node);
        }
        let vacancy = Vacancy {
            service,
            spec: &record.spec,
            epoch: record.epoch,
            needs: ByteCount(0),
            failed: &failed,
        };
        succession::rank(&vacancy, &self.candidates(service, record, holders))
    }

    fn candidates(
        &self,
        service: ServiceId,
        record: &ServiceRecord,
        holders: &BTreeSet<Member>,
    ) -> Vec<Candidate> {
        let newest = self.facts.newest(record);
        let candidate = |member: Member| {
            let known = self.catalog.member(&member.node)?;
            let facts = self.facts.of(member.node, self.me().node, self.now);
            let current = holders.contains(&member);
            let prepared = self.is_prepared(member.node, service, record);
            Some(Candidate {
                member,
                labels: known.labels.clone(),
                reachable: self.reach.reaches(member.node),
                witness: known.witness,
                draining: known.draining,
                ready: current.then_some(newest),
                current,
                prepared,
                uptime: facts.as_ref().map_or(Span::ZERO, |facts| Span::secs(facts.uptime_s)),
                cpu_free: facts.as_ref().map_or(0, |facts| facts.load.cpu_free_permille),
                memory_free: facts.as_ref().map_or(ByteCount(0), |facts| facts.load.memory_free),
                distance: 0,
            })
        };
        self.catalog.current_members().filter_map(candidate).collect()
    }
}
