//! How a data folder comes to belong to a cluster: `init`, `join`, `recover`; tickets.
//!
//! These run while no agent does: the folder's lock sees to that.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use jizoku_api::Ticket;
use jizoku_consensus::{Record, Recovered};
use jizoku_core::catalog::{ADDRESSES_MAX, MemberSpec, TicketHash};
use jizoku_manifest::NodeConfig;
use jizoku_mesh::Identity;
use jizoku_node::wire::{JoinAnswer, JoinAsk};
use jizoku_store::{ConsensusLog, DataFolder, Small};
use jizoku_types::{ClusterId, Generation, Incarnation, NodeId, Span, decode, encode};
use serde::{Deserialize, Serialize};

/// How long a ticket is good unless said otherwise.
pub(crate) const TICKET_TTL: Span = Span::secs(3600);
/// The feature level of this build.
pub(crate) const FEATURES: u16 = 1;
/// Form of the cluster file.
const CLUSTER_FORMAT: u16 = 1;

/// To which cluster a data folder belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterFile {
    format: u16,
    pub(crate) cluster: ClusterId,
    pub(crate) generation: Generation,
    /// Something that the catalog must be told at the next start.
    pub(crate) pending: Option<Pending>,
    /// Members as they were known last, to begin with.
    pub(crate) seeds: Vec<(NodeId, Vec<String>)>,
    /// Whether an agent has run with this file: its next start is a restart.
    pub(crate) ran: bool,
}

/// What the catalog must be told at the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pending {
    /// The cluster begins here, with a first ticket.
    Init {
        /// Hash of the ticket's secret.
        ticket: TicketHash,
    },
    /// The cluster goes on from here alone.
    Recover,
}

/// A ticket with a new secret.
pub(crate) fn new_ticket(cluster: ClusterId, issuer: NodeId, addresses: Vec<SocketAddr>) -> Ticket {
    Ticket { cluster, issuer, addresses, secret: random() }
}

/// Reads a ticket that somebody gave.
pub(crate) fn read_ticket(text: &str) -> Result<Ticket, String> {
    let not = "this is not a ticket; `jizoku ticket` on a member prints one";
    Ticket::parse(text).ok_or_else(|| not.to_string())
}

/// What the catalog keeps of a ticket's secret.
pub(crate) fn hash_of(secret: &[u8; 32]) -> TicketHash {
    *blake3::hash(secret).as_bytes()
}

