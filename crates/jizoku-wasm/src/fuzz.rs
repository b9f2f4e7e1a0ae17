//! Host calls with arguments that mean harm, and states that somebody made up, for the fuzzer.
//!
//! Calls are made directly, without a program: so many more of them fit into a second. The same
//! calls by a real program in real WebAssembly are made by `tests/hostile.rs`.
//!
//! What it does not know: who drives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jizoku_streams::ToInstance;
use jizoku_streams::message::{Bytes, InstanceBody, InstanceFrame};
use jizoku_types::limits::BLOCK;
use jizoku_types::{GatewayId, Incarnation, Instant, Member, NodeId};

use crate::files::{Changes, Kind, ROOT, SPACES, Tree};
use crate::host::Host;
use crate::state::{self, Globals, HostState};
use crate::wasi::calls::{self, Draw, FILES_MAX, identity};
use crate::wasi::descriptors::{Descriptors, Target};
use crate::wasi::errno::{End, Fail};
use crate::wasi::guest::Guest;

/// The program's memory.
const SIZE: usize = 64 << 10;
/// Where the input is put into it: numbers and names for pointers to point at.
const INPUT_AT: usize = 1024;
/// The highest error number of preview 1.
const ERRNO_MAX: u16 = 76;
/// Most calls of one input.
const CALLS_MAX: usize = 256;

/// Arguments out of the input.
struct Script<'d>(&'d [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }
}

impl Draw for Script<'_> {
    fn call(&mut self, of: usize) -> usize {
        usize::from(self.byte()) % of
    }

    fn int(&mut self) -> u32 {
        match self.byte() {
            small @ 0..=127 => u32::from(small % 64),
            place @ 128..=199 => (INPUT_AT + 4 * usize::from(place - 128)) as u32,
            200..=219 => self.number(2) as u32,
            220..=229 => SIZE as u32 - u32::from(self.byte()),
            230..=239 => u32::MAX - u32::from(self.byte()),
            240..=249 => i32::MAX as u32 + u32::from(self.byte()),
            _ => self.number(4) as u32,
        }
    }

    fn long(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=127 => u64::from(small),
            128..=189 => self.number(2),
            190..=209 => u64::MAX - u64::from(self.byte()),
            210..=229 => i64::MAX as u64 + u64::from(self.byte()),
            230..=239 => u64::from(u32::MAX) + u64::from(self.byte()),
            _ => self.number(8),
        }
    }
}

/// What a client sends, over a gateway.
struct Client {
    number: u64,
    opened: u64,
    sent: u64,
}

impl Client {
    fn tell(&mut self, host: &mut Host, body: InstanceBody) {
        self.number += 1;
        let identity = identity();
        let message = ToInstance {
            service: identity.service,
            epoch: identity.epoch,
            session: 1,
            number: self.number,
            heard: 0,
            body,
        };
        let gateway: GatewayId = Member { node: NodeId([2; 32]), incarnation: Incarnation(1) };
        let mut state = host.shared.lock();
        state.sockets.handle(Instant::ORIGIN, gateway, message);
        while state.sockets.poll().is_some() {}
    }

    fn act(&mut self, host: &mut Host, what: u8) {
        let frame = match what % 3 {
            0 => {
                self.opened += 1;
                self.sent = 0;
                let peer = "10.0.0.9:1234".parse().expect("an address");
                InstanceFrame::Open { counter: self.opened, port: what / 3 % 2, peer }
            }
            1 => {
                let bytes = vec![what; 1 + usize::from(what) * 40];
                let offset = self.sent;
                self.sent += bytes.len() as u64;
                InstanceFrame::Data { counter: self.opened, offset, bytes: Bytes(bytes) }
            }
            _ => InstanceFrame::Fin { counter: self.opened, offset: self.sent },
        };
        self.tell(host, InstanceBody::Frames(vec![frame]));
    }
}

