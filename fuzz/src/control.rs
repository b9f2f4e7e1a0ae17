//! What nodes say to each other on the channel Control, and the messages of the others.

use jizoku_core::{lease, reach, watch};
use jizoku_node::node::{Config, Input, Node, Output};
use jizoku_node::wire::{ControlMessage, ModuleMessage, StateMessage, StreamMessage};
use jizoku_types::{Epoch, Incarnation, ServiceId, Span};

use crate::{Seed, catalog, chunks, decoded, for_choice, join, member, moment, node, pick};

fn begun() -> Node {
    let myself = catalog::member_spec(1);
    let config = Config { myself, restarted: false, lease: Span::millis(300), seed: 1 };
    let mut node = Node::new(moment(0), config);
    for command in catalog::begun() {
        node.handle(moment(0), Input::Applied { id: None, command: command.encode() });
    }
    node
}

/// The Node, and what its adapters are sent.
pub(crate) fn control(data: &[u8]) {
    pick(data, &[told, others]);
}

/// A Node that other members tell anything. A chunk's first byte says who.
fn told(data: &[u8]) {
    let mut value = begun();
    for (step, chunk) in chunks(data).enumerate() {
        let Some((from, chunk)) = chunk.split_first() else { continue };
        let Some(message) = decoded::<ControlMessage>(chunk) else { continue };
        let (now, from) = (moment(step + 1), node(2 + from % 2));
        value.handle(now, Input::Control { from, message });
        while let Some(output) = value.poll() {
            // Nothing that others say makes a node change the catalog by itself.
            assert!(!matches!(output, Output::ChangeVoters { .. }));
        }
    }
}

/// Bodies of the other channels.
fn others(data: &[u8]) {
    decoded::<StateMessage>(data);
    decoded::<StreamMessage>(data);
    // What travels within them about scripts has a form of its own.
    if let Ok(request) = jizoku_script::wire::Request::decode(data) {
        assert_eq!(jizoku_script::wire::Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(answer) = jizoku_script::wire::Answer::decode(data) {
        assert_eq!(jizoku_script::wire::Answer::decode(&answer.encode()), Ok(answer));
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let (service, epoch) = (ServiceId(1), Epoch::main(1));
    let mut messages = vec![ControlMessage::Move { service, epoch, to: Some(node(2)) }];
    // What real cores say.
    let mut reach = reach::Reach::new(member(2));
    reach.handle(
        moment(0),
        reach::Input::Members {
            members: [node(1), node(2), node(3)].into(),
            removed: Default::default(),
        },
    );
    let (peer, incarnation, cost) = (node(1), Incarnation(1), Span::millis(1));
    reach.handle(moment(0), reach::Input::LinkUp { peer, incarnation, cost });
    reach.handle(moment(1), reach::Input::Facts { bytes: vec![1; 40], urgent: true });
    while let Some(output) = reach.poll() {
        if let reach::Output::Send { message, .. } = output {
            messages.push(ControlMessage::Reach(message));
        }
    }
    let mut owner = lease::Owner::new(member(2), Span::millis(300));
    let voters = [node(1), node(2), node(3)].into();
    let electorate = lease::Electorate { number: 1, voters };
    owner.handle(moment(0), lease::OwnerInput::Electorate(electorate));
    owner.handle(moment(0), lease::OwnerInput::Want { service, epoch });
    while let Some(output) = owner.poll() {
        if let lease::OwnerOutput::Send { message, .. } = output {
            messages.push(ControlMessage::Lease(message));
        }
    }
    let mut watch = watch::Watch::new(node(2));
    let links = [(node(1), [node(2)].into()), (node(2), [node(1)].into())].into();
    watch.handle(moment(0), watch::Input::Links(links));
    let checks = Vec::new();
    let active = Some(node(1));
    watch.handle(moment(0), watch::Input::Service { service, epoch, active, checks });
    while let Some(output) = watch.poll() {
        if let watch::Output::Send { message, .. } = output {
            messages.push(ControlMessage::Watch(message));
        }
    }
    let chunk = |message| [&[0][..], &jizoku_types::encode(message)].concat();
    let all: Vec<Vec<u8>> = messages.iter().map(chunk).collect();
    let gateway = member(3);
    let message = jizoku_streams::ToInstance {
        service,
        epoch,
        session: 1,
        number: 1,
        heard: 0,
        body: jizoku_streams::message::InstanceBody::Probe,
    };
    let stream = StreamMessage::ToInstance { gateway, message };
    let part = ModuleMessage::Part { hash: [7; 32], length: 9, offset: 4, bytes: vec![1; 5] };
    vec![
        for_choice("control", 0, join(&all)),
        for_choice("control", 1, jizoku_types::encode(&stream)),
        for_choice("control", 1, jizoku_types::encode(&StateMessage::Module(part))),
    ]
}
