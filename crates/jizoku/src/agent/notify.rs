//! What systemd is told: that the agent is ready, and that it still lives. See sd_notify(3).

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::sync::oneshot;

use super::core::CoreMessage;
use super::mailbox::Sender;

/// Says that the agent is ready, and then, if a watchdog waits, that the core thread lives.
pub(crate) fn ready(core: &Sender<CoreMessage>) {
    if !say("READY=1") {
        return;
    }
    let Some(patience) = watchdog() else { return };
    let core = core.clone();
    tokio::spawn(async move {
        loop {
            let (reply, answer) = oneshot::channel();
            core.send(CoreMessage::View(reply));
            if answer.await.is_err() {
                return;
            }
            say("WATCHDOG=1");
            tokio::time::sleep(patience / 3).await;
        }
    });
}

/// How long systemd waits for a sign of life.
fn watchdog() -> Option<Duration> {
    let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros))
}

fn say(what: &str) -> bool {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return false };
    let Ok(socket) = UnixDatagram::unbound() else { return false };
    let sent = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)
            .and_then(|address| socket.send_to_addr(what.as_bytes(), &address)),
        _ => socket.send_to(what.as_bytes(), &name),
    };
    sent.is_ok()
}
