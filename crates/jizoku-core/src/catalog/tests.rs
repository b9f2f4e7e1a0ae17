//! Tables for single commands; seeded runs of random commands against a checker of histories.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use alloc::{boxed::Box, format};

use jizoku_types::spec::{
    CheckKind, CheckSpec, Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, PortSpec,
    ServiceSpec, SuccessionPolicy,
};
use jizoku_types::{ClusterId, Epoch, Span};

use super::*;
use crate::dice::Dice;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const SERVICE: ServiceId = ServiceId(1);

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn member(n: u8, incarnation: u64) -> Member {
    Member { node: node(n), incarnation: Incarnation(incarnation) }
}

fn members(list: &[(u8, u64)]) -> BTreeSet<Member> {
    list.iter().map(|(n, incarnation)| member(*n, *incarnation)).collect()
}

fn spec_of(n: u8, incarnation: u64) -> MemberSpec {
    MemberSpec {
        node: node(n),
        incarnation: Incarnation(incarnation),
        name: format!("n{n}"),
        addresses: vec!["127.0.0.1:1".to_string()],
        labels: BTreeMap::from([("zone".to_string(), format!("z{}", n % 3))]),
        witness: n == 9,
        features: 1,
    }
}

fn service(name: &str, port: u16) -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::new(name).unwrap(),
        engine: EngineSpec::Wasm {
            module: [1; 32],
            args: Vec::new(),
            env: BTreeMap::new(),
            memory_max: ByteCount::mib(64),
            files_max: ByteCount::mib(64),
        },
        ports: vec![PortSpec { name: "main".to_string(), listen: port }],
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies: 2,
        min_copies: 1,
        interval: Span::millis(20),
        partition: PartitionPolicy::Stop,
        succession: SuccessionPolicy::Stability,
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount::mib(100),
    }
}

fn apply_service(spec: ServiceSpec, expect: Option<u64>) -> Command {
    Command::ApplyService { spec: Box::new(spec), expect }
}

fn take_over(counter: u64, to: Option<Member>) -> Command {
    Command::TakeOver { service: SERVICE, expect: Epoch::main(counter), to }
}

fn set_holders(counter: u64, version: u64, holders: &[(u8, u64)]) -> Command {
    Command::SetHolders {
        service: SERVICE,
        epoch: Epoch::main(counter),
        expect_version: version,
        holders: members(holders),
        joining: BTreeSet::new(),
        born: true,
    }
}

fn done(catalog: &mut Catalog, command: Command) -> Vec<Change> {
    match catalog.apply(&command) {
        Outcome::Done { changes } => changes,
        other => panic!("{command:?}: {other:?}"),
    }
}

fn rejected(catalog: &mut Catalog, command: Command) -> Rejection {
    match catalog.apply(&command) {
        Outcome::Rejected { why } => why,
        other => panic!("{command:?}: {other:?}"),
    }
}

fn conflict(catalog: &mut Catalog, command: Command) -> Conflict {
    match catalog.apply(&command) {
        Outcome::Conflict { why } => why,
        other => panic!("{command:?}: {other:?}"),
    }
}

/// Nodes 1 to 4, witness 9, one service, active on node 1, held by 2 and 3.
fn cluster() -> Catalog {
    let mut catalog = Catalog::new();
    let first = spec_of(1, 1);
    done(&mut catalog, Command::Init { cluster: CLUSTER, generation: Generation(1), first });
    for n in [2, 3, 4, 9] {
        done(&mut catalog, Command::AddMember { member: spec_of(n, 1) });
    }
    done(&mut catalog, apply_service(service("kv", 80), None));
    done(&mut catalog, take_over(0, Some(member(1, 1))));
    done(&mut catalog, set_holders(1, 0, &[(2, 1), (3, 1)]));
    catalog
}

#[test]
fn nothing_works_before_there_is_a_cluster() {
    let mut catalog = Catalog::new();
    assert_eq!(
        rejected(&mut catalog, apply_service(service("kv", 80), None)),
        Rejection::NotInitialised
    );
}

#[test]
fn two_clusters_are_never_merged() {
    let mut catalog = cluster();
    let init = Command::Init {
        cluster: ClusterId([8; 16]),
        generation: Generation(1),
        first: spec_of(5, 1),
    };
    assert_eq!(
        conflict(&mut catalog, init.clone()),
        Conflict::AlreadyInitialised { cluster: CLUSTER }
    );
    let recover = Command::Recover {
        cluster: ClusterId([8; 16]),
        generation: Generation(2),
        survivor: node(1),
    };
    assert_eq!(rejected(&mut catalog, recover), Rejection::OtherCluster { own: CLUSTER });
    let mut other = Catalog::new();
    done(&mut other, init);
    assert!(!catalog.may_become(&other));
    assert!(!catalog.may_become(&Catalog::new()));
    assert!(Catalog::new().may_become(&catalog));
}

