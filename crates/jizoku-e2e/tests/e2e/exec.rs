//! Plain processes: one answers through every node, is started again, and one that can't run
//! disturbs nobody.

use std::fs;
use std::time::{Duration, Instant};

use jizoku_e2e::clients::{self, curl};
use jizoku_e2e::cluster::{self, Cluster};
use jizoku_e2e::{turn, wait_for};

pub(crate) const PORT: u16 = 8000;
const NODES: usize = 3;
/// A lease has to run out first, and an interpreter to start, on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// How long the first new try waits, and the latest ones.
const FIRST_WAIT_MS: u64 = 100;
const LONGEST_WAIT_MS: u64 = 30_000;
const PAGE: &str = "still here\n";

/// A web server for a folder, on [`PORT`].
pub(crate) fn manifest(folder: &str) -> String {
    format!(
        "name = \"web\"\n[engine]\nkind = \"exec\"\n\
         command = [\"python3\", \"-m\", \"http.server\", \"--bind\", \"127.0.0.1\", \
         \"--directory\", {folder:?}, \"{{port}}\"]\n{}\n\
         [[port]]\nname = \"http\"\nlisten = {PORT}\n[state]\noutput = \"free\"\n",
        clients::user()
    )
}

/// The numbers of the processes that serve this folder.
pub(crate) fn processes(folder: &str) -> Vec<u64> {
    let all = fs::read_dir("/proc").expect("/proc is there").flatten();
    let numbers = all.filter_map(|one| one.file_name().to_str()?.parse::<u64>().ok());
    let serves = |pid: &u64| {
        // It may have ended meanwhile.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('\0');
        let python = words.next().is_some_and(|program| program.contains("python"));
        python && words.any(|word| word == folder)
    };
    numbers.filter(serves).collect()
}

#[test]
fn a_plain_process_is_started_again_and_a_failing_one_disturbs_nobody() {
    let _turn = turn();
    if !clients::installed(&["curl", "python3"]) {
        return;
    }
    let mut cluster = Cluster::start(NODES);
    let pages = cluster.folder().join("pages");
    fs::create_dir(&pages).expect("a folder can be made");
    fs::write(pages.join("page.txt"), PAGE).expect("a page can be written");
    let folder = pages.to_str().expect("paths of tests are text");
    let said = cluster.apply(0, &manifest(folder));
    assert!(said.ok, "{said:?}");
    let answers = |cluster: &Cluster, node: usize| {
        let url = format!("http://{}/page.txt", cluster.address(node, PORT));
        wait_for(&format!("{url} answers"), WITHIN, || {
            curl(&url).filter(|page| page == PAGE).map(|_| ())
        });
    };
    for node in 0..NODES {
        answers(&cluster, node);
    }

    // A service that can't run, beside it.
    let broken = format!(
        "name = \"broken\"\n[engine]\nkind = \"exec\"\ncommand = [\"false\"]\n{}\n\
         [[port]]\nname = \"none\"\nlisten = 8001\n[state]\noutput = \"free\"\n",
        clients::user()
    );
    let said = cluster.apply(0, &broken);
    assert!(said.ok, "{said:?}");
    let failing = wait_for("a service that is shown as failing", WITHIN, || {
        let failing = cluster.service(1, "broken")["failing"].clone();
        (failing["times"].as_u64()? >= 2).then_some(failing)
    });
    assert!(failing["reason"].as_str().is_some_and(|why| !why.is_empty()), "{failing}");
    // It is tried again ever later, and says when.
    wait_for("a wait that has doubled", WITHIN, || {
        let status = cluster.service(1, "broken");
        let next = status["failing"]["next_try_ms"].as_u64()?;
        assert!(next <= LONGEST_WAIT_MS, "{status}");
        (status["phase"] == "failing" && next > FIRST_WAIT_MS).then_some(())
    });
    wait_for("words for people", WITHIN, || {
        let page = cluster.must(1, &["status"]);
        (page.contains("failing, ended") && page.contains("tried again in")).then_some(())
    });
    let pid = *processes(folder).first().expect("a process of the service");
    let epoch = cluster::epoch(&cluster.service(0, "web"));
    answers(&cluster, 0);

    // The process itself dies.
    clients::signal("KILL", &pid.to_string());
    let again = wait_for("another process", WITHIN, || {
        processes(folder).into_iter().find(|other| *other != pid)
    });
    answers(&cluster, 1);
    println!("process {pid} was followed by {again}");

    // Its node dies.
    let active = cluster.active("web").expect("somebody is active");
    let killed = Instant::now();
    cluster.kill(active);
    for node in (0..NODES).filter(|node| *node != active) {
        answers(&cluster, node);
    }
    println!("the page was there again {:?} after its node died", killed.elapsed());
    let now = cluster.service(cluster.living(), "web");
    assert!(cluster::epoch(&now) > epoch, "{now}");
    assert_ne!(cluster.node(&now["active"]), Some(active));
}
