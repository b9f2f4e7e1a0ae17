//! The gateway as a proxy: processor time for each request, against HAProxy in TCP mode.
//!
//! nginx runs under `exec`, and once more by itself behind HAProxy, with the same configuration.
//! wrk asks in turn through HAProxy, through the node that runs nginx, and through another node,
//! where bytes pass the encrypted mesh. Time is that of the proxy alone: of HAProxy's processes, or
//! of all agents with their keepers, so idle work is in it; never of nginx.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::{clients, wait_for};
use serde_json::json;

use crate::Bench;
use crate::figure::{Figure, Limit, median, round};
use crate::usage;

pub(crate) const BENCH: Bench = Bench {
    name: "gateway",
    what: "gateway's processor time a request against HAProxy (needs nginx, haproxy, wrk)",
    seconds: 90,
    run,
};
const ROUNDS: usize = 5;
const NODES: usize = 3;
const PORT: u16 = 8000;
/// What wrk is told.
const CONNECTIONS: &str = "64";
const LASTS: &str = "4s";
const WITHIN: Duration = Duration::from_secs(30);
const PAGE: &str = "nineteen bytes long";

fn run() -> Vec<Figure> {
    let needed = ["nginx", "haproxy", "wrk"];
    let path = std::env::var("PATH").unwrap_or_default();
    let installed = |name: &&str| {
        path.split(':').chain(["/usr/sbin"]).any(|folder| Path::new(folder).join(name).is_file())
    };
    assert!(needed.iter().all(installed), "this bench needs {needed:?}");
    let cluster = Cluster::start(NODES);
    cluster.must_apply(&manifest(cluster.folder()));
    for node in 0..NODES {
        answers(cluster.address(node, PORT));
    }
    let rival = Rival::start(cluster.folder());
    answers(rival.address);
    measure(&cluster, &rival)
}

/// Processor time of one request in microseconds, and requests in a second.
#[derive(Clone, Copy)]
struct Cost {
    micros: f64,
    rate: f64,
}

