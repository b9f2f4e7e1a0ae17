//! What people and their tools write: manifests, configuration, tickets, requests.

use std::collections::BTreeMap;

use jizoku_api::doctor::DoctorQuery;
use jizoku_api::event::{EventsAnswer, EventsQuery};
use jizoku_api::log::{Emitted, LogLine, LogQuery};
use jizoku_api::order::*;
use jizoku_api::run::{CancelOrder, FlowsAnswer, FlowsQuery, RunLine, RunOrder};
use jizoku_api::service::{InspectQuery, PsQuery};
use jizoku_api::status::StatusQuery;
use jizoku_api::{ApiError, Order, Query, Route, Ticket};
use jizoku_manifest::{Manifest, NodeConfig, UnknownNode};
use jizoku_types::spec::{
    Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, PortSpec, ServiceSpec,
    SuccessionPolicy,
};
use jizoku_types::{ByteCount, ServiceName, Span};

use crate::{Seed, for_choice, node, pick};

/// A small service.
pub(crate) fn kv() -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::new("kv").expect("a name"),
        engine: EngineSpec::Wasm {
            module: [7; 32],
            args: Vec::new(),
            env: BTreeMap::new(),
            memory_max: ByteCount::mib(64),
            files_max: ByteCount::mib(1),
        },
        ports: vec![PortSpec { name: "main".into(), listen: 6379 }],
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies: 2,
        min_copies: 1,
        interval: Span::millis(100),
        partition: PartitionPolicy::Stop,
        succession: SuccessionPolicy::Stability,
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount::mib(1),
    }
}

/// Manifests, configuration, tickets.
pub(crate) fn text(data: &[u8]) {
    pick(data, &[manifest, config, ticket]);
}

