//! The gateway's end by hand: routes, sessions, windows, resets.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use jizoku_types::event::ResetCause;
use jizoku_types::limits::{
    CONNS_PER_GATEWAY_MAX, CONNS_WAITING_MAX, INPUT_WINDOW, OUTPUT_WINDOW, STREAM_CHUNK_MAX,
};
use jizoku_types::{
    BranchId, ConnId, Epoch, GatewayId, Incarnation, Instant, NodeId, ServiceId, Span,
};

use super::conn::Conn;
use super::resume::{Verdict, judge};
use super::{GatewayEnd, Input, OpenError, Output, Phase};
use crate::limits::{ACK_AFTER, CONFIRM_AFTER, Limits, MESSAGE_BYTES_MAX, PROBE_AFTER};
use crate::lineage::{Lineage, Mark, Reign};
use crate::message::{
    AttachConn, Attached, AttachedConn, Bytes, GatewayBody, GatewayFrame, InstanceBody,
    InstanceFrame, ToGateway, ToInstance,
};

const ACTIVE: NodeId = NodeId([9; 32]);
const OTHER: NodeId = NodeId([8; 32]);

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Span::millis(millis)
}

fn peer() -> SocketAddr {
    "192.0.2.7:4711".parse().expect("an address")
}

fn me() -> GatewayId {
    GatewayId { node: NodeId([1; 32]), incarnation: Incarnation(1) }
}

fn id(counter: u64) -> ConnId {
    ConnId { gateway: me(), counter }
}

fn reign(counter: u64, restored: u64) -> Reign {
    Reign { epoch: Epoch::main(counter), restored }
}

fn answer(held: bool, highest: u64, conns: Vec<AttachedConn>) -> Attached {
    let lineage = vec![reign(1, 0)];
    Attached { held, stateless: false, highest, lineage, conns, poisonous: vec![] }
}

fn has(counter: u64, received: u64, produced: u64) -> AttachedConn {
    AttachedConn { counter, received, consumed: 0, confirmed: 0, produced }
}

fn data(counter: u64, offset: u64, cover: u64, bytes: &[u8]) -> GatewayFrame {
    GatewayFrame::Data { counter, offset, cover, bytes: Bytes(bytes.to_vec()) }
}

/// A gateway and the instance's side of its session.
struct World {
    end: GatewayEnd,
    now: Instant,
    epoch: Epoch,
    session: u64,
    number: u64,
    heard: u64,
}

impl World {
    fn new(held: bool) -> World {
        let end = GatewayEnd::new(me(), ServiceId(1), held);
        World { end, now: at(1), epoch: Epoch::main(1), session: 0, number: 0, heard: 0 }
    }

    /// Routed and attached, with connections that the instance has.
    fn attached(held: bool, conns: u64) -> World {
        let mut world = World::new(held);
        world.route(1);
        world.answer(answer(held, 0, vec![]));
        for _ in 0..conns {
            world.open();
        }
        world.sent();
        world
    }

    fn input(&mut self, input: Input) {
        self.end.handle(self.now, input);
    }

    fn open(&mut self) -> ConnId {
        self.end.open(self.now, 0, peer()).expect("there is room")
    }

    fn route(&mut self, counter: u64) {
        self.epoch = Epoch::main(counter);
        self.input(Input::Route { active: ACTIVE, epoch: self.epoch });
    }

    fn client(&mut self, counter: u64, bytes: &[u8]) {
        self.input(Input::FromClient { conn: id(counter), bytes: bytes.to_vec() });
    }

    fn outputs(&mut self) -> Vec<Output> {
        core::iter::from_fn(|| self.end.poll()).collect()
    }

    /// What goes to the instance.
    fn messages(&mut self) -> Vec<ToInstance> {
        let mut messages = Vec::new();
        for output in self.outputs() {
            if let Output::Send { message, .. } = output {
                self.session = message.session;
                self.heard = self.heard.max(message.number);
                messages.push(message);
            }
        }
        messages
    }

    fn sent(&mut self) -> Vec<InstanceFrame> {
        let frames = |message: ToInstance| match message.body {
            InstanceBody::Frames(frames) => frames,
            _ => vec![],
        };
        self.messages().into_iter().flat_map(frames).collect()
    }

