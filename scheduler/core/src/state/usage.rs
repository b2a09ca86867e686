//! What is taken of each node. Derived from the tables and kept true with
//! every write, so that no decision has to add up all tasks.

use super::Tables;
use dray_model::ids::{NodeName, TaskId};
use dray_model::resources::{Amounts, Quantities};
use dray_model::spec::Template;
use dray_model::{Migration, Task, TaskPhase};
use std::collections::{BTreeMap, BTreeSet};

/// What is taken of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeUse {
    /// By the tasks it owns that have not ended, and by migrations to it
    /// that aren't decided.
    pub used: Amounts,
    /// All tasks that it owns, ended ones included.
    pub tasks: BTreeSet<TaskId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    nodes: BTreeMap<NodeName, NodeUse>,
    nothing: NodeUse,
}

/// What a task of a template needs: its requests; where there is none, its
/// limits.
pub(crate) fn needs(template: &Template) -> Amounts {
    let resources = template.container().resources;
    let (asked, most) = (resources.requests, resources.limits);
    Amounts::from(Quantities {
        cpu: asked.cpu.or(most.cpu),
        memory: asked.memory.or(most.memory),
        pids: asked.pids.or(most.pids),
    })
}

impl Usage {
    pub(super) fn of(tables: &Tables) -> Usage {
        let mut usage = Usage::default();
        tables.tasks.values().for_each(|task| usage.count_task(tables, task));
        tables.migrations.records().values().for_each(|m| usage.count_migration(tables, m));
        usage
    }

    pub(super) fn of_node(&self, node: &NodeName) -> &NodeUse {
        self.nodes.get(node).unwrap_or(&self.nothing)
    }

    pub(super) fn count_task(&mut self, tables: &Tables, task: &Task) {
        let Some(node) = &task.node else { return };
        let entry = self.nodes.entry(node.clone()).or_default();
        entry.tasks.insert(task.id.clone());
        entry.used = entry.used.plus(taken_by(tables, task));
    }

    pub(super) fn drop_task(&mut self, tables: &Tables, task: &Task) {
        let Some(entry) = task.node.as_ref().and_then(|node| self.nodes.get_mut(node)) else { return };
        entry.tasks.remove(&task.id);
        entry.used = entry.used.minus(taken_by(tables, task));
        self.tidy(task.node.as_ref());
    }

    pub(super) fn count_migration(&mut self, tables: &Tables, migration: &Migration) {
        if migration.is_undecided() {
            let entry = self.nodes.entry(migration.target.clone()).or_default();
            entry.used = entry.used.plus(needs_of(tables, &migration.task));
            self.tidy(Some(&migration.target));
        }
    }

    pub(super) fn drop_migration(&mut self, tables: &Tables, migration: &Migration) {
        if migration.is_undecided()
            && let Some(entry) = self.nodes.get_mut(&migration.target)
        {
            entry.used = entry.used.minus(needs_of(tables, &migration.task));
            self.tidy(Some(&migration.target));
        }
    }

    /// Keeps no entry that says nothing, so that equal states are equal.
    fn tidy(&mut self, node: Option<&NodeName>) {
        if let Some(node) = node
            && self.nodes.get(node) == Some(&self.nothing)
        {
            self.nodes.remove(node);
        }
    }
}

fn taken_by(tables: &Tables, task: &Task) -> Amounts {
    if task.observed.phase == TaskPhase::Stopped {
        Amounts::default()
    } else {
        needs_of_revision(tables, task)
    }
}

fn needs_of(tables: &Tables, id: &TaskId) -> Amounts {
    tables.tasks.get(id).map(|task| needs_of_revision(tables, task)).unwrap_or_default()
}

fn needs_of_revision(tables: &Tables, task: &Task) -> Amounts {
    let revisions = tables.templates.get(&task.id.workload);
    revisions.and_then(|all| all.get(&task.revision)).map(needs).unwrap_or_default()
}
