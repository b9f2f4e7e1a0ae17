//! What arrives at a node's port: of strangers, of members, before and after it is known who.

use jizoku_mesh::fuzz;
use jizoku_node::wire::{JoinAnswer, JoinAsk};
use jizoku_types::frame::{Channel, Header};
use jizoku_types::{ClusterId, Generation};

use crate::{Seed, catalog, decoded, for_choice, node, pick};

/// Bytes of a connection, from the first on.
pub(crate) fn wire(data: &[u8]) {
    pick(data, &[fuzz::frames, fuzz::greeting, fuzz::stranger, fuzz::handshake, joining]);
}

/// The one question of a stranger, and what the joiner is answered. The header of a frame.
fn joining(data: &[u8]) {
    decoded::<JoinAsk>(data);
    decoded::<JoinAnswer>(data);
    decoded::<Header>(data);
}

pub(crate) fn seeds() -> Vec<Seed> {
    let [greeting, frames] = fuzz::seeds();
    let ask = JoinAsk { secret: [5; 32], member: catalog::member_spec(2) };
    let welcome = JoinAnswer::Welcome {
        cluster: ClusterId([3; 16]),
        generation: Generation(1),
        members: vec![(node(1), vec!["10.0.0.1:7645".into()])],
        name: "n2".into(),
    };
    let header = Header::new(node(1), node(2), Channel::State);
    vec![
        for_choice("wire", 0, frames),
        for_choice("wire", 1, greeting),
        for_choice("wire", 2, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03".to_vec()),
        for_choice("wire", 3, vec![200, 0, 7, 10, 0, 1]),
        for_choice("wire", 4, jizoku_types::encode(&ask)),
        for_choice("wire", 4, jizoku_types::encode(&welcome)),
        for_choice("wire", 4, jizoku_types::encode(&header)),
    ]
}
