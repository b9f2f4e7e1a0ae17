//! Listeners of one service: accept clients, and try again while a port is taken.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jizoku_types::ServiceId;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::{Owner, ServiceStats};

/// Connections that the system may keep waiting to be accepted.
const BACKLOG: i32 = 1024;
/// Time between two tries to open a port.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Time to breathe when accepting fails, as it does when descriptors run out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// A client that has connected.
pub(crate) struct Accepted {
    pub(crate) port: u8,
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
}

/// The listeners of one service. Dropping them closes the ports.
#[derive(Default)]
pub(crate) struct Listeners {
    ports: Vec<u16>,
    tasks: Vec<AbortHandle>,
}

impl Listeners {
    /// Opens these ports on all addresses, if they aren't the ones that are open.
    pub(crate) fn set(
        &mut self,
        ports: &[u16],
        bind: &[IpAddr],
        accepted: &mpsc::Sender<Accepted>,
        owner: &Arc<dyn Owner>,
        (service, stats): (ServiceId, &Arc<ServiceStats>),
    ) {
        if self.ports == ports {
            return;
        }
        self.close();
        stats.forget_closed();
        self.ports = ports.to_vec();
        for (index, port) in ports.iter().enumerate() {
            for address in bind {
                let task = Listener {
                    index: u8::try_from(index).expect("few ports"),
                    address: SocketAddr::new(*address, *port),
                    accepted: accepted.clone(),
                    owner: Arc::clone(owner),
                    service,
                    stats: Arc::clone(stats),
                };
                self.tasks.push(tokio::spawn(task.run()).abort_handle());
            }
        }
    }

    pub(crate) fn close(&mut self) {
        self.ports.clear();
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.close();
    }
}

struct Listener {
    index: u8,
    address: SocketAddr,
    accepted: mpsc::Sender<Accepted>,
    owner: Arc<dyn Owner>,
    service: ServiceId,
    stats: Arc<ServiceStats>,
}

impl Listener {
    async fn run(self) {
        let mut said = false;
        let listener = loop {
            match listen(self.address) {
                Ok(listener) => break listener,
                Err(error) => {
                    self.stats.set_closed(self.address, Some(error.to_string()));
                    if !std::mem::replace(&mut said, true) {
                        let what = format!("can't listen on {}: {error}", self.address);
                        self.owner.trouble(self.service, what);
                    }
                    tokio::time::sleep(TRY_EVERY).await;
                }
            }
        };
        self.stats.set_closed(self.address, None);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // Without it small answers wait for acknowledgements. Failing is harmless.
                    let _ = stream.set_nodelay(true);
                    let accepted = Accepted { port: self.index, stream, peer };
                    if self.accepted.send(accepted).await.is_err() {
                        return;
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be listened on with one port.
        socket.set_only_v6(true)?;
    }
    // A restarted agent gets its ports back though old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
