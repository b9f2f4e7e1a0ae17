//! Peers that lie now and then, against both ends: whatever comes from the wire, nothing panics
//! and nothing grows beyond its limits.
//!
//! The liars keep to the protocol most of the time, so that much of what they say is taken.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use jizoku_types::{ConnId, Epoch, GatewayId, Incarnation, Instant, NodeId, ServiceId, Span};

use crate::dice::Dice;
use crate::gateway::{GatewayEnd, Input, Output};
use crate::instance::{Identity, InstanceEnd, Read, Shutdown, Socket};
use crate::limits::Limits;
use crate::lineage::Reign;
use crate::message::{
    AttachConn, Attached, AttachedConn, Bytes, GatewayBody, GatewayFrame, InstanceBody,
    InstanceFrame, ToGateway, ToInstance,
};

const LIMITS: Limits = Limits {
    input_window: 64,
    output_window: 64,
    chunk: 16,
    input_total: 300,
    output_total: 300,
    share: 8,
};
const ROUNDS: u64 = 40;
const STEPS: usize = 400;

/// Mostly what would be right, else anything.
fn near(dice: &mut Dice, right: u64) -> u64 {
    if dice.permille(960) { right } else { anything(dice) }
}

/// Mostly small, sometimes absurd.
fn anything(dice: &mut Dice) -> u64 {
    match dice.below(8) {
        0 => u64::MAX,
        1 => u64::MAX - dice.below(70) as u64,
        2 => 1 << dice.below(64),
        3 => dice.below(200) as u64,
        _ => dice.below(9) as u64,
    }
}

fn some<T>(dice: &mut Dice, most: usize, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
    (0..dice.below(most + 1)).map(|_| make(dice)).collect()
}

fn bytes(dice: &mut Dice) -> Bytes {
    let most = if dice.permille(30) { 200 } else { 9 };
    let count = dice.below(most);
    Bytes(dice.bytes(count))
}

fn gateway_id(node: u8, incarnation: u64) -> GatewayId {
    GatewayId { node: NodeId([node; 32]), incarnation: Incarnation(incarnation) }
}

/// A gateway that lies now and then.
#[derive(Default)]
struct LyingGateway {
    session: u64,
    number: u64,
    attach_due: bool,
    opened: u64,
    /// Input sent, by counter.
    sent: BTreeMap<u64, u64>,
    /// Output received, by counter.
    have: BTreeMap<u64, u64>,
}

impl LyingGateway {
    fn message(&mut self, dice: &mut Dice) -> ToInstance {
        self.number += 1;
        let body = match dice.below(20) {
            _ if self.attach_due || self.session == 0 => self.attach(dice),
            0 => InstanceBody::Probe,
            1 if dice.permille(200) => self.attach(dice),
            _ => InstanceBody::Frames(some(dice, 5, |dice| self.frame(dice))),
        };
        ToInstance {
            service: ServiceId(1),
            epoch: Epoch::main(1 + u64::from(dice.permille(10))),
            session: near(dice, self.session),
            number: near(dice, self.number),
            heard: anything(dice),
            body,
        }
    }

    fn attach(&mut self, dice: &mut Dice) -> InstanceBody {
        self.attach_due = false;
        self.session += 1;
        self.number = 1;
        let mut list = Vec::new();
        for counter in 1..=self.opened {
            let right = self.have.get(&counter).copied().unwrap_or(0);
            let (counter, have) = (near(dice, counter), near(dice, right));
            let (sent, fin_sent) = (anything(dice), dice.permille(200));
            list.push(AttachConn { counter, have, sent, fin_sent });
        }
        if dice.permille(900) {
            list.sort_by_key(|conn| conn.counter);
            list.dedup_by_key(|conn| conn.counter);
        }
        InstanceBody::Attach(list)
    }

    fn frame(&mut self, dice: &mut Dice) -> InstanceFrame {
        let known = 1 + dice.below(self.opened.max(1) as usize) as u64;
        let counter = near(dice, known);
        let sent = self.sent.get(&counter).copied().unwrap_or(0);
        match dice.below(100) {
            0..10 => {
                self.opened += 1;
                let peer = "[2001:db8::1]:80".parse().expect("an address");
                let (counter, port) = (near(dice, self.opened), dice.below(12) as u8 / 5);
                InstanceFrame::Open { counter, port, peer }
            }
            10..80 => {
                let (offset, bytes) = (near(dice, sent), bytes(dice));
                self.sent.insert(counter, offset.saturating_add(bytes.0.len() as u64));
                InstanceFrame::Data { counter, offset, bytes }
            }
            80..82 => InstanceFrame::Fin { counter, offset: near(dice, sent) },
            82..85 => InstanceFrame::Gone { counter },
            _ => {
                let right = self.have.get(&counter).copied().unwrap_or(0);
                InstanceFrame::Confirm { counter, offset: near(dice, right) }
            }
        }
    }

