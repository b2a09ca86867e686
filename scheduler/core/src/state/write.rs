//! The only ways to change the state. Each keeps the indexes true and notes
//! the change for those who watch.

use super::{Addresses, Grants, Requests, State};
use crate::outcome::Change;
use dray_model::event::{Event, Level};
use dray_model::ids::{MigrationId, NodeName, TaskId, WorkloadName};
use dray_model::image::Image;
use dray_model::{Migration, Node, Task, Workload};
use std::collections::BTreeSet;

impl State {
    pub(crate) fn begin(&mut self, index: u64, now_ms: u64) {
        self.tables.applied = index;
        self.tables.clock_ms = self.tables.clock_ms.max(now_ms);
    }

    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort();
        changes.dedup();
        changes
    }

    pub(crate) fn addresses_mut(&mut self) -> &mut Addresses {
        &mut self.tables.addresses
    }

    pub(crate) fn grants_mut(&mut self) -> &mut Grants {
        &mut self.tables.grants
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.tables.requests
    }

    pub(crate) fn requests_mut(&mut self) -> &mut Requests {
        &mut self.tables.requests
    }

    /// Writes a workload, with its template as the present revision's.
    pub(crate) fn put_workload(&mut self, workload: Workload) {
        let name = workload.name.clone();
        let templates = self.tables.templates.entry(name.clone()).or_default();
        templates.insert(workload.revision, workload.spec.template.clone());
        self.tables.workloads.insert(name.clone(), workload);
        self.forget_unused_templates(&name);
        self.changes.push(Change::Workload(name));
    }

    pub(crate) fn remove_workload(&mut self, name: &WorkloadName) {
        self.tables.workloads.remove(name);
        self.tables.templates.remove(name);
        self.changes.push(Change::Workload(name.clone()));
    }

    fn forget_unused_templates(&mut self, name: &WorkloadName) {
        let present = self.workload(name).map(|workload| workload.revision);
        let run: BTreeSet<u64> = self.tasks_of(name).map(|task| task.revision).collect();
        if let Some(templates) = self.tables.templates.get_mut(name) {
            templates.retain(|revision, _| Some(*revision) == present || run.contains(revision));
        }
    }

    /// Writes a task, new or changed.
    pub(crate) fn put_task(&mut self, task: Task) {
        let old = self.tables.tasks.get(&task.id).cloned();
        if let Some(old) = &old {
            self.usage.drop_task(&self.tables, old);
        }
        self.usage.count_task(&self.tables, &task);
        let id = task.id.clone();
        let replaced = old.is_some_and(|old| old.revision != task.revision);
        self.tables.tasks.insert(id.clone(), task);
        if replaced {
            self.forget_unused_templates(&id.workload);
        }
        self.changes.push(Change::Task(id));
    }

    /// Changes a task that exists.
    pub(crate) fn edit_task(&mut self, id: &TaskId, edit: impl FnOnce(&mut Task)) {
        if let Some(mut task) = self.task(id).cloned() {
            edit(&mut task);
            self.put_task(task);
        }
    }

    /// Forgets a task, frees its address, and sees to it that its epochs are
    /// never given out again.
    pub(crate) fn remove_task(&mut self, id: &TaskId) {
        let Some(task) = self.task(id).cloned() else { return };
        self.usage.drop_task(&self.tables, &task);
        self.tables.tasks.remove(id);
        self.tables.addresses.release(task.ip);
        self.tables.grants.retire(id);
        self.forget_unused_templates(&id.workload);
        self.changes.push(Change::Task(id.clone()));
    }

    /// Writes a node, new or changed.
    pub(crate) fn put_node(&mut self, node: Node) {
        self.changes.push(Change::Node(node.name.clone()));
        self.tables.nodes.insert(node.name.clone(), node);
    }

    /// Changes a node that exists.
    pub(crate) fn edit_node(&mut self, name: &NodeName, edit: impl FnOnce(&mut Node)) {
        if let Some(mut node) = self.node(name).cloned() {
            edit(&mut node);
            self.put_node(node);
        }
    }

    /// Begins a session of a node, numbered by the log.
    pub(crate) fn begin_session(&mut self, name: &NodeName) -> u64 {
        let session = self.tables.applied;
        self.tables.sessions.insert(name.clone(), session);
        session
    }

    pub(crate) fn next_migration(&mut self) -> MigrationId {
        self.tables.migrations.number()
    }

    /// Writes a migration, new or changed.
    pub(crate) fn put_migration(&mut self, migration: Migration) {
        if let Some(old) = self.migration(migration.id).cloned() {
            self.usage.drop_migration(&self.tables, &old);
        }
        self.usage.count_migration(&self.tables, &migration);
        self.changes.push(Change::Migration(migration.id));
        let forgotten = self.tables.migrations.put(migration);
        self.changes.extend(forgotten.map(Change::Migration));
    }

    pub(crate) fn mark_cleaned(&mut self, id: MigrationId) {
        self.tables.migrations.mark_cleaned(id);
    }

    pub(crate) fn put_image(&mut self, image: Image) {
        self.changes.push(Change::Image(image.reference.clone()));
        self.tables.images.insert(image.reference.clone(), image);
    }

    pub(crate) fn remove_image(&mut self, reference: &str) {
        self.tables.images.remove(reference);
        self.changes.push(Change::Image(reference.to_owned()));
    }

    /// Notes what happened, for people.
    pub(crate) fn event(&mut self, level: Level, object: String, reason: &str, message: String) {
        let position = self.tables.events.push(Event {
            index: self.tables.applied,
            at_ms: self.tables.clock_ms,
            level,
            object,
            reason: reason.to_owned(),
            message,
        });
        self.changes.push(Change::Event(position));
    }
}
