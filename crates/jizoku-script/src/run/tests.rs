//! Runs: what they compute, what they ask for, how they end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::{Instant, Span};

use super::{Cause, Ended, HostCall, Input, Output, Run};
use crate::offer::Offer;
use crate::permission::{Permission, Permissions};
use crate::problem::Report;
use crate::script::Script;
use crate::value::Value;

const NOW: Instant = Instant::ORIGIN;

fn script(text: &str) -> Script {
    match Script::read(text, &Offer::unknown(), None) {
        Ok(script) => script,
        Err(problems) => panic!("{}", Report::new("t.jz", text, &problems)),
    }
}

fn run(body: &str) -> Run {
    let head = "event cpu { pct: float, core: int?, free: size? }\n";
    let text = format!("{head}task t(n: int = 2 + 3, f: float = 1) {{\n{body}\n}}\n");
    script(&text).task("t", Vec::new(), Permissions::ALL).unwrap()
}

/// Steps until it calls or ends.
fn step(run: &mut Run, input: Input) -> Output {
    let mut output = run.step(NOW, input);
    while output == Output::Yield {
        output = run.step(NOW, Input::Go);
    }
    output
}

fn call(run: &mut Run, input: Input) -> HostCall {
    match step(run, input) {
        Output::Call(call) => call,
        output => panic!("{output:?}"),
    }
}

/// What a body that fails with a text says.
fn says(body: &str) -> String {
    match step(&mut run(body), Input::Go) {
        Output::Ended(Ended::Failed(failed)) => failed.message,
        output => panic!("{body}: {output:?}"),
    }
}

fn fails(body: &str) -> (Cause, (u32, u32)) {
    match step(&mut run(body), Input::Go) {
        Output::Ended(Ended::Failed(failed)) => (failed.cause, failed.at),
        output => panic!("{body}: {output:?}"),
    }
}

#[test]
fn values_are_computed() {
    for (expression, expected) in [
        ("n + 2 * 3 - 7 / 2 % 2", "10"),
        ("f / 4", "0.25"),
        ("-n", "-5"),
        ("\"a{n}b\" + \"c\"", "a5bc"),
        ("[1, n] + [3]", "[1, 5, 3]"),
        ("[1, 2][1] ?? 0", "2"),
        ("[1, 2][7] ?? 9", "9"),
        ("n > 3 && !(f == 2.0) || false", "true"),
        ("n == 5.0", "true"),
        ("\"web.up\" matches \"w*.?p\"", "true"),
        ("[\"a\", \"b\"] has \"b\"", "true"),
        ("1h / 4 + 30s", "930s"),
        ("3 * 1MiB / 2", "1.5MiB"),
        ("1s - 2s", "0s"),
        ("1m / 30s", "2"),
        ("len(\"äö\") + len([1])", "3"),
        ("join(split(\"a,b,,c\", \",\"), \"-\")", "a-b--c"),
        ("(int(\" 42 \") ?? 0) + 1", "43"),
        ("int(\"4x\") ?? -1", "-1"),
        ("max([3, 9.5, 2]) ?? 0", "9.5"),
        ("sort([3, 1, 2])", "[1, 2, 3]"),
        ("round(2.5) + round(-2.5) + abs(-4)", "4"),
        ("sum([1, 2.5])", "3.5"),
        ("seconds(1500ms)", "1.5"),
        ("str([none, 1])", "[none, 1]"),
        ("words(\" a  b \")", "[\"a\", \"b\"]"),
        ("replace(upper(\"abc\"), \"B\", \"xx\")", "AxxC"),
        ("range(3, 6)", "[3, 4, 5]"),
        ("first([7]) == last([7])", "true"),
        ("trim(\" a \") + lower(\"B\")", "ab"),
        ("starts(\"abc\", \"a\") && ends(\"abc\", \"c\")", "true"),
        ("lines(\"a\\nb\\n\")", "[\"a\", \"b\"]"),
    ] {
        assert_eq!(
            says(&format!("let v = {expression}\nfail \"{{v}}\"")),
            expected,
            "{expression}"
        );
    }
}

#[test]
fn control_goes_where_it_should() {
    let loops = "var s = 0\nfor i in range(0, 10) { if i == 2 { continue }\nif i == 5 { break }\n\
        for j in [1, 2] { if j == 2 { break }\ns = s + i * j } }\nfail \"{s}\"";
    assert_eq!(says(loops), "8");
    assert_eq!(
        says("if n == 1 { fail \"a\" } else if n == 5 { fail \"b\" } else { fail \"c\" }"),
        "b"
    );
    assert_eq!(says("if let x = int(\"7\") { fail \"{x}\" } else { fail \"no\" }"), "7");
    assert_eq!(says("if let x = int(\"y\") { fail \"{x}\" } else { fail \"no\" }"), "no");
    assert_eq!(says("let x = int(\"y\") else { fail \"else\" }\nfail \"{x}\""), "else");
    assert_eq!(says("let x = int(\"3\") else { fail \"else\" }\nfail \"{x}\""), "3");
    assert_eq!(says("ensure n == 5, \"no\"\nensure n == 6, \"n is {n}\""), "n is 5");
    assert_eq!(says("ensure n == 6"), "this doesn't hold: n == 6");
    assert_eq!(step(&mut run("return"), Input::Go), Output::Ended(Ended::Succeeded));
    assert_eq!(step(&mut run("let x = n"), Input::Go), Output::Ended(Ended::Succeeded));
}

