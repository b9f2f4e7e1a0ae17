//! Moments as people write them: RFC 3339, read and written.
//!
//! What it does not know: time zones by name, leap seconds (`:60` is read as the next second's
//! beginning).
//!
//! Units: microseconds of Unix time. Years from 1970 to 9999; what is earlier isn't a moment here.

use core::fmt;

const DAY: u64 = 86_400;
/// The end of the year 9999, in seconds.
const END: u64 = 253_402_300_800;

/// Writes a moment in UTC, with microseconds.
pub fn write(micros: u64, f: &mut impl fmt::Write) -> fmt::Result {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let seconds = seconds.min(END - 1);
    let (year, month, day) = date_of(seconds / DAY);
    let (hour, minute, second) = (seconds % DAY / 3600, seconds % 3600 / 60, seconds % 60);
    write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Reads `2026-11-30`, `2026-11-30T22:00:05`, either with a fraction and with `Z` or an offset;
/// without one it is UTC. A space may stand for the `T`.
pub fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let year = digits(bytes, 0, 4)?;
    let (month, day) = (digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    let days = days_of(year, month, day)?;
    if bytes.len() == 10 {
        return Some(days * DAY * 1_000_000);
    }
    let (hour, minute) = (digits(bytes, 11, 2)?, digits(bytes, 14, 2)?);
    let second = digits(bytes, 17, 2)?;
    let marks = matches!(bytes[10], b'T' | b't' | b' ') && bytes[13] == b':' && bytes[16] == b':';
    if !marks || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, at) = fraction(bytes, 19)?;
    let offset = offset(&bytes[at..])?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    let seconds = u64::try_from(i64::try_from(seconds).ok()? - offset).ok()?;
    Some(seconds * 1_000_000 + fraction)
}

/// Microseconds of the fraction at `at`, if one is there, and where it ends.
fn fraction(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    if bytes.get(at) != Some(&b'.') {
        return Some((0, at));
    }
    let rest = &bytes[at + 1..];
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > 12 {
        return None;
    }
    let mut micros = 0;
    for place in 0..6 {
        micros =
            micros * 10 + rest.get(place).filter(|_| place < count).map_or(0, |b| b - b'0') as u64;
    }
    Some((micros, at + 1 + count))
}

/// Seconds that the written time is ahead of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (digits(bytes, 1, 2)?, digits(bytes, 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
            Some(if *sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    let digits = bytes.get(at..at + count)?;
    digits.iter().try_fold(0, |sum: u64, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_date =
        year >= 1970 && (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
    if !is_date {
        return None;
    }
    let before = (1..month).map(|month| month_days(year, month)).sum::<u64>();
    Some(year_start(year) + before + day - 1)
}

/// Days from 1970-01-01 to the first of a year.
fn year_start(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

fn date_of(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while year_start(year + 1) <= days {
        year += 1;
    }
    let mut rest = days - year_start(year);
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn text(micros: u64) -> String {
        let mut text = String::new();
        write(micros, &mut text).unwrap();
        text
    }

    #[test]
    fn known_moments() {
        for (written, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-30T22:52:06Z", 1_796_079_126),
            ("2026-11-30T23:52:06+01:00", 1_796_079_126),
            ("2026-11-30 22:52:06", 1_796_079_126),
            ("2100-03-01", 4_107_542_400),
        ] {
            assert_eq!(parse(written), Some(seconds * 1_000_000), "{written}");
        }
        assert_eq!(parse("1985-04-12T23:20:50.52Z"), Some(482_196_050_520_000));
        assert_eq!(parse("2026-11-30T22:52:06.123456789Z"), Some(1_796_079_126_123_456));
        assert_eq!(text(1_796_079_126_000_007), "2026-11-30T22:52:06.000007Z");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut micros = 0;
        while micros < END * 1_000_000 {
            assert_eq!(parse(&text(micros)), Some(micros));
            micros += 86_399_999_999 * 13;
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-11-31",
            "1969-12-31",
            "2026-11-30T",
            "2026-11-30T24:00:00",
            "2026-11-30T22:00:00.",
            "2026-11-30T22:00:00+1",
            "1970-01-01T00:00:00+01:00",
            "2026-11-30T22:00:00Zx",
            "é026-11-30",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
