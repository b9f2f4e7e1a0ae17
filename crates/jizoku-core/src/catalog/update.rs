//! What of a service that exists may be changed, and what that needs.
//!
//! The rule: a change that the state, the connections or the holders could not follow is refused;
//! the way out is to remove the service and apply it anew.

use jizoku_types::spec::{Durability, EngineSpec, ServiceSpec};

use super::record::ServiceRecord;

/// What a change of a spec needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing changed.
    Nothing,
    /// It takes effect while the instance runs.
    Live,
    /// The instance must be started anew.
    Restart,
    /// It can't be done.
    Refused {
        /// Which field, named as in the manifest.
        field: &'static str,
        /// Why, and what to do.
        problem: &'static str,
    },
}

/// What changing the spec of `record` to `new` needs. The names are the same.
pub fn update_of(record: &ServiceRecord, new: &ServiceSpec) -> Update {
    let old = &record.spec;
    if old == new {
        return Update::Nothing;
    }
    let ran = record.epoch.counter > 0;
    if old.output != new.output && ran {
        let problem = "open connections follow the old rule; remove the service and apply it anew";
        return Update::Refused { field: "output", problem };
    }
    // Copies that were acknowledged from memory would count as flushed.
    if old.durable != new.durable && new.durable == Durability::Disk && record.born {
        let problem = "its copies were not flushed; remove the service and apply it anew";
        return Update::Refused { field: "durable", problem };
    }
    let names = |spec: &ServiceSpec| {
        spec.ports.iter().map(|port| port.name.clone()).collect::<alloc::vec::Vec<_>>()
    };
    let listeners = if names(old) == names(new) {
        Update::Live
    } else if record.born {
        let problem = "the state has its listeners; remove the service and apply it anew";
        Update::Refused { field: "ports", problem }
    } else {
        Update::Restart
    };
    worse(engine(&old.engine, &new.engine, record.born), listeners)
}

fn engine(old: &EngineSpec, new: &EngineSpec, born: bool) -> Update {
    if old == new {
        return Update::Live;
    }
    match (old, new) {
        (EngineSpec::Exec { .. }, EngineSpec::Exec { .. }) => Update::Restart,
        (
            EngineSpec::Wasm { module, args, env, memory_max, files_max },
            EngineSpec::Wasm {
                module: new_module,
                args: new_args,
                env: new_env,
                memory_max: new_memory,
                files_max: new_files,
            },
        ) => {
            if !born {
                return Update::Restart;
            }
            if module != new_module || args != new_args || env != new_env {
                let problem = "its state belongs to the old program; remove the service and \
                               apply it anew";
                return Update::Refused { field: "module", problem };
            }
            if new_memory < memory_max || new_files < files_max {
                let problem = "the state may need what it has; limits can only be raised";
                return Update::Refused { field: "memory_max", problem };
            }
            Update::Restart
        }
        _ => {
            let problem = "another engine can't go on with it; remove the service and apply anew";
            Update::Refused { field: "engine", problem }
        }
    }
}

fn worse(one: Update, other: Update) -> Update {
    match (one, other) {
        (refused @ Update::Refused { .. }, _) | (_, refused @ Update::Refused { .. }) => refused,
        (Update::Restart, _) | (_, Update::Restart) => Update::Restart,
        _ => Update::Live,
    }
}
