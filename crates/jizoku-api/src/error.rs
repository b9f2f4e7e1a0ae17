//! One form for everything that goes wrong: a code for programs, a sentence for people, and what
//! to do about it.
//!
//! What it does not know: HTTP beyond the number of a status.
//!
//! Invariant: an error says that nothing was changed, unless its code is [`ErrorCode::Unknown`].

use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

/// Why an order or a query failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong, and where.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request isn't of the right form.
    BadRequest,
    /// No such path.
    NoSuchPath,
    /// The path is right, the method is not.
    WrongMethod,
    /// Longer than it may be.
    TooLarge,
    /// No such service.
    NoSuchService,
    /// No such node.
    NoSuchNode,
    /// No such module: send it first.
    NoSuchModule,
    /// Something changed meanwhile: look again, then decide again.
    Conflict,
    /// It would break a rule; the message says which.
    Refused,
    /// A node still runs or holds something that has no other place.
    StillNeeded,
    /// This node belongs to no cluster yet.
    NoCluster,
    /// This node belongs to a cluster already.
    HasCluster,
    /// The ticket is of another form, used, expired or unknown.
    BadTicket,
    /// No majority of voters can be reached: nothing can be decided now.
    NoMajority,
    /// Another node would have to answer, and can't be reached.
    NodeUnreachable,
    /// This machine or build can't do it; `jizoku doctor` says why.
    Unsupported,
    /// A limit is reached; the message names it.
    Limit,
    /// It was sent on and no answer came: it may have been done, or may still be.
    Unknown,
    /// A bug of the agent.
    Internal,
}

impl ErrorCode {
    /// The status of the HTTP answer.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorCode::BadRequest | ErrorCode::BadTicket => 400,
            ErrorCode::NoSuchPath
            | ErrorCode::NoSuchService
            | ErrorCode::NoSuchNode
            | ErrorCode::NoSuchModule => 404,
            ErrorCode::WrongMethod => 405,
            ErrorCode::TooLarge => 413,
            ErrorCode::Conflict
            | ErrorCode::Refused
            | ErrorCode::StillNeeded
            | ErrorCode::NoCluster
            | ErrorCode::HasCluster
            | ErrorCode::Limit => 409,
            ErrorCode::NoMajority | ErrorCode::NodeUnreachable => 503,
            ErrorCode::Unknown => 504,
            ErrorCode::Unsupported => 501,
            ErrorCode::Internal => 500,
        }
    }
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> ApiError {
        ApiError { code, message: message.to_string(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> ApiError {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for ApiError {}
