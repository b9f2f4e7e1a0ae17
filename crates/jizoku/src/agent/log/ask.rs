//! A question to all pools: who is asked, and their answers as one stream of lines.
//!
//! Each reachable node is asked for its own records, page by page, and for what it holds of nodes
//! that can't be reached (or are in another incarnation now). Pages are asked for as they are
//! wanted, so a slow reader costs nobody memory. A node that doesn't answer is named at the end.
//!
//! What it does not know: HTTP.
//!
//! Limits: [`ANSWER_WITHIN`] for a page, asked for again after [`AGAIN`]; `KEPT_MAX` records for
//! queries whose last stages have to see all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jizoku_api::log::{Cell, LogEnd, LogLine, NodeChange, RecordForm};
use jizoku_log::query::finish::{self, Table};
use jizoku_log::query::groups::Groups;
use jizoku_log::query::merge::{Merge, Owned};
use jizoku_log::query::run::Part;
use jizoku_log::query::{KEPT_MAX, Mode, Query, Stage};
use jizoku_log::{Record, Schemas, Value};
use jizoku_types::{Channel, Member, NodeId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::ask as catalog;
use super::super::wiring::Wiring;
use super::{Answer, LogMessage, LogPool, Question, Whose, send};

/// How long a page is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// After which it is asked for again: frames may be lost.
const AGAIN: Duration = Duration::from_millis(700);
/// How often it is looked who is there, while a query follows.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where lines go. An error: nobody reads any more.
pub(crate) type Lines = mpsc::Sender<LogLine>;

/// One stream: of a node's own records, or of what it holds of others.
type Line = (NodeId, Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Own,
    /// Of nodes that can't be reached, or began anew.
    Absent,
    /// Of a node that fell silent.
    Silent(NodeId),
}

struct Asker {
    log: Arc<LogPool>,
    wiring: Arc<Wiring>,
    text: String,
    query: Query,
    /// Those that can be reached, with what people call them.
    nodes: BTreeMap<NodeId, String>,
    alive: Vec<Member>,
    end: LogEnd,
    silent: BTreeSet<NodeId>,
    /// The number of the last record that each node said itself.
    shown: BTreeMap<NodeId, u64>,
}

/// Answers a query that was checked, line by line.
pub(crate) async fn run(
    log: Arc<LogPool>,
    wiring: Arc<Wiring>,
    (text, query): (String, Query),
    lines: Lines,
) {
    let mut asker = Asker::new(log, wiring, (text, query)).await;
    // Whoever asked may be gone: then there is nothing more to do.
    let _ = if asker.query.mode == Mode::Follow {
        asker.follow(&lines, Following::default()).await
    } else {
        asker.once(&lines).await
    };
}

/// Where all pools stand now: what comes later is behind these. A node that doesn't answer is left
/// out.
pub(crate) async fn cursors(log: &Arc<LogPool>, wiring: &Arc<Wiring>) -> BTreeMap<NodeId, u64> {
    let text = "follow".to_string();
    let Ok(query) = jizoku_log::query::parse(&text, &Schemas::new()) else {
        return BTreeMap::new();
    };
    let asker = Asker::new(Arc::clone(log), Arc::clone(wiring), (text, query)).await;
    let mut pages: Pages = JoinSet::new();
    for node in asker.nodes.keys() {
        asker.fetch(&mut pages, (*node, Kind::Own), None, Duration::ZERO);
    }
    let mut cursors = BTreeMap::new();
    while let Some(page) = pages.join_next().await {
        if let Ok(((node, _), Some(Answer::Own { next, .. }))) = page {
            cursors.insert(node, next);
        }
    }
    cursors
}

/// Follows a query from where pools stood, until nobody reads any more.
pub(crate) async fn follow_from(
    log: Arc<LogPool>,
    wiring: Arc<Wiring>,
    (text, query): (String, Query),
    cursors: BTreeMap<NodeId, u64>,
    lines: Lines,
) {
    let mut asker = Asker::new(log, wiring, (text, query)).await;
    let following = Following { cursors, ..Following::default() };
    // Nobody reads any more: then there is nothing more to do.
    let _ = asker.follow(&lines, following).await;
}

type Gone = mpsc::error::SendError<LogLine>;
type Pages = JoinSet<(Line, Option<Answer>)>;

/// Where a query that follows is.
#[derive(Default)]
struct Following {
    /// Those that a page is wanted of.
    asked: BTreeSet<NodeId>,
    /// Those that were said not to answer.
    away: BTreeSet<NodeId>,
    cursors: BTreeMap<NodeId, u64>,
}

impl Asker {
    /// Somebody who knows whom to ask.
    async fn new(log: Arc<LogPool>, wiring: Arc<Wiring>, (text, query): (String, Query)) -> Asker {
        let (nodes, alive, end, silent, shown) = Default::default();
        let mut asker = Asker { log, wiring, text, query, nodes, alive, end, silent, shown };
        asker.look().await;
        asker
    }

    /// Who can be reached now.
    async fn look(&mut self) {
        let me = self.wiring.me;
        let view = catalog::view(&self.wiring.core).await;
        let nodes = view.map(|view| view.nodes).unwrap_or_default();
        self.nodes = BTreeMap::from([(me.node, self.log.host().to_string())]);
        self.alive = vec![me];
        self.end.unreachable.clear();
        for node in nodes.iter().filter(|node| node.node != me.node) {
            if node.reachable {
                self.nodes.insert(node.node, node.record.name.clone());
                let incarnation = node.record.incarnation;
                self.alive.push(Member { node: node.node, incarnation });
            } else {
                self.end.unreachable.push(node.record.name.clone());
            }
        }
    }

    fn question(&self, line: Line, from: Option<u64>, wait: Duration) -> Question {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(0);
        let of = match line.1 {
            Kind::Own => Whose::Own,
            Kind::Absent => Whose::AllBut(self.alive.clone()),
            Kind::Silent(node) => Whose::Of(node),
        };
        Question { query: self.text.clone(), from, wait_ms, of }
    }

    /// All records or groups that are there.
    async fn once(&mut self, lines: &Lines) -> Result<(), Gone> {
        let mut groups = Groups::default();
        let mut kept: Vec<Owned<NodeId>> = Vec::new();
        let mut first = self.query.stages.iter().find_map(|stage| match stage {
            Stage::First(most) => Some(*most),
            _ => None,
        });
        if self.query.streams()
            && let Some(columns) = finish::columns(&self.query)
        {
            lines.send(LogLine::Columns(columns)).await?;
        }
        let all: Vec<Line> = self
            .nodes
            .keys()
            .flat_map(|node| [(*node, Kind::Own), (*node, Kind::Absent)])
            .collect();
        let mut merge: Merge<Line, NodeId> = Merge::new(all.iter().copied());
        let mut pages: Pages = JoinSet::new();
        for line in all {
            self.fetch(&mut pages, line, None, Duration::ZERO);
        }
        while let Some(page) = pages.join_next().await {
            let Ok((line, answer)) = page else { continue };
            self.take(&mut merge, &mut groups, (line, answer), &mut pages);
            while let Some(owned) = merge.poll() {
                if !self.query.streams() {
                    self.keep(&mut kept, &mut groups, owned);
                } else if first != Some(0) {
                    first = first.map(|left| left - 1);
                    lines.send(self.line(owned.owner, &owned.record)).await?;
                }
            }
            if first == Some(0) {
                break;
            }
        }
        if self.query.grouping().is_some() {
            self.end.left_out += groups.left_out;
            table(lines, finish::groups(&self.query, &groups)).await?;
        } else if !self.query.streams() {
            self.rest(kept, lines).await?;
        }
        self.finish(lines).await
    }

    async fn finish(&mut self, lines: &Lines) -> Result<(), Gone> {
        let mut end = std::mem::take(&mut self.end);
        for (node, name) in &self.nodes {
            let list =
                if self.silent.contains(node) { &mut end.unreachable } else { &mut end.nodes };
            list.push(name.clone());
        }
        end.unreachable.sort();
        lines.send(LogLine::End(end)).await
    }

    /// Keeps a record for the last stages.
    fn keep(&mut self, kept: &mut Vec<Owned<NodeId>>, groups: &mut Groups, owned: Owned<NodeId>) {
        if let Some(grouping) = self.query.grouping() {
            // What is held of others comes as records: they make groups here.
            groups.add(grouping, &owned.record);
        } else if kept.len() < KEPT_MAX {
            kept.push(owned);
        } else {
            self.end.left_out += 1;
        }
    }

    /// Does the last stages.
    async fn rest(&mut self, kept: Vec<Owned<NodeId>>, lines: &Lines) -> Result<(), Gone> {
        match finish::records(&self.query, kept) {
            finish::Answer::Table(rows) => table(lines, rows).await,
            finish::Answer::Records(records) => {
                for owned in records {
                    lines.send(self.line(owned.owner, &owned.record)).await?;
                }
                Ok(())
            }
        }
    }

    fn line(&self, node: NodeId, record: &Record) -> LogLine {
        match finish::project(&self.query, record) {
            Some(row) => LogLine::Row(cells(row)),
            None => LogLine::Record(RecordForm::new(node, record)),
        }
    }

    /// Takes a page, and asks for the next one.
    fn take(
        &mut self,
        merge: &mut Merge<Line, NodeId>,
        groups: &mut Groups,
        (line, answer): (Line, Option<Answer>),
        pages: &mut Pages,
    ) {
        match answer {
            None => {
                if self.silent.insert(line.0) {
                    self.ask_for(line.0, merge, pages);
                }
                merge.end(&line);
            }
            Some(Answer::Refused(why)) => {
                self.end.problem.get_or_insert(why);
                merge.end(&line);
            }
            Some(Answer::Own { part, next, more, missed, left_out }) => {
                self.end.missed = self.end.missed.saturating_add(missed);
                self.end.left_out = self.end.left_out.saturating_add(left_out);
                match part {
                    Part::Records(records) => {
                        if let Some(last) = records.last() {
                            self.shown.insert(line.0, last.seq);
                        }
                        let owned = |record| Owned { owner: line.0, record };
                        merge.push(&line, records.into_iter().map(owned));
                    }
                    Part::Groups(part) => {
                        // What doesn't fit is of another version.
                        if self.query.grouping().is_some_and(|grouping| part.fits(grouping)) {
                            groups.merge(part);
                        }
                    }
                }
                if more {
                    self.fetch(pages, line, Some(next), Duration::ZERO);
                } else {
                    merge.end(&line);
                }
            }
            Some(Answer::Held { records, next, more }) => {
                let owned = records.into_iter().map(|(owner, record)| Owned { owner, record });
                // What a node said itself before it fell silent isn't shown again.
                let shown = match line.1 {
                    Kind::Silent(node) => self.shown.get(&node).copied().unwrap_or(0),
                    _ => 0,
                };
                merge.push(&line, owned.filter(|owned| owned.record.seq > shown));
                if more {
                    self.fetch(pages, line, Some(next), Duration::ZERO);
                } else {
                    merge.end(&line);
                }
            }
        }
    }

    /// A node doesn't answer, though it can be reached: what others hold of it is wanted, before
    /// anything goes on.
    fn ask_for(&self, silent: NodeId, merge: &mut Merge<Line, NodeId>, pages: &mut Pages) {
        for node in self.nodes.keys().filter(|node| !self.silent.contains(node)) {
            let line = (*node, Kind::Silent(silent));
            merge.add(line);
            self.fetch(pages, line, None, Duration::ZERO);
        }
    }

    /// Asks for a page.
    fn fetch(&self, pages: &mut Pages, line: Line, from: Option<u64>, wait: Duration) {
        let question = self.question(line, from, wait);
        let (log, wiring) = (Arc::clone(&self.log), Arc::clone(&self.wiring));
        pages.spawn(async move { (line, page(&log, &wiring, line.0, question).await) });
    }

    /// What is there, if that is wanted, and all that comes, until nobody reads any more.
    async fn follow(&mut self, lines: &Lines, mut following: Following) -> Result<(), Gone> {
        if let Some(columns) = finish::columns(&self.query) {
            lines.send(LogLine::Columns(columns)).await?;
        }
        let mut pages: Pages = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        while !lines.is_closed() {
            tokio::select! {
                Some(page) = pages.join_next() => {
                    if let Ok(page) = page {
                        self.came(page, &mut following, &mut pages, lines).await?;
                    }
                }
                _ = look.tick() => self.look_again(&mut following, &mut pages, lines).await?,
            }
        }
        Ok(())
    }

    /// Shows what a node said, and asks it for what comes after that.
    async fn came(
        &mut self,
        ((node, _), answer): (Line, Option<Answer>),
        following: &mut Following,
        pages: &mut Pages,
        lines: &Lines,
    ) -> Result<(), Gone> {
        let Some(Answer::Own { part: Part::Records(records), next, missed, .. }) = answer else {
            // Asked again when it is looked who is there.
            following.asked.remove(&node);
            self.silent.insert(node);
            return Ok(());
        };
        if missed > 0 {
            lines.send(LogLine::End(LogEnd { missed, ..LogEnd::default() })).await?;
        }
        for record in &records {
            lines.send(self.line(node, record)).await?;
        }
        self.silent.remove(&node);
        following.cursors.insert(node, next);
        self.fetch(pages, (node, Kind::Own), Some(next), super::answer::WAIT_MAX);
        Ok(())
    }

    /// Says who came and who went, and asks those that aren't asked.
    async fn look_again(
        &mut self,
        following: &mut Following,
        pages: &mut Pages,
        lines: &Lines,
    ) -> Result<(), Gone> {
        let before = self.nodes.clone();
        self.look().await;
        let lost = before.keys().filter(|node| !self.nodes.contains_key(node)).copied();
        let lost: Vec<NodeId> = lost.chain(self.silent.clone()).collect();
        for node in lost {
            if following.away.insert(node) {
                self.change(&before, node, false, lines).await?;
            }
        }
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            if following.asked.insert(node) {
                let from = following.cursors.get(&node).copied();
                self.fetch(pages, (node, Kind::Own), from, super::answer::WAIT_MAX);
            }
            if !self.silent.contains(&node) && following.away.remove(&node) {
                self.change(&self.nodes, node, true, lines).await?;
            }
        }
        Ok(())
    }

    async fn change(
        &self,
        names: &BTreeMap<NodeId, String>,
        node: NodeId,
        answers: bool,
        lines: &Lines,
    ) -> Result<(), Gone> {
        let node = names.get(&node).cloned().unwrap_or_else(|| node.short());
        lines.send(LogLine::Node(NodeChange { node, answers })).await
    }
}

