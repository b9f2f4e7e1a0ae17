//! The command line's side of the admin API: HTTP over the agent's Unix socket.
//!
//! What it does not know: what the answers mean.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jizoku_api::log::Emitted;
use jizoku_api::order::ModuleStored;
use jizoku_api::route::BODY_MAX;
use jizoku_api::{ApiError, ErrorCode, Method, Order, Query, Route};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Longest answer that is read. Longer than any that a sane agent gives.
const ANSWER_MAX: usize = 16 * BODY_MAX;

/// How long an agent may take from its start until it answers.
const AGENT_STARTS_WITHIN: Duration = Duration::from_secs(2);
/// Time between two tries to reach it.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No agent answers at the socket.
    NoAgent {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The connection broke, or what came was not the API's: the order may have been carried out.
    Broken(String),
    /// The agent refused.
    Api(ApiError),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NoAgent { socket, cause } => {
                let hint = match cause.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "The agent answers its own user and root: run this as one of them"
                    }
                    _ => {
                        "Start it with `jizoku up`, or name its folder with --data (or its \
                         socket with --socket)"
                    }
                };
                write!(f, "no agent answers at {}: {cause}\n{hint}", socket.display())
            }
            CallError::Broken(what) => write!(f, "the agent's answer could not be read: {what}"),
            CallError::Api(error) => fmt::Display::fmt(error, f),
        }
    }
}

/// An agent, by its socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// The agent that listens at `socket`.
    pub(crate) fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Asks something.
    pub(crate) async fn query<Q: Query>(&self, query: &Q) -> Result<Q::Answer, CallError> {
        let bytes = self.call(Q::ROUTE.method(), &query.target(), Vec::new()).await?;
        read(&bytes)
    }

    /// Orders something.
    pub(crate) async fn order<O: Order>(&self, order: &O) -> Result<O::Answer, CallError> {
        let body = serde_json::to_vec(order).expect("orders can be written as JSON");
        let bytes = self.call(O::ROUTE.method(), O::ROUTE.path(), body).await?;
        read(&bytes)
    }

    /// Sends a module.
    pub(crate) async fn send_module(&self, module: Vec<u8>) -> Result<ModuleStored, CallError> {
        let bytes = self.call(Route::Module.method(), Route::Module.path(), module).await?;
        read(&bytes)
    }

    /// Sends records, one object of JSON in a line.
    pub(crate) async fn emit(&self, lines: Vec<u8>) -> Result<Emitted, CallError> {
        let bytes = self.call(Route::LogEmit.method(), Route::LogEmit.path(), lines).await?;
        read(&bytes)
    }

    /// Asks something that is answered by lines, and shows each as it comes.
    pub(crate) async fn lines(
        &self,
        target: &str,
        seen: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), CallError> {
        self.stream(Method::Get, target, Vec::new(), seen).await
    }

    /// Orders something that is answered by lines, likewise.
    pub(crate) async fn order_lines<O: Order>(
        &self,
        order: &O,
        mut seen: impl FnMut(O::Answer),
    ) -> Result<(), CallError> {
        let body = serde_json::to_vec(order).expect("orders can be written as JSON");
        let seen = |line: &[u8]| {
            seen(serde_json::from_slice(line).map_err(|error| error.to_string())?);
            Ok(())
        };
        self.stream(O::ROUTE.method(), O::ROUTE.path(), body, seen).await
    }

    async fn stream(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        mut seen: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), CallError> {
        let (response, connection) = self.request(method, target, body).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let collected = Limited::new(body, ANSWER_MAX).collect().await;
            connection.abort();
            let bytes = collected.map_err(|error| CallError::Broken(error.to_string()))?;
            return Err(refusal(&bytes.to_bytes(), status));
        }
        let mut waiting = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CallError::Broken(error.to_string()))?;
            waiting.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            let end = waiting.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in waiting[..end].split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
                seen(line).map_err(CallError::Broken)?;
            }
            waiting.drain(..end);
            if waiting.len() > ANSWER_MAX {
                return Err(CallError::Broken("a line has no end".into()));
            }
        }
        connection.abort();
        Ok(())
    }

    /// Fetches the metrics' text.
    pub(crate) async fn metrics(&self) -> Result<String, CallError> {
        let bytes = self.call(Route::Metrics.method(), Route::Metrics.path(), Vec::new()).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// An agent that was just started opens its socket in a moment. Where its folder isn't there
    /// either, nobody waits.
    async fn connect(&self) -> Result<UnixStream, CallError> {
        let give_up = Instant::now() + AGENT_STARTS_WITHIN;
        let folder = self.socket.parent().is_some_and(Path::is_dir);
        loop {
            let cause = match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => cause,
            };
            let soon =
                matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
            if !soon || !folder || Instant::now() >= give_up {
                return Err(CallError::NoAgent { socket: self.socket.clone(), cause });
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn call(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
        let (response, connection) = self.request(method, target, body).await?;
        let status = response.status();
        let collected = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        connection.abort();
        let bytes = collected.map_err(|error| CallError::Broken(error.to_string()))?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(refusal(&bytes, status)) }
    }

    /// Sends a request; the task carries the connection until it is aborted.
    async fn request(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), CallError> {
        let broken = |what: &dyn fmt::Display| CallError::Broken(what.to_string());
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method.as_str())
            .uri(target)
            .header("host", "jizoku")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        Ok((response, connection))
    }
}

fn refusal(bytes: &[u8], status: StatusCode) -> CallError {
    CallError::Api(serde_json::from_slice(bytes).unwrap_or_else(|_| {
        ApiError::new(ErrorCode::Internal, format!("the agent answered {status}"))
    }))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(bytes).map_err(|error| CallError::Broken(error.to_string()))
}