/// Any calls with any arguments, on connections and files that are there; now and then the state
/// is captured, and what goes on is what was restored from it.
pub fn host_calls(data: &[u8]) {
    let mut host = calls::host();
    for (path, kind) in [("a", Kind::Directory), ("a/b", Kind::File)] {
        host.files.create(ROOT, path, kind, 0).expect("there is room");
    }
    let ino = host.files.lookup(ROOT, "a/b").expect("it was made");
    host.files.opened(ino).expect("it is there");
    let file = Target::File { ino, offset: 0, append: false, readable: true, writable: true };
    host.descriptors.open(file, false).expect("there is room");
    let mut memory = vec![0; SIZE];
    let some = data.len().min(SIZE - INPUT_AT);
    memory[INPUT_AT..INPUT_AT + some].copy_from_slice(&data[..some]);
    let mut script = Script(data);
    let mut client = Client { number: 0, opened: 0, sent: 0 };
    client.tell(&mut host, InstanceBody::Attach(Vec::new()));
    let mut spaces = Spaces::default();
    for _ in 0..CALLS_MAX {
        if script.0.is_empty() {
            break;
        }
        let what = script.byte();
        match what {
            0..=9 => client.act(&mut host, what),
            10 => spaces.capture_and_restore(&mut host),
            _ => one_call(&mut script, &mut host, &mut memory),
        }
        assert!(host.files.used() <= FILES_MAX, "files are limited");
    }
    spaces.capture_and_restore(&mut host);
}

fn one_call(script: &mut Script<'_>, host: &mut Host, memory: &mut [u8]) {
    nothing_waits(host);
    let mut guest = Guest(memory);
    // Of all calls only this one waits although no descriptor does: look first.
    let waits = would_wait(Script(script.0), &guest, host);
    host.shared.lock().stop = waits;
    let (name, result) = calls::call(script, host, &mut guest);
    host.shared.lock().stop = false;
    match result {
        Ok(()) => {}
        Err(Fail::Errno(errno)) => assert!((1..=ERRNO_MAX).contains(&errno.0), "{name}: {errno:?}"),
        Err(Fail::End(End::Stopped)) => assert!(waits, "{name} was not to be stopped"),
        Err(Fail::End(_)) => assert_eq!(name, "proc_raise"),
        Err(Fail::Unwind) => panic!("{name}: nobody wanted a capture"),
    }
}

/// Calls on descriptors answer at once.
fn nothing_waits(host: &mut Host) {
    let all = host.descriptors.entries();
    for (fd, _) in all {
        host.descriptors.get_mut(fd).expect("it was listed").nonblocking = true;
    }
}

/// Whether the next call is one that waits.
fn would_wait(mut ahead: Script<'_>, guest: &Guest<'_>, host: &Host) -> bool {
    if calls::NAMES[ahead.call(calls::NAMES.len())] != "poll_oneoff" {
        return false;
    }
    let [subscriptions, _, count, _] = [(); 4].map(|()| ahead.int());
    host.would_wait(guest, subscriptions, count)
}

/// The state as holders have it.
#[derive(Default)]
struct Spaces {
    lengths: [u64; 3],
    blocks: [BTreeMap<u64, Arc<[u8; BLOCK]>>; 3],
}

impl Spaces {
    fn fold(&mut self, changes: Changes) {
        self.lengths = changes.lengths;
        for (space, blocks) in self.blocks.iter_mut().zip(changes.blocks) {
            for (at, block) in blocks {
                match block {
                    Some(block) => space.insert(at, block),
                    None => space.remove(&at),
                };
            }
        }
    }

    fn restore(&self) -> Result<Tree, &'static str> {
        let read = |space: usize, at: u64| {
            self.blocks[space].get(&at).cloned().unwrap_or_else(|| Arc::new([0; BLOCK]))
        };
        Tree::restore(FILES_MAX, self.lengths, read).map_err(|damaged| damaged.0)
    }

    /// What is restored from a capture is what was captured.
    fn capture_and_restore(&mut self, host: &mut Host) {
        let entries = host.descriptors.entries();
        let partial = host.partial.each_ref().map(|partial| partial.0.clone());
        let written = state::encode(&HostState {
            module: [1; 32],
            monotonic: 0,
            waiting_since: None,
            descriptors: entries.clone(),
            partial,
        });
        let read: HostState = state::decode(&written).expect("it was just written");
        assert_eq!(read.descriptors, entries);
        self.fold(host.files.capture());
        let mut files = self.restore().expect("it was just captured");
        let descriptors = Descriptors::restore(read.descriptors, &mut files).expect("likewise");
        files.free_orphans();
        assert_eq!(descriptors.entries(), entries);
        assert_eq!(files.used(), host.files.used());
        assert_eq!(files.listing(), host.files.listing());
        (host.files, host.descriptors) = (files, descriptors);
    }
}

