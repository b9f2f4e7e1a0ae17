//! The instance's end by hand: the socket calls, captures, restores.

use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use jizoku_types::limits::{CONNS_PER_GATEWAY_MAX, INPUT_WINDOW, OUTPUT_WINDOW};
use jizoku_types::{Epoch, GatewayId, Incarnation, Instant, NodeId, ServiceId, Span};

use super::{
    Dropped, Identity, InstanceEnd, Read, ReadInto, RestoreError, Shutdown, Socket, Write,
};
use crate::limits::{Limits, PROBE_AFTER};
use crate::lineage::Reign;
use crate::message::{
    AttachConn, Attached, AttachedConn, Bytes, GatewayBody, GatewayFrame, InstanceBody,
    InstanceFrame, ToGateway, ToInstance,
};

const HELD: Identity =
    Identity { service: ServiceId(1), epoch: Epoch::main(1), held: true, survives: true };
const FREE: Identity = Identity { held: false, ..HELD };
const EXEC: Identity = Identity { held: false, survives: false, ..HELD };

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Span::millis(millis)
}

fn gateway(node: u8, incarnation: u64) -> GatewayId {
    GatewayId { node: NodeId([node; 32]), incarnation: Incarnation(incarnation) }
}

fn peer() -> SocketAddr {
    "192.0.2.7:4711".parse().expect("an address")
}

fn open(counter: u64) -> InstanceFrame {
    InstanceFrame::Open { counter, port: 0, peer: peer() }
}

fn data(counter: u64, offset: u64, bytes: &[u8]) -> InstanceFrame {
    InstanceFrame::Data { counter, offset, bytes: Bytes(bytes.to_vec()) }
}

fn listed(counter: u64, have: u64) -> AttachConn {
    AttachConn { counter, have, sent: 0, fin_sent: false }
}

/// A gateway's side of a session.
struct Link {
    id: GatewayId,
    epoch: Epoch,
    session: u64,
    number: u64,
    heard: u64,
    now: Instant,
}

impl Link {
    fn new(node: u8) -> Link {
        Link {
            id: gateway(node, 1),
            epoch: Epoch::main(1),
            session: 0,
            number: 0,
            heard: 0,
            now: at(1),
        }
    }

    fn send(&self, end: &mut InstanceEnd, session: u64, number: u64, body: InstanceBody) {
        let (service, epoch, heard) = (ServiceId(1), self.epoch, self.heard);
        let message = ToInstance { service, epoch, session, number, heard, body };
        end.handle(self.now, self.id, message);
    }

    fn attach(&mut self, end: &mut InstanceEnd, conns: Vec<AttachConn>) -> Attached {
        self.session += 1;
        (self.number, self.heard) = (1, 0);
        self.send(end, self.session, 1, InstanceBody::Attach(conns));
        match self.hear(end).remove(0) {
            GatewayBody::Attached(attached) => *attached,
            other => panic!("not an answer: {other:?}"),
        }
    }

    fn say(&mut self, end: &mut InstanceEnd, frames: Vec<InstanceFrame>) {
        self.number += 1;
        self.send(end, self.session, self.number, InstanceBody::Frames(frames));
    }

    /// What the instance has to say to this gateway.
    fn hear(&mut self, end: &mut InstanceEnd) -> Vec<GatewayBody> {
        messages(end, self.id)
            .into_iter()
            .map(|message| {
                self.heard = self.heard.max(message.number);
                message.body
            })
            .collect()
    }

    fn frames(&mut self, end: &mut InstanceEnd) -> Vec<GatewayFrame> {
        let frames = |body| match body {
            GatewayBody::Frames(frames) => frames,
            _ => vec![],
        };
        self.hear(end).into_iter().flat_map(frames).collect()
    }
}

fn messages(end: &mut InstanceEnd, to: GatewayId) -> Vec<ToGateway> {
    core::iter::from_fn(|| end.poll()).filter(|(id, _)| *id == to).map(|(_, m)| m).collect()
}