/// A manifest. Each mistake must have a place in the text and something to say.
fn manifest(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let nodes = |name: &str| match name {
        "n1" => Ok(node(1)),
        _ => Err(UnknownNode { known: vec!["n1".into()] }),
    };
    match Manifest::parse("service.toml", text, &nodes) {
        Ok(manifest) => manifest.spec.check().expect("what is accepted is right"),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// A node's configuration.
fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Err(problems) = NodeConfig::parse("config.toml", text) {
        assert!(!problems.to_string().is_empty());
    }
}

/// A ticket.
fn ticket(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(ticket) = Ticket::parse(text) {
        assert_eq!(Ticket::parse(&ticket.text()), Some(ticket));
    }
}

/// Requests to the local API, and what its clients read: a request's first line and its body.
pub(crate) fn api(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (line, body) = text.split_once('\n').unwrap_or((text, ""));
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let route = Route::find(method, target);
    if let Ok(pairs) = jizoku_api::route::pairs_of(target) {
        query::<StatusQuery>(&pairs);
        query::<InspectQuery>(&pairs);
        query::<PsQuery>(&pairs);
        query::<EventsQuery>(&pairs);
        query::<DoctorQuery>(&pairs);
        query::<LogQuery>(&pairs);
        query::<FlowsQuery>(&pairs);
    }
    match route {
        Ok(Route::Apply) => order::<ApplyOrder>(body),
        Ok(Route::Rm) => order::<RmOrder>(body),
        Ok(Route::Start) => order::<StartOrder>(body),
        Ok(Route::Stop) => order::<StopOrder>(body),
        Ok(Route::Move) => order::<MoveOrder>(body),
        Ok(Route::Drain) => order::<DrainOrder>(body),
        Ok(Route::Resume) => order::<ResumeOrder>(body),
        Ok(Route::Recover) => order::<RecoverOrder>(body),
        Ok(Route::Ticket) => order::<TicketOrder>(body),
        Ok(Route::Join) => order::<JoinOrder>(body),
        Ok(Route::Leave) => order::<LeaveOrder>(body),
        Ok(Route::Remove) => order::<RemoveOrder>(body),
        Ok(Route::Cancel) => order::<CancelOrder>(body),
        Ok(Route::Run) => {
            order::<RunOrder>(body);
            answer::<RunLine>(body);
        }
        // Raw bytes: see the target `module`.
        Ok(Route::Module) | Err(_) => {}
        // What clients read of it.
        Ok(Route::Status) => answer::<<StatusQuery as Query>::Answer>(body),
        Ok(Route::Inspect) => answer::<<InspectQuery as Query>::Answer>(body),
        Ok(Route::Ps) => answer::<<PsQuery as Query>::Answer>(body),
        Ok(Route::Events) => answer::<EventsAnswer>(body),
        Ok(Route::Flows) => answer::<FlowsAnswer>(body),
        Ok(Route::Doctor) => answer::<<DoctorQuery as Query>::Answer>(body),
        Ok(Route::LogEmit) => answer::<Emitted>(body),
        // Its numbers may be fractions, whose last digit JSON doesn't keep.
        Ok(Route::Log) => drop(serde_json::from_str::<LogLine>(body)),
        Ok(Route::Metrics) => answer::<ApiError>(body),
    }
}

/// Parameters that are taken come back out of the address that they make.
fn query<Q: Query>(pairs: &[(String, String)]) {
    let Ok(query) = Q::from_pairs(pairs) else { return };
    let target = query.target();
    let found = Route::find("GET", &target);
    assert!(found == Ok(Q::ROUTE) || target.len() > jizoku_api::route::TARGET_MAX);
    let again = jizoku_api::route::pairs_of(&target).expect("it was just escaped");
    let again = Q::from_pairs(&again).expect("it was just taken");
    assert_eq!(again.target(), target);
}

fn order<O: Order>(body: &str) {
    answer::<O>(body);
}

/// JSON that is taken comes back as it is.
fn answer<T: serde::Serialize + serde::de::DeserializeOwned>(body: &str) {
    let Ok(value) = serde_json::from_str::<T>(body) else { return };
    let written = serde_json::to_string(&value).expect("it can be written");
    let again = serde_json::from_str::<T>(&written).expect("it was just written");
    let again = serde_json::to_string(&again).expect("it can be written");
    assert_eq!(again, written);
}

/// An answer of each kind, as the API's own tests keep them.
const ANSWERS: [(Route, &str); 6] = [
    (Route::Status, include_str!("../../crates/jizoku-api/tests/golden/status.json")),
    (Route::Inspect, include_str!("../../crates/jizoku-api/tests/golden/inspect.json")),
    (Route::Ps, include_str!("../../crates/jizoku-api/tests/golden/ps.json")),
    (Route::Events, include_str!("../../crates/jizoku-api/tests/golden/events.json")),
    (Route::Doctor, include_str!("../../crates/jizoku-api/tests/golden/doctor.json")),
    (Route::Metrics, include_str!("../../crates/jizoku-api/tests/golden/error.json")),
];

pub(crate) fn seeds() -> Vec<Seed> {
    let kv = include_bytes!("../../examples/manifests/kv.toml");
    let web = include_bytes!("../../examples/manifests/web.toml");
    let config = b"name = \"n1\"\nlisten = \"[::]:7500\"\n[labels]\nzone = \"a\"\n";
    let addresses = vec!["[::1]:7171".parse().expect("an address")];
    let (cluster, issuer) = (jizoku_types::ClusterId([3; 16]), node(4));
    let ticket = Ticket { cluster, issuer, addresses, secret: [5; 32] };
    let mut seeds = vec![
        for_choice("text", 0, kv.to_vec()),
        for_choice("text", 0, web.to_vec()),
        for_choice("text", 1, config.to_vec()),
        for_choice("text", 2, ticket.text().into_bytes()),
    ];
    let apply = include_str!("../../crates/jizoku-api/tests/golden/apply_wasm.json");
    let mut requests = vec![
        format!("POST /v1/apply\n{apply}"),
        "GET /v1/events?after=3-7&limit=5&wait_ms=100&service=kv".into(),
        "GET /v1/inspect?service=k%76".into(),
        "POST /v1/move\n{\"service\":\"kv\",\"to\":\"n2\"}".into(),
        "POST /v1/remove\n{\"node\":\"n2\",\"accept_loss\":true}".into(),
    ];
    let line = |route: Route| format!("{} {}", route.method().as_str(), route.path());
    requests.extend(ANSWERS.map(|(route, body)| format!("{}\n{body}", line(route))));
    seeds.extend(requests.into_iter().map(|request| ("api", request.into_bytes())));
    seeds
}