/// The spaces of a file tree, made up: 4 bytes of lengths, then the first blocks of inodes and
/// owners as they come. What is taken can be used, and captured and restored again.
pub fn file_tree(data: &[u8]) {
    let Some((lengths, rest)) = data.split_first_chunk::<4>() else { return };
    let (slots, inodes) = (u64::from(lengths[0]), u64::from(lengths[1]));
    let lengths = [slots * BLOCK as u64, slots * 8, inodes * 512];
    let mut spaces = Spaces { lengths, ..Spaces::default() };
    // Records of 64 bytes, each at its place: the rest of an inode's 512 is zeros.
    for (at, record) in rest.chunks(64).enumerate() {
        let space = if record[0] & 0x80 == 0 { 2 } else { 1 };
        let size = if space == 2 { 512 } else { 64 };
        let place = at * size;
        let block = spaces.blocks[space].entry((place / BLOCK) as u64);
        let block = Arc::make_mut(block.or_insert_with(|| Arc::new([0; BLOCK])));
        let start = place % BLOCK;
        block[start..start + record.len()].copy_from_slice(record);
        block[start] &= 0x7f;
    }
    // Nothing lies beyond the end of a space.
    for (space, length) in spaces.blocks.iter_mut().zip(lengths) {
        space.retain(|at, _| at * (BLOCK as u64) < length);
        if let Some(block) = space.get_mut(&(length / BLOCK as u64)) {
            Arc::make_mut(block)[(length % BLOCK as u64) as usize..].fill(0);
        }
    }
    assert_eq!(SPACES.len(), spaces.lengths.len());
    let Ok(mut tree) = spaces.restore() else { return };
    tree.free_orphans();
    use_tree(&mut tree);
    // Everything counts as changed for one who has nothing yet.
    let before = tree.listing();
    spaces.fold(tree.capture());
    let after = spaces.restore().expect("it was just captured");
    assert_eq!(after.listing(), before);
}

fn use_tree(tree: &mut Tree) {
    let all: Vec<String> = tree.listing().into_keys().take(16).collect();
    for path in all {
        let Ok(ino) = tree.lookup(ROOT, &path) else { continue };
        let _ = tree.write(ino, 5000, b"some", 9);
        let _ = tree.read(ino, u64::MAX - 1, &mut [0; 8]);
        let _ = tree.set_size(ino, 3, 9);
        let _ = tree.set_size(ino, 100_000, 9);
        let _ = tree.rename((ROOT, &path), (ROOT, "new"), 9);
        let _ = tree.unlink(ROOT, "new", 9);
    }
    let _ = tree.create(ROOT, "another", Kind::File, 9);
}

/// The parts of a state that are neither memory nor files.
pub fn parts(data: &[u8]) {
    if let Some(host) = state::decode::<HostState>(data) {
        assert_eq!(state::decode(&state::encode(&host)), Some(host.clone()));
        let mut files = Tree::new(FILES_MAX, 0);
        if let Ok(descriptors) = Descriptors::restore(host.descriptors.clone(), &mut files) {
            assert_eq!(descriptors.entries(), host.descriptors);
        }
    }
    if let Some(globals) = state::decode::<Globals>(data) {
        assert_eq!(state::decode(&state::encode(&globals)), Some(globals));
    }
}

/// A state's host part to begin with.
pub fn seed() -> Vec<u8> {
    let mut files = Tree::new(FILES_MAX, 0);
    let descriptors = Descriptors::fresh(2, &mut files).entries();
    state::encode(&HostState {
        module: [1; 32],
        monotonic: 5,
        waiting_since: Some(3),
        descriptors,
        partial: [b"unfinished".to_vec(), Vec::new()],
    })
}
