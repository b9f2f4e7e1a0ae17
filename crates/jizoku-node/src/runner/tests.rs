//! The Runner with an instance and a holder that are played by hand.

use alloc::vec;

use jizoku_checkpoint::holder::{self, Holder};
use jizoku_checkpoint::image::DiffBuilder;
use jizoku_checkpoint::message::{Ask, Why};
use jizoku_streams::message::{Bytes, GatewayBody, GatewayFrame};
use jizoku_types::spec::{
    Durability, EngineSpec, PartitionPolicy, Placement, PortSpec, SuccessionPolicy,
};
use jizoku_types::{Incarnation, ServiceName};

use super::*;

const SERVICE: ServiceId = ServiceId(1);
const INTERVAL: Span = Span::millis(100);

fn member(n: u8) -> Member {
    Member { node: NodeId([n; 32]), incarnation: Incarnation(1) }
}

fn gateway() -> GatewayId {
    member(3)
}

fn wasm() -> EngineSpec {
    EngineSpec::Wasm {
        module: [7; 32],
        args: Vec::new(),
        env: Default::default(),
        memory_max: ByteCount(1 << 20),
        files_max: ByteCount(1 << 20),
    }
}

fn exec() -> EngineSpec {
    let command = vec!["server".into()];
    EngineSpec::Exec { command, env: Default::default(), user: None }
}

fn assignment(engine: EngineSpec, output: OutputMode) -> Assignment {
    let spec = ServiceSpec {
        name: ServiceName::new("kv").expect("a name"),
        engine,
        ports: vec![PortSpec { name: "main".into(), listen: 6379 }],
        output,
        durable: Durability::Memory,
        copies: 1,
        min_copies: 1,
        interval: INTERVAL,
        partition: PartitionPolicy::Stop,
        succession: SuccessionPolicy::Stability,
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount(1 << 20),
    };
    Assignment {
        me: member(1),
        service: SERVICE,
        spec,
        epoch: Epoch::main(1),
        born: false,
        holders: Holders { version: 1, members: [member(2)].into(), asked: None },
        everyone: [member(1), member(2), member(3)].into(),
        accept_loss: false,
        cluster_restarted: false,
        poisonous: false,
        fork: None,
        local: Vec::new(),
    }
}

/// A Runner on a desk: time is moved by hand.
struct Desk {
    runner: Runner,
    now: Instant,
    writes: u64,
}

impl Desk {
    fn new(assignment: Assignment) -> Desk {
        let now = Instant::ORIGIN + Span::secs(1);
        Desk { runner: Runner::new(now, assignment), now, writes: 0 }
    }

    /// One whose instance runs, with a lease for a long time.
    fn running(engine: EngineSpec, output: OutputMode) -> (Desk, Vec<Output>) {
        let mut desk = Desk::new(assignment(engine, output));
        let lease = desk.now + Span::secs(1000);
        desk.give(Input::LeaseUntil(lease));
        // The holder knows that this epoch begins with nothing.
        desk.acknowledge(CheckpointId::default());
        let said = desk.give(Input::Instance(engine::Output::Running { took: Span::ZERO }));
        (desk, said)
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.runner.handle(self.now, input);
        core::iter::from_fn(|| self.runner.poll()).collect()
    }

    fn wait(&mut self, span: Span) -> Vec<Output> {
        self.now += span;
        self.give(Input::Tick)
    }

    /// The instance has captured its state, which differs from the one before.
    fn captured(&mut self, seq: u64) -> Vec<Output> {
        self.writes += 1;
        let mut builder = DiffBuilder::new(None);
        builder.bytes("memory.0", &self.writes.to_le_bytes());
        let (diff, pause) = (builder.finish(), Span::ZERO);
        self.give(Input::Instance(engine::Output::Captured { seq, diff, pause }))
    }

    fn changed(&mut self, output_waits: bool) -> Vec<Output> {
        self.give(Input::Instance(engine::Output::Changed { output_waits }))
    }

    fn ack(&mut self, seq: u64) -> Vec<Output> {
        self.acknowledge(CheckpointId { epoch: 1, seq })
    }

    fn acknowledge(&mut self, id: CheckpointId) -> Vec<Output> {
        let message = FromHolder {
            service: SERVICE,
            epoch: Epoch::main(1),
            incarnation: Incarnation(1),
            answer: Answer::Ack { id },
        };
        self.give(Input::FromHolder { from: member(2).node, message })
    }

