//! What arrived for this node, one queue for each channel, bounded in bytes.
//!
//! A connection whose frame doesn't fit waits, and so the peer's TCP stream waits, and so the
//! peer's queue fills: a slow owner is felt by the senders, and memory stays bounded.
//!
//! What it does not know: links, routes, what bodies mean.
//!
//! Invariant: the bodies that wait in one queue never exceed [`INBOX_MAX`].

use std::sync::Arc;

use bytes::Bytes;
use jizoku_types::NodeId;
use jizoku_types::frame::Channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most bytes that wait in one channel's queue, with what each frame costs beside its body.
pub const INBOX_MAX: usize = 16 << 20;
/// What a waiting frame costs beside its body.
const FRAME_COST: usize = 128;

/// A frame that arrived for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who made it. If it was relayed, the relays vouch for that.
    pub from: NodeId,
    /// Which part of the node understands it.
    pub channel: Channel,
    /// Its bytes, at most `FRAME_BODY_MAX`.
    pub body: Bytes,
}

/// The owner's end of one channel.
#[derive(Debug)]
pub struct Inbox {
    waiting: mpsc::UnboundedReceiver<(Incoming, OwnedSemaphorePermit)>,
}

impl Inbox {
    /// The next frame; none once the mesh is gone. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Incoming> {
        self.waiting.recv().await.map(|(incoming, _)| incoming)
    }

    /// The next frame if one is waiting.
    pub fn try_recv(&mut self) -> Option<Incoming> {
        self.waiting.try_recv().ok().map(|(incoming, _)| incoming)
    }
}

/// Why a frame wasn't delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// The owner is too slow.
    Full,
    /// The owner doesn't listen any more.
    Gone,
}

/// The mesh's end of one channel.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Bounded by the permits that go with the frames.
    waiting: mpsc::UnboundedSender<(Incoming, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

pub(crate) fn inbox() -> (Delivery, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(INBOX_MAX));
    (Delivery { waiting: sender, room }, Inbox { waiting: receiver })
}

fn cost(incoming: &Incoming) -> u32 {
    u32::try_from(incoming.body.len() + FRAME_COST).expect("bodies are bounded")
}

impl Delivery {
    /// Delivers at once, or says why not and gives the frame back.
    pub(crate) fn offer(&self, incoming: Incoming) -> Result<(), (Undelivered, Incoming)> {
        match Arc::clone(&self.room).try_acquire_many_owned(cost(&incoming)) {
            Ok(permit) => self
                .waiting
                .send((incoming, permit))
                .map_err(|refused| (Undelivered::Gone, refused.0.0)),
            Err(_) if self.waiting.is_closed() => Err((Undelivered::Gone, incoming)),
            Err(_) => Err((Undelivered::Full, incoming)),
        }
    }

    /// Delivers as soon as there is room.
    pub(crate) async fn deliver(&self, incoming: Incoming) -> Result<(), Undelivered> {
        let room = Arc::clone(&self.room).acquire_many_owned(cost(&incoming));
        let permit = tokio::select! {
            permit = room => permit.map_err(|_| Undelivered::Gone)?,
            () = self.waiting.closed() => return Err(Undelivered::Gone),
        };
        self.waiting.send((incoming, permit)).map_err(|_| Undelivered::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(size: usize) -> Incoming {
        let body = Bytes::from(vec![0; size]);
        Incoming { from: NodeId([1; 32]), channel: Channel::Bulk, body }
    }

    #[tokio::test]
    async fn a_full_inbox_takes_more_once_the_owner_read() {
        let (delivery, mut inbox) = inbox();
        let mut count = 0;
        while delivery.offer(incoming(1 << 20)).is_ok() {
            count += 1;
        }
        assert_eq!(count, INBOX_MAX / ((1 << 20) + FRAME_COST));
        let (why, frame) = delivery.offer(incoming(1 << 20)).expect_err("full");
        assert_eq!(why, Undelivered::Full);

        let (delivered, received) = tokio::join!(delivery.deliver(frame), inbox.recv());
        assert_eq!(delivered, Ok(()));
        assert!(received.is_some());
    }

    #[tokio::test]
    async fn nobody_waits_for_an_owner_that_is_gone() {
        let (delivery, inbox) = inbox();
        while delivery.offer(incoming(1 << 20)).is_ok() {}
        let (result, ()) = tokio::join!(delivery.deliver(incoming(1 << 20)), async {
            drop(inbox);
        });
        assert_eq!(result, Err(Undelivered::Gone));
        assert!(matches!(delivery.offer(incoming(1)), Err((Undelivered::Gone, _))));
    }
}
