//! How each kind of fault is made, and how it is healed.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jizoku_e2e::clients::signal;
use jizoku_e2e::cluster::name;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::disk::Disk;
use crate::machines::{Look, Machines};
use crate::plan::{Fault, Kind};

/// A slow disk is frozen for one of these times, and free for [`THAWED`] in between.
const FROZEN_MS: [u64; 5] = [20, 50, 100, 250, 500];
/// How long a slow disk takes writes in between.
const THAWED: Duration = Duration::from_millis(20);
/// Descriptors that are left to an agent beyond those it has.
const DESCRIPTORS_LEFT: u64 = 3;
/// Connections that clients open at an agent that has no descriptor left for them.
const CONNECTIONS: usize = 16;
/// How long each may take: they wait in the kernel until they are accepted.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Bytes that are left to an agent beyond those that it can't give back.
const MEMORY_LEFT: u64 = 1 << 20;
/// What somebody else takes of them, in MiB.
const MEMORY_TAKEN: &str = "16M";
/// Steps of a wall clock, in seconds: a leap, a wrong zone, a battery that was empty, 2038.
const CLOCK_STEPS: [i64; 8] =
    [1, -1, 3_600, -3_600, 86_400 * 30, -86_400 * 365, 400_000_000, -600_000_000];

/// A fault that was made.
#[derive(Debug)]
pub struct Made {
    /// Of which kind.
    pub kind: Kind,
    /// The nodes that are disturbed by it.
    pub nodes: Vec<usize>,
    /// Whether their agents ended.
    pub died: bool,
    /// For people: what was done to whom.
    pub what: String,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    Nothing,
    Start,
    Continue,
    Plug,
    Mend(Vec<(usize, usize)>),
    PowerAgain,
    Empty,
    Thaw(Arc<AtomicBool>, JoinHandle<io::Result<()>>),
    Descriptors(Rlimit, Vec<TcpStream>),
    Memory,
    Undrain,
}

/// Makes a fault. `free` are the nodes that nothing was done to yet. Gives why it can't be made.
pub fn make(
    machines: &mut Machines,
    look: &Look,
    fault: &Fault,
    (service, port): (&str, u16),
    free: &[usize],
) -> Result<Made, String> {
    let node = target(look, fault, service, free).ok_or("there is no such node now")?;
    let mut made = Made {
        kind: fault.kind,
        nodes: vec![node],
        died: false,
        what: format!("{} {}", fault.kind.name(), name(node)),
        undo: Undo::Nothing,
    };
    match fault.kind {
        Kind::KillPair => {
            let holder = look.holders(service).into_iter().find(|holder| free.contains(holder));
            made.nodes.push(holder.filter(|holder| *holder != node).ok_or("nobody holds it now")?);
            made.what += &format!(" {}", name(made.nodes[1]));
            kill(machines, &mut made);
        }
        Kind::OneWay => {
            let others = (0..machines.count).filter(|other| *other != node);
            let deaf = fault.chance.is_multiple_of(3);
            made.what += if deaf { " (hears nobody)" } else { " (heard by nobody)" };
            let ways = others.map(|other| if deaf { (other, node) } else { (node, other) });
            cut(machines, &mut made, ways.collect());
        }
        Kind::RelayOnly => {
            let others = free.iter().copied().filter(|other| *other != node).take(2);
            let ways = others.flat_map(|other| [(node, other), (other, node)]);
            cut(machines, &mut made, ways.collect());
        }
        Kind::Move => order(machines, free, &["move", service, "--to", &name(node)])?,
        Kind::Drain => {
            order(machines, free, &["drain", &name(node)])?;
            made.undo = Undo::Undrain;
        }
        Kind::Clock => {
            let step = CLOCK_STEPS[fault.chance as usize % CLOCK_STEPS.len()];
            made.what += &format!(" by {step} s");
            let stepped = machines.step_clock(node, step);
            stepped.map_err(|error| format!("no clock to step: {error}"))?;
        }
        _ => to_one(machines, &mut made, fault, port)
            .map_err(|error| format!("{}: {error}", fault.kind.name()))?,
    }
    if matches!(fault.kind, Kind::Clock | Kind::Move | Kind::Drain | Kind::RelayOnly) {
        // Nobody is out of anybody's reach.
        made.nodes.clear();
    }
    Ok(made)
}

/// What is done to one machine alone.
fn to_one(machines: &mut Machines, made: &mut Made, fault: &Fault, port: u16) -> io::Result<()> {
    let node = made.nodes[0];
    match fault.kind {
        Kind::Pause | Kind::PauseActive => {
            machines.cluster.note(&format!("stop {}", name(node)));
            signal("STOP", &machines.cluster.pid(node).to_string());
            made.undo = Undo::Continue;
        }
        Kind::LinkDown | Kind::LinkDownActive => {
            machines.cluster.note(&format!("unplug {}", name(node)));
            machines.cluster.spaces().unplug(node);
            made.undo = Undo::Plug;
        }
        Kind::Dark => {
            machines.cluster.spaces().unplug(node);
            kill(machines, made);
            machines.disks[node].lose_power()?;
            made.undo = Undo::PowerAgain;
        }
        Kind::DiskFull => {
            machines.disks[node].fill()?;
            made.undo = Undo::Empty;
        }
        Kind::DiskSlow => made.undo = slow(machines, node, fault),
        Kind::Descriptors => made.undo = descriptors(machines, node, port)?,
        Kind::Memory => {
            made.undo = Undo::Memory;
            // Otherwise it only has to live without a cache of its files.
            if fault.chance % 4 < 2 {
                made.what += " (all of it)";
                machines.take_memory(node, MEMORY_LEFT, MEMORY_TAKEN)?;
            } else {
                machines.limit_memory(node, Some(MEMORY_LEFT))?;
            }
        }
        _ => kill(machines, made),
    }
    Ok(())
}

