//! The command line: one subcommand for each thing that people do.
//!
//! Data goes to standard output, everything else to standard error. `--json` prints the API's
//! own form. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

mod cluster;
mod events;
mod format;
mod log;
mod progress;
mod run;
mod script;
mod service;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use jizoku_api::status::{ClusterStatus, StatusQuery};
use jizoku_api::{Order, Query};
use jizoku_types::NodeId;

use crate::client::{CallError, Client};

pub(crate) use format::{outln, print};

/// The data folder if none is named.
const DATA: &str = "/var/lib/jizoku";
/// How long verbs wait for what they ordered.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Keeps network services alive, with their memory and connections, when machines die.
#[derive(Debug, Parser)]
#[command(name = "jizoku", version, max_term_width = 100)]
struct Arguments {
    /// The data folder of this node.
    #[arg(long, global = true, env = "JIZOKU_DATA", default_value = DATA)]
    data: PathBuf,
    /// The agent's API socket, if it isn't the one in the data folder.
    #[arg(long, global = true, env = "JIZOKU_SOCKET")]
    socket: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a cluster on this node.
    Init(cluster::Init),
    /// Bring this node into a cluster.
    Join(cluster::Join),
    /// Print a ticket that lets one node in.
    Ticket(cluster::Ticket),
    /// Run the agent.
    Up(cluster::Up),
    /// Take this node out of its cluster.
    Leave,
    /// Shut a node out of the cluster; its key is refused from then on.
    Remove(cluster::Remove),
    /// Take all services off a node.
    Drain(cluster::Drain),
    /// Go on with a cluster that lost its majority for good.
    Recover(cluster::Recover),
    /// Create or change a service.
    Apply(service::Apply),
    /// Remove a service and its state.
    Rm(service::Named),
    /// Run a stopped service.
    Start(service::Named),
    /// Stop a service; its state is kept.
    Stop(service::Named),
    /// Make another node the active one.
    Move(service::Move),
    /// Go on with a service whose newest state can't be reached.
    Resume(service::Resume),
    /// Show the cluster at a glance.
    Status(status::Status),
    /// List the running instances.
    Ps(status::Ps),
    /// Show everything about one service.
    Inspect(service::Named),
    /// Show what happened.
    Events(events::Events),
    /// Ask the log pools of all nodes, follow them, or write to them.
    Log(log::Log),
    /// Print metrics in Prometheus' form.
    Metrics,
    /// Run a flow of a script, and show how it goes.
    Run(run::Run),
    /// List the flows that are under way.
    Flows,
    /// End a flow as failed: its tasks are stopped.
    Cancel(run::Cancel),
    /// Check scripts, and show what they need.
    Check(script::Check),
    /// Format scripts.
    Fmt(script::Fmt),
    /// Say what this machine can and cannot run, and how to mend it.
    Doctor,
    /// Start five nodes on this machine, kill some, and show that nothing is lost.
    Demo(crate::demo::Demo),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What every verb gets.
struct Context {
    data: PathBuf,
    client: Client,
    json: bool,
}

impl Context {
    /// How to say `verb` about this node.
    fn this_node(&self, verb: &str) -> String {
        if self.data == std::path::Path::new(DATA) {
            format!("jizoku {verb}")
        } else {
            format!("jizoku --data {} {verb}", self.data.display())
        }
    }

    /// What people call the nodes, by what the agent knows.
    async fn names(&self) -> Result<BTreeMap<NodeId, String>, Failure> {
        let status = self.query(&StatusQuery).await?;
        Ok(status.nodes.into_iter().map(|node| (node.node, node.name)).collect())
    }

    /// Looks at the cluster until it is as it shall be. Gives whether it came to that in time.
    async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<bool, Failure> {
        let look = async {
            loop {
                if is_so(&self.client.query(&StatusQuery).await?) {
                    return Ok::<(), Failure>(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match progress::during(what, tokio::time::timeout(SETTLED_WITHIN, look)).await {
            Ok(result) => result.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Asks something, with a sign of life if it takes long: an agent may be paused.
    async fn query<Q: Query>(&self, query: &Q) -> Result<Q::Answer, Failure> {
        Ok(progress::during("waiting for the agent", self.client.query(query)).await?)
    }

    /// Orders something, with a sign of life if it takes long.
    async fn order<O: Order>(&self, what: &str, order: &O) -> Result<O::Answer, Failure> {
        Ok(progress::during(what, self.client.order(order)).await?)
    }
}

/// Why a command failed: what to print.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure(text)
    }
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let socket = arguments.socket.unwrap_or_else(|| cluster::socket_of(&arguments.data));
    let context =
        Context { data: arguments.data, client: Client::new(&socket), json: arguments.json };
    match run(arguments.verb, &context) {
        Ok(code) => code,
        Err(Failure(text)) => {
            eprintln!("jizoku: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, context: &Context) -> Result<ExitCode, Failure> {
    match verb {
        // These own their threads.
        Verb::Up(up) => return up.run(context),
        Verb::Init(init) => return init.run(context),
        Verb::Demo(demo) => return demo.run(context.json),
        Verb::Check(check) => return check.run(context),
        Verb::Fmt(fmt) => return fmt.run(),
        Verb::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "jizoku", &mut script);
            format::out!("{}", String::from_utf8_lossy(&script));
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start: {error}"))?;
    runtime.block_on(call(verb, context))
}

async fn call(verb: Verb, context: &Context) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Join(join) => join.run(context).await,
        Verb::Ticket(ticket) => ticket.run(context).await,
        Verb::Leave => cluster::leave(context).await,
        Verb::Remove(remove) => remove.run(context).await,
        Verb::Drain(drain) => drain.run(context).await,
        Verb::Recover(recover) => recover.run(context).await,
        Verb::Apply(apply) => apply.run(context).await,
        Verb::Rm(named) => named.rm(context).await,
        Verb::Start(named) => named.start(context).await,
        Verb::Stop(named) => named.stop(context).await,
        Verb::Move(order) => order.run(context).await,
        Verb::Resume(resume) => resume.run(context).await,
        Verb::Status(status) => status.run(context).await,
        Verb::Ps(ps) => ps.run(context).await,
        Verb::Inspect(named) => named.inspect(context).await,
        Verb::Events(events) => events.run(context).await,
        Verb::Log(log) => log.run(context).await,
        Verb::Run(run) => run.run(context).await,
        Verb::Flows => run::flows(context).await,
        Verb::Cancel(cancel) => cancel.run(context).await,
        Verb::Metrics => status::metrics(context).await,
        Verb::Doctor => status::doctor(context).await,
        Verb::Up(_)
        | Verb::Init(_)
        | Verb::Demo(_)
        | Verb::Check(_)
        | Verb::Fmt(_)
        | Verb::Completions { .. } => {
            unreachable!("run() took these")
        }
    }
}
