//! What queries mean, which are refused, and that many pools together answer as one.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::finish::{self, Answer, Table};
use super::groups::Groups;
use super::merge::{Merge, Owned};
use super::run::{Part, Run, Step};
use super::*;
use crate::pool::{Config, Pool, Quota};
use crate::record::{Draft, Record};
use crate::schema::Schemas;
use crate::value::{Level, Trace, Type, ValueRef};

const SECOND: u64 = 1_000_000;

fn schemas() -> Schemas {
    let mut schemas = Schemas::new();
    let fields = [("ms".to_string(), Type::Float), ("url".to_string(), Type::Str)];
    schemas.declare("http.req", BTreeMap::from(fields)).unwrap();
    schemas
}

fn query(text: &str) -> Query {
    parse(text, &schemas()).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

fn pool(host: &str) -> Pool {
    let quota = Quota { records: 0, bytes: 0 };
    let (bytes_max, age_max) = (4_000_000, 3600 * SECOND);
    Pool::new(Config { bytes_max, age_max, first: 1, host: host.into(), quota, seed: 1 })
}

/// Runs a pool's part to the end, a few records at a time.
fn run(query: &Query, pool: &Pool, now: u64) -> Part {
    let mut run = Run::new(query, pool, now, None);
    let mut records = Vec::new();
    loop {
        match run.step(pool, 7) {
            Step::More(more) => records.extend(more),
            Step::Done(Part::Records(more), _) => {
                records.extend(more);
                return Part::Records(records);
            }
            Step::Done(groups, _) => return groups,
        }
    }
}

/// Asks pools and puts their answers together.
fn ask(query: &Query, pools: &[&Pool], now: u64) -> Answer {
    let mut groups = Groups::default();
    let mut merge = Merge::new(0..pools.len());
    for (at, pool) in pools.iter().enumerate() {
        match run(query, pool, now) {
            Part::Groups(part) => {
                assert!(part.fits(query.grouping().unwrap()));
                groups.merge(part);
            }
            Part::Records(records) => {
                let owned = records.into_iter().map(|record| Owned { owner: at, record });
                merge.push(&at, owned);
            }
        }
        merge.end(&at);
    }
    if query.grouping().is_some() {
        return Answer::Table(finish::groups(query, &groups));
    }
    let mut records = Vec::new();
    while let Some(owned) = merge.poll() {
        records.push(owned.record);
    }
    assert!(merge.is_over());
    finish::records(query, records)
}

fn shown(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Records(records) => {
            records.iter().map(|record| format!("{} {}", record.host, record.event)).collect()
        }
        Answer::Table(Table { rows, .. }) => {
            let cell = |cell: &Option<crate::Value>| {
                cell.as_ref().map_or_else(|| "-".to_string(), ToString::to_string)
            };
            rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
        }
    }
}

/// Two hosts, one record a second in turns from 100 s on.
fn two() -> (Pool, Pool) {
    let (mut a, mut b) = (pool("a"), pool("b"));
    for n in 0..60_u64 {
        let (pool, host) = if n % 2 == 0 { (&mut a, "a") } else { (&mut b, "b") };
        let fields = [("ms", ValueRef::Float(n as f64)), ("url", ValueRef::Str("/"))];
        let event = if n == 31 { "oom" } else { "http.req" };
        let draft = Draft {
            level: if n % 10 == 0 { Level::Error } else { Level::Info },
            trace: Trace(u128::from(n / 20) + 1),
            fields: &fields,
            ..Draft::new(event, host, "web")
        };
        pool.append((100 + n) * SECOND, &draft).unwrap();
    }
    (a, b)
}

