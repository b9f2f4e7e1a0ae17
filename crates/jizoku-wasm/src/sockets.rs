//! The program's connections: a thin front of [`InstanceEnd`] for the host calls.
//!
//! What it does not know: descriptors, the program's memory.

use jizoku_engine::Identity;
use jizoku_streams::instance::{
    Identity as StreamIdentity, InstanceEnd, ReadInto, RestoreError, Shutdown, Socket as Slot,
    Write,
};
use jizoku_streams::{ToGateway, ToInstance};
use jizoku_types::{GatewayId, Instant};

use crate::wasi::clock::node_now;

/// A connection, as descriptors name it.
pub(crate) type Socket = u32;

/// The program's connections.
pub(crate) struct Sockets {
    end: InstanceEnd,
    /// A call of the program may have given it something to say.
    touched: bool,
    /// For each port: since when, on the node's clock, connections wait and none was accepted.
    unaccepted: Vec<Option<u64>>,
}

/// What reading gave.
pub(crate) enum Received {
    Bytes(usize),
    End,
    Reset,
    Nothing,
}

/// What writing gave.
pub(crate) enum Sent {
    Bytes(usize),
    Nothing,
    Broken,
}

/// A connection that a call would not wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    /// Bytes to read, or room to write.
    pub(crate) bytes: u64,
    /// Nothing comes after these bytes.
    pub(crate) hangup: bool,
}

impl Sockets {
    pub(crate) fn fresh(identity: &Identity, ports: u8) -> Sockets {
        let end = InstanceEnd::new(of_streams(identity), usize::from(ports));
        Sockets { end, touched: false, unaccepted: vec![None; usize::from(ports)] }
    }

    /// The connections of the capture `seq`.
    pub(crate) fn restore(
        identity: &Identity,
        ports: u8,
        seq: u64,
        bytes: &[u8],
    ) -> Result<Sockets, RestoreError> {
        let end = InstanceEnd::restore(of_streams(identity), usize::from(ports), seq, bytes)?;
        // It greets the gateways that it knows.
        let unaccepted = vec![None; usize::from(ports)];
        let mut sockets = Sockets { end, touched: true, unaccepted };
        sockets.look_who_waits();
        Ok(sockets)
    }

    pub(crate) fn can_accept(&self, port: u8) -> bool {
        self.end.pending(usize::from(port)) > 0
    }

    pub(crate) fn accept(&mut self, port: u8) -> Option<Socket> {
        let accepted = self.end.accept(usize::from(port)).map(|slot| slot.0);
        if let Some(since) = self.unaccepted.get_mut(usize::from(port)) {
            *since = (self.end.pending(usize::from(port)) > 0).then(node_now);
        }
        accepted
    }

    /// For each port since when nobody was accepted although somebody waits.
    pub(crate) fn unaccepted(&self) -> impl Iterator<Item = Option<u64>> {
        self.unaccepted.iter().copied()
    }

    /// Notes on which ports somebody waits, or no more.
    fn look_who_waits(&mut self) {
        for (port, since) in self.unaccepted.iter_mut().enumerate() {
            match self.end.pending(port) {
                0 => *since = None,
                _ => {
                    since.get_or_insert_with(node_now);
                }
            }
        }
    }

    /// None if a read would wait.
    pub(crate) fn can_read(&self, socket: Socket) -> Option<Ready> {
        let found = self.end.readable(Slot(socket));
        let hangup = found.reset || (found.eof && found.bytes == 0);
        found.ready().then_some(Ready { bytes: found.bytes as u64, hangup })
    }

    /// None if a write would wait.
    pub(crate) fn can_write(&self, socket: Socket) -> Option<Ready> {
        let room = self.end.writable(Slot(socket));
        (room > 0).then_some(Ready { bytes: room as u64, hangup: false })
    }

    pub(crate) fn read(&mut self, socket: Socket, peek: bool, into: &mut [u8]) -> Received {
        match self.end.read_into(Slot(socket), into, peek) {
            ReadInto::Data(count) => Received::Bytes(count),
            ReadInto::Eof => Received::End,
            ReadInto::Reset => Received::Reset,
            ReadInto::WouldBlock => Received::Nothing,
        }
    }

    pub(crate) fn write(&mut self, socket: Socket, bytes: &[u8]) -> Sent {
        self.touched = true;
        match self.end.write(Slot(socket), bytes) {
            Write::Written(count) => Sent::Bytes(count),
            Write::WouldBlock => Sent::Nothing,
            Write::Closed | Write::Reset => Sent::Broken,
        }
    }

    pub(crate) fn shut_down(&mut self, socket: Socket, read: bool, write: bool) {
        let how = match (read, write) {
            (true, true) => Shutdown::Both,
            (true, false) => Shutdown::Read,
            (false, true) => Shutdown::Write,
            (false, false) => return,
        };
        self.touched = true;
        self.end.shutdown(Slot(socket), how);
    }

    pub(crate) fn close(&mut self, socket: Socket) {
        self.touched = true;
        self.end.close(Slot(socket));
    }

    pub(crate) fn output_waits(&self) -> bool {
        self.end.output_waits()
    }

    pub(crate) fn capture(&mut self, seq: u64) -> Vec<u8> {
        self.end.capture(seq)
    }

    pub(crate) fn committed(&mut self, seq: u64) {
        self.end.committed(seq);
    }

    pub(crate) fn handle(&mut self, now: Instant, gateway: GatewayId, message: ToInstance) {
        self.end.handle(now, gateway, message);
        self.look_who_waits();
    }

    pub(crate) fn gateway_gone(&mut self, gateway: GatewayId) {
        self.end.gateway_gone(gateway);
        self.look_who_waits();
    }

    pub(crate) fn quarantine(&mut self) {
        self.end.quarantine();
    }

    pub(crate) fn poll(&mut self) -> Option<(GatewayId, ToGateway)> {
        let message = self.end.poll();
        self.touched = message.is_some();
        message
    }

    /// Whether `poll` may have something to give because of what the program did.
    pub(crate) fn has_output(&self) -> bool {
        self.touched
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.end.advance(now);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.end.deadline()
    }
}

fn of_streams(identity: &Identity) -> StreamIdentity {
    let Identity { service, epoch, held } = *identity;
    StreamIdentity { service, epoch, held, survives: true }
}
