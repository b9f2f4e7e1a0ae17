//! Real clients: writers on connections that stay open, and readers that look over their
//! shoulders. What they see goes into the service's [`Book`].
//!
//! A writer whose connection broke opens another one through the same gateway, with a new key:
//! what it had asked for on the old one may still be done, so the old key is looked at when all is
//! healed. What it does not know: whether a connection was allowed to break.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jizoku_e2e::resp::Connection;

use crate::check::{Book, Break, Moment, Promise, Violation};
use crate::plan::Dice;

/// How long an answer is waited for before the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long a new connection may take before the next try.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Between two tries to connect.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Between two requests of one writer: a service is busy, and the machine isn't full.
const THINK: Duration = Duration::from_millis(25);
/// Between two questions of a reader.
const READ_EVERY: Duration = Duration::from_millis(40);
/// Most requests that a writer sends before it waits for answers.
const BURST_MAX: u64 = 3;

/// A published service with its clients.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// Its port.
    pub port: u16,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

/// What all clients of a service saw.
#[derive(Debug)]
pub struct Seen {
    /// The books.
    pub book: Book,
    /// Connections that broke and were not judged yet.
    pub breaks: Vec<Break>,
    /// What is wrong whatever the reason.
    pub violations: Vec<Violation>,
    /// Answers so far.
    pub answers: u64,
    /// Per gateway the slowest answer since [`Service::mark`] on a connection older than that.
    pub slowest: BTreeMap<usize, Duration>,
    /// Per writer when it was last answered, and through which gateway.
    pub last: BTreeMap<String, (usize, Moment)>,
    marked: Moment,
    /// Per gateway the sockets that are open.
    sockets: BTreeMap<(usize, String), TcpStream>,
}

impl Service {
    /// One without clients yet.
    pub fn new(name: &'static str, port: u16, promise: Promise, began: Instant) -> Service {
        let seen = Seen {
            book: Book::new(promise),
            breaks: Vec::new(),
            violations: Vec::new(),
            answers: 0,
            slowest: BTreeMap::new(),
            last: BTreeMap::new(),
            marked: Moment::ZERO,
            sockets: BTreeMap::new(),
        };
        let shared = Shared { began, stop: AtomicBool::new(false), seen: Mutex::new(seen) };
        Service { name, port, shared: Arc::new(shared), threads: Vec::new() }
    }

    /// So many writers through each of these gateways, and one reader through all of them. To be
    /// called on a thread that is among the clients.
    pub fn start(&mut self, gateways: &[SocketAddr], writers: usize) {
        for (gateway, address) in gateways.iter().enumerate() {
            for number in 0..writers {
                let name = format!("{}.{}.{number}", self.name, gateway + 1);
                let (shared, address) = (Arc::clone(&self.shared), *address);
                let writer = Writer { name, gateway, address, shared };
                self.threads.push(std::thread::spawn(move || writer.run()));
            }
        }
        let (shared, addresses) = (Arc::clone(&self.shared), gateways.to_vec());
        self.threads.push(std::thread::spawn(move || read(&shared, &addresses)));
    }

    /// What they saw.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }

    /// From now on the slowest answers are looked for.
    pub fn mark(&self) {
        let at = self.shared.now();
        let mut seen = self.seen();
        seen.marked = at;
        seen.slowest.clear();
    }

    /// Ends the connections through a gateway whose agent has ended: machines that lost their
    /// power don't say so.
    pub fn hang_up(&self, gateway: usize) {
        for ((through, _), socket) in &self.seen().sockets {
            if *through == gateway {
                // It may be gone.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Ends all clients.
    pub fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for socket in self.seen().sockets.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("clients don't panic");
        }
    }
}

impl Shared {
    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    name: String,
    gateway: usize,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(&self) {
        let mut dice = Dice::new(0, self.name.bytes().map(u64::from).sum());
        for generation in 0.. {
            let Some(connection) = self.connect() else { return };
            let (key, opened) = (format!("{}.{generation}", self.name), self.shared.now());
            let error = self.count(connection, &key, opened, &mut dice);
            let at = self.shared.now();
            let mut seen = self.shared.seen();
            seen.sockets.remove(&(self.gateway, self.name.clone()));
            seen.book.broke(&key);
            if self.shared.stopped() {
                return;
            }
            match error {
                Failure::Socket(error) => {
                    let gateway = self.gateway;
                    seen.breaks.push(Break { key, gateway, opened, at, error: error.to_string() });
                }
                Failure::Answer(violation) => seen.violations.push(violation),
            }
        }
    }

