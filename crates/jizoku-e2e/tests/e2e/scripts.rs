//! Scripts: bound on all their nodes or on none, run as tasks there, stopped with their children.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jizoku_e2e::cluster::{Cluster, Dress, Said, name};
use jizoku_e2e::{build, turn, wait_for};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);

fn script(cluster: &Cluster, text: &str) -> PathBuf {
    let path = cluster.folder().join("script.jz");
    std::fs::write(&path, text).expect("a script can be written");
    path
}

/// Runs a flow, and gives what came of it: whether it succeeded, and its lines.
fn run(cluster: &Cluster, node: usize, script: &Path, more: &[&str]) -> (Said, Vec<Value>) {
    let path = script.to_str().expect("paths of tests are text");
    let said = cluster.run(node, &[&["--json", "run", path], more].concat());
    let lines = said.out.lines().map(|line| serde_json::from_str(line).expect("lines are JSON"));
    let lines = lines.collect();
    (said, lines)
}

fn end(lines: &[Value]) -> &Value {
    &lines.last().expect("there is an end")["end"]
}

/// Nodes on which a task came to this state.
fn nodes<'l>(lines: &'l [Value], task: &str, state: &str) -> Vec<&'l str> {
    let tasks = lines.iter().filter_map(|line| line.get("task"));
    let so = tasks.filter(|line| line["task"] == task && line["state"] == state);
    let mut names: Vec<_> = so.map(|line| line["node"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names
}

/// Fields of the records that a query finds.
fn fields(cluster: &Cluster, node: usize, query: &str) -> Vec<Value> {
    let text = cluster.must(node, &["--json", "log", query]);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| line.get("record").map(|one| one["fields"].clone())).collect()
}

/// Processes of the machine that are started like this.
fn running(program: &str, argument: &str) -> usize {
    let wanted = format!("{program}\0{argument}\0").into_bytes();
    let all = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    all.filter(|one| std::fs::read(one.path().join("cmdline")).is_ok_and(|c| c == wanted)).count()
}

/// A command that goes on beside the test.
struct Beside(Child);

