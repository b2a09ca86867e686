//! Everything that is replicated, and indexes derived from it.
//!
//! Only [`crate::apply()`] writes here. Every write goes through a method that
//! keeps the indexes true and notes the change for those who watch; a
//! snapshot holds the [`Tables`] alone, and the indexes are made anew.

mod addresses;
mod events;
mod grants;
mod migrations;
mod requests;
mod usage;
mod write;

pub use addresses::Addresses;
pub use events::{EVENTS_KEPT, Events};
pub use grants::{Grant, Grants};
pub use migrations::{FINISHED_KEPT, Migrations};
pub(crate) use requests::Known;
pub use requests::{REQUESTS_KEPT, Requests};
pub use usage::NodeUse;
pub(crate) use usage::needs;

use crate::outcome::Change;
use dray_model::address::ClusterCidr;
use dray_model::ids::{MigrationId, NodeName, TaskId, WorkloadName};
use dray_model::image::Image;
use dray_model::resources::Amounts;
use dray_model::spec::{NodeLossPolicy, Template};
use dray_model::{Liveness, Migration, Node, Task, TaskPhase, Workload};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use usage::Usage;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    pub(crate) applied: u64,
    pub(crate) clock_ms: u64,
    pub(crate) addresses: Addresses,
    pub(crate) workloads: BTreeMap<WorkloadName, Workload>,
    /// Every revision's template that a task still runs, and the present one.
    pub(crate) templates: BTreeMap<WorkloadName, BTreeMap<u64, Template>>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) grants: Grants,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    /// The index at which each node last registered: its session's number.
    pub(crate) sessions: BTreeMap<NodeName, u64>,
    pub(crate) migrations: Migrations,
    pub(crate) images: BTreeMap<String, Image>,
    pub(crate) events: Events,
    pub(crate) requests: Requests,
}

/// The replicated state of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    tables: Tables,
    usage: Usage,
    changes: Vec<Change>,
}

impl State {
    /// An empty cluster. All voters begin with the same one.
    pub fn new(cidr: ClusterCidr) -> State {
        State::from_tables(Tables {
            applied: 0,
            clock_ms: 0,
            addresses: Addresses::new(cidr),
            workloads: BTreeMap::new(),
            templates: BTreeMap::new(),
            tasks: BTreeMap::new(),
            grants: Grants::default(),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            migrations: Migrations::default(),
            images: BTreeMap::new(),
            events: Events::default(),
            requests: Requests::default(),
        })
    }

    pub(crate) fn from_tables(tables: Tables) -> State {
        let usage = Usage::of(&tables);
        State { tables, usage, changes: Vec::new() }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The index of the last entry that was applied.
    pub fn applied(&self) -> u64 {
        self.tables.applied
    }

    /// The latest leader's time that any command carried, in Unix
    /// milliseconds. Never goes back.
    pub fn clock_ms(&self) -> u64 {
        self.tables.clock_ms
    }

    /// The cluster's address range.
    pub fn cidr(&self) -> ClusterCidr {
        self.tables.addresses.cidr()
    }

    /// All workloads.
    pub fn workloads(&self) -> &BTreeMap<WorkloadName, Workload> {
        &self.tables.workloads
    }

    /// One workload.
    pub fn workload(&self, name: &WorkloadName) -> Option<&Workload> {
        self.tables.workloads.get(name)
    }

    /// The template of a revision that is present or still run.
    pub fn template(&self, name: &WorkloadName, revision: u64) -> Option<&Template> {
        self.tables.templates.get(name)?.get(&revision)
    }

    /// All tasks.
    pub fn tasks(&self) -> &BTreeMap<TaskId, Task> {
        &self.tables.tasks
    }

    /// One task.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tables.tasks.get(id)
    }

    /// A workload's tasks, by slot.
    pub fn tasks_of(&self, name: &WorkloadName) -> impl DoubleEndedIterator<Item = &Task> + use<'_> {
        let from = TaskId { workload: name.clone(), slot: 0 };
        let to = TaskId { workload: name.clone(), slot: u32::MAX };
        self.tables.tasks.range(from..=to).map(|(_, task)| task)
    }

    /// The tasks that a node owns, ended ones included.
    pub fn tasks_on(&self, node: &NodeName) -> impl Iterator<Item = &Task> + use<'_> {
        let ids = self.usage.of_node(node).tasks.iter();
        ids.filter_map(|id| self.tables.tasks.get(id))
    }

    /// Whether a migration may still change the task's owner.
    pub fn is_fenced(&self, task: &Task) -> bool {
        task.migration.and_then(|id| self.migration(id)).is_some_and(Migration::is_undecided)
    }

    /// Whether no node may run the task, so that it can be given to one: it
    /// was never placed, or its owner said that nothing is left of it, or its
    /// owner is lost and ran it under a lease that has run out. A fenced task
    /// is never vacant: its target may be about to own it.
    pub fn is_vacant(&self, task: &Task) -> bool {
        let Some(owner) = &task.node else { return true };
        let ended = task.observed.phase == TaskPhase::Stopped;
        let leased = self.grants().on_node_loss(&task.id) == NodeLossPolicy::Restart;
        let lost = self.node(owner).is_none_or(|node| node.liveness == Liveness::Lost);
        (ended || (lost && leased)) && !self.is_fenced(task)
    }

    /// What was said and promised along with the right to run a task.
    pub fn grants(&self) -> &Grants {
        &self.tables.grants
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.tables.nodes
    }

    /// One node.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.tables.nodes.get(name)
    }

    /// The number of a node's last session.
    pub fn session(&self, name: &NodeName) -> Option<u64> {
        self.tables.sessions.get(name).copied()
    }

    /// What is taken of a node: by the tasks it owns and by migrations that
    /// may come to it.
    pub fn used(&self, node: &NodeName) -> Amounts {
        self.usage.of_node(node).used
    }

    /// What is taken of a node, and by which tasks.
    pub fn usage(&self, node: &NodeName) -> &NodeUse {
        self.usage.of_node(node)
    }

    /// What is free on a node.
    pub fn free(&self, node: &Node) -> Amounts {
        node.about.capacity.minus(self.used(&node.name))
    }

    /// All migrations that are under way, and the last that ended.
    pub fn migrations(&self) -> &BTreeMap<MigrationId, Migration> {
        self.tables.migrations.records()
    }

    /// One migration.
    pub fn migration(&self, id: MigrationId) -> Option<&Migration> {
        self.tables.migrations.records().get(&id)
    }

    /// Whether a migration's source has nothing left of the task, though its
    /// target has not resumed it yet.
    pub fn is_cleaned(&self, id: MigrationId) -> bool {
        self.tables.migrations.is_cleaned(id)
    }

    /// The images the cluster has, by reference.
    pub fn images(&self) -> &BTreeMap<String, Image> {
        &self.tables.images
    }

    /// What happened lately.
    pub fn events(&self) -> &Events {
        &self.tables.events
    }
}
