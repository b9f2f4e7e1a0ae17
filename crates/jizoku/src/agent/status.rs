//! From the Node's view to what the admin API shows.

use std::collections::BTreeSet;

use jizoku_api::service::{
    BranchStatus, CheckpointStatus, ConnectionStatus, Failing, HolderState, HolderStatus,
    Inspection, InstanceStatus, Phase, PsAnswer, Role, ServiceStatus, Verdict, Wanted,
};
use jizoku_api::status::{ClusterStatus, NodeStatus, Reach, Spare, Warning, WarningCode};
use jizoku_api::{ApiError, ErrorCode};
use jizoku_core::{catalog, watch};
use jizoku_node::node::{NodeView, PhaseFact, ServiceFacts, ServiceView, View};
use jizoku_types::spec::{EngineSpec, OutputMode};
use jizoku_types::{Epoch, Event, Member, NodeId, ServiceId, ServiceName, Span};

use super::gauge::Reading;
use super::look::Sights;
use super::server::Agent;
use super::wiring::Wiring;

/// The cluster at a glance.
pub(crate) fn cluster(view: &View, agent: &Agent, sights: &Sights) -> ClusterStatus {
    let links = agent.wiring.mesh.links();
    let mut nodes: Vec<NodeStatus> = view
        .nodes
        .iter()
        .map(|node| {
            let link = links.iter().find(|link| link.peer == node.node);
            let reach = match (node.node == view.me.node, link, node.next_hop) {
                (true, ..) => Reach::This,
                (_, Some(_), _) => Reach::Direct,
                (_, None, Some(via)) => Reach::Relayed { via },
                (_, None, None) => Reach::Unreachable,
            };
            node_status(view, sights, node, reach, link.map(|link| link.rtt.as_micros()))
        })
        .collect();
    nodes.sort_by(|a, b| {
        let key = |node: &NodeStatus| (node.reach != Reach::This, node.name.clone());
        key(a).cmp(&key(b))
    });
    let services: Vec<ServiceStatus> =
        view.services.iter().map(|(id, one)| service(view, sights, *id, one)).collect();
    ClusterStatus {
        cluster: view.cluster,
        generation: view.generation,
        feature_level: view.feature_level,
        this_node: view.me.node,
        leader: view.leader,
        voters: view.voters.iter().copied().collect(),
        warnings: warnings(view, agent, &nodes, &services, sights),
        nodes,
        services,
    }
}

fn node_status(
    view: &View,
    sights: &Sights,
    node: &NodeView,
    reach: Reach,
    round_trip_us: Option<u64>,
) -> NodeStatus {
    let here = |active: Option<jizoku_types::Member>| active.is_some_and(|m| m.node == node.node);
    let records = || view.services.values().map(|service| &service.record);
    let active = records().filter(|record| here(record.active)).count();
    let held =
        records().filter(|record| record.holders.iter().any(|m| m.node == node.node)).count();
    NodeStatus {
        node: node.node,
        name: node.record.name.clone(),
        incarnation: node.record.incarnation,
        addresses: node.record.addresses.clone(),
        labels: node.record.labels.clone(),
        witness: node.record.witness,
        draining: node.record.draining,
        reach,
        round_trip_us,
        active: u32::try_from(active).unwrap_or(u32::MAX),
        held: u32::try_from(held).unwrap_or(u32::MAX),
        spare: node.facts.as_ref().map(|facts| Spare {
            cpu_permille: facts.load.cpu_free_permille,
            memory_bytes: facts.load.memory_free.0,
            disk_bytes: facts.load.disk_free.0,
        }),
        version: sights.by_node.get(&node.node).map(|sight| sight.version.clone()),
    }
}

