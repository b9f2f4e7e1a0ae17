//! Carries out checks of services, and tells the Node what came of them.
//!
//! An HTTP check goes through this node's own gateway: it sees what a client sees. A gateway takes
//! connections while nothing runs behind it, and each connection is part of a program's state. So
//! a TCP check asks whether the gateway follows the instance, and the instance's node whether it
//! accepts; only a program without state is connected to. A check of the program itself (`alive`)
//! says whether its instance runs here.
//!
//! Limits: one second at most for a TCP or HTTP answer unless the check allows more; bodies are
//! searched up to [`BODY_MAX`] bytes.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jizoku_node::node;
use jizoku_types::spec::{CheckKind, CheckSpec, EngineSpec, PortSpec};
use jizoku_types::{Epoch, NodeId, ServiceId};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::core::CoreMessage;
use super::look::Look;
use super::mailbox::Sender;
use super::output::OutputRing;
use super::user;
use super::wiring::Wiring;

/// Bytes of an HTTP answer's body that are searched.
const BODY_MAX: usize = 256 << 10;
/// How long a TCP check waits to be thrown out, and an HTTP check listens to a body that nobody
/// wants, so that the program isn't cut short.
const LINGER: Duration = Duration::from_millis(200);

/// What this node sees of a service without a check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Its instance runs here.
    pub(crate) running: bool,
    /// The gateway here follows its instance.
    pub(crate) followed: bool,
    /// Where it is active.
    pub(crate) active: Option<NodeId>,
    /// Its state survives, and so do traces of probes.
    pub(crate) stateful: bool,
}

/// See the module's header.
pub(crate) struct Probe {
    runtime: Handle,
    core: Sender<CoreMessage>,
    eyes: Eyes,
    gateway: IpAddr,
}

/// What a check of another node's instance needs.
#[derive(Clone)]
pub(crate) struct Eyes {
    pub(crate) look: Arc<Look>,
    pub(crate) wiring: Arc<Wiring>,
    pub(crate) output: Arc<OutputRing>,
}

impl Probe {
    /// Probes through the gateway at `gateway`.
    pub(crate) fn new(
        runtime: Handle,
        core: Sender<CoreMessage>,
        eyes: Eyes,
        gateway: IpAddr,
    ) -> Probe {
        let gateway = match gateway {
            any if any.is_unspecified() && any.is_ipv4() => IpAddr::from([127, 0, 0, 1]),
            any if any.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            address => address,
        };
        Probe { runtime, core, eyes, gateway }
    }

    /// Starts a check; its end is told to the core.
    pub(crate) fn start(
        &self,
        (service, epoch, check): (ServiceId, Epoch, u8),
        spec: &CheckSpec,
        (engine, ports): (&EngineSpec, &[PortSpec]),
        seen: Seen,
    ) {
        let user = match engine {
            EngineSpec::Exec { user, .. } => user.clone(),
            EngineSpec::Wasm { .. } => None,
        };
        let (core, kind, eyes) = (self.core.clone(), spec.kind.clone(), self.eyes.clone());
        let patience = Duration::from_nanos(spec.timeout.as_nanos());
        let at = |port: u8| {
            let port = ports.get(usize::from(port)).map_or(0, |port| port.listen);
            SocketAddr::new(self.gateway, port)
        };
        let address = match &kind {
            CheckKind::Tcp { port } | CheckKind::Http { port, .. } => at(*port),
            CheckKind::Alive | CheckKind::Command { .. } => at(0),
        };
        self.runtime.spawn(async move {
            let carried_out = async {
                if let (CheckKind::Tcp { port }, true) = (&kind, seen.followed) {
                    accepts(&eyes, service, *port, seen).await?;
                }
                carry_out(&kind, address, seen, user.as_deref()).await
            };
            let result = timeout(patience, carried_out).await;
            let failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why),
                Err(_) => Some(format!("no answer within {} ms", patience.as_millis())),
            };
            core.send(CoreMessage::Node(node::Input::Probed { service, epoch, check, failure }));
        });
    }
}

async fn carry_out(
    kind: &CheckKind,
    address: SocketAddr,
    seen: Seen,
    user: Option<&str>,
) -> Result<(), String> {
    match kind {
        CheckKind::Alive if seen.running => Ok(()),
        CheckKind::Alive => Err("no instance runs here".into()),
        CheckKind::Tcp { .. } if !seen.followed => Err("no instance answers the gateway".into()),
        CheckKind::Tcp { .. } if seen.stateful => Ok(()),
        CheckKind::Tcp { .. } => tcp(address).await,
        CheckKind::Http { path, status, body, .. } => {
            http(address, path, *status, body.as_deref()).await
        }
        CheckKind::Command { command } => run(command, user).await,
    }
}