fn cells(row: Vec<Option<Value>>) -> Vec<Option<Cell>> {
    row.iter().map(|value| value.as_ref().map(Cell::from)).collect()
}

async fn table(lines: &Lines, table: Table) -> Result<(), Gone> {
    lines.send(LogLine::Columns(table.columns)).await?;
    for row in table.rows {
        lines.send(LogLine::Row(cells(row))).await?;
    }
    Ok(())
}

/// Asks one node for a page, again if need be. `None`: it doesn't answer.
async fn page(log: &LogPool, wiring: &Wiring, node: NodeId, question: Question) -> Option<Answer> {
    if node == wiring.me.node {
        return Some(log.answer(&question).await);
    }
    let number = log.next.fetch_add(1, Ordering::Relaxed);
    let (sender, mut answers) = mpsc::channel(1);
    log.asked.lock().expect("no panic while locked").insert(number, sender);
    let _forget = Forget { log, number };
    let wait = Duration::from_millis(question.wait_ms);
    let give_up = tokio::time::Instant::now() + wait + ANSWER_WITHIN;
    // One that waits for records is asked once: silence says nothing.
    let again = if wait.is_zero() { AGAIN } else { wait + ANSWER_WITHIN };
    loop {
        let message = LogMessage::Ask { number, question: question.clone() };
        send(wiring, node, Channel::State, &message);
        match tokio::time::timeout(again, answers.recv()).await {
            Ok(answer) => return answer,
            Err(_) if tokio::time::Instant::now() >= give_up => return None,
            Err(_) => {}
        }
    }
}

/// Takes a question off the list, however its asker ends.
struct Forget<'l> {
    log: &'l LogPool,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.log.asked.lock().expect("no panic while locked").remove(&self.number);
    }
}
