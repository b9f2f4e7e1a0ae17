//! The imports: WASI preview 1, for programs that inherit their listeners.
//!
//! Each host call is a method of [`Host`] that takes the program's memory as [`Guest`], checks
//! everything, and fails with an [`Errno`], or ends or unwinds the program. The calls that can
//! wait are those of [`WAITING`]: only they may unwind the program for a capture, and so the
//! module must have been instrumented for exactly these.
//!
//! What it does not know: asyncify, checkpoints, gateways.
//!
//! Invariants
//! - A call that waits has no effect before it is done; it can be made again after a rewind.
//! - No argument of the program makes a call panic.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod calls;
pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod errno;
mod file_calls;
pub(crate) mod guest;
pub(crate) mod lines;
mod path_calls;
mod poll;
pub(crate) mod process_calls;
mod socket_calls;
#[cfg(test)]
mod tests;

use wasmtime::{Caller, Linker};

use self::errno::{End, Errno, Fail};
use self::guest::{Guest, Pointer};
use crate::host::Host;
use crate::stack;

/// The module that the calls are imported from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// The calls that can wait, and therefore unwind the program.
pub const WAITING: [&str; 7] =
    ["fd_read", "fd_write", "poll_oneoff", "sched_yield", "sock_accept", "sock_recv", "sock_send"];

/// All calls that are offered. Those that make no sense here say so to the program.
pub(crate) const NAMES: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// Makes one call: hands it the memory and the host, and turns its failure into what the program
/// sees.
fn call(
    caller: &mut Caller<'_, Host>,
    body: impl FnOnce(&mut Host, &mut Guest<'_>) -> Result<(), Fail>,
) -> wasmtime::Result<u32> {
    let memory = caller.data().memory();
    let (bytes, host) = memory.data_and_store_mut(&mut *caller);
    match body(host, &mut Guest(bytes)) {
        Ok(()) => Ok(u32::from(Errno::SUCCESS.0)),
        Err(Fail::Errno(errno)) => Ok(u32::from(errno.0)),
        Err(Fail::End(end)) => Err(end.into()),
        Err(Fail::Unwind) => {
            stack::unwind(caller)?;
            // Nobody sees this: the call is made again after the rewind.
            Ok(u32::from(Errno::SUCCESS.0))
        }
    }
}

/// Adds calls to a linker. Those after `wait` first finish a rewind that leads to them.
macro_rules! define {
    (@resume call $caller:ident) => {};
    (@resume wait $caller:ident) => { stack::resume(&mut $caller)?; };
    ($linker:ident; $($kind:ident $name:ident($($arg:ident: $type:ty),*);)*) => {$(
        $linker.func_wrap(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, Host>, $($arg: $type),*| -> wasmtime::Result<u32> {
                define!(@resume $kind caller);
                call(&mut caller, |host, guest| host.$name(guest, $($arg),*))
            },
        )?;
    )*};
}

/// Adds all calls of preview 1.
pub(crate) fn add_to(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    define! { linker;
        call args_get(argv: Pointer, buffer: Pointer);
        call args_sizes_get(count: Pointer, size: Pointer);
        call environ_get(environ: Pointer, buffer: Pointer);
        call environ_sizes_get(count: Pointer, size: Pointer);
        call clock_res_get(clock: u32, resolution: Pointer);
        call clock_time_get(clock: u32, precision: u64, time: Pointer);
        call random_get(buffer: Pointer, length: u32);
        call proc_raise(signal: u32);
        wait poll_oneoff(subscriptions: Pointer, events: Pointer, count: u32, ready: Pointer);
        wait sched_yield();
    }
    linker.func_wrap(MODULE, "proc_exit", |status: u32| -> wasmtime::Result<()> {
        Err(End::Status(status as i32).into())
    })?;
    add_descriptor_calls(linker)?;
    add_path_calls(linker)?;
    define! { linker;
        wait sock_accept(fd: u32, flags: u32, connection: Pointer);
        wait sock_recv(
            fd: u32, data: Pointer, count: u32, flags: u32, length: Pointer, roflags: Pointer
        );
        wait sock_send(fd: u32, data: Pointer, count: u32, flags: u32, length: Pointer);
        call sock_shutdown(fd: u32, how: u32);
    }
    Ok(())
}

fn add_descriptor_calls(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    define! { linker;
        call fd_advise(fd: u32, offset: u64, length: u64, advice: u32);
        call fd_allocate(fd: u32, offset: u64, length: u64);
        call fd_close(fd: u32);
        call fd_datasync(fd: u32);
        call fd_fdstat_get(fd: u32, stat: Pointer);
        call fd_fdstat_set_flags(fd: u32, flags: u32);
        call fd_fdstat_set_rights(fd: u32, rights: u64, inheriting: u64);
        call fd_filestat_get(fd: u32, stat: Pointer);
        call fd_filestat_set_size(fd: u32, size: u64);
        call fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, flags: u32);
        call fd_pread(fd: u32, data: Pointer, count: u32, offset: u64, length: Pointer);
        call fd_prestat_get(fd: u32, stat: Pointer);
        call fd_prestat_dir_name(fd: u32, path: Pointer, length: u32);
        call fd_pwrite(fd: u32, data: Pointer, count: u32, offset: u64, length: Pointer);
        wait fd_read(fd: u32, data: Pointer, count: u32, length: Pointer);
        call fd_readdir(fd: u32, buffer: Pointer, size: u32, cookie: u64, length: Pointer);
        call fd_renumber(from: u32, to: u32);
        call fd_seek(fd: u32, delta: u64, whence: u32, offset: Pointer);
        call fd_sync(fd: u32);
        call fd_tell(fd: u32, offset: Pointer);
        wait fd_write(fd: u32, data: Pointer, count: u32, length: Pointer);
    }
    Ok(())
}

fn add_path_calls(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    define! { linker;
        call path_create_directory(fd: u32, path: Pointer, length: u32);
        call path_filestat_get(fd: u32, follow: u32, path: Pointer, length: u32, stat: Pointer);
        call path_filestat_set_times(
            fd: u32, follow: u32, path: Pointer, length: u32,
            accessed: u64, modified: u64, flags: u32
        );
        call path_link(
            fd: u32, follow: u32, path: Pointer, length: u32,
            new_fd: u32, new_path: Pointer, new_length: u32
        );
        call path_open(
            fd: u32, follow: u32, path: Pointer, length: u32, how: u32,
            rights: u64, inheriting: u64, flags: u32, opened: Pointer
        );
        call path_readlink(
            fd: u32, path: Pointer, length: u32, buffer: Pointer, size: u32, used: Pointer
        );
        call path_remove_directory(fd: u32, path: Pointer, length: u32);
        call path_rename(
            fd: u32, path: Pointer, length: u32,
            new_fd: u32, new_path: Pointer, new_length: u32
        );
        call path_symlink(
            content: Pointer, content_length: u32, fd: u32, path: Pointer, length: u32
        );
        call path_unlink_file(fd: u32, path: Pointer, length: u32);
    }
    Ok(())
}
