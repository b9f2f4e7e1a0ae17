//! The fake engine: a whole program as a value, for the simulator.
//!
//! The frame around a program is here; programs are values too ([`Program`]). The usual one keeps
//! counters and serves a tiny protocol on its first port ([`counters`]); another one, for the
//! conformance suite, does what it is told (`actor`).
//!
//! What it does not know: threads, time (it answers in place).
//!
//! Invariants: as the contract in [`crate`]. The state is in three byte spaces: `memory.0` and
//! `globals` (the program's), `sockets` (the [`InstanceEnd`]).

#[cfg(any(test, feature = "conformance"))]
mod actor;
mod counters;
mod mistake;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::Debug;

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_streams::InstanceEnd;
use jizoku_streams::instance;
use jizoku_types::{ByteCount, Instant, Span};

use crate::{Exit, Identity, Input, Instance, Origin, Output, Pulse, Usage};

pub use counters::{ANSWER, COUNTERS, Op, REQUEST, answer, request};
pub use mistake::Mistake;

const MEMORY: &str = "memory.0";
const GLOBALS: &str = "globals";
const SOCKETS: &str = "sockets";

/// A program as a value.
trait Program: Debug + Send {
    /// Runs until it waits; why it ended, if it did.
    fn run(&mut self, now: Instant, end: &mut InstanceEnd) -> Option<Exit>;
    /// Puts what changed since the last call into a diff.
    fn write_down(&mut self, builder: &mut DiffBuilder);
    /// Takes its state from an image. The error says what is wrong with it.
    fn read_back(&mut self, image: &Image) -> Result<(), String>;
    /// Bytes of its memory.
    fn memory(&self) -> ByteCount;
    /// When it goes on although nothing comes in.
    fn deadline(&self) -> Option<Instant> {
        None
    }
    /// Since when it has computed without end, if it does.
    fn busy_since(&self) -> Option<Instant> {
        None
    }
    /// Plants a mistake, if it is one of a program.
    #[cfg(any(test, all(feature = "conformance", feature = "faults")))]
    fn plant(&mut self, _mistake: Mistake) {}
}

/// A running fake program.
#[derive(Debug)]
pub struct FakeInstance {
    end: InstanceEnd,
    ports: usize,
    program: Box<dyn Program>,
    image: Image,
    /// The number of a capture that a program without pauses has not let happen.
    wanted: Option<u64>,
    said_changed: bool,
    said_waits: bool,
    ended: bool,
    outputs: VecDeque<Output>,
    #[cfg(any(test, feature = "faults"))]
    mistake: Option<Mistake>,
}

impl FakeInstance {
    /// Starts the counters with this many ports. `noise` makes this run's answers differ from
    /// another's.
    pub fn start(identity: &Identity, ports: usize, origin: Origin, noise: u64) -> FakeInstance {
        let program = Box::new(counters::Counters::new(noise));
        let mut fake = FakeInstance::new(identity, ports, program);
        fake.begin(identity, origin);
        fake
    }

    /// Starts the program that the conformance suite talks to, with one port.
    #[cfg(any(test, feature = "conformance"))]
    pub fn start_actor(identity: &Identity, origin: Origin) -> FakeInstance {
        let mut fake = FakeInstance::new(identity, 1, Box::new(actor::Actor::new()));
        fake.begin(identity, origin);
        fake
    }

    /// As [`start_actor`](FakeInstance::start_actor), with a mistake.
    #[cfg(any(test, all(feature = "conformance", feature = "faults")))]
    pub fn start_mistaken(identity: &Identity, origin: Origin, mistake: Mistake) -> FakeInstance {
        let mut fake = FakeInstance::new(identity, 1, Box::new(actor::Actor::new()));
        fake.mistake = Some(mistake);
        fake.program.plant(mistake);
        fake.begin(identity, origin);
        fake
    }

    fn new(identity: &Identity, ports: usize, program: Box<dyn Program>) -> FakeInstance {
        FakeInstance {
            end: InstanceEnd::new(of_streams(identity), ports),
            ports,
            program,
            image: Image::empty(),
            wanted: None,
            said_changed: false,
            said_waits: false,
            ended: false,
            outputs: VecDeque::new(),
            #[cfg(any(test, feature = "faults"))]
            mistake: None,
        }
    }

    fn begin(&mut self, identity: &Identity, origin: Origin) {
        if let Origin::Restored { image, seq } = origin
            && let Err(why) = self.restore(identity, image, seq)
        {
            let trusts = self.mistaken(Mistake::TrustsAnyState);
            if !trusts {
                return self.exit(Exit::CannotStart(why));
            }
        }
        self.outputs.push_back(Output::Running { took: Span::millis(1) });
    }

