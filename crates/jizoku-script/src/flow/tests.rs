//! Flows step by step: order, limits, waits, barriers, failure branches.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};

use super::{ASK_EVERY, Entry, Flow, FlowId, Input, Output, TaskId};
use crate::offer::Offer;
use crate::plan::{Plan, StepId};
use crate::run::{Cause, Ended, Failed};
use crate::script::Script;

const NOW: Instant = Instant::ORIGIN;

pub(super) fn member(n: u8) -> Member {
    Member { node: NodeId([n; 32]), incarnation: Incarnation(1) }
}

/// The nodes of a target: `n:12` means nodes 1 and 2.
pub(super) fn nodes(plan: &Plan) -> BTreeMap<StepId, Vec<Member>> {
    let of = |value: &str| value.bytes().map(|digit| member(digit - b'0')).collect();
    plan.targets().map(|(id, _, target)| (id, of(&target.terms[0].value))).collect()
}

pub(super) fn plan(body: &str) -> Plan {
    let text = alloc::format!(
        "event e {{ n: int }}\ntask a() {{ return }}\ntask b() {{ return }}\n\
         task i() idempotent {{ return }}\nflow f(k: int = 7) {{\n{body}\n}}\n"
    );
    let script = Script::read(&text, &Offer::unknown(), None).expect("a right script");
    script.plan("f", Vec::new()).expect("a plan")
}

/// A flow whose entries are safe at once.
struct Driven {
    flow: Flow,
    now: Instant,
    sent: Vec<TaskId>,
    other: Vec<Output>,
    entries: Vec<Entry>,
}

