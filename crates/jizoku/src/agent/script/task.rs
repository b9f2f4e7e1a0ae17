//! One task on its way: the run is stepped, its calls are done, and whoever stops it is heard.
//!
//! What it does not know: flows, what becomes of the end.
//!
//! Invariant: a call that is given up is dropped, and what it started ends with it.

use std::time::Duration;

use jizoku_mesh::boottime_now;
use jizoku_script::run::{Ended, Input, Output, Run};
use tokio::sync::watch;

use super::host::Host;

/// Why a task shall end, once somebody says so.
pub(super) type Stop = watch::Receiver<Option<String>>;

/// Runs a task to its end.
pub(super) async fn drive(mut run: Run, mut host: Host, mut stop: Stop) -> Ended {
    let mut input = Input::Go;
    loop {
        match run.step(boottime_now(), input) {
            Output::Ended(ended) => return ended,
            Output::Yield => {
                tokio::task::yield_now().await;
                let stopped = stop.borrow().clone();
                input = stopped.map_or(Input::Go, Input::Stop);
            }
            Output::Call(call) => {
                let deadline = run.deadline();
                tokio::select! {
                    answer = host.call(&call) => input = Input::Answer(answer),
                    why = stopped(&mut stop) => input = Input::Stop(why),
                    // The run sees for itself that its time is over.
                    () = until(deadline) => input = Input::Go,
                }
            }
        }
    }
}

async fn stopped(stop: &mut Stop) -> String {
    match stop.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => "the agent is ending".to_string(),
    }
}

/// Waits until the clock of runs has reached this.
async fn until(deadline: Option<jizoku_types::Instant>) {
    let Some(deadline) = deadline else { return std::future::pending().await };
    loop {
        let left = deadline.since(boottime_now());
        if left.as_nanos() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_nanos(left.as_nanos()) + Duration::from_millis(1)).await;
    }
}