/// An end, a gateway attached to it, and one accepted connection.
fn connected(identity: Identity) -> (InstanceEnd, Link, Socket) {
    let mut end = InstanceEnd::new(identity, 2);
    let mut link = Link::new(1);
    link.attach(&mut end, vec![]);
    link.say(&mut end, vec![open(1)]);
    let socket = end.accept(0).expect("one waits");
    (end, link, socket)
}

fn out(counter: u64, offset: u64, cover: u64, bytes: &[u8]) -> GatewayFrame {
    GatewayFrame::Data { counter, offset, cover, bytes: Bytes(bytes.to_vec()) }
}

#[test]
fn output_bears_the_number_of_the_next_capture() {
    let (mut end, mut link, socket) = connected(HELD);
    link.say(&mut end, vec![data(1, 0, b"ask")]);
    assert_eq!(end.read(socket, 10), Read::Data(b"ask".to_vec()));
    assert_eq!(end.write(socket, b"one"), Write::Written(3));
    assert!(end.output_waits() && end.changed());
    assert_eq!(link.frames(&mut end), [out(1, 0, 1, b"one")]);
    end.capture(1);
    assert!(!end.output_waits() && !end.changed());
    end.write(socket, b"two");
    assert_eq!(link.frames(&mut end), [out(1, 3, 2, b"two")]);

    end.committed(1);
    let told = messages(&mut end, link.id);
    assert_eq!(told.len(), 1, "one message for a commit");
    assert_eq!(told[0].committed, 1);
    let consumed = GatewayFrame::Consumed { counter: 1, offset: 3 };
    assert_eq!(told[0].body, GatewayBody::Frames(vec![consumed]));
}

#[test]
fn a_commit_is_told_once_to_each_gateway_it_concerns_with_what_changed() {
    let mut end = InstanceEnd::new(FREE, 1);
    let (mut one, mut two, mut three) = (Link::new(1), Link::new(2), Link::new(3));
    for link in [&mut one, &mut two, &mut three] {
        link.attach(&mut end, vec![]);
    }
    for link in [&mut one, &mut two] {
        link.say(&mut end, (1..=3).map(open).collect());
        link.say(&mut end, (1..=3).map(|counter| data(counter, 0, b"abc")).collect());
    }
    let sockets: Vec<Socket> = core::iter::from_fn(|| end.accept(0)).collect();
    for socket in [sockets[1], sockets[3], sockets[5]] {
        end.read(socket, 2);
    }
    while end.poll().is_some() {}
    end.capture(1);
    end.read(sockets[0], 3);
    end.committed(1);
    let consumed = |counter| GatewayFrame::Consumed { counter, offset: 2 };
    let told: Vec<(GatewayId, GatewayBody)> =
        core::iter::from_fn(|| end.poll()).map(|(id, message)| (id, message.body)).collect();
    let expected = [
        (one.id, GatewayBody::Frames(vec![consumed(2)])),
        (two.id, GatewayBody::Frames(vec![consumed(1), consumed(3)])),
    ];
    assert_eq!(told, expected);
    end.capture(2);
    end.committed(2);
    assert_eq!(messages(&mut end, one.id).len(), 1);
    assert_eq!(messages(&mut end, two.id).len(), 0);
}

