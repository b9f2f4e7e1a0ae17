//! Services and nodes of the cluster: asked of this node's view, ordered of the catalog.
//!
//! What it does not know: how an order is carried out. It waits until the view says that it was.

use std::time::Duration;

use jizoku_core::catalog::{Command, Wanted};
use jizoku_node::node::{NodeView, Request, ServiceView, View};
use jizoku_script::run::HostCall;
use jizoku_script::value::Value;
use jizoku_types::{ServiceId, ServiceName};

use super::super::super::{ask, status};
use super::{Answer, Host, text, unknown, whole};

/// How often it is looked whether what was ordered has come about.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Host {
    pub(super) async fn view(&self) -> Result<View, String> {
        let view = ask::settled_view(&self.wiring.core, ask::WITHIN).await;
        view.ok_or_else(|| "the agent is ending".to_string())
    }

    /// `cluster.*`
    pub(super) async fn cluster(&self, name: &str, call: &HostCall) -> Answer {
        let view = self.view().await?;
        let mut nodes: Vec<&NodeView> = view.nodes.iter().collect();
        nodes.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        match name {
            "nodes" => Ok(Value::list(nodes.into_iter().map(node).collect())),
            "node" => {
                let wanted = text(call, 0)?;
                let found = nodes.into_iter().find(|node| node.record.name == wanted);
                Ok(found.map_or(Value::None, node))
            }
            _ => Err(unknown(call)),
        }
    }

    /// `service.*`
    pub(super) async fn service(&self, name: &str, call: &HostCall) -> Answer {
        if name == "list" {
            let view = self.view().await?;
            let mut all: Vec<&ServiceView> = view.services.values().collect();
            all.sort_by(|a, b| a.record.spec.name.as_str().cmp(b.record.spec.name.as_str()));
            return Ok(Value::list(all.into_iter().map(|one| service(&view, one)).collect()));
        }
        let wanted = ServiceName::new(text(call, 0)?).map_err(|error| error.to_string())?;
        let view = self.view().await?;
        let (id, known) = status::find(&view, &wanted).map_err(|error| error.message)?;
        match name {
            "status" => return Ok(service(&view, known)),
            "start" => self.want(id, Wanted::Running).await?,
            "stop" => self.want(id, Wanted::Stopped).await?,
            "restart" => {
                self.want(id, Wanted::Stopped).await?;
                self.want(id, Wanted::Running).await?;
            }
            "move" => self.move_to(id, text(call, 1)?, &view).await?,
            _ => return Err(unknown(call)),
        }
        Ok(Value::None)
    }

    /// Says what is wanted of a service, and waits until it is so. The task's time is the limit.
    async fn want(&self, id: ServiceId, wanted: Wanted) -> Result<(), String> {
        let command = Box::new(Command::SetWanted { service: id, wanted });
        ask::done(&self.wiring.core, Request::Command(command), ask::WITHIN).await?;
        self.until(id, |view, one| match wanted {
            Wanted::Running => status::is_running(view, one),
            Wanted::Stopped => status::phase(view, one) == jizoku_api::service::Phase::Stopped,
        })
        .await
    }

    async fn move_to(&self, id: ServiceId, to: &str, view: &View) -> Result<(), String> {
        let target = view.nodes.iter().find(|node| node.record.name == to);
        let target = target.ok_or_else(|| format!("no node is called `{to}`"))?.node;
        let there = |one: &ServiceView| one.record.active.is_some_and(|at| at.node == target);
        if view.services.get(&id).is_some_and(there) {
            return Ok(());
        }
        let request = Request::Move { service: id, to: Some(target) };
        ask::done(&self.wiring.core, request, ask::WITHIN).await?;
        self.until(id, |view, one| there(one) && status::is_running(view, one)).await
    }

    async fn until(
        &self,
        id: ServiceId,
        is_so: impl Fn(&View, &ServiceView) -> bool,
    ) -> Result<(), String> {
        loop {
            let view = self.view().await?;
            match view.services.get(&id) {
                Some(one) if is_so(&view, one) => return Ok(()),
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
                None => return Err("the service was removed".into()),
            }
        }
    }
}

fn node(node: &NodeView) -> Value {
    let labels =
        node.record.labels.iter().map(|(key, value)| Value::text(format!("{key}:{value}")));
    Value::record([
        ("name", Value::text(node.record.name.as_str())),
        ("reachable", Value::Bool(node.reachable)),
        ("labels", Value::list(labels.collect())),
    ])
}

fn service(view: &View, one: &ServiceView) -> Value {
    let phase = serde_json::to_value(status::phase(view, one)).unwrap_or_default();
    let at = one.record.active.map(|active| status::name_of(view, active.node));
    Value::record([
        ("name", Value::text(one.record.spec.name.as_str())),
        ("running", Value::Bool(status::is_running(view, one))),
        ("state", Value::text(phase.as_str().unwrap_or_default())),
        ("node", at.map_or(Value::None, Value::text)),
        ("copies", whole(one.record.holders.len() as u64)),
    ])
}