impl Driven {
    fn new(body: &str) -> Driven {
        let plan = plan(body);
        let nodes = nodes(&plan);
        let flow = Flow::start(NOW, FlowId(1), 1, plan, &nodes).unwrap();
        let (sent, other, entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut driven = Driven { flow, now: NOW, sent, other, entries };
        driven.drain();
        driven
    }

    fn drain(&mut self) {
        while let Some(output) = self.flow.poll() {
            match output {
                Output::Append { number, entry } => {
                    self.entries.push(entry);
                    assert_eq!(number, self.entries.len() as u64);
                    self.flow.handle(self.now, Input::Appended(number));
                }
                Output::Send(task) => self.sent.push(task),
                other => self.other.push(other),
            }
        }
    }

    fn tell(&mut self, input: Input) {
        self.flow.handle(self.now, input);
        self.drain();
    }

    fn wait(&mut self, span: Span) {
        self.now += span;
        self.tell(Input::Tick);
    }

    /// Ends the oldest task that was sent to this node.
    fn end(&mut self, node: u8, ended: Ended) {
        let at = self.sent.iter().position(|task| task.node.node == member(node).node);
        let task = self.sent.remove(at.expect("a task was sent there"));
        self.tell(Input::Ended(task, ended));
    }

    fn good(&mut self, node: u8) {
        self.end(node, Ended::Succeeded);
    }

    fn bad(&mut self, node: u8) {
        let failed = Failed { cause: Cause::Said, message: "no".into(), at: (3, 1) };
        self.end(node, Ended::Failed(failed));
    }

    /// Nodes with tasks under way.
    fn busy(&self) -> Vec<u8> {
        self.sent.iter().map(|task| task.node.node.0[0]).collect()
    }

    fn result(&self) -> Option<Result<(), String>> {
        self.flow.finished().cloned()
    }
}

fn failed_with(driven: &Driven, part: &str) {
    let result = driven.result().expect("it has ended");
    assert!(result.as_ref().is_err_and(|why| why.contains(part)), "{result:?}");
}

#[test]
fn steps_follow_each_other_and_nodes_run_side_by_side() {
    let mut f = Driven::new("run a() on \"n:12\"\nrun b() on \"n:3\"");
    assert_eq!(f.busy(), [1, 2]);
    f.good(2);
    assert_eq!(f.busy(), [1]);
    f.good(1);
    assert_eq!(f.busy(), [3]);
    f.good(3);
    assert_eq!(f.result(), Some(Ok(())));
    assert_eq!(f.other, [Output::Finished(Ok(()))]);
    assert_eq!(f.flow.deadline(), None);
}

#[test]
fn a_failure_lets_what_runs_end_and_fails_what_follows() {
    let mut f = Driven::new("run a() on \"n:1234\" limit 2\nrun b() on \"n:5\"");
    assert_eq!(f.busy(), [1, 2]);
    f.bad(1);
    assert_eq!((f.busy(), f.result()), ([2].into(), None));
    f.good(2);
    assert!(f.busy().is_empty());
    failed_with(&f, "failed on node_01010101: no (3:1)");
}

#[test]
fn limits_hold() {
    let mut f = Driven::new("run a() on \"n:1234\" limit 2");
    f.good(1);
    assert_eq!(f.busy(), [2, 3]);
    let mut f = Driven::new("par limit 1 {\nrun a() on \"n:1\"\nrun a() on \"n:2\" }");
    assert_eq!(f.busy(), [1]);
    f.good(1);
    assert_eq!(f.busy(), [2]);
    f.good(2);
    assert_eq!(f.result(), Some(Ok(())));
}

#[test]
fn a_wait_looks_from_where_the_step_before_it_began() {
    let mut f = Driven::new(
        "run a() on \"n:1\"\nrun b() on \"n:1\"\nwait log \"e\" where n == $k within 3s",
    );
    f.good(1);
    let before = f.entries.len() as u64;
    f.good(1);
    let Some(Output::Watch { step, after }) = f.other.last() else { panic!("{:?}", f.other) };
    // The entry that ended the first step is number 3: the second began behind it.
    assert_eq!((*after, before), (3, 4));
    let step = *step;
    f.tell(Input::Met(step));
    assert_eq!(f.result(), Some(Ok(())));
    let mut f = Driven::new("wait log \"e\" where n == $k within 3s");
    f.wait(Span::secs(2));
    assert_eq!(f.result(), None);
    f.wait(Span::secs(1));
    failed_with(&f, "it took too long");
}

#[test]
fn branches_meet_at_barriers_and_fail_together() {
    let body = "par {\nseq { run a() on \"n:1\"\nbarrier x\nrun b() on \"n:1\" }\n\
        seq { run a() on \"n:2\"\nbarrier x\nrun b() on \"n:2\" } }";
    let mut f = Driven::new(body);
    f.good(1);
    assert_eq!(f.busy(), [2]);
    f.good(2);
    assert_eq!(f.busy(), [1, 2]);
    f.good(1);
    f.good(2);
    assert_eq!(f.result(), Some(Ok(())));
    let mut f = Driven::new(body);
    f.good(1);
    f.bad(2);
    failed_with(&f, "failed on");
}

#[test]
fn time_limits_stop_what_is_inside() {
    let mut f = Driven::new("seq { run a() on \"n:12\"\nrun b() on \"n:3\" } within 5s");
    f.good(1);
    f.wait(Span::secs(5));
    assert!(f.other.iter().any(|o| matches!(o, Output::Stop(task) if task.node == member(2))));
    failed_with(&f, "it took too long");
    let mut f = Driven::new("pause 5s\nrun a() on \"n:1\"");
    assert!(f.busy().is_empty());
    assert_eq!(f.flow.deadline(), Some(NOW + Span::secs(5)));
    f.wait(Span::secs(5));
    assert_eq!(f.busy(), [1]);
}

#[test]
fn failure_branches_run_and_recover_or_not() {
    let mut f =
        Driven::new("run a() on \"n:1\" on failure { run b() on \"n:2\" }\nrun a() on \"n:3\"");
    f.bad(1);
    assert_eq!(f.busy(), [2]);
    f.good(2);
    failed_with(&f, "no (3:1)");
    let mut f =
        Driven::new("run a() on \"n:1\" recover { run b() on \"n:2\" }\nrun a() on \"n:3\"");
    f.bad(1);
    f.good(2);
    assert_eq!(f.busy(), [3]);
    let mut f =
        Driven::new("run a() on \"n:1\" recover { run b() on \"n:2\" }\nrun a() on \"n:3\"");
    f.bad(1);
    f.bad(2);
    failed_with(&f, "; then: failed on node_02020202");
    let f = Driven::new("fail \"because {k}\"");
    failed_with(&f, "because 7");
}

#[test]
fn cancelling_stops_everything_and_handles_nothing() {
    let mut f = Driven::new("run a() on \"n:12\" on failure { run b() on \"n:3\" }");
    f.tell(Input::Cancel("by you".to_string()));
    let stops = f.other.iter().filter(|output| matches!(output, Output::Stop(_))).count();
    assert_eq!(stops, 2);
    failed_with(&f, "cancelled: by you");
    assert_eq!(f.busy(), [1, 2], "nothing new was sent");
}

#[test]
fn lost_nodes_leave_outcomes_unknown_and_only_idempotent_tasks_run_again() {
    let mut f = Driven::new("run a() on \"n:1\"");
    f.tell(Input::NodeLost(member(1).node));
    failed_with(&f, "outcome_unknown");
    let mut f = Driven::new("run i() on \"n:1\" within 1m");
    f.tell(Input::NodeLost(member(1).node));
    assert_eq!((f.sent.len(), f.result()), (1, None));
    // The same incarnation may be running it still.
    f.tell(Input::NodeUp(member(1)));
    assert_eq!(f.sent.len(), 1);
    let fresh = Member { incarnation: Incarnation(2), ..member(1) };
    f.tell(Input::NodeUp(fresh));
    assert_eq!((f.sent.len(), f.sent[1].attempt, f.sent[1].node), (2, 1, fresh));
    let last = f.sent[1];
    f.tell(Input::Ended(last, Ended::Succeeded));
    assert_eq!(f.result(), Some(Ok(())));
}

#[test]
fn silent_tasks_are_asked_about() {
    let mut f = Driven::new("run a() on \"n:1\"");
    let task = f.sent[0];
    f.wait(ASK_EVERY);
    assert_eq!(f.other, [Output::Ask(task)]);
    f.tell(Input::Unknown(task));
    assert_eq!(f.sent, [task, task]);
    f.tell(Input::Running(task));
    f.tell(Input::Ended(task, Ended::Succeeded));
    assert_eq!(f.result(), Some(Ok(())));
}

#[test]
fn nothing_is_done_before_it_is_written() {
    let plan = plan("run a() on \"n:1\"");
    let nodes = nodes(&plan);
    let mut flow = Flow::start(NOW, FlowId(1), 1, plan, &nodes).unwrap();
    let out: Vec<Output> = core::iter::from_fn(|| flow.poll()).collect();
    assert!(out.iter().all(|output| matches!(output, Output::Append { .. })), "{out:?}");
    flow.handle(NOW, Input::Appended(1));
    assert_eq!(flow.poll(), None);
    flow.handle(NOW, Input::Appended(2));
    assert!(matches!(flow.poll(), Some(Output::Send(_))));
    flow.handle(NOW, Input::Refused);
    assert_eq!(flow.poll(), Some(Output::Deposed));
    flow.handle(NOW, Input::Tick);
    assert_eq!((flow.poll(), flow.deadline()), (None, None));
}

#[test]
fn plans_are_unfolded_with_their_values() {
    let plan = plan(
        "for x in [1, 2] { if x > 1 { run a() on \"n:{x}\" } else { pause 1s } }\n\
         par { for y in range(3, 5) { run b() on \"n:{y}\" } }\nwait log \"e\" where n > $k",
    );
    let targets: Vec<String> = plan.targets().map(|(_, _, target)| target.to_string()).collect();
    assert_eq!(targets, ["n:2", "n:3", "n:4"]);
    let text = alloc::format!("{plan:?}");
    assert!(text.contains("Some(\"n > 7\")"), "{text}");
    let none = BTreeMap::new();
    assert!(Flow::start(NOW, FlowId(1), 1, plan, &none).unwrap_err().contains("no node is `n:2`"));
}