#[test]
fn a_restored_end_goes_on_where_the_capture_was() {
    let (mut end, mut link, socket) = connected(HELD);
    link.say(&mut end, vec![data(1, 0, b"abcdef"), open(2), open(3)]);
    end.read(socket, 4);
    end.write(socket, b"ABCD");
    end.shutdown(socket, Shutdown::Write);
    link.frames(&mut end);
    let state = end.capture(1);

    let identity = Identity { epoch: Epoch::main(3), ..HELD };
    let mut end = InstanceEnd::restore(identity, 2, 1, &state).expect("a good state");
    assert_eq!(messages(&mut end, link.id)[0].body, GatewayBody::Hello);
    assert_eq!((end.pending(0), end.conns()), (2, 3));
    assert_eq!(end.peer_address(socket), Some(peer()));
    assert_eq!(end.write(socket, b"x"), Write::Closed);

    link.epoch = identity.epoch;
    let attached = link.attach(&mut end, vec![listed(1, 1), listed(2, 0)]);
    let conn = AttachedConn { counter: 1, received: 4, consumed: 0, confirmed: 0, produced: 4 };
    let second = AttachedConn { counter: 2, received: 0, produced: 0, ..conn };
    assert_eq!(attached.conns, [conn, second]);
    assert_eq!(attached.highest, 3);
    let reign = |counter, restored| Reign { epoch: Epoch::main(counter), restored };
    assert_eq!(attached.lineage, [reign(1, 0), reign(3, 1)]);
    assert_eq!(end.pending(0), 1, "the one that wasn't listed is gone");

    end.committed(1);
    let fin = GatewayFrame::Fin { counter: 1, offset: 4, cover: 1 };
    let consumed = GatewayFrame::Consumed { counter: 1, offset: 4 };
    // The attach's answer was heard; this is what follows it.
    link.say(&mut end, vec![data(1, 4, b"ef")]);
    let frames = link.frames(&mut end);
    assert!(frames.contains(&consumed), "{frames:?}");
    assert_eq!(end.read(socket, 9), Read::Data(b"ef".to_vec()));
    // Output was sent right behind the answer.
    link.session += 1;
    link.number = 1;
    link.send(&mut end, link.session, 1, InstanceBody::Attach(vec![listed(1, 1)]));
    let frames = link.frames(&mut end);
    assert_eq!(frames[..2], [out(1, 1, 1, b"BCD"), fin]);
}

#[test]
fn sockets_are_numbered_lowest_first_and_not_reused_while_open() {
    let (mut end, mut link, first) = connected(FREE);
    link.say(&mut end, vec![open(2), open(3)]);
    let (second, third) = (end.accept(0).expect("a"), end.accept(0).expect("b"));
    assert_eq!([first, second, third], [Socket(0), Socket(1), Socket(2)]);
    end.close(second);
    assert_eq!(end.read(second, 1), Read::Reset);
    link.say(&mut end, vec![open(4)]);
    assert_eq!(end.accept(0), Some(Socket(3)), "its client may still lack the end");
    link.say(&mut end, vec![InstanceFrame::Gone { counter: 2 }, open(5)]);
    assert_eq!(end.accept(0), Some(second));
    assert_eq!(end.conn_id(second).map(|id| id.counter), Some(5));

    link.say(&mut end, vec![InstanceFrame::Gone { counter: 3 }, open(6)]);
    assert_eq!(end.accept(0), Some(Socket(4)), "the program hasn't closed it");
    assert_eq!(end.write(third, b"x"), Write::Reset);
    end.close(third);
    link.say(&mut end, vec![open(7)]);
    assert_eq!(end.accept(0), Some(third));
}

#[test]
fn reading_tells_bytes_end_and_nothing_apart() {
    let (mut end, mut link, socket) = connected(HELD);
    assert_eq!(end.read(socket, 5), Read::WouldBlock);
    assert!(!end.readable(socket).ready());
    link.say(&mut end, vec![data(1, 0, b"abc"), InstanceFrame::Fin { counter: 1, offset: 3 }]);
    let mut room = [0; 2];
    assert_eq!(end.read_into(socket, &mut room, true), ReadInto::Data(2));
    assert_eq!(end.read_into(socket, &mut room, false), ReadInto::Data(2));
    assert_eq!(&room, b"ab");
    assert_eq!(end.read(socket, 0), Read::Data(vec![]));
    let ready = end.readable(socket);
    assert!(ready.bytes == 1 && ready.eof && !ready.reset);
    assert_eq!(end.read(socket, 5), Read::Data(b"c".to_vec()));
    assert_eq!(end.read(socket, 5), Read::Eof);
    assert_eq!(end.read(socket, 5), Read::Eof);

    link.say(&mut end, vec![open(2), data(2, 0, b"unread")]);
    let second = end.accept(0).expect("one waits");
    end.shutdown(second, Shutdown::Read);
    assert_eq!(end.read(second, 5), Read::Eof);
    link.say(&mut end, vec![data(2, 6, b"more")]);
    assert_eq!(end.read(second, 5), Read::Eof);
    assert_eq!(end.write(second, b"still"), Write::Written(5));
}