fn service(view: &View, sights: &Sights, id: ServiceId, one: &ServiceView) -> ServiceStatus {
    let record = &one.record;
    let (active_member, epoch) = line(one);
    let facts = one.facts.as_ref().filter(|facts| facts.epoch == epoch);
    let phase = phase(view, one);
    let active = active_member.map(|active| active.node);
    let others = others_that_hold(view, one);
    let stateful = record.spec.has_state();
    let running = record.wanted == catalog::Wanted::Running;
    let reading = active.and_then(|active| sights.instance(active, id));
    let reading = reading.filter(|_| facts.is_some());
    ServiceStatus {
        service: id,
        name: record.spec.name.clone(),
        engine: engine(&record.spec.engine).into(),
        wanted: if running { Wanted::Running } else { Wanted::Stopped },
        phase,
        active,
        epoch,
        output: record.spec.output,
        ports: record.spec.ports.clone(),
        holders: holders(view, id, one, reading),
        copies: record.spec.copies,
        checkpoint: checkpoint(facts, reading),
        connections: Some(sights.conns(id)),
        verdict: verdict(view, one),
        unprotected: stateful && running && others == 0,
        unreachable: phase == Phase::Unreachable,
        state_may_be_missing: record.loss_accepted || reading.is_some_and(|r| r.may_be_missing),
        failing: facts.filter(|facts| facts.crashes > 0).map(|facts| Failing {
            times: facts.crashes,
            reason: facts.detail.clone(),
            next_try_ms: facts.next_try.map(Span::as_millis),
        }),
        branches: u16::try_from(record.branches.len()).unwrap_or(u16::MAX),
    }
}

/// How many nodes beside the active one hold its state and can be reached.
fn others_that_hold(view: &View, one: &ServiceView) -> usize {
    let active = line(one).0.map(|active| active.node);
    let others = held_by(one).iter().filter(|member| Some(member.node) != active);
    others.filter(|member| is_reachable(view, member.node)).count()
}

/// Whether its clients wait for answers until more nodes hold its state.
fn waits_for_copies(view: &View, one: &ServiceView) -> bool {
    let spec = &one.record.spec;
    let few = others_that_hold(view, one) < usize::from(spec.min_copies);
    spec.has_state() && spec.output == OutputMode::Held && few
}

/// Its last checkpoint: as its node has it now, else as it was told a while ago.
fn checkpoint(facts: Option<&ServiceFacts>, reading: Option<&Reading>) -> Option<CheckpointStatus> {
    if let Some(last) = reading.and_then(|reading| reading.last) {
        return Some(CheckpointStatus {
            id: last.id,
            age_ms: last.age.as_millis(),
            size_bytes: last.size.0,
            shipped_bytes: last.shipped.0,
            pause_us: last.pause.as_micros(),
            commit_us: reading.and_then(|reading| reading.commit).map(Span::as_micros),
        });
    }
    let facts = facts.filter(|facts| facts.checkpoint.seq > 0)?;
    Some(CheckpointStatus {
        id: facts.checkpoint,
        age_ms: facts.age.as_millis(),
        size_bytes: facts.size.0,
        shipped_bytes: facts.shipped.0,
        pause_us: facts.pause.as_micros(),
        commit_us: None,
    })
}

/// Where a service is active as this node's side has it, and in which epoch: in a branch if one
/// serves here, else as the catalog says.
fn line(one: &ServiceView) -> (Option<Member>, Epoch) {
    match &one.branch {
        Some(branch) => (Some(branch.opener), branch.epoch),
        None => (one.record.active, one.record.epoch),
    }
}

/// What it is doing. What an active node said before it was lost doesn't count.
pub(crate) fn phase(view: &View, one: &ServiceView) -> Phase {
    let record = &one.record;
    let (active, epoch) = line(one);
    let facts = one.facts.as_ref().filter(|facts| facts.epoch == epoch);
    let facts = facts.filter(|_| active.is_some_and(|active| is_reachable(view, active.node)));
    if record.wanted == catalog::Wanted::Stopped {
        let busy = facts.is_some_and(|facts| facts.phase != PhaseFact::Ended);
        return if busy { Phase::Stopping } else { Phase::Stopped };
    }
    match facts.map(|facts| (facts.phase, facts.crashes)) {
        None => Phase::Waiting,
        Some((PhaseFact::Collecting, _)) => Phase::Collecting,
        Some((PhaseFact::Unreachable, _)) => Phase::Unreachable,
        Some((PhaseFact::Starting, _)) if record.born => Phase::Restoring,
        Some((PhaseFact::Starting, _)) => Phase::Starting,
        Some((PhaseFact::Serving, _)) => Phase::Running,
        Some((PhaseFact::Quiescing, _)) => Phase::Stopping,
        Some((PhaseFact::Ended, 0)) => Phase::Waiting,
        Some((PhaseFact::Ended, _)) => Phase::Failing,
    }
}