#[test]
fn what_queries_answer() {
    let (a, b) = two();
    let now = 160 * SECOND;
    for (text, expected) in [
        ("event == \"oom\"", &["b oom"][..]),
        ("latest trace == \"1\"", &["b http.req"]),
        ("latest trace == \"1\" | fields ms", &["19.0"]),
        ("level >= error since 25s", &["a http.req", "a http.req"]),
        ("| count", &["60"]),
        ("| count by host", &["a 30", "b 30"]),
        ("level == error | count by host, event", &["a http.req 6"]),
        ("| filter ms >= 40 | count by host | top 1", &["a 10"]),
        ("event == \"http.req\" | count by event, host | top 1", &["http.req a 30"]),
        ("| sum(ms) by host", &["a 870.0", "b 900.0"]),
        ("| avg(ms)", &["29.5"]),
        ("| min(ms) by host | sort host desc", &["b 1.0", "a 0.0"]),
        ("| max(ms)", &["59.0"]),
        (
            "| count every 30s",
            &[
                "1970-01-01T00:01:30.000000Z 20",
                "1970-01-01T00:02:00.000000Z 30",
                "1970-01-01T00:02:30.000000Z 10",
            ],
        ),
        ("| max(nothing)", &[]),
        ("| max(url)", &[]),
        ("| first 2", &["a http.req", "b http.req"]),
        ("| last 1 by host | fields host, ms", &["a 58.0", "b 59.0"]),
        ("| last 2 | fields ms", &["58.0", "59.0"]),
        ("ms < 4 | sort ms desc | fields ms, nothing", &["3.0 -", "2.0 -", "1.0 -", "0.0 -"]),
        ("event == \"oom\" | around 2s | fields ms", &["29.0", "31.0", "33.0"]),
        ("event == \"oom\" | around 2s | count", &["3"]),
        ("event == \"oom\" | around 4s | last 1 | fields ms", &["35.0"]),
        ("since 3s | fields ms", &["57.0", "58.0", "59.0"]),
        ("| count by host | fields count | first 1", &[]),
    ] {
        let Ok(query) = parse(text, &schemas()) else {
            assert_eq!(text, "| count by host | fields count | first 1");
            continue;
        };
        let answer = ask(&query, &[&a, &b], now);
        assert_eq!(shown(&answer), expected, "{text}");
    }
    let answer = ask(&query("| p50(ms)"), &[&a, &b], now);
    let Answer::Table(table) = answer else { panic!() };
    let Some(crate::Value::Float(median)) = table.rows[0][0] else { panic!("{table:?}") };
    assert!((median - 29.0).abs() / 29.0 < 0.005, "{median}");
    assert_eq!(table.columns, ["p50(ms)"]);
}

#[test]
fn what_is_refused_is_said_where_it_stands() {
    for (text, place, what) in [
        ("event == ", "1:10", "missing at the end"),
        ("| cuont", "1:3", "there is no stage `cuont`"),
        ("|", "1:2", "a stage"),
        ("| top 3", "1:1", "is for groups"),
        ("| top", "1:6", "a number"),
        ("| count | count", "1:9", "groups are made once"),
        ("| sum", "1:6", "`(`"),
        ("| sum(ms", "1:9", "`)`"),
        ("| last 0", "1:8", "1 to"),
        ("| fields", "1:9", "the name of a field"),
        ("| count | around 3s", "1:9", "first stage"),
        ("| first 3 | count", "1:11", "only `around`"),
        ("follow | count", "1:8", "only `fields`"),
        ("since 5", "1:7", "a duration"),
        ("| around 5ns", "1:10", "microsecond"),
        ("level > hgh | top x", "1:19", "a number"),
        ("level > hgh && time > \"x\"", "1:9", "no level"),
        ("event == \"http.req\" | p99(mss)", "1:27", "no such field"),
        ("event == \"http.req\" | p99(url)", "1:27", "no number"),
        ("event == \"http.req\" && mss > 1 | count", "1:24", "no such field"),
        ("a == 1 since 3s b", "1:17", "expected `|` or the end"),
        ("| count | filter a == 1", "1:11", "before all other"),
    ] {
        let problems = parse(text, &schemas()).err().unwrap_or_else(|| panic!("{text} was taken"));
        let first = problems[0].show(text);
        assert!(first.starts_with(&format!("{place}:")), "{text}: {first}");
        assert!(first.contains(what), "{text}: {first}");
    }
    let both = parse("level > hgh && time > \"x\"", &schemas()).unwrap_err();
    assert_eq!(both.len(), 2);
}