#[test]
fn a_client_that_went_before_it_was_accepted_is_not_accepted() {
    let (mut end, mut link, _) = connected(HELD);
    link.say(&mut end, vec![open(2), open(3), InstanceFrame::Gone { counter: 2 }]);
    assert_eq!(end.pending(0), 1);
    let socket = end.accept(0).expect("one waits");
    assert_eq!(end.conn_id(socket).map(|id| id.counter), Some(3));
    assert_eq!((end.accept(0), end.accept(7), end.pending(7)), (None, None, 0));
}

#[test]
fn output_waits_for_confirmation_within_its_window() {
    let (mut end, mut link, socket) = connected(FREE);
    let big = vec![7; OUTPUT_WINDOW + 5];
    assert_eq!(end.write(socket, &big), Write::Written(OUTPUT_WINDOW));
    assert_eq!((end.writable(socket), end.write(socket, b"x")), (0, Write::WouldBlock));
    let bodies = link.hear(&mut end);
    assert!(bodies.len() >= 4, "it takes several messages");
    link.say(&mut end, vec![InstanceFrame::Confirm { counter: 1, offset: 10 }]);
    assert_eq!(end.writable(socket), 10);
    let offset = OUTPUT_WINDOW as u64;
    link.say(&mut end, vec![InstanceFrame::Confirm { counter: 1, offset }]);
    assert_eq!(end.writable(socket), OUTPUT_WINDOW);
    assert_eq!(end.capture(1).len(), end.capture(2).len());
}

#[test]
fn when_the_total_is_used_up_each_connection_has_a_share() {
    let (mut end, mut link, first) = connected(FREE);
    let (output_window, output_total, share) = (100, 150, 10);
    end.set_limits(Limits { output_window, output_total, share, ..Limits::default() });
    link.say(&mut end, vec![open(2), open(3)]);
    let (second, third) = (end.accept(0).expect("a"), end.accept(0).expect("b"));
    assert_eq!(end.write(first, &[0; 200]), Write::Written(100));
    assert_eq!(end.write(second, &[0; 200]), Write::Written(100));
    assert_eq!(end.write(third, &[0; 200]), Write::Written(10));
    assert_eq!(end.write(second, &[0; 1]), Write::WouldBlock);
    link.frames(&mut end);
    link.say(&mut end, vec![InstanceFrame::Confirm { counter: 1, offset: 100 }]);
    assert_eq!(end.write(third, &[0; 200]), Write::Written(90));
}

#[test]
fn breaches_of_the_protocol_cost_their_connection() {
    let window = vec![1; INPUT_WINDOW];
    let fin = |offset| InstanceFrame::Fin { counter: 1, offset };
    let confirm = |offset| InstanceFrame::Confirm { counter: 1, offset };
    let cases: [(&str, Vec<InstanceFrame>); 8] = [
        ("a gap", vec![data(1, 1, b"x")]),
        ("no end of it", vec![data(1, u64::MAX, b"xy")]),
        ("over the window", vec![data(1, 0, &window), data(1, window.len() as u64, b"x")]),
        ("after the end", vec![data(1, 0, b"x"), fin(1), data(1, 1, b"y")]),
        ("an end too late", vec![fin(1)]),
        ("an end too early", vec![data(1, 0, b"x"), fin(0)]),
        ("confirms what was never sent", vec![confirm(1)]),
        ("confirms without end", vec![confirm(u64::MAX)]),
    ];
    for (what, frames) in cases {
        let (mut end, mut link, socket) = connected(HELD);
        link.say(&mut end, frames);
        assert_eq!(end.dropped().violations, 1, "{what}");
        assert!(end.readable(socket).reset, "{what}");
        let told = link.frames(&mut end);
        assert_eq!(told, [GatewayFrame::Reset { counter: 1, cover: 0 }], "{what}");
        end.close(socket);
        assert_eq!(end.conns(), 0, "{what}");
    }
}

