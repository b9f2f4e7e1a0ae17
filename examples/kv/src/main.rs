//! A key-value server that speaks RESP2, the protocol of Redis, on an inherited listener.
//!
//! It keeps everything in memory and knows nothing of checkpoints: run by jizoku it survives the
//! loss of its machine all the same. One thread serves all connections; `poll` tells which.
//!
//! - [`resp`]: requests out of bytes, replies into bytes
//! - [`store`]: the keys and their values
//! - [`commands`]: what each command does with them
//! - [`server`]: connections and the loop
//!
//! Natively, for comparison, something else must pass the listener as descriptor 3, as systemd's
//! socket activation does: `systemd-socket-activate -l 6379 target/release/kv`.

mod commands;
mod resp;
mod server;
mod store;

use std::net::TcpListener;
use std::os::fd::FromRawFd;

/// The first inherited descriptor, by the convention of `LISTEN_FDS`.
const LISTENER: i32 = 3;

fn main() -> std::io::Result<()> {
    // SAFETY: the descriptor was opened by whoever started this program, for it alone.
    let listener = unsafe { TcpListener::from_raw_fd(LISTENER) };
    server::Server::new(listener)?.run()
}
