//! What came of a command: an answer for who asked, and the list of what
//! changed for who watches.

use crate::refusal::Refusal;
use dray_model::ids::{MigrationId, NodeName, TaskId, WorkloadName};
use dray_model::spec::WorkloadSpec;
use serde::{Deserialize, Serialize};

/// What applying one command did. The same on every replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer. A refusal has changed nothing.
    pub result: Result<Reply, Refusal>,
    /// Which objects were written or removed, each once, in order. An object
    /// that the state no longer has was removed.
    pub changes: Vec<Change>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done; the state tells the rest.
    Done,
    /// A workload was applied, scaled or deleted.
    Workload {
        /// What that did.
        change: WorkloadChange,
        /// The spec it replaced.
        previous: Option<Box<WorkloadSpec>>,
        /// What the user should know, one sentence each.
        warnings: Vec<String>,
    },
    /// A session began.
    Session {
        /// Its number; reports carry it.
        session: u64,
    },
    /// A migration began.
    Migration {
        /// Its number.
        id: MigrationId,
    },
    /// A drain began.
    Drain {
        /// What will move.
        moving: Vec<TaskId>,
        /// What can't, as things are now.
        blocked: Vec<Blocked>,
    },
}

/// What applying a workload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadChange {
    /// There was none of that name.
    Created,
    /// It differs from what was there.
    Updated,
    /// It is what was there.
    Unchanged,
}

/// A task that can't be moved, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The task.
    pub task: TaskId,
    /// Why, for people.
    pub reason: String,
}

/// An object that a command wrote or removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A workload.
    Workload(WorkloadName),
    /// A task.
    Task(TaskId),
    /// A node.
    Node(NodeName),
    /// A migration.
    Migration(MigrationId),
    /// An image, by reference.
    Image(String),
    /// An event, by its position in all events there ever were.
    Event(u64),
}