    fn connect(&self) -> Option<Connection> {
        while !self.shared.stopped() {
            // A gateway that takes connections it can't serve is found out by the first answer.
            if let Ok(stream) = TcpStream::connect_timeout(&self.address, CONNECT_WITHIN)
                && let Ok(connection) = Connection::over(stream, PATIENCE)
                && let Ok(handle) = connection.handle()
            {
                let place = (self.gateway, self.name.clone());
                self.shared.seen().sockets.insert(place, handle);
                return Some(connection);
            }
            std::thread::sleep(AGAIN_AFTER);
        }
        None
    }

    /// Counts up until something goes wrong.
    fn count(
        &self,
        mut connection: Connection,
        key: &str,
        opened: Moment,
        dice: &mut Dice,
    ) -> Failure {
        loop {
            let burst = 1 + dice.below(BURST_MAX) as usize;
            let asked = self.shared.now();
            {
                let mut seen = self.shared.seen();
                (0..burst).for_each(|_| seen.book.ask(key));
            }
            let command: &[&str] = &["INCR", key];
            let commands = vec![command; burst];
            if let Err(error) = connection.ask(&commands) {
                return Failure::Socket(error);
            }
            for _ in 0..burst {
                let answer = match connection.answer() {
                    Ok(answer) => answer,
                    // An answer that is no answer is never allowed.
                    Err(error) if error.kind() == io::ErrorKind::Other => error.to_string(),
                    Err(error) => return Failure::Socket(error),
                };
                let at = self.shared.now();
                let mut seen = self.shared.seen();
                if let Err(violation) = seen.book.tell(key, &answer, at) {
                    return Failure::Answer(violation);
                }
                seen.answers += 1;
                seen.last.insert(self.name.clone(), (self.gateway, at));
                if opened <= seen.marked && at > seen.marked {
                    let took = at.saturating_sub(asked.max(seen.marked));
                    let slowest = seen.slowest.entry(self.gateway).or_default();
                    *slowest = (*slowest).max(took);
                }
            }
            if self.shared.stopped() {
                return Failure::Socket(io::ErrorKind::Interrupted.into());
            }
            std::thread::sleep(THINK);
        }
    }
}

enum Failure {
    Socket(io::Error),
    Answer(Violation),
}

/// Reads keys that are being counted up, through all gateways in turn.
fn read(shared: &Shared, gateways: &[SocketAddr]) {
    let mut dice = Dice::new(1, u64::from(gateways[0].port()));
    let mut connections: BTreeMap<SocketAddr, Connection> = BTreeMap::new();
    for turn in 0.. {
        std::thread::sleep(READ_EVERY);
        if shared.stopped() {
            return;
        }
        let address = gateways[turn % gateways.len()];
        let Some((key, least)) = shared.seen().book.open_key(dice.next()) else { continue };
        let connection = match connections.remove(&address) {
            Some(connection) => Some(connection),
            None => TcpStream::connect_timeout(&address, CONNECT_WITHIN)
                .and_then(|stream| Connection::over(stream, CONNECT_WITHIN))
                .ok(),
        };
        // Readers' connections are their own affair: they are given up without patience.
        let Some(mut connection) = connection else { continue };
        let Ok(answer) = connection.call(&["GET", &key]) else { continue };
        connections.insert(address, connection);
        let found = if answer == "(nil)" { Some(0) } else { answer.parse().ok() };
        let mut seen = shared.seen();
        let told = match found {
            Some(found) => seen.book.read(&key, least, found),
            None => Err(Violation::Wrong { key, expected: least, answer }),
        };
        if let Err(violation) = told {
            seen.violations.push(violation);
        }
    }
}
