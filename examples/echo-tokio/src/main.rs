//! An echo server on tokio, with an inherited listener: a task for each connection, on one thread.
//!
//! It says goodbye to clients that are silent for [`PATIENCE`], so that it has timers under way
//! wherever it is captured.

use std::net::TcpListener as StdListener;
use std::os::fd::FromRawFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The first inherited descriptor, by the convention of `LISTEN_FDS`.
const LISTENER: i32 = 3;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> std::io::Result<()> {
    // SAFETY: the descriptor was opened by whoever started this program, for it alone.
    let listener = unsafe { StdListener::from_raw_fd(LISTENER) };
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listener))
}

async fn serve(listener: StdListener) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A connection that breaks is over; the others are not concerned.
            let _ = echo(stream).await;
        });
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read) = timeout(PATIENCE, stream.read(&mut buffer)).await else {
            return stream.write_all(b"goodbye\n").await;
        };
        match read? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