    fn attach(&mut self) -> Vec<AttachConn> {
        let mut messages = self.messages();
        match messages.pop().map(|message| message.body) {
            Some(InstanceBody::Attach(list)) => list,
            other => panic!("not an attach: {other:?}"),
        }
    }

    fn say(&mut self, number: u64, committed: u64, body: GatewayBody) {
        let (service, epoch, session) = (ServiceId(1), self.epoch, self.session);
        let heard = self.heard;
        let message = ToGateway { service, epoch, session, number, heard, committed, body };
        self.input(Input::Message { from: ACTIVE, message });
    }

    /// The instance answers the attach under way.
    fn answer(&mut self, attached: Attached) {
        self.heard = 0;
        self.messages();
        self.number = 1;
        self.say(1, 0, GatewayBody::Attached(Box::new(attached)));
    }

    fn frames(&mut self, committed: u64, frames: Vec<GatewayFrame>) {
        self.number += 1;
        self.say(self.number, committed, GatewayBody::Frames(frames));
    }

    /// What goes to clients.
    fn clients(&mut self) -> Vec<Output> {
        let mut outputs = self.outputs();
        outputs.retain(|output| !matches!(output, Output::Send { .. }));
        outputs
    }
}

fn to_client(counter: u64, bytes: &[u8]) -> Output {
    Output::ToClient { conn: id(counter), bytes: bytes.to_vec() }
}

fn reset(counter: u64, cause: ResetCause) -> Output {
    Output::ResetClient { conn: id(counter), cause }
}

#[test]
fn verdicts() {
    let used = |released: u64, mark: Option<(u64, u64)>, base: u64, end: u64| {
        let mut conn = Conn::new(0, peer());
        (conn.have, conn.released) = (released, released);
        conn.mark = mark.map(|(epoch, cover)| Mark { epoch: Epoch::main(epoch), cover });
        conn.input.append(&vec![0; end as usize]);
        conn.input.discard_to(base);
        conn
    };
    let fresh = || used(0, None, 0, 5);
    let (lost, closed) = (ResetCause::ReleasedTooMuch, ResetCause::ByInstance);
    let reigns = vec![reign(1, 0), reign(2, 7), reign(4, 9)];
    let lineage = Lineage::from_reigns(reigns).expect("not empty");
    // The connection has the number 5; the state has seen 5, or only 4.
    for (what, conn, found, highest, verdict) in [
        ("younger than the state", fresh(), None, 4, Verdict::OpenAnew),
        ("closed by the state", fresh(), None, 5, Verdict::Reset(closed)),
        ("known", fresh(), Some(has(5, 3, 0)), 5, Verdict::GoOn),
        ("all received", fresh(), Some(has(5, 5, 0)), 5, Verdict::GoOn),
        ("received what was never sent", fresh(), Some(has(5, 6, 0)), 5, Verdict::Reset(lost)),
        (
            "needs what was dropped",
            used(0, None, 2, 5),
            Some(has(5, 1, 0)),
            5,
            Verdict::Reset(lost),
        ),
        ("younger, but consumed", used(0, None, 2, 5), None, 4, Verdict::Reset(lost)),
        ("younger, but answered", used(1, Some((2, 8)), 0, 5), None, 4, Verdict::Reset(lost)),
        ("in line", used(3, Some((2, 9)), 0, 5), Some(has(5, 5, 3)), 5, Verdict::GoOn),
        ("past it", used(3, Some((2, 10)), 0, 5), Some(has(5, 5, 3)), 5, Verdict::Reset(lost)),
        ("lost reign", used(3, Some((3, 8)), 0, 5), Some(has(5, 5, 3)), 5, Verdict::Reset(lost)),
        (
            "state lacks output",
            used(3, Some((2, 9)), 0, 5),
            Some(has(5, 5, 2)),
            5,
            Verdict::Reset(lost),
        ),
    ] {
        let attached = answer(true, highest, found.into_iter().collect());
        let got = judge(&conn, 5, found.as_ref(), &attached, &lineage);
        assert_eq!(got, verdict, "{what}");
    }
    let poisonous = Attached { poisonous: vec![3, 5], ..answer(true, 4, vec![]) };
    let got = judge(&fresh(), 5, None, &poisonous, &lineage);
    assert_eq!(got, Verdict::Reset(ResetCause::Poisonous));

    let stateless = Attached { stateless: true, ..answer(false, 0, vec![]) };
    let mut sent = fresh();
    sent.used_by = Some(Epoch::main(3));
    let got = judge(&sent, 5, None, &stateless, &lineage);
    assert_eq!(got, Verdict::Reset(ResetCause::Stateless));
    assert_eq!(judge(&fresh(), 5, None, &stateless, &lineage), Verdict::OpenAnew);

    let mut conn = used(3, None, 0, 5);
    let branch = Epoch { branch: BranchId([5; 16]), counter: 2 };
    conn.mark = Some(Mark { epoch: branch, cover: 2 });
    let got = judge(&conn, 5, Some(&has(5, 5, 3)), &answer(true, 5, vec![]), &lineage);
    assert_eq!(got, Verdict::Reset(ResetCause::BranchStopped));
}

