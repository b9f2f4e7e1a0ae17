//! What manifests mean, and what is said about wrong ones.

use jizoku_types::spec::{CheckKind, CheckSpec, Durability, OutputMode, PartitionPolicy};
use jizoku_types::{ByteCount, Span};

use super::*;

const ALPHA: NodeId = NodeId([1; 32]);

fn nodes(name: &str) -> Result<NodeId, UnknownNode> {
    match name {
        "alpha" => Ok(ALPHA),
        "beta" => Ok(NodeId([2; 32])),
        _ => Err(UnknownNode { known: vec!["alpha".to_owned(), "beta".to_owned()] }),
    }
}

fn parse(text: &str) -> Result<Manifest, Problems> {
    Manifest::parse("kv.toml", text, &nodes)
}

fn good(text: &str) -> Manifest {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Line, column and message of each mistake, and its hint.
fn mistakes(text: &str) -> Vec<(usize, usize, String, String)> {
    let problems = parse(text).expect_err("the text has a mistake");
    let one = |problem: &crate::Problem| {
        let hint = problem.hint.clone().unwrap_or_default();
        (problem.line, problem.column, problem.message.clone(), hint)
    };
    problems.list().iter().map(one).collect()
}

#[track_caller]
fn assert_mistake(text: &str, line: usize, column: usize, message: &str, hint: &str) {
    let found = mistakes(text);
    assert_eq!(found, [(line, column, message.to_owned(), hint.to_owned())]);
}

const SMALL: &str = "name = \"kv\"\n[engine]\nkind = \"wasm\"\nprogram = \"kv.wasm\"\n";

#[test]
fn a_small_manifest_gets_every_default() {
    let manifest = good(SMALL);
    assert_eq!(manifest.program, Some(PathBuf::from("kv.wasm")));
    let spec = manifest.spec;
    assert_eq!(spec.name.as_str(), "kv");
    assert_eq!((spec.copies, spec.min_copies), (2, 1));
    assert_eq!((spec.output, spec.durable), (OutputMode::Held, Durability::Memory));
    assert_eq!(spec.interval, Span::millis(50));
    assert_eq!(spec.partition, PartitionPolicy::Stop);
    assert_eq!(spec.succession, SuccessionPolicy::Stability);
    let alive = CheckSpec {
        kind: CheckKind::Alive,
        every: Span::secs(1),
        timeout: Span::millis(500),
        failures: 3,
    };
    assert_eq!(spec.checks, [alive]);
    let EngineSpec::Wasm { module, memory_max, files_max, .. } = spec.engine else {
        panic!("the engine is wasm");
    };
    assert_eq!(module, [0; 32]);
    assert_eq!((memory_max, files_max), (ByteCount::mib(256), ByteCount::mib(64)));
}

const FULL: &str = r#"
name = "kv"

[engine]
kind = "wasm"
program = "bin/kv.wasm"
args = ["--loud", "2"]
env = { RUST_LOG = "info" }
memory = "1GiB"
files = "8MiB"

[[port]]
name = "resp"
listen = 6379

[[port]]
listen = 8080

[state]
output = "free"
durable = "disk"
copies = 3
min_copies = 2
interval = "20ms"
partition = "continue"
restart_wait = "1m"
branch_limit = "2GiB"

[succession]
policy = "priority"
order = ["beta", "alpha"]

[[check]]
kind = "tcp"
port = "resp"
every = "2s"
timeout = "300ms"
failures = 2

[[check]]
kind = "http"
port = "8080"
path = "/health"
status = 204
body = "ok"

[[check]]
kind = "command"
command = ["redis-cli", "ping"]

[placement]
only = ["alpha", "node_0303030303030303030303030303030303030303030303030303030303030303"]
except = ["beta"]
require = { zone = "a" }
"#;

#[test]
fn everything_can_be_said() {
    let mut manifest = good(FULL);
    manifest.set_module([9; 32]);
    let spec = manifest.spec;
    assert_eq!(
        spec.engine,
        EngineSpec::Wasm {
            module: [9; 32],
            args: vec!["--loud".to_owned(), "2".to_owned()],
            env: [("RUST_LOG".to_owned(), "info".to_owned())].into(),
            memory_max: ByteCount::gib(1),
            files_max: ByteCount::mib(8),
        }
    );
    let ports: Vec<_> = spec.ports.iter().map(|port| (port.name.as_str(), port.listen)).collect();
    assert_eq!(ports, [("resp", 6379), ("8080", 8080)]);
    assert_eq!((spec.copies, spec.min_copies), (3, 2));
    assert_eq!((spec.output, spec.durable), (OutputMode::Free, Durability::Disk));
    assert_eq!((spec.interval, spec.restart_wait), (Span::millis(20), Span::secs(60)));
    assert_eq!(spec.partition, PartitionPolicy::Continue);
    assert_eq!(spec.branch_limit, ByteCount::gib(2));
    assert_eq!(spec.succession, SuccessionPolicy::Priority(vec![NodeId([2; 32]), ALPHA]));
    let kinds: Vec<_> = spec.checks.iter().map(|check| check.kind.clone()).collect();
    let http = CheckKind::Http {
        port: 1,
        path: "/health".to_owned(),
        status: 204,
        body: Some("ok".to_owned()),
    };
    let command = CheckKind::Command { command: vec!["redis-cli".to_owned(), "ping".to_owned()] };
    assert_eq!(kinds, [CheckKind::Tcp { port: 0 }, http, command]);
    assert_eq!(spec.checks[0].every, Span::secs(2));
    assert_eq!(spec.placement.only, [ALPHA, NodeId([3; 32])].into());
    assert_eq!(spec.placement.except, [NodeId([2; 32])].into());
    assert_eq!(spec.placement.require, [("zone".to_owned(), "a".to_owned())].into());
}

const EXEC: &str = r#"
name = "redis"
engine = { kind = "exec", command = ["redis-server", "--port", "{port:resp}"], user = "nobody" }
port = [{ name = "resp", listen = 6379 }]
"#;

#[test]
fn exec_has_no_copies_is_free_and_its_port_is_tried() {
    let manifest = good(EXEC);
    assert_eq!(manifest.program, None);
    let spec = manifest.spec;
    assert_eq!((spec.copies, spec.min_copies, spec.output), (0, 0, OutputMode::Free));
    let kinds: Vec<_> = spec.checks.into_iter().map(|check| check.kind).collect();
    assert_eq!(kinds, [CheckKind::Alive, CheckKind::Tcp { port: 0 }]);
}

#[test]
fn a_report_shows_place_line_and_hint() {
    let text = SMALL.replace("kind = \"wasm\"", "kind = \"wasn\"");
    let shown = parse(&text).unwrap_err().to_string();
    let expected = "kv.toml:3:8: `kind` must be \"wasm\" or \"exec\", found \"wasn\"\n  |\n\
                    3 | kind = \"wasn\"\n  |        ^^^^^^ did you mean \"wasm\"?";
    assert_eq!(shown, expected);
}

#[test]
fn all_mistakes_come_at_once_in_the_order_of_the_file() {
    let text = "nmae = \"KV\"\n[engine]\nkind = \"wasm\"\n[[port]]\nlisten = 70000\n\
                [state]\ncopies = 9\ninterval = 50\nfoo = 1\n\
                [[check]]\nkind = \"http\"\npath = 1\n";
    let found = mistakes(text);
    let places: Vec<_> = found.iter().map(|(line, column, ..)| (*line, *column)).collect();
    let messages: Vec<_> = found.iter().map(|(.., message, _)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "`name` is missing",
            "unknown key `nmae`",
            "`program` is missing in [engine]",
            "`listen` must be a whole number from 1 to 65535, found 70000",
            "`copies` must be a whole number from 0 to 8, found 9",
            "`interval` must be a span of time such as \"100ms\", \"30s\" or \"5m\", \
             found the number 50",
            "unknown key `foo` in [state]",
            "`path` must be a path that starts with \"/\", found the number 1",
        ]
    );
    assert_eq!(places, [(1, 1), (1, 1), (2, 1), (5, 10), (7, 10), (8, 12), (9, 1), (12, 8)]);
}

