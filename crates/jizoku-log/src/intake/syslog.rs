//! Messages of syslog: RFC 5424, and what RFC 3164 found in use.
//!
//! The severity becomes the level, the program the source, MSGID (or `syslog`) the event,
//! structured data fields `id.name`, the time that the sender wrote the field `sent`. The name
//! of the sending host becomes the record's host; it is what the sender claims.
//!
//! What it does not know: how messages are divided (RFC 6587); whoever reads a socket does that.
//!
//! Invariant: every text is a record; what has no form of syslog is its message as it is.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use super::{Content, Parsed};
use crate::record::FIELDS_MAX;
use crate::value::{Level, Value};

/// The event of messages that have no MSGID.
pub const EVENT: &str = "syslog";

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// Reads a message.
pub fn parse(text: &str) -> Parsed<'_> {
    let text = text.trim_end_matches(['\n', '\r', '\0']);
    let (priority, rest) = priority(text).unwrap_or((13, text));
    let mut parsed = Parsed::empty();
    parsed.event = Some(Cow::Borrowed(EVENT));
    parsed.level = Some(match priority % 8 {
        0..=2 => Level::Fatal,
        3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    });
    let facility = FACILITIES[usize::from(priority / 8)];
    field(&mut parsed, "facility", facility);
    let message = match rest.strip_prefix("1 ").and_then(|rest| rfc5424(rest, &mut parsed)) {
        Some(message) => message,
        None => rfc3164(rest, &mut parsed),
    };
    field(&mut parsed, "msg", message);
    parsed
}

/// `<13>`: facility and severity.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    let sound = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let priority = digits.parse().ok().filter(|priority| sound && *priority < 192)?;
    Some((priority, rest))
}

fn field<'t>(parsed: &mut Parsed<'t>, name: &'static str, text: &'t str) {
    parsed.fields.push((Cow::Borrowed(name), Content::Text(Cow::Borrowed(text))));
}

/// A part up to the next space; `None` for the sign that there is none.
fn part(text: &str) -> Option<(Option<&str>, &str)> {
    let (part, rest) = text.split_once(' ').unwrap_or((text, ""));
    (!part.is_empty()).then_some(((part != "-").then_some(part), rest))
}

/// What stands behind the version; gives the message, or nothing if it isn't of this form.
fn rfc5424<'t>(text: &'t str, parsed: &mut Parsed<'t>) -> Option<&'t str> {
    let (time, rest) = part(text)?;
    if let Some(time) = time {
        crate::moment::parse(time)?;
    }
    let (host, rest) = part(rest)?;
    let (program, rest) = part(rest)?;
    let (process, rest) = part(rest)?;
    let (id, rest) = part(rest)?;
    let mut data = Parsed::empty();
    let rest = match rest.strip_prefix('-') {
        Some(rest) => rest,
        None => structured(rest, &mut data)?,
    };
    let message = rest.strip_prefix(' ').or_else(|| rest.is_empty().then_some(""))?;
    parsed.host = host.map(Cow::Borrowed);
    parsed.source = program.map(Cow::Borrowed);
    if let Some(id) = id {
        parsed.event = Some(Cow::Borrowed(id));
    }
    time.into_iter().for_each(|time| field(parsed, "sent", time));
    process.into_iter().for_each(|process| pid(parsed, process));
    parsed.fields.extend(data.fields);
    Some(message.strip_prefix('\u{feff}').unwrap_or(message))
}

fn pid<'t>(parsed: &mut Parsed<'t>, process: &'t str) {
    let content = match process.parse() {
        Ok(number) => Content::Value(Value::Int(number)),
        Err(_) => Content::Text(Cow::Borrowed(process)),
    };
    parsed.fields.push((Cow::Borrowed("pid"), content));
}

/// `[id name="value" ..][..]`; gives what follows.
fn structured<'t>(mut text: &'t str, parsed: &mut Parsed<'t>) -> Option<&'t str> {
    while let Some(rest) = text.strip_prefix('[') {
        let end = rest.find([' ', ']'])?;
        let (id, mut rest) = rest.split_at(end);
        if id.is_empty() || id.contains(['=', '"']) {
            return None;
        }
        loop {
            if let Some(rest) = rest.strip_prefix(']') {
                text = rest;
                break;
            }
            let (name, value) = rest.trim_start_matches(' ').split_once("=\"")?;
            if name.is_empty() || name.contains([' ', ']', '"']) {
                return None;
            }
            let (value, after) = quoted(value)?;
            // Two for the fields that are there, three for those that come.
            if parsed.fields.len() < FIELDS_MAX - 5 {
                let name = Cow::Owned(format!("{id}.{name}"));
                parsed.fields.push((name, Content::Text(value)));
            }
            rest = after;
        }
    }
    Some(text)
}

/// A value up to its closing quote, where `\"`, `\\` and `\]` stand for the sign itself.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut unescaped: Option<String> = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                let value = unescaped.map_or(Cow::Borrowed(&text[..at]), Cow::Owned);
                return Some((value, &text[at + 1..]));
            }
            '\\' => {
                let value = unescaped.get_or_insert_with(|| String::from(&text[..at]));
                let (_, next) = letters.next()?;
                if !matches!(next, '"' | '\\' | ']') {
                    value.push('\\');
                }
                value.push(next);
            }
            other => {
                if let Some(value) = &mut unescaped {
                    value.push(other);
                }
            }
        }
    }
    None
}

