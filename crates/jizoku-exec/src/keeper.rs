//! The keeper: a process between agent and program. It starts the program, and kills all of it
//! when the agent is gone, when the lease has lapsed, or when it is told to.
//!
//! The agent runs its own binary again with [`ARGUMENT`]; that binary calls [`main`] before it
//! does anything else. So there is nothing to install, and both are always of one build.
//!
//! What it does not know: services, epochs, who grants leases; how the agent is built.
//!
//! Invariants
//! - The keeper has one thread, and never waits for anybody but its three descriptors: the agent's
//!   socket, a timer, and the news of its children.
//! - The lease is measured on CLOCK_BOOTTIME, by a timer that also runs while the machine sleeps.
//!   It is looked at after each wake-up before anything else is done.
//! - It adopts what the program leaves behind, so nothing escapes by forking twice; and it ends
//!   only when nothing is left, or what is left can't be killed.

mod child;
mod signals;
mod tree;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::boot_nanos;
use crate::message::{End, Heard, MESSAGE_MAX, Order, Report, hear, tell};
use tree::Tree;

/// The argument that makes the agent's binary a keeper.
pub const ARGUMENT: &str = "__keeper";

/// How a keeper is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperCommand {
    /// The binary.
    pub program: PathBuf,
    /// Its arguments, which lead it to [`main`].
    pub args: Vec<OsString>,
}

impl Default for KeeperCommand {
    /// This very binary, even if its file has been replaced since, with [`ARGUMENT`].
    fn default() -> KeeperCommand {
        KeeperCommand {
            program: PathBuf::from("/proc/self/exe"),
            args: vec![OsString::from(ARGUMENT)],
        }
    }
}

/// Whether this process was started as a keeper: its first argument is [`ARGUMENT`].
pub fn is_asked_for() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// Is a keeper, to the end of the process. Called before any thread is started.
pub fn main() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(error) => {
            // This is where the program's own errors go too.
            eprintln!("jizoku keeper: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn run() -> io::Result<()> {
    signals::seal_descriptors()?;
    // Fails only if it leads a session already, which is just as good.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let news = signals::of_children()?;
    let agent = io::stdin().as_fd().try_clone_to_owned()?;
    let mut room = vec![0; MESSAGE_MAX];
    let start = loop {
        wait(&[agent.as_fd()])?;
        match hear(&agent, &mut room) {
            Heard::Message(Order::Start(start)) => break start,
            Heard::Message(_) | Heard::Nothing => {}
            Heard::Gone => return Ok(()),
        }
    };
    let lease = start.lease;
    let main = match child::start(&start) {
        Ok(main) => main,
        Err(why) => return tell(&agent, &Report::NotStarted { why }),
    };
    let pid = u32::try_from(main.as_raw_nonzero().get()).expect("pids are positive");
    // If the agent doesn't hear it, the agent is gone, which the next round finds out.
    let _ = tell(&agent, &Report::Started { pid });
    let timer =
        timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let mut keeper = Keeper { agent, news, timer, tree: Tree::new(main), lease, kill_at: None };
    let verdict = keeper.keep(&mut room);
    // Whatever went wrong, the program doesn't outlive it.
    keeper.tree.kill();
    match verdict? {
        Some(report) => tell(&keeper.agent, &report),
        None => Ok(()),
    }
}

struct Keeper {
    agent: OwnedFd,
    news: OwnedFd,
    timer: OwnedFd,
    tree: Tree,
    lease: Option<u64>,
    /// When the patience with a program that was asked to end is over.
    kill_at: Option<u64>,
}

impl Keeper {
    /// Watches until the program has to go, or is gone; what the agent is to be told then.
    fn keep(&mut self, room: &mut [u8]) -> io::Result<Option<Report>> {
        loop {
            self.set_timer()?;
            wait(&[self.agent.as_fd(), self.news.as_fd(), self.timer.as_fd()])?;
            let now = boot_nanos();
            if self.lease.is_some_and(|lease| lease <= now) {
                return Ok(Some(Report::LeaseLapsed));
            }
            signals::drain(&self.news);
            if let Some(end) = self.tree.reap() {
                return Ok(Some(Report::Ended(end)));
            }
            if self.kill_at.is_some_and(|kill_at| kill_at <= now) {
                return Ok(Some(Report::Ended(End::Signal(Signal::KILL.as_raw()))));
            }
            match hear(&self.agent, room) {
                Heard::Message(Order::Lease(until)) => self.lease = self.lease.map(|_| until),
                Heard::Message(Order::Stop { grace }) => {
                    self.tree.ask_to_end();
                    self.kill_at.get_or_insert(now.saturating_add(grace));
                }
                Heard::Message(Order::Start(_)) | Heard::Nothing => {}
                Heard::Gone => return Ok(None),
            }
        }
    }

    /// The timer fires when the lease lapses or the patience ends.
    fn set_timer(&self) -> io::Result<()> {
        let at = self.lease.into_iter().chain(self.kill_at).min();
        // All zero disarms; a moment in the past fires at once.
        let at = at.map_or(0, |at| at.max(1));
        let limit = i64::MAX.unsigned_abs();
        let it_value = Timespec {
            tv_sec: (at / 1_000_000_000).min(limit).cast_signed(),
            tv_nsec: (at % 1_000_000_000).cast_signed(),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: never, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }
}

/// Sleeps until one of the descriptors has something.
fn wait(fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut polled, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
