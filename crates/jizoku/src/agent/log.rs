//! This node's log pool, its copies of others' important records, and who waits for what.
//!
//! - [`answer`]: what other nodes and people here ask of this pool
//! - [`ask`]: a question to all pools, and their answers as one
//! - [`intake`]: what comes in over the API
//! - [`own`]: the agent's own events as records
//!
//! What it does not know: queries, filters and protocols, which are values in jizoku-log.
//!
//! Invariants
//! - The pool is locked for a moment only: an append, or one step of a query.
//! - Whoever waits is woken after the lock is released.
//!
//! Limits: [`POOL_BYTES`], [`POOL_AGE`], [`USUAL`] for each source.

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod intake;
pub(crate) mod own;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jizoku_log::copies::{self, Copier, Copies};
use jizoku_log::pool::{Config, Quota, Stats, WatcherId};
use jizoku_log::query::run::Part;
use jizoku_log::{Draft, Pool, Record, Schemas};
use jizoku_mesh::boottime_now;
use jizoku_node::wire::StateMessage;
use jizoku_types::{Channel, Event, Member, NodeId, decode, encode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};

use super::ask as catalog;
use super::wiring::Wiring;

/// Most bytes of this node's records.
const POOL_BYTES: usize = 256 << 20;
/// Age at which records are forgotten, in microseconds.
const POOL_AGE: u64 = 4 * 3600 * 1_000_000;
/// What a source may write in a second.
const USUAL: Quota = Quota { records: 100_000, bytes: 32 << 20 };
/// Which part of a record's number is the agent's incarnation.
pub(crate) const RUN_BITS: u32 = 40;
/// How often it is looked who can be reached, if nothing happened.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often records are forgotten by age.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// What agents say to each other about their pools.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LogMessage {
    /// Answer this.
    Ask { number: u64, question: Question },
    /// The answer.
    Tell { number: u64, answer: Answer },
    /// Copies of important records.
    Copies(copies::Message),
}

/// A question to one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The query's text.
    pub(crate) query: String,
    /// Where to go on; none: from the beginning.
    pub(crate) from: Option<u64>,
    /// How long to wait for a record.
    pub(crate) wait_ms: u64,
    /// Of which records.
    pub(crate) of: Whose,
}

/// Records of which nodes a question is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Whose {
    /// Those in the pool of the node that is asked.
    Own,
    /// What it holds of all but these.
    AllBut(Vec<Member>),
    /// What it holds of this one.
    Of(NodeId),
}

/// What one node says to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// From its own pool.
    Own {
        part: Part,
        /// Where to go on.
        next: u64,
        /// Whether there is more now.
        more: bool,
        missed: u64,
        left_out: u64,
    },
    /// What it holds of others, with its owner.
    Held { records: Vec<(NodeId, Record)>, next: u64, more: bool },
    /// It can't.
    Refused(String),
}

struct Inner {
    pool: Pool,
    copier: Copier,
    copies: Copies,
    wakes: BTreeMap<WatcherId, Arc<Notify>>,
}

/// See the module's header.
pub(crate) struct LogPool {
    me: Member,
    host: String,
    inner: Mutex<Inner>,
    /// The place up to which this node's important records count.
    counted: watch::Sender<u64>,
    /// The copier or the quotas want to be looked at.
    work: Notify,
    /// Somebody came or went.
    reach: Notify,
    pub(crate) schemas: Mutex<Schemas>,
    asked: Mutex<BTreeMap<u64, mpsc::Sender<Answer>>>,
    next: AtomicU64,
    answering: AtomicU64,
}

/// Now, in microseconds of Unix time.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// What became of a record.
pub(crate) enum Taken {
    /// It has this number; an important one counts when this place does.
    As(u64, Option<u64>),
    /// Its source has used up its quota.
    Dropped,
    /// Too many important records wait for a second node.
    Full,
}

impl LogPool {
    pub(crate) fn new(me: Member, host: String, seed: u64) -> LogPool {
        let config = Config {
            bytes_max: POOL_BYTES,
            age_max: POOL_AGE,
            first: me.incarnation.0 << RUN_BITS | 1,
            host: host.clone(),
            quota: USUAL,
            seed,
        };
        let inner = Inner {
            pool: Pool::new(config),
            copier: Copier::new(me),
            copies: Copies::new(me),
            wakes: BTreeMap::new(),
        };
        LogPool {
            me,
            host,
            inner: Mutex::new(inner),
            counted: watch::channel(0).0,
            work: Notify::new(),
            reach: Notify::new(),
            schemas: Mutex::default(),
            asked: Mutex::default(),
            next: AtomicU64::new(0),
            answering: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while locked")
    }

    /// What people call this node.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().pool.stats()
    }

