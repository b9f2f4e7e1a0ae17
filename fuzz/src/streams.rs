//! Connections: a gateway that an instance tells anything, the reverse, and a captured state.

use jizoku_streams::gateway::{self, GatewayEnd};
use jizoku_streams::instance::{Identity, InstanceEnd};
use jizoku_streams::message::{Bytes, GatewayBody, GatewayFrame, InstanceBody, InstanceFrame};
use jizoku_streams::{ToGateway, ToInstance};
use jizoku_types::{Epoch, ServiceId};

use crate::{Seed, chunks, decoded, for_choice, join, member, moment, node, pick};

const SERVICE: ServiceId = ServiceId(1);

fn peer() -> std::net::SocketAddr {
    "10.0.0.9:1234".parse().expect("an address")
}

fn identity(epoch: u64) -> Identity {
    Identity { service: SERVICE, epoch: Epoch::main(epoch), held: true, survives: true }
}

/// Both ends, and a captured state.
pub(crate) fn streams(data: &[u8]) {
    pick(data, &[gateway, instance, sockets]);
}

/// A gateway with two clients. What it gives to one of them grows by what it was given, and is
/// never more than the window.
fn gateway(data: &[u8]) {
    let mut end = GatewayEnd::new(member(2), SERVICE, true);
    let route = gateway::Input::Route { active: node(1), epoch: Epoch::main(1) };
    end.handle(moment(0), route);
    for _ in 0..2 {
        let conn = end.open(moment(0), 0, peer()).expect("there is room");
        end.handle(moment(0), gateway::Input::FromClient { conn, bytes: b"SET a 1\n".to_vec() });
    }
    while end.poll().is_some() {}
    for (step, chunk) in chunks(data).enumerate() {
        let Some(message) = decoded::<ToGateway>(chunk) else { continue };
        end.handle(moment(step + 1), gateway::Input::Message { from: node(1), message });
        while end.poll().is_some() {}
    }
}

/// An instance that reads and answers whatever connections it is given.
fn instance(data: &[u8]) {
    let mut end = InstanceEnd::new(identity(1), 1);
    for (step, chunk) in chunks(data).enumerate() {
        let Some(message) = decoded::<ToInstance>(chunk) else { continue };
        end.handle(moment(step), member(2), message);
        while let Some(socket) = end.accept(0) {
            let _ = end.read(socket, 100);
            let _ = end.write(socket, b"+OK\n");
        }
        while end.poll().is_some() {}
    }
}

/// The byte space `sockets` of a checkpoint.
fn sockets(data: &[u8]) {
    let Ok(mut end) = InstanceEnd::restore(identity(2), 1, 5, data) else { return };
    while let Some(socket) = end.accept(0) {
        let _ = end.read(socket, 100);
        end.close(socket);
    }
    while end.poll().is_some() {}
}

pub(crate) fn seeds() -> Vec<Seed> {
    let to_instance = |number, body| {
        let (service, epoch) = (SERVICE, Epoch::main(1));
        let message = ToInstance { service, epoch, session: 1, number, heard: 0, body };
        jizoku_types::encode(&message)
    };
    let frames = vec![
        InstanceFrame::Open { counter: 1, port: 0, peer: peer() },
        InstanceFrame::Data { counter: 1, offset: 0, bytes: Bytes(b"GET a\n".to_vec()) },
        InstanceFrame::Fin { counter: 1, offset: 6 },
    ];
    let asked = vec![
        to_instance(1, InstanceBody::Attach(Vec::new())),
        to_instance(2, InstanceBody::Frames(frames)),
        to_instance(3, InstanceBody::Probe),
    ];
    let mut end = InstanceEnd::new(identity(1), 1);
    let mut answers = Vec::new();
    for (step, chunk) in asked.iter().enumerate() {
        let message = jizoku_types::decode(chunk).expect("our own");
        end.handle(moment(step), member(2), message);
        while let Some(socket) = end.accept(0) {
            let _ = end.read(socket, 100);
            let _ = end.write(socket, b"+OK\n");
        }
        while let Some((_, message)) = end.poll() {
            answers.push(jizoku_types::encode(&message));
        }
    }
    let frame =
        GatewayFrame::Data { counter: 1, offset: 0, cover: 1, bytes: Bytes(b"+OK\n".to_vec()) };
    let message = ToGateway {
        service: SERVICE,
        epoch: Epoch::main(1),
        session: 1,
        number: 2,
        heard: 1,
        committed: 1,
        body: GatewayBody::Frames(vec![frame, GatewayFrame::Close { counter: 1, cover: 1 }]),
    };
    answers.push(jizoku_types::encode(&message));
    let state = end.capture(1);
    vec![
        for_choice("streams", 0, join(&answers)),
        for_choice("streams", 1, join(&asked)),
        for_choice("streams", 2, state),
    ]
}
