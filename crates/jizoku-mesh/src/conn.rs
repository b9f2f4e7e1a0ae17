//! One TCP connection with its TLS session: handshake, greeting, and the hand-over to a lane.
//!
//! What it does not know: links, queues, who is a member.
//!
//! Invariant: everything here ends within its time limit; see [`crate::limits`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use jizoku_types::NodeId;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tls::Session;
use crate::wire::{WireError, next_message};

/// Why a fresh connection came to nothing.
#[derive(Debug)]
pub(crate) enum ConnError {
    /// The socket failed.
    Io,
    Tls(rustls::Error),
    /// What came is longer than it may be.
    Wire,
    /// Closed by the peer in the middle.
    Closed,
}

impl From<io::Error> for ConnError {
    fn from(_: io::Error) -> ConnError {
        ConnError::Io
    }
}

impl From<rustls::Error> for ConnError {
    fn from(error: rustls::Error) -> ConnError {
        ConnError::Tls(error)
    }
}

impl From<WireError> for ConnError {
    fn from(_: WireError) -> ConnError {
        ConnError::Wire
    }
}

pub(crate) struct Conn {
    pub(crate) tcp: TcpStream,
    /// Large, and moved about before it is used.
    pub(crate) session: Box<Session>,
}

impl Conn {
    /// Opens a TCP connection that sends small pieces at once.
    pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, ConnError> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// Shakes hands with whom this node dialled.
    pub(crate) async fn shake_as_client(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
    ) -> Result<Conn, ConnError> {
        let mut conn = Conn { tcp, session: Box::new(Session::client(config)?) };
        conn.shake().await?;
        Ok(conn)
    }

    /// Shakes hands with whoever dialled this node.
    pub(crate) async fn shake_as_server(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Conn, ConnError> {
        tcp.set_nodelay(true)?;
        let mut conn = Conn { tcp, session: Box::new(Session::server(config)?) };
        conn.shake().await?;
        Ok(conn)
    }

    /// Whose key the peer has.
    pub(crate) fn peer(&self) -> Option<NodeId> {
        self.session.peer()
    }

    async fn shake(&mut self) -> Result<(), ConnError> {
        loop {
            let advanced = self.session.advance();
            let flushed = self.flush().await;
            advanced?;
            flushed?;
            if self.session.is_ready() {
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// Sends a message, with its length before it already.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), ConnError> {
        self.session.put(message)?;
        self.session.seal()?;
        self.flush().await
    }

    /// Receives a message of at most `max` bytes.
    pub(crate) async fn receive(&mut self, max: usize) -> Result<Bytes, ConnError> {
        loop {
            if let Some(message) = next_message(self.session.plain(), max)? {
                return Ok(message);
            }
            self.read().await?;
            self.session.advance()?;
        }
    }

    /// Says no more, and waits until the peer has closed: closing with unread bytes would send a
    /// reset, which may overtake what was said. The caller sets the time limit.
    pub(crate) async fn linger(mut self) {
        if self.tcp.shutdown().await.is_err() {
            return;
        }
        let mut waste = [0; 1024];
        while matches!(self.tcp.read(&mut waste).await, Ok(1..)) {}
    }

    async fn read(&mut self) -> Result<(), ConnError> {
        let Conn { tcp, session } = self;
        let (incoming, _) = session.ends();
        let count = tcp.read(incoming.read_room()).await?;
        incoming.commit(count);
        if count == 0 || session.is_closed() { Err(ConnError::Closed) } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ConnError> {
        let Conn { tcp, session } = self;
        let (_, outgoing) = session.ends();
        while !outgoing.is_empty() {
            let count = tcp.write(outgoing.filled()).await?;
            outgoing.consume(count);
        }
        Ok(())
    }
}
