//! What the checker finds, and what it lets through.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{PartKind, check};
use crate::offer::Offer;
use crate::permission::{Permission, Permissions};
use crate::problem::{Report, line_and_column};

fn offer() -> Offer {
    let set = |list: &[&str]| Some(list.iter().map(|name| (*name).to_string()).collect());
    Offer {
        host: "web1".into(),
        services: set(&["kv", "nginx"]),
        nodes: set(&["web1", "db1"]),
        labels: set(&["role:web", "role:db"]),
        units: set(&["nginx.service", "ssh.service"]),
        programs: set(&["pg_ctl", "redis-cli"]),
        ..Offer::unknown()
    }
}

/// What is wrong with a task's body.
fn body(text: &str) -> Vec<(String, Option<String>)> {
    let script =
        format!("event cpu {{ pct: float, core: int? }}\ntask t(n: int, s: str) {{\n{text}\n}}\n");
    let found = check(&script, &offer(), None).problems;
    found.into_iter().map(|problem| (problem.message, problem.hint)).collect()
}

#[track_caller]
fn one(text: &str, message: &str, hint: &str) {
    let found = body(text);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    assert!(found[0].0.contains(message), "{text}: {found:?}");
    assert!(found[0].1.as_deref().unwrap_or("").contains(hint), "{text}: {found:?}");
}

#[track_caller]
fn fine(text: &str) {
    assert_eq!(body(text), [], "{text}");
}

#[test]
fn right_statements_pass() {
    for text in [
        "let x = n + 1\nensure x > 2 && s has \"a\", \"{x} {s}\"",
        "let x: float = 3\nensure x == 3",
        "let r = http.get(\"http://{s}:{n}/\", within: 3s)\nensure r.status == 200",
        "let r = try http.get(s) else { fail \"no\" }\nensure r.took < 2s",
        "if let r = try http.get(s) { ensure r.status == 200 } else { return }",
        "ensure try service.restart(\"kv\"), \"no\"",
        "var c = 0\nfor l in lines(s) { if l == \"\" { continue }\nc = c + len(l) }\nensure c > 0",
        "log.emit(\"cpu\", pct: host.cpu())\nlog.emit(\"cpu\", pct: 3, core: n, level: \"warn\")",
        "let last = log.last(\"cpu\") else { return }\nensure last.pct < 5.0 && last.host != s",
        "for r in log.all(\"cpu\", since: 1h) { ensure (r.core ?? 0) < 9 }",
        "sh.run(\"redis-cli -p $port flushall\", port: n, within: 5s)",
        "let out = sh.ask(\"\"\"\n  x=1; echo $x ${y:-2}\n\"\"\")\nensure out.code == 0, out.err",
        "let list = [1, 2] + [n]\nensure (list[0] ?? 0) == 1 && list has 3",
        "let m = host.memory()\nensure m.free > 64MiB && m.free / m.total > 0.1",
        "let a: int? = none\nensure a == none || a == 3",
        "unit.restart(\"nginx\")\nunit.restart(\"ssh.service\")",
        "let x = max([1, 2.5]) ?? 0\nensure x > 1",
        "let late = host.uptime() > 2 * 1h + 30s\nensure late",
        "command.run(\"pg_ctl\", [\"-D\", s])",
    ] {
        fine(text);
    }
}

#[test]
fn wrong_types_are_told_with_what_to_do() {
    one("service.restart(n)", "`name` is int, but str", "inside a text");
    one("ensure n", "condition is int, but bool", "");
    one("let x: int = s", "value is str, but int", "int(text)");
    one("let x = int(s) + 1", "`+` doesn't join int? and int", "absent");
    one("let x = s + n", "doesn't join str and int", "inside a text");
    one("clock.sleep(5)", "`time` is int, but duration", "30s");
    one("let x = n.port", "int has no fields", "");
    one("let r = http.get(s)\nensure r.stats == 200", "no field `stats`", "`status`");
    one("let r = try http.get(s)\nensure r.status == 200", "no fields", "if let");
    one("fail \"{int(s)}\"", "may be absent", "??");
    one("for x in n { }", "a list is expected", "range");
    one("let x = [1, s]", "a list holds values of one type", "");
    one("ensure n < s", "int and str can't be ordered", "");
    one("let x = -s", "`-` needs a number", "");
    one("log.emit(\"cpu\", pct: s)", "`pct` is str, but float", "float(text)");
    one("let l = log.last(\"cpu\") else { return }\nlet x = l.pcd", "no field `pcd`", "`pct`");
}

