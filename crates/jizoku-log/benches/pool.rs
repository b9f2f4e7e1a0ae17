//! What the log pool costs: intake, memory, finding. `cargo bench -p jizoku-log`
//!
//! A million records of three fields (two fractions, a text of 27 bytes) in 200,000 traces, 100
//! hosts and 8 events: the same as in the study that set the aims. One thread, wall time; the
//! best of five where it is repeated. Nothing is asserted: machines differ.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jizoku_log::expr::{Filter, Scope, check, parse};
use jizoku_log::pool::{Config, Quota};
use jizoku_log::{Draft, Pool, Schemas, Trace, ValueRef};

const RECORDS: u64 = 1_000_000;

fn pool() -> Pool {
    let quota = Quota { records: 0, bytes: 0 };
    let (bytes_max, age_max) = (1 << 30, 3_600_000_000);
    Pool::new(Config { bytes_max, age_max, first: 1, host: "n1".into(), quota, seed: 7 })
}

fn filter(text: &str) -> Filter {
    let (schemas, outer) = (Schemas::new(), BTreeMap::new());
    let scope = Scope { schemas: &schemas, event: None, outer: &outer };
    check(&parse(text).expect("an expression"), scope).expect("a filter")
}

/// Numbers that look random, and are the same each time.
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ n >> 32
}

/// The texts that records are made of, made before anything is measured.
struct Material {
    events: Vec<String>,
    hosts: Vec<String>,
    texts: Vec<String>,
}

impl Material {
    fn new() -> Material {
        Material {
            events: (0..8).map(|n| format!("http.req{n}")).collect(),
            hosts: (0..100).map(|n| format!("web{n:02}")).collect(),
            texts: (0..1000).map(|n| format!("GET /index/of/a/page/{n:06}")).collect(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    fn append(&self, pool: &mut Pool, n: u64, quota: &str) {
        let r = mix(n);
        let fields = [
            ("pct", ValueRef::Float((r % 10_000) as f64 / 100.0)),
            ("ms", ValueRef::Float((r >> 16) as f64 / 1e9)),
            ("msg", ValueRef::Str(&self.texts[(r >> 8) as usize % 1000])),
        ];
        let draft = Draft {
            trace: Trace(u128::from(mix(r) % 200_000) + 1),
            fields: &fields,
            ..Draft::new(
                &self.events[(r >> 24) as usize % 8],
                &self.hosts[(r >> 32) as usize % 100],
                quota,
            )
        };
        black_box(pool.append(n, &draft));
    }
}

fn best(mut run: impl FnMut()) -> Duration {
    let once = |_| {
        let began = Instant::now();
        run();
        began.elapsed()
    };
    (0..5).map(once).min().expect("five runs")
}

fn rate(what: &str, took: Duration) {
    println!("{what:<62} {:>8.2} M/s", RECORDS as f64 / took.as_secs_f64() / 1e6);
}

fn time(what: &str, took: Duration) {
    println!("{what:<62} {:>8.2} ms", took.as_secs_f64() * 1e3);
}

fn intake(material: &Material) -> Pool {
    let mut full = pool();
    rate(
        "intake",
        best(|| {
            full = pool();
            for n in 0..RECORDS {
                material.append(&mut full, n, "web");
            }
        }),
    );
    let bytes = full.stats().bytes as f64 / RECORDS as f64;
    println!("{:<62} {bytes:>8.1} bytes", "memory for each record, with everything");
    let mut with_watchers = pool();
    for n in 0..1000 {
        let text = format!("event == \"http.req3\" && pct > {}.5", 200 + n);
        let id = with_watchers.watch(filter(&text)).expect("room");
        with_watchers.looks(id);
    }
    rate(
        "intake with 1000 watchers of one of 8 events",
        best(|| {
            for n in 0..RECORDS {
                material.append(&mut with_watchers, n, "web");
            }
        }),
    );
    let mut limited = pool();
    limited.set_quota("web", Quota { records: u32::MAX, bytes: u32::MAX });
    rate(
        "intake with a quota",
        best(|| {
            for n in 0..RECORDS {
                material.append(&mut limited, n, "web");
            }
        }),
    );
    full
}

fn finding(full: &Pool) {
    let took = best(|| {
        for n in 0..RECORDS {
            black_box(full.latest(Trace(u128::from(mix(n) % 200_000) + 1)).map(|view| view.seq()));
        }
    });
    let each = took.as_secs_f64() * 1e9 / RECORDS as f64;
    println!("{:<62} {each:>8.0} ns", "latest by trace");
    let mut walked = 0_u64;
    let took = best(|| {
        walked = 0;
        for n in 0..100_000_u64 {
            full.history(Trace(u128::from(n) + 1), |view| {
                walked += u64::from(view.time() < u64::MAX);
                true
            });
        }
    });
    let each = took.as_secs_f64() * 1e9 / walked as f64;
    println!("{:<62} {each:>8.0} ns", "history of a trace, each record");
    for (what, text) in [
        ("scan: event, host, number", "event == \"http.req3\" && host >= \"web50\" && pct > 90.0"),
        ("scan: number in every record", "pct > 90.0"),
        ("scan: one host of 100 and a number", "host == \"web07\" && pct > 90.0"),
        ("scan: text in one field", "msg has \"page/000777\""),
        ("scan: text in any field", "has \"page/000777\""),
        ("scan: calculated", "pct * 2 > 180 && ms < 1e6"),
    ] {
        let filter = filter(text);
        let mut found = 0;
        let took = best(|| {
            found = 0;
            full.scan(&filter, 0, |_| {
                found += 1;
                true
            });
        });
        time(&format!("{what} ({found} found)"), took);
    }
}

/// A scan of what is sealed needs the lock only for a moment.
fn finding_during_intake(full: Pool, material: &Material) {
    let pool = Arc::new(Mutex::new(full));
    let filter = filter("event == \"http.req3\" && host >= \"web50\" && pct > 90.0");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            let mut n = RECORDS;
            let began = Instant::now();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let mut pool = pool.lock().expect("no panic while locked");
                for _ in 0..64 {
                    material.append(&mut pool, n, "web");
                    n += 1;
                }
            }
            (n - RECORDS) as f64 / began.elapsed().as_secs_f64() / 1e6
        });
        let mut found = 0;
        let took = best(|| {
            let (sealed, end) = pool.lock().expect("no panic while locked").sealed(0);
            for segment in &sealed {
                segment.scan(&filter, 0, end, &mut |_| {
                    found += 1;
                    true
                });
            }
            pool.lock().expect("no panic while locked").active().scan(
                &filter,
                end,
                u64::MAX,
                &mut |_| {
                    found += 1;
                    true
                },
            );
        });
        black_box(found);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let rate = writer.join().expect("it ends");
        time("scan: event, host, number, while records come in", took);
        println!("{:<62} {rate:>8.2} M/s", "intake meanwhile, 64 at a time");
    });
}

fn main() {
    let material = Material::new();
    let full = intake(&material);
    finding(&full);
    finding_during_intake(full, &material);
}
