//! Every path and method of the API, in one table, and what is asked and answered there.
//!
//! Server and clients both use [`Route`], so they can't differ. A [`Query`] is a `GET` whose
//! parameters stand in the address; an [`Order`] is a `POST` with a JSON body. Both name their
//! route and the type of their answer. Some routes are neither: [`Route::Module`] takes the raw
//! bytes of a module and answers [`crate::order::ModuleStored`]; [`Route::LogEmit`] takes lines
//! and answers [`crate::log::Emitted`]; [`Route::Metrics`] answers text in Prometheus' form.
//!
//! What it does not know: how HTTP is spoken.
//!
//! Invariants
//! - Any failure is answered with an `ApiError` and its code's status; success is always 200.
//! - Everything that changes something is a `POST`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{ApiError, ErrorCode};

/// Largest JSON body, in bytes: a specification at its limits fits.
pub const BODY_MAX: usize = 1 << 20;
/// Largest module, in bytes.
pub const MODULE_MAX: usize = 256 << 20;
/// Most bytes of records that are emitted at once.
pub const EMIT_MAX: usize = 4 << 20;
/// Longest address with its parameters, in bytes.
pub const TARGET_MAX: usize = 64 << 10;

/// How a route is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Changes nothing.
    Get,
    /// Changes something.
    Post,
}