/// Several pools, whose clocks differ, together against one list.
#[test]
fn many_pools_answer_as_one() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut pools: Vec<Pool> = (0..4).map(|n| pool(&format!("h{n}"))).collect();
    let mut all: Vec<(usize, Record)> = Vec::new();
    for n in 0..3000_u64 {
        let at = random.next_u32() as usize % 4;
        let text = format!("m{}", random.next_u32() % 5);
        let fields = [
            ("n", ValueRef::Int(i64::from(random.next_u32() % 1000) - 500)),
            ("f", ValueRef::Float(f64::from(random.next_u32() % 10_000) / 7.0)),
            ("d", ValueRef::Duration(i64::from(random.next_u32()))),
            ("msg", ValueRef::Str(&text)),
        ];
        let host = format!("h{at}");
        let draft = Draft {
            fields: &fields[..1 + random.next_u32() as usize % 4],
            ..Draft::new(if n % 3 == 0 { "x" } else { "y" }, &host, "s")
        };
        let now = n * 1000 + at as u64 * 40_000;
        let seq = pools[at].append(now, &draft).unwrap();
        all.push((at, pools[at].get(seq).unwrap().to_record()));
    }
    let refs: Vec<&Pool> = pools.iter().collect();
    let Answer::Records(records) = ask(&query("event == \"x\""), &refs, 0) else { panic!() };
    all.sort_by_key(|(at, record)| (record.time, *at, record.seq));
    let wanted = all.iter().filter(|(_, record)| record.event == "x").map(|(_, record)| record);
    assert!(records.iter().eq(wanted));

    let values = |field: &str| -> Vec<f64> {
        let mut values: Vec<f64> = all
            .iter()
            .filter_map(|(_, r)| r.fields.iter().find(|(name, _)| name == field))
            .map(|(_, value)| match value {
                crate::Value::Duration(nanos) => *nanos as f64,
                value => value.borrow().number().unwrap(),
            })
            .collect();
        values.sort_by(f64::total_cmp);
        values
    };
    for field in ["n", "f", "d"] {
        let values = values(field);
        for (p, text) in [(50, "p50"), (90, "p90"), (99, "p99")] {
            let answer = ask(&query(&format!("| {text}({field})")), &refs, 0);
            let Answer::Table(table) = answer else { panic!() };
            let found = match table.rows[0][0].clone().unwrap() {
                crate::Value::Duration(nanos) => nanos as f64,
                value => value.borrow().number().unwrap(),
            };
            let exact = values[(values.len() * p).div_ceil(100) - 1];
            let error = (found - exact).abs() / exact.abs().max(1.0);
            assert!(error <= 0.0041, "{text}({field}): {found}, exactly {exact}");
        }
        let Answer::Table(sum) = ask(&query(&format!("| sum({field})")), &refs, 0) else {
            panic!()
        };
        let found = match sum.rows[0][0].clone().unwrap() {
            crate::Value::Duration(nanos) => nanos as f64,
            value => value.borrow().number().unwrap(),
        };
        let exact: f64 = values.iter().sum();
        assert!((found - exact).abs() <= exact.abs() * 1e-9, "{field}: {found} {exact}");
    }
}

#[test]
fn a_record_that_two_nodes_hold_comes_once_and_no_order_is_broken() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..200 {
        // Three owners; of each, two streams that have some of its records, each in order.
        let mut expected = Vec::new();
        let mut merge = Merge::new(0..6);
        for owner in 0..3_u32 {
            let mut time = 0;
            for seq in 0..50 {
                time += u64::from(random.next_u32() % 3);
                let record = sample(time, seq);
                let which = random.next_u32() % 3;
                let owned = Owned { owner, record };
                if which != 1 {
                    merge.push(&(owner * 2), [owned.clone()]);
                }
                if which != 0 {
                    merge.push(&(owner * 2 + 1), [owned]);
                }
                expected.push((time, owner, seq));
            }
        }
        (0..6).for_each(|line| merge.end(&line));
        expected.sort_unstable();
        let mut found = Vec::new();
        while let Some(owned) = merge.poll() {
            found.push((owned.record.time, owned.owner, owned.record.seq));
        }
        assert_eq!(found, expected);
    }
}

fn sample(time: u64, seq: u64) -> Record {
    let text = String::new;
    Record {
        time,
        seq,
        trace: Trace::NONE,
        host: text(),
        event: text(),
        level: Level::Info,
        source: text(),
        important: false,
        fields: Vec::new(),
    }
}

