//! Orders of the admin API: checks what can be checked here, asks the catalog, answers.

use jizoku_api::order::{
    ApplyOrder, Done, DrainOrder, LeaveOrder, ModuleStored, MoveOrder, RemoveOrder, ResumeOrder,
    RmOrder, StartOrder, StopOrder, TicketIssued, TicketOrder,
};
use jizoku_api::plan::{Action, ApplyPlan, changes};
use jizoku_api::{ApiError, ErrorCode, Route};
use jizoku_core::catalog::{Command, Outcome, Rejection, Wanted};
use jizoku_node::node::{self, Refusal, Request, ServiceView, View};
use jizoku_types::spec::EngineSpec;
use jizoku_types::{NodeId, ServiceId, Span};

use super::ask::{self, Failure, TRY_AGAIN, WITHIN};
use super::core::CoreMessage;
use super::membership::{TICKET_TTL, advertised, hash_of, new_ticket};
use super::server::{Body, Shared, json, parse};
use super::{status, user};

/// How long everything may take to move off a node that leaves.
const LEAVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Carries out an order.
pub(crate) async fn carry_out(
    route: Route,
    bytes: &[u8],
    shared: &Shared,
) -> Result<Body, ApiError> {
    match route {
        Route::Apply => json(&apply(parse(bytes)?, shared).await?),
        Route::Rm => json(&rm(&parse(bytes)?, shared).await?),
        Route::Start => {
            let order: StartOrder = parse(bytes)?;
            json(&wanted(&order.service, Wanted::Running, shared).await?)
        }
        Route::Stop => {
            let order: StopOrder = parse(bytes)?;
            json(&wanted(&order.service, Wanted::Stopped, shared).await?)
        }
        Route::Move => json(&move_service(&parse(bytes)?, shared).await?),
        Route::Drain => json(&drain(&parse(bytes)?, shared).await?),
        Route::Resume => json(&resume(&parse(bytes)?, shared).await?),
        Route::Ticket => json(&ticket(parse(bytes)?, shared).await?),
        Route::Leave => {
            let _: LeaveOrder = parse(bytes)?;
            json(&leave(shared).await?)
        }
        Route::Remove => json(&remove(&parse(bytes)?, shared).await?),
        Route::Join => Err(joined_already(shared)),
        Route::Recover => Err(recover_by_hand(shared)),
        _ => Err(ApiError::new(ErrorCode::NoSuchPath, "this is no order")),
    }
}

/// An agent runs only as a member: it can't become one of another cluster in place.
fn joined_already(shared: &Shared) -> ApiError {
    let data = shared.agent.folder.path().display();
    let error = ApiError::new(
        ErrorCode::HasCluster,
        format!("the agent of {data} runs: its node is a member of a cluster already"),
    );
    error.hint("to change over: `jizoku leave` here, then `jizoku join TICKET`, then `jizoku up`")
}

/// The voters are what the log says that the running agent works on.
fn recover_by_hand(shared: &Shared) -> ApiError {
    let data = shared.agent.folder.path().display();
    let error =
        ApiError::new(ErrorCode::Unsupported, format!("the agent of {data} runs: stop it first"));
    error.hint("then `jizoku recover --new-generation` on this node, then `jizoku up`")
}

/// Takes a module: instruments it, checks it, keeps it.
pub(crate) fn module(bytes: &[u8], shared: &Shared) -> Result<ModuleStored, ApiError> {
    let refused = |why: String| ApiError::new(ErrorCode::Refused, why);
    if let Some(why) = no_module(bytes) {
        return Err(refused(why.into()));
    }
    let prepared = crate::instrument::instrument(bytes).map_err(refused)?;
    let engine = shared.agent.engines.wasm().as_ref().map_err(|why| {
        ApiError::new(ErrorCode::Unsupported, why).hint("`jizoku doctor` says what is missing")
    })?;
    let ready = engine.prepare(&prepared).map_err(|why| refused(why.to_string()))?;
    let hash = *blake3::hash(&prepared).as_bytes();
    let known = shared.agent.modules.has(&hash);
    shared
        .agent
        .modules
        .put(&prepared)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let compiled = shared.agent.engines.is_ready(hash, ready);
    shared.agent.wiring.core.send(CoreMessage::Node(node::Input::Compiled(compiled)));
    Ok(ModuleStored { module: hash, size_bytes: prepared.len() as u64, known })
}

