//! Starting openraft on the value's executor, with its own timers off.
//!
//! What it does not know: what happens afterwards.
//!
//! Units: openraft counts its times in whole milliseconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jizoku_types::Span;
use openraft::SnapshotPolicy;

use crate::bridge::RaftHandle;
use crate::effects::Effects;
use crate::interface::Config;
use crate::machine::Machine;
use crate::network::{CallTimes, Peers, SharedVoters};
use crate::runtime::{Executor, lock};
use crate::storage::Storage;

fn millis(span: Span) -> u64 {
    span.as_millis().max(1)
}

fn duration(span: Span) -> Duration {
    Duration::from_nanos(span.as_nanos())
}

/// openraft's own timers are off: its times only bound calls, and give the lease in which a
/// follower refuses to elect another leader.
fn raft_config(config: &Config) -> openraft::Config {
    let lease = millis(config.election_min);
    openraft::Config {
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: lease - 1,
        election_timeout_max: lease,
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        enable_pre_vote: Some(true),
        // A restarted leader is a follower like others: it may have missed a later term.
        enable_leader_restore: Some(false),
        // A follower that lost the end of its log is sent it again, instead of a panic here.
        allow_log_reversion: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.snapshot_every / 4,
        max_payload_entries: 256,
        ..openraft::Config::default()
    }
}

pub(crate) fn peers(config: &Config, effects: Effects, voters: SharedVoters) -> Peers {
    let times = CallTimes {
        call: duration(config.election_max.max(config.heartbeat * 4)),
        part: duration(config.election_max * 4),
    };
    Peers { me: config.me, effects, times, voters }
}

/// Starts openraft on the executor. Gives nothing if it refuses the state.
pub(crate) fn start(
    config: &Config,
    executor: &Arc<Executor>,
    peers: Peers,
    storage: Storage,
    machine: Machine,
) -> Option<RaftHandle> {
    let started: Arc<Mutex<Option<RaftHandle>>> = Arc::default();
    let result = started.clone();
    let (me, raft_config) = (config.me, Arc::new(raft_config(config)));
    let run = catch_unwind(AssertUnwindSafe(|| {
        executor.enter(|| {
            executor.spawn(async move {
                let raft = RaftHandle::new(me, raft_config, peers, storage, machine).await;
                *lock(&result) = raft.ok();
            });
            executor.run();
        });
    }));
    run.ok()?;
    lock(&started).take()
}
