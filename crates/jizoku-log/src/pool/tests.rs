//! The pool against a naive one: whatever is written, found, watched and forgotten is the same.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::expr::{Scope, check, parse};
use crate::record::Record;
use crate::schema::Schemas;
use crate::value::Value;

const SECOND: u64 = 1_000_000;

fn config(bytes_max: usize) -> Config {
    let quota = Quota { records: 0, bytes: 0 };
    Config { bytes_max, age_max: 3600 * SECOND, first: 7, host: "n1".into(), quota, seed: 9 }
}

fn filter(text: &str) -> Filter {
    let (schemas, outer) = (Schemas::new(), BTreeMap::new());
    let scope = Scope { schemas: &schemas, event: None, outer: &outer };
    check(&parse(text).unwrap(), scope).unwrap()
}

fn texts(pool: &Pool, text: &str) -> Vec<u64> {
    let mut found = Vec::new();
    pool.scan(&filter(text), 0, |view| {
        found.push(view.seq());
        true
    });
    found
}

/// What a random record is made of.
struct Sample {
    event: String,
    host: String,
    trace: Trace,
    level: Level,
    fields: Vec<(String, Value)>,
}

impl Sample {
    fn random(random: &mut ChaCha8Rng, shapes: u32) -> Sample {
        let mut fields = Vec::new();
        for name in ["a", "b", "c", "msg"] {
            let value = match random.next_u32() % 7 {
                0 => Value::Int(i64::from(random.next_u32() % 8) - 4),
                1 => Value::Float(f64::from(random.next_u32() % 8) / 2.0),
                2 => Value::Str("x".repeat(random.next_u32() as usize % 300)),
                3 => Value::Str(format!("word{} é", random.next_u32() % 4)),
                4 => Value::Bool(random.next_u32().is_multiple_of(2)),
                5 => Value::Duration(i64::from(random.next_u32() % 4) * 1_000_000_000),
                _ => continue,
            };
            fields.push((name.to_string(), value));
        }
        Sample {
            event: format!("e{}", random.next_u32() % shapes),
            host: format!("h{}", random.next_u32() % 3),
            trace: Trace(u128::from(random.next_u32() % 40)),
            level: Level::ALL[random.next_u32() as usize % 6],
            fields,
        }
    }

    fn append(&self, pool: &mut Pool, now: u64) -> Option<u64> {
        let fields: Vec<_> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value.borrow())).collect();
        let draft = Draft {
            level: self.level,
            trace: self.trace,
            fields: &fields,
            ..Draft::new(&self.event, &self.host, "s")
        };
        pool.append(now, &draft)
    }

    fn record(&self, time: u64, seq: u64) -> Record {
        Record {
            time,
            trace: self.trace,
            host: self.host.clone(),
            seq,
            event: self.event.clone(),
            level: self.level,
            source: "s".into(),
            important: false,
            fields: self.fields.clone(),
        }
    }
}

const FILTERS: [&str; 24] = [
    "true",
    "event == \"e1\"",
    "event == \"e1\" && host == \"h0\" && a > 1",
    "a > 1 || b > 1.5",
    "a == 2.0",
    "1 <= a && a != 3",
    "!(a > 1)",
    "msg has \"word2\"",
    "has \"é\"",
    "msg == \"word1 é\" || msg == \"word3 é\"",
    "msg matches \"word?*\"",
    "level >= error",
    "trace == \"7\"",
    "trace in [\"7\", \"8\"] && level < error",
    "c in [1, 2, \"word1 é\"]",
    "a && b == true",
    "exists a && !exists b",
    "a > 1s || b <= 2s",
    "a + b > 2 || -c == 2",
    "seq % 7 == 3",
    "time >= \"1970-01-01T00:00:05Z\"",
    "source == \"s\" && host in [\"h1\", \"h2\"]",
    "event matches \"e?\" && a * 2 > b",
    "a > b || msg > c",
];

#[test]
fn it_finds_what_a_naive_pool_finds() {
    for seed in 0..12 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // Many small segments, or a few large ones.
        let mut pool = Pool::new(config(if seed % 3 == 0 { 60_000 } else { 2_000_000 }));
        let mut naive: Vec<Record> = Vec::new();
        let (mut now, mut newest) = (SECOND, 0);
        let shapes = [1, 5, 400][seed as usize % 3];
        for _ in 0..3000 {
            // The clock may be set back.
            now = (now + u64::from(random.next_u32() % 5000)).saturating_sub(2000);
            newest = now.max(newest);
            let sample = Sample::random(&mut random, shapes);
            let seq = sample.append(&mut pool, now).unwrap();
            naive.push(sample.record(newest, seq));
            assert_eq!(pool.get(seq).unwrap().to_record(), *naive.last().unwrap());
        }
        let kept = &naive[(pool.first() - 7) as usize..];
        assert_eq!(pool.next() - pool.first(), kept.len() as u64);
        for text in FILTERS {
            let filter = filter(text);
            let expected: Vec<u64> =
                kept.iter().filter(|record| filter.accepts(*record)).map(|r| r.seq).collect();
            assert_eq!(texts(&pool, text), expected, "{text}, seed {seed}");
            let mut back = Vec::new();
            pool.scan_back(&filter, |view| {
                back.push(view.seq());
                true
            });
            back.reverse();
            // The chain of a trace ends where its oldest record was forgotten.
            assert_eq!(back, expected, "backwards: {text}, seed {seed}");
        }
        for trace in 1..40 {
            let newest = kept.iter().rfind(|record| record.trace == Trace(trace));
            let found = pool.latest(Trace(trace)).map(|view| view.to_record());
            assert_eq!(found.as_ref(), newest, "latest of {trace}");
        }
    }
}

