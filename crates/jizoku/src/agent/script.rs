//! Scripts on this node: what is bound and run here, and the flows that are driven from here.
//!
//! ```text
//! order of a person ──> control (any node) ══ bind, run, stop ══> this module ──> task ──> host
//!                          │        ^                               │
//!                  entries │        └═══════════ answers ═══════════┘
//!                          v
//!                       log pool (counts once two nodes hold it)
//! ```
//!
//! - [`control`]: binds a flow to its nodes, and drives it; [`drive`]: how
//! - [`offer`]: what this node really is; [`task`]: one task on its way
//! - [`host`]: the functions of the host
//!
//! What it does not know: what may begin, and when: that is for the values in jizoku-script.
//!
//! Invariants
//! - Nothing of a script runs here that wasn't checked here for its flow, against what this node
//!   is and the role's rights.
//! - Frames may be lost: whoever drives a flow asks again.
//!
//! Limits: those of [`jizoku_script::actor`]; [`CHECKS_MAX`] checks at a time; a flow that isn't
//! heard of for [`FORGOTTEN_AFTER`] is ended here, and its tasks with it.

pub(crate) mod control;
mod drive;
mod host;
mod offer;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jizoku_api::run::FlowStatus;
use jizoku_log::{Draft, Level, Trace, ValueRef};
use jizoku_mesh::boottime_now;
use jizoku_node::wire::StateMessage;
use jizoku_script::actor::{self, Order, Output, Word};
use jizoku_script::flow::{FlowId, TaskId};
use jizoku_script::permission::Permissions;
use jizoku_script::problem::Report;
use jizoku_script::run::{Cause, Ended, Failed};
use jizoku_script::script::Script;
use jizoku_script::wire::{Answer, Bind, Kind, Method, Request, Start};
use jizoku_types::{Channel, Instant, Member, NodeId, Span, decode, encode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, watch};

use self::host::Host;
use self::offer::Programs;
use super::ask as catalog;
use super::wiring::Wiring;

/// After which silence of its controller a flow is ended here.
const FORGOTTEN_AFTER: Span = Span::secs(600);
/// How often that is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Checks that may go on here at once. Whoever wants more asks again: controllers do each second.
const CHECKS_MAX: usize = 16;
/// The source of the records about tasks and flows.
const SOURCE: &str = "script";

/// What agents say to each other about scripts.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum ScriptMessage {
    /// A `Request`, in its own form.
    Request(Vec<u8>),
    /// An `Answer`, likewise.
    Answer(Vec<u8>),
    /// Which flows do you drive?
    AskFlows { number: u64 },
    /// These.
    TellFlows { number: u64, flows: Vec<FlowStatus> },
    /// End this flow.
    Cancel { flow: FlowId, why: String },
}

/// A script that was checked here for a flow.
struct Bound {
    script: Arc<Script>,
    tasks: BTreeSet<String>,
    permissions: Permissions,
    controller: NodeId,
    heard: Instant,
    /// Whether its tasks may wait for records.
    waits: bool,
}

struct Inner {
    actor: actor::Node,
    bound: BTreeMap<FlowId, Bound>,
    stops: BTreeMap<TaskId, watch::Sender<Option<String>>>,
}

/// A flow that is driven from here.
struct Driven {
    answers: mpsc::Sender<(NodeId, Answer)>,
    cancel: mpsc::Sender<String>,
    status: FlowStatus,
    began: Instant,
}

/// See the module's header.
pub(crate) struct Scripts {
    me: Member,
    /// Whether tasks may run here; flows are driven from here all the same.
    takes_tasks: bool,
    inner: Mutex<Inner>,
    programs: Programs,
    checks: Arc<Semaphore>,
    driven: Mutex<BTreeMap<FlowId, Driven>>,
    asked: Mutex<BTreeMap<u64, mpsc::Sender<(NodeId, Vec<FlowStatus>)>>>,
}

