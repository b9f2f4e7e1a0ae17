//! `poll_oneoff`: waiting for connections and for time.
//!
//! Invariant: time that was waited before a capture counts: relative times are from the first
//! try of the call, wherever it was.

use super::descriptors::{Descriptors, Target};
use super::errno::{Errno, Fail};
use super::guest::{Guest, Pointer};
use crate::host::{Host, Patience};
use crate::sockets::{Ready, Socket, Sockets};

/// Subscriptions of one call at most: reading and writing of each descriptor, and some clocks.
const SUBSCRIPTIONS_MAX: u32 = 2 * super::descriptors::DESCRIPTORS_MAX as u32 + 1024;

const SUBSCRIPTION_SIZE: u32 = 48;
const EVENT_SIZE: usize = 32;

const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;

const ABSOLUTE: u16 = 1;
const HANGUP: u16 = 1;

/// What the program waits for.
#[derive(Clone, Copy)]
struct Subscription {
    userdata: u64,
    kind: u8,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// The monotonic clock's reaching this.
    Time(u64),
    /// Nothing: it is always ready.
    Nothing,
    /// What never happens, such as writing to a listener: runtimes ask for both directions.
    Never,
    /// It can't be waited for.
    Failure(Errno),
    /// A client, at this port.
    Client(u8),
    /// Something to read.
    Input(Socket),
    /// Room to write.
    Room(Socket),
}

#[derive(Clone, Copy)]
struct Event {
    subscription: Subscription,
    errno: Errno,
    ready: Ready,
}

impl Host {
    pub(super) fn poll_oneoff(
        &mut self,
        guest: &mut Guest<'_>,
        subscriptions: Pointer,
        events: Pointer,
        count: u32,
        ready: Pointer,
    ) -> Result<(), Fail> {
        if count == 0 || count > SUBSCRIPTIONS_MAX {
            return Err(Errno::INVAL.into());
        }
        guest.slice(events, count * EVENT_SIZE as u32)?;
        guest.slice(ready, 4)?;
        let began = self.waiting_since.take().unwrap_or_else(|| self.clocks.monotonic());
        let wanted = self.subscriptions(guest, subscriptions, count, began)?;
        let due = wanted.iter().filter_map(|subscription| match subscription.what {
            What::Time(due) => Some(due),
            _ => None,
        });
        let deadline = due.min();
        let patience = deadline.map_or(Patience::Endless, Patience::Until);
        let mut found = Vec::new();
        let waited = self.wait(patience, |sockets| {
            found.extend(wanted.iter().filter_map(|&wanted| wanted.event(sockets)));
            (!found.is_empty()).then_some(())
        });
        if let Err(Fail::Unwind) = waited {
            self.waiting_since = Some(began);
        }
        waited?;
        if let Some(deadline) = deadline {
            self.add_times(&wanted, deadline, &mut found);
        }
        for (event, at) in found.iter().zip((events..).step_by(EVENT_SIZE)) {
            guest.write(at, &event.bytes())?;
        }
        Ok(guest.set_u32(ready, found.len() as u32)?)
    }

    /// Whether such a call would wait now.
    #[cfg(feature = "fuzz")]
    pub(crate) fn would_wait(&self, guest: &Guest<'_>, array: Pointer, count: u32) -> bool {
        let count = count.min(SUBSCRIPTIONS_MAX);
        let Ok(wanted) = self.subscriptions(guest, array, count, 0) else { return false };
        let state = self.shared.lock();
        !wanted.iter().any(|wanted| wanted.event(&state.sockets).is_some())
    }

    fn subscriptions(
        &self,
        guest: &Guest<'_>,
        array: Pointer,
        count: u32,
        began: u64,
    ) -> Result<Vec<Subscription>, Errno> {
        let slice = guest.slice(array, count * SUBSCRIPTION_SIZE)?;
        let entries = guest.bytes(slice).chunks_exact(SUBSCRIPTION_SIZE as usize);
        entries.map(|entry| self.subscription(entry, began)).collect()
    }

    fn subscription(&self, entry: &[u8], began: u64) -> Result<Subscription, Errno> {
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
        let kind = entry[8];
        let what = match kind {
            CLOCK => {
                let absolute = word(40) as u16 & ABSOLUTE != 0;
                self.clocks.due(word(16), long(24), absolute, began).map(What::Time)
            }
            READ => source(&self.descriptors, word(16)),
            WRITE => sink(&self.descriptors, word(16)),
            _ => return Err(Errno::INVAL),
        };
        Ok(Subscription { userdata: long(0), kind, what: what.unwrap_or_else(What::Failure) })
    }

    /// Adds the clocks that have come to their time, if the first of them has.
    fn add_times(&self, wanted: &[Subscription], deadline: u64, found: &mut Vec<Event>) {
        let now = self.clocks.monotonic();
        if now < deadline {
            return;
        }
        let over = |what| matches!(what, What::Time(due) if due <= now);
        let over = wanted.iter().filter(|wanted| over(wanted.what));
        found.extend(over.map(|&subscription| Event {
            subscription,
            errno: Errno::SUCCESS,
            ready: Ready::default(),
        }));
    }
}

fn source(descriptors: &Descriptors, fd: u32) -> Result<What, Errno> {
    Ok(match descriptors.get(fd)?.target {
        Target::Listener(port) => What::Client(port),
        Target::Connection(socket) => What::Input(socket),
        Target::Input | Target::File { .. } => What::Nothing,
        Target::Printer(_) | Target::Directory(_) => What::Never,
    })
}

fn sink(descriptors: &Descriptors, fd: u32) -> Result<What, Errno> {
    Ok(match descriptors.get(fd)?.target {
        Target::Connection(socket) => What::Room(socket),
        Target::Printer(_) | Target::File { .. } => What::Nothing,
        Target::Input | Target::Listener(_) | Target::Directory(_) => What::Never,
    })
}

impl Subscription {
    /// What there is to tell, if there is.
    fn event(self, sockets: &Sockets) -> Option<Event> {
        let mut errno = Errno::SUCCESS;
        let ready = match self.what {
            What::Time(_) | What::Never => return None,
            What::Nothing => Ready { bytes: 1, hangup: false },
            What::Failure(why) => {
                errno = why;
                Ready::default()
            }
            What::Client(port) => {
                sockets.can_accept(port).then_some(Ready { bytes: 1, hangup: false })?
            }
            What::Input(socket) => sockets.can_read(socket)?,
            What::Room(socket) => sockets.can_write(socket)?,
        };
        Some(Event { subscription: self, errno, ready })
    }
}

impl Event {
    fn bytes(&self) -> [u8; EVENT_SIZE] {
        let mut bytes = [0; EVENT_SIZE];
        bytes[..8].copy_from_slice(&self.subscription.userdata.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.errno.0.to_le_bytes());
        bytes[10] = self.subscription.kind;
        bytes[16..24].copy_from_slice(&self.ready.bytes.to_le_bytes());
        let flags = if self.ready.hangup { HANGUP } else { 0 };
        bytes[24..26].copy_from_slice(&flags.to_le_bytes());
        bytes
    }
}
