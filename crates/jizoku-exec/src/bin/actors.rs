//! What the tests of this crate run: a keeper, an agent that can be killed, and small programs.
//!
//! The first argument says which. Each program does one thing and says on its output what a test
//! needs to know.

#![forbid(unsafe_code)]

#[path = "../../../../examples/actor/src/actor.rs"]
mod actor;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use jizoku_engine::{Identity, Instance, Output};
use jizoku_exec::{ExecEngine, KeeperCommand, Program, keeper};
use jizoku_types::{Epoch, ServiceId, Span};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

/// Receive buffer of the actor's connections: what a program that doesn't read still takes.
const RECEIVE_BUFFER: usize = 64 << 10;

fn main() {
    if keeper::is_asked_for() {
        keeper::main();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["agent", lease_ms, renew] => agent(lease_ms.parse().unwrap(), *renew == "renew"),
        ["actor", port] => {
            let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER).unwrap();
            actor::serve(&listener, wait).unwrap();
        }
        ["echo", port] => serve(port, echo),
        ["deaf", port] => serve(port, |_| park()),
        ["source", port] => serve(port, |mut client| while client.write_all(&[7; 4096]).is_ok() {}),
        ["reset", port] => serve(port, |mut client| {
            // Closing with unread input sends a reset.
            let _ = client.read(&mut [0; 1]);
        }),
        ["half", port] => serve(port, half),
        ["tree"] => tree(),
        ["print"] => print(),
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["status", status] => std::process::exit(status.parse().unwrap()),
        ["stubborn"] => stubborn(),
        ["silent"] => park(),
        other => panic!("no such actor: {other:?}"),
    }
}

/// Waits until one of them is ready, or for so long.
fn wait(polled: &mut [actor::Polled<'_>], patience: Option<Duration>) -> std::io::Result<()> {
    let mut entries = Vec::new();
    for one in polled.iter() {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, one.read);
        flags.set(PollFlags::OUT, one.write);
        entries.push(PollFd::from_borrowed_fd(one.fd, flags));
    }
    let patience = patience.map(|patience| Timespec {
        tv_sec: patience.as_secs().try_into().unwrap(),
        tv_nsec: patience.subsec_nanos().into(),
    });
    poll(&mut entries, patience.as_ref())?;
    let found: Vec<PollFlags> = entries.iter().map(PollFd::revents).collect();
    for (one, found) in polled.iter_mut().zip(found) {
        one.ready = !found.is_empty();
        one.broken = found.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
    }
    Ok(())
}

/// Waits until somebody kills it.
fn park() {
    loop {
        std::thread::park();
    }
}

fn serve(port: &str, client: fn(TcpStream)) {
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        std::thread::spawn(move || client(stream));
    }
}

fn echo(mut client: TcpStream) {
    let mut room = [0; 16 << 10];
    while let Ok(count @ 1..) = client.read(&mut room) {
        if client.write_all(&room[..count]).is_err() {
            return;
        }
    }
}

/// Reads to the end, and only then answers with the count.
fn half(mut client: TcpStream) {
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    client.write_all(all.len().to_string().as_bytes()).unwrap();
}

/// Starts a process in a session of its own, whose parent then ends: only an adopter finds it.
fn tree() {
    let script = "setsid sh -c 'sleep 1000 & echo grandchild $!; wait' & exit 0";
    Command::new("sh").args(["-c", script]).status().unwrap();
    println!("main {}", std::process::id());
    park();
}

fn print() {
    println!("to the output");
    eprintln!("to the errors");
    print!("without an end");
    std::io::stdout().flush().unwrap();
}

/// Does not end when it is asked to.
fn stubborn() {
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let status = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).status();
    std::process::exit(status.unwrap().code().unwrap_or(99));
}

/// Runs `tree` with a lease of so many milliseconds, passes on what it prints, and lives until it
/// is killed.
fn agent(lease_ms: u64, renew: bool) {
    let own = std::env::current_exe().unwrap();
    let engine = ExecEngine::new(KeeperCommand {
        program: own.clone(),
        args: vec![keeper::ARGUMENT.into()],
    });
    let program = Program {
        command: vec![own.to_str().unwrap().to_owned(), "tree".to_owned()],
        env: BTreeMap::new(),
        user: rustix::process::geteuid().is_root().then(|| "root".to_owned()),
        ports: Vec::new(),
        folder: PathBuf::from("/"),
    };
    let identity = Identity { service: ServiceId(1), epoch: Epoch::main(1), held: false };
    let lease = || jizoku_exec::ExecInstance::now() + Span::millis(lease_ms);
    let mut instance = engine.start(program, identity, Some(lease()));
    let (sender, wakes) = std::sync::mpsc::channel();
    instance.set_waker(move || {
        let _ = sender.send(());
    });
    let patience = std::time::Duration::from_millis(lease_ms / 4);
    loop {
        while let Some(output) = instance.poll() {
            match output {
                Output::Printed { line } => println!("{line}"),
                Output::Exited { exit } => println!("exited {exit}"),
                _ => {}
            }
        }
        let _ = wakes.recv_timeout(patience);
        if renew {
            instance.renew(lease());
        }
    }
}