    /// The program says something that checkpoint `cover` holds.
    fn emits(&mut self, cover: u64) -> bool {
        let frame = GatewayFrame::Data { counter: 1, offset: 0, cover, bytes: Bytes(vec![1]) };
        let message = ToGateway {
            service: SERVICE,
            epoch: Epoch::main(1),
            session: 1,
            number: 2,
            heard: 0,
            committed: 0,
            body: GatewayBody::Frames(vec![frame]),
        };
        let output = engine::Output::ToGateway { gateway: gateway(), message };
        let said = self.give(Input::Instance(output));
        said.iter().any(|output| matches!(output, Output::ToGateway { .. }))
    }
}

fn captures(said: &[Output]) -> Vec<u64> {
    let of = |output: &Output| match output {
        Output::ToInstance(engine::Input::Capture { seq }) => Some(*seq),
        _ => None,
    };
    said.iter().filter_map(of).collect()
}

fn commits(said: &[Output]) -> Vec<u64> {
    let of = |output: &Output| match output {
        Output::ToInstance(engine::Input::Committed { seq }) => Some(*seq),
        _ => None,
    };
    said.iter().filter_map(of).collect()
}

fn stops(said: &[Output]) -> bool {
    said.iter().any(|output| matches!(output, Output::ToInstance(engine::Input::Stop)))
}

fn ships(said: &[Output]) -> bool {
    let ship = |output: &Output| match output {
        Output::ToHolder { message, .. } => matches!(message.ask, Ask::Ship(_)),
        _ => false,
    };
    said.iter().any(ship)
}

#[test]
fn a_program_without_state_is_neither_captured_nor_waited_for() {
    let (mut desk, said) = Desk::running(exec(), OutputMode::Free);
    assert!(captures(&said).is_empty());
    assert_eq!(desk.runner.phase(), Phase::Serving);
    assert_eq!(desk.runner.deadline(), None, "an idle service costs nothing");
    assert!(desk.emits(0));
}

#[test]
fn a_program_without_state_does_not_run_before_its_lease() {
    let mut desk = Desk::new(assignment(exec(), OutputMode::Free));
    let starts = |said: &[Output]| said.iter().any(|o| matches!(o, Output::StartInstance { .. }));
    assert!(!starts(&desk.give(Input::Tick)));
    let past = desk.now;
    assert!(!starts(&desk.give(Input::LeaseUntil(past))));
    let future = desk.now + Span::millis(100);
    assert!(starts(&desk.give(Input::LeaseUntil(future))));
}

#[test]
fn held_output_is_released_by_the_acknowledgement_of_every_holder() {
    let (mut desk, said) = Desk::running(wasm(), OutputMode::Held);
    assert_eq!(captures(&said), [1]);
    assert!(ships(&desk.captured(1)));
    assert!(commits(&desk.wait(Span::millis(10))).is_empty());
    assert_eq!(commits(&desk.ack(1)), [1]);
    assert!(captures(&desk.changed(false)).is_empty());
    assert_eq!(captures(&desk.wait(INTERVAL)), [2]);
    // One at a time, however much waits.
    assert!(captures(&desk.changed(true)).is_empty());
    assert!(captures(&desk.captured(2)).is_empty());
    let said = desk.ack(2);
    assert_eq!((commits(&said), captures(&said)), (vec![2], vec![3]));
}

#[test]
fn fewer_copies_than_asked_for_hold_the_output() {
    let mut lonely = assignment(wasm(), OutputMode::Held);
    lonely.holders.members.clear();
    let mut desk = Desk::new(lonely);
    desk.give(Input::Instance(engine::Output::Running { took: Span::ZERO }));
    assert!(commits(&desk.captured(1)).is_empty());
    let holders = Holders { version: 2, members: [member(2)].into(), asked: None };
    desk.give(Input::Recruit([member(2)].into()));
    let said = desk.ack(1);
    let caught_up = |o: &Output| matches!(o, Output::Report(Report::CaughtUp(_)));
    assert!(said.iter().any(caught_up) && commits(&said).is_empty());
    assert_eq!(commits(&desk.give(Input::Holders(holders))), [1]);
}

