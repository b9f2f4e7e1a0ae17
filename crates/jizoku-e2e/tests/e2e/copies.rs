//! Who holds: too few of them, one whose disk is full, and others elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jizoku_e2e::clients;
use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::resp::{Connection, Load};
use jizoku_e2e::{turn, wait_for};
use serde_json::Value;

const PORT: u16 = 7000;
const WITHIN: Duration = Duration::from_secs(30);
/// Longer than it takes to do without a holder.
const LONG: Duration = Duration::from_secs(3);

#[test]
fn with_too_few_copies_held_output_waits() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    let before = cluster.apply_kv(PORT, "output = \"held\"\ncopies = 2\nmin_copies = 2");
    let active = cluster.node(&before["active"]).expect("somebody is active");
    let (through, victim) = ((active + 1) % 3, (active + 2) % 3);
    let address = cluster.address(through, PORT);
    let mut patient = Connection::open(address).expect("a server");
    assert_eq!(patient.call(&["INCR", "n"]).expect("an answer"), "1");

    cluster.kill(victim);
    wait_for("a smaller set", WITHIN, || {
        let status = cluster.service(active, "kv");
        (status["holders"].as_array()?.len() == 1).then_some(())
    });
    // Nobody is told anything: time is the subject.
    let mut hasty = Connection::open_for(address, LONG).expect("a server");
    let told = hasty.call(&["INCR", "n"]);
    assert!(told.is_err(), "one copy is fewer than two: {told:?}");

    cluster.up(victim);
    cluster.wait_until_held("kv", 2);
    // What was asked in vain was done, and what waits is answered.
    assert_eq!(patient.call(&["INCR", "n"]).expect("an answer"), "3");
    assert_eq!(cluster::epoch(&cluster.service(active, "kv")), cluster::epoch(&before));
}

/// A small file system of its own; gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> SmallDisk {
        fs::create_dir_all(at).expect("a folder can be made");
        let place = at.to_str().expect("paths of tests are text");
        let words = ["-t", "tmpfs", "-o", "size=96m,mode=700", "jizoku-e2e", place];
        let output = clients::run("mount", &words);
        assert!(output.status.success(), "{output:?}");
        SmallDisk(at.into())
    }

    /// Leaves so few bytes free that no agent takes them for room.
    fn fill(&self) {
        fs::write(self.0.join("filler"), vec![1; 64 << 20]).expect("there is room");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its agent may still have files open there.
        let place = self.0.to_str().expect("paths of tests are text");
        clients::run("umount", &["--lazy", place]);
    }
}

#[test]
fn a_holder_whose_disk_is_full_is_replaced() {
    let _turn = turn();
    if !clients::root() || !clients::installed(&["mount", "umount"]) {
        return;
    }
    let mut cluster = Cluster::start(2);
    let full = cluster.folder_for_one();
    let disk = SmallDisk::mount(&cluster.data(full));
    fs::write(cluster.data(full).join("config.toml"), "[disk]\nreserve = \"48MiB\"\n")
        .expect("a config can be written");
    let ticket = cluster.must(0, &["ticket"]).trim().to_owned();
    let said = cluster.enter(full, &["join", &ticket], &[]);
    assert!(said.ok, "{said:?}");
    cluster.up(full);
    cluster.apply_kv(PORT, "output = \"held\"\ndurable = \"disk\"");
    cluster.move_to("kv", 0);
    let before = cluster.wait_until_held("kv", 2);
    cluster.add(&[]);
    let load = Load::start(&[cluster.address(0, PORT), cluster.address(1, PORT)]);
    load.wait_for_more(50);

    cluster.note("fill the disk");
    disk.fill();
    wait_for("another holder", WITHIN, || {
        let status = cluster.service(0, "kv");
        let holders = status["holders"].as_array()?;
        let nodes: Vec<_> = holders.iter().map(|one| cluster.node(&one["node"])).collect();
        (nodes.len() == 2 && !nodes.contains(&Some(full))).then_some(())
    });
    let after = cluster.wait_until_held("kv", 2);
    load.wait_for_more(50);
    assert_eq!(cluster::epoch(&after), cluster::epoch(&before), "nobody had to take over");
    assert!(cluster.runs(full), "a node without room goes on");
    load.settle(cluster.address(full, PORT));
}

/// The nodes that hold a service's state.
fn holders(cluster: &Cluster, status: &Value) -> BTreeSet<usize> {
    let list = status["holders"].as_array().expect("a list");
    list.iter().filter_map(|one| cluster.node(&one["node"])).collect()
}

#[test]
fn copies_go_to_other_zones_and_never_to_a_witness() {
    const ZONES: [&str; 4] = ["a", "a", "b", "c"];
    let _turn = turn();
    let mut cluster = Cluster::empty();
    for zone in ZONES {
        cluster.add(&["--label", &format!("zone={zone}")]);
    }
    let witness = cluster.add(&["--witness", "--label", "zone=d"]);
    let before = cluster.apply_kv(PORT, "output = \"held\"");
    let active = cluster.node(&before["active"]).expect("somebody is active");
    let mut places = holders(&cluster, &before);
    places.insert(active);
    let zones: BTreeSet<&str> = places.iter().map(|node| ZONES[*node]).collect();
    assert_eq!((places.len(), zones.len()), (3, 3), "{places:?} {before}");
    let said = cluster.run(0, &["move", "kv", "--to", &cluster::name(witness)]);
    assert!(!said.ok && said.err.contains("witness"), "{said:?}");
    let mut connection = Connection::open(cluster.address(witness, PORT)).expect("a server");
    assert_eq!(connection.call(&["INCR", "n"]).expect("an answer"), "1");

    // The only node of a zone dies: a copy more in a zone that has one is better than none.
    cluster.kill(2);
    wait_for("holders without it", WITHIN, || {
        let status = cluster.service(witness, "kv");
        (status["phase"] == "running" && !holders(&cluster, &status).contains(&2)).then_some(())
    });
    let after = cluster.wait_until_held("kv", 2);
    let mut places = holders(&cluster, &after);
    places.extend(cluster.node(&after["active"]));
    assert_eq!(places, BTreeSet::from([0, 1, 3]), "{after}");
    assert_eq!(connection.call(&["INCR", "n"]).expect("an answer"), "2");
}
