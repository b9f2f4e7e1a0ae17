//! The admin API: HTTP over a Unix socket, for people and programs on this machine.
//!
//! What it does not know: how requests are carried out; it translates them, and answers.
//!
//! Invariants
//! - The socket has mode 0600: whoever may use it is the agent's user.
//! - Every failure is answered with an `ApiError` and its code's status.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jizoku_api::event::{EVENTS_MAX, EventsAnswer, EventsQuery, WAIT_MAX_MS};
use jizoku_api::log::{LogLine, LogQuery};
use jizoku_api::order::Done;
use jizoku_api::route::{BODY_MAX, EMIT_MAX, MODULE_MAX, pairs_of};
use jizoku_api::run::{CancelOrder, FlowsQuery, RunLine, RunOrder};
use jizoku_api::service::{InspectQuery, PsQuery};
use jizoku_api::status::StatusQuery;
use jizoku_api::{ApiError, ErrorCode, Order, Query, Route};
use jizoku_manifest::NodeConfig;
use jizoku_node::node::View;
use jizoku_store::DataFolder;
use jizoku_types::{Event, ServiceId, ServiceName};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::engines::Engines;
use super::look::{Look, Sights};
use super::modules::Modules;
use super::output::OutputRing;
use super::script::Scripts;
use super::wiring::Wiring;
use super::{ask, metrics, orders, status, user};

/// Lines of an answer that wait for their reader.
const LINES_MAX: usize = 256;
/// Bytes of lines that are sent together, if they are there.
const CHUNK: usize = 32 << 10;
/// How often a service is looked for that isn't known yet.
const FIND_TRIES: usize = 3;

fn ending() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the agent is ending")
}

/// What answering needs.
pub(crate) struct Agent {
    pub(crate) wiring: Arc<Wiring>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) modules: Arc<Modules>,
    pub(crate) engines: Arc<Engines>,
    pub(crate) output: Arc<OutputRing>,
    pub(crate) look: Arc<Look>,
    pub(crate) folder: Arc<DataFolder>,
    pub(crate) config: NodeConfig,
    pub(crate) listening: Vec<SocketAddr>,
}

/// Starts answering, on the API socket and where metrics are wanted. The receiver hears when an
/// order ends the agent.
pub(crate) async fn start(agent: Agent) -> Result<oneshot::Receiver<()>, String> {
    let path = socket_path(&agent);
    // A socket that an earlier agent left behind; the folder's lock says that it is gone.
    let _ = std::fs::remove_file(&path);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (stop_in, stop) = oneshot::channel();
    let stop_in = std::sync::Mutex::new(Some(stop_in));
    let shared = Arc::new(Shared { agent, stop: stop_in });
    if let Some(address) = shared.agent.config.metrics {
        metrics::serve(address, Arc::clone(&shared)).await?;
    }
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let shared = Arc::clone(&shared);
            let uid = stream.peer_cred().ok().map(|peer| peer.uid());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(answer(request, uid, &shared).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                // A client that goes away in the middle is its own business.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(stop)
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) agent: Agent,
    stop: std::sync::Mutex<Option<oneshot::Sender<()>>>,
}

impl Shared {
    /// Ends the agent, once the answer under way is out.
    pub(crate) fn stop(&self) {
        let stop = self.stop.lock().expect("no panic while locked").take();
        if let Some(stop) = stop {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                // If nobody waits, the agent is ending already.
                let _ = stop.send(());
            });
        }
    }

    /// What the nodes see that can be reached; more of one service, if one is named.
    async fn look(&self, view: &View, service: Option<ServiceId>) -> Sights {
        let reachable = view.nodes.iter().filter(|node| node.reachable).map(|node| node.node);
        let agent = &self.agent;
        agent.look.around(reachable.collect(), service, &agent.wiring, &agent.output).await
    }

    /// The Node's view.
    pub(crate) async fn view(&self) -> Result<View, ApiError> {
        ask::view(&self.agent.wiring.core).await.ok_or_else(ending)
    }

    /// The Node's view once somebody leads the catalog: without that no order can be carried out.
    pub(crate) async fn led_view(&self) -> Result<View, ApiError> {
        let view =
            ask::settled_view(&self.agent.wiring.core, ask::WITHIN).await.ok_or_else(ending)?;
        if ask::is_settled(&view) {
            return Ok(view);
        }
        let code =
            if view.cluster.is_some() { ErrorCode::NoMajority } else { ErrorCode::NoCluster };
        let error = ApiError::new(code, "the catalog has no leader now; nothing was changed");
        Err(error
            .hint("`jizoku status` says who can't be reached; try again once it names a leader"))
    }

    /// A view with this service in it: one that was just applied elsewhere arrives in a moment.
    pub(crate) async fn view_with(
        &self,
        name: &ServiceName,
    ) -> Result<(View, ServiceId), ApiError> {
        let mut view = self.view().await?;
        for _ in 0..FIND_TRIES {
            if let Ok((id, _)) = status::find(&view, name) {
                return Ok((view, id));
            }
            tokio::time::sleep(ask::TRY_AGAIN).await;
            view = self.view().await?;
        }
        let (id, _) = status::find(&view, name)?;
        Ok((view, id))
    }
}

