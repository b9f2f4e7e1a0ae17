//! The agent: brings the values and the adapters of one node together, and runs them.
//!
//! - [`core`]: thread of the Node and consensus
//! - [`holding`]: thread of the Holder and its store
//! - [`running`]: a thread for each service that is active here
//! - [`engines`], [`modules`], [`output`]: what runs instances
//! - [`gate`], [`probe`], [`traffic`]: what the gateway and the checks need
//! - [`peers`]: who the other members are, also before the catalog says so
//! - [`wiring`], [`mailbox`], [`pump`]: how they reach each other
//! - [`membership`]: how a folder comes to belong to a cluster; [`ask`]: what the catalog is asked
//! - [`server`], [`status`], [`metrics`], [`events`], [`journal`], [`load`], [`gauge`], [`look`]:
//!   what people see
//! - [`address`]: where to listen; [`user`]: as whom commands run
//! - [`log`]: this node's log pool; [`script`]: scripts that run here, and flows
//! - [`notify`]: what systemd is told
//!
//! Invariant: the agent ends as a whole. If the core thread ends, everything does.

pub(crate) mod address;
mod ask;
mod core;
mod engines;
mod events;
mod gate;
mod gauge;
mod holding;
mod journal;
mod load;
pub(crate) mod log;
mod look;
mod mailbox;
pub(crate) mod membership;
mod metrics;
mod modules;
mod notify;
mod orders;
mod output;
mod peers;
mod probe;
mod pump;
mod running;
mod script;
mod server;
mod standby;
mod status;
mod traffic;
pub(crate) mod user;
mod wiring;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jizoku_consensus::{self as consensus, Consensus};
use jizoku_core::catalog::Command;
use jizoku_core::liveness::Timing;
use jizoku_gateway::Gateway;
use jizoku_manifest::NodeConfig;
use jizoku_mesh::{Identity, Mailbox as MeshMailbox, Mesh, MeshConfig, MeshEvent, boottime_now};
use jizoku_node::Node;
use jizoku_node::node::{self, Request};
use jizoku_node::wire::{JoinAnswer, JoinAsk, StateMessage, StreamMessage};
use jizoku_store::state::StateOptions;
use jizoku_store::{Blobs, ConsensusLog, DataFolder, StateStore};
use jizoku_types::limits::LEASE_MAX;
use jizoku_types::{Incarnation, Member, Span, decode};
use tokio::sync::{oneshot, watch};

use self::core::{Core, CoreMessage};
use self::engines::Engines;
use self::gate::GatewayOwner;
use self::holding::{HolderMessage, Holding, ReadBack};
use self::log::LogPool;
use self::look::Look;
use self::mailbox::{Mailbox, Sender, mailbox};
use self::membership::{ClusterFile, Pending};
use self::modules::Modules;
use self::output::OutputRing;
use self::peers::{Addresses, Peers};
use self::probe::{Eyes, Probe};
use self::running::Starter;
use self::script::Scripts;
use self::standby::Standby;
use self::wiring::Wiring;

/// How often the machine's load is looked at.
const LOAD_EVERY: Duration = Duration::from_secs(2);
/// How long the end of the agent waits for its last lines to be written.
const WRITTEN_WITHIN: Duration = Duration::from_millis(200);
/// How long the catalog may take for what nodes ask; who joins waits for three times that.
const DECIDED_WITHIN: Duration = Duration::from_secs(3);
/// After which a ticket that was refused is looked at once more.
const TICKET_AGAIN: Duration = Duration::from_millis(300);
/// Time between two tries to tell the catalog what is pending.
const PENDING_EVERY: Duration = Duration::from_millis(100);

