//! What expressions mean, which are refused and how, and that any text is survived.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::schema::Schemas;
use crate::value::{Level, Trace, Type, Value, ValueRef};

/// A record as a list of fields.
struct Sample(Vec<(&'static str, Value)>);

impl Fields for Sample {
    fn builtin(&self, builtin: Builtin) -> ValueRef<'_> {
        match builtin {
            Builtin::Time => ValueRef::Time(1_796_079_126_000_000),
            Builtin::Trace => ValueRef::Trace(Trace(0x7f3a91)),
            Builtin::Host => ValueRef::Str("web1"),
            Builtin::Seq => ValueRef::Int(42),
            Builtin::Event => ValueRef::Str("http.req"),
            Builtin::Level => ValueRef::Level(Level::Warn),
            Builtin::Source => ValueRef::Str("nginx"),
        }
    }
    fn field(&self, name: &str) -> Option<ValueRef<'_>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.borrow())
    }
    fn any_text(&self, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|(_, value)| matches!(value, Value::Str(text) if wanted(text)))
    }
}

fn sample() -> Sample {
    Sample(Vec::from([
        ("status", Value::Int(503)),
        ("took", Value::Duration(300_000_000)),
        ("pct", Value::Float(91.5)),
        ("msg", "connection refused by upstream".into()),
        ("ok", Value::Bool(false)),
        ("host", "inner".into()),
        ("odd-name", Value::Int(1)),
        ("least", Value::Int(i64::MIN)),
    ]))
}

fn schemas() -> Schemas {
    let mut schemas = Schemas::new();
    let fields = |list: &[(&str, Type)]| -> BTreeMap<String, Type> {
        list.iter().map(|(name, kind)| ((*name).to_string(), *kind)).collect()
    };
    schemas.declare("cpu", fields(&[("pct", Type::Float), ("core", Type::Int)])).unwrap();
    schemas
        .declare("web.up", fields(&[("port", Type::Int), ("url", Type::Str), ("ok", Type::Bool)]))
        .unwrap();
    schemas
}

fn checked(text: &str) -> Result<Filter, Vec<String>> {
    let outer = BTreeMap::from([("port".to_string(), Type::Int), ("who".into(), Type::Str)]);
    let schemas = schemas();
    let scope = Scope { schemas: &schemas, event: None, outer: &outer };
    let expr = parse(text).map_err(|problem| Vec::from([problem.show(text)]))?;
    check(&expr, scope).map_err(|list| list.iter().map(|problem| problem.show(text)).collect())
}

