//! A program that keeps counters.
//!
//! A request is [`REQUEST`] bytes: operation, counter (2 bytes, little endian), tag (8 bytes). The
//! answer is [`ANSWER`] bytes: the tag, the counter's value (8 bytes), and a number that differs
//! from run to run (8 bytes), as the output of a program that reads the clock does. Requests may
//! come cut in any way; bytes of an unfinished one are part of the state. `Die` ends the program,
//! in the way in which a poisonous request would.
//!
//! Its counters are in the space `memory.0`, what its clients are saying in `globals`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_streams::InstanceEnd;
use jizoku_streams::instance::{Read, Socket, Write};
use jizoku_types::limits::BLOCK;
use jizoku_types::{ByteCount, Instant};

use super::{GLOBALS, MEMORY, Program, number, part, put_part};
use crate::Exit;

/// Length of a request.
pub const REQUEST: usize = 11;
/// Length of an answer.
pub const ANSWER: usize = 24;
/// Counters of one program.
pub const COUNTERS: usize = 2048;

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

/// The program.
#[derive(Debug)]
pub(super) struct Counters {
    counters: Vec<u64>,
    dirty: BTreeMap<usize, ()>,
    /// Open sockets, each with the bytes of an unfinished request and of an answer that did not
    /// fit the window.
    sockets: BTreeMap<u32, Talk>,
    noise: u64,
}

#[derive(Clone, Debug, Default)]
struct Talk {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Counters {
    pub(super) fn new(noise: u64) -> Counters {
        Counters {
            counters: alloc::vec![0; COUNTERS],
            dirty: (0..COUNTERS * CELL / BLOCK).map(|at| (at, ())).collect(),
            sockets: BTreeMap::new(),
            noise,
        }
    }

    fn serve(&mut self, end: &mut InstanceEnd, socket: Socket) -> Option<Exit> {
        loop {
            if !self.flush(end, socket) {
                return None;
            }
            let talk = self.sockets.get_mut(&socket.0)?;
            let missing = REQUEST - talk.request.len();
            match end.read(socket, missing) {
                Read::Data(bytes) => talk.request.extend(bytes),
                Read::WouldBlock => return None,
                Read::Eof | Read::Reset => {
                    self.sockets.remove(&socket.0);
                    end.close(socket);
                    return None;
                }
            }
            if talk.request.len() == REQUEST {
                let request = core::mem::take(&mut talk.request);
                if let Some(exit) = self.execute(socket, &request) {
                    return Some(exit);
                }
            }
        }
    }

    /// Writes what waits to be written; false if the window is full or the connection broken.
    fn flush(&mut self, end: &mut InstanceEnd, socket: Socket) -> bool {
        let Some(talk) = self.sockets.get_mut(&socket.0) else { return false };
        while !talk.answer.is_empty() {
            match end.write(socket, &talk.answer) {
                Write::Written(count) => drop(talk.answer.drain(..count)),
                Write::WouldBlock => return false,
                Write::Closed | Write::Reset => {
                    self.sockets.remove(&socket.0);
                    end.close(socket);
                    return false;
                }
            }
        }
        true
    }

    fn execute(&mut self, socket: Socket, request: &[u8]) -> Option<Exit> {
        let counter = usize::from(u16::from_le_bytes([request[1], request[2]])) % COUNTERS;
        if request[0] == Op::Die as u8 {
            return Some(Exit::Crashed(String::from("a request told it to die")));
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
        None
    }
}

impl Program for Counters {
    fn run(&mut self, _now: Instant, end: &mut InstanceEnd) -> Option<Exit> {
        while let Some(socket) = end.accept(0) {
            self.sockets.insert(socket.0, Talk::default());
        }
        let open: Vec<u32> = self.sockets.keys().copied().collect();
        open.into_iter().find_map(|socket| self.serve(end, Socket(socket)))
    }

    fn write_down(&mut self, builder: &mut DiffBuilder) {
        builder.resize(MEMORY, (COUNTERS * CELL) as u64);
        for block in core::mem::take(&mut self.dirty).into_keys() {
            let cells = &self.counters[block * BLOCK / CELL..(block + 1) * BLOCK / CELL];
            let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
            builder.block(MEMORY, u32::try_from(block).expect("few blocks"), &bytes);
        }
        builder.bytes(GLOBALS, &talks_bytes(&self.sockets));
    }

    fn read_back(&mut self, image: &Image) -> Result<(), String> {
        let space = |name: &str| {
            image.read_all(name).ok_or_else(|| alloc::format!("the state has no `{name}`"))
        };
        let memory = space(MEMORY)?;
        let globals = space(GLOBALS)?;
        for (counter, bytes) in self.counters.iter_mut().zip(memory.chunks_exact(CELL)) {
            let mut eight = [0; CELL];
            eight.copy_from_slice(bytes);
            *counter = u64::from_le_bytes(eight);
        }
        self.dirty.clear();
        self.sockets = talks(&globals).ok_or("the state's `globals` are damaged")?;
        Ok(())
    }

    fn memory(&self) -> ByteCount {
        ByteCount((COUNTERS * CELL) as u64)
    }
}

fn talks_bytes(sockets: &BTreeMap<u32, Talk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (socket, talk) in sockets {
        bytes.extend(socket.to_le_bytes());
        put_part(&mut bytes, &talk.request);
        put_part(&mut bytes, &talk.answer);
    }
    bytes
}

fn talks(mut bytes: &[u8]) -> Option<BTreeMap<u32, Talk>> {
    let mut sockets = BTreeMap::new();
    while !bytes.is_empty() {
        let socket = number(&mut bytes)?;
        let (request, answer) = (part(&mut bytes)?, part(&mut bytes)?);
        sockets.insert(socket, Talk { request, answer });
    }
    Some(sockets)
}
