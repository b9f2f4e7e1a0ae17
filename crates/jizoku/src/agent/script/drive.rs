//! Drives one flow: what the value wants is done, and what comes of it is told to the value.
//!
//! What it does not know: what follows from what; that is for [`jizoku_script::flow`].
//!
//! Invariants
//! - An entry is safe once two nodes hold its record; with nobody else in reach, once it is in
//!   this node's pool.
//! - A record that a step waits for isn't missed: all pools are watched from where they stood
//!   before anything ran.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jizoku_api::log::LogLine;
use jizoku_api::run::{RunLine, TaskLine};
use jizoku_log::{Level, Schemas, ValueRef};
use jizoku_mesh::boottime_now;
use jizoku_script::actor::{Order, Word};
use jizoku_script::flow::{Entry, Flow, FlowId, Input, Output, TaskId};
use jizoku_script::plan::{StepId, StepKind};
use jizoku_script::run::Ended;
use jizoku_script::wire::{Answer, Method, Request, Start};
use jizoku_types::{Instant, Member, NodeId};
use tokio::sync::mpsc;

use super::super::ask as catalog;
use super::super::log::{LogPool, Taken, ask};
use super::super::wiring::Wiring;
use super::control::{Lines, Prepared};
use super::{Scripts, record};

/// The epoch of whoever bound a flow.
pub(super) const EPOCH: u64 = 1;
/// How often it is looked who is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a node may be out of reach until what ran there is given up: links come back.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How often nodes are told that the flow is still there.
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// After which it is looked again whether a record counts, or nobody is left who could hold it.
const COUNT_AGAIN: Duration = Duration::from_millis(200);
/// How long one waits whose records the pool can't take now.
const FULL_AGAIN: Duration = Duration::from_millis(50);

/// See the module's header.
pub(super) struct Driver {
    scripts: Arc<Scripts>,
    wiring: Arc<Wiring>,
    id: FlowId,
    prepared: Prepared,
    heard: mpsc::Receiver<(NodeId, Answer)>,
    cancelled: mpsc::Receiver<String>,
    lines: Lines,
    /// Entries that are not safe yet, with the places of their records.
    open: VecDeque<(u64, Option<u64>)>,
    /// The number of the last entry.
    entries: u64,
    sent: BTreeMap<TaskId, Instant>,
    ended: u32,
    /// Steps that wait, and after which entry a record counts.
    watched: BTreeMap<StepId, u64>,
    /// The entries that there were when a step's last record came.
    came: BTreeMap<StepId, u64>,
    /// Since when nodes are out of reach.
    away: BTreeMap<NodeId, Instant>,
    result: Option<Result<(), String>>,
}

/// Something that happened.
enum News {
    Heard(NodeId, Word),
    Came(StepId),
    Counted(u64),
    Cancelled(String),
    Look,
    Renew,
    Tick,
}

impl Driver {
    pub(super) fn new(
        scripts: &Arc<Scripts>,
        wiring: &Arc<Wiring>,
        id: FlowId,
        prepared: Prepared,
        (heard, cancelled): (mpsc::Receiver<(NodeId, Answer)>, mpsc::Receiver<String>),
        lines: Lines,
    ) -> Driver {
        Driver {
            scripts: Arc::clone(scripts),
            wiring: Arc::clone(wiring),
            id,
            prepared,
            heard,
            cancelled,
            lines,
            open: VecDeque::new(),
            entries: 0,
            sent: BTreeMap::new(),
            ended: 0,
            watched: BTreeMap::new(),
            came: BTreeMap::new(),
            away: BTreeMap::new(),
            result: None,
        }
    }

    /// Drives the flow to its end. Nodes have forgotten it then.
    pub(super) async fn run(mut self, who: &str) -> Result<(), String> {
        let mut came = self.watch().await;
        self.told_start(who);
        let (now, plan) = (boottime_now(), self.prepared.plan.clone());
        let began = now;
        let mut flow = Flow::start(now, self.id, EPOCH, plan, &self.prepared.nodes)?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut renew = tokio::time::interval(RENEW_EVERY);
        loop {
            while let Some(output) = flow.poll() {
                self.follow(output, &mut flow).await;
            }
            if let Some(result) = self.result.take() {
                let result = result.map_err(|why| self.named(why));
                self.told_end(&result, began);
                let nodes = self.prepared.names.keys().copied();
                self.scripts.release(self.id, nodes, &self.wiring);
                return result;
            }
            let news = self.news(&flow, &mut came, (&mut look, &mut renew)).await;
            self.take(news, &mut flow).await;
        }
    }

