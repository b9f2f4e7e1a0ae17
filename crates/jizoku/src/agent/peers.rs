//! Who the other members are: what the mesh is told, and what the next start begins with.
//!
//! After a start the catalog is replayed from the beginning, so at first it names fewer members
//! than there are, and none before a leader was heard. Without the members of the last run a
//! node would refuse the very links that it learns the rest by.
//!
//! Invariants
//! - Members of the last run count until the catalog has this run's incarnation, so all before
//!   it; from then on nobody counts but the catalog's members.
//! - A key that the catalog has removed never counts.

use std::collections::BTreeMap;

use jizoku_core::catalog::Catalog;
use jizoku_store::{DataFolder, Small};
use jizoku_types::limits::NODES_MAX;
use jizoku_types::{ClusterId, Member, NodeId, decode, encode};
use tokio::sync::watch;

/// Members and where they listen.
pub(crate) type Addresses = BTreeMap<NodeId, Vec<String>>;

/// See the module's header.
pub(crate) struct Peers {
    me: Member,
    /// Those of the last run; none once the catalog is up to date.
    early: Option<Addresses>,
    /// What the catalog said last.
    told: Addresses,
    keep: watch::Sender<Addresses>,
}

impl Peers {
    /// Begins with the members of the last run. What the next run shall begin with goes to
    /// `keep`.
    pub(crate) fn new(me: Member, early: Addresses, keep: watch::Sender<Addresses>) -> Peers {
        Peers { me, early: Some(early), told: Addresses::new(), keep }
    }

    /// The catalog names these. Gives those that the mesh shall be told.
    pub(crate) fn told(&mut self, told: Addresses, catalog: &Catalog) -> Addresses {
        self.told = told;
        let now = self.current(catalog);
        if self.early.is_none() {
            self.keep.send_replace(self.told.clone());
        }
        now
    }

    /// The catalog has changed. Gives what the mesh shall be told, if that is something else
    /// now: once, when the catalog is up to date.
    pub(crate) fn caught_up(&mut self, catalog: &Catalog) -> Option<Addresses> {
        let mine = catalog.member(&self.me.node)?;
        if self.early.is_none() || mine.incarnation != self.me.incarnation {
            return None;
        }
        self.early = None;
        self.keep.send_replace(self.told.clone());
        Some(self.told.clone())
    }

    fn current(&self, catalog: &Catalog) -> Addresses {
        let mut all = self.told.clone();
        for (node, addresses) in self.early.iter().flatten() {
            let fits = all.len() + 1 < NODES_MAX && *node != self.me.node;
            if fits && !catalog.is_removed(node) {
                all.entry(*node).or_insert_with(|| addresses.clone());
            }
        }
        all
    }
}

/// The members that the last run of this folder's agent knew in this cluster.
pub(crate) fn last(folder: &DataFolder, cluster: ClusterId) -> Addresses {
    // What can't be read is as good as nothing: others call this node, and the ticket's issuer
    // is known from the cluster file.
    let bytes = folder.read(Small::Members).ok().flatten().unwrap_or_default();
    match decode::<(ClusterId, Addresses)>(&bytes) {
        Ok((of, members)) if of == cluster => members,
        _ => Addresses::new(),
    }
}

/// Keeps what comes for the next start.
pub(crate) fn write(folder: &DataFolder, cluster: ClusterId, members: &Addresses) {
    if let Err(why) = folder.write(Small::Members, &encode(&(cluster, members))) {
        eprintln!("<4>the list of members can't be written: {why}");
    }
}