#[test]
fn repeated_and_overlapping_input_is_taken_once() {
    let (mut end, mut link, socket) = connected(HELD);
    link.say(&mut end, vec![data(1, 0, b"abc"), data(1, 1, b"bcde"), data(1, 0, b"a")]);
    assert_eq!(end.read(socket, 9), Read::Data(b"abcde".to_vec()));
    link.say(&mut end, vec![data(1, 0, b"abc"), data(1, 3, b"def")]);
    assert_eq!(end.read(socket, 9), Read::Data(b"f".to_vec()));
    assert_eq!(end.dropped(), Dropped::default());
}

#[test]
fn refused_connections_are_reset_at_once() {
    let (mut end, mut link, _) = connected(HELD);
    link.say(&mut end, vec![InstanceFrame::Open { counter: 2, port: 2, peer: peer() }]);
    assert_eq!(link.frames(&mut end), [GatewayFrame::Reset { counter: 2, cover: 0 }]);
    link.say(&mut end, vec![open(2), data(2, 0, b"x")]);
    assert_eq!(end.conns(), 1, "a number is never opened twice");
    let most = CONNS_PER_GATEWAY_MAX as u64;
    link.say(&mut end, (3..most + 4).map(open).collect());
    assert_eq!(end.conns(), CONNS_PER_GATEWAY_MAX);
    let last = link.frames(&mut end);
    let refused = |counter| GatewayFrame::Reset { counter, cover: 0 };
    assert_eq!(last, [refused(most + 2), refused(most + 3)]);
}

#[test]
fn a_gap_ends_the_session() {
    let (mut end, mut link, socket) = connected(HELD);
    link.frames(&mut end);
    link.number += 1;
    link.say(&mut end, vec![data(1, 0, b"late")]);
    assert_eq!(link.hear(&mut end), [GatewayBody::Reattach]);
    assert_eq!((end.dropped().gaps, end.read(socket, 9)), (1, Read::WouldBlock));
    // Nothing else is taken in it.
    link.number -= 2;
    link.say(&mut end, vec![data(1, 0, b"right")]);
    assert_eq!(link.hear(&mut end), [GatewayBody::Reattach]);
    let attached = link.attach(&mut end, vec![listed(1, 0)]);
    assert_eq!(attached.conns[0].received, 0);
    link.say(&mut end, vec![data(1, 0, b"right")]);
    assert_eq!(end.read(socket, 9), Read::Data(b"right".to_vec()));
}

#[test]
fn what_is_stale_or_doubled_is_counted_and_dropped() {
    let (mut end, mut link, socket) = connected(HELD);
    let frames = || InstanceBody::Frames(vec![data(1, 0, b"x")]);
    let epoch = core::mem::replace(&mut link.epoch, Epoch::main(2));
    link.send(&mut end, 1, 3, frames());
    link.epoch = epoch;
    link.send(&mut end, 0, 3, frames());
    link.send(&mut end, 0, 1, InstanceBody::Attach(vec![]));
    assert_eq!(end.dropped(), Dropped { stale: 3, ..Dropped::default() });
    link.send(&mut end, 1, 2, frames());
    link.send(&mut end, 1, 1, frames());
    assert_eq!(end.dropped().duplicates, 2);
    link.send(&mut end, 1, 0, frames());
    assert_eq!(end.dropped().violations, 1, "what may not be lost has a number");
    assert_eq!(end.read(socket, 9), Read::WouldBlock);

    let unsorted = vec![listed(2, 0), listed(1, 0)];
    link.send(&mut end, 9, 1, InstanceBody::Attach(unsorted));
    let too_many = vec![listed(1, 0); CONNS_PER_GATEWAY_MAX + 1];
    link.send(&mut end, 9, 1, InstanceBody::Attach(too_many));
    assert_eq!(end.dropped().violations, 3);
    assert!(!end.readable(socket).reset);
}