#[test]
fn what_expressions_mean() {
    for (text, expected) in [
        ("status >= 500 && status < 600", true),
        ("status == 503.0", true),
        ("status == \"503\"", false),
        ("status != 503", false),
        ("took > 250ms && took <= 300ms", true),
        ("took > 1h30m", false),
        ("pct > 90", true),
        ("-pct < -90.5", true),
        ("level >= warn", true),
        ("level == error || level == warn", true),
        ("level > trace", true),
        ("level in [debug, \"warn\"]", true),
        ("trace == \"007F3A91\"", true),
        ("trace in [\"1\", \"2\"]", false),
        ("time >= \"2026-11-30T22:52:06Z\"", true),
        ("time < \"2026-11-30\"", false),
        ("host == \"web1\" && .host == \"inner\" && `host` == \"inner\"", true),
        ("`odd-name` == 1", true),
        ("event matches \"http.*\"", true),
        ("event matches \"http\"", false),
        ("msg has \"refused\"", true),
        ("has \"refused\"", true),
        ("has \"nothing like it\"", false),
        ("source in [\"kv\", \"nginx\"]", true),
        ("exists msg && !exists nothing", true),
        ("exists time", true),
        ("nothing == 1 || nothing != 1", false),
        ("!(nothing == 1)", true),
        ("ok", false),
        ("!ok", true),
        ("ok == false", true),
        ("status * 2 == 1006 && status % 10 == 3 && 7 / 2 == 3", true),
        ("status / 0 == 1 || status / 0 != 1", false),
        ("least - 1 < 0", false),
        ("-least < 0 || -least > 0", false),
        ("took / 2 == 150ms && took + 1s > 1s && took / 100ms == 3.0", true),
        ("1 + 2 * 3 == 7 && (1 + 2) * 3 == 9", true),
        ("false || true && false", false),
        ("true", true),
        ("seq == 42", true),
        ("status -1 == 502", true),
        ("503 == status", true),
    ] {
        let filter = checked(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
        assert_eq!(filter.accepts(&sample()), expected, "{text}");
    }
}

#[test]
fn what_is_refused_is_said_where_it_stands() {
    for (text, place, what) in [
        ("", "1:1", "a name or a value is missing at the end"),
        ("a ==", "1:5", "a name or a value is missing at the end"),
        ("a == 1 b", "1:8", "`b` is not expected here"),
        ("a = 1", "1:3", "`=` is not expected here"),
        ("(a == 1", "1:8", "`)` is missing at the end"),
        ("a == \"x", "1:6", "no closing quote"),
        ("a == \"\\q\"", "1:7", "unknown escape"),
        ("a > 30x", "1:5", "`30x` is no duration"),
        ("a == 1 == 2", "1:8", "don't chain"),
        ("a == 99999999999999999999", "1:6", "too large"),
        ("a ; b", "1:3", "means nothing here"),
        ("a == é", "1:6", "`é` means nothing here"),
        ("status", "", ""),
        ("event == 5", "1:10", "`event` is of type str, this of type int"),
        ("level >= eror", "1:10", "`eror` is no level"),
        ("time > \"yesterday\"", "1:8", "no moment"),
        ("trace == \"xyz\"", "1:10", "no trace"),
        ("trace > \"1\"", "1:1", "no order"),
        ("seq has \"4\"", "1:1", "looks at texts"),
        ("msg has 4", "1:9", "a text is needed"),
        ("event in \"a\"", "1:10", "takes a list"),
        ("seq in [1, \"a\"]", "1:12", "of type int, this of type str"),
        ("seq", "1:1", "a condition is needed"),
        ("a && 5", "1:6", "a condition is needed"),
        ("(a == 1) + 1 == 2", "1:1", "this is a condition"),
        ("event + 1 == 2", "1:1", "`+` is not for str and int"),
        ("event == \"cpu\" && pctt > 1", "1:19", "no such field: `pctt`"),
        ("event == \"cpu\" && pct == \"high\"", "1:26", "`pct` is of type float, this of type str"),
        ("event == \"cpu\" && pct", "1:19", "a condition is needed"),
        ("event in [\"cpu\", \"web.up\"] && prt == 1", "1:31", "no such field"),
        ("port == $prot", "1:9", "there is no value `$prot`"),
        ("event == \"web.up\" && url == $port", "1:29", "of type str, this of type int"),
        ("exists 5", "1:8", "takes the name"),
    ] {
        match checked(text) {
            Ok(_) => assert_eq!(what, "", "{text} was accepted"),
            Err(problems) => {
                let first = &problems[0];
                assert!(first.starts_with(&format!("{place}:")), "{text}: {first}");
                assert!(first.contains(what), "{text}: {first}");
            }
        }
    }
}

#[test]
fn hints_name_what_was_probably_meant() {
    let hint = |text| checked(text).unwrap_err().remove(0);
    assert!(hint("event == \"cpu\" && pctt > 1").ends_with("hint: did you mean `pct`?"));
    assert!(hint("level >= eror").ends_with("hint: did you mean `error`?"));
    assert!(hint("port == $prot").ends_with("hint: did you mean `$port`?"));
    assert!(hint("event == \"cpu\" && memory > 1").ends_with("declared are: core, pct"));
}

#[test]
fn all_mistakes_are_reported_in_order() {
    let text = "event == \"cpu\" && pctt > 1 && (core == \"a\" || level > hgh) && event + 1 == 2 \
                && trace == \"z\" && pct has \"x\" && core in [\"b\"] && seq && time > \"q\" && $x";
    let problems = checked(text).unwrap_err();
    assert_eq!(problems.len(), 10, "{problems:#?}");
    let columns: Vec<usize> = problems
        .iter()
        .map(|problem| problem.split(':').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(columns.is_sorted(), "{columns:?}");
}

#[test]
fn fields_are_known_only_where_all_events_were_declared() {
    assert!(checked("event == \"cpu\" || event == \"web.up\" && pct > 1").is_ok());
    assert!(checked("(event == \"cpu\" || event == \"web.up\") && prt > 1").is_err());
    assert!(checked("(event == \"cpu\" || event == \"other\") && prt > 1").is_ok());
    assert!(checked("event matches \"cpu\" && prt > 1").is_ok());
    let filter = checked("event == \"cpu\" && host == \"a\"").unwrap();
    assert_eq!(filter.events().unwrap().len(), 1);
    assert_eq!(checked("host == \"a\"").unwrap().events(), None);
    let filter = checked("event == \"a\" && trace == \"7f\"").unwrap();
    assert_eq!(filter.trace(), Some(Trace(0x7f)));
    assert_eq!(checked("trace == \"7f\" || ok").unwrap().trace(), None);
}

#[test]
fn a_filter_behind_an_event_is_checked_against_it_and_accepts_no_other() {
    let schemas = schemas();
    let outer = BTreeMap::new();
    let scope = Scope { schemas: &schemas, event: Some("cpu"), outer: &outer };
    let expr = parse("pct > 90.0").unwrap();
    assert!(!check(&expr, scope).unwrap().accepts(&sample()), "it is another event");
    assert!(check(&parse("pc > 90.0").unwrap(), scope).is_err());
    let other = Scope { event: Some("http.req"), ..scope };
    assert!(check(&expr, other).unwrap().accepts(&sample()));
}

#[test]
fn values_from_outside_are_put_in() {
    let expr = parse("status == $port && msg has $who && level >= $level").unwrap();
    let outer = BTreeMap::from([
        ("port".to_string(), Type::Int),
        ("who".into(), Type::Str),
        ("level".into(), Type::Str),
    ]);
    let schemas = Schemas::new();
    let scope = Scope { schemas: &schemas, event: None, outer: &outer };
    assert!(!check(&expr, scope).unwrap().accepts(&sample()), "not bound: accepts nothing");
    let mut values = BTreeMap::from([
        ("port".to_string(), Value::Int(503)),
        ("who".into(), "refused".into()),
        ("level".into(), "info".into()),
    ]);
    let bound = expr.bind(&values).unwrap();
    assert!(check(&bound, scope).unwrap().accepts(&sample()));
    assert_eq!(bound.to_string(), "status == 503 && msg has \"refused\" && level >= \"info\"");
    values.insert("level".into(), "\" || true".into());
    let bound = expr.bind(&values).unwrap();
    let problems = check(&bound, scope).unwrap_err();
    assert!(problems[0].what.contains("no level"), "{problems:?}");
    assert_eq!(parse(&bound.to_string()).unwrap(), bound, "nothing gets out of its quotes");
    values.insert("port".into(), Value::Float(f64::NAN));
    assert!(expr.bind(&values).is_err());
    let mut seen = Vec::new();
    expr.outer(&mut |name, _| seen.push(name.to_string()));
    assert_eq!(seen, ["port", "who", "level"]);
}

#[test]
fn within_a_larger_text_an_expression_ends_where_it_ends() {
    for (text, expected) in [
        ("port == 8080 within 10s", "port == 8080"),
        ("pct > 90.0 for 30s do heal", "pct > 90.0"),
        ("pct > 90.0 { x }", "pct > 90.0"),
        ("pct > 90.0 | count", "pct > 90.0"),
        ("pct > 90.0; \"open", "pct > 90.0"),
        ("a == 1\n- b", "a == 1"),
        ("a == 1\n&& b == 2\n  || c", "a == 1\n&& b == 2\n  || c"),
        ("a ==\n 1\nhas", "a ==\n 1"),
        ("(a\n == 1)\n(b)", "(a\n == 1)"),
    ] {
        let before = "wait log \"x\" where ";
        let whole = format!("{before}{text}");
        let (expr, end) = parse_prefix(&whole, before.len()).unwrap();
        assert_eq!(&whole[before.len()..end], expected);
        assert_eq!(expr.place.start, before.len());
    }
    assert!(parse_prefix("where ", 6).is_err());
}

#[test]
fn nesting_and_size_are_bounded() {
    let deep = format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(parse(&deep).unwrap_err().what.contains("deeper"));
    let deep = format!("{}a", "!".repeat(5_000));
    assert!(parse(&deep).unwrap_err().what.contains("deeper"));
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(parse(&deep).unwrap_err().what.contains("deeper"));
    let wide = format!("a{}", " && a".repeat(3000));
    assert!(parse(&wide).unwrap_err().what.contains("more than"));
    let wide = format!("a{}", " && a".repeat(200));
    assert!(checked(&wide).is_ok());
    assert!(parse(&"a".repeat(TEXT_MAX + 1)).is_err());
}

/// Random words in random order: nothing panics, and what is an expression keeps its meaning
/// when it is written and read again.
#[test]
fn any_text_is_survived_and_an_expression_is_what_it_says() {
    const WORDS: [&str; 44] = [
        "a",
        "pct",
        "event",
        "level",
        "time",
        "trace",
        "seq",
        "host",
        "true",
        "false",
        "1",
        "2.5",
        "30s",
        "\"x\"",
        "\"a b\\n\\\"\"",
        "$port",
        "$who",
        "==",
        "!=",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        "(",
        ")",
        "[",
        "]",
        ",",
        "+",
        "-",
        "*",
        "/",
        "%",
        "has",
        "matches",
        "in",
        "exists",
        "error",
        "`q-r`",
        ".host",
        "\n",
        "9223372036854775808",
        "1e300",
    ];
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (mut parsed, mut sound) = (0, 0);
    for _ in 0..200_000 {
        let count = 1 + random.next_u32() as usize % 12;
        let words: Vec<&str> =
            (0..count).map(|_| WORDS[random.next_u32() as usize % WORDS.len()]).collect();
        let text = words.join(" ");
        let Ok(expr) = parse(&text) else { continue };
        parsed += 1;
        let again = parse(&expr.to_string());
        assert_eq!(again.as_ref(), Ok(&expr), "{text:?} became {expr}");
        if let Ok(filter) = checked(&text) {
            sound += 1;
            let accepted = filter.accepts(&sample());
            let again = checked(&expr.to_string()).unwrap();
            assert_eq!(again.accepts(&sample()), accepted, "{text:?}");
        }
        let _ = parse_prefix(&text, 0);
    }
    assert!(parsed > 2000 && sound > 500, "{parsed} {sound}");
}

#[test]
fn any_bytes_are_survived() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let valid = "event == \"cpu\" && (pct > 90.5 || `odd` in [1, 30s]) && has \"é\\n\" && -a < $b";
    for _ in 0..100_000 {
        let mut bytes = valid.as_bytes().to_vec();
        for _ in 0..1 + random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] = random.next_u32() as u8;
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = checked(&text);
        let at = random.next_u32() as usize % (text.len() + 1);
        let _ = parse_prefix(&text, at);
    }
}
