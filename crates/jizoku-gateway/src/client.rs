//! One client's socket: a task that reads it, and what waits to be written.
//!
//! The service's task writes by itself as long as the socket takes bytes; only what doesn't fit
//! waits for a task of its own.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::sync::Arc;

use jizoku_types::limits::INPUT_WINDOW;
use jizoku_types::{ConnId, Instant, Span};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

/// Bytes that are read from a client at once.
const READ_MAX: usize = 64 << 10;
/// Reads whose bytes may be on their way to the service's task. A client is paused while a quarter
/// of its window is left: what is read until its reader learns of that must fit there.
const READS_AHEAD: usize = 2;
const _: () = assert!(READ_MAX * (READS_AHEAD + 1) < INPUT_WINDOW / 4, "a pause comes in time");

/// What a client's socket tells its service.
pub(crate) enum ClientEvent {
    /// It sent bytes. It is read on once the permit is dropped: after any pause was told.
    Bytes(ConnId, Vec<u8>, OwnedSemaphorePermit),
    /// It sends nothing more.
    Eof(ConnId),
    /// It is broken.
    Broken(ConnId),
    /// It can be written again.
    Writable(ConnId),
}

/// A client's socket, on the side of the service's task.
pub(crate) struct Client {
    conn: ConnId,
    stream: Arc<TcpStream>,
    unwritten: VecDeque<u8>,
    /// What follows the bytes that aren't written yet.
    then: Then,
    paused: watch::Sender<bool>,
    want_write: Arc<Notify>,
    waits: bool,
    /// Who has the word.
    pub(crate) turn: Turn,
    tasks: [AbortHandle; 2],
}

/// Who has the word on a connection: how requests without an answer are told from programs that
/// only listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The client hasn't said anything since the last answer.
    Client,
    /// The client waits for an answer, since then.
    Service(Instant),
    /// It waited for too long; that was counted.
    Late,
    /// It goes on without waiting for answers: none are missed from here on.
    OneWay,
}

impl Turn {
    /// The client said something.
    pub(crate) fn asked(&mut self, now: Instant) {
        *self = match *self {
            Turn::Client => Turn::Service(now),
            Turn::Late => Turn::OneWay,
            other => other,
        };
    }

    /// The service said something.
    pub(crate) fn answered(&mut self) {
        if *self != Turn::OneWay {
            *self = Turn::Client;
        }
    }

    /// Whether an answer is overdue, once for each.
    pub(crate) fn is_overdue(&mut self, now: Instant, within: Span) -> bool {
        let overdue = matches!(self, Turn::Service(since) if now.since(*since) >= within);
        if overdue {
            *self = Turn::Late;
        }
        overdue
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    Fin,
    Close,
}

/// What became of a client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// So many bytes went out.
    Wrote(usize),
    /// Everything went out, and the socket may be dropped.
    Done(usize),
}

impl Client {
    /// Takes the socket over.
    pub(crate) fn new(
        conn: ConnId,
        stream: TcpStream,
        events: mpsc::Sender<ClientEvent>,
    ) -> Client {
        let stream = Arc::new(stream);
        let (paused, pause) = watch::channel(false);
        let want_write = Arc::new(Notify::new());
        let reader = read(conn, Arc::clone(&stream), events.clone(), pause);
        let waiter = wait_writable(conn, Arc::clone(&stream), events, Arc::clone(&want_write));
        Client {
            conn,
            stream,
            unwritten: VecDeque::new(),
            then: Then::GoOn,
            paused,
            want_write,
            waits: false,
            turn: Turn::Client,
            tasks: [tokio::spawn(reader).abort_handle(), tokio::spawn(waiter).abort_handle()],
        }
    }

    /// Stops or goes on reading.
    pub(crate) fn pause(&self, paused: bool) {
        // Its reader may have ended: then nothing is to be paused.
        let _ = self.paused.send(paused);
    }

    /// Writes bytes after those before; as many as the socket takes at once.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Flushed> {
        let mut rest = bytes;
        let mut written = 0;
        if self.unwritten.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(count) => {
                    written = count;
                    rest = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.unwritten.extend(rest);
        self.wait();
        Ok(Flushed::Wrote(written))
    }