fn held_by(one: &ServiceView) -> &BTreeSet<Member> {
    one.branch.as_ref().map_or(&one.record.holders, |branch| &branch.holders)
}

fn holders(
    view: &View,
    service: ServiceId,
    one: &ServiceView,
    reading: Option<&Reading>,
) -> Vec<HolderStatus> {
    let acknowledged = |member: &Member| {
        let all = &reading?.acknowledged;
        all.iter().find(|(holder, _)| holder == member).map(|(_, id)| *id)
    };
    // What all members have acknowledged is committed: the newest is what one has alone.
    let newest = reading.and_then(|reading| reading.acknowledged.iter().map(|(_, id)| *id).max());
    let prepared = |node: NodeId| {
        let known = view.nodes.iter().find(|known| known.node == node && known.reachable)?;
        known.facts.as_ref().map(|facts| !facts.unprepared.contains(&service))
    };
    let status = |state: HolderState| {
        move |member: &Member| {
            let id = acknowledged(member);
            HolderStatus {
                node: member.node,
                incarnation: member.incarnation,
                state: if is_reachable(view, member.node) { state } else { HolderState::Silent },
                acknowledged: id,
                behind: newest.zip(id).map(|(newest, id)| newest.seq.saturating_sub(id.seq)),
                prepared: prepared(member.node),
            }
        }
    };
    let members = held_by(one).iter().map(status(HolderState::Member));
    let joining = one.record.joining.iter().filter(|_| one.branch.is_none());
    members.chain(joining.map(status(HolderState::Joining))).collect()
}

/// Whether its instance runs, by what its active node says.
pub(crate) fn is_running(view: &View, one: &ServiceView) -> bool {
    phase(view, one) == Phase::Running
}

/// Whether the watch says that it serves.
pub(crate) fn is_serving(view: &View, one: &ServiceView) -> bool {
    verdict(view, one).serving == Some(true)
}

fn is_reachable(view: &View, node: NodeId) -> bool {
    view.nodes.iter().find(|known| known.node == node).is_some_and(|known| known.reachable)
}

fn verdict(view: &View, one: &ServiceView) -> Verdict {
    let stopped = one.record.wanted == catalog::Wanted::Stopped;
    let lost = line(one).0.is_none_or(|active| !is_reachable(view, active.node));
    let (serving, detail) = match &one.verdict {
        _ if stopped || lost => (None, String::new()),
        watch::Verdict::Unknown => (None, String::new()),
        watch::Verdict::Serving => (Some(true), String::new()),
        watch::Verdict::Failing { detail } => (Some(false), detail.clone()),
    };
    let judged_at = one.judged_at.filter(|_| serving.is_some());
    let since_ms = judged_at.map(|at| view.at.since(at).as_millis());
    Verdict { serving, detail, since_ms }
}

fn engine(spec: &EngineSpec) -> &'static str {
    match spec {
        EngineSpec::Wasm { .. } => "wasm",
        EngineSpec::Exec { .. } => "exec",
    }
}

/// What so few nodes can't do.
fn too_few(nodes: usize) -> Option<(WarningCode, &'static str, &'static str)> {
    match nodes {
        1 => Some((
            WarningCode::OneNode,
            "one node only: nothing is protected",
            "join others: `jizoku ticket` here, `jizoku join TICKET` there",
        )),
        2 => Some((
            WarningCode::TwoNodes,
            "two nodes: the death of one stops services with `partition = \"stop\"`",
            "add a third that runs nothing: `jizoku join TICKET --witness`",
        )),
        _ => None,
    }
}

