//! One client's connection: between its stream and a socket of the program.
//!
//! What it does not know: the other connections; what the bytes mean.
//!
//! Invariants
//! - Bytes leave the stream only when those before have gone into the socket, and are read from the
//!   socket only as many as the stream takes now.
//! - Each end's end is passed on as what it was: end of input, or reset.
//! - A call of [`Conn::pump`] moves at most [`SHARE`] bytes in each direction.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown as TcpShutdown, SocketAddr};
use std::time::{Duration, Instant as Moment};

use jizoku_streams::InstanceEnd;
use jizoku_streams::instance::{ReadInto, Shutdown, Socket, Write};
use jizoku_types::ConnId;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Most bytes in each direction in one go.
const SHARE: usize = 256 << 10;
/// Bytes that are moved at once.
pub(super) const CHUNK: usize = 64 << 10;
/// Time between two tries to connect.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A connection.
pub(super) struct Conn {
    id: ConnId,
    port: usize,
    address: SocketAddr,
    /// When the program was first offered it.
    since: Moment,
    /// When connecting has failed for good.
    give_up: Moment,
    tcp: Option<TcpStream>,
    connected: bool,
    readable: bool,
    /// The system said that nothing follows what is to be read now: its end must be read too.
    ending: bool,
    writable: bool,
    /// Taken from the stream, but not yet by the program: the bytes from `sent` on.
    pending: Vec<u8>,
    sent: usize,
    client_ended: bool,
    program_told: bool,
    program_ended: bool,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Nothing more can be moved now.
    Waits,
    /// It has had its share.
    HasMore,
    /// The program didn't take the connection; try again then.
    Retry(Moment),
    /// It is closed on both sides.
    Over,
}

/// Why nothing more can be moved on a connection.
enum Broken {
    /// Both ends are through.
    Done,
    /// The program broke it, or can't be connected to.
    ByProgram,
    /// The client or its gateway broke it.
    ByClient,
    /// Not connected yet.
    NotYet(Pumped),
}

