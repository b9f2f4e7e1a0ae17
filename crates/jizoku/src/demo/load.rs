//! Clients of the demo: each holds one connection open, writes, and checks what it is told.
//!
//! A client sends `INCR` on a counter of its own and `SET` of a key of its own, one after the
//! other, and waits for both answers. The counter's value must be exactly one more than the last:
//! less means that a write was lost, more that one was done twice.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::Failure;

/// How long an answer may take before the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two writes of one client: a steady load, not a benchmark.
const PACE: Duration = Duration::from_millis(2);
/// Bytes of one filled value.
const VALUE: usize = 64 << 10;

/// The running clients.
pub(super) struct Load {
    clients: Vec<Client>,
    stop: Arc<AtomicBool>,
}

struct Client {
    seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    acknowledged: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    /// When the last answers came, oldest first; and how long they took.
    answers: Mutex<Vec<(Instant, Duration)>>,
    broken: Mutex<Option<String>>,
}

/// Where each client stood at a moment.
pub(super) struct Mark {
    at: Instant,
}

/// When answers came again.
pub(super) struct Answers {
    pub(super) first: Duration,
    pub(super) all: Duration,
}

/// What all clients saw.
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) connections: usize,
    pub(super) kept: usize,
    pub(super) median_us: u64,
}