#[test]
fn an_attach_is_answered_again_until_the_answer_was_heard() {
    let mut end = InstanceEnd::new(HELD, 1);
    let mut link = Link::new(1);
    link.attach(&mut end, vec![]);
    link.send(&mut end, 1, 1, InstanceBody::Attach(vec![]));
    assert!(matches!(link.hear(&mut end)[..], [GatewayBody::Attached(_)]));
    link.say(&mut end, vec![open(1)]);
    link.send(&mut end, 1, 1, InstanceBody::Attach(vec![]));
    assert_eq!(link.hear(&mut end), []);
}

#[test]
fn an_unknown_session_is_asked_to_attach() {
    let mut end = InstanceEnd::new(HELD, 1);
    let mut link = Link::new(1);
    link.send(&mut end, 5, 9, InstanceBody::Probe);
    let told = messages(&mut end, link.id);
    assert_eq!((told[0].session, &told[0].body), (5, &GatewayBody::Reattach));
    link.session = 4;
    link.attach(&mut end, vec![]);
}

#[test]
fn a_newer_incarnation_replaces_the_older() {
    let (mut end, link, socket) = connected(HELD);
    let mut newer = Link { id: gateway(1, 2), ..Link::new(1) };
    newer.attach(&mut end, vec![]);
    assert!(end.readable(socket).reset);
    let stale = end.dropped().stale;
    link.send(&mut end, 1, 9, InstanceBody::Probe);
    assert_eq!(end.dropped().stale, stale + 1);
    newer.say(&mut end, vec![open(1)]);
    assert_eq!(end.pending(0), 1);
    end.close(socket);
    let state = end.capture(1);
    let identity = Identity { epoch: Epoch::main(2), ..HELD };
    let mut end = InstanceEnd::restore(identity, 1, 1, &state).expect("a good state");
    let greeted: Vec<GatewayId> = core::iter::from_fn(|| end.poll()).map(|(id, _)| id).collect();
    assert_eq!(greeted, [newer.id]);
}

#[test]
fn a_gateway_that_was_gone_does_not_get_its_connections_back() {
    let (mut end, mut link, socket) = connected(HELD);
    link.say(&mut end, vec![data(1, 0, b"once")]);
    end.read(socket, 9);
    link.frames(&mut end);
    end.gateway_gone(link.id);
    assert_eq!(end.read(socket, 9), Read::Reset);
    assert_eq!(link.hear(&mut end), [GatewayBody::Reattach]);
    end.close(socket);
    let state = end.capture(1);
    let identity = Identity { epoch: Epoch::main(2), ..HELD };
    let mut end = InstanceEnd::restore(identity, 1, 1, &state).expect("a good state");
    link.epoch = identity.epoch;
    let hello = messages(&mut end, link.id).remove(0);
    assert_eq!(hello.body, GatewayBody::Hello);
    let attached = link.attach(&mut end, vec![listed(1, 0)]);
    assert_eq!((attached.highest, attached.conns.len()), (1, 0));
}

