//! What the parser makes of right and wrong texts.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::parser::parse;
use super::tree::{ExprKind, Item, Script, StepKind, StmtKind};
use crate::problem::{Problems, line_and_column};

fn read(text: &str) -> (Script, Vec<(usize, usize, String)>) {
    let mut problems = Problems::default();
    let script = parse(text, &mut problems);
    let list = problems.in_order();
    let place = |at: u32| line_and_column(text, at as usize);
    let found = list.into_iter().map(|problem| {
        let (line, column) = place(problem.place.start);
        (line, column, problem.message)
    });
    (script, found.collect())
}

const GOOD: &str = r#"jizoku 1

event cpu { pct: float }   # schemas
event web.up {
    port: int,
    status: int,
}

task restart_web(port: int = 8080) idempotent {
    service.restart("nginx")
    let r = http.get("http://127.0.0.1:{port}/health")
    ensure r.status == 200 && !(r.body has "error"), "web answered {r.status}"
    var n = 0; n = n + 1
    for line in lines(r.body) { if line == "" { continue } else { break } }
    if let x = try file.read("/etc/hosts") { return }
    let code = sh.ask("""
        redis-cli -p $port flushall
    """, port: port).code
    log.emit("web.up", port: port, status: r.status)
    let u = log.count("cpu", since: 5m, where pct > 90.0 && (host == "a" || host == "b"))
    let d = 1h30m
}

flow heal(port: int) synchronised within 5m {
    run restart_web(port) on "role:web" limit 2 within 30s
        on failure { pause 1s }
    wait log "web.up" where port == $port
        && status == 200 within 10s
    par limit 5 {
        run restart_web(1) on "role:db" within 60s
        seq {
            barrier ready
        } recover { fail "no" }
    }
    for zone in ["a", "b"] { run restart_web(2) on "zone:{zone}" }
} on failure { pause 1s }

monitor cpu every 5s on "all" { log.emit("cpu", pct: host.cpu()) }

on log "cpu" where pct > 90.0 for 30s by host at most 3 in 10m then stop do heal(80)
on log "cpu" where pct > 90.0
    for 30s
    do heal(80)
"#;

#[test]
fn a_good_script_is_read_whole() {
    let (script, problems) = read(GOOD);
    assert_eq!(problems, []);
    assert_eq!(script.items.len(), 7);
    let Item::Flow(flow) = &script.items[3] else { panic!("a flow") };
    assert_eq!(flow.body.len(), 4);
    let StepKind::Wait { filter: Some(filter), .. } = &flow.body[1].kind else { panic!("wait") };
    assert_eq!(filter.of(GOOD), "port == $port\n        && status == 200");
    assert!(flow.body[1].within.is_some());
    let Item::Task(task) = &script.items[2] else { panic!("a task") };
    let StmtKind::Let { value, .. } = &task.body.stmts[7].kind else { panic!("let") };
    assert!(matches!(value.kind, ExprKind::Field(..)));
}

#[test]
fn ten_mistakes_are_reported_in_order() {
    let text = r#"event cpu { pct float }
task a( {
}
task b() {
    let = 3
    let x 4
    servce.restart("a"
    ensure
    while true { x() }
    let y = "abc
    let z = 3x
    fail "{"
    a < b < c
}
flw c { }
flow d {
    restart()
    run b() within 3s
}
on log "x" go d
"#;
    let (_, problems) = read(text);
    let lines: Vec<usize> = problems.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20], "{problems:#?}");
    assert_eq!(problems[2], (5, 9, "expected a name, but found `=`".to_string()));
}

#[test]
fn a_brace_that_is_missing_does_not_swallow_the_next_item() {
    let (script, problems) = read("task a() {\n    fail \"x\"\n\ntask b() {\n}\n");
    assert_eq!(script.items.len(), 2);
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].0, problems[0].1), (1, 10));
}

#[test]
fn nesting_without_end_is_refused_and_costs_no_stack() {
    for open in ["(", "[", "-", "!", "try ", "x[", "a.b(", "{", "\"{", "1+", "[int?"] {
        for front in ["task a() { let x = ", "flow a { ", "event a { b: "] {
            let text = [front, &open.repeat(50_000)].concat();
            let (_, problems) = read(&text);
            assert!(!problems.is_empty(), "{open}");
        }
    }
    let (_, problems) = read(&["task a() { if x ", &"{ if x ".repeat(9_000)].concat());
    assert!(!problems.is_empty());
    let (_, problems) = read(&["task a() { let x = 1", &" + 1".repeat(9_000), " }"].concat());
    assert!(problems[0].2.contains("parts"), "{problems:?}");
}

#[test]
fn any_cut_of_a_script_is_read_without_panic() {
    for at in 0..GOOD.len() {
        read(&GOOD[..at]);
        read(&GOOD[at..]);
    }
}

#[test]
fn texts_are_unescaped_and_raw_ones_lose_their_indent() {
    let (script, problems) = read(
        "task a() {\n  fail \"a\\n\\{b\\} {x}!\"\n  fail \"\"\"\n    if\n      x\n  \"\"\"\n}",
    );
    assert_eq!(problems, []);
    let Item::Task(task) = &script.items[0] else { panic!("a task") };
    let text = |at: usize| match &task.body.stmts[at].kind {
        StmtKind::Fail(value) => alloc::format!("{:?}", value.kind),
        _ => panic!("fail"),
    };
    assert!(text(0).contains(r#"Text("a\n{b} ")"#), "{}", text(0));
    assert!(text(1).contains(r#"Text("if\n  x\n")"#), "{}", text(1));
}