#[test]
fn nothing_is_given_out_before_every_stream_is_known() {
    let mut merge = Merge::new(["a", "b"]);
    merge.push(&"a", [Owned { owner: 1, record: sample(5, 1) }]);
    assert_eq!(merge.poll(), None, "b may have an earlier one");
    assert_eq!(merge.wanted().collect::<Vec<_>>(), [&"b"]);
    merge.push(&"b", [Owned { owner: 2, record: sample(3, 9) }]);
    assert_eq!(merge.poll().unwrap().owner, 2);
    assert_eq!(merge.poll(), None);
    merge.end(&"b");
    assert_eq!(merge.poll().unwrap().owner, 1);
    assert_eq!(merge.poll(), None);
    assert!(!merge.is_over());
    merge.end(&"a");
    assert!(merge.is_over());
}

#[test]
fn a_follower_goes_on_from_its_cursor_and_misses_nothing() {
    let (mut a, _) = two();
    let follow = query("follow event == \"x\"");
    let mut cursor = {
        let mut run = Run::new(&follow, &a, 0, None);
        let Step::Done(Part::Records(records), cursor) = run.step(&a, 10) else { panic!() };
        assert!(records.is_empty(), "what was there before isn't wanted");
        cursor
    };
    let watcher = a.watch(follow.filter.clone()).unwrap();
    a.looks(watcher);
    let mut seen = 0;
    for n in 0..100 {
        a.append(200 * SECOND + n, &Draft::new(if n % 2 == 0 { "x" } else { "y" }, "a", "s"));
        if !a.woken().contains(&watcher) {
            continue;
        }
        a.looks(watcher);
        let mut run = Run::new(&follow, &a, 0, Some(cursor));
        let Step::Done(Part::Records(records), next) = run.step(&a, 10) else { panic!() };
        seen += records.len();
        cursor = next;
    }
    assert_eq!(seen, 50);
    let since = query("follow event == \"http.req\" since 10s");
    let Part::Records(records) = run(&since, &a, 160 * SECOND) else { panic!() };
    assert_eq!(records.len(), 5);
}

#[test]
fn any_text_is_survived() {
    const WORDS: [&str; 34] = [
        "latest",
        "follow",
        "since",
        "|",
        "||",
        "count",
        "sum",
        "(",
        ")",
        "p99",
        "by",
        "every",
        "top",
        "last",
        "first",
        "fields",
        "around",
        "sort",
        "desc",
        "filter",
        "a",
        "host",
        ",",
        "30s",
        "5",
        "event",
        "==",
        "\"x\"",
        "&&",
        "level",
        "warn",
        ">=",
        "!",
        "99999999999999999999",
    ];
    let (a, b) = two();
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut sound = 0;
    for _ in 0..100_000 {
        let count = 1 + random.next_u32() as usize % 10;
        let words: Vec<&str> =
            (0..count).map(|_| WORDS[random.next_u32() as usize % WORDS.len()]).collect();
        if let Ok(query) = parse(&words.join(" "), &Schemas::new()) {
            sound += 1;
            ask(&query, &[&a, &b], 160 * SECOND);
        }
    }
    assert!(sound > 500, "{sound}");
}

#[test]
fn groups_from_elsewhere_may_be_anything() {
    let grouping = query("| p99(ms) by host");
    let grouping = grouping.grouping().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut good = Groups::default();
    let (a, _) = two();
    a.scan(&Filter::all(), 0, |view| {
        good.add(grouping, &view);
        true
    });
    let bytes = jizoku_types::encode(&good);
    let mut sound = 0;
    for _ in 0..50_000 {
        let mut bytes = bytes.clone();
        for _ in 0..1 + random.next_u32() % 6 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] = random.next_u32() as u8;
        }
        let Ok(groups) = jizoku_types::decode::<Groups>(&bytes) else { continue };
        if !groups.fits(grouping) {
            continue;
        }
        sound += 1;
        let mut all = good.clone();
        all.merge(groups.clone());
        all.merge(groups);
        for text in ["| p99(ms) by host | top 3", "| sum(ms) by host", "| min(ms) by host"] {
            finish::groups(&query(text), &all);
        }
    }
    assert!(sound > 1000, "{sound}");
}