    /// Waits for the next thing that happens.
    async fn news(
        &mut self,
        flow: &Flow,
        came: &mut mpsc::Receiver<StepId>,
        (look, renew): (&mut tokio::time::Interval, &mut tokio::time::Interval),
    ) -> News {
        let open = self.open.front().copied();
        let log = Arc::clone(&self.wiring.log);
        let deadline = flow.deadline().map(|at| {
            let left = at.since(boottime_now()).as_nanos();
            tokio::time::Instant::now() + Duration::from_nanos(left) + Duration::from_millis(1)
        });
        let tick = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((from, answer)) = self.heard.recv() => News::Heard(from, answer.word),
            Some(step) = came.recv() => News::Came(step),
            number = counted(&log, open) => News::Counted(number),
            Some(why) = self.cancelled.recv() => News::Cancelled(why),
            _ = look.tick() => News::Look,
            _ = renew.tick() => News::Renew,
            () = tick => News::Tick,
        }
    }

    async fn take(&mut self, news: News, flow: &mut Flow) {
        let now = boottime_now();
        match news {
            News::Heard(from, word) => {
                if let Some(input) = self.word(from, word) {
                    flow.handle(now, input);
                }
            }
            News::Came(step) => {
                self.came.insert(step, self.entries);
                self.met(step, flow);
            }
            News::Counted(number) => {
                self.open.pop_front();
                flow.handle(now, Input::Appended(number));
            }
            News::Cancelled(why) => flow.handle(now, Input::Cancel(why)),
            News::Look => self.look(flow).await,
            News::Renew => self.renew(),
            News::Tick => flow.handle(now, Input::Tick),
        }
    }

    /// What a node's word means for the flow.
    fn word(&self, from: NodeId, word: Word) -> Option<Input> {
        // A node speaks for its own tasks only.
        let own = |task: &TaskId| task.node.node == from;
        match word {
            Word::Running(task) if own(&task) => Some(Input::Running(task)),
            Word::Ended(task, ended) if own(&task) => Some(Input::Ended(task, ended)),
            Word::Unknown(task) if own(&task) => Some(Input::Unknown(task)),
            Word::Gone(task) if own(&task) => Some(Input::Gone(task)),
            Word::Newer(_) => Some(Input::Refused),
            _ => None,
        }
    }

    /// Does what the flow wants.
    async fn follow(&mut self, output: Output, flow: &mut Flow) {
        match output {
            Output::Append { number, entry } => {
                let place = self.append(number, &entry).await;
                self.entries = number;
                self.open.push_back((number, place));
                self.show(&entry);
            }
            Output::Send(task) => {
                let start = self.start(task);
                self.tell(task, Order::Run(task), start);
            }
            Output::Ask(task) => self.tell(task, Order::Ask(task), None),
            Output::Stop(task) => self.tell(task, Order::Stop(task), None),
            Output::Watch { step, after } => {
                self.watched.insert(step, after);
                self.met(step, flow);
            }
            Output::Finished(result) => self.result = Some(result),
            Output::Deposed => self.result = Some(Err("another node drives it".into())),
        }
    }

    fn start(&self, task: TaskId) -> Option<Start> {
        let step = self.prepared.plan.steps.get(task.step as usize)?;
        match &step.kind {
            StepKind::Run { task, arguments, .. } => {
                let (task, arguments) = (task.clone(), arguments.clone());
                Some(Start { task, arguments, within: step.within })
            }
            _ => None,
        }
    }

    fn tell(&self, task: TaskId, order: Order, start: Option<Start>) {
        let method = Method::Task { order, start };
        let request = Request { flow: self.id, epoch: EPOCH, method };
        self.scripts.ask(task.node.node, &request, &self.wiring);
    }

    /// A step goes on if a record came that counts for it.
    fn met(&self, step: StepId, flow: &mut Flow) {
        let after = self.watched.get(&step);
        if let (Some(after), Some(came)) = (after, self.came.get(&step))
            && came >= after
        {
            flow.handle(boottime_now(), Input::Met(step));
        }
    }

    /// Looks who is there.
    async fn look(&mut self, flow: &mut Flow) {
        let Some(view) = catalog::view(&self.wiring.core).await else { return };
        let now = boottime_now();
        for id in self.prepared.names.keys() {
            let node = view.nodes.iter().find(|node| node.node == *id && node.reachable);
            if let Some(node) = node {
                self.away.remove(id);
                let incarnation = node.record.incarnation;
                flow.handle(now, Input::NodeUp(Member { node: *id, incarnation }));
                continue;
            }
            let since = *self.away.entry(*id).or_insert(now);
            if u128::from(now.since(since).as_nanos()) >= LOST_AFTER.as_nanos() {
                flow.handle(now, Input::NodeLost(*id));
            }
        }
    }

    fn renew(&self) {
        let order = Order::Bind { hold: self.prepared.plan.synchronised };
        let method = Method::Task { order, start: None };
        let request = Request { flow: self.id, epoch: EPOCH, method };
        for node in self.prepared.names.keys() {
            self.scripts.ask(*node, &request, &self.wiring);
        }
    }

    /// Begins to watch for all steps that wait. The receiver hears of each record that fits.
    async fn watch(&self) -> mpsc::Receiver<StepId> {
        let (sender, came) = mpsc::channel(256);
        let steps = self.prepared.plan.steps.iter().zip(0..);
        let waits: Vec<(StepId, String)> = steps
            .filter_map(|(step, id)| match &step.kind {
                StepKind::Wait { event, filter } => {
                    let more = filter.as_ref().map(|filter| format!(" && ({filter})"));
                    let more = more.unwrap_or_default();
                    Some((id, format!("follow event == \"{event}\"{more}")))
                }
                _ => None,
            })
            .collect();
        if waits.is_empty() {
            // It never says anything: the sender lives as long as the flow.
            tokio::spawn(async move { sender.closed().await });
            return came;
        }
        let log = &self.wiring.log;
        let cursors = ask::cursors(log, &self.wiring).await;
        for (step, text) in waits {
            // The check has read the same filter.
            let Ok(query) = jizoku_log::query::parse(&text, &Schemas::new()) else { continue };
            let (lines_in, mut lines) = mpsc::channel(64);
            let (log, wiring) = (Arc::clone(log), Arc::clone(&self.wiring));
            tokio::spawn(ask::follow_from(log, wiring, (text, query), cursors.clone(), lines_in));
            let sender = sender.clone();
            tokio::spawn(async move {
                loop {
                    let line = tokio::select! {
                        line = lines.recv() => line,
                        () = sender.closed() => return,
                    };
                    match line {
                        Some(LogLine::Record(_)) if sender.send(step).await.is_err() => return,
                        Some(_) => {}
                        None => return,
                    }
                }
            });
        }
        came
    }

    /// Writes an entry. Gives when it counts.
    async fn append(&self, number: u64, entry: &Entry) -> Option<u64> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let text;
        let (what, task, detail) = match entry {
            Entry::Taken { .. } => ("taken", None, ""),
            Entry::Sent(task) => ("sent", Some(*task), ""),
            Entry::Ended(task, Ended::Succeeded) => ("succeeded", Some(*task), ""),
            Entry::Ended(task, Ended::Failed(failed)) => {
                ("failed", Some(*task), failed.message.as_str())
            }
            Entry::Lost(task) => ("lost", Some(*task), ""),
            Entry::Met(step) | Entry::Elapsed(step) => {
                text = step.to_string();
                let met = matches!(entry, Entry::Met(_));
                (if met { "met" } else { "elapsed" }, None, text.as_str())
            }
            Entry::Cancelled(why) => ("cancelled", None, why.as_str()),
            Entry::Finished(Ok(())) => ("finished", None, ""),
            Entry::Finished(Err(why)) => ("finished", None, why.as_str()),
        };
        let node = task.map(|task| self.prepared.name(task.node.node)).unwrap_or_default();
        let name = task.map(|task| self.task(task)).unwrap_or_default();
        let mut fields = vec![
            ("entry", ValueRef::Int(number)),
            ("epoch", ValueRef::Int(i64::try_from(EPOCH).unwrap_or(i64::MAX))),
            ("what", ValueRef::Str(what)),
        ];
        if let Some(task) = task {
            fields.push(("task", ValueRef::Str(&name)));
            fields.push(("node", ValueRef::Str(&node)));
            fields.push(("step", ValueRef::Int(task.step.into())));
            fields.push(("attempt", ValueRef::Int(task.attempt.into())));
        }
        if !detail.is_empty() {
            fields.push(("detail", ValueRef::Str(detail)));
        }
        loop {
            match record(&self.wiring, self.id, ("flow.entry", Level::Debug, true), &fields) {
                Taken::As(_, place) => return place,
                Taken::Dropped | Taken::Full => tokio::time::sleep(FULL_AGAIN).await,
            }
        }
    }

    /// The same, with what people call the nodes.
    fn named(&self, why: String) -> String {
        let names = &self.prepared.names;
        names.iter().fold(why, |why, (node, name)| why.replace(&format!("{node:?}"), name))
    }

    fn task(&self, task: TaskId) -> String {
        self.start(task).map(|start| start.task).unwrap_or_default()
    }

    /// Shows an entry to whoever reads, and to those who ask for flows.
    fn show(&mut self, entry: &Entry) {
        let now = boottime_now();
        let (task, state, symbol, detail) = match entry {
            Entry::Sent(task) => {
                self.sent.insert(*task, now);
                (*task, "sent", "", String::new())
            }
            Entry::Ended(task, Ended::Succeeded) => (*task, "succeeded", "", String::new()),
            Entry::Ended(task, Ended::Failed(failed)) => {
                let place = match failed.at {
                    (0, _) => String::new(),
                    (line, column) => format!(" ({line}:{column})"),
                };
                let detail = format!("{}{place}", failed.message);
                (*task, "failed", failed.cause.symbol(), detail)
            }
            Entry::Lost(task) => (*task, "failed", "outcome_unknown", "another attempt".into()),
            Entry::Met(step) => {
                let step = self.prepared.plan.steps.get(*step as usize);
                if let Some(StepKind::Wait { event, .. }) = step.map(|step| &step.kind) {
                    self.lines.say(RunLine::Met(event.clone()));
                }
                return;
            }
            _ => return,
        };
        let since = match state {
            "sent" => Some(now),
            _ => {
                self.ended += 1;
                self.sent.remove(&task)
            }
        };
        self.lines.say(RunLine::Task(TaskLine {
            step: task.step,
            task: self.task(task),
            node: self.prepared.name(task.node.node),
            attempt: task.attempt,
            state: state.to_string(),
            symbol: symbol.to_string(),
            detail,
            took_us: now.since(since.unwrap_or(now)).as_micros(),
        }));
        if let Some(driven) = self.scripts.driven().get_mut(&self.id) {
            let running = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
            driven.status.tasks = (running, self.ended);
        }
    }

    fn told_start(&self, who: &str) {
        let (needs, role) = (self.prepared.needs().join(" "), &self.prepared.role.0);
        let mut nodes: Vec<&str> = self.prepared.names.values().map(String::as_str).collect();
        nodes.sort_unstable();
        let fields = [
            ("flow", ValueRef::Str(&self.prepared.plan.flow)),
            ("who", ValueRef::Str(who)),
            ("role", ValueRef::Str(role)),
            ("needs", ValueRef::Str(&needs)),
            ("nodes", ValueRef::Str(&nodes.join(" "))),
            ("synchronised", ValueRef::Bool(self.prepared.plan.synchronised)),
        ];
        // If the pool is full, the entries that follow wait until it isn't.
        record(&self.wiring, self.id, ("flow.start", Level::Info, true), &fields);
    }

    fn told_end(&self, result: &Result<(), String>, began: Instant) {
        let took = boottime_now().since(began).as_nanos();
        let (level, status) = match result {
            Ok(()) => (Level::Info, "Succeeded"),
            Err(_) => (Level::Error, "Failed"),
        };
        let fields = [
            ("flow", ValueRef::Str(&self.prepared.plan.flow)),
            ("status", ValueRef::Str(status)),
            ("detail", ValueRef::Str(result.as_ref().err().map_or("", String::as_str))),
            ("took", ValueRef::Duration(i64::try_from(took).unwrap_or(i64::MAX))),
        ];
        // Likewise: the entry that it has finished is safe.
        record(&self.wiring, self.id, ("flow.end", level, true), &fields);
    }
}

/// Waits until an entry is safe; for ever, if there is none.
async fn counted(log: &LogPool, open: Option<(u64, Option<u64>)>) -> u64 {
    let Some((number, place)) = open else { return std::future::pending().await };
    if let Some(place) = place {
        while log.has_partner() && !log.counts(place, COUNT_AGAIN).await {}
    }
    number
}
