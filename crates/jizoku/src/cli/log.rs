//! `log`: asks the log pools of all nodes, follows them, and writes to them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jizoku_api::Query;
use jizoku_api::log::{Emitted, LogLine, LogQuery, RecordForm};
use serde_json::{Map, Value as Json};

use super::format::json;
use super::{Context, Failure};

/// Arguments of `log`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Log {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The query, as in: level >= warn since 1h | count by host. Without one: all of the last
    /// quarter of an hour.
    query: Vec<String>,
    /// Go on with what comes.
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a record.
    Emit(Emit),
}

/// Arguments of `log emit`.
#[derive(Debug, Args)]
struct Emit {
    /// What happened, as in: web.up. Without one, lines of JSON are read from standard input.
    event: Option<String>,
    /// Fields, as in: port=8080 msg="it answers".
    #[arg(value_name = "NAME=VALUE", value_parser = field)]
    fields: Vec<(String, Json)>,
    /// trace, debug, info, warn, error or fatal.
    #[arg(long)]
    level: Option<String>,
    /// The run that it belongs to, in hexadecimal.
    #[arg(long)]
    trace: Option<String>,
    /// Wait until two nodes hold it.
    #[arg(long)]
    important: bool,
}

fn field(text: &str) -> Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("a field is NAME=VALUE")?;
    if name.is_empty() {
        return Err("a field has a name".into());
    }
    let number = value.parse::<i64>().map(Json::from);
    let number = number.or_else(|_| value.parse::<f64>().map(Json::from));
    let value = match value {
        "true" | "false" => Json::Bool(value == "true"),
        _ => number.ok().filter(|n| !n.is_null()).unwrap_or_else(|| Json::from(value)),
    };
    Ok((name.to_string(), value))
}

impl Log {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        if let Some(Verb::Emit(emit)) = self.verb {
            return emit.run(context).await;
        }
        let mut query = self.query.join(" ");
        if query.is_empty() && !self.follow {
            query = "since 15m".into();
        }
        if self.follow {
            query = format!("follow {query}");
        }
        let mut whole = false;
        let mut problem = None;
        let target = LogQuery { query }.target();
        context
            .client
            .lines(&target, |line| {
                if context.json {
                    println!("{}", String::from_utf8_lossy(line));
                }
                let line: LogLine = serde_json::from_slice(line).map_err(|e| e.to_string())?;
                if let LogLine::End(end) = &line {
                    whole = true;
                    problem = end.problem.clone();
                }
                if !context.json {
                    show(line);
                }
                Ok(())
            })
            .await?;
        if let Some(problem) = problem {
            return Err(Failure(problem));
        }
        if !whole && !self.follow {
            return Err(Failure("the answer broke off: it is not whole".into()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A line for people.
fn show(line: LogLine) {
    match line {
        LogLine::Columns(columns) => println!("{}", columns.join("\t")),
        LogLine::Row(cells) => {
            let cell = |cell: &Option<jizoku_api::log::Cell>| {
                cell.as_ref().map_or_else(|| "-".to_string(), ToString::to_string)
            };
            println!("{}", cells.iter().map(cell).collect::<Vec<_>>().join("\t"));
        }
        LogLine::Record(record) => println!("{}", text(&record)),
        LogLine::Node(change) if change.answers => eprintln!("{} answers", change.node),
        LogLine::Node(change) => eprintln!("{} doesn't answer", change.node),
        LogLine::End(end) => {
            if !end.unreachable.is_empty() {
                let names = end.unreachable.join(", ");
                eprintln!("not reached: {names}; what only they hold is missing");
            }
            if end.missed > 0 {
                eprintln!("{} records were forgotten before they could be shown", end.missed);
            }
            if end.left_out > 0 {
                eprintln!("{} records were left out at a limit", end.left_out);
            }
        }
    }
}

/// Time of day, host, level, event, source, message, other fields.
fn text(record: &RecordForm) -> String {
    let time = record.time.get(11..23).unwrap_or(&record.time);
    let msg = record.fields.get("msg").map(|msg| format!(" {msg}")).unwrap_or_default();
    let others = record.fields.iter().filter(|(name, _)| *name != "msg");
    let others: String = others.map(|(name, value)| format!(" {name}={value}")).collect();
    let trace = match record.trace.as_str() {
        "" => String::new(),
        trace => format!(" trace={trace}"),
    };
    let RecordForm { host, level, event, source, .. } = record;
    format!("{time} {host:10} {level:5} {event:20} {source}:{msg}{others}{trace}")
}

impl Emit {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let body = match &self.event {
            Some(event) => self.line(event),
            None => {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin(), &mut text)
                    .map_err(|error| format!("standard input: {error}"))?;
                text
            }
        };
        let emitted: Emitted = context.client.emit(body).await?;
        if context.json {
            json(&emitted)?;
        }
        if let Some(why) = &emitted.why {
            return Err(Failure(format!("{} records were refused: {why}", emitted.refused)));
        }
        if emitted.dropped > 0 {
            let count = emitted.dropped;
            return Err(Failure(format!("{count} records were dropped: over the source's quota")));
        }
        if emitted.counts == Some(false) {
            let what = "only this node holds it: no other one has confirmed a copy";
            return Err(Failure(what.into()));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn line(&self, event: &str) -> Vec<u8> {
        let mut object: Map<String, Json> = self.fields.iter().cloned().collect();
        object.insert("event".into(), event.into());
        let mut put = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                object.insert(name.into(), value.as_str().into());
            }
        };
        put("level", &self.level);
        put("trace", &self.trace);
        if self.important {
            object.insert("important".into(), true.into());
        }
        Json::Object(object).to_string().into_bytes()
    }
}
