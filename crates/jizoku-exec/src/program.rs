//! What is run: command, environment, ports, user.
//!
//! What it does not know: processes; which services there are.
//!
//! Invariant: what a program gets is what is written here and nothing else: the agent's own
//! environment isn't passed on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jizoku_types::spec::{EngineSpec, ServiceSpec};

/// Where programs are looked for, unless the manifest sets PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments; `{port}` and `{port:NAME}` stand for ports that are chosen here.
    pub command: Vec<String>,
    /// Environment, beside PATH and what tells of the ports. The same stand-ins are understood.
    pub env: BTreeMap<String, String>,
    /// User to run as. None: the agent's, refused if that is root.
    pub user: Option<String>,
    /// Names of the ports, in the order of the service's.
    pub ports: Vec<String>,
    /// Where it runs; it must exist, and the user must be able to enter it.
    pub folder: PathBuf,
}

impl Program {
    /// What a service's specification says; `None` if its engine isn't `exec`.
    pub fn of(spec: &ServiceSpec) -> Option<Program> {
        let EngineSpec::Exec { command, env, user } = &spec.engine else { return None };
        Some(Program {
            command: command.clone(),
            env: env.clone(),
            user: user.clone(),
            ports: spec.ports.iter().map(|port| port.name.clone()).collect(),
            folder: PathBuf::from("/"),
        })
    }

    /// The command with these ports put in; an error says what stands for no port.
    pub(crate) fn command_with(&self, ports: &[u16]) -> Result<Vec<String>, String> {
        self.command.iter().map(|word| self.with_ports(word, ports)).collect()
    }

    /// The whole environment, with these ports put in.
    pub(crate) fn env_with(&self, ports: &[u16]) -> Result<BTreeMap<String, String>, String> {
        let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
        for (name, value) in &self.env {
            env.insert(name.clone(), self.with_ports(value, ports)?);
        }
        if let Some(first) = ports.first() {
            env.insert("JIZOKU_PORT".to_owned(), first.to_string());
        }
        for (name, port) in self.ports.iter().zip(ports) {
            env.insert(format!("JIZOKU_PORT_{}", variable(name)), port.to_string());
        }
        Ok(env)
    }

    fn with_ports(&self, text: &str, ports: &[u16]) -> Result<String, String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("{port") {
            result.push_str(&rest[..at]);
            let inner = &rest[at + "{port".len()..];
            let index = match inner.split_once('}') {
                Some(("", _)) => Some(0),
                Some((name, _)) => name.strip_prefix(':').map(|name| {
                    self.ports.iter().position(|port| port == name).unwrap_or(usize::MAX)
                }),
                None => None,
            };
            // Something else that begins in the same way, such as `{portable}`, is left as it is.
            let Some(index) = index else {
                result.push_str("{port");
                rest = inner;
                continue;
            };
            let (whole, after) = inner.split_once('}').expect("found above");
            let missing = || format!("{{port{whole}}} stands for no port of the service");
            result.push_str(&ports.get(index).ok_or_else(missing)?.to_string());
            rest = after;
        }
        result.push_str(rest);
        Ok(result)
    }
}

/// A port's name as part of a variable's.
fn variable(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(words: &[&str]) -> Program {
        Program {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            env: [("ADDRESS".to_owned(), "localhost:{port:web-2}".to_owned())].into(),
            user: None,
            ports: vec!["resp".to_owned(), "web-2".to_owned()],
            folder: PathBuf::from("/"),
        }
    }

    #[test]
    fn ports_are_put_in_and_other_braces_are_left() {
        let words =
            ["{port}", "a{port:resp}b{port:web-2}", "{portable}", "{port", "{x}{}", "{port:"];
        let command = program(&words).command_with(&[1000, 2000]).unwrap();
        assert_eq!(command, ["1000", "a1000b2000", "{portable}", "{port", "{x}{}", "{port:"]);
    }

    #[test]
    fn what_stands_for_no_port_is_named() {
        let error = program(&["{port:other}"]).command_with(&[1, 2]).unwrap_err();
        assert_eq!(error, "{port:other} stands for no port of the service");
        assert!(program(&["{port}"]).command_with(&[]).is_err());
    }

    #[test]
    fn the_environment_tells_of_every_port() {
        let env = program(&[]).env_with(&[1000, 2000]).unwrap();
        let expected = [
            ("ADDRESS", "localhost:2000"),
            ("JIZOKU_PORT", "1000"),
            ("JIZOKU_PORT_RESP", "1000"),
            ("JIZOKU_PORT_WEB_2", "2000"),
            ("PATH", PATH),
        ];
        let found: Vec<_> = env.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, expected);
    }
}
