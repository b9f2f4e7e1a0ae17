//! Network namespaces: a machine for each node as far as its network goes, all on one bridge.
//!
//! Node `i` (from 0) has 10.77.0.(i+1), the clients have 10.77.0.254. Nothing leaves the
//! namespaces, so any number of such networks may be there at a time.
//!
//! Each namespace lives as long as a process that waits for the end of its input: it ends with
//! the test, however that ends.
//!
//! What it needs: root (CAP_SYS_ADMIN and CAP_NET_ADMIN), Debian's iproute2 and util-linux.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::clients;

/// Where the clients are.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// See the module's header.
#[derive(Debug)]
pub struct Spaces {
    hub: Space,
    nodes: Vec<Space>,
}

#[derive(Debug)]
struct Space {
    holder: Child,
}

/// Whether namespaces can be made here; says so if not.
///
/// # Panics
/// If they can't and `CI` is set: there nothing may be skipped.
pub fn available() -> bool {
    clients::root() && clients::installed(&["ip", "unshare", "nsenter"])
}

/// Runs `test` on a thread among the clients of new namespaces.
///
/// # Panics
/// If they can't be made; if `test` does.
pub fn within(test: impl FnOnce(Spaces) + Send) {
    let spaces = Spaces::new();
    let ended = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = format!("/proc/{}/ns/net", spaces.hub.pid());
            let link = File::open(path).expect("the namespace is there");
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter it");
            test(spaces);
        });
        thread.join()
    });
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

impl Spaces {
    fn new() -> Spaces {
        let hub = Space::new();
        hub.ip("link add name hub type bridge");
        hub.ip("link set hub up");
        hub.ip(&format!("addr add {CLIENTS}/24 dev hub"));
        Spaces { hub, nodes: Vec::new() }
    }

    /// One machine more.
    pub(crate) fn add(&mut self) {
        let (node, space) = (self.nodes.len(), Space::new());
        let (port, pid) = (format!("node{node}"), space.pid());
        self.hub.ip(&format!("link add {port} type veth peer name net netns {pid}"));
        self.hub.ip(&format!("link set {port} master hub up"));
        space.ip(&format!("addr add {}/24 dev net", Spaces::address(node)));
        space.ip("link set net up");
        self.nodes.push(space);
    }

    /// The address of a node.
    pub(crate) fn address(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1).expect("few nodes"))
    }

    /// A command that runs on a node's machine.
    pub(crate) fn command(&self, node: usize, program: &std::path::Path) -> Command {
        self.nodes[node].command(program.as_os_str())
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.nodes[from].ip(&format!("route add blackhole {}/32", Spaces::address(to)));
    }

    /// What `from` sends reaches `to` again.
    pub fn mend(&self, from: usize, to: usize) {
        self.nodes[from].ip(&format!("route del blackhole {}/32", Spaces::address(to)));
    }

    /// Pulls a node's cable out of the switch.
    pub fn unplug(&self, node: usize) {
        self.hub.ip(&format!("link set node{node} down"));
    }

    /// Puts a node's cable back.
    pub fn plug(&self, node: usize) {
        self.hub.ip(&format!("link set node{node} up"));
    }

    /// Nothing goes between these two any more, in either direction.
    pub fn part(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Everything goes between these two again.
    pub fn join(&self, one: usize, other: usize) {
        self.mend(one, other);
        self.mend(other, one);
    }
}

impl Space {
    fn new() -> Space {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo here && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare can be started");
        let output = holder.stdout.take().expect("it is a pipe");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("its output can be read");
        assert_eq!(line, "here\n", "a network namespace can't be made");
        Space { holder }
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn command(&self, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg(program);
        command
    }

    fn ip(&self, words: &str) {
        let output = self.command("ip".as_ref()).args(words.split(' ')).output();
        let output = output.expect("nsenter can be started");
        assert!(output.status.success(), "ip {words}: {output:?}");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