/// Runs the agent of a data folder until it is told to stop.
pub(crate) fn run(data: &Path) -> Result<(), String> {
    let folder = DataFolder::open(data).map_err(|error| error.to_string())?;
    let config = address::possible(membership::config_of(data)?)?;
    let file = membership::cluster_of(&folder)?.ok_or_else(|| {
        format!(
            "{} belongs to no cluster: run `jizoku init` or `jizoku join TICKET` first",
            data.display()
        )
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("io")
        .build()
        .map_err(|error| format!("can't start: {error}"))?;
    let result = runtime.block_on(start_and_wait(folder, config, file));
    runtime.shutdown_timeout(Duration::from_millis(300));
    result
}

async fn start_and_wait(
    folder: DataFolder,
    config: NodeConfig,
    file: ClusterFile,
) -> Result<(), String> {
    let identity = membership::identity(&folder)?;
    let incarnation = folder.next_incarnation().map_err(|error| error.to_string())?;
    let me = Member { node: identity.node(), incarnation };
    let mut early = peers::last(&folder, file.cluster);
    for (node, addresses) in &file.seeds {
        early.entry(*node).or_insert_with(|| addresses.clone());
    }
    let (mesh, mail) = start_mesh(&identity, &config, &file, &early, incarnation)?;
    let (core_in, core_box) = mailbox();
    let (holder_in, holder_box) = mailbox();
    let ends = (core_in.clone(), holder_in.clone());
    let wiring = Wiring::new(me, mesh.handle(), ends, config.log, make_log(me, &config));
    wiring.event(jizoku_types::Event::AgentStarted { incarnation });

    let (modules, engines) = make_engines(&folder, &mesh, &wiring);
    let output = Arc::new(OutputRing::default());

    let standby = Standby::start(Arc::clone(&engines))?;
    start_holder(&folder, &config, &wiring, &holder_in, holder_box, standby)?;
    let owner = Arc::new(GatewayOwner { wiring: Arc::clone(&wiring) });
    wiring.set_gateway(Gateway::start(me, config.gateway.clone(), owner));

    let starter = Starter::new(Arc::clone(&wiring), Arc::clone(&engines), Arc::clone(&output));
    let first = config.gateway.first().copied().unwrap_or([127, 0, 0, 1].into());
    let look = Arc::new(Look::default());
    let eyes =
        Eyes { look: Arc::clone(&look), wiring: Arc::clone(&wiring), output: Arc::clone(&output) };
    let probes = Probe::new(tokio::runtime::Handle::current(), core_in.clone(), eyes, first);
    let made = make_core(&folder, &config, &file, &identity, &mesh, &wiring, incarnation)?;
    let (node, consensus, log) = made;
    let (keep, kept) = watch::channel(Addresses::new());
    let known = Peers::new(me, early, keep);
    let core = Core::new(node, consensus, log, Arc::clone(&wiring), starter, probes, known);
    let ended = run_core(core, core_box)?;
    let scripts = Scripts::new(me, config.scripts);
    dispatch(mail, &wiring, &modules, (&look, &output, &scripts));
    let folder = Arc::new(folder);
    tokio::spawn(tell_load(Arc::clone(&folder), config.clone(), core_in.clone()));
    tokio::spawn(keep_members(Arc::clone(&folder), file.cluster, kept));
    tokio::spawn(traffic::watch(Arc::clone(&wiring)));
    let myself = membership::member_spec(&identity, incarnation, &config, mesh.addresses());
    tokio::spawn(tell_pending(Arc::clone(&folder), file, myself, core_in.clone()));
    let listening = mesh.addresses().to_vec();
    let wires = Arc::clone(&wiring);
    let agent = server::Agent {
        wiring,
        scripts,
        modules,
        engines,
        output,
        look,
        folder,
        config,
        listening,
    };
    let stop = server::start(agent).await?;
    notify::ready(&core_in);
    let result = wait(ended, stop).await;
    core_in.send(CoreMessage::Stop);
    holder_in.send(HolderMessage::Stop);
    wind_down(mesh, &wires).await;
    result
}

/// Ends what serves and is written to.
async fn wind_down(mesh: Mesh, wiring: &Wiring) {
    for runner in wiring.runners() {
        let stop = jizoku_node::runner::Input::Stop;
        runner.send(running::RunnerMessage::Runner(stop));
    }
    mesh.close().await;
    wiring.journal.finish(WRITTEN_WITHIN);
}

fn make_engines(folder: &DataFolder, mesh: &Mesh, wiring: &Wiring) -> (Arc<Modules>, Arc<Engines>) {
    let modules = Modules::new(Blobs::of(folder));
    modules.set_mesh(mesh.handle());
    let (engines, kept) = Engines::new(Arc::clone(&modules), folder.path());
    if let Err(why) = kept {
        let what = format!("compiled code can't be kept: {why}");
        wiring.event(jizoku_types::Event::Trouble { what });
    }
    (modules, Arc::new(engines))
}

fn make_log(me: Member, config: &NodeConfig) -> LogPool {
    let name = config.name.clone().unwrap_or_else(membership::host_name);
    LogPool::new(me, name, u64::from_le_bytes(membership::random()))
}

/// Runs the core on its thread. The receiver hears how it ended.
fn run_core(
    core: Core,
    inbox: Mailbox<CoreMessage>,
) -> Result<oneshot::Receiver<Result<(), String>>, String> {
    let (ended_in, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("core".into())
        .spawn(move || {
            // If nobody waits any more, the agent is ending already.
            let _ = ended_in.send(core.run(&inbox));
        })
        .map_err(|error| format!("no thread for the core: {error}"))?;
    Ok(ended)
}

async fn wait(
    ended: oneshot::Receiver<Result<(), String>>,
    stop: oneshot::Receiver<()>,
) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| format!("can't wait for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        result = ended => result.unwrap_or_else(|_| Err("the core thread panicked".into())),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = stop => Ok(()),
    }
}

fn start_mesh(
    identity: &Identity,
    config: &NodeConfig,
    file: &ClusterFile,
    early: &Addresses,
    incarnation: Incarnation,
) -> Result<(Mesh, MeshMailbox), String> {
    let mut mesh = MeshConfig::new(identity.clone(), file.cluster, file.generation, incarnation);
    mesh.listen = config.listen.clone();
    mesh.timing = timing(config)?;
    mesh.members = early.keys().copied().collect();
    let (mesh, mail) = Mesh::start(mesh).map_err(|error| error.to_string())?;
    let addresses = |texts: &Vec<String>| texts.iter().filter_map(|t| t.parse().ok()).collect();
    let peers = early.iter().map(|(node, texts)| (*node, addresses(texts))).collect();
    mesh.handle().set_peers(peers);
    Ok((mesh, mail))
}

/// How fast links beat, so that a silence of the configured length means something.
fn timing(config: &NodeConfig) -> Result<Timing, String> {
    let (min, max) = (config.silence_min, config.silence_max);
    let beat = Timing::default().beat().min(Span::nanos(min.as_nanos() / 4));
    Timing::new(beat, min, max).map_err(|error| format!("[links] in config.toml: {error}"))
}

fn start_holder(
    folder: &DataFolder,
    config: &NodeConfig,
    wiring: &Arc<Wiring>,
    sender: &Sender<HolderMessage>,
    inbox: Mailbox<HolderMessage>,
    standby: Arc<Standby>,
) -> Result<(), String> {
    let mut read = ReadBack::default();
    let done = {
        let sender = sender.clone();
        move |done| sender.send(HolderMessage::Stored(done))
    };
    let options = StateOptions::new(folder, config.disk_reserve);
    let store = StateStore::open(folder, options, &mut |line, found| read.found(line, found), done)
        .map_err(|error| format!("the held states can't be read: {error}"))?;
    let holding = Holding::new(store, read, Arc::clone(wiring), standby);
    std::thread::Builder::new()
        .name("holder".into())
        .spawn(move || holding.run(&inbox))
        .map_err(|error| format!("no thread for the holder: {error}"))?;
    Ok(())
}

#[allow(clippy::type_complexity, reason = "three things that the core is made of")]
fn make_core(
    folder: &DataFolder,
    config: &NodeConfig,
    file: &ClusterFile,
    identity: &Identity,
    mesh: &Mesh,
    wiring: &Arc<Wiring>,
    incarnation: Incarnation,
) -> Result<(Node, Consensus, (ConsensusLog, consensus::Recovered)), String> {
    let done = {
        let core = wiring.core.clone();
        move |done| core.send(CoreMessage::Logged(done))
    };
    let (log, records, _) = ConsensusLog::open(folder, done).map_err(|error| error.to_string())?;
    let recovered = membership::replay(&records)?;
    let fresh = recovered.is_empty();
    let now = boottime_now();
    let seed = u64::from_le_bytes(membership::random());
    let settings = consensus::Config::new(identity.node(), file.cluster, file.generation, seed);
    let written = membership::replay(&records)?;
    let mut value = Consensus::new(now, settings, recovered).map_err(|error| error.to_string())?;
    if fresh && matches!(file.pending, Some(Pending::Init { .. })) {
        value.handle(now, consensus::Input::Bootstrap);
    }
    let myself = membership::member_spec(identity, incarnation, config, mesh.addresses());
    let settings = node::Config { myself, restarted: file.ran, lease: LEASE_MAX, seed };
    Ok((Node::new(now, settings), value, (log, written)))
}

/// Passes on what the mesh brings.
fn dispatch(
    mail: MeshMailbox,
    wiring: &Arc<Wiring>,
    modules: &Arc<Modules>,
    (look, output, scripts): (&Arc<Look>, &Arc<OutputRing>, &Arc<Scripts>),
) {
    let MeshMailbox { events, mut consensus, mut control, mut streams, mut state, mut bulk } = mail;
    tokio::spawn(mesh_events(events, Arc::clone(wiring)));
    tokio::spawn(Arc::clone(&wiring.log).run(Arc::clone(wiring)));
    tokio::spawn(Arc::clone(scripts).sweep(Arc::clone(wiring)));
    let core = wiring.core.clone();
    tokio::spawn(async move {
        while let Some(frame) = consensus.recv().await {
            let (from, bytes) = (frame.from, frame.body.to_vec());
            core.offer(CoreMessage::Consensus { from, bytes });
        }
    });
    let core = wiring.core.clone();
    tokio::spawn(async move {
        while let Some(frame) = control.recv().await {
            // What can't be read is of another version, or damage that TLS let through.
            if let Some(message) = core::control(frame.from, &frame.body) {
                core.offer(message);
            }
        }
    });
    let wires = Arc::clone(wiring);
    tokio::spawn(async move {
        while let Some(frame) = streams.recv().await {
            if let Ok(message) = decode::<StreamMessage>(&frame.body) {
                wires.take_stream(frame.from, message);
            }
        }
    });
    let (wires, keeper) = (Arc::clone(wiring), modules::keeping(modules));
    let (look, output) = (Arc::clone(look), Arc::clone(output));
    let scripts = Arc::clone(scripts);
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                biased;
                frame = state.recv() => frame,
                frame = bulk.recv() => frame,
            };
            let Some(frame) = frame else { return };
            match decode::<StateMessage>(&frame.body) {
                Ok(StateMessage::Module(message)) => keeper.offer((frame.from, message)),
                Ok(StateMessage::Look(message)) => {
                    look.take(frame.from, message, &wires, &output);
                }
                Ok(StateMessage::Log(bytes)) => wires.log.take(frame.from, &bytes, &wires),
                Ok(StateMessage::Script(bytes)) => scripts.take(frame.from, &bytes, &wires),
                Ok(message) => wires.take_state(frame.from, message),
                Err(_) => {}
            }
        }
    });
}

