//! What this machine can and cannot run, and how to mend it.
//!
//! What it does not know: how it is found out.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::route::{Query, Route, take};

/// Asks for [`DoctorReport`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoctorQuery;

impl Query for DoctorQuery {
    const ROUTE: Route = Route::Doctor;
    type Answer = DoctorReport;
    fn pairs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn from_pairs(pairs: &[(String, String)]) -> Result<DoctorQuery, ApiError> {
        take(pairs, &[], "").map(|_| DoctorQuery)
    }
}

/// What was found on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// One after the other, in the order in which they are worth reading.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// The worst of all.
    pub fn worst(&self) -> Health {
        self.findings.iter().map(|finding| finding.health).max().unwrap_or(Health::Good)
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Short and fixed, for programs: `engine.wasm`, `kernel.dirty_pages`, `disk.room`.
    pub topic: String,
    /// How it is.
    pub health: Health,
    /// What was found, for people.
    pub found: String,
    /// What doesn't work, or works worse, because of it; empty if all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// How to mend it, where it can be: a command or a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How a thing is, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Good,
    /// Something works worse, or an option is missing.
    Weak,
    /// Something that is needed doesn't work.
    Bad,
}
