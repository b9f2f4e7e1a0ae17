//! Host calls that are made from here, without a program: for the tests and the fuzzer.
//!
//! What it does not know: which arguments are drawn, and what must come of a call.

use std::sync::Arc;

use jizoku_checkpoint::image::Image;
use jizoku_engine::Identity;
use jizoku_types::{Epoch, ServiceId};

use super::clock::Clocks;
use super::descriptors::Descriptors;
use super::errno::Fail;
use super::guest::Guest;
use super::{lines, process_calls};
use crate::capture::Recorder;
use crate::files::Tree;
use crate::host::{Host, Limits};
use crate::instance::Shared;
use crate::sockets::Sockets;
use crate::stack::Stack;

/// Bytes that its files may take.
pub(crate) const FILES_MAX: u64 = 1 << 20;

/// Whose connections they are.
pub(crate) fn identity() -> Identity {
    Identity { service: ServiceId(1), epoch: Epoch::main(1), held: false }
}

/// A host without a program.
pub(crate) fn host() -> Host {
    let shared = Arc::new(Shared::new(Sockets::fresh(&identity(), 2)));
    let mut files = Tree::new(FILES_MAX, 0);
    Host {
        memory: None,
        descriptors: Descriptors::fresh(2, &mut files),
        files,
        clocks: Clocks::fresh(),
        partial: Default::default(),
        allowance: lines::Allowance::new(),
        args: process_calls::Strings(vec!["program".into(), "an argument".into()]),
        environment: process_calls::Strings(vec!["NAME=value".into()]),
        waiting_since: None,
        stack: Stack::new(),
        limits: Limits::new(1 << 20, Arc::clone(&shared.meter)),
        recorder: Recorder::start(Image::empty(), Arc::clone(&shared)).expect("a thread"),
        restoring_since: None,
        shared,
    }
}

/// Where arguments come from.
pub(crate) trait Draw {
    /// Which call is next.
    fn call(&mut self, of: usize) -> usize;
    /// An argument of 4 bytes.
    fn int(&mut self) -> u32;
    /// An argument of 8 bytes.
    fn long(&mut self) -> u64;
}

/// A call's name, and what it came to.
pub(crate) type Called = (&'static str, Result<(), Fail>);

/// Makes one of these calls with drawn arguments.
macro_rules! calls {
    ($($name:ident($($kind:ident),*);)*) => {
        /// The calls, in the order of their numbers.
        #[cfg(feature = "fuzz")]
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// Makes any call of preview 1 but `proc_exit`, with drawn arguments.
        pub(crate) fn call<D: Draw>(
            draw: &mut D,
            host: &mut Host,
            guest: &mut Guest<'_>,
        ) -> Called {
            type Call<D> = fn(&mut D, &mut Host, &mut Guest<'_>) -> Result<(), Fail>;
            let calls: &[(&'static str, Call<D>)] = &[$((
                stringify!($name),
                |_draw, host, guest| host.$name(guest, $(_draw.$kind()),*),
            )),*];
            let (name, call) = calls[draw.call(calls.len())];
            (name, call(draw, host, guest))
        }
    };
}

calls! {
    args_get(int, int);
    args_sizes_get(int, int);
    environ_get(int, int);
    environ_sizes_get(int, int);
    clock_res_get(int, int);
    clock_time_get(int, long, int);
    random_get(int, int);
    proc_raise(int);
    sched_yield();
    poll_oneoff(int, int, int, int);
    sock_accept(int, int, int);
    sock_recv(int, int, int, int, int, int);
    sock_send(int, int, int, int, int);
    sock_shutdown(int, int);
    fd_advise(int, long, long, int);
    fd_allocate(int, long, long);
    fd_close(int);
    fd_datasync(int);
    fd_fdstat_get(int, int);
    fd_fdstat_set_flags(int, int);
    fd_fdstat_set_rights(int, long, long);
    fd_filestat_get(int, int);
    fd_filestat_set_size(int, long);
    fd_filestat_set_times(int, long, long, int);
    fd_pread(int, int, int, long, int);
    fd_prestat_get(int, int);
    fd_prestat_dir_name(int, int, int);
    fd_pwrite(int, int, int, long, int);
    fd_read(int, int, int, int);
    fd_readdir(int, int, int, long, int);
    fd_renumber(int, int);
    fd_seek(int, long, int, int);
    fd_sync(int);
    fd_tell(int, int);
    fd_write(int, int, int, int);
    path_create_directory(int, int, int);
    path_filestat_get(int, int, int, int, int);
    path_filestat_set_times(int, int, int, int, long, long, int);
    path_link(int, int, int, int, int, int, int);
    path_open(int, int, int, int, int, long, long, int, int);
    path_readlink(int, int, int, int, int, int);
    path_remove_directory(int, int, int);
    path_rename(int, int, int, int, int, int);
    path_symlink(int, int, int, int, int);
    path_unlink_file(int, int, int);
}
