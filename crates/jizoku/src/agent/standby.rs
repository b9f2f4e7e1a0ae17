//! Keeps held states ready to run: the memory of each is laid out as an instance will map it, so
//! that a takeover here costs a moment whatever the state's size.
//!
//! What it does not know: epochs, commits; whether this node will ever be active.
//!
//! Invariants
//! - The holder thread never waits for it: only the newest image of a service is kept waiting.
//! - Nothing depends on it but speed: an instance is restored from an image, and what was laid out
//!   is brought up to date with that image first.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use jizoku_checkpoint::image::Image;
use jizoku_types::ServiceId;

use super::engines::Engines;

/// Time between two rounds. A restore lays out what changed since the last one itself, so this
/// is also what a takeover may have to do: the changes of so long.
const EVERY: Duration = Duration::from_millis(50);

/// See the module's header.
#[derive(Default)]
pub(crate) struct Standby {
    /// The newest image of each service that changed; none: it is not held any more.
    waiting: Mutex<BTreeMap<ServiceId, Option<Image>>>,
    news: Condvar,
}

impl Standby {
    /// Works on a thread of its own until the process ends.
    pub(crate) fn start(engines: Arc<Engines>) -> Result<Arc<Standby>, String> {
        let standby = Arc::new(Standby::default());
        let worker = Arc::clone(&standby);
        std::thread::Builder::new()
            .name("standby".into())
            .spawn(move || worker.work(&engines))
            .map_err(|error| format!("no thread to keep states ready: {error}"))?;
        Ok(standby)
    }

    /// This is held now; none: nothing.
    pub(crate) fn held(&self, service: ServiceId, image: Option<Image>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(service, image);
        self.news.notify_one();
    }

    fn work(&self, engines: &Engines) {
        // Without the engine there is nothing to lay out for; doctor says why it isn't there.
        let Ok(engine) = engines.wasm() else { return };
        loop {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let mut waiting = self
                .news
                .wait_while(waiting, |waiting| waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let round = std::mem::take(&mut *waiting);
            drop(waiting);
            for (service, image) in round {
                match image {
                    Some(image) => engine.keep_ready(service, &image),
                    None => engine.forget_ready(service),
                }
            }
            std::thread::sleep(EVERY);
        }
    }
}