impl Beside {
    fn run(cluster: &Cluster, node: usize, script: &Path) -> Beside {
        let mut command = Command::new(build::jizoku());
        command.arg("--data").arg(cluster.data(node)).arg("run").arg(script);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Beside(child.expect("jizoku can be started"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        self.0.wait().expect("it was started here");
    }
}

#[test]
fn a_flow_runs_on_three_nodes_and_every_step_is_in_the_log() {
    let _turn = turn();
    let cluster = Cluster::start(3);
    let folder = cluster.folder().join("greetings");
    std::fs::create_dir(&folder).expect("a folder");
    let script = script(
        &cluster,
        r#"
        event greeted { name: str, times: int }

        task greet(folder: str, times: int) {
            sh.run("""printf '%s' "$what" > "$folder/$name" """,
                what: "quote ' and $(no)", folder: folder, name: host.name())
            log.emit("greeted", name: host.name(), times: times)
        }
        task collect(folder: str, times: int) {
            let all = log.all("greeted", where times == $times)
            ensure len(all) == 3, "only {len(all)} have greeted"
            for node in cluster.nodes() {
                let text = file.read("{folder}/{node.name}")
                ensure text == "quote ' and $(no)", "{node.name} wrote {text}"
            }
        }
        flow greetings(folder: str, times: int = 2) within 1m {
            run greet(folder, times) on "all" within 20s
            wait log "greeted" where name == "n2" && times == $times within 20s
            run collect(folder, times) on "node:n3" within 20s
        }
        "#,
    );
    let argument = format!("folder={}", folder.display());
    let (said, lines) = run(&cluster, 1, &script, &["greetings", &argument, "times=7"]);
    assert!(said.ok, "{said:?}");
    let plan = &lines[0]["plan"];
    let needs = ["cluster.read", "command.run", "file.read", "host.read", "log.read", "log.write"];
    for permission in needs {
        let all = plan["needs"].as_array().expect("a list");
        assert!(all.iter().any(|one| one == permission), "{permission} {all:?}");
    }
    let all = [name(0), name(1), name(2)];
    assert_eq!(nodes(&lines, "greet", "succeeded"), all);
    assert_eq!(nodes(&lines, "collect", "succeeded"), [name(2)]);

    // What is asked of another node later is the whole story.
    let id = plan["id"].as_str().expect("an id");
    let start = fields(&cluster, 0, &format!("trace == \"{id}\" && event == \"flow.start\""));
    assert_eq!(start[0]["flow"], "greetings");
    assert_eq!(start[0]["role"], "admin");
    assert_eq!(start[0]["nodes"], all.join(" "));
    let ends = fields(&cluster, 0, &format!("trace == \"{id}\" && event == \"task.end\""));
    assert_eq!(ends.iter().filter(|one| one["status"] == "Succeeded").count(), 4, "{ends:?}");
    let end = fields(&cluster, 2, &format!("trace == \"{id}\" && event == \"flow.end\""));
    assert_eq!(end[0]["status"], "Succeeded");
}

#[test]
fn one_refusal_cancels_all_and_nothing_has_run() {
    let _turn = turn();
    let mut cluster = Cluster::empty();
    let folder = cluster.folder().join("programs");
    std::fs::create_dir(&folder).expect("a folder");
    // Two nodes have a program, the third doesn't.
    std::os::unix::fs::symlink("/bin/true", folder.join("only-here")).expect("a link");
    let path = std::env::var("PATH").expect("there is a path");
    for node in 0..2 {
        let env = vec![("PATH".to_owned(), format!("{path}:{}", folder.display()))];
        cluster.dress(node, Dress { prefix: Vec::new(), env });
    }
    for _ in 0..3 {
        cluster.add(&[]);
    }
    cluster.wait_until_settled();
    let mark = cluster.folder().join("mark");
    let text = r#"
        task note(path: str) { file.append(path, "x") }
        task special() { command.run("only-here") }
        flow both(path: str, target: str) {
            run note(path) on "all"
            run special() on target
        }
    "#;
    let script = script(&cluster, text);
    let argument = format!("path={}", mark.display());
    let (said, lines) = run(&cluster, 0, &script, &["both", &argument, "target=all"]);
    assert!(!said.ok);
    let bound = lines.iter().filter_map(|line| line.get("bound"));
    let refused: Vec<&Value> = bound.filter(|bound| bound["ok"] == false).collect();
    assert_eq!(refused.len(), 1, "{lines:?}");
    assert_eq!(refused[0]["node"], name(2));
    let problem = refused[0]["problems"][0].as_str().expect("a text");
    assert!(problem.contains("n3 has no program `only-here`"), "{problem}");
    assert!(problem.contains(":3:") && problem.contains("^^^^^"), "its place is shown: {problem}");
    assert_eq!(end(&lines)["ran"], false);
    assert!(!mark.exists(), "nothing has run anywhere");

    // Where the program is, it runs; a dry run runs nothing.
    let more = ["both", &argument, "target=node:n2"];
    let (said, lines) = run(&cluster, 0, &script, &[&more[..], &["--dry-run"]].concat());
    assert!(said.ok && !mark.exists(), "{lines:?}");
    let (said, _) = run(&cluster, 0, &script, &more);
    assert!(said.ok, "{said:?}");
    assert_eq!(std::fs::read_to_string(&mark).expect("it is there"), "xxx");

    // A node that takes no scripts refuses all.
    let last = cluster.add(&["--no-scripts"]);
    let on = format!("target=node:{}", name(last));
    let (said, lines) = run(&cluster, 0, &script, &["both", &argument, &on]);
    assert!(!said.ok && lines.iter().any(|line| line.to_string().contains("takes no scripts")));
    assert_eq!(end(&lines)["ran"], false);

    // A role that may not do it is refused before any node is asked.
    let (said, lines) = run(&cluster, 0, &script, &[&more[..], &["--role", "operator"]].concat());
    assert!(!said.ok);
    let problem = end(&lines)["problems"][0].as_str().expect("a text");
    assert!(problem.contains("role `operator` may not use `command.run`"), "{problem}");
}

#[test]
fn who_is_cancelled_fails_with_its_children_and_lets_go_of_its_nodes() {
    let _turn = turn();
    let cluster = Cluster::start(3);
    let number = format!("77{}", std::process::id());
    let text = format!(
        "task hang() {{ sh.run(\"\"\"sleep {number} & setsid sleep {number} & wait\"\"\") }}\n\
         task quick() {{ command.run(\"true\") }}\n\
         flow long synchronised {{ run hang() on \"all\" }}\n"
    );
    let script = script(&cluster, &text);
    let first = Beside::run(&cluster, 0, &script);
    wait_for("all children", WITHIN, || (running("sleep", &number) == 6).then_some(()));
    let flows = cluster.json(1, &["flows"]);
    assert_eq!(flows["flows"][0]["flow"], "long");
    assert_eq!(flows["flows"][0]["controller"], name(0));
    assert_eq!(flows["flows"][0]["tasks"], serde_json::json!([3, 0]));
    let id = flows["flows"][0]["id"].as_str().expect("an id").to_owned();

    // Another one that wants the same nodes is refused at once, and told by whom.
    let (said, lines) = run(&cluster, 1, &script, &[]);
    assert!(!said.ok && end(&lines)["ran"] == false);
    assert!(end(&lines)["why"].as_str().is_some_and(|why| why.contains(&id)), "{lines:?}");

    cluster.must(2, &["cancel", &id[..8]]);
    wait_for("no children", WITHIN, || (running("sleep", &number) == 0).then_some(()));
    let ends = format!("trace == \"{id}\" && event == \"task.end\"");
    wait_for("the end of all tasks in the log", WITHIN, || {
        let ends = fields(&cluster, 1, &ends);
        let stopped = ends.iter().filter(|end| end["symbol"] == "stopped").count();
        (stopped == 3).then_some(())
    });
    drop(first);
    wait_for("no flow", WITHIN, || {
        cluster.json(1, &["flows"])["flows"].as_array()?.is_empty().then_some(())
    });
    let (said, lines) = run(&cluster, 1, &script, &["long", "--dry-run"]);
    assert!(said.ok, "its nodes are free again: {lines:?}");
}

#[test]
fn a_task_whose_node_is_lost_is_failed_and_nobody_knows_how_it_ended() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    let number = format!("78{}", std::process::id());
    let text = format!(
        "task hang() {{ command.run(\"sleep\", [\"{number}\"]) }}\n\
         task never() {{ file.append(\"/no/such/folder/file\", \"x\") }}\n\
         flow lost {{\n    run hang() on \"node:n3\"\n    run never() on \"node:n1\"\n}}\n"
    );
    let script = script(&cluster, &text);
    let first = Beside::run(&cluster, 0, &script);
    wait_for("the task", WITHIN, || (running("sleep", &number) == 1).then_some(()));
    cluster.kill(2);
    let query = "event == \"flow.end\"";
    wait_for("the end of the flow", WITHIN, || {
        let ends = fields(&cluster, 1, query);
        let detail = ends.first()?["detail"].as_str()?.to_owned();
        assert!(detail.contains("outcome_unknown on n3"), "{detail}");
        Some(())
    });
    assert!(fields(&cluster, 0, "event == \"flow.entry\" && task == \"never\"").is_empty());
    drop(first);
    // What an agent leaves behind that was killed outside of systemd, this test clears away.
    let left = Command::new("pkill").args(["-f", &format!("^sleep {number}$")]).status();
    assert!(left.is_ok());
}