fn measure(cluster: &Cluster, rival: &Rival) -> Vec<Figure> {
    let active = cluster.active("web").expect("somebody is active");
    let through = [
        (rival.address, rival.pids()),
        (cluster.address(active, PORT), agents(cluster)),
        (cluster.address((active + 1) % NODES, PORT), agents(cluster)),
    ];
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for round in 0..=ROUNDS {
        for (costs, (address, pids)) in costs.iter_mut().zip(&through) {
            let cost = ask(*address, pids);
            // The first ones warm up.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let [haproxy, here, elsewhere] = costs;
    let ratios = |ours: &[Cost]| -> Vec<f64> {
        ours.iter().zip(&haproxy).map(|(ours, theirs)| ours.micros / theirs.micros).collect()
    };
    let conditions = format!(
        "wrk, one thread, {CONNECTIONS} connections, {LASTS} each, {ROUNDS} interleaved rounds; nginx \
         (one worker, {} bytes) under exec, three agents on one machine; HAProxy in TCP mode, one \
         thread, before another nginx; processor time of a request, as part of HAProxy's",
        PAGE.len()
    );
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| {
        round(median(&costs.iter().map(of).collect::<Vec<_>>()))
    };
    let more = |ours: &[Cost]| {
        json!({
            "us_a_request": middle(ours, |cost| cost.micros),
            "requests_per_s": middle(ours, |cost| cost.rate),
            "haproxy_us_a_request": middle(&haproxy, |cost| cost.micros),
            "haproxy_requests_per_s": middle(&haproxy, |cost| cost.rate),
        })
    };
    vec![
        Figure::new("through the active node", "x", ratios(&here), Limit::MedianMost(1.2, 0.9))
            .under(&conditions)
            .with(more(&here)),
        Figure::new("through another node", "x", ratios(&elsewhere), Limit::MedianMost(2.5, 1.8))
            .under(&conditions)
            .with(more(&elsewhere)),
    ]
}

/// Agents and their keepers, without the programs that they run.
fn agents(cluster: &Cluster) -> Vec<u32> {
    let agents = (0..NODES).map(|node| cluster.pid(node));
    let all = agents.flat_map(|agent| {
        let below = usage::descendants(agent);
        std::iter::once(agent).chain(below.into_iter().filter(|pid| usage::name(*pid) != "nginx"))
    });
    all.collect()
}

fn ask(address: SocketAddr, pids: &[u32]) -> Cost {
    let before = usage::cpu_of_all(pids);
    let url = format!("http://{address}/");
    let output = clients::run("wrk", &["-t1", "-c", CONNECTIONS, "-d", LASTS, &url]);
    let spent = usage::cpu_of_all(pids) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let wrong = text.contains("Socket errors") || text.contains("Non-2xx");
    assert!(!wrong, "not all requests were answered well: {text}");
    let number = |line: &str, word: usize| line.split_whitespace().nth(word)?.parse::<f64>().ok();
    let count = text.lines().find(|line| line.contains("requests in"));
    let count = count.and_then(|line| number(line, 0)).unwrap_or_else(|| panic!("wrk: {text}"));
    let rate = text.lines().find(|line| line.starts_with("Requests/sec"));
    let rate = rate.and_then(|line| number(line, 1)).unwrap_or_default();
    let cost = Cost { micros: spent * 1e6 / count, rate };
    eprintln!("bench: through {address}: {:.1} us a request, {rate:.0} a second", cost.micros);
    cost
}

fn answers(address: SocketAddr) {
    wait_for(&format!("a page from {address}"), WITHIN, || {
        clients::curl(&format!("http://{address}/")).filter(|page| page == PAGE)
    });
}

/// nginx under `exec`, on the port that the agent chooses.
fn manifest(folder: &Path) -> String {
    let own = folder.join("nginx-ours");
    let template = nginx(&own, "PORT");
    let script = format!(
        "sed s/PORT/$1/ {0}/nginx.conf > {0}/own.conf && exec nginx -p {0} -c {0}/own.conf \
         -g 'daemon off;'",
        own.display()
    );
    fs::write(own.join("nginx.conf"), template).expect("a configuration can be written");
    format!(
        "name = \"web\"\n[engine]\nkind = \"exec\"\n\
         command = [\"/bin/sh\", \"-c\", {script:?}, \"sh\", \"{{port}}\"]\n{}\n\
         [engine.env]\nPATH = \"/usr/sbin:/usr/bin:/bin\"\n\
         [[port]]\nname = \"http\"\nlisten = {PORT}\n[state]\noutput = \"free\"\n",
        clients::user()
    )
}

/// A configuration of nginx, and the folder that it needs.
fn nginx(folder: &Path, port: &str) -> String {
    fs::create_dir_all(folder.join("pages")).expect("a folder can be made");
    fs::write(folder.join("pages/index.html"), PAGE).expect("a page can be written");
    let folder = folder.display();
    // Root's nginx gives its worker to somebody who may not read our folder.
    let user = if clients::user().is_empty() { "" } else { "user root;" };
    format!(
        "{user}\nworker_processes 1;\nerror_log {folder}/error.log;\npid {folder}/pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b;\n\
         proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;\n\
         scgi_temp_path {folder}/s;\n\
         server {{ listen 127.0.0.1:{port}; root {folder}/pages; }} }}\n"
    )
}

/// HAProxy before an nginx of its own.
struct Rival {
    address: SocketAddr,
    haproxy: Child,
    nginx: Child,
}

impl Rival {
    fn start(folder: &Path) -> Rival {
        let (page, front) = (free(), free());
        let own = folder.join("nginx-theirs");
        let configuration = nginx(&own, &page.port().to_string());
        fs::write(own.join("nginx.conf"), configuration).expect("it can be written");
        let start = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(found(program));
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null());
            command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
        };
        let (prefix, file) = (own.display().to_string(), own.join("nginx.conf"));
        let file = file.display().to_string();
        let nginx = start("nginx", &["-p", &prefix, "-c", &file, "-g", "daemon off;"]);
        let file = folder.join("haproxy.cfg");
        let configuration = format!(
            "global\n  maxconn 4096\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 50s\n  timeout server 50s\nlisten front\n  bind {front}\n  server one \
             {page}\n"
        );
        fs::write(&file, configuration).expect("it can be written");
        let haproxy = start("haproxy", &["-db", "-f", &file.display().to_string()]);
        wait_for("HAProxy", WITHIN, || TcpStream::connect(front).ok());
        Rival { address: front, haproxy, nginx }
    }

    fn pids(&self) -> Vec<u32> {
        let own = self.haproxy.id();
        [vec![own], usage::descendants(own)].concat()
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // A killed nginx would leave its worker behind. They may have ended by themselves.
        let _ = Command::new("kill").arg(self.nginx.id().to_string()).status();
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
        let _ = self.nginx.wait();
    }
}

fn found(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin"]).map(Path::new);
    folders.find(|folder| folder.join(program).is_file()).expect("it is installed").join(program)
}

/// An address that nobody listens at.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound")
}