async fn mesh_events(mut events: tokio::sync::mpsc::Receiver<MeshEvent>, wiring: Arc<Wiring>) {
    while let Some(event) = events.recv().await {
        let input = match event {
            MeshEvent::LinkUp { peer, incarnation, version: _, rtt } => {
                wiring.is_let_in(peer);
                node::Input::LinkUp { peer, incarnation, rtt }
            }
            MeshEvent::LinkDown { peer, incarnation: _, cause } => {
                node::Input::LinkDown { peer, cause }
            }
            MeshEvent::Refused { peer, address, by_peer, refusal } => {
                if by_peer && refusal == jizoku_mesh::Refusal::NotMember {
                    wiring.is_shut_out(peer);
                }
                let who = if by_peer { "refused by" } else { "refused" };
                let place = address.map(|at| format!(" at {at}")).unwrap_or_default();
                let what = format!("a link was {who} {peer:?}{place}: {refusal}");
                wiring.event(jizoku_types::Event::Trouble { what });
                continue;
            }
            MeshEvent::Join(request) => {
                tokio::spawn(admit(request, Arc::clone(&wiring)));
                continue;
            }
            MeshEvent::Late { by } => {
                let what = format!("this node's timers ran {by} late: is it overloaded?");
                wiring.event(jizoku_types::Event::Trouble { what });
                tokio::spawn(until_on_time(Arc::clone(&wiring)));
                node::Input::Late(true)
            }
        };
        wiring.core.send(CoreMessage::Node(input));
    }
}

