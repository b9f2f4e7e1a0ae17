//! The JSON of every answer and order, held by golden files.
//!
//! A change here is a change of a promise. `UPDATE_GOLDEN=1 cargo test -p jizoku-api` writes the
//! files anew; the difference then shows in review.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use jizoku_api::doctor::{DoctorQuery, DoctorReport, Finding, Health};
use jizoku_api::event::{Cursor, EventRecord, EventsAnswer, EventsQuery};
use jizoku_api::log::*;
use jizoku_api::order::*;
use jizoku_api::plan::{Action, ApplyPlan, Effect, changes};
use jizoku_api::route::pairs_of;
use jizoku_api::run::*;
use jizoku_api::service::*;
use jizoku_api::status::*;
use jizoku_api::{ApiError, ErrorCode, Order, Query, Route};
use jizoku_types::event::{LinkDownCause, ResetCause};
use jizoku_types::spec::*;
use jizoku_types::*;
use serde::{Serialize, de::DeserializeOwned};

const ALPHA: NodeId = NodeId([0xaa; 32]);
const BETA: NodeId = NodeId([0xbb; 32]);

/// Compares with the golden file, and reads the golden file back into the same value.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{name}");
    assert_eq!(&serde_json::from_str::<T>(&expected).unwrap(), value, "{name}");
}

fn kv() -> ServiceName {
    ServiceName::new("kv").unwrap()
}

fn wasm_spec() -> ServiceSpec {
    let check =
        |kind| CheckSpec { kind, every: Span::secs(1), timeout: Span::millis(500), failures: 3 };
    ServiceSpec {
        name: kv(),
        engine: EngineSpec::Wasm {
            module: [7; 32],
            args: vec!["--loud".to_owned()],
            env: [("A".to_owned(), "b".to_owned())].into(),
            memory_max: ByteCount::mib(256),
            files_max: ByteCount::mib(64),
        },
        ports: vec![PortSpec { name: "resp".to_owned(), listen: 6379 }],
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies: 2,
        min_copies: 1,
        interval: Span::millis(50),
        partition: PartitionPolicy::Stop,
        succession: SuccessionPolicy::Priority(vec![BETA, ALPHA]),
        checks: vec![
            check(CheckKind::Alive),
            check(CheckKind::Tcp { port: 0 }),
            check(CheckKind::Http { port: 0, path: "/".to_owned(), status: 200, body: None }),
            check(CheckKind::Command { command: vec!["true".to_owned()] }),
        ],
        placement: Placement {
            only: [ALPHA, BETA].into(),
            except: [NodeId([1; 32])].into(),
            require: [("zone".to_owned(), "a".to_owned())].into(),
        },
        restart_wait: Span::secs(30),
        branch_limit: ByteCount::gib(1),
    }
}

fn exec_spec() -> ServiceSpec {
    ServiceSpec {
        engine: EngineSpec::Exec {
            command: vec!["redis-server".to_owned(), "a b".to_owned()],
            env: BTreeMap::new(),
            user: Some("nobody".to_owned()),
        },
        ports: Vec::new(),
        output: OutputMode::Free,
        copies: 0,
        min_copies: 0,
        succession: SuccessionPolicy::Stability,
        checks: Vec::new(),
        placement: Placement::default(),
        ..wasm_spec()
    }
}

fn service_status() -> ServiceStatus {
    ServiceStatus {
        service: ServiceId(3),
        name: kv(),
        engine: "wasm".to_owned(),
        wanted: Wanted::Running,
        phase: Phase::Running,
        active: Some(ALPHA),
        epoch: Epoch::main(4),
        output: OutputMode::Held,
        ports: vec![PortSpec { name: "resp".to_owned(), listen: 6379 }],
        holders: vec![HolderStatus {
            node: BETA,
            incarnation: Incarnation(2),
            state: HolderState::Member,
            acknowledged: Some(CheckpointId { epoch: 4, seq: 81 }),
            behind: Some(0),
            prepared: Some(true),
        }],
        copies: 2,
        checkpoint: Some(CheckpointStatus {
            id: CheckpointId { epoch: 4, seq: 81 },
            age_ms: 12,
            size_bytes: 67_108_864,
            shipped_bytes: 20_480,
            pause_us: 310,
            commit_us: Some(1_900),
        }),
        connections: Some(5),
        verdict: Verdict {
            serving: Some(true),
            detail: "answers on resp".to_owned(),
            since_ms: Some(60_000),
        },
        unprotected: false,
        unreachable: false,
        state_may_be_missing: false,
        failing: Some(Failing { times: 2, reason: "trap".to_owned(), next_try_ms: Some(400) }),
        branches: 1,
    }
}