#[test]
fn connections_wait_for_an_instance_and_are_opened_in_order() {
    let mut world = World::new(true);
    world.open();
    world.client(1, b"early");
    world.open();
    world.input(Input::ClientEof { conn: id(2) });
    assert_eq!((world.outputs(), world.end.phase()), (vec![], Phase::Unrouted));
    world.route(1);
    assert_eq!(world.attach(), [], "no instance has heard of them");
    world.open();
    world.answer(answer(true, 0, vec![]));
    let open = |counter| InstanceFrame::Open { counter, port: 0, peer: peer() };
    let bytes = Bytes(b"early".to_vec());
    let expected = [
        open(1),
        InstanceFrame::Data { counter: 1, offset: 0, bytes },
        open(2),
        InstanceFrame::Fin { counter: 2, offset: 0 },
        open(3),
    ];
    assert_eq!(world.sent(), expected);
}

#[test]
fn connections_are_limited() {
    let mut world = World::new(true);
    for _ in 0..CONNS_WAITING_MAX {
        world.open();
    }
    let refused = world.end.open(world.now, 0, peer());
    assert_eq!(refused, Err(OpenError::TooManyWaiting));
    world.route(1);
    world.answer(answer(true, 0, vec![]));
    world.sent();
    for _ in CONNS_WAITING_MAX..CONNS_PER_GATEWAY_MAX {
        world.open();
    }
    assert_eq!(world.end.open(world.now, 0, peer()), Err(OpenError::Full));
    world.input(Input::ClientReset { conn: id(77) });
    assert_eq!(world.open(), id(CONNS_PER_GATEWAY_MAX as u64 + 1));
    world.input(Input::Unrouted);
    assert_eq!(world.clients().len(), CONNS_PER_GATEWAY_MAX);
    assert_eq!(world.end.open(world.now, 0, peer()), Err(OpenError::Stopped));
    world.route(1);
    world.open();
}

#[test]
fn an_attach_is_repeated_until_it_is_answered() {
    let mut world = World::new(true);
    world.route(1);
    let mut times = vec![];
    for _ in 0..6 {
        assert_eq!(world.attach(), []);
        let deadline = world.end.deadline().expect("it asks again");
        times.push(deadline.since(world.now).as_millis());
        world.now = deadline;
        world.input(Input::Tick);
    }
    assert_eq!(times, [25, 50, 100, 200, 200, 200]);
    assert_eq!(world.session, 1, "it is the same session");
    world.answer(answer(true, 0, vec![]));
    assert_eq!(world.end.phase(), Phase::Attached);
}

#[test]
fn held_output_is_given_when_its_cover_is_committed() {
    let mut world = World::attached(true, 2);
    world.frames(0, vec![data(1, 0, 1, b"a"), data(2, 0, 1, b"b"), data(1, 1, 2, b"c")]);
    world.frames(0, vec![GatewayFrame::Fin { counter: 1, offset: 2, cover: 3 }]);
    assert_eq!(world.clients(), []);
    world.frames(1, vec![]);
    let first = Output::FirstOutput { epoch: Epoch::main(1) };
    assert_eq!(world.clients(), [first, to_client(1, b"a"), to_client(2, b"b")]);
    world.frames(2, vec![data(2, 1, 2, b"d")]);
    assert_eq!(world.clients(), [to_client(1, b"c"), to_client(2, b"d")]);
    world.frames(3, vec![]);
    assert_eq!(world.clients(), [Output::ClientFin { conn: id(1) }]);
}

