//! `init`, `join`, `ticket`, `up`, `leave`, `remove`, `drain`, `recover`: what is done about nodes.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jizoku_api::order::{DrainOrder, LeaveOrder, RemoveOrder, TicketOrder};
use jizoku_api::status::{ClusterStatus, NodeStatus, StatusQuery};
use jizoku_manifest::NodeConfig;
use jizoku_store::{DataFolder, FolderError};
use jizoku_types::{NodeId, Span};
use serde_json::json;

use super::format::{json as print_json, outln};
use super::service::report;
use super::{Context, Failure, progress};
use crate::agent::membership::{self, TICKET_TTL};

/// Where the agent of a data folder listens for the command line.
pub(super) fn socket_of(data: &Path) -> PathBuf {
    let config = membership::config_of(data).unwrap_or_default();
    data.join(config.api_socket)
}

/// What `init` and `join` write into config.toml.
#[derive(Debug, Args)]
struct Settings {
    /// What to call this node; the host's name if not said.
    #[arg(long)]
    name: Option<String>,
    /// Where to listen for other nodes; may be said several times.
    #[arg(long)]
    listen: Vec<SocketAddr>,
    /// Where other nodes shall connect to, if it differs.
    #[arg(long)]
    advertise: Vec<SocketAddr>,
    /// Where to open the services' ports; all addresses if not said.
    #[arg(long)]
    gateway: Vec<IpAddr>,
    /// A label such as `zone=north`; may be said several times.
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// This node votes, and runs and holds nothing.
    #[arg(long)]
    witness: bool,
    /// This node takes no tasks of scripts.
    #[arg(long)]
    no_scripts: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

impl Settings {
    /// On top of what the folder has already.
    fn config(self, data: &Path) -> Result<NodeConfig, Failure> {
        let mut config = membership::config_of(data)?;
        config.name = self.name.or(config.name);
        let replace = |old: &mut Vec<SocketAddr>, new: Vec<SocketAddr>| {
            if !new.is_empty() {
                *old = new;
            }
        };
        replace(&mut config.listen, self.listen);
        replace(&mut config.advertise, self.advertise);
        if !self.gateway.is_empty() {
            config.gateway = self.gateway;
        }
        config.labels.extend(self.label);
        config.witness |= self.witness;
        config.scripts &= !self.no_scripts;
        if let Some(name) = config.name.as_deref().filter(|name| !NodeConfig::is_node_name(name)) {
            return Err(Failure(format!(
                "{name:?} can't be a node's name: use a-z, 0-9, '-', '.'"
            )));
        }
        Ok(config)
    }
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    settings: Settings,
}

/// Opens a folder that shall come to belong to a cluster.
fn fresh_folder(data: &Path) -> Result<DataFolder, Failure> {
    DataFolder::open(data).map_err(|error| match error {
        FolderError::Locked { path } => Failure(format!(
            "an agent runs with {}: its node belongs to a cluster already\n`jizoku leave` takes it \
             out; or name another folder with --data",
            path.display()
        )),
        FolderError::Io { path, cause } => {
            let hint = match cause.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "\nRun this as root, or name a folder of your own with --data"
                }
                _ => "",
            };
            Failure(format!("{}: {cause}{hint}", path.display()))
        }
        other => Failure(other.to_string()),
    })
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let folder = fresh_folder(&context.data)?;
        let config = self.settings.config(&context.data)?;
        let ticket = membership::init(&folder, &config)?;
        if context.json {
            print_json(&json!({
                "cluster": ticket.cluster.to_string(),
                "node": ticket.issuer.to_string(),
                "ticket": ticket.text(),
                "valid_ms": TICKET_TTL.as_millis(),
            }))?;
            return Ok(ExitCode::SUCCESS);
        }
        outln!("{} begins in {}", ticket.cluster, context.data.display());
        outln!("Run its agent:        {}", context.this_node("up"));
        outln!("Then, on another one: jizoku join {}", ticket.text());
        outln!("That ticket lets one node in, within an hour from the first `jizoku up`.");
        outln!("For more: {}", context.this_node("ticket"));
        outln!("Three nodes survive the death of one; two don't, unless the third is a witness,");
        outln!("which runs nothing: jizoku join TICKET --witness");
        Ok(ExitCode::SUCCESS)
    }
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub(super) struct Join {
    /// What `jizoku init` or `jizoku ticket` printed.
    ticket: String,
    #[command(flatten)]
    settings: Settings,
}

