//! Following the service from one instance to the next, and judging which connections go on.
//!
//! What it does not know: how bytes are sent and taken within a session.
//!
//! Invariants
//! - A new epoch drops every output byte that isn't known to be committed, before it attaches.
//! - Each connection gets exactly one verdict when the answer to an attach comes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_types::event::ResetCause;
use jizoku_types::{Epoch, NodeId};

use super::conn::Conn;
use super::{GatewayEnd, Output, Phase, Session, Timers};
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::lineage::Lineage;
use crate::message::{AttachConn, Attached, AttachedConn};

/// What becomes of a connection in a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both ends go on from their offsets.
    GoOn,
    /// It is younger than the state: opened anew, with all its input.
    OpenAnew,
    /// It can't go on.
    Reset(ResetCause),
}

/// Judges a connection by what the instance has of it. The lists in `attached` are sorted.
pub(super) fn judge(
    conn: &Conn,
    counter: u64,
    found: Option<&AttachedConn>,
    attached: &Attached,
    lineage: &Lineage,
) -> Verdict {
    let now = lineage.newest().epoch;
    let lost = if attached.stateless {
        ResetCause::Stateless
    } else if conn.mark.is_some_and(|mark| mark.epoch.branch != now.branch) {
        ResetCause::BranchStopped
    } else {
        ResetCause::ReleasedTooMuch
    };
    if attached.stateless && conn.used_by.is_some_and(|epoch| epoch != now) {
        return Verdict::Reset(lost);
    }
    if conn.mark.is_some_and(|mark| !lineage.holds(mark)) {
        return Verdict::Reset(lost);
    }
    match found {
        Some(found) => {
            let input_there = (conn.input.base()..=conn.input.end()).contains(&found.received);
            let output_there = found.produced >= conn.have;
            if input_there && output_there { Verdict::GoOn } else { Verdict::Reset(lost) }
        }
        None if attached.poisonous.binary_search(&counter).is_ok() => {
            Verdict::Reset(ResetCause::Poisonous)
        }
        None if counter <= attached.highest => Verdict::Reset(ResetCause::ByInstance),
        None if conn.is_untouched() => Verdict::OpenAnew,
        None => Verdict::Reset(lost),
    }
}

impl GatewayEnd {
    pub(super) fn route(&mut self, active: NodeId, epoch: Epoch) {
        if let Some((_, known)) = self.route {
            let newer = epoch.supersedes(&known) || epoch.branch != known.branch;
            let again = epoch == known && self.phase == Phase::Stopped;
            if !newer && !again {
                return;
            }
        }
        self.route = Some((active, epoch));
        #[cfg(any(test, feature = "faults"))]
        let keep = self.has_fault(Faults::GATEWAY_KEEPS_UNCOMMITTED);
        #[cfg(not(any(test, feature = "faults")))]
        let keep = false;
        if !keep {
            self.uncommitted.clear();
            for conn in self.conns.values_mut() {
                conn.drop_pending();
                conn.listed_cover = 0;
            }
        }
        self.first_output_due = true;
        self.begin_session();
    }

    pub(super) fn link_back(&mut self, node: NodeId) {
        if self.route.is_none_or(|(active, _)| active != node) {
            return;
        }
        match self.phase {
            Phase::Attached => self.begin_session(),
            Phase::Attaching => self.session.attach_due = true,
            Phase::Unrouted | Phase::Stopped => {}
        }
    }

    /// Begins a session with the instance that is followed.
    pub(super) fn begin_session(&mut self) {
        self.session = Session::new(self.session.id + 1, self.newest);
        self.phase = Phase::Attaching;
        self.timers = Timers::default();
        self.endings.clear();
    }

    /// All connections that some instance may have, for an attach.
    pub(super) fn attach_list(&self) -> Vec<AttachConn> {
        let offered = self.conns.iter().filter(|(_, conn)| conn.offered);
        offered
            .map(|(&counter, conn)| AttachConn {
                counter,
                have: conn.have,
                sent: conn.sent_ever,
                fin_sent: conn.fin_sent_ever,
            })
            .collect()
    }

    /// The instance has answered: every connection goes on, is opened anew, or is reset.
    pub(super) fn take_attached(&mut self, mut attached: Attached) {
        let reigns = core::mem::take(&mut attached.lineage);
        let Some(lineage) = Lineage::from_reigns(reigns) else {
            self.dropped.violations += 1;
            return;
        };
        self.phase = Phase::Attached;
        self.timers.attach = None;
        self.session.heard = 1;
        self.session.stateless = attached.stateless;
        self.session.hold = !attached.stateless && (attached.held || self.held);
        #[cfg(any(test, feature = "faults"))]
        if self.has_fault(Faults::LINEAGE_IGNORED) {
            self.conns.values_mut().for_each(|conn| conn.mark = None);
        }
        attached.conns.sort_unstable_by_key(|conn| conn.counter);
        attached.poisonous.sort_unstable();
        let verdicts: Vec<(u64, Option<AttachedConn>, Verdict)> = self
            .conns
            .iter()
            .map(|(&counter, conn)| {
                let at = attached.conns.binary_search_by_key(&counter, |conn| conn.counter);
                let found = at.ok().map(|at| attached.conns[at]);
                let verdict = judge(conn, counter, found.as_ref(), &attached, &lineage);
                (counter, found, verdict)
            })
            .collect();
        let kept: BTreeSet<u64> = verdicts.iter().map(|(counter, ..)| *counter).collect();
        let left = attached.conns.iter().map(|conn| conn.counter);
        // Connections that ended here after the attach was written.
        let ended: Vec<u64> = left.filter(|counter| !kept.contains(counter)).collect();
        self.endings = ended;
        self.session.lineage = lineage;
        self.queue.clear();
        self.confirms.clear();
        for (counter, found, verdict) in verdicts {
            self.apply(counter, found, verdict);
        }
    }

    fn apply(&mut self, counter: u64, found: Option<AttachedConn>, verdict: Verdict) {
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        conn.queued = false;
        conn.confirm_queued = false;
        conn.fin_sent = false;
        match (verdict, found) {
            (Verdict::GoOn, Some(found)) => {
                conn.opened = true;
                conn.sent = found.received;
                conn.confirmed = found.confirmed.min(conn.written);
                self.forget_input(counter, found.consumed);
                self.queue_confirm(counter);
            }
            (Verdict::Reset(cause), _) => self.break_conn(counter, cause),
            (Verdict::OpenAnew | Verdict::GoOn, _) => {
                conn.opened = false;
                conn.sent = 0;
                conn.confirmed = 0;
            }
        }
        self.queue_input(counter);
    }

    /// A committed checkpoint has consumed the input up to `offset`.
    pub(super) fn forget_input(&mut self, counter: u64, offset: u64) {
        let resume_below = self.limits.input_window / 2;
        let Some(conn) = self.conns.get_mut(&counter) else { return };
        // Never what wasn't sent, whatever the instance says.
        let count = conn.input.discard_to(offset.min(conn.sent));
        let kept = conn.input.len();
        // Who keeps next to nothing is read again, whatever others keep.
        let resumes = if self.paused_by_total.contains(&counter) {
            kept <= self.limits.share / 2
        } else {
            kept <= resume_below
        };
        if conn.paused && resumes {
            conn.paused = false;
            self.paused_by_total.remove(&counter);
            self.outputs.push_back(Output::ReadMore { conn: self.id(counter) });
        }
        if count > 0 {
            self.input_dropped(count);
        }
    }
}