/// Bytes that nobody can guess.
///
/// # Panics
/// If the system has no randomness: then nothing here could be safe.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// The node's secret key; a new one if the folder doesn't belong to a cluster yet.
pub(crate) fn identity(folder: &DataFolder) -> Result<Identity, String> {
    let path = folder.key_path();
    // With another key it would be another node, whom nobody knows.
    if !path.exists() && cluster_of(folder)?.is_some() {
        return Err(format!(
            "{} is missing; the node can't go on as it was: remove the folder and join as a new \
             one",
            path.display()
        ));
    }
    Identity::load_or_create(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The cluster file of a folder.
pub(crate) fn cluster_of(folder: &DataFolder) -> Result<Option<ClusterFile>, String> {
    let Some(bytes) = folder.read(Small::Cluster).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let file: ClusterFile =
        decode(&bytes).map_err(|error| format!("the cluster file can't be read: {error}"))?;
    if file.format != CLUSTER_FORMAT {
        return Err(format!("the cluster file has format {}; this build reads 1", file.format));
    }
    Ok(Some(file))
}

/// Replaces the cluster file.
pub(crate) fn write_cluster(folder: &DataFolder, file: &ClusterFile) -> Result<(), String> {
    folder.write(Small::Cluster, &encode(file)).map_err(|error| error.to_string())
}

/// Creates a cluster in a folder. Gives the first ticket.
pub(crate) fn init(folder: &DataFolder, config: &NodeConfig) -> Result<Ticket, String> {
    refuse_if_member(folder)?;
    let identity = identity(folder)?;
    let cluster = ClusterId(random());
    let ticket = new_ticket(cluster, identity.node(), advertised(config, &config.listen));
    folder.write_config(&config.to_toml()).map_err(|error| error.to_string())?;
    write_cluster(
        folder,
        &ClusterFile {
            format: CLUSTER_FORMAT,
            cluster,
            generation: Generation(1),
            pending: Some(Pending::Init { ticket: hash_of(&ticket.secret) }),
            seeds: Vec::new(),
            ran: false,
        },
    )?;
    Ok(ticket)
}

fn refuse_if_member(folder: &DataFolder) -> Result<(), String> {
    match cluster_of(folder)? {
        Some(file) => Err(format!(
            "{} belongs to {} already; use another --data, or `jizoku leave` first",
            folder.path().display(),
            file.cluster
        )),
        None => Ok(()),
    }
}

/// Brings a folder into a cluster, by asking the ticket's issuer. Gives the cluster and the name
/// that the node got.
pub(crate) async fn join(
    folder: &DataFolder,
    config: &NodeConfig,
    ticket: &Ticket,
) -> Result<(ClusterId, String), String> {
    refuse_if_member(folder)?;
    let identity = identity(folder)?;
    let incarnation = folder.next_incarnation().map_err(|error| error.to_string())?;
    let member = member_spec(&identity, incarnation, config, &config.listen);
    let ask = encode(&JoinAsk { secret: ticket.secret, member });
    let answer = jizoku_mesh::join(&identity, &ticket.addresses, ticket.issuer, &ask)
        .await
        .map_err(|error| format!("the issuer of the ticket did not let this node in: {error}"))?;
    match decode(&answer).map_err(|error| format!("the issuer's answer: {error}"))? {
        JoinAnswer::Refused(why) => Err(why),
        JoinAnswer::Welcome { cluster, .. } if cluster != ticket.cluster => {
            Err(format!("the ticket is for {}, but {cluster} answered", ticket.cluster))
        }
        JoinAnswer::Welcome { cluster, generation, members, name } => {
            folder.write_config(&config.to_toml()).map_err(|error| error.to_string())?;
            let file = ClusterFile {
                format: CLUSTER_FORMAT,
                cluster,
                generation,
                pending: None,
                seeds: members,
                ran: false,
            };
            write_cluster(folder, &file)?;
            Ok((cluster, name))
        }
    }
}

/// Makes this node the only voter of a new generation.
pub(crate) fn recover(folder: &DataFolder) -> Result<Generation, String> {
    let mut file = cluster_of(folder)?.ok_or("this folder belongs to no cluster")?;
    let identity = identity(folder)?;
    let (done_in, done) = std::sync::mpsc::channel();
    let tell = move |done| {
        // Once the one answer is there nobody waits.
        let _ = done_in.send(done);
    };
    let (log, records, _) = ConsensusLog::open(folder, tell).map_err(|error| error.to_string())?;
    let mut recovered = replay(&records)?;
    let records = recovered.take_over(identity.node());
    let mut all: Vec<Vec<u8>> = recovered.records().iter().map(Record::encode).collect();
    if all.is_empty() {
        all = records.iter().map(Record::encode).collect();
    }
    log.rewrite(1, all).map_err(|error| error.to_string())?;
    drop(log);
    let written = done.recv().map_err(|error| error.to_string())?;
    written.result.map_err(|error| error.to_string())?;
    file.generation = Generation(file.generation.0 + 1);
    file.pending = Some(Pending::Recover);
    write_cluster(folder, &file)?;
    Ok(file.generation)
}

/// What a consensus journal says.
pub(crate) fn replay(records: &[Vec<u8>]) -> Result<Recovered, String> {
    let mut recovered = Recovered::new();
    for record in records {
        let record = Record::decode(record).map_err(|error| error.to_string())?;
        recovered.replay(record).map_err(|error| error.to_string())?;
    }
    Ok(recovered)
}

/// What a node says of itself.
pub(crate) fn member_spec(
    identity: &Identity,
    incarnation: Incarnation,
    config: &NodeConfig,
    listening: &[SocketAddr],
) -> MemberSpec {
    let addresses = advertised(config, listening).iter().map(ToString::to_string).collect();
    MemberSpec {
        node: identity.node(),
        incarnation,
        name: config.name.clone().unwrap_or_else(host_name),
        addresses,
        labels: config.labels.clone(),
        witness: config.witness,
        features: FEATURES,
    }
}

/// Where others shall connect to: what the operator said, or what is listened on.
pub(crate) fn advertised(config: &NodeConfig, listening: &[SocketAddr]) -> Vec<SocketAddr> {
    if !config.advertise.is_empty() {
        return config.advertise.clone();
    }
    let mut addresses = Vec::new();
    for address in listening {
        if address.ip().is_unspecified() {
            let same_kind = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4();
            let own = own_addresses().into_iter().filter(same_kind);
            addresses.extend(own.map(|ip| SocketAddr::new(ip, address.port())));
        } else {
            addresses.push(*address);
        }
    }
    // A machine full of bridges has more than a member may say: the rest is for `advertise`.
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// This machine's addresses, without loopback and link-local ones; loopback if there are no
/// others.
fn own_addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let ip = interface.ip();
        if !interface.is_loopback() && !interface.is_link_local() {
            found.push(ip);
        }
    }
    if found.is_empty() {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found
}

pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().to_lowercase();
    if NodeConfig::is_node_name(&name) { name } else { "node".into() }
}

/// The config of a folder, or the default.
pub(crate) fn config_of(folder: &Path) -> Result<NodeConfig, String> {
    let path = folder.join("config.toml");
    if path.exists() {
        NodeConfig::read(&path).map_err(|error| error.to_string())
    } else {
        Ok(NodeConfig::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_whose_key_is_gone_is_not_made_another_one() {
        let path = std::env::temp_dir().join(format!("jizoku-key-{}", std::process::id()));
        let folder = DataFolder::open(&path).expect("a folder");
        init(&folder, &NodeConfig::default()).expect("a cluster");
        let node = identity(&folder).expect("a key").node();
        assert_eq!(identity(&folder).expect("the same key").node(), node);
        std::fs::remove_file(folder.key_path()).expect("it was there");
        let why = identity(&folder).expect_err("nobody knows another key");
        assert!(why.contains("join as a new one"), "{why}");
        std::fs::remove_dir_all(path).expect("it was there");
    }

    #[test]
    fn no_more_addresses_are_told_than_a_member_may_have() {
        let one = |port: u16| SocketAddr::new(IpAddr::from([10, 0, 0, 1]), port);
        let listening: Vec<SocketAddr> = (1..=20).map(one).collect();
        let told = advertised(&NodeConfig::default(), &listening);
        assert_eq!(told, listening[..ADDRESSES_MAX]);
    }
}
