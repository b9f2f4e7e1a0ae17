//! What this node's pool answers, to other nodes and to people here.
//!
//! An answer is a page: as many records as fit a frame, and where to go on. Asking again does no
//! harm, so a lost page is asked for again.
//!
//! What it does not know: who asks.
//!
//! Limits: [`PAGE_BYTES`], [`PAGE_MAX`] records, [`ANSWERING_MAX`] questions at a time,
//! [`WAIT_MAX`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jizoku_log::pool::WatcherId;
use jizoku_log::query::run::{Part, Run, Step};
use jizoku_log::query::{self, Mode, Query};
use jizoku_log::{Record, Schemas};
use jizoku_types::Member;
use jizoku_types::limits::FRAME_BODY_MAX;
use tokio::sync::Notify;

use super::{Answer, LogPool, Question, Whose, now};

/// Bytes of records after which a page is full. One more record still fits its frame.
const PAGE_BYTES: usize = 256 << 10;
const _: () = assert!(PAGE_BYTES + 2 * jizoku_log::record::RECORD_MAX < FRAME_BODY_MAX);
/// Most records of a page.
const PAGE_MAX: usize = 2000;
/// Most questions that are answered at a time.
const ANSWERING_MAX: u64 = 512;
/// Longest wait for a record.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);

/// Ends the watch however its owner ends.
struct Watch<'l> {
    log: &'l LogPool,
    id: WatcherId,
    woken: Arc<Notify>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut inner = self.log.lock();
        inner.pool.unwatch(self.id);
        inner.wakes.remove(&self.id);
    }
}

impl LogPool {
    /// Answers a question about this node's records, or about what it holds of others.
    pub(super) async fn answer(&self, question: &Question) -> Answer {
        if self.answering.fetch_add(1, Ordering::Relaxed) >= ANSWERING_MAX {
            self.answering.fetch_sub(1, Ordering::Relaxed);
            return Answer::Refused("too many queries are under way here".into());
        }
        let answer = self.answer_now(question).await;
        self.answering.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    async fn answer_now(&self, question: &Question) -> Answer {
        // The asker has checked it against what is declared there; here something else may be.
        let query = match query::parse(&question.query, &Schemas::new()) {
            Ok(query) => query,
            Err(problems) => {
                let why = problems.first().map(|problem| problem.show(&question.query));
                return Answer::Refused(why.unwrap_or_default());
            }
        };
        let wanted = |owner: Member| match &question.of {
            Whose::Own => false,
            Whose::AllBut(members) => !members.contains(&owner),
            Whose::Of(node) => owner.node == *node,
        };
        if !matches!(question.of, Whose::Own) {
            return self.held(&query, question.from.unwrap_or(0), wanted);
        }
        let patience = Duration::from_millis(question.wait_ms).min(WAIT_MAX);
        let (mut page, watch) = self.page(&query, question.from, !patience.is_zero());
        let give_up = tokio::time::Instant::now() + patience;
        while let (
            Some(watch),
            Answer::Own { part: Part::Records(records), next, more: false, .. },
        ) = (&watch, &page)
        {
            let timed = tokio::time::timeout_at(give_up, watch.woken.notified());
            if !records.is_empty() || timed.await.is_err() {
                break;
            }
            self.lock().pool.looks(watch.id);
            page = self.page(&query, Some(*next), false).0;
        }
        page
    }

    /// As much as fits a page; with a watch for what comes after it, which begins before the
    /// pool is looked at.
    fn page(&self, query: &Query, from: Option<u64>, watch: bool) -> (Answer, Option<Watch<'_>>) {
        let mut inner = self.lock();
        let watch = if watch {
            inner.pool.watch(query.filter.clone()).map(|id| {
                inner.pool.looks(id);
                let woken = Arc::new(Notify::new());
                inner.wakes.insert(id, Arc::clone(&woken));
                Watch { log: self, id, woken }
            })
        } else {
            None
        };
        let missed = from.map_or(0, |from| inner.pool.missed(from));
        let mut run = Run::new(query, &inner.pool, now(), from);
        let (mut records, mut bytes) = (Vec::new(), 0);
        loop {
            let most = PAGE_MAX.saturating_sub(records.len()).clamp(1, 256);
            let step = run.step(&inner.pool, most);
            let more = |records: &[Record]| records.iter().map(Record::bytes).sum::<usize>();
            let own =
                |part, next, more, left_out| Answer::Own { part, next, more, missed, left_out };
            match step {
                Step::Done(Part::Records(last), next) => {
                    records.extend(last);
                    let answer = own(Part::Records(records), next, false, run.left_out);
                    return (trimmed(answer), watch);
                }
                Step::Done(groups, next) => {
                    return (own(groups, next, false, run.left_out), watch);
                }
                Step::More(next) => {
                    bytes += more(&next);
                    records.extend(next);
                }
            }
            if bytes >= PAGE_BYTES || records.len() >= PAGE_MAX {
                let answer = own(Part::Records(records), run.cursor(), true, run.left_out);
                return (trimmed(answer), watch);
            }
            // Others want the pool, too.
            drop(inner);
            inner = self.lock();
        }
    }

    /// What is held of others.
    fn held(&self, query: &Query, from: u64, wanted: impl Fn(Member) -> bool) -> Answer {
        let oldest = query.since.map_or(0, |since| now().saturating_sub(since));
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let inner = self.lock();
        let mut found = inner.copies.find(&query.filter, wanted);
        found.retain(|(_, record)| record.time >= oldest);
        if query.mode == Mode::Latest {
            found.drain(..found.len().saturating_sub(1));
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (owner, record) in found.iter().skip(skip) {
            if bytes >= PAGE_BYTES || records.len() >= PAGE_MAX {
                break;
            }
            bytes += record.bytes();
            records.push((owner.node, (*record).clone()));
        }
        let next = from.saturating_add(records.len() as u64);
        let more = skip + records.len() < found.len();
        Answer::Held { records, next, more }
    }
}

/// Without the records that don't fit a frame: a page of the newest, or of `last`, comes in one
/// piece. They are counted.
fn trimmed(answer: Answer) -> Answer {
    let Answer::Own { part: Part::Records(mut records), next, more, missed, mut left_out } = answer
    else {
        return answer;
    };
    let mut bytes = 0;
    let most = FRAME_BODY_MAX - 4096;
    let fitting = records
        .iter()
        .rev()
        .take_while(|record| {
            bytes += record.bytes();
            bytes < most
        })
        .count();
    let surplus = records.len() - fitting;
    left_out += surplus as u64;
    records.drain(..surplus);
    Answer::Own { part: Part::Records(records), next, more, missed, left_out }
}
