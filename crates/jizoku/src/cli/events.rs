//! `events`: what happened on the node that answers, and on all that it learned of.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use jizoku_api::event::{EventRecord, EventsQuery, WAIT_MAX_MS};
use jizoku_types::{Event, NodeId, ServiceName};

use super::format::{json_line, outln};
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
        let mut names = if context.json { BTreeMap::new() } else { context.names().await? };
        loop {
            // One that waits for what is to come is not late.
            let answer = match query.wait_ms > 0 {
                true => context.client.query(&query).await?,
                false => context.query(&query).await?,
            };
            let added = |record: &EventRecord| matches!(record.event, Event::MemberAdded { .. });
            if !context.json && query.wait_ms > 0 && answer.events.iter().any(added) {
                names.extend(context.names().await?);
            }
            if answer.missed {
                eprintln!("some events before these are no longer kept");
            }
            for record in &answer.events {
                if context.json {
                    json_line(record)?;
                } else {
                    outln!("{}", line(record, &names)?);
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
fn line(record: &EventRecord, names: &BTreeMap<NodeId, String>) -> Result<String, Failure> {
    let value = serde_json::to_value(record).map_err(|error| error.to_string())?;
    let event = &value["event"];
    let mut fields = Vec::new();
    for (name, value) in event.as_object().into_iter().flatten().filter(|(k, _)| *k != "type") {
        let text = value.as_str().map_or_else(|| value.to_string(), |text| called(text, names));
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

/// What people call a node whose key this is; its first digits if it has no name any more.
/// Everything else stays as it is.
fn called(text: &str, names: &BTreeMap<NodeId, String>) -> String {
    match text.parse::<NodeId>() {
        Ok(node) => names.get(&node).cloned().unwrap_or_else(|| node.short()),
        Err(_) => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_get_names_and_nothing_else_does() {
        let node = NodeId([10; 32]);
        let (key, known) = (node.to_string(), BTreeMap::from([(node, "alpha".to_string())]));
        assert_eq!(key, format!("node_{}", "0a".repeat(32)));
        assert_eq!(called(&key, &known), "alpha");
        assert_eq!(called(&key, &BTreeMap::new()), node.short());
        for text in ["node_1 can't hold it: full", "node_", "", "other", &key[..60]] {
            assert_eq!(called(text, &known), text);
        }
    }
}
