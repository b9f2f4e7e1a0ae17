//! Connections, and what each client has asked for.
//!
//! What it does not know: how one waits for several descriptors; each engine's side tells it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;
/// Bytes that wait to be sent, before no more are read.
const OUTPUT_MAX: usize = 64 << 10;

/// A descriptor to be waited for.
pub(crate) struct Polled<'f> {
    /// Which.
    pub(crate) fd: BorrowedFd<'f>,
    /// Until it can be read.
    pub(crate) read: bool,
    /// Until it can be written.
    pub(crate) write: bool,
    /// It can, or something else is with it.
    pub(crate) ready: bool,
    /// It is of no more use.
    pub(crate) broken: bool,
}

/// Waits until one of them is ready, or for so long.
pub(crate) type Wait = fn(&mut [Polled<'_>], Option<Duration>) -> io::Result<()>;

/// What is under way with one client.
struct Talk {
    stream: TcpStream,
    /// 0 until it has come.
    verb: u8,
    input: Vec<u8>,
    output: Vec<u8>,
    due: Option<Instant>,
    /// More may come from the client.
    reads: bool,
    /// Closed when the output is out.
    closing: bool,
    broken: bool,
}

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener, wait: Wait) -> io::Result<()> {
    let began = Instant::now();
    listener.set_nonblocking(true)?;
    let mut talks: Vec<Talk> = Vec::new();
    loop {
        let mut polled: Vec<Polled<'_>> = talks.iter().map(Talk::polled).collect();
        polled.push(entry(listener.as_fd(), true, false));
        let due = talks.iter().filter_map(|talk| talk.due).min();
        match wait(&mut polled, due.map(|due| due.saturating_duration_since(Instant::now()))) {
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        let ready: Vec<(bool, bool)> = polled.iter().map(|one| (one.ready, one.broken)).collect();
        let accepts = ready.last().is_some_and(|(ready, _)| *ready);
        for (number, (ready, broken)) in ready[..talks.len()].iter().enumerate() {
            let open = talks.len() as u64;
            let talk = &mut talks[number];
            if *ready && talk.reads {
                talk.read(open, began);
            } else if *broken && !talk.has_output() {
                talk.broken = true;
            }
            talk.look_at_the_clock();
            talk.write();
        }
        talks.retain(|talk| !talk.is_over());
        if accepts {
            accept(listener, &mut talks)?;
        }
    }
}

/// Takes all clients that wait.
fn accept(listener: &TcpListener, talks: &mut Vec<Talk>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => talks.push(Talk::new(stream)?),
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The client that was waiting has gone; there may be others.
            Err(why) if why.kind() == ErrorKind::ConnectionAborted => {}
            Err(why) => return Err(why),
        }
    }
}

fn entry(fd: BorrowedFd<'_>, read: bool, write: bool) -> Polled<'_> {
    Polled { fd, read, write, ready: false, broken: false }
}

impl Talk {
    fn new(stream: TcpStream) -> io::Result<Talk> {
        stream.set_nonblocking(true)?;
        Ok(Talk {
            stream,
            verb: 0,
            input: Vec::new(),
            output: Vec::new(),
            due: None,
            reads: true,
            closing: false,
            broken: false,
        })
    }

    fn polled(&self) -> Polled<'_> {
        let reads = self.reads && self.output.len() < OUTPUT_MAX;
        entry(self.stream.as_fd(), reads, self.has_output())
    }

    fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn is_over(&self) -> bool {
        self.broken || (self.closing && !self.has_output())
    }

    fn read(&mut self, open: u64, began: Instant) {
        if self.output.len() >= OUTPUT_MAX {
            return;
        }
        let mut room = [0; CHUNK];
        match self.stream.read(&mut room) {
            Ok(0) => self.client_ended(),
            Ok(count) => self.take(&room[..count], open, began),
            Err(why) if is_temporary(&why) => {}
            Err(_) => self.broken = true,
        }
    }

    fn client_ended(&mut self) {
        self.reads = false;
        self.closing = true;
        if self.verb == b'k' {
            self.output.append(&mut self.input);
        }
    }

    fn take(&mut self, bytes: &[u8], open: u64, began: Instant) {
        let mut rest = bytes;
        if self.verb == 0 {
            self.verb = rest[0];
            rest = &rest[1..];
            match self.verb {
                b'f' => drop(self.stream.shutdown(Shutdown::Write)),
                b'd' => self.reads = false,
                b'n' => {
                    self.output.extend(open.to_le_bytes());
                    self.reads = false;
                    self.closing = true;
                }
                b'x' => std::process::abort(),
                b'l' => compute(),
                b'm' => take_memory(),
                _ => {}
            }
        }
        match self.verb {
            b'e' => self.output.extend(rest),
            b'k' => self.input.extend(rest),
            b'c' => {
                let clock = began.elapsed().as_nanos() as u64;
                rest.iter().for_each(|_| self.output.extend(clock.to_le_bytes()));
            }
            b's' if !rest.is_empty() => std::process::exit(i32::from(rest[0])),
            b't' => {
                self.input.extend(rest);
                if let Some(millis) = self.input.first_chunk::<4>() {
                    let span = Duration::from_millis(u32::from_le_bytes(*millis).into());
                    self.due = Some(Instant::now() + span);
                    self.reads = false;
                }
            }
            b'p' => {
                self.input.extend(rest);
                if let Some(line) = self.input.strip_suffix(b"\n") {
                    println!("{}", String::from_utf8_lossy(line));
                    self.input.clear();
                }
            }
            _ => {}
        }
    }

    fn look_at_the_clock(&mut self) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            self.output.push(b'!');
            self.closing = true;
        }
    }

    fn write(&mut self) {
        while self.has_output() && !self.broken {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(why) if is_temporary(&why) => return,
                Err(_) => self.broken = true,
            }
        }
    }
}

fn is_temporary(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Never comes back, and makes no call.
fn compute() {
    let mut number = 1u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(3));
    }
}

/// Ends with the memory.
fn take_memory() {
    let mut all = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}