/// Why these bytes can't be a module that is instrumented here, as far as their beginning tells.
fn no_module(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => None,
        [0, b'a', b's', b'm', ..] => Some(
            "a WebAssembly component, or of another version: build it for the target \
             wasm32-wasip1",
        ),
        _ => Some("not a WebAssembly module: build it for the target wasm32-wasip1"),
    }
}

async fn apply(order: ApplyOrder, shared: &Shared) -> Result<ApplyPlan, ApiError> {
    let view = shared.led_view().await?;
    let spec = order.spec;
    spec.check().map_err(|error| {
        ApiError::new(ErrorCode::Refused, format!("`{}`: {}", error.field, error.problem))
    })?;
    if let EngineSpec::Wasm { module, .. } = &spec.engine
        && !shared.agent.modules.has(module)
    {
        return Err(ApiError::new(ErrorCode::NoSuchModule, "the module was not sent to this node"));
    }
    free_ports(&view, &spec)?;
    let known = status::find(&view, &spec.name).ok();
    let before = known.map(|(_, known)| &known.record);
    let version = before.map_or(0, |record| record.version);
    if order.expect_version.is_some_and(|expected| expected != version) {
        let message = format!("the service is at version {version} now");
        return Err(ApiError::new(ErrorCode::Conflict, message));
    }
    let differences = changes(before.map(|record| &record.spec), &spec);
    let action = match before {
        None => Action::Create,
        Some(_) if differences.is_empty() => Action::Nothing,
        Some(_) => Action::Change,
    };
    let mut plan = ApplyPlan {
        name: spec.name.clone(),
        service: known.map(|(id, _)| id),
        action,
        changes: differences,
        applied: false,
        spec_version: version,
        notes: notes(&view, &spec),
    };
    if order.dry_run || action == Action::Nothing {
        return Ok(plan);
    }
    let expect = before.map(|record| record.version);
    plan.notes.extend(spread(&view, &spec, shared)?);
    ask_catalog(Command::ApplyService { spec: Box::new(spec), expect }, shared).await?;
    let after = shared.view().await?;
    if let Ok((id, now)) = status::find(&after, &plan.name) {
        plan.service = Some(id);
        plan.spec_version = now.record.version;
    }
    plan.applied = true;
    Ok(plan)
}

/// The catalog refuses this too; here it is said before anything is shown as a plan.
fn free_ports(view: &View, spec: &jizoku_types::spec::ServiceSpec) -> Result<(), ApiError> {
    let others = view.services.values().filter(|one| one.record.spec.name != spec.name);
    for other in others {
        let taken = |port: u16| other.record.spec.ports.iter().any(|p| p.listen == port);
        if let Some(port) = spec.ports.iter().find(|port| taken(port.listen)) {
            let (number, name) = (port.listen, &other.record.spec.name);
            let message = format!("port {number} is published by the service {name}");
            return Err(ApiError::new(ErrorCode::Refused, message));
        }
    }
    Ok(())
}

/// Brings a service's module to as many others as shall hold its state: without it the state is
/// worth nothing, and this node may be the next to die. Gives a note if there are fewer.
fn spread(
    view: &View,
    spec: &jizoku_types::spec::ServiceSpec,
    shared: &Shared,
) -> Result<Option<String>, ApiError> {
    let EngineSpec::Wasm { module, .. } = &spec.engine else { return Ok(None) };
    let useful = |node: &&jizoku_node::node::NodeView| {
        node.node != view.me.node && node.reachable && !node.record.witness
    };
    let others: Vec<NodeId> = view.nodes.iter().filter(useful).map(|node| node.node).collect();
    let enough = others.len().min(usize::from(spec.copies).max(1));
    let give_up = std::time::Instant::now() + WITHIN;
    let modules = &shared.agent.modules;
    let have = tokio::task::block_in_place(|| modules.spread(module, &others, enough, give_up));
    let message = format!("{have} of {enough} other nodes took the program's module in time");
    if have == 0 && enough > 0 {
        return Err(ApiError::new(ErrorCode::NoMajority, message)
            .hint("nothing was changed; are they reachable, with room on their disks?"));
    }
    Ok((have < enough).then(|| format!("note: {message}")))
}

