//! What may be asked of the cluster. A command is one log entry and holds
//! all that applying it needs, the leader's time included.

use dray_model::assignment::{ImageReport, MigrationReport, TaskReport};
use dray_model::ids::{MigrationId, NodeName, TaskId, WorkloadName};
use dray_model::node::About;
use dray_model::spec::{Labels, WorkloadSpec};
use serde::{Deserialize, Serialize};

/// One request, as it is replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The leader's clock when it proposed this, in Unix milliseconds.
    pub now_ms: u64,
    /// Makes a repetition harmless: the second gets the first's reply.
    pub request_id: Option<String>,
    /// What to do.
    pub op: Op,
}

impl Command {
    /// A command that needs no protection against repetition.
    pub fn new(now_ms: u64, op: Op) -> Command {
        Command { now_ms, request_id: None, op }
    }
}

/// What to do. The first group comes from users, the second from agents and
/// the leader's view of them, the third from the planner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Creates or updates a workload.
    ApplyWorkload {
        /// Its name.
        name: WorkloadName,
        /// Its labels.
        labels: Labels,
        /// What to run.
        spec: Box<WorkloadSpec>,
        /// Only if this is still the workload's etag.
        etag: Option<String>,
    },
    /// Changes how many tasks a workload has.
    ScaleWorkload {
        /// Its name.
        name: WorkloadName,
        /// How many.
        replicas: u32,
        /// Only if this is still the workload's etag.
        etag: Option<String>,
    },
    /// Ends a workload's tasks, then forgets it.
    DeleteWorkload {
        /// Its name.
        name: WorkloadName,
        /// Only if this is still the workload's etag.
        etag: Option<String>,
    },
    /// Keeps new tasks away from a node.
    Cordon {
        /// The node.
        node: NodeName,
    },
    /// Lets a node take tasks again; ends a drain.
    Uncordon {
        /// The node.
        node: NodeName,
    },
    /// Cordons a node and moves its tasks away.
    Drain {
        /// The node.
        node: NodeName,
    },
    /// Begins to move a task.
    CreateMigration {
        /// What moves.
        task: TaskId,
        /// Where to; `None`: the best node there is.
        target: Option<NodeName>,
        /// Why, for people: `user`, or `drain of node-1`.
        reason: String,
    },
    /// Ends a migration that isn't decided: the task stays at its source.
    AbortMigration {
        /// The migration.
        id: MigrationId,
        /// Why, for people.
        failure: String,
    },
    /// Names the content of an image, whatever had that name before. Proposed
    /// when a user's import has reached a node.
    ImportImage {
        /// The node that has it.
        node: NodeName,
        /// The name that manifests use.
        reference: String,
        /// `sha256:<hex>` of its manifest.
        digest: String,
        /// Bytes of all its blobs.
        size_bytes: u64,
    },

    /// An agent begins a session: its node is ready. The entry's index is the
    /// session's number, and the reply tells it.
    RegisterNode {
        /// The node.
        name: NodeName,
        /// What the agent says of it.
        about: Box<About>,
    },
    /// The leader no longer hears from a node. Without effect if the node has
    /// begun another session since.
    LoseNode {
        /// The node.
        node: NodeName,
        /// The session that fell silent.
        session: u64,
    },
    /// What a node observed.
    Report {
        /// The node.
        node: NodeName,
        /// The session in which it said so.
        session: u64,
        /// Its tasks that changed.
        tasks: Vec<TaskReport>,
        /// Its parts in migrations that changed.
        migrations: Vec<MigrationReport>,
        /// Its images that changed.
        images: Vec<ImageReport>,
    },

    /// Fills a slot of a workload with a task.
    CreateTask {
        /// The workload.
        workload: WorkloadName,
        /// The slot.
        slot: u32,
    },
    /// Gives a task that nobody may run to a node, at a new epoch and the
    /// workload's present revision.
    Place {
        /// The task.
        task: TaskId,
        /// Its owner to be.
        node: NodeName,
    },
    /// Asks a task's owner to end it.
    StopTask {
        /// The task.
        task: TaskId,
    },
    /// Forgets a task that nobody may run.
    RemoveTask {
        /// The task.
        task: TaskId,
    },
    /// Says why a task isn't placed.
    Explain {
        /// The task.
        task: TaskId,
        /// Why, for people.
        message: String,
    },
    /// Has every replica compare its snapshot with the leader's: one that
    /// differs stops. Proposed by [`crate::Replica`] itself.
    Compare {
        /// The encoding that the digest is of; others compare nothing.
        encoding: u8,
        /// The snapshot's index.
        index: u64,
        /// The digest of its bytes.
        digest: u64,
    },
    /// Forgets a workload that was deleted and has no tasks left.
    RemoveWorkload {
        /// Its name.
        name: WorkloadName,
    },
}
