//! The program that the conformance suite talks to, as a value; see `conformance::verb`.
//!
//! Its talks are in the space `memory.0`, its clock in `globals`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_streams::InstanceEnd;
use jizoku_streams::instance::{Read, Shutdown, Socket, Write};
use jizoku_types::{ByteCount, Instant};

use super::{GLOBALS, MEMORY, Mistake, Program, number, part, put_part};
use crate::Exit;
use crate::conformance::verb;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;
/// Clock of a program that has just begun, in nanoseconds.
const BEGINNING: u64 = 1_000_000_000;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Actor {
    talks: BTreeMap<u32, Talk>,
    /// What the program's clock showed when it was last written down, or at its beginning.
    clock: u64,
    /// The owner's clock when `clock` was right; none before the first input.
    since: Option<Instant>,
    busy: Option<Instant>,
    now: Instant,
    mistake: Option<Mistake>,
    /// Differs in each state, for a mistake.
    captures: u8,
}

/// What is under way with one client.
#[derive(Clone, Debug, Default)]
struct Talk {
    /// 0 until it has come.
    verb: u8,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Time of the clock to answer at; 0: none.
    due: u64,
    /// Nothing more is read; closed when the output is out.
    closing: bool,
}

impl Actor {
    pub(super) fn new() -> Actor {
        Actor {
            talks: BTreeMap::new(),
            clock: BEGINNING,
            since: None,
            busy: None,
            now: Instant::ORIGIN,
            mistake: None,
            captures: 0,
        }
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn clock(&self) -> u64 {
        self.clock + self.since.map_or(0, |since| self.now.since(since).as_nanos())
    }

    fn serve(&mut self, end: &mut InstanceEnd, socket: Socket) -> Option<Exit> {
        while self.busy.is_none() && self.flush(end, socket) {
            let clock = self.clock();
            let talk = self.talks.get_mut(&socket.0)?;
            if talk.closing {
                self.talks.remove(&socket.0);
                end.close(socket);
                return None;
            }
            if talk.due > 0 {
                if talk.due > clock {
                    return None;
                }
                talk.output.push(b'!');
                talk.closing = true;
                continue;
            }
            let deaf = talk.verb == verb::DEAF;
            if deaf && self.mistake != Some(Mistake::ReadsAhead) {
                return None;
            }
            match end.read(socket, CHUNK) {
                Read::Data(bytes) => {
                    if let Some(exit) = self.take(end, socket, &bytes) {
                        return Some(exit);
                    }
                }
                Read::WouldBlock => return None,
                Read::Eof => self.client_ended(socket),
                Read::Reset if self.has(Mistake::KeepsReset) => return None,
                Read::Reset => {
                    self.talks.remove(&socket.0);
                    end.close(socket);
                    return None;
                }
            }
        }
        None
    }

    fn client_ended(&mut self, socket: Socket) {
        let ends = self.has(Mistake::EndsWithClient);
        let Some(talk) = self.talks.get_mut(&socket.0) else { return };
        talk.closing = true;
        if talk.verb == verb::KEEP && !ends {
            talk.output = core::mem::take(&mut talk.input);
        }
    }

    /// Writes what waits; false if the window is full or the connection broken.
    fn flush(&mut self, end: &mut InstanceEnd, socket: Socket) -> bool {
        let Some(talk) = self.talks.get_mut(&socket.0) else { return false };
        while !talk.output.is_empty() {
            match end.write(socket, &talk.output) {
                Write::Written(count) => drop(talk.output.drain(..count)),
                Write::WouldBlock => return false,
                Write::Closed | Write::Reset => {
                    self.talks.remove(&socket.0);
                    end.close(socket);
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, end: &mut InstanceEnd, socket: Socket, bytes: &[u8]) -> Option<Exit> {
        let open = self.talks.len() as u64;
        let clock = self.clock();
        let talk = self.talks.get_mut(&socket.0)?;
        let mut rest = bytes;
        if talk.verb == 0 {
            talk.verb = *rest.split_off_first()?;
            match talk.verb {
                verb::FINISH if self.mistake != Some(Mistake::HidesEnd) => {
                    end.shutdown(socket, Shutdown::Write);
                }
                verb::COUNT => {
                    talk.output.extend(open.to_le_bytes());
                    talk.closing = true;
                }
                verb::CRASH if self.mistake == Some(Mistake::CrashIsStop) => {
                    return Some(Exit::Stopped);
                }
                verb::CRASH => return Some(Exit::Crashed(String::from("it was told to crash"))),
                verb::HOG => return Some(Exit::Crashed(String::from("no memory left"))),
                verb::LOOP => self.busy = Some(self.now),
                _ => {}
            }
        }
        match talk.verb {
            verb::ECHO => talk.output.extend(rest),
            verb::KEEP => talk.input.extend(rest),
            verb::CLOCK => rest.iter().for_each(|_| talk.output.extend(clock.to_le_bytes())),
            verb::STATUS if !rest.is_empty() => return Some(Exit::Status(i32::from(rest[0]))),
            verb::TIMER => {
                talk.input.extend(rest);
                if let Some(four) = talk.input.first_chunk::<4>() {
                    let millis = u64::from(u32::from_le_bytes(*four));
                    talk.due = clock + millis * 1_000_000;
                }
            }
            _ => {}
        }
        None
    }
}

impl Program for Actor {
    fn run(&mut self, now: Instant, end: &mut InstanceEnd) -> Option<Exit> {
        self.now = now;
        self.since.get_or_insert(now);
        if self.busy.is_some() {
            return None;
        }
        while let Some(socket) = end.accept(0) {
            self.talks.insert(socket.0, Talk::default());
        }
        let open: Vec<u32> = self.talks.keys().copied().collect();
        open.into_iter().find_map(|socket| self.serve(end, Socket(socket)))
    }

    fn write_down(&mut self, builder: &mut DiffBuilder) {
        let mut bytes = Vec::new();
        for (socket, talk) in &self.talks {
            bytes.extend(socket.to_le_bytes());
            let due = if self.has(Mistake::TimersLost) { u64::MAX } else { talk.due };
            let due = if talk.due == 0 { 0 } else { due };
            put_part(&mut bytes, &[talk.verb, u8::from(talk.closing)]);
            put_part(&mut bytes, &due.to_le_bytes());
            put_part(&mut bytes, &talk.input);
            let twice = [&talk.output[..], &talk.output[..]].concat();
            put_part(
                &mut bytes,
                match self.mistake {
                    Some(Mistake::LosesUnsent) => &[],
                    Some(Mistake::DoublesUnsent) => &twice,
                    _ => &talk.output,
                },
            );
        }
        builder.bytes(MEMORY, &bytes);
        self.captures = self.captures.wrapping_add(1);
        let mut globals = self.clock().to_le_bytes().to_vec();
        if self.has(Mistake::AlwaysDirty) {
            globals.extend([self.captures; 5 * 4096]);
        }
        builder.bytes(GLOBALS, &globals);
    }

    fn read_back(&mut self, image: &Image) -> Result<(), String> {
        let space = |name: &str| {
            image.read_all(name).ok_or_else(|| alloc::format!("the state has no `{name}`"))
        };
        let (memory, globals) = (space(MEMORY)?, space(GLOBALS)?);
        self.talks = talks(&memory).ok_or("the state's `memory.0` is damaged")?;
        let clock = globals.first_chunk::<8>().ok_or("the state's `globals` are damaged")?;
        let anew = self.has(Mistake::ClockRestarts);
        self.clock = if anew { 0 } else { u64::from_le_bytes(*clock) };
        Ok(())
    }

    fn memory(&self) -> ByteCount {
        let of_one = |talk: &Talk| (talk.input.len() + talk.output.len()) as u64;
        ByteCount(4096 + self.talks.values().map(of_one).sum::<u64>())
    }

    fn deadline(&self) -> Option<Instant> {
        let due = self.talks.values().filter(|talk| talk.due > 0 && !talk.closing);
        let due = due.map(|talk| talk.due).min().filter(|due| *due < u64::MAX)?;
        Some(self.since? + jizoku_types::Span::nanos(due.saturating_sub(self.clock)))
    }

    fn busy_since(&self) -> Option<Instant> {
        self.busy
    }

    #[cfg(any(test, all(feature = "conformance", feature = "faults")))]
    fn plant(&mut self, mistake: Mistake) {
        self.mistake = Some(mistake);
    }
}

fn talks(mut bytes: &[u8]) -> Option<BTreeMap<u32, Talk>> {
    let mut talks = BTreeMap::new();
    while !bytes.is_empty() {
        let socket = number(&mut bytes)?;
        let [verb, closing] = part(&mut bytes)?.try_into().ok()?;
        let due = u64::from_le_bytes(part(&mut bytes)?.try_into().ok()?);
        let (input, output) = (part(&mut bytes)?, part(&mut bytes)?);
        talks.insert(socket, Talk { verb, input, output, due, closing: closing != 0 });
    }
    Some(talks)
}
