//! Connections that stay open, speak RESP2, and check every answer.
//!
//! Invariant: a writer counts its own key up, and takes nothing but the next number for an
//! answer. A write that is lost, or done twice, breaks it at once.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{LOOK_EVERY, wait_for};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects. A gateway that doesn't listen yet is waited for: it opens its ports when it has
    /// heard of the service.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        Connection::open_for(address, ANSWER_WITHIN)
    }

    /// Connects; a gateway that listens, and each answer, is waited for so long.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open_for(address: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let began = Instant::now();
        let stream = loop {
            match TcpStream::connect_timeout(&address, patience) {
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        && began.elapsed() < patience =>
                {
                    std::thread::sleep(LOOK_EVERY);
                }
                connected => break connected?,
            }
        };
        Connection::over(stream, patience)
    }

    /// Speaks over a socket; each answer is waited for so long.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn over(stream: TcpStream, patience: Duration) -> io::Result<Connection> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its answer: text, number or bulk as text; `(nil)` for nothing.
    ///
    /// # Errors
    /// Those of the socket; an answer that is an error or of another kind. The connection is of
    /// no use then.
    pub fn call(&mut self, words: &[&str]) -> io::Result<String> {
        self.ask(&[words])?;
        self.answer()
    }

    /// Sends commands at once, without waiting for answers.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn ask(&mut self, commands: &[&[&str]]) -> io::Result<()> {
        let mut request = String::new();
        for words in commands {
            request += &format!("*{}\r\n", words.len());
            for word in *words {
                request += &format!("${}\r\n{word}\r\n", word.len());
            }
        }
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// Reads the next answer.
    ///
    /// # Errors
    /// As of [`Connection::call`].
    pub fn answer(&mut self) -> io::Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "+" | ":" => Ok(rest.into()),
            "$" if rest == "-1" => Ok("(nil)".into()),
            "$" => self.line(),
            _ => Err(io::Error::other(format!("the answer is {line:?}"))),
        }
    }

    /// Another handle of the socket, to end the connection by.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn handle(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").into())
    }
}

/// What a writer came to.
#[derive(Debug)]
pub struct Written {
    /// The key that it counted up.
    pub key: String,
    /// The highest number that it was told.
    pub acknowledged: u64,
    /// The longest time between two answers.
    pub worst: Duration,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// Writers on connections that stay open.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Written>>,
}

impl Load {
    /// One writer for each address.
    pub fn start(addresses: &[SocketAddr]) -> Load {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let begin = |address: &SocketAddr| {
            let key = format!("writer-{}", NEXT.fetch_add(1, Ordering::Relaxed));
            let (stop, answers, address) = (Arc::clone(&stop), Arc::clone(&answers), *address);
            std::thread::spawn(move || write(key, address, &stop, &answers))
        };
        let writers = addresses.iter().map(begin).collect();
        Load { stop, answers, writers }
    }

    /// Answers that all writers got up to now.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Waits until all writers together got so many answers more.
    ///
    /// # Panics
    /// If they don't in time.
    pub fn wait_for_more(&self, count: u64) {
        let enough = self.answers() + count;
        let what = format!("{count} answers more");
        wait_for(&what, ANSWER_WITHIN, || (self.answers() >= enough).then_some(()));
    }

    /// Ends the writers, and looks through `address` for all that they were told.
    ///
    /// # Panics
    /// If a connection broke, or anything was lost or doubled.
    pub fn settle(self, address: SocketAddr) {
        let mut seen = Connection::open(address).expect("the service can be reached");
        for written in self.finish() {
            assert_eq!(written.error, None, "{}", written.key);
            let found = seen.call(&["GET", &written.key]).expect("an answer");
            assert_eq!(found, written.acknowledged.to_string(), "{}", written.key);
            println!("{}: {} writes, slowest {:?}", written.key, found, written.worst);
        }
    }

    /// Ends the writers.
    pub fn finish(mut self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let end = |writer: JoinHandle<Written>| writer.join().expect("a writer doesn't panic");
        self.writers.drain(..).map(end).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(key: String, address: SocketAddr, stop: &AtomicBool, answers: &AtomicU64) -> Written {
    let mut written = Written { key, acknowledged: 0, worst: Duration::ZERO, error: None };
    let mut connection = match Connection::open(address) {
        Ok(connection) => connection,
        Err(error) => {
            written.error = Some(format!("can't connect to {address}: {error}"));
            return written;
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = connection.call(&["INCR", &written.key]);
        written.worst = written.worst.max(asked.elapsed());
        match answer {
            Ok(number) if number == (written.acknowledged + 1).to_string() => {
                written.acknowledged += 1;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            wrong => {
                let after = written.acknowledged;
                written.error = Some(format!("after {after}, through {address}: {wrong:?}"));
                return written;
            }
        }
    }
    written
}
