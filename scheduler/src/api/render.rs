//! Objects of the state as users see them, with what is derived from others.

use dray_model::ids::{NodeName, WorkloadName};
use dray_model::spec::Labels;
use dray_model::{Migration, Node, Task, TaskPhase, Workload};
use dray_proto::v1 as wire;
use scheduler_core::State;

/// A workload with the counts of its tasks.
pub fn workload(state: &State, workload: &Workload) -> wire::Workload {
    let tasks = || state.tasks_of(&workload.name);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let runs = |task: &&Task| task.observed.phase == TaskPhase::Running;
    wire::Workload {
        name: workload.name.to_string(),
        labels: workload.labels.clone(),
        spec: Some(workload.spec.clone().into()),
        revision: workload.revision,
        etag: workload.etag.clone(),
        created_ms: workload.created_ms,
        deleting: workload.deleting,
        running: count(tasks().filter(runs).count()),
        updated: count(tasks().filter(runs).filter(|task| task.revision == workload.revision).count()),
    }
}

/// The labels of a workload; none when it is gone.
pub fn labels_of(state: &State, workload: &WorkloadName) -> Labels {
    state.workload(workload).map(|workload| workload.labels.clone()).unwrap_or_default()
}

/// A task with its workload's labels and image.
pub fn task(state: &State, task: &Task) -> wire::Task {
    let image = state.template(&task.id.workload, task.revision).map(|t| t.container().image.clone());
    wire::Task {
        labels: labels_of(state, &task.id.workload),
        image: image.unwrap_or_default(),
        ..task.clone().into()
    }
}

/// A node with what is taken of it.
pub fn node(state: &State, node: &Node) -> wire::Node {
    let usage = state.usage(&node.name);
    wire::Node {
        used: Some(usage.used.into()),
        tasks: u32::try_from(usage.tasks.len()).unwrap_or(u32::MAX),
        ..node.clone().into()
    }
}

/// A migration.
pub fn migration(migration: &Migration) -> wire::Migration {
    migration.clone().into()
}

/// A node by name.
pub fn node_named(state: &State, name: &NodeName) -> Option<wire::Node> {
    state.node(name).map(|found| node(state, found))
}

/// A workload by name.
pub fn workload_named(state: &State, name: &WorkloadName) -> Option<wire::Workload> {
    state.workload(name).map(|found| workload(state, found))
}