impl Method {
    /// The word in the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

macro_rules! routes {
    ($($(#[doc = $doc:literal])* $name:ident $method:ident $path:literal,)*) => {
        /// One thing that can be called.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Route {
            $($(#[doc = $doc])* $name,)*
        }

        impl Route {
            /// All of them.
            pub const ALL: &'static [Route] = &[$(Route::$name,)*];

            /// How it is called.
            pub fn method(self) -> Method {
                match self { $(Route::$name => Method::$method,)* }
            }

            /// Where it is.
            pub fn path(self) -> &'static str {
                match self { $(Route::$name => $path,)* }
            }
        }
    };
}

routes! {
    /// The cluster at a glance.
    Status Get "/v1/status",
    /// Everything about one service.
    Inspect Get "/v1/inspect",
    /// The instances.
    Ps Get "/v1/ps",
    /// What happened, from a cursor on; waits for more if asked to.
    Events Get "/v1/events",
    /// Asks the log pools of all nodes. Answers lines of JSON, each a `LogLine`, as they come.
    Log Get "/v1/log",
    /// Takes records, one object of JSON in a line.
    LogEmit Post "/v1/log/emit",
    /// Binds a flow of a script and runs it. Answers lines of JSON, each a `RunLine`.
    Run Post "/v1/run",
    /// Ends a flow as failed.
    Cancel Post "/v1/cancel",
    /// The flows that are under way.
    Flows Get "/v1/flows",
    /// What this machine can and cannot run.
    Doctor Get "/v1/doctor",
    /// Metrics in Prometheus' form.
    Metrics Get "/v1/metrics",
    /// Takes a module, prepares it and keeps it. The body is the module itself.
    Module Post "/v1/module",
    /// Creates or changes a service, or says what that would change.
    Apply Post "/v1/apply",
    /// Removes a service and its state.
    Rm Post "/v1/rm",
    /// Runs a stopped service.
    Start Post "/v1/start",
    /// Stops a service; its state is kept.
    Stop Post "/v1/stop",
    /// Makes another node the active one.
    Move Post "/v1/move",
    /// Takes everything off a node, or ends that.
    Drain Post "/v1/drain",
    /// Goes on with a service whose newest state can't be reached.
    Resume Post "/v1/resume",
    /// Goes on with a cluster that lost its majority for good.
    Recover Post "/v1/recover",
    /// Makes a ticket that lets one node in.
    Ticket Post "/v1/ticket",
    /// Brings this node into a cluster.
    Join Post "/v1/join",
    /// Takes this node out of its cluster.
    Leave Post "/v1/leave",
    /// Shuts a node out of the cluster.
    Remove Post "/v1/remove",
}

impl Route {
    /// Which route a request line means; the parameters are [`pairs_of`] its target.
    pub fn find(method: &str, target: &str) -> Result<Route, ApiError> {
        if target.len() > TARGET_MAX {
            let message = format!("the address has more than {TARGET_MAX} bytes");
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let Some(route) = Route::ALL.iter().find(|route| route.path() == path) else {
            let error = ApiError::new(ErrorCode::NoSuchPath, format!("no such path: {path}"));
            return Err(error.hint("this agent speaks version 1 of the API, under /v1/"));
        };
        if route.method().as_str() != method {
            let right = route.method().as_str();
            let error =
                ApiError::new(ErrorCode::WrongMethod, format!("{path} is not for {method}"));
            return Err(error.hint(format!("use {right}")));
        }
        Ok(*route)
    }
}

/// A question that changes nothing.
pub trait Query: Sized {
    /// Where it is asked.
    const ROUTE: Route;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;
    /// Its parameters.
    fn pairs(&self) -> Vec<(&'static str, String)>;
    /// Understands parameters.
    fn from_pairs(pairs: &[(String, String)]) -> Result<Self, ApiError>;

    /// The address with parameters, ready for a request line.
    fn target(&self) -> String {
        let mut target = Self::ROUTE.path().to_string();
        for (at, (key, value)) in self.pairs().iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(key);
            target.push('=');
            escape(value, &mut target);
        }
        target
    }
}

/// Something to do; the value itself is the JSON body.
pub trait Order: Serialize + DeserializeOwned {
    /// Where it goes.
    const ROUTE: Route;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;
}

/// The parameters of an address, unescaped, in their order.
pub fn pairs_of(target: &str) -> Result<Vec<(String, String)>, ApiError> {
    let Some((_, query)) = target.split_once('?') else { return Ok(Vec::new()) };
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok((unescape(key)?, unescape(value)?))
        })
        .collect()
}

/// The one value of `key`, if it is there. Refuses keys that are not in `known`.
pub(crate) fn take<'p>(
    pairs: &'p [(String, String)],
    known: &[&str],
    key: &str,
) -> Result<Option<&'p str>, ApiError> {
    let bad = |message: String| Err(ApiError::new(ErrorCode::BadRequest, message));
    if let Some((other, _)) = pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return bad(format!("unknown parameter `{other}`"));
    }
    let mut values = pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (_, Some(_)) => bad(format!("parameter `{key}` stands there twice")),
        (value, None) => Ok(value),
    }
}

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(byte as char);
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn unescape(text: &str) -> Result<String, ApiError> {
    let bad = || ApiError::new(ErrorCode::BadRequest, "a parameter isn't escaped as it should be");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |rest: &mut core::str::Bytes<'_>| {
        rest.next().and_then(|b| (b as char).to_digit(16)).and_then(|d| u8::try_from(d).ok())
    };
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = digit(&mut rest).ok_or_else(bad)?;
                high << 4 | digit(&mut rest).ok_or_else(bad)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_route_is_found_by_its_own_line_and_no_other() {
        let paths: BTreeSet<_> = Route::ALL.iter().map(|route| route.path()).collect();
        assert_eq!(paths.len(), Route::ALL.len());
        for route in Route::ALL {
            let target = format!("{}?a=b", route.path());
            assert_eq!(Route::find(route.method().as_str(), &target), Ok(*route));
            assert!(route.path().starts_with("/v1/"));
            let other = Route::find("PUT", route.path()).unwrap_err();
            assert_eq!(other.code, ErrorCode::WrongMethod);
        }
        let lost = Route::find("GET", "/v2/status").unwrap_err();
        assert_eq!(lost.code, ErrorCode::NoSuchPath);
        let long = "/".repeat(TARGET_MAX + 1);
        assert_eq!(Route::find("GET", &long).unwrap_err().code, ErrorCode::TooLarge);
    }

    #[test]
    fn parameters_survive_escaping() {
        for text in ["", "kv", "a b&c=d%+é\n", "日本"] {
            let mut escaped = "/v1/x?k=".to_string();
            escape(text, &mut escaped);
            let pairs = pairs_of(&escaped).unwrap();
            assert_eq!(pairs, [("k".to_string(), text.to_string())]);
        }
        for bad in ["/?a=%", "/?a=%2", "/?a=%zz", "/?a=%ff"] {
            assert_eq!(pairs_of(bad).unwrap_err().code, ErrorCode::BadRequest, "{bad}");
        }
    }

    #[test]
    fn unknown_and_doubled_parameters_are_refused() {
        let pairs = pairs_of("/?a=1&a=2").unwrap();
        assert!(take(&pairs, &["a"], "a").is_err());
        assert!(take(&pairs, &["b"], "b").is_err());
        assert_eq!(take(&pairs[..1], &["a"], "a"), Ok(Some("1")));
    }
}
