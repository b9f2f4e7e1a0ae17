//! The program that engines are tested with: it does what its clients tell it, misdeeds too.
//!
//! [`actor`] is also built into the tests of the engine `exec`; so one program is asked the same of
//! both engines. The words between clients and it are those of `jizoku_engine::conformance::verb`.

mod actor;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use actor::Polled;

/// The first inherited descriptor, by the convention of `LISTEN_FDS`.
const LISTENER: i32 = 3;

fn main() -> io::Result<()> {
    // SAFETY: the descriptor was opened by whoever started this program, for it alone.
    let listener = unsafe { TcpListener::from_raw_fd(LISTENER) };
    actor::serve(&listener, wait)
}

/// Waits until one of them is ready, or for so long.
fn wait(polled: &mut [Polled<'_>], patience: Option<Duration>) -> io::Result<()> {
    let mut entries: Vec<libc::pollfd> = polled
        .iter()
        .map(|one| {
            let read = if one.read { libc::POLLIN } else { 0 };
            let write = if one.write { libc::POLLOUT } else { 0 };
            libc::pollfd { fd: one.fd.as_raw_fd(), events: read | write, revents: 0 }
        })
        .collect();
    let millis = patience.map_or(-1, |patience| patience.as_millis() as libc::c_int + 1);
    // SAFETY: the pointer and the length are those of one vector, which may be written to.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, millis) };
    if ready < 0 {
        return Err(io::Error::last_os_error());
    }
    for (one, entry) in polled.iter_mut().zip(entries) {
        one.ready = entry.revents != 0;
        one.broken = entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
    }
    Ok(())
}