#[test]
fn calls_are_asked_and_answers_used() {
    let mut run = run(
        "let r = http.get(within: 3s, \"http://{n}/\")\nensure r.status == 200, \"got {r.status}\"\n\
         log.emit(\"cpu\", pct: n, level: \"warn\", free: 3MiB)\n\
         let c = log.count(\"cpu\", where pct > $f && host == \"a\")\n\
         sh.run(\"echo $x\", x: c)\nlet gone = try service.stop(\"kv\")\nfail \"{gone}\"",
    );
    let get = call(&mut run, Input::Go);
    assert_eq!(get.function, "http.get");
    assert_eq!(get.args, [Value::text("http://5/"), Value::Duration(3_000_000_000)]);
    let response = Value::record([
        ("status", Value::Int(200)),
        ("body", Value::text("ok")),
        ("took", Value::Duration(5)),
    ]);
    let emit = call(&mut run, Input::Answer(Ok(response)));
    assert_eq!(emit.args, [Value::text("cpu"), Value::text("warn")]);
    let named: Vec<(&str, Value)> = emit.named.iter().map(|(n, v)| (&**n, v.clone())).collect();
    assert_eq!(named, [("pct", Value::Float(5.0)), ("free", Value::Size(3 << 20))]);
    let count = call(&mut run, Input::Answer(Ok(Value::None)));
    assert_eq!(count.filter.as_deref(), Some("pct > 1.0 && host == \"a\""));
    let shell = call(&mut run, Input::Answer(Ok(Value::Int(4))));
    assert_eq!(shell.args, [Value::text("echo $x"), Value::None]);
    assert_eq!(shell.named, [("x".into(), Value::Int(4))]);
    let output = Value::record([
        ("code", Value::Int(0)),
        ("out", Value::text("")),
        ("err", Value::text("")),
        ("took", Value::Duration(5)),
    ]);
    call(&mut run, Input::Answer(Ok(output)));
    let Output::Ended(Ended::Failed(failed)) = step(&mut run, Input::Answer(Err("x".into())))
    else {
        panic!("failed")
    };
    assert_eq!(failed.message, "false");
}

#[test]
fn a_failed_call_fails_the_task_unless_it_was_tried() {
    let mut failing = run("\nhttp.get(\"x\")");
    call(&mut failing, Input::Go);
    let output = step(&mut failing, Input::Answer(Err("nobody answers".into())));
    let Output::Ended(Ended::Failed(failed)) = output else { panic!("{output:?}") };
    assert_eq!(failed.cause, Cause::Call);
    assert_eq!(failed.message, "http.get: nobody answers");
    assert_eq!(failed.at, (4, 1));
    // It has ended: nothing moves it any more.
    assert!(matches!(step(&mut failing, Input::Go), Output::Ended(Ended::Failed(_))));
    let mut tried = run("if let r = try http.get(\"x\") { fail r.body } else { fail \"none\" }");
    call(&mut tried, Input::Go);
    let output = step(&mut tried, Input::Answer(Err("nobody answers".into())));
    let Output::Ended(Ended::Failed(failed)) = output else { panic!("{output:?}") };
    assert_eq!(failed.message, "none");
}

#[test]
fn an_answer_of_the_wrong_kind_fails_the_task() {
    for answer in [Value::Int(1), Value::record([("status", Value::text("200"))]), Value::None] {
        let mut run = run("let r = http.get(\"x\")\nensure r.status == 200");
        call(&mut run, Input::Go);
        let output = step(&mut run, Input::Answer(Ok(answer)));
        let Output::Ended(Ended::Failed(failed)) = output else { panic!("{output:?}") };
        assert_eq!(failed.cause, Cause::Call);
    }
    let mut deep = Value::Int(1);
    for _ in 0..40 {
        deep = Value::list(vec![deep]);
    }
    let mut run = run("let r = service.list()");
    call(&mut run, Input::Go);
    assert!(matches!(step(&mut run, Input::Answer(Ok(deep))), Output::Ended(Ended::Failed(_))));
}

