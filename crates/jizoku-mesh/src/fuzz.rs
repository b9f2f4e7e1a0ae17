//! What a stranger's or a member's bytes go through, for the fuzzer: TLS, the greeting, frames.
//!
//! What it does not know: who drives it.

use std::sync::OnceLock;

use bytes::BytesMut;
use jizoku_types::{ClusterId, Generation, Incarnation, NodeId, decode, encode};

use crate::hello::{Adopt, Answer, GREETING_MAX, Local};
use crate::identity::Identity;
use crate::tls::Session;
use crate::trust::{ALPN_MEMBER, client_config, server_config};
use crate::wire::{next_frame, next_message};

/// How many bytes arrive at a time: small enough that everything is cut somewhere.
const PIECES: [usize; 4] = [1, 7, 70, 4096];

/// Frames as a member sends them, in pieces. Those that are taken must be written as they came.
pub fn frames(data: &[u8]) {
    let mut first: Option<(usize, bool)> = None;
    for piece in PIECES {
        let (mut plain, mut again) = (BytesMut::new(), Vec::new());
        let broken = data.chunks(piece).any(|chunk| {
            plain.extend_from_slice(chunk);
            loop {
                match next_frame(&mut plain) {
                    Ok(Some(frame)) => {
                        again.extend_from_slice(&frame.prefix());
                        again.extend_from_slice(&frame.body);
                    }
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            }
        });
        assert_eq!(data[..again.len()], again[..], "a frame is what was read");
        // It doesn't matter how the bytes were cut.
        assert_eq!(*first.get_or_insert((again.len(), broken)), (again.len(), broken));
    }
}

/// The messages of a greeting, as they come before any frame.
pub fn greeting(data: &[u8]) {
    let local = Local {
        node: NodeId([1; 32]),
        cluster: ClusterId([2; 16]),
        generation: Generation(3),
        incarnation: Incarnation(4),
        versions: (1, 2),
    };
    let mut plain = BytesMut::from(data);
    while let Ok(Some(message)) = next_message(&mut plain, GREETING_MAX) {
        assert!(message.len() <= GREETING_MAX);
        if let Ok((hello, version)) = local.read_hello(&message) {
            assert!((1..=2).contains(&version));
            let sent = local.hello(hello.lane, hello.attempt, hello.seen);
            let mut sent = BytesMut::from(&sent[..]);
            let sent = next_message(&mut sent, GREETING_MAX).expect("short").expect("whole");
            // All but the incarnation is ours.
            assert!(local.read_hello(&sent).is_ok());
        }
        if let Ok(answer) = decode::<Answer>(&message) {
            assert_eq!(decode(&encode(&answer)), Ok(answer));
            if let Answer::Refused(refusal) = answer {
                assert!(!refusal.to_string().is_empty());
            }
        }
        if let Ok(adopt) = decode::<Adopt>(&message) {
            assert_eq!(decode(&encode(&adopt)), Ok(adopt));
        }
    }
}

/// A handshake that somebody tampers with: three bytes say where and how, as long as there are
/// any. What wasn't touched must work; what was must not end in anybody's being believed.
pub fn handshake(data: &[u8]) {
    static KEYS: OnceLock<[Identity; 2]> = OnceLock::new();
    let [here, there] = KEYS.get_or_init(|| [(); 2].map(|()| Identity::generate().expect("keys")));
    let client = Session::client(client_config(here, there.node(), ALPN_MEMBER));
    let (mut client, mut server) =
        (client.expect("a client"), Session::server(server_config(there)).expect("a server"));
    let mut changes = data.chunks_exact(3);
    if client.advance().is_err() {
        return;
    }
    for _ in 0..8 {
        let moved = carry(&mut client, &mut server, &mut changes);
        let Ok(there_moved) = moved else { return };
        let Ok(back_moved) = carry(&mut server, &mut client, &mut changes) else { return };
        if !there_moved && !back_moved {
            break;
        }
    }
    for (session, other) in [(&client, there), (&server, here)] {
        assert!(!session.is_ready() || session.peer() == Some(other.node()));
    }
    if data.len() < 3 {
        assert!(client.is_ready() && server.is_ready(), "nobody touched it");
    }
}

/// Raw bytes of a stranger, before anything is known of him.
pub fn stranger(data: &[u8]) {
    static KEY: OnceLock<Identity> = OnceLock::new();
    let key = KEY.get_or_init(|| Identity::generate().expect("a key"));
    let mut server = Session::server(server_config(key)).expect("a server");
    let mut rest = data;
    while !rest.is_empty() {
        let taken = server.read_from(&mut rest).expect("a slice gives all");
        if server.advance().is_err() || taken == 0 {
            break;
        }
    }
    assert!(server.peer().is_none() && server.plain().is_empty(), "he has proved nothing");
}

/// Moves all bytes from one session to the other, changed at one place. Whether there were any.
fn carry<'d>(
    from: &mut Session,
    to: &mut Session,
    changes: &mut impl Iterator<Item = &'d [u8]>,
) -> Result<bool, rustls::Error> {
    let mut wire = Vec::new();
    while from.unsent() > 0 {
        from.write_to(&mut wire).expect("a vector takes all");
    }
    if let (Some(change), false) = (changes.next(), wire.is_empty()) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % wire.len();
        match change[2] {
            0 => wire.truncate(at),
            1 => wire.extend_from_within(at..),
            other => wire[at] ^= other,
        }
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_from(&mut rest).expect("a slice gives all");
        to.advance()?;
    }
    Ok(!wire.is_empty())
}

/// A greeting and frames to begin with.
pub fn seeds() -> [Vec<u8>; 2] {
    use crate::hello::{Adoption, Refusal};
    use crate::wire::{Frame, Lane, message};
    use jizoku_types::frame::{Channel, Header};
    let local = Local {
        node: NodeId([1; 32]),
        cluster: ClusterId([2; 16]),
        generation: Generation(3),
        incarnation: Incarnation(4),
        versions: (1, 2),
    };
    let adoption = Adoption { incarnation: Incarnation(4), number: 5 };
    let greeting = [
        local.hello(Lane::State, 6, adoption),
        message(&Answer::Welcome { version: 1, incarnation: Incarnation(4) }),
        message(&Answer::Refused(Refusal::NoCommonVersion { lowest: 1, highest: 2 })),
        message(&Adopt(adoption)),
    ];
    let frames = [Channel::Consensus, Channel::Bulk].map(|channel| {
        let header = Header::new(NodeId([1; 32]), NodeId([2; 32]), channel);
        let frame = Frame { header, body: bytes::Bytes::from_static(b"body") };
        [&frame.prefix()[..], &frame.body].concat()
    });
    [greeting.concat(), frames.concat()]
}
