//! Why a command changes nothing. Refusals are decided by `apply`, are the
//! same on every replica, and say what is wrong and what to do about it.

use dray_model::ids::{MigrationId, NodeName, TaskId, WorkloadName};
use dray_model::migration::MigrationPhase;
use dray_model::resources::{CpuMillis, MemoryBytes};
use dray_model::task::TaskPhase;
use dray_model::validate::Violation;
use serde::{Deserialize, Serialize};

/// Why a command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No workload of that name.
    #[error("there is no workload {name}")]
    UnknownWorkload {
        /// The name.
        name: WorkloadName,
    },
    /// No such task.
    #[error("there is no task {task}")]
    UnknownTask {
        /// The task.
        task: TaskId,
    },
    /// No node of that name.
    #[error("there is no node {node}")]
    UnknownNode {
        /// The name.
        node: NodeName,
    },
    /// No such migration, or it ended too long ago.
    #[error("there is no migration {id}")]
    UnknownMigration {
        /// Its number.
        id: MigrationId,
    },
    /// Fields that can't be used.
    #[error("{}", .violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Every one of them.
        violations: Vec<Violation>,
    },
    /// Somebody else wrote the workload in between.
    #[error("workload {name} has changed: its etag is {current:?}, not {given:?}; read it again and repeat")]
    EtagMismatch {
        /// The workload.
        name: WorkloadName,
        /// What the caller has read.
        given: String,
        /// What there is.
        current: String,
    },
    /// The workload is on its way out.
    #[error("workload {name} is being deleted; wait until it is gone")]
    BeingDeleted {
        /// The workload.
        name: WorkloadName,
    },
    /// No node is large enough, even when empty.
    #[error("no node is large enough, not even {largest} when it is empty: {lack}")]
    TooLarge {
        /// The node that comes nearest.
        largest: NodeName,
        /// What it lacks.
        lack: Obstacle,
    },
    /// The cluster's address range is used up.
    #[error("no address is left in {cidr}; delete something")]
    NoAddress {
        /// The range.
        cidr: String,
    },
    /// The same request id came with another request.
    #[error("request id {id:?} was used for another request; use a new one")]
    RequestIdReused {
        /// The id.
        id: String,
    },
    /// The task isn't on any node.
    #[error("task {task} is not placed: {why}")]
    NotPlaced {
        /// The task.
        task: TaskId,
        /// Why it isn't.
        why: String,
    },
    /// Only a running task can move.
    #[error("task {task} is not running but {phase:?}; only a running task can move")]
    NotRunning {
        /// The task.
        task: TaskId,
        /// Where it stands.
        phase: TaskPhase,
    },
    /// The task is to end.
    #[error("task {task} is being stopped")]
    Stopping {
        /// The task.
        task: TaskId,
    },
    /// The user said so.
    #[error("task {task} never moves: its workload says `migration: {{mode: never}}`")]
    NeverMoves {
        /// The task.
        task: TaskId,
    },
    /// It is where it is to go.
    #[error("task {task} is on {node} already")]
    AlreadyThere {
        /// The task.
        task: TaskId,
        /// Its node.
        node: NodeName,
    },
    /// One at a time.
    #[error("task {task} is being moved already, by {migration}")]
    AlreadyMoving {
        /// The task.
        task: TaskId,
        /// By what.
        migration: MigrationId,
    },
    /// The task's node can't take part.
    #[error("task {task} can't leave {node}: {obstacle}")]
    SourceUnfit {
        /// The task.
        task: TaskId,
        /// Its node.
        node: NodeName,
        /// Why.
        obstacle: Obstacle,
    },
    /// The chosen node can't take the task.
    #[error("{node} can't take {task}: {obstacle}")]
    TargetUnfit {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeName,
        /// Why.
        obstacle: Obstacle,
    },
    /// No node can take the task.
    #[error("no other node can take {task}: {tally}")]
    NoTarget {
        /// The task.
        task: TaskId,
        /// Every node's reason, counted.
        tally: String,
    },
    /// Too late: the log has decided.
    #[error("{id} is decided: {phase:?}")]
    Decided {
        /// The migration.
        id: MigrationId,
        /// How.
        phase: MigrationPhase,
    },
    /// It belongs to a session that was declared lost, or to one that the
    /// node has since replaced.
    #[error("session {session} of {node} is over; it has to register again")]
    SessionOver {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// A planner's command that the state has overtaken.
    #[error("overtaken: {what}")]
    Overtaken {
        /// What is no longer so.
        what: String,
    },
}