fn socket_path(agent: &Agent) -> PathBuf {
    agent.folder.path().join(&agent.config.api_socket)
}

/// What an answer consists of: bytes that are there, or lines as they come.
type Content = Either<Full<Bytes>, Either<Streamed<LogLine>, Streamed<RunLine>>>;

/// Lines of JSON, as they come.
struct Streamed<T> {
    lines: mpsc::Receiver<T>,
}

impl<T: Serialize> hyper::body::Body for Streamed<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(line) = ready!(self.lines.poll_recv(context)) else { return Poll::Ready(None) };
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        // What else is there goes with it.
        while bytes.len() < CHUNK
            && let Ok(line) = self.lines.try_recv()
        {
            bytes.extend(serde_json::to_vec(&line).unwrap_or_default());
            bytes.push(b'\n');
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }
}

/// Checks a query and begins to answer it.
fn log_query(target: &str, shared: &Shared) -> Result<Streamed<LogLine>, ApiError> {
    let LogQuery { query: text } = LogQuery::from_pairs(&pairs_of(target)?)?;
    let log = Arc::clone(&shared.agent.wiring.log);
    let parsed = {
        let schemas = log.schemas.lock().expect("no panic while locked");
        jizoku_log::query::parse(&text, &schemas)
    };
    let query = parsed.map_err(|problems| {
        let shown: Vec<String> = problems.iter().map(|problem| problem.show(&text)).collect();
        ApiError::new(ErrorCode::BadRequest, format!("the query:\n{}", shown.join("\n")))
    })?;
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let wiring = Arc::clone(&shared.agent.wiring);
    tokio::spawn(super::log::ask::run(log, wiring, (text, query), sender));
    Ok(Streamed { lines })
}

/// Begins to run a flow.
async fn run(
    request: Request<Incoming>,
    uid: Option<u32>,
    shared: &Shared,
) -> Result<Streamed<RunLine>, ApiError> {
    let order: RunOrder = parse(&body(request, BODY_MAX).await?)?;
    let Agent { scripts, wiring, .. } = &shared.agent;
    Ok(Streamed { lines: scripts.start(order, user::called(uid), wiring) })
}

async fn answer(
    request: Request<Incoming>,
    uid: Option<u32>,
    shared: &Shared,
) -> Response<Content> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let lines = match Route::find(request.method().as_str(), &target) {
        Ok(Route::Log) => log_query(&target, shared).map(Either::Left),
        Ok(Route::Run) => run(request, uid, shared).await.map(Either::Right),
        _ => return whole(request, uid, shared).await.map(Either::Left),
    };
    match lines {
        Ok(lines) => {
            let mut response = Response::new(Either::Right(lines));
            let kind = hyper::header::HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => refused(&error).map(Either::Left),
    }
}

fn refused(error: &ApiError) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(error).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    let status = StatusCode::from_u16(error.code.http_status());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

