//! `[engine]`: what runs the program, and with what.
//!
//! What it does not know: whether the program is there; which environment an agent adds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jizoku_types::ByteCount;
use jizoku_types::limits::STATE_MAX;
use jizoku_types::spec::{EngineSpec, PortSpec};

use super::{PROGRAM_TEXT_MAX, owned_pairs, port_hint};
use crate::defaults;
use crate::section::{At, Document, Section};

const KEYS: [&str; 8] = ["kind", "program", "args", "env", "memory", "files", "command", "user"];
/// One page of linear memory: no module can do with less.
const MEMORY_MIN: ByteCount = ByteCount::kib(64);

/// What `[engine]` says.
pub(super) struct Engine {
    pub(super) spec: EngineSpec,
    pub(super) program: Option<PathBuf>,
}

impl Engine {
    pub(super) fn has_state(&self) -> bool {
        matches!(self.spec, EngineSpec::Wasm { .. })
    }
}

pub(super) fn read(root: &Section<'_, '_>, ports: &[At<PortSpec>]) -> Option<Engine> {
    #[derive(Clone, Copy)]
    enum Kind {
        Wasm,
        Exec,
    }
    let Some(section) = root.section("engine", &KEYS) else {
        if !root.has("engine") {
            root.missing("engine", "a section [engine] with kind = \"wasm\" or \"exec\"");
        }
        return None;
    };
    if !section.has("kind") {
        section.missing("kind", "\"wasm\" or \"exec\"");
    }
    match section.choice("kind", &[("wasm", Kind::Wasm), ("exec", Kind::Exec)])?.value {
        Kind::Wasm => read_wasm(&section),
        Kind::Exec => read_exec(&section, ports),
    }
}

fn read_wasm(section: &Section<'_, '_>) -> Option<Engine> {
    for key in ["command", "user"] {
        section.refuse(key, "it is for kind = \"exec\"");
    }
    let program = section.text("program");
    if !section.has("program") {
        section.missing("program", "the path of a module, such as \"kv.wasm\"");
    }
    if let Some(program) = &program
        && (program.value.is_empty() || program.value.contains('\0'))
    {
        section.document.wrong(&program.bytes, "`program` must be a path", None);
    }
    let args = read_words(section, "args");
    let env = read_env(section);
    check_text(section, "args", args.as_ref().map_or(&[], |args| &args.value), &env);
    let memory = section.size("memory", MEMORY_MIN..=STATE_MAX);
    let files = section.size("files", ByteCount(0)..=STATE_MAX);
    let memory_max = memory.as_ref().map_or(defaults::MEMORY, |size| size.value);
    let files_max = files.as_ref().map_or(defaults::FILES, |size| size.value);
    if memory_max + files_max > STATE_MAX
        && let Some(place) = files.or(memory)
    {
        let message = format!(
            "`memory` ({memory_max}) and `files` ({files_max}) are more than a state may have"
        );
        section.document.wrong(&place.bytes, message, Some("at most 4GiB together".to_owned()));
    }
    let spec = EngineSpec::Wasm {
        module: [0; 32],
        args: args.map(|args| owned(&args.value)).unwrap_or_default(),
        env: owned_pairs(env),
        memory_max,
        files_max,
    };
    Some(Engine { spec, program: Some(PathBuf::from(program?.value)) })
}

fn read_exec(section: &Section<'_, '_>, ports: &[At<PortSpec>]) -> Option<Engine> {
    for key in ["program", "args"] {
        section.refuse(key, "with kind = \"exec\" write command = [\"PROGRAM\", \"ARGUMENT\"]");
    }
    for key in ["memory", "files"] {
        section.refuse(key, "it is for kind = \"wasm\"");
    }
    let command = read_words(section, "command");
    if !section.has("command") {
        section.missing("command", "a list such as [\"redis-server\", \"--port\", \"{port}\"]");
    }
    let env = read_env(section);
    if let Some(command) = &command {
        if command.value.first().is_none_or(|program| program.value.is_empty()) {
            let message = "`command` must begin with a program";
            section.document.wrong(&command.bytes, message, None);
        }
        check_text(section, "command", &command.value, &env);
        for word in &command.value {
            check_ports_named(section.document, word, ports);
        }
    }
    for word in env.values() {
        check_ports_named(section.document, word, ports);
    }
    let user = section.text("user");
    if let Some(user) = &user
        && (user.value.is_empty() || user.value.contains(['\0', ':', '/']))
    {
        section.document.wrong(&user.bytes, "`user` must be the name of a user", None);
    }
    let spec = EngineSpec::Exec {
        command: owned(&command?.value),
        env: owned_pairs(env),
        user: user.map(|user| user.value.to_owned()),
    };
    Some(Engine { spec, program: None })
}

/// A list of texts that can be handed to a program.
fn read_words<'d>(section: &Section<'d, '_>, key: &str) -> Option<At<Vec<At<&'d str>>>> {
    let words = section.texts(key)?;
    for word in &words.value {
        if word.value.contains('\0') {
            let message = format!("a text of `{key}` must not hold a NUL character");
            section.document.wrong(&word.bytes, message, None);
        }
    }
    Some(words)
}

fn read_env<'d>(section: &Section<'d, '_>) -> BTreeMap<&'d str, At<&'d str>> {
    let env = section.pairs("env").map(|env| env.value).unwrap_or_default();
    for (name, text) in &env {
        let message = if name.is_empty() || name.contains(['=', '\0']) || text.value.contains('\0')
        {
            "the name of a variable must not be empty and not hold '=', and no NUL is allowed"
        } else if name.starts_with("JIZOKU_") {
            "names that begin with JIZOKU_ are set by the agent"
        } else {
            continue;
        };
        section.document.wrong(&text.bytes, message, None);
    }
    env
}

fn check_text(
    section: &Section<'_, '_>,
    key: &str,
    words: &[At<&str>],
    env: &BTreeMap<&str, At<&str>>,
) {
    let of_words: usize = words.iter().map(|word| word.value.len() + 1).sum();
    let of_env: usize = env.iter().map(|(name, text)| name.len() + text.value.len() + 2).sum();
    if of_words + of_env > PROGRAM_TEXT_MAX {
        let limit = PROGRAM_TEXT_MAX >> 10;
        let message = format!("`{key}` and `env` have more than {limit} KiB together");
        section.document.wrong(section.bytes(), message, None);
    }
}

/// Whether every `{port}` and `{port:NAME}` in a text stands for a port of the service.
fn check_ports_named(document: &Document<'_>, word: &At<&str>, ports: &[At<PortSpec>]) {
    for piece in word.value.split('{').skip(1) {
        let Some((inner, _)) = piece.split_once('}') else { continue };
        let name = match inner.split_once(':') {
            None if inner == "port" && ports.is_empty() => "",
            Some(("port", name)) => name,
            _ => continue,
        };
        if !ports.iter().any(|port| port.value.name == name) {
            let message = format!("{{{inner}}} stands for no port of the service");
            document.wrong(&word.bytes, message, port_hint(name, ports));
        }
    }
}

fn owned(words: &[At<&str>]) -> Vec<String> {
    words.iter().map(|word| word.value.to_owned()).collect()
}
