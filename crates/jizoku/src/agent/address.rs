//! Where to listen on this machine: a config that works everywhere says "everywhere", in IPv4 and
//! in IPv6, and not every machine has both.
//!
//! What it does not know: other nodes.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use jizoku_manifest::NodeConfig;

/// The config without the addresses that mean "everywhere" in a kind that this machine doesn't
/// have. An error says that nothing is left to listen on.
pub(crate) fn possible(config: NodeConfig) -> Result<NodeConfig, String> {
    let (v4, v6) = (has(Ipv4Addr::UNSPECIFIED.into()), has(Ipv6Addr::UNSPECIFIED.into()));
    narrowed(config, |ip| if ip.is_ipv4() { v4 } else { v6 })
}

fn narrowed(mut config: NodeConfig, has: impl Fn(IpAddr) -> bool) -> Result<NodeConfig, String> {
    let keep = |ip: IpAddr| !ip.is_unspecified() || has(ip);
    let only = config.listen.first().copied();
    config.listen.retain(|address| keep(address.ip()));
    config.gateway.retain(|ip| keep(*ip));
    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if let (true, Some(address)) = (config.listen.is_empty(), only) {
        if !has(v4) {
            return Err(format!("{address}: this machine has no such addresses; mend `listen`"));
        }
        config.listen.push(SocketAddr::new(v4, address.port()));
    }
    if config.gateway.is_empty() && has(v4) {
        config.gateway.push(v4);
    }
    Ok(config)
}

/// Whether this machine can listen on addresses of this kind. Doubtful cases count as "yes", so
/// that the attempt itself says what is wrong.
fn has(everywhere: IpAddr) -> bool {
    match TcpListener::bind((everywhere, 0)) {
        Ok(_) => true,
        Err(error) => {
            let no_family = error.raw_os_error() == Some(EAFNOSUPPORT);
            !no_family && error.kind() != ErrorKind::AddrNotAvailable
        }
    }
}

/// "Address family not supported by protocol"; the same number on all architectures that run.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_ipv6_listens_in_ipv4() {
        let one = |text: &str| vec![text.parse().expect("an address")];
        let v4_only = |ip: IpAddr| ip.is_ipv4();
        let config = NodeConfig::default();
        let both = narrowed(config.clone(), |_| true).expect("both");
        assert_eq!(both, config);
        let narrow = narrowed(config.clone(), v4_only).expect("IPv4 is there");
        assert_eq!(narrow.listen, one("0.0.0.0:7645"));
        let gateway: Vec<IpAddr> = vec![Ipv4Addr::UNSPECIFIED.into()];
        assert_eq!(narrow.gateway, gateway);
        let six = NodeConfig { listen: one("[::]:9"), gateway: Vec::new(), ..config.clone() };
        assert_eq!(narrowed(six, v4_only).expect("falls back").listen, one("0.0.0.0:9"));
        let named = NodeConfig { listen: one("[::1]:9"), ..config.clone() };
        assert_eq!(narrowed(named, v4_only).expect("kept").listen, one("[::1]:9"));
        assert!(narrowed(config, |_| false).is_err());
    }
}