/// What kind of answer a refusal is; chooses the code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A field is wrong whatever the state: `INVALID_ARGUMENT`.
    Invalid,
    /// There is no such thing: `NOT_FOUND`.
    NotFound,
    /// The state has to change first: `FAILED_PRECONDITION`.
    Precondition,
    /// Read again and repeat: `ABORTED`.
    Conflict,
    /// Nothing is left to give: `RESOURCE_EXHAUSTED`.
    Exhausted,
}

impl Refusal {
    /// What kind of answer this is.
    pub fn kind(&self) -> Kind {
        match self {
            Refusal::UnknownWorkload { .. }
            | Refusal::UnknownTask { .. }
            | Refusal::UnknownNode { .. }
            | Refusal::UnknownMigration { .. } => Kind::NotFound,
            Refusal::Invalid { .. } | Refusal::RequestIdReused { .. } => Kind::Invalid,
            Refusal::EtagMismatch { .. } | Refusal::Overtaken { .. } => Kind::Conflict,
            Refusal::NoAddress { .. } => Kind::Exhausted,
            Refusal::BeingDeleted { .. }
            | Refusal::TooLarge { .. }
            | Refusal::NotPlaced { .. }
            | Refusal::NotRunning { .. }
            | Refusal::Stopping { .. }
            | Refusal::NeverMoves { .. }
            | Refusal::AlreadyThere { .. }
            | Refusal::AlreadyMoving { .. }
            | Refusal::SourceUnfit { .. }
            | Refusal::TargetUnfit { .. }
            | Refusal::NoTarget { .. }
            | Refusal::Decided { .. }
            | Refusal::SessionOver { .. } => Kind::Precondition,
        }
    }
}

/// Why one node can't take, or let go of, one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Obstacle {
    /// The leader doesn't hear from it.
    #[error("it is lost")]
    Lost,
    /// An operator keeps new tasks away.
    #[error("it is cordoned")]
    Cordoned,
    /// An operator is emptying it.
    #[error("it is being drained")]
    Draining,
    /// It lacks a label of the node selector.
    #[error("it has no label {label}")]
    Label {
        /// `key=value`.
        label: String,
    },
    /// Something of an earlier stay is left there.
    #[error("{migration} has not been cleaned up there yet")]
    Leftover {
        /// The migration that left it.
        migration: MigrationId,
    },
    /// It has no CRIU that works.
    #[error("it has no working CRIU")]
    NoCriu,
    /// Too little processor.
    #[error("insufficient cpu (needs {needs}, {free} free)")]
    Cpu {
        /// What the task needs.
        needs: CpuMillis,
        /// What is free.
        free: CpuMillis,
    },
    /// Too little memory.
    #[error("insufficient memory (needs {needs}, {free} free)")]
    Memory {
        /// What the task needs.
        needs: MemoryBytes,
        /// What is free.
        free: MemoryBytes,
    },
    /// Too few processes.
    #[error("insufficient pids (needs {needs}, {free} free)")]
    Pids {
        /// What the task needs.
        needs: u64,
        /// What is free.
        free: u64,
    },
}

impl Obstacle {
    /// How much there is of what is short; zero where nothing is counted.
    pub fn free(&self) -> u64 {
        match self {
            Obstacle::Cpu { free, .. } => free.0,
            Obstacle::Memory { free, .. } => free.0,
            Obstacle::Pids { free, .. } => *free,
            Obstacle::Lost
            | Obstacle::Cordoned
            | Obstacle::Draining
            | Obstacle::Label { .. }
            | Obstacle::NoCriu
            | Obstacle::Leftover { .. } => 0,
        }
    }
}