    fn restore(&mut self, identity: &Identity, image: Image, seq: u64) -> Result<(), String> {
        let sockets = image.read_all(SOCKETS).ok_or("the state has no `sockets`")?;
        self.program.read_back(&image)?;
        self.end = InstanceEnd::restore(of_streams(identity), self.ports, seq, &sockets)
            .map_err(|why| alloc::format!("{why}"))?;
        self.image = image;
        Ok(())
    }

    fn exit(&mut self, exit: Exit) {
        self.ended = true;
        if self.mistaken(Mistake::EndsTwice) {
            self.outputs.push_back(Output::Exited { exit: exit.clone() });
        }
        self.outputs.push_back(Output::Exited { exit });
    }

    fn capture(&mut self, seq: u64) {
        if self.program.busy_since().is_some() {
            self.wanted = Some(seq);
            return;
        }
        let mut builder = DiffBuilder::new(Some(self.image.clone()));
        self.program.write_down(&mut builder);
        let sockets = self.end.capture(seq);
        if !self.mistaken(Mistake::OldConnections) || self.image == Image::empty() {
            builder.bytes(SOCKETS, &sockets);
        }
        let diff = builder.finish();
        self.image.apply_unrooted(&diff).expect("its own diff fits its own image");
        self.said_changed = false;
        self.said_waits = false;
        if self.mistaken(Mistake::AnswersTwice) {
            let (diff, pause) = (diff.clone(), Span::ZERO);
            self.outputs.push_back(Output::Captured { seq, diff, pause });
        }
        self.outputs.push_back(Output::Captured { seq, diff, pause: Span::micros(100) });
    }

    fn tell(&mut self, now: Instant) {
        while let Some((gateway, message)) = self.end.poll() {
            self.outputs.push_back(Output::ToGateway { gateway, message });
        }
        self.end.advance(now);
        let waits = self.end.output_waits();
        let changed = self.end.changed() || waits;
        if self.mistaken(Mistake::HidesChanges) {
            return;
        }
        if changed && (!self.said_changed || (waits && !self.said_waits)) {
            self.said_changed = true;
            self.said_waits |= waits;
            self.outputs.push_back(Output::Changed { output_waits: waits });
        }
    }

    /// Whether this mistake was planted.
    #[cfg(any(test, feature = "faults"))]
    fn mistaken(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    #[cfg(not(any(test, feature = "faults")))]
    fn mistaken(&self, _mistake: Mistake) -> bool {
        false
    }
}

impl Instance for FakeInstance {
    fn handle(&mut self, now: Instant, input: Input) {
        if self.ended && !self.mistaken(Mistake::GoesOnAfterEnd) {
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
            Input::Stop if self.mistaken(Mistake::LoopsForEver) && self.is_busy() => {}
            Input::Stop => return self.exit(Exit::Stopped),
        }
        if let Some(exit) = self.program.run(now, &mut self.end) {
            return self.exit(exit);
        }
        self.tell(now);
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        self.end.deadline().into_iter().chain(self.program.deadline()).min()
    }

    fn usage(&self) -> Usage {
        Usage { pid: None, cpu: Span::ZERO, memory: self.program.memory() }
    }

    fn pulse(&self, now: Instant) -> Pulse {
        let silent = self.program.busy_since().map_or(Span::ZERO, |since| now.since(since));
        // Unless it computes it accepts at once.
        let waits = |port| if self.end.pending(port) > 0 { silent } else { Span::ZERO };
        Pulse { runs: !self.ended, silent, unaccepted: (0..self.ports).map(waits).collect() }
    }
}

impl FakeInstance {
    fn is_busy(&self) -> bool {
        self.program.busy_since().is_some()
    }
}

#[cfg(feature = "faults")]
impl FakeInstance {
    /// Plants bugs in its end of the streams. Right after making it.
    pub fn plant_in_streams(&mut self, faults: jizoku_streams::faults::Faults) {
        self.end.set_faults(faults);
    }
}

fn of_streams(identity: &Identity) -> instance::Identity {
    let Identity { service, epoch, held } = *identity;
    instance::Identity { service, epoch, held, survives: true }
}

/// Takes a number from the front.
fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*four))
}

/// Takes some bytes with their count from the front.
fn part(bytes: &mut &[u8]) -> Option<alloc::vec::Vec<u8>> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part.to_vec())
}

/// Appends some bytes with their count.
fn put_part(bytes: &mut alloc::vec::Vec<u8>, part: &[u8]) {
    bytes.extend(u32::try_from(part.len()).expect("a short talk").to_le_bytes());
    bytes.extend(part);
}
