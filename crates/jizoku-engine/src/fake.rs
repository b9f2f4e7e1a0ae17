//! The fake engine: a whole program as a value, for the simulator.
//!
//! The program keeps counters and serves a tiny protocol on its first port. A request is
//! [`REQUEST`] bytes: operation, counter (2 bytes, little endian), tag (8 bytes). The answer is
//! [`ANSWER`] bytes: the tag, the counter's value (8 bytes), and a number that differs from run
//! to run (8 bytes), as the output of a program that reads the clock does. Requests may come cut
//! in any way; bytes of an unfinished one are part of the state. `Die` ends the program, in the
//! way in which a poisonous request would.
//!
//! What it does not know: threads, time (it answers in place).
//!
//! Invariants: as the contract in [`crate`]. The state is in three byte spaces: `memory.0` (the
//! counters), `globals` (open connections and unfinished requests), `sockets` (the
//! [`InstanceEnd`]).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_streams::InstanceEnd;
use jizoku_streams::instance::{self, Read, Socket, Write};
use jizoku_types::limits::BLOCK;
use jizoku_types::{Instant, Span};

use crate::{Exit, Identity, Input, Instance, Origin, Output};

/// Length of a request.
pub const REQUEST: usize = 11;
/// Length of an answer.
pub const ANSWER: usize = 24;
/// Counters of one program.
pub const COUNTERS: usize = 2048;

const MEMORY: &str = "memory.0";
const GLOBALS: &str = "globals";
const SOCKETS: &str = "sockets";
const CELL: usize = 8;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Make the counter one higher; answers with the new value.
    Add = 1,
    /// Answers with the value.
    Read = 2,
    /// End the program by a crash, without an answer.
    Die = 3,
}

/// The bytes of a request.
pub fn request(op: Op, counter: u16, tag: u64) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[0] = op as u8;
    bytes[1..3].copy_from_slice(&counter.to_le_bytes());
    bytes[3..].copy_from_slice(&tag.to_le_bytes());
    bytes
}

/// Tag and value of an answer.
pub fn answer(bytes: &[u8; ANSWER]) -> (u64, u64) {
    let number = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    (number(0), number(8))
}

/// A running fake program.
#[derive(Debug)]
pub struct FakeInstance {
    end: InstanceEnd,
    counters: Vec<u64>,
    dirty: BTreeMap<usize, ()>,
    /// Open sockets, each with the bytes of an unfinished request and of an answer that did not
    /// fit the window.
    sockets: BTreeMap<u32, Talk>,
    image: Image,
    noise: u64,
    said_changed: bool,
    said_waits: bool,
    ended: bool,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug, Default)]
struct Talk {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl FakeInstance {
    /// Starts the program with this many ports. `noise` makes this run's answers differ from
    /// another's.
    pub fn start(identity: &Identity, ports: usize, origin: Origin, noise: u64) -> FakeInstance {
        let streams = instance::Identity {
            service: identity.service,
            epoch: identity.epoch,
            held: identity.held,
            survives: true,
        };
        let mut fake = FakeInstance {
            end: InstanceEnd::new(streams, ports),
            counters: alloc::vec![0; COUNTERS],
            dirty: BTreeMap::new(),
            sockets: BTreeMap::new(),
            image: Image::empty(),
            noise,
            said_changed: false,
            said_waits: false,
            ended: false,
            outputs: VecDeque::new(),
        };
        match origin {
            Origin::Fresh => fake.dirty.extend((0..COUNTERS * CELL / BLOCK).map(|at| (at, ()))),
            Origin::Restored { image, seq } => {
                if let Err(why) = fake.restore(streams, ports, image, seq) {
                    fake.exit(Exit::CannotStart(why));
                    return fake;
                }
            }
        }
        fake.outputs.push_back(Output::Running { took: Span::millis(1) });
        fake
    }

    fn restore(
        &mut self,
        streams: instance::Identity,
        ports: usize,
        image: Image,
        seq: u64,
    ) -> Result<(), String> {
        let space = |name: &str| {
            image.read_all(name).ok_or_else(|| alloc::format!("the state has no `{name}`"))
        };
        let memory = space(MEMORY)?;
        let globals = space(GLOBALS)?;
        self.end = InstanceEnd::restore(streams, ports, seq, &space(SOCKETS)?)
            .map_err(|why| alloc::format!("{why}"))?;
        for (counter, bytes) in self.counters.iter_mut().zip(memory.chunks_exact(CELL)) {
            let mut eight = [0; CELL];
            eight.copy_from_slice(bytes);
            *counter = u64::from_le_bytes(eight);
        }
        self.sockets = talks(&globals).ok_or("the state's `globals` are damaged")?;
        self.image = image;
        Ok(())
    }

    fn exit(&mut self, exit: Exit) {
        self.ended = true;
        self.outputs.push_back(Output::Exited { exit });
    }

    /// Lets the program run until it waits.
    fn run(&mut self) {
        while let Some(socket) = self.end.accept(0) {
            self.sockets.insert(socket.0, Talk::default());
        }
        let open: Vec<u32> = self.sockets.keys().copied().collect();
        for socket in open {
            self.serve(Socket(socket));
            if self.ended {
                return;
            }
        }
    }