#[test]
fn free_output_is_given_at_once_and_closing_ends_the_connection() {
    let mut world = World::attached(false, 1);
    let fin = GatewayFrame::Fin { counter: 1, offset: 2, cover: 1 };
    let close = GatewayFrame::Close { counter: 1, cover: 1 };
    world.frames(0, vec![data(1, 0, 1, b"ab"), fin, close]);
    let outputs = world.outputs();
    let fin = Output::ClientFin { conn: id(1) };
    assert_eq!(outputs[1..4], [to_client(1, b"ab"), fin, Output::CloseClient { conn: id(1) }]);
    let gone = InstanceBody::Frames(vec![InstanceFrame::Gone { counter: 1 }]);
    assert!(matches!(&outputs[4], Output::Send { message, .. } if message.body == gone));
    assert_eq!(world.end.conns(), 0);
}

#[test]
fn a_takeover_drops_what_was_not_committed_and_sends_again_what_is_needed() {
    let mut world = World::attached(true, 1);
    world.client(1, b"0123456789");
    world.sent();
    let consumed = GatewayFrame::Consumed { counter: 1, offset: 4 };
    world.frames(1, vec![data(1, 0, 1, b"safe"), data(1, 4, 2, b"lost"), consumed]);
    assert_eq!(world.end.input_kept(), 6);
    world.clients();
    world.route(2);
    let list = world.attach();
    assert_eq!(list, [AttachConn { counter: 1, have: 4, sent: 10, fin_sent: false }]);
    let lineage = vec![reign(1, 0), reign(2, 1)];
    world.answer(Attached { lineage, ..answer(true, 1, vec![has(1, 5, 6)]) });
    let bytes = Bytes(b"56789".to_vec());
    assert_eq!(world.sent(), [InstanceFrame::Data { counter: 1, offset: 5, bytes }]);
    world.frames(0, vec![data(1, 4, 1, b"go"), data(1, 6, 2, b"on")]);
    assert_eq!(world.clients(), []);
    world.frames(1, vec![]);
    let first = Output::FirstOutput { epoch: Epoch::main(2) };
    assert_eq!(world.clients(), [first, to_client(1, b"go")]);
    // The old instance doesn't know it was replaced.
    world.epoch = Epoch::main(1);
    world.frames(9, vec![data(1, 8, 2, b"stale")]);
    assert_eq!((world.clients(), world.end.dropped().stale), (vec![], 1));
}

#[test]
fn free_connections_go_on_iff_their_output_is_in_the_restored_state() {
    let mut world = World::attached(false, 2);
    world.frames(0, vec![data(1, 0, 1, b"ab"), data(2, 0, 2, b"cd")]);
    world.clients();
    world.route(3);
    let lineage = vec![reign(1, 0), reign(3, 1)];
    let conns = vec![has(1, 0, 2), has(2, 0, 2)];
    world.answer(Attached { lineage, ..answer(false, 2, conns) });
    assert_eq!(world.clients(), [reset(2, ResetCause::ReleasedTooMuch)]);
    assert_eq!(world.end.conns(), 1);
}

#[test]
fn routes_are_followed_forwards_and_to_other_branches_only() {
    let mut world = World::attached(true, 0);
    world.route(1);
    world.input(Input::Route { active: OTHER, epoch: Epoch::main(1) });
    assert_eq!(world.messages().len(), 0);
    world.route(5);
    world.attach();
    world.route(4);
    assert_eq!((world.messages().len(), world.end.epoch()), (0, Some(Epoch::main(5))));
    let branch = Epoch { branch: BranchId([5; 16]), counter: 1 };
    world.input(Input::Route { active: OTHER, epoch: branch });
    assert_eq!((world.attach(), world.end.epoch()), (vec![], Some(branch)));
}

#[test]
fn a_running_instance_is_attached_to_at_once() {
    let mut world = World::new(true);
    world.route(1);
    world.attach();
    world.session = 0;
    world.say(0, 0, GatewayBody::Hello);
    assert_eq!(world.attach(), []);
    world.answer(answer(true, 0, vec![]));
    world.epoch = Epoch::main(2);
    world.session = 0;
    world.say(0, 0, GatewayBody::Hello);
    assert_eq!((world.attach(), world.end.epoch()), (vec![], Some(Epoch::main(2))));
    world.epoch = Epoch::main(1);
    world.say(0, 0, GatewayBody::Hello);
    assert_eq!((world.messages().len(), world.end.dropped().stale), (0, 1));
}