#[test]
fn a_scan_goes_on_where_it_stopped() {
    let mut pool = Pool::new(config(200_000));
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for n in 0..2000 {
        Sample::random(&mut random, 3).append(&mut pool, n).unwrap();
    }
    let whole = texts(&pool, "event == \"e1\"");
    let (mut from, mut pieces) = (0, Vec::new());
    while from < pool.next() {
        let mut left = 7;
        from = pool.scan(&filter("event == \"e1\""), from, |view| {
            pieces.push(view.seq());
            left -= 1;
            left > 0
        });
    }
    assert_eq!(pieces, whole);
    assert!(whole.len() > 100);
}

#[test]
fn bytes_and_age_are_bounded_and_what_is_forgotten_is_counted() {
    let most = 300_000;
    let mut pool = Pool::new(config(most));
    let mut random = ChaCha8Rng::seed_from_u64(4);
    for n in 0..20_000 {
        Sample::random(&mut random, 300).append(&mut pool, n).unwrap();
        assert!(pool.stats().bytes <= most as u64, "{:?}", pool.stats());
    }
    let stats = pool.stats();
    assert_eq!(stats.taken, 20_000);
    assert_eq!(stats.records + stats.forgotten, 20_000);
    assert!(stats.bytes > most as u64 * 3 / 4, "not thrown away before it must: {stats:?}");
    assert_eq!(pool.missed(7), stats.forgotten);
    pool.tick(20_000 + 3601 * SECOND);
    assert_eq!(pool.stats().records, 0);
    assert_eq!(pool.stats().forgotten, 20_000);
    assert!(pool.latest(Trace(5)).is_none());
}

#[test]
fn many_traces_are_found_while_the_table_grows_and_after_they_are_gone() {
    let mut pool = Pool::new(config(3_000_000));
    let mut newest: BTreeMap<u128, u64> = BTreeMap::new();
    let mut random = ChaCha8Rng::seed_from_u64(8);
    for n in 0..120_000_u64 {
        let trace =
            if n % 3 == 0 { u128::from(random.next_u32() % 500) + 1 } else { u128::from(n) << 64 };
        let draft = Draft { trace: Trace(trace), ..Draft::new("e", "h", "s") };
        let seq = pool.append(n, &draft).unwrap();
        newest.insert(trace, seq);
        if n % 1000 == 0 {
            for (trace, seq) in newest.iter().step_by(97) {
                let expected = Some(*seq).filter(|seq| *seq >= pool.first());
                assert_eq!(pool.latest(Trace(*trace)).map(|view| view.seq()), expected);
            }
        }
    }
    assert!(pool.stats().forgotten > 0);
    for (trace, seq) in newest {
        let expected = Some(seq).filter(|seq| *seq >= pool.first() && trace != 0);
        assert_eq!(pool.latest(Trace(trace)).map(|view| view.seq()), expected);
    }
}

#[test]
fn a_flood_is_dropped_counted_and_said_and_costs_nobody_else() {
    let mut pool = Pool::new(config(10_000_000));
    pool.set_quota("flood", Quota { records: 100, bytes: 0 });
    let mut taken = (0, 0);
    for n in 0..50_000 {
        let now = SECOND + n * 40;
        taken.0 += u32::from(pool.append(now, &Draft::new("e", "h", "flood")).is_some());
        taken.1 += u32::from(pool.append(now, &Draft::new("e", "h", "other")).is_some());
    }
    // Two seconds: what may be written at once, and twice the rate.
    assert!((295..=305).contains(&taken.0), "{taken:?}");
    assert_eq!(taken.1, 50_000);
    assert!(pool.deadline().is_some());
    pool.tick(60 * SECOND);
    assert_eq!(pool.deadline(), None);
    let mut said = 0;
    pool.scan(&filter("event == \"log.dropped\" && from == \"flood\""), 0, |view| {
        let record = view.to_record();
        let count = record.fields.iter().find(|(name, _)| name == "count").unwrap();
        let Value::Int(count) = count.1 else { panic!("{count:?}") };
        said += count;
        true
    });
    assert_eq!(said, 50_000 - i64::from(taken.0));
    assert_eq!(pool.stats().dropped, said as u64);
}