impl Join {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let ticket = membership::read_ticket(&self.ticket)?;
        let folder = fresh_folder(&context.data)?;
        let config = self.settings.config(&context.data)?;
        let joining = membership::join(&folder, &config, &ticket);
        let (cluster, name) =
            progress::during("asking the ticket's issuer to let this node in", joining).await?;
        if context.json {
            print_json(&json!({ "cluster": cluster.to_string(), "name": name }))?;
        } else {
            outln!("This node is {name} of {cluster}.");
            outln!("Run its agent: {}", context.this_node("up"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Arguments of `ticket`.
#[derive(Debug, Args)]
pub(super) struct Ticket {
    /// For how many minutes it is good.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
}

impl Ticket {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let valid_ms = Some(Span::secs(self.minutes * 60).as_millis());
        let issued = context.order("asking the catalog", &TicketOrder { valid_ms }).await?;
        if context.json {
            print_json(&issued)?;
        } else {
            outln!("{}", issued.ticket);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub(super) struct Up {}

impl Up {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        crate::agent::run(&context.data)?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) async fn leave(context: &Context) -> Result<ExitCode, Failure> {
    let done = context.order("leaving the cluster", &LeaveOrder {}).await?;
    report(context, &done)
}

/// Arguments of `remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The node, by name or id.
    node: String,
    /// Even if it is the last holder of some state.
    #[arg(long)]
    accept_loss: bool,
}

impl Remove {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let order = RemoveOrder { node: self.node, accept_loss: self.accept_loss };
        let done = context.order("removing the node", &order).await?;
        report(context, &done)
    }
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub(super) struct Drain {
    /// The node, by name or id; this one if none is named.
    node: Option<String>,
    /// Let it take services again.
    #[arg(long)]
    undo: bool,
    /// Don't wait until it is empty.
    #[arg(long)]
    no_wait: bool,
}

impl Drain {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let order = DrainOrder { node: self.node, undo: self.undo };
        let mut done = context.order("asking the catalog", &order).await?;
        if self.undo || self.no_wait {
            return report(context, &done);
        }
        let name = order.node.as_deref();
        let is_meant = |node: &NodeStatus, this: NodeId| match name {
            None => node.node == this,
            Some(name) => {
                node.name == name || node.node.to_string() == name || node.node.short() == name
            }
        };
        let left = |status: &ClusterStatus| {
            let node = status.nodes.iter().find(|node| is_meant(node, status.this_node));
            node.map_or((0, 0), |node| (node.active, node.held))
        };
        if context.until("moving everything off", |status| left(status) == (0, 0)).await? {
            let name = name.unwrap_or("this node");
            done.notes = vec![format!("{name} runs and holds nothing now")];
            return report(context, &done);
        }
        let status = context.query(&StatusQuery).await?;
        let (active, held) = left(&status);
        Err(Failure(format!(
            "it still runs {active} services and holds the state of {held}: is there another node \
             that may take them?\nIt goes on trying; `jizoku drain --undo` ends that."
        )))
    }
}

/// Arguments of `recover`.
#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Say that the other voters are lost for good, and refuse them from then on.
    #[arg(long)]
    new_generation: bool,
}

impl Recover {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        if !self.new_generation {
            return Err(Failure(
                "a cluster comes back by itself when a majority of its voters can reach each \
                 other.\nOnly if they are lost for good: stop the agent on ONE survivor, and run \
                 there\n  jizoku recover --new-generation\nAll other nodes must then join anew."
                    .into(),
            ));
        }
        let folder = DataFolder::open(&context.data)
            .map_err(|error| format!("{error}\nStop the agent first, then recover."))?;
        let generation = membership::recover(&folder)?;
        if context.json {
            print_json(&json!({ "generation": generation.0 }))?;
            return Ok(ExitCode::SUCCESS);
        }
        outln!("Generation {} begins here.", generation.0);
        outln!("Run the agent: {}", context.this_node("up"));
        outln!("Nodes of older generations are refused. To take one in again, empty its data");
        outln!("folder, and let it join with a new ticket.");
        Ok(ExitCode::SUCCESS)
    }
}