#[test]
fn of_two_candidates_one_wins() {
    let mut catalog = cluster();
    done(&mut catalog, take_over(1, Some(member(2, 1))));
    assert_eq!(
        conflict(&mut catalog, take_over(1, Some(member(3, 1)))),
        Conflict::Epoch { current: Epoch::main(2) }
    );
    let record = catalog.service(SERVICE).unwrap();
    assert_eq!(record.active, Some(member(2, 1)));
    assert_eq!(record.holders, members(&[(2, 1), (3, 1)]), "the set stays as it is");
}

#[test]
fn who_may_be_active() {
    let mut catalog = cluster();
    let unknown = member(5, 1);
    assert_eq!(
        rejected(&mut catalog, take_over(1, Some(unknown))),
        Rejection::NoSuchMember { node: node(5) }
    );
    assert_eq!(
        rejected(&mut catalog, take_over(1, Some(member(9, 1)))),
        Rejection::Witness { node: node(9) }
    );
    done(&mut catalog, Command::UpdateMember { member: spec_of(2, 2) });
    assert_eq!(
        conflict(&mut catalog, take_over(1, Some(member(2, 1)))),
        Conflict::Incarnation { node: node(2), current: Incarnation(2) }
    );
    done(&mut catalog, Command::SetDraining { node: node(3), draining: true });
    assert_eq!(
        rejected(&mut catalog, take_over(1, Some(member(3, 1)))),
        Rejection::Draining { node: node(3) }
    );
    let mut spec = service("kv", 80);
    spec.placement.require.insert("zone".to_string(), "z1".to_string());
    done(&mut catalog, apply_service(spec, Some(1)));
    assert_eq!(
        rejected(&mut catalog, take_over(1, Some(member(2, 2)))),
        Rejection::Placement { node: node(2) }
    );
    done(&mut catalog, take_over(1, Some(member(4, 1))));
    done(&mut catalog, take_over(2, None));
    assert_eq!(catalog.service(SERVICE).unwrap().active, None);
}

#[test]
fn a_replaced_node_can_not_change_the_set() {
    let mut catalog = cluster();
    done(&mut catalog, take_over(1, Some(member(2, 1))));
    assert_eq!(
        conflict(&mut catalog, set_holders(1, 1, &[(3, 1)])),
        Conflict::Epoch { current: Epoch::main(2) }
    );
}

#[test]
fn who_may_be_a_holder() {
    let mut catalog = cluster();
    let cases: [(&[(u8, u64)], Rejection); 4] = [
        (&[(5, 1)], Rejection::NoSuchMember { node: node(5) }),
        (&[(9, 1)], Rejection::Witness { node: node(9) }),
        (&[(2, 1), (2, 2)], Rejection::SameNodeTwice { node: node(2) }),
        (&[], Rejection::WouldLoseState),
    ];
    for (holders, why) in cases {
        assert_eq!(rejected(&mut catalog, set_holders(1, 1, holders)), why);
    }
    assert_eq!(
        conflict(&mut catalog, set_holders(1, 0, &[(2, 1)])),
        Conflict::HoldersVersion { current: 1 }
    );
    done(&mut catalog, Command::UpdateMember { member: spec_of(2, 2) });
    // The old entry may stay (it may be verified from disk), but nobody comes in by an old one.
    done(&mut catalog, set_holders(1, 1, &[(2, 1), (3, 1), (4, 1)]));
    done(&mut catalog, set_holders(1, 2, &[(3, 1)]));
    assert_eq!(
        conflict(&mut catalog, set_holders(1, 3, &[(2, 1), (3, 1)])),
        Conflict::Incarnation { node: node(2), current: Incarnation(2) }
    );
    done(&mut catalog, set_holders(1, 3, &[(2, 2), (3, 1)]));
    done(&mut catalog, take_over(1, None));
    assert_eq!(rejected(&mut catalog, set_holders(2, 4, &[(3, 1)])), Rejection::NotActive);
}

#[test]
fn unprotected_services_may_have_no_holder() {
    let mut catalog = cluster();
    let spec = ServiceSpec { min_copies: 0, ..service("kv", 80) };
    done(&mut catalog, apply_service(spec, Some(1)));
    done(&mut catalog, set_holders(1, 1, &[]));
    done(&mut catalog, apply_service(service("kv", 80), Some(2)));
    assert_eq!(catalog.check(), Ok(()));
}

