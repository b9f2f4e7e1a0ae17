//! The wire forms of requests and answers: what a controller and a node say to each other.
//!
//! A frame begins with the version of the form. One of another version is refused with a word
//! for it, never guessed at.
//!
//! What it does not know: links, keys, who may send what.
//!
//! Invariants
//! - Decoding never panics, and takes no more memory than the bytes allow.
//! - What is decoded is within the limits of the language: script, arguments, texts.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::frame::{self, DecodeError};
use jizoku_types::{NodeId, Span};
use serde::{Deserialize, Serialize};

use crate::actor::{Order, Word};
use crate::flow::FlowId;
use crate::limits::{DETAIL_MAX, NAME_MAX, PARAMS_MAX, PROBLEMS_MAX, SHELL_MAX, SOURCE_MAX};
use crate::permission::Permissions;
use crate::run::Ended;
use crate::script::Arguments;

/// The version of these forms.
pub const VERSION: u16 = 1;

/// What a controller asks of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Of which flow: also the trace of its records.
    pub flow: FlowId,
    /// In which epoch of it.
    pub epoch: u64,
    /// Check, run, or something about a task.
    pub method: Method,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// Check a script for these tasks, and remember it for the flow. Nothing runs.
    Check(Bind),
    /// Everything about tasks; `Run` needs a script that was checked.
    Task {
        /// What.
        order: Order,
        /// For `Run`: which task of the script, with which arguments; for others nothing.
        start: Option<Start>,
    },
}

/// A script for a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub script: String,
    /// Tasks that shall run on this node; of a shell text none.
    pub tasks: Vec<String>,
    /// The caller's role, and what it may do.
    pub role: (String, Permissions),
    /// Hold the node for the flow.
    pub hold: bool,
    /// The log pool to report to.
    pub pool: NodeId,
}

/// What a script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The language of this crate.
    Script,
    /// A single shell text.
    Shell,
}

/// How a task is started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Its name in the script.
    pub task: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// How long it may take.
    pub within: Span,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// About which flow.
    pub flow: FlowId,
    /// Done, or not.
    pub status: Status,
    /// One word for it, for programs: `succeeded`, `call_failed`, `held`, `refused`, ...
    pub symbol: String,
    /// What there is to say, for people.
    pub detail: String,
    /// What it means for the controller.
    pub word: Word,
    /// What the check found, as it is shown.
    pub problems: Vec<String>,
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It was.
    Done,
    /// It wasn't.
    Error,
}

/// Why bytes are no request or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Of another version.
    Version(u16),
    /// Not of this form.
    Form(DecodeError),
    /// Longer than it may be: which part.
    Limit(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Version(version) => write!(f, "of version {version}, not {VERSION}"),
            WireError::Form(error) => write!(f, "{error}"),
            WireError::Limit(what) => write!(f, "{what}: more than there may be"),
        }
    }
}

impl core::error::Error for WireError {}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(&(VERSION, self))
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Request, WireError> {
        let request: Request = decode(bytes)?;
        match &request.method {
            Method::Check(bind) => {
                let most = if bind.kind == Kind::Shell { SHELL_MAX } else { SOURCE_MAX };
                within(bind.script.len(), most, "the script")?;
                within(bind.role.0.len(), NAME_MAX, "the role")?;
                within(bind.tasks.len(), SOURCE_MAX / 16, "the tasks")?;
            }
            Method::Task { start: Some(start), .. } => {
                within(start.task.len(), NAME_MAX, "the task's name")?;
                within(start.arguments.len(), PARAMS_MAX, "the arguments")?;
                if !start.arguments.iter().all(|(_, value)| value.is_shallow(0)) {
                    return Err(WireError::Limit("the arguments' nesting"));
                }
            }
            Method::Task { .. } => {}
        }
        Ok(request)
    }
}

