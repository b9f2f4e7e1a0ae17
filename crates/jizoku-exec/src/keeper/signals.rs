//! What only the system's C interface offers: news of children as a descriptor, and descriptors
//! that no program inherits.
//!
//! What it does not know: what is done with the news.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// Marks every descriptor above the standard three so that a program doesn't inherit it.
pub(super) fn seal_descriptors() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: the call changes flags of descriptors only; no memory is involved.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that becomes readable when a child has ended. SIGCHLD is blocked from now on; a
/// program is started with nothing blocked, as the standard library does.
pub(super) fn of_children() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is a valid place for one signal set, and is initialised by the first call
    // before the others read it. The process has one thread, so its mask is the process's.
    let descriptor = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes all news, which only say that there is something to reap.
pub(super) fn drain(news: impl AsFd) {
    let mut room = [0; 1024];
    while rustix::io::read(&news, &mut room).is_ok_and(|length| length > 0) {}
}
