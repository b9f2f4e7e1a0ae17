//! Metrics in Prometheus' text form: docs/operating/metrics.md lists and explains them.
//!
//! What it does not know: who scrapes them.
//!
//! Invariants
//! - Base units: seconds and bytes. What only grows ends in `_total` and is a counter.
//! - A family is there with its help even if it has no samples.
//! - A service's numbers come from its active node, so they may be a second old elsewhere.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jizoku_gateway::{Gateway, ServiceCounts};
use jizoku_node::node::{ServiceFacts, ServiceView, View};
use jizoku_types::{ServiceId, Span};
use tokio::net::TcpListener;

use super::server::{Agent, Shared};
use super::{gauge, status};

/// What the page is.
pub(crate) const KIND: &str = "text/plain; version=0.0.4";
/// The channels of the mesh, in the order of their indices.
const CHANNELS: [&str; 5] = ["consensus", "control", "streams", "state", "bulk"];

/// What can be read off the Runners here.
type Readings = BTreeMap<ServiceId, gauge::Reading>;

/// A page that grows family by family.
#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge<V: Display>(&mut self, name: &str, help: &str, rows: Vec<(String, V)>) {
        self.family(name, help, "gauge", rows);
    }

    fn counter<V: Display>(&mut self, name: &str, help: &str, rows: Vec<(String, V)>) {
        self.family(name, help, "counter", rows);
    }

    fn family<V: Display>(&mut self, name: &str, help: &str, kind: &str, rows: Vec<(String, V)>) {
        let page = &mut self.0;
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(page, "{name}{labels} {value}");
        }
    }
}

fn one<V>(value: V) -> Vec<(String, V)> {
    vec![(String::new(), value)]
}