/// `Nov 30 22:52:06 host program[123]: message`, or any part of that; gives the message.
fn rfc3164<'t>(text: &'t str, parsed: &mut Parsed<'t>) -> &'t str {
    let mut rest = text;
    let mut dated = false;
    if let Some((time, after)) = stamp(text) {
        field(parsed, "sent", time);
        (rest, dated) = (after, true);
    }
    // A host stands between time and program only: a local program leaves it out.
    if dated
        && let Some((host, after)) = rest.split_once(' ')
        && !host.is_empty()
        && !host.ends_with(':')
        && tag(after).is_some()
    {
        parsed.host = Some(Cow::Borrowed(host));
        rest = after;
    }
    let Some((program, process, message)) = tag(rest) else { return rest };
    parsed.source = Some(Cow::Borrowed(program));
    if let Some(process) = process {
        pid(parsed, process);
    }
    message
}

/// A time of RFC 3164, or one of RFC 3339, as some send it.
fn stamp(text: &str) -> Option<(&str, &str)> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    if let Some((time, rest)) = text.split_once(' ')
        && crate::moment::parse(time).is_some()
    {
        return Some((time, rest));
    }
    let (time, rest) = (text.get(..15)?, text.get(15..)?);
    let bytes = time.as_bytes();
    let digit = |at: usize| bytes[at].is_ascii_digit();
    let sound = MONTHS.contains(&time.get(..3)?)
        && bytes[3] == b' '
        && (bytes[4] == b' ' || digit(4))
        && digit(5)
        && bytes[6] == b' '
        && [7, 8, 10, 11, 13, 14].into_iter().all(digit)
        && bytes[9] == b':'
        && bytes[12] == b':';
    sound.then_some((time, rest.strip_prefix(' ')?))
}

/// `program[123]: message` or `program: message`.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./@+".contains(c);
    let end = text.find(|c| !is_part(c))?;
    let (program, rest) = text.split_at(end);
    if program.is_empty() || program.len() > 64 {
        return None;
    }
    let (process, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(process, rest)| (Some(process), rest))?,
        None => (None, rest),
    };
    let message = rest.strip_prefix(':')?;
    Some((program, process, message.strip_prefix(' ').unwrap_or(message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn shown(text: &str) -> String {
        parse(text).draft("-", "-", |draft| {
            let fields: Vec<String> =
                draft.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!(
                "{} {} {} {} | {}",
                draft.event,
                draft.level,
                draft.host,
                draft.source,
                fields.join(" ")
            )
        })
    }

    #[test]
    fn messages_of_the_standards() {
        for (text, expected) in [
            // RFC 5424, 6.5.
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
                "ID47 fatal mymachine.example.com su | facility=auth sent=2003-10-11T22:14:15.003Z \
                 msg='su root' failed",
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time.",
                "syslog info 192.0.2.1 myproc | facility=local4 \
                 sent=2003-08-24T05:14:15.000003-07:00 pid=8710 msg=%% It's time.",
            ),
            (
                "<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [ex@32473 iut=\"3\" \
                 src=\"A \\\"b\\\" \\\\ \\] \\x\"][p@1 c=\"high\"] An entry",
                "ID47 info h evntslog | facility=local4 sent=2003-10-11T22:14:15.003Z \
                 ex@32473.iut=3 ex@32473.src=A \"b\" \\ ] \\x p@1.c=high msg=An entry",
            ),
            ("<14>1 - - - - - -", "syslog info - - | facility=user msg="),
            // RFC 3164, 5.4.
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
                "syslog fatal mymachine su | facility=auth sent=Oct 11 22:14:15 msg='su root' failed",
            ),
            (
                "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
                "syslog info - - | facility=user sent=Feb  5 17:32:18 msg=10.0.0.99 Use the BFG!",
            ),
            (
                "<30>Nov 30 22:52:06 sshd[812]: Accepted key",
                "syslog info - sshd | facility=daemon sent=Nov 30 22:52:06 pid=812 msg=Accepted key",
            ),
            ("<11>app: it failed\n", "syslog error - app | facility=user msg=it failed"),
            ("no form at all", "syslog info - - | facility=user msg=no form at all"),
            ("<999>x", "syslog info - - | facility=user msg=<999>x"),
            ("<34>1 nonsense here", "syslog fatal - - | facility=auth msg=1 nonsense here"),
            ("", "syslog info - - | facility=user msg="),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let valid = [
            "<165>1 2003-10-11T22:14:15.003Z h evntslog 5 ID47 [ex@32473 iut=\"3\"][p a=\"\\\"é\"] x",
            "<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed for é",
        ];
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for n in 0..100_000 {
            let mut bytes = valid[n % 2].as_bytes().to_vec();
            for _ in 0..1 + random.next_u32() % 5 {
                let at = random.next_u32() as usize % bytes.len();
                bytes[at] = b"<>[]\"=\\ :-1\xc3\xa9\n"[random.next_u32() as usize % 14];
            }
            let text = String::from_utf8_lossy(&bytes);
            parse(&text).draft("h", "s", |draft| assert!(draft.fields.len() <= FIELDS_MAX));
        }
        let data: String = (0..200).map(|n| format!(" a{n}=\"b\"")).collect();
        let text = format!("<13>1 - - - - - [id{data}] m");
        parse(&text).draft("h", "s", |draft| assert!(draft.fields.len() <= FIELDS_MAX));
    }
}