#[test]
fn wrong_names_are_told_with_what_was_meant() {
    one("servic.restart(s)", "no function `servic.restart`", "`service.restart`");
    one("service.bounce(s)", "no function", "there are service.list");
    one("ensure m == 1", "no `m` is known", "");
    one("ensure sn == s", "no `sn` is known", "");
    one("log.emit(\"cpuu\", pct: 1.0)", "no event `cpuu`", "`cpu`");
    one("log.emit(\"web.up\")", "no event `web.up`", "declare it: `event web.up {");
    one("log.emit(\"cpu\", pc: 1.0, pct: 2.0)", "no field `pc`", "`pct`");
    one("log.emit(\"cpu\")", "`cpu` lacks `pct`", "");
    one("log.emit(\"cpu\", pct: 1, level: \"wran\")", "no level", "`warn`");
    one("http.get()", "`http.get` lacks `url`", "url: str");
    one("http.get(s, 1s, 2)", "takes at most 2", "");
    one("http.get(s, withn: 1s)", "no parameter `withn`", "`within`");
    one("http.get(s, url: s)", "given twice", "");
    one("let x: string = s", "no type `string`", "`str`");
    one("t(n, s)", "can't call the task", "flows run tasks");
}

#[test]
fn what_is_not_on_the_target_is_told() {
    one("service.restart(\"kvv\")", "no service `kvv`", "`kv`");
    one("unit.restart(\"ngin\")", "web1 has no unit `ngin.service`", "nginx.service");
    one("command.run(\"pg_ctrl\")", "web1 has no program `pg_ctrl`", "`pg_ctl`");
    one("service.move(\"kv\", \"web9\")", "no node `web9`", "`web1`");
    one("sh.run(\"mysqldump x | redis-cli\")", "no program `mysqldump`", "there are");
    fine("sh.run(\"/opt/x | if true; then echo; fi\")");
}

#[test]
fn shell_texts_are_checked() {
    one("sh.run(\"echo {s}\")", "never pasted", "environment");
    one("sh.run(s)", "never pasted", "environment");
    one("sh.run(\"if true; echo\")", "the shell would not read this", "");
    one("sh.run(\"echo $s\")", "uses $s, which isn't set", "pass it: `s: s`");
    one("sh.run(\"echo $prot\", port: n)", "$prot", "pass it");
    one("sh.run(\"echo $x\", x: [1])", "a shell variable holds a text", "");
    let script = "task t() {\n    sh.run(\"\"\"\n        true\n        fi\n    \"\"\")\n}\n";
    let found = check(script, &offer(), None).problems;
    assert_eq!(line_and_column(script, found[0].place.start as usize), (4, 9));
}

#[test]
fn filters_are_checked_against_the_event() {
    fine("let c = log.count(\"cpu\", since: 5m, where pct > 90.0 && core == $n || host == $s)");
    fine("let r = log.wait(\"cpu\", where exists core)\nensure r.pct < 3");
    one("let c = log.count(\"cpu\", where pcd > 1)", "pcd", "pct");
    one("let c = log.count(\"cpu\", where pct > )", "", "");
    one("let c = log.count(\"cpu\", where pct > \"a\")", "", "");
    one("let c = log.count(\"cpu\", where pct > $m)", "no `m`", "");
    one(
        "let l = [n]\nlet c = log.count(\"cpu\", where pct > $l)",
        "a filter compares no [int]",
        "",
    );
    one("let c = host.load(where pct > 1)", "takes no `where`", "");
    let script = "event a { b: int }\nflow f {\n    wait log \"a\" where b > 3 && c == 1\n}\n";
    let found = check(script, &offer(), None).problems;
    assert_eq!(line_and_column(script, found[0].place.start as usize), (3, 33), "{found:?}");
}

#[test]
fn variables_and_control_are_checked() {
    one("let x = 1\nx = 2", "can't be changed", "var x");
    one("var x = 1\nx = s", "value is str, but int", "");
    one("let n = 1", "a name already", "choose another");
    one("break", "no loop", "");
    one("return\nfail s", "never reached", "");
    one("let x = service.stop(\"kv\")", "would hold nothing", "");
    one("n + 1", "nothing is done", "");
    one("let x = n ?? 2", "no use", "");
    one("let x = try n", "can't fail", "");
    one("let r = try http.get(s) else { ensure n == 1 }", "may not go on", "fail, return");
    one("if let x = n { }", "no use", "");
    one("let x = none", "beside `none`", "int?");
    one("ensure x == 1", "no `x`", "");
    fine("if n == 1 { let x = 1\nensure x == 1 }\nlet x = 2\nensure x == 2");
}

const FLOWS: &str = r#"event cpu { pct: float }
task a(port: int) { unit.restart("nginx") }
task b(port: int = 1) { sh.run("redis-cli") }
flow f(port: int, zone: str = "a") within 1m {
    run a(port) on "role:web" limit 2 within 30s recover { pause 1s }
    par limit 3 { run b() on "zone:{zone}" }
    par { seq { barrier x
        run b(port) on "all" }
        seq { barrier x } }
    for p in [1, 2] { run a(p) on "one role:db -node:web1" }
    if port > 3 { fail "no {port}" }
    wait log "cpu" where pct > 3.0 within 5s
} on failure { run b() on "node:db1" }
monitor m every 5s on "all" { log.emit("cpu", pct: host.cpu()) }
on log "cpu" where pct > 90.0 for 30s by host at most 3 in 10m then f(1) do f(port: 2, zone: host)
"#;

