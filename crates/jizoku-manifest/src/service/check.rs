//! `[[check]]`: how others tell whether a service really serves.
//!
//! What it does not know: how checks are run.

use jizoku_types::Span;
use jizoku_types::spec::{CheckKind, CheckSpec, PortSpec};

use super::{CHECKS_MAX, find_port};
use crate::defaults;
use crate::section::{At, Section};

const KEYS: [&str; 9] =
    ["kind", "port", "path", "status", "body", "command", "every", "timeout", "failures"];
/// Longest text of a check: a path, a body's text, all words of a command.
const TEXT_MAX: usize = 4096;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Alive,
    Tcp,
    Http,
    Command,
}

pub(super) fn read(
    root: &Section<'_, '_>,
    ports: &[At<PortSpec>],
    has_state: Option<bool>,
) -> Vec<CheckSpec> {
    let sections = root.sections("check", &KEYS);
    if sections.len() > CHECKS_MAX {
        let message = format!("at most {CHECKS_MAX} checks");
        root.document.wrong(sections[CHECKS_MAX].bytes(), message, None);
    }
    if sections.is_empty() && !root.has("check") {
        return default_checks(ports, has_state.unwrap_or(true));
    }
    sections.iter().filter_map(|section| read_one(section, ports)).collect()
}

/// A process that lives may still not answer, so its first port is tried. A service with state
/// isn't bothered: each try would change the state and cost a checkpoint, and the gateways see
/// its real traffic anyway.
fn default_checks(ports: &[At<PortSpec>], has_state: bool) -> Vec<CheckSpec> {
    let check = |kind| CheckSpec {
        kind,
        every: defaults::CHECK_EVERY,
        timeout: defaults::CHECK_TIMEOUT,
        failures: defaults::CHECK_FAILURES,
    };
    let mut checks = vec![check(CheckKind::Alive)];
    if !has_state && !ports.is_empty() {
        checks.push(check(CheckKind::Tcp { port: 0 }));
    }
    checks
}

fn read_one(section: &Section<'_, '_>, ports: &[At<PortSpec>]) -> Option<CheckSpec> {
    let every = section.span("every", Span::millis(50)..=Span::secs(3600));
    let timeout = section.span("timeout", Span::millis(1)..=Span::secs(60));
    let failures = section.number("failures", 1..=100u8);
    if !section.has("kind") {
        section.missing("kind", "\"alive\", \"tcp\", \"http\" or \"command\"");
    }
    let kinds = [
        ("alive", Kind::Alive),
        ("tcp", Kind::Tcp),
        ("http", Kind::Http),
        ("command", Kind::Command),
    ];
    let kind = section.choice("kind", &kinds)?.value;
    if kind != Kind::Http {
        for key in ["path", "status", "body"] {
            section.refuse(key, "it is for kind = \"http\"");
        }
    }
    if kind != Kind::Command {
        section.refuse("command", "it is for kind = \"command\"");
    }
    if !matches!(kind, Kind::Http | Kind::Tcp) {
        section.refuse("port", "it is for kind = \"tcp\" and kind = \"http\"");
    }
    let kind = match kind {
        Kind::Alive => CheckKind::Alive,
        Kind::Tcp => CheckKind::Tcp { port: find_port(section, "port", ports)? },
        Kind::Http => read_http(section, ports)?,
        Kind::Command => read_command(section)?,
    };
    Some(CheckSpec {
        kind,
        every: every.map_or(defaults::CHECK_EVERY, |every| every.value),
        timeout: timeout.map_or(defaults::CHECK_TIMEOUT, |timeout| timeout.value),
        failures: failures.map_or(defaults::CHECK_FAILURES, |failures| failures.value),
    })
}

fn read_http(section: &Section<'_, '_>, ports: &[At<PortSpec>]) -> Option<CheckKind> {
    let port = find_port(section, "port", ports);
    let path = section.parsed("path", "a path that starts with \"/\"", |text| {
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= TEXT_MAX;
        match (text.starts_with('/'), clean) {
            (true, true) => Ok(text.to_owned()),
            (false, true) => Err(Some(format!("did you mean \"/{text}\"?"))),
            _ => Err(Some("no spaces or other signs that a URL doesn't allow".to_owned())),
        }
    });
    let status = section.number("status", 100..=599u16);
    let body = section.text("body");
    if let Some(body) = &body
        && body.value.len() > TEXT_MAX
    {
        section.document.wrong(&body.bytes, "`body` has at most 4096 bytes", None);
    }
    Some(CheckKind::Http {
        port: port?,
        path: path.map_or(defaults::CHECK_PATH.to_owned(), |path| path.value),
        status: status.map_or(defaults::CHECK_STATUS, |status| status.value),
        body: body.map(|body| body.value.to_owned()),
    })
}

fn read_command(section: &Section<'_, '_>) -> Option<CheckKind> {
    if !section.has("command") {
        section.missing("command", "a list such as [\"redis-cli\", \"ping\"]");
    }
    let command = section.texts("command")?;
    let length: usize = command.value.iter().map(|word| word.value.len()).sum();
    let has_nul = command.value.iter().any(|word| word.value.contains('\0'));
    let has_program = command.value.first().is_some_and(|program| !program.value.is_empty());
    if !has_program || length > TEXT_MAX || has_nul {
        let message = "`command` must begin with a program and have at most 4096 bytes, no NUL";
        section.document.wrong(&command.bytes, message, None);
    }
    let command = command.value.iter().map(|word| word.value.to_owned()).collect();
    Some(CheckKind::Command { command })
}