    /// Takes a record.
    pub(crate) fn append(&self, draft: &Draft<'_>) -> Taken {
        let mut inner = self.lock();
        if draft.important && inner.copier.is_full() {
            return Taken::Full;
        }
        let Some(seq) = inner.pool.append(now(), draft) else {
            drop(inner);
            self.work.notify_one();
            return Taken::Dropped;
        };
        let place = draft.important.then(|| {
            let record = inner.pool.get(seq).expect("it was just taken").to_record();
            inner.copier.take(boottime_now(), record)
        });
        let woken = wakes(&mut inner);
        drop(inner);
        woken.iter().for_each(|notify| notify.notify_one());
        if place.is_some() {
            self.work.notify_one();
        }
        Taken::As(seq, place)
    }

    /// Waits until an important record counts. Gives whether it came to that in time.
    pub(crate) async fn counts(&self, place: u64, within: Duration) -> bool {
        let mut counted = self.counted.subscribe();
        let waited = tokio::time::timeout(within, counted.wait_for(|counted| *counted >= place));
        matches!(waited.await, Ok(Ok(_)))
    }

    /// Whether another node is there that important records are copied to.
    pub(crate) fn has_partner(&self) -> bool {
        self.lock().copier.has_partner()
    }

    /// Something happened that may change who can be reached.
    pub(crate) fn saw(&self, event: &Event) {
        if matches!(
            event,
            Event::NodeReachable { .. }
                | Event::NodeUnreachable { .. }
                | Event::MemberAdded { .. }
                | Event::MemberRemoved { .. }
                | Event::LinkDown { .. }
                | Event::LinkUp { .. }
        ) {
            self.reach.notify_one();
        }
    }

    /// Takes what another node says. Must be called within a tokio runtime.
    pub(crate) fn take(self: &Arc<Self>, from: NodeId, bytes: &[u8], wiring: &Arc<Wiring>) {
        // What can't be read is of another version.
        let Ok(message) = decode::<LogMessage>(bytes) else { return };
        match message {
            LogMessage::Ask { number, question } => {
                let (log, wiring) = (Arc::clone(self), Arc::clone(wiring));
                tokio::spawn(async move {
                    let answer = log.answer(&question).await;
                    send(&wiring, from, Channel::Bulk, &LogMessage::Tell { number, answer });
                });
            }
            LogMessage::Tell { number, answer } => {
                let asked = self.asked.lock().expect("no panic while locked");
                if let Some(asker) = asked.get(&number) {
                    // Full: it answered twice.
                    let _ = asker.try_send(answer);
                }
            }
            LogMessage::Copies(message @ copies::Message::Held { .. }) => {
                let mut inner = self.lock();
                inner.copier.held(boottime_now(), from, &message);
                self.counted.send_replace(inner.copier.counted());
                drop(inner);
                self.work.notify_one();
            }
            LogMessage::Copies(message) => {
                let answer = self.lock().copies.take(from, message);
                if let Some(answer) = answer {
                    send(wiring, from, Channel::State, &LogMessage::Copies(answer));
                }
            }
        }
    }

    /// Runs what time asks for, for ever.
    pub(crate) async fn run(self: Arc<Self>, wiring: Arc<Wiring>) {
        tokio::spawn(Arc::clone(&self).keep_reach(Arc::clone(&wiring)));
        loop {
            let (out, deadline) = {
                let mut inner = self.lock();
                let at = boottime_now();
                inner.copier.tick(at);
                inner.pool.tick(now());
                inner.copies.forget(now().saturating_sub(POOL_AGE));
                let out: Vec<_> = std::iter::from_fn(|| inner.copier.poll()).collect();
                let copier = inner.copier.deadline().map(|deadline| deadline.since(at));
                let patience = copier.map(|span| Duration::from_nanos(span.as_nanos()));
                (out, patience.unwrap_or(FORGET_EVERY).min(FORGET_EVERY))
            };
            for (to, message) in out {
                send(&wiring, to, Channel::State, &LogMessage::Copies(message));
            }
            // Whichever comes first.
            let _ = tokio::time::timeout(deadline, self.work.notified()).await;
        }
    }

    async fn keep_reach(self: Arc<Self>, wiring: Arc<Wiring>) {
        loop {
            let Some(view) = catalog::view(&wiring.core).await else { return };
            let reachable = view.nodes.iter().filter(|node| node.reachable);
            let members: Vec<Member> = reachable
                .map(|node| Member { node: node.node, incarnation: node.record.incarnation })
                .collect();
            self.lock().copier.reach(boottime_now(), &members);
            self.work.notify_one();
            // Whichever comes first.
            let _ = tokio::time::timeout(LOOK_EVERY, self.reach.notified()).await;
        }
    }
}

/// Who is woken by the newest records.
fn wakes(inner: &mut Inner) -> Vec<Arc<Notify>> {
    let woken = inner.pool.woken();
    woken.iter().filter_map(|id| inner.wakes.get(id).cloned()).collect()
}

fn send(wiring: &Wiring, to: NodeId, channel: Channel, message: &LogMessage) {
    wiring.send_state(to, channel, StateMessage::Log(encode(message)));
}
