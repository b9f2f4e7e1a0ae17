//! Ports on loopback for a program: choosing free ones, and seeing whether it listens.
//!
//! What it does not know: the program.
//!
//! Invariant: looking doesn't touch: whether somebody listens is read from the system's tables,
//! so no server sees a connection that says nothing.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// So many ports that nobody listens on now. Another program may take one before the service's
/// own does; then that one ends, and is started again with others.
pub(crate) fn choose(count: usize) -> io::Result<Vec<u16>> {
    // All are held until all are chosen, so that they differ.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

/// Whether connections to each of the ports on 127.0.0.1 would be taken.
pub(crate) fn all_listen(ports: &[u16]) -> bool {
    if ports.is_empty() {
        return true;
    }
    let mut tables = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    // Not there without IPv6.
    tables.push_str(&std::fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default());
    let listening: Vec<u16> = tables.lines().filter_map(listening_port).collect();
    ports.iter().all(|port| listening.contains(port))
}

/// The port of one line of the table, if it stands for a listener that 127.0.0.1 leads to.
fn listening_port(line: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let reached = matches!(
        address,
        "00000000"
            | "0100007F"
            | "00000000000000000000000000000000"
            | "0000000000000000FFFF00000100007F"
    );
    (state == "0A" && reached).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_seen_without_being_touched() {
        let ports = choose(3).unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2]);
        assert!(!all_listen(&ports[..1]));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
        assert!(all_listen(&ports[..1]));
        assert!(!all_listen(&ports[..2]));
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(all_listen(&[]));
    }

    #[test]
    fn only_listeners_that_loopback_leads_to_count() {
        let line = |address: &str, state: &str| {
            format!("   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 0 0 0")
        };
        for (address, state, expected) in [
            ("0100007F:1F90", "0A", Some(8080)),
            ("00000000:1F90", "0A", Some(8080)),
            ("0100007F:1F90", "01", None),
            ("0101007F:1F90", "0A", None),
            ("00000000000000000000000000000000:1F90", "0A", Some(8080)),
            ("00000000000000000000000001000000:1F90", "0A", None),
        ] {
            assert_eq!(listening_port(&line(address, state)), expected, "{address} {state}");
        }
        assert_eq!(listening_port("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(listening_port(""), None);
    }
}