/// What may be missing from what nodes of several versions say.
fn mixed_versions(nodes: &[NodeStatus]) -> Option<(String, &'static str)> {
    let all: BTreeSet<&str> = nodes.iter().filter_map(|node| node.version.as_deref()).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let message = format!("the nodes run different versions: {}", all.join(", "));
    let hint = "nothing new is used before all of them know it; `inspect` and numbers of nodes of \
                another version may be missing";
    (all.len() > 1).then_some((message, hint))
}

/// How many can be reached of those that hold it, or soon will.
fn copies(one: &ServiceStatus) -> usize {
    one.holders.iter().filter(|holder| holder.state != HolderState::Silent).count()
}

/// Whether most of those who decide say that this node is no member. One of them alone may not have
/// heard yet of a node that has just joined. A node that has not learnt since its start who decides
/// is one that whoever it knocks at refuses.
pub(crate) fn is_shut_out(view: &View, wiring: &Wiring) -> bool {
    let by = wiring.shut_out_by();
    if view.voters.is_empty() {
        return !by.is_empty() && wiring.mesh.links().is_empty();
    }
    let others = view.voters.iter().filter(|voter| **voter != view.me.node).count();
    let refused = view.voters.iter().filter(|voter| by.contains(voter)).count();
    view.leader.is_none() && refused * 2 > others
}

/// Whether a node refuses copies, as far as its last word on that goes.
fn has_no_room(node: &NodeStatus) -> bool {
    let full = node.spare.is_some_and(|spare| spare.disk_bytes == 0);
    full && node.reach != Reach::Unreachable && !node.witness
}

/// A warning about something.
fn warning(code: WarningCode, message: impl Into<String>, hint: Option<&str>) -> Warning {
    Warning { code, message: message.into(), hint: hint.map(String::from) }
}

/// What is to be said of the nodes, and of who decides.
fn warnings_of_nodes(view: &View, shut_out: bool, nodes: &[NodeStatus]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if shut_out {
        let message = "this node was removed from its cluster: the others refuse its key";
        let hint = "to let it in again: `jizoku leave` here, then `jizoku ticket` on a member, and \
                    `jizoku join TICKET` here";
        // What else it knows is of another time.
        return vec![warning(WarningCode::ShutOut, message, Some(hint))];
    }
    if view.cluster.is_some() && view.leader.is_none() {
        let hint = "it comes back by itself when a majority of voters can reach each other; if \
                    they are lost for good: `jizoku recover --new-generation` on one survivor";
        warnings.push(warning(WarningCode::NoMajority, "the catalog has no leader", Some(hint)));
    }
    if let Some((code, message, hint)) = too_few(nodes.len()) {
        warnings.push(warning(code, message, Some(hint)));
    }
    if let Some((message, hint)) = mixed_versions(nodes) {
        warnings.push(warning(WarningCode::MixedVersions, message, Some(hint)));
    }
    for node in nodes.iter().filter(|node| node.reach == Reach::Unreachable) {
        let message = format!("{} can't be reached", node.name);
        warnings.push(warning(WarningCode::NodeUnreachable, message, None));
    }
    for node in nodes.iter().filter(|node| has_no_room(node)) {
        let message = format!("{}: no room on its disk, so it holds no copies", node.name);
        let hint = "free some there; `reserve` in [disk] of its config.toml says how much must be";
        warnings.push(warning(WarningCode::NoRoom, message, Some(hint)));
    }
    warnings
}

