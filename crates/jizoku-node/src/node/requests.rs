//! What people and other parts ask of the catalog, and proposals under way.
//!
//! Invariant: each proposal has one [`Purpose`]; a purpose that is under way is not proposed
//! again. Each request is answered exactly once.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use jizoku_core::catalog::{Command, Outcome, TicketHash};
use jizoku_types::{Epoch, NodeId, ServiceId};

use super::{Node, Output};
use crate::wire::ControlMessage;

/// What may be asked of a Node.
#[derive(Clone, Debug)]
pub enum Request {
    /// Do this in the catalog.
    Command(Box<Command>),
    /// Let a service go on elsewhere. Answered when the active node was told; the move shows in
    /// the catalog.
    Move {
        /// Which service.
        service: ServiceId,
        /// Where to; none: wherever the succession says.
        to: Option<NodeId>,
    },
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The catalog did not take it: no leader, or no majority. Nothing changed.
    NotTaken,
    /// Nobody knows whether it was done. Look, and ask again if it wasn't.
    Unknown,
    /// It can't be done.
    Impossible(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotTaken => f.write_str("the catalog has no majority now; nothing changed"),
            Refusal::Unknown => {
                f.write_str("the catalog changed hands meanwhile; look whether it was done")
            }
            Refusal::Impossible(why) => f.write_str(why),
        }
    }
}

/// What a proposal is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// This node's word about itself.
    Announce,
    /// A new epoch.
    TakeOver(ServiceId),
    /// A holder set.
    SetHolders(ServiceId),
    /// The end of a branch, by either way.
    Branch(ServiceId),
    /// The end of a ticket.
    ExpireTicket(TicketHash),
    /// Somebody's request.
    Request(u64),
}

impl Node {
    pub(super) fn is_under_way(&self, purpose: &Purpose) -> bool {
        self.purposes.values().any(|other| other == purpose)
    }

    pub(super) fn propose(&mut self, purpose: Purpose, command: &Command) {
        let id = self.next_proposal;
        self.next_proposal += 1;
        self.purposes.insert(id, purpose);
        self.outputs.push_back(Output::Propose { id, command: command.encode() });
    }

    /// A proposal of this node was applied; no outcome: it could not be read.
    pub(super) fn answered(&mut self, id: Option<u64>, outcome: Option<Outcome>) {
        let Some(purpose) = id.and_then(|id| self.purposes.remove(&id)) else { return };
        // What the catalog won't have is not proposed again at once: it would turn in a circle.
        self.dirty |= !matches!(outcome, Some(Outcome::Rejected { .. }));
        if let (Purpose::Branch(service), Some(Outcome::Rejected { .. })) = (&purpose, &outcome) {
            self.branch_refused(*service);
        }
        if let (Purpose::SetHolders(service), Some(Outcome::Rejected { .. })) = (&purpose, &outcome)
        {
            self.set_refused(*service, false);
        }
        if let Purpose::Request(id) = purpose {
            let unreadable = || Refusal::Impossible(String::from("the command can't be read"));
            let result = outcome.ok_or_else(unreadable);
            self.outputs.push_back(Output::Answer { id, result });
        }
    }

    pub(super) fn refused(&mut self, id: u64, unknown: bool) {
        let Some(purpose) = self.purposes.remove(&id) else { return };
        // Duties look again at the next tick, not at once: without a leader they would turn in
        // a circle.
        match purpose {
            Purpose::Request(id) => {
                let refusal = if unknown { Refusal::Unknown } else { Refusal::NotTaken };
                self.outputs.push_back(Output::Answer { id, result: Err(refusal) });
            }
            Purpose::SetHolders(service) => self.set_refused(service, unknown),
            _ => {}
        }
    }

    pub(super) fn requested(&mut self, id: u64, request: Request) {
        match request {
            Request::Command(command) => self.propose(Purpose::Request(id), &command),
            Request::Move { service, to } => {
                let result = self.request_move(service, to);
                let done = || Outcome::Done { changes: alloc::vec::Vec::new() };
                let result = result.map(|()| done()).map_err(Refusal::Impossible);
                self.outputs.push_back(Output::Answer { id, result });
            }
        }
    }

    fn request_move(&mut self, service: ServiceId, to: Option<NodeId>) -> Result<(), String> {
        let text = |text: &str| String::from(text);
        let record = self.catalog.service(service).ok_or(text("no such service"))?;
        let active = record.active.ok_or(text("the service is active nowhere"))?;
        let epoch: Epoch = record.epoch;
        if to == Some(active.node) {
            return Err(text("the service is active there already"));
        }
        if let Some(to) = to {
            let ranked = self.ranked(service);
            if !ranked.iter().any(|member| member.node == to) {
                return Err(text(
                    "that node can't take it: not a member, not reachable, draining, a witness, \
                     or excluded by the service's placement",
                ));
            }
        }
        if active.node == self.me().node {
            self.move_here(service, epoch, to);
        } else if self.reach.reaches(active.node) {
            let message = ControlMessage::Move { service, epoch, to };
            self.outputs.push_back(Output::Control { to: active.node, message });
        } else {
            return Err(text("the active node can't be reached; it is being replaced"));
        }
        Ok(())
    }
}
