//! Input that kills the program that reads it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::Connection;
use jizoku_e2e::turn;

const PORT: u16 = 7000;
const NODES: usize = 3;
/// A value that the program's memory can't hold.
const TOO_LARGE: usize = 64 << 20;
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_connection_that_kills_the_program_is_reset_and_the_others_go_on() {
    let _turn = turn();
    let cluster = Cluster::start(NODES);
    let manifest = cluster::kv_called("kv", PORT, "8MiB", "output = \"held\"");
    cluster.must_apply(&manifest);
    cluster.wait_until_held("kv", 2);
    // They have nothing under way while it happens: nothing that they sent can be to blame.
    let places = [cluster.address(0, PORT), cluster.address(1, PORT)];
    let mut others = places.map(|place| Connection::open(place).expect("a server"));
    for (count, other) in (1..).zip(&mut others) {
        assert_eq!(other.call(&["INCR", "n"]).expect("an answer"), count.to_string());
    }

    let mut poison = TcpStream::connect(cluster.address(2, PORT)).expect("a server");
    poison.set_write_timeout(Some(WITHIN)).expect("a socket");
    poison.set_read_timeout(Some(WITHIN)).expect("a socket");
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n${TOO_LARGE}\r\n");
    poison.write_all(head.as_bytes()).expect("a server that reads");
    let block = vec![b'x'; 256 << 10];
    let sent = (0..TOO_LARGE / block.len()).try_for_each(|_| poison.write_all(&block));
    let ended = sent.and_then(|()| poison.read(&mut [0; 1]));
    let reset = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    assert!(ended.as_ref().is_err_and(|error| reset(error.kind())), "{ended:?}");

    for (count, other) in (3..).zip(&mut others) {
        assert_eq!(other.call(&["INCR", "n"]).expect("an answer"), count.to_string());
    }
    assert!(cluster.saw("instance_exited"), "it killed the program");
    let poisonous = (0..NODES)
        .flat_map(|node| cluster.events(node))
        .any(|event| event["type"] == "connection_reset" && event["cause"] == "poisonous");
    assert!(poisonous, "the reset is told");
    let mut late = Connection::open(cluster.address(2, PORT)).expect("a server");
    assert_eq!(late.call(&["GET", "n"]).expect("an answer"), "4");
}
