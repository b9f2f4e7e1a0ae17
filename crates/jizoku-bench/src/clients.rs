//! Connections whose answers are timed.
//!
//! Invariant: every answer is looked at; a wrong one ends the bench.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jizoku_e2e::resp::{Connection, Load};
use jizoku_e2e::wait_for;

/// How long answers may stay away before a bench gives up.
const WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a value that fills the state.
pub(crate) const VALUE: usize = 1000;
/// Values that are sent in one request.
const AT_ONCE: usize = 64;

/// Text that doesn't compress: every byte is one of 64, so lz4 finds nothing that repeats.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// Always the same for a seed.
    pub(crate) fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// So many bytes of it.
    pub(crate) fn text(&mut self, bytes: usize) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut letter = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            char::from(LETTERS[(self.0 >> 58) as usize])
        };
        (0..bytes).map(|_| letter()).collect()
    }
}

/// The key of a value that fills the state.
pub(crate) fn key(number: usize) -> String {
    format!("fill:{number:06}")
}

/// Writes these keys with new values, in requests of so many.
pub(crate) fn write_keys(
    connection: &mut Connection,
    keys: impl Iterator<Item = usize>,
    at_once: usize,
    noise: &mut Noise,
) -> io::Result<()> {
    let keys: Vec<usize> = keys.collect();
    for some in keys.chunks(at_once) {
        let mut words = vec!["MSET".to_owned()];
        for number in some {
            words.extend([key(*number), noise.text(VALUE)]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        connection.call(&words)?;
    }
    Ok(())
}

/// Puts so many bytes of values into a key-value server.
pub(crate) fn fill(address: SocketAddr, bytes: usize) -> usize {
    let mut connection = Connection::open(address).expect("the service can be reached");
    let keys = bytes / VALUE;
    let mut noise = Noise::new(1);
    write_keys(&mut connection, 0..keys, AT_ONCE, &mut noise).expect("it takes values");
    keys
}

/// Ends writers. Gives how many writes were acknowledged.
///
/// # Panics
/// If a connection broke, or anything was lost or done twice.
pub(crate) fn settle(load: Load, address: SocketAddr) -> u64 {
    let mut seen = Connection::open(address).expect("the service can be reached");
    let mut all = 0;
    for written in load.finish() {
        assert_eq!(written.error, None, "{}: its connection broke", written.key);
        let found = seen.call(&["GET", &written.key]).expect("an answer");
        assert_eq!(found, written.acknowledged.to_string(), "{}: a write is lost", written.key);
        all += written.acknowledged;
    }
    all
}

/// One connection that asks again as soon as it is answered, and remembers when it was.
#[derive(Debug)]
pub(crate) struct Recorder {
    answers: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64, String>>>,
}

impl Recorder {
    /// Counts a key of its own up.
    pub(crate) fn start(address: SocketAddr) -> Recorder {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, ends) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = Some(std::thread::spawn(move || record(address, &seen, &ends)));
        Recorder { answers, stop, thread }
    }

    /// The longest time between two answers of which the later one came after `since`; waits for
    /// `more` answers after that one, and for so long.
    ///
    /// # Panics
    /// If there are none.
    pub(crate) fn longest(&self, since: Instant, more: usize, at_least: Duration) -> Duration {
        let answers = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        wait_for("answers", WITHIN, || {
            let enough = answers().iter().rev().take_while(|at| **at > since).count() > more;
            (enough && since.elapsed() >= at_least).then_some(())
        });
        let answers = answers();
        let gaps = answers.windows(2).filter(|pair| pair[1] > since);
        gaps.map(|pair| pair[1] - pair[0]).max().expect("there are answers")
    }

    /// Forgets what was seen, and waits until so many answers came.
    pub(crate) fn begin(&self, count: usize) {
        let answers = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers().clear();
        wait_for("answers", WITHIN, || (answers().len() >= count).then_some(()));
    }

    /// Ends it. Gives how many answers came.
    ///
    /// # Panics
    /// If the connection broke, or an answer was wrong.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is finished once");
        let ended = thread.join().expect("a recorder doesn't panic");
        ended.unwrap_or_else(|why| panic!("the connection that was timed: {why}"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn record(
    address: SocketAddr,
    answers: &Mutex<Vec<Instant>>,
    stop: &AtomicBool,
) -> Result<u64, String> {
    let mut connection = Connection::open(address).map_err(|error| error.to_string())?;
    let key = format!("recorder-{address}");
    let mut count = match connection.call(&["GET", &key]) {
        Ok(nothing) if nothing == "(nil)" => 0,
        Ok(number) => number.parse().map_err(|_| format!("{number} is no number"))?,
        Err(error) => return Err(error.to_string()),
    };
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.call(&["INCR", &key]).map_err(|error| error.to_string())?;
        count += 1;
        if answer != count.to_string() {
            return Err(format!("{answer} instead of {count}"));
        }
        answers.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::Noise;

    #[test]
    fn noise_is_of_letters_and_the_same_for_a_seed() {
        let text = Noise::new(7).text(1000);
        assert_eq!(text, Noise::new(7).text(1000));
        assert_ne!(text, Noise::new(8).text(1000));
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