async fn whole(
    request: Request<Incoming>,
    uid: Option<u32>,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    match route(request, uid, shared).await {
        Ok(body) => {
            let mut response = Response::new(Full::new(body.bytes));
            let kind = hyper::header::HeaderValue::from_static(body.kind);
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => refused(&error),
    }
}

pub(crate) struct Body {
    bytes: Bytes,
    kind: &'static str,
}

async fn route(
    request: Request<Incoming>,
    uid: Option<u32>,
    shared: &Shared,
) -> Result<Body, ApiError> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let route = Route::find(request.method().as_str(), &target)?;
    let pairs = pairs_of(&target)?;
    match route {
        Route::Status => {
            StatusQuery::from_pairs(&pairs)?;
            let view = shared.view().await?;
            let sights = shared.look(&view, None).await;
            json(&status::cluster(&view, &shared.agent, &sights))
        }
        Route::Inspect => {
            let query = InspectQuery::from_pairs(&pairs)?;
            let (view, service) = shared.view_with(&query.service).await?;
            let sights = shared.look(&view, Some(service)).await;
            json(&status::inspect(&view, &sights, &query.service)?)
        }
        Route::Ps => {
            let query = PsQuery::from_pairs(&pairs)?;
            let view = match &query.service {
                Some(name) => shared.view_with(name).await?.0,
                None => shared.view().await?,
            };
            let sights = shared.look(&view, None).await;
            json(&status::instances(&view, &sights, query.service.as_ref()))
        }
        Route::Events => json(&events(&EventsQuery::from_pairs(&pairs)?, shared).await?),
        Route::Flows => {
            FlowsQuery::from_pairs(&pairs)?;
            let Agent { scripts, wiring, .. } = &shared.agent;
            json(&scripts.flows(wiring).await.ok_or_else(ending)?)
        }
        Route::Cancel => {
            let CancelOrder { id } = parse(&body(request, BODY_MAX).await?)?;
            let Agent { scripts, wiring, .. } = &shared.agent;
            let cancelled = scripts.cancel(&id, &user::called(uid), wiring).await;
            let id = cancelled.map_err(|why| ApiError::new(ErrorCode::Refused, why))?;
            json(&Done { notes: vec![format!("{id} is being cancelled")] })
        }
        Route::Doctor => {
            let data = shared.agent.folder.path();
            json(&crate::doctor::examine_with(data, shared.agent.engines.wasm()))
        }
        Route::Metrics => {
            let text = metrics::page(&shared.view().await?, &shared.agent).await;
            Ok(Body { bytes: Bytes::from(text), kind: metrics::KIND })
        }
        Route::LogEmit => {
            let lines = body(request, EMIT_MAX).await?;
            json(&shared.agent.wiring.log.emit(&lines).await)
        }
        Route::Module => {
            let module = body(request, MODULE_MAX).await?;
            // It takes seconds: other tasks must not wait behind it.
            json(&tokio::task::block_in_place(|| orders::module(&module, shared))?)
        }
        order => {
            let bytes = body(request, BODY_MAX).await?;
            orders::carry_out(order, &bytes, shared).await
        }
    }
}

/// Reads an order's body.
pub(crate) fn parse<O: Order>(bytes: &[u8]) -> Result<O, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("the body: {error}")))
}

async fn body(request: Request<Incoming>, most: usize) -> Result<Bytes, ApiError> {
    match Limited::new(request.into_body(), most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(ErrorCode::TooLarge, format!("the body has more than {most} bytes")))
        }
        Err(error) => Err(ApiError::new(ErrorCode::BadRequest, format!("the body: {error}"))),
    }
}

/// An answer as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Body, ApiError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Body { bytes: Bytes::from(bytes), kind: "application/json" })
}

async fn events(query: &EventsQuery, shared: &Shared) -> Result<EventsAnswer, ApiError> {
    let service: Option<ServiceId> = match &query.service {
        None => None,
        Some(name) => Some(shared.view_with(name).await?.1),
    };
    let wanted = |event: &Event| service.is_none_or(|id| status::is_about(event, id));
    let limit = query.limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX) as usize;
    let ring = &shared.agent.wiring.events;
    let mut newer = ring.subscribe();
    let patience = Duration::from_millis(query.wait_ms.min(WAIT_MAX_MS));
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        newer.mark_unchanged();
        let answer = ring.read(query.after, limit, wanted);
        if !answer.events.is_empty() || patience.is_zero() {
            return Ok(answer);
        }
        let waited = tokio::time::timeout_at(give_up, newer.changed()).await;
        if !matches!(waited, Ok(Ok(()))) {
            return Ok(answer);
        }
    }
}
