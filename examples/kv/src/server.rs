//! Connections, and the loop that serves them.
//!
//! Limits: [`CONNECTIONS_MAX`] connections, further clients wait to be accepted. A client that does
//! not read its replies is not read either, once [`OUTPUT_MAX`] of them wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use crate::commands::{After, execute};
use crate::resp::{Parsed, error, parse};
use crate::store::Store;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 10_000;
/// Replies of one connection that wait to be sent, before it is not read any more.
const OUTPUT_MAX: usize = 1 << 20;
/// Bytes that are read from one connection before it is the next one's turn.
const READ_MAX: usize = 64 << 10;

/// The listener, the connections, and the keys.
pub struct Server {
    listener: TcpListener,
    connections: Vec<Connection>,
    store: Store,
}

struct Connection {
    stream: TcpStream,
    /// Received and not yet understood.
    input: Vec<u8>,
    /// How many bytes there must be before it makes sense to look again.
    wanted: usize,
    /// To be sent, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// The client sends nothing more; what it has asked is still answered.
    ended: bool,
    /// Nothing more is answered; it is closed once everything has been sent.
    closing: bool,
}

impl Server {
    /// Takes the listener over.
    pub fn new(listener: TcpListener) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        Ok(Server { listener, connections: Vec::new(), store: Store::default() })
    }

    /// Serves for ever.
    pub fn run(&mut self) -> io::Result<()> {
        let mut polled = Vec::new();
        let mut scratch = vec![0; READ_MAX];
        loop {
            self.list(&mut polled);
            poll(&mut polled)?;
            // The listener is the last one, if there is room for more.
            if polled.len() > self.connections.len()
                && polled.pop().is_some_and(|listener| listener.revents != 0)
            {
                self.accept()?;
            }
            for (connection, events) in self.connections.iter_mut().zip(&polled) {
                if events.revents != 0 {
                    connection.serve(&mut self.store, &mut scratch);
                }
            }
            self.connections.retain(|connection| !connection.is_over());
        }
    }

    /// What to wait for.
    fn list(&self, polled: &mut Vec<libc::pollfd>) {
        polled.clear();
        polled.extend(self.connections.iter().map(|connection| {
            let read = if connection.reads() { libc::POLLIN } else { 0 };
            let write = if connection.has_output() { libc::POLLOUT } else { 0 };
            entry(connection.stream.as_raw_fd(), read | write)
        }));
        if self.connections.len() < CONNECTIONS_MAX {
            polled.push(entry(self.listener.as_raw_fd(), libc::POLLIN));
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while self.connections.len() < CONNECTIONS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => self.connections.push(Connection::new(stream)?),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                // The client that was waiting has gone; there may be others.
                Err(why) if why.kind() == ErrorKind::ConnectionAborted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        // A reply is written at once, so waiting for more to send would only delay it. Not every
        // system knows the option; it is not needed for being right.
        let _ = stream.set_nodelay(true);
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Connection { stream, input, wanted: 1, output, sent: 0, ended: false, closing: false })
    }

    fn reads(&self) -> bool {
        !self.ended && self.answers()
    }

    fn answers(&self) -> bool {
        !self.closing && self.output.len() - self.sent < OUTPUT_MAX
    }

    fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Without output, every complete request has been answered.
    fn is_over(&self) -> bool {
        (self.closing || self.ended) && !self.has_output()
    }

    /// Reads, answers, and writes what can be written at once.
    fn serve(&mut self, store: &mut Store, scratch: &mut [u8]) {
        if self.reads() {
            match self.stream.read(scratch) {
                // A client that has closed its side may still wait for replies.
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    self.answer(store);
                }
                Err(why) if is_temporary(&why) => {}
                Err(_) => return self.give_up(),
            }
        }
        // What waited for room in the output goes on when there is some.
        while self.has_output() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(why) if is_temporary(&why) => break,
                Err(_) => return self.give_up(),
            }
            if !self.has_output() {
                self.output.clear();
                self.sent = 0;
                self.answer(store);
            }
        }
    }

    /// Answers the requests that are complete, as long as there is room for replies.
    fn answer(&mut self, store: &mut Store) {
        let mut at = 0;
        while self.answers() && self.input.len() - at >= self.wanted {
            match parse(&self.input[at..]) {
                Parsed::Request(words, length) => {
                    if execute(store, &words, &mut self.output) == After::Close {
                        self.closing = true;
                    }
                    at += length;
                    self.wanted = 1;
                }
                Parsed::Incomplete(least) => self.wanted = least,
                Parsed::Garbage(why) => {
                    error(&mut self.output, &format!("ERR Protocol error: {why}"));
                    self.closing = true;
                }
            }
        }
        self.input.drain(..at);
    }

    /// The connection is broken.
    fn give_up(&mut self) {
        self.closing = true;
        self.output.clear();
        self.sent = 0;
    }
}

fn entry(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Waits until one of them is ready.
fn poll(polled: &mut [libc::pollfd]) -> io::Result<()> {
    const NO_TIMEOUT: libc::c_int = -1;
    loop {
        // SAFETY: the pointer and the length are those of one slice, which may be written to.
        let ready =
            unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, NO_TIMEOUT) };
        if ready >= 0 {
            return Ok(());
        }
        let why = io::Error::last_os_error();
        if why.kind() != ErrorKind::Interrupted {
            return Err(why);
        }
    }
}

fn is_temporary(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