#[test]
fn a_ticket_admits_one_node() {
    let mut catalog = cluster();
    let ticket = [3; 32];
    let ttl = Span::secs(600);
    done(&mut catalog, Command::IssueTicket { ticket, ttl });
    assert_eq!(
        conflict(&mut catalog, Command::IssueTicket { ticket, ttl }),
        Conflict::TicketExists
    );
    let join = |n| Command::UseTicket { ticket, member: spec_of(n, 1) };
    done(&mut catalog, join(5));
    assert_eq!(done(&mut catalog, join(5)), [], "the answer may have been lost");
    assert_eq!(conflict(&mut catalog, join(6)), Conflict::TicketUsed);
    done(&mut catalog, Command::ExpireTicket { ticket });
    assert_eq!(rejected(&mut catalog, join(6)), Rejection::NoSuchTicket);
    // A ticket that was not used well is not used up.
    done(&mut catalog, Command::IssueTicket { ticket, ttl });
    assert_eq!(rejected(&mut catalog, join(5)), Rejection::AlreadyMember);
    done(&mut catalog, join(6));
}

#[test]
fn names_are_made_unique_and_stay() {
    let mut catalog = cluster();
    let mut spec = spec_of(5, 1);
    spec.name = "n1".to_string();
    done(&mut catalog, Command::AddMember { member: spec.clone() });
    assert_eq!(catalog.member(&node(5)).unwrap().name, "n1-2");
    assert_eq!(done(&mut catalog, Command::UpdateMember { member: spec.clone() }), []);
    spec.node = node(6);
    spec.name = "é".repeat(31) + "x";
    done(&mut catalog, Command::AddMember { member: spec.clone() });
    spec.node = node(7);
    done(&mut catalog, Command::AddMember { member: spec });
    let name = &catalog.member(&node(7)).unwrap().name;
    assert_eq!(*name, "é".repeat(30) + "-2");
}