impl Conn {
    pub(super) fn new(
        id: ConnId,
        port: usize,
        address: SocketAddr,
        since: Moment,
        give_up: Moment,
    ) -> Conn {
        Conn {
            id,
            port,
            address,
            since,
            give_up,
            tcp: None,
            connected: false,
            readable: false,
            ending: false,
            writable: false,
            pending: Vec::new(),
            sent: 0,
            client_ended: false,
            program_told: false,
            program_ended: false,
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.id
    }

    /// Whether the program, or the system for it, has taken the connection.
    pub(super) fn is_taken(&self) -> bool {
        self.connected
    }

    /// The port's index, and since when the program has been offered it.
    pub(super) fn offered(&self) -> (usize, Moment) {
        (self.port, self.since)
    }

    /// The system says that something can be done.
    pub(super) fn note(&mut self, event: &Event) {
        self.ending |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Moves what can be moved, through `room`, which has [`CHUNK`] bytes and is the same for all
    /// connections. On `Over` the stream's socket is closed too.
    pub(super) fn pump(
        &mut self,
        socket: Socket,
        end: &mut InstanceEnd,
        (registry, token): (&Registry, Token),
        room: &mut [u8],
    ) -> Pumped {
        // Looked at first: with input that the program doesn't take it would not be noticed.
        if end.readable(socket).reset {
            return self.abort(socket, end);
        }
        match self.try_pump(socket, end, (registry, token), room) {
            Ok(pumped) | Err(Broken::NotYet(pumped)) => pumped,
            Err(Broken::Done) => {
                end.close(socket);
                Pumped::Over
            }
            Err(Broken::ByProgram) => {
                end.reset(socket);
                Pumped::Over
            }
            Err(Broken::ByClient) => self.abort(socket, end),
        }
    }

    /// Breaks the program's side as the client's was broken.
    fn abort(&mut self, socket: Socket, end: &mut InstanceEnd) -> Pumped {
        if let Some(tcp) = &self.tcp {
            // Closing then sends a reset. If it can't be set, the program sees an end instead.
            let _ = rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
        }
        end.close(socket);
        Pumped::Over
    }

    fn try_pump(
        &mut self,
        socket: Socket,
        end: &mut InstanceEnd,
        (registry, token): (&Registry, Token),
        room: &mut [u8],
    ) -> Result<Pumped, Broken> {
        self.connect(registry, token)?;
        let more_in = self.move_input(socket, end)?;
        let more_out = self.move_output(socket, end, room)?;
        if self.program_ended && self.program_told {
            return Err(Broken::Done);
        }
        Ok(if more_in || more_out { Pumped::HasMore } else { Pumped::Waits })
    }

    /// Goes on connecting, unless that is done.
    fn connect(&mut self, registry: &Registry, token: Token) -> Result<(), Broken> {
        if self.connected {
            return Ok(());
        }
        let Some(tcp) = &self.tcp else {
            let mut tcp = TcpStream::connect(self.address).map_err(|_| self.refused())?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut tcp, token, interest).map_err(|_| Broken::ByProgram)?;
            self.tcp = Some(tcp);
            return Err(Broken::NotYet(Pumped::Waits));
        };
        if !self.writable {
            return Err(Broken::NotYet(Pumped::Waits));
        }
        let refused = tcp.take_error().is_ok_and(|error| error.is_some());
        match tcp.peer_addr() {
            Ok(_) if !refused => {
                // Small answers must not wait for more.
                let _ = tcp.set_nodelay(true);
                self.connected = true;
                Ok(())
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotConnected && !refused => {
                self.writable = false;
                Err(Broken::NotYet(Pumped::Waits))
            }
            _ => {
                self.tcp = None;
                self.readable = false;
                self.ending = false;
                self.writable = false;
                Err(self.refused())
            }
        }
    }

    /// The program didn't take it: perhaps it is busy with something else for a moment.
    fn refused(&self) -> Broken {
        let at = Moment::now() + RETRY_AFTER;
        if at < self.give_up { Broken::NotYet(Pumped::Retry(at)) } else { Broken::ByProgram }
    }

    /// Moves input; true if there is more.
    fn move_input(&mut self, socket: Socket, end: &mut InstanceEnd) -> Result<bool, Broken> {
        let mut left = SHARE;
        loop {
            if self.sent == self.pending.len() && !self.client_ended {
                self.refill(socket, end)?;
            }
            if self.sent == self.pending.len() {
                break;
            }
            if left == 0 {
                return Ok(self.writable);
            }
            if !self.writable {
                return Ok(false);
            }
            let tcp = self.tcp.as_mut().expect("connected");
            match tcp.write(&self.pending[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    left = left.saturating_sub(count);
                }
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.input_unwanted(socket, end),
            }
        }
        if self.client_ended && !self.program_told {
            self.program_told = true;
            let tcp = self.tcp.as_ref().expect("connected");
            // It fails only if the program has broken the connection, which reading tells.
            let _ = tcp.shutdown(TcpShutdown::Write);
        }
        Ok(false)
    }

    /// Takes the next bytes from the stream.
    fn refill(&mut self, socket: Socket, end: &mut InstanceEnd) -> Result<(), Broken> {
        self.pending.resize(CHUNK.min(end.readable(socket).bytes.max(1)), 0);
        self.sent = 0;
        let taken = match end.read_into(socket, &mut self.pending, false) {
            ReadInto::Data(count) => count,
            ReadInto::WouldBlock => 0,
            ReadInto::Eof => {
                self.client_ended = true;
                0
            }
            ReadInto::Reset => return Err(Broken::ByClient),
        };
        self.pending.truncate(taken);
        Ok(())
    }

    /// The program takes no more input, but may have left output to be read.
    fn input_unwanted(&mut self, socket: Socket, end: &mut InstanceEnd) -> Result<bool, Broken> {
        self.pending.clear();
        self.sent = 0;
        self.client_ended = true;
        self.program_told = true;
        self.readable = true;
        end.shutdown(socket, Shutdown::Read);
        Ok(false)
    }

    /// Moves output; true if there is more.
    fn move_output(
        &mut self,
        socket: Socket,
        end: &mut InstanceEnd,
        room: &mut [u8],
    ) -> Result<bool, Broken> {
        let mut left = SHARE;
        while self.readable && !self.program_ended {
            let space = end.writable(socket).min(CHUNK);
            if space == 0 {
                // It will be pumped again when the client has confirmed something.
                return Ok(false);
            }
            if left == 0 {
                return Ok(true);
            }
            let tcp = self.tcp.as_mut().expect("connected");
            match tcp.read(&mut room[..space]) {
                Ok(0) => {
                    self.program_ended = true;
                    end.shutdown(socket, Shutdown::Write);
                }
                Ok(count) => {
                    left = left.saturating_sub(count);
                    // Else the socket is empty: what comes next is told as an event of its own.
                    self.readable = count == space || self.ending;
                    match end.write(socket, &room[..count]) {
                        Write::Written(taken) => assert_eq!(taken, count, "there was room"),
                        Write::WouldBlock => unreachable!("there was room"),
                        Write::Closed => return Err(Broken::ByProgram),
                        Write::Reset => return Err(Broken::ByClient),
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::ByProgram),
            }
        }
        Ok(false)
    }
}
