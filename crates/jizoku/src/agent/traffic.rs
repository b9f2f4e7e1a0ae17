//! Tells the watch what this node's gateway sees in real traffic.
//!
//! What it does not know: what follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jizoku_gateway::{Gateway, ServiceCounts};
use jizoku_node::node;
use jizoku_types::ServiceId;

use super::core::CoreMessage;
use super::wiring::Wiring;

/// How often. The watch counts in such periods.
const EVERY: Duration = Duration::from_secs(1);

/// Tells for ever.
pub(crate) async fn watch(wiring: Arc<Wiring>) {
    let mut before = BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let stats = wiring.gateway().map(Gateway::stats).unwrap_or_default();
        let now: BTreeMap<ServiceId, ServiceCounts> =
            stats.iter().map(|(service, stats)| (*service, stats.read())).collect();
        for (service, counts) in &now {
            let seen = before.get(service).and_then(|before| since(before, counts));
            if let Some((answers, errors, timeouts)) = seen
                && let Some(epoch) = counts.attached
            {
                let service = *service;
                let input = node::Input::Traffic { service, epoch, answers, errors, timeouts };
                wiring.core.send(CoreMessage::Node(input));
            }
        }
        before = now;
    }
}

/// Answers, errors and time-outs between two readings; none if nothing happened, or if the
/// instance changed in between: then nobody knows whose they are.
fn since(before: &ServiceCounts, now: &ServiceCounts) -> Option<(u32, u32, u32)> {
    let grown = |before: u64, now: u64| u32::try_from(now - before).unwrap_or(u32::MAX);
    let answers = grown(before.answers, now.answers);
    let errors = grown(before.errors, now.errors);
    let timeouts = grown(before.timeouts, now.timeouts);
    let some = answers > 0 || errors > 0 || timeouts > 0;
    (some && before.attached == now.attached).then_some((answers, errors, timeouts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jizoku_types::Epoch;

    #[test]
    fn only_what_one_instance_did_is_told() {
        let epoch = |n| Some(Epoch::main(n));
        let before = ServiceCounts { answers: 5, attached: epoch(1), ..ServiceCounts::default() };
        assert_eq!(since(&before, &before), None);
        let more = ServiceCounts { answers: 7, errors: 1, timeouts: 2, ..before };
        assert_eq!(since(&before, &more), Some((2, 1, 2)));
        let other = ServiceCounts { attached: epoch(2), ..more };
        assert_eq!(since(&before, &other), None);
    }
}
