//! What scripts cost: `cargo bench -p jizoku-script`. Prints the best and the median of many
//! rounds of each step; figures are for one core. Must and aim: check of a 30-line file in 100 us
//! and 30 us.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jizoku_script::check::check;
use jizoku_script::format::format;
use jizoku_script::offer::Offer;

/// 30 lines: three tasks, a flow, a monitor and a trigger.
const THIRTY: &str = r#"event cpu { pct: float }
event web.up { port: int, status: int }
event db.up { ready: bool }

task restart_web(port: int) {
    service.restart("nginx")
    let r = http.get("http://127.0.0.1:{port}/health")
    ensure r.status == 200, "web answered {r.status}"
    log.emit("web.up", port: port, status: r.status)
}

task restart_db() {
    let out = sh.ask("pg_ctl restart -D /var/lib/pg")
    ensure out.code == 0, "pg_ctl: {out.err}"
    log.emit("db.up", ready: true)
}

task flush_cache() { sh.run("redis-cli flushall") }

flow heal_web {
    run restart_web(8080) on "role:web" within 30s
    wait log "web.up" where port == 8080 within 10s
    par {
        run restart_db() on "role:db" within 60s
        run flush_cache() on "role:cache"
    }
}

monitor cpu every 5s on "all" { log.emit("cpu", pct: host.cpu()) }
on log "cpu" where pct > 90.0 for 30s do heal_web
"#;

fn rounds<T>(name: &str, count: usize, mut once: impl FnMut() -> T) {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        black_box(once());
        times.push(start.elapsed());
    }
    times.sort();
    println!("{name:<46} best {:>10.1?}  median {:>10.1?}", times[0], times[count / 2]);
}

fn main() {
    let set = |list: &[&str]| Some(list.iter().map(|name| (*name).to_string()).collect());
    let offer = Offer {
        services: set(&["nginx", "kv"]),
        labels: set(&["role:web", "role:db", "role:cache"]),
        programs: set(&["pg_ctl", "redis-cli"]),
        ..Offer::unknown()
    };
    assert_eq!(check(THIRTY, &offer, None).problems, []);
    rounds("parse and check 30 lines", 20_000, || check(THIRTY, &offer, None));
    rounds("format 30 lines", 20_000, || format(THIRTY));
    let tasks = &THIRTY[..THIRTY.find("flow heal").unwrap_or(0)];
    let body = &tasks[tasks.find("task restart_web").unwrap_or(0)..];
    let events = &tasks[..tasks.len() - body.len()];
    let many: String =
        (0..100).map(|n| body.replace("task ", &std::format!("task t{n}_"))).collect();
    let large = std::format!("{events}{many}");
    let lines = large.lines().count();
    assert_eq!(check(&large, &offer, None).problems, []);
    rounds(&std::format!("parse and check {lines} lines"), 300, || check(&large, &offer, None));
    let wrong = THIRTY.replace("r.status", "r.statsu").replace("service.", "servce.");
    rounds("parse and check 30 lines with 4 mistakes", 5_000, || check(&wrong, &offer, None));
}