#[test]
fn flows_monitors_and_triggers_pass_and_are_listed() {
    let checked = check(FLOWS, &offer(), None);
    assert_eq!(Report::new("f", FLOWS, &checked.problems).to_string(), "");
    let flow = checked.parts.iter().find(|part| part.kind == PartKind::Flow).unwrap();
    assert_eq!(flow.uses, ["a", "b"]);
    assert_eq!(
        flow.targets,
        ["role:web", "zone:{zone}", "all", "one role:db -node:web1", "node:db1"]
    );
    let needs: Vec<&str> = flow.needs.iter().map(Permission::name).collect();
    assert_eq!(needs, ["unit.control", "command.run"]);
    let trigger = checked.parts.last().unwrap();
    assert_eq!((trigger.kind, trigger.needs), (PartKind::Trigger, flow.needs));
    assert!(checked.needs.allow(Permission::LogWrite));
}

#[test]
fn mistakes_of_flows_are_told() {
    for (from, to, message) in [
        ("run a(port) on", "run aa(port) on", "no task `aa`"),
        ("run a(port) on", "run a() on", "lacks `port`"),
        ("run a(port) on", "run a(zone) on", "`port` is str, but int"),
        ("run a(port) on", "run a(1, 2) on", "no such parameter"),
        ("\"role:web\"", "\"role:wbe\"", "no node has the label `role:wbe`"),
        ("\"role:web\"", "\"web\"", "is no target"),
        ("limit 2", "limit 0", "at least 1"),
        ("within 30s", "within 30", "time limit is int, but duration"),
        ("seq { barrier x } }", "seq { barrier y } }", "no other branch"),
        ("    par limit 3 { run", "    par limit 3 { barrier z\n run", "joins the branches"),
        ("within 1m {", "within 1m { barrier q\n", "joins the branches"),
        ("wait log \"cpu\"", "wait log \"cpuu\"", "no event `cpuu`"),
        ("pause 1s", "pause 1", "pause is int"),
        ("if port > 3", "if host.load() > 3", "can't be called here"),
        ("by host", "by hots", "no field `hots`"),
        ("do f(", "do g(", "no flow `g`"),
        ("do f(port: 2", "do a(port: 2", "no flow `a`"),
        ("zone: host)", "zone: pct)", "`zone` is float, but str"),
        ("every 5s", "every 5ms", "at most every 100ms"),
        ("monitor m", "monitor a", "another task or monitor"),
        ("task b(", "task a(", "another task `a`"),
    ] {
        assert!(FLOWS.contains(from), "{from}");
        let text = FLOWS.replacen(from, to, 1);
        let found = check(&text, &offer(), None).problems;
        let told = found.iter().any(|problem| problem.message.contains(message));
        assert!(told, "{to}: {found:?}");
    }
}

#[test]
fn roles_are_part_of_the_check() {
    let viewer = Permissions::of_role("viewer").unwrap();
    let found = check(FLOWS, &offer().for_role("viewer", viewer), None).problems;
    let messages: Vec<&str> = found.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "role `viewer` may not use `unit.restart`",
            "role `viewer` may not use `sh.run`",
            "role `viewer` may not use `log.emit`",
        ]
    );
    assert_eq!(found[0].hint.as_deref(), Some("it needs the permission `unit.control`"));
}

#[test]
fn the_host_is_checked_for_what_runs_there_alone() {
    let mut offer = offer();
    offer.units = Some(BTreeSet::new());
    let here = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect();
    assert_eq!(check(FLOWS, &offer, Some(&here(&["b"]))).problems, []);
    assert_eq!(check(FLOWS, &offer, Some(&here(&["a"]))).problems.len(), 1);
    offer.missing.insert("sh.run".into(), "there is no shell".into());
    let found = check(FLOWS, &offer, Some(&here(&["b"]))).problems;
    assert_eq!(found[0].message, "web1 can't do `sh.run`");
}

#[test]
fn ten_mistakes_give_ten_problems_in_order() {
    let text = r#"event cpu { pct: float }
task t(port: int) {
    servce.restart("nginx")
    let r = http.get("http://127.0.0.1:{prt}/")
    ensure r.status == "ok"
    sh.run("if true; then echo")
    log.emit("cpu", pct: "high")
    let x =
    clock.sleep(3)
}
flow f {
    run t() on "role:web"
    run u() on "role:web"
}
on log "cpu" do g
"#;
    let found = check(text, &offer(), None).problems;
    let lines: Vec<usize> =
        found.iter().map(|p| line_and_column(text, p.place.start as usize).0).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 12, 13, 15], "{}", Report::new("t.jz", text, &found));
}