#[test]
fn what_is_asked_of_checkpoints_may_change_while_it_runs() {
    let mut two = assignment(wasm(), OutputMode::Held);
    two.spec.min_copies = 2;
    let asked = |interval, min_copies| {
        let asked = Asked { interval, min_copies, durable: Durability::Memory };
        Holders { version: 1, members: [member(2)].into(), asked: Some(asked) }
    };
    let mut desk = Desk::new(two);
    desk.acknowledge(CheckpointId::default());
    desk.give(Input::Instance(engine::Output::Running { took: Span::ZERO }));
    desk.captured(1);
    assert_eq!(commits(&desk.ack(1)), [], "one copy only");
    // Fewer copies are wanted: what waits for more of them leaves.
    let said = desk.give(Input::Holders(asked(INTERVAL, 1)));
    assert_eq!(commits(&said), [1]);
    desk.wait(ship::COMMIT_QUIET);
    desk.changed(false);
    assert_eq!(desk.runner.deadline(), Some(desk.now + INTERVAL));
    desk.give(Input::Holders(asked(INTERVAL * 2, 1)));
    assert_eq!(desk.runner.deadline(), Some(desk.now + INTERVAL * 2));
    assert_eq!(captures(&desk.wait(INTERVAL)), []);
    assert_eq!(captures(&desk.give(Input::Holders(asked(INTERVAL, 1)))), [2]);
}

#[test]
fn free_output_leaves_only_under_the_lease() {
    let (mut desk, _) = Desk::running(wasm(), OutputMode::Free);
    assert!(desk.emits(1));
    desk.now += Span::secs(1001);
    assert!(!desk.emits(1));
    let later = desk.now + Span::millis(100);
    let said = desk.give(Input::LeaseUntil(later));
    assert!(said.iter().any(|output| matches!(output, Output::ToGateway { .. })));
}

#[test]
fn a_service_that_never_rests_moves_after_one_last_checkpoint() {
    for output in [OutputMode::Held, OutputMode::Free] {
        let (mut desk, _) = Desk::running(wasm(), output);
        desk.captured(1);
        desk.ack(1);
        desk.changed(true);
        assert!(captures(&desk.give(Input::Quiesce)).is_empty(), "one is under way already");
        desk.captured(2);
        desk.changed(true);
        assert_eq!(captures(&desk.ack(2)), [3], "the last one");
        assert!(desk.emits(3), "what it covers may go");
        desk.captured(3);
        desk.changed(true);
        assert!(!desk.emits(4), "what nothing will ever cover may not");
        let said = desk.ack(3);
        assert!(captures(&said).is_empty() && stops(&said));
        assert_eq!(commits(&said), [3]);
        let exit = engine::Output::Exited { exit: Exit::Stopped };
        let said = desk.give(Input::Instance(exit));
        assert!(said.iter().any(|o| matches!(o, Output::Report(Report::Quiesced))));
    }
}

/// The Node goes on at once when it hears of an end: it must know by then what ended it.
#[test]
fn the_end_and_why_are_one_report() {
    let reports = |said: Vec<Output>| -> Vec<Report> {
        let report = |output| match output {
            Output::Report(report) => Some(report),
            _ => None,
        };
        said.into_iter().filter_map(report).collect()
    };
    let (mut desk, _) = Desk::running(wasm(), OutputMode::Held);
    let exit = engine::Output::Exited { exit: Exit::Crashed("a trap".into()) };
    let said = reports(desk.give(Input::Instance(exit)));
    assert!(matches!(said[..], [Report::Exited { .. }]), "{said:?}");

    let (mut desk, _) = Desk::running(wasm(), OutputMode::Held);
    let why = Why::Superseded { by: Epoch::main(2) };
    let (service, epoch, incarnation) = (SERVICE, Epoch::main(1), Incarnation(1));
    let answer = Answer::Refuse { number: 1, why };
    let message = FromHolder { service, epoch, incarnation, answer };
    let said = reports(desk.give(Input::FromHolder { from: member(2).node, message }));
    assert_eq!(said, [Report::Superseded(Epoch::main(2))]);
}

#[test]
fn what_a_service_at_rest_says_after_the_order_to_end_is_not_passed_on() {
    let (mut desk, _) = Desk::running(wasm(), OutputMode::Free);
    desk.captured(1);
    desk.ack(1);
    assert!(stops(&desk.give(Input::Quiesce)));
    desk.changed(true);
    assert!(!desk.emits(2));
}

#[test]
fn nothing_leaves_after_a_newer_epoch_was_seen() {
    let (mut desk, _) = Desk::running(wasm(), OutputMode::Free);
    assert!(stops(&desk.give(Input::Stop)));
    assert!(!desk.emits(1));
    assert!(desk.captured(1).is_empty() && desk.changed(true).is_empty());
    assert_eq!(desk.runner.deadline(), None);
}