#[test]
fn quarantine_resets_what_had_input_since_the_checkpoint() {
    let (mut end, mut link, _) = connected(HELD);
    link.say(&mut end, (2..=5).map(open).collect());
    let sockets: Vec<Socket> = core::iter::from_fn(|| end.accept(0)).collect();
    link.say(&mut end, (1..=5).map(|counter| data(counter, 0, b"abc")).collect());
    link.say(&mut end, vec![InstanceFrame::Fin { counter: 3, offset: 3 }]);
    for &socket in &sockets {
        end.read(socket, 3);
    }
    end.read(sockets[1], 3);
    end.close(sockets[3]);
    let state = end.capture(1);
    let identity = Identity { epoch: Epoch::main(2), ..HELD };
    let mut end = InstanceEnd::restore(identity, 1, 1, &state).expect("a good state");
    end.quarantine();
    end.poll();
    let item = |counter, sent, fin_sent| AttachConn { counter, have: 0, sent, fin_sent };
    let list = vec![
        item(2, 3, false),
        item(3, 3, true),
        item(4, 4, true),
        item(5, 9, true),
        item(6, 0, false),
    ];
    link.epoch = identity.epoch;
    let attached = link.attach(&mut end, list.clone());
    let kept: Vec<u64> = attached.conns.iter().map(|conn| conn.counter).collect();
    // 2 had nothing new, 3 had its end read, 5 is closed; 4 had a byte more, 6 is younger.
    assert_eq!((kept, attached.poisonous), (vec![2, 3, 5], vec![4, 6]));
    // In this epoch it is asked once only.
    let attached = link.attach(&mut end, vec![item(2, 99, true), list[1], list[3]]);
    assert_eq!((attached.conns.len(), attached.poisonous), (3, vec![4, 6]));
}

#[test]
fn poisonous_names_those_with_input_in_this_epoch() {
    let (mut end, mut link, _) = connected(HELD);
    let state = end.capture(1);
    let identity = Identity { epoch: Epoch::main(2), ..HELD };
    let mut end = InstanceEnd::restore(identity, 1, 1, &state).expect("a good state");
    end.poll();
    link.epoch = identity.epoch;
    link.attach(&mut end, vec![listed(1, 0)]);
    assert_eq!(end.poisonous(), []);
    link.say(&mut end, vec![data(1, 0, b"x")]);
    let poisonous: Vec<u64> = end.poisonous().iter().map(|id| id.counter).collect();
    assert_eq!(poisonous, [1]);
}

#[test]
fn a_stateless_end_frees_input_without_commits() {
    let (mut end, mut link, socket) = connected(EXEC);
    link.say(&mut end, vec![data(1, 0, b"abc")]);
    link.frames(&mut end);
    end.read(socket, 2);
    end.advance(at(1));
    assert_eq!(link.frames(&mut end), [], "it waits for company");
    end.advance(end.deadline().expect("a timer runs"));
    end.advance(end.deadline().expect("a timer runs"));
    assert_eq!(link.frames(&mut end), [GatewayFrame::Consumed { counter: 1, offset: 2 }]);
    let big = vec![1; INPUT_WINDOW / 2];
    link.say(&mut end, vec![data(1, 3, &big)]);
    end.read(socket, big.len() + 1);
    let offset = 3 + big.len() as u64;
    let told = link.frames(&mut end);
    assert_eq!(told, [GatewayFrame::Consumed { counter: 1, offset }], "much is told at once");
    assert!(!end.output_waits());
}

#[test]
fn a_half_consumed_window_asks_for_a_capture() {
    let (mut end, mut link, socket) = connected(FREE);
    link.say(&mut end, vec![data(1, 0, &vec![1; INPUT_WINDOW])]);
    end.read(socket, INPUT_WINDOW / 2 - 1);
    assert!(!end.output_waits() && end.changed());
    end.read(socket, 1);
    assert!(end.output_waits());
    end.capture(1);
    assert!(!end.output_waits());
}

#[test]
fn unacknowledged_output_is_asked_for_and_an_idle_end_is_silent() {
    let (mut end, mut link, socket) = connected(HELD);
    link.frames(&mut end);
    link.send(&mut end, 1, 0, InstanceBody::Ack);
    end.advance(at(10));
    end.write(socket, b"x");
    link.frames(&mut end);
    let asked = at(10) + PROBE_AFTER;
    let mut now = at(10);
    while now < asked {
        assert_eq!(link.hear(&mut end), []);
        now = end.deadline().expect("it waits for the acknowledgement").max(now);
        end.advance(now);
    }
    assert_eq!(link.hear(&mut end), [GatewayBody::Probe]);
    link.now = now;
    link.send(&mut end, 1, 0, InstanceBody::Ack);
    while let Some(deadline) = end.deadline() {
        end.advance(deadline);
    }
    assert_eq!(link.hear(&mut end).len(), 0);
    link.send(&mut end, 1, 0, InstanceBody::Probe);
    assert_eq!(link.hear(&mut end), [GatewayBody::Ack]);
}

