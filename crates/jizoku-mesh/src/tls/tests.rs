//! Handshakes, keys, record sizes and key updates between two sessions in memory.

use super::*;
use crate::identity::Identity;
use crate::trust::{ALPN_JOIN, ALPN_MEMBER, client_config, is_other_key, server_config};

/// Moves all bytes from one session to the other; tells whether there were any.
fn carry(from: &mut Session, to: &mut Session) -> Result<bool, rustls::Error> {
    let mut wire = Vec::new();
    while from.unsent() > 0 {
        from.write_to(&mut wire).expect("a vector takes all");
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_from(&mut rest).expect("a slice gives all");
        to.advance()?;
    }
    Ok(!wire.is_empty())
}

fn shake(client: &mut Session, server: &mut Session) -> Result<(), rustls::Error> {
    client.advance()?;
    loop {
        let there = carry(client, server)?;
        let back = carry(server, client)?;
        if !there && !back {
            return Ok(());
        }
    }
}

fn pair() -> (Session, Session, Identity, Identity) {
    let here = Identity::generate().expect("a key");
    let there = Identity::generate().expect("a key");
    let client = Session::client(client_config(&here, there.node(), ALPN_MEMBER));
    let server = Session::server(server_config(&there));
    let (mut client, mut server) = (client.expect("a client"), server.expect("a server"));
    shake(&mut client, &mut server).expect("a handshake");
    (client, server, here, there)
}

#[test]
fn both_ends_know_each_other_after_the_handshake() {
    let (client, server, here, there) = pair();
    assert!(client.is_ready() && server.is_ready());
    assert_eq!(client.peer(), Some(there.node()));
    assert_eq!(server.peer(), Some(here.node()));
    assert_eq!(server.alpn(), Some(ALPN_MEMBER));
}

#[test]
fn another_key_than_the_one_dialled_is_refused() {
    let here = Identity::generate().expect("a key");
    let expected = Identity::generate().expect("a key");
    let impostor = Identity::generate().expect("a key");
    let mut client = Session::client(client_config(&here, expected.node(), ALPN_JOIN)).expect("ok");
    let mut server = Session::server(server_config(&impostor)).expect("ok");
    let error = shake(&mut client, &mut server).expect_err("refused");
    assert!(is_other_key(&error), "{error}");
    assert!(!client.is_ready() && !server.is_ready());
    assert_eq!(server.peer(), None);
    // The other end is told.
    assert!(carry(&mut client, &mut server).is_err());
}

#[test]
fn an_unknown_purpose_is_refused() {
    let here = Identity::generate().expect("a key");
    let there = Identity::generate().expect("a key");
    let mut client = Session::client(client_config(&here, there.node(), b"http/1.1")).expect("ok");
    let mut server = Session::server(server_config(&there)).expect("ok");
    assert!(shake(&mut client, &mut server).is_err());
    assert!(!server.is_ready());
}

#[test]
fn pieces_of_any_size_arrive_in_order() {
    let (mut client, mut server, ..) = pair();
    let mut sent = Vec::new();
    for (step, size) in [0, 1, 70, RECORD - 1, RECORD, RECORD + 1, 100_000].into_iter().enumerate()
    {
        let piece: Vec<u8> = (0..size).map(|at| (at * 31 + step) as u8).collect();
        client.put(&piece).expect("put");
        sent.extend_from_slice(&piece);
    }
    client.seal().expect("sealed");
    carry(&mut client, &mut server).expect("carried");
    assert_eq!(&server.plain()[..], &sent[..]);
}

#[test]
fn keys_may_change_in_the_middle() {
    let (mut client, mut server, ..) = pair();
    for round in 0..5u8 {
        client.put(&[round; 3]).expect("put");
        client.seal().expect("sealed");
        client.change_keys();
        client.put(&[round; 3]).expect("put");
        client.seal().expect("sealed");
        carry(&mut client, &mut server).expect("carried");
        server.put(b"answer").expect("put");
        server.seal().expect("sealed");
        carry(&mut server, &mut client).expect("carried");
    }
    assert_eq!(server.plain().len(), 30);
    assert_eq!(client.plain().len(), 30);
}

#[test]
fn a_changed_byte_ends_the_session() {
    let (mut client, mut server, ..) = pair();
    client.put(b"hello").expect("put");
    client.seal().expect("sealed");
    let mut wire = Vec::new();
    client.write_to(&mut wire).expect("written");
    *wire.last_mut().expect("some") ^= 1;
    server.read_from(&mut &wire[..]).expect("read");
    assert!(server.advance().is_err());
    assert!(server.plain().is_empty());
}

#[test]
fn a_goodbye_comes_after_what_was_said() {
    let (mut client, mut server, ..) = pair();
    client.put(b"last words").expect("put");
    client.seal().expect("sealed");
    client.say_goodbye().expect("said");
    carry(&mut client, &mut server).expect("carried");
    assert!(server.is_closed() && !client.is_closed());
    assert_eq!(&server.plain()[..], b"last words");
    // The other way is still open.
    server.put(b"answer").expect("put");
    server.seal().expect("sealed");
    carry(&mut server, &mut client).expect("carried");
    assert_eq!(&client.plain()[..], b"answer");
}