#[test]
fn syntax_mistakes_are_found_and_do_not_make_other_keys_missing() {
    let text = "name = \"kv\n[engine]\nkind = \"wasm\"\nprogram = = 3\n[state]\ncopies = \"2\"\n";
    let found = mistakes(text);
    assert!(found.iter().all(|(.., message, _)| !message.contains("missing")), "{found:?}");
    assert!(found.iter().any(|(line, ..)| *line == 1), "{found:?}");
    assert!(found.iter().any(|(line, ..)| *line == 4), "{found:?}");
    assert!(found.iter().any(|(line, ..)| *line == 6), "{found:?}");
}

#[test]
fn a_broken_head_of_a_section_is_the_only_mistake() {
    let found = mistakes("name = \"kv\"\n[engine\nkind = \"wasm\"\nprogram = \"kv.wasm\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, 2, "{found:?}");
}

#[test]
fn single_mistakes_are_explained() {
    let with = |extra: &str| format!("{SMALL}{extra}\n");
    let cases = [
        ("[[port]]\nlisten = 1\n[[port]]\nlisten = 1", 8, 10, "port 1 is published twice", ""),
        (
            "[state]\nmin_copies = 3",
            6,
            14,
            "`min_copies` must not be more than `copies`, which is 2",
            "",
        ),
        (
            "[state]\ncopies = 0",
            6,
            10,
            "`copies = 0` keeps the state nowhere else",
            "add `min_copies = 0` if the service may run UNPROTECTED",
        ),
        (
            "[placement]\nonly = [\"alpa\"]",
            6,
            9,
            "no node is called \"alpa\"",
            "did you mean \"alpha\"?",
        ),
        (
            "[placement]\nonly = [\"zeta-9\"]",
            6,
            9,
            "no node is called \"zeta-9\"",
            "the nodes are \"alpha\" or \"beta\"",
        ),
        (
            "[succession]\norder = [\"alpha\"]",
            6,
            1,
            "`order` has no effect: it needs policy = \"priority\"",
            "",
        ),
        (
            "[port]\nlisten = 1",
            5,
            1,
            "`port` must be written as [[port]], once for each, found a section",
            "",
        ),
        (
            "[[check]]\nkind = \"alive\"\nport = \"x\"",
            7,
            1,
            "`port` has no effect: it is for kind = \"tcp\" and kind = \"http\"",
            "",
        ),
    ];
    for (extra, line, column, message, hint) in cases {
        assert_mistake(&with(extra), line, column, message, hint);
    }
}

#[test]
fn engine_mistakes_are_explained() {
    let wasm = |line: &str| format!("{SMALL}{line}\n");
    let exec = |command: &str| {
        format!(
            "name = \"a\"\n[engine]\nkind = \"exec\"\ncommand = {command}\n\
             [[port]]\nname = \"x\"\nlisten = 1\n"
        )
    };
    let both = wasm("command = [\"a\"]");
    assert_mistake(&both, 5, 1, "`command` has no effect: it is for kind = \"exec\"", "");
    assert_mistake(
        &wasm("memory = \"4GiB\""),
        5,
        10,
        "`memory` (4096 MiB) and `files` (64 MiB) are more than a state may have",
        "at most 4GiB together",
    );
    let reserved = "names that begin with JIZOKU_ are set by the agent";
    assert_mistake(&wasm("env = { JIZOKU_PORT = \"1\" }"), 5, 9, reserved, "");
    assert_mistake(&exec("[]"), 4, 11, "`command` must begin with a program", "");
    let unknown = "{port:y} stands for no port of the service";
    assert_mistake(&exec("[\"a\", \"-p{port:y}\"]"), 4, 17, unknown, "the ports are \"x\"");
    good(&exec("[\"a\", \"{port}\", \"{port:x}\", \"{other} {\"]"));
    let held = format!("{}[state]\noutput = \"held\"\n", exec("[\"a\"]"));
    let hint = "write \"free\", or leave the key out";
    assert_mistake(&held, 9, 10, "`exec` has no state to hold output for", hint);
    let copies = format!("{}[state]\ncopies = 2\n", exec("[\"a\"]"));
    assert_mistake(&copies, 9, 1, "`copies` has no effect: engine `exec` has no state", "");
}

#[test]
fn too_long_files_are_refused_without_being_parsed() {
    let text = format!("{SMALL}# {}", "x".repeat(crate::FILE_MAX));
    assert_mistake(&text, 1, 1, "the file is longer than 256 KiB", "");
}

#[test]
fn a_program_is_looked_for_beside_its_manifest() {
    let folder = std::env::temp_dir().join(format!("jizoku-manifest-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("kv.toml");
    std::fs::write(&path, SMALL).unwrap();
    let manifest = Manifest::read(&path, &nodes).unwrap();
    assert_eq!(manifest.program, Some(folder.join("kv.wasm")));
    std::fs::write(&path, b"name = \"kv\"\n\xff").unwrap();
    let error = Manifest::read(&path, &nodes).unwrap_err().to_string();
    assert!(error.ends_with("kv.toml: can't be read: line 2 is not UTF-8"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}
