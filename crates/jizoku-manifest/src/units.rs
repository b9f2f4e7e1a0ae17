//! Spans and byte counts as people write them: `"100ms"`, `"64MiB"`.
//!
//! What it does not know: TOML, defaults, which range a key allows.
//!
//! Invariant: only whole numbers; what is read is exactly what was written, never rounded.

use jizoku_types::{ByteCount, Span};

/// What a span may look like, for error texts.
pub(crate) const SPAN_FORM: &str = "a span of time such as \"100ms\", \"30s\" or \"5m\"";
/// What a byte count may look like, for error texts.
pub(crate) const SIZE_FORM: &str = "a size such as \"64MiB\" or \"1GiB\"";

const SPAN_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

const SIZE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Why a text is not a number with a unit; the text is a hint for the user.
pub(crate) type Hint = Option<String>;

pub(crate) fn span(text: &str) -> Result<Span, Hint> {
    let (number, unit) = split(text);
    let hint = || match unit {
        "" => Some(format!("add a unit, as in \"{number}ms\"")),
        "sec" | "secs" | "second" | "seconds" => Some(format!("did you mean \"{number}s\"?")),
        "min" | "mins" | "minute" | "minutes" => Some(format!("did you mean \"{number}m\"?")),
        _ => Some("the units are ns, us, ms, s, m and h".to_owned()),
    };
    scaled(number, unit, &SPAN_UNITS, hint).map(Span::nanos)
}

pub(crate) fn size(text: &str) -> Result<ByteCount, Hint> {
    let (number, unit) = split(text);
    let hint = || {
        let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
        match letter {
            None => Some(format!("add a unit, as in \"{number}MiB\"")),
            Some(c @ ('K' | 'M' | 'G' | 'T')) if unit.len() <= 3 => {
                Some(format!("did you mean \"{number}{c}iB\" (steps of 1024)?"))
            }
            Some(_) => Some("the units are B, KiB, MiB, GiB and TiB".to_owned()),
        }
    };
    scaled(number, unit, &SIZE_UNITS, hint).map(ByteCount)
}

/// The span as it is written in a file: the largest unit that keeps it whole.
pub(crate) fn write_span(span: Span) -> String {
    written(span.as_nanos(), &SPAN_UNITS)
}

/// The size as it is written in a file: the largest unit that keeps it whole.
pub(crate) fn write_size(size: ByteCount) -> String {
    written(size.0, &SIZE_UNITS)
}

fn written(number: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().rev().find(|(_, scale)| number.is_multiple_of(*scale));
    let (unit, scale) = whole.expect("the first unit is 1, which divides everything");
    if number == 0 { format!("0{}", units[0].0) } else { format!("{}{unit}", number / scale) }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(' '))
}

fn scaled(
    number: &str,
    unit: &str,
    units: &[(&str, u64)],
    hint: impl Fn() -> Hint,
) -> Result<u64, Hint> {
    if number.is_empty() {
        return Err(None);
    }
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| scale);
    let scale = scale.ok_or_else(&hint)?;
    let number: u64 = number.parse().map_err(|_| Some("the number is too large".to_owned()))?;
    number.checked_mul(*scale).ok_or_else(|| Some("the number is too large".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        for (text, expected) in [
            ("100ms", Span::millis(100)),
            ("100 ms", Span::millis(100)),
            ("0s", Span::ZERO),
            ("5m", Span::secs(300)),
            ("1h", Span::secs(3600)),
            ("7us", Span::micros(7)),
        ] {
            assert_eq!(span(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("64MiB", ByteCount::mib(64)),
            ("1 GiB", ByteCount::gib(1)),
            ("12B", ByteCount(12)),
            ("2TiB", ByteCount(2 << 40)),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for nanos in [0, 1, 1_500, 2_000_000, 60_000_000_000, 61_000_000_000, u64::MAX] {
            let value = Span::nanos(nanos);
            assert_eq!(span(&write_span(value)), Ok(value));
            assert_eq!(size(&write_size(ByteCount(nanos))), Ok(ByteCount(nanos)));
        }
        assert_eq!(write_span(Span::secs(30)), "30s");
        assert_eq!(write_size(ByteCount::mib(1536)), "1536MiB");
    }

    #[test]
    fn mistakes_come_with_a_hint() {
        let hint = |result: Result<u64, Hint>| result.unwrap_err().unwrap_or_default();
        let of_span = |text| hint(span(text).map(Span::as_nanos));
        let of_size = |text| hint(size(text).map(|size| size.0));
        assert_eq!(of_span("50"), "add a unit, as in \"50ms\"");
        assert_eq!(of_span("5min"), "did you mean \"5m\"?");
        assert_eq!(of_span("1.5s"), "the units are ns, us, ms, s, m and h");
        assert_eq!(of_span("99999999999999h"), "the number is too large");
        assert_eq!(of_span("99999999999999999999999s"), "the number is too large");
        assert_eq!(of_span(""), "");
        assert_eq!(of_span("-1s"), "");
        assert_eq!(of_size("64MB"), "did you mean \"64MiB\" (steps of 1024)?");
        assert_eq!(of_size("64m"), "did you mean \"64MiB\" (steps of 1024)?");
        assert_eq!(of_size("64"), "add a unit, as in \"64MiB\"");
        assert_eq!(of_size("1 ё"), "the units are B, KiB, MiB, GiB and TiB");
    }
}