async fn until_on_time(wiring: Arc<Wiring>) {
    while !wiring.mesh.may_judge() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wiring.core.send(CoreMessage::Node(node::Input::Late(false)));
}

/// Lets a node in that has a ticket.
async fn admit(request: jizoku_mesh::JoinRequest, wiring: Arc<Wiring>) {
    let answer = match decode::<JoinAsk>(&request.request) {
        Ok(ask) if ask.member.node == request.node => welcome(ask, &wiring).await,
        _ => JoinAnswer::Refused("the request to join can't be understood".into()),
    };
    // If the joiner has gone away, it may repeat its request: a ticket works again for the
    // same node.
    let _ = request.reply.send(jizoku_types::encode(&answer));
}

async fn welcome(ask: JoinAsk, wiring: &Wiring) -> JoinAnswer {
    let node = ask.member.node;
    let ticket = membership::hash_of(&ask.secret);
    // The founder's own ticket is issued a moment after its cluster has begun.
    let view = ask::settled_view(&wiring.core, DECIDED_WITHIN).await;
    let known = view.is_some_and(|view| ask::is_settled(&view));
    let command = Command::UseTicket { ticket, member: ask.member };
    let mut used = command_done(&wiring.core, command.clone()).await;
    if used.is_err() && known {
        tokio::time::sleep(TICKET_AGAIN).await;
        used = command_done(&wiring.core, command).await;
    }
    if let Err(why) = used {
        return JoinAnswer::Refused(why);
    }
    let Some(view) = ask::view(&wiring.core).await else {
        return JoinAnswer::Refused("the issuer's agent is ending".into());
    };
    let members: Vec<_> =
        view.nodes.iter().map(|one| (one.node, one.record.addresses.clone())).collect();
    let name = view.nodes.iter().find(|one| one.node == node).map(|one| one.record.name.clone());
    match (view.cluster, name) {
        (Some(cluster), Some(name)) => {
            JoinAnswer::Welcome { cluster, generation: view.generation, members, name }
        }
        _ => JoinAnswer::Refused("the issuer belongs to no cluster yet".into()),
    }
}