impl Answer {
    /// The answer that says a word.
    pub fn new(flow: FlowId, word: Word) -> Answer {
        let (status, symbol, detail) = match &word {
            Word::Bound => (Status::Done, "bound", String::new()),
            Word::Running(_) => (Status::Done, "running", String::new()),
            Word::Ended(_, Ended::Succeeded) => (Status::Done, "succeeded", String::new()),
            Word::Ended(_, Ended::Failed(failed)) => {
                (Status::Error, failed.cause.symbol(), failed.message.clone())
            }
            Word::Held(by) => {
                (Status::Error, "held", alloc::format!("the flow {:x} holds the node", by.0))
            }
            Word::Newer(epoch) => {
                (Status::Error, "newer", alloc::format!("epoch {epoch} drives this flow"))
            }
            Word::Refused(why) => (Status::Error, "refused", why.clone()),
            Word::Unknown(_) => (Status::Error, "unknown", String::new()),
            Word::Gone(_) => (Status::Error, "gone", "the agent was started anew".into()),
        };
        Answer { flow, status, symbol: symbol.into(), detail, word, problems: Vec::new() }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(&(VERSION, self))
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Answer, WireError> {
        let answer: Answer = decode(bytes)?;
        within(answer.symbol.len(), NAME_MAX, "the symbol")?;
        within(answer.detail.len(), DETAIL_MAX, "the detail")?;
        within(answer.problems.len(), PROBLEMS_MAX, "the problems")?;
        Ok(answer)
    }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    // The version is a number in front, low seven bits first; a newer body needn't be readable.
    let version = match bytes {
        [low, ..] if *low < 0x80 => u16::from(*low),
        [low, high, ..] if *high < 0x80 => u16::from(*low & 0x7f) | u16::from(*high) << 7,
        _ => return Err(WireError::Form(DecodeError::Malformed)),
    };
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let (_, body): (u16, T) = frame::decode(bytes).map_err(WireError::Form)?;
    Ok(body)
}

fn within(length: usize, most: usize, what: &'static str) -> Result<(), WireError> {
    if length > most { Err(WireError::Limit(what)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::value::Value;
    use alloc::vec;
    use jizoku_types::{Incarnation, Member};

    const FLOW: FlowId = FlowId(77);

    fn task() -> crate::flow::TaskId {
        let node = Member { node: NodeId([3; 32]), incarnation: Incarnation(4) };
        crate::flow::TaskId { flow: FLOW, step: 1, node, attempt: 0 }
    }

    fn run() -> Request {
        let arguments = vec![("port".into(), Value::list(vec![Value::Int(80)]))];
        let start = Start { task: "restart".into(), arguments, within: Span::secs(30) };
        let method = Method::Task { order: Order::Run(task()), start: Some(start) };
        Request { flow: FLOW, epoch: 3, method }
    }

    fn check(script: String) -> Request {
        let bind = Bind {
            kind: Kind::Script,
            script,
            tasks: vec!["restart".into()],
            role: ("operator".into(), Permissions::of_role("operator").unwrap()),
            hold: true,
            pool: NodeId([1; 32]),
        };
        Request { flow: FLOW, epoch: 3, method: Method::Check(bind) }
    }

    #[test]
    fn what_was_said_is_heard() {
        for request in [run(), check("task restart() {}".into())] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        for word in [Word::Bound, Word::Held(FLOW), Word::Gone(task()), Word::Newer(9)] {
            let answer = Answer::new(FLOW, word);
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn other_versions_and_too_much_are_refused() {
        let bytes = frame::encode(&(2u16, "something else"));
        assert_eq!(Request::decode(&bytes), Err(WireError::Version(2)));
        let bytes = frame::encode(&(300u16, 1u8));
        assert_eq!(Answer::decode(&bytes), Err(WireError::Version(300)));
        let long = check("x".repeat(SOURCE_MAX + 1)).encode();
        assert_eq!(Request::decode(&long), Err(WireError::Limit("the script")));
        assert!(Request::decode(&[]).is_err());
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let mut dice = Dice::new(3);
        let good = [run().encode(), check("task a() {}".into()).encode()];
        for _ in 0..20_000 {
            let mut bytes = dice.pick(&good).clone();
            for _ in 0..=dice.below(3) {
                let at = dice.below(bytes.len());
                bytes[at] = u8::try_from(dice.below(256)).unwrap_or(0);
            }
            bytes.truncate(dice.below(bytes.len() + 1));
            if let Ok(request) = Request::decode(&bytes) {
                assert_eq!(Request::decode(&request.encode()).map(|r| r.epoch), Ok(request.epoch));
            }
            let _ = Answer::decode(&bytes);
        }
    }
}
