//! Measures the mesh between two processes on loopback: round trips of small frames, throughput
//! of large ones, and the CPU time that a GiB costs on each side.
//!
//! `cargo run --release -p jizoku-mesh --example mesh_bench [SIZE_IN_MIB]`

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jizoku_mesh::{Identity, Inbox, Mailbox, Mesh, MeshConfig, MeshEvent, MeshHandle};
use jizoku_types::frame::Channel;
use jizoku_types::{ClusterId, Generation, Incarnation, NodeId};

const LARGE: usize = 256 << 10;
const ROUNDS: usize = 20_000;
const SMALL: usize = 64;
/// A frame of this length asks for an answer that tells how many bytes came before it.
const MARK: usize = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    match &arguments[1..] {
        [role, key, peer, address] if role == "--peer" => {
            let peer = peer.parse().expect("a node id");
            runtime.block_on(answer(Path::new(key), peer, address.parse().expect("an address")));
        }
        [] => runtime.block_on(measure(1024)),
        [size] => runtime.block_on(measure(size.parse().expect("a size in MiB"))),
        _ => panic!("usage: mesh_bench [SIZE_IN_MIB]"),
    }
}

fn start(identity: &Identity, peer: NodeId) -> (Mesh, Mailbox) {
    let mut config =
        MeshConfig::new(identity.clone(), ClusterId([7; 16]), Generation(1), Incarnation(1));
    config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    config.members = BTreeSet::from([identity.node(), peer]);
    Mesh::start(config).expect("starts")
}

/// The other process: echoes small frames, and swallows and counts large ones.
async fn answer(key: &Path, peer: NodeId, address: SocketAddr) {
    let identity = Identity::load(key).expect("a key");
    let (mesh, mail) = start(&identity, peer);
    mesh.handle().set_peers(BTreeMap::from([(peer, vec![address])]));
    let Mailbox { mut events, control, streams, bulk, state, .. } = mail;
    for inbox in [control, streams, state, bulk] {
        tokio::spawn(echo(mesh.handle(), inbox));
    }
    while let Some(event) = events.recv().await {
        if let MeshEvent::LinkDown { .. } = event {
            return;
        }
    }
}

async fn echo(handle: MeshHandle, mut inbox: Inbox) {
    let mut swallowed: u64 = 0;
    while let Some(frame) = inbox.recv().await {
        let answer = match frame.body.len() {
            SMALL => frame.body,
            MARK => Bytes::from(swallowed.to_le_bytes().to_vec()),
            length => {
                swallowed += length as u64;
                continue;
            }
        };
        handle.send(frame.from, frame.channel, answer).expect("the link is up");
    }
}

/// The other process, which ends with this one.
struct Peer {
    child: Child,
    folder: std::path::PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(address: SocketAddr, here: NodeId, identity: &Identity) -> Peer {
    let folder = std::env::temp_dir().join(format!("mesh-bench-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let key = folder.join("key");
    identity.save(&key).expect("saved");
    let program = std::env::current_exe().expect("a path");
    let child = Command::new(program)
        .arg("--peer")
        .arg(&key)
        .args([here.to_string(), address.to_string()])
        .spawn()
        .expect("a process");
    Peer { child, folder }
}

async fn measure(mib: usize) {
    let here = Identity::generate().expect("a key");
    let there = Identity::generate().expect("a key");
    let (mesh, mut mail) = start(&here, there.node());
    let peer = spawn(mesh.addresses()[0], here.node(), &there);
    while !matches!(mail.events.recv().await, Some(MeshEvent::LinkUp { .. })) {}
    let (handle, to) = (mesh.handle(), there.node());

    for (name, channel) in [("control", Channel::Control), ("streams", Channel::Streams)] {
        let inbox = match channel {
            Channel::Control => &mut mail.control,
            _ => &mut mail.streams,
        };
        round_trips(name, &handle, to, channel, inbox).await;
    }
    let large = [
        ("bulk", Channel::Bulk, LARGE),
        ("streams", Channel::Streams, LARGE),
        ("streams", Channel::Streams, 16 << 10),
        ("state", Channel::State, 1 << 10),
    ];
    for (name, channel, size) in large {
        let inbox = match channel {
            Channel::Bulk => &mut mail.bulk,
            Channel::State => &mut mail.state,
            _ => &mut mail.streams,
        };
        throughput(name, &handle, to, channel, inbox, size, mib, peer.child.id()).await;
    }
    let stats = handle.stats();
    println!("links down: {}", stats.links_down);
    for link in handle.links() {
        println!("round trip by heartbeats: {}", link.rtt);
    }
}

async fn round_trips(
    name: &str,
    handle: &MeshHandle,
    to: NodeId,
    channel: Channel,
    inbox: &mut Inbox,
) {
    let body = Bytes::from(vec![7; SMALL]);
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS + ROUNDS / 10 {
        let start = Instant::now();
        handle.send(to, channel, body.clone()).expect("the link is up");
        inbox.recv().await.expect("an answer");
        if round >= ROUNDS / 10 {
            times.push(start.elapsed());
        }
    }
    times.sort();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
    println!(
        "{name}: round trip of {SMALL} B: p50 {:?}, p99 {:?}, p99.9 {:?}",
        at(500),
        at(990),
        at(999)
    );
}

/// CPU time that a process has used so far.
fn cpu(process: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let after_name = text.rsplit(')').next().expect("a name");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[expect(clippy::too_many_arguments, reason = "one measurement, all of it named")]
async fn throughput(
    name: &str,
    handle: &MeshHandle,
    to: NodeId,
    channel: Channel,
    inbox: &mut Inbox,
    size: usize,
    mib: usize,
    peer: u32,
) {
    let total = mib << 20;
    let body = Bytes::from(vec![7; size]);
    let before = count(handle, to, channel, inbox).await;
    let (cpu_here, cpu_there) = (cpu("self"), cpu(&peer.to_string()));
    let start = Instant::now();
    for _ in 0..total / size {
        handle.send_paced(to, channel, body.clone()).await.expect("the link is up");
    }
    let arrived = count(handle, to, channel, inbox).await - before;
    let took = start.elapsed().as_secs_f64();
    assert_eq!(arrived, (total / size * size) as u64);
    let gib = arrived as f64 / f64::from(1 << 30);
    println!(
        "{name}: {} KiB frames: {:.0} MiB/s, CPU per GiB: sender {:.2} s, receiver {:.2} s",
        size >> 10,
        gib * 1024.0 / took,
        (cpu("self") - cpu_here).as_secs_f64() / gib,
        (cpu(&peer.to_string()) - cpu_there).as_secs_f64() / gib,
    );
}

/// How many bytes of large frames have arrived at the other end.
async fn count(handle: &MeshHandle, to: NodeId, channel: Channel, inbox: &mut Inbox) -> u64 {
    handle.send_paced(to, channel, Bytes::from(vec![0; MARK])).await.expect("the link is up");
    let answer = inbox.recv().await.expect("an answer");
    u64::from_le_bytes(answer.body[..].try_into().expect("eight bytes"))
}