#[test]
fn a_new_session_is_begun_when_something_may_be_lost() {
    let mut world = World::attached(true, 1);
    world.frames(0, vec![data(1, 0, 1, b"ab")]);
    let list = [AttachConn { counter: 1, have: 2, sent: 0, fin_sent: false }];
    world.number += 1;
    world.frames(1, vec![]);
    assert_eq!((world.attach(), world.session), (list.to_vec(), 2));
    world.answer(answer(true, 1, vec![has(1, 0, 2)]));
    world.input(Input::LinkBack { node: OTHER });
    assert_eq!(world.messages().len(), 0);
    world.input(Input::LinkBack { node: ACTIVE });
    assert_eq!((world.attach(), world.session), (list.to_vec(), 3));
    world.answer(answer(true, 1, vec![has(1, 0, 2)]));
    world.say(0, 0, GatewayBody::Reattach);
    assert_eq!((world.attach(), world.session), (list.to_vec(), 4));
    world.answer(answer(true, 1, vec![has(1, 0, 2)]));
    world.frames(1, vec![]);
    let first = Output::FirstOutput { epoch: Epoch::main(1) };
    assert_eq!(world.clients(), [first, to_client(1, b"ab")], "kept across the sessions");
}

#[test]
fn confirmations_are_collected() {
    let mut world = World::attached(false, 1);
    let wrote = |count| Input::Wrote { conn: id(1), count };
    world.frames(0, vec![data(1, 0, 1, &vec![1; OUTPUT_WINDOW])]);
    world.clients();
    world.input(wrote(10));
    assert_eq!(world.sent(), []);
    let deadline = world.end.deadline().expect("a timer runs");
    assert_eq!(deadline, world.now + CONFIRM_AFTER);
    world.now = deadline;
    world.input(Input::Tick);
    let confirm = |offset| InstanceFrame::Confirm { counter: 1, offset };
    assert_eq!(world.sent(), [confirm(10)]);

    world.input(wrote(5));
    world.client(1, b"x");
    assert_eq!(world.sent()[1..], [confirm(15)], "it goes with the next message");
    world.input(wrote(OUTPUT_WINDOW / 4));
    assert_eq!(world.sent(), [confirm(15 + OUTPUT_WINDOW as u64 / 4)], "much goes at once");
    world.input(wrote(OUTPUT_WINDOW * 9));
    assert_eq!(world.sent(), [confirm(OUTPUT_WINDOW as u64)], "no more than was given");
}

#[test]
fn a_client_is_read_within_its_window() {
    let mut world = World::attached(true, 1);
    let (chunk, full) = (vec![1; STREAM_CHUNK_MAX], INPUT_WINDOW / 4 * 3);
    for _ in 0..full / STREAM_CHUNK_MAX - 1 {
        world.client(1, &chunk);
    }
    assert_eq!(world.clients(), []);
    world.client(1, &chunk);
    assert_eq!(world.outputs()[..1], [Output::PauseReading { conn: id(1) }]);
    let consumed = |offset: usize| GatewayFrame::Consumed { counter: 1, offset: offset as u64 };
    world.frames(0, vec![consumed(full - INPUT_WINDOW / 2 - 1)]);
    assert_eq!(world.clients(), []);
    world.frames(0, vec![consumed(full - INPUT_WINDOW / 2)]);
    assert_eq!(world.clients(), [Output::ReadMore { conn: id(1) }]);
    world.client(1, &vec![1; INPUT_WINDOW / 2]);
    assert_eq!(world.outputs()[..1], [Output::PauseReading { conn: id(1) }]);
    world.client(1, b"!");
    assert_eq!(world.clients(), [reset(1, ResetCause::ByInstance)]);
    assert_eq!((world.end.input_kept(), world.end.dropped().violations), (0, 1));
}