#[test]
fn it_can_be_stopped_at_every_step() {
    let mut stopped = run("for i in range(0, 10000) { for j in range(0, 10000) { let x = i } }");
    assert_eq!(stopped.step(NOW, Input::Go), Output::Yield);
    let output = stopped.step(NOW, Input::Stop("by you".into()));
    let Output::Ended(Ended::Failed(failed)) = output else { panic!("{output:?}") };
    assert_eq!((failed.cause, failed.message.as_str()), (Cause::Stopped, "by you"));
    let mut waiting = run("clock.sleep(3s)");
    call(&mut waiting, Input::Go);
    assert_eq!(waiting.step(NOW, Input::Go), Output::Yield);
    let output = waiting.step(NOW, Input::Stop("bye".into()));
    assert!(matches!(output, Output::Ended(Ended::Failed(_))));
}

#[test]
fn limits_fail_the_task() {
    let endless = "for i in range(0, 10000) { for j in range(0, 10000) { let x = i } }";
    assert_eq!(fails(endless).0, Cause::Limit);
    let doubling = "var s = \"ab\"\nfor i in range(0, 100) { s = s + s }";
    assert_eq!(fails(doubling), (Cause::Limit, (4, 30)));
    let many = "var l = [\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]\n\
        for i in range(0, 100) { l = l + l }";
    assert_eq!(fails(many).0, Cause::Limit);
    assert_eq!(fails("let x = range(0, 100000)").0, Cause::Limit);
    let slots: String = (0..20).map(|n| format!("let a{n} = join(range_texts, \"\")\n")).collect();
    let filled = format!(
        "var s = \"0123456789\"\nfor i in range(0, 16) {{ s = s + s }}\n\
         let range_texts = [s]\n{slots}"
    );
    assert_eq!(fails(&filled).0, Cause::Limit);
    let mut calls = run("for i in range(0, 10000) { for j in range(0, 10) { clock.sleep(1ns) } }");
    let mut input = Input::Go;
    let failed = loop {
        match step(&mut calls, input) {
            Output::Call(_) => input = Input::Answer(Ok(Value::None)),
            Output::Ended(Ended::Failed(failed)) => break failed,
            output => panic!("{output:?}"),
        }
    };
    assert_eq!(failed.cause, Cause::Limit);
}

#[test]
fn impossible_values_fail_the_task() {
    for body in [
        "let x = 1 / (n - 5)",
        "let x = 9223372036854775807 + n",
        "let x = 1h * -1",
        "let x = round(1e300)",
        "let x = 1h / (f - 1)",
        "let x = 366d * 1000000.0",
    ] {
        assert_eq!(fails(body), (Cause::Value, (3, 9)), "{body}");
    }
}

#[test]
fn the_evaluator_enforces_rights_whatever_the_checker_said() {
    let script = script("task t() { service.stop(\"kv\") }");
    let viewer = Permissions::of_role("viewer").unwrap();
    let mut run = script.task("t", Vec::new(), viewer).unwrap();
    let Output::Ended(Ended::Failed(failed)) = step(&mut run, Input::Go) else { panic!("ended") };
    assert_eq!(failed.cause, Cause::Denied);
    let mut run =
        script.task("t", Vec::new(), Permissions::of(&[Permission::ServiceControl])).unwrap();
    call(&mut run, Input::Go);
}

#[test]
fn arguments_must_fit() {
    let script = script("task t(a: int, b: float = 2, c: [str]? = none) { fail \"{a} {b}\" }");
    let task = |args: &[(&str, Value)]| {
        let args = args.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        script.task("t", args, Permissions::ALL)
    };
    assert!(task(&[]).unwrap_err().contains("lacks `a`"));
    assert!(task(&[("a", Value::text("1"))]).unwrap_err().contains("is not int"));
    assert!(task(&[("a", Value::Int(1)), ("d", Value::None)]).is_err());
    assert!(task(&[("a", Value::Int(1)), ("c", Value::list(vec![Value::Int(1)]))]).is_err());
    let mut run = task(&[("a", Value::Int(1)), ("b", Value::Int(7))]).unwrap();
    let Output::Ended(Ended::Failed(failed)) = step(&mut run, Input::Go) else { panic!("ended") };
    assert_eq!(failed.message, "1 7");
}

#[test]
fn a_deadline_fails_the_task() {
    let mut run = run("clock.sleep(3s)").ends_by(NOW + Span::secs(2));
    assert_eq!(run.deadline(), Some(NOW + Span::secs(2)));
    call(&mut run, Input::Go);
    assert_eq!(run.step(NOW + Span::secs(1), Input::Go), Output::Yield);
    let output = run.step(NOW + Span::secs(2), Input::Go);
    let Output::Ended(Ended::Failed(failed)) = output else { panic!("{output:?}") };
    assert_eq!(failed.cause, Cause::TimedOut);
    assert_eq!(run.deadline(), None);
}
