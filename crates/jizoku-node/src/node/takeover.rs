//! Who goes on: which services are vacant, and this node's place among the candidates.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_core::catalog::{Command, ServiceRecord, Wanted};
use jizoku_core::succession::{self, Candidate, Vacancy};
use jizoku_types::{ByteCount, Epoch, Event, Member, ServiceId, Span};

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
            let place = if self.leader.is_some() && self.is_vacant(record) {
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

    /// Nobody serves although somebody should. A living active node cares for itself.
    fn is_vacant(&self, record: &ServiceRecord) -> bool {
        record.wanted == Wanted::Running
            && record.active.is_none_or(|active| {
                let gone = !self.catalog.is_current(&active);
                gone && !self.planted.has(Fault::RestartUnseen) || !self.reach.reaches(active.node)
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
        succession::rank(&vacancy, &self.candidates(record))
    }

    fn candidates(&self, record: &ServiceRecord) -> Vec<Candidate> {
        let newest = self.facts.newest(record);
        let candidate = |member: Member| {
            let known = self.catalog.member(&member.node)?;
            let facts = self.facts.of(member.node, self.me().node, self.now);
            let current = record.is_holder(&member);
            Some(Candidate {
                member,
                labels: known.labels.clone(),
                reachable: self.reach.reaches(member.node),
                witness: known.witness,
                draining: known.draining,
                ready: current.then_some(newest),
                current,
                uptime: facts.as_ref().map_or(Span::ZERO, |facts| Span::secs(facts.uptime_s)),
                cpu_free: facts.as_ref().map_or(0, |facts| facts.load.cpu_free_permille),
                memory_free: facts.as_ref().map_or(ByteCount(0), |facts| facts.load.memory_free),
                distance: 0,
            })
        };
        self.catalog.current_members().filter_map(candidate).collect()
    }
}
