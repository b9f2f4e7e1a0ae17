//! The log, as scripts emit, ask and await it.
//!
//! What it does not know: pools. Questions go to all of them, as those of people do.
//!
//! Limits: [`ROWS_MAX`] records or rows of an answer.

use std::time::Duration;

use jizoku_api::log::{LogLine, RecordForm};
use jizoku_log::{Draft, Level, Schemas, Trace, moment};
use jizoku_script::run::{HostCall, log_value};
use jizoku_script::types::Type;
use jizoku_script::value::Value;
use tokio::sync::mpsc;

use super::super::super::log::{Taken, ask};
use super::{Answer, Host, span, text, unknown, whole};

/// How far back questions look that don't say.
const SINCE: Duration = Duration::from_secs(300);
/// How long a wait lasts that doesn't say.
const WAIT: Duration = Duration::from_secs(60);
/// Most records or rows of an answer.
const ROWS_MAX: usize = 1000;
/// How long one waits that has used up its quota.
const SLOWED: Duration = Duration::from_millis(50);

impl Host {
    /// `log.*`
    pub(super) async fn log(&mut self, name: &str, call: &HostCall) -> Answer {
        match name {
            "emit" => self.emit(call).await,
            "last" => {
                let records = self.records(&format!("latest {}", filter(call)?)).await?;
                let newest = records.into_iter().max_by_key(|record| moment::parse(&record.time));
                Ok(newest.map_or(Value::None, |record| self.record(&record)))
            }
            "all" => {
                let query = format!("{} since {} | last {ROWS_MAX}", filter(call)?, since(call));
                let records = self.records(&query).await?;
                Ok(Value::list(records.iter().map(|record| self.record(record)).collect()))
            }
            "count" => {
                let query = format!("{} since {} | count", filter(call)?, since(call));
                let rows = self.lines(&query).await?;
                let count = rows.iter().find_map(|line| match line {
                    LogLine::Row(cells) => match cells.last()?.as_ref()?.0 {
                        jizoku_log::Value::Int(count) => Some(count),
                        _ => None,
                    },
                    _ => None,
                });
                Ok(Value::Int(count.unwrap_or(0)))
            }
            "query" => {
                let lines = self.lines(text(call, 0)?).await?;
                let rows = lines.iter().filter_map(|line| match line {
                    LogLine::Row(cells) => serde_json::to_string(cells).ok(),
                    LogLine::Record(record) => serde_json::to_string(record).ok(),
                    _ => None,
                });
                Ok(Value::list(rows.take(ROWS_MAX).map(Value::text).collect()))
            }
            "wait" => self.wait(call).await,
            _ => Err(unknown(call)),
        }
    }

    /// Takes a record. One that floods the log waits for its own quota, and nobody else does.
    async fn emit(&self, call: &HostCall) -> Answer {
        let level = match text(call, 1) {
            Ok(word) => Level::parse(word).ok_or_else(|| format!("no level `{word}`"))?,
            Err(_) => Level::Info,
        };
        let named =
            call.named.iter().filter_map(|(name, value)| Some((&**name, log_value(value)?)));
        let values: Vec<(&str, jizoku_log::Value)> = named.collect();
        let fields: Vec<_> = values.iter().map(|(name, value)| (*name, value.borrow())).collect();
        let event = text(call, 0)?;
        let draft = Draft {
            level,
            trace: Trace(self.flow.0),
            fields: &fields,
            ..Draft::new(event, self.wiring.log.host(), &self.task)
        };
        while matches!(self.wiring.log.append(&draft), Taken::Dropped) {
            tokio::time::sleep(SLOWED).await;
        }
        Ok(Value::None)
    }

