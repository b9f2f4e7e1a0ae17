//! Carries out checks of services, and tells the Node what came of them.
//!
//! An HTTP check goes through this node's own gateway: it sees what a client sees. A gateway takes
//! connections while nothing runs behind it, and each connection is part of a program's state. So
//! a TCP check asks whether the gateway follows the instance, and the instance's node whether it
//! accepts; only a program without state is connected to. A check of the program itself (`alive`)
//! says whether its instance runs here.
//!
//! Limits: one second at most for a TCP or HTTP answer unless the check allows more; bodies are
//! read up to [`BODY_MAX`] bytes.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jizoku_node::node;
use jizoku_types::spec::{CheckKind, CheckSpec, EngineSpec, PortSpec};
use jizoku_types::{Epoch, NodeId, ServiceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::core::CoreMessage;
use super::look::Look;
use super::mailbox::Sender;
use super::output::OutputRing;
use super::user;
use super::wiring::Wiring;

/// Bytes of an HTTP answer that are read.
const BODY_MAX: u64 = 256 << 10;
/// How long a TCP check waits to be thrown out.
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

async fn http(
    address: SocketAddr,
    path: &str,
    status: u16,
    body: Option<&str>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: jizoku-check\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(BODY_MAX).read_to_end(&mut answer).await.map_err(failed)?;
    judge(&String::from_utf8_lossy(&answer), status, body)
}

/// Whether an HTTP/1 answer has the status, and the text in its body.
fn judge(answer: &str, status: u16, body: Option<&str>) -> Result<(), String> {
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let line = head.lines().next().unwrap_or_default();
    let found = line.strip_prefix("HTTP/1.").and_then(|line| line.split(' ').nth(1));
    if found != Some(status.to_string().as_str()) {
        return Err(format!("expected status {status}, got {line:?}"));
    }
    match body {
        Some(text) if !rest.contains(text) => Err(format!("the body doesn't contain {text:?}")),
        _ => Ok(()),
    }
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
    use super::judge;

    #[test]
    fn answers_are_judged() {
        let answer = "HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello world";
        assert_eq!(judge(answer, 200, None), Ok(()));
        assert_eq!(judge(answer, 200, Some("world")), Ok(()));
        for (answer, status, body) in
            [(answer, 204, None), (answer, 200, Some("moon")), ("", 200, None), ("x", 200, None)]
        {
            assert!(judge(answer, status, body).is_err(), "{answer:?}");
        }
    }
}