fn node_status(node: NodeId, reach: Reach) -> NodeStatus {
    NodeStatus {
        node,
        name: "alpha".to_owned(),
        incarnation: Incarnation(9),
        addresses: vec!["192.0.2.1:7645".to_owned()],
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        witness: false,
        draining: false,
        reach,
        round_trip_us: None,
        active: 1,
        held: 0,
        spare: Some(Spare { cpu_permille: 700, memory_bytes: 1 << 30, disk_bytes: 2 << 30 }),
        version: Some("0.1.0".to_owned()),
    }
}

#[test]
fn status() {
    let status = ClusterStatus {
        cluster: Some(ClusterId([0xcc; 16])),
        generation: Generation(1),
        feature_level: 1,
        this_node: ALPHA,
        leader: Some(BETA),
        voters: vec![ALPHA, BETA],
        nodes: vec![
            node_status(ALPHA, Reach::This),
            node_status(BETA, Reach::Relayed { via: ALPHA }),
        ],
        services: vec![service_status()],
        warnings: vec![Warning {
            code: WarningCode::TwoNodes,
            message: "two nodes: the death of one stops services".to_owned(),
            hint: Some("add a third, which may be a witness".to_owned()),
        }],
    };
    golden("status", &status);
    assert!(WarningCode::NoMajority < WarningCode::Unprotected);
}

