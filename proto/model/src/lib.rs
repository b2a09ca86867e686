//! The words of Dray as types: ids, specs, resources, and the states of
//! tasks, nodes and migrations with their legal transitions.
//!
//! This crate does no I/O and reads no clock; every other crate may use it.

#![forbid(unsafe_code)]

pub mod address;
pub mod assignment;
pub mod event;
pub mod ids;
pub mod image;
pub mod migration;
pub mod node;
pub mod resources;
pub mod spec;
pub mod task;
pub mod validate;
pub mod workload;

pub use address::{ClusterCidr, Mac};
pub use ids::{Epoch, InstanceId, MigrationId, NodeName, TaskId, WorkloadName};
pub use migration::{Migration, MigrationPhase};
pub use node::{Liveness, Node};
pub use resources::{CpuMillis, MemoryBytes, Quantities};
pub use spec::{Manifest, Template, WorkloadSpec};
pub use task::{Desired, Observed, Task, TaskPhase};
pub use workload::Workload;