/// Whether the instance accepts connections at a port, by what its own node sees.
async fn accepts(eyes: &Eyes, service: ServiceId, port: u8, seen: Seen) -> Result<(), String> {
    let Some(active) = seen.active else { return Err("it is active nowhere".into()) };
    let sights = eyes.look.around([active].into(), None, &eyes.wiring, &eyes.output).await;
    match sights.instance(active, service) {
        None if sights.silent.contains(&active) => Err("its node did not answer".into()),
        None => Err("its node runs no instance of it".into()),
        Some(reading) if !reading.running => Err("the instance doesn't run".into()),
        Some(reading) => match reading.stuck.get(usize::from(port)) {
            Some(Some(why)) => Err(why.clone()),
            Some(None) | None => Ok(()),
        },
    }
}

async fn tcp(address: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    match timeout(LINGER, stream.read(&mut [0])).await {
        // Nothing, a greeting, or a polite end: somebody is there.
        Err(_) | Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(error)),
    }
}

/// Whether a GET is answered with this status, and with this text in the body. The answer ends
/// where its head says, not where the connection does.
async fn http(
    address: SocketAddr,
    path: &str,
    status: u16,
    body: Option<&str>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let broken = |error: hyper::Error| format!("{address}: no HTTP answer: {error}");
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Dropped with this check, whether it ends or takes too long.
    let mut carrier = JoinSet::new();
    carrier.spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", address.to_string())
        .header("user-agent", "jizoku-check")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{path}: {error}"))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status().as_u16() != status {
        return Err(format!("expected status {status}, got {}", response.status()));
    }
    let incoming = response.into_body();
    match body {
        Some(text) => find(text, incoming).await,
        None => {
            // However it goes on: the answer is here.
            let _ = timeout(LINGER, find("", incoming)).await;
            Ok(())
        }
    }
}

/// Looks for a text in a body; for an empty one, reads it to its end.
async fn find(text: &str, mut body: Incoming) -> Result<(), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body ends early: {error}"))?;
        read.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
        let found = String::from_utf8_lossy(&read).contains(text);
        if found && !text.is_empty() {
            return Ok(());
        }
        if read.len() >= BODY_MAX {
            return Err(format!("the first {BODY_MAX} bytes of the body don't contain {text:?}"));
        }
    }
    Err(format!("the body doesn't contain {text:?}"))
}

/// Runs a command as the service's user: it never gets more rights than the service has.
async fn run(command: &[String], user: Option<&str>) -> Result<(), String> {
    let (program, args) = command.split_first().ok_or("an empty command")?;
    let mut command = tokio::process::Command::new(program);
    if let Some((uid, gid)) = user::ids_of(user)? {
        command.uid(uid).gid(gid);
    }
    let status = command
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a check of a server that answers this, and keeps the connection open.
    fn checked(answer: &str, status: u16, body: Option<&str>) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            let address = listener.local_addr().expect("it has an address");
            let serving = async {
                let (mut client, _) = listener.accept().await.expect("the check connects");
                let mut request = [0; 1024];
                let length = client.read(&mut request).await.expect("a request");
                assert!(request[..length].starts_with(b"GET /x HTTP/1.1\r\n"));
                client.write_all(answer.as_bytes()).await.expect("it is read");
                // Until the check goes away.
                while client.read(&mut request).await.is_ok_and(|length| length > 0) {}
            };
            tokio::join!(http(address, "/x", status, body), serving).0
        })
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
        let pieces = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                      8\r\nhello wo\r\n3\r\nrld\r\n0\r\n\r\n";
        for answer in [plain, pieces] {
            assert_eq!(checked(answer, 200, None), Ok(()));
            assert_eq!(checked(answer, 200, Some("world")), Ok(()));
            assert!(checked(answer, 204, None).is_err_and(|why| why.contains("got 200 OK")));
            assert!(checked(answer, 200, Some("moon")).is_err_and(|why| why.contains("moon")));
        }
        // One that never ends has begun well.
        let endless = "HTTP/1.1 200 OK\r\n\r\nhello";
        assert_eq!(checked(endless, 200, None), Ok(()));
        assert_eq!(checked(endless, 200, Some("ell")), Ok(()));
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(BODY_MAX));
        assert!(checked(&long, 200, Some("y")).is_err());
        assert!(checked("220 mail.example ESMTP\r\n\r\n", 200, None).is_err());
    }
}
