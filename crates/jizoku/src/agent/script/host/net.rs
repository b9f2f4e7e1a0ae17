//! HTTP and TCP.
//!
//! What it does not know: TLS. `https://` is refused with a word for it.
//!
//! Limits: `NET_WITHIN` unless the call says otherwise; `TEXT_MAX` bytes of an answer.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use jizoku_script::run::HostCall;
use jizoku_script::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, NET_WITHIN, TEXT_MAX, as_text, duration, int, span, text, unknown};

/// After which silence an answer over TCP is taken as whole.
const SILENCE: Duration = Duration::from_secs(1);

/// Ends what carries a connection.
struct Carried(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `http.*`
pub(super) async fn http(name: &str, call: &HostCall) -> Answer {
    let url = text(call, 0)?;
    let (body, kind, within) = match name {
        "get" => (None, None, span(call, 1)),
        "post" => (Some(text(call, 1)?), text(call, 2).ok(), span(call, 3)),
        _ => return Err(unknown(call)),
    };
    let within = within.unwrap_or(NET_WITHIN);
    let asked = tokio::time::timeout(within, ask(url, body, kind));
    asked.await.unwrap_or_else(|_| Err(format!("{url} did not answer in time")))
}

async fn ask(url: &str, body: Option<&str>, kind: Option<&str>) -> Answer {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{url:?} names no host"))?.to_string();
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url:?}: only http:// can be asked"));
    }
    let began = Instant::now();
    let port = uri.port_u16().unwrap_or(80);
    let stream = connect(&host, port).await?;
    let failed = |error: hyper::Error| format!("{url}: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let _carried = Carried(tokio::spawn(connection));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let method = if body.is_some() { "POST" } else { "GET" };
    let authority = uri.authority().map_or(host.as_str(), |authority| authority.as_str());
    let mut request = Request::builder().method(method).uri(path).header("host", authority);
    if body.is_some() {
        request = request.header("content-type", kind.unwrap_or("application/json"));
    }
    let body = Full::new(Bytes::from(body.unwrap_or_default().to_string()));
    let request = request.body(body).map_err(|error| format!("{url}: {error}"))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status().as_u16();
    let mut stream = response.into_body();
    let mut answer = Vec::new();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(failed)?;
        answer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if answer.len() >= TEXT_MAX {
            break;
        }
    }
    Ok(Value::record([
        ("status", Value::Int(status.into())),
        ("body", as_text(&answer)),
        ("took", duration(began.elapsed())),
    ]))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    // In a URL an address of version 6 stands in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await;
    stream.map_err(|error| format!("{host} port {port}: {error}"))
}

/// `tcp.*`
pub(super) async fn tcp(name: &str, call: &HostCall) -> Answer {
    let host = text(call, 0)?;
    let port = u16::try_from(int(call, 1)?).map_err(|_| "a port is 1 to 65535".to_string())?;
    match name {
        "open" => {
            let within = span(call, 2).unwrap_or(NET_WITHIN);
            let opened = tokio::time::timeout(within, connect(host, port)).await;
            Ok(Value::Bool(matches!(opened, Ok(Ok(_)))))
        }
        "ask" => {
            let within = span(call, 3).unwrap_or(NET_WITHIN);
            let asked = tokio::time::timeout(within, say(host, port, text(call, 2)?));
            asked.await.unwrap_or_else(|_| Err(format!("{host} port {port}: no answer in time")))
        }
        _ => Err(unknown(call)),
    }
}

async fn say(host: &str, port: u16, what: &str) -> Answer {
    let failed = |error: std::io::Error| format!("{host} port {port}: {error}");
    let mut stream = connect(host, port).await?;
    stream.write_all(what.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while answer.len() < TEXT_MAX {
        match tokio::time::timeout(SILENCE, stream.read(&mut buffer)).await {
            Err(_) | Ok(Ok(0)) => break,
            Ok(Ok(length)) => answer.extend_from_slice(&buffer[..length]),
            // What came before a reset is an answer, too.
            Ok(Err(_)) if !answer.is_empty() => break,
            Ok(Err(error)) => return Err(failed(error)),
        }
    }
    Ok(as_text(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Answers one connection with these bytes, after the request's head.
    fn server(answer: &'static [u8]) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).expect("a request");
            stream.write_all(answer).expect("an answer");
        });
        port
    }

    fn call(function: &'static str, args: Vec<Value>) -> HostCall {
        HostCall { function, args, named: Vec::new(), filter: None }
    }

    #[test]
    fn servers_are_asked() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let port = server(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nlate");
            let url = Value::text(format!("http://127.0.0.1:{port}/health?a=b"));
            let answer = http("get", &call("http.get", vec![url, Value::None])).await;
            let Ok(Value::Record(answer)) = answer else { panic!("{answer:?}") };
            assert_eq!(answer.get("status"), Some(&Value::Int(503)));
            assert_eq!(answer.get("body"), Some(&Value::text("late")));
            let port = i64::from(server(b"+PONG\r\n"));
            let args = vec![Value::text("127.0.0.1"), Value::Int(port), Value::text("PING\r\n")];
            let answer = tcp("ask", &call("tcp.ask", args)).await;
            assert_eq!(answer, Ok(Value::text("+PONG\r\n")));
        });
    }

    #[test]
    fn what_does_not_answer_is_a_failure_and_tls_is_refused() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            // A port that was free a moment ago.
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            let url = Value::text(format!("http://127.0.0.1:{port}/"));
            assert!(http("get", &call("http.get", vec![url])).await.is_err());
            let args = vec![Value::text("127.0.0.1"), Value::Int(port.into())];
            assert_eq!(tcp("open", &call("tcp.open", args)).await, Ok(Value::Bool(false)));
            let url = Value::text("https://127.0.0.1/");
            let refused = http("get", &call("http.get", vec![url])).await;
            assert!(refused.is_err_and(|why| why.contains("only http://")));
        });
    }
}