/// Asks the catalog for something, and says what came of it as text if it wasn't done.
async fn command_done(
    core: &Sender<CoreMessage>,
    command: Command,
) -> Result<jizoku_core::catalog::Outcome, String> {
    ask::done(core, Request::Command(Box::new(command)), DECIDED_WITHIN).await
}

async fn tell_load(folder: Arc<DataFolder>, config: NodeConfig, core: Sender<CoreMessage>) {
    let mut before = load::CpuTime::default();
    loop {
        // The file system may be slow to answer.
        let load = tokio::task::block_in_place(|| {
            load::read(folder.path(), config.disk_reserve, &mut before)
        });
        core.send(CoreMessage::Node(node::Input::Load(load)));
        tokio::time::sleep(LOAD_EVERY).await;
    }
}

/// Writes down who the members are, whenever that changes, for the next start.
async fn keep_members(
    folder: Arc<DataFolder>,
    cluster: jizoku_types::ClusterId,
    mut members: watch::Receiver<Addresses>,
) {
    while members.changed().await.is_ok() {
        let newest = members.borrow_and_update().clone();
        tokio::task::block_in_place(|| peers::write(&folder, cluster, &newest));
    }
}

/// Tells the catalog what is pending, until it has it; then notes in the folder that it has run.
async fn tell_pending(
    folder: Arc<DataFolder>,
    mut file: ClusterFile,
    myself: jizoku_core::catalog::MemberSpec,
    core: Sender<CoreMessage>,
) {
    while let Some(pending) = &file.pending {
        let commands = match pending {
            Pending::Init { ticket } => {
                let (cluster, generation) = (file.cluster, file.generation);
                let first = myself.clone();
                vec![
                    Command::Init { cluster, generation, first },
                    Command::IssueTicket { ticket: *ticket, ttl: membership::TICKET_TTL },
                ]
            }
            Pending::Recover => vec![Command::Recover {
                cluster: file.cluster,
                generation: file.generation,
                survivor: myself.node,
            }],
        };
        let mut told = true;
        for command in commands {
            // A conflict means that an earlier try did it.
            told &= match command_done(&core, command).await {
                Ok(_) => true,
                Err(why) => why.contains("already"),
            };
        }
        if told {
            file.pending = None;
        } else {
            tokio::time::sleep(PENDING_EVERY).await;
        }
    }
    file.ran = true;
    let written = tokio::task::block_in_place(|| membership::write_cluster(&folder, &file));
    if let Err(why) = written {
        eprintln!("<4>the cluster file can't be written: {why}");
    }
}