/// Gives a holder, which is node 2, what a Runner says to it, and back, until both are quiet.
fn exchange(desk: &mut Desk, holder: &mut Holder, mut said: Vec<Output>) -> Vec<Output> {
    let mut all = Vec::new();
    while !said.is_empty() {
        for output in core::mem::take(&mut said) {
            let Output::ToHolder { to, message, .. } = &output else {
                all.push(output);
                continue;
            };
            assert_eq!(*to, member(2).node);
            let (from, message) = (member(1).node, message.clone());
            holder.handle(desk.now, holder::Input::Message { from, message });
            while let Some(answer) = holder.poll() {
                match answer {
                    holder::Output::Send { message, .. } => {
                        let from = member(2).node;
                        said.extend(desk.give(Input::FromHolder { from, message }));
                    }
                    holder::Output::Store { token, .. } => {
                        holder.handle(desk.now, holder::Input::Stored { token });
                    }
                    _ => {}
                }
            }
        }
    }
    all
}

/// From which checkpoint an instance is started.
fn begins_from(said: &[Output]) -> Option<u64> {
    said.iter().find_map(|output| match output {
        Output::StartInstance { origin: Origin::Restored { seq, .. }, .. } => Some(*seq),
        _ => None,
    })
}

fn reign(desk: &mut Desk, holder: &mut Holder, last: u64) {
    let said = desk.give(Input::Instance(engine::Output::Running { took: Span::ZERO }));
    exchange(desk, holder, said);
    let said = desk.captured(last);
    let said = exchange(desk, holder, said);
    assert_eq!(commits(&said), [last]);
}

#[test]
fn a_branch_goes_on_from_the_main_line_and_the_main_line_from_the_branch() {
    let mut holder = Holder::new(member(2));
    holder.handle(Instant::ORIGIN, holder::Input::Loaded(Vec::new()));
    let mut main = Desk::new(assignment(wasm(), OutputMode::Held));
    let said = main.give(Input::Tick);
    exchange(&mut main, &mut holder, said);
    reign(&mut main, &mut holder, 1);

    let branch = BranchId([9; 16]);
    let next = |epoch: Epoch, fork: BranchId| Assignment {
        epoch,
        born: true,
        fork: Some(fork),
        ..assignment(wasm(), OutputMode::Held)
    };
    let in_branch = Epoch { branch, counter: 2 };
    for (epoch, fork, from) in
        [(in_branch, BranchId::MAIN, 1), (Epoch::main(3), branch, 2), (Epoch::main(4), branch, 3)]
    {
        let mut desk = Desk::new(next(epoch, fork));
        desk.writes = from;
        let said = desk.give(Input::Tick);
        let mut said = exchange(&mut desk, &mut holder, said);
        if begins_from(&said).is_none() {
            let more = desk.wait(Span::millis(60));
            said = exchange(&mut desk, &mut holder, more);
        }
        assert_eq!(begins_from(&said), Some(from), "{epoch}");
        let mut told = said;
        let said = desk.give(Input::Instance(engine::Output::Running { took: Span::ZERO }));
        told.extend(exchange(&mut desk, &mut holder, said));
        let adopted = told.iter().find_map(|output| match output {
            Output::Report(Report::Adopted(status)) => Some((status.id.seq, status.size)),
            _ => None,
        });
        let (seq, size) = adopted.expect("people are told what it goes on from");
        assert!(seq == from && size > ByteCount(0), "{epoch}: {seq}, {size}");
        let changed = desk.changed(true);
        exchange(&mut desk, &mut holder, changed);
        let said = desk.captured(from + 1);
        let said = exchange(&mut desk, &mut holder, said);
        assert_eq!(commits(&said), [from + 1], "{epoch}");
    }
    assert_eq!(holder.lines().count(), 2);
}

#[test]
fn output_of_a_branch_waits_for_no_lease() {
    let branch = BranchId([9; 16]);
    let alone = Assignment {
        epoch: Epoch { branch, counter: 2 },
        fork: Some(BranchId::MAIN),
        ..assignment(exec(), OutputMode::Free)
    };
    let mut desk = Desk::new(alone);
    let said = desk.give(Input::Tick);
    assert!(said.iter().any(|o| matches!(o, Output::StartInstance { .. })));
    desk.give(Input::Instance(engine::Output::Running { took: Span::ZERO }));
    assert!(desk.emits(0));
}