    fn serve(&mut self, socket: Socket) {
        loop {
            if !self.flush(socket) {
                return;
            }
            let Some(talk) = self.sockets.get_mut(&socket.0) else { return };
            let missing = REQUEST - talk.request.len();
            match self.end.read(socket, missing) {
                Read::Data(bytes) => talk.request.extend(bytes),
                Read::WouldBlock => return,
                Read::Eof | Read::Reset => {
                    self.sockets.remove(&socket.0);
                    self.end.close(socket);
                    return;
                }
            }
            if talk.request.len() == REQUEST {
                let request = core::mem::take(&mut talk.request);
                self.execute(socket, &request);
                if self.ended {
                    return;
                }
            }
        }
    }

    /// Writes what waits to be written; false if the window is full or the connection broken.
    fn flush(&mut self, socket: Socket) -> bool {
        let Some(talk) = self.sockets.get_mut(&socket.0) else { return false };
        while !talk.answer.is_empty() {
            match self.end.write(socket, &talk.answer) {
                Write::Written(count) => drop(talk.answer.drain(..count)),
                Write::WouldBlock => return false,
                Write::Closed | Write::Reset => {
                    self.sockets.remove(&socket.0);
                    self.end.close(socket);
                    return false;
                }
            }
        }
        true
    }

    fn execute(&mut self, socket: Socket, request: &[u8]) {
        let counter = usize::from(u16::from_le_bytes([request[1], request[2]])) % COUNTERS;
        if request[0] == Op::Die as u8 {
            return self.exit(Exit::Crashed(String::from("a request told it to die")));
        }
        if request[0] == Op::Add as u8 {
            self.counters[counter] += 1;
            self.dirty.insert(counter * CELL / BLOCK, ());
        }
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Some(talk) = self.sockets.get_mut(&socket.0) {
            talk.answer.extend(&request[3..REQUEST]);
            talk.answer.extend(self.counters[counter].to_le_bytes());
            talk.answer.extend(self.noise.to_le_bytes());
        }
    }

    fn capture(&mut self, seq: u64) {
        let mut builder = DiffBuilder::new(Some(self.image.clone()));
        builder.resize(MEMORY, (COUNTERS * CELL) as u64);
        for block in core::mem::take(&mut self.dirty).into_keys() {
            let cells = &self.counters[block * BLOCK / CELL..(block + 1) * BLOCK / CELL];
            let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
            builder.block(MEMORY, u32::try_from(block).expect("few blocks"), &bytes);
        }
        builder.bytes(GLOBALS, &talks_bytes(&self.sockets));
        let sockets = self.end.capture(seq);
        builder.bytes(SOCKETS, &sockets);
        let diff = builder.finish();
        self.image.apply_unrooted(&diff).expect("its own diff fits its own image");
        self.said_changed = false;
        self.said_waits = false;
        self.outputs.push_back(Output::Captured { seq, diff, pause: Span::micros(100) });
    }

    fn tell(&mut self, now: Instant) {
        while let Some((gateway, message)) = self.end.poll() {
            self.outputs.push_back(Output::ToGateway { gateway, message });
        }
        self.end.advance(now);
        let waits = self.end.output_waits();
        let changed = self.end.changed() || waits;
        if changed && (!self.said_changed || (waits && !self.said_waits)) {
            self.said_changed = true;
            self.said_waits |= waits;
            self.outputs.push_back(Output::Changed { output_waits: waits });
        }
    }
}

#[cfg(feature = "faults")]
impl FakeInstance {
    /// Plants bugs in its end of the streams. Right after making it.
    pub fn plant_in_streams(&mut self, faults: jizoku_streams::faults::Faults) {
        self.end.set_faults(faults);
    }
}

impl Instance for FakeInstance {
    fn handle(&mut self, now: Instant, input: Input) {
        if self.ended {
            return;
        }
        self.end.advance(now);
        match input {
            Input::FromGateway { gateway, message } => self.end.handle(now, gateway, message),
            Input::GatewayGone { gateway } => self.end.gateway_gone(gateway),
            Input::Capture { seq } => self.capture(seq),
            Input::Committed { seq } => self.end.committed(seq),
            Input::Quarantine => self.end.quarantine(),
            Input::Tick => {}
            Input::Stop => return self.exit(Exit::Stopped),
        }
        self.run();
        self.tell(now);
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        if self.ended { None } else { self.end.deadline() }
    }
}

fn talks_bytes(sockets: &BTreeMap<u32, Talk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (socket, talk) in sockets {
        bytes.extend(socket.to_le_bytes());
        for part in [&talk.request, &talk.answer] {
            bytes.extend(u32::try_from(part.len()).expect("a short talk").to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

fn talks(mut bytes: &[u8]) -> Option<BTreeMap<u32, Talk>> {
    let mut sockets = BTreeMap::new();
    while !bytes.is_empty() {
        let socket = number(&mut bytes)?;
        let mut part = || {
            let length = usize::try_from(number(&mut bytes)?).ok()?;
            let (part, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(part.to_vec())
        };
        let (request, answer) = (part()?, part()?);
        sockets.insert(socket, Talk { request, answer });
    }
    Some(sockets)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*four))
}