    /// Waits for a record that came after the task began, on any node.
    async fn wait(&self, call: &HostCall) -> Answer {
        let text = format!("follow {}", filter(call)?);
        let (sender, mut lines) = mpsc::channel(16);
        let log = std::sync::Arc::clone(&self.wiring.log);
        let query = (text.clone(), parsed(&text)?);
        let cursors = self.cursors.clone();
        let wiring = std::sync::Arc::clone(&self.wiring);
        tokio::spawn(ask::follow_from(log, wiring, query, cursors, sender));
        let within = span(call, 1).unwrap_or(WAIT);
        let found = tokio::time::timeout(within, async {
            while let Some(line) = lines.recv().await {
                if let LogLine::Record(record) = line {
                    return Some(record);
                }
            }
            None
        });
        match found.await {
            Ok(Some(record)) => Ok(self.record(&record)),
            Ok(None) => Err("the agent is ending".into()),
            Err(_) => Err(format!("no such record within {}", within.as_secs_f64())),
        }
    }

    async fn records(&self, query: &str) -> Result<Vec<RecordForm>, String> {
        let lines = self.lines(query).await?;
        let records = lines.into_iter().filter_map(|line| match line {
            LogLine::Record(record) => Some(record),
            _ => None,
        });
        Ok(records.take(ROWS_MAX).collect())
    }

    /// What all pools answer.
    async fn lines(&self, text: &str) -> Result<Vec<LogLine>, String> {
        let query = parsed(text)?;
        if query.mode == jizoku_log::query::Mode::Follow {
            return Err("a query that follows has no end: `log.wait` waits for a record".into());
        }
        let (sender, mut lines) = mpsc::channel(256);
        let (log, wiring) = (self.wiring.log.clone(), self.wiring.clone());
        tokio::spawn(ask::run(log, wiring, (text.to_string(), query), sender));
        let mut all = Vec::new();
        while let Some(line) = lines.recv().await {
            if let LogLine::End(end) = &line
                && let Some(problem) = &end.problem
            {
                return Err(problem.clone());
            }
            // The header and the end are lines, too.
            if all.len() < ROWS_MAX + 2 {
                all.push(line);
            }
        }
        Ok(all)
    }

    /// A record as scripts see it: with the event's own fields, in the types that it declares.
    fn record(&self, form: &RecordForm) -> Value {
        let millis = moment::parse(&form.time).unwrap_or(0) / 1000;
        let mut fields = vec![
            ("host", Value::text(form.host.as_str())),
            ("event", Value::text(form.event.as_str())),
            ("level", Value::text(form.level.as_str())),
            ("time", whole(millis)),
        ];
        let declared = self.script.fields(&form.event).map_or(&[][..], Vec::as_slice);
        for (name, kind) in declared {
            let value = form.fields.get(name).map(|cell| &cell.0);
            // One that doesn't fit was emitted by something that knows other events of this name.
            let value = value.and_then(|value| typed(value, *kind)).unwrap_or(Value::None);
            fields.push((name.as_str(), value));
        }
        Value::record(fields)
    }
}

fn typed(value: &jizoku_log::Value, kind: Type) -> Option<Value> {
    let kind = kind.present().unwrap_or(kind);
    let value = match value {
        jizoku_log::Value::Bool(value) => Value::Bool(*value),
        jizoku_log::Value::Int(bytes) if kind == Type::SIZE => {
            Value::Size(u64::try_from(*bytes).ok()?)
        }
        jizoku_log::Value::Int(number) => Value::Int(*number),
        jizoku_log::Value::Float(number) => Value::Float(*number),
        jizoku_log::Value::Str(text) => Value::text(text.as_str()),
        jizoku_log::Value::Duration(nanos) => Value::Duration(u64::try_from(*nanos).ok()?),
        _ => return None,
    };
    value.is_a(kind, &|_| Vec::new()).then(|| value.widened(kind))
}

fn parsed(text: &str) -> Result<jizoku_log::query::Query, String> {
    jizoku_log::query::parse(text, &Schemas::new())
        .map_err(|all| all.first().map_or_else(String::new, |problem| problem.show(text)))
}

/// The event and the condition, as a query's filter.
fn filter(call: &HostCall) -> Result<String, String> {
    let event = text(call, 0)?;
    let more = call.filter.as_ref().map(|filter| format!(" && ({filter})"));
    Ok(format!("event == \"{event}\"{}", more.unwrap_or_default()))
}

fn since(call: &HostCall) -> String {
    format!("{}ms", span(call, 1).unwrap_or(SINCE).as_millis().max(1))
}