/// The node that a fault is about.
fn target(look: &Look, fault: &Fault, service: &str, free: &[usize]) -> Option<usize> {
    let active = look.active(service);
    let any = |nodes: &[usize]| nodes.get(fault.node % nodes.len().max(1)).copied();
    match fault.kind {
        Kind::KillActive
        | Kind::KillPair
        | Kind::PauseActive
        | Kind::LinkDownActive
        | Kind::RelayOnly => active.filter(|node| free.contains(node)),
        Kind::KillLeader => look.leader().filter(|node| free.contains(node)),
        Kind::KillGateway => {
            let idle: Vec<usize> = free
                .iter()
                .copied()
                .filter(|node| Some(*node) != active && !look.holders(service).contains(node))
                .collect();
            any(if idle.is_empty() { free } else { &idle })
        }
        Kind::Move => {
            let others: Vec<usize> =
                free.iter().copied().filter(|node| Some(*node) != active).collect();
            any(&others)
        }
        // Half of them at the active node, which is where it hurts.
        _ if fault.chance.is_multiple_of(2) => {
            active.filter(|node| free.contains(node)).or_else(|| any(free))
        }
        _ => any(free),
    }
}

fn kill(machines: &mut Machines, made: &mut Made) {
    machines.cluster.kill_at_once(&made.nodes);
    made.died = true;
    made.undo = Undo::Start;
}

fn cut(machines: &Machines, made: &mut Made, ways: Vec<(usize, usize)>) {
    machines.cluster.note(&format!("cut {ways:?}"));
    ways.iter().for_each(|(from, to)| machines.cluster.spaces().cut(*from, *to));
    made.undo = Undo::Mend(ways);
}

fn slow(machines: &Machines, node: usize, fault: &Fault) -> Undo {
    let folder = machines.disks[node].folder().to_path_buf();
    let frozen = Duration::from_millis(FROZEN_MS[fault.chance as usize % FROZEN_MS.len()]);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            Disk::freeze(&folder)?;
            std::thread::sleep(frozen);
            Disk::thaw(&folder)?;
            std::thread::sleep(THAWED);
        }
        Ok(())
    });
    Undo::Thaw(stop, thread)
}

fn descriptors(machines: &Machines, node: usize, port: u16) -> io::Result<Undo> {
    let number = machines.cluster.pid(node);
    let pid = Pid::from_raw(number.cast_signed());
    // An agent begins with the limit that it had from us.
    let before = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir(format!("/proc/{number}/fd"))?.count() as u64;
    let after = Rlimit { current: Some(open + DESCRIPTORS_LEFT), maximum: before.maximum };
    let before = prlimit(pid, Resource::Nofile, after)?;
    let address = machines.cluster.address(node, port);
    let connect = |_| TcpStream::connect_timeout(&address, CONNECT_WITHIN).ok();
    Ok(Undo::Descriptors(before, (0..CONNECTIONS).filter_map(connect).collect()))
}

fn order(machines: &Machines, free: &[usize], words: &[&str]) -> Result<(), String> {
    let at = *free.first().ok_or("no node is left to be told")?;
    let said = machines.cluster.run(at, words);
    if said.ok { Ok(()) } else { Err(format!("{words:?}: {}{}", said.out, said.err)) }
}

impl Made {
    /// Heals it.
    ///
    /// # Errors
    /// What can't be healed, for people.
    pub fn heal(self, machines: &mut Machines) -> Result<(), String> {
        let node = self.nodes.first().copied().unwrap_or(0);
        let failed = |error: io::Error| format!("{} can't be healed: {error}", self.what);
        machines.cluster.note(&format!("heal {}", self.what));
        match self.undo {
            Undo::Nothing => {}
            Undo::Start => self.nodes.iter().for_each(|node| machines.begin(*node)),
            Undo::Continue => signal("CONT", &machines.cluster.pid(node).to_string()),
            Undo::Plug => machines.cluster.spaces().plug(node),
            Undo::Mend(ways) => {
                ways.iter().for_each(|(from, to)| machines.cluster.spaces().mend(*from, *to));
            }
            Undo::PowerAgain => {
                machines.disks[node].power_again().map_err(failed)?;
                machines.cluster.spaces().plug(node);
                machines.begin(node);
            }
            Undo::Empty => machines.disks[node].empty().map_err(failed)?,
            Undo::Thaw(stop, thread) => {
                stop.store(true, Ordering::Relaxed);
                thread.join().expect("it doesn't panic").map_err(failed)?;
            }
            Undo::Descriptors(before, connections) => {
                if machines.cluster.runs(node) {
                    let pid = Pid::from_raw(machines.cluster.pid(node).cast_signed());
                    let restored = prlimit(pid, Resource::Nofile, before);
                    restored.map_err(|error| failed(error.into()))?;
                }
                drop(connections);
            }
            Undo::Memory => machines.limit_memory(node, None).map_err(failed)?,
            Undo::Undrain => {
                let words = self.what.split(' ').collect::<Vec<&str>>();
                let said = machines
                    .cluster
                    .run((0..machines.count).next().unwrap_or(0), &["drain", words[1], "--undo"]);
                if !said.ok {
                    return Err(format!("{}{}", said.out, said.err));
                }
            }
        }
        Ok(())
    }
}
