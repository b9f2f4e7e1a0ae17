//! What a check knows of the place where a script shall run, and of who runs it.
//!
//! Offline, little is known, and little is checked: [`Offer::unknown`]. On a target everything is.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::permission::Permissions;
use crate::types::Type;

/// Names that exist, if that is known.
pub type Known = Option<BTreeSet<String>>;

/// Fields of an event, in their order.
pub type Fields = Vec<(String, Type)>;

/// What is known of a target and of the caller.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// What the target is called.
    pub host: String,
    /// The role that runs the script; none: nobody's rights are checked.
    pub role: Option<(String, Permissions)>,
    /// Services of the cluster.
    pub services: Known,
    /// Nodes of the cluster.
    pub nodes: Known,
    /// Labels that nodes of the cluster have: `role:web`.
    pub labels: Known,
    /// Systemd units of the host.
    pub units: Known,
    /// Programs on the host's path.
    pub programs: Known,
    /// Functions that the host can't do, each with the reason.
    pub missing: BTreeMap<String, String>,
    /// Events that the script may use without declaring them.
    pub events: BTreeMap<String, Fields>,
}

impl Offer {
    /// Nothing is known: what can be said of a file alone.
    pub fn unknown() -> Offer {
        Offer::default()
    }

    /// The same, for a role.
    pub fn for_role(self, name: &str, permissions: Permissions) -> Offer {
        Offer { role: Some((name.into(), permissions)), ..self }
    }
}