fn label(name: &str, value: impl Display) -> String {
    let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

fn seconds(span: Span) -> f64 {
    span.as_nanos() as f64 / 1e9
}

/// All metrics of this node.
pub(crate) async fn page(view: &View, agent: &Agent) -> String {
    let readings = agent.wiring.readings().await;
    let mut page = Page::default();
    of_agent(&mut page, agent);
    of_cluster(&mut page, view);
    of_services(&mut page, view);
    of_checkpoints(&mut page, view, &readings);
    of_instances(&mut page, view, &readings);
    of_gateway(&mut page, view, agent);
    of_mesh(&mut page, view, agent);
    of_log(&mut page, agent);
    page.0
}

fn of_log(page: &mut Page, agent: &Agent) {
    let stats = agent.wiring.log.stats();
    page.gauge("jizoku_log_records", "Records in this node's log pool.", one(stats.records));
    page.gauge("jizoku_log_bytes", "Memory that they take.", one(stats.bytes));
    page.counter("jizoku_log_taken_total", "Records that were taken.", one(stats.taken));
    let help = "Records that were dropped because their source used up its quota.";
    page.counter("jizoku_log_dropped_total", help, one(stats.dropped));
    let help = "Records that were forgotten at the limit of bytes or age.";
    page.counter("jizoku_log_forgotten_total", help, one(stats.forgotten));
}

fn of_agent(page: &mut Page, agent: &Agent) {
    let version = label("version", env!("CARGO_PKG_VERSION"));
    page.gauge("jizoku_build_info", "The agent's version.", vec![(version, 1)]);
    let (cpu_ms, memory) = gauge::of_process(std::process::id());
    let cpu = cpu_ms.unwrap_or_default() as f64 / 1000.0;
    page.counter("process_cpu_seconds_total", "Processor time of the agent.", one(cpu));
    let memory = memory.unwrap_or_default();
    page.gauge("process_resident_memory_bytes", "Memory of the agent.", one(memory));
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    page.gauge("process_open_fds", "Open descriptors of the agent.", one(files));
    let events = agent.wiring.events.counts();
    let rows = events.into_iter().map(|(name, count)| (label("type", name), count)).collect();
    page.counter("jizoku_events_total", "Events by type.", rows);
    let dropped = vec![
        (label("queue", "core"), agent.wiring.core.dropped()),
        (label("queue", "holder"), agent.wiring.holder.dropped()),
        (label("queue", "outgoing"), agent.wiring.frames_dropped()),
    ];
    let help = "Frames dropped because too many waited; their protocols repeat them.";
    page.counter("jizoku_frames_dropped_total", help, dropped);
}

fn of_cluster(page: &mut Page, view: &View) {
    let reachable = view.nodes.iter().filter(|node| node.reachable).count();
    page.gauge("jizoku_nodes", "Members of the cluster.", one(view.nodes.len()));
    page.gauge("jizoku_nodes_reachable", "Members that can be reached.", one(reachable));
    page.gauge("jizoku_voters", "Members that vote.", one(view.voters.len()));
    let known = u8::from(view.leader.is_some());
    page.gauge("jizoku_leader_known", "Whether the catalog has a leader.", one(known));
    let leader = u8::from(view.leader == Some(view.me.node));
    page.gauge("jizoku_is_leader", "Whether this node leads the catalog.", one(leader));
    let generation = view.generation.0;
    page.gauge(
        "jizoku_generation",
        "How often the cluster was recovered, plus 1.",
        one(generation),
    );
}

fn of_services(page: &mut Page, view: &View) {
    let rows = |value: &dyn Fn(&ServiceView) -> u64| {
        let row = |one: &ServiceView| (label("service", &one.record.spec.name), value(one));
        view.services.values().map(row).collect::<Vec<_>>()
    };
    page.gauge("jizoku_service_epoch", "Its epoch.", rows(&|one| one.record.epoch.counter));
    let running = |one: &ServiceView| u64::from(status::is_running(view, one));
    page.gauge("jizoku_service_running", "Whether its instance runs.", rows(&running));
    let serving = |one: &ServiceView| u64::from(status::is_serving(view, one));
    page.gauge("jizoku_service_serving", "Whether the watch says that it serves.", rows(&serving));
    let holders = |one: &ServiceView| one.record.holders.len() as u64;
    page.gauge("jizoku_service_holders", "Holders of its state.", rows(&holders));
    let wanted = |one: &ServiceView| {
        if one.record.spec.has_state() { u64::from(one.record.spec.copies) } else { 0 }
    };
    page.gauge("jizoku_service_holders_wanted", "Holders that it shall have.", rows(&wanted));
    let crashes = |one: &ServiceView| one.facts.as_ref().map_or(0, |f| u64::from(f.crashes));
    page.gauge("jizoku_service_crashes", "Crashes in a row.", rows(&crashes));
    let branches = |one: &ServiceView| one.record.branches.len() as u64;
    page.gauge("jizoku_service_branches", "Kept states of branches.", rows(&branches));
}

fn of_checkpoints(page: &mut Page, view: &View, readings: &Readings) {
    let rows = |value: &dyn Fn(&ServiceFacts) -> f64| {
        let facts = |one: &ServiceView| {
            let facts = one.facts.as_ref().filter(|facts| facts.checkpoint.seq > 0)?;
            Some((label("service", &one.record.spec.name), value(facts)))
        };
        view.services.values().filter_map(facts).collect::<Vec<_>>()
    };
    let number = |facts: &ServiceFacts| facts.checkpoint.seq as f64;
    page.counter("jizoku_checkpoints_total", "Number of the last checkpoint.", rows(&number));
    let age = |facts: &ServiceFacts| seconds(facts.age);
    page.gauge("jizoku_checkpoint_age_seconds", "Since it was committed.", rows(&age));
    let pause = |facts: &ServiceFacts| seconds(facts.pause);
    let help = "How long the program stood still for it.";
    page.gauge("jizoku_checkpoint_pause_seconds", help, rows(&pause));
    let shipped = |facts: &ServiceFacts| facts.shipped.0 as f64;
    page.gauge("jizoku_checkpoint_shipped_bytes", "What each holder got.", rows(&shipped));
    let size = |facts: &ServiceFacts| facts.size.0 as f64;
    page.gauge("jizoku_state_bytes", "Size of the whole state.", rows(&size));
    let commit = |(id, reading): (_, &gauge::Reading)| {
        let one = view.services.get(id)?;
        Some((label("service", &one.record.spec.name), seconds(reading.commit?)))
    };
    let rows = readings.iter().filter_map(commit).collect();
    let help = "From the last capture to its last acknowledgement, at the active node.";
    page.gauge("jizoku_checkpoint_commit_seconds", help, rows);
    let bytes = |of: fn(&gauge::Reading) -> u64| {
        let row = |(id, reading): (_, &gauge::Reading)| {
            let one = view.services.get(id)?;
            Some((label("service", &one.record.spec.name), of(reading)))
        };
        readings.iter().filter_map(row).collect::<Vec<_>>()
    };
    let help = "Content of all blocks that changed in this epoch.";
    page.counter("jizoku_checkpoint_changed_bytes_total", help, bytes(|r| r.changed.0));
    let help = "Sent of that to all holders, compressed, repetitions included.";
    page.counter("jizoku_checkpoint_sent_bytes_total", help, bytes(|r| r.sent.0));
}

fn of_instances(page: &mut Page, view: &View, readings: &Readings) {
    let rows = |value: &dyn Fn(&gauge::Reading) -> Option<f64>| {
        let row = |(id, reading): (_, &gauge::Reading)| {
            let one = view.services.get(id)?;
            Some((label("service", &one.record.spec.name), value(reading)?))
        };
        readings.iter().filter_map(row).collect::<Vec<_>>()
    };
    let running = |reading: &gauge::Reading| Some(f64::from(u8::from(reading.running)));
    page.gauge("jizoku_instance_running", "Instances on this node.", rows(&running));
    let cpu = |reading: &gauge::Reading| reading.used.map(|used| used.cpu_ms as f64 / 1000.0);
    let help = "Processor time of instances on this node, where it is known.";
    page.counter("jizoku_instance_cpu_seconds_total", help, rows(&cpu));
    let memory = |reading: &gauge::Reading| reading.used.map(|used| used.memory_bytes as f64);
    let help = "Memory of instances on this node, where it is known.";
    page.gauge("jizoku_instance_memory_bytes", help, rows(&memory));
}

fn of_gateway(page: &mut Page, view: &View, agent: &Agent) {
    let stats = agent.wiring.gateway().map(Gateway::stats).unwrap_or_default();
    let counts = |value: fn(&ServiceCounts) -> u64| {
        let row = |(id, stats): (_, &Arc<jizoku_gateway::ServiceStats>)| {
            let one = view.services.get(id)?;
            Some((label("service", &one.record.spec.name), value(&stats.read())))
        };
        stats.iter().filter_map(row).collect::<Vec<_>>()
    };
    let attached = |c: &ServiceCounts| u64::from(c.attached.is_some());
    page.gauge("jizoku_gateway_connections", "Open connections here.", counts(|c| c.conns));
    page.gauge("jizoku_gateway_attached", "Whether an instance is followed.", counts(attached));
    let mut total = |name: &str, help: &str, value: fn(&ServiceCounts) -> u64| {
        page.counter(&format!("jizoku_gateway_{name}_total"), help, counts(value));
    };
    total("opened", "Connections taken.", |c| c.opened);
    total("refused", "Connections refused: stopped, or too many.", |c| c.refused);
    total("reset", "Connections reset, for whatever cause.", |c| c.reset);
    total("errors", "Connections that the program broke.", |c| c.errors);
    total("timeouts", "Requests without an answer within 10 s.", |c| c.timeouts);
    total("answers", "Pieces of output given to clients.", |c| c.answers);
    total("received_bytes", "Bytes from clients.", |c| c.bytes_in);
    total("sent_bytes", "Bytes to clients.", |c| c.bytes_out);
    total("overflows", "Messages lost because too many waited.", |c| c.overflows);
}

fn of_mesh(page: &mut Page, view: &View, agent: &Agent) {
    let links = agent.wiring.mesh.links();
    page.gauge("jizoku_mesh_links", "Direct links that are up.", one(links.len()));
    let peer = |link: &jizoku_mesh::LinkState| {
        (label("peer", status::name_of(view, link.peer)), seconds(link.rtt))
    };
    let help = "Round trip of each direct link, smoothed.";
    page.gauge("jizoku_mesh_round_trip_seconds", help, links.iter().map(peer).collect());
    let mesh = agent.wiring.mesh.stats();
    let by_channel = |all: &[jizoku_mesh::ChannelStats; 5]| {
        let row = |(name, stats): (&&str, &jizoku_mesh::ChannelStats)| {
            (label("channel", name), stats.bytes)
        };
        CHANNELS.iter().zip(all).map(row).collect::<Vec<_>>()
    };
    let help = "Bytes of frames, by channel.";
    page.counter("jizoku_mesh_sent_bytes_total", help, by_channel(&mesh.sent));
    page.counter("jizoku_mesh_received_bytes_total", help, by_channel(&mesh.received));
    page.counter("jizoku_mesh_relayed_total", "Frames passed on for others.", one(mesh.relayed));
    let why = |why: &str, count: u64| (label("why", why), count);
    let refused = vec![
        why("stranger", mesh.refused_strangers),
        why("cluster", mesh.refused_cluster),
        why("generation", mesh.refused_generation),
        why("version", mesh.refused_version),
        why("incarnation", mesh.refused_incarnation),
        why("greeting", mesh.refused_greeting),
        why("busy", mesh.refused_busy),
        why("join", mesh.joins_refused),
    ];
    let help = "Connections to the mesh's port that were refused.";
    page.counter("jizoku_mesh_refused_total", help, refused);
    let broken = vec![
        why("too_long", mesh.broken_too_long),
        why("malformed", mesh.broken_malformed),
        why("tls", mesh.broken_tls),
        why("too_slow", mesh.broken_too_slow),
    ];
    page.counter("jizoku_mesh_broken_total", "Connections of members that were dropped.", broken);
    let dropped = vec![
        why("no_route", mesh.dropped_no_route),
        why("link_down", mesh.dropped_link_down),
        why("hops", mesh.dropped_hops),
        why("relay_full", mesh.dropped_relay_full),
        why("not_member", mesh.dropped_not_member),
        why("no_listener", mesh.dropped_no_listener),
        why("self_full", mesh.dropped_self_full),
    ];
    page.counter("jizoku_mesh_dropped_total", "Frames that were dropped.", dropped);
    let help = "How often this node was late and judged nobody for a while.";
    page.counter("jizoku_mesh_late_total", help, one(mesh.late));
}

/// Serves the page over TCP: to anybody who can connect, so the config names the address.
pub(crate) async fn serve(address: SocketAddr, shared: Arc<Shared>) -> Result<(), String> {
    let failed = |error| format!("metrics on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(answer(&request, &shared).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.keep_alive(false);
                // A scraper that goes away in the middle is its own business.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}

async fn answer(
    request: &Request<hyper::body::Incoming>,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let wanted = request.method() == Method::GET && request.uri().path() == "/metrics";
    let view = if wanted { shared.view().await.ok() } else { None };
    let Some(view) = view else {
        let mut response = Response::new(Full::new(Bytes::from_static(b"GET /metrics\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Full::new(Bytes::from(page(&view, &shared.agent).await)));
    let kind = hyper::header::HeaderValue::from_static(KIND);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_help_type_and_escaped_labels() {
        let mut page = Page::default();
        page.counter("a_total", "What.", vec![(label("x", "q\"\\\n"), 3)]);
        page.gauge("b", "Nothing.", Vec::<(String, u64)>::new());
        let expected = "# HELP a_total What.\n# TYPE a_total counter\n\
                        a_total{x=\"q\\\"\\\\\\n\"} 3\n\
                        # HELP b Nothing.\n# TYPE b gauge\n";
        assert_eq!(page.0, expected);
    }
}
