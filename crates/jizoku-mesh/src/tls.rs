//! One TLS connection as a value: bytes in, bytes out, no socket.
//!
//! It decrypts into one buffer and encrypts out of one staging record, so that many small frames
//! become one record, and large ones aren't copied before they are encrypted.
//!
//! What it does not know: sockets, frames, who is allowed.
//!
//! Invariants
//! - Nothing is given out before the handshake is over.
//! - Unread and unsent bytes are bounded by the limits below.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::BytesMut;
use jizoku_types::NodeId;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, ServerConfig};

use crate::buffer::Buffer;
use crate::identity::node_of_spki;

/// Plaintext of a full record.
const RECORD: usize = 16 << 10;
/// Most that a record is longer than its plaintext, with a key update before it.
const RECORD_OVERHEAD: usize = 256;
/// Encrypted bytes read and not yet decrypted. More than one record of any size fits.
const INCOMING_MAX: usize = 256 << 10;
/// When this much is unsent, owners put nothing more.
pub(crate) const UNSENT_ENOUGH: usize = 128 << 10;
/// The most that owners put at once, but for short messages.
pub(crate) const PUT_MAX: usize = 64 << 10;
/// Encrypted bytes not yet written: what fits above, with some room for the greeting, which may
/// be put in one piece.
const OUTGOING_MAX: usize = 2 << 20;
const _: () = assert!(UNSENT_ENOUGH + 2 * PUT_MAX < OUTGOING_MAX, "owners must not reach it");

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

pub(crate) struct Session {
    side: Side,
    incoming: Buffer,
    outgoing: Buffer,
    stage: Vec<u8>,
    plain: BytesMut,
    ready: bool,
    closed: bool,
}

/// What one step of TLS shall write, once the machine is ready for it.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Nothing,
    Record(&'a [u8]),
    Goodbye,
}

/// What one step of TLS came to.
enum Step {
    /// Call again.
    Again,
    /// Needs more from the socket; `ready` once the handshake is over.
    Idle { ready: bool },
    /// The peer said goodbye.
    Closed,
}

impl Session {
    pub(crate) fn client(config: Arc<ClientConfig>) -> Result<Session, rustls::Error> {
        let name = ServerName::try_from("jizoku.invalid").expect("a valid name");
        Ok(Session::new(Side::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        Ok(Session::new(Side::Server(UnbufferedServerConnection::new(config)?)))
    }

    fn new(side: Side) -> Session {
        Session {
            side,
            incoming: Buffer::new(INCOMING_MAX),
            outgoing: Buffer::new(OUTGOING_MAX),
            stage: Vec::new(),
            plain: BytesMut::new(),
            ready: false,
            closed: false,
        }
    }

    /// Whether the handshake is over.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the peer said that nothing more comes.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whose key the peer has shown and proved. None before the handshake is over.
    pub(crate) fn peer(&self) -> Option<NodeId> {
        if !self.ready {
            return None;
        }
        let shown: Option<&[CertificateDer<'_>]> = match &self.side {
            Side::Client(client) => client.peer_certificates(),
            Side::Server(server) => server.peer_certificates(),
        };
        node_of_spki(shown?.first()?)
    }

    /// What the connection is for, as agreed in the handshake.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Client(client) => client.alpn_protocol(),
            Side::Server(server) => server.alpn_protocol(),
        }
    }

    /// Encrypted bytes that wait to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// What was decrypted and not yet taken.
    pub(crate) fn plain(&mut self) -> &mut BytesMut {
        &mut self.plain
    }

    /// Both ends of the encrypted side, to read and write at the same time.
    pub(crate) fn ends(&mut self) -> (&mut Buffer, &mut Buffer) {
        (&mut self.incoming, &mut self.outgoing)
    }

