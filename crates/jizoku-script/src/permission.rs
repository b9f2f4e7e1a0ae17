//! Permissions, and the roles that hold them.
//!
//! What it does not know: people, keys, where a cluster keeps its own roles.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// What a function needs, and a role may hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Permission {
            $(#[doc = $doc] $variant,)*
        }

        impl Permission {
            /// All of them.
            pub const ALL: &[Permission] = &[$(Permission::$variant),*];

            /// Its name: `service.control`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Permission::$variant => $name,)*
                }
            }

            /// What it allows.
            pub fn doc(self) -> &'static str {
                match self {
                    $(Permission::$variant => $doc,)*
                }
            }
        }
    };
}

permissions! {
    ServiceRead "service.read" "see the cluster's services",
    ServiceControl "service.control" "start, stop, restart and move the cluster's services",
    UnitRead "unit.read" "see systemd units",
    UnitControl "unit.control" "start, stop, restart and reload systemd units",
    ProcessRead "process.read" "see processes",
    ProcessSignal "process.signal" "send signals to processes",
    FileRead "file.read" "read files and folders",
    FileWrite "file.write" "write and remove files",
    Http "net.http" "make HTTP requests",
    Tcp "net.tcp" "make TCP connections",
    Command "command.run" "run programs and shell texts",
    HostRead "host.read" "see the host's load, memory and disks",
    LogRead "log.read" "read and await the log's records",
    LogWrite "log.write" "emit records",
    ClusterRead "cluster.read" "see nodes and labels",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions(u32);

impl Permissions {
    /// None.
    pub const NONE: Permissions = Permissions(0);
    /// All.
    pub const ALL: Permissions = Permissions(u32::MAX);

    /// These.
    pub const fn of(list: &[Permission]) -> Permissions {
        let mut bits = 0;
        let mut at = 0;
        while at < list.len() {
            bits |= 1 << list[at] as u32;
            at += 1;
        }
        Permissions(bits)
    }

    /// Whether a permission is among them.
    pub fn allow(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u32 != 0
    }

    /// Whether all of `other` are among them.
    pub fn cover(self, other: Permissions) -> bool {
        other.0 & !self.0 == 0
    }

    /// Adds one.
    pub fn add(&mut self, permission: Permission) {
        self.0 |= 1 << permission as u32;
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Permissions) {
        self.0 |= other.0;
    }

    /// Those among them, in their order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.allow(*permission))
    }

    /// Those of a role that every cluster has.
    pub fn of_role(role: &str) -> Option<Permissions> {
        ROLES.iter().find(|(name, ..)| *name == role).map(|(_, permissions, _)| *permissions)
    }
}

const VIEWER: Permissions = Permissions::of(&[
    Permission::ServiceRead,
    Permission::UnitRead,
    Permission::ProcessRead,
    Permission::HostRead,
    Permission::LogRead,
    Permission::ClusterRead,
]);

const OPERATOR: Permissions = Permissions(
    VIEWER.0
        | Permissions::of(&[
            Permission::ServiceControl,
            Permission::UnitControl,
            Permission::ProcessSignal,
            Permission::FileRead,
            Permission::Http,
            Permission::Tcp,
            Permission::LogWrite,
        ])
        .0,
);

/// Roles that every cluster has, with their permissions and what they are for.
pub const ROLES: [(&str, Permissions, &str); 3] = [
    ("viewer", VIEWER, "looks, and changes nothing"),
    ("operator", OPERATOR, "repairs: services, units, processes; no shell, no files written"),
    ("admin", Permissions::ALL, "everything"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grow_and_a_viewer_changes_nothing() {
        let viewer = Permissions::of_role("viewer").unwrap();
        let operator = Permissions::of_role("operator").unwrap();
        assert!(operator.cover(viewer) && !viewer.cover(operator));
        assert!(!viewer.allow(Permission::ServiceControl) && !operator.allow(Permission::Command));
        assert_eq!(Permissions::of_role("root"), None);
        assert!(Permission::ALL.len() <= 32);
    }

    #[test]
    fn a_set_holds_what_was_added() {
        let mut set = Permissions::NONE;
        set.add(Permission::Tcp);
        assert!(set.iter().eq([Permission::Tcp]));
    }
}
