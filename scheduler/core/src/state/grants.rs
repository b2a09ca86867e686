//! What goes along with the right to run a task.
//!
//! An epoch, once given or promised to a node, names an instance there: it
//! must never be given again, not even to a task of the same name that is
//! created later. And whether a lost owner's task may start elsewhere
//! depends on what *the owner* was told: without a lease it never freezes.

use dray_model::ids::{Epoch, TaskId};
use dray_model::spec::NodeLossPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was given along with the right to run one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The highest epoch that was ever given, or promised by a migration.
    pub highest: Epoch,
    /// What the present owner was told: with `Restart` it runs under a lease.
    pub on_node_loss: NodeLossPolicy,
}

/// All grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    tasks: BTreeMap<TaskId, Grant>,
    /// The highest epoch of any task that is gone.
    floor: Epoch,
}

impl Grants {
    /// A task's grant; `None` while it was never placed.
    pub fn get(&self, task: &TaskId) -> Option<Grant> {
        self.tasks.get(task).copied()
    }

    /// The policy that the task's owner follows.
    pub fn on_node_loss(&self, task: &TaskId) -> NodeLossPolicy {
        self.get(task).map(|grant| grant.on_node_loss).unwrap_or_default()
    }

    /// The next epoch that nobody ever had.
    pub fn next(&self, task: &TaskId) -> Epoch {
        self.get(task).map_or(self.floor, |grant| grant.highest).next()
    }

    /// Notes that a task has a new owner, and what that owner is told.
    pub(crate) fn give(&mut self, task: &TaskId, epoch: Epoch, on_node_loss: NodeLossPolicy) {
        let highest = self.get(task).map_or(epoch, |grant| grant.highest.max(epoch));
        self.tasks.insert(task.clone(), Grant { highest, on_node_loss });
    }

    /// Notes that a migration may give an epoch to its target.
    pub(crate) fn promise(&mut self, task: &TaskId, epoch: Epoch) {
        if let Some(grant) = self.tasks.get_mut(task) {
            grant.highest = grant.highest.max(epoch);
        }
    }

    pub(super) fn retire(&mut self, task: &TaskId) {
        if let Some(grant) = self.tasks.remove(task) {
            self.floor = self.floor.max(grant.highest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_never_given_twice() {
        let task: TaskId = "redis-0".parse().unwrap();
        let mut grants = Grants::default();
        assert_eq!(grants.next(&task), Epoch(1));
        grants.give(&task, Epoch(1), NodeLossPolicy::Restart);
        grants.promise(&task, Epoch(2));
        assert_eq!(grants.next(&task), Epoch(3), "a migration to epoch 2 was aborted");
        grants.retire(&task);
        assert_eq!(grants.next(&task), Epoch(3), "a new task of the same name");
    }
}