#[test]
fn an_idle_connection_costs_56_bytes_of_state() {
    let (mut end, mut link, _) = connected(HELD);
    link.say(&mut end, (2..=1024).map(open).collect());
    let size = end.capture(1).len();
    assert!(size < 1024 * 56 + 1200, "{size}");
    link.say(&mut end, (2..=1024).map(|counter| InstanceFrame::Gone { counter }).collect());
    assert_eq!(end.conns(), 1);
    let state = end.capture(2);
    let identity = Identity { epoch: Epoch::main(2), ..HELD };
    let end = InstanceEnd::restore(identity, 1, 2, &state).expect("a good state");
    assert_eq!(end.conns(), 1);
}

#[test]
fn a_state_is_refused_whole_if_it_can_not_be_one() {
    let (mut end, mut link, socket) = connected(HELD);
    link.say(&mut end, vec![open(2), data(1, 0, b"abc")]);
    end.read(socket, 3);
    end.write(socket, b"unconfirmed");
    let state = end.capture(1);
    let identity = Identity { epoch: Epoch::main(2), ..HELD };
    let restore = |state: &[u8]| InstanceEnd::restore(identity, 1, 1, state).map(|_| ());
    assert_eq!(restore(&state), Ok(()));
    assert_eq!(InstanceEnd::restore(HELD, 1, 1, &state).err(), Some(RestoreError::SameEpoch));
    assert_eq!(InstanceEnd::restore(identity, 1, 2, &state).err(), Some(RestoreError::Seq(1)));
    let none = InstanceEnd::restore(identity, 0, 1, &state).err();
    assert_eq!(none, Some(RestoreError::Inconsistent), "the waiting one's port isn't there");
    for length in 0..state.len() {
        assert_eq!(restore(&state[..length]), Err(RestoreError::Length), "{length}");
    }
    let mut longer = state.clone();
    longer.push(0);
    assert_eq!(restore(&longer), Err(RestoreError::Length));
    for at in 0..state.len() {
        let mut bad = state.clone();
        bad[at] ^= 1 << (at % 8);
        // Not all can be told from good ones; the holders' hashes do that.
        let result = restore(&bad);
        assert!(at >= 4 || matches!(result, Err(RestoreError::Version(_))));
    }
}

#[test]
fn many_captures_without_a_commit_are_bounded() {
    let (mut end, mut link, socket) = connected(HELD);
    for seq in 1..=500u64 {
        link.say(&mut end, vec![data(1, seq - 1, b"x")]);
        end.read(socket, 1);
        end.write(socket, b"y");
        end.capture(seq);
        link.frames(&mut end);
    }
    assert!(end.captures.len() <= crate::limits::CAPTURES_MAX);
    end.committed(3);
    assert_eq!(link.frames(&mut end), [], "the oldest are told with a later one");
    end.committed(500);
    assert_eq!(link.frames(&mut end), [GatewayFrame::Consumed { counter: 1, offset: 500 }]);
    link.attach(&mut end, vec![listed(1, 0)]);
    let again = end.poll();
    assert!(again.is_none(), "{again:?}");
}

#[test]
fn a_commit_is_told_although_its_output_was_sent_in_an_earlier_session() {
    let (mut end, mut link, socket) = connected(HELD);
    end.write(socket, b"abc");
    link.frames(&mut end);
    link.attach(&mut end, vec![listed(1, 3)]);
    assert_eq!(messages(&mut end, link.id).len(), 0);
    end.capture(1);
    end.committed(1);
    let told = messages(&mut end, link.id);
    assert_eq!((told.len(), told[0].committed), (1, 1));
}
