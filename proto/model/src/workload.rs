//! Workloads as the cluster keeps them.

use crate::ids::WorkloadName;
use crate::spec::{Labels, WorkloadSpec};
use serde::{Deserialize, Serialize};

/// What a user asked for, and where that request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: WorkloadName,
    /// For selecting.
    pub labels: Labels,
    /// What the user wants, with every default filled in.
    pub spec: WorkloadSpec,
    /// Grows by one with each change of the template, from one.
    pub revision: u64,
    /// Changes with every write.
    pub etag: String,
    /// When it was first applied, in Unix milliseconds.
    pub created_ms: u64,
    /// Whether it goes away once its tasks have ended.
    pub deleting: bool,
}