#[test]
fn when_the_total_is_used_up_only_small_shares_are_read() {
    let mut world = World::attached(true, 3);
    let (input_total, share) = (1000, 100);
    world.end.set_limits(Limits { input_total, share, ..Limits::default() });
    world.client(1, &[0; 900]);
    world.client(2, &[0; 99]);
    assert_eq!(world.clients(), []);
    world.client(3, &[0; 10]);
    world.client(2, &[0; 1]);
    assert_eq!(world.clients(), [Output::PauseReading { conn: id(2) }]);
    let consumed = |counter, offset| GatewayFrame::Consumed { counter, offset };
    world.frames(0, vec![consumed(2, 49)]);
    assert_eq!(world.clients(), []);
    world.frames(0, vec![consumed(2, 50)]);
    assert_eq!(world.clients(), [Output::ReadMore { conn: id(2) }], "it keeps next to nothing");
    world.client(2, &[0; 60]);
    assert_eq!(world.clients(), [Output::PauseReading { conn: id(2) }]);
    world.frames(0, vec![consumed(1, 300)]);
    assert_eq!(world.clients(), [Output::ReadMore { conn: id(2) }], "the total became less");
}

#[test]
fn breaches_of_the_protocol_cost_their_connection() {
    let (max, window) = (u64::MAX, vec![1; OUTPUT_WINDOW]);
    let fin = |offset| GatewayFrame::Fin { counter: 1, offset, cover: 1 };
    let cases: [(&str, Vec<GatewayFrame>); 7] = [
        ("a gap", vec![data(1, 1, 1, b"x")]),
        ("no end of it", vec![data(1, max, 1, b"xy")]),
        ("over the window", vec![data(1, 0, 1, &window), data(1, window.len() as u64, 1, b"x")]),
        ("after the end", vec![data(1, 0, 1, b"x"), fin(1), data(1, 1, 1, b"y")]),
        ("an end too late", vec![fin(1)]),
        ("an end too early", vec![data(1, 0, 1, b"x"), fin(0)]),
        ("closed without an end", vec![GatewayFrame::Close { counter: 1, cover: 1 }]),
    ];
    for (what, frames) in cases {
        let mut world = World::attached(true, 2);
        world.frames(0, frames);
        let outputs = world.outputs();
        assert_eq!(outputs[0], reset(1, ResetCause::ByInstance), "{what}");
        assert_eq!((world.end.dropped().violations, world.end.conns()), (1, 1), "{what}");
        let gone = InstanceBody::Frames(vec![InstanceFrame::Gone { counter: 1 }]);
        let told = |output: &Output| match output {
            Output::Send { message, .. } => message.body == gone,
            _ => false,
        };
        assert!(outputs.iter().any(told), "{what}");
        world.frames(9, vec![data(1, 0, 1, b"x"), data(2, 0, 1, b"y")]);
        assert_eq!(world.clients()[1..], [to_client(2, b"y")], "{what}");
    }
}

