//! Modules of `wasm` services: kept by their hash, fetched from other nodes, made ready ahead.
//!
//! A module is asked for at all reachable members in turn, part by part, on the channel Bulk; it
//! counts once its BLAKE3 hash is right.
//!
//! Before a service is made known, its module is offered to others: the node that it was given to
//! may die right after. An offer is a part without bytes; who has the module says so by wanting
//! what comes after its end.
//!
//! Limits: [`PART`] bytes a part, `MODULE_MAX` bytes in all, [`WANTED_MAX`] modules at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use jizoku_api::route::MODULE_MAX;
use jizoku_mesh::MeshHandle;
use jizoku_node::wire::{ModuleMessage, StateMessage};
use jizoku_store::{BlobError, Blobs};
use jizoku_types::{Channel, NodeId, encode};

use super::mailbox::{Got, Sender, mailbox};

/// Bytes of one part.
const PART: usize = 256 << 10;
/// Modules that are fetched at a time.
const WANTED_MAX: usize = 64;
/// How often the thread that takes messages looks up without any.
const IDLE: Duration = Duration::from_secs(60);
/// What isn't answered is asked of the next node after this.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long a module that was offered may take to arrive.
const OFFERED_WITHIN: Duration = Duration::from_secs(20);

/// See the module's header.
pub(crate) struct Modules {
    blobs: Blobs,
    mesh: OnceLock<MeshHandle>,
    wanted: Mutex<BTreeMap<[u8; 32], Fetch>>,
    arrived: Condvar,
    /// Who else has the modules that are being spread.
    elsewhere: Mutex<BTreeMap<[u8; 32], BTreeSet<NodeId>>>,
    told: Condvar,
}

struct Fetch {
    bytes: Vec<u8>,
    length: Option<u64>,
    asked: usize,
    asked_at: Option<Instant>,
}

/// A thread that takes the messages of other nodes: modules are read from disk, hashed and
/// flushed there.
pub(crate) fn keeping(modules: &Arc<Modules>) -> Sender<(NodeId, ModuleMessage)> {
    let (sender, inbox) = mailbox();
    let modules = Arc::clone(modules);
    // Without a thread messages are lost: modules are asked for in vain, which shows.
    let _ = std::thread::Builder::new().name("modules".into()).spawn(move || {
        loop {
            match inbox.wait(IDLE) {
                Got::One((from, message)) => modules.take(from, message),
                Got::Nothing => {}
                Got::Closed => return,
            }
        }
    });
    sender
}

impl Modules {
    pub(crate) fn new(blobs: Blobs) -> Arc<Modules> {
        Arc::new(Modules {
            blobs,
            mesh: OnceLock::new(),
            wanted: Mutex::new(BTreeMap::new()),
            arrived: Condvar::new(),
            elsewhere: Mutex::new(BTreeMap::new()),
            told: Condvar::new(),
        })
    }

    /// Gives it the way to other nodes. Once.
    pub(crate) fn set_mesh(&self, mesh: MeshHandle) {
        assert!(self.mesh.set(mesh).is_ok(), "there is one mesh");
    }