#[test]
fn a_reader_ignores_what_it_does_not_know() {
    let ticket: TicketIssued =
        serde_json::from_str(r#"{"ticket":"t","valid_ms":1,"new":[1,2]}"#).unwrap();
    assert_eq!(ticket.valid_ms, 1);
}

#[test]
fn inspect_and_ps() {
    let inspection = Inspection {
        status: service_status(),
        spec: wasm_spec(),
        spec_version: 2,
        connections: vec![ConnectionStatus {
            gateway: BETA,
            counter: 17,
            incarnation: Incarnation(2),
            port: "resp".to_owned(),
            client: "192.0.2.9:50000".to_owned(),
            in_bytes: 100,
            out_bytes: 200,
            held_bytes: 0,
        }],
        branches: vec![BranchStatus {
            branch: BranchId([5; 16]),
            checkpoint: CheckpointId { epoch: 2, seq: 9 },
            holders: vec![BETA],
            size_bytes: 4096,
        }],
        printed: vec!["listening".to_owned()],
    };
    golden("inspect", &inspection);
    let id = inspection.connections[0].id();
    assert_eq!((id.counter, id.gateway.node), (17, BETA));
    let ps = PsAnswer {
        instances: vec![InstanceStatus {
            service: ServiceId(3),
            name: kv(),
            node: ALPHA,
            role: Role::Active,
            epoch: Epoch { branch: BranchId([5; 16]), counter: 4 },
            engine: "exec".to_owned(),
            pid: Some(4242),
            up_ms: 61_000,
            memory_bytes: None,
            cpu_ms: Some(120),
            connections: 5,
        }],
        silent: vec![BETA],
    };
    golden("ps", &ps);
}

#[test]
fn orders() {
    golden("apply_wasm", &ApplyOrder { spec: wasm_spec(), dry_run: true, expect_version: Some(2) });
    golden("apply_exec", &ApplyOrder { spec: exec_spec(), dry_run: false, expect_version: None });
    golden("module", &ModuleStored { module: [7; 32], size_bytes: 900, known: false });
    golden("rm", &RmOrder { service: kv() });
    golden("start", &StartOrder { service: kv() });
    golden("stop", &StopOrder { service: kv() });
    golden("move", &MoveOrder { service: kv(), to: Some("beta".to_owned()) });
    golden("drain", &DrainOrder { node: None, undo: false });
    golden("resume", &ResumeOrder { service: kv(), accept_loss: true });
    golden("recover", &RecoverOrder { new_generation: true });
    golden("recovered", &Recovered { generation: Generation(2) });
    golden("ticket", &TicketOrder { valid_ms: Some(600_000) });
    golden("ticket_issued", &TicketIssued { ticket: "jz1-abc".to_owned(), valid_ms: 600_000 });
    golden("join", &JoinOrder { ticket: "jz1-abc".to_owned() });
    let joined = Joined {
        cluster: ClusterId([0xcc; 16]),
        node: BETA,
        name: "beta".to_owned(),
        members: vec!["alpha".to_owned(), "beta".to_owned()],
    };
    golden("joined", &joined);
    golden("leave", &LeaveOrder {});
    golden("remove", &RemoveOrder { node: "beta".to_owned(), accept_loss: false });
    golden("done", &Done { notes: vec!["it takes a moment".to_owned()] });
    let error = ApiError::new(ErrorCode::NoSuchService, "no service is called \"kw\"");
    golden("error", &error.hint("did you mean \"kv\"?"));
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let order: MoveOrder = serde_json::from_str(r#"{"service":"kv"}"#).unwrap();
    assert_eq!(order, MoveOrder { service: kv(), to: None });
    let order: DrainOrder = serde_json::from_str("{}").unwrap();
    assert_eq!(order, DrainOrder { node: None, undo: false });
    assert!(serde_json::from_str::<ResumeOrder>(r#"{"service":"kv"}"#).is_err());
    assert!(serde_json::from_str::<RmOrder>(r#"{"service":"No Name"}"#).is_err());
}

#[test]
fn plan() {
    let before = wasm_spec();
    let mut after = before.clone();
    after.copies = 3;
    after.interval = Span::micros(1_500);
    after.ports[0].name = "redis".to_owned();
    after.placement.require.clear();
    let plan = ApplyPlan {
        name: kv(),
        service: Some(ServiceId(3)),
        action: Action::Change,
        changes: changes(Some(&before), &after),
        applied: false,
        spec_version: 2,
        notes: Vec::new(),
    };
    golden("plan", &plan);
    assert_eq!(changes(Some(&before), &before), []);
    let new = changes(None, &before);
    assert!(new.iter().all(|change| change.before.is_none() && change.effect == Effect::None));
    let shown: Vec<String> =
        changes(None, &exec_spec()).into_iter().map(|change| change.field).collect();
    assert!(shown.contains(&"state.partition".to_owned()), "{shown:?}");
    assert!(!shown.contains(&"state.copies".to_owned()), "it has no effect: {shown:?}");
    let mut odd = exec_spec();
    odd.copies += 1;
    assert_eq!(changes(Some(&exec_spec()), &odd).len(), 1, "what differs is never hidden");
    let engine = changes(Some(&before), &exec_spec());
    assert!(engine.iter().any(|change| change.effect == Effect::Restart));
}

#[test]
fn doctor() {
    let finding = |topic: &str, health, mend: Option<&str>| Finding {
        topic: topic.to_owned(),
        health,
        found: "found".to_owned(),
        effect: if mend.is_some() { "slower".to_owned() } else { String::new() },
        mend: mend.map(str::to_owned),
    };
    let report = DoctorReport {
        findings: vec![
            finding("engine.wasm", Health::Good, None),
            finding("kernel.dirty_pages", Health::Weak, Some("a newer kernel")),
        ],
    };
    golden("doctor", &report);
    assert_eq!(report.worst(), Health::Weak);
    assert_eq!(DoctorReport::default().worst(), Health::Good);
}

fn all_events() -> Vec<Event> {
    let service = ServiceId(3);
    let epoch = Epoch::main(4);
    let checkpoint = CheckpointId { epoch: 3, seq: 80 };
    vec![
        Event::AgentStarted { incarnation: Incarnation(2) },
        Event::LinkUp { peer: BETA },
        Event::LinkDown { peer: BETA, cause: LinkDownCause::Reset },
        Event::NodeReachable { node: BETA },
        Event::NodeUnreachable { node: BETA },
        Event::MemberAdded { node: BETA },
        Event::MemberRemoved { node: BETA },
        Event::LeaderChanged { leader: Some(BETA) },
        Event::LeaderChanged { leader: None },
        Event::ServiceApplied { service, name: kv() },
        Event::ServiceRemoved { service },
        Event::TakeoverProposed { service, from: Epoch::main(3) },
        Event::ActiveChanged { service, epoch, node: ALPHA },
        Event::Sealed { service, epoch, highest: checkpoint },
        Event::StateCollected { service, epoch, checkpoint, fetched: ByteCount::kib(4) },
        Event::InstanceRestored { service, epoch, checkpoint, took: Span::millis(7) },
        Event::InstanceStarted { service, epoch },
        Event::InstanceExited { service, epoch, reason: "status 1".to_owned() },
        Event::InstanceFenced { service, epoch },
        Event::FirstOutput { service, epoch },
        Event::HoldersChanged { service, holders: 2 },
        Event::Unprotected { service },
        Event::Unreachable { service },
        Event::StateMayBeMissing { service, checkpoint },
        Event::CopyCorrupt { service, what: "base".to_owned() },
        Event::WatchChanged { service, serving: false, detail: "no answer".to_owned() },
        Event::BranchOpened { service, branch: BranchId([5; 16]) },
        Event::BranchResolved { service, kept: BranchId([5; 16]) },
        Event::ConnectionReset { service, cause: ResetCause::ReleasedTooMuch },
        Event::Trouble { what: "the disk is full".to_owned() },
    ]
}

#[test]
fn events() {
    let record = |(number, event): (usize, Event)| EventRecord {
        cursor: Cursor { incarnation: Incarnation(2), number: number as u64 + 1 },
        unix_ms: 1_700_000_000_000,
        clock_ns: 5_000_000_000,
        seen_by: ALPHA,
        event,
    };
    let answer = EventsAnswer {
        events: all_events().into_iter().enumerate().map(record).collect(),
        next: Cursor { incarnation: Incarnation(2), number: 30 },
        missed: true,
    };
    golden("events", &answer);
}

#[test]
fn log_lines() {
    use jizoku_log::{Level, Record, Trace, Value};
    let value = |name: &str, value: Value| (name.to_owned(), value);
    let record = Record {
        time: 1_796_079_126_000_007,
        trace: Trace(0x7f3a91),
        host: "web1".into(),
        seq: (2 << 40) + 5,
        event: "http.req".into(),
        level: Level::Warn,
        source: "kv".into(),
        important: true,
        fields: vec![
            value("took", Value::Duration(300_000_000)),
            value("status", Value::Int(503)),
            value("pct", Value::Float(91.5)),
            value("ok", Value::Bool(false)),
            value("msg", Value::Str("refused".into())),
        ],
    };
    let end = LogEnd {
        nodes: vec!["a".into()],
        unreachable: vec!["b".into()],
        missed: 1,
        left_out: 2,
        problem: None,
    };
    let lines = vec![
        LogLine::Columns(vec!["host".into(), "count".into()]),
        LogLine::Row(vec![None, Some(Cell(Value::Int(3)))]),
        LogLine::Record(RecordForm::new(ALPHA, &record)),
        LogLine::Node(NodeChange { node: "b".into(), answers: false }),
        LogLine::End(end),
    ];
    golden("log_lines", &lines);
    let emitted = Emitted { taken: 2, dropped: 1, last: Some(9), ..Emitted::default() };
    golden("emitted", &Emitted { counts: Some(true), ..emitted });
}

#[test]
fn queries_survive_the_address() {
    #[track_caller]
    fn round<Q: Query + PartialEq + Debug>(query: Q, target: &str) {
        assert_eq!(query.target(), target);
        assert_eq!(Route::find("GET", target), Ok(Q::ROUTE));
        assert_eq!(Q::from_pairs(&pairs_of(target).unwrap()), Ok(query));
    }
    round(StatusQuery, "/v1/status");
    round(DoctorQuery, "/v1/doctor");
    round(InspectQuery { service: kv() }, "/v1/inspect?service=kv");
    round(PsQuery { service: None }, "/v1/ps");
    round(PsQuery { service: Some(kv()) }, "/v1/ps?service=kv");
    round(EventsQuery::default(), "/v1/events");
    let after = Some(Cursor { incarnation: Incarnation(2), number: 30 });
    let query = EventsQuery { after, limit: Some(10), wait_ms: 500, service: Some(kv()) };
    round(query, "/v1/events?after=2-30&limit=10&wait_ms=500&service=kv");
    for bad in ["after=2", "after=+2-3", "limit=x", "wait_ms=-1", "service=K", "foo=1"] {
        let pairs = pairs_of(&format!("/v1/events?{bad}")).unwrap();
        assert_eq!(EventsQuery::from_pairs(&pairs).unwrap_err().code, ErrorCode::BadRequest);
    }
    round(LogQuery { query: "a == 1".into() }, "/v1/log?query=a%20%3D%3D%201");
    assert!(LogQuery::from_pairs(&[]).is_err());
    assert!(InspectQuery::from_pairs(&[]).is_err());
    assert!(StatusQuery::from_pairs(&[("a".to_owned(), "b".to_owned())]).is_err());
}

#[test]
fn every_order_has_its_own_route() {
    let routes = [
        ApplyOrder::ROUTE,
        RmOrder::ROUTE,
        StartOrder::ROUTE,
        StopOrder::ROUTE,
        MoveOrder::ROUTE,
        DrainOrder::ROUTE,
        ResumeOrder::ROUTE,
        RecoverOrder::ROUTE,
        TicketOrder::ROUTE,
        JoinOrder::ROUTE,
        LeaveOrder::ROUTE,
        RemoveOrder::ROUTE,
        CancelOrder::ROUTE,
        RunOrder::ROUTE,
    ];
    let different: std::collections::BTreeSet<_> = routes.iter().collect();
    assert_eq!(different.len(), routes.len());
    // Beside the orders: seven queries, the module's bytes, lines of the log, the metrics' text.
    assert_eq!(Route::ALL.len(), routes.len() + 10);
}

#[test]
fn runs() {
    let order = RunOrder {
        name: "heal.jz".to_owned(),
        script: "flow heal { pause 1s }".to_owned(),
        flow: Some("heal".to_owned()),
        arguments: vec![("port".to_owned(), "8080".to_owned())],
        role: Some("operator".to_owned()),
        dry_run: false,
    };
    golden("run", &order);
    let task = TaskLine {
        step: 1,
        task: "restart".to_owned(),
        node: "alpha".to_owned(),
        attempt: 0,
        state: "failed".to_owned(),
        symbol: "call_failed".to_owned(),
        detail: "unit.restart: no".to_owned(),
        took_us: 1_200,
    };
    let plan = RunPlan {
        id: format!("{:032x}", 7),
        flow: "heal".to_owned(),
        synchronised: true,
        role: "operator".to_owned(),
        needs: vec!["unit.control".to_owned()],
        nodes: vec![PlanNode { node: "alpha".to_owned(), tasks: vec!["restart".to_owned()] }],
    };
    let bound = NodeBound {
        node: "alpha".to_owned(),
        ok: false,
        why: "the script can't be run there".to_owned(),
        problems: vec![":1:1: no".to_owned()],
    };
    let end = RunEnd {
        ok: false,
        why: "call_failed on alpha".to_owned(),
        ran: true,
        problems: Vec::new(),
        took_us: 3_400,
    };
    let lines = vec![
        RunLine::Plan(plan),
        RunLine::Bound(bound),
        RunLine::Task(task),
        RunLine::Met("web.up".to_owned()),
        RunLine::End(end),
    ];
    golden("run_lines", &lines);
    golden("cancel", &CancelOrder { id: "7f3a".to_owned() });
    let flow = FlowStatus {
        id: format!("{:032x}", 7),
        flow: "heal".to_owned(),
        controller: "alpha".to_owned(),
        who: "root".to_owned(),
        role: "admin".to_owned(),
        synchronised: false,
        nodes: vec!["alpha".to_owned(), "beta".to_owned()],
        tasks: (1, 2),
        age_ms: 1_500,
    };
    golden("flows", &FlowsAnswer { flows: vec![flow], silent: vec!["gamma".to_owned()] });
}
