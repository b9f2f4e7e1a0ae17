//! What is asked of the catalog: said again while nobody leads it, which is so for a moment after
//! a start or a death.
//!
//! What it does not know: who asks, and what is made of the answer.
//!
//! Limits: whoever asks says how long all tries may take.

use std::time::Duration;

use jizoku_core::catalog::Outcome;
use jizoku_node::node::{Refusal, Request, View};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core::CoreMessage;
use super::mailbox::Sender;

/// How long people wait for the catalog. Elections take less, also on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);
/// Time between two tries.
pub(crate) const TRY_AGAIN: Duration = Duration::from_millis(150);

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The Node refused, also the last time that it was asked.
    Refused(Refusal),
    /// No answer in time: nobody knows whether it was done.
    Late,
    /// The agent is ending.
    Ending,
}

/// Asks until the catalog takes it, or the time is over.
pub(crate) async fn ask(
    core: &Sender<CoreMessage>,
    request: Request,
    within: Duration,
) -> Result<Outcome, Failure> {
    let give_up = Instant::now() + within;
    loop {
        let (reply, answer) = oneshot::channel();
        core.send(CoreMessage::Request(request.clone(), reply));
        match tokio::time::timeout_at(give_up, answer).await {
            Err(_) => return Err(Failure::Late),
            Ok(Err(_)) => return Err(Failure::Ending),
            Ok(Ok(Ok(outcome))) => return Ok(outcome),
            Ok(Ok(Err(Refusal::NotTaken))) if Instant::now() + TRY_AGAIN < give_up => {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Ok(Ok(Err(refusal))) => return Err(Failure::Refused(refusal)),
        }
    }
}

/// Asks likewise, and says as text why something wasn't done.
pub(crate) async fn done(
    core: &Sender<CoreMessage>,
    request: Request,
    within: Duration,
) -> Result<Outcome, String> {
    match ask(core, request, within).await {
        Err(Failure::Late) => {
            Err("the catalog did not answer in time; look whether it was done".into())
        }
        Err(Failure::Ending) => Err("the agent is ending".into()),
        Err(Failure::Refused(refusal)) => Err(refusal.to_string()),
        Ok(Outcome::Conflict { why }) => Err(why.to_string()),
        Ok(Outcome::Rejected { why }) => Err(why.to_string()),
        Ok(done) => Ok(done),
    }
}

/// The Node's view; none if the agent is ending.
pub(crate) async fn view(core: &Sender<CoreMessage>) -> Option<View> {
    let (reply, answer) = oneshot::channel();
    core.send(CoreMessage::View(reply));
    answer.await.ok()
}

/// The Node's view once its cluster has begun and somebody leads it; as it is if that doesn't come
/// about in time. None if the agent is ending.
pub(crate) async fn settled_view(core: &Sender<CoreMessage>, within: Duration) -> Option<View> {
    let give_up = Instant::now() + within;
    loop {
        let now = view(core).await?;
        if is_settled(&now) || Instant::now() + TRY_AGAIN >= give_up {
            return Some(now);
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Whether what a view says can be relied on: a node that has just started knows little.
pub(crate) fn is_settled(view: &View) -> bool {
    view.cluster.is_some() && view.leader.is_some()
}