    /// Keeps a module.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<[u8; 32], BlobError> {
        self.blobs.put(bytes)
    }

    pub(crate) fn has(&self, hash: &[u8; 32]) -> bool {
        self.blobs.has(hash)
    }

    /// A module that is here. One that can't be read counts as not here: it is fetched again.
    pub(crate) fn get(&self, hash: &[u8; 32]) -> Option<Vec<u8>> {
        self.blobs.get(hash).ok().flatten()
    }

    /// A module that is here, or arrives in time.
    pub(crate) fn wait(&self, hash: &[u8; 32], give_up: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(bytes) = self.get(hash) {
                return Some(bytes);
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.wanted.lock().expect("no panic while locked").remove(hash);
                return None;
            }
            self.want(hash);
            let wanted = self.wanted.lock().expect("no panic while locked");
            let patience = left.min(ASK_AGAIN);
            drop(self.arrived.wait_timeout(wanted, patience).expect("no panic while locked"));
        }
    }

    /// Offers a module that is here to these nodes, and waits until so many of them have it.
    /// Gives how many do when it is time to give up.
    pub(crate) fn spread(
        &self,
        hash: &[u8; 32],
        to: &[NodeId],
        enough: usize,
        give_up: Instant,
    ) -> usize {
        let Some(length) = self.get(hash).map(|module| module.len() as u64) else { return 0 };
        let mut elsewhere = self.elsewhere.lock().expect("no panic while locked");
        let have = loop {
            let known = elsewhere.entry(*hash).or_default();
            let missing: Vec<NodeId> =
                to.iter().copied().filter(|node| !known.contains(node)).collect();
            let have = to.len() - missing.len();
            let left = give_up.saturating_duration_since(Instant::now());
            if have >= enough || left.is_zero() {
                break have;
            }
            for node in missing {
                let (hash, bytes) = (*hash, Vec::new());
                self.say(node, ModuleMessage::Part { hash, length, offset: 0, bytes });
            }
            let patience = left.min(ASK_AGAIN);
            elsewhere =
                self.told.wait_timeout(elsewhere, patience).expect("no panic while locked").0;
        };
        elsewhere.remove(hash);
        have
    }

    /// Another node offers a module: fetches it from there, and says when it is here.
    fn offered(self: &Arc<Modules>, from: NodeId, hash: &[u8; 32]) {
        if let Some(module) = self.get(hash) {
            return self.confirm(from, hash, module.len());
        }
        let mut wanted = self.wanted.lock().expect("no panic while locked");
        // The offer is repeated, and looked at again when the fetch under way has ended.
        if wanted.len() >= WANTED_MAX || wanted.contains_key(hash) {
            return;
        }
        let asked_at = Some(Instant::now());
        wanted.insert(*hash, Fetch { bytes: Vec::new(), length: None, asked: 0, asked_at });
        drop(wanted);
        self.say(from, ModuleMessage::Want { hash: *hash, offset: 0 });
        let (modules, hash) = (Arc::clone(self), *hash);
        let fetch = move || {
            let give_up = Instant::now() + OFFERED_WITHIN;
            if let Some(module) = modules.wait(&hash, give_up) {
                modules.confirm(from, &hash, module.len());
            }
        };
        // Without a thread it isn't asked for again if something gets lost.
        let _ = std::thread::Builder::new().name("fetch".into()).spawn(fetch);
    }

    /// Tells the node that offered a module that it is here.
    fn confirm(&self, to: NodeId, hash: &[u8; 32], length: usize) {
        self.say(to, ModuleMessage::Want { hash: *hash, offset: length as u64 });
    }

    fn say(&self, to: NodeId, message: ModuleMessage) {
        if let Some(mesh) = self.mesh.get() {
            // What is lost is said again.
            let _ = mesh.send(to, Channel::Bulk, encode(&StateMessage::Module(message)));
        }
    }

    /// Asks for a module that isn't here, if its answer is not awaited already.
    pub(crate) fn want(&self, hash: &[u8; 32]) {
        let mut wanted = self.wanted.lock().expect("no panic while locked");
        if wanted.len() >= WANTED_MAX && !wanted.contains_key(hash) {
            return;
        }
        let fetch = wanted.entry(*hash).or_insert(Fetch {
            bytes: Vec::new(),
            length: None,
            asked: 0,
            asked_at: None,
        });
        if fetch.asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            self.ask(hash, fetch);
        }
    }

    fn ask(&self, hash: &[u8; 32], fetch: &mut Fetch) {
        let Some(mesh) = self.mesh.get() else { return };
        let links = mesh.links();
        if links.is_empty() {
            return;
        }
        let to = links[fetch.asked % links.len()].peer;
        fetch.asked += 1;
        fetch.asked_at = Some(Instant::now());
        let message = ModuleMessage::Want { hash: *hash, offset: fetch.bytes.len() as u64 };
        // What is lost is asked again.
        let _ = mesh.send(to, Channel::Bulk, encode(&StateMessage::Module(message)));
    }

    /// Takes a message of another node.
    fn take(self: &Arc<Modules>, from: NodeId, message: ModuleMessage) {
        match message {
            ModuleMessage::Part { hash, bytes, .. } if bytes.is_empty() => {
                self.offered(from, &hash);
            }
            ModuleMessage::Want { hash, offset } => self.answer(from, &hash, offset),
            ModuleMessage::Part { hash, length, offset, bytes } => {
                self.part(from, &hash, length, offset, &bytes);
            }
        }
    }

    fn answer(&self, to: NodeId, hash: &[u8; 32], offset: u64) {
        let (Some(mesh), Some(module)) = (self.mesh.get(), self.get(hash)) else { return };
        if offset == module.len() as u64 {
            let mut elsewhere = self.elsewhere.lock().expect("no panic while locked");
            if let Some(known) = elsewhere.get_mut(hash) {
                known.insert(to);
                self.told.notify_all();
            }
            return;
        }
        let Some(rest) = usize::try_from(offset).ok().and_then(|at| module.get(at..)) else {
            return;
        };
        let message = ModuleMessage::Part {
            hash: *hash,
            length: module.len() as u64,
            offset,
            bytes: rest[..rest.len().min(PART)].to_vec(),
        };
        let _ = mesh.send(to, Channel::Bulk, encode(&StateMessage::Module(message)));
    }

    fn part(&self, from: NodeId, hash: &[u8; 32], length: u64, offset: u64, bytes: &[u8]) {
        let mut wanted = self.wanted.lock().expect("no panic while locked");
        let Some(fetch) = wanted.get_mut(hash) else { return };
        let fits = length <= MODULE_MAX as u64 && fetch.length.is_none_or(|known| known == length);
        if !fits || offset != fetch.bytes.len() as u64 || bytes.is_empty() {
            return;
        }
        fetch.length = Some(length);
        fetch.bytes.extend_from_slice(bytes);
        if (fetch.bytes.len() as u64) < length {
            fetch.asked_at = Some(Instant::now());
            let offset = fetch.bytes.len() as u64;
            if let Some(mesh) = self.mesh.get() {
                let message = ModuleMessage::Want { hash: *hash, offset };
                let _ = mesh.send(from, Channel::Bulk, encode(&StateMessage::Module(message)));
            }
            return;
        }
        let Some(fetch) = wanted.remove(hash) else { return };
        drop(wanted);
        // A wrong one is thrown away; it is still wanted, and asked of the next node.
        if blake3::hash(&fetch.bytes).as_bytes() == hash && self.put(&fetch.bytes).is_ok() {
            self.arrived.notify_all();
        }
    }
}
