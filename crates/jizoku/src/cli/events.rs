//! `events`: what happened on the node that answers, and on all that it learned of.

use std::process::ExitCode;

use clap::Args;
use jizoku_api::event::{EventRecord, EventsQuery, WAIT_MAX_MS};
use jizoku_types::ServiceName;

use super::format::json;
use super::{Context, Failure};

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on with what happens from now on.
    #[arg(long, short)]
    follow: bool,
    /// Only those of this service.
    #[arg(long, value_parser = super::service::name)]
    service: Option<ServiceName>,
}

impl Events {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let mut query = EventsQuery { service: self.service, ..EventsQuery::default() };
        loop {
            let answer = context.client.query(&query).await?;
            if answer.missed {
                eprintln!("some events before these are no longer kept");
            }
            for record in &answer.events {
                if context.json {
                    json(record)?;
                } else {
                    println!("{}", line(record)?);
                }
            }
            let more = !answer.events.is_empty();
            query.after = Some(answer.next);
            if self.follow {
                query.wait_ms = WAIT_MAX_MS;
            } else if !more {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// Time, name of the event, its fields.
fn line(record: &EventRecord) -> Result<String, Failure> {
    let value = serde_json::to_value(record).map_err(|error| error.to_string())?;
    let event = &value["event"];
    let mut fields = Vec::new();
    for (name, value) in event.as_object().into_iter().flatten().filter(|(k, _)| *k != "type") {
        let text = value.as_str().map_or_else(|| value.to_string(), short);
        fields.push(format!("{name}={text}"));
    }
    let seconds = record.unix_ms / 1000 % 86_400;
    Ok(format!(
        "{:02}:{:02}:{:02}.{:03} {:20} {}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        record.unix_ms % 1000,
        event["type"].as_str().unwrap_or("?"),
        fields.join(" ")
    ))
}

/// Keys of nodes are long; their first digits tell them apart. Everything else stays as it is.
fn short(text: &str) -> String {
    let is_key = |digits: &str| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    match text.strip_prefix("node_") {
        Some(digits) if is_key(digits) => digits[..8].to_string(),
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn only_keys_are_cut() {
        let key = format!("node_{}", "0a".repeat(32));
        assert_eq!(short(&key), "0a0a0a0a");
        for text in ["node_1 can't hold it: full", "node_", "", "other", &key[..60]] {
            assert_eq!(short(text), text);
        }
    }
}
