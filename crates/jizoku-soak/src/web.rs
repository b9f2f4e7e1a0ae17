//! A client of a service of the engine `exec`: each request is a connection of its own, and each
//! answer must be the page. Such a service is started again elsewhere, so answers may fail to come
//! while something is wrong, and only then.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::check::Moment;

/// What the page says.
pub const PAGE: &str = "still here\n";
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Between two requests.
const EVERY: Duration = Duration::from_millis(250);

/// See the module's header.
#[derive(Debug)]
pub struct Web {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Asked>>,
    thread: Option<JoinHandle<()>>,
}

/// What came of the requests.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Right answers.
    pub answers: u64,
    /// When the last one came.
    pub last: Moment,
    /// Since the last look: when a request was begun that failed, through which gateway, and how.
    pub failed: Vec<(Moment, usize, String)>,
}

impl Web {
    /// Asks through each of these in turn.
    pub fn start(gateways: Vec<SocketAddr>, began: Instant) -> Web {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let (stopped, asked) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            for turn in 0.. {
                std::thread::sleep(EVERY);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let gateway = turn % gateways.len();
                let at = began.elapsed();
                let said = get(gateways[gateway]);
                let mut asked: std::sync::MutexGuard<'_, Asked> =
                    asked.lock().unwrap_or_else(PoisonError::into_inner);
                match said {
                    Ok(text) if text.ends_with(PAGE) => {
                        asked.answers += 1;
                        asked.last = began.elapsed();
                    }
                    Ok(text) => asked.failed.push((at, gateway, format!("answered {text:?}"))),
                    Err(error) => asked.failed.push((at, gateway, error.to_string())),
                }
            }
        });
        Web { stop, seen, thread: Some(thread) }
    }

    /// What came of them; failures are told once.
    pub fn take(&self) -> Asked {
        let mut asked = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = std::mem::take(&mut asked.failed);
        Asked { failed, ..asked.clone() }
    }

    /// When the last right answer came.
    pub fn last(&self) -> Moment {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// Asks no more.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("clients don't panic");
        }
    }
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.write_all(b"GET /page.txt HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.starts_with("HTTP/1.0 200") {
        true => Ok(text),
        false => Err(io::Error::other(format!("answered {text:?}"))),
    }
}
