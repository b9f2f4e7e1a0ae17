//! What has much to say to other nodes, paced: frames wait here, not in the mesh.
//!
//! The mesh's queues are shared by all services, and at their limit it gives the link up. A large
//! checkpoint or a flood of output must neither break a link nor fill it far ahead of what is more
//! urgent. So a frame goes to the mesh at once only while little is queued there; else it waits
//! here, and a task for that node and channel sends it as there is room.
//!
//! What it does not know: what the frames mean.
//!
//! Invariants
//! - Frames to one node on one channel leave in the order in which they came.
//! - Whoever sends never waits.
//!
//! Limit: [`WAITING_MAX`] bytes for each node and channel. Further frames are dropped and counted;
//! their protocols repeat them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use jizoku_mesh::MeshHandle;
use jizoku_types::{Channel, NodeId};
use tokio::runtime::Handle;

/// Bytes that wait for one node on one channel.
const WAITING_MAX: usize = 128 << 20;

/// See the module's header.
pub(crate) struct Pump {
    mesh: MeshHandle,
    runtime: Handle,
    lines: Mutex<BTreeMap<(NodeId, u8), Line>>,
    dropped: AtomicU64,
}

/// Frames that wait; while a line is there, its task is.
#[derive(Default)]
struct Line {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Line {
    /// Takes a frame if there is room.
    fn push(&mut self, frame: Vec<u8>) -> bool {
        let fits = self.bytes + frame.len() <= WAITING_MAX;
        if fits {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
        fits
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

impl Pump {
    /// Must be made within a tokio runtime.
    pub(crate) fn new(mesh: MeshHandle) -> Arc<Pump> {
        let (lines, dropped) = Default::default();
        Arc::new(Pump { mesh, runtime: Handle::current(), lines, dropped })
    }

    /// Sends a frame, now or when there is room. Without a way to the node it is lost, as frames
    /// may be.
    pub(crate) fn send(self: &Arc<Pump>, to: NodeId, channel: Channel, frame: Vec<u8>) {
        let key = (to, channel as u8);
        let mut lines = self.lines.lock().expect("no panic while locked");
        if let Some(line) = lines.get_mut(&key) {
            if !line.push(frame) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        if self.mesh.room(to, channel) >= frame.len() {
            let _ = self.mesh.send(to, channel, frame);
            return;
        }
        let mut line = Line::default();
        line.push(frame);
        lines.insert(key, line);
        drop(lines);
        self.runtime.spawn(Arc::clone(self).run(to, channel));
    }

    /// Frames that were dropped at the limit.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn run(self: Arc<Pump>, to: NodeId, channel: Channel) {
        while let Some(frame) = self.next((to, channel as u8)) {
            // Without a way it is lost: what follows is, too, until there is one again.
            let _ = self.mesh.send_paced(to, channel, frame).await;
        }
    }

    /// The next frame of a line; without one the line ends.
    fn next(&self, key: (NodeId, u8)) -> Option<Vec<u8>> {
        let mut lines = self.lines.lock().expect("no panic while locked");
        let frame = lines.get_mut(&key).and_then(Line::pop);
        if frame.is_none() {
            lines.remove(&key);
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_no_more_than_its_limit() {
        let mut line = Line::default();
        let frame = || vec![0; 1 << 20];
        let taken = (0..200).filter(|_| line.push(frame())).count();
        assert_eq!(taken, WAITING_MAX >> 20);
        assert!(line.pop().is_some());
        assert!(line.push(frame()));
        while line.pop().is_some() {}
        assert_eq!(line.bytes, 0);
    }
}
