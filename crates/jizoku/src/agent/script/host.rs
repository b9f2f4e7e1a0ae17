//! The functions of the host, really done.
//!
//! - [`command`]: programs and shell texts
//! - [`machine`]: facts of this host, files, processes
//! - [`net`]: HTTP and TCP; [`unit`]: systemd
//! - [`cluster`]: services and nodes; [`records`]: the log
//!
//! What it does not know: tasks and flows, but for whose records are emitted.
//!
//! Invariants
//! - The evaluator has looked at the role's rights before it asks.
//! - A call that is dropped leaves nothing running that it started.

mod cluster;
mod command;
mod machine;
mod net;
mod records;
mod unit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jizoku_script::flow::FlowId;
use jizoku_script::run::HostCall;
use jizoku_script::script::Script;
use jizoku_script::value::Value;
use jizoku_types::NodeId;

use super::super::wiring::Wiring;

/// How long a call over the network may take if it doesn't say.
const NET_WITHIN: Duration = Duration::from_secs(10);
/// Longest text that a call gives.
const TEXT_MAX: usize = (1 << 20) - 4096;

/// What a call came to.
type Answer = Result<Value, String>;

/// See the module's header.
pub(super) struct Host {
    pub(super) wiring: Arc<Wiring>,
    pub(super) script: Arc<Script>,
    pub(super) flow: FlowId,
    pub(super) task: String,
    /// Where all pools stood when the task began, if it may wait for records.
    pub(super) cursors: BTreeMap<NodeId, u64>,
}

impl Host {
    /// Does a call.
    pub(super) async fn call(&mut self, call: &HostCall) -> Answer {
        let (space, name) = call.function.split_once('.').unwrap_or(("", call.function));
        match space {
            "clock" => {
                tokio::time::sleep(span(call, 0).unwrap_or_default()).await;
                Ok(Value::None)
            }
            "command" => self::command::program(name, call).await,
            "sh" => self::command::shell(name, call).await,
            "cluster" => self.cluster(name, call).await,
            "service" => self.service(name, call).await,
            "host" => self.facts(name, call).await,
            "file" | "process" => machine::blocking(call).await,
            "http" => net::http(name, call).await,
            "tcp" => net::tcp(name, call).await,
            "unit" => unit::call(name, call).await,
            "log" => self.log(name, call).await,
            _ => Err(unknown(call)),
        }
    }
}

/// What a node of another version may be asked for.
fn unknown(call: &HostCall) -> String {
    format!("this node doesn't know `{}`", call.function)
}

fn text(call: &HostCall, at: usize) -> Result<&str, String> {
    match call.args.get(at) {
        Some(Value::Str(text)) => Ok(text),
        _ => Err(format!("argument {} is no text", at + 1)),
    }
}

fn int(call: &HostCall, at: usize) -> Result<i64, String> {
    match call.args.get(at) {
        Some(Value::Int(number)) => Ok(*number),
        _ => Err(format!("argument {} is no whole number", at + 1)),
    }
}

fn span(call: &HostCall, at: usize) -> Option<Duration> {
    match call.args.get(at) {
        Some(Value::Duration(nanos)) => Some(Duration::from_nanos(*nanos)),
        _ => None,
    }
}

/// Bytes as a text that fits a value; what is no UTF-8 is replaced.
fn as_text(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    Value::text(&text[..text.floor_char_boundary(TEXT_MAX)])
}

fn duration(time: Duration) -> Value {
    Value::Duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn whole(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}
