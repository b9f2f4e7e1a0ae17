//! A TCP proxy that can stop passing anything on without closing anything: a cut cable.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    cut: watch::Sender<bool>,
    _passing: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("bound");
        let (cut, is_cut) = watch::channel(false);
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            let mut ways = JoinSet::new();
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                ways.spawn(pass(near_in, far_out, is_cut.clone()));
                ways.spawn(pass(far_in, near_out, is_cut.clone()));
            }
        });
        Proxy { address, cut, _passing: passing }
    }

    pub(super) fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub(super) fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if is_cut.wait_for(|is_cut| !is_cut).await.is_err() || count == 0 {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