#[test]
fn members_say_acceptable_things() {
    let mut catalog = cluster();
    type Spoil = fn(&mut MemberSpec);
    let cases: [(&str, Spoil); 7] = [
        ("name", |spec| spec.name.clear()),
        ("name", |spec| spec.name = "a".repeat(64)),
        ("name", |spec| spec.name = "a\u{1b}[2J".to_string()),
        ("addresses", |spec| spec.addresses = vec!["a".to_string(); 17]),
        ("addresses", |spec| spec.addresses = vec![String::new()]),
        ("labels", |spec| spec.labels = (0..33).map(|n| (format!("{n}"), String::new())).collect()),
        ("labels", |spec| spec.labels = BTreeMap::from([("a".to_string(), "b".repeat(129))])),
    ];
    for (expected, spoil) in cases {
        let mut spec = spec_of(2, 5);
        spoil(&mut spec);
        match rejected(&mut catalog, Command::UpdateMember { member: spec }) {
            Rejection::BadMember { field, .. } => assert_eq!(field, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_older_agent_can_not_overwrite_a_newer_one() {
    let mut catalog = cluster();
    let changes = done(&mut catalog, Command::UpdateMember { member: spec_of(2, 3) });
    assert_eq!(changes, [Change::MemberUpdated { node: node(2), restarted: true }]);
    assert_eq!(
        conflict(&mut catalog, Command::UpdateMember { member: spec_of(2, 2) }),
        Conflict::Incarnation { node: node(2), current: Incarnation(3) }
    );
    assert!(!catalog.is_current(&member(2, 1)));
}

#[test]
fn removing_the_active_node_fences_it() {
    let mut catalog = cluster();
    let remove = Command::RemoveMember { node: node(1), accept_loss: false };
    let changes = done(&mut catalog, remove.clone());
    let (from, to) = (Some(member(1, 1)), None);
    let fenced = Change::ActiveChanged { service: SERVICE, epoch: Epoch::main(2), from, to };
    assert!(changes.contains(&fenced), "{changes:?}");
    assert!(catalog.is_removed(&node(1)));
    assert_eq!(
        rejected(&mut catalog, Command::AddMember { member: spec_of(1, 2) }),
        Rejection::KeyRemoved
    );
    assert_eq!(rejected(&mut catalog, remove), Rejection::NoSuchMember { node: node(1) });
}

#[test]
fn the_last_holder_goes_only_when_the_loss_is_accepted() {
    let mut catalog = cluster();
    done(&mut catalog, Command::RemoveMember { node: node(2), accept_loss: false });
    assert_eq!(
        rejected(&mut catalog, Command::RemoveMember { node: node(3), accept_loss: false }),
        Rejection::LastHolder { services: vec![SERVICE] }
    );
    done(&mut catalog, Command::RemoveMember { node: node(3), accept_loss: true });
    let record = catalog.service(SERVICE).unwrap();
    assert!(record.holders.is_empty() && record.loss_accepted);
    done(&mut catalog, set_holders(1, 3, &[(4, 1)]));
    assert!(!catalog.service(SERVICE).unwrap().loss_accepted, "a set was agreed again");
}

#[test]
fn an_accepted_loss_ends_with_the_reign_that_may_use_it() {
    let mut catalog = cluster();
    let accept = |counter| Command::AcceptLoss { service: SERVICE, epoch: Epoch::main(counter) };
    let accepted = |catalog: &Catalog| catalog.service(SERVICE).unwrap().loss_accepted;
    assert_eq!(conflict(&mut catalog, accept(0)), Conflict::Epoch { current: Epoch::main(1) });
    done(&mut catalog, accept(1));
    assert!(accepted(&catalog));
    done(&mut catalog, take_over(1, None));
    assert!(!accepted(&catalog));
    done(&mut catalog, accept(2));
    done(&mut catalog, take_over(2, Some(member(4, 1))));
    assert!(accepted(&catalog), "nobody was active: it was meant for whoever comes");
    done(&mut catalog, set_holders(3, 1, &[(2, 1), (3, 1)]));
    assert!(!accepted(&catalog), "a set was agreed again");
}

#[test]
fn leaving_needs_to_be_empty() {
    let mut catalog = cluster();
    for n in [1, 2] {
        assert_eq!(
            rejected(&mut catalog, Command::Leave { node: node(n) }),
            Rejection::StillNeeded { service: SERVICE }
        );
    }
    done(&mut catalog, Command::Leave { node: node(4) });
    done(&mut catalog, Command::AddMember { member: spec_of(4, 2) });
    for n in [2, 3, 4, 9] {
        done(&mut catalog, Command::RemoveMember { node: node(n), accept_loss: true });
    }
    assert_eq!(rejected(&mut catalog, Command::Leave { node: node(1) }), Rejection::LastMember);
}

#[test]
fn specs_are_compared_and_ports_belong_to_one() {
    let mut catalog = cluster();
    assert_eq!(
        conflict(&mut catalog, apply_service(service("kv", 81), None)),
        Conflict::SpecVersion { current: Some(1) }
    );
    assert_eq!(
        conflict(&mut catalog, apply_service(service("web", 81), Some(1))),
        Conflict::SpecVersion { current: None }
    );
    let taken = rejected(&mut catalog, apply_service(service("web", 80), None));
    let by = ServiceName::new("kv").unwrap();
    assert_eq!(taken, Rejection::PortTaken { port: 80, by });
    assert_eq!(done(&mut catalog, apply_service(service("kv", 80), Some(1))), []);
    done(&mut catalog, apply_service(service("kv", 81), Some(1)));
    assert_eq!(catalog.port_owner(81), Some(SERVICE));
    done(&mut catalog, apply_service(service("web", 80), None));
    done(&mut catalog, Command::RemoveService { service: SERVICE });
    let changes = done(&mut catalog, apply_service(service("kv", 81), None));
    assert_eq!(changes, [Change::ServiceAdded { service: ServiceId(3) }], "never given out again");
}

#[test]
fn bad_specs_name_the_field() {
    let mut catalog = cluster();
    let mut long = service("web", 81);
    long.checks = vec![
        CheckSpec {
            kind: CheckKind::Alive,
            every: Span::secs(1),
            timeout: Span::secs(1),
            failures: 1,
        };
        17
    ];
    let mut big = service("web", 81);
    if let EngineSpec::Wasm { args, .. } = &mut big.engine {
        args.push("a".repeat(record::SPEC_MAX));
    }
    let cases = [
        (ServiceSpec { interval: Span::ZERO, ..service("web", 81) }, "interval"),
        (long, "checks"),
        (big, "service"),
    ];
    for (spec, expected) in cases {
        match rejected(&mut catalog, apply_service(spec, None)) {
            Rejection::BadSpec { field, .. } => assert_eq!(field, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_may_be_changed_while_there_is_state() {
    let catalog = cluster();
    let record = catalog.service(SERVICE).unwrap();
    let wasm = |change: fn(&mut EngineSpec)| {
        let mut spec = service("kv", 80);
        change(&mut spec.engine);
        spec
    };
    let other_module = wasm(|engine| {
        let EngineSpec::Wasm { module, .. } = engine else { return };
        *module = [2; 32];
    });
    let more_memory = wasm(|engine| {
        let EngineSpec::Wasm { memory_max, .. } = engine else { return };
        *memory_max = ByteCount::mib(65);
    });
    let less_memory = wasm(|engine| {
        let EngineSpec::Wasm { memory_max, .. } = engine else { return };
        *memory_max = ByteCount::mib(63);
    });
    let mut renamed_port = service("kv", 80);
    renamed_port.ports[0].name = "other".to_string();
    let exec =
        EngineSpec::Exec { command: vec!["a".to_string()], env: BTreeMap::new(), user: None };
    let base = || service("kv", 80);
    let cases = [
        (base(), Ok(Update::Nothing)),
        (service("kv", 81), Ok(Update::Live)),
        (ServiceSpec { copies: 3, ..base() }, Ok(Update::Live)),
        (more_memory, Ok(Update::Restart)),
        (less_memory, Err("memory_max")),
        (other_module.clone(), Err("module")),
        (renamed_port.clone(), Err("ports")),
        (ServiceSpec { output: OutputMode::Free, ..base() }, Err("output")),
        (ServiceSpec { durable: Durability::Disk, ..base() }, Err("durable")),
        (ServiceSpec { engine: exec, ..base() }, Err("engine")),
    ];
    for (spec, expected) in cases {
        let got = match update_of(record, &spec) {
            Update::Refused { field, .. } => Err(field),
            other => Ok(other),
        };
        assert_eq!(got, expected);
    }
    let unborn = ServiceRecord { born: false, ..record.clone() };
    for spec in [other_module, renamed_port] {
        assert_eq!(update_of(&unborn, &spec), Update::Restart);
    }
}

#[test]
fn recovery_gives_out_nothing_twice() {
    let mut catalog = cluster();
    let recover = |generation| Command::Recover { cluster: CLUSTER, generation, survivor: node(2) };
    assert_eq!(
        conflict(&mut catalog, recover(Generation(1))),
        Conflict::Generation { current: Generation(1) }
    );
    let mut ahead = catalog.clone();
    for n in 0..5 {
        done(&mut ahead, take_over(1 + n, Some(member(3, 1))));
    }
    done(&mut catalog, recover(Generation(2)));
    let record = catalog.service(SERVICE).unwrap();
    let lost = ahead.service(SERVICE).unwrap();
    assert!(record.epoch.supersedes(&lost.epoch));
    assert_eq!(record.active, None, "node 1 may have been replaced by what was lost");
    assert_eq!(record.holders, members(&[(2, 1), (3, 1)]));
    assert!(ahead.may_become(&catalog) && !catalog.may_become(&ahead));

    let mut here = cluster();
    let survivor =
        Command::Recover { cluster: CLUSTER, generation: Generation(2), survivor: node(1) };
    done(&mut here, survivor);
    let record = here.service(SERVICE).unwrap();
    assert_eq!(record.active, Some(member(1, 1)), "the instance may be all that is left");
}

#[test]
fn feature_level_waits_for_the_last_member() {
    let mut catalog = cluster();
    assert_eq!(
        rejected(&mut catalog, Command::SetFeatureLevel { level: 2 }),
        Rejection::FeatureLevel { current: 0, node: Some(node(1)) }
    );
    done(&mut catalog, Command::SetFeatureLevel { level: 1 });
    let old = MemberSpec { features: 0, ..spec_of(5, 1) };
    assert_eq!(
        rejected(&mut catalog, Command::AddMember { member: old }),
        Rejection::FeatureLevel { current: 1, node: Some(node(5)) }
    );
    assert_eq!(
        rejected(&mut catalog, Command::SetFeatureLevel { level: 0 }),
        Rejection::FeatureLevel { current: 1, node: None }
    );
}

#[test]
fn branches_are_listed_within_limits_and_can_become_the_main_line() {
    let mut catalog = cluster();
    let record = |size| BranchRecord {
        parent: Epoch::main(1),
        opener: node(3),
        checkpoints: 10,
        size: ByteCount::mib(size),
        holders: BTreeSet::from([node(3)]),
    };
    let keep = |n: u8, size| Command::KeepBranch {
        service: SERVICE,
        branch: BranchId([n; 16]),
        record: record(size),
    };
    assert_eq!(rejected(&mut catalog, keep(0, 1)), Rejection::NotABranch);
    done(&mut catalog, keep(1, 30));
    assert_eq!(catalog.branch_room(SERVICE), ByteCount::mib(70));
    done(&mut catalog, keep(2, 80));
    assert_eq!(catalog.branch_room(SERVICE), ByteCount(0), "listed, but no further branch");
    for n in 3..=BRANCHES_MAX as u8 {
        done(&mut catalog, keep(n, 0));
    }
    assert_eq!(rejected(&mut catalog, keep(99, 0)), Rejection::BranchesFull);
    let resolve = Command::ResolveBranch {
        service: SERVICE,
        expect: Epoch::main(1),
        branch: BranchId([1; 16]),
        reached: 7,
        to: member(3, 1),
        holders: members(&[(3, 1), (4, 1)]),
    };
    done(&mut catalog, resolve.clone());
    assert_eq!(conflict(&mut catalog, resolve), Conflict::Epoch { current: Epoch::main(8) });
    let now = catalog.service(SERVICE).unwrap();
    assert_eq!((now.active, &now.holders), (Some(member(3, 1)), &members(&[(3, 1), (4, 1)])));
    assert_eq!(now.fork, Some(BranchId([1; 16])));
    let version = now.holders_version;
    done(&mut catalog, set_holders(8, version, &[(2, 1), (3, 1), (4, 1)]));
    let now = catalog.service(SERVICE).unwrap();
    assert_eq!(now.fork, Some(BranchId([1; 16])), "another set says nothing of the fork");
    done(&mut catalog, set_holders(8, version + 1, &[(2, 1), (3, 1), (4, 1)]));
    assert_eq!(catalog.service(SERVICE).unwrap().fork, None, "said again: all have gone on");
    let drop = Command::DropBranch { service: SERVICE, branch: BranchId([1; 16]) };
    assert_eq!(rejected(&mut catalog, drop), Rejection::NoSuchBranch);
    done(&mut catalog, Command::RemoveMember { node: node(3), accept_loss: false });
    assert!(catalog.branches(SERVICE).unwrap().is_empty(), "gone with the last that kept them");
}

#[test]
fn limits_reject() {
    let mut catalog = cluster();
    for n in 0..TICKETS_MAX {
        let mut ticket = [0; 32];
        ticket[..8].copy_from_slice(&n.to_le_bytes());
        done(&mut catalog, Command::IssueTicket { ticket, ttl: Span::secs(1) });
    }
    let issue = Command::IssueTicket { ticket: [9; 32], ttl: Span::secs(1) };
    assert_eq!(rejected(&mut catalog, issue), Rejection::TicketsFull);
    for n in 1..SERVICES_MAX {
        let spec = ServiceSpec { ports: Vec::new(), ..service(&format!("s{n}"), 1) };
        done(&mut catalog, apply_service(spec, None));
    }
    let spec = service("more", 1);
    assert_eq!(rejected(&mut catalog, apply_service(spec, None)), Rejection::ServicesFull);
    for n in 5..NODES_MAX {
        let mut spec = spec_of(1, 1);
        spec.node.0[..8].copy_from_slice(&n.to_le_bytes());
        done(&mut catalog, Command::AddMember { member: spec });
    }
    let member = spec_of(8, 1);
    assert_eq!(rejected(&mut catalog, Command::AddMember { member }), Rejection::NodesFull);
    assert_eq!(Catalog::decode(&catalog.encode()), Ok(catalog));
}

#[test]
fn the_oldest_removed_key_is_forgotten_at_the_limit() {
    let mut catalog = cluster();
    for n in 0..REMOVED_MAX as u64 + 1 {
        let mut spec = spec_of(1, 1);
        // Falling ids, so that the oldest is not simply the first.
        spec.node.0[..8].copy_from_slice(&(u64::MAX - n).to_be_bytes());
        let node = spec.node;
        done(&mut catalog, Command::AddMember { member: spec });
        done(&mut catalog, Command::RemoveMember { node, accept_loss: false });
    }
    assert_eq!(catalog.check(), Ok(()));
    let mut first = node(1);
    first.0[..8].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(!catalog.is_removed(&first));
    first.0[..8].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    assert!(catalog.is_removed(&first));
}

#[test]
fn versions_are_read_before_bodies() {
    let mut bytes = cluster().encode();
    bytes[0] = 2;
    assert_eq!(Catalog::decode(&bytes), Err(SnapshotError::Version { found: 2 }));
    assert_eq!(Catalog::decode(&[1]), Err(SnapshotError::Malformed));
    assert_eq!(Command::decode(&[]), Err(CommandError::Empty));
    assert_eq!(Command::decode(&[2, 0]), Err(CommandError::Version { found: 2 }));
    assert!(matches!(Command::decode(&[1, 255]), Err(CommandError::Body(_))));
}

// Random histories.

fn random_member(dice: &mut Dice, catalog: &Catalog) -> Member {
    let n = *dice.pick(&[1, 2, 3, 4, 5, 9]);
    let current = catalog.incarnation(&node(n)).map_or(1, |incarnation| incarnation.0);
    member(n, if dice.chance(1, 8) { current.saturating_sub(1) } else { current })
}

fn random_set(dice: &mut Dice, catalog: &Catalog) -> BTreeSet<Member> {
    (0..dice.below(4)).map(|_| random_member(dice, catalog)).collect()
}

fn random_epoch(dice: &mut Dice, catalog: &Catalog, service: ServiceId) -> Epoch {
    let current = catalog.service(service).map_or(0, |record| record.epoch.counter);
    Epoch::main(if dice.chance(1, 3) { current.saturating_sub(1) } else { current })
}

fn random_about_members(dice: &mut Dice, catalog: &Catalog) -> Command {
    let who = random_member(dice, catalog);
    let n = who.node.0[0];
    let ticket = [dice.below(3) as u8; 32];
    match dice.below(10) {
        0 => Command::AddMember { member: spec_of(n, 1) },
        1 => Command::UpdateMember { member: spec_of(n, who.incarnation.0 + dice.below(2)) },
        2 => Command::RemoveMember { node: who.node, accept_loss: dice.chance(1, 2) },
        3 => Command::Leave { node: who.node },
        4 => Command::SetDraining { node: who.node, draining: dice.chance(1, 3) },
        5 => Command::IssueTicket { ticket, ttl: Span::secs(1) },
        6 | 7 => Command::UseTicket { ticket, member: spec_of(n, 1) },
        8 => Command::ExpireTicket { ticket },
        _ => {
            let generation = Generation(catalog.generation().0 + dice.below(2));
            Command::Recover { cluster: CLUSTER, generation, survivor: who.node }
        }
    }
}

fn random_about_services(dice: &mut Dice, catalog: &Catalog) -> Command {
    let service_id = match catalog.services().keys().next_back() {
        Some(last) if dice.chance(9, 10) => ServiceId(last.0.saturating_sub(dice.below(2))),
        _ => ServiceId(1),
    };
    let record = catalog.service(service_id);
    let service = service_id;
    match dice.below(14) {
        0 | 1 => {
            let name = *dice.pick(&["kv", "web"]);
            let mut spec = self::service(name, 80 + dice.below(2) as u16);
            spec.min_copies = dice.below(2) as u8;
            let known = catalog.service_named(&spec.name).map(|(_, record)| record.version);
            apply_service(spec, if dice.chance(1, 4) { None } else { known })
        }
        2 => Command::RemoveService { service },
        3 => {
            Command::SetWanted { service, wanted: *dice.pick(&[Wanted::Running, Wanted::Stopped]) }
        }
        4..=6 => {
            let to = (!dice.chance(1, 8)).then(|| random_member(dice, catalog));
            Command::TakeOver { service, expect: random_epoch(dice, catalog, service), to }
        }
        7..=9 => Command::SetHolders {
            service,
            epoch: random_epoch(dice, catalog, service),
            expect_version: record.map_or(0, |record| record.holders_version),
            holders: random_set(dice, catalog),
            joining: if dice.chance(1, 3) { random_set(dice, catalog) } else { BTreeSet::new() },
            born: dice.chance(1, 2),
        },
        10 => Command::AcceptLoss { service, epoch: random_epoch(dice, catalog, service) },
        11 => Command::KeepBranch {
            service,
            branch: BranchId([dice.below(4) as u8; 16]),
            record: BranchRecord {
                parent: Epoch::main(1),
                opener: node(2),
                checkpoints: 1,
                size: ByteCount(1),
                holders: random_set(dice, catalog).iter().map(|member| member.node).collect(),
            },
        },
        12 => Command::DropBranch { service, branch: BranchId([dice.below(4) as u8; 16]) },
        _ => Command::ResolveBranch {
            service,
            expect: random_epoch(dice, catalog, service),
            branch: BranchId([dice.below(4) as u8; 16]),
            reached: dice.below(9),
            to: random_member(dice, catalog),
            holders: random_set(dice, catalog),
        },
    }
}

/// What no step of a history may do, whatever the code believes.
fn broken_by(before: &Catalog, command: &Command, after: &Catalog) -> Option<&'static str> {
    if let Err(what) = after.check() {
        return Some(what);
    }
    let accepting_loss = matches!(command, Command::RemoveMember { accept_loss: true, .. });
    for (id, new) in after.services() {
        let Some(old) = before.service(*id) else {
            if before.last_service >= id.0 {
                return Some("a service id was given out twice");
            }
            continue;
        };
        if new.epoch != old.epoch && !new.epoch.supersedes(&old.epoch) {
            return Some("an epoch went back");
        }
        if new.active != old.active && new.epoch == old.epoch {
            return Some("two active nodes in one epoch");
        }
        if old.born && !new.born {
            return Some("a birth was forgotten");
        }
        let emptied = !old.holders.is_empty() && new.holders.is_empty();
        if new.born && emptied && new.spec.min_copies > 0 && !accepting_loss {
            return Some("a set became empty");
        }
        if new.holders != old.holders && new.holders_version <= old.holders_version {
            return Some("a set changed under its version");
        }
        // Compare-and-set, as its proposers rely on it: whoever was right, knew the epoch.
        let claimed = match command {
            Command::TakeOver { expect: epoch, .. } | Command::SetHolders { epoch, .. } => epoch,
            _ => continue,
        };
        if new != old && *claimed != old.epoch {
            return Some("a proposer who did not know the epoch changed something");
        }
    }
    None
}

fn run(seed: u64, plant: Option<Fault>) -> Result<u64, String> {
    let mut dice = Dice::new(seed);
    let mut catalog = cluster();
    let mut twin = Catalog::decode(&catalog.encode()).map_err(|error| error.to_string())?;
    #[cfg(feature = "faults")]
    if let Some(fault) = plant {
        catalog.plant(fault);
        twin.plant(fault);
    }
    let _ = plant;
    let mut done = 0;
    for step in 0..300 {
        let command = if dice.chance(1, 4) {
            random_about_members(&mut dice, &catalog)
        } else {
            random_about_services(&mut dice, &catalog)
        };
        let before = catalog.clone();
        let outcome = catalog.apply(&command);
        let place = |what: &str| Err(format!("seed {seed} step {step}: {what}: {command:?}"));
        if let Some(what) = broken_by(&before, &command, &catalog) {
            return place(what);
        }
        let changed = before != catalog;
        if !outcome.is_done() && changed {
            return place("refused, and changed something");
        }
        if changed && outcome.changes().is_empty() {
            return place("changed something without saying so");
        }
        let decoded = Command::decode(&command.encode()).map_err(|error| error.to_string())?;
        if twin.apply(&decoded) != outcome || twin != catalog {
            return place("two nodes differ");
        }
        if dice.chance(1, 20) && Catalog::decode(&catalog.encode()) != Ok(before_faults(&catalog)) {
            return place("the snapshot differs");
        }
        done += u64::from(outcome.is_done() && changed);
    }
    Ok(done)
}

/// What a snapshot has of it: no planted faults.
fn before_faults(catalog: &Catalog) -> Catalog {
    let catalog = catalog.clone();
    #[cfg(feature = "faults")]
    let catalog = Catalog { faults: BTreeSet::new(), ..catalog };
    catalog
}

#[test]
fn random_histories_keep_the_invariants() {
    let mut done = 0;
    for seed in 0..300 {
        done += run(seed, None).unwrap();
    }
    assert!(done > 10_000, "a run in which nothing happened proves nothing: {done}");
}

#[cfg(feature = "faults")]
#[test]
fn planted_faults_are_caught() {
    for fault in [Fault::TakeOverWithoutCompare, Fault::SetHoldersOfOldEpoch] {
        assert!((0..20).any(|seed| run(seed, Some(fault)).is_err()), "{fault:?}");
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let mut dice = Dice::new(1);
    let (mut commands, mut snapshots) = (0, 0);
    for seed in 0..2000 {
        let mut catalog = cluster();
        let mut random = Dice::new(seed);
        let mut bytes = random_about_services(&mut random, &catalog).encode();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        if let Ok(command) = Command::decode(&bytes) {
            commands += 1;
            catalog.apply(&command);
            assert_eq!(catalog.check(), Ok(()));
        }
        let mut bytes = catalog.encode();
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] = dice.below(256) as u8;
        if let Ok(mut damaged) = Catalog::decode(&bytes) {
            snapshots += 1;
            for _ in 0..20 {
                let command = random_about_services(&mut random, &damaged);
                damaged.apply(&command);
                assert_eq!(damaged.check(), Ok(()));
            }
        }
    }
    assert!(commands > 200 && snapshots > 200, "{commands} {snapshots}");
}