    fn hear(&mut self, message: ToGateway) {
        match message.body {
            GatewayBody::Reattach => self.attach_due = true,
            GatewayBody::Attached(attached) => {
                let received = attached.conns.iter().map(|conn| (conn.counter, conn.received));
                self.sent = received.collect();
                self.opened = attached.highest.min(40);
            }
            GatewayBody::Frames(frames) => {
                for frame in frames {
                    if let GatewayFrame::Data { counter, offset, bytes, .. } = frame {
                        self.have.insert(counter, offset + bytes.0.len() as u64);
                    }
                }
            }
            _ => {}
        }
    }
}

#[test]
fn an_instance_survives_lying_gateways() {
    let mut read = 0;
    for seed in 0..ROUNDS {
        let mut dice = Dice::new(seed);
        let (held, survives) = (dice.permille(500), dice.permille(800));
        let identity = Identity { service: ServiceId(1), epoch: Epoch::main(1), held, survives };
        let mut end = InstanceEnd::new(identity, 2);
        end.set_limits(LIMITS);
        let mut liars: [LyingGateway; 3] = Default::default();
        let (mut now, mut seq) = (Instant::ORIGIN, 0);
        for _ in 0..STEPS {
            now += Span::millis(dice.below(60) as u64);
            let who = dice.below(liars.len());
            let message = liars[who].message(&mut dice);
            let incarnation = 1 + u64::from(dice.permille(3));
            end.handle(now, gateway_id(who as u8, incarnation), message);
            read += program_acts(&mut end, &mut dice);
            if survives && dice.permille(100) {
                seq += 1;
                let state = end.capture(seq);
                let next = Identity { epoch: Epoch::main(2), ..identity };
                let restored = InstanceEnd::restore(next, 2, seq, &state).expect("its own state");
                assert_eq!(restored.conns(), end.conns());
                end.committed(dice.below(seq as usize + 1) as u64);
            }
            while let Some((to, message)) = end.poll() {
                liars[usize::from(to.node.0[0])].hear(message);
            }
            end.advance(end.deadline().map_or(now, |deadline| deadline.min(now)));
        }
    }
    assert!(read > 3000, "too little of it was taken to mean anything: {read}");
}

/// Says how many bytes it read.
fn program_acts(end: &mut InstanceEnd, dice: &mut Dice) -> usize {
    let mut read = 0;
    end.accept(dice.below(3));
    let socket = Socket(dice.below(12) as u32);
    match dice.below(40) {
        0..18 => {
            if let Read::Data(bytes) = end.read(socket, dice.below(99)) {
                read = bytes.len();
            }
        }
        18..36 => drop(end.write(socket, &[7; 99][..dice.below(99)])),
        36..38 => end.shutdown(socket, Shutdown::Both),
        38 => end.close(socket),
        _ => end.reset(socket),
    }
    let ready = end.readable(socket);
    assert!(ready.bytes <= LIMITS.input_window);
    assert!(end.writable(socket) <= LIMITS.output_window);
    read
}

/// An instance that lies now and then.
#[derive(Default)]
struct LyingInstance {
    session: u64,
    number: u64,
    committed: u64,
    /// What the gateway listed, to be answered.
    asked: Option<Vec<AttachConn>>,
    newest: u64,
    /// Output sent, and input received, by counter.
    sent: BTreeMap<u64, u64>,
    received: BTreeMap<u64, u64>,
}

impl LyingInstance {
    fn message(&mut self, dice: &mut Dice) -> ToGateway {
        self.number += 1;
        self.committed += u64::from(dice.permille(200));
        let body = match self.asked.take() {
            Some(list) => self.attached(dice, &list),
            None => match dice.below(60) {
                0 => GatewayBody::Hello,
                1 => GatewayBody::Reattach,
                2 => GatewayBody::Probe,
                3 => GatewayBody::Ack,
                _ => GatewayBody::Frames(some(dice, 5, |dice| self.frame(dice))),
            },
        };
        ToGateway {
            service: ServiceId(1),
            epoch: Epoch::main(1),
            session: near(dice, self.session),
            number: near(dice, self.number),
            heard: anything(dice),
            committed: near(dice, self.committed),
            body,
        }
    }