fn notes(view: &View, spec: &jizoku_types::spec::ServiceSpec) -> Vec<String> {
    let mut notes = Vec::new();
    let others = view.nodes.iter().filter(|node| !node.record.witness).count().saturating_sub(1);
    if spec.has_state() && usize::from(spec.copies) > others {
        notes.push(format!(
            "note: {} copies are wanted beside the active node; there are {others} other nodes",
            spec.copies
        ));
    }
    if matches!(&spec.engine, EngineSpec::Exec { user: None, .. }) && user::is_root() {
        notes.push(format!(
            "note: the agent is root, so the program runs as `{}`; `user` in [engine] names \
             another",
            user::UNPRIVILEGED
        ));
    }
    if spec.has_state() && spec.min_copies == 0 {
        notes.push("note: min_copies = 0: it goes on UNPROTECTED when no holder is left".into());
    }
    notes
}

async fn rm(order: &RmOrder, shared: &Shared) -> Result<Done, ApiError> {
    let (service, _) = named(&order.service, shared).await?;
    ask_catalog(Command::RemoveService { service }, shared).await?;
    Ok(note(format!("{} is removed, with its state", order.service)))
}

async fn wanted(
    name: &jizoku_types::ServiceName,
    wanted: Wanted,
    shared: &Shared,
) -> Result<Done, ApiError> {
    let (service, _) = named(name, shared).await?;
    ask_catalog(Command::SetWanted { service, wanted }, shared).await?;
    Ok(note(match wanted {
        Wanted::Running => format!("{name} is being started"),
        Wanted::Stopped => format!("{name} is being stopped; its state is kept"),
    }))
}

async fn named(
    name: &jizoku_types::ServiceName,
    shared: &Shared,
) -> Result<(ServiceId, ServiceView), ApiError> {
    shared.led_view().await?;
    let (view, _) = shared.view_with(name).await?;
    status::find(&view, name).map(|(id, found)| (id, found.clone()))
}

async fn move_service(order: &MoveOrder, shared: &Shared) -> Result<Done, ApiError> {
    let (service, _) = named(&order.service, shared).await?;
    let view = shared.view().await?;
    let to = order.to.as_deref().map(|name| node(&view, name)).transpose()?;
    request(Request::Move { service, to }, shared).await?;
    Ok(note(format!("{} is being moved; `jizoku status` shows it", order.service)))
}

async fn drain(order: &DrainOrder, shared: &Shared) -> Result<Done, ApiError> {
    let view = shared.led_view().await?;
    let node = match &order.node {
        Some(name) => node(&view, name)?,
        None => view.me.node,
    };
    ask_catalog(Command::SetDraining { node, draining: !order.undo }, shared).await?;
    let name = status::name_of(&view, node);
    Ok(note(if order.undo {
        format!("{name} takes services again")
    } else {
        format!("{name} is being drained; `jizoku status` shows what is still there")
    }))
}

async fn resume(order: &ResumeOrder, shared: &Shared) -> Result<Done, ApiError> {
    let (service, known) = named(&order.service, shared).await?;
    if !order.accept_loss {
        let error = ApiError::new(ErrorCode::Refused, "without accept_loss there is nothing to do");
        return Err(error.hint("the service goes on by itself when a holder is back"));
    }
    let view = shared.view().await?;
    if status::is_running(&view, &known) {
        let error = ApiError::new(ErrorCode::Refused, format!("{} runs", order.service));
        return Err(error.hint("nothing of its state is missing that could be given up"));
    }
    ask_catalog(Command::AcceptLoss { service, epoch: known.record.epoch }, shared).await?;
    Ok(note(format!("{} goes on from what can be reached", order.service)))
}

async fn ticket(order: TicketOrder, shared: &Shared) -> Result<TicketIssued, ApiError> {
    let view = shared.led_view().await?;
    let cluster = view.cluster.expect("a view is led only once its cluster has begun");
    let agent = &shared.agent;
    let ticket = new_ticket(cluster, view.me.node, advertised(&agent.config, &agent.listening));
    let ttl = order.valid_ms.map_or(TICKET_TTL, Span::millis);
    ask_catalog(Command::IssueTicket { ticket: hash_of(&ticket.secret), ttl }, shared).await?;
    Ok(TicketIssued { ticket: ticket.text(), valid_ms: ttl.as_millis() })
}

