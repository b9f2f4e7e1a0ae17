//! A library to preload: adds what a file says to the wall clock of one process.
//!
//! `JIZOKU_WALL_CLOCK` names a file of eight bytes: nanoseconds to add, little endian, signed. It
//! is mapped, so a change is seen at once. Other clocks are left as they are: CLOCK_BOOTTIME and
//! CLOCK_MONOTONIC never step on a real machine either.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// Where the file is mapped; null: not yet, or there is none.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(std::ptr::null_mut());
/// The system's function; null: not looked up yet.
static REAL: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());

const NANOS: i64 = 1_000_000_000;

/// What the system has under this name, and the step.
///
/// # Safety
/// As of the system's function: `time` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let mut real = REAL.load(Ordering::Relaxed);
    if real.is_null() {
        // SAFETY: the name ends with a zero byte.
        real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
        REAL.store(real, Ordering::Relaxed);
    }
    // SAFETY: that name has this type in every C library.
    let real: ClockGettime = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's promise is handed on.
    let result = unsafe { real(clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the caller promised it, and the system has just written there.
        let time = unsafe { &mut *time };
        let total = time.tv_sec * NANOS + time.tv_nsec + offset();
        (time.tv_sec, time.tv_nsec) = (total.div_euclid(NANOS), total.rem_euclid(NANOS));
    }
    result
}

fn offset() -> i64 {
    let mut at = OFFSET.load(Ordering::Acquire);
    if at.is_null() {
        at = map().unwrap_or(std::ptr::null_mut());
        OFFSET.store(at, Ordering::Release);
    }
    // SAFETY: either null, or a mapping of eight bytes that stays for ever.
    unsafe { at.as_ref() }.map_or(0, |offset| offset.load(Ordering::Relaxed))
}

fn map() -> Option<*mut AtomicI64> {
    let file = std::fs::File::open(std::env::var_os("JIZOKU_WALL_CLOCK")?).ok()?;
    let (size, fd) = (size_of::<i64>(), file.as_raw_fd());
    // SAFETY: a new mapping overlaps nothing; the file is there and never made shorter.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}