    fn attached(&mut self, dice: &mut Dice, list: &[AttachConn]) -> GatewayBody {
        self.number = 1;
        let mut conns = Vec::new();
        for conn in list {
            let received = self.received.get(&conn.counter).copied().unwrap_or(0);
            self.sent.insert(conn.counter, conn.have);
            conns.push(AttachedConn {
                counter: near(dice, conn.counter),
                received: near(dice, received),
                consumed: near(dice, 0),
                confirmed: near(dice, 0),
                produced: near(dice, conn.have),
            });
        }
        let highest = list.last().map_or(0, |conn| conn.counter);
        let mut lineage = some(dice, 40, |dice| Reign {
            epoch: Epoch::main(2 + anything(dice) / 2),
            restored: anything(dice),
        });
        if dice.permille(950) {
            lineage = alloc::vec![Reign { epoch: Epoch::main(1), restored: 0 }];
        }
        GatewayBody::Attached(Box::new(Attached {
            held: dice.permille(500),
            stateless: dice.permille(20),
            highest: near(dice, highest),
            lineage,
            conns,
            poisonous: if dice.permille(20) { some(dice, 2, anything) } else { Vec::new() },
        }))
    }

    fn frame(&mut self, dice: &mut Dice) -> GatewayFrame {
        let known = 1 + dice.below(self.newest.max(1) as usize) as u64;
        let counter = near(dice, known);
        let next = self.committed + dice.below(3) as u64;
        let cover = near(dice, next);
        let sent = self.sent.get(&counter).copied().unwrap_or(0);
        match dice.below(100) {
            0..80 => {
                let (offset, bytes) = (near(dice, sent), bytes(dice));
                self.sent.insert(counter, offset.saturating_add(bytes.0.len() as u64));
                GatewayFrame::Data { counter, offset, cover, bytes }
            }
            80..82 => GatewayFrame::Fin { counter, offset: near(dice, sent), cover },
            82 => GatewayFrame::Close { counter, cover },
            83 => GatewayFrame::Reset { counter, cover },
            _ => {
                let received = self.received.get(&counter).copied().unwrap_or(0);
                GatewayFrame::Consumed { counter, offset: near(dice, received) }
            }
        }
    }

    fn hear(&mut self, message: ToInstance) {
        match message.body {
            InstanceBody::Attach(list) => {
                self.session = message.session;
                self.asked = Some(list);
            }
            InstanceBody::Frames(frames) => {
                for frame in frames {
                    if let InstanceFrame::Data { counter, offset, bytes } = frame {
                        self.newest = self.newest.max(counter);
                        self.received.insert(counter, offset + bytes.0.len() as u64);
                    }
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_gateway_survives_a_lying_instance() {
    let active = NodeId([9; 32]);
    let mut given = 0;
    for seed in 0..ROUNDS {
        let mut dice = Dice::new(seed);
        let mut end = GatewayEnd::new(gateway_id(1, 1), ServiceId(1), dice.permille(500));
        end.set_limits(LIMITS);
        let mut liar = LyingInstance::default();
        let mut now = Instant::ORIGIN;
        for _ in 0..STEPS {
            now += Span::millis(dice.below(60) as u64);
            given += clients_act(&mut end, &mut dice, now, &mut liar);
            let message = liar.message(&mut dice);
            end.handle(now, Input::Message { from: active, message });
            if dice.permille(5) {
                end.handle(now, Input::LinkBack { node: active });
            }
            end.handle(now, Input::Route { active, epoch: Epoch::main(1) });
            assert!(end.input_kept() <= end.conns() * LIMITS.input_window);
        }
    }
    assert!(given > 3000, "too little of it was taken to mean anything: {given}");
}

/// Says how many bytes clients were given.
fn clients_act(
    end: &mut GatewayEnd,
    dice: &mut Dice,
    now: Instant,
    liar: &mut LyingInstance,
) -> usize {
    let mut given = 0;
    if end.conns() < 8 {
        let peer = "192.0.2.1:80".parse().expect("an address");
        end.open(now, 0, peer).expect("it is not stopped");
    }
    let known = liar.newest.saturating_sub(dice.below(9) as u64);
    let conn = ConnId { gateway: gateway_id(1, 1), counter: near(dice, known + 1) };
    end.handle(now, Input::FromClient { conn, bytes: bytes(dice).0 });
    match dice.below(50) {
        0 => end.handle(now, Input::ClientEof { conn }),
        1 => end.handle(now, Input::ClientReset { conn }),
        _ => end.handle(now, Input::Tick),
    }
    while let Some(output) = end.poll() {
        match output {
            Output::Send { message, .. } => liar.hear(message),
            Output::ToClient { conn, bytes } => {
                given += bytes.len();
                end.handle(now, Input::Wrote { conn, count: near(dice, 9) as usize });
            }
            _ => {}
        }
    }
    given
}