impl Scripts {
    pub(crate) fn new(me: Member, takes_tasks: bool) -> Arc<Scripts> {
        let actor = actor::Node::new(me.node, me.incarnation);
        let inner = Inner { actor, bound: BTreeMap::new(), stops: BTreeMap::new() };
        Arc::new(Scripts {
            me,
            takes_tasks,
            inner: Mutex::new(inner),
            programs: Programs::default(),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            driven: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while locked")
    }

    fn driven(&self) -> MutexGuard<'_, BTreeMap<FlowId, Driven>> {
        self.driven.lock().expect("no panic while locked")
    }

    /// Takes what another node says. Must be called within a tokio runtime.
    pub(crate) fn take(self: &Arc<Self>, from: NodeId, bytes: &[u8], wiring: &Arc<Wiring>) {
        // What can't be read is of another version; whoever sent it hears no answer, and says so.
        let Ok(message) = decode::<ScriptMessage>(bytes) else { return };
        self.hear(from, message, wiring);
    }

    fn hear(self: &Arc<Self>, from: NodeId, message: ScriptMessage, wiring: &Arc<Wiring>) {
        match message {
            ScriptMessage::Request(bytes) => {
                if let Ok(request) = Request::decode(&bytes) {
                    self.request(from, request, wiring);
                }
            }
            ScriptMessage::Answer(bytes) => {
                if let Ok(answer) = Answer::decode(&bytes)
                    && let Some(driven) = self.driven().get(&answer.flow)
                {
                    // Full: it is asked again.
                    let _ = driven.answers.try_send((from, answer));
                }
            }
            ScriptMessage::AskFlows { number } => {
                let flows = self.own_flows();
                self.send(from, ScriptMessage::TellFlows { number, flows }, wiring);
            }
            ScriptMessage::TellFlows { number, flows } => {
                if let Some(asker) = self.asked.lock().expect("no panic while locked").get(&number)
                {
                    // Full: it answered more often than it was asked.
                    let _ = asker.try_send((from, flows));
                }
            }
            ScriptMessage::Cancel { flow, why } => {
                if let Some(driven) = self.driven().get(&flow) {
                    // Full: it is being cancelled.
                    let _ = driven.cancel.try_send(why);
                }
            }
        }
    }

    /// The flows that are driven from here.
    fn own_flows(&self) -> Vec<FlowStatus> {
        let now = boottime_now();
        let age = |driven: &Driven| now.since(driven.began).as_millis();
        let driven = self.driven();
        let all = driven.values().map(|one| FlowStatus { age_ms: age(one), ..one.status.clone() });
        all.collect()
    }

    fn send(self: &Arc<Self>, to: NodeId, message: ScriptMessage, wiring: &Arc<Wiring>) {
        if to == self.me.node {
            return self.hear(to, message, wiring);
        }
        wiring.send_state(to, Channel::State, StateMessage::Script(encode(&message)));
    }

    fn ask(self: &Arc<Self>, to: NodeId, request: &Request, wiring: &Arc<Wiring>) {
        self.send(to, ScriptMessage::Request(request.encode()), wiring);
    }

    fn answer(self: &Arc<Self>, to: NodeId, answer: &Answer, wiring: &Arc<Wiring>) {
        self.send(to, ScriptMessage::Answer(answer.encode()), wiring);
    }

    fn request(self: &Arc<Self>, from: NodeId, request: Request, wiring: &Arc<Wiring>) {
        let Request { flow, epoch, method } = request;
        match method {
            Method::Check(bind) => {
                let Ok(permit) = Arc::clone(&self.checks).try_acquire_owned() else { return };
                let (own, wiring) = (Arc::clone(self), Arc::clone(wiring));
                tokio::spawn(async move {
                    let _permit = permit;
                    let answer = own.check(from, (flow, epoch), bind, &wiring).await;
                    own.answer(from, &answer, &wiring);
                });
            }
            Method::Task { order, start } => self.order(from, (flow, epoch), order, start, wiring),
        }
    }

    /// Checks a script against what this node is; what passes is remembered for its flow.
    async fn check(
        self: &Arc<Self>,
        from: NodeId,
        (flow, epoch): (FlowId, u64),
        bind: Bind,
        wiring: &Arc<Wiring>,
    ) -> Answer {
        let refused = |why: &str| Answer::new(flow, Word::Refused(why.to_string()));
        if !self.takes_tasks {
            return refused("this node takes no scripts: its config.toml says `scripts = false`");
        }
        if bind.kind == Kind::Shell {
            return refused("plain shell texts are not run: write a task around them");
        }
        let Some(view) = catalog::settled_view(&wiring.core, catalog::WITHIN).await else {
            return refused("the agent is ending");
        };
        let (own, (role, permissions)) = (Arc::clone(self), bind.role);
        let tasks: BTreeSet<String> = bind.tasks.into_iter().collect();
        let here = tasks.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let offer = offer::of_host(&view, &bind.script, &own.programs);
            let offer = offer.for_role(&role, permissions);
            let read = Script::read(&bind.script, &offer, Some(&here));
            read.map_err(|problems| Report::new("", &bind.script, &problems).to_string())
        });
        match checked.await {
            Err(_) => refused("the check failed within the agent"),
            Ok(Err(report)) => {
                let mut answer = refused("the script can't be run there");
                answer.problems = vec![report];
                answer
            }
            Ok(Ok(script)) => {
                let (controller, heard) = (from, boottime_now());
                let waits = script.mentions("log.wait");
                let script = Arc::new(script);
                let bound = Bound { script, tasks, permissions, controller, heard, waits };
                self.bind((flow, epoch), bind.hold, bound)
            }
        }
    }

    fn bind(&self, (flow, epoch): (FlowId, u64), hold: bool, bound: Bound) -> Answer {
        let mut inner = self.lock();
        inner.actor.handle(boottime_now(), flow, epoch, Order::Bind { hold });
        let mut word = Word::Bound;
        while let Some(output) = inner.actor.poll() {
            if let Output::Say(said) = output {
                word = said;
            }
        }
        if word == Word::Bound {
            inner.bound.insert(flow, bound);
        }
        Answer::new(flow, word)
    }

    /// Does what a controller says about a task.
    fn order(
        self: &Arc<Self>,
        from: NodeId,
        (flow, epoch): (FlowId, u64),
        order: Order,
        start: Option<Start>,
        wiring: &Arc<Wiring>,
    ) {
        let now = boottime_now();
        let mut begun = None;
        let mut words = Vec::new();
        {
            let mut inner = self.lock();
            if let Order::Run(task) = order
                && !inner.bound.contains_key(&flow)
            {
                let message = "no script was checked there for its flow".to_string();
                let failed = Failed { cause: Cause::Denied, message, at: (0, 0) };
                let word = Word::Ended(task, Ended::Failed(failed));
                drop(inner);
                return self.answer(from, &Answer::new(flow, word), wiring);
            }
            let over = order == Order::Release;
            inner.actor.handle(now, flow, epoch, order);
            let mut deposed = false;
            while let Some(output) = inner.actor.poll() {
                match output {
                    Output::Begin(task) => begun = Some(task),
                    Output::Stop(task) => {
                        if let Some(stop) = inner.stops.get(&task) {
                            stop.send_replace(Some("stopped by its flow".into()));
                        }
                    }
                    Output::Say(word) => {
                        deposed |= matches!(word, Word::Newer(_));
                        words.push(word);
                    }
                }
            }
            if let Some(bound) = inner.bound.get_mut(&flow)
                && !deposed
            {
                (bound.heard, bound.controller) = (now, from);
            }
            if over && !deposed {
                inner.bound.remove(&flow);
            }
        }
        if let Some(task) = begun {
            self.begin(task, start, wiring);
        }
        for word in words {
            self.answer(from, &Answer::new(flow, word), wiring);
        }
    }

    /// Begins a task; its end is told to whoever drives the flow then.
    fn begin(self: &Arc<Self>, task: TaskId, start: Option<Start>, wiring: &Arc<Wiring>) {
        let (stop, stopped) = watch::channel(None);
        let made = {
            let mut inner = self.lock();
            inner.stops.insert(task, stop);
            inner.bound.get(&task.flow).ok_or_else(|| "its flow is over".to_string()).and_then(
                |bound| {
                    let start = start.ok_or("it isn't said which task")?;
                    if !bound.tasks.contains(&start.task) {
                        return Err(format!("`{}` was not checked for this node", start.task));
                    }
                    let run = bound.script.task(&start.task, start.arguments, bound.permissions)?;
                    let run = run.ends_by(boottime_now() + start.within);
                    Ok((run, Arc::clone(&bound.script), start.task, bound.waits))
                },
            )
        };
        let (own, wiring) = (Arc::clone(self), Arc::clone(wiring));
        tokio::spawn(async move {
            let ended = match made {
                Err(message) => Ended::Failed(Failed { cause: Cause::Value, message, at: (0, 0) }),
                Ok((run, script, name, waits)) => {
                    let host = Host {
                        wiring: Arc::clone(&wiring),
                        script,
                        flow: task.flow,
                        task: name,
                        cursors: BTreeMap::new(),
                    };
                    // A task of its own, so that a panic in it is its end, too.
                    let run = tokio::spawn(own.clone().run(task, run, host, waits, stopped));
                    run.await.unwrap_or_else(|_| {
                        let message = "this failed within the agent".to_string();
                        Ended::Failed(Failed { cause: Cause::Unknown, message, at: (0, 0) })
                    })
                }
            };
            own.ended(task, ended, &wiring);
        });
    }

    async fn run(
        self: Arc<Self>,
        task: TaskId,
        run: jizoku_script::run::Run,
        mut host: Host,
        waits: bool,
        stop: task::Stop,
    ) -> Ended {
        let (wiring, name, began) = (host.wiring.clone(), host.task.clone(), boottime_now());
        if waits {
            host.cursors = super::log::ask::cursors(&wiring.log, &wiring).await;
        }
        let step = i64::from(task.step);
        let shown = [("task", ValueRef::Str(&name)), ("step", ValueRef::Int(step))];
        record(&wiring, task.flow, ("task.start", Level::Info, false), &shown);
        let ended = task::drive(run, host, stop).await;
        let took = i64::try_from(boottime_now().since(began).as_nanos()).unwrap_or(i64::MAX);
        let (level, status, symbol, detail) = match &ended {
            Ended::Succeeded => (Level::Info, "Succeeded", "succeeded", ""),
            Ended::Failed(failed) => {
                (Level::Error, "Failed", failed.cause.symbol(), failed.message.as_str())
            }
        };
        let more = [
            ("status", ValueRef::Str(status)),
            ("symbol", ValueRef::Str(symbol)),
            ("detail", ValueRef::Str(detail)),
            ("took", ValueRef::Duration(took)),
        ];
        record(&wiring, task.flow, ("task.end", level, false), &[&shown[..], &more].concat());
        ended
    }

    fn ended(self: &Arc<Self>, task: TaskId, ended: Ended, wiring: &Arc<Wiring>) {
        let (to, words) = {
            let mut inner = self.lock();
            inner.stops.remove(&task);
            inner.actor.ended(task, ended);
            let outputs: Vec<Output> = std::iter::from_fn(|| inner.actor.poll()).collect();
            (inner.bound.get(&task.flow).map(|bound| bound.controller), outputs)
        };
        for output in words {
            if let (Output::Say(word), Some(to)) = (output, to) {
                self.answer(to, &Answer::new(task.flow, word), wiring);
            }
        }
    }

    /// Ends flows that nobody speaks for any more, for ever.
    pub(crate) async fn sweep(self: Arc<Self>, wiring: Arc<Wiring>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let now = boottime_now();
            let old: Vec<(FlowId, NodeId)> = {
                let inner = self.lock();
                let old = inner.bound.iter().filter(|(_, b)| now.since(b.heard) > FORGOTTEN_AFTER);
                old.map(|(flow, bound)| (*flow, bound.controller)).collect()
            };
            for (flow, controller) in old {
                self.order(controller, (flow, u64::MAX), Order::Release, None, &wiring);
            }
        }
    }
}

/// Writes a record of a flow into this node's pool. Gives when it counts, if it is important.
fn record(
    wiring: &Wiring,
    flow: FlowId,
    (event, level, important): (&str, Level, bool),
    fields: &[(&str, ValueRef<'_>)],
) -> super::log::Taken {
    let draft = Draft {
        level,
        trace: Trace(flow.0),
        important,
        fields,
        ..Draft::new(event, wiring.log.host(), SOURCE)
    };
    wiring.log.append(&draft)
}
