//! The catalog's commands and snapshots, and the records of its replication.

use std::collections::BTreeMap;

use jizoku_consensus::{Record, Recovered};
use jizoku_core::catalog::{Catalog, Command, MemberSpec};
use jizoku_types::{ClusterId, Epoch, Generation, Incarnation, Member, ServiceId};

use crate::{Seed, chunks, for_choice, join, member, node, pick, text};

/// What a node says of itself.
pub(crate) fn member_spec(n: u8) -> MemberSpec {
    MemberSpec {
        node: node(n),
        incarnation: Incarnation(1),
        name: format!("n{n}"),
        addresses: vec![format!("10.0.0.{n}:7500")],
        labels: BTreeMap::new(),
        witness: false,
        features: 1,
    }
}

/// A cluster of three with a service.
pub(crate) fn begun() -> Vec<Command> {
    let cluster = ClusterId([3; 16]);
    vec![
        Command::Init { cluster, generation: Generation(1), first: member_spec(1) },
        Command::AddMember { member: member_spec(2) },
        Command::AddMember { member: member_spec(3) },
        Command::ApplyService { spec: Box::new(text::kv()), expect: None },
    ]
}

/// Commands, snapshots, records.
pub(crate) fn catalog(data: &[u8]) {
    pick(data, &[commands, snapshot, records]);
}

/// Any commands, after a cluster has begun.
fn commands(data: &[u8]) {
    let mut catalog = Catalog::new();
    for command in begun() {
        catalog.apply(&command);
    }
    for chunk in chunks(data) {
        let Ok(command) = Command::decode(chunk) else { continue };
        catalog.apply(&command);
        assert_eq!(catalog.check(), Ok(()), "after {command:?}");
    }
    let bytes = catalog.encode();
    let twin = Catalog::decode(&bytes).expect("a snapshot can be read");
    assert_eq!(twin.encode(), bytes);
}

/// A snapshot that claims to be one.
fn snapshot(data: &[u8]) {
    let Ok(catalog) = Catalog::decode(data) else { return };
    assert_eq!(catalog.check(), Ok(()));
    let bytes = catalog.encode();
    assert_eq!(Catalog::decode(&bytes).expect("a snapshot can be read").encode(), bytes);
}

/// Records of votes and log entries, as a journal gave them.
fn records(data: &[u8]) {
    let mut recovered = Recovered::new();
    for chunk in chunks(data) {
        let Ok(record) = Record::decode(chunk) else { continue };
        let twin = Record::decode(&record.encode()).expect("a record can be read");
        assert_eq!(twin.encode(), record.encode());
        let _ = recovered.replay(record);
    }
    let mut again = Recovered::new();
    for record in recovered.records() {
        again.replay(record).expect("what adds up can be written down");
    }
    assert_eq!(again, recovered);
}

pub(crate) fn seeds() -> Vec<Seed> {
    let service = ServiceId(1);
    let epoch = Epoch::main(0);
    let more = [
        Command::TakeOver { service, expect: epoch, to: Some(member(1)) },
        Command::SetHolders {
            service,
            epoch: epoch.next(),
            expect_version: 0,
            born: true,
            holders: [member(2), member(3)].into(),
            joining: [Member { incarnation: Incarnation(9), ..member(1) }].into(),
        },
        Command::RemoveMember { node: node(3), accept_loss: false },
        Command::RemoveService { service },
    ];
    let encoded =
        |commands: &[Command]| -> Vec<Vec<u8>> { commands.iter().map(Command::encode).collect() };
    let mut catalog = Catalog::new();
    let commands = [join(&encoded(&more)), join(&encoded(&begun()))];
    let mut seeds: Vec<Seed> = commands.map(|some| for_choice("catalog", 0, some)).into();
    for command in begun().iter().chain(&more) {
        catalog.apply(command);
        seeds.push(for_choice("catalog", 1, catalog.encode()));
    }
    seeds
}