    pub(crate) fn read_from(&mut self, socket: &mut impl Read) -> io::Result<usize> {
        self.incoming.read_from(socket)
    }

    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.outgoing.write_to(socket)
    }

    /// Decrypts all that was read. After an error, what is unsent tells the peer why.
    pub(crate) fn advance(&mut self) -> Result<(), rustls::Error> {
        loop {
            match self.step(Wanted::Nothing) {
                Ok((Step::Again, _)) => {}
                Ok((Step::Idle { ready }, _)) => {
                    self.ready |= ready;
                    return Ok(());
                }
                Ok((Step::Closed, _)) => {
                    self.closed = true;
                    return Ok(());
                }
                Err(error) => {
                    // The alert, if there is one; its own outcome changes nothing.
                    let _ = self.step(Wanted::Nothing);
                    return Err(error);
                }
            }
        }
    }

    /// Adds plaintext to the record that is being filled. Full records are encrypted at once.
    pub(crate) fn put(&mut self, mut data: &[u8]) -> Result<(), rustls::Error> {
        while !data.is_empty() {
            if self.stage.is_empty() && data.len() >= RECORD {
                let (record, rest) = data.split_at(RECORD);
                self.encrypt(record)?;
                data = rest;
                continue;
            }
            let (now, rest) = data.split_at(data.len().min(RECORD - self.stage.len()));
            self.stage.extend_from_slice(now);
            data = rest;
            if self.stage.len() == RECORD {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// Encrypts the record that is being filled, if there is anything in it.
    pub(crate) fn seal(&mut self) -> Result<(), rustls::Error> {
        if self.stage.is_empty() {
            return Ok(());
        }
        let stage = std::mem::take(&mut self.stage);
        let result = self.encrypt(&stage);
        self.stage = stage;
        self.stage.clear();
        result
    }

    /// Says that nothing more comes, after what was put and sealed before.
    pub(crate) fn say_goodbye(&mut self) -> Result<(), rustls::Error> {
        self.write(Wanted::Goodbye)
    }

    fn encrypt(&mut self, record: &[u8]) -> Result<(), rustls::Error> {
        self.write(Wanted::Record(record))
    }

    fn write(&mut self, wanted: Wanted<'_>) -> Result<(), rustls::Error> {
        loop {
            match self.step(wanted)? {
                (_, true) => return Ok(()),
                (Step::Again, false) => {}
                (Step::Idle { .. }, false) => return Err(rustls::Error::HandshakeNotComplete),
                (Step::Closed, false) => self.closed = true,
            }
        }
    }

    /// One state of the TLS machine. The flag tells whether what was wanted is written.
    fn step(&mut self, wanted: Wanted<'_>) -> Result<(Step, bool), rustls::Error> {
        let Session { side, incoming, outgoing, plain, .. } = self;
        let read = incoming.filled_mut();
        let (discard, result) = match side {
            Side::Client(client) => take(client.process_tls_records(read), wanted, outgoing, plain),
            Side::Server(server) => take(server.process_tls_records(read), wanted, outgoing, plain),
        };
        self.incoming.consume(discard);
        result
    }

    #[cfg(test)]
    pub(crate) fn change_keys(&mut self) {
        let Side::Client(client) = &mut self.side else { panic!("only the client in tests") };
        match client.process_tls_records(&mut []).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => {
                traffic.refresh_traffic_keys().expect("TLS 1.3 can");
            }
            other => panic!("not ready: {other:?}"),
        }
    }
}

/// Does what a TLS state asks for.
fn take<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wanted: Wanted<'_>,
    outgoing: &mut Buffer,
    plain: &mut BytesMut,
) -> (usize, Result<(Step, bool), rustls::Error>) {
    let mut discard = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    Err(error) => return (discard, Err(error)),
                }
            }
            Step::Again
        }
        ConnectionState::EncodeTlsData(data) => match encode(data, outgoing) {
            Ok(()) => Step::Again,
            Err(error) => return (discard, Err(error)),
        },
        ConnectionState::TransmitTlsData(data) => {
            // Everything leaves through one queue, in order: as good as transmitted.
            data.done();
            Step::Again
        }
        ConnectionState::WriteTraffic(traffic) => match wanted {
            Wanted::Nothing => Step::Idle { ready: true },
            Wanted::Record(_) | Wanted::Goodbye => {
                return (discard, write(traffic, wanted, outgoing).map(|()| (Step::Again, true)));
            }
        },
        ConnectionState::BlockedHandshake => Step::Idle { ready: false },
        ConnectionState::PeerClosed | ConnectionState::Closed => Step::Closed,
        // Early data is never offered; states of later rustls versions aren't known.
        _ => return (discard, Err(rustls::Error::General("unexpected TLS state".into()))),
    };
    (discard, Ok((step, false)))
}

/// Queues a piece of the handshake.
fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Buffer) -> Result<(), rustls::Error> {
    let mut room = RECORD_OVERHEAD;
    loop {
        if outgoing.len() + room > OUTGOING_MAX {
            return Err(rustls::Error::EncryptError);
        }
        match data.encode(outgoing.tail(room)) {
            Ok(count) => {
                outgoing.commit(count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(wanted)) if wanted.required_size > room => {
                room = wanted.required_size;
            }
            Err(_) => return Err(rustls::Error::EncryptError),
        }
    }
}

/// Queues a record, or the goodbye.
fn write<D>(
    mut traffic: WriteTraffic<'_, D>,
    wanted: Wanted<'_>,
    outgoing: &mut Buffer,
) -> Result<(), rustls::Error> {
    let record = if let Wanted::Record(record) = wanted { record } else { &[] };
    let room = record.len() + RECORD_OVERHEAD;
    if outgoing.len() + room > OUTGOING_MAX {
        return Err(rustls::Error::EncryptError);
    }
    let tail = outgoing.tail(room);
    let written = match wanted {
        Wanted::Record(record) => traffic.encrypt(record, tail),
        Wanted::Goodbye | Wanted::Nothing => traffic.queue_close_notify(tail),
    };
    outgoing.commit(written.map_err(|_| rustls::Error::EncryptError)?);
    Ok(())
}

#[cfg(test)]
mod tests;