#[test]
fn the_instance_can_not_make_it_forget_what_was_not_sent() {
    let mut world = World::attached(true, 1);
    world.client(1, b"abc");
    world.frames(0, vec![GatewayFrame::Consumed { counter: 1, offset: u64::MAX }]);
    assert_eq!(world.end.input_kept(), 3);
    world.sent();
    world.frames(0, vec![GatewayFrame::Consumed { counter: 1, offset: u64::MAX }]);
    assert_eq!(world.end.input_kept(), 0);
    world.client(1, b"d");
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn a_reset_waits_for_its_cover_and_a_refusal_does_not() {
    let mut world = World::attached(true, 2);
    let by_program = GatewayFrame::Reset { counter: 1, cover: 2 };
    let refused = GatewayFrame::Reset { counter: 2, cover: 0 };
    world.frames(0, vec![data(1, 0, 1, b"a"), by_program, data(2, 0, 1, b"b"), refused]);
    assert_eq!(world.clients(), [reset(2, ResetCause::ByInstance)]);
    world.frames(1, vec![]);
    assert_eq!(world.clients()[1..], [to_client(1, b"a")]);
    world.frames(2, vec![]);
    assert_eq!(world.clients(), [reset(1, ResetCause::ByInstance)]);
}

#[test]
fn after_a_stateless_instance_only_unused_connections_go_on() {
    let exec = |epoch| Attached {
        stateless: true,
        lineage: vec![reign(epoch, 0)],
        ..answer(false, 0, vec![])
    };
    let mut world = World::new(true);
    world.route(1);
    world.answer(exec(1));
    for _ in 0..3 {
        world.open();
    }
    world.client(1, b"used");
    world.sent();
    world.frames(0, vec![data(2, 0, 0, b"banner")]);
    assert_eq!(world.clients()[1..], [to_client(2, b"banner")], "it has nothing to wait for");
    world.route(2);
    world.answer(exec(2));
    let expected = [reset(1, ResetCause::Stateless), reset(2, ResetCause::Stateless)];
    assert_eq!(world.outputs()[..2], expected);
    assert_eq!(world.end.conns(), 1);
}

#[test]
fn the_stricter_output_mode_counts() {
    let mut world = World::attached(false, 1);
    world.input(Input::Held(true));
    world.frames(0, vec![data(1, 0, 1, b"a")]);
    world.input(Input::Held(false));
    world.frames(0, vec![data(1, 1, 1, b"b")]);
    assert_eq!(world.clients(), [], "until the next session");
    world.input(Input::LinkBack { node: ACTIVE });
    world.answer(answer(false, 1, vec![has(1, 0, 2)]));
    assert_eq!(world.clients()[1..], [to_client(1, b"a"), to_client(1, b"b")]);
}

#[test]
fn what_is_taken_is_acknowledged_and_what_is_sent_asked_for() {
    let mut world = World::attached(true, 1);
    world.frames(0, vec![data(1, 0, 1, b"a")]);
    world.now += ACK_AFTER;
    world.input(Input::Tick);
    let acks = world.messages();
    assert_eq!((acks.len(), acks[0].number, acks[0].heard), (1, 0, world.number));
    assert_eq!(acks[0].body, InstanceBody::Ack);

    world.client(1, b"b");
    world.messages();
    let mut waits = vec![];
    for _ in 0..6 {
        let deadline = world.end.deadline().expect("it asks");
        waits.push(deadline.since(world.now).as_millis());
        world.now = deadline;
        world.input(Input::Tick);
        assert_eq!(world.messages()[0].body, InstanceBody::Probe);
    }
    assert_eq!(waits, [200, 400, 800, 1600, 3200, 3200]);
    world.say(0, 0, GatewayBody::Ack);
    assert_eq!(world.end.deadline(), None);
    world.client(1, b"c");
    world.messages();
    assert_eq!(world.end.deadline(), Some(world.now + PROBE_AFTER));
    world.say(0, 0, GatewayBody::Probe);
    assert_eq!(world.messages()[0].body, InstanceBody::Ack);
}

#[test]
fn a_fast_client_is_cut_into_messages_that_fit() {
    let mut world = World::new(true);
    for counter in 1..=3 {
        world.open();
        world.client(counter, &vec![counter as u8; INPUT_WINDOW]);
    }
    world.route(1);
    world.answer(answer(true, 0, vec![]));
    let mut received = [0; 4];
    for message in world.messages() {
        let InstanceBody::Frames(frames) = message.body else { panic!("frames only") };
        let mut total = 0;
        for frame in frames {
            if let InstanceFrame::Data { counter, offset, bytes } = frame {
                assert!(bytes.0.len() <= STREAM_CHUNK_MAX);
                assert_eq!(offset, received[counter as usize]);
                received[counter as usize] += bytes.0.len() as u64;
                total += bytes.0.len();
            }
        }
        assert!(total <= MESSAGE_BYTES_MAX);
    }
    assert_eq!(received[1..], [INPUT_WINDOW as u64; 3]);
}

#[test]
fn clients_that_leave_while_it_attaches_are_told_as_gone() {
    let mut world = World::attached(true, 2);
    world.route(2);
    assert_eq!(world.attach().len(), 2);
    world.input(Input::ClientReset { conn: id(1) });
    for _ in 0..5 {
        let conn = world.open();
        world.input(Input::ClientReset { conn });
    }
    let lineage = vec![reign(1, 0), reign(2, 0)];
    let conns = vec![has(1, 0, 0), has(2, 0, 0)];
    world.answer(Attached { lineage, ..answer(true, 2, conns) });
    assert_eq!(world.sent(), [InstanceFrame::Gone { counter: 1 }]);
}