/// Everything moves off first; if that doesn't come about, the node stays as it was.
async fn leave(shared: &Shared) -> Result<Done, ApiError> {
    let me = shared.agent.wiring.me.node;
    let view = shared.view().await?;
    if status::is_shut_out(&view, &shared.agent.wiring) {
        return depart(shared);
    }
    let drains = view.nodes.iter().any(|node| node.node == me && node.record.draining);
    let give_up = tokio::time::Instant::now() + LEAVE_WITHIN;
    let shut_out = shared.agent.wiring.shut_out();
    while let Err(error) = ask_catalog(Command::Leave { node: me }, shared).await {
        // Others let it go as soon as they know, often before they have told it so.
        if shared.agent.wiring.shut_out() > shut_out {
            break;
        }
        // Whether an earlier try did it shows by the next one.
        let passes = matches!(error.code, ErrorCode::StillNeeded | ErrorCode::Unknown);
        let over = tokio::time::Instant::now() >= give_up;
        if error.code == ErrorCode::NoSuchNode {
            break;
        }
        if over && !drains {
            // If that fails too, the error before says more.
            let _ = ask_catalog(Command::SetDraining { node: me, draining: false }, shared).await;
        }
        if over || !passes {
            return Err(error);
        }
        if error.code == ErrorCode::StillNeeded {
            // What came of it is seen by the next try to leave.
            let _ = ask_catalog(Command::SetDraining { node: me, draining: true }, shared).await;
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
    depart(shared)
}

/// Belongs to no cluster from now on.
fn depart(shared: &Shared) -> Result<Done, ApiError> {
    let forgotten = shared.agent.folder.forget(jizoku_store::Small::Cluster);
    let forgotten =
        forgotten.and_then(|()| shared.agent.folder.forget(jizoku_store::Small::Members));
    forgotten.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    shared.stop();
    Ok(note("this node has left; its agent ends".into()))
}

async fn remove(order: &RemoveOrder, shared: &Shared) -> Result<Done, ApiError> {
    let view = shared.led_view().await?;
    let node = node(&view, &order.node)?;
    if node == view.me.node {
        let error = ApiError::new(ErrorCode::Refused, format!("{} is this node", order.node));
        return Err(error.hint(
            "`jizoku leave` takes it out once its services have moved off; to shut it out at \
             once, say this on another node",
        ));
    }
    ask_catalog(Command::RemoveMember { node, accept_loss: order.accept_loss }, shared).await?;
    Ok(note(format!("{} is removed; its key is refused from now on", order.node)))
}

/// The node with this name or id.
fn node(view: &View, name: &str) -> Result<NodeId, ApiError> {
    let found = view.nodes.iter().find(|node| {
        node.record.name == name || node.node.to_string() == name || node.node.short() == name
    });
    found.map(|node| node.node).ok_or_else(|| {
        let known: Vec<&str> = view.nodes.iter().map(|node| node.record.name.as_str()).collect();
        let error = ApiError::new(ErrorCode::NoSuchNode, format!("no node is called {name:?}"));
        error.hint(format!("there are: {}", known.join(", ")))
    })
}

fn note(text: String) -> Done {
    Done { notes: vec![text] }
}

/// Asks the catalog, again while it has no leader.
async fn ask_catalog(command: Command, shared: &Shared) -> Result<Outcome, ApiError> {
    request(Request::Command(Box::new(command)), shared).await
}

async fn request(request: Request, shared: &Shared) -> Result<Outcome, ApiError> {
    match ask::ask(&shared.agent.wiring.core, request, WITHIN).await {
        Ok(outcome) => judged(outcome),
        Err(Failure::Refused(refusal)) => Err(refused(&refusal)),
        Err(Failure::Ending) => Err(ApiError::new(ErrorCode::Internal, "the agent is ending")),
        Err(Failure::Late) => {
            let error = ApiError::new(ErrorCode::Unknown, "the catalog did not answer in time");
            Err(error.hint("look with `jizoku status` whether it was done"))
        }
    }
}

fn refused(refusal: &Refusal) -> ApiError {
    let code = match refusal {
        Refusal::NotTaken => ErrorCode::NoMajority,
        Refusal::Unknown => ErrorCode::Unknown,
        Refusal::Impossible(_) => ErrorCode::Refused,
    };
    ApiError::new(code, refusal)
}

fn judged(outcome: Outcome) -> Result<Outcome, ApiError> {
    match outcome {
        Outcome::Conflict { why } => {
            let error = ApiError::new(ErrorCode::Conflict, why);
            Err(error.hint("something changed meanwhile: look, and say it again"))
        }
        Outcome::Rejected { why } => {
            let code = match why {
                Rejection::NotInitialised => ErrorCode::NoCluster,
                Rejection::NoSuchService => ErrorCode::NoSuchService,
                Rejection::NoSuchMember { .. } => ErrorCode::NoSuchNode,
                Rejection::StillNeeded { .. } => ErrorCode::StillNeeded,
                _ => ErrorCode::Refused,
            };
            Err(ApiError::new(code, why))
        }
        done => Ok(done),
    }
}