fn warnings(
    view: &View,
    agent: &Agent,
    nodes: &[NodeStatus],
    services: &[ServiceStatus],
    sights: &Sights,
) -> Vec<Warning> {
    let shut_out = is_shut_out(view, &agent.wiring);
    let mut warnings = warnings_of_nodes(view, shut_out, nodes);
    let mut warn = |code, message: String, hint: Option<&str>| {
        warnings.push(warning(code, message, hint));
    };
    for one in services {
        for (node, sight) in &sights.by_node {
            for (_, why) in sight.closed.iter().filter(|(service, _)| *service == one.service) {
                let message = format!("{}: {} can't open {why}", one.name, name_of(view, *node));
                let hint = "free that port on that node: it is tried again each second";
                warn(WarningCode::PortClosed, message, Some(hint));
            }
        }
        let known = view.services.get(&one.service);
        let waits = known.is_some_and(|known| waits_for_copies(view, known));
        if one.unreachable {
            let message = format!("{}: no current holder of its state answers", one.name);
            let hint = "it goes on when one is back; or `jizoku resume SERVICE --accept-loss`";
            warn(WarningCode::Unreachable, message, Some(hint));
        } else if one.unprotected && one.phase == Phase::Running {
            let message = format!("{}: UNPROTECTED, no other node holds its state", one.name);
            let hint = "its clients wait for answers until one does; to go on without, apply it \
                        with `min_copies = 0`";
            warn(WarningCode::Unprotected, message, waits.then_some(hint));
        } else if one.phase == Phase::Running && copies(one) < usize::from(one.copies) {
            let message = format!("{}: {} of {} copies", one.name, copies(one), one.copies);
            let hint = "its clients wait for answers until `min_copies` nodes hold its state";
            warn(WarningCode::FewCopies, message, waits.then_some(hint));
        }
        if one.state_may_be_missing {
            let message = format!("{}: what was told last may be missing from its state", one.name);
            warn(WarningCode::StateMayBeMissing, message, None);
        }
        if let Some(failing) = &one.failing {
            let message = format!("{} fails: {}", one.name, failing.reason);
            warn(WarningCode::Failing, message, Some("`jizoku inspect` shows what it printed"));
        }
        if view.services.get(&one.service).is_some_and(|known| known.branch.is_some()) {
            let message = format!("{}: a branch serves on this side of a cut", one.name);
            let hint = "when the network is whole again, one line goes on and the other is kept";
            warn(WarningCode::Branches, message, Some(hint));
        }
        if one.branches > 0 {
            let message = format!("{}: {} branches are kept", one.name, one.branches);
            warn(WarningCode::Branches, message, None);
        }
    }
    warnings.sort_by_key(|warning| warning.code);
    warnings
}

/// A service by its name.
pub(crate) fn find<'v>(
    view: &'v View,
    name: &ServiceName,
) -> Result<(ServiceId, &'v ServiceView), ApiError> {
    let found = view.services.iter().find(|(_, one)| one.record.spec.name == *name);
    found.map(|(id, one)| (*id, one)).ok_or_else(|| {
        let known: Vec<&str> =
            view.services.values().map(|one| one.record.spec.name.as_str()).collect();
        let error = ApiError::new(ErrorCode::NoSuchService, format!("no service {name}"));
        if view.cluster.is_none() {
            error.hint("this node knows none yet: try again once `jizoku status` names a leader")
        } else if known.is_empty() {
            error.hint("there are none yet: `jizoku apply MANIFEST`")
        } else {
            error.hint(format!("there are: {}", known.join(", ")))
        }
    })
}

/// What people call a node.
pub(crate) fn name_of(view: &View, node: NodeId) -> String {
    let known = view.nodes.iter().find(|known| known.node == node);
    known.map_or_else(|| node.short(), |known| known.record.name.clone())
}

/// Everything about one service.
pub(crate) fn inspect(
    view: &View,
    sights: &Sights,
    name: &ServiceName,
) -> Result<Inspection, ApiError> {
    let (id, one) = find(view, name)?;
    let branches = one.record.branches.iter().map(|(branch, kept)| BranchStatus {
        branch: *branch,
        checkpoint: jizoku_types::CheckpointId { epoch: 0, seq: kept.checkpoints },
        holders: kept.holders.iter().copied().collect(),
        size_bytes: kept.size.0,
    });
    Ok(Inspection {
        status: service(view, sights, id, one),
        spec: one.record.spec.clone(),
        spec_version: one.record.version,
        connections: connections(one, sights),
        branches: branches.collect(),
        printed: printed(one, sights),
    })
}