impl Load {
    /// Starts so many clients, spread over these addresses.
    pub(super) fn start(addresses: &[SocketAddr], count: usize) -> Result<Load, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..count {
            let address = addresses[number % addresses.len()];
            let talk = Talk::connect(&address).map_err(|error| format!("{address}: {error}"))?;
            let seen = Arc::new(Seen::default());
            let (theirs, halt) = (Arc::clone(&seen), Arc::clone(&stop));
            let thread = std::thread::spawn(move || {
                if let Err(error) = write_on(talk, number, &theirs, &halt) {
                    *theirs.broken.lock().expect("no panic while locked") = Some(error.to_string());
                }
            });
            clients.push(Client { seen, thread });
        }
        Ok(Load { clients, stop })
    }

    /// Lets them run.
    pub(super) fn run_for(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        let broken = |client: &Client| client.seen.broken.lock().ok().and_then(|b| b.clone());
        match self.clients.iter().filter_map(broken).next() {
            Some(why) if self.clients.iter().all(|client| broken(client).is_some()) => {
                Err(Failure(format!("all connections broke: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// The moment from which answers are waited for.
    pub(super) fn mark(&self) -> Mark {
        Mark { at: Instant::now() }
    }

    /// Waits until every client whose connection holds got an answer to something that it asked
    /// after the mark, or was waiting for at it.
    pub(super) fn wait_for_answers(
        &self,
        mark: &Mark,
        within: Duration,
    ) -> Result<Answers, Failure> {
        // An answer that was under way when the node died came from the old instance; the gap
        // is the longest silence that began around the mark.
        let settle = Duration::from_millis(100);
        let give_up = Instant::now() + within;
        loop {
            self.check()?;
            let times: Vec<Option<Duration>> =
                self.clients.iter().map(|client| resumed(client, mark.at, settle)).collect();
            let open: Vec<Duration> = times.iter().flatten().copied().collect();
            let broken = self
                .clients
                .iter()
                .filter(|client| client.seen.broken.lock().is_ok_and(|b| b.is_some()))
                .count();
            if open.len() + broken >= self.clients.len() && !open.is_empty() {
                let first = open.iter().min().copied().unwrap_or_default();
                let all = open.iter().max().copied().unwrap_or_default();
                return Ok(Answers { first, all });
            }
            if Instant::now() > give_up {
                return Err(Failure(format!(
                    "{} of {} connections got no answer within {} s",
                    self.clients.len() - open.len(),
                    self.clients.len(),
                    within.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the clients, and looks for every acknowledged write.
    pub(super) fn finish(self, addresses: &[SocketAddr]) -> Result<Tally, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally {
            acknowledged: 0,
            lost: 0,
            doubled: 0,
            connections: self.clients.len(),
            kept: 0,
            median_us: 0,
        };
        let mut took = Vec::new();
        let mut talk = Talk::connect(&addresses[0]).map_err(|error| error.to_string())?;
        for (number, client) in self.clients.into_iter().enumerate() {
            // A thread that panicked has not kept its connection, and is counted so below.
            let ended = client.thread.join().is_ok();
            let acknowledged = client.seen.acknowledged.load(Ordering::Relaxed);
            let broken = client.seen.broken.lock().is_ok_and(|broken| broken.is_some());
            tally.kept += usize::from(ended && !broken);
            tally.acknowledged += acknowledged;
            tally.lost += client.seen.lost.load(Ordering::Relaxed);
            tally.doubled += client.seen.doubled.load(Ordering::Relaxed);
            let answers =
                client.seen.answers.lock().map_err(|_| "a client panicked".to_string())?;
            took.extend(answers.iter().map(|(_, took)| *took));
            let missing = missing(&mut talk, number, acknowledged, broken);
            tally.lost += missing.map_err(|error| format!("reading back: {error}"))?;
        }
        took.sort_unstable();
        let middle = took.get(took.len() / 2).copied().unwrap_or_default();
        tally.median_us = u64::try_from(middle.as_micros()).unwrap_or(u64::MAX);
        Ok(tally)
    }
}

/// How long after the mark the client's first answer after its gap came.
fn resumed(client: &Client, mark: Instant, settle: Duration) -> Option<Duration> {
    let answers = client.seen.answers.lock().ok()?;
    let after: Vec<Instant> = answers.iter().map(|(at, _)| *at).filter(|at| *at > mark).collect();
    let last = *after.last()?;
    if last.elapsed() > settle * 10 || last.duration_since(mark) < settle {
        return None;
    }
    // The longest silence between two answers that touches the time after the mark.
    let before = answers.iter().map(|(at, _)| *at).rfind(|at| *at <= mark);
    let all: Vec<Instant> = before.into_iter().chain(after).collect();
    let gap = all.windows(2).max_by_key(|pair| pair[1].duration_since(pair[0]))?;
    Some(gap[1].duration_since(mark))
}

/// How many of a client's acknowledged writes can't be found.
fn missing(talk: &mut Talk, number: usize, acknowledged: u64, broken: bool) -> io::Result<u64> {
    let counter = talk.ask(&[b"GET", counter_of(number).as_bytes()])?;
    let value: u64 = counter.parse().unwrap_or(0);
    // A broken connection may have had one more write under way.
    let mut lost = acknowledged.saturating_sub(value);
    if value > acknowledged + u64::from(broken) {
        lost += value - acknowledged;
    }
    for written in 1..=acknowledged {
        let found = talk.ask(&[b"GET", key_of(number, written).as_bytes()])?;
        lost += u64::from(found != written.to_string());
    }
    Ok(lost)
}

fn counter_of(number: usize) -> String {
    format!("counter:{number}")
}

fn key_of(number: usize, written: u64) -> String {
    format!("key:{number}:{written}")
}

fn write_on(mut talk: Talk, number: usize, seen: &Seen, stop: &AtomicBool) -> io::Result<()> {
    let counter = counter_of(number);
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let next = last + 1;
        let asked = Instant::now();
        let key = key_of(number, next);
        talk.send(&[b"SET", key.as_bytes(), next.to_string().as_bytes()])?;
        talk.send(&[b"INCR", counter.as_bytes()])?;
        let set = talk.answer()?;
        let value = talk.answer()?;
        let value: u64 = value.parse().map_err(|_| odd(&value))?;
        if set != "OK" {
            return Err(odd(&set));
        }
        match value.cmp(&next) {
            std::cmp::Ordering::Less => seen.lost.fetch_add(next - value, Ordering::Relaxed),
            std::cmp::Ordering::Greater => seen.doubled.fetch_add(value - next, Ordering::Relaxed),
            std::cmp::Ordering::Equal => 0,
        };
        last = value;
        seen.acknowledged.store(next, Ordering::Relaxed);
        let now = Instant::now();
        let mut answers = seen.answers.lock().expect("no panic while locked");
        answers.push((now, now.duration_since(asked)));
        drop(answers);
        std::thread::sleep(PACE);
    }
    Ok(())
}

fn odd(answer: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an odd answer: {answer:?}"))
}

/// Fills the service with about so many bytes of values that differ.
pub(super) fn fill(address: &SocketAddr, bytes: usize) -> Result<(), Failure> {
    let filled = || -> io::Result<()> {
        let mut talk = Talk::connect(address)?;
        let mut noise = 0x2545_f491_4f6c_dd1d_u64;
        for number in 0..bytes.div_ceil(VALUE) {
            let mut value = Vec::with_capacity(VALUE);
            while value.len() < VALUE {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                value.extend_from_slice(&noise.to_le_bytes());
            }
            talk.ask(&[b"SET", format!("fill:{number}").as_bytes(), &value])?;
        }
        Ok(())
    };
    filled().map_err(|error| Failure(format!("filling the service: {error}")))
}

/// A connection that speaks RESP.
struct Talk {
    reader: BufReader<TcpStream>,
}

impl Talk {
    fn connect(address: &SocketAddr) -> io::Result<Talk> {
        let stream = TcpStream::connect_timeout(address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Talk { reader: BufReader::new(stream) })
    }

    fn ask(&mut self, words: &[&[u8]]) -> io::Result<String> {
        self.send(words)?;
        self.answer()
    }

    fn send(&mut self, words: &[&[u8]]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&bytes)
    }

    /// The text of a simple, integer or bulk answer; an empty text for none.
    fn answer(&mut self) -> io::Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| odd(&line))?;
        match kind {
            "+" | ":" => Ok(rest.to_string()),
            "$" if rest == "-1" => Ok(String::new()),
            "$" => self.line(),
            _ => Err(odd(&line)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other end"));
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_string())
    }
}