    /// The socket takes bytes again.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        self.waits = false;
        let mut written = 0;
        while !self.unwritten.is_empty() {
            let (front, _) = self.unwritten.as_slices();
            match self.stream.try_write(front) {
                Ok(count) => {
                    written += count;
                    self.unwritten.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.wait();
        self.end(written)
    }

    /// Shuts the direction to the client after the bytes before.
    pub(crate) fn fin(&mut self) -> io::Result<Flushed> {
        self.then = Then::Fin;
        self.end(0)
    }

    /// Closes the socket after the bytes before.
    pub(crate) fn close(&mut self) -> io::Result<Flushed> {
        self.then = Then::Close;
        self.tasks[0].abort();
        self.end(0)
    }

    /// Breaks the connection: the client sees a reset.
    pub(crate) fn reset(self) {
        // Without waiting, a close sends RST.
        let _ = socket2::SockRef::from(&*self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    fn end(&mut self, written: usize) -> io::Result<Flushed> {
        if !self.unwritten.is_empty() {
            return Ok(Flushed::Wrote(written));
        }
        match self.then {
            Then::GoOn => Ok(Flushed::Wrote(written)),
            Then::Fin => {
                socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write)?;
                self.then = Then::GoOn;
                Ok(Flushed::Wrote(written))
            }
            Then::Close => Ok(Flushed::Done(written)),
        }
    }

    fn wait(&mut self) {
        if !self.unwritten.is_empty() && !self.waits {
            self.waits = true;
            self.want_write.notify_one();
        }
    }

    /// Which connection it is.
    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn read(
    conn: ConnId,
    stream: Arc<TcpStream>,
    events: mpsc::Sender<ClientEvent>,
    mut pause: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; READ_MAX];
    let ahead = Arc::new(Semaphore::new(READS_AHEAD));
    loop {
        // Nobody closes the semaphore.
        let Ok(permit) = Arc::clone(&ahead).acquire_owned().await else { return };
        if pause.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        if stream.readable().await.is_err() {
            break;
        }
        // The end may have asked for a pause while nothing was there to read.
        if *pause.borrow() {
            continue;
        }
        let event = match read_once(&stream, &mut buffer) {
            Ok(0) => {
                // If nobody listens, the service's task has ended and closed the socket.
                let _ = events.send(ClientEvent::Eof(conn)).await;
                return;
            }
            Ok(count) => ClientEvent::Bytes(conn, buffer[..count].to_vec(), permit),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
    let _ = events.send(ClientEvent::Broken(conn)).await;
}

/// Reads what is there. Less than fits means that nothing is left: that is noted, which saves
/// asking the system once more for every request.
fn read_once(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut all = None;
    let result = stream.try_io(Interest::READABLE, || {
        let count = (&*socket2::SockRef::from(stream)).read(buffer)?;
        if count == 0 || count == buffer.len() {
            return Ok(count);
        }
        all = Some(count);
        Err(io::ErrorKind::WouldBlock.into())
    });
    all.map_or(result, Ok)
}

async fn wait_writable(
    conn: ConnId,
    stream: Arc<TcpStream>,
    events: mpsc::Sender<ClientEvent>,
    wanted: Arc<Notify>,
) {
    loop {
        wanted.notified().await;
        let event = match stream.writable().await {
            Ok(()) => ClientEvent::Writable(conn),
            Err(_) => ClientEvent::Broken(conn),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_missed_once_and_not_by_who_goes_on_without() {
        let at = |nanos| Instant::from_nanos(nanos);
        let within = Span::nanos(10);
        let mut turn = Turn::Client;
        assert!(!turn.is_overdue(at(100), within));
        turn.asked(at(100));
        turn.asked(at(105));
        assert!(!turn.is_overdue(at(109), within));
        assert!(turn.is_overdue(at(110), within));
        assert!(!turn.is_overdue(at(200), within));
        turn.answered();
        turn.asked(at(300));
        assert!(turn.is_overdue(at(310), within));
        turn.asked(at(320));
        turn.answered();
        turn.asked(at(330));
        assert!(!turn.is_overdue(at(400), within));
    }
}