fn connections(one: &ServiceView, sights: &Sights) -> Vec<ConnectionStatus> {
    let ports = &one.record.spec.ports;
    let mut all = Vec::new();
    for (node, sight) in &sights.by_node {
        all.extend(sight.listed.iter().map(|conn| ConnectionStatus {
            gateway: *node,
            counter: conn.counter,
            incarnation: sight.incarnation,
            port: ports.get(usize::from(conn.port)).map_or("?".into(), |port| port.name.clone()),
            client: conn.client.clone(),
            in_bytes: conn.in_bytes,
            out_bytes: conn.out_bytes,
            held_bytes: conn.held_bytes,
        }));
    }
    all
}

/// What it printed where it is active now; if that is nothing, where it ran before.
fn printed(one: &ServiceView, sights: &Sights) -> Vec<String> {
    let active = one.record.active.and_then(|active| sights.by_node.get(&active.node));
    let mut places = active.into_iter().chain(sights.by_node.values());
    let found = places.find(|sight| !sight.printed.is_empty());
    found.map(|sight| sight.printed.clone()).unwrap_or_default()
}

/// The running instances.
pub(crate) fn instances(view: &View, sights: &Sights, only: Option<&ServiceName>) -> PsAnswer {
    let wanted =
        |one: &&(&ServiceId, &ServiceView)| only.is_none_or(|name| one.1.record.spec.name == *name);
    let running =
        |facts: &ServiceFacts| matches!(facts.phase, PhaseFact::Serving | PhaseFact::Quiescing);
    let mut instances = Vec::new();
    for (id, one) in view.services.iter().collect::<Vec<_>>().iter().filter(wanted) {
        let record = &one.record;
        let (active, epoch) = line(one);
        let (Some(active), Some(facts)) = (active, &one.facts) else { continue };
        if facts.epoch != epoch || !running(facts) {
            continue;
        }
        let used = sights.instance(active.node, **id).and_then(|reading| reading.used);
        let state = (facts.size.0 > 0).then_some(facts.size.0);
        instances.push(InstanceStatus {
            service: **id,
            name: record.spec.name.clone(),
            node: active.node,
            role: Role::Active,
            epoch,
            engine: engine(&record.spec.engine).into(),
            pid: used.and_then(|used| used.pid),
            up_ms: facts.up.as_millis(),
            memory_bytes: used.map(|used| used.memory_bytes).or(state),
            cpu_ms: used.map(|used| used.cpu_ms),
            connections: sights.conns(**id),
        });
    }
    let unreachable = view.nodes.iter().filter(|node| !node.reachable).map(|node| node.node);
    let silent = unreachable.chain(sights.silent.iter().copied()).collect();
    PsAnswer { instances, silent }
}

/// Whether an event is about this service.
pub(crate) fn is_about(event: &Event, id: ServiceId) -> bool {
    match event {
        Event::ServiceApplied { service, .. }
        | Event::ServiceRemoved { service }
        | Event::TakeoverProposed { service, .. }
        | Event::ActiveChanged { service, .. }
        | Event::Sealed { service, .. }
        | Event::StateCollected { service, .. }
        | Event::InstanceRestored { service, .. }
        | Event::InstanceStarted { service, .. }
        | Event::InstanceExited { service, .. }
        | Event::InstanceFenced { service, .. }
        | Event::FirstOutput { service, .. }
        | Event::HoldersChanged { service, .. }
        | Event::Unprotected { service }
        | Event::Unreachable { service }
        | Event::StateMayBeMissing { service, .. }
        | Event::CopyCorrupt { service, .. }
        | Event::WatchChanged { service, .. }
        | Event::BranchOpened { service, .. }
        | Event::BranchResolved { service, .. }
        | Event::ConnectionReset { service, .. } => *service == id,
        _ => false,
    }
}