#[test]
fn bytes_have_a_quota_too() {
    let mut pool = Pool::new(config(10_000_000));
    pool.set_quota("s", Quota { records: 0, bytes: 1000 });
    let text = "x".repeat(98);
    let fields = [("msg", ValueRef::Str(&text))];
    let draft = Draft { fields: &fields, ..Draft::new("e", "h", "s") };
    let taken = (0..100).filter(|_| pool.append(SECOND, &draft).is_some()).count();
    assert_eq!(taken, 10);
    // A record that is larger than a second's worth takes a second's worth.
    let text = "x".repeat(5000);
    let fields = [("msg", ValueRef::Str(&text))];
    let draft = Draft { fields: &fields, ..Draft::new("e", "h", "s") };
    assert!(pool.append(3 * SECOND, &draft).is_some());
    assert!(pool.append(3 * SECOND + SECOND / 2, &draft).is_none());
}

#[test]
fn a_watcher_is_woken_for_every_record_that_it_wants() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    // Several segments, and room for all.
    let mut pool = Pool::new(config(3_000_000));
    for n in 0..50 {
        Sample::random(&mut random, 5).append(&mut pool, n).unwrap();
    }
    // Each with its cursor, and what it was shown.
    let mut watchers: BTreeMap<WatcherId, (Filter, u64, Vec<u64>)> = BTreeMap::new();
    let mut expected: BTreeMap<WatcherId, Vec<u64>> = BTreeMap::new();
    for round in 0..4000_u64 {
        if round % 150 == 0 {
            let filter = filter(FILTERS[(round / 150) as usize % FILTERS.len()]);
            let id = pool.watch(filter.clone()).unwrap();
            let from = pool.first();
            let mut before = Vec::new();
            pool.scan(&filter, from, |view| {
                before.push(view.seq());
                true
            });
            expected.insert(id, before);
            watchers.insert(id, (filter, from, Vec::new()));
        }
        let sample = Sample::random(&mut random, 5);
        let seq = sample.append(&mut pool, 100 + round).unwrap();
        for (id, (filter, ..)) in &watchers {
            if filter.accepts(&sample.record(100 + round, seq)) {
                expected.get_mut(id).unwrap().push(seq);
            }
        }
        // Sooner than anything is forgotten.
        if random.next_u32() % 5 == 0 {
            for id in pool.woken() {
                pool.looks(id);
                let (filter, cursor, shown) = watchers.get_mut(&id).unwrap();
                assert_eq!(pool.missed(*cursor), 0);
                *cursor = pool.scan(filter, *cursor, |view| {
                    shown.push(view.seq());
                    true
                });
            }
        } else {
            // Those that aren't woken have nothing to see: they may go on from here.
            let woken = pool.woken.clone();
            for (id, (_, cursor, _)) in &mut watchers {
                if !woken.contains(id) {
                    *cursor = pool.next();
                }
            }
        }
    }
    for id in pool.woken() {
        let (filter, cursor, shown) = watchers.get_mut(&id).unwrap();
        pool.scan(filter, *cursor, |view| {
            shown.push(view.seq());
            true
        });
    }
    for (id, (filter, _, shown)) in watchers {
        assert_eq!(shown, expected[&id], "{filter:?}");
        pool.unwatch(id);
    }
    Sample::random(&mut random, 5).append(&mut pool, 9999).unwrap();
    assert!(pool.woken().is_empty());
}

#[test]
fn what_is_too_long_is_cut_between_letters() {
    let mut pool = Pool::new(config(10_000_000));
    let name = "é".repeat(200);
    let text = "é".repeat(20_000);
    let names: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
    let mut fields: Vec<(&str, ValueRef<'_>)> =
        names.iter().map(|name| (name.as_str(), ValueRef::Str(&text))).collect();
    fields[0].0 = &name;
    let draft = Draft { fields: &fields, ..Draft::new(&name, &name, &name) };
    let seq = pool.append(1, &draft).unwrap();
    let record = pool.get(seq).unwrap().to_record();
    assert_eq!(record.event.len(), NAME_MAX);
    assert_eq!(record.fields.len(), FIELDS_MAX);
    assert_eq!(record.fields[0].0.len(), NAME_MAX);
    let sizes = record.fields.iter().map(|(_, value)| value.to_string().len());
    assert_eq!(sizes.sum::<usize>(), RECORD_MAX);
}

#[test]
fn names_without_end_fill_no_memory_without_end() {
    let mut pool = Pool::new(config(4_000_000));
    for n in 0..60_000 {
        let event = format!("event-{n}");
        pool.append(n, &Draft::new(&event, "h", &event));
        assert!(pool.stats().bytes < 4_000_000);
    }
    assert!(pool.stats().forgotten > 0);
}
